"""Modules `engines.sieve` and `engines.memory`: which rows are kept, which wait, and how many bytes that may be."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from types import SimpleNamespace

import pyarrow as pa
import pytest

from overlay.engines import sieve
from overlay.engines.memory import Memory, MemoryShortError
from overlay.engines.sieve import Sieve
from overlay.limits import Limits

TABLE = SimpleNamespace(names=("id", "v"), key=SimpleNamespace(name="id", is_integer=True), has_zerofill_key=False)
SECONDS = 20  # for another thread to get somewhere


def batch(*ids: int | None) -> pa.RecordBatch:
    """Rows with some ids."""
    return pa.RecordBatch.from_arrays(
        [pa.array(ids, pa.int64()), pa.array([f"row {id_}".encode() for id_ in ids])], names=["c0", "c1"]
    )


def make(limit: float = 10**9, waiting_bytes: int = 10**9) -> Sieve:
    """A sieve of a table of two columns."""
    return Sieve(TABLE, Limits(waiting_bytes=waiting_bytes, unmatched_ids=3), Memory(limit))


def matches(*ids: int | None) -> pa.Array:
    """The matches of records."""
    return pa.array(ids, pa.int64())


def kept(rows) -> list[int]:
    """The ids of the rows that are kept."""
    return [id_ for part in rows.matched for id_ in part.column(0).to_pylist()]


@pytest.mark.parametrize("sifted", [1, 65_536])
def test_rows_of_records_are_kept_and_all_are_counted(monkeypatch, sifted):
    monkeypatch.setattr(sieve, "SIFTED_ROWS", sifted)
    rows = make()
    rows.set_matches(matches(3, None, 4))
    read = rows.keep([batch(1, 2, 3), batch(None, 3), batch(4, 9)])
    assert kept(read) == [3, 3, 4]
    assert (read.count, read.likely, read.unmatched_ids) == (7, [], ["1", "2", "9"])


def test_rows_wait_for_the_matches_and_the_database_does_once_they_are_many():
    rows, asked = make(waiting_bytes=batch(1).nbytes * 3), []
    reached = threading.Event()

    def batches():
        for number in range(10):
            asked.append(number)
            if len(asked) == 4:
                reached.set()
            yield batch(number)

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(rows.keep, batches())
        assert reached.wait(SECONDS)
        assert not reading.done()
        assert len(asked) == 4  # three wait, and the fourth is more than may
        rows.set_matches(matches(0, 5, 9))
        assert kept(reading.result(SECONDS)) == [0, 5, 9]
    assert len(asked) == 10


def test_whoever_waits_ends_when_there_will_be_no_matches():
    rows = make()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(rows.keep, [batch(1)])
        rows.cancel()
        with pytest.raises(CancelledError):
            reading.result(SECONDS)


def test_what_is_kept_is_counted_and_what_is_dropped_is_not():
    rows = make()
    rows.set_matches(matches(*range(100)))
    read = rows.keep([batch(*range(50)), batch(*range(1_000, 1_050))])
    assert rows._memory.held == sum(part.nbytes for part in read.matched) > 0


def test_rows_that_do_not_fit_are_an_error_before_they_are_held():
    rows = make(limit=3.5 * batch(*range(50)).nbytes)
    rows.set_matches(matches(*range(1_000)))
    held = []

    def batches():
        for start in range(0, 1_000, 50):
            held.append(start)
            yield batch(*range(start, start + 50))

    with pytest.raises(MemoryShortError):
        rows.keep(batches())
    assert len(held) == 4


def test_bytes_that_are_given_back_may_be_held_again():
    memory = Memory(10)
    for _ in range(3):
        memory.hold(8)
        memory.release(8)
    memory.hold(10)
    assert memory.held == 10
    with pytest.raises(MemoryShortError):
        memory.hold(1)
