"""What a run costs on Glue as sizes grow, and its engine: fitted to what was measured, for docs/scaling.md."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.data import OUTPUT_COLUMNS, size_text
from bench.report import JOB, SPARK, Measurements, case_size, case_text, pipe_table
from overlay.engines import cost

CORES_PER_WORKER = 4  # G.1X: 4 vCPU, 16 GB, 1 DPU (AWS Glue guide, "Worker types")
DOLLARS_PER_DPU_HOUR = 0.44
MINIMUM_SECONDS = 60  # billed
GLUE_START_SECONDS = 60
WORKERS = (2, 5, 10, 20, 50)
ENGINE_WORKERS = (2, 10, 50)
ENGINE_RECORDS = (100_000, 1_000_000, 10_000_000)
MOST_ROWS = 10**10
RECORD_BYTES, ROW_BYTES = 125, 120  # of the benchmark
CONNECTIONS = 40  # a quarter of those that a small RDS instance takes
SIZES = ((1_000_000, 10_000_000), (5_000_000, 50_000_000), (10_000_000, 100_000_000), (100_000_000, 100_000_000))


@dataclass(frozen=True)
class Model:
    """Seconds of a scan.

    Attributes:
        fixed: Of the driver, however small the data are.
        record, row: Of one core for a million source records and a million rows of the table.
        delivery: In which the measured database hands out a million rows to the fastest reader, at most.
    """

    fixed: float
    record: float
    row: float
    delivery: float

    def seconds(self, records: int, rows: int, workers: int) -> tuple[float, bool]:
        """What a run takes on so many G.1X workers, and whether the database is what it waits for."""
        cores = CORES_PER_WORKER * (workers - 1)  # the driver has a worker of its own
        work = (self.record * records + self.row * rows) / 1e6 / cores / cost.EFFICIENCY
        delivery = self.delivery * rows / 1e6
        return self.fixed + max(work, delivery), delivery > work


def fit(results: Mapping[str, Any]) -> Model:
    """The model by least squares, of the Spark engine on JSON Lines; a lookup counts as no rows of the table.

    Where the Spark engine has no runs of its own, the job had no other.

    Raises:
        ValueError: the sizes that were measured do not determine it.
    """
    measurements = Measurements(results)
    name = SPARK if any(SPARK in case["runs"] for case in results["cases"]) else JOB
    sizes = [(case["records"], case["rows"]) for case in results["cases"] if not case_size(case).array]
    jobs = [(size, run) for size in sizes if (run := measurements.get(name, *size))]
    floors = [(rows, run) for records, rows in sizes if (run := measurements.get("floor", records, rows))]
    matrix = [(1.0, records / 1e6, rows / 1e6 if "scan plan" in run.remarks else 0.0) for (records, rows), run in jobs]
    whole = [run.seconds / rows * 1e6 for rows, run in floors if "reads the whole table" in run.remarks]
    if not whole or np.linalg.matrix_rank(np.array(matrix)) < 3:  # noqa: PLR2004
        message = "too few sizes were measured for the model"
        raise ValueError(message)
    _, record, row = np.linalg.lstsq(np.array(matrix), np.array([run.cpu for _, run in jobs]), rcond=None)[0]
    return Model(min(run.seconds for _, run in jobs), float(record), float(row), min(whole))


def lines(results: Mapping[str, Any]) -> Iterator[str]:
    """The model and what it says, as Markdown."""
    model = fit(results)
    yield f"Measured on {results['machine']['cores']} cores ([benchmark](benchmark.en.md) has machines and dates):"
    yield ""
    yield f"- {model.fixed:.0f} s of the driver, however small the data are;"
    yield f"- {model.record:.1f} core-seconds for a million source records (parsed, shuffled, written);"
    yield f"- {model.row:.1f} core-seconds for a million rows of the table (read, shuffled, compared);"
    yield f"- {model.delivery:.1f} s at most in which the database hands out a million rows of 12 columns."
    yield ""
    header = ("source x table", *(f"{workers} workers" for workers in WORKERS))
    yield from pipe_table(header, (tuple(row(model, *size)) for size in SIZES))
    yield ""
    yield "`*`: the database is what the run waits for; more workers cost more and save nothing."
    yield ""
    yield from engine_lines(results)


def fit_driver(results: Mapping[str, Any]) -> tuple[float, float] | None:
    """Seconds of the driver engine for a million source records and a million rows, by least squares over its scans.

    Beside `cost.DRIVER_FIXED`; None where too few sizes were measured.
    """
    measurements = Measurements(results)
    sizes = [(case["records"], case["rows"]) for case in results["cases"] if not case_size(case).array]
    runs = [(size, run) for size in sizes if (run := measurements.get(JOB, *size))]
    scans = [(size, run.seconds) for size, run in runs if {"driver engine", "scan plan"} <= set(run.remarks)]
    matrix = np.array([(records / 1e6, rows / 1e6) for (records, rows), _ in scans]).reshape(-1, 2)
    if len(scans) < matrix.shape[1] or np.linalg.matrix_rank(matrix) < matrix.shape[1]:
        return None
    seconds = np.array([seconds for _, seconds in scans]) - cost.DRIVER_FIXED
    record, row = np.linalg.lstsq(matrix, seconds, rcond=None)[0]
    return float(record), float(row)


def engine_lines(results: Mapping[str, Any]) -> Iterator[str]:
    """What the job's choice of an engine rests on, and where it changes, as Markdown."""
    if measured := fit_driver(results):
        yield (
            f"The driver engine, in scans: {cost.DRIVER_FIXED:g} s, {measured[0]:.1f} s for a"
            f" million source records and {measured[1]:.1f} s for a million rows."
        )
        yield ""
    yield "The job reckons with these constants (`overlay/engines/cost.py`); each column of a row is a cell:"
    yield ""
    constants = [
        ("fixed", f"{cost.DRIVER_FIXED:g} s", f"{cost.SPARK_FIXED:g} s"),
        ("a MB of JSON, of one core", f"{cost.DRIVER_SOURCE:g} s", f"{cost.SPARK_SOURCE:g} s"),
        (
            "a million cells of the table",
            f"{cost.DRIVER_CELLS:g} s of one of its streams",
            f"{cost.SPARK_CELLS:g} s of one core, busy for {cost.EFFICIENCY:.0%} of the time",
        ),
        (
            "the database, a million cells",
            "in that",
            f"{cost.DELIVERY:g} s of one connection, {cost.DELIVERIES} at a time",
        ),
    ]
    yield from pipe_table(("", "driver engine", "Spark engine"), constants)
    yield ""
    yield "So Spark is chosen from so many rows on (of 12 columns; where the source fits into the driver):"
    yield ""
    header = ("source", *(f"{workers} workers" for workers in ENGINE_WORKERS))
    rows = [
        (f"{size_text(records)} records", *(crossover(records, workers) for workers in ENGINE_WORKERS))
        for records in ENGINE_RECORDS
    ]
    yield from pipe_table(header, rows)


def crossover(records: int, workers: int) -> str:
    """From how many rows on a source of so many records goes to Spark on so many G.1X workers, to two digits."""
    cores = max(CORES_PER_WORKER * (workers - 1), 1)
    machines = cost.Machines(CORES_PER_WORKER, cores, CONNECTIONS, math.inf)

    def engine(rows: int) -> str:
        work = cost.Work(records * RECORD_BYTES, rows, ROW_BYTES, len(OUTPUT_COLUMNS), reads_all=True)
        return cost.choose(work, machines)[0]

    if engine(MOST_ROWS) == "driver":
        return "never"
    rows = bisect.bisect_left(range(1, MOST_ROWS), 1, key=lambda rows: engine(rows) == "spark")
    return f"{float(f'{rows:.1e}') / 1e6:,.0f} M"


def row(model: Model, records: int, rows: int) -> Iterator[str]:
    """One size on each number of workers: minutes and dollars."""
    yield case_text(records, rows) if rows < 10**9 else f"{size_text(records)} x {rows // 10**9}G"
    for workers in WORKERS:
        seconds, waits = model.seconds(records, rows, workers)
        dollars = max(seconds + GLUE_START_SECONDS, MINIMUM_SECONDS) / 3600 * workers * DOLLARS_PER_DPU_HOUR
        yield f"{seconds / 60:.1f} min, ${dollars:.2f}{' *' if waits else ''}"
