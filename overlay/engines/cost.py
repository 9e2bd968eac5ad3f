"""What a run costs on each engine: the driver's own process begins at once, Spark has more cores once it has begun.

In: the sizes of source and table, and the machines. Out: seconds and bytes, and by them the engine. The constants were
measured on two cores by `make bench`; docs/scaling.md says how, and from which sizes on Spark is faster.
"""

from dataclasses import dataclass

MB, MILLION = 1e6, 1e6

# Seconds, session start apart: fixed, of one core for each MB of JSON, of one core (the driver engine: one stream) for
# each million cells of the table. Fixed: 30 k x 50 k. The driver's: fitted to its other scans. Spark's: 1 M and 5 M
# records on 20 M rows took 80.6 and 141.4 core-seconds (2026-11-26), and 3.3 a million rows.
DRIVER_FIXED, DRIVER_SOURCE, DRIVER_CELLS = 1.5, 0.06, 0.19
SPARK_FIXED, SPARK_SOURCE, SPARK_CELLS = 18.0, 0.12, 0.28
DELIVERY = 0.1  # seconds in which the database hands out a million cells by one connection
DELIVERIES = 8  # connections that a database serves at that rate
EFFICIENCY = 0.7  # the share of the time in which executors' cores have work

# What the driver engine takes of memory: before it holds anything, and for each byte of Arrow data that it holds (its
# copies while columns are joined, Python, parts on their way).
MEMORY_AT_LEAST = 300 * 1024 * 1024
COPIES = 3
RECORD_BYTES = 100  # of a record of the source, for the guess how many rows it wants


@dataclass(frozen=True)
class Work:
    """The sizes of a run, as far as they are known before it.

    Attributes:
        source_bytes: Of plain JSON.
        rows: Of the table.
        row_bytes: Of a row as it is stored, on average.
        columns: Of the table.
        reads_all: Whether the table is scanned; a lookup reads the rows that records have alone.
    """

    source_bytes: float
    rows: int
    row_bytes: int
    columns: int
    reads_all: bool

    @property
    def records(self) -> float:
        """About how many records the source has."""
        return self.source_bytes / RECORD_BYTES

    @property
    def wanted_rows(self) -> float:
        """About how many rows records have, at most."""
        return min(self.records, self.rows)

    @property
    def million_cells(self) -> float:
        """What the driver engine reads of the table."""
        return (self.rows if self.reads_all else self.wanted_rows) * self.columns / MILLION


@dataclass(frozen=True)
class Machines:
    """What runs.

    Attributes:
        cores: Of the driver.
        executor_cores: Of all executors; infinite where their number changes nothing.
        connections: To the database that may be open at a time.
        memory: Bytes that the driver's process may take.
    """

    cores: int
    executor_cores: float
    connections: int
    memory: float


def stream_count(cores: int, connections: int) -> int:
    """In how many ranges at a time the driver scans: each stream keeps a core of the JVM and half of one busy."""
    return min(connections, max(cores // 2, 1))


def driver_bytes(work: Work) -> float:
    """The memory that the driver engine takes."""
    return MEMORY_AT_LEAST + COPIES * (work.source_bytes + work.wanted_rows * work.row_bytes)


def held_bytes(memory: float) -> float:
    """The Arrow data that the driver engine may hold where it may take so much memory."""
    return max(memory - MEMORY_AT_LEAST, 0) / COPIES


def driver_seconds(work: Work, machines: Machines) -> float:
    """The time that the driver engine takes; the table streams while the source is parsed."""
    source = DRIVER_SOURCE * work.source_bytes / MB / machines.cores
    streams = stream_count(machines.cores, machines.connections)
    return DRIVER_FIXED + source + DRIVER_CELLS * work.million_cells / streams


def spark_seconds(work: Work, machines: Machines) -> float:
    """The time that the Spark engine takes: of its cores, or of the database, which is what many of them wait for."""
    all_cells = work.rows * work.columns / MILLION
    computing = (SPARK_SOURCE * work.source_bytes / MB + SPARK_CELLS * all_cells) / machines.executor_cores / EFFICIENCY
    delivering = DELIVERY * all_cells / min(machines.connections, machines.executor_cores, DELIVERIES)
    return SPARK_FIXED + max(computing, delivering)


def choose(work: Work, machines: Machines) -> tuple[str, str]:
    """The engine for a run and why, as a name of TEXTS."""
    if driver_bytes(work) > machines.memory:
        return "spark", "large_source"
    if spark_seconds(work, machines) < driver_seconds(work, machines):
        return "spark", "large_table"
    return "driver", "small_source"
