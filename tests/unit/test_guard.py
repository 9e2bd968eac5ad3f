"""Module `report.guard`: what of an output is implausible beside the last success."""

from __future__ import annotations

from dataclasses import replace

import pytest

from overlay.errors import OutputError, Verbatim, joined
from overlay.merge import Counts
from overlay.report.guard import find_implausible
from overlay.settings import Guard, make_settings
from tests.samples import ARGUMENTS

COUNTS = Counts(source_records=90, matched=45, table_rows=1000, matched_rows=45)
LAST = {"source_records": 100, "columns": ["id", "name"]}
NAMES = ("id", "name")


def texts_of(guard: Guard, counts: Counts = COUNTS, columns=NAMES, last=LAST, language: str = "en") -> list[str]:
    """What it finds, for people."""
    return [found.text(language) for found in find_implausible(guard, counts, columns, last)]


@pytest.mark.parametrize(
    ("guard", "english", "japanese"),
    [
        (
            Guard(max_drop_percent=9),
            "the source has 10 records fewer than in the last success (10.0% of 100, guard.max_drop_percent 9)",
            "前回の成功より 10 件少ない (100 件の 10.0%、guard.max_drop_percent 9)",
        ),
        (
            Guard(min_match_percent=51),
            "45 of 90 records are in the table (50.0%, guard.min_match_percent 51)",
            "一致したレコードが 90 件中 45 件 (50.0%、guard.min_match_percent 51)",
        ),
        (
            Guard(max_unmatched_percent=95),
            "955 of 1,000 table rows have an id that the source lacks (95.5%, guard.max_unmatched_percent 95)",
            "テーブルのみが 1,000 行中 955 行 (95.5%、guard.max_unmatched_percent 95)",
        ),
    ],
)
def test_a_share_beyond_its_limit_is_found(guard, english, japanese):
    assert texts_of(guard) == [english]
    assert texts_of(guard, language="ja") == [japanese]


@pytest.mark.parametrize(
    "guard",
    [
        Guard(),
        Guard(max_drop_percent=10),
        Guard(min_match_percent=50),
        Guard(max_unmatched_percent=96),
        Guard(same_columns=True),
    ],
)
def test_what_is_within_the_limits_passes(guard):
    assert texts_of(guard) == []


def test_more_records_than_before_are_no_drop():
    assert texts_of(Guard(max_drop_percent=0), replace(COUNTS, source_records=10**9)) == []


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        (("id", "zip", "name"), "the columns are not those of the last success (guard.same_columns): new zip, gone -"),
        (("id",), "the columns are not those of the last success (guard.same_columns): new -, gone name"),
        (("name", "id"), "the columns are in another order than in the last success (guard.same_columns)"),
    ],
)
def test_columns_and_their_order_are_compared(columns, text):
    assert texts_of(Guard(same_columns=True), columns=columns) == [text]
    assert texts_of(Guard(same_columns=True), columns=columns, last={"source_records": 100}) == []


def test_nothing_is_found_where_no_success_is_known():
    everything = Guard(max_drop_percent=0, min_match_percent=100, max_unmatched_percent=0, same_columns=True)
    assert texts_of(everything, last={}) == []
    assert len(texts_of(everything, columns=("x",))) == 4


def test_all_findings_are_one_message():
    found = find_implausible(Guard(max_drop_percent=0, min_match_percent=100), COUNTS, NAMES, LAST)
    error = OutputError("guard_tripped", output=Verbatim("s3://lake/a.csv"), problem=joined(found))
    assert error.message("en").cause == (
        "The guard kept the output s3://lake/a.csv as it was: the source has 10 records fewer than in the last success "
        "(10.0% of 100, guard.max_drop_percent 0); 45 of 90 records are in the table (50.0%, "
        "guard.min_match_percent 100)."
    )
    assert error.message("ja").cause == (
        "ガードが出力 s3://lake/a.csv の置き換えを止めました: 前回の成功より 10 件少ない "
        "(100 件の 10.0%、guard.max_drop_percent 0)。また、一致したレコードが 90 件中 45 件 (50.0%、"
        "guard.min_match_percent 100)。"
    )


def test_arguments_become_a_guard():
    arguments = {"guard_max_drop_percent": "0", "guard_min_match_percent": "100", "guard_same_columns": "true"}
    guard = make_settings(ARGUMENTS | arguments).guard
    assert guard == Guard(max_drop_percent=0, min_match_percent=100, same_columns=True)
    assert guard.is_set
    off = make_settings(ARGUMENTS | {"guard": "off", "guard_same_columns": "false"}).guard
    assert (off.enabled, off.is_set) == (False, False)
