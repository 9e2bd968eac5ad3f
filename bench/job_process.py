"""The job's process in a measurement: local/glue/bootstrap.py, but Spark is started, and timed, before it.

    python job_process.py RUNS SCRIPT [ARGUMENT ...]

Works in the script's folder, as the service does: Spark's workers look for modules where they were started. Prints
`RESULT {json}`: `session` is the seconds until libraries were imported, which no contestant's time has in it, in Python
and in a JVM, as Glue has one before a script; for the Spark engine until there was a session that can plan SQL (which
Spark makes when it is first asked to). `seconds` are those of the last of so many runs of the job in it, one after the
other.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

LIBRARIES = ("boto3", "numpy", "pyarrow.compute", "pyarrow.json", "requests")  # of the job
GLUE = Path(__file__).resolve().parent.parent / "local" / "glue"


def main() -> None:
    """Runs the script that the second argument names as often as the first one says."""
    began = time.monotonic()
    runs = int(sys.argv.pop(1))
    os.chdir(Path(sys.argv[1]).parent)
    sys.path[0] = str(GLUE)  # bootstrap takes it out again
    import bootstrap  # noqa: PLC0415
    from pyspark import __version__  # noqa: PLC0415  its import belongs to the start

    for library in LIBRARIES:
        importlib.import_module(library)
    from pyspark import SparkContext  # noqa: PLC0415
    from pyspark.sql import SparkSession  # noqa: PLC0415

    if "spark" in sys.argv:  # which names the engine
        SparkSession.builder.getOrCreate().sql("SELECT 1")
    else:
        import_in_java(SparkContext)
    session = time.monotonic() - began
    arguments, path = sys.argv, sys.path
    for _ in range(runs):
        sys.argv, sys.path = list(arguments), list(path)  # bootstrap changes both
        ready = time.monotonic()
        bootstrap.main()
        seconds = time.monotonic() - ready
    result = {"session": session, "seconds": seconds, "libraries": {"pyspark": __version__}}
    print("RESULT", json.dumps(result), flush=True)


def import_in_java(context: Any) -> None:
    """Starts a JVM, and lets it load the classes of Spark SQL and Arrow, as a session would have done."""
    context._ensure_initialized()
    java = context._jvm
    spark = java.org.apache.spark.sql
    spark.internal.SQLConf.get()
    converters = getattr(getattr(spark.execution.arrow, "ArrowConverters$"), "MODULE$")
    nothing = getattr(getattr(java.scala.collection, "Iterator$"), "MODULE$").empty()
    converters.toBatchIterator(nothing, spark.types.StructType(), 1, "UTC", False, None)


if __name__ == "__main__":
    main()
