"""`make scale`: 1,000,000 source records on a table of 2,000,000 x 12, checked byte for byte with the oracle.

Prints the time of the run and the peak memory of its whole process tree.
"""

from __future__ import annotations

import sys
import time

from bench.data import COLUMNS
from bench.measure import GIB, Bounds
from bench.stage import SERVER_OPTIONS, Stage, differences
from bench.suite import memory_limit, read_machine, read_versions
from local.services.aws import Aws
from local.services.databases import MariaDB
from local.services.processes import exit_on_sigterm

RECORDS, ROWS, SECONDS = 1_000_000, 2_000_000, 1_800


def main() -> int:
    """Measures one run; the exit status says whether the CSV is the oracle's."""
    exit_on_sigterm()
    with MariaDB(SERVER_OPTIONS) as database, Aws() as aws:
        stage = Stage(database, aws)
        stage.make_table(ROWS)
        case = stage.make_case(RECORDS)
        run = stage.run_job("2g", Bounds(SECONDS, memory_limit()))
        output = stage.published()
    if run.status != "ok" or output is None:
        print("\n".join([*run.log, f"The job did not finish: {run.status}."]))
        return 1
    same = output.sha256 == case.expected.sha256 and not differences(case, output, run.result)
    machine = read_machine()
    print(f"machine    {machine['architecture']}, {machine['cores']} cores, Python {read_versions()['Python']}")
    print(f"date       {time.strftime('%Y-%m-%d')}")
    print(f"source     {RECORDS:,} records, {case.source_bytes:,} bytes; table {ROWS:,} rows x {len(COLUMNS)} columns")
    print(f"output     {output.bytes:,} bytes, {'identical to' if same else 'NOT'} the oracle's")
    print(f"time       {run.wall:.1f} s with start of Spark, {run.result['seconds']:.1f} s the job")
    print(f"memory     {run.peak / GIB:.2f} GiB peak of the whole process tree, Spark driver heap 2 GiB")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
