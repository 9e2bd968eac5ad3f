"""Which engine runs. In: the listed source and the described table. Out: an engine that may move from one to the other.

The cost of each is estimated before the run (`cost`). The estimate of memory may prove wrong, as a gzip holds more than
it looks or rows are wide: then the run moves on to Spark, before anything is published.
"""

import logging
import math
import os
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from overlay.engines import cost
from overlay.engines.driver import DriverEngine
from overlay.engines.engine import Engine, Inputs, Output, Plan, SourceFacts
from overlay.engines.memory import Memory, MemoryShortError
from overlay.engines.spark import SparkEngine, executor_cores
from overlay.merge import Counts
from overlay.table.jdbc import heap_bytes
from overlay.table.lookup import lookup_reason
from overlay.texts_en import TEXTS

LOG = logging.getLogger(__name__)
COMPRESSION = 10  # what gzip makes of JSON
SHORT = (MemoryShortError, MemoryError, BrokenProcessPool)  # mostly the kernel kills a process for its memory
MEMORY_SHARE = 0.8  # of what is free, for the driver engine


class ChosenEngine:
    """The engine that a run uses: what `--engine` names, or what costs less; see `engines.engine.Engine`.

    Attributes:
        name: Of the engine that is at work, `driver` or `spark`.
        reason: Why it is, as a name of TEXTS.
    """

    def __init__(self, inputs: Inputs) -> None:
        self._inputs, limit = inputs, math.inf
        self.name, self.reason = inputs.settings.engine, "engine_forced"
        if self.name == "auto":
            work = estimate(inputs)
            machines = read_machines(inputs, work)
            seconds = cost.driver_seconds(work, machines), cost.spark_seconds(work, machines)
            sizes = int(cost.driver_bytes(work)) >> 20, int(machines.memory) >> 20
            LOG.info("driver: about %.0f s, Spark: at least %.0f s; the driver needs %d of %d MiB", *seconds, *sizes)
            self.name, self.reason = cost.choose(work, machines)
            limit = cost.held_bytes(machines.memory)
        LOG.info("engine %s: %s", self.name, TEXTS[self.reason])
        self._engine: Engine = DriverEngine(inputs, Memory(limit)) if self.name == "driver" else SparkEngine(inputs)

    @property
    def plan(self) -> Plan:
        """See `Engine`."""
        return self._engine.plan

    @property
    def columns(self) -> tuple[str, ...]:
        """See `Engine`."""
        return self._engine.columns

    def read_source(self) -> SourceFacts:
        """See `Engine`."""
        try:
            return self._engine.read_source()
        except SHORT as error:
            return self._move_on(error)

    def overlay(self) -> Counts:
        """See `Engine`."""
        try:
            return self._engine.overlay()
        except SHORT as error:
            self._move_on(error)
            return self._engine.overlay()

    def _move_on(self, error: Exception) -> SourceFacts:
        """Begins anew on Spark, where the engine was the job's own choice."""
        if self.reason == "engine_forced" or self.name == "spark":
            raise error
        self.name, self.reason = "spark", "memory_short"
        LOG.warning("engine %s: %s", self.name, TEXTS[self.reason])
        self._engine.close()
        self._engine = SparkEngine(self._inputs)
        return self._engine.read_source()

    def publish(self) -> Output:
        """See `Engine`."""
        return self._engine.publish()

    def close(self) -> None:
        """See `Engine`."""
        self._engine.close()


def estimate(inputs: Inputs) -> cost.Work:
    """The sizes of a run, before a byte of the source is read."""
    table = inputs.table
    source_bytes = sum(item.size * (COMPRESSION if item.key.endswith(".gz") else 1) for item in inputs.objects)
    work = cost.Work(source_bytes, table.rows, table.row_bytes, len(table.columns), reads_all=True)
    return replace(work, reads_all=lookup_reason(table, int(work.records), inputs.settings.limits) != "few_ids")


def read_machines(inputs: Inputs, work: cost.Work) -> cost.Machines:
    """What the run may use.

    Executors are counted only where enough of them would be faster: it takes a session, which takes seconds.
    """
    most = cost.Machines(len(os.sched_getaffinity(0)), math.inf, inputs.table.connections, free_memory())
    return most if cost.choose(work, most)[0] == "driver" else replace(most, executor_cores=executor_cores())


def free_memory() -> int:
    """Bytes that this process may take: those of the machine or the container, without the heap of the JVM."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # no such file, or `max`
            total = min(total, int(Path(path).read_text("ascii")))
    return max(int((total - heap_bytes()) * MEMORY_SHARE), 0)
