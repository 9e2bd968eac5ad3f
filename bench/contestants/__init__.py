"""What a user would pick instead of the job: a module each, run in an environment of its own (requirements/bench.txt).

A contestant reads the source from S3 and the table from MariaDB, writes the CSV to S3, and tells what the job tells:
how many records matched, how many rows of the table the source lacks, and the first ten ids of these. One is not like
that: plain PySpark runs in the job's environment, has a session to start, and tells nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol
from urllib.parse import quote

import boto3
from botocore.config import Config

from bench.data import COLUMNS

VARIABLE = "BENCH_TASK"
PARTITIONS = 8  # connectorx: of 1, 2, 4, 8 the fastest on two cores


@dataclass(frozen=True)
class Task:
    """What there is to do.

    Attributes:
        records, rows: Sizes of source and table.
        array: Whether the source is one JSON array, not JSON Lines.
        output_bytes: Size of the CSV, for the floor, which writes as many bytes; 0 where nobody has written it yet.
        seconds: What the loop over rows may take; where it would take longer it is extrapolated.
        sample_seconds: What it takes at least before that is decided.
    """

    host: str
    port: int
    user: str
    password: str
    database: str
    source_bucket: str
    source_key: str
    destination_bucket: str
    destination_key: str
    records: int
    rows: int
    array: bool
    output_bytes: int
    seconds: float
    sample_seconds: float

    def url(self, scheme: str) -> str:
        """The database as a URL."""
        return f"{scheme}://{self.user}:{quote(self.password, safe='')}@{self.host}:{self.port}/{self.database}"

    def source(self) -> BinaryIO:
        """The source object as a stream."""
        return s3_client().get_object(Bucket=self.source_bucket, Key=self.source_key)["Body"]  # type: ignore[no-any-return]

    def publish(self, content: BinaryIO | bytes) -> None:
        """Puts the CSV into S3."""
        s3_client().put_object(Bucket=self.destination_bucket, Key=self.destination_key, Body=content)


class Contestant(Protocol):
    """A module of this package; one that has a session to start has a function `start`, which is timed apart."""

    LIBRARIES: tuple[str, ...]

    def run(self, task: Task) -> Mapping[str, Any]:
        """Does the task; returns the counts (`matched`, `unmatched`, `unmatched_ids`)."""


def s3_client() -> Any:
    """An S3 client without the checksums that newer versions of boto3 add and Glue's does not know."""
    names = ("request_checksum_calculation", "response_checksum_validation")
    config = Config(**{name: "when_required" for name in names if name in Config.OPTION_DEFAULTS})
    return boto3.client("s3", config=config, endpoint_url=os.environ["AWS_ENDPOINT_URL"])


def table_query(condition: str = "") -> str:
    """The table with its values as the database prints them; only the id is a number."""
    texts = [name if name == "id" else f"CAST({name} AS CHAR) AS {name}" for name in COLUMNS]
    return f"SELECT {', '.join(texts)} FROM big {condition}".rstrip()
