"""docs/reliability.md is of the tests as they are."""

from __future__ import annotations

from tests import figures
from tests.runs.faults import page, test_database_faults, test_faults, test_processes  # noqa: F401  they name the faults


def test_the_page_lists_exactly_the_faults_that_are_tested():
    assert sorted(figures.names("faults")) == sorted(page.NAMES)
    assert len(set(page.NAMES)) == len(page.NAMES)


def test_the_page_tells_how_long_the_job_waits():
    assert figures.NOTES["faults"] in figures.PAGE.read_text(encoding="utf-8")
