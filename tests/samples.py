"""What tests of several modules begin with: job arguments, a secret, a run that published and one that failed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from overlay.errors import Message
from overlay.merge import Counts
from overlay.report.result import Result
from overlay.report.slack import failure_message
from overlay.secret import Secret

REGION = "ap-northeast-1"
ARGUMENTS = {
    "JOB_NAME": "job-a",
    "secret_name": "a",
    "connection_name": "a",
    "source_bucket": "lake",
    "source_key": "in/a.json",
    "destination_bucket": "lake",
    "destination_file": "out/a.csv",
}
SECRET_VALUES = {
    "username": "etl",
    "password": "p@ss",
    "db_name": "shop",
    "table_name": "customers",
    "slack_webhook": "https://hooks.slack.com/services/T1/B1/token",
}
SECRET = Secret(name="a", **SECRET_VALUES)
COUNTS = Counts(
    source_records=1200,
    matched=1000,
    table_rows=1015,
    matched_rows=1000,
    unmatched_ids=[str(number) for number in range(10)],
    source_duplicates=1,
    missing_ids=2,
    table_duplicates=3,
    coverage=np.array([[1198, 0, 2], [760, 240, 200]]),
)
RESULT = Result(
    counts=COUNTS,
    columns=["id", "name"],
    bytes=98765,
    rows=1200,
    engine="driver",
    engine_reason="small_source",
    plan="scan",
    plan_reason="many_ids",
    seconds=12.3,
    output="s3://lake/out/a.csv",
)


def failed(cause: str = "cause", hint: str = "hint", **arguments: str) -> dict[str, Any]:
    """The message of a run that failed reading its source."""
    error = SimpleNamespace(code="unexpected", message=lambda _language: Message(cause, hint))
    progress = SimpleNamespace(stage="source", seconds=83.0)
    arguments = ARGUMENTS | {"language": "en", "run_id": "jr_1"} | arguments
    return failure_message(error, arguments, progress, "2026-11-23T18:00:00Z", REGION)
