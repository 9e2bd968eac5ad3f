"""Everything that goes wrong between the job and its servers: the output is the old one or the new one, whole."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.faults.conftest import OLD, Site
from tests.faults.proxies import Plan, Rule, answer, error_within_200, lose_answer, stall

PART = r"out/fault.*partNumber="
SOURCE = r"in/fault"
COMPLETE = r"out/fault.*uploadId="

TRANSIENT = {
    "source: 503 SlowDown": [Rule("GET", SOURCE, answer(503, "SlowDown"), times=2)],
    "source: 500": [Rule("GET", SOURCE, answer(500, "InternalError"))],
    "source: answer lost": [Rule("GET", SOURCE, lose_answer)],
    "source: slow first byte": [Rule("GET", SOURCE, stall(5))],
    "part: 503 SlowDown": [Rule("PUT", PART, answer(503, "SlowDown"), times=3)],
    "part: 500": [Rule("PUT", PART, answer(500, "InternalError"))],
    "part: answer lost": [Rule("PUT", PART, lose_answer)],
    "complete: 503": [Rule("POST", COMPLETE, answer(503, "SlowDown"))],
    "complete: error within 200": [Rule("POST", COMPLETE, error_within_200)],
}


@pytest.mark.parametrize("fault", TRANSIENT)
def test_transient_faults_of_s3_are_ridden_out(site: Site, fault: str) -> None:
    ended = site.run(TRANSIENT[fault])
    assert all(rule.struck for rule in TRANSIENT[fault])
    site.assert_ridden_out(ended)


LASTING = {
    "source: 503 for good": (Rule("GET", SOURCE, answer(503, "SlowDown"), times=None), "GetObject"),
    "part: 503 for good": (Rule("PUT", PART, answer(503, "SlowDown"), times=None), "SlowDown"),
    "part: expired token": (Rule("PUT", PART, answer(400, "ExpiredToken"), times=None), "ExpiredToken"),
    "complete: 500 for good": (Rule("POST", COMPLETE, answer(500, "InternalError"), times=None), "InternalError"),
}


@pytest.mark.parametrize("fault", LASTING)
def test_lasting_faults_of_s3_fail_the_run_and_leave_the_output(site: Site, fault: str) -> None:
    rule, cause = LASTING[fault]
    site.assert_failed_cleanly(site.run([rule]), cause)


BROKEN = {
    "refused": (Plan(refuse=True), "cannot be reached"),
    "reset within a result": (Plan(after=600_000), "failed"),
    "closed within a result": (Plan(after=600_000, action="close"), "failed"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_lasting_faults_of_the_database_fail_the_run(site: Site, fault: str) -> None:
    plan, cause = BROKEN[fault]
    site.database.follow(plan)
    site.assert_failed_cleanly(site.run(), cause)


@pytest.mark.parametrize(
    "plan", [Plan(after=600_000, times=1), Plan(first_byte=5.0, times=3)], ids=["one reset", "slow first byte"]
)
def test_transient_faults_of_the_database_are_ridden_out(site: Site, plan: Plan) -> None:
    site.database.follow(plan)
    ended = site.run()
    assert site.database.struck
    site.assert_ridden_out(ended)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_run_leaves_the_output_and_the_next_one_cleans_up(site: Site, number: int) -> None:
    """Stopped while parts are on their way; a killed one can clean up nothing."""
    site.s3.rules = [Rule("PUT", PART, stall(60), times=None)]
    began = time.monotonic()
    process = site.start()
    while not site.s3.rules[0].struck:
        assert process.poll() is None
        time.sleep(0.2)
    os.killpg(process.pid, number)
    ended = site.wait(process, began)
    assert ended.output == OLD
    assert number == signal.SIGKILL or not ended.uploads
    site.slack.messages.clear()
    site.assert_ridden_out(site.run())
