"""overlay.run: the log as lines."""

from __future__ import annotations

import logging
import re

from hypothesis import given
from hypothesis import strategies as st

from overlay.run import OneLine


@given(st.text() | st.sampled_from(["a\nb", "\x1b[2J", "\u2028x", "\r\x85", "\u202e"]))
def test_a_record_is_one_line_whatever_it_holds(text):
    record = logging.LogRecord("overlay.run", logging.INFO, "", 0, "value %s", (text,), None)
    line = OneLine("%(levelname)s %(message)s").format(record)
    assert len(line.splitlines() or [""]) == 1
    assert line.startswith("INFO value ")
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028-\u202e]", line)
