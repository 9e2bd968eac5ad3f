"""overlay.report.run_report: what of a report counts for the next run."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from overlay.report.guard import find_implausible
from overlay.report.page import history_card
from overlay.report.result import LastRun
from overlay.report.run_report import parse_report
from overlay.report.slack import success_message
from overlay.report.slack_text import texts
from overlay.settings import Guard, make_settings
from tests.samples import ARGUMENTS, COUNTS, RESULT


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


JSON = st.recursive(
    st.none() | st.text(max_size=3) | st.integers(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["ended", "status"]), inner),
    max_leaves=4,
)


@given(JSON, JSON, JSON)
def test_what_is_read_of_a_report_serves_guard_message_and_page(counts, columns, history):
    success = {"source_records": 3, "counts": counts, "columns": columns}
    report = {"failing_since": None, "last_success": success, "history": history}
    try:
        last = parse_report(json.dumps(report).encode())
    except (ValueError, KeyError, TypeError, AttributeError):
        return
    guard = Guard(max_drop_percent=0, min_match_percent=0, max_unmatched_percent=0, same_columns=True)
    find_implausible(guard, COUNTS, ["id"], last.success)
    success_message(make_settings(ARGUMENTS), RESULT, last, "")
    history_card({"language": "en", "history": last.history}, texts("en"))
