"""polars, with the table read by connectorx over parallel connections."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any

import polars as pl

from bench.contestants import PARTITIONS, Task, table_query
from bench.data import OUTPUT_COLUMNS, SOURCE_COLUMNS, SOURCE_INTEGERS

LIBRARIES = ("polars", "connectorx")
SCHEMA = {name: pl.Int64 if name in SOURCE_INTEGERS else pl.String for name in SOURCE_COLUMNS}


def cell(name: str) -> pl.Expr:
    """The value of an output column, as text."""
    if name == "id" or name not in SOURCE_COLUMNS:
        return pl.col(name)
    return pl.coalesce(pl.col(name).cast(pl.String), pl.col(f"{name}_table")).alias(name)


def run(task: Task) -> Mapping[str, Any]:
    """Left join on the id, streaming engine."""
    source = (pl.read_json if task.array else pl.read_ndjson)(task.source().read(), schema=SCHEMA)
    table = pl.read_database_uri(
        table_query(),
        task.url("mysql"),
        partition_on="id",
        partition_num=PARTITIONS,
        protocol="text",
        engine="connectorx",
    )
    joined = source.lazy().join(table.lazy(), on="id", how="left", suffix="_table", maintain_order="left")
    with tempfile.NamedTemporaryFile() as file:
        joined.select(map(cell, OUTPUT_COLUMNS)).sink_csv(file.name, engine="streaming")
        task.publish(file)
    alone = table.lazy().select("id").join(source.lazy().select("id"), on="id", how="anti").collect()["id"]
    first = alone.bottom_k(10).sort().to_list()
    matched = source.lazy().select("id").join(table.lazy().select("id"), on="id", how="semi").collect().height
    return {"matched": matched, "unmatched": len(alone), "unmatched_ids": [str(key) for key in first]}
