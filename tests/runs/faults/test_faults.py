"""Everything that goes wrong between the job and its servers: the output is the old one or the new one, whole."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import pymysql
import pytest

from local.services.slack import Reply
from tests.conftest import CLOSED_PORT
from tests.runs.faults.conftest import BY_CONNECTOR_J, OLD, ROWS, SHORT, SHORTER, Ended, Site
from tests.runs.faults.page import faults, record
from tests.runs.faults.proxies import (
    Handler,
    Plan,
    Rule,
    after,
    close,
    json_error,
    late,
    lose_answer,
    lose_request,
    s3_error,
    tear_answer,
)

pytestmark = pytest.mark.long

Strike = Callable[..., Ended]
T = TypeVar("T")

SOURCE = r"/lake/in/fault"
LIST = r"/lake\?.*prefix=out"
PART = r"/lake/out/fault.*partNumber="
COMPLETE = r"/lake/out/fault.*uploadId="
WHOLE = r"/lake/out/fault\w*\.csv $"
SECRET = "GetSecretValue"
WITHIN = 600_000  # bytes of the result set of a scan; no other answer of the database is half as long

# S3 and Secrets Manager.


# What S3 answers to CompleteMultipartUpload when that is done; moto says yes again.
NO_UPLOAD = Rule("POST", COMPLETE, s3_error(404, "NoSuchUpload"), times=None)
PASSING_RULES = {
    "source: 503 SlowDown, twice": [Rule("GET", SOURCE, s3_error(503, "SlowDown"), times=2)],
    "source: 500": [Rule("GET", SOURCE, s3_error(500, "InternalError"))],
    "source: connection reset": [Rule("GET", SOURCE, lose_request)],
    "source: reset in the middle of the answer": [Rule("GET", SOURCE, tear_answer)],
    "source: slow first byte": [Rule("GET", SOURCE, late(2))],
    "source: stall": [Rule("GET", SOURCE, late(6))],
    "part: 503 SlowDown, twice": [Rule("PUT", PART, s3_error(503, "SlowDown"), times=2)],
    "part: 500": [Rule("PUT", PART, s3_error(500, "InternalError"))],
    "part: stall": [Rule("PUT", PART, late(6))],
    "part: it arrived, the answer was lost": [Rule("PUT", PART, lose_answer)],
    "complete: 503 SlowDown": [Rule("POST", COMPLETE, s3_error(503, "SlowDown"))],
    "complete: 500": [Rule("POST", COMPLETE, s3_error(500, "InternalError"))],
    # S3 may begin its answer before it knows how that ends (S3 API reference, CompleteMultipartUpload).
    "complete: an error within a 200": [Rule("POST", COMPLETE, s3_error(200, "InternalError"))],
    "complete: it was done, the answer was lost": [Rule("POST", COMPLETE, lose_answer), NO_UPLOAD],
    "complete: it was done, all answers were lost": [Rule("POST", COMPLETE, lose_answer, times=None)],
}


@faults(*PASSING_RULES)
def test_passing_faults_of_s3_are_ridden_out(site: Site, engine: str, strike: Strike, fault: str) -> None:
    site.rides_out(fault, strike(PASSING_RULES[fault]))


# An output that is one PutObject, which only the driver engine makes.
PASSING_WHOLES = {
    "put: 503 SlowDown, twice": [Rule("PUT", WHOLE, s3_error(503, "SlowDown"), times=2)],
    "put: stall": [Rule("PUT", WHOLE, late(6))],
    "put: it arrived, the answer was lost": [Rule("PUT", WHOLE, lose_answer)],
    "put: it arrived, all answers were lost": [Rule("PUT", WHOLE, lose_answer, times=None)],
}


@faults(*PASSING_WHOLES)
def test_passing_faults_of_a_small_output_are_ridden_out(site: Site, strike: Strike, fault: str) -> None:
    site.shrink()
    site.rides_out(fault, strike(PASSING_WHOLES[fault]))


LASTING_WHOLES = {
    "put: 503 SlowDown for good": (Rule("PUT", WHOLE, s3_error(503, "SlowDown"), times=None), "SlowDown"),
    "put: expired credentials": (Rule("PUT", WHOLE, s3_error(400, "ExpiredToken"), times=None), "ExpiredToken"),
}


@pytest.mark.parametrize("site", [SHORTER], indirect=True)
@faults(*LASTING_WHOLES)
def test_lasting_faults_of_a_small_output_fail_the_run(site: Site, strike: Strike, fault: str) -> None:
    site.shrink()
    rule, cause = LASTING_WHOLES[fault]
    site.fails_cleanly(fault, strike([rule]), cause)


@pytest.mark.parametrize("site", [SHORTER], indirect=True)
@faults("put: no answer for good")
def test_what_nobody_can_know_of_a_small_output_is_said(site: Site, strike: Strike, fault: str) -> None:
    site.shrink()
    ended = strike([Rule("PUT", WHOLE, lose_request, times=None)])
    assert "S3 did not tell whether it replaced" in str(ended.error)
    assert ended.output == OLD
    [message] = ended.messages
    assert "unchanged" not in json.dumps(message)
    record(fault, site.pipeline.engine, "failed, one message that the output may be new", ended.seconds)


@faults("Secrets Manager: throttled once")
def test_a_throttled_call_is_repeated(site: Site, strike: Strike, fault: str) -> None:
    site.rides_out(fault, strike([Rule("POST", SECRET, json_error("ThrottlingException"))]))


LASTING_RULES = {
    "source: 503 SlowDown for good": (Rule("GET", SOURCE, s3_error(503, "SlowDown"), times=None), "SlowDown"),
    "source: stall for good": (Rule("GET", SOURCE, late(6), times=None), "ReadTimeoutError"),
    "part: 503 SlowDown for good": (Rule("PUT", PART, s3_error(503, "SlowDown"), times=None), "SlowDown"),
    "part: expired credentials": (Rule("PUT", PART, s3_error(400, "ExpiredToken"), times=None), "ExpiredToken"),
    "complete: 500 for good": (Rule("POST", COMPLETE, s3_error(500, "InternalError"), times=None), "InternalError"),
    "complete: an error within a 200 for good": (
        Rule("POST", COMPLETE, s3_error(200, "InternalError"), times=None),
        "s3:PutObject",
    ),
}


@pytest.mark.parametrize("site", [SHORTER], indirect=True)  # a client tires of asking again
@faults(*LASTING_RULES)
def test_lasting_faults_of_s3_fail_the_run(site: Site, engine: str, strike: Strike, fault: str) -> None:
    rule, cause = LASTING_RULES[fault]
    site.fails_cleanly(fault, strike([rule]), cause)


@faults("executors: S3 refuses connections for good")
def test_executors_that_cannot_reach_s3(site: Site, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    environment = site.pipeline.spark.sparkContext.environment
    monkeypatch.setitem(environment, "AWS_ENDPOINT_URL", f"http://127.0.0.1:{CLOSED_PORT}")
    site.pipeline.engine = "spark"
    site.fails_cleanly(fault, site.run(), "EndpointConnectionError")


@faults("Secrets Manager: throttled for good")
def test_without_a_secret_there_is_no_webhook_to_tell(site: Site, strike: Strike, fault: str) -> None:
    ended = strike([Rule("POST", SECRET, json_error("ThrottlingException"), times=None)])
    site.fails_cleanly(fault, ended, "ThrottlingException", messages=0)


@faults("complete: it was done, the answer was lost, and the output may not be listed")
def test_what_nobody_can_know_is_said(site: Site, engine: str, strike: Strike, fault: str) -> None:
    def deny_from_now(_handler: Handler, send: Callable[[], object]) -> None:
        send()
        site.aws.rules = [Rule("GET", LIST, s3_error(403, "AccessDenied"), times=None), NO_UPLOAD]

    ended = strike([Rule("POST", COMPLETE, deny_from_now)])
    assert site.aws.rules[0].struck
    assert "S3 did not tell whether it replaced" in str(ended.error)
    assert ended.output == site.expected
    assert not ended.uploads
    [message] = ended.messages
    assert "unchanged" not in json.dumps(message)
    record(fault, engine, "failed, output whole and new, one message that it may be new", ended.seconds)


# The database.


def by_both_drivers(plans: Mapping[str, T]) -> dict[str, T]:
    """The faults, and the same again: each driver has its own words for a lost connection."""
    return {**plans, **{name + BY_CONNECTOR_J: plan for name, plan in plans.items()}}


# What strikes before the table is described, which is before there is an engine.
PASSING_REFUSALS = by_both_drivers(
    {
        "database: connection refused once": Plan(refuse=True, times=1),
        "database: connection refused for some seconds": Plan(refuse=True, times=2),
    }
)
PASSING_PLANS = by_both_drivers(
    {
        "database: reset in the middle of a result set": Plan(after=WITHIN, times=1),
        "database: closed in the middle of a result set": Plan(after=WITHIN, then=close, times=1),
        "database: five resets in the middle of a result set": Plan(after=WITHIN, times=5),
        "database: stall in the middle of a result set": Plan(after=WITHIN, then=lambda _: None, stalls=True, times=1),
        "database: slow first byte": Plan(first_byte=2.0, times=2),
    }
)


@faults(*PASSING_REFUSALS)
def test_a_database_that_is_not_reached_at_first(site: Site, strike: Strike, fault: str) -> None:
    site.rides_out(fault, strike(plan=PASSING_REFUSALS[fault]))


@faults(*PASSING_PLANS)
def test_passing_faults_of_the_database_are_ridden_out(site: Site, engine: str, strike: Strike, fault: str) -> None:
    site.rides_out(fault, strike(plan=PASSING_PLANS[fault]))


@pytest.mark.parametrize("site", [replace(SHORT, lookup_rows_min=1, rows_per_lookup=1)], indirect=True)
@faults("database: reset in the middle of a lookup")
def test_a_lookup_is_asked_again(site: Site, strike: Strike, fault: str) -> None:
    source = b"\n".join(site.source.splitlines()[: ROWS // 2])
    site.pipeline.put(source)
    site.expected = site.expect(source)
    ended = strike(plan=Plan(after=WITHIN, times=1))
    site.rides_out(fault, ended)
    assert ended.result
    assert ended.result.plan == "lookup"


@faults("database: reset while the list of table-only ids is read")
def test_a_list_is_asked_for_again(site: Site, engine: str, fault: str) -> None:
    """It is read once the parts of the output are there."""
    parts = iter(range(1, 3))
    in_the_list = Plan(after=100_000, times=1)

    def break_database(_handler: Handler) -> None:
        if next(parts) == 2:
            site.database.follow(in_the_list)

    site.aws.rules = [Rule("PUT", PART, after(break_database), times=None)]
    key = f"lists/{site.pipeline.name}.csv"
    site.rides_out(fault, site.run(unmatched_file=key))
    assert site.database.struck == 1
    ids = site.pipeline.aws.client("s3").get_object(Bucket="lake", Key=key)["Body"].read().split()
    assert ids == [b"id", *(b"%d" % number for number in range(1, 100))]
    assert not site.pipeline.uploads()


REFUSAL_FOR_GOOD = "database: connection refused for good"


@faults(REFUSAL_FOR_GOOD, REFUSAL_FOR_GOOD + BY_CONNECTOR_J)
def test_a_database_that_is_not_reached_at_all(site: Site, strike: Strike, fault: str) -> None:
    site.fails_cleanly(fault, strike(plan=Plan(refuse=True)), "cannot be reached")


STALL = Plan(after=WITHIN, then=lambda _: None, stalls=True)
LASTING_PLANS = by_both_drivers(
    {"database: reset in the middle of each result set": (Plan(after=WITHIN), "failed")}
) | {
    "database: stall for good": (STALL, "the connection was lost, or timed out"),
    f"database: stall for good{BY_CONNECTOR_J}": (STALL, "Read timed out"),
}


@faults(*LASTING_PLANS)
def test_lasting_faults_of_the_database_fail_the_run(site: Site, engine: str, strike: Strike, fault: str) -> None:
    plan, cause = LASTING_PLANS[fault]
    site.fails_cleanly(fault, strike(plan=plan), cause)


@faults("database: login refused", f"database: login refused{BY_CONNECTOR_J}")
def test_a_refused_login_is_not_tried_again(site: Site, fault: str) -> None:
    site.pipeline.secret(password="wrong")
    with site.pipeline.database.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Aborted_connects'")
        before = int(cursor.fetchone()[1])
        site.fails_cleanly(fault, site.run(), "refused the login")
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Aborted_connects'")
        assert int(cursor.fetchone()[1]) == before + 1


@faults("database: restarted during a scan")
def test_a_restart_during_a_scan(site: Site, engine: str, fault: str) -> None:
    reading = threading.Event()
    site.database.follow(Plan(after=WITHIN, then=lambda _: reading.set(), times=1))
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(site.run)
        assert reading.wait(120)
        site.pipeline.database.restart(pause=1)  # here, as a server ends with the thread that started it
        site.rides_out(fault, run.result())


@contextlib.contextmanager
def all_connections_taken(site: Site) -> Iterator[contextlib.ExitStack]:
    """Takes all connections of the server; what is yielded gives them back."""
    with contextlib.ExitStack() as connections, site.pipeline.database.connect(autocommit=True) as owner:
        with owner.cursor() as cursor:
            cursor.execute("SELECT @@max_connections")
            [before] = cursor.fetchone()
            cursor.execute("SET GLOBAL max_connections = 10")
        try:
            for _ in range(5):  # the server gives back connections that ended only when it comes to it
                with contextlib.suppress(pymysql.OperationalError):
                    while True:
                        connections.enter_context(site.pipeline.database.connect())
                time.sleep(0.1)
            yield connections
        finally:
            with owner.cursor() as cursor:
                cursor.execute(f"SET GLOBAL max_connections = {before}")


@faults("database: max_connections reached for a second")
def test_a_full_server_is_waited_for(site: Site, fault: str) -> None:
    with all_connections_taken(site) as connections:
        timer = threading.Timer(1.0, connections.close)
        timer.start()
        site.rides_out(fault, site.run())


@faults("database: max_connections reached for good", f"database: max_connections reached for good{BY_CONNECTOR_J}")
def test_a_server_that_stays_full(site: Site, fault: str) -> None:
    with all_connections_taken(site):
        ended = site.run()
    site.fails_cleanly(fault, ended, "Too many connections")


@contextlib.contextmanager
def table_locked(site: Site) -> Iterator[Callable[[], None]]:
    """Locks the table as somebody does who writes under LOCK TABLES; what is yielded unlocks it."""
    with site.pipeline.database.connect(autocommit=True) as owner, owner.cursor() as cursor:
        cursor.execute(f"LOCK TABLES {site.pipeline.name} WRITE")
        yield lambda: cursor.execute("UNLOCK TABLES")


@faults("database: table locked for two seconds")
def test_a_lock_is_waited_for(site: Site, fault: str) -> None:
    with table_locked(site) as unlock:
        threading.Timer(2.0, unlock).start()
        ended = site.run()
    site.rides_out(fault, ended)


@faults("database: table locked for good", f"database: table locked for good{BY_CONNECTOR_J}")
def test_a_lock_that_stays(site: Site, fault: str) -> None:
    with table_locked(site):
        ended = site.run()
    site.fails_cleanly(fault, ended, "Lock wait timeout")


# A lock that is there before the run meets the description of the table, one that comes later what an engine asks.
LATER_LOCK = "database: table locked once the source is read"


@contextlib.contextmanager
def table_locked_later(site: Site, seconds: float | None) -> Iterator[None]:
    """Locks the table when the source is read, for so many seconds (None: for good)."""
    with contextlib.ExitStack() as stack:

        def lock(_handler: Handler) -> None:
            unlock = stack.enter_context(table_locked(site))
            if seconds is not None:
                threading.Timer(seconds, unlock).start()

        site.aws.rules = [Rule("GET", SOURCE, after(lock))]
        yield


@faults(f"{LATER_LOCK}, for two seconds")
def test_a_later_lock_is_waited_for(site: Site, engine: str, fault: str) -> None:
    with table_locked_later(site, 2):
        ended = site.run()
    assert site.aws.rules[0].struck == 1
    site.rides_out(fault, ended)


@faults(f"{LATER_LOCK}, for good", f"{LATER_LOCK}, for good{BY_CONNECTOR_J}")
def test_a_later_lock_that_stays(site: Site, engine: str, fault: str) -> None:
    with table_locked_later(site, None):
        ended = site.run()
    site.fails_cleanly(fault, ended, "Lock wait timeout")


def kill_queries(site: Site) -> int:
    """Does what a DBA does to scans; returns how many it ended."""
    with site.pipeline.database.connect(autocommit=True) as dba, dba.cursor() as cursor:
        scans = "info LIKE '%AS c0%' AND id <> CONNECTION_ID()"
        cursor.execute(f"SELECT id FROM information_schema.processlist WHERE {scans}")
        ids = [row[0] for row in cursor.fetchall()]
        for number in ids:
            cursor.execute(f"KILL QUERY {number}")
    return len(ids)


@faults("database: query killed once", f"database: query killed once{BY_CONNECTOR_J}")
def test_a_killed_query_is_asked_again(site: Site, engine: str, strike: Strike, fault: str) -> None:
    killed: list[int] = []
    plan = Plan(after=WITHIN, then=lambda _: killed.append(kill_queries(site)), times=1)
    site.rides_out(fault, strike(plan=plan))
    assert killed == [1]


@faults("database: query killed each time")
def test_a_query_that_is_killed_each_time(site: Site, engine: str, strike: Strike, fault: str) -> None:
    site.fails_cleanly(fault, strike(plan=Plan(after=WITHIN, then=lambda _: kill_queries(site))), "interrupted")


# Slack.

SLACK = {
    "Slack: 429 with Retry-After": ([Reply(429, headers={"Retry-After": "2"}), Reply()], 1),
    "Slack: slow": ([Reply(delay=4)], 1),
    "Slack: 500 twice": ([Reply(500), Reply(500), Reply()], 1),
    "Slack: 404, the webhook was revoked": ([Reply(404, "no_service")], 0),
}


@faults(*SLACK)
def test_faults_of_slack_do_not_touch_the_run(site: Site, fault: str) -> None:
    replies, messages = SLACK[fault]
    site.slack.answer(*replies)
    site.rides_out(fault, site.run(), messages)
    assert [request.status for request in site.slack.requests] == [reply.status for reply in replies]


@faults("Slack: down")
def test_slack_that_is_down(site: Site, fault: str) -> None:
    site.pipeline.secret(slack_webhook=f"http://127.0.0.1:{CLOSED_PORT}/services/x")
    site.rides_out(fault, site.run(), messages=0)


# Two at once.

MOMENTS = {
    "two runs at once: the second runs while the first uploads": ("PUT", PART),
    "two runs at once: the second runs before the first completes": ("POST", COMPLETE),
}


@pytest.mark.parametrize("site", [replace(SHORT, aws=replace(SHORT.aws, read_seconds=60))], indirect=True)
@faults(*MOMENTS)
def test_the_last_whole_object_wins(site: Site, engine: str, fault: str) -> None:
    """The second run, on another source, begins and ends inside the first."""
    other_source = site.source.replace(b'"new ', b'"newer ')
    outputs: list[bytes] = []

    def run_the_second(_handler: Handler) -> None:
        site.pipeline.put(other_source)
        site.pipeline.run(language="en")
        outputs.append(site.pipeline.output())

    method, target = MOMENTS[fault]
    site.aws.rules = [Rule(method, target, after(run_the_second))]
    ended = site.run()
    assert outputs == [site.expect(other_source)]
    site.rides_out(fault, ended, messages=2)
