"""Module `upload`: how bytes are cut into parts, and what tells whole objects apart; S3 is in tests/services."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.limits import MIB, Limits
from overlay.upload import (
    FINGERPRINT_PRIME,
    Part,
    cut_parts,
    fingerprint_of,
    joined_fingerprint,
    part_size,
    plan_parts,
    whole_etag,
)

LIMITS = Limits()
CHUNKS = st.lists(st.binary(max_size=20), max_size=30)


# Parts of a stream.


@given(CHUNKS, st.integers(1, 12), st.integers(0, 8))
def test_parts_are_the_same_bytes_and_none_is_too_small_for_s3(chunks, least, more):
    limits = replace(LIMITS, part_bytes_min=least)
    parts = [bytes(part) for part in cut_parts(chunks, least + more, limits)]
    assert b"".join(parts) == b"".join(chunks)
    assert all(len(part) == least + more for part in parts[:-1])
    assert len(parts) == 1 or len(parts[-1]) >= least
    assert len(parts[-1]) < least + more + least + max(map(len, chunks), default=0)


def test_an_output_of_nothing_is_one_empty_part():
    assert list(cut_parts([], 8 * MIB, LIMITS)) == [b""]


def test_parts_are_made_while_the_chunks_come():
    """No more is held than a part, the smallest part and a chunk."""
    chunk_numbers = []
    chunks = (chunk_numbers.append(number) or b"x" * 10 for number in range(1_000))
    parts = cut_parts(chunks, 50, replace(LIMITS, part_bytes_min=20))
    next(parts)
    assert len(chunk_numbers) == 7


@given(st.integers(1, 50), st.integers(1, 16))
def test_parts_never_run_out_when_there_is_more_than_was_expected(estimate, times):
    """Sixteen times as much: a narrow source may take wide rows."""
    limits = replace(LIMITS, part_bytes_min=1, part_bytes=1, parts_max=160)
    total = estimate * 80 * times
    parts = list(cut_parts(itertools.repeat(b"x", total), part_size(estimate * 80, limits), limits))
    assert sum(map(len, parts)) == total
    assert len(parts) <= limits.parts_max
    assert all(one <= two for one, two in itertools.pairwise(map(len, parts[:-1])))


@given(st.integers(0, 5 * 2**40))
def test_half_of_the_parts_of_s3_are_enough_for_what_is_expected(total):
    size = part_size(total, LIMITS)
    assert LIMITS.part_bytes_min <= LIMITS.part_bytes <= size
    assert -(-total // size) <= LIMITS.parts_max // 2
    assert size == LIMITS.part_bytes or -(-total // (size - 1)) > LIMITS.parts_max // 2


def test_the_limits_are_those_of_s3():
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html."""
    assert (LIMITS.part_bytes_min, LIMITS.parts_max) == (5 * MIB, 10_000)


# Parts of bins whose sizes are known: several workers upload them, each numbers its own.

BINS = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 30) | st.just(200)), max_size=30).map(
    lambda bins: [(number * 2, rows, size) for number, (rows, size) in enumerate(bins)]
)


@given(BINS, st.integers(1, 20), st.integers(0, 20))
def test_bins_are_dealt_to_numbered_parts_in_order_and_none_is_too_small_for_s3(bins, least, more):
    """However wide the lines of a bin, which `cut_parts` then makes several parts of."""
    limits, part_bytes = replace(LIMITS, part_bytes_min=least), least + more
    plan = plan_parts(bins, part_bytes, limits, running=True)
    assert [number for number, _, _ in plan] == [number for number, _, _ in bins]
    sizes: dict[int, list[int]] = {}
    for (_, part, _), (_, _, size) in zip(plan, bins, strict=True):
        sizes.setdefault(part, []).append(size)
    uploaded = [
        (number, bytes(data))
        for first, group in sizes.items()
        for number, data in enumerate(cut_parts((b"x" * size for size in group), part_bytes, limits), first)
    ]
    numbers = [number for number, _ in uploaded]
    assert numbers == list(range(1, len(uploaded) + 1))
    assert all(sum(group) >= part_bytes for group in list(sizes.values())[:-1])
    assert all(len(data) >= least for _, data in uploaded[:-1])
    assert sum(len(data) for _, data in uploaded) == sum(size for _, _, size in bins)


@given(BINS, st.integers(1, 40))
def test_lines_are_numbered_through_all_bins(bins, part_bytes):
    assert {start for _, _, start in plan_parts(bins, part_bytes, LIMITS, running=True)} <= {0}
    starts = [start for _, _, start in plan_parts(bins, part_bytes, LIMITS, running=False)]
    assert starts == list(itertools.accumulate((rows for _, rows, _ in bins), initial=0))[: len(bins)]


def check_numbers(sizes: list[int]) -> None:
    """The parts of bins of these sizes have numbers that S3 takes."""
    size = part_size(sum(sizes), LIMITS)
    plan = plan_parts([(number, 1, bin_bytes) for number, bin_bytes in enumerate(sizes)], size, LIMITS, running=True)
    last = sum(bin_bytes for bin_bytes, (_, part, _) in zip(sizes, plan, strict=True) if part == plan[-1][1])
    assert plan[-1][1] + max(last - LIMITS.part_bytes_min, 0) // size <= LIMITS.parts_max


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=200))
def test_bins_of_any_size_fit_into_the_numbers_of_s3(sizes):
    check_numbers(sizes)


@pytest.mark.parametrize("total", [0, 2**30, 40 * 2**30, 2**40, 5 * 2**40])
@pytest.mark.parametrize("bins", [1, 2, 3_000, 4_096])
def test_as_many_bins_as_there_may_be_fit_into_the_numbers_of_s3(bins, total):
    size = part_size(total, LIMITS)
    check_numbers([total // bins] * bins)
    check_numbers([min(size + LIMITS.part_bytes_min, total // bins)] * bins)  # each just too large for one part


# What tells contents apart.


def fingerprint(parts: list[bytes]) -> str:
    """The fingerprint of an object made of parts."""
    return joined_fingerprint([Part(1, "", len(data), fingerprint_of(data)) for data in parts])


@given(st.lists(st.binary(max_size=40), max_size=6), st.lists(st.integers(0, 240), max_size=4))
def test_a_fingerprint_depends_on_the_bytes_not_on_the_parts(parts, cuts):
    whole = b"".join(parts)
    edges = [0, *sorted(cuts), len(whole)]
    again = [whole[start:end] for start, end in itertools.pairwise(edges)]
    expected = f"{len(whole)}-{int.from_bytes(whole, 'big') % FINGERPRINT_PRIME:032x}"
    assert fingerprint(parts) == fingerprint([whole]) == expected
    assert fingerprint(again) == expected
    if whole:
        assert fingerprint(parts) != fingerprint([whole[:-1], bytes([whole[-1] ^ 1])])
        assert fingerprint(parts) != fingerprint([b"\0", whole])


@pytest.mark.parametrize("size", [MIB - 1, MIB, MIB + 1, 2 * MIB + 7])
def test_the_fingerprint_of_a_large_part_is_made_piece_by_piece(size):
    data = bytes(number * 37 % 251 for number in range(1_000)) * (size // 1_000 + 1)
    data = data[:size]
    assert (
        fingerprint_of(data)
        == fingerprint_of(bytearray(data))
        == f"{int.from_bytes(data, 'big') % FINGERPRINT_PRIME:032x}"
    )


def test_a_fingerprint_sees_rows_that_change_places():
    rows = [bytes([65 + number]) * 127 for number in range(4)]
    fingerprints = {fingerprint_of(b"".join(order)) for order in (rows, rows[::-1], rows[1:] + rows[:1])}
    assert len(fingerprints) == 3


@given(st.lists(st.binary(max_size=9), min_size=1, max_size=5))
def test_the_etag_of_a_whole_is_made_of_those_of_its_parts(parts):
    digests = [hashlib.md5(data) for data in parts]
    etags = [f'"{digest.hexdigest()}"' for digest in digests]
    whole = hashlib.md5(b"".join(digest.digest() for digest in digests)).hexdigest()
    assert whole_etag(etags) == f'"{whole}-{len(parts)}"'


@pytest.mark.parametrize(
    "etag", ['""', '"x"', '"0123456789abcdef0123456789abcdef-2"', '"0123456789ABCDEF0123456789ABCDEF"']
)
def test_etags_that_are_no_digests_make_no_etag(etag):
    """With SSE-KMS, or where the part was itself made of parts."""
    assert whole_etag([f'"{hashlib.md5(b"").hexdigest()}"', etag]) == ""
