"""Moto's server as a process: prints its port, then serves until it is ended."""

from __future__ import annotations

import logging
import threading
from typing import Any

from moto.iam.access_control import IAMPolicyStatement, PermissionResult
from moto.s3 import models
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


class Content:
    """The bytes of an S3 object, kept as they are.

    Moto keeps them in a file that it reads whole for every range of it, so that reading an object range by range
    would cost the square of its size. On S3 a range costs the range.
    """

    def __get__(self, key: models.FakeKey, _owner: object = None) -> bytes:
        return key.__dict__["content"]  # type: ignore[no-any-return]

    def __set__(self, key: models.FakeKey, value: bytes | str) -> None:
        key.__dict__["content"] = value.encode() if isinstance(value, str) else bytes(value)
        key.contentsize = len(key.__dict__["content"])


class NoChecksum:
    """In the place of moto's checksum over a whole multipart upload, of which it makes two more copies for that."""

    def __init__(self, *_: object) -> None:
        pass

    def addPart(self, part: bytes) -> None:  # noqa: N802  moto's name
        """Takes a part."""

    def build(self) -> None:
        """The checksum: none, as for an upload that asks for none."""


def main() -> None:
    """Serves on a free port of the loopback interface."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    teach_policies()
    models.FakeKey.value = Content()
    models.MultipartChecksumBuilder = NoChecksum
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)  # noqa: T201
    threading.Event().wait()


if __name__ == "__main__":
    main()
