"""Section `slack`: messages within Slack's limits whatever the values, delivery to a real HTTP receiver in time."""

from __future__ import annotations

import inspect
import logging
import re
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import glue_job
from glue_job import (
    Console,
    Failure,
    LastRun,
    Message,
    Result,
    failure_message,
    make_settings,
    post_to_slack,
    share,
    success_message,
)
from local.services import Reply, SlackReceiver
from tests.conftest import CLOSED_PORT
from tests.test_settings import ARGUMENTS

REGION = "ap-northeast-1"
RESULT = Result(
    source_records=1200,
    matched=1000,
    source_only=200,
    filled_cells=240,
    unmatched=15,
    unmatched_ids=[str(i) for i in range(10)],
    source_duplicates=1,
    missing_ids=2,
    table_rows=1015,
    table_duplicates=3,
    columns=["id", "name"],
    bytes=98765,
    plan="scan",
    seconds=12.3,
    output="s3://lake/out/a.csv",
    plan_reason="many_ids",
)
FAILURE = Failure(
    job="job-a",
    run_id="jr_1",
    language="en",
    stage="source",
    message=Message("cause", "hint"),
    output="s3://lake/out/a.csv",
    seconds=83.0,
    since="2026-11-23T18:00:00Z",
    log_group="/aws-glue/jobs/job-a/output",
)


def objects_of(payload: dict) -> list[dict]:
    """Every text object of a payload's blocks."""
    found = []
    for block in payload["blocks"]:
        found += [item for item in [block.get("text"), *block.get("fields", []), *block.get("elements", [])] if item]
    return found


def texts_of(payload: dict) -> list[str]:
    """Every text of a payload's blocks."""
    return [item["text"] for item in objects_of(payload)]


def success(language: str = "en", result: Result = RESULT, last: LastRun | None = None, **arguments: str) -> dict:
    """The message of a success."""
    made = make_settings(ARGUMENTS | {"language": language, "run_id": "jr_1"} | arguments)
    return success_message(made, result, last or LastRun(), REGION)


@pytest.mark.parametrize(
    ("language", "title", "unmatched", "summary"),
    [
        (
            "ja",
            "✅ job-a: 出力しました",
            "⚠️ 入力にない id がテーブルに 15 件あります: `0`, `1`, `2`, `3`, `4`, `5`, `6`, `7`, `8`, `9` 他 5 件",
            (
                "入力レコード 1,200 · 一致 1,000 (83.3%) · 入力のみ 200 (16.7%) · 補完したセル 240 (10.0%) · "
                "テーブルのみ 15 (1.5%) · 所要時間 12.3 s"
            ),
        ),
        (
            "en",
            "✅ job-a: published",
            (
                "⚠️ 15 table rows have an id that the source lacks: `0`, `1`, `2`, `3`, `4`, `5`, `6`, `7`, `8`, `9` "
                "+5 more"
            ),
            (
                "Source records 1,200 · Matched 1,000 (83.3%) · Source only 200 (16.7%) · Cells filled 240 (10.0%) "
                "· Table only 15 (1.5%) · Duration 12.3 s"
            ),
        ),
    ],
)
def test_success_message(language, title, unmatched, summary):
    payload = success(language)
    texts = texts_of(payload)
    assert payload["text"] == f"{title}\n{summary}"
    assert texts[0] == title
    assert unmatched in texts
    for fact in ("\n1,000 (83.3%)", "\n240 (10.0%)", "`s3://lake/out/a.csv`\n98,765 bytes", "scan (", "`jr_1`"):
        assert any(fact in text for text in texts)
    assert any(glue_job.TEXTS[language]["many_ids"] in text for text in texts)


def test_success_message_links_run_output_report_and_list():
    links = dict(re.findall(r"<(https://[^|>]+)\|([^>]+)>", "\n".join(texts_of(success(unmatched_file="out/u 1.csv")))))
    console = f"https://{REGION}.console.aws.amazon.com"
    assert links == {
        f"{console}/gluestudio/home?region={REGION}#/job/job-a/run/jr_1": "Glue run",
        f"{console}/s3/object/lake?region={REGION}&amp;prefix=out%2Fa.csv": "Output in S3",
        f"{console}/s3/object/lake?region={REGION}&amp;prefix=out%2Fa.csv.report.json": "Run report",
        f"{console}/s3/object/lake?region={REGION}&amp;prefix=out%2Fu%201.csv": "List of table-only ids",
    }


def test_a_run_outside_glue_has_no_links():
    made = make_settings(ARGUMENTS)
    assert "https://" not in str(success_message(made, RESULT, LastRun(), ""))


@pytest.mark.parametrize(
    ("language", "warnings"),
    [
        (
            "ja",
            [
                "⚠️ id の重複: 入力 1 件 (すべて出力)、テーブル 3 件 (1 行だけ使用)",
                "⚠️ id のないレコード: 2 件 (補完せずに出力)",
                "⚠️ 入力レコードが前回の半分未満です: 前回 2,401 件、今回 1,200 件",
            ],
        ),
        (
            "en",
            [
                "⚠️ Duplicate ids: 1 in the source (all written), 3 in the table (one row used)",
                "⚠️ Records without an id: 2 (written as they are)",
                "⚠️ Fewer than half of the last run's records: 2,401 then, 1,200 now",
            ],
        ),
    ],
)
def test_warnings_are_in_the_success_message(language, warnings):
    texts = texts_of(success(language, last=LastRun(success={"source_records": 2401})))
    assert [text for text in texts if text in warnings] == warnings
    clean = replace(RESULT, source_duplicates=0, table_duplicates=0, missing_ids=0, unmatched=0, unmatched_ids=[])
    assert "⚠️" not in str(success(language, clean, LastRun(success={"source_records": 2400})))


@pytest.mark.parametrize(
    ("language", "title", "texts"),
    [
        (
            "ja",
            "❌ job-a: 失敗しました (入力の読み取り)",
            ["*原因*", "cause", "*次に確認すること*", "hint", "出力ファイル `s3://lake/out/a.csv` は前回のままです。"],
        ),
        (
            "en",
            "❌ job-a: failed (reading the source)",
            ["*Cause*", "cause", "*Check next*", "hint", "The output `s3://lake/out/a.csv` is unchanged."],
        ),
    ],
)
def test_failure_message(language, title, texts):
    payload = failure_message(replace(FAILURE, language=language), REGION)
    found = texts_of(payload)
    assert payload["text"] == f"{title}\ncause\nhint"
    assert found[0] == title
    assert [text for text in found if text in texts] == texts
    since = glue_job.TEXTS[language]["since"]
    assert f"*{since}*\n<!date^1795456800^{{date_num}} {{time}}|2026-11-23 18:00 UTC>" in found
    assert any("1 min 23 s" in text or "1 分 23 秒" in text for text in found)


def test_failure_message_links_run_and_logs():
    links = dict(re.findall(r"<(https://[^|>]+)\|([^>]+)>", "\n".join(texts_of(failure_message(FAILURE, REGION)))))
    console = f"https://{REGION}.console.aws.amazon.com"
    group = "$252Faws-glue$252Fjobs$252Fjob-a$252Foutput$3FlogStreamNameFilter$3Djr_1"
    assert links == {
        f"{console}/gluestudio/home?region={REGION}#/job/job-a/run/jr_1": "Glue run",
        f"{console}/cloudwatch/home?region={REGION}#logsV2:log-groups/log-group/{group}": "Logs",
    }


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 0, "0"),
        (0, 5, "0 (0.0%)"),
        (5, 5, "5 (100.0%)"),
        (1, 100_000, "1 (&lt;0.1%)"),
        (99_999, 100_000, "99,999 (&gt;99.9%)"),
    ],
)
def test_shares_do_not_round_something_to_nothing(part, whole, text):
    assert share(part, whole) == text


PINGS = ["<!channel>", "<!here>", "<@U123>", "<#C1|x>", "<https://evil|safe>", "@channel", "&lt;!channel&gt;"]
MARKS = [
    "*b*",
    "_i_",
    "~s~",
    "`c`",
    "```\nblock\n```",
    "> quote",
    ":smile:",
    "|",
    "\u202egnp.exe",
    "\x1b[31m",
    "\r\n",
    "\udc80",
]
HOSTILE = st.lists(
    st.sampled_from([*PINGS, *MARKS]) | st.text(max_size=3) | st.sampled_from(["<" * 5000, "&" * 200, "あ" * 3000]),
    min_size=1,
    max_size=4,
).map("".join)
OURS = re.compile(r"<(https://[\w.-]+\.console\.aws\.amazon\.com/[^<>|\s`]*)\|[^<>|]*>|<!date\^\d+\^[^<>]*>")


def check_message(payload: dict) -> None:
    """What Slack takes, and what makes nothing of a value but its characters."""
    blocks = payload["blocks"]
    assert 1 <= len(blocks) <= 50
    assert blocks[0]["text"]["type"] == "plain_text"
    for block in blocks:
        assert block["type"] in {"header", "section", "context"}
        limit = 150 if block["type"] == "header" else 3000
        assert 1 <= len(block.get("text", {"text": "x"})["text"]) <= limit
        assert "fields" not in block or 1 <= len(block["fields"]) <= 10
        assert all(1 <= len(item["text"]) <= 2000 for item in block.get("fields", []))
        assert "elements" not in block or 1 <= len(block["elements"]) <= 10
    texts = texts_of(payload)
    assert sum(map(len, texts)) < 10_000
    assert len(payload["text"]) < 4_000  # what notifications and old clients take
    for text in [*texts, payload["text"]]:
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", text)
        assert not set("<>") & set(OURS.sub("", text))  # neither a mention nor a link but ours
        assert not re.search("&(?!amp;|lt;|gt;)", text)
    for item in objects_of(payload):
        if item["type"] == "plain_text":
            assert item["emoji"] is False
            continue
        assert item["verbatim"] is True
        # Values stand in inline code alone; what is left is our own words, with our own bold names.
        assert item["text"].count("`") % 2 == 0
        for value in re.findall("`([^`]*)`", item["text"]):
            assert value
            assert "\n" not in value
        rest = OURS.sub("", re.sub("`[^`]*`", "", item["text"]))
        for _, bold in re.findall(r"(^|\s)\*([^*]+)\*(?=\n|$)", rest):
            assert bold in {*glue_job.TEXTS["ja"].values(), *glue_job.TEXTS["en"].values()}
        rest = re.sub(r"(^|\s)\*([^*]+)\*(?=\n|$)", "", rest)
        assert not re.search("[*~:]{1}[^ ]*[*~]|evil|U123|smile", rest)


@settings(max_examples=60)
@given(HOSTILE, HOSTILE, HOSTILE, st.lists(HOSTILE, max_size=10), st.sampled_from(["ja", "en"]))
def test_no_value_pings_formats_or_outgrows_a_success(job, run_id, key, ids, language):
    result = replace(RESULT, unmatched_ids=ids, unmatched=10**15, output=f"s3://{key}", matched=10**15, seconds=9e9)
    names = {"JOB_NAME": f"j{job}", "run_id": run_id, "destination_file": f"o{key}o", "unmatched_file": f"u{key}u"}
    payload = success(language, result, LastRun(success={"source_records": 10**18}), **names)
    check_message(payload)
    for number, value in enumerate(ids):
        if 0 < len(value) < 20 and value.isascii() and value.isprintable():
            escaped = glue_job.slack_escape(value.replace("`", "ˋ"))
            assert len(escaped) > 80 or f"`{escaped}`" in str(texts_of(payload)), number


@settings(max_examples=60)
@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE, st.sampled_from(["ja", "en"]))
def test_no_value_pings_formats_or_outgrows_a_failure(job, run_id, cause, place, language):
    failure = replace(FAILURE, job=job, run_id=run_id, message=Message(cause, place), output=place, log_group=job)
    check_message(failure_message(replace(failure, language=language), REGION))


def test_console_pages_quote_every_value():
    console = Console("eu-west-1")
    for url in (console.run("a/b?c", "#d"), console.logs("/g r/", "<x>"), console.object("b", "ä/ &=#<>|.csv")):
        assert re.fullmatch(r"https://eu-west-1\.console\.aws\.amazon\.com/[\w/?=&#:%$.-]+", url)
    assert (console.run("a", ""), console.object("b", ""), Console("").run("a", "b")) == ("", "", "")


def test_every_stage_has_a_name_in_both_languages():
    assert set(glue_job.TEXTS["ja"]) == set(glue_job.TEXTS["en"])
    stages = set(re.findall(r'progress\("(\w+)"\)', inspect.getsource(glue_job)))
    assert {"secret", "source", "table", "overlay", "publish", "commit"} <= stages <= set(glue_job.TEXTS["en"])


@pytest.fixture
def quick(monkeypatch):
    """Short waits between attempts."""
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


def test_slow_slack_gets_the_message_once(slack, monkeypatch):
    monkeypatch.setattr(glue_job, "SLACK_TIMEOUT", (0.5, 0.5))
    slack.answer(Reply(delay=1.0))
    assert post_to_slack(slack.webhook, {"text": "x"}) is False
    until = time.monotonic() + 30
    while not slack.requests and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(1.5)
    assert len(slack.requests) == 1


def test_retry_after_is_honoured(slack):
    slack.answer(Reply(status=429, headers={"Retry-After": "2"}))
    start = time.monotonic()
    assert post_to_slack(slack.webhook, {"text": "x"}) is True
    assert time.monotonic() - start >= 2


def test_long_retry_after_does_not_hold_the_run(slack):
    slack.answer(Reply(status=429, headers={"Retry-After": "3600"}))
    start = time.monotonic()
    assert post_to_slack(slack.webhook, {"text": "x"}) is False
    assert time.monotonic() - start < 30


def test_revoked_webhook_is_not_tried_again(slack):
    slack.answer(Reply(status=404, body="no_service"))
    assert post_to_slack(slack.webhook, {"text": "x"}) is False
    assert len(slack.requests) == 1


def test_attempts_are_bounded(slack, quick):
    slack.answer(*[Reply(status=500)] * 10)
    assert post_to_slack(slack.webhook, {"text": "x"}) is False
    assert len(slack.requests) == glue_job.SLACK_ATTEMPTS


def test_hanging_server_does_not_hold_the_run(slack):
    slack.answer(Reply(delay=9.0))
    start = time.monotonic()
    assert post_to_slack(slack.webhook, {"text": "x"}, deadline=1.0) is False
    assert time.monotonic() - start < 9  # before it answers


def test_slack_down_is_logged_without_the_webhook(quick, caplog):
    webhook = f"http://127.0.0.1:{CLOSED_PORT}/services/T0/B0/tOkEn"
    with caplog.at_level(logging.DEBUG, logger="glue_job"):
        assert post_to_slack(webhook, {"text": "x"}) is False
    assert "Slack attempt 4: ConnectionError" in caplog.text
    assert "tOkEn" not in caplog.text
