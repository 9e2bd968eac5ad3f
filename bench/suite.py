"""Runs the contestants on every case of the grid and keeps what was measured as JSON."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.data import CaseSize, parse_case, size_text
from bench.measure import GIB, ROOT, Bounds, Measured
from bench.report import JOB, PLAIN, SPARK, WARM, case_size, case_text
from bench.stage import Case, Stage, differences
from local.services.processes import ServiceError

PEER_PYTHON = ROOT / ".venv-bench" / "bin" / "python"
# Runs of the job in one JVM, the last of which is timed, and its engine where it does not choose.
JOBS = {JOB: (1, ""), SPARK: (1, "spark"), WARM: (2, "")}
WARM_ROWS = 2_000_000  # of the largest table where the job is run once more in its JVM: that shows what is cold
# The job, the peers of which it must be the fastest, then the loop it replaced and the floor nobody gets under.
CONTESTANTS = (JOB, SPARK, WARM, PLAIN, "polars", "duckdb", "pandas", "loop", "floor")
GRID = "30kx50k,20kx2M,1Mx2M,5Mx2M,array-5Mx2M,20kx20M,1Mx20M,5Mx20M"
# Who is not run where the source is an array, and why.
NO_ARRAYS = {"loop": "the loop is the same as over JSON Lines"}
HEAP = "4g"
MEMORY_SHARE = 0.8
SPARE_BYTES = GIB  # left to everything else on the machine
OUT = ("out of memory", "out of time")
# Seconds of a run: fixed, per million source records, per million table rows. Measured on two cores; for the estimate.
COSTS = {
    JOB: (8, 3, 2),
    SPARK: (25, 8, 3.5),
    WARM: (10, 6, 4),
    PLAIN: (22, 30, 8),
    "polars": (1, 2, 3),
    "duckdb": (1, 4, 2),
    "pandas": (1, 6, 20),
    "loop": (35, 10, 25),
    "floor": (1, 2, 2),
}
DATA_COSTS = (1, 40, 9)  # making table, source and the expected output


@dataclass(frozen=True)
class Options:
    """What to run.

    Attributes:
        seconds: Wall seconds a run may take.
    """

    cases: Sequence[CaseSize]
    contestants: Sequence[str]
    repeats: int
    seconds: float

    def contestants_at(self, size: CaseSize) -> list[str]:
        """Names the contestants that take part in a case."""
        return [name for name in self.contestants if name != WARM or (size.rows <= WARM_ROWS and not size.array)]


def parse_cases(text: str) -> list[CaseSize]:
    """`30kx50k,20kx2M,array-5Mx2M` as sizes, by table, so that each table is made once, the smallest first.

    Raises:
        ValueError: the text is no list of cases.
    """
    return sorted(set(map(parse_case, text.split(","))), key=lambda size: (size.rows, size.array, size.records))


def estimate(options: Options) -> float:
    """Estimates how many seconds the whole benchmark may take."""
    total = 0.0
    for size in options.cases:
        sizes = (1, size.records / 1e6, size.rows / 1e6)
        for name in options.contestants_at(size):
            if size.array and name in NO_ARRAYS:
                continue
            seconds = sum(cost * size for cost, size in zip(COSTS[name], sizes, strict=True))
            total += options.repeats * min(seconds, options.seconds)
        total += sum(cost * size for cost, size in zip(DATA_COSTS, sizes, strict=True))
    return total


def read_machine() -> dict[str, Any]:
    """What the numbers depend on."""
    processors = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in processors if line.startswith("model name")), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpu": model, "cores": os.cpu_count(), "architecture": platform.machine(), "memory": memory}


def read_versions() -> dict[str, str]:
    """Reads the versions that no contestant reports."""
    commit = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return {
        # Git refuses a clone that another user owns.
        "commit": subprocess.run(commit, capture_output=True, text=True, check=False).stdout.strip() or "unknown",
        "Python": platform.python_version(),
    }


def memory_limit() -> int:
    """Bytes a run may take: a share of the machine, and no more than is free now."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    sizes = {name: int(size.split()[0]) * 1024 for name, size in (line.split(":") for line in lines)}
    return int(min(MEMORY_SHARE * sizes["MemTotal"], sizes["MemAvailable"] - SPARE_BYTES))


def measured_run(measured: Measured, stage: Stage, case: Case) -> dict[str, Any]:
    """One run as the JSON keeps it."""
    result = measured.result
    run: dict[str, Any] = {
        "status": measured.status,
        "seconds": result.get("extrapolated", result.get("seconds")),
        "wall": measured.wall,
        "cpu": measured.cpu,
        "peak": measured.peak,
    }
    facts = ("session", "engine", "plan", "lookup", "libraries", "done")
    run |= {name: result[name] for name in facts if name in result}
    if measured.status != "ok":
        return run | {"log": measured.log}
    if "extrapolated" not in result and "lookup" not in result:  # the loop's sample and the floor publish no CSV
        run["differs"] = differences(case, stage.published(), result)
    return run


class Suite:
    """The runs of one invocation; `results` is what the report is made of."""

    def __init__(self, stage: Stage, options: Options, target: Path, command: str) -> None:
        self._stage, self._options, self._target = stage, options, target
        self._out: list[tuple[str, CaseSize, str]] = []
        self.results: dict[str, Any] = {
            "date": time.strftime("%Y-%m-%d"),
            "command": command,
            "repeats": options.repeats,
            "heap": HEAP,
            "seconds_limit": options.seconds,
            "machine": read_machine(),
            "versions": read_versions(),
            "tables": [],
            "cases": [],
        }

    def add_to(self, before: Mapping[str, Any]) -> None:
        """Keeps what an earlier run has measured of other cases; each case is of one run."""
        rows = {size.rows for size in self._options.cases}
        cases = [case for case in before["cases"] if case_size(case) not in self._options.cases]
        self.results["tables"] = [table for table in before["tables"] if table["rows"] not in rows]
        self.results["cases"] = cases
        self.results["command"] = f"{before['command']}; {self.results['command']}"

    def run(self) -> None:
        """All cases, the JSON written after each."""
        for size in self._options.cases:
            if self._stage.rows != size.rows:
                print_progress(f"table of {size_text(size.rows)} rows")
                table = self._stage.make_table(size.rows)
                print_progress(f"  made in {table.seconds:.0f} s, {table.bytes / GIB:.1f} GiB")
                self.results["tables"].append(asdict(table))
            print_progress(f"{case_text(*size)}: source and expected output")
            case = self._stage.make_case(size.records, array=size.array)
            names = self._options.contestants_at(size)
            runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
            for name in self._turns(names):
                if not runs[name] or runs[name][-1]["status"] == "ok":
                    runs[name].append(self._one(name, case))
            self.results["cases"].append(
                {
                    **size._asdict(),
                    "measured": " ".join((self.results["date"], "on", self.results["machine"]["cpu"])),
                    "source_bytes": case.source_bytes,
                    "output_bytes": case.expected.bytes,
                    "runs": runs,
                }
            )
            save(self.results, self._target)

    def _turns(self, names: list[str]) -> Iterator[str]:
        """Orders the runs: all contestants once, then all again, each round begun by another."""
        for turn in range(self._options.repeats):
            first = turn % len(names)
            yield from names[first:] + names[:first]

    def _one(self, name: str, case: Case) -> dict[str, Any]:
        if case.size.array and name in NO_ARRAYS:
            return {"status": "skipped", "reason": NO_ARRAYS[name]}
        for loser, size, status in self._out:
            if loser == name and all(less <= more for less, more in zip(size, case.size, strict=True)):
                return {"status": status, "at": case_text(*size)}
        bounds = Bounds(self._options.seconds, memory_limit())
        self._stage.clear()
        if name in JOBS:
            measured = self._stage.run_job(HEAP, bounds, *JOBS[name])
        elif name == PLAIN:
            measured = self._stage.run_plain(HEAP, case, bounds)
        else:
            measured = self._stage.run_peer(PEER_PYTHON, name, case, bounds)
        run = measured_run(measured, self._stage, case)
        if measured.status in OUT:
            self._out.append((name, case.size, measured.status))
        seconds = f"{run['seconds']:8.2f} s" if run["seconds"] else f"{measured.wall:8.2f} s wall"
        print_progress(f"  {name:<8}{seconds}  {measured.peak / GIB:6.2f} GiB  {measured.status}  {remarks(run)}")
        if measured.status == "failed":
            print_progress("\n".join(measured.log))
        return run


def remarks(run: Mapping[str, Any]) -> str:
    """Says in one line what a reader should know of a run beside its numbers."""
    return " ".join(
        [
            *(run[name] for name in ("engine", "plan") if name in run),
            *([f"extrapolated from {run['done']} records"] if "done" in run else []),
            *([f"DIFFERS: {', '.join(run['differs'])}"] if run.get("differs") else []),
        ]
    )


def print_progress(text: str) -> None:
    """Prints progress."""
    print(text, flush=True)


def save(results: Mapping[str, Any], target: Path) -> None:
    """Writes the JSON, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_suffix(".new")
    new.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    new.replace(target)


def check_peers(contestants: Sequence[str]) -> None:
    """Checks that the libraries of the peers are installed.

    Raises:
        ServiceError: they are not.
    """
    if set(contestants) - {*JOBS, PLAIN} and not PEER_PYTHON.exists():
        message = f"{PEER_PYTHON.relative_to(ROOT)} is missing. Run: make bench-setup"
        raise ServiceError(message)


def command_line(argv: Sequence[str]) -> str:
    """The command as a user types it."""
    return " ".join([Path(sys.executable).name.rstrip("0123456789."), "-m", "bench", *argv])
