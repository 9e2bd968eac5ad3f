"""Makes tables and the page of what was measured. No clock, no files: the same JSON gives the same text."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench import japanese
from bench.data import COLUMNS, CaseSize, size_text
from bench.measure import GIB

JOB, SPARK, WARM, PLAIN = "job", "spark", "warm", "plain"
PEERS = (PLAIN, "polars", "duckdb", "pandas")
NAMES = {
    JOB: "this job",
    SPARK: "this job (Spark engine)",
    WARM: "this job, again in its JVM",
    PLAIN: "plain PySpark",
    "polars": "polars + connectorx",
    "duckdb": "DuckDB, table as Arrow",
    "pandas": "pandas merge + SQLAlchemy/PyMySQL",
    "loop": "row-by-row pandas loop",
    "floor": "floor: read, read, write",
}
SMALL, MIDDLE, LARGE = 20_000, 1_000_000, 5_000_000  # source records
TABLE, BIG_TABLE = 2_000_000, 20_000_000
USUAL, USUAL_SECONDS = (30_000, 50_000), 2.0  # the run nearly everybody has
# The job before it had two engines (commit 4304822, 2026-11-24, heap of 4 GB, 2 cores): medians of peak memory, and of
# the time of 5M x 20M. What was not measured then has the number of the other table: memory went with the source.
BEFORE_GIB = {
    CaseSize(MIDDLE, TABLE): 2.19,
    CaseSize(MIDDLE, BIG_TABLE): 2.37,
    CaseSize(LARGE, TABLE): 2.59,
    CaseSize(LARGE, TABLE, array=True): 2.59,
    CaseSize(LARGE, BIG_TABLE): 2.59,
}
BEFORE_SECONDS = 103.0
MET, MISSED, NOT_MEASURED = "met", "missed", "not measured"
MIB = 1024**2
HEADER = ("", "time s", "least to most", "CPU s", "peak GiB", "wall s", "remarks")


@dataclass(frozen=True)
class Summary:
    """A contestant on a case: medians of its runs.

    Attributes:
        status: `ok`, or why there are no numbers.
        seconds: The run alone, without starting Python, Spark and what they import.
        start: Of the job and plain PySpark: seconds until there was a JVM, for Spark with a session.
    """

    status: str
    seconds: float = 0.0
    least: float = 0.0
    most: float = 0.0
    cpu: float = 0.0
    peak: float = 0.0
    wall: float = 0.0
    start: float = 0.0
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """A target and what came of it: `met`, `missed` or `not measured`."""

    case: str
    target: str
    measured: str
    verdict: str


def summary(runs: Sequence[Mapping[str, Any]]) -> Summary:
    """One contestant's runs of a case; one that broke leaves no numbers."""
    last = runs[-1]
    finished = [run for run in runs if run["status"] == "ok"]
    if not finished or last["status"] == "failed":
        lost_at = f" at {last['at']}" if "at" in last else ""
        return Summary(last["status"] + lost_at, remarks=(last["reason"],) if "reason" in last else ())

    def median(name: str) -> float:
        return float(statistics.median(run[name] for run in finished))

    times = [run["seconds"] for run in finished]
    ran_out = [f"{len(finished)} runs, then {last['status']}"] if last["status"] != "ok" else []
    return Summary(
        "ok",
        median("seconds"),
        min(times),
        max(times),
        median("cpu"),
        median("peak"),
        median("wall"),
        median("session") if "session" in finished[0] else 0.0,
        (*dict.fromkeys(text for run in finished for text in remarks(run)), *ran_out),
    )


def remarks(run: Mapping[str, Any]) -> Iterator[str]:
    """Yields what a reader should know of a run beside its numbers."""
    if "engine" in run:
        yield f"{run['engine']} engine"
    if "plan" in run:
        yield f"{run['plan']} plan"
    if "lookup" in run:
        yield "reads the rows it needs by id" if run["lookup"] else "reads the whole table"
    if "done" in run:
        yield "extrapolated from a sample of 30 s"
    if run.get("differs"):
        yield f"**differs: {', '.join(run['differs'])}**"


class Measurements:
    """The summaries by contestant and size."""

    def __init__(self, results: Mapping[str, Any]) -> None:
        self._summaries = {
            (name, *case_size(case)): summary(runs) for case in results["cases"] for name, runs in case["runs"].items()
        }

    def get(self, name: str, records: int, rows: int, array: bool = False) -> Summary | None:
        """A contestant on a case, when it finished."""
        result = self._summaries.get((name, records, rows, array))
        return result if result and result.status == "ok" else None

    def best_peer(self, records: int, rows: int, array: bool = False) -> tuple[str, Summary] | None:
        """The fastest peer of a case and its numbers, when one finished."""
        peers = [(name, peer) for name in PEERS if (peer := self.get(name, records, rows, array))]
        return min(peers, key=lambda pair: pair[1].seconds, default=None)

    def status(self, name: str, records: int, rows: int, array: bool = False) -> str:
        """How a contestant fared, `` when it did not run."""
        result = self._summaries.get((name, records, rows, array))
        return result.status if result else ""


def targets(results: Mapping[str, Any]) -> Iterator[Verdict]:
    """The targets of issue 14, in the order of its table."""
    measurements = Measurements(results)
    yield against_number(measurements, JOB, CaseSize(*USUAL), USUAL_SECONDS, f"at most {USUAL_SECONDS:g} s")
    yield against_contestant(measurements, CaseSize(*USUAL), PLAIN, "at most 1/6 of plain PySpark", most=1 / 6)
    yield against_best(measurements, CaseSize(SMALL, TABLE), 0.5)
    yield against_best(measurements, CaseSize(MIDDLE, TABLE), 0.9)
    yield against_contestant(measurements, CaseSize(MIDDLE, TABLE), "floor", "at most 2 x the floor", most=2.0)
    yield against_best(measurements, CaseSize(SMALL, BIG_TABLE), 0.2)
    yield against_best(measurements, CaseSize(MIDDLE, BIG_TABLE), 0.8)
    yield against_best(measurements, CaseSize(LARGE, BIG_TABLE), 0.9)
    yield memory(measurements, JOB, [CaseSize(LARGE, BIG_TABLE)], "no more memory than before")
    slow = "at least 200 x faster than the row-by-row loop"
    yield against_contestant(measurements, CaseSize(MIDDLE, TABLE), "loop", slow, least=200.0)
    yield memory(measurements, JOB, BEFORE_GIB, "no more memory than before, on the engine it chooses")
    yield memory(measurements, SPARK, BEFORE_GIB, "no more memory than before, Spark engine")
    most = BEFORE_SECONDS * 1.25
    target = f"Spark engine: at most 1.25 x the {BEFORE_SECONDS:g} s of before"
    yield against_number(measurements, SPARK, CaseSize(LARGE, BIG_TABLE), most, target)


def against_number(measurements: Measurements, name: str, size: CaseSize, most: float, target: str) -> Verdict:
    """Seconds of the job against a number."""
    result, case = measurements.get(name, *size), case_text(*size)
    if result is None:
        return unfinished(case, target, measurements.status(name, *size))
    return Verdict(case, target, f"{result.seconds:.2f} s", MET if result.seconds <= most else MISSED)


def against_contestant(
    measurements: Measurements,
    size: CaseSize,
    name: str,
    target: str,
    *,
    most: float | None = None,
    least: float | None = None,
) -> Verdict:
    """The job's time as a share of that of another contestant; with `least` the other way round."""
    job, rival, case = measurements.get(JOB, *size), measurements.get(name, *size), case_text(*size)
    if job is None:
        return unfinished(case, target, measurements.status(JOB, *size))
    if rival is None:
        return Verdict(case, target, f"{NAMES[name]}: {measurements.status(name, *size) or '-'}", NOT_MEASURED)
    ratio = job.seconds / rival.seconds if least is None else rival.seconds / job.seconds
    return judged(case, target, ratio, most=most, least=least)


def against_best(measurements: Measurements, size: CaseSize, most: float) -> Verdict:
    """The job's time as a share of that of the best peer that finishes."""
    target = f"at most {most:g} x the best peer"
    job, peer, case = measurements.get(JOB, *size), measurements.best_peer(*size), case_text(*size)
    statuses = [status for name in PEERS if (status := measurements.status(name, *size))]
    if job is None:
        return unfinished(case, target, measurements.status(JOB, *size))
    if "failed" in statuses:
        return Verdict(case, target, "a peer failed", NOT_MEASURED)
    if peer is None:
        reason = "every peer ran out of time or memory"
        return Verdict(case, target, reason, MET) if statuses else unfinished(case, target, "")
    return judged(case, target, job.seconds / peer[1].seconds, f" of {NAMES[peer[0]]}", most=most)


def memory(measurements: Measurements, name: str, sizes: Collection[CaseSize], target: str) -> Verdict:
    """The job's peak memory as a share of what it was before, at its worst over the sizes that were measured."""
    measured = [size for size in sizes if measurements.status(name, *size)]
    case = f"{size_text(MIDDLE)} to {size_text(LARGE)} records" if len(sizes) > 1 else case_text(*next(iter(sizes)))
    shares = []
    for size in measured:
        result = measurements.get(name, *size)
        if result is None:
            return unfinished(case_text(*size), target, measurements.status(name, *size))
        shares.append((result.peak / GIB / BEFORE_GIB[size], size, result.peak / GIB))
    if not shares:
        return unfinished(case, target, "")
    share, size, gib = max(shares)
    note = f": {gib:.2f} GiB, {BEFORE_GIB[size]:.2f} before"
    worst = f", at worst with {case_text(*size)}" if len(shares) > 1 else ""
    return judged(case, target, share, note + worst, most=1.0)


def unfinished(case: str, target: str, status: str) -> Verdict:
    """Judges a job without numbers: if something ended it, it misses any target, else it was not measured."""
    return Verdict(case, target, status or "-", MISSED if status not in {"", "ok"} else NOT_MEASURED)


def judged(
    case: str,
    target: str,
    ratio: float,
    note: str = "",
    *,
    most: float | None = None,
    least: float | None = None,
) -> Verdict:
    """Compares a ratio with its bound."""
    met = (most is None or ratio <= most) and (least is None or ratio >= least)
    return Verdict(case, target, f"{ratio:.2f} x{note}", MET if met else MISSED)


def tally(verdicts: Sequence[Verdict]) -> str:
    """How many targets are met, missed and not measured, in words."""
    counts = [
        ([target.verdict for target in verdicts].count(verdict), verdict) for verdict in (MET, MISSED, NOT_MEASURED)
    ]
    return ", ".join(f"{count} {verdict}" for count, verdict in counts if count)


def case_size(case: Mapping[str, Any]) -> CaseSize:
    """Reads the size of a case of the JSON; where it does not say so, as in old files, the source is no array."""
    return CaseSize(case["records"], case["rows"], case.get("array", False))


def case_text(records: int, rows: int, array: bool = False) -> str:
    """A case in words."""
    return f"{'array of ' if array else ''}{size_text(records)} x {size_text(rows)}"


def case_rows(case: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """A row of the table for each contestant of a case."""
    for name, runs in case["runs"].items():
        result = summary(runs)
        if result.status != "ok":
            yield NAMES[name], result.status, *("-",) * 4, "; ".join(result.remarks)
            continue
        started = [f"Spark started in {result.start:.1f} s before"] if result.start else []
        yield (
            NAMES[name],
            f"{result.seconds:,.1f}",
            f"{result.least:,.1f} - {result.most:,.1f}",
            f"{result.cpu:,.1f}",
            f"{result.peak / GIB:.2f}",
            f"{result.wall:,.1f}",
            "; ".join([*result.remarks, *started]),
        )


def case_title(case: Mapping[str, Any]) -> str:
    """A case with its bytes."""
    sizes = f"source {case['source_bytes'] / MIB:,.1f} MiB, CSV {case['output_bytes'] / MIB:,.1f} MiB"
    return f"{case_text(*case_size(case))} ({sizes})"


def terminal(results: Mapping[str, Any]) -> Iterator[str]:
    """The tables for a terminal."""
    for case in results["cases"]:
        yield f"\n{case_title(case)}"
        yield from aligned([HEADER, *case_rows(case)])
    verdicts = list(targets(results))
    yield f"\nTargets: {tally(verdicts)}"
    yield from aligned([(target.case, target.target, target.measured, target.verdict) for target in verdicts])


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  " + "  ".join(cells).replace("**", "").rstrip()


def pipe_table(header: Sequence[str], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    """A table of Markdown."""
    yield f"| {' | '.join(header)} |"
    yield f"|{' --- |' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def overview(results: Mapping[str, Any]) -> Iterator[str]:
    """Seconds of all on all cases."""
    names = list(dict.fromkeys(name for case in results["cases"] for name in case["runs"] if name != WARM))
    rows = (times(case, names) for case in results["cases"])
    yield from pipe_table(("source x table", *(NAMES[name] for name in names)), rows)


def times(case: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    """Writes the seconds of some contestants on a case, with `~` where they were extrapolated."""
    cells = [case_text(*case_size(case))]
    for name in names:
        result = summary(case["runs"][name]) if name in case["runs"] else Summary("-")
        rough = "~" if any("extrapolated" in remark for remark in result.remarks) else ""
        cells.append(f"{rough}{result.seconds:,.1f} s" if result.status == "ok" else result.status)
    return tuple(cells)


def machine_rows(results: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """What the numbers depend on."""
    machine, versions = results["machine"], dict(results["versions"])
    for case in results["cases"]:
        for runs in case["runs"].values():
            versions |= runs[-1].get("libraries", {})
    yield (
        "machine",
        f"{machine['cores']} cores, {machine['memory'] / GIB:.0f} GiB, one for everything",
    )
    for measured in dict.fromkeys(case["measured"] for case in results["cases"]):
        cases = [case_text(*case_size(case)) for case in results["cases"] if case["measured"] == measured]
        yield f"measured {measured}", "; ".join(cases)
    yield "command", f"`{results['command']}`"
    yield "versions", ", ".join(f"{name} {version}" for name, version in sorted(versions.items(), key=str))
    for table in results["tables"]:
        size = f"{table['bytes'] / GIB:.1f} GiB on disk, made in {table['seconds']:.0f} s"
        yield f"table of {size_text(table['rows'])}", f"{size}, COUNT(*) {table['count_seconds']:.2f} s"


LANGUAGES = {"ja": "", "en": ".en"}  # of the pages, with what stands before the suffix of each
METHOD = """\
Each case is one run of one command on one machine. MariaDB and the S3 server (moto) are on it, too, on loopback, and
are shared by all. MariaDB has
{options},
and the table has been read once before anybody is measured. The table has {columns} columns (Japanese text, decimals,
datetimes, dates, nulls), the source is JSON Lines of 6 of them (in a case so named, one JSON array), in no order of the
ids. Each case has {repeats} runs of each contestant, in turns, each round begun by another contestant; the tables show
medians.

- **time** is what a contestant does from the first byte read to the object in S3. Starting Python and importing
  libraries is not in it, nor is the start of Spark (told apart): of a JVM with its libraries, which is all that the
  driver engine needs, else of a session up to where it can plan SQL. **wall** has all of that.
- **CPU** and **peak** are those of the contestant's whole process tree (driver, JVM, Python workers), peak as the sum
  of proportional set sizes, looked at four times a second. The servers are not in it.
- The job runs on Spark's `local[*]` with a driver heap of {heap}, settings as shipped: it chooses its engine, which
  the remarks name. **Spark engine** is the job with `--engine spark`. **Again in its JVM** is the second of two
  runs in one JVM (CPU, peak and wall are of both): what it is faster by is a cold JVM (classes, compiler) and
  cold Python workers. No target counts it, as Glue starts each run cold.
- **Plain PySpark** is what a Glue engineer writes first, with the same Spark, heap and driver of JDBC, cold as well:
  `read.json`, `read.jdbc` in 4 ranges, a left join, `coalesce` for each column, `orderBy` to keep the source's order,
  one CSV. JSON and CSV go through local files by boto3, as there is no S3A here. It counts nothing. Datetimes and
  TINYINT(1) it writes as Spark prints them, so these columns differ.
- **polars** and **DuckDB** read the whole table by connectorx over 8 connections (of 1, 2, 4 and 8 the fastest here),
  as text that the database prints, since that is what the CSV must hold. **pandas** and the **loop** stream it by
  PyMySQL in chunks of 200,000 rows. These keep the source's order and count what the job counts. polars and DuckDB are
  told the column types of the source, pandas is given Arrow's, which spares them `1.0` for `1`.
- The **loop** is what the original system ran: `iterrows`, one look into the table's frame for each record. Where it
  would take more than {limit} minutes, it is run for 30 seconds and extrapolated.
- The **floor** reads the source, reads the rows of the table that are needed (by id where the table is at least 8 times
  the source, else all), and writes as many bytes as the CSV has. It neither parses nor joins.
- What each publishes is read back: number of rows, a checksum of every column's cells in order, and the counts are
  compared with those of the tests' oracle. A difference would be in the remarks.
- A run may take {limit} minutes and 80 % of the machine's memory, but not the last GiB that is free. Who runs out of
  either is not run again, there or at anything larger. What is free depends on the servers: that of S3 keeps objects in
  memory.
"""


def markdown(results: Mapping[str, Any], options: Sequence[str], language: str) -> str:
    """The page."""
    say, method = (japanese.line, japanese.METHOD) if language == "ja" else (str, METHOD)
    filled = method.format(
        options=" ".join(f"`{option}`" for option in options),
        columns=len(COLUMNS),
        repeats=results["repeats"],
        heap=results["heap"].upper().replace("G", " GB"),
        limit=f"{results['seconds_limit'] / 60:.2g}",
    )
    return "\n".join([*map(say, result_lines(results)), filled, *map(say, machine_lines(results))]) + "\n"


def result_lines(results: Mapping[str, Any]) -> Iterator[str]:
    """What stands before the method, in English."""
    verdicts = list(targets(results))
    yield from ("# Benchmark", "", "[日本語](benchmark.md)", "")
    yield "The job against what one would write instead. Made by `make bench`; not edited by hand."
    yield from ("", "![time and memory against size](benchmark.en.svg)", "", "## All at a glance", "")
    yield from overview(results)
    yield from ("", "## Targets met and missed", "")
    rows = ((target.case, target.target, target.measured, target.verdict) for target in verdicts)
    yield from pipe_table(("case", "target", "measured", ""), rows)
    yield ""
    yield f"{tally(verdicts)}. Cases are source records x table rows. Times are without the start of Spark."
    yield "Before: the job when it had one engine, on two cores, 2026-11-24; compare on the same machine alone."
    yield ""
    for case in results["cases"]:
        yield from (f"## {case_title(case)}", "", *pipe_table(HEADER, case_rows(case)), "")
    yield from ("## Method", "")


def machine_lines(results: Mapping[str, Any]) -> Iterator[str]:
    """What stands behind the method, in English."""
    yield from pipe_table(("", ""), machine_rows(results))
