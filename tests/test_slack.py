"""Section `slack`: messages within Slack's limits, delivery to a real HTTP receiver within a bound."""

from __future__ import annotations

import inspect
import logging
import re
import socket
import time

import pytest

import glue_job
from glue_job import Message, Result, failure_message, make_settings, post_to_slack, success_message
from local.services import Reply, SlackReceiver
from tests.test_settings import ARGUMENTS

RESULT = Result(
    source_records=1200,
    matched=1000,
    source_only=200,
    filled_cells=3456,
    unmatched=15,
    unmatched_ids=[str(i) for i in range(10)],
    source_duplicates=1,
    missing_ids=2,
    table_rows=1015,
    table_duplicates=3,
    columns=["id"],
    bytes=98765,
    plan="scan",
    seconds=12.3,
    output="s3://lake/out/a.csv",
)


def texts_of(payload: dict) -> list[str]:
    """Every text of a payload's blocks."""
    found = []
    for block in payload["blocks"]:
        found += [item["text"] for item in [block.get("text"), *block.get("fields", [])] if item]
    return found


@pytest.mark.parametrize(
    ("language", "title", "unmatched"),
    [
        (
            "ja",
            "✅ job-a: 出力しました",
            "⚠️ 入力にない id がテーブルに 15 件あります: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 他 5 件",
        ),
        (
            "en",
            "✅ job-a: published",
            "⚠️ 15 table rows have an id that the source lacks: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 +5 more",
        ),
    ],
)
def test_success_message(language, title, unmatched):
    payload = success_message(make_settings(ARGUMENTS | {"language": language}), RESULT)
    texts = texts_of(payload)
    assert payload["text"] == title
    assert texts[0] == title
    assert unmatched in texts
    for number in ("1,200", "1,000", "200", "3,456", "12.3 s", "scan", "s3://lake/out/a.csv (98,765 bytes)"):
        assert any(number in text for text in texts)


@pytest.mark.parametrize(
    ("language", "title", "unchanged"),
    [
        ("ja", "❌ job-a: 失敗しました (入力の読み取り)", "出力ファイル s3://lake/a&amp;b.csv は前回のままです。"),
        ("en", "❌ job-a: failed (reading the source)", "The output s3://lake/a&amp;b.csv is unchanged."),
    ],
)
def test_failure_message(language, title, unchanged):
    message = Message("<!channel> & co", "look")
    payload = failure_message("job-a", "jr_1", language, "source", message, "s3://lake/a&b.csv")
    texts = texts_of(payload)
    assert texts[0] == title
    assert any("&lt;!channel&gt; &amp; co" in text for text in texts)
    assert unchanged in texts


def test_messages_stay_within_slacks_limits():
    huge = Result(**{**vars(RESULT), "unmatched_ids": ["<" * 5000] * 10, "output": "s3://" + "x" * 9000})
    payload = success_message(make_settings(ARGUMENTS), huge)
    assert len(payload["blocks"]) <= 50
    for block in payload["blocks"]:
        limit = 150 if block["type"] == "header" else 3000
        assert len(block.get("text", {}).get("text", "")) <= limit
        assert len(block.get("fields", [])) <= 10
        assert all(len(item["text"]) <= 2000 for item in block.get("fields", []))
    assert sum(map(len, texts_of(payload))) < 10_000


def test_every_stage_has_a_name_in_both_languages():
    assert set(glue_job.TEXTS["ja"]) == set(glue_job.TEXTS["en"])
    stages = set(re.findall(r'progress\("(\w+)"\)', inspect.getsource(glue_job)))
    assert {"secret", "source", "table", "overlay", "publish", "commit"} <= stages <= set(glue_job.TEXTS["en"])


@pytest.fixture
def quick(monkeypatch):
    """Short waits between attempts."""
    monkeypatch.setattr(glue_job, "SLACK_TIMEOUT", (0.5, 0.5))
    real = time.sleep
    monkeypatch.setattr(glue_job.time, "sleep", lambda seconds: real(min(seconds, 0.05)))


def test_no_webhook_posts_nothing():
    assert post_to_slack("", {"text": "x"}) is False


def test_one_post_is_enough(slack: SlackReceiver):
    assert post_to_slack(slack.webhook, {"text": "あ"}) is True
    assert slack.messages == [{"text": "あ"}]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_busy_slack_is_tried_again(slack, quick, status):
    slack.answer(Reply(status=status), Reply(status=status))
    assert post_to_slack(slack.webhook, {"text": "x"}) is True
    assert len(slack.requests) == 3


def test_slow_slack_is_tried_again(slack, quick):
    slack.answer(Reply(delay=1.0))
    assert post_to_slack(slack.webhook, {"text": "x"}) is True


def test_retry_after_is_honoured(slack):
    slack.answer(Reply(status=429, headers={"Retry-After": "2"}))
    start = time.monotonic()
    assert post_to_slack(slack.webhook, {"text": "x"}) is True
    assert time.monotonic() - start >= 2


def test_long_retry_after_does_not_hold_the_run(slack):
    slack.answer(Reply(status=429, headers={"Retry-After": "3600"}))
    start = time.monotonic()
    assert post_to_slack(slack.webhook, {"text": "x"}) is False
    assert time.monotonic() - start < 5


def test_revoked_webhook_is_not_tried_again(slack):
    slack.answer(Reply(status=404, body="no_service"))
    assert post_to_slack(slack.webhook, {"text": "x"}) is False
    assert len(slack.requests) == 1


def test_attempts_are_bounded(slack, quick):
    slack.answer(*[Reply(status=500)] * 10)
    assert post_to_slack(slack.webhook, {"text": "x"}) is False
    assert len(slack.requests) == glue_job.SLACK_ATTEMPTS
    slack.answer()


def test_hanging_server_does_not_hold_the_run(slack):
    slack.answer(Reply(delay=4.0))
    start = time.monotonic()
    assert post_to_slack(slack.webhook, {"text": "x"}, deadline=1.0) is False
    assert time.monotonic() - start < 3


def test_slack_down_is_logged_without_the_webhook(quick, caplog):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        webhook = f"http://127.0.0.1:{unused.getsockname()[1]}/services/T0/B0/tOkEn"
    with caplog.at_level(logging.DEBUG, logger="glue_job"):
        assert post_to_slack(webhook, {"text": "x"}) is False
    assert "Slack attempt 4: ConnectionError" in caplog.text
    assert "tOkEn" not in caplog.text
