"""Module `keys`: what equals what, against dicts and loops."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.keys import (
    MAX_FILTER_BITS,
    MIN_FILTER_BITS,
    KeyFilter,
    as_numbers,
    canonical_integer,
    first_ids,
    hashes,
    merged_ids,
    row_matches,
    source_matches,
)
from reference import oracle

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
KEYS = st.integers(-(2**64), 2**64).map(str) | TEXT
INT64 = st.integers(-(2**63), 2**63 - 1)
# What JSON may hold of an integer, and what is nearly one: signs, zeros, fractions, exponents, Unicode's other digits.
SPELLINGS = (
    st.builds(
        "{}{}{}{}".format,
        st.sampled_from(["", "-", "+", "00", " "]),
        st.integers(0, 10**21) | st.sampled_from([0, 7, 10**19, 10**20 - 1, 10**20, 2**63, 2**64]),
        st.sampled_from(["", ".", ".0", ".000000000000000000000000000001", ".5", "\n", "x"]),
        st.sampled_from(["", "e0", "E+2", "e-1", "e99", "e-99", "e999", "e1000", "e"]),
    )
    | st.text("0123456789.eE+-", max_size=8)
    | st.sampled_from(["", "٣", "1_000", "NaN", "Infinity", "0x10", "-0", "-0.0", "0e9"])
)


def texts(values) -> pa.Array:
    """A column of texts."""
    return pa.array(values, pa.string())


# One form for all spellings of an integer.


@given(SPELLINGS)
def test_an_integer_has_one_spelling_and_other_text_stays(text):
    assert canonical_integer(text) == oracle.canonical(text)
    assert canonical_integer(canonical_integer(text)) == canonical_integer(text)


@pytest.mark.parametrize("text", ["7", "007", "7.0", "7.", "+7", "70e-1", "0.7E1"])
def test_spellings_of_seven(text):
    assert canonical_integer(text) == "7"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("-0", "0"),
        ("0E20", "0"),
        ("7.5", "7.5"),
        ("1e400", "1e400"),
        ("1E9999999999999999999", "1E9999999999999999999"),
        ("٧", "٧"),
    ],
)
def test_what_is_no_integer_of_the_table_stays_as_it_is(text, match):
    assert canonical_integer(text) == match


@given(st.lists(SPELLINGS | st.none(), max_size=8), st.booleans())
def test_ids_of_records_become_their_value_where_the_key_is_an_integer(ids, integer):
    matches = source_matches(texts(ids), integer=integer)
    assert matches.type == pa.string()
    assert matches.to_pylist() == [oracle.canonical(text) if integer and text is not None else text for text in ids]


@given(st.lists(st.integers(0, 10**9), max_size=5), st.integers(1, 12))
def test_zeros_before_a_padded_key_do_not_count(numbers, width):
    ids = texts([str(number).zfill(width) for number in numbers])
    assert row_matches(ids, zerofill=True).to_pylist() == [str(number) for number in numbers]
    assert row_matches(ids, zerofill=False) is ids


@given(st.lists(INT64.map(str) | st.none(), max_size=8))
def test_matches_that_64_bits_hold_are_compared_as_numbers(matches):
    assert as_numbers(texts(matches)).to_pylist() == [None if text is None else int(text) for text in matches]


@given(
    st.lists(INT64.map(str), max_size=3),
    st.sampled_from(["", "a", "007", "7.0", "-0", "+1", "9223372036854775808", "-9223372036854775809", "1" * 40]),
)
def test_a_match_that_is_no_such_number_keeps_all_as_text(matches, odd_match):
    assert as_numbers(texts([*matches, odd_match])) is None


# The filter.


@given(st.lists(KEYS, min_size=1))
def test_a_key_has_one_hash_whatever_lies_beside_it(keys):
    together = hashes(texts(keys)).tolist()
    assert together == [hashes(texts([key]))[0] for key in keys]
    assert together == hashes(texts(["before", *keys, "behind"]).slice(1, len(keys))).tolist()


@given(st.lists(INT64, min_size=1))
def test_a_number_has_one_hash_whatever_lies_beside_it(numbers):
    together = hashes(pa.array(numbers, pa.int64())).tolist()
    assert together == [hashes(pa.array([number], pa.int64()))[0] for number in numbers]
    assert len(set(together)) == len(set(numbers))  # an odd factor loses nothing


@given(st.lists(KEYS, max_size=50), st.lists(KEYS, max_size=50), st.integers(0, 50))
def test_a_filter_denies_no_key_it_has(keys, other_keys, cut):
    key_filter = KeyFilter.of_hashes([hashes(texts(keys[:cut])), hashes(texts(keys[cut:]))])
    assert key_filter.may_have(hashes(texts(keys))).all()
    # A key of another is taken for one of its own where the first bits of both hashes are the same, else never.
    shift = 64 - (len(key_filter.bits) * 8 - 1).bit_length()
    first_bits = {int(value) >> shift for value in hashes(texts(keys))}
    expected = [int(value) >> shift in first_bits for value in hashes(texts(other_keys))]
    assert key_filter.may_have(hashes(texts(other_keys))).tolist() == expected


@given(st.lists(INT64, max_size=50))
def test_a_filter_denies_no_number_it_has(numbers):
    hashed = hashes(pa.array(numbers, pa.int64()))
    assert KeyFilter.of_hashes([hashed]).may_have(hashed).all()


@given(st.lists(KEYS, max_size=50))
def test_the_first_32_bits_of_hashes_are_enough_for_a_filter(keys):
    """The Spark engine sends no more of each to the driver."""
    hashed = hashes(texts(keys))
    first_bits = (hashed >> np.uint64(32)).astype(np.uint32)
    key_filter = KeyFilter.of_hashes([first_bits.astype(np.uint64) << np.uint64(32)])
    assert key_filter.may_have(hashed).all()


@pytest.mark.parametrize("count", [0, 1, 300_000])
@pytest.mark.parametrize("form", ["{}", "k{}", "number"])
def test_a_filter_denies_most_other_keys(form, count):
    def hashed(numbers):
        return hashes(pa.array(numbers) if form == "number" else texts(map(form.format, numbers)))

    key_filter = KeyFilter.of_hashes([hashed(list(range(0, count * 3, 3)))] if count else [])
    assert key_filter.may_have(hashed(list(range(1, 300_001 * 3, 3)))).mean() < 0.04


@pytest.mark.parametrize("count", [0, 1, 5_000, 100_000, 6_000_000])
def test_a_filter_grows_with_its_keys_within_bounds(count):
    bits = len(KeyFilter.of_hashes([np.arange(count, dtype=np.uint64)]).bits) * 8
    assert 2**MIN_FILTER_BITS <= bits <= 2**MAX_FILTER_BITS
    assert bits & (bits - 1) == 0
    assert bits >= min(count * 16, 2**MAX_FILTER_BITS)


# The first of some ids.


@pytest.mark.parametrize(
    ("ids", "integer", "first"),
    [
        (["10", "9", "-1"], True, ["-1", "9", "10"]),
        (["18446744073709551615", "9"], True, ["9", "18446744073709551615"]),
        (["10", "9", "é", "z", "Z"], False, ["10", "9", "Z", "z", "é"]),
        ([], True, []),
    ],
)
def test_first_ids(ids, integer, first):
    array = texts(ids)
    assert first_ids(array, array, 10, integer=integer) == first


@given(st.lists(INT64 | st.integers(0, 3)) | st.lists(st.integers(0, 2**64 - 1)), st.integers(1, 12))
def test_first_integers_are_those_of_the_lowest_value_each_once(numbers, limit):
    """However many rows of a table without a unique key have the first of them."""
    expected = [str(number) for number in sorted(set(numbers))[:limit]]
    ids = texts(map(str, numbers))
    assert first_ids(ids, ids, limit, integer=True) == expected
    if all(number < 2**63 for number in numbers):
        ids = pa.array(numbers, pa.int64())
        assert first_ids(ids, ids, limit, integer=True) == expected


@given(st.lists(TEXT | st.sampled_from("ab")), st.integers(1, 12))
def test_first_texts_are_those_of_the_lowest_bytes_each_once(ids, limit):
    assert first_ids(texts(ids), texts(ids), limit, integer=False) == sorted(set(ids), key=str.encode)[:limit]


def test_first_ids_are_as_the_table_writes_them():
    ids = texts(["0010", "0009", "0010"])
    assert first_ids(ids, row_matches(ids, zerofill=True), 10, integer=True) == ["0009", "0010"]


@given(st.lists(st.lists(INT64.map(str) | TEXT, max_size=8), max_size=4), st.integers(1, 5))
def test_the_first_of_all_are_among_the_first_of_each_part(parts, limit):
    ids = list(itertools.chain.from_iterable(parts))
    firsts = [first_ids(texts(part), texts(part), limit, integer=False) for part in parts]
    merged = merged_ids(itertools.chain.from_iterable(firsts), limit, integer=False)
    assert merged == sorted(set(ids), key=str.encode)[:limit] == merged_ids(ids, limit, integer=False)


@given(st.lists(st.integers(-(2**64), 2**64)), st.integers(1, 5))
def test_first_integers_are_merged_by_value_each_once(numbers, limit):
    expected = [str(number) for number in sorted(set(numbers))[:limit]]
    assert merged_ids(map(str, numbers), limit, integer=True) == expected
