"""Moto's server as a process: prints its port, then serves until it is ended."""

from __future__ import annotations

import logging
import threading
from typing import Any

from moto.iam.access_control import IAMPolicyStatement, PermissionResult
from moto.server import ThreadedMotoServer


def teach_policies() -> None:
    """Lets moto judge two kinds of statements as they are meant here.

    What demands TLS takes loopback as secure (moto takes its condition as always met), and what trusts the Glue
    service trusts the local runner, which stands for it (moto knows no service principals).
    """
    judge = IAMPolicyStatement.is_action_permitted

    def is_action_permitted(self: IAMPolicyStatement, action: str, *args: Any, **options: Any) -> PermissionResult:
        statement = self._statement
        if "aws:SecureTransport" in statement.get("Condition", {}).get("Bool", {}):
            return PermissionResult.NEUTRAL
        if action == "sts:AssumeRole" and statement.get("Principal") == {"Service": "glue.amazonaws.com"}:
            return PermissionResult.PERMITTED
        return judge(self, action, *args, **options)

    IAMPolicyStatement.is_action_permitted = is_action_permitted


def main() -> None:
    """Serves on a free port of the loopback interface."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    teach_policies()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)  # noqa: T201
    threading.Event().wait()


if __name__ == "__main__":
    main()
