"""A pipeline with breakable servers: its database behind a TCP proxy, its AWS behind an HTTP proxy."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import pytest

from local.services.aws import Aws
from local.services.databases import MariaDB
from local.services.slack import SlackReceiver
from overlay.errors import JobError
from overlay.limits import AwsTimeouts, Limits
from overlay.report.result import Result
from reference import oracle
from tests.conftest import CONNECTOR_J, NUMBERS, Pipeline
from tests.runs.faults import page
from tests.runs.faults.proxies import HttpServer, Plan, Rule, TcpProxy, http_proxy

ROWS = 20_000
SMALL = 1_000  # records of a source whose output is small
TABLE_COLUMNS = ("id", "name", "note")
BY_CONNECTOR_J = ", by the driver of MySQL"  # ends the name of a fault that MariaDB's meets otherwise
OLD = b"the object of the last run\n"
BOUND_SECONDS = 300.0
# Requests to S3 as the proxy sees them, by what stands behind the method.
SOURCE = r"/lake/in/fault"
LIST = r"/lake\?.*prefix=out"
PART = r"/lake/out/fault.*partNumber="
COMPLETE = r"/lake/out/fault.*uploadId="
WHOLE = r"/lake/out/fault\w*\.csv $"
# Bytes of the result set of a scan; no other answer of the database is half as long.
WITHIN = 600_000
# What the job waits for, made short (docs/reliability.md has the values in use).
SHORT = Limits(
    aws=AwsTimeouts(attempts=4, connect_seconds=3, read_seconds=4),
    socket_seconds=2.5,
    lock_seconds=1,
    first_waits=(0.5, 1),
    later_waits=(0.5, 0.5, 1, 2, 4),
    patience_seconds=8,
)
SHORTER = replace(SHORT, aws=AwsTimeouts(attempts=3, connect_seconds=3, read_seconds=3))


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        result: What it returned; None when it failed, or was a process of its own.
        error: What it raised; None when it succeeded.
        messages: What Slack got.
        output: The object at the destination.
        uploads: Multipart uploads to it that are left.
    """

    result: Result | None
    error: JobError | None
    seconds: float
    messages: list[Any]
    output: bytes
    uploads: list[Any]


Strike = Callable[..., Ended]  # the fixture `strike`


class Site:
    """The pipeline, its proxies, and what it must publish."""

    def __init__(self, pipeline: Pipeline, database: TcpProxy, aws: HttpServer, slack: SlackReceiver) -> None:
        self.pipeline, self.database, self.aws, self.slack = pipeline, database, aws, slack
        self.source = b"\n".join(b'{"id":%d,"name":"new %d"}' % (i, i) for i in range(100, 100 + ROWS))
        with pipeline.database.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT CAST(id AS CHAR), name, note FROM {pipeline.name}")
            self._rows = list(cursor.fetchall())
        self.expected = self.whole = self.expect(self.source)

    def expect(self, source: bytes) -> bytes:
        """What a run on this source must publish."""
        return oracle.overlay([source], TABLE_COLUMNS, self._rows, integer_key=True).csv

    def prepare(self) -> None:
        """Sound servers, the source, and the object of the last run."""
        self.database.follow(Plan())
        self.aws.rules = ()
        self.expected = self.whole
        self.pipeline.put(self.source)
        self.pipeline.put(OLD, f"out/{self.pipeline.name}.csv")
        self.pipeline.secret()

    def shrink(self) -> None:
        """A source whose output is one PutObject of the driver engine."""
        source = b"\n".join(self.source.splitlines()[:SMALL])
        self.pipeline.put(source)
        self.expected = self.expect(source)

    def run(self, bound: float = BOUND_SECONDS, **arguments: str) -> Ended:
        """One run in this process, which ends within `bound` seconds."""
        began, result, error = time.monotonic(), None, None
        try:
            result = self.pipeline.run(language="en", **arguments)
        except JobError as caught:
            error = caught
        ended = self.ended(began, result, error)
        assert ended.seconds < bound
        return ended

    def ended(self, began: float, result: Result | None = None, error: JobError | None = None) -> Ended:
        """Collects how the run ended: output, uploads and messages as they are now."""
        key = f"out/{self.pipeline.name}.csv"
        uploads = [upload for upload in self.pipeline.uploads() if upload["Key"] == key]
        seconds = time.monotonic() - began
        return Ended(result, error, seconds, list(self.slack.messages), self.pipeline.output(), uploads)

    def rides_out(self, fault: str, ended: Ended, messages: int = 1) -> None:
        """Checks that the fault did not matter."""
        assert ended.error is None, str(ended.error)
        assert ended.output == self.expected
        assert not ended.uploads
        titles = [message["text"].splitlines()[0] for message in ended.messages]
        assert len(titles) == messages
        assert all(title.startswith("✅") and title.endswith("published") for title in titles)
        page.record(fault, self.pipeline.engine, "ridden out", ended.seconds)

    def fails_cleanly(self, fault: str, ended: Ended, cause: str, messages: int = 1) -> None:
        """Checks that nothing changed but for one message."""
        assert ended.error
        assert cause in str(ended.error)
        assert ended.output == OLD
        assert not ended.uploads
        assert len(ended.messages) == messages
        for message in ended.messages:
            assert message["text"].startswith(f"❌ job-{self.pipeline.name}: failed")
            assert "is unchanged" in json.dumps(message)
        outcome = "one message" if messages else "no message: the webhook was not to be had"
        page.record(fault, self.pipeline.engine, f"failed, output unchanged, {outcome}", ended.seconds)


@pytest.fixture(scope="session")
def aws_proxy(aws: Aws) -> Iterator[HttpServer]:
    """The proxy before moto."""
    endpoint = urlsplit(aws.endpoint)
    with http_proxy(endpoint.hostname or "", endpoint.port or 0) as server:
        yield server


@pytest.fixture(scope="session")
def whole_site(
    spark: Any, aws: Aws, database: MariaDB, slack_server: SlackReceiver, aws_proxy: HttpServer
) -> Iterator[Site]:
    """The pipeline of all faults; its output is two parts long, and its result set fills no buffer between."""
    name = f"fault{next(NUMBERS)}"
    with TcpProxy(database.host, database.port) as proxy:
        pipeline = Pipeline(spark, aws, database, name, slack_server.webhook)
        pipeline.sql(
            f"CREATE TABLE {name} (id INT PRIMARY KEY, name VARCHAR(20), note VARCHAR(1000))",
            f"INSERT INTO {name} SELECT seq, CONCAT('顧客', seq), REPEAT('x', 800) FROM seq_1_to_{ROWS}",
            f"ANALYZE TABLE {name}",
        )
        yield Site(pipeline, proxy, aws_proxy, slack_server)


@pytest.fixture
def site(
    whole_site: Site, slack: SlackReceiver, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Site]:
    """The pipeline, sound, with short timeouts, on the engine of the test or else the one that the job chooses.

    Its parameter is a Limits, for a test that needs other ones.
    """
    monkeypatch.setenv("AWS_ENDPOINT_URL", whole_site.aws.url)
    # PySpark gives workers that are asked for with another environment a process of their own, with their own clients.
    environment = whole_site.pipeline.spark.sparkContext.environment
    monkeypatch.setitem(environment, "AWS_ENDPOINT_URL", whole_site.aws.url)
    if hasattr(request, "param"):
        monkeypatch.setitem(environment, "FAULT", str(next(NUMBERS)))
    pipeline = whole_site.pipeline
    pipeline.limits = getattr(request, "param", SHORT)
    pipeline.engine = request.getfixturevalue("engine") if "engine" in request.fixturenames else "auto"
    pipeline.driver = CONNECTOR_J if BY_CONNECTOR_J in request.node.name else ""
    pipeline.connection(**pipeline.properties(whole_site.database.port))
    whole_site.prepare()
    yield whole_site
    whole_site.prepare()


@pytest.fixture
def strike(site: Site) -> Strike:
    """Runs the pipeline under rules of the one proxy and the plan of the other, which have to happen."""

    def run(rules: Sequence[Rule] = (), plan: Plan | None = None, **arguments: str) -> Ended:
        for rule in rules:
            rule.struck = 0
        site.aws.rules = rules
        site.database.follow(plan or Plan())
        ended = site.run(**arguments)
        assert all(rule.struck for rule in rules)
        assert plan is None or site.database.struck
        return ended

    return run
