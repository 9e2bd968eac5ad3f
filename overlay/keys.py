"""What equals what: the ids of both sides, brought into the form in which they are compared.

In: columns of ids as text (or as 64-bit integers). Out: matches (columns that compare byte for byte, or as integers),
a filter of them, and the first of some ids in their order.
"""

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Texts = Any  # pa.Array: pyarrow 17 has no types
Numbers = np.ndarray[Any, Any]

CANONICAL_INTEGER = r"^(0|-?[1-9][0-9]{0,18})$"
MAX_INTEGER_DIGITS = 20  # of BIGINT UNSIGNED
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?")  # Decimal refuses exponents of 19 digits
_FIBONACCI = np.uint64(0x9E3779B97F4A7C15)  # ids may be regular; multiplied by this they spread (Knuth 6.4)
_WEIGHTS = np.random.default_rng(20261126).integers(1, 2**63, 256, dtype=np.uint64) | np.uint64(1)
MIN_FILTER_BITS, MAX_FILTER_BITS = 16, 27  # 8 KiB to 16 MiB; at the most, 5 M keys set 4 % of the bits
FILTER_BITS_PER_KEY = 32


def canonical_integer(text: str) -> str:
    """The shortest spelling of an integer (`007`, `7.0` and `70e-1` are `7`); other text as it is."""
    if not _NUMBER.fullmatch(text):
        return text
    number = Decimal(text)
    if (number and number.adjusted() >= MAX_INTEGER_DIGITS) or number != number.to_integral_value():
        return text
    return str(int(number))


def source_matches(ids: Texts, *, integer: bool) -> Texts:
    """What the ids of records are compared with: themselves, or their value where the table's key is an integer.

    A missing id stays null, which equals nothing.
    """
    if not integer:
        return ids
    odd = pc.fill_null(pc.invert(pc.match_substring_regex(ids, CANONICAL_INTEGER)), False)
    if not pc.any(odd).as_py():
        return ids
    spelt = [canonical_integer(text) for text in ids.filter(odd).to_pylist()]
    return pc.replace_with_mask(ids, odd, pa.array(spelt, pa.string()))


def row_matches(ids: Texts, *, zerofill: bool) -> Texts:
    """What the ids of rows are compared with: themselves, without the zeros by which MySQL fills them."""
    return pc.replace_substring_regex(ids, "^0+(.)", r"\1") if zerofill else ids


def as_numbers(matches: Texts) -> Texts | None:
    """The matches as 64-bit integers, which compare faster; None where one is no such integer."""
    if not pc.all(pc.match_substring_regex(matches, CANONICAL_INTEGER), min_count=0).as_py():
        return None
    try:
        return matches.cast(pa.int64())
    except pa.ArrowInvalid:  # 19 digits may be more than 64 bits hold
        return None


def hashes(matches: Texts) -> Numbers:
    """A hash of 64 bits of each match (none is null), by arithmetic on whole columns."""
    if pa.types.is_integer(matches.type):
        numbers: Numbers = matches.to_numpy().astype(np.uint64)
        return numbers * _FIBONACCI
    if not len(matches):
        return np.empty(0, np.uint64)
    ends = np.frombuffer(matches.buffers()[1], np.int32)[matches.offset : matches.offset + len(matches) + 1]
    lengths = np.diff(ends).astype(np.int64)
    data = np.frombuffer(matches.buffers()[2] or b"", np.uint8)[ends[0] : ends[-1]]
    starts = np.cumsum(lengths) - lengths
    position = np.arange(len(data)) - np.repeat(starts, lengths)
    terms = data.astype(np.uint64) + np.uint64(1)
    terms *= _WEIGHTS[position & 255] * (position.astype(np.uint64) | np.uint64(1))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms)])
    sums = sums[starts + lengths] - sums[starts]
    # Sums alone are as regular as the texts: a filter of `k0`, `k3`, ... took 11 % of the keys between for its own.
    mixed: Numbers = (sums ^ (sums >> np.uint64(32))) * _FIBONACCI
    return mixed


class KeyFilter:
    """Which matches a source may have: a Bloom filter of one hash, which denies none that it has."""

    def __init__(self, bits: Numbers) -> None:
        self.bits = bits  # as bytes, so that it can be sent to workers
        self._shift = np.uint64(64 - (len(bits) * 8).bit_length() + 1)

    @classmethod
    def of_hashes(cls, hash_arrays: Iterable[Numbers]) -> Self:
        """The filter of all keys with these hashes."""
        arrays = list(hash_arrays)
        needed = max(sum(map(len, arrays)) * FILTER_BITS_PER_KEY, 1).bit_length()
        keys = cls(np.zeros(2 ** min(max(needed, MIN_FILTER_BITS), MAX_FILTER_BITS) // 8, np.uint8))
        for array in arrays:
            numbers = array >> keys._shift
            masks = np.uint8(1) << (numbers & np.uint64(7)).astype(np.uint8)
            np.bitwise_or.at(keys.bits, numbers >> np.uint64(3), masks)
        return keys

    def may_have(self, hash_array: Numbers) -> Numbers:
        """Whether each key with these hashes may be among those of the filter."""
        numbers = hash_array >> self._shift
        bits: Numbers = self.bits[numbers >> np.uint64(3)] >> (numbers & np.uint64(7)).astype(np.uint8) & np.uint8(1)
        return bits.astype(bool)


def first_ids(ids: Texts, matches: Texts, limit: int, *, integer: bool) -> list[str]:
    """The first of some ids of rows as text, each once: integers by value, others by their bytes."""
    order = matches
    if integer and not pa.types.is_integer(order.type):
        try:
            order = order.cast(pa.int64())
        except pa.ArrowInvalid:
            order = order.cast(pa.uint64())
    positions = pc.select_k_unstable(order, k=limit, sort_keys=[("", "ascending")])
    firsts: list[str] = ids.take(positions).cast(pa.string()).to_pylist()
    if len(set(firsts)) == len(firsts):
        return firsts
    # Only here, as most keys are unique. Both stay in step, as ids and matches of rows pair off.
    return first_ids(pc.unique(ids), pc.unique(matches), limit, integer=integer)


def merged_ids(ids: Iterable[str], limit: int, *, integer: bool) -> list[str]:
    """The first of the first ids, each once."""
    return sorted(set(ids), key=int if integer else str.encode)[:limit]
