"""DuckDB, with the table brought over by connectorx as Arrow."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import connectorx
import duckdb

from bench.contestants import PARTITIONS, Task, table_query
from bench.data import OUTPUT_COLUMNS, SOURCE_COLUMNS, SOURCE_INTEGERS

LIBRARIES = ("duckdb", "connectorx", "pyarrow")
SCHEMA = ", ".join(f"{name}: '{'BIGINT' if name in SOURCE_INTEGERS else 'VARCHAR'}'" for name in SOURCE_COLUMNS)


def cell(name: str) -> str:
    """SQL for an output column."""
    if name == "id":
        return "source.id"
    if name not in SOURCE_COLUMNS:
        return f"big.{name}"
    return f"COALESCE(CAST(source.{name} AS VARCHAR), big.{name}) AS {name}"


def run(task: Task) -> Mapping[str, Any]:
    """One left join in SQL; the position of a record keeps the order."""
    with tempfile.TemporaryDirectory() as folder:
        records, output = Path(folder, "source.json"), Path(folder, "out.csv")
        with records.open("wb") as file:
            shutil.copyfileobj(task.source(), file, 1 << 20)
        big = connectorx.read_sql(
            task.url("mysql"),
            table_query(),
            partition_on="id",
            partition_num=PARTITIONS,
            protocol="text",
            return_type="arrow",
        )
        database = duckdb.connect()
        database.register("big", big)
        layout = "array" if task.array else "newline_delimited"
        database.execute(
            f"CREATE TABLE source AS SELECT row_number() OVER () AS position, * "
            f"FROM read_json('{records}', format = '{layout}', columns = {{{SCHEMA}}})"
        )
        cells = ", ".join(map(cell, OUTPUT_COLUMNS))
        database.execute(
            f"COPY (SELECT {cells} FROM source LEFT JOIN big USING (id) ORDER BY position) TO '{output}' (HEADER)"
        )
        with output.open("rb") as file:
            task.publish(file)
    (matched,) = database.execute("SELECT COUNT(*) FROM source SEMI JOIN big USING (id)").fetchone()
    alone = "FROM big ANTI JOIN source USING (id)"
    (unmatched,) = database.execute(f"SELECT COUNT(*) {alone}").fetchone()
    first = database.execute(f"SELECT id {alone} ORDER BY id LIMIT 10").fetchall()
    return {"matched": matched, "unmatched": unmatched, "unmatched_ids": [str(key) for (key,) in first]}
