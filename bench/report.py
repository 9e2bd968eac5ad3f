"""Makes tables and the page of what was measured. No clock, no files: the same JSON gives the same text."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.data import COLUMNS, size_text
from bench.measure import GIB

JOB, WARM = "job", "warm"
PEERS = ("polars", "duckdb", "pandas")
NAMES = {
    JOB: "this job",
    WARM: "this job, again in its session",
    "polars": "polars + connectorx",
    "duckdb": "DuckDB, table as Arrow",
    "pandas": "pandas merge + SQLAlchemy/PyMySQL",
    "loop": "row-by-row pandas loop",
    "floor": "floor: read, read, write",
}
SMALL, MIDDLE, LARGE = 20_000, 1_000_000, 5_000_000  # source records
TABLE, BIG_TABLE = 2_000_000, 20_000_000
MIB = 1024**2
HEADER = ("", "time s", "least to most", "CPU s", "peak GiB", "wall s", "remarks")


@dataclass(frozen=True)
class Summary:
    """A contestant on a case: medians of its runs.

    Attributes:
        status: `ok`, or why there are no numbers.
        seconds: The run alone, without starting Python, Spark and what they import.
        start: Of the job: seconds until there was a Spark session.
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
    """A target and what came of it: `met`, `not met` or `not measured`."""

    case: str
    target: str
    measured: str
    verdict: str


def summary(runs: Sequence[Mapping[str, Any]]) -> Summary:
    """One contestant's runs of a case; one that broke leaves no numbers."""
    last = runs[-1]
    finished = [run for run in runs if run["status"] == "ok"]
    if not finished or last["status"] == "failed":
        at = f" at {last['at']}" if "at" in last else ""
        return Summary(last["status"] + at)

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
    """What is to be said of a run beside its numbers."""
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
        self._found = {
            (name, case["records"], case["rows"]): summary(runs)
            for case in results["cases"]
            for name, runs in case["runs"].items()
        }
        self.counting = {table["rows"]: table["count_seconds"] for table in results["tables"]}

    def get(self, name: str, records: int, rows: int) -> Summary | None:
        """A contestant on a case, when it finished."""
        found = self._found.get((name, records, rows))
        return found if found and found.status == "ok" else None

    def best_peer(self, records: int, rows: int) -> tuple[str, Summary] | None:
        """The fastest peer of a case and its numbers, when one finished."""
        found = [(name, peer) for name in PEERS if (peer := self.get(name, records, rows))]
        return min(found, key=lambda pair: pair[1].seconds, default=None)

    def status(self, name: str, records: int, rows: int) -> str:
        """How a contestant fared, `` when it did not run."""
        found = self._found.get((name, records, rows))
        return found.status if found else ""


def targets(results: Mapping[str, Any]) -> Iterator[Verdict]:
    """The targets of issue 4, in its order."""
    found = Measurements(results)
    yield against_best(found, SMALL, BIG_TABLE, 0.2, "at most 1/5 of the best peer's time")
    yield growth_with_table(found)
    yield against_best(found, MIDDLE, TABLE, 1.0, "at least as fast as the best peer")
    yield from largest(found)
    yield flat_memory(found)
    job = found.get(JOB, MIDDLE, TABLE)
    floor, loop = found.get("floor", MIDDLE, TABLE), found.get("loop", MIDDLE, TABLE)
    case, most, least = case_text(MIDDLE, TABLE), "at most 2 x the floor", "at least 100 x faster than the loop"
    yield judged(case, most, job.seconds / floor.seconds if job and floor else None, most=2.0)
    yield judged(case, least, loop.seconds / job.seconds if job and loop else None, least=100.0)


def against_best(found: Measurements, records: int, rows: int, most: float, target: str) -> Verdict:
    """The job's time as a share of the best peer's."""
    job, peer, case = found.get(JOB, records, rows), found.best_peer(records, rows), case_text(records, rows)
    statuses = [found.status(name, records, rows) for name in PEERS]
    if "failed" in statuses:
        return Verdict(case, target, "a peer failed", "not measured")
    if job and not peer and all(statuses):
        return Verdict(case, target, "every peer ran out of time or memory", "met")
    ratio = job.seconds / peer[1].seconds if job and peer else None
    return judged(case, target, ratio, f" of {NAMES[peer[0]]}" if peer else "", most=most)


def growth_with_table(found: Measurements) -> Verdict:
    """The job's time with a table ten times as large, COUNT(*) taken off."""
    small, big = found.get(JOB, SMALL, TABLE), found.get(JOB, SMALL, BIG_TABLE)
    target = f"at most 1.3 x the time of {case_text(SMALL, TABLE)} (plus COUNT(*))"
    counting = found.counting.get(BIG_TABLE, 0.0)
    ratio = (big.seconds - counting) / small.seconds if small and big else None
    return judged(case_text(SMALL, BIG_TABLE), target, ratio, f" after {counting:.1f} s of COUNT(*)", most=1.3)


def largest(found: Measurements) -> Iterator[Verdict]:
    """The largest case: finishes, and costs no more per source record than the middle one."""
    case, status = case_text(LARGE, BIG_TABLE), found.status(JOB, LARGE, BIG_TABLE)
    verdict = "not measured" if not status else "met" if status == "ok" else "not met"
    yield Verdict(case, "finishes with a heap of 4 GB", status or "-", verdict)
    middle, large = found.get(JOB, MIDDLE, TABLE), found.get(JOB, LARGE, BIG_TABLE)
    ratio, both = None, ""
    if middle and large:
        ratio = large.seconds / LARGE / (middle.seconds / MIDDLE)
        rows = large.seconds / (LARGE + BIG_TABLE) / (middle.seconds / (MIDDLE + TABLE))
        both = f" per source record ({rows:.2f} x per row of source and table)"
    yield judged(case, f"at most 1.3 x the time per row of {case_text(MIDDLE, TABLE)}", ratio, both, most=1.3)


def flat_memory(found: Measurements) -> Verdict:
    """The job's peak memory from the middle source to the large one, at its worst over the tables."""
    ratios = [
        large.peak / middle.peak
        for rows in (TABLE, BIG_TABLE)
        if (middle := found.get(JOB, MIDDLE, rows)) and (large := found.get(JOB, LARGE, rows))
    ]
    case = f"{size_text(MIDDLE)} to {size_text(LARGE)} records"
    return judged(case, "peak memory within 25 %", max(ratios, default=None), most=1.25)


def judged(
    case: str,
    target: str,
    ratio: float | None,
    note: str = "",
    *,
    most: float | None = None,
    least: float | None = None,
) -> Verdict:
    """A ratio against its bound."""
    if ratio is None:
        return Verdict(case, target, "-", "not measured")
    met = (most is None or ratio <= most) and (least is None or ratio >= least)
    return Verdict(case, target, f"{ratio:.2f} x{note}", "met" if met else "not met")


def case_text(records: int, rows: int) -> str:
    """A case in words."""
    return f"{size_text(records)} x {size_text(rows)}"


def case_rows(case: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """A row of the table for each contestant of a case."""
    for name, runs in case["runs"].items():
        one = summary(runs)
        if one.status != "ok":
            yield NAMES[name], one.status, *("-",) * 4, ""
            continue
        started = [f"Spark session started in {one.start:.1f} s before"] if one.start else []
        yield (
            NAMES[name],
            f"{one.seconds:,.1f}",
            f"{one.least:,.1f} - {one.most:,.1f}",
            f"{one.cpu:,.1f}",
            f"{one.peak / GIB:.2f}",
            f"{one.wall:,.1f}",
            "; ".join([*one.remarks, *started]),
        )


def case_title(case: Mapping[str, Any]) -> str:
    """A case with its bytes."""
    sizes = f"source {case['source_bytes'] / MIB:,.1f} MiB, CSV {case['output_bytes'] / MIB:,.1f} MiB"
    return f"{case_text(case['records'], case['rows'])} ({sizes})"


def terminal(results: Mapping[str, Any]) -> Iterator[str]:
    """The tables for a terminal."""
    for case in results["cases"]:
        yield f"\n{case_title(case)}"
        yield from aligned([HEADER, *case_rows(case)])
    yield "\nTargets"
    yield from aligned([(one.case, one.target, one.measured, one.verdict) for one in targets(results)])


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
    """Seconds of all on all cases, for the README."""
    names = list(dict.fromkeys(name for case in results["cases"] for name in case["runs"] if name != WARM))
    rows = (times(case, names) for case in results["cases"])
    yield from pipe_table(("source x table", *(NAMES[name] for name in names)), rows)
    machine = results["machine"]
    yield ""
    yield f"`{results['command']}`, {results['date']}, {machine['cpu']}, {machine['cores']} cores"


def times(case: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    """Seconds of some on a case; `~` where they were extrapolated."""
    cells = [case_text(case["records"], case["rows"])]
    for name in names:
        one = summary(case["runs"][name])
        rough = "~" if any("extrapolated" in remark for remark in one.remarks) else ""
        cells.append(f"{rough}{one.seconds:,.1f} s" if one.status == "ok" else one.status)
    return tuple(cells)


def machine_rows(results: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """What the numbers depend on."""
    machine, versions = results["machine"], dict(results["versions"])
    for case in results["cases"]:
        for runs in case["runs"].values():
            versions |= runs[-1].get("libraries", {})
    yield (
        "machine",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory'] / GIB:.0f} GiB, one for everything",
    )
    yield "date", results["date"]
    yield "command", f"`{results['command']}`"
    yield "versions", ", ".join(f"{name} {version}" for name, version in sorted(versions.items(), key=str))
    for table in results["tables"]:
        size = f"{table['bytes'] / GIB:.1f} GiB on disk, made in {table['seconds']:.0f} s"
        yield f"table of {size_text(table['rows'])}", f"{size}, COUNT(*) {table['count_seconds']:.2f} s"


METHOD = """\
All of it is one run of one command. MariaDB and the S3 server (moto) are on the same machine, on loopback, and are
shared by all. MariaDB has
{options},
and the table has been read once before anybody is measured. The table has {columns} columns (Japanese text, decimals,
datetimes, dates, nulls), the source is JSON Lines of 6 of them, in no order of the ids. Each case has {repeats} of each
contestant, in turns, each round begun by another contestant; the tables show medians.

- **time** is what a contestant does from the first byte read to the object in S3. Starting Python and importing
  libraries is not in it, nor is the start of the job's Spark session up to where it can plan SQL (told apart); **wall**
  has all of that.
- **CPU** and **peak** are those of the contestant's whole process tree (driver, JVM, Python workers), peak as the sum
  of proportional set sizes, looked at four times a second. The servers are not in it.
- The job runs on Spark's `local[*]` with a driver heap of {heap}, settings as shipped. **Again in its session** is the
  second of two runs in one Spark session (CPU, peak and wall are of both): what it is faster by is a cold JVM (classes,
  compiler) and cold Python workers. No target counts it, as Glue starts each run cold.
- **polars** and **DuckDB** read the whole table by connectorx over 8 connections (of 1, 2, 4 and 8 the fastest here),
  as text that the database prints, since that is what the CSV must hold. **pandas** and the **loop** stream it by
  PyMySQL in chunks of 200,000 rows. All peers keep the source's order and count what the job counts. polars and DuckDB
  are told the column types of the source, pandas is given Arrow's, which spares them `1.0` for `1`.
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


def markdown(results: Mapping[str, Any], options: Sequence[str]) -> str:
    """The page."""
    method = METHOD.format(
        options=" ".join(f"`{option}`" for option in options),
        columns=len(COLUMNS),
        repeats=f"{results['repeats']} runs" if results["repeats"] > 1 else "1 run",
        heap=results["heap"].upper().replace("G", " GB"),
        limit=f"{results['seconds_limit'] / 60:g}",
    )
    lines = [
        "# Benchmark",
        "",
        "The job against what one would write instead. Made by `make bench`; not edited by hand.",
        "",
        "![time and memory against size](benchmark.svg)",
        "",
        "## Targets",
        "",
        *pipe_table(
            ("case", "target", "measured", ""),
            ((one.case, one.target, one.measured, one.verdict) for one in targets(results)),
        ),
        "",
        "Cases are source records x table rows. Times are without the start of the Spark session.",
        "",
    ]
    for case in results["cases"]:
        lines += [f"## {case_title(case)}", "", *pipe_table(HEADER, case_rows(case)), ""]
    lines += ["## Method", "", method, *pipe_table(("", ""), machine_rows(results))]
    return "\n".join(lines) + "\n"
