"""Everything that goes wrong between the job and its database: the output is the old one or the new one, whole."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import pymysql
import pytest

from overlay.table.jdbc import Connection
from tests.runs.faults.conftest import BY_CONNECTOR_J, PART, ROWS, SHORT, SOURCE, WITHIN, Site, Strike
from tests.runs.faults.page import faults
from tests.runs.faults.proxies import Handler, Plan, Rule, after, close

pytestmark = pytest.mark.long

T = TypeVar("T")


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
def table_locked_later(site: Site, seconds: float | None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Locks the table when the source is read, for so many seconds (None: for good).

    The driver engine may begin both at once: here its table waits for the lock.
    """
    locked, batches = threading.Event(), Connection.batches

    def batches_of_a_locked_table(self: Connection, *arguments: Any) -> Iterator[Any]:
        assert locked.wait(60)
        yield from batches(self, *arguments)

    with contextlib.ExitStack() as stack:

        def lock(_handler: Handler) -> None:
            unlock = stack.enter_context(table_locked(site))
            locked.set()
            if seconds is not None:
                threading.Timer(seconds, unlock).start()

        monkeypatch.setattr(Connection, "batches", batches_of_a_locked_table)
        site.aws.rules = [Rule("GET", SOURCE, after(lock))]
        yield


@faults(f"{LATER_LOCK}, for two seconds")
def test_a_later_lock_is_waited_for(site: Site, engine: str, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    with table_locked_later(site, 2, monkeypatch):
        ended = site.run()
    assert site.aws.rules[0].struck == 1
    site.rides_out(fault, ended)


@faults(f"{LATER_LOCK}, for good", f"{LATER_LOCK}, for good{BY_CONNECTOR_J}")
def test_a_later_lock_that_stays(site: Site, engine: str, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    with table_locked_later(site, None, monkeypatch):
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
