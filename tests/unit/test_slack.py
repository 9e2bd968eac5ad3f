"""Module `report.slack`: messages within Slack's limits whatever the values, in both languages."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.engines.cost import choose
from overlay.errors import Verbatim, phrase
from overlay.report.result import LastRun, Result
from overlay.report.slack import ID_LIMIT, success_message
from overlay.report.slack_text import Console, change, clip, duration, share, size_text, slack_escape, texts, visible
from overlay.settings import make_settings
from overlay.table.lookup import lookup_reason
from tests.conftest import ROOT
from tests.samples import ARGUMENTS, COUNTS, REGION, RESULT, failed
from tests.texts import objects_in, texts_in


def success(
    language: str = "en", result: Result = RESULT, last: LastRun | None = None, **arguments: str
) -> Mapping[str, Any]:
    """The message of a success."""
    settings = make_settings(ARGUMENTS | {"language": language, "run_id": "jr_1"} | arguments)
    return success_message(settings, result, last or LastRun(), REGION)


@pytest.mark.parametrize(
    ("language", "title", "unmatched", "summary"),
    [
        (
            "ja",
            "✅ job-a: 出力しました",
            "⚠️ テーブルのみの行が 15 件あります。id: `0`, `1`, `2`, `3`, `4`, `5`, `6`, `7`, `8`, `9` 他 5 件",
            (
                "入力レコード 1,200 · 一致 1,000 (83.3%) · 入力のみ 200 (16.7%) · 補完したセル 240 (10.0%) · "
                "テーブルのみ 15 (1.5%) · 所要時間 12.3 秒"
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
    message_texts = texts_in(payload)
    assert payload["text"] == f"{title}\n{summary}"
    assert message_texts[0] == title
    assert unmatched in message_texts
    for fact in ("\n1,000 (83.3%)", "\n240 (10.0%)", "`s3://lake/out/a.csv`\n98,765 ", "scan (", "`jr_1`"):
        assert any(fact in text for text in message_texts)
    assert any(texts(language)["many_ids"] in text for text in message_texts)


@pytest.mark.parametrize("language", ["ja", "en"])
def test_engine_and_plan_are_one_fact_with_their_reasons(language):
    words = texts(language)
    both = f"driver ({words['small_source']}) · scan ({words['many_ids']})"
    assert f"*{words['engine']}*\n{both}" in texts_in(success(language))
    bare = replace(RESULT, engine="spark", engine_reason="", plan_reason="")
    assert f"*{words['engine']}*\nspark · scan" in texts_in(success(language, bare))


def test_every_reason_for_an_engine_or_a_plan_has_a_text():
    answers = [
        answer
        for function in (choose, lookup_reason)
        for answer in ast.walk(ast.parse(inspect.getsource(function)))
        if isinstance(answer, ast.Return)
    ]
    words = {part.value for answer in answers for part in ast.walk(answer) if isinstance(part, ast.Constant)}
    reasons = {*words, "index_unused", "engine_forced", "memory_short"} - {"driver", "spark"}
    assert {"small_source", "large_source", "large_table", "few_ids", "no_index"} <= reasons
    assert reasons <= set(texts("en"))


def test_success_message_links_run_output_report_and_list():
    links = dict(re.findall(r"<(https://[^|>]+)\|([^>]+)>", "\n".join(texts_in(success(unmatched_file="out/u 1.csv")))))
    console = f"https://{REGION}.console.aws.amazon.com"
    assert links == {
        f"{console}/gluestudio/home?region={REGION}#/job/job-a/run/jr_1": "Glue run",
        f"{console}/s3/object/lake?region={REGION}&amp;prefix=out%2Fa.csv": "Output in S3",
        f"{console}/s3/object/lake?region={REGION}&amp;prefix=out%2Fa.csv.report.html": "Run report",
        f"{console}/s3/object/lake?region={REGION}&amp;prefix=out%2Fu%201.csv": "List of table-only ids",
    }


def test_counts_are_told_beside_those_of_the_last_success():
    last = LastRun(success={"source_records": 1186, "counts": {"source_records": 1186, "unmatched": 15}})
    message_texts = texts_in(success(last=last))
    assert "*Source records*\n1,200 (+1.2% since last time)" in message_texts
    assert "*Table only*\n15 (1.5%) (±0 since last time)" in message_texts
    assert "ℹ️ 15 table rows have an id" in str(message_texts)
    assert "*入力レコード*\n1,200 (前回比 +1.2%)" in texts_in(success("ja", last=last))
    none_before = LastRun(success={"source_records": 1200, "counts": {"source_records": 1200, "unmatched": 0}})
    message_texts = texts_in(success(last=none_before))
    assert "*Table only*\n15 (1.5%) (+15 since last time)" in message_texts
    assert "⚠️ 15 table rows have an id" in str(message_texts)


@pytest.mark.parametrize(
    ("now", "before", "text"),
    [
        *((3, None, ""), (5, 5, "±0"), (3, 0, "+3"), (30_001, 30_000, "+1")),
        *((2, 1, "+100.0%"), (0, 2, "-100.0%"), (3, 30_000, "-99.9%")),
    ],
)
def test_a_change_is_a_percentage_where_it_is_one(now, before, text):
    assert change(now, before) == text


def test_a_dry_run_says_so_and_links_to_its_own_report():
    payload = success(result=replace(RESULT, dry_run=True), dry_run="true", unmatched_file="out/u.csv")
    assert texts_in(payload)[0] == "🧪 job-a: dry run, nothing was written"
    links = dict(re.findall(r"<(https://[^|>]+)\|([^>]+)>", "\n".join(texts_in(payload))))
    assert sorted(links.values()) == ["Glue run", "Run report"]
    assert any(link.endswith("prefix=out%2Fa.csv.dry-run.report.html") for link in links)


def test_overridden_cells_are_told_by_column_and_how_many_are_not_listed():
    counts = replace(COUNTS, overridden={"zip": 3, "name": 12_000})
    listed = {"url": "s3://lake/out/d.csv", "rows": 10_000}
    result = replace(RESULT, counts=counts, differences_file=listed)
    told = str(texts_in(success(result=result, differences_file="out/d.csv")))
    assert "ℹ️ Values of the table that the source overrides: `name` 12,000, `zip` 3" in told
    assert "|List of overridden values (the first 10,000, 2,003 more)>" in told
    told = str(texts_in(success("ja", result=result, differences_file="out/d.csv")))
    assert "ℹ️ テーブルの値を入力で上書きしたセル: `name` 12,000, `zip` 3" in told
    assert "|上書きした値の一覧 (先頭 10,000 件、他 2,003 件)>" in told
    whole = replace(result, differences_file=listed | {"rows": 12_003})
    assert "|List of overridden values>" in str(texts_in(success(result=whole, differences_file="out/d.csv")))


def test_the_guard_says_where_it_had_nothing_to_compare_with():
    note = "ℹ️ The guard compared nothing: there is no report of a success yet"
    assert note in texts_in(success(guard_max_drop_percent="50"))
    assert note not in texts_in(success(guard_max_drop_percent="50", last=LastRun(success={"source_records": 1200})))


def test_a_run_outside_glue_has_no_links():
    settings = make_settings(ARGUMENTS)
    assert "https://" not in str(success_message(settings, RESULT, LastRun(), ""))


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
    message_texts = texts_in(success(language, last=LastRun(success={"source_records": 2401})))
    assert [text for text in message_texts if text in warnings] == warnings
    counts = replace(COUNTS, source_duplicates=0, table_duplicates=0, missing_ids=0, table_rows=1000, unmatched_ids=[])
    clean = replace(RESULT, counts=counts)
    assert "⚠️" not in str(success(language, clean, LastRun(success={"source_records": 2400})))


@pytest.mark.parametrize(
    ("language", "title", "expected"),
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
def test_failure_message(language, title, expected):
    payload = failed(language=language)
    message_texts = texts_in(payload)
    assert payload["text"] == f"{title}\ncause\nhint"
    assert message_texts[0] == title
    assert [text for text in message_texts if text in expected] == expected
    since = texts(language)["since"]
    assert f"*{since}*\n<!date^1795456800^{{date_num}} {{time}}|2026-11-23 18:00 UTC>" in message_texts
    assert any("1 min 23 s" in text or "1 分 23 秒" in text for text in message_texts)


def test_failure_message_links_run_and_logs():
    links = dict(re.findall(r"<(https://[^|>]+)\|([^>]+)>", "\n".join(texts_in(failed()))))
    console = f"https://{REGION}.console.aws.amazon.com"
    groups = "$3FlogGroupNameFilter$3D$252Faws-glue$252Fjobs$252Fjob-a$252F"
    assert links == {
        f"{console}/gluestudio/home?region={REGION}#/job/job-a/run/jr_1": "Glue run",
        f"{console}/cloudwatch/home?region={REGION}#logsV2:log-groups{groups}": "Logs",
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
    message_texts = texts_in(payload)
    assert sum(map(len, message_texts)) < 10_000
    assert len(payload["text"]) < 4_000  # what notifications and old clients take
    for text in [*message_texts, payload["text"]]:
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", text)
        assert not set("<>") & set(OURS.sub("", text))  # neither a mention nor a link but ours
        assert not re.search("&(?!amp;|lt;|gt;)", text)
    for item in objects_in(payload):
        if item["type"] == "plain_text":
            assert item["emoji"] is False
            continue
        assert item["verbatim"] is True
        # Values stand in inline code alone; what is left is our own words, with our own bold names.
        assert item["text"].count("`") % 2 == 0
        for value in re.findall("`([^`]*)`", item["text"]):
            assert value
            assert "\n" not in value
        ours = OURS.sub("", re.sub("`[^`]*`", "", item["text"]))
        for _, bold in re.findall(r"(^|\s)\*([^*]+)\*(?=\n|$)", ours):
            assert bold in {*texts("ja").values(), *texts("en").values()}
        ours = re.sub(r"(^|\s)\*([^*]+)\*(?=\n|$)", "", ours)
        assert not re.search("[*~:]{1}[^ ]*[*~]|evil|U123|smile", ours)


@settings(max_examples=60)
@given(HOSTILE, HOSTILE, HOSTILE, st.lists(HOSTILE, max_size=10), st.sampled_from(["ja", "en"]))
def test_no_value_pings_formats_or_outgrows_a_success(job, run_id, key, ids, language):
    key = re.sub("[{}]", "", key)  # in keys they are those of dates, or refused
    counts = replace(COUNTS, unmatched_ids=ids, table_rows=2 * 10**15, matched_rows=10**15, matched=10**15)
    columns = phrase("columns_changed", new=Verbatim(job), gone=Verbatim(run_id))
    result = replace(RESULT, counts=counts, output=f"s3://{key}", seconds=9e9, findings=(columns,))
    names = {"JOB_NAME": f"j{job}", "run_id": run_id, "destination_file": f"o{key}o", "unmatched_file": f"u{key}u"}
    payload = success(language, result, LastRun(success={"source_records": 10**18}), **names)
    check_message(payload)
    for number, value in enumerate(ids):
        if 0 < len(value) < 20 and value.isascii() and value.isprintable():
            escaped = slack_escape(value.replace("`", "ˋ"))
            assert len(escaped) > ID_LIMIT or f"`{escaped}`" in "\n".join(texts_in(payload)), number


@settings(max_examples=60)
@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE, st.sampled_from(["ja", "en"]))
def test_no_value_pings_formats_or_outgrows_a_failure(job, run_id, cause, hint, language):
    arguments = {"JOB_NAME": job, "run_id": run_id, "destination_file": hint, "custom-logGroup-prefix": job}
    check_message(failed(cause, hint, language=language, **arguments))


def test_console_pages_quote_every_value():
    console = Console("eu-west-1")
    for url in (console.run("a/b?c", "#d"), console.logs("/g r/<x>"), console.object("b", "ä/ &=#<>|.csv")):
        assert re.fullmatch(r"https://eu-west-1\.console\.aws\.amazon\.com/[\w/?=&#:%$.-]+", url)
    assert (console.run("a", ""), console.object("b", ""), Console("").run("a", "b")) == ("", "", "")


def test_every_stage_has_a_name_in_both_languages():
    stages = set(re.findall(r'run\.stage\("(\w+)"\)', (ROOT / "glue_job.py").read_text()))
    assert {"secret", "source", "table", "overlay", "publish"} <= stages
    for language in ("ja", "en"):
        assert {"settings", *stages} <= set(texts(language))  # `settings` before the first


@given(HOSTILE, st.integers(1, 40))
def test_a_value_is_cut_between_characters_and_escapes(text, limit):
    cut = clip(text, limit)
    whole = slack_escape(visible(text))
    assert len(cut) <= limit
    if len(whole) <= limit:
        assert cut == whole
    else:
        assert cut.endswith("…")
        assert whole.startswith(cut[:-1])
    assert not re.search("&(?!amp;|lt;|gt;)", cut)


@pytest.mark.parametrize(
    ("seconds", "english", "japanese"),
    [
        (0, "0.0 s", "0.0 秒"),
        (12.34, "12.3 s", "12.3 秒"),
        (59.6, "1 min 0 s", "1 分 0 秒"),
        (83, "1 min 23 s", "1 分 23 秒"),
        (6e5, "10,000 min 0 s", "10,000 分 0 秒"),
    ],
)
def test_time_spans_are_in_minutes_and_seconds(seconds, english, japanese):
    assert (duration(seconds, "en"), duration(seconds, "ja")) == (english, japanese)


@pytest.mark.parametrize(("size", "text"), [(0, "0 bytes"), (98_765, "98,765 bytes"), (5 * 2**20, "5.0 MiB")])
def test_sizes_are_in_mib_from_one_on(size, text):
    assert size_text(size, "en") == text
    assert size_text(size, "ja") == text.replace("bytes", "バイト")
