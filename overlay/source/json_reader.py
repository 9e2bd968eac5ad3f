"""Parses the records of one byte range of an object: JSON Lines or an array, plain or gzip, with or without a BOM.

In: a client of S3 and a byte range. Out: chunks of records in order, one of them in memory at a time. Readers share
nothing but the client, so several threads may read, each with its own. JSON Lines are parsed here, arrays in
`json_array`.
"""

import codecs
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from typing import Any, NoReturn

from overlay.errors import Detail, Verbatim, library_words, phrase
from overlay.limits import Limits
from overlay.source.json_array import ArrayParser, EnvelopeParser
from overlay.source.json_text import SCAN_ERRORS, Chunk, ParseState, blanks_end, error_position, reason
from overlay.source.objects import BLANKS, ByteRange

GZIP_MAGIC = b"\x1f\x8b"
SHOWN_BYTES = 16  # of what an object begins with, in a message


class RecordReader:
    """Reads one byte range, once.

    Attributes:
        state: By which `columns` tells the reader what records hold, and raises the errors of what cannot be written.
    """

    def __init__(self, client: Any, byte_range: ByteRange, limits: Limits) -> None:
        self.state = ParseState(client, byte_range, limits)

    def chunks(self) -> Iterator[Chunk]:
        """Parses chunk after chunk; some have no records.

        Raises:
            SourceError: malformed JSON, a record that is no object, text that is not UTF-8, a broken gzip file.
            AwsError, SourceError: see `objects`.
        """
        state = self.state
        if state.byte_range.start:
            offset = state.byte_range.start - 1  # whose byte may be the newline before a line of this range
            stream = state.open_stream(offset)
            while data := stream.readline(state.limits.chunk_bytes):
                offset += len(data)
                if data.endswith(b"\n"):
                    break
            yield from _line_chunks(state, stream, offset)
            return
        stream = state.open_stream(0)
        if _peek(stream, len(GZIP_MAGIC)) == GZIP_MAGIC:
            stream = io.BufferedReader(gzip.GzipFile(fileobj=stream), state.limits.sniff_bytes)
        try:
            yield from _text_chunks(state, stream)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            state.malformed(state.byte_range.object.size, phrase("gzip_broken", reason=library_words(str(error))))


def _text_chunks(state: ParseState, stream: io.BufferedReader) -> Iterator[Chunk]:
    offset = len(stream.read(len(codecs.BOM_UTF8))) if _peek(stream, 3) == codecs.BOM_UTF8 else 0
    while (head := stream.peek(1)) and (blanks := len(head) - len(head.lstrip(BLANKS.encode()))):
        offset += len(stream.read(blanks))
    match _peek(stream, 1):
        case beginning if beginning and state.byte_range.object.records_at:
            yield from EnvelopeParser(state, stream, offset).chunks()
        case b"[":
            stream.read(1)
            yield from ArrayParser(state, stream, offset + 1).chunks()
        case b"{" | b"":
            yield from _line_chunks(state, stream, offset)
        case _:
            state.malformed(offset, phrase("beginning", beginning=Verbatim(repr(_peek(stream, SHOWN_BYTES)))))


def _peek(stream: io.BufferedReader, size: int) -> bytes:
    return stream.peek(size)[:size]


def _line_chunks(state: ParseState, stream: io.BufferedIOBase, offset: int) -> Iterator[Chunk]:
    """Parses the lines that begin in the byte range; the stream stands at a line, byte `offset` of the object."""
    end, limits = state.byte_range.end, state.limits
    data, size = b"", limits.sniff_bytes  # of the first chunk: enough to learn what the others hold
    while end is None or offset < end:
        read, size = stream.read(size), limits.chunk_bytes
        data += read
        is_last = not read
        cut = len(data) if is_last else data.rfind(b"\n") + 1
        # The line that begins before `end` is read to its newline.
        if end is not None and (stop := data.find(b"\n", max(end - 1 - offset, 0)) + 1):
            cut, is_last = stop, True
        if cut:
            yield _parse(state, data[:cut], offset)
        if is_last:
            return
        offset += cut
        data = data[cut:]
        state.check_record_size(len(data), offset)


def _parse(state: ParseState, data: bytes, offset: int) -> Chunk:
    if columns := state.arrow.parse_lines(data):
        return state.arrow_chunk(columns, offset)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        lines = data[: error.start].decode().split("\n")[:-1]
        count = state.count + sum(1 for line in lines if line.strip(BLANKS))
        state.malformed(offset + error.start, phrase("not_utf8", reason=library_words(error.reason)), count)
    return _scan(state, text, offset)


def _scan(state: ParseState, text: str, offset: int) -> Chunk:
    chunk, scan = Chunk(text, offset, state.count), state.scan
    position, size = 0, len(text)
    while position < size:
        stop = text.find("\n", position)
        if stop < 0:
            stop = size
        try:
            record, end = scan(text, position)
        except SCAN_ERRORS:
            content = blanks_end(text, position)
            if content > position:  # blank lines, of which a file may hold millions, or blanks before the record
                position = content
                continue
            _refuse_line(state, chunk, position, stop)
        if end != stop and (end > stop or text[end:stop].strip(BLANKS)):
            _refuse_line(state, chunk, position, stop)
        chunk.starts.append(position)
        if type(record) is not dict:
            state.not_object(chunk, record)
        chunk.records.append(record)
        position = stop + 1
    state.count += len(chunk.records)
    return chunk


def _refuse_line(state: ParseState, chunk: Chunk, start: int, stop: int) -> NoReturn:
    """Raises the error of a line by itself, as what follows in the text depends on how the object is cut."""
    at = start
    problem: Detail = phrase("values_on_line")
    try:
        state.scan(chunk.text[: stop + 1], start)
    except SCAN_ERRORS as error:
        at = min(error_position(error, start), stop)
        ends = isinstance(error, json.JSONDecodeError) and error.pos >= stop
        within = phrase("indented") if chunk.text[start:stop].strip(BLANKS) == "{" else phrase("line_ends")
        problem = within if ends else reason(error)
    state.malformed(chunk.byte_offset(at), problem, chunk.records_before + len(chunk.records))
