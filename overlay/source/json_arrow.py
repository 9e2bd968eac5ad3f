"""The fast way: Arrow's JSON reader, five times as fast as the scanner of `json`, where both give the same.

In: bytes that hold whole records, and what the first records held. Out: columns of text; or None, and the bytes are
left to the scanner. Arrow is never asked what is wrong, and nothing is taken from it that is not proved the same.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.json as arrow_json

LEARNT_RECORDS = 100
_MINUS_ZERO = re.compile(rb"-0[ \t\r\n]*[,}]")
_BOUNDARY = re.compile(rb"\}[ \t\r\n]*,[ \t\r\n]*\{")
Parsed = TypeVar("Parsed")


class ArrowParser:
    """Parses the chunks of a byte range by Arrow, as long as they are like the first one.

    It can where each column holds texts alone, or 64-bit integers alone, beside null. Any other chunk is left to the
    scanner, and what that one held is what the next ones are tried with, `misses_max` times.
    """

    def __init__(self, misses_max: int) -> None:
        self._misses_left = misses_max
        self._shape: pa.Schema | None = None

    @property
    def is_ready(self) -> bool:
        """Whether the next chunk may be parsed."""
        return self._shape is not None

    def learn(self, text: str, starts: Sequence[int], names: Iterable[str]) -> None:
        """Takes from scanned records, which begin at `starts` of a text, what each of the columns so far holds."""
        before = {} if self._shape is None else dict(zip(self._shape.names, self._shape.types, strict=True))
        self._shape = None
        types = {name: before.get(name, pa.string()) for name in names}
        if not self._misses_left or not types:
            return
        decoder = json.JSONDecoder(parse_int=len)  # `int` refuses thousands of digits
        for start in starts[:LEARNT_RECORDS]:
            for name, value in decoder.raw_decode(text, start)[0].items():
                if isinstance(value, float | bool | list | dict):
                    return
                if isinstance(value, int):
                    types[name] = pa.int64()
        self._shape = pa.schema(list(types.items()))

    def parse_lines(self, data: bytes) -> list[pa.Array] | None:
        """Parses whole lines."""
        return self._parse(lines_alike, data)

    def parse_array(self, data: bytes) -> tuple[list[pa.Array], int] | None:
        """Parses what an array holds but its last record, of which more may follow, and counts the bytes before it."""
        return self._parse(array_alike, data) if _BOUNDARY.search(data) else None

    def _parse(self, parse: Callable[[bytes, pa.Schema], Parsed | None], data: bytes) -> Parsed | None:
        parsed = parse(data, self._shape) if self.is_ready else None
        if self.is_ready and parsed is None:
            self._misses_left -= 1
            self._shape = None
        return parsed


def lines_alike(data: bytes, shape: pa.Schema) -> list[pa.Array] | None:
    """The columns of JSON Lines where Arrow is sure to read what the scanner reads, else None.

    Each line begins with a brace, and Arrow finds as many records as there are lines: so each line is one record. Lines
    that few programs write (blank ones, blanks before a record) are left to the scanner.
    """
    if not data.startswith(b"{"):
        return None
    characters = np.frombuffer(data, np.uint8)  # four times as fast as `data.count`
    starts = np.flatnonzero(characters[:-1] == ord("\n")) + 1  # of all lines but the first
    return _read(data, shape, len(starts) + 1) if (characters[starts] == ord("{")).all() else None


def array_alike(data: bytes, shape: pa.Schema) -> tuple[list[pa.Array], int] | None:
    """The same for what an array holds from a record on, up to the last comma between two braces.

    Those commas are made newlines. Arrow refuses a newline inside of a text, and two values without a comma inside of
    another: so each of those commas was one between two records. Arrow finds one record more than commas: so there is
    exactly one between each two, and nothing else.
    """
    if not data.startswith(b"{"):
        return None
    lines, commas = _BOUNDARY.subn(b"}\n{", data)
    records, _, last = lines.rpartition(b"}\n{")
    columns = _read(records + b"}", shape, commas)
    return None if columns is None else (columns, len(data) - len(last) - 1)


def _read(data: bytes, shape: pa.Schema, records: int) -> list[pa.Array] | None:
    """The columns of so many records as text.

    What Arrow would let pass: the integer -0 (as 0), bytes that are not UTF-8 (until it validates them).
    """
    if b"-" in data and _MINUS_ZERO.search(data):  # a byte is found ten times as fast as two
        return None
    try:
        table = arrow_json.read_json(
            pa.BufferReader(data),
            arrow_json.ReadOptions(use_threads=False, block_size=len(data) + 1),
            arrow_json.ParseOptions(explicit_schema=shape, unexpected_field_behavior="error"),
        )
        table.validate(full=True)
    except pa.ArrowException:
        return None
    if table.num_rows != records:
        return None
    return [column.combine_chunks().cast(pa.string()) for column in table.select(shape.names).columns]
