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
from bench.data import CaseSize
from bench.measure import ROOT, Bounds, Measured, measure
from local.glue import service
from local.glue.deploy import Pipeline, deploy, jdbc_jar
from local.services.aws import Aws
from local.services.databases import MariaDB
from reference import oracle

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
        size: Of both.
        expected: The CSV.
        counts: What a run must report, under the job's names.
    """

    size: CaseSize
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
        self._expectations: dict[tuple[int, int], tuple[Fingerprint, dict[str, Any]]] = {}
        deploy(aws, database, PIPELINE, ROOT / "glue_job.py")

    def make_table(self, rows: int) -> Table:
        """Replaces the table by one of so many rows, and reads it once."""
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

    def make_case(self, records: int, *, array: bool = False) -> Case:
        """Uploads a source, as JSON Lines or an array; returns it with what a run on the present table must publish."""
        with tempfile.TemporaryFile() as source:
            for number, chunk in enumerate(self._chunks(records)):
                source.write((data.as_array(chunk, first=number == 0) if array else chunk) + b"\n")
            source.write(b"]\n" if array else b"")
            size = source.tell()
            source.seek(0)
            self._s3.upload_fileobj(source, PIPELINE.source_bucket, PIPELINE.source_key)
        if (records, self.rows) not in self._expectations:  # the records of an array publish what lines with them do
            self._expectations[records, self.rows] = self._expect(records)
        expected, counts = self._expectations[records, self.rows]
        return Case(CaseSize(records, self.rows, array), size, expected, counts)

    def _expect(self, records: int) -> tuple[Fingerprint, dict[str, Any]]:
        """What the oracle publishes and counts."""
        counts: dict[str, Any] = {}
        with tempfile.NamedTemporaryFile() as output:
            for chunk in self._chunks(records):
                add_expected(output, counts, self._overlay(chunk))
            output.flush()
            expected = fingerprint(Path(output.name))
        ids = set(data.source_ids(records, self.rows))
        unmatched = (key for key in range(1, self.rows + 1) if key not in ids)
        counts |= {
            "unmatched": self.rows - counts["matched"],
            "unmatched_ids": list(map(str, itertools.islice(unmatched, 10))),
            "table_rows": self.rows,
        }
        return expected, counts

    def run_job(self, heap: str, bounds: Bounds, runs: int = 1, engine: str = "") -> Measured:
        """Runs the job as the runner of `local/` does, with a driver heap such as `4g`; the last of `runs` is timed.

        It chooses its engine where none is named.
        """
        definition = self._aws.client("glue").get_job(JobName=PIPELINE.job)["Job"]
        with tempfile.TemporaryDirectory(prefix="bench-job-") as folder:
            home = Path(folder)
            arguments = definition["DefaultArguments"] | ({"--engine": engine} if engine else {})
            script, modules = service.fetch_code(self._s3, definition["Command"], arguments, home)
            variables = {**os.environ, "LOCAL_SPARK_MEMORY": heap}
            environment = service.job_environment(home, modules, [jdbc_jar()], "", variables)
            command = [
                sys.executable,
                str(ROOT / "bench" / "job_process.py"),
                str(runs),
                str(script),
                *service.script_arguments(PIPELINE.job, arguments),
            ]
            return measure(command, {**self._aws.environment(), **environment}, bounds)

    def run_plain(self, heap: str, case: Case, bounds: Bounds) -> Measured:
        """Runs plain PySpark by the job's own Python, with Spark as the job has it."""
        with tempfile.TemporaryDirectory(prefix="bench-plain-") as folder:
            variables = {**os.environ, "LOCAL_SPARK_MEMORY": heap}
            environment = service.job_environment(Path(folder), [], [jdbc_jar()], "", variables)
            return self._run_contestant(sys.executable, "plain", self._task(case, bounds), environment, bounds)

    def run_peer(self, python: Path, name: str, case: Case, bounds: Bounds, **changes: float) -> Measured:
        """Runs one of `bench.contestants`, its task changed, by the Python that has its libraries."""
        return self._run_contestant(str(python), name, self._task(case, bounds) | changes, {}, bounds)

    def _task(self, case: Case, bounds: Bounds) -> dict[str, Any]:
        server = {name: getattr(self._database, name) for name in ("host", "port", "user", "password", "database")}
        return {
            **server,
            "source_bucket": PIPELINE.source_bucket,
            "source_key": PIPELINE.source_key,
            "destination_bucket": PIPELINE.destination_bucket,
            "destination_key": PIPELINE.destination_file,
            **case.size._asdict(),
            "output_bytes": case.expected.bytes,
            "seconds": bounds.seconds,
            "sample_seconds": LOOP_SAMPLE_SECONDS,
        }

    def _run_contestant(
        self, python: str, name: str, task: Mapping[str, Any], environment: Mapping[str, str], bounds: Bounds
    ) -> Measured:
        variables = {**self._aws.environment(), **environment, "BENCH_TASK": json.dumps(task)}
        return measure([python, "-m", "bench.contestants", name], variables, bounds)

    def published(self) -> Fingerprint | None:
        """Reads what a run published; None where it published nothing."""
        with tempfile.NamedTemporaryFile() as file:
            try:
                self._s3.download_fileobj(PIPELINE.destination_bucket, PIPELINE.destination_file, file)
            except self._s3.exceptions.ClientError:
                return None
            file.flush()
            return fingerprint(Path(file.name))

    def clear(self) -> None:
        """Deletes what a run published."""
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


def add_expected(output: IO[bytes], counts: dict[str, Any], expected: oracle.Expected) -> None:
    """Adds the CSV and the counts of a chunk of the source to those of the chunks before."""
    output.write(expected.csv[expected.csv.index(b"\n") + 1 :] if counts else expected.csv)
    for name in ("source_records", "matched", "source_only", "filled_cells"):
        counts[name] = counts.get(name, 0) + expected.counts[name]
    counts["columns"] = expected.counts["columns"]


def differences(case: Case, output: Fingerprint | None, result: Mapping[str, Any]) -> list[str]:
    """Lists what of a run's output and counts is not as expected."""
    wrong = [name for name, value in case.counts.items() if name in result and result[name] != value]
    if output is None:
        return [*wrong, "no output"]
    if output.rows != case.expected.rows:
        return [*wrong, f"{output.rows} rows"]
    names = dict.fromkeys([*case.expected.columns, *output.columns])
    return wrong + [f"column {name}" for name in names if case.expected.columns.get(name) != output.columns.get(name)]
