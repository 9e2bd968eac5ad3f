"""`overlay.run.telling_line`: the line of an exception's text that says most; Spark's own are in tests/services."""

from __future__ import annotations

import pytest

from overlay.run import telling_line

WORKER = """An error occurred while calling o64.count.
: org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 0.0 failed 4 times
Traceback (most recent call last):
  File "worker.py", line 1247, in main
MemoryError: too much

\tat org.apache.spark.api.python.BasePythonRunner.handle(PythonRunner.scala:572)
Driver stacktrace:
\tat org.apache.spark.scheduler.DAGScheduler.failJobAndIndependentStages(DAGScheduler.scala:2856)
"""


@pytest.mark.parametrize("text", ["boom", "boom\n  at x", "", "\tat x"])
def test_any_text_has_a_telling_line(text):
    assert telling_line(text) == text.split("\n")[0].strip()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (WORKER, "MemoryError: too much"),
        (WORKER.replace("Traceback", "Trace"), "org.apache.spark.SparkException: Job aborted due to stage failure: "),
    ],
)
def test_frames_of_java_and_python_say_little(text, line):
    assert telling_line(text).startswith(line)
