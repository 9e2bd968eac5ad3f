"""DESIGN section 2 and 3 through whole runs on both engines, byte for byte against the oracle."""

from __future__ import annotations

import csv
import gzip
import io
import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from overlay.errors import SettingsError
from overlay.limits import MIB
from overlay.report.result import Result
from reference import oracle
from tests.agreement import assert_agrees, csv_options
from tests.sql_types import create_table_of_types, texts_of_types

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


HOSTILE = ["a`b", 'a"b', "a'b", "a,b", "a.b", "a b", "列", "a\\b", "a?b", "{a}", "{fn now()}", "$1", "--", "x" * 63]
HOSTILE += ["select", "match", "pos", "line", "c0", "k", "s0", "message", "ordinal", "copies", "first"]


@pytest.fixture
def on_both(pipeline, engine):
    """A pipeline on MariaDB, on each engine."""
    pipeline.engine = engine
    return pipeline


@pytest.fixture
def on(request):
    """A pipeline on a kind of server, by a driver, on an engine."""
    server, engine = request.param
    pipeline = request.getfixturevalue(server)
    pipeline.engine = engine
    return pipeline


def everywhere(*on_spark: str) -> pytest.MarkDecorator:
    """The driver engine on all kinds of servers, Spark, of which each run takes seconds, on some."""
    servers = ("pipeline", "by_connector_j", "on_postgresql")
    cases = [*((server, "driver") for server in servers), *((server, "spark") for server in on_spark)]
    return pytest.mark.parametrize("on", cases, indirect=True, ids=map("-".join, cases))


def check(pipeline, sources, rows, integer_key, arguments=None) -> Result:
    """Runs the job on sources and a table and compares bytes and counts with the oracle's."""
    arguments = arguments or {}
    kind = "BIGINT" if integer_key else "VARCHAR(40) COLLATE utf8mb4_general_ci"
    pipeline.sql(f"CREATE OR REPLACE TABLE {pipeline.name} (id {kind}, name TEXT, note TEXT)")
    with pipeline.database.connect(autocommit=True) as connection, connection.cursor() as cursor:
        cursor.executemany(f"INSERT INTO {pipeline.name} VALUES (%s, %s, %s)", rows)
    for number, source in enumerate(sources):
        pipeline.put(source, f"in/{pipeline.name}/{number}.json")
    expected = oracle.overlay(sources, COLUMNS, rows, integer_key=integer_key, csv=csv_options(arguments))
    result = pipeline.run(source_key=f"in/{pipeline.name}/", **arguments)
    assert pipeline.engine in {"auto", result.engine}
    assert_agrees(pipeline, result, expected)
    pipeline.aws.client("s3").delete_object(Bucket="lake", Key=f"in/{pipeline.name}/1.json")
    return result


def encode(records: list[dict], form: str) -> bytes:
    """Records as an object."""
    if form == "array":
        return json.dumps(records, indent=1).encode("utf-8-sig")
    lines = "\n".join(json.dumps(record, ensure_ascii=False) for record in records).encode()
    return gzip.compress(lines) if form == "gzip" else lines


def try_drawn(pipeline, data) -> None:
    """Draws a source, a table and CSV options, and checks the run."""
    integer_key = data.draw(st.booleans(), "integer_key")
    ids = st.sampled_from(["1", "2", "7", "-4", "0", "99", "9223372036854775807"]) if integer_key else IDS
    rows = data.draw(st.lists(st.tuples(ids | st.none(), TEXTS | st.none(), TEXTS | st.none()), max_size=8), "rows")
    parts = data.draw(
        st.lists(st.tuples(RECORDS, st.sampled_from(["lines", "array", "gzip"])), min_size=1, max_size=2), "source"
    )
    check(pipeline, [encode(*part) for part in parts], rows, integer_key, data.draw(CSV, "csv"))


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_the_driver_engine_agrees_with_the_oracle(pipeline, data):
    pipeline.engine = "driver"
    try_drawn(pipeline, data)


@settings(max_examples=4, suppress_health_check=list(HealthCheck), phases=[Phase.generate])  # a shrink takes minutes
@given(st.data())
def test_the_spark_engine_agrees_with_the_oracle(pipeline, data):
    pipeline.engine = "spark"
    try_drawn(pipeline, data)


@everywhere("pipeline")
def test_worked_example(on):
    """The example of the README."""
    pipeline = on
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
    counts = result.counts
    assert (counts.matched, counts.source_only, counts.filled_cells) == (2, 1, 3)
    assert (counts.unmatched, counts.unmatched_ids) == (1, ["3"])


@everywhere("pipeline", "by_connector_j", "on_postgresql")
def test_every_type_is_the_databases_own_text(on):
    types = create_table_of_types(on)
    on.put(b'{"id":1}\n{"id":2}')
    on.run()
    _, first, second = csv.reader(io.StringIO(on.output().decode(), newline=""))
    texts = (dict(zip(types, row[1:], strict=True)) for row in (first, second))
    assert tuple(texts) == texts_of_types(types, missing="")
    assert b',"",' in on.output()  # an empty string is present


SPELLINGS = b'{"id":7}\n{"id":"7"}\n{"id":"007"}\n{"id":7.0}\n{"id":" 7"}'


def test_records_within_an_object(on_both):
    """`S3.records_at`: an export of kintone, indented; what else it holds is left out."""
    on_both.sql(
        f"CREATE TABLE {on_both.name} (id INT PRIMARY KEY, name VARCHAR(20))",
        f"INSERT INTO {on_both.name} VALUES (1, 'a'), (2, 'b')",
    )
    export = {"app": {"records": 5}, "data": {"records": [{"id": 1}, {"id": "3", "name": "c"}]}, "totalCount": "2"}
    on_both.put(json.dumps(export, indent=2).encode())
    result = on_both.run(records_at="data.records")
    assert on_both.output() == b"id,name\n1,a\n3,c\n"
    assert (result.counts.source_records, result.counts.matched) == (2, 1)


CHOSEN = '["name", {"from": "zip", "as": "postcode"}, "id", {"from": "id", "as": "客"}, "customer_id"]'


@everywhere("pipeline", "on_postgresql")
def test_an_entry_chooses_columns_rows_and_key(on):
    """`columns`, `Database.table_key` and `Database.table_where`, one beside the other."""
    on.sql(
        f"CREATE TABLE {on.name} (id INT, customer_id INT PRIMARY KEY, name VARCHAR(9), zip CHAR(5), gone INT)",
        f"INSERT INTO {on.name} VALUES (90, 1, 'a', '00001', NULL), (91, 2, 'b', '00002', 1), (92, 3, 'c', NULL, NULL)",
        f"INSERT INTO {on.name} VALUES (93, 4, 'd', '00004', 1)",
    )
    on.put(b'{"id":"01","more":"x","name":null}\n{"id":2,"name":""}')
    counts = on.run(table_key="customer_id", table_where="gone IS NULL OR gone = 0").counts
    assert on.output() == b'id,more,name,zip,gone\n01,x,a,00001,\n2,,"",,\n'
    assert (counts.matched, counts.table_rows, counts.unmatched_ids) == (1, 2, ["3"])
    result = on.run(table_key="customer_id", columns=CHOSEN)
    assert on.output().decode() == 'name,postcode,id,客,customer_id\na,00001,01,01,1\n"",00002,2,2,2\n'
    assert result.columns == ["name", "postcode", "id", "客", "customer_id"]
    assert result.counts.coverage.tolist() == [[1, 1, 0], [0, 2, 0], [2, 0, 0], [2, 0, 0], [0, 2, 0]]
    assert (result.counts.filled_cells, result.counts.unmatched_ids) == (5, ["3", "4"])


@everywhere("pipeline")
def test_a_column_that_neither_side_has_is_told_with_a_near_one(on):
    on.sql(f"CREATE TABLE {on.name} (id INT PRIMARY KEY, postcode INT)")
    on.put(b'{"id":1,"name":"a"}')
    with pytest.raises(SettingsError) as caught:
        on.run(columns='["id", "post_code"]', language="en")
    assert str(caught.value).startswith(
        "Neither source nor table has the column 'post_code' (did you mean 'postcode'?). Columns found: id, name, postc"
    )


@everywhere("pipeline")
def test_which_of_equal_rows_is_used_does_not_depend_on_the_columns(on):
    on.sql(
        f"CREATE TABLE {on.name} (id INT, first INT, v VARCHAR(9))",
        f"INSERT INTO {on.name} VALUES (1, 2, 'a'), (1, 1, 'b')",
    )
    on.put(b'{"id":1}')
    for arguments, output in (({}, b"id,first,v\n1,1,b\n"), ({"columns": '["v"]'}, b"v\nb\n")):
        assert on.run(**arguments).counts.table_duplicates == 1
        assert on.output() == output


def test_records_without_any_chosen_column_are_rows_all_the_same(on_both):
    on_both.sql(f"CREATE TABLE {on_both.name} (id INT PRIMARY KEY, v INT)", f"INSERT INTO {on_both.name} VALUES (1, 5)")
    on_both.put(b'{}\n{"other":1}\n{"id":1}')
    result = on_both.run(columns='["v"]')
    assert on_both.output() == b'v\n""\n""\n5\n'
    assert (result.counts.source_records, result.counts.missing_ids) == (3, 2)


@pytest.mark.parametrize(
    ("server", "kind", "engine"),
    [
        *(("pipeline", kind, "driver") for kind in ("BIGINT UNSIGNED", "TINYINT(1)", "VARCHAR(9)", "INT(6) ZEROFILL")),
        *(("by_connector_j", kind, "driver") for kind in ("INT(6) ZEROFILL", "TINYINT(1)")),
        *(("on_postgresql", kind, "driver") for kind in ("BIGINT", "SMALLINT", "whole", "VARCHAR(9)", "most")),
        ("pipeline", "INT(6) ZEROFILL", "spark"),
    ],
)
def test_key_spellings_match_integers_only(request, server, kind, engine):
    pipeline = request.getfixturevalue(server)
    pipeline.engine = engine
    pipeline.sql(
        f"CREATE TABLE {pipeline.name} (id {kind} PRIMARY KEY, v INT)",
        f"INSERT INTO {pipeline.name} VALUES (7, 70), (8, 80)",
    )
    pipeline.put(SPELLINGS)
    result = pipeline.run()
    lines = pipeline.output().decode().splitlines()[1:]
    if kind == "VARCHAR(9)":
        assert lines == ["7,70", "7,70", "007,", "7.0,", " 7,"]
    else:
        assert lines == ["7,70", "7,70", "007,70", "7.0,70", " 7,"]
    assert result.counts.unmatched_ids == ["000008" if "ZEROFILL" in kind else "8"]


@everywhere("on_postgresql")
def test_text_keys_compare_byte_for_byte_whatever_the_collation(on):
    pipeline = on
    collation = "no_case" if pipeline.on_postgresql else "utf8mb4_general_ci"
    pipeline.sql(
        f"CREATE TABLE {pipeline.name} (id VARCHAR(9) COLLATE {collation} PRIMARY KEY, v INT)",
        f"INSERT INTO {pipeline.name} VALUES ('a', 1), ('É', 2)",
    )
    pipeline.put('{"id":"A"}\n{"id":"a"}\n{"id":"E"}\n{"id":"É"}\n{"id":"a "}'.encode())
    pipeline.run()
    assert pipeline.output().decode().splitlines()[1:] == ["A,", "a,1", "E,", "É,2", "a ,"]


@everywhere("by_connector_j", "on_postgresql")
def test_names_need_no_care(on):
    quote_name = on.dialect.quote_name
    columns = ", ".join(f"{quote_name(name)} INT" for name in HOSTILE)
    table = f't`"?{on.name}'
    on.sql(
        f"CREATE TABLE {quote_name(table)} (id INT PRIMARY KEY, {columns})",
        f"INSERT INTO {quote_name(table)} VALUES (1, {', '.join(map(str, range(len(HOSTILE))))})",
    )
    on.secret(table_name=table)
    on.put(b'{"id":1,"line":null}')
    on.run()
    header, row = csv.reader(io.StringIO(on.output().decode(), newline=""))
    assert dict(zip(header, row, strict=True)) == {"id": "1"} | {name: str(i) for i, name in enumerate(HOSTILE)}


@everywhere("by_connector_j", "on_postgresql")
def test_duplicate_keys_use_the_row_that_sorts_first(on):
    pipeline = on
    pipeline.sql(
        f"CREATE TABLE {pipeline.name} (id INT, v VARCHAR(9))",
        f"INSERT INTO {pipeline.name} VALUES (1,'b'),(1,'a'),(1,'B'),(2,NULL),(2,'x'),(3,'y'),(3,'y')",
        f"INSERT INTO {pipeline.name} VALUES (NULL,'n'),(NULL,'m')",
    )
    pipeline.put(b'{"id":1}\n{"id":2}\n{"id":null}')
    counts = pipeline.run().counts
    assert pipeline.output().decode() == "id,v\n1,B\n2,\n,\n"
    assert (counts.table_rows, counts.table_duplicates, counts.unmatched, counts.unmatched_ids) == (9, 4, 4, ["3"])


@everywhere("pipeline")
def test_columns_that_the_user_may_not_read_are_left_out(on):
    name = on.name
    user = f"CREATE ROLE {name} LOGIN PASSWORD 'pw'" if on.on_postgresql else f"CREATE USER {name} IDENTIFIED BY 'pw'"
    on.sql(
        f"CREATE TABLE {name} (id INT, a INT, b INT)",
        f"INSERT INTO {name} VALUES (1, 2, 3), (1, 4, 5), (6, 7, 8)",
        user,
        f"GRANT SELECT (id, a), UPDATE (b) ON {name} TO {name}",
    )
    on.secret(username=name, password="pw")
    on.put(b'{"id":1}\n{"id":9}')
    counts = on.run().counts
    assert on.output() == b"id,a\n1,2\n9,\n"
    assert (counts.table_rows, counts.table_duplicates, counts.unmatched_ids) == (3, 1, ["6"])


@pytest.mark.parametrize(
    ("engine", "count"),
    [("driver", 500), ("spark", 150)],  # Spark makes no code of its own for more than 100
)
def test_hundreds_of_columns(pipeline, engine, count):
    pipeline.engine = engine
    columns = ", ".join(f"c{i} INT" for i in range(count))
    pipeline.sql(
        f"CREATE TABLE {pipeline.name} (id INT PRIMARY KEY, {columns})",
        f"INSERT INTO {pipeline.name} VALUES (1, {', '.join(map(str, range(count)))})",
    )
    pipeline.put(b'{"id":1,"c7":null,"c8":"x"}\n{"id":2}')
    result = pipeline.run()
    header, first, second = pipeline.output().decode().splitlines()
    assert header.split(",") == ["id", "c7", "c8", *(f"c{i}" for i in range(count) if i not in {7, 8})]
    assert first.split(",") == ["1", "7", "x", *(str(i) for i in range(count) if i not in {7, 8})]
    assert second == "2" + "," * count
    assert result.counts.filled_cells == count - 1


@everywhere("on_postgresql")
def test_an_empty_table_leaves_the_source_as_it_is(on):
    pipeline = on
    pipeline.sql(f"CREATE TABLE {pipeline.name} (id INT PRIMARY KEY, v INT)")
    pipeline.put(b'[{"id":1}]')
    counts = pipeline.run().counts
    assert pipeline.output() == b"id,v\n1,\n"
    assert (counts.table_rows, counts.unmatched, counts.source_only) == (0, 0, 1)


def test_byte_ranges_with_different_columns(on_both):
    """More than one range of bytes, each with columns of its own, in source order."""
    on_both.limits = replace(on_both.limits, range_bytes_min=MIB // 4, range_bytes_max=MIB // 4)
    records = [{"id": i, f"c{i // 4_000}": "x" * 100, "z": str(i)} for i in range(12_000)]
    records.insert(7_000, {"z": "no id"})
    rows = [(str(i), f"name{i}", None) for i in range(0, 400, 2)]
    check(on_both, [encode(records, "lines")], rows, integer_key=True)


def test_a_big_array_is_read_whole_whatever_its_texts_look_like(on_both):
    on_both.limits = replace(on_both.limits, range_bytes_min=MIB // 4, range_bytes_max=MIB // 4)
    records = [{"id": i, "note": "},{" * 40 if i % 7 else "x" * 100, "name": None} for i in range(6_000)]
    check(on_both, [encode(records, "array")], [("5", "x", "y"), ("-5", "x", "y")], integer_key=True)


def test_output_larger_than_a_part_keeps_the_order(on_both):
    """Several parts, of lines of very different widths, into one object by multipart upload."""
    pipeline = on_both
    records = [{"id": i, "name": "あ" * (20_000 if i == 9_000 else 650 if i > 6_000 else 1)} for i in range(18_000)]
    check(pipeline, [encode(records, "lines")], [("5", "x", "y")], integer_key=True)
    head = pipeline.aws.client("s3").head_object(Bucket="lake", Key=f"out/{pipeline.name}.csv")
    assert int(head["ETag"].strip('"').split("-")[1]) > 1  # the parts of a multipart upload
    assert not pipeline.uploads()


def test_a_small_output_is_one_put(pipeline):
    check(pipeline, [b'{"id":1}'], [("1", "x", "y")], integer_key=True)
    head = pipeline.aws.client("s3").head_object(Bucket="lake", Key=f"out/{pipeline.name}.csv")
    assert "-" not in head["ETag"]  # which an upload of parts has
    assert head["ContentType"] == "text/csv; charset=utf-8"


def test_a_wildcard_reads_objects_in_key_order(pipeline):
    pipeline.sql(f"CREATE TABLE {pipeline.name} (id INT PRIMARY KEY)")
    for key, number in (("b/2.json", 2), ("b/10.json", 10), ("b/x/3.json", 3), ("b/1.txt", 1)):
        pipeline.put(b'{"id":%d}' % number, f"{pipeline.name}/{key}")
    pipeline.run(source_key=f"{pipeline.name}/b/*.json")
    assert pipeline.output() == b"id\n10\n2\n"


@pytest.mark.parametrize("encoding", ["cp932", "utf-8-sig"])
def test_encodings(on_both, encoding):
    check(
        on_both,
        ['{"id":1,"name":"髙橋①"}'.encode()],
        [("1", "x", "～−")],
        integer_key=True,
        arguments={"csv_encoding": encoding},
    )


def test_rows_with_the_same_id_in_many_batches_are_one_match(on_both):
    """Few rows are fetched at a time, so those of an id arrive apart; the row that sorts first wins all the same."""
    on_both.limits = replace(on_both.limits, fetch_rows=3)
    rows = [(str(number % 7), f"n{(number * 37) % 100:02}", None) for number in range(100)]
    check(on_both, [encode([{"id": number} for number in (0, 3, 6, 9)], "lines")], rows, integer_key=True)
