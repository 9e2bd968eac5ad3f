"""Section `overlay`: DESIGN section 2 through the real job, byte for byte against the oracle."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import glue_job
from tests import oracle

COLUMNS = ("id", "name", "note")
TEXTS = st.sampled_from(["", "a", "1.10", 'x,"y"', "line\nbreak", "列😀", "=1+1", "NULL", " ", "false"])
IDS = st.sampled_from(["1", "2", "3", "007", "7", "-4", "18446744073709551615", "a", "A", "'", "\\", "😀"])
VALUES = TEXTS | st.none() | st.booleans() | st.sampled_from([0, 1, [1, {"a": None}], {"b": "あ"}])
RECORDS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "id": IDS | st.none() | st.sampled_from([1, 2, 7, -4, 0]),
            "name": VALUES,
            "extra": VALUES,
            "追加": VALUES,
        },
    ),
    min_size=1,
    max_size=8,
).filter(lambda records: any("id" in record for record in records))
CSV = st.sampled_from(
    [
        {},
        {"csv_delimiter": "\t", "csv_line_ending": "crlf", "csv_null": "NULL"},
        {"csv_quote": "all", "csv_encoding": "utf-8-sig", "csv_escape_formulas": "true"},
    ]
)


def options_of(arguments: dict[str, str]) -> oracle.Csv:
    """The oracle's options for job arguments."""
    values = {name.removeprefix("csv_"): value for name, value in arguments.items()}
    return oracle.Csv(
        **{name: value == "true" if name == "escape_formulas" else value for name, value in values.items()}
    )


def check(pipeline, sources, rows, integer_key, arguments=None):
    """Runs the job on sources and a table and compares bytes and counts with the oracle's."""
    arguments = arguments or {}
    kind = "BIGINT" if integer_key else "VARCHAR(40) COLLATE utf8mb4_general_ci"
    pipeline.sql(
        f"CREATE OR REPLACE TABLE {pipeline.name} (id {kind}, name TEXT, note TEXT)",
    )
    with pipeline.database.connect(autocommit=True) as connection, connection.cursor() as cursor:
        cursor.executemany(f"INSERT INTO {pipeline.name} VALUES (%s, %s, %s)", rows)
    for number, source in enumerate(sources):
        pipeline.put(source, f"in/{pipeline.name}/{number}.json")
    expected = oracle.overlay(sources, COLUMNS, rows, integer_key=integer_key, csv=options_of(arguments))
    result = pipeline.run(source_key=f"in/{pipeline.name}/", **arguments)
    assert pipeline.output() == expected.csv
    assert {name: getattr(result, name) for name in expected.counts} == expected.counts
    assert result.bytes == len(expected.csv)
    pipeline.aws.client("s3").delete_object(Bucket="lake", Key=f"in/{pipeline.name}/1.json")


def encode(records: list[dict], form: str) -> bytes:
    """Records as an object."""
    if form == "array":
        return json.dumps(records, indent=1).encode("utf-8-sig")
    lines = "\n".join(json.dumps(record, ensure_ascii=False) for record in records).encode()
    return gzip.compress(lines) if form == "gzip" else lines


@settings(max_examples=20, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_the_job_agrees_with_the_oracle(pipeline, data):
    integer_key = data.draw(st.booleans(), "integer_key")
    ids = st.sampled_from(["1", "2", "7", "-4", "0", "99", "9223372036854775807"]) if integer_key else IDS
    rows = data.draw(st.lists(st.tuples(ids | st.none(), TEXTS | st.none(), TEXTS | st.none()), max_size=8), "rows")
    parts = data.draw(
        st.lists(st.tuples(RECORDS, st.sampled_from(["lines", "array", "gzip"])), min_size=1, max_size=2), "source"
    )
    check(pipeline, [encode(*part) for part in parts], rows, integer_key, data.draw(CSV, "csv"))


def test_worked_example(pipeline):
    """The example of the README."""
    source = b"""[
      {"id": 1, "name": "Sato", "price": 1.10},
      {"id": "002", "name": null},
      {"id": 9, "name": "", "tags": ["a", 1.0]}
    ]"""
    pipeline.sql(
        f"CREATE TABLE {pipeline.name} (id INT PRIMARY KEY, name VARCHAR(20), price DECIMAL(8,2), zip CHAR(5))",
        f"INSERT INTO {pipeline.name} VALUES (1,'Saito',2.5,'00123'),(2,'Suzuki',3,NULL),(3,'Ito',4,'00456')",
    )
    pipeline.put(source)
    result = pipeline.run()
    assert pipeline.output().decode() == (
        'id,name,price,tags,zip\n1,Sato,1.10,,00123\n002,Suzuki,3.00,,\n9,"",,"[""a"",1.0]",\n'
    )
    assert (result.matched, result.source_only, result.filled_cells) == (2, 1, 3)
    assert (result.unmatched, result.unmatched_ids) == (1, ["3"])


def test_splits_with_different_columns(pipeline):
    """More than one split, each with columns of its own, in source order."""
    records = [{"id": i, f"c{i // 40_000}": "x" * 100, "z": str(i)} for i in range(120_000)]
    records.insert(70_000, {"z": "no id"})
    rows = [(str(i), f"name{i}", None) for i in range(0, 400, 2)]
    check(pipeline, [encode(records, "lines")], rows, integer_key=True)


@pytest.mark.parametrize("note", ["x" * 100, "},{" * 40])
def test_a_big_array_is_cut_where_records_begin(pipeline, caplog, note):
    """The second one has texts that look like boundaries, and is read in one piece."""
    records = [{"id": i, "note": note, "name": None} for i in range(60_000)]
    with caplog.at_level("INFO"):
        check(pipeline, [encode(records, "array")], [("5", "x", "y"), ("-5", "x", "y")], integer_key=True)
    assert ("it is read in one piece" in caplog.text) == (note[0] == "}")


def test_output_larger_than_a_part_keeps_the_order(pipeline):
    """Several upload tasks, one of them skewed, into one object by multipart upload."""
    records = [{"id": i, "name": "あ" * (20_000 if i == 30_000 else 130 if i > 20_000 else 1)} for i in range(120_000)]
    check(pipeline, [encode(records, "lines")], [("5", "x", "y")], integer_key=True)
    head = pipeline.aws.client("s3").head_object(Bucket="lake", Key=f"out/{pipeline.name}.csv")
    assert "-" in head["ETag"]  # the mark of a multipart upload
    assert not pipeline.uploads()


@pytest.mark.parametrize("wide", ["rows of the table", "records of a gzip"])
def test_units_are_small_whatever_is_wide(pipeline, monkeypatch, wide):
    """Who uploads a unit holds all of it, so neither a narrow source nor a small object may make it large."""
    overlays = []
    publish = glue_job.publish
    monkeypatch.setattr(glue_job, "publish", lambda *given: overlays.append(given[2]) or publish(*given))
    by_table = wide == "rows of the table"
    letter = "y" if by_table else "x"
    pipeline.sql(
        f"CREATE TABLE {pipeline.name} (id INT PRIMARY KEY, note TEXT)",
        f"INSERT INTO {pipeline.name} SELECT seq, REPEAT('y', 60000) FROM seq_1_to_{600 if by_table else 1}",
        f"ANALYZE TABLE {pipeline.name}",
    )
    note = {} if by_table else {"note": letter * 60_000}
    records = [{"id": i} | note for i in range(1, 601)]
    pipeline.put(encode(records, "lines" if by_table else "gzip"))
    pipeline.run()
    assert pipeline.output().decode() == "".join(["id,note\n", *(f"{i},{letter * 60_000}\n" for i in range(1, 601))])
    [overlay] = overlays
    assert max(size for _, size in overlay.units) < 4 * glue_job.MIB


def test_small_output_is_an_upload_of_one_part(pipeline):
    check(pipeline, [b'{"id":1}'], [("1", "x", "y")], integer_key=True)
    head = pipeline.aws.client("s3").head_object(Bucket="lake", Key=f"out/{pipeline.name}.csv")
    assert head["ETag"].endswith('-1"')
    assert head["ContentType"] == "text/csv; charset=utf-8"


def test_wildcard_reads_objects_in_key_order(pipeline):
    pipeline.sql(f"CREATE TABLE {pipeline.name} (id INT PRIMARY KEY)")
    for key, number in (("b/2.json", 2), ("b/10.json", 10), ("b/x/3.json", 3), ("b/1.txt", 1)):
        pipeline.put(b'{"id":%d}' % number, f"{pipeline.name}/{key}")
    pipeline.run(source_key=f"{pipeline.name}/b/*.json")
    assert pipeline.output() == b"id\n10\n2\n"


@pytest.mark.parametrize("encoding", ["cp932", "utf-8-sig"])
def test_encodings(pipeline, encoding):
    check(
        pipeline,
        ['{"id":1,"name":"髙橋①"}'.encode()],
        [("1", "x", "～−")],
        integer_key=True,
        arguments={"csv_encoding": encoding},
    )
