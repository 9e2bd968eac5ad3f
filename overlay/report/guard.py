"""The guard: whether an output is plausible beside that of the last success.

In: the counts and columns of a run, before anything of it is seen. Out: what is wrong with them, as phrases.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from overlay.errors import Phrase, Verbatim, listed_names, phrase
from overlay.merge import Counts
from overlay.report.slack_text import percentage
from overlay.settings import Guard


def find_implausible(
    guard: Guard, counts: Counts, columns: Sequence[str], success: Mapping[str, Any]
) -> tuple[Phrase, ...]:
    """What the guard of an entry finds beside the last success (`LastRun.success`); nothing where there is none."""
    if not success:
        return ()
    before = success["source_records"]
    shares = {
        "max_drop_percent": (before - counts.source_records, before),
        "min_match_percent": (counts.matched, counts.source_records),
        "max_unmatched_percent": (counts.unmatched, counts.table_rows),
    }
    phrases = []
    for name, (part, whole) in shares.items():
        limit = getattr(guard, name)
        percent = 100 * part / whole if whole else 0.0
        if limit is not None and (percent < limit if name.startswith("min") else percent > limit):
            numbers = {"part": f"{part:,}", "whole": f"{whole:,}", "percent": percentage(part, whole)}
            phrases.append(phrase(name, **{key: Verbatim(text) for key, text in numbers.items()}, limit=limit))
    if guard.same_columns and "columns" in success and list(columns) != success["columns"]:
        phrases.append(_changed_columns(columns, success["columns"]))
    return tuple(phrases)


def _changed_columns(now: Sequence[str], before: Sequence[str]) -> Phrase:
    new, gone = ([name for name in ours if name not in others] for ours, others in ((now, before), (before, now)))
    if not new and not gone:
        return phrase("columns_reordered")
    return phrase("columns_changed", new=listed_names(new) or Verbatim("-"), gone=listed_names(gone) or Verbatim("-"))
