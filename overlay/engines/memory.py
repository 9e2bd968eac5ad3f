"""What the driver engine holds, against what it may: a run that would not fit moves on to Spark before it is killed.

In: bytes of Arrow data as they come and go. Out: MemoryShortError, as soon as they are too many.
"""

import threading


class MemoryShortError(Exception):
    """What the driver engine holds no longer fits into memory; nothing is published yet."""


class Memory:
    """Counts bytes, of several threads."""

    def __init__(self, limit: float) -> None:
        """Takes how many bytes of Arrow data may be held."""
        self._limit, self._held = limit, 0
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """The bytes that are held now."""
        return self._held

    def hold(self, size: int) -> None:
        """Counts bytes in.

        Raises:
            MemoryShortError: they are too many.
        """
        with self._lock:
            self._held += size
            if self._held > self._limit:
                raise MemoryShortError

    def release(self, size: int) -> None:
        """Counts bytes out."""
        with self._lock:
            self._held -= size
