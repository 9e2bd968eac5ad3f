"""Plain PySpark: what a Glue engineer writes first. It runs as the job does: same Python, Spark, heap, driver of JDBC.

`spark.read.json`, `spark.read.jdbc` in 4 ranges of the id, a left join, `coalesce` for each column, one CSV. There are
no jars of S3A here: boto3 downloads the JSON to a local file first; Spark writes the CSV to a local folder, and boto3
uploads its part file to the exact key (on Glue it would copy it).

It is spared what would cost it time: it knows the bounds of the ids and counts nothing. It fetches 10,000 rows at a
time, as the driver of MariaDB would else hold a whole range. It takes the table as Spark does by itself: a DATETIME is
written with a T and a time zone, a TINYINT(1) as true or false, and reports show these columns as different.

`orderBy` keeps the source's order, as all others do: a left join gives its rows in an order of its own, so the output
would neither be the file that is asked for nor be comparable.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from bench.contestants import Task
from bench.data import OUTPUT_COLUMNS, SOURCE_COLUMNS

LIBRARIES = ("pyspark",)
PARTITIONS = 4
FETCH_ROWS = 10_000


def start() -> None:
    """Starts the session, up to where it can plan SQL, as bench/job_process.py does for the job."""
    SparkSession.builder.getOrCreate().sql("SELECT 1")


def run(task: Task) -> Mapping[str, Any]:
    """One left join; the position of a record keeps the order."""
    spark = SparkSession.builder.getOrCreate()
    with tempfile.TemporaryDirectory() as folder:
        records, output = Path(folder, "source.json"), Path(folder, "out")
        with records.open("wb") as file:
            shutil.copyfileobj(task.source(), file, 1 << 20)
        source = spark.read.json(str(records), multiLine=task.array)
        table = spark.read.jdbc(
            f"jdbc:mysql://{task.host}:{task.port}/{task.database}?permitMysqlScheme",
            "big",
            column="id",
            lowerBound=1,
            upperBound=task.rows,
            numPartitions=PARTITIONS,
            properties={
                "user": task.user,
                "password": task.password,
                "driver": "org.mariadb.jdbc.Driver",
                "fetchsize": str(FETCH_ROWS),
            },
        )
        joined = source.withColumn("position", F.monotonically_increasing_id()).join(table, "id", "left")
        merged_cells = [F.coalesce(source[name], table[name]).alias(name) for name in SOURCE_COLUMNS[1:]]
        table_cells = [table[name] for name in OUTPUT_COLUMNS if name not in SOURCE_COLUMNS]
        merged = joined.select("position", "id", *merged_cells, *table_cells).orderBy("position").drop("position")
        merged.coalesce(1).write.csv(str(output), header=True)
        with next(output.glob("part-*.csv")).open("rb") as file:
            task.publish(file)
    return {}
