"""The names of all faults, and what their tests saw, for docs/reliability.md."""

from __future__ import annotations

from typing import Any

import pytest

from tests import figures

NAMES: list[str] = []


def faults(*names: str) -> Any:
    """A test gets each of these faults as `fault`; the page has a row for each."""
    NAMES.extend(names)
    return pytest.mark.parametrize("fault", names)


def record(fault: str, outcome: str, seconds: float) -> None:
    """Keeps the row of a fault."""
    figures.record("faults", fault, outcome=outcome, seconds=round(seconds, 1))
