"""Byte ranges parsed side by side, on all cores of the driver.

In: groups of byte ranges. Out: the record batches of each group, in order. By threads where Arrow parses, as it lets
other threads use the interpreter; by processes where Python has to (nested values, fractions) and there is much.
"""

import logging
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa

from overlay.aws import client
from overlay.limits import Limits
from overlay.source.columns import record_batches
from overlay.source.json_reader import RecordReader
from overlay.source.objects import ByteRange
from overlay.threads import awaited

LOG = logging.getLogger(__name__)
Group = Sequence[ByteRange]
Batches = list[pa.RecordBatch]
T = TypeVar("T")


def parse_groups(
    s3: Any, groups: Sequence[Group], cores: int, limits: Limits, keep: Callable[[pa.RecordBatch], T]
) -> Iterator[T]:
    """What `keep` makes of the batches of all groups, in order; it gets each as soon as it is there, in any thread.

    Raises:
        SourceError, AwsError: those of the first group that has one; see `record_batches`.
        Exception: what `keep` raises.
    """
    size = max(min(cores, len(groups)), 1)
    if size > 1 and _plain_bytes(groups) >= limits.process_bytes_min and not _arrow_parses(s3, groups[0][0], limits):
        LOG.info("the source is parsed by %d processes, as it is more than texts and integers", size)
        # Spawned, not forked, as threads of py4j and pyarrow hold locks.
        with awaited(ProcessPoolExecutor(size, multiprocessing.get_context("spawn"))) as pool:
            for batches in pool.map(partial(parse_group, limits, s3.meta.region_name), groups):
                yield from map(keep, batches)
    else:
        with awaited(ThreadPoolExecutor(size, "source")) as pool:
            for kept in pool.map(lambda group: list(map(keep, _parse(s3, group, limits))), groups):
                yield from kept


def _plain_bytes(groups: Iterable[Group]) -> int:
    """The bytes of JSON Lines that are cut into ranges; of others, which may be gzip, nobody knows."""
    return sum(item.end - item.start for group in groups for item in group if item.end is not None)


def _arrow_parses(s3: Any, byte_range: ByteRange, limits: Limits) -> bool:
    """Whether Arrow can go on behind the first chunk of a range."""
    reader = RecordReader(s3, byte_range, limits)
    next(record_batches([reader]), None)
    return reader.state.arrow.is_ready


def parse_group(limits: Limits, region: str, group: Group) -> Batches:
    """The batches of a group, by a client of its own: what a process runs."""
    return list(_parse(client("s3", limits.aws, region), group, limits))


def _parse(s3: Any, group: Group, limits: Limits) -> Iterator[pa.RecordBatch]:
    return record_batches([RecordReader(s3, item, limits) for item in group])
