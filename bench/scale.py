"""`make scale`: 1,000,000 source records on a table of 2,000,000 x 12, checked byte for byte with the oracle.

Prints the time of the run and the peak memory of its whole process tree.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from local.demo import run_and_show
from local.deploy import Pipeline, deploy
from local.services import Aws, MariaDB
from tests import oracle

ROOT = Path(__file__).resolve().parent.parent
RECORDS, ROWS = 1_000_000, 2_000_000
PIPELINE = Pipeline("demo", "big", "scale-source", "in/big.json", "scale-output", "out/big.csv")
COLUMNS = ("id", "name", "price", "qty", "city", "note", "updated", "born", "rate", "code", "active", "number")
TABLE = """
CREATE TABLE big (
  id BIGINT PRIMARY KEY, name VARCHAR(40), price DECIMAL(10,2), qty INT, city VARCHAR(40), note VARCHAR(60),
  updated DATETIME(6), born DATE, rate DECIMAL(12,4), code VARCHAR(30), active TINYINT(1), number INT)
"""
FILL = f"""
INSERT INTO big
SELECT seq, CONCAT('顧客', seq), seq * 1.5, seq % 100, '大阪市北区', IF(seq % 3, CONCAT('memo, ', seq), NULL),
       '2026-01-01 10:00:00.123', '1990-02-01' + INTERVAL seq % 9999 DAY, seq / 7, CONCAT('c', seq), seq % 2, seq
FROM seq_1_to_{ROWS}
"""


def source() -> bytes:
    """The source as JSON Lines: about two thirds of the ids are in the table, in no order of the table's."""

    def lines() -> Iterator[str]:
        for number in range(RECORDS):
            key = number * 7919 % 3_000_000 + 1
            record: dict[str, object] = {"id": key, "name": f"新{key}", "price": f"{key}.50"}
            if number % 3:
                record["qty"] = key % 100
            record["note"] = None if number % 5 == 0 else f"note {number}, more"
            if number % 4:
                record["city"] = "東京都千代田区丸の内"
            yield json.dumps(record, ensure_ascii=False)

    return "\n".join(lines()).encode()


def tree_bytes(root: int) -> int:
    """Resident memory of a process and everything below it (shared pages count once a process)."""
    parents, resident = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            resident[int(folder.name)] = int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            continue
        parents[int(folder.name)] = int(stat[1])
    below = {root}
    while grown := {child for child, parent in parents.items() if parent in below} - below:
        below |= grown
    return sum(resident.get(process, 0) for process in below)


def runner_pid() -> int | None:
    """The `local run` child of this process."""
    found = subprocess.run(
        ["pgrep", "-P", str(os.getpid()), "-f", "local run"], capture_output=True, text=True, check=False
    )
    return int(found.stdout.split()[0]) if found.stdout else None


def main() -> int:
    """Measures one run; the exit status says whether the CSV is the oracle's."""
    with MariaDB(["--innodb-buffer-pool-size=1G"]) as database, Aws() as aws:
        with database.connect(autocommit=True) as connection, connection.cursor() as cursor:
            for statement in (TABLE, FILL, "ANALYZE TABLE big"):
                cursor.execute(statement)
        data = source()
        deploy(aws, database, PIPELINE, ROOT / "glue_job.py")
        aws.client("s3").put_object(Bucket=PIPELINE.source_bucket, Key=PIPELINE.source_key, Body=data)
        peak, over = 0, threading.Event()

        def watch() -> None:
            nonlocal peak
            while not over.wait(0.2):
                if pid := runner_pid():
                    peak = max(peak, tree_bytes(pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        start = time.monotonic()
        status, result = run_and_show({**aws.environment(), "LOCAL_SPARK_MEMORY": "2g"})
        seconds = time.monotonic() - start
        over.set()
        watcher.join()
        if status or not result:
            return 1
        output = aws.client("s3").get_object(Bucket=PIPELINE.destination_bucket, Key=PIPELINE.destination_file)
        found = output["Body"].read()
        casts = ", ".join(f"CAST({name} AS CHAR)" for name in COLUMNS)
        with database.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT {casts} FROM big")
            expected = oracle.overlay([data], COLUMNS, cursor.fetchall())
    same = found == expected.csv and all(result[name] == value for name, value in expected.counts.items())
    print(f"machine    {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"date       {time.strftime('%Y-%m-%d')}")
    print(f"source     {RECORDS:,} records, {len(data):,} bytes; table {ROWS:,} rows x {len(COLUMNS)} columns")
    print(f"output     {len(found):,} bytes, {'identical to' if same else 'NOT'} the oracle's")
    print(f"time       {seconds:.1f} s with start of Spark, {result['seconds']:.1f} s the job")
    print(f"memory     {peak / 1024**3:.2f} GiB peak of the whole process tree, Spark driver heap 2 GiB")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
