"""overlay.aws: calls that may not take longer than so many seconds."""

from __future__ import annotations

import time

from overlay.aws import within


def test_what_hangs_is_left_behind(caplog):
    start = time.monotonic()
    assert within(0.2, "asking", lambda: time.sleep(5)) is None
    assert time.monotonic() - start < 4
    assert "asking took longer than 0.2 s; the run goes on without it" in caplog.text
