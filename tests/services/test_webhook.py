"""Module `report.notify`: delivery to a real HTTP receiver, in time, and without a word of the webhook."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

import pytest

from local.services.slack import Reply, SlackReceiver
from overlay.limits import Limits
from overlay.report import notify as report_notify
from overlay.report.notify import notify
from overlay.report.teams import teams_message
from tests.conftest import CLOSED_PORT
from tests.samples import failed

LIMITS = Limits()


def post_to_slack(webhook: str, payload: dict, limits: Limits, seconds: float | None = None) -> bool:
    """Posts to Slack alone."""
    return notify({"slack_webhook": webhook}, payload, {}, limits, seconds)


@pytest.fixture
def quick(monkeypatch):
    """Short waits between attempts."""
    real = time.sleep
    monkeypatch.setattr(report_notify.time, "sleep", lambda seconds: real(min(seconds, 0.05)))


def test_no_webhook_posts_nothing():
    assert notify({}, {"text": "x"}, {}, LIMITS) is False
    assert post_to_slack("", {"text": "x"}, LIMITS) is False


def test_one_post_is_enough(slack: SlackReceiver):
    assert post_to_slack(slack.webhook, {"text": "あ"}, LIMITS) is True
    assert slack.messages == [{"text": "あ"}]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_busy_slack_is_tried_again(slack, quick, status):
    slack.answer(Reply(status=status), Reply(status=status))
    assert post_to_slack(slack.webhook, {"text": "x"}, LIMITS) is True
    assert len(slack.requests) == 3


def test_slow_slack_gets_the_message_once(slack):
    """After a read timeout Slack has the message, and may yet show it."""
    limits = replace(LIMITS, slack_connect_seconds=0.5, slack_read_seconds=0.5)
    slack.answer(Reply(delay=1.0))
    assert post_to_slack(slack.webhook, {"text": "x"}, limits) is False
    until = time.monotonic() + 30
    while not slack.requests and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(1.5)
    assert len(slack.requests) == 1


def test_retry_after_is_honoured(slack):
    slack.answer(Reply(status=429, headers={"Retry-After": "2"}))
    start = time.monotonic()
    assert post_to_slack(slack.webhook, {"text": "x"}, LIMITS) is True
    assert time.monotonic() - start >= 2


def test_long_retry_after_does_not_hold_the_run(slack):
    slack.answer(Reply(status=429, headers={"Retry-After": "3600"}))
    start = time.monotonic()
    assert post_to_slack(slack.webhook, {"text": "x"}, LIMITS) is False
    assert time.monotonic() - start < 30


def test_revoked_webhook_is_not_tried_again(slack):
    slack.answer(Reply(status=404, body="no_service"))
    assert post_to_slack(slack.webhook, {"text": "x"}, LIMITS) is False
    assert len(slack.requests) == 1


@pytest.mark.parametrize("status", [400, 302, 202, 204, 500])
def test_what_slack_says_is_logged_in_short_and_without_the_webhook(slack, quick, caplog, status):
    page = f"invalid_blocks {slack.webhook} {slack.webhook.rpartition('/')[2]} {'x' * 1_000}"
    slack.answer(*[Reply(status=status, body=page)] * 4)
    assert post_to_slack(slack.webhook, {"text": "x"}, LIMITS) is False
    [line, *_] = [line for line in caplog.messages if line.startswith("Slack attempt 1: ")]
    said = "''" if status == 204 else "'invalid_blocks *** *** xxx"  # which has no body
    assert line.startswith(f"Slack attempt 1: HTTP {status} {said}")
    assert len(line) < 250
    assert not any(part in caplog.text for part in slack.webhook.split("/")[5:])


def test_attempts_are_bounded(slack, quick):
    slack.answer(*[Reply(status=500)] * 10)
    assert post_to_slack(slack.webhook, {"text": "x"}, LIMITS) is False
    assert len(slack.requests) == LIMITS.slack_attempts


def test_the_limits_say_how_often(slack, quick):
    slack.answer(*[Reply(status=500)] * 10)
    assert post_to_slack(slack.webhook, {"text": "x"}, replace(LIMITS, slack_attempts=2)) is False
    assert len(slack.requests) == 2


def test_the_limits_say_how_long_all_attempts_may_take(slack):
    slack.answer(Reply(delay=3.0))
    start = time.monotonic()
    assert post_to_slack(slack.webhook, {"text": "x"}, replace(LIMITS, slack_seconds=0.2)) is False
    assert time.monotonic() - start < 2


def test_a_redirect_takes_the_webhook_nowhere(slack):
    slack.answer(Reply(status=307, headers={"Location": slack.webhook}))
    assert post_to_slack(slack.webhook, {"text": "x"}, LIMITS) is False
    assert len(slack.requests) == 1


def test_hanging_server_does_not_hold_the_run(slack):
    slack.answer(Reply(delay=9.0))
    start = time.monotonic()
    assert post_to_slack(slack.webhook, {"text": "x"}, LIMITS, seconds=1.0) is False
    assert time.monotonic() - start < 9  # before it answers


def test_slack_down_is_logged_without_the_webhook(quick, caplog):
    url = f"http://127.0.0.1:{CLOSED_PORT}/services/T0/B0/tOkEn"
    with caplog.at_level(logging.INFO), caplog.at_level(logging.DEBUG, logger="overlay"):
        assert post_to_slack(url, {"text": "x"}, LIMITS) is False
    assert "Slack attempt 4: ConnectionError" in caplog.text
    assert caplog.messages[-1] == "Slack did not take the message; the run goes on without it"
    assert "tOkEn" not in caplog.text


# Teams, and programs.


def test_each_webhook_gets_the_message_in_its_form(slack, teams, program):
    message, facts = failed(), {"job": "job-a", "status": "failed"}
    webhooks = {"slack_webhook": slack.webhook, "teams_webhook": teams.webhook, "json_webhook": program.webhook}
    assert notify(webhooks, message, facts, LIMITS) is True
    assert slack.messages == [message]
    assert teams.messages == [teams_message(message)]
    [document] = program.messages
    assert document == facts | {"title": message["blocks"][0]["text"]["text"], "text": document["text"]}


def test_one_that_takes_the_message_is_enough(slack, teams, caplog):
    slack.answer(Reply(404, "no_service"))
    assert notify({"slack_webhook": slack.webhook, "teams_webhook": teams.webhook}, failed(), {}, LIMITS) is True
    assert caplog.messages[-1] == "Slack did not take the message; the run goes on without it"
    teams.answer(Reply(404), Reply(404))
    slack.answer(Reply(404, "no_service"))
    assert notify({"slack_webhook": slack.webhook, "teams_webhook": teams.webhook}, failed(), {}, LIMITS) is False


def test_one_that_hangs_takes_no_time_from_the_others(slack, teams):
    slack.answer(Reply(delay=9.0))
    start = time.monotonic()
    webhooks = {"slack_webhook": slack.webhook, "teams_webhook": teams.webhook}
    assert notify(webhooks, failed(), {}, LIMITS, seconds=1.0) is True
    assert time.monotonic() - start < 5
    assert len(teams.messages) == 1


@pytest.mark.parametrize("status", [200, 202, 204])
def test_any_success_is_one_for_teams(teams, status):
    teams.answer(Reply(status=status, body=""))
    assert notify({"teams_webhook": teams.webhook}, failed(), {}, LIMITS) is True
    assert len(teams.requests) == 1


def test_busy_teams_is_tried_again(teams, quick):
    teams.answer(Reply(status=429), Reply(status=502))
    assert notify({"teams_webhook": teams.webhook}, failed(), {}, LIMITS) is True
    assert len(teams.messages) == 1


@pytest.mark.parametrize(("name", "log"), [("teams_webhook", "Teams"), ("json_webhook", "JSON webhook")])
def test_what_others_say_is_logged_without_the_webhook(teams, caplog, name, log):
    signature = teams.webhook.rpartition("=")[2]
    teams.answer(Reply(401, f"no {teams.webhook} {signature}"))
    assert notify({name: teams.webhook}, failed(), {}, LIMITS) is False
    assert f"{log} attempt 1: HTTP 401 'no *** ***'" in caplog.messages
    assert signature not in caplog.text


def test_a_message_that_cannot_be_made_fails_no_run(teams, caplog):
    assert notify({"teams_webhook": teams.webhook}, {"blocks": []}, {}, LIMITS) is False
    assert "posting to Teams failed: ValueError; the run goes on without it" in caplog.messages
