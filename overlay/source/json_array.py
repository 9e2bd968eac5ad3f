"""A JSON array of records, read from its beginning: only there is it certain what a brace or a comma is.

In: the bytes behind the opening bracket, as a stream; or those of an object around the array, as exports of APIs have
it (`{"records": [...], "total": 2}`, at `S3.records_at`), whose other members are parsed and left out. Out: chunks of
records, or the SourceError of the first place that is malformed.
"""

import codecs
import io
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from overlay.errors import Detail, SourceError, Verbatim, library_words, phrase
from overlay.source.json_text import SCAN_ERRORS, Chunk, ParseState, blanks_end, error_position, reason
from overlay.source.objects import BLANKS

# A scan that fails this close to the end of the text may only have seen half a token (`tru`, `\u00`).
TOKEN_CHARACTERS = 16
_COMMA = re.compile(f"[{BLANKS}]*,[{BLANKS}]*")
_KINDS = {"{": "object", "[": "array", "t": "boolean", "f": "boolean", "n": "null"}  # by how a value begins


class ArrayParser:
    """Walks through an array, a sliding stretch of its text at a time."""

    def __init__(self, state: ParseState, stream: io.BufferedIOBase, offset: int) -> None:
        """Takes a stream that stands behind the bracket of the array, at byte `offset` of the object."""
        self._state, self._stream = state, stream
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text, self._offset = "", offset  # of the byte at which the text begins
        self._position = 0  # what lies before this character is parsed
        self._expects_record = True  # behind the bracket or a comma
        self._is_closed = self._has_ended = False  # the array, the stream
        self._problem: Detail | None = None  # why the stream ends here, where that is not its end

    def chunks(self) -> Iterator[Chunk]:
        """Parses chunk after chunk; a SourceError also where something stands behind the array."""
        state, limits = self._state, self._state.limits
        size = min(limits.sniff_bytes, limits.chunk_bytes)  # of the first chunk: enough to learn what the others hold
        while not self._is_closed:
            self._slide(size)
            size = limits.chunk_bytes
            if chunk := self._arrow_chunk():
                yield chunk
            yield self._scanned_chunk()
            if not self._is_closed:
                state.check_record_size(len(self._text) - self._position, self._byte_offset(self._position))
        self._expect_end()

    def _slide(self, size: int) -> None:
        """Forgets what is parsed, and reads `size` bytes more."""
        self._offset = self._byte_offset(self._position)
        self._text, self._position = self._text[self._position :], 0
        read = self._stream.read(size)
        self._has_ended = not read
        try:
            self._text += self._decoder.decode(read, final=self._has_ended)
        except UnicodeDecodeError as error:
            # The records before the bad byte are parsed first, so that the error can count them.
            self._text += error.object[: error.start].decode()
            self._has_ended = True
            self._problem = phrase("not_utf8", reason=library_words(error.reason))

    def _byte_offset(self, position: int) -> int:
        """The byte of the object at which a character of the text begins."""
        return self._offset + len(self._text[:position].encode())

    def _arrow_chunk(self) -> Chunk | None:
        """The records of the text but the last one, if Arrow can parse them."""
        text, arrow = self._text, self._state.arrow
        if not arrow.is_ready or not self._expects_record or len(text) > 2 * self._state.limits.chunk_bytes:
            return None  # also where a record is larger than a chunk: it need not be in memory twice
        start = blanks_end(text, 0)
        data = text[start:].encode()
        beginning = arrow.parse_array(data)
        if beginning is None:
            return None
        columns, size = beginning
        self._position = len(text) - len(data[size:].decode())
        return self._state.arrow_chunk(columns, self._byte_offset(start))

    def _scanned_chunk(self) -> Chunk:
        """The records that end in the text."""
        state, scan = self._state, self._state.scan
        chunk = Chunk(self._text, self._offset, state.count)
        text, expects_record, error = self._text, self._expects_record, None
        position = blanks_end(text, self._position)
        while True:
            if not expects_record:
                comma = _COMMA.match(text, position)
                if comma is None:
                    break
                position, expects_record = comma.end(), True
            try:
                record, end = scan(text, position)
            except SCAN_ERRORS as failure:
                error = failure.with_traceback(None)  # which would keep this frame, and its text, in memory
                break
            chunk.starts.append(position)
            if type(record) is not dict:
                state.not_object(chunk, record)
            chunk.records.append(record)
            position, expects_record = end, False
        state.count += len(chunk.records)
        self._position, self._expects_record = blanks_end(text, position), expects_record
        self._stop(error)
        return chunk

    def _stop(self, error: Exception | None) -> None:
        """No record ends at or behind the position: it is the closing bracket, more text is needed, or all is wrong."""
        character = self._text[self._position : self._position + 1]
        if character == "]" and not (self._expects_record and self._state.count):
            self._is_closed = True
            self._position += 1
        elif character and not self._expects_record:
            self._state.malformed(self._byte_offset(self._position), phrase("after_record"))
        elif not self._may_grow(error):
            self._refuse(error)

    def _may_grow(self, error: Exception | None) -> bool:
        """Whether a scan that met the end of the text (None) or failed may succeed with more text."""
        position = error_position(error, len(self._text))
        is_open = getattr(error, "msg", "").startswith("Unterminated string")
        return not self._has_ended and (is_open or position >= len(self._text) - TOKEN_CHARACTERS)

    def _refuse(self, error: Exception | None) -> NoReturn:
        """Raises the error of a scan that failed at the position, where more text will not mend it."""
        failed_at, end = error_position(error, self._position), len(self._text)
        if self._problem:
            self._state.malformed(self._byte_offset(end), self._problem)
        if error is None or failed_at >= end:
            self._state.malformed(self._byte_offset(end), phrase("array_ends"))
        self._state.malformed(self._byte_offset(failed_at), reason(error))

    def _skip_blanks(self) -> None:
        self._position = blanks_end(self._text, self._position)
        while self._position == len(self._text) and not self._has_ended:
            self._slide(self._state.limits.chunk_bytes)
            self._position = blanks_end(self._text, 0)

    def _expect_end(self) -> None:
        self._skip_blanks()
        if self._position < len(self._text):
            self._state.malformed(self._byte_offset(self._position), phrase("after_array"))
        if self._problem:
            self._refuse(None)


class EnvelopeParser(ArrayParser):
    """Walks through the members of an object, and of those inside of it, to the array of records and to the end."""

    def __init__(self, state: ParseState, stream: io.BufferedIOBase, offset: int) -> None:
        """Takes a stream that stands at the brace of the object, at byte `offset`."""
        super().__init__(state, stream, offset)
        self._path = state.byte_range.object.records_at
        self._names = self._path.split(".")

    def chunks(self) -> Iterator[Chunk]:
        """Parses chunk after chunk; a SourceError also where no array is at the path, or two are."""
        for name in self._names:
            self._enter(name)
        if self._step("") != "[":
            self._refuse_path(phrase("no_array", name=Verbatim(self._names[-1]), kind=phrase(self._kind())))
        self._position += 1
        yield from super().chunks()

    def _enter(self, name: str) -> None:
        """Goes on to the value of a member of the object at the position."""
        if self._step("") != "{" and name != self._names[0]:
            before = self._names[self._names.index(name) - 1]
            self._refuse_path(phrase("no_object", name=Verbatim(before), kind=phrase(self._kind())))
        self._step("{")
        names = []
        while self._step("") != "}":
            if (member := self._member()) == name:
                return
            names.append(member)
            self._value()
            if self._step(",}") == "}":
                break
        self._refuse_path(phrase("no_member", name=Verbatim(name), names=Verbatim(", ".join(names))))

    def _expect_end(self) -> None:
        """Walks through the members behind the records: a second array at the path would be lost."""
        for name in reversed(self._names):
            while self._step(",}") == ",":
                self._step("")
                start = self._byte_offset(self._position)
                if self._member() == name:
                    self._state.malformed(start, phrase("twice", name=Verbatim(name)))
                self._value()
        super()._expect_end()

    def _member(self) -> str:
        """The name of the member at the position; goes on to its value."""
        self._step('"')
        self._position -= 1
        name: str = self._value()
        self._step(":")
        return name

    def _step(self, expected: str) -> str:
        """The next character that is no blank, which is stepped over where it is expected; `""`: it may be any."""
        self._skip_blanks()
        character = self._text[self._position : self._position + 1]
        if not character:
            self._refuse(None)
        if expected and character not in expected:
            at = self._byte_offset(self._position)
            self._state.malformed(at, phrase("in_envelope", expected=Verbatim(" ".join(expected))))
        self._position += bool(expected)
        return character

    def _value(self) -> Any:
        """The value at the position, which is stepped over."""
        self._step("")
        while True:
            error = None
            try:
                value, end = self._state.scan(self._text, self._position)
                # `10` may be all that is here yet of `10.5`, and so may `10.`, which a scan leaves behind the ten.
                if self._has_ended or end < len(self._text) - TOKEN_CHARACTERS:
                    self._position = end
                    return value
            except SCAN_ERRORS as failure:
                error = failure.with_traceback(None)
            if not self._may_grow(error):
                self._refuse(error)
            self._state.check_record_size(len(self._text) - self._position, self._byte_offset(self._position))
            self._slide(self._state.limits.chunk_bytes)

    def _kind(self) -> str:
        """The phrase for the value at the position."""
        return _KINDS.get(self._text[self._position], "string_or_number")

    def _refuse_path(self, problem: Detail) -> NoReturn:
        url = Verbatim(self._state.byte_range.object.url)
        raise SourceError("records_missing", url=url, path=Verbatim(self._path), problem=problem)
