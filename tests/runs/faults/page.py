"""Names all faults, and keeps what their tests measured, for docs/reliability.md."""

from __future__ import annotations

from typing import Any

import pytest

from tests import figures

NAMES: list[str] = []


def faults(*names: str) -> Any:
    """A test gets each of these faults as `fault`; the page has a row for each."""
    NAMES.extend(names)
    return pytest.mark.parametrize("fault", names)


def record(fault: str, engine: str, outcome: str, seconds: float) -> None:
    """Keeps what a fault did to a run by an engine; both engines share a row."""
    column = f"seconds, {'Spark' if engine == 'spark' else 'driver'} engine"
    figures.record("faults", fault, outcome=outcome, **{column: round(seconds, 1)})
