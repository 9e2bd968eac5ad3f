# SPDX-License-Identifier: Apache-2.0
"""The Glue job, as a flowchart: a JSON file in S3 overlaid on a table in RDS by key, published as one CSV.

Each stage is a room of the package `overlay` beside this file; CONTRIBUTING.md has the map. Any failure leaves the old
output as it was, goes to Slack once, and raises. There is no GlueContext: `Job.init` and `Job.commit` are for bookmarks
(AWS Glue guide, "Using job bookmarks"), which are off, and only the Spark engine starts a session.
"""

import os
import sys
from collections.abc import Sequence

from overlay.connection import load_database
from overlay.limits import LIMITS, Limits
from overlay.report.result import Result
from overlay.run import Run, Stop, log_to_stderr
from overlay.source.objects import list_objects
from overlay.table.describe import describe_table
from overlay.upload import check_destination


def run(argv: Sequence[str], limits: Limits = LIMITS, stop: Stop | None = None) -> Result:
    """One run of the job, stage by stage.

    `argv` are arguments as Glue gives them to a script. Tests pass other `limits`; `stop` knows of SIGTERM.

    Raises:
        JobError: the run failed; nothing is published then (`output_unsure` says otherwise).
    """
    with Run(argv, limits, stop or Stop()) as run:
        settings = run.read_settings()

        with run.stage("secret"):
            secret = run.load_secret()

        with run.stage("connection"):
            database = load_database(settings, secret)
            check_destination(settings)

        with run.stage("listing") as facts:
            objects = list_objects(settings)
            facts.update(objects=len(objects), bytes=sum(item.size for item in objects))

        with run.stage("table") as facts:
            table = describe_table(database, settings)
            facts.update(columns=len(table.columns), rows=table.rows)

        with run.stage("source") as facts:
            engine = run.choose_engine(objects, table)
            source = engine.read_source()
            facts.update(records=source.records, columns=len(source.columns))

        with run.stage("overlay") as facts:
            counts = engine.overlay()
            facts.update(plan=engine.plan.name, matched=counts.matched, unmatched=counts.unmatched)

        with run.stage("guard") as facts:
            facts.update(findings=run.check_guard(counts, engine.columns))

        with run.stage("publish") as facts:
            output = engine.publish()
            facts.update(rows=output.csv.rows, bytes=output.csv.bytes)

    return run.succeed(output)


def main() -> None:
    """Runs the job as Glue starts it."""
    log_to_stderr()
    stop = Stop()
    stop.watch(LIMITS)
    try:
        run(sys.argv, LIMITS, stop)
    finally:
        if stop.begun.is_set():
            os._exit(1)  # Python would wait for threads, and one may wait for the database


if __name__ == "__main__":
    main()
