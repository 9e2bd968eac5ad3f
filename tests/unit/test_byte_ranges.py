"""source.objects, who reads what: byte ranges in order and complete, and the keys that a pattern means."""

from __future__ import annotations

import gzip
import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.settings import is_source_key
from overlay.source.objects import ByteRange, SourceObject, cut_ranges
from tests.sources import LIMITS, Store, json_lines

SMALL = replace(LIMITS, range_bytes_min=100, range_bytes_max=1000)
FILES = st.lists(st.tuples(st.sampled_from(["lines", "array", "gzip"]), st.integers(0, 4000)), min_size=1, max_size=9)


def stored(files: dict[str, bytes]) -> tuple[Store, list[SourceObject]]:
    """Files in memory, and as they are listed."""
    return Store(**files), [SourceObject("lake", key, len(data), "e") for key, data in files.items()]


def file_of(kind: str, size: int) -> bytes:
    """An object of a kind; its first bytes alone matter."""
    beginning = {"lines": b"\xef\xbb\xbf \n{", "array": b" [", "gzip": gzip.compress(b"{}")}[kind]
    return (beginning + b"x" * size)[:size]


@given(FILES, st.integers(1, 5))
def test_ranges_are_in_order_and_complete_and_only_lines_are_cut(files, parallelism):
    contents = {f"{number}": file_of(*file) for number, file in enumerate(files)}
    store, objects = stored(contents)
    groups = cut_ranges(store, objects, parallelism, SMALL)
    ranges = list(itertools.chain.from_iterable(groups))
    size = min(max(sum(item.size for item in objects) // (3 * parallelism), 100), 1000)
    for item, (kind, _) in zip(objects, files, strict=True):
        own = [byte_range for byte_range in ranges if byte_range.object == item]
        if kind == "lines" and item.size > size:
            edges = [0, *range(size, item.size, size), item.size]
            assert [(cut.start, cut.end) for cut in own] == list(itertools.pairwise(edges))
        else:
            assert own == [ByteRange(item, 0, None)] * bool(item.size)
    assert [item.key for item, _ in itertools.groupby(cut.object for cut in ranges)] == [
        item.key for item in objects if item.size
    ]
    for group in groups:
        assert group
        assert len(group) == 1 or sum(cut.object.size for cut in group) <= size
    grouped = [sum(cut.object.size for cut in group) for group in groups if group[0].end is None]
    neighbours = itertools.pairwise(grouped) if len(grouped) == len(groups) else ()
    assert all(first + second > size for first, second in neighbours)


def test_big_lines_are_cut_and_small_objects_are_read_together():
    big = json_lines([{"id": i, "x": "y" * 1000} for i in range(10_000)])
    array = b"[" + big.replace(b"\n", b",") + b"]"
    store, objects = stored({"big": big, "empty": b"", "s1": b'{"id":1}', "s2": b'{"id":1}', "array": array})
    groups = cut_ranges(store, objects, 2, LIMITS)
    keys = [[byte_range.object.key for byte_range in group] for group in groups]
    assert keys == [["big"], ["big"], ["big"], ["s1", "s2"], ["array"]]
    [first, second, third] = [byte_range for [byte_range] in groups[:3]]
    assert (first.start, first.end, second.end, third.end) == (0, second.start, third.start, len(big))
    assert groups[4] == [ByteRange(objects[-1], 0, None)]


@pytest.mark.parametrize(
    ("key", "pattern", "expected"),
    [
        ("in/a.json", "in/a.json", True),
        ("in/b.json", "in/a.json", False),
        ("in/a.json", "in/", True),
        ("in/x/a.json", "in/", True),
        ("in/a.json", "in/*.json", True),
        ("in/x/a.json", "in/*.json", False),
        ("in/x/a.json", "in/*/a.json", True),
        ("in/a1.json", "in/a[0-9].json", False),
        ("in/a[0-9].json", "in/a[0-9].json", True),
        ("in/ab.json", "in/a?.json", False),
    ],
)
def test_source_key_patterns(key, pattern, expected):
    assert is_source_key(key, pattern) is expected
