"""A deployed pipeline with breakable servers: its database behind a TCP proxy, its S3 behind an HTTP proxy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from local.deploy import Pipeline, deploy
from local.services import Aws, MariaDB, SlackReceiver
from tests import oracle
from tests.conftest import NUMBERS, ROOT
from tests.faults.proxies import HttpServer, Rule, TcpProxy, http_proxy

ROWS, RECORDS = 60_000, 60_000
OLD = b"the object of the last run\n"
BOUND_SECONDS = 240


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        status: 0 when it succeeded.
        messages: What Slack got.
        output: The object at the destination.
        uploads: Multipart uploads that are left.
    """

    status: int
    seconds: float
    log: str
    messages: list[Any]
    output: bytes
    uploads: list[Any]


class Site:
    """The pipeline, its proxies, and what it must publish."""

    def __init__(self, aws: Aws, slack: SlackReceiver, pipeline: Pipeline, database: TcpProxy, s3: HttpServer) -> None:
        self.aws, self.slack, self.pipeline, self.database, self.s3 = aws, slack, pipeline, database, s3
        self.expected = b""

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The run as a process of its own, as Glue has it."""
        endpoint = f"http://127.0.0.1:{self.s3.server_port}"
        return subprocess.Popen(
            [sys.executable, "-m", "local", "run", self.pipeline.job, "--language", "en", *arguments],
            cwd=ROOT,
            env={**os.environ, **self.aws.environment(), "AWS_ENDPOINT_URL": endpoint},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def wait(self, process: subprocess.Popen[str], began: float) -> Ended:
        """The end of a run, which comes within BOUND_SECONDS."""
        try:
            log, _ = process.communicate(timeout=BOUND_SECONDS)
        finally:
            process.kill()
        s3 = self.aws.client("s3")
        bucket, key = self.pipeline.destination_bucket, self.pipeline.destination_file
        return Ended(
            process.returncode,
            time.monotonic() - began,
            log,
            list(self.slack.messages),
            s3.get_object(Bucket=bucket, Key=key)["Body"].read(),
            [upload for upload in s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []) if upload["Key"] == key],
        )

    def run(self, rules: Sequence[Rule] = ()) -> Ended:
        """One run under the rules and the plan of the database's proxy."""
        self.s3.rules = list(rules)
        began = time.monotonic()
        return self.wait(self.start(), began)

    def assert_ridden_out(self, ended: Ended) -> None:
        """The fault did not matter."""
        assert ended.status == 0, ended.log
        assert ended.output == self.expected
        assert not ended.uploads
        assert [message["text"].split(":")[0] for message in ended.messages] == [f"✅ {self.pipeline.job}"]

    def assert_failed_cleanly(self, ended: Ended, cause: str) -> None:
        """Nothing changed but for one message."""
        assert ended.status == 1, ended.log
        assert ended.output == OLD
        assert not ended.uploads
        assert len(ended.messages) == 1
        assert cause in json.dumps(ended.messages[0])


@pytest.fixture(scope="session")
def s3_proxy(aws: Aws) -> Iterator[HttpServer]:
    """The proxy before moto."""
    place = urlsplit(aws.endpoint)
    with http_proxy(place.hostname or "", place.port or 0) as server:
        yield server


@pytest.fixture
def site(aws: Aws, database: MariaDB, slack: SlackReceiver, s3_proxy: HttpServer) -> Iterator[Site]:
    """A pipeline whose last run left an object; the output is some parts long."""
    name = f"fault{next(NUMBERS)}"
    with database.connect(autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE {name} (id INT PRIMARY KEY, name VARCHAR(20), note VARCHAR(400))")
        cursor.execute(f"INSERT INTO {name} SELECT seq, CONCAT('顧客', seq), REPEAT('x', 400) FROM seq_1_to_{ROWS}")
        cursor.execute(f"ANALYZE TABLE {name}")
        cursor.execute(f"SELECT CAST(id AS CHAR), name, note FROM {name}")
        rows = cursor.fetchall()
    source = "\n".join(json.dumps({"id": i, "name": f"新{i}"}) for i in range(100, 100 + RECORDS)).encode()
    with TcpProxy(database.host, database.port) as proxy:
        pipeline = Pipeline(name, name, "lake", f"in/{name}.json", "lake", f"out/{name}.csv", slack.webhook)
        behind = database.port
        database.port = proxy.port
        try:
            deploy(aws, database, pipeline, ROOT / "glue_job.py")
        finally:
            database.port = behind
        s3 = aws.client("s3")
        s3.put_object(Bucket="lake", Key=pipeline.source_key, Body=source)
        s3.put_object(Bucket="lake", Key=pipeline.destination_file, Body=OLD)
        site = Site(aws, slack, pipeline, proxy, s3_proxy)
        site.expected = oracle.overlay([source], ("id", "name", "note"), rows, integer_key=True).csv
        yield site
        s3_proxy.rules = []
