"""Records -> record batches of text columns that are named by the JSON keys.

In: readers of byte ranges. Out: Arrow batches in which every value is text as the source has it: a string as it is, a
number with the digits it is written with, `true` or `false`, a nested value as compact JSON; null where it is missing.
"""

import itertools
import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn, TypeAlias

import pyarrow as pa

from overlay.errors import Verbatim, phrase
from overlay.source.json_reader import RecordReader
from overlay.source.json_text import Chunk, ParseState, compact

Names: TypeAlias = dict[str, None]  # of columns, in the order they first appear


def record_batches(readers: Iterable[RecordReader]) -> Iterator[pa.RecordBatch]:
    """Reads the records of several byte ranges, in order, as batches of text (pa.string()).

    Columns are in the order in which their keys first appear in these ranges, so those of a batch begin with those of
    the batch before. A batch is never empty, but it has no columns as long as no record has a key.

    Raises:
        SourceError: a text holds half a surrogate pair, which no encoding can write.
        AwsError, SourceError: see `RecordReader.chunks`.
    """
    names: Names = {}
    for reader in readers:
        for chunk in reader.chunks():
            if not chunk.size:
                continue
            columns = chunk.columns
            if columns is None:
                columns = _text_columns(reader.state, chunk, names)
                reader.state.arrow.learn(chunk.text, chunk.starts, names)
            if names:
                yield pa.RecordBatch.from_arrays(columns, names=list(names))
            else:  # `from_arrays` would lose the size
                yield pa.RecordBatch.from_struct_array(pa.array([{}] * chunk.size, pa.struct([])))


def _text_columns(state: ParseState, chunk: Chunk, names: Names) -> list[pa.Array]:
    """The values of scanned records, an array of text a column; `names` grows by the keys it lacks."""
    count = len(names)
    columns = _values(chunk.records, names)
    try:
        for name in itertools.islice(names, count, None):
            name.encode()
    except UnicodeEncodeError:  # no header can name a column with half a surrogate pair
        number = next(i for i, record in enumerate(chunk.records) if name in record)
        _refuse(state, chunk, number, "surrogate_in_name", name)
    arrays = [_strings(values) for values in columns]
    odd = (values for values, array in zip(columns, arrays, strict=True) if array is None)
    if not state.keeps_numbers and any(isinstance(value, dict | list) for value in itertools.chain.from_iterable(odd)):
        state.keep_numbers()  # nested values are likely to come again
        columns = _values([state.scan(chunk.text, start)[0] for start in chunk.starts], names)
    return [
        _texts(state, chunk, name, values) if array is None else array
        for name, values, array in zip(names, columns, arrays, strict=True)
    ]


def _values(records: Sequence[dict[str, Any]], names: Names) -> list[Sequence[Any]]:
    """The values of all records, column after column in the order of `names`, which grows by the keys it lacks."""
    if len(names) > 1 and all(len(record) == len(names) for record in records):
        try:
            return list(zip(*map(operator.itemgetter(*names), records), strict=True))
        except KeyError:
            pass
    for record in records:
        if not record.keys() <= names.keys():
            names.update(dict.fromkeys(record))
    return [[record.get(name) for record in records] for name in names]


def _strings(values: Sequence[Any]) -> pa.Array | None:
    """The array of a column of strings and None; None where a value is anything else, or cannot be encoded."""
    try:
        return pa.array(values, pa.string())
    except (pa.ArrowException, UnicodeEncodeError):
        return None


def _texts(state: ParseState, chunk: Chunk, name: str, values: Sequence[Any]) -> pa.Array:
    """The array of any column, value by value."""
    texts: list[str | None] = []
    for value in values:
        try:
            text = value if value is None or isinstance(value, str) else compact(value)
            (text or "").encode()
        except RecursionError:
            _refuse(state, chunk, len(texts), "nested_in", name)
        except UnicodeEncodeError:
            _refuse(state, chunk, len(texts), "surrogate_in", name)
        texts.append(text)
    return pa.array(texts, pa.string())


def _refuse(state: ParseState, chunk: Chunk, number: int, problem: str, name: str) -> NoReturn:
    """Raises the SourceError of the record with a number in the chunk, from 0."""
    offset = chunk.byte_offset(chunk.starts[number])
    state.malformed(offset, phrase(problem, name=Verbatim(name)), chunk.records_before + number)
