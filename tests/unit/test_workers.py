"""Module `engines.workers`: what executors do, on small Arrow batches, without Spark.

`shuffled` stands for Spark: it groups rows by id, joins both sides and deals the joined rows out to any partitions, in
any order and in batches of any size. Whatever it does, counts and bytes are those of the oracle.
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay import keys
from overlay.csv_text import header
from overlay.engines import workers
from overlay.errors import JobError, OutputError, SourceError, Verbatim, error_from_data
from overlay.limits import Limits
from overlay.merge import Counts, counts_from_data, merged_columns
from overlay.settings import CsvFormat
from overlay.source.objects import ByteRange, SourceObject
from overlay.upload import UploadTarget, plan_parts
from reference import oracle
from tests.sources import json_lines

LIMITS = Limits()
CSV = CsvFormat()
NONCE = "\0nonce:"
NAMES = ("id", "name", "city")


class Store:
    """The calls that workers make of S3, over bytes in memory."""

    def __init__(self, objects: Iterable[bytes] = ()) -> None:
        self.objects = {f"o{number}": data for number, data in enumerate(objects)}
        self.parts: dict[int, bytes] = {}

    def get_object(self, Bucket: str, Key: str, Range: str, IfMatch: str) -> dict[str, Any]:
        start, end = map(int, Range.removeprefix("bytes=").split("-"))
        return {"Body": io.BytesIO(self.objects[Key][start : end + 1])}

    def upload_part(self, Body: bytes, UploadId: str, PartNumber: int, **target: str) -> dict[str, str]:
        assert PartNumber not in self.parts
        self.parts[PartNumber] = bytes(Body)
        return {"ETag": f'"{PartNumber}"'}


class Case(NamedTuple):
    """A source and a table, and how Spark deals them out."""

    objects: list[bytes]
    rows: list[tuple[str | None, ...]]
    unique: bool
    integer_key: bool
    zerofill: bool
    form: CsvFormat
    partitions: int
    batch_rows: int
    bin_rows: int
    hashes_max: int
    random: Any


INTEGER_IDS = st.none() | st.sampled_from([1, 2, 3, 10, "1", "02", "3.0", "x", "", "é", -1, True, 12345678901234567890])
TEXT_IDS = st.none() | st.sampled_from(["1", "01", 1, "a", "A", "é", "", "\0", "x,y"])
VALUE = st.none() | st.sampled_from(["", "a", "b", "a,b", 'q"', "1\n2", "é"])


@st.composite
def cases(draw) -> Case:
    """Any small source, any small table."""
    integer_key = draw(st.booleans())
    zerofill = integer_key and draw(st.booleans())
    ids = INTEGER_IDS if integer_key else TEXT_IDS
    record = st.fixed_dictionaries({}, optional={"id": ids, "name": VALUE, "extra": VALUE})
    objects = draw(st.lists(st.lists(record, max_size=6), min_size=1, max_size=3))
    signed = not zerofill and draw(st.booleans())  # an integer type has negative numbers or those beyond 63 bits
    numbers = st.sampled_from([1, 2, 3, 4, 10, 11, *([-1, -5] if signed else [12345678901234567890])])
    id_texts = numbers.map(lambda number: str(number).zfill(6 if zerofill else 1))
    row_id = st.none() | (id_texts if integer_key else st.sampled_from(["1", "01", "a", "A", "é", "", "z", "\0"]))
    unique = draw(st.booleans())
    distinct = (lambda row: row[0] if row[0] is not None else object()) if unique else None
    row = st.tuples(row_id, st.none() | st.sampled_from(["", "t", "u", 'q"']), st.none() | st.sampled_from("xy"))
    rows = draw(st.lists(row, max_size=12, unique_by=distinct))
    return Case(
        objects=[json_lines(records) for records in objects],
        rows=rows,
        unique=unique,
        integer_key=integer_key,
        zerofill=zerofill,
        form=draw(st.sampled_from([CsvFormat(), CsvFormat("cp932", ";", "crlf", "all", "NULL")])),
        partitions=draw(st.integers(1, 3)),
        batch_rows=draw(st.integers(1, 5)),
        bin_rows=draw(st.integers(1, 4)),
        hashes_max=draw(st.sampled_from([0, 2, 100])),
        random=draw(st.randoms(use_true_random=False)),
    )


def reading_of(case: Case) -> workers.Reading:
    """How workers read both sides of a case: an object a byte range."""
    objects = [SourceObject("lake", f"o{number}", len(data), "etag") for number, data in enumerate(case.objects)]
    ranges = [[ByteRange(item, 0, None)] for item in objects]
    return workers.Reading(
        ranges, NAMES, "id", "id", case.integer_key, case.zerofill, NONCE, case.hashes_max, "", LIMITS
    )


def batches_of(rows: list[dict[str, Any]], schema: pa.Schema, most: int) -> list[pa.RecordBatch]:
    """Rows as Spark hands them to Python."""
    return [pa.RecordBatch.from_pylist(rows[start : start + most], schema) for start in range(0, len(rows), most)]


def rows_of(batches: Iterable[pa.RecordBatch]) -> list[dict[str, Any]]:
    """What a worker hands back."""
    return [row for batch in batches for row in batch.to_pylist()]


def numbers(*values: int) -> list[pa.RecordBatch]:
    """Numbers of byte ranges as workers get them."""
    return [pa.RecordBatch.from_pydict({"id": list(values)})] if values else []


def order(row: dict[str, Any]) -> list[tuple[bool, bytes]]:
    """What Spark's `min` of a struct goes by."""
    return [(row[f"c{number}"] is not None, (row[f"c{number}"] or "").encode()) for number in range(len(NAMES))]


def grouped(rows: list[dict[str, Any]], *, unique: bool) -> list[dict[str, Any]]:
    """One row of each match and message, and how many have it, as the engine's groupBy makes them."""
    if unique:
        return [row | {"copies": 1} for row in rows]
    groups: dict[tuple[Any, Any], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["match"], row["table_message"]), []).append(row)
    return [min(group, key=order) | {"copies": len(group)} for group in groups.values()]


def joined(records: list[dict[str, Any]], rows: list[dict[str, Any]], empty: dict[str, None]) -> list[dict[str, Any]]:
    """The full join by match; null equals nothing."""
    by_match: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_match.setdefault(row["match"], []).append(row)
    by_match.pop(None, None)
    both = [empty | row | record for record in records for row in by_match.get(record["match"], [{}])]
    matches = {record["match"] for record in records} - {None}
    alone = [empty | row for row in rows if row["match"] not in matches]
    return [row | {"message": row["source_message"] or row["table_message"]} for row in both + alone]


def dealt(rows: list[dict[str, Any]], case: Case) -> Iterator[list[dict[str, Any]]]:
    """The rows in partitions: all of a match in one, those without one anywhere; in any order."""
    numbers_of: dict[Any, int] = {}
    partitions: list[list[dict[str, Any]]] = [[] for _ in range(case.partitions)]
    for number, row in enumerate(case.random.sample(rows, len(rows))):
        name = row["match"] if row["match"] is not None else number
        partitions[numbers_of.setdefault(name, case.random.randrange(case.partitions))].append(row)
    yield from partitions


class Outcome(NamedTuple):
    """What a source and a table came to."""

    counts: Counts
    columns: tuple[str, ...]
    lines: list[dict[str, Any]]
    filtered: bool


def facts_of(reading: workers.Reading) -> tuple[list[dict[str, Any]], keys.KeyFilter | None]:
    """What the driver is told of each byte range, and the filter it makes of that."""
    rows = rows_of(workers.gather_facts(reading, numbers(*range(len(reading.byte_ranges)))))
    facts = [json.loads(row["message"]) for row in rows]
    if any(row["hashes"] is None for row in rows):
        return facts, None
    hashes = [np.frombuffer(row["hashes"], np.uint32).astype(np.uint64) << np.uint64(32) for row in rows]
    return facts, keys.KeyFilter.of_hashes(hashes)


def shuffled(case: Case) -> Outcome:
    """Runs a case as the Spark engine does, up to its lines."""
    reading = reading_of(case)
    facts, key_filter = facts_of(reading)
    source_columns = merged_columns(*(fact["columns"] for fact in facts))
    starts = list(itertools.accumulate((fact["records"] for fact in facts), initial=0))
    parse = [rows_of(workers.parse_records(reading, source_columns, starts, numbers(n))) for n in range(len(facts))]
    records = list(itertools.chain.from_iterable(parse))

    schema = pa.schema([(f"c{number}", pa.string()) for number in range(len(NAMES))])
    cells = [dict(zip(schema.names, row, strict=True)) for row in case.rows]
    streams = [cells[number :: case.partitions] for number in range(case.partitions)]
    broadcast = SimpleNamespace(value=key_filter) if case.unique and key_filter else None
    rows = [
        row
        for stream in streams
        for row in rows_of(workers.match_rows(reading, broadcast, batches_of(stream, schema, case.batch_rows)))
    ]

    columns = merged_columns(source_columns, NAMES)
    making = workers.Making(source_columns, columns, case.form, case.bin_rows)
    overlay = partial(workers.overlay_joined, reading, making)
    extra = pa.schema([("copies", pa.int64()), ("message", pa.string())])
    both = pa.unify_schemas([workers.record_schema(len(source_columns)), workers.row_schema(len(NAMES)), extra])
    everything = joined(records, grouped(rows, unique=case.unique), dict.fromkeys(both.names))
    lines, counts = [], Counts()
    for partition in dealt(everything, case):
        for row in rows_of(overlay(batches_of(partition, both, case.batch_rows))):
            if row["message"] is None:
                lines.append(row)
            else:
                counts += counts_from_data(json.loads(row["message"]))
    counts.unmatched_ids = keys.merged_ids(counts.unmatched_ids, LIMITS.unmatched_ids, integer=case.integer_key)
    return Outcome(counts, columns, lines, broadcast is not None)


@pytest.fixture
def store(monkeypatch):
    """Lets workers read and write objects in memory."""

    def make_store(objects: Iterable[bytes] = ()) -> Store:
        memory_store = Store(objects)
        monkeypatch.setattr(workers.aws, "client", lambda *_: memory_store)
        return memory_store

    return make_store


def test_counts_and_lines_of_any_partitioning_are_those_of_the_oracle(store):
    kinds = set()

    @settings(max_examples=120)
    @given(cases())
    def agrees(case):
        store(case.objects)
        options = {name: value for name, value in vars(case.form).items() if name != "encoding"}
        expected = oracle.overlay(
            case.objects, NAMES, case.rows, integer_key=case.integer_key, csv=oracle.Csv(**options)
        )
        outcome = shuffled(case)
        assert outcome.counts.as_dict() | {"columns": list(outcome.columns)} == expected.counts | (
            {} if expected.counts["source_records"] else {"coverage": outcome.counts.coverage.tolist()}
        )
        lines = sorted(outcome.lines, key=lambda row: row["ordinal"])
        assert [row["ordinal"] for row in lines] == list(range(len(lines)))
        assert [row["bin"] for row in lines] == [row["ordinal"] // case.bin_rows for row in lines]
        written = header(outcome.columns, CsvFormat(**options)).decode() + "".join(row["line"] for row in lines)
        assert written.encode() == expected.csv
        kinds.add((outcome.filtered, case.unique, case.integer_key))

    agrees()
    assert len(kinds) == 6  # a filter is made only where each id is unique


# The source.


def case_of(*objects: bytes, **changes: Any) -> Case:
    """A source of integer ids."""
    values = {"rows": [], "unique": True, "integer_key": True, "zerofill": False, "form": CsvFormat()}
    cuts = {"partitions": 1, "batch_rows": 9, "bin_rows": 9, "hashes_max": 9, "random": None}
    return Case(list(objects), **{**values, **cuts, **changes})


def test_the_driver_learns_columns_records_and_ids_of_each_range(store):
    case = case_of(b'{"a":1,"id":"007"}\n{"id":null}\n', b'{"b":1}\n', b"")
    store(case.objects)
    facts, key_filter = facts_of(reading_of(case))
    assert facts == [
        {"range": 0, "columns": ["a", "id"], "records": 2},
        {"range": 1, "columns": ["b"], "records": 1},
        {"range": 2, "columns": [], "records": 0},
    ]
    assert key_filter.may_have(keys.hashes(pa.array(["7"]))).all()
    assert not key_filter.may_have(keys.hashes(pa.array(["8"]))).any()


def test_hashes_of_many_records_are_not_sent_to_the_driver(store):
    case = case_of(b'{"id":1}\n' * 3, hashes_max=2)
    store(case.objects)
    assert [row["hashes"] for row in rows_of(workers.gather_facts(reading_of(case), numbers(0)))] == [None]
    assert facts_of(reading_of(case._replace(hashes_max=3)))[1] is not None


def test_an_error_in_the_source_travels_as_data(store):
    case = case_of(b'{"id":1}\n', b'{"id":1}\n{"id":\n')
    store(case.objects)
    messages = [json.loads(row["message"]) for row in rows_of(workers.gather_facts(reading_of(case), numbers(0, 1)))]
    assert "error" not in messages[0]
    assert messages[1]["range"] == 1
    error = error_from_data(messages[1]["error"])
    assert type(error) is SourceError
    assert str(error).startswith("Malformed JSON in s3://lake/o1, record 2, byte offset ")
    # Parsed again, as the object may be another by then.
    *records, last = rows_of(workers.parse_records(reading_of(case), ["id"], [0, 1], numbers(0, 1)))
    assert [(row["ordinal"], row["s0"]) for row in records][:1] == [(0, "1")]
    assert error_from_data(json.loads(last["source_message"])["error"]).details == error.details


def test_an_error_beside_joined_rows_is_handed_on():
    error = SourceError("source_missing", url=Verbatim("s3://lake/o1")).to_data()
    reading = reading_of(case_of())._replace(table_columns=["id"])
    schema = pa.schema(
        [
            *(("ordinal", pa.int64()), ("match", pa.string()), ("s0", pa.string()), ("c0", pa.string())),
            *(("copies", pa.int64()), ("message", pa.string())),
        ]
    )
    rows = [dict.fromkeys(schema.names) | {"message": json.dumps({"error": error})}]
    making = workers.Making(["id"], ["id"], CSV, 9)
    first, counts = rows_of(workers.overlay_joined(reading, making, batches_of(rows, schema, 1)))
    assert json.loads(first["message"]) == {"error": error}
    assert json.loads(counts["message"])["source_records"] == 0


def test_a_partition_without_rows_counts_nothing():
    reading = reading_of(case_of())._replace(table_columns=["id"])
    [row] = rows_of(workers.overlay_joined(reading, workers.Making(["id"], ["id"], CSV, 9), []))
    assert counts_from_data(json.loads(row["message"])).to_data() == Counts().to_data()


# The table.


def test_rows_that_no_record_can_have_are_counted_and_their_first_ids_kept():
    key_filter = keys.KeyFilter.of_hashes([keys.hashes(pa.array(["5", "700"]))])
    batches = [
        pa.RecordBatch.from_pydict({"c0": [*map(str, range(start, start + 500)), None]})
        for start in range(1_000, 0, -500)
    ]
    reading = reading_of(case_of())._replace(table_columns=["id"])
    *rows, message = rows_of(workers.match_rows(reading, SimpleNamespace(value=key_filter), batches))
    assert [row["match"] for row in rows] == ["700"]
    assert json.loads(message["table_message"]) == {
        "table_rows": 1_001,  # 999 with other ids, 2 without
        "unmatched_ids": [str(number) for number in range(500, 510)],
    }


def test_without_a_filter_all_rows_with_an_id_are_kept():
    reading = reading_of(case_of(zerofill=True))._replace(table_columns=["name", "id"])
    batch = pa.RecordBatch.from_pydict({"c0": ["a", "b", None], "c1": ["007", None, "000"]})
    one, two, message = rows_of(workers.match_rows(reading, None, [batch]))
    assert one == {"match": "7", "c0": "a", "c1": "007", "table_message": None}
    assert two == {"match": "0", "c0": None, "c1": "000", "table_message": None}
    assert json.loads(message["table_message"]) == {"table_rows": 1, "unmatched_ids": []}


# The output.


def lines_of(texts: list[str], plan: list[tuple[int, int, int]], bin_rows: int) -> list[dict[str, Any]]:
    """Lines in the order of parts and rows, as workers get them."""
    parts = {number: (part, start) for number, part, start in plan}
    return [
        {"part": parts[row // bin_rows][0], "row": parts[row // bin_rows][1] + row + 1, "line": text}
        for row, text in enumerate(texts)
    ]


LINE_SCHEMA = pa.schema([("part", pa.int32()), ("row", pa.int64()), ("line", pa.string())])


def uploading_of(part_bytes: int, least: int, encoding: str = "utf-8") -> workers.Uploading:
    """How workers upload parts, small ones."""
    limits = Limits(part_bytes_min=least)
    return workers.Uploading(
        UploadTarget("lake", "out", "u1"), CsvFormat(encoding), ["id"], b"id\n", part_bytes, "", limits
    )


@settings(max_examples=200)
@given(
    texts=st.lists(st.sampled_from(["1\n", "あ\n", '"x\ny"\n', "z" * 40 + "\n"]), min_size=1, max_size=30),
    bin_rows=st.integers(1, 5),
    batch_rows=st.integers(1, 7),
    least=st.integers(1, 6),
    more=st.integers(0, 20),
    workers_count=st.integers(1, 3),
)
def test_lines_become_parts_that_are_the_object(texts, bin_rows, batch_rows, least, more, workers_count):
    """Whichever worker gets which parts; a bin of wide lines becomes several."""
    with pytest.MonkeyPatch.context() as patch:
        store = Store()
        patch.setattr(workers.aws, "client", lambda *_: store)
        uploading = uploading_of(least + more, least)
        bins: dict[int, list[str]] = {}
        for row, text in enumerate(texts):
            bins.setdefault(row // bin_rows, []).append(text)
        sizes = [(number, len(group), len("".join(group).encode())) for number, group in bins.items()]
        plan = plan_parts(sizes, uploading.part_bytes, uploading.limits, running=True)
        lines = lines_of(texts, plan, bin_rows)
        uploaded = []
        for number in range(workers_count):
            mine = [line for line in lines if line["part"] % workers_count == number]
            uploaded += rows_of(workers.upload_lines(uploading, batches_of(mine, LINE_SCHEMA, batch_rows)))
        assert b"".join(store.parts[number] for number in sorted(store.parts)) == b"id\n" + "".join(texts).encode()
        assert all(len(store.parts[number]) >= least for number in sorted(store.parts)[:-1])
        assert sum(row["rows"] for row in uploaded) == len(texts)
        assert {row["number"]: row["bytes"] for row in uploaded} == {n: len(data) for n, data in store.parts.items()}
        assert [row for row in uploaded if row["message"] or row["etag"] != f'"{row["number"]}"'] == []


def test_a_character_the_encoding_lacks_is_named_by_its_row_in_the_output(store):
    store()
    lines = [{"part": 3, "row": 700 + number, "line": text} for number, text in enumerate(["a\n", "b\n", "☃\n"])]
    uploading = uploading_of(100, 1, "cp932")
    [row] = rows_of(workers.upload_lines(uploading, batches_of(lines, LINE_SCHEMA, 2)))
    error = error_from_data(json.loads(row["message"])["error"])
    assert type(error) is OutputError
    assert str(error).startswith("row 702, column 'id': cp932 has no character '☃' (U+2603).")


def test_a_worker_without_lines_uploads_nothing(store):
    s3 = store()
    assert rows_of(workers.upload_lines(uploading_of(9, 1), [])) == []
    assert s3.parts == {}


@given(st.lists(st.lists(st.sampled_from(["1", "a,b", 'q"']), min_size=1, max_size=4), max_size=4))
def test_a_list_of_ids_is_numbered_in_its_partition(batches):
    ids = [pa.RecordBatch.from_pydict({"bin": [7] * len(group), "c0": group}) for group in batches]
    rows = rows_of(workers.list_lines(CsvFormat(), ids))
    assert [row["ordinal"] for row in rows] == list(range(sum(map(len, batches))))
    assert {row["bin"] for row in rows} <= {7}
    assert [row["line"] for row in rows] == [oracle.Csv().line([text]) for group in batches for text in group]


def test_an_error_row_is_null_but_for_the_error():
    for schema in (workers.FACTS, workers.LINES, workers.PARTS):
        [row] = rows_of([workers.error_row(schema, JobError("stopped"))])
        assert {name for name, cell in row.items() if cell is not None} == {"message"}
        assert error_from_data(json.loads(row["message"])["error"]).code == "stopped"
