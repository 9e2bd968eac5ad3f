"""Work side by side. In: a pool of threads or processes. Out: the same, which does not outlive its block."""

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from overlay.errors import Stopped


@contextmanager
def awaited(pool: Executor) -> Iterator[Executor]:
    """A pool that the block waits for, whatever ends it but SIGTERM.

    A run that is stopped has seconds left, and a thread may wait minutes for S3; it ends with the process.
    """
    patient = True
    try:
        yield pool
    except Stopped:
        patient = False
        raise
    finally:
        pool.shutdown(wait=patient, cancel_futures=True)
