"""The servers and the data of a measurement, and what a run on them must publish."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from bench import data
from bench.measure import ROOT, Limits, Measured, measure
from local import glue
from local.deploy import Pipeline, deploy, jdbc_jar
from local.services import Aws, MariaDB
from tests import oracle

PIPELINE = Pipeline("bench", "big", "bench-source", "in/big.json", "bench-output", "out/big.csv")
# A pool that holds the table of 2 M rows, and not that of 20 M.
SERVER_OPTIONS = ("--innodb-buffer-pool-size=2G", "--innodb-log-file-size=1G", "--innodb-sort-buffer-size=64M")
CHUNK_RECORDS = 120_000  # a multiple of 60: every chunk's records name the columns in the same order
BLOCK_BYTES = 16 * 1024 * 1024
COUNT_REPEATS = 3
LOOP_SAMPLE_SECONDS = 30


@dataclass(frozen=True)
class Fingerprint:
    """What a CSV holds.

    Attributes:
        columns: A checksum of each column's cells in row order, however they are quoted.
    """

    bytes: int
    sha256: str
    rows: int
    columns: Mapping[str, str]


@dataclass(frozen=True)
class Table:
    """The table `big` as made: seconds that took, bytes on disk, and median seconds of COUNT(*) when warm."""

    rows: int
    seconds: float
    bytes: int
    count_seconds: float


@dataclass(frozen=True)
class Case:
    """One source on one table.

    Attributes:
        expected: The CSV.
        counts: What a run must report, under the job's names.
    """

    records: int
    rows: int
    source_bytes: int
    expected: Fingerprint
    counts: Mapping[str, Any] = field(repr=False)


def fingerprint(path: Path) -> Fingerprint:
    """Reads a CSV block by block."""
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            sha256.update(block)
    texts = csv.ConvertOptions(column_types=dict.fromkeys(data.OUTPUT_COLUMNS, pa.string()))
    rows = 0
    sums: dict[str, tuple[int, int]] = {}
    for batch in csv.open_csv(path, csv.ReadOptions(block_size=BLOCK_BYTES), convert_options=texts):
        rows += len(batch)
        for name, cells in zip(batch.schema.names, batch.columns, strict=True):
            lengths, content = sums.get(name, (0, 0))
            sizes = pc.binary_length(cells).cast(pa.int32())
            joined = pc.binary_join(pa.ListArray.from_arrays([0, len(cells)], cells), "")[0].as_buffer()
            sums[name] = zlib.crc32(memoryview(sizes.to_numpy()), lengths), zlib.crc32(joined, content)
    columns = {name: f"{lengths:08x}{content:08x}" for name, (lengths, content) in sums.items()}
    return Fingerprint(path.stat().st_size, sha256.hexdigest(), rows, columns)


class Stage:
    """Source and table on running servers.

    Attributes:
        rows: Rows of the table that is there now.
    """

    def __init__(self, database: MariaDB, aws: Aws) -> None:
        self._database, self._aws = database, aws
        self._s3 = aws.client("s3")
        self.rows = 0
        deploy(aws, database, PIPELINE, ROOT / "glue_job.py")

    def make_table(self, rows: int) -> Table:
        """Makes the table, in the place of the one that was there, and reads it once."""
        with self._database.connect(autocommit=True) as connection, connection.cursor() as cursor:
            began = time.monotonic()
            for statement in data.table_statements(rows):
                cursor.execute(statement)
            seconds = time.monotonic() - began
            cursor.execute("SELECT data_length + index_length FROM information_schema.tables WHERE table_name = 'big'")
            (size,) = cursor.fetchone()
            cursor.execute("SELECT SUM(LENGTH(name)) FROM big")
            counting = []
            for _ in range(COUNT_REPEATS):
                began = time.monotonic()
                cursor.execute("SELECT COUNT(*) FROM big")
                counting.append(time.monotonic() - began)
        self.rows = rows
        return Table(rows, seconds, int(size), sorted(counting)[COUNT_REPEATS // 2])

    def make_case(self, records: int) -> Case:
        """Puts a source for the table that is there, and works out by the oracle what a run must publish."""
        counts: dict[str, Any] = {}
        with tempfile.TemporaryFile() as source, tempfile.NamedTemporaryFile() as output:
            for chunk in self._chunks(records):
                source.write(chunk + b"\n")
                add_expected(output, counts, self._overlay(chunk))
            size = source.tell()
            source.seek(0)
            self._s3.upload_fileobj(source, PIPELINE.source_bucket, PIPELINE.source_key)
            output.flush()
            expected = fingerprint(Path(output.name))
        known = set(data.source_ids(records, self.rows))
        alone = (key for key in range(1, self.rows + 1) if key not in known)
        counts |= {
            "unmatched": self.rows - counts["matched"],
            "unmatched_ids": list(map(str, itertools.islice(alone, 10))),
            "table_rows": self.rows,
        }
        return Case(records, self.rows, size, expected, counts)

    def run_job(self, heap: str, limits: Limits, runs: int = 1) -> Measured:
        """Runs the job as the runner of `local/` does, with a driver heap such as `4g`; the last of `runs` is timed."""
        definition = self._aws.client("glue").get_job(JobName=PIPELINE.job)["Job"]
        with tempfile.TemporaryDirectory(prefix="bench-job-") as folder:
            home = Path(folder)
            (home / "log4j2.properties").write_text(glue.LOG_CONFIGURATION)
            submit = glue.submit_arguments(home, [jdbc_jar()], "", {**os.environ, "LOCAL_SPARK_MEMORY": heap})
            environment = {"PYSPARK_PYTHON": sys.executable, "PYSPARK_SUBMIT_ARGS": submit}
            command = [
                sys.executable,
                str(ROOT / "bench" / "job_process.py"),
                str(runs),
                str(ROOT / "glue_job.py"),
                *glue.script_arguments(PIPELINE.job, definition["DefaultArguments"]),
            ]
            return measure(command, {**self._aws.environment(), **environment}, limits)

    def run_peer(self, python: Path, name: str, case: Case, limits: Limits, **changes: float) -> Measured:
        """Runs a module of `bench.contestants`, its task changed, by the Python that has its libraries."""
        server = {name: getattr(self._database, name) for name in ("host", "port", "user", "password", "database")}
        task = {
            **server,
            "source_bucket": PIPELINE.source_bucket,
            "source_key": PIPELINE.source_key,
            "destination_bucket": PIPELINE.destination_bucket,
            "destination_key": PIPELINE.destination_file,
            "records": case.records,
            "rows": case.rows,
            "output_bytes": case.expected.bytes,
            "seconds": limits.seconds,
            "sample_seconds": LOOP_SAMPLE_SECONDS,
            **changes,
        }
        environment = {**self._aws.environment(), "BENCH_TASK": json.dumps(task)}
        return measure([str(python), "-m", "bench.contestants", name], environment, limits)

    def published(self) -> Fingerprint | None:
        """What a run published, if it did."""
        with tempfile.NamedTemporaryFile() as file:
            try:
                self._s3.download_fileobj(PIPELINE.destination_bucket, PIPELINE.destination_file, file)
            except self._s3.exceptions.ClientError:
                return None
            file.flush()
            return fingerprint(Path(file.name))

    def clear(self) -> None:
        """Takes away what a run published."""
        self._s3.delete_object(Bucket=PIPELINE.destination_bucket, Key=PIPELINE.destination_file)

    def _chunks(self, records: int) -> Iterator[bytes]:
        lines = data.source_lines(records, self.rows)
        while chunk := list(itertools.islice(lines, CHUNK_RECORDS)):
            yield "\n".join(chunk).encode()

    def _overlay(self, chunk: bytes) -> oracle.Expected:
        ids = ",".join(oracle.text_of(record["id"]) or "" for record in oracle.records_of(chunk))
        cells = ", ".join(f"CAST({name} AS CHAR)" for name in data.COLUMNS)
        with self._database.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT {cells} FROM big WHERE id IN ({ids})")
            return oracle.overlay([chunk], data.COLUMNS, cursor.fetchall())


def add_expected(output: IO[bytes], counts: dict[str, Any], part: oracle.Expected) -> None:
    """Adds the CSV and the counts of a chunk of the source to those of the chunks before."""
    output.write(part.csv[part.csv.index(b"\n") + 1 :] if counts else part.csv)
    for name in ("source_records", "matched", "source_only", "filled_cells"):
        counts[name] = counts.get(name, 0) + part.counts[name]
    counts["columns"] = part.counts["columns"]


def differences(case: Case, found: Fingerprint | None, result: Mapping[str, Any]) -> list[str]:
    """In what a run's output and counts are not the expected ones; empty when they are."""
    wrong = [name for name, value in case.counts.items() if name in result and result[name] != value]
    if found is None:
        return [*wrong, "no output"]
    if found.rows != case.expected.rows:
        return [*wrong, f"{found.rows} rows"]
    names = dict.fromkeys([*case.expected.columns, *found.columns])
    return wrong + [f"column {name}" for name in names if case.expected.columns.get(name) != found.columns.get(name)]
