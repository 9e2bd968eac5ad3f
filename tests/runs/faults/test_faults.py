"""Everything that goes wrong between the job, AWS and Slack: the output is the old one or the new one, whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from local.services.slack import Reply
from tests.conftest import CLOSED_PORT
from tests.runs.faults.conftest import COMPLETE, LIST, OLD, PART, SHORT, SHORTER, SOURCE, WHOLE, Site, Strike
from tests.runs.faults.page import faults, record
from tests.runs.faults.proxies import (
    Handler,
    Rule,
    after,
    json_error,
    late,
    lose_answer,
    lose_request,
    s3_error,
    tear_answer,
)

pytestmark = pytest.mark.long


SECRET = "GetSecretValue"

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
