"""Work side by side. In: a pool of threads or processes. Out: the same, which does not outlive its block."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import TypeVar

from overlay.errors import Stopped

T = TypeVar("T")
U = TypeVar("U")


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


def in_order(pool: Executor, do: Callable[[T], U], items: Iterable[T], ahead: int) -> Iterator[U]:
    """What `do` returns for each item, in order, begun at most `ahead` items early: `map` would begin them all."""
    pending: deque[Future[U]] = deque()
    for item in items:
        pending.append(pool.submit(do, item))
        if len(pending) > ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
