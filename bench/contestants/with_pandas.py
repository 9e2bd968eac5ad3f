"""pandas: `merge`, with the table read by SQLAlchemy and PyMySQL."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any

import pandas as pd
from sqlalchemy import create_engine

from bench.contestants import Task, table_query
from bench.data import OUTPUT_COLUMNS, SOURCE_COLUMNS

LIBRARIES = ("pandas", "pyarrow", "SQLAlchemy", "PyMySQL")
FETCH_ROWS = 200_000


def read_source(task: Task) -> pd.DataFrame:
    """The source by the parser of pyarrow, an array by that of pandas: with missing values an integer stays one."""
    lines = {"dtype": False} if task.array else {"lines": True, "engine": "pyarrow"}  # prices stay text
    return pd.read_json(task.source(), dtype_backend="pyarrow", **lines)[list(SOURCE_COLUMNS)]


def read_table(task: Task) -> pd.DataFrame:
    """Reads the table some rows at a time: as Python objects a big one would not fit."""
    engine = create_engine(task.url("mysql+pymysql") + "?charset=utf8mb4")
    with engine.connect().execution_options(stream_results=True) as connection:
        frames = pd.read_sql(table_query(), connection, chunksize=FETCH_ROWS, dtype_backend="pyarrow")
        return pd.concat(frames, ignore_index=True)


def counts(source: pd.DataFrame, table: pd.DataFrame) -> Mapping[str, Any]:
    """What the run reports."""
    alone = table.loc[~table["id"].isin(source["id"]), "id"]
    return {
        "matched": int(source["id"].isin(table["id"]).sum()),
        "unmatched": len(alone),
        "unmatched_ids": [str(key) for key in alone.nsmallest(10)],
    }


def run(task: Task) -> Mapping[str, Any]:
    """Left merge on the id, then the table's value wherever the source has none."""
    source, table = read_source(task), read_table(task)
    merged = source.merge(table, on="id", how="left", suffixes=("", "_table"))
    for name in SOURCE_COLUMNS[1:]:
        merged[name] = merged[name].astype("string[pyarrow]").fillna(merged.pop(f"{name}_table"))
    with tempfile.NamedTemporaryFile() as file:
        merged[list(OUTPUT_COLUMNS)].to_csv(file.name, index=False)
        task.publish(file)
    return counts(source, table)
