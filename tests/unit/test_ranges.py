"""`table.ranges`: where a table is cut, without a server; tests/services/test_reading.py cuts real ones."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.dialects.base import TableColumn
from overlay.limits import Limits
from overlay.table.ranges import Ranges, integer_cuts, range_count

COLUMN = TableColumn("id", "bigint", "bigint(20)")


@given(
    st.integers(-(2**63), 2**64),
    st.integers(0, 2**64),
    st.integers(1, 10**9),
    st.integers(0, 10**9),
    st.lists(st.tuples(st.integers(0, 2**64), st.integers(1, 10**9)), max_size=5),
)
def test_ranges_cover_every_key_once(low, span, step, rows, heaps):
    def rows_between(start: int, end: int) -> int:
        return sum(rows for offset, rows in heaps if start <= low + offset % (span + 1) < end)

    cuts = integer_cuts(low, low + span, step, rows, rows_between, Limits())
    assert cuts == sorted(set(cuts))
    predicates = Ranges(COLUMN, [str(cut) for cut in cuts]).predicates("k")
    assert len(predicates) == len(cuts) + 1
    keys = {low, low + span, low - 5, low + span + 5, *cuts, *(cut - 1 for cut in cuts)}
    for key in keys:
        python = [p.replace("1 = 1", "True").replace("OR k IS NULL", "").replace("AND", "and") for p in predicates]
        assert sum(eval(text, {"k": key}) for text in python) == 1


def test_one_range_alone_takes_rows_without_a_key():
    assert Ranges(None, ()).predicates("") == ["1 = 1"]
    predicates = Ranges(COLUMN, ["'a'", "'b'"]).predicates("`id`")
    assert predicates == ["(`id` < 'a' OR `id` IS NULL)", "`id` >= 'a' AND `id` < 'b'", "`id` >= 'b'"]


@pytest.mark.parametrize(
    "ids",
    [
        range(1, 1_000_001),
        [*range(1, 1_000_000), 10**15],
        [i * 10**12 for i in range(-500_000, 500_000)],
        [*range(500_000), *range(2**60, 2**60 + 500_000)],
    ],
    ids=["dense", "one far away", "sparse", "two heaps"],
)
@pytest.mark.parametrize("doubled", [1, 2])
def test_ranges_of_skewed_and_sparse_ids_are_even(ids, doubled):
    def rows_between(start: int, end: int) -> int:
        return doubled * (bisect_left(ids, end) - bisect_left(ids, start))

    cuts = integer_cuts(ids[0], ids[-1], len(ids) // 40, len(ids), rows_between, Limits())
    ends = [0, *(bisect_left(ids, cut) for cut in cuts), len(ids)]
    sizes = [end - start for start, end in itertools.pairwise(ends)]
    assert max(sizes) <= len(ids) // 40
    assert 40 <= len(sizes) <= 64


def test_the_optimizer_is_asked_a_bounded_number_of_times():
    questions = 0

    def rows_between(_start: int, _end: int) -> int:
        nonlocal questions
        questions += 1
        return 10**9  # an estimate that never gets smaller

    limits = replace(Limits(), estimates_max=50, estimate_fan=16)
    integer_cuts(0, 2**62, 1_000, 10**9, rows_between, limits)
    assert 50 <= questions < 50 + 16


@pytest.mark.parametrize(
    ("rows", "parallelism", "count"),
    [
        (0, 8, 1),
        (99_999, 8, 1),
        (250_000, 8, 2),  # each worth its connection
        (5_000_000, 8, 16),  # two a core
        (100_000_000, 8, 50),  # none too large
        (10**10, 8, 256),
    ],
)
def test_a_table_is_cut_into_as_many_ranges_as_pay(rows, parallelism, count):
    assert range_count(rows, parallelism, Limits()) == count
