"""The pages of the local runtime, in headless Chromium: the run report, and Slack messages as Slack shows them."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from local.__main__ import main
from local.pages import browser, report, slack_page
from local.services.processes import ServiceError
from overlay.report.page import render
from overlay.report.result import LastRun
from overlay.report.slack import success_message
from overlay.settings import make_settings
from tests.samples import ARGUMENTS, COUNTS, REGION, RESULT, failed

EVIL = [
    "<script>document.title='pwned'</script>",
    "<img src=x onerror=\"document.title='pwned'\">",
    "\"'&<b>&amp;",
    "*b*",
]
REPORT = {
    "version": 1,
    "job": "job-a",
    "run_id": "jr_1",
    "language": "en",
    "status": "succeeded",
    "started": "2026-11-24T18:00:00Z",
    "ended": "2026-11-24T18:01:00Z",
    "seconds": 60.0,
    "stages": [
        {"stage": "listing", "start": 1.0, "seconds": 19.0},
        {"stage": "overlay", "start": 20.0, "seconds": 30.0},
    ],
    "source": "s3://lake/in/a.json",
    "destination": "s3://lake/out/a.csv",
    "source_bytes": 1,
    "engine": "driver",
    "engine_reason": "small_source",
    "plan": "scan",
    "plan_reason": "many_ids",
    "counts": {
        "source_records": 1000,
        "matched": 750,
        "source_only": 250,
        "filled_cells": 500,
        "unmatched": 25,
        "source_duplicates": 1,
        "table_duplicates": 0,
        "table_rows": 1000,
        "missing_ids": 0,
    },
    "columns": [
        {"name": "id", "source": 1000, "table": 0, "empty": 0},
        {"name": "zip", "source": 250, "table": 500, "empty": 250},
    ],
    "output": {"bytes": 12345, "etag": "e-1", "fingerprint": ""},
    "unmatched_ids": ["7", "8"],
    "unmatched_file": None,
    "warnings": [{"code": "duplicates", "text": "⚠️ Duplicate ids"}],
    "error": None,
    "failing_since": None,
    "last_success": {"run_id": "jr_1", "ended": "2026-11-24T18:01:00Z", "source_records": 1000, "news": {}},
}


class Page(HTMLParser):
    """A document that a browser has read: its texts, bars (widths in %), links and mentions."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text, self.title = "", ""
        self.widths: list[float] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.mentions = 0
        self._open: list[str] = []
        self.feed(browser.document(path))

    def handle_starttag(self, tag: str, attrs: list) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self._open.append(tag)
        self.widths += map(float, re.findall(r"width:([\d.]+)%", values.get("style") or ""))
        self.links += [values["href"]] if "href" in values else []
        self.mentions += values.get("class") == "mention"

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "title":
            self.title += data
        elif "style" not in self._open[-1:]:
            self.text += data


@pytest.fixture
def opened(tmp_path):
    """Opens a page in the browser."""

    def load(content: str) -> Page:
        (tmp_path / "page.html").write_text(content, encoding="utf-8")
        return Page(tmp_path / "page.html")

    return load


def test_report_page_shows_counts_stages_columns_and_ids(opened):
    page = opened(render(REPORT))
    for text in (
        *("Succeeded", "job-a", "Matched 750 (75.0%)Source only 250 (25.0%)", "500 (25.0%)", "19.0 s"),
        *("25.0% · 50.0% · 25.0%", "7 8", "+23 more", "1 (0.1%)", "2026-11-24 18:01:00 UTC"),
    ):
        assert text in page.text
    assert {75.0, 25.0, 2.5, 50.0} <= set(page.widths)  # shares
    assert {1.667, 31.667, 33.333} <= set(page.widths)  # starts and ends of stages
    assert page.title == "job-a"


@pytest.mark.parametrize(
    ("language", "engine", "text"),
    [
        (
            "en",
            {"engine_reason": "small_source"},
            (
                "Engine and read plandriver (the source and the rows it wants fit into the driver) · "
                "scan (many ids for the size of the table)"
            ),
        ),
        (
            "ja",
            {"engine": "spark", "engine_reason": "engine_forced"},
            "エンジンと読み取り方式spark (--engine の指定) · scan (テーブルに対して id が多い)",
        ),
        ("en", {"engine_reason": ""}, "driver · scan (many ids for the size of the table)"),
    ],
)
def test_report_page_says_which_engine_and_plan_ran_and_why(opened, language, engine, text):
    assert text in opened(render(REPORT | {"language": language} | engine)).text


def test_report_page_draws_the_last_runs_as_a_line(opened):
    runs = [
        {"ended": f"2026-11-{day}T18:01:00Z", "status": "succeeded", "seconds": 9, "source_records": records}
        for day, records in ((22, 500), (23, None), (24, 1000))
    ]
    runs[1]["status"] = "failed"
    page = opened(render(REPORT | {"history": runs, "timezone": "Asia/Tokyo", "dry_run": True}))
    assert (page.tags.count("polyline"), page.tags.count("circle")) == (1, 3)
    for text in ("Records of the last 3 runs", "2026-11-25 03:01:00 JST", "(+100.0% since last time)", "🧪 Succeeded"):
        assert text in page.text
    for text in ("2026-11-24 03:01:00 JST · Failed", "2026-11-25 03:01:00 JST · Succeeded · 1,000"):
        assert text in page.title  # those of the points are read as such, too


def test_report_page_shows_what_the_source_overrides(opened):
    listed = {"url": "s3://lake/out/d.csv", "rows": 2, "bytes": 9, "etag": "e", "fingerprint": ""}
    page = opened(render(REPORT | {"overridden": {"name": 250, "zip": 3}, "differences_file": listed}))
    for text in (
        "Overridden by the source",
        "name250 (25.0%)",
        "zip3 (0.3%)",
        "s3://lake/out/d.csv (the first 2, 251 more)",
    ):
        assert text in page.text


def test_report_page_of_a_failure(opened):
    failed = {name: REPORT[name] for name in ("version", "job", "run_id", "started", "ended", "seconds", "stages")}
    failed |= {name: REPORT[name] for name in ("source", "destination", "last_success")}
    failed |= {
        "status": "failed",
        "language": "ja",
        "error": {"code": "source_missing", "stage": "source", "cause": "原因の文", "hint": "対処の文"},
        "failing_since": "2026-11-23T18:00:00Z",
    }
    page = opened(render(failed))
    for text in ("失敗: 入力の読み取り", "原因の文", "対処の文", "2026-11-23 18:00:00 UTC", "2026-11-24 18:01:00 UTC"):
        assert text in page.text


def test_no_value_of_a_report_becomes_markup(opened):
    evil = " ".join(EVIL)
    hostile = REPORT | {
        "job": evil,
        "run_id": evil,
        "source": f"s3://{evil}",
        "destination": f"s3://{evil}",
        "unmatched_ids": [evil],
        "warnings": [{"code": "duplicates", "text": evil}],
        "columns": [{"name": evil, "source": 1, "table": 2, "empty": 3}],
        "unmatched_file": {"url": f"s3://{evil}", "rows": 1, "bytes": 1, "etag": evil, "fingerprint": ""},
    }
    page = opened(render(hostile))
    assert page.title == evil
    assert page.text.count(evil) >= 8
    assert not {"script", "img", "b"} & set(page.tags)


def test_report_command_reads_files_and_s3(aws, pipeline, tmp_path, capsys):
    pipeline.put(json.dumps(REPORT).encode(), "out/r.json")
    (tmp_path / "r.json").write_text(json.dumps(REPORT))
    for number, location in enumerate((str(tmp_path / "r.json"), "s3://lake/out/r.json")):
        page = tmp_path / f"{number}.html"
        assert main(["report", location, str(page)]) == 0
        assert capsys.readouterr().out.strip() == str(page)
        assert page.read_text(encoding="utf-8") == render(REPORT)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read"),
        ("{", "is not JSON"),
        (json.dumps(REPORT | {"seconds": "<1>"}), "is no run report: $.seconds: '<1>' is not of type 'number'"),
        (json.dumps({name: REPORT[name] for name in REPORT if name != "engine"}), "'engine' is a required property"),
    ],
)
def test_report_command_says_what_is_wrong(tmp_path, content, problem):
    file = tmp_path / "r.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ServiceError, match=re.escape(problem)):
        report.read_report(str(file))


def message(language: str = "en", **changes) -> dict:
    """The message of a success."""
    settings = make_settings(ARGUMENTS | {"language": language, "run_id": "jr_1"})
    return success_message(settings, replace(RESULT, **changes), LastRun(), REGION)


def test_slack_page_shows_what_the_messages_say(opened):
    page = opened(slack_page.render([message(), failed()], datetime.now(UTC)))
    for text in (
        "✅ job-a: published",
        "Matched\n1,000 (83.3%)",
        "scan (many ids for the size of the table)",
        "❌ job-a: failed (reading the source)",
        "Causecause",
    ):
        assert text in page.text
    assert f"https://{REGION}.console.aws.amazon.com/gluestudio/home?region={REGION}#/job/job-a/run/jr_1" in page.links
    assert page.mentions == 0


def test_slack_page_marks_what_would_ping(opened):
    evil = {"text": "", "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": "<!channel> <@U1> *b* _i_"}}]}
    page = opened(slack_page.render([evil], datetime.now(UTC)))
    assert page.mentions == 2
    assert {"b", "i"} <= set(page.tags)


def test_no_value_of_a_message_becomes_markup(opened):
    evil = [*EVIL, "<!channel>", "<@U123>", "_i_ ~s~ :smile:", "<https://a|b>"]
    payload = message(counts=replace(COUNTS, unmatched_ids=evil), output=f"s3://{' '.join(evil)}")
    failure = failed("".join(evil), "\n".join(evil))
    page = opened(slack_page.render([payload, failure], datetime.now(UTC)))
    for value in evil:
        assert page.text.count(value) == 4
    assert page.mentions == 0
    assert page.title == "Slack"
    assert not {"script", "img", "i", "s"} & set(page.tags)
    assert all(link.startswith(f"https://{REGION}.console.aws.amazon.com/") for link in page.links)


def test_pages_are_painted_light_and_dark(tmp_path):
    page, png = tmp_path / "page.html", tmp_path / "page.png"
    page.write_text(render(REPORT), encoding="utf-8")
    pictures = []
    for dark in (False, True):
        browser.picture(page, png, 400, 300, dark=dark)
        data = png.read_bytes()
        assert struct.unpack(">II", data[16:24]) == (400, 300)
        pictures.append(data)
    assert len(pictures[0]) > 5_000
    assert pictures[0] != pictures[1]
