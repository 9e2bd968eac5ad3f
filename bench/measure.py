"""Time, CPU and peak memory of a command with everything it starts. Standard library only, Linux only.

    python -m bench.measure BOUNDS COMMAND [ARGUMENT ...]

runs the command, passes its output through and ends with a line `MEASURED {json}`. A process of its own does it, as
it adopts what the command leaves behind (the JVM of a Spark session), so that the CPU of that is counted too.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from local.services.processes import start_process, stop_process

ROOT = Path(__file__).resolve().parent.parent
GIB = 1024**3
SAMPLE_SECONDS = 0.25
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
GROWTH = 1.01
KEPT_LINES = 30
MEMORY_ERRORS = ("OutOfMemoryError", "MemoryError", "bad_alloc", "Out of Memory", "ArrowMemoryError")
PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


@dataclass(frozen=True)
class Bounds:
    """What a command may take before it is killed: wall seconds, bytes of memory."""

    seconds: float
    memory: int


@dataclass(frozen=True)
class Measured:
    """One run of a command.

    Attributes:
        status: `ok`, `failed`, `out of memory` or `out of time`.
        wall: Seconds from the start of the process to its end.
        cpu: User and system seconds of the process and everything below it.
        peak: Bytes of memory of them all at the worst of the samples; shared pages are shared out (PSS).
        result: What the command said about itself in its lines `RESULT {json}`, or nothing.
        log: Its last lines.
    """

    status: str
    wall: float
    cpu: float
    peak: int
    result: dict[str, Any]
    log: list[str]


def descendants(root: int) -> set[int]:
    """Finds the processes that a process has started, and those that they have started."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it ended meanwhile
            continue
    below = {root}
    while grown := {child for child, parent in parents.items() if parent in below} - below:
        below |= grown
    return below - {root}


def resident(process: int) -> int:
    """Bytes of a process's resident set size, shared pages in full; 0 when it has ended."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE_BYTES
    except OSError:
        return 0


def proportional(process: int) -> int:
    """Bytes of a process's proportional set size; 0 when it has ended."""
    try:
        rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))


class Watch(threading.Thread):
    """Samples the memory below this process and kills what exceeds a bound; `status` says why."""

    def __init__(self, bounds: Bounds) -> None:
        super().__init__(daemon=True)
        self.peak, self.status = 0, ""
        self._bounds, self._over = bounds, threading.Event()

    def run(self) -> None:
        """Samples until `end` is called."""
        began = time.monotonic()
        largest = 0
        while not self._over.wait(SAMPLE_SECONDS):
            processes = descendants(os.getpid())
            # To work out a proportional size the kernel walks all pages of a process and holds it up meanwhile (of a
            # JVM with its workers a tenth of the machine went into that), so only where it may be a new peak.
            if (size := sum(map(resident, processes))) > largest * GROWTH:
                largest = size
                self.peak = max(self.peak, sum(map(proportional, processes)))
            if self.peak > self._bounds.memory:
                self.status = "out of memory"
            elif time.monotonic() - began > self._bounds.seconds:
                self.status = "out of time"
            if self.status:
                kill_descendants()

    def end(self) -> None:
        """Stops sampling."""
        self._over.set()
        self.join()


def kill_descendants() -> None:
    """Kills everything below this process."""
    for process in descendants(os.getpid()):
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue


def main(argv: Sequence[str]) -> int:
    """Runs the command within its bounds."""
    bounds, *command = argv
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    # When memory runs out in spite of the watch, the kernel takes this tree and nothing else.
    Path("/proc/self/oom_score_adj").write_text("1000")
    watch = Watch(Bounds(**json.loads(bounds)))
    began = time.monotonic()
    process = subprocess.Popen(command)
    watch.start()
    signal.signal(signal.SIGTERM, lambda *_: kill_descendants())
    status = process.wait()
    wall = time.monotonic() - began
    watch.end()
    kill_descendants()
    try:
        while True:
            os.wait()  # the CPU of a process counts once somebody waited for it
    except ChildProcessError:
        pass
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    usage = {
        "status": watch.status or {0: "ok", -signal.SIGKILL: "out of memory"}.get(status, "failed"),
        "wall": wall,
        "cpu": used.ru_utime + used.ru_stime,
        "peak": watch.peak,
    }
    print(f"MEASURED {json.dumps(usage)}", flush=True)
    return 0


def measure(command: Sequence[str], environment: Mapping[str, str], bounds: Bounds) -> Measured:
    """Runs a command in the repository's folder, a process tree of its own, and measures it."""
    process = start_process(
        [sys.executable, "-m", "bench.measure", json.dumps(asdict(bounds)), *command],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    usage: dict[str, Any] = {}
    result: dict[str, Any] = {}
    log: list[str] = []
    try:
        assert process.stdout
        for line in (raw.decode(errors="replace").rstrip() for raw in process.stdout):
            if line.startswith("MEASURED {"):
                usage = json.loads(line.split(" ", 1)[1])
            elif "RESULT {" in line:
                result |= json.loads(line.split("RESULT ", 1)[1])
            else:
                log.append(line)
        process.wait()
    finally:
        stop_process(process)
    if usage["status"] == "failed" and any(word in line for line in log for word in MEMORY_ERRORS):
        usage["status"] = "out of memory"
    return Measured(**usage, result=result, log=log[-KEPT_LINES:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
