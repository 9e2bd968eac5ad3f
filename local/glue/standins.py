"""Stand-ins for the two classes of `awsglue` whose Java side exists on Glue alone."""

from __future__ import annotations

from typing import Any

from pyspark.sql import SparkSession


class GlueContext:
    """`awsglue.context.GlueContext`, as far as a plain Spark job needs it."""

    def __init__(self, spark_context: Any = None) -> None:
        self.spark_context = spark_context
        self.spark_session = SparkSession.builder.getOrCreate()


class Job:
    """`awsglue.job.Job`: there are no bookmarks to keep here."""

    def __init__(self, glue_context: GlueContext) -> None:
        self.glue_context = glue_context

    def init(self, job_name: str, args: Any = None) -> None:
        """Begins the run."""

    def commit(self) -> None:
        """Ends the run."""
