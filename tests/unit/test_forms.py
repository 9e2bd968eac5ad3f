"""Modules `report.teams` and `report.document`: the same message as Slack has, as a card and for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.errors import SourceError, Verbatim, phrase
from overlay.report.document import failure_facts, json_document, success_facts
from overlay.report.result import LastRun
from overlay.report.slack_text import as_code, clip, plain, read_spans
from overlay.report.teams import MESSAGE_BYTES, teams_message
from overlay.settings import make_settings
from tests.conftest import ROOT
from tests.samples import ARGUMENTS, COUNTS, RESULT, failed
from tests.unit.test_slack import HOSTILE, success

SCHEMA = jsonschema.Draft7Validator(json.loads((ROOT / "schemas" / "message.schema.json").read_text()))


def card_of(message: Any) -> Any:
    """The card in what Teams gets."""
    [attachment] = teams_message(message)["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    return attachment["content"]


def runs_in(card: Any) -> Iterator[dict[str, str]]:
    """Every run of text of a card."""
    for element in card["body"]:
        yield from element.get("inlines", [])


def lines_in(card: Any) -> list[str]:
    """What a card says beside its facts, line by line."""
    return ["".join(run["text"] for run in item["inlines"]) for item in card["body"] if "inlines" in item]


def facts_in(card: Any) -> dict[str, str]:
    """The facts of a card."""
    return {fact["title"]: fact["value"] for item in card["body"] for fact in item.get("facts", [])}


def test_a_success_as_a_card():
    message = success("en", unmatched_file="out/u.csv", last=LastRun(success={"source_records": 2401}))
    card = card_of(message)
    assert teams_message(message)["type"] == "message"
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    assert facts_in(card) == {
        "Source records": "1,200",
        "Matched": "1,000 (83.3%)",
        "Source only": "200 (16.7%)",
        "Cells filled": "240 (10.0%)",
        "Table only": "15 (1.5%)",
        "Duration": "12.3 s",
        "Engine and read plan": "driver (the source and the rows it wants fit into the driver) "
        "· scan (many ids for the size of the table)",
    }
    assert lines_in(card) == [
        "✅ job-a: published",
        *("Output", "s3://lake/out/a.csv", "98,765 bytes"),
        "⚠️ 15 table rows have an id that the source lacks: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 +5 more",
        "⚠️ Duplicate ids: 1 in the source (all written), 3 in the table (one row used)",
        "⚠️ Records without an id: 2 (written as they are)",
        "⚠️ Fewer than half of the last run's records: 2,401 then, 1,200 now",
        "Run id jr_1",
    ]
    links = {action["title"]: action["url"] for action in card["actions"]}
    assert set(links) == {"Glue run", "Output in S3", "Run report", "List of table-only ids"}
    assert links["Output in S3"].endswith(
        "console.aws.amazon.com/s3/object/lake?region=ap-northeast-1&prefix=out%2Fa.csv"
    )
    assert {action["type"] for action in card["actions"]} == {"Action.OpenUrl"}


def test_a_failure_as_a_card():
    card = card_of(failed(cause="id is `7` *not* <a>", language="ja"))
    assert lines_in(card) == [
        "❌ job-a: 失敗しました (入力の読み取り)",
        *("原因", "id is `7` *not* <a>", "次に確認すること", "hint"),
        "出力ファイル s3://lake/out/a.csv は前回のままです。",
        "実行 ID jr_1",
    ]
    assert facts_in(card) == {"連続失敗の開始": "2026-11-23 18:00 UTC", "所要時間": "1 分 23 秒"}
    assert [action["title"] for action in card["actions"]] == ["Glue の実行", "ログ"]


MARKDOWN = st.lists(
    st.sampled_from(
        ["[a](https://evil)", "**b**", "<at>U</at>", "{{DATE(2017-02-14T06:00:00Z)}}", "{{{", "1. ", "- ", "\\"]
    )
    | HOSTILE,
    min_size=1,
    max_size=3,
).map("".join)


def check_card(message: Any) -> None:
    """Values are in runs, which have no markup; all else is ours."""
    assert len(json.dumps(teams_message(message))) <= MESSAGE_BYTES
    card = card_of(message)
    assert set(card) == {"$schema", "type", "version", "msteams", "body", "actions"}
    assert set(card["msteams"]) == {"width"}  # without entities nobody is mentioned
    assert {item["type"] for item in card["body"]} <= {"RichTextBlock", "FactSet"}
    for run in runs_in(card):
        assert set(run) <= {"type", "text", "fontType", "weight", "size", "isSubtle"}
        assert run["text"]
        assert "{{" not in run["text"]
    for text in (text for fact in facts_in(card).items() for text in fact):
        assert not re.search(r"[\\`*_\[\]{}]|evil|U123", text)
    for action in card["actions"]:
        assert re.fullmatch(r"https://[\w.-]+\.console\.aws\.amazon\.com/[^\s<>|`]*", action["url"])


@settings(max_examples=60)
@given(MARKDOWN, MARKDOWN, MARKDOWN, st.lists(MARKDOWN, max_size=10), st.sampled_from(["ja", "en"]))
def test_no_value_formats_or_outgrows_a_card_of_a_success(job, run_id, key, ids, language):
    key = re.sub("[{}]", "", key)  # in keys they are those of dates, or refused
    counts = replace(COUNTS, unmatched_ids=ids, table_rows=2 * 10**15, matched_rows=10**15, matched=10**15)
    counts = replace(counts, overridden=dict.fromkeys((key, job, *ids), 7))
    findings = (phrase("columns_changed", new=Verbatim(key * 9), gone=Verbatim(job)),)
    result = replace(RESULT, counts=counts, output=f"s3://{key}", seconds=9e9, findings=findings)
    names = {"JOB_NAME": f"j{job}", "run_id": run_id, "destination_file": f"o{key}o", "unmatched_file": f"u{key}u"}
    check_card(success(language, result, LastRun(success={"source_records": 10**18}), **names))


@settings(max_examples=60)
@given(MARKDOWN, MARKDOWN, MARKDOWN, MARKDOWN, st.sampled_from(["ja", "en"]))
def test_no_value_formats_or_outgrows_a_card_of_a_failure(job, run_id, cause, hint, language):
    arguments = {"JOB_NAME": job, "run_id": run_id, "destination_file": hint, "custom-logGroup-prefix": job}
    check_card(failed(cause, hint, language=language, **arguments))


def test_the_largest_message_fits():
    ids = ["😀" * 500] * 10
    overridden = {f"{number}{'😀' * 500}": 10**12 for number in range(20)}
    counts = replace(COUNTS, unmatched_ids=ids, overridden=overridden)
    result = replace(RESULT, counts=counts, output="s3://" + "😀" * 1_000)
    check_card(success("ja", result, JOB_NAME="😀" * 300, run_id="😀" * 300, destination_file="あ" * 130))
    check_card(failed("😀" * 9_000, "😀" * 9_000, JOB_NAME="😀" * 300, destination_file="😀" * 1_000))


@given(HOSTILE)
def test_markup_is_read_back_as_what_it_was_made_of(text):
    code = as_code(text, 10**6)
    assert plain({"type": "plain_text", "text": clip(text, 10**6)}) == plain(
        {"type": "plain_text", "text": clip(text, 10**6)}
    )
    [_, span, _] = read_spans({"type": "mrkdwn", "text": code})
    assert (span.style, span.url) == ("code", "")
    assert as_code(span.text, 10**6) == code


# For programs.


@pytest.mark.parametrize(("dry_run", "status"), [("false", "succeeded"), ("true", "dry_run")])
def test_a_success_for_programs(dry_run, status):
    ran = make_settings(ARGUMENTS | {"language": "en", "run_id": "jr_1", "dry_run": dry_run})
    document = json_document(success("en"), success_facts(ran, replace(RESULT, dry_run=dry_run == "true")))
    SCHEMA.validate(document)
    text = document.pop("text")
    assert text.startswith("Source records: 1,200\nMatched: 1,000 (83.3%)\n")
    assert "Output: s3://lake/out/a.csv, 98,765 bytes\n⚠️ 15 table rows" in text
    assert document == {
        "job": "job-a",
        "run_id": "jr_1",
        "status": status,
        "title": "✅ job-a: published",
        **dict.fromkeys(("stage", "code", "cause", "hint")),
        "source_records": 1200,
        "matched": 1000,
        "source_only": 200,
        "filled_cells": 240,
        "unmatched": 15,
        "source_duplicates": 1,
        "table_duplicates": 3,
        "table_rows": 1015,
        "missing_ids": 2,
        "output": "s3://lake/out/a.csv",
        "report": f"s3://lake/out/a.csv.{'dry-run.' if dry_run == 'true' else ''}report.json",
    }


def test_a_failure_for_programs():
    error, arguments = (
        SourceError("unexpected", problem=Verbatim("`<b>`")),
        ARGUMENTS | {"language": "en", "run_id": ""},
    )
    document = json_document(
        failed("`<b>`", "hint"), failure_facts(error, arguments, "source", make_settings(arguments))
    )
    SCHEMA.validate(document)
    assert (document["status"], document["stage"], document["code"]) == ("failed", "source", "unexpected")
    assert (document["cause"], document["hint"]) == error.message("en")
    assert (document["output"], document["report"]) == ("s3://lake/out/a.csv", "s3://lake/out/a.csv.report.json")
    assert document["source_records"] is None
    assert document["text"].startswith("Cause\n`<b>`\nCheck next\nhint\nThe output s3://lake/out/a.csv is unchanged.\n")
    unread = json_document(failed(), failure_facts(error, arguments, "settings", None))
    SCHEMA.validate(unread)
    assert (unread["output"], unread["report"]) == (None, None)
