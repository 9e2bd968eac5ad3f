"""overlay.report.run_report: what of a report counts for the next run."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from overlay.report.result import LastRun
from overlay.report.run_report import parse_report


@given(
    st.recursive(st.none() | st.text() | st.integers(), lambda inner: st.dictionaries(st.text(), inner), max_leaves=4)
)
def test_no_report_of_another_program_breaks_a_run(value):
    for report in (value, {"failing_since": value, "last_success": value}):
        try:
            last = parse_report(json.dumps(report).encode())
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        assert last == LastRun()
