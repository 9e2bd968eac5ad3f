"""The facts of a run that ended, and what makes a success worth telling beside the run before.

In go what engines and `run` put together; Slack, run report and metrics tell it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from overlay.errors import Phrase, joined
from overlay.merge import Counts
from overlay.report.slack_text import texts
from overlay.settings import Settings

FEWER = 2  # a run with less than one FEWER-th of the last success's records is a warning


@dataclass(frozen=True)
class Result:
    """A run that published its output, or would have: its are `columns`, `bytes`, `rows`, `etag` and `fingerprint`."""

    counts: Counts
    columns: list[str]
    bytes: int
    rows: int
    output: str  # its URL
    engine: str  # "driver" or "spark"
    plan: str  # "lookup" or "scan"
    seconds: float
    engine_reason: str = ""  # a name in TEXTS; empty where there is nothing to tell
    plan_reason: str = ""  # the same
    source_bytes: int = 0
    etag: str = ""
    fingerprint: str = ""  # with notify on_change; else empty
    unmatched_file: dict[str, Any] | None = None  # url, rows, bytes, etag, fingerprint of the list of table-only ids
    differences_file: dict[str, Any] | None = None  # the same of the list of cells that the source overrides
    dry_run: bool = False
    findings: tuple[Phrase, ...] = ()  # of the guard, which let it pass

    def as_dict(self) -> dict[str, Any]:
        """All facts by name, the counts among the others: flat, as the RESULT line of the log, which programs read."""
        facts = {name: value for name, value in vars(self).items() if name not in {"counts", "findings"}}
        return {**self.counts.as_dict(), "overridden": self.counts.overridden, **facts}


class Stages(Protocol):
    """The stages of a run as reports read them; `overlay.run.Progress` times them, and is above this layer."""

    stage: str  # that is on, or was last; a name in TEXTS
    stages: list[dict[str, Any]]  # that ended, in order: `stage` (its name), `start` (since the run began), `seconds`
    started: str  # in UTC, ISO 8601

    @property
    def seconds(self) -> float:
        """The seconds since the run began."""


@dataclass(frozen=True)
class LastRun:
    """What the report of the run before says; empty where there is none."""

    failing_since: str = ""  # when the first of the failures in a row was, the last of which was that run; else empty
    # The last one that succeeded: run_id, ended, source_records, counts, columns, news (see `collect_news`); counts and
    # columns are missing where an older version of the job wrote it.
    success: Mapping[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)  # the last runs, the oldest first (see the schema)

    def count(self, name: str) -> int | None:
        """A count of the last success, by its name in the run report; None where nobody knows."""
        return self.success.get("counts", {}).get(name)  # type: ignore[no-any-return]


def collect_warnings(result: Result, last: LastRun, language: str) -> dict[str, str]:
    """What a success should be looked at for: texts by their names in TEXTS."""
    counts, before = result.counts, int(last.success.get("source_records", 0))
    numbers: dict[str, dict[str, int]] = {}
    warnings = {}
    if result.findings:
        warnings["implausible"] = texts(language)["implausible"].format(problem=joined(result.findings).text(language))
    if counts.source_duplicates or counts.table_duplicates:
        numbers["duplicates"] = {"source": counts.source_duplicates, "table": counts.table_duplicates}
    if counts.missing_ids:
        numbers["missing_ids"] = {"count": counts.missing_ids}
    if counts.source_records * FEWER < before:
        numbers["fewer_records"] = {"last": before, "count": counts.source_records}
    return warnings | {
        code: texts(language)[code].format(**{name: f"{number:,}" for name, number in details.items()})
        for code, details in numbers.items()
    }


def collect_news(result: Result, last: LastRun) -> dict[str, Any]:
    """What makes one success differ from another to its readers: the next run compares it with its own."""
    return {
        "fingerprint": result.fingerprint,
        "unmatched": result.counts.unmatched,
        "unmatched_ids": result.counts.unmatched_ids,
        "unmatched_file": (result.unmatched_file or {}).get("fingerprint", ""),
        # In one language, so that a change of the setting is no news.
        "warnings": list(collect_warnings(result, last, "en").values()),
    }


def is_news(settings: Settings, result: Result, last: LastRun) -> bool:
    """Whether the webhooks should hear of a success.

    With `on_change` they should when the bytes of the output, what only the table has, or a warning are not those of
    the last success, and when the run before failed; of a dry run, which somebody started, always.
    """
    if settings.dry_run:
        return True
    if settings.notify == "on_change":
        return bool(last.failing_since) or last.success.get("news") != collect_news(result, last)
    return settings.notify == "always"
