"""Compares a whole run with what the oracle says: bytes and counts."""

from __future__ import annotations

from typing import Any

from overlay.report.result import Result
from reference import oracle


def assert_agrees(pipeline: Any, result: Result, expected: oracle.Expected) -> None:
    """The published bytes and the counts of a run are the oracle's."""
    assert pipeline.output() == expected.csv
    facts = result.as_dict()
    assert {name: facts[name] for name in expected.counts} == expected.counts
    assert result.bytes == len(expected.csv)
    assert result.rows == expected.counts["source_records"]


def csv_options(arguments: dict[str, str]) -> oracle.Csv:
    """The oracle's options for job arguments."""
    values = {name.removeprefix("csv_"): value for name, value in arguments.items()}
    return oracle.Csv(
        **{name: value == "true" if name == "escape_formulas" else value for name, value in values.items()}
    )
