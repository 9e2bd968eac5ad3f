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

from bench.data import parse_size, size_text
from bench.measure import GIB, ROOT, Limits, Measured
from bench.report import JOB, WARM
from bench.stage import Case, Stage, differences
from local.services import ServiceError

PEER_PYTHON = ROOT / ".venv-bench" / "bin" / "python"
RUNS = {JOB: 1, WARM: 2}  # of the job in one session, the last of which is timed
WARM_ROWS = 2_000_000  # of the largest table where the job is run once more in its session: that shows what is cold
# The peers of which the job must be the fastest, then the loop it replaced and the floor nobody gets under.
CONTESTANTS = (JOB, WARM, "polars", "duckdb", "pandas", "loop", "floor")
GRID = "20kx2M,1Mx2M,5Mx2M,20kx20M,1Mx20M,5Mx20M"
HEAP = "4g"
MEMORY_SHARE = 0.8
SPARE_BYTES = GIB  # left to everything else on the machine
OUT = ("out of memory", "out of time")
# Seconds of a run: fixed, per million source records, per million table rows. Measured on two cores; for the estimate.
COSTS = {
    JOB: (28, 26, 7),
    WARM: (36, 34, 12),
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
        cases: Sizes as (source records, table rows).
        seconds: Wall seconds a run may take.
    """

    cases: Sequence[tuple[int, int]]
    contestants: Sequence[str]
    repeats: int
    seconds: float

    def contestants_at(self, rows: int) -> list[str]:
        """Who runs on a table of so many rows."""
        return [name for name in self.contestants if name != WARM or rows <= WARM_ROWS]


def parse_cases(text: str) -> list[tuple[int, int]]:
    """`20kx2M,1Mx2M` as sizes, by table, so that each table is made once.

    Raises:
        ValueError: the text is no list of cases.
    """
    pairs = [tuple(map(parse_size, case.split("x"))) for case in text.split(",")]
    return sorted({(records, rows) for records, rows in pairs}, key=lambda case: case[::-1])


def case_name(records: int, rows: int) -> str:
    """A case in words."""
    return f"{size_text(records)} x {size_text(rows)}"


def estimate(options: Options) -> float:
    """Seconds that all of it may take."""
    total = 0.0
    for records, rows in options.cases:
        sizes = (1, records / 1e6, rows / 1e6)
        for name in options.contestants_at(rows):
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
    """Versions that no contestant tells."""
    commit = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return {
        # Git refuses a clone that another user owns.
        "commit": subprocess.run(commit, capture_output=True, text=True, check=False).stdout.strip() or "unknown",
        "Python": platform.python_version(),
    }


def memory_limit() -> int:
    """Bytes a run may take: a share of the machine, and no more than is free now."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    sizes = {name: int(rest.split()[0]) * 1024 for name, rest in (line.split(":") for line in lines)}
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
    run |= {name: result[name] for name in ("session", "plan", "lookup", "libraries", "done") if name in result}
    if measured.status != "ok":
        return run | {"log": measured.log}
    if "extrapolated" not in result and "lookup" not in result:  # the loop's sample and the floor publish no CSV
        run["differs"] = differences(case, stage.published(), result)
    return run


class Suite:
    """The runs of one invocation; `results` is what the report is made of."""

    def __init__(self, stage: Stage, options: Options, target: Path, command: str) -> None:
        self._stage, self._options, self._target = stage, options, target
        self._out: list[tuple[str, int, int, str]] = []
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

    def run(self) -> None:
        """All cases, the JSON written after each."""
        for records, rows in self._options.cases:
            if self._stage.rows != rows:
                say(f"table of {size_text(rows)} rows")
                table = self._stage.make_table(rows)
                say(f"  made in {table.seconds:.0f} s, {table.bytes / GIB:.1f} GiB")
                self.results["tables"].append(asdict(table))
            say(f"{case_name(records, rows)}: source and expected output")
            case = self._stage.make_case(records)
            names = self._options.contestants_at(rows)
            runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
            for name in self._turns(names):
                if not runs[name] or runs[name][-1]["status"] == "ok":
                    runs[name].append(self._one(name, case))
            self.results["cases"].append(
                {
                    "records": records,
                    "rows": rows,
                    "source_bytes": case.source_bytes,
                    "output_bytes": case.expected.bytes,
                    "runs": runs,
                }
            )
            save(self.results, self._target)

    def _turns(self, names: list[str]) -> Iterator[str]:
        """Who runs when: all once, then all again, each round begun by another."""
        for turn in range(self._options.repeats):
            at = turn % len(names)
            yield from names[at:] + names[:at]

    def _one(self, name: str, case: Case) -> dict[str, Any]:
        for loser, records, rows, status in self._out:
            if loser == name and records <= case.records and rows <= case.rows:
                return {"status": status, "at": case_name(records, rows)}
        limits = Limits(self._options.seconds, memory_limit())
        self._stage.clear()
        if name in RUNS:
            measured = self._stage.run_job(HEAP, limits, RUNS[name])
        else:
            measured = self._stage.run_peer(PEER_PYTHON, name, case, limits)
        run = measured_run(measured, self._stage, case)
        if measured.status in OUT:
            self._out.append((name, case.records, case.rows, measured.status))
        seconds = f"{run['seconds']:8.2f} s" if run["seconds"] else f"{measured.wall:8.2f} s wall"
        say(f"  {name:<8}{seconds}  {measured.peak / GIB:6.2f} GiB  {measured.status}  {remarks(run)}")
        if measured.status == "failed":
            say("\n".join(measured.log))
        return run


def remarks(run: Mapping[str, Any]) -> str:
    """What is to be said of a run beside its numbers."""
    return " ".join(
        [
            *([run["plan"]] if "plan" in run else []),
            *([f"extrapolated from {run['done']} records"] if "done" in run else []),
            *([f"DIFFERS: {', '.join(run['differs'])}"] if run.get("differs") else []),
        ]
    )


def say(text: str) -> None:
    """Prints progress."""
    print(text, flush=True)


def save(results: Mapping[str, Any], target: Path) -> None:
    """Writes the JSON, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_suffix(".new")
    new.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    new.replace(target)


def check_peers(contestants: Sequence[str]) -> None:
    """Sees to it that the libraries of the peers are there.

    Raises:
        ServiceError: they are not.
    """
    if set(contestants) - set(RUNS) and not PEER_PYTHON.exists():
        message = f"{PEER_PYTHON.relative_to(ROOT)} is missing. Run: make bench-setup"
        raise ServiceError(message)


def command_line(argv: Sequence[str]) -> str:
    """The command as a user types it."""
    return " ".join([Path(sys.executable).name.rstrip("0123456789."), "-m", "bench", *argv])
