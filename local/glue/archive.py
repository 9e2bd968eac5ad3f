"""Makes the archive of classes (class data sharing, JDK 17) from which the JVMs of local runs and tests start.

    python -m local.glue.archive

keeps what Spark loads while it starts and runs a small plan. A session starts in about half the time: `--time` prints
the seconds as things are, `--time --without` those without it. A JVM passes over an archive that was made by another
Java or for other jars.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from local.glue import service


def start_session(options: str) -> float:
    """Starts a session with these Java options, and ends its JVM; returns the seconds until a plan had run."""
    with tempfile.TemporaryDirectory(prefix="glue-archive-") as folder:
        variables = {**os.environ, "LOCAL_SPARK_JAVA": options}
        os.environ |= service.job_environment(Path(folder), [], [], "", variables)
        os.environ["SPARK_LAUNCHER_OPTS"] = service.QUICK_JAVA
        began = time.monotonic()
        from pyspark.sql import SparkSession  # noqa: PLC0415  the environment is for its import, too

        session = SparkSession.builder.getOrCreate()
        numbers = session.range(9).mapInArrow(lambda batches: batches, "id long")
        numbers.join(session.range(5), "id", "left").groupBy("id").count().orderBy("id").collect()
        seconds = time.monotonic() - began
        jvm = session.sparkContext._gateway.proc  # pyspark does not wait until it has written the archive
        session.stop()
        jvm.stdin.close()
        jvm.wait()
    return seconds


def main(argv: Sequence[str] | None = None) -> None:
    """Makes the archive, whole or not at all, or measures a start."""
    parser = argparse.ArgumentParser(prog="python -m local.glue.archive", description="The archive of classes.")
    parser.add_argument("--time", action="store_true", help="print the seconds of a start")
    parser.add_argument("--without", action="store_true", help="without the archive")
    arguments = parser.parse_args(argv)
    if arguments.time:
        print(f"{start_session(service.QUICK_JAVA if arguments.without else service.quick_java()):.1f} s")  # noqa: T201
        return
    new = service.ARCHIVE.with_suffix(f".{os.getpid()}")
    start_session(f"{service.QUICK_JAVA} {service.SILENT_ARCHIVE} -XX:ArchiveClassesAtExit={new}")
    new.replace(service.ARCHIVE)


if __name__ == "__main__":
    main()
