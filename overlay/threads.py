"""Threads that work side by side for a while. In: how many. Out: a pool that does not outlive its block."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from overlay.errors import Stopped


@contextmanager
def thread_pool(size: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads that the block waits for, whatever ends it but SIGTERM.

    A run that is stopped has seconds left, and a thread may wait minutes for S3; it ends with the process.
    """
    pool, patient = ThreadPoolExecutor(size, thread_name_prefix=name), True
    try:
        yield pool
    except Stopped:
        patient = False
        raise
    finally:
        pool.shutdown(wait=patient, cancel_futures=True)
