"""Moto's server as a process: prints its port, then serves until it is ended."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import deque
from datetime import UTC, datetime
from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.core.utils import camelcase_to_underscores
from moto.glue.exceptions import EntityNotFoundException
from moto.glue.models import FakeConnection
from moto.glue.responses import GlueResponse
from moto.iam.access_control import IAMPolicyStatement, PermissionResult
from moto.s3 import models
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer


def teach_policies() -> None:
    """Lets moto judge three kinds of statements as they are meant here.

    What demands TLS takes loopback as secure (moto takes its condition as always met). What trusts the Glue service
    trusts the local runner, which stands for it (moto knows no service principals). And outside S3, where moto does
    not know the resource of a call, an action that is allowed on some resource is allowed.
    """
    judge = IAMPolicyStatement.is_action_permitted

    def is_action_permitted(
        self: IAMPolicyStatement, action: str, resource: str = "*", *args: Any, **options: Any
    ) -> PermissionResult:
        statement = self._statement
        if "aws:SecureTransport" in statement.get("Condition", {}).get("Bool", {}):
            return PermissionResult.NEUTRAL
        if action == "sts:AssumeRole" and statement.get("Principal") == {"Service": "glue.amazonaws.com"}:
            return PermissionResult.PERMITTED
        if resource == "*" and statement["Effect"] == "Allow" and self._check_element_matches("Action", action):
            return PermissionResult.PERMITTED
        return judge(self, action, resource, *args, **options)

    IAMPolicyStatement.is_action_permitted = is_action_permitted


class Content:
    """The bytes of an S3 object, kept as they are.

    Moto keeps them in a file that it reads whole for every range of it, so that reading an object range by range
    would cost the square of its size. On S3 a range costs the range.
    """

    def __get__(self, key: models.FakeKey, _owner: object = None) -> bytes:
        return key.__dict__["content"]  # type: ignore[no-any-return]

    def __set__(self, key: models.FakeKey, value: bytes | str) -> None:
        content = value.encode() if isinstance(value, str) else bytes(value)
        key.__dict__["content"] = content
        key.contentsize = len(content)
        if key._etag is None:
            key._etag = hashlib.md5(content, usedforsecurity=False).hexdigest()


class NoChecksum:
    """Stands in for moto's checksum over a whole multipart upload, which costs two more copies of it."""

    def __init__(self, *_: object) -> None:
        pass

    def addPart(self, part: bytes) -> None:  # noqa: N802  moto's name
        """Takes a part."""

    def build(self) -> None:
        """The checksum: none, as for an upload that asks for none."""


def date_uploads() -> None:
    """Lets moto report when a multipart upload began; by itself it reports a date in 2010 for all."""
    make, serialize = models.FakeMultipart.__init__, S3Response.serialized

    def begin(self: models.FakeMultipart, *args: Any, **options: Any) -> None:
        make(self, *args, **options)
        self.began = datetime.now(UTC)

    def serialized(self: S3Response, action: ActionResult) -> Any:
        if self.data.get("Action") == "ListMultipartUploads":
            uploads = self.backend.list_multipart_uploads(self.bucket_name)
            for item in action.result["Uploads"]:
                item["Initiated"] = uploads[item["UploadId"]].began.isoformat()
        return serialize(self, action)

    models.FakeMultipart.__init__ = begin
    S3Response.serialized = serialized


def delete_connection(self: GlueResponse) -> EmptyResult:
    """DeleteConnection, which moto 5.2 lacks."""
    name = self.parameters["ConnectionName"]
    if self.glue_backend.connections.pop(name, None) is None:
        raise EntityNotFoundException(f"Connection {name} not found")
    return EmptyResult()


def update_connection(self: GlueResponse) -> EmptyResult:
    """UpdateConnection, which moto 5.2 lacks."""
    backend, name = self.glue_backend, self.parameters["Name"]
    before = backend.get_connection(self.current_account, name, "")
    after = FakeConnection(backend, before.catalog_id, self.parameters["ConnectionInput"], {})
    backend.connections[name] = after
    return EmptyResult()


def update_job(self: GlueResponse) -> ActionResult:
    """UpdateJob, which moto 5.2 lacks."""
    job = self.glue_backend.get_job(self.parameters["JobName"])
    for name, value in self.parameters["JobUpdate"].items():
        setattr(job, camelcase_to_underscores(name), value)
    return ActionResult({"JobName": job.name})


def batch_stop_job_run(self: GlueResponse) -> ActionResult:
    """BatchStopJobRun, which moto 5.2 lacks."""
    name, ids = self.parameters["JobName"], self.parameters["JobRunIds"]
    runs = [run for run in self.glue_backend.get_job(name).job_runs if run.job_run_id in ids]
    for run in runs:
        run.status = "STOPPED"
    stopped = [{"JobName": name, "JobRunId": run.job_run_id} for run in runs]
    return ActionResult({"SuccessfulSubmissions": stopped, "Errors": []})


def update_trigger(self: GlueResponse) -> ActionResult:
    """UpdateTrigger, which moto 5.2 lacks, of the schedule."""
    trigger = self.glue_backend.get_trigger(self.parameters["Name"])
    trigger.schedule = self.parameters["TriggerUpdate"].get("Schedule", trigger.schedule)
    return ActionResult({"Trigger": trigger.as_dict()})


def main() -> None:
    """Serves on a free port of the loopback interface."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    teach_policies()
    date_uploads()
    # Moto keeps every instance for its reset, and with it all bytes that it was ever given.
    models.FakeKey.instances_tracked = models.FakeMultipart.instances_tracked = deque(maxlen=0)
    models.FakeKey.value = Content()
    models.MultipartChecksumBuilder = NoChecksum
    GlueResponse.delete_connection = delete_connection
    GlueResponse.update_connection = update_connection
    GlueResponse.update_job = update_job
    GlueResponse.batch_stop_job_run = batch_stop_job_run
    GlueResponse.update_trigger = update_trigger
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)  # noqa: T201
    threading.Event().wait()


if __name__ == "__main__":
    main()
