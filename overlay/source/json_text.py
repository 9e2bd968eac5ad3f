"""What parsing JSON is made of: the scanner of values, chunks of records, and what is kept from chunk to chunk.

In: text, the byte range it is of, or an error. Out: Python values whose numbers are strings; compact JSON; SourceErrors
that name the record by its number and its byte offset.
"""

import codecs
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import pyarrow as pa

from overlay.errors import Detail, SourceError, Verbatim, library_words, phrase
from overlay.limits import MIB, Limits
from overlay.source.json_arrow import ArrowParser
from overlay.source.objects import BLANKS, ByteRange, ObjectStream

SCAN_ERRORS = (StopIteration, ValueError, RecursionError)
_SPACE = re.compile(f"[{BLANKS}]*")
_UNCOUNTED = BLANKS.encode() + codecs.BOM_UTF8


class Literal(str):
    """A JSON number as it is written; inside a nested value it must not be quoted as strings are."""

    __slots__ = ()


@dataclass
class Chunk:
    """Records parsed out of one stretch of text, and where each begins in it; or the columns that Arrow parsed."""

    text: str
    offset: int  # bytes of the object before the text
    records_before: int  # of the byte range
    records: list[dict[str, Any]] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)  # the character of the text at which each record begins
    columns: list[pa.Array] | None = None  # of text, in the order of those so far; all else is empty then

    @property
    def size(self) -> int:
        """The number of records."""
        return len(self.records) if self.columns is None else len(self.columns[0])

    def byte_offset(self, character: int) -> int:
        """The byte of the object at which a character of the text begins."""
        return self.offset + len(self.text[:character].encode())


class ParseState:
    """What is kept from chunk to chunk of a byte range."""

    def __init__(self, client: Any, byte_range: ByteRange, limits: Limits) -> None:
        self._client = client
        self.byte_range, self.limits = byte_range, limits
        self.scan, self.keeps_numbers = scanner(str), False  # whether it marks numbers as `Literal`
        self.arrow = ArrowParser(limits.arrow_misses_max)  # the fast way
        self.count = 0  # records so far

    def open_stream(self, start: int) -> io.BufferedReader:
        """Opens the object at byte `start`, read a chunk at a time."""
        stream = ObjectStream(self._client, self.byte_range.object, start, self.limits.read_attempts)
        return io.BufferedReader(stream, self.limits.chunk_bytes)

    def arrow_chunk(self, columns: list[pa.Array], offset: int) -> Chunk:
        """The chunk of records that Arrow parsed."""
        chunk = Chunk("", offset, self.count, columns=columns)
        self.count += chunk.size
        return chunk

    def keep_numbers(self) -> None:
        """Marks numbers from now on, so that inside of nested values they can be told from strings."""
        self.scan, self.keeps_numbers = scanner(Literal), True

    def malformed(self, offset: int, problem: Detail, records_before: int | None = None) -> NoReturn:
        """Raises the SourceError for byte `offset`, behind so many records of the byte range, or those so far."""
        before = self.count if records_before is None else records_before
        raise self._error("source_malformed", offset, before, problem=problem)

    def not_object(self, chunk: Chunk, value: object) -> NoReturn:
        """Raises the SourceError for a value that begins at the last start of a chunk where a record must."""
        kind = {list: "array", bool: "boolean", type(None): "null"}.get(type(value), "string_or_number")
        records_before = chunk.records_before + len(chunk.records)
        raise self._error("source_not_object", chunk.byte_offset(chunk.starts[-1]), records_before, kind=phrase(kind))

    def check_record_size(self, size: int, offset: int) -> None:
        """Refuses the record at byte `offset` once so much of it was read."""
        if size > self.limits.record_bytes_max:
            self.malformed(offset, phrase("record_too_large", limit=self.limits.record_bytes_max // MIB))

    def _error(self, code: str, offset: int, records_before: int, **details: Detail) -> SourceError:
        if self.byte_range.start:  # a range inside an object does not know how many records came before it
            records_before = _count_lines(self.open_stream(0), offset, self.limits.chunk_bytes)
        url = Verbatim(self.byte_range.object.url)
        return SourceError(code, url=url, record=records_before + 1, offset=offset, **details)


def _count_lines(stream: io.BufferedIOBase, end: int, most: int) -> int:
    """Counts the lines that are not blank in the bytes before `end`, of a stream read at `most` bytes at a time."""
    count, position, blank = 0, 0, True
    while (data := stream.readline(most)) and position + len(data) <= end:
        position += len(data)
        blank = blank and not data.strip(_UNCOUNTED)
        if data.endswith(b"\n"):
            count, blank = count + (not blank), True
    return count


def scanner(number: type[str]) -> Callable[[str, int], tuple[Any, int]]:
    """Makes the function that parses the value which begins at a character, and returns it with the character after it.

    Numbers become a `number` with the digits they are written with: as `Literal` they can be told from strings, as
    `str` they are parsed twice as fast. The function raises SCAN_ERRORS; `error_position` is the character then.

    It is the C scanner of the standard library, `scan_once`, which json/decoder.py of CPython 3.11 to 3.13 sets and
    does not document: the public `raw_decode` costs a call in Python for each record. Each thread needs its own memo.
    """
    decoder = json.JSONDecoder(parse_int=number, parse_float=number, parse_constant=_refuse_constant)
    return decoder.scan_once  # type: ignore[attr-defined,no-any-return]


def _refuse_constant(name: str) -> None:
    """NaN and Infinity, which Python takes and JSON does not have."""
    raise ValueError(name)


def blanks_end(text: str, position: int) -> int:
    """The first character from a position on that is no blank."""
    return _SPACE.match(text, position).end()  # type: ignore[union-attr]


def error_position(error: Exception | None, default: int) -> int:
    """The character at which a scan failed, or `default` where the error does not know it."""
    position: int = getattr(error, "pos", getattr(error, "value", default))
    return position


def reason(error: Exception) -> Detail:
    """Says why a scan failed."""
    if isinstance(error, RecursionError):
        return phrase("nested")
    if isinstance(error, StopIteration):
        return phrase("value_expected")
    if isinstance(error, json.JSONDecodeError):
        return library_words(error.msg)
    return phrase("not_json", text=Verbatim(str(error)))  # what `_refuse_constant` raises


def compact(value: object) -> str:
    """Writes a nested value as compact JSON: keys in their order, numbers as written, non-ASCII as it is.

    Raises:
        RecursionError: it nests too deeply.
    """
    quoted = json.encoder.encode_basestring
    if isinstance(value, str):
        return str(value) if isinstance(value, Literal) else quoted(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{quoted(name)}:{compact(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(compact, value)) + "]"
    return {True: "true", False: "false", None: "null"}[value]  # type: ignore[index]
