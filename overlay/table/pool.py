"""Several reads of the database side by side. In: functions of a connection. Out: their futures."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Any, Self, TypeVar

from overlay.connection import Database
from overlay.table.jdbc import Connection

T = TypeVar("T")


class ConnectionPool:
    """Runs functions in threads, each on a connection of its own, at most `size` at a time.

    Left by an exception (a failed read, SIGTERM) it aborts what is open, so that no thread waits for the database.
    """

    def __init__(self, database: Database, size: int) -> None:
        self._database = database
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="table")
        self._open: set[Connection] = set()
        self._lock = threading.Lock()
        self._aborted = False

    def __enter__(self) -> Self:
        return self

    def submit(self, read: Callable[..., T], *arguments: Any) -> Future[T]:
        """Lets a thread call `read(connection, *arguments)`."""
        return self._threads.submit(self._run, read, arguments)

    def _run(self, read: Callable[..., T], arguments: Iterable[Any]) -> T:
        with Connection(self._database) as connection:
            with self._lock:
                self._open.add(connection)
            if self._aborted:
                connection.abort()
            try:
                return read(connection, *arguments)
            finally:
                with self._lock:
                    self._open.discard(connection)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.abort()
        self._threads.shutdown(wait=kind is None, cancel_futures=True)

    def abort(self) -> None:
        """Ends what is open at once; what waits is not begun."""
        self._aborted = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            connection.abort()


def results(futures: Iterable[Future[T]]) -> list[T]:
    """The results of all, in order; the first failure is raised as soon as it happens."""
    pending = list(futures)
    done, _ = wait(pending, return_when=FIRST_EXCEPTION)
    for future in done:
        future.result()
    return [future.result() for future in pending]
