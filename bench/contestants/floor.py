"""The floor: read the source, read the rows of the table that are needed, write as many bytes as the CSV has.

It knows the ids beforehand. Of a table much larger than the source it reads the rows with these ids, else all rows:
then a scan is faster than as many look-ups.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import connectorx

from bench.contestants import PARTITIONS, Task, table_query
from bench.data import source_ids

LIBRARIES = ("connectorx", "pyarrow")
LOOKUP_SHARE = 8  # look-ups pay as long as the table is this many times the source


def run(task: Task) -> Mapping[str, Any]:
    """Reads and writes, nothing else."""
    data = task.source().read()
    options = {"protocol": "text", "return_type": "arrow"}
    if task.records * LOOKUP_SHARE <= task.rows:
        ids = sorted(key for key in source_ids(task.records, task.rows) if key <= task.rows)
        share = -(-len(ids) // PARTITIONS)  # connectorx opens a connection for every query
        id_lists = (map(str, ids[start : start + share]) for start in range(0, len(ids), share))
        queries = [table_query(f"WHERE id IN ({','.join(id_list)})") for id_list in id_lists]
        connectorx.read_sql(task.url("mysql"), queries, **options)
    else:
        connectorx.read_sql(task.url("mysql"), table_query(), partition_on="id", partition_num=PARTITIONS, **options)
    task.publish(bytes(task.output_bytes or len(data)))
    return {"lookup": task.records * LOOKUP_SHARE <= task.rows}
