"""Moto's server as a process: prints its port, then serves until it is ended."""

from __future__ import annotations

import logging
import threading
from typing import Any

from moto.iam.access_control import IAMPolicyStatement, PermissionResult
from moto.server import ThreadedMotoServer


def count_loopback_as_secure() -> None:
    """Lets policies that demand TLS allow what comes over loopback; moto itself takes their condition as always met."""
    judge = IAMPolicyStatement.is_action_permitted

    def is_action_permitted(self: IAMPolicyStatement, *args: Any, **options: Any) -> PermissionResult:
        if "aws:SecureTransport" in self._statement.get("Condition", {}).get("Bool", {}):
            return PermissionResult.NEUTRAL
        return judge(self, *args, **options)

    IAMPolicyStatement.is_action_permitted = is_action_permitted


def main() -> None:
    """Serves on a free port of the loopback interface."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    count_loopback_as_secure()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)  # noqa: T201
    threading.Event().wait()


if __name__ == "__main__":
    main()
