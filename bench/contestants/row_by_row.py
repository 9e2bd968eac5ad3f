"""The loop over rows that the original system ran: `iterrows`, a look into the table for each, fill what is missing.

Reading is that of `with_pandas`, then values become Python objects, as in the pandas of Glue: with Arrow's
the loop takes twenty times as long. A loop that would take longer than the task allows is not run to its end: after
a sample the rest is extrapolated, and nothing is published.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from typing import Any

import pandas as pd

from bench.contestants import Task
from bench.contestants.with_pandas import LIBRARIES, counts, read_source, read_table
from bench.data import OUTPUT_COLUMNS

__all__ = ["LIBRARIES", "run"]
SAMPLE_RECORDS = 100


def fill(record: dict[str, Any], rows: pd.DataFrame) -> dict[str, Any]:
    """A source record with what it lacks taken from the row of the table, if there is one."""
    if len(rows):
        row = rows.iloc[0]
        for name in OUTPUT_COLUMNS:
            if pd.isna(record.get(name)):
                record[name] = row[name]
    return record


def objects(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with Python objects as values, and a plain integer as id."""
    return frame.astype({name: "int64" if name == "id" else object for name in frame.columns})


def run(task: Task) -> Mapping[str, Any]:
    """One look into the table for each record."""
    began = time.monotonic()
    source, table = objects(read_source(task)), objects(read_table(task))
    records: list[dict[str, Any]] = []
    loop = time.monotonic()
    for _, row in source.iterrows():
        records.append(fill(row.to_dict(), table[table["id"] == row["id"]]))
        if not len(records) % SAMPLE_RECORDS and time.monotonic() - loop > task.sample_seconds:
            seconds = (time.monotonic() - loop) * len(source) / len(records) + loop - began
            if seconds > task.seconds:
                return {"extrapolated": seconds, "done": len(records)}
    merged = pd.DataFrame(records, columns=list(OUTPUT_COLUMNS))
    with tempfile.NamedTemporaryFile() as file:
        merged.to_csv(file.name, index=False)
        task.publish(file)
    return counts(source, table)
