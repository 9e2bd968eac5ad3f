"""Module `dates`: keys with placeholders in, keys of one day out."""

from __future__ import annotations

import sys
import zoneinfo
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.dates import fill_keys, undated
from overlay.errors import SettingsError
from tests.texts import english_in

EVENING = datetime(2026, 10, 31, 23, 30, tzinfo=UTC)
KEY = "in/{yyyy}/{mm}-{dd}T{hh}.json"


def filled(key: str, date: str = "", zone: str = "", started: datetime = EVENING) -> str:
    """One key filled."""
    return fill_keys({"source_key": key}, date, zone, started)["source_key"]


def refusal(key: str, date: str = "", zone: str = "") -> str:
    """What a key, a date or a zone is refused with."""
    with pytest.raises(SettingsError) as caught:
        filled(key, date, zone)
    assert not english_in(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("zone", "key"),
    [
        ("", "in/2026/11-01T08.json"),
        ("Asia/Tokyo", "in/2026/11-01T08.json"),
        ("UTC", "in/2026/10-31T23.json"),
        ("America/New_York", "in/2026/10-31T19.json"),
        ("Asia/Kathmandu", "in/2026/11-01T05.json"),
    ],
)
def test_the_start_of_the_run_is_filled_in_as_its_zone_has_it(zone, key):
    assert filled(KEY, zone=zone) == key


@pytest.mark.parametrize(
    ("started", "key"),
    [
        (datetime(2026, 12, 31, 14, 59, 59, tzinfo=UTC), "in/2026/12-31T23.json"),
        (datetime(2026, 12, 31, 15, 0, 0, tzinfo=UTC), "in/2027/01-01T00.json"),
        (datetime(2028, 2, 28, 15, 0, tzinfo=UTC), "in/2028/02-29T00.json"),
        (datetime(2026, 12, 31, 10, 0, tzinfo=timezone(timedelta(hours=-5))), "in/2027/01-01T00.json"),
    ],
)
def test_a_day_begins_at_midnight_of_the_zone(started, key):
    assert filled(KEY, started=started) == key


def test_summer_time_counts():
    hours = [filled("{hh}", zone="Europe/Berlin", started=datetime(2026, month, 1, 12, tzinfo=UTC)) for month in (1, 7)]
    assert hours == ["13", "14"]


@pytest.mark.parametrize(
    ("date", "key", "expected"),
    [
        ("2026-11-01", "in/{yyyy}{mm}{dd}/", "in/20261101/"),
        ("2026-11-01T05", KEY, "in/2026/11-01T05.json"),
        ("2026-11-01T05", "in/{dd}/*.json", "in/01/*.json"),
        ("0001-01-01", "{yyyy}", "0001"),
    ],
)
def test_a_date_is_filled_in_as_it_is_whatever_the_zone(date, key, expected):
    assert {filled(key, date, zone) for zone in ("", "UTC", "Pacific/Kiritimati")} == {expected}


BRACES = ["{yyyy}", "{{yyyy}}", "{yyyy", "{}", "{MM}", "{yy}", "{y{mm}", "{dd}{hh}"]


@given(st.text("ab{}ymdh/*", max_size=9) | st.sampled_from(BRACES))
def test_braces_are_those_of_placeholders_or_refused(key):
    plain = key
    for name in ("{yyyy}", "{mm}", "{dd}", "{hh}"):
        plain = plain.replace(name, "0")
    if set(plain) & set("{}"):
        assert f"Job argument --source_key is {key!r}, expected a key with braces only as {{yyyy}}" in refusal(key)
    else:
        assert not set(filled(key)) & set("{}")
        assert filled(key) == key or "{" in key


NO_DATES = [
    "today",
    "2026-13-01",
    "2026-02-29",
    "2026-11-1",
    "20261101",
    "2026-W44-1",
    "2026-11-01T24",
    "２０２６-11-01",
]


@pytest.mark.parametrize("date", [*NO_DATES, "2026-11-01T05:30", "0000-01-01"])
def test_what_is_no_date_is_refused(date):
    expected = "a day (2026-11-01), with its hour (2026-11-01T05) where a key has {hh}."
    assert refusal("{dd}", date).startswith(f"Job argument --date is {date!r}, expected {expected}")


def test_a_date_without_an_hour_fills_no_hour():
    assert "--date is '2026-11-01', expected a day (2026-11-01), with its hour" in refusal(KEY, "2026-11-01")


def test_a_date_that_no_key_has_is_refused():
    """The operator takes the output for that of another day."""
    none = "none of S3.source_key, S3.destination_file and the lists has a date"
    assert f"--date is 2026-11-01, but {none}" in refusal("in/a.json", "2026-11-01")


@pytest.mark.parametrize("zone", ["JST+9", "Asia", "Asia/Tokio", "../zone", "/etc/passwd", "a\0", "x" * 5000, "東京"])
@pytest.mark.parametrize("key", ["{dd}", "in/a.json"])
def test_what_is_no_zone_is_refused(zone, key):
    assert "--timezone is " in refusal(key, zone=zone)


def test_a_machine_without_time_zones_says_so(monkeypatch):
    for name in ("tzdata", "tzdata.zoneinfo", "tzdata.zoneinfo.Asia"):  # the package, where it is installed
        monkeypatch.setitem(sys.modules, name, None)
    path = zoneinfo.TZPATH
    zoneinfo.reset_tzpath([])
    zoneinfo.ZoneInfo.clear_cache()
    try:
        assert "--timezone is 'Asia/Tokyo'" in refusal("{dd}")
        assert "of which this machine has data (it has 0 zones)" in refusal("{dd}")
        assert filled("in/a.json") == "in/a.json"
    finally:
        zoneinfo.reset_tzpath(path)


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("out/a.csv", "out/a.csv"),
        ("out/{yyyy}-{mm}/a.csv", "out/yyyy-mm/a.csv"),
        ("{dd}{hh}", "ddhh"),
    ],
)
def test_one_report_a_pipeline(file, key):
    assert undated(file) == key
