"""Dates in keys: `{yyyy}`, `{mm}`, `{dd}` and `{hh}` in the keys of source, output and list, filled once a run.

In: the keys as configs.json has them, and `--date` or the start of the run. Out: plain keys, or a SettingsError.
"""

import contextlib
import re
from collections.abc import Mapping
from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from overlay.errors import SettingsError, Verbatim, phrase

DEFAULT_ZONE = "Asia/Tokyo"
_PLACEHOLDER = re.compile(r"\{(yyyy|mm|dd|hh)\}")
_DATE = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2})?")


def undated(key: str) -> str:
    """A key with the bare names of its placeholders: there is one run report a pipeline, for the next run to read."""
    return _PLACEHOLDER.sub(r"\1", key)


def fill_keys(keys: Mapping[str, str], date: str, timezone: str, started: datetime) -> dict[str, str]:
    """Fills the placeholders of keys, which come by their job arguments.

    Args:
        keys: By the names of their job arguments.
        date: What to fill in, as `--date` has it; empty: the start of the run.
        timezone: Of the start of the run; empty: `DEFAULT_ZONE`.
        started: With its own zone.

    Raises:
        SettingsError: other braces, a date that is none or has no use, or a zone that this machine has no data of.
    """
    for name, key in keys.items():
        if re.search("[{}]", _PLACEHOLDER.sub("", key)):
            details = {"name": Verbatim(name), "value": Verbatim(key)}
            raise SettingsError("argument_invalid", expected=phrase("placeholders"), **details)
    names = {name for key in keys.values() for name in _PLACEHOLDER.findall(key)}
    if date and not names:
        raise SettingsError("arguments_conflict", conflict=phrase("date_unused", date=Verbatim(date)))
    if names or timezone:
        started = started.astimezone(_zone(timezone or DEFAULT_ZONE))
    moment = (_parse_date(date, "hh" in names) if date else started).isoformat()
    values = {"yyyy": moment[:4], "mm": moment[5:7], "dd": moment[8:10], "hh": moment[11:13]}
    return {name: _PLACEHOLDER.sub(lambda match: values[match[1]], key) for name, key in keys.items()}


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: `Asia` is a folder of zones
        details = {"name": Verbatim("timezone"), "value": Verbatim(name)}
        expected = phrase("zone", count=len(available_timezones()))
        raise SettingsError("argument_invalid", expected=expected, **details) from None


def _parse_date(date: str, needs_hour: bool) -> datetime:
    with contextlib.suppress(ValueError):
        if _DATE.fullmatch(date) and ("T" in date or not needs_hour):
            return datetime.fromisoformat(date)
    raise SettingsError("argument_invalid", name=Verbatim("date"), value=Verbatim(date), expected=phrase("date"))
