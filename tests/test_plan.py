"""Section `table`, its two plans: the same bytes and counts, the oracle's; which one runs, and why."""

from __future__ import annotations

import json
import logging
import re

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import glue_job
from glue_job import Session, Source, Table, TableColumn, make_database
from tests import oracle
from tests.test_secret import SECRET

DATABASE = make_database("c", {"JDBC_CONNECTION_URL": "jdbc:mysql://db:3306/shop"}, SECRET)
WORDS = ["a", "A", "á", "a ", " a", "", "'", "\\", '"', "\\'", "x') OR ('1'='1", "%", "😀", "😁", "ｱ", "ア", "ß", "ss"]
LATIN = ["a", "A", "é", "É", "a ", "€", "\x81", "?", "'", "\\", "ÿ"]
INTEGERS = ["0", "1", "7", "-1", "-4", "42", "2147483647", "9223372036854775807", "-9223372036854775808"]
UNSIGNED = ["0", "7", "42", "100", "18446744073709551615", "9223372036854775808"]
# name -> (DDL of the key, what the table may hold, what the source may say besides)
KEYS = {
    "case-insensitive text": ("VARCHAR(40) COLLATE utf8mb4_general_ci", WORDS, ["ab"]),
    "accent-insensitive text": ("VARCHAR(40) COLLATE utf8mb4_unicode_520_ci", WORDS, ["ab"]),
    "text in three bytes": ("VARCHAR(40) CHARACTER SET utf8mb3", [w for w in WORDS if max([*w, ""]) < "\uffff"], WORDS),
    "text in latin1": ("VARCHAR(40) CHARACTER SET latin1 COLLATE latin1_german1_ci", LATIN, WORDS),
    "padded text": ("CHAR(9) COLLATE utf8mb4_bin", [w for w in WORDS if not w.endswith(" ")], ["a "]),
    "integer": ("BIGINT", INTEGERS, [*UNSIGNED, "007", "7.0", "-0", " 7", "x", "1e2", "99999999999999999999999"]),
    "unsigned integer": ("BIGINT UNSIGNED", UNSIGNED, [*INTEGERS, "007", "4.2e1"]),
    "padded integer": ("INT(6) ZEROFILL", ["000000", "000007", "000042", "1234567"], ["7", "0042", "-7", "7.0"]),
    "decimal": ("DECIMAL(12,2)", ["1.50", "-1.50", "0.00", "1234567890.12"], ["1.5", "1.500", "-0.00", "1e0"]),
    "binary": ("VARBINARY(9)", ["", "00", "0000", "61", "ff00"], ["0", "FF00", "zz"]),
}
POSTGRESQL_WORDS = [*WORDS, "$$", "E'", "?", "{d}"]
UUIDS = ["123e4567-e89b-12d3-a456-426655440000", "00000000-0000-0000-0000-000000000000"]
POSTGRESQL_KEYS = {
    "case-insensitive text": ("VARCHAR(40) COLLATE no_case", POSTGRESQL_WORDS, ["ab", "a\0b"]),
    "accent-insensitive text": ("TEXT COLLATE no_accent", POSTGRESQL_WORDS, ["ab"]),
    "citext": ("CITEXT", POSTGRESQL_WORDS, ["ab"]),
    "padded text": ("CHAR(20)", [word for word in POSTGRESQL_WORDS if not word.endswith(" ")], ["a ", "a" + " " * 19]),
    "integer": ("BIGINT", INTEGERS, [*UNSIGNED, "007", "7.0", "-0", " 7", "x", "1e2", "99999999999999999999999"]),
    "small integer": ("SMALLINT", ["0", "7", "-4", "32767"], ["32768", "007", "7.0", "x"]),
    "integer domain": ("whole", ["0", "7", "-4", "2147483647"], ["-100", "007", "2147483648"]),
    "decimal": ("NUMERIC", ["1.50", "-1.50", "0.00", "1e70", "NaN"], ["1.5", "1.500", "-0.00", "1e0", "nan"]),
    "uuid": ("UUID", UUIDS, [UUIDS[0].upper(), "x"]),
    "binary": ("BYTEA", ["", "00", "0000", "61", "ff00"], ["0", "FF00", "zz", "\\x00"]),
}
INDEXES = ["UNIQUE (id)", "KEY (id)", "KEY (id, v)"]


def keys_of(pipeline, kind: str) -> tuple[str, list[str], list[str]]:
    """The entry of the server's own kinds of keys."""
    return (POSTGRESQL_KEYS if pipeline.on_postgresql else KEYS)[kind]


def create(pipeline, columns: str, index: str) -> None:
    """Makes the table anew; `index` is what MySQL takes inside CREATE TABLE."""
    pipeline.sql(f"DROP TABLE IF EXISTS {pipeline.name}")
    if pipeline.on_postgresql and index.startswith("KEY"):
        pipeline.sql(f"CREATE TABLE {pipeline.name} ({columns})")
        pipeline.sql(f"CREATE INDEX ON {pipeline.name} {index.removeprefix('KEY')}")
    else:
        charset = "" if pipeline.on_postgresql else "CHARACTER SET utf8mb4"
        pipeline.sql(f"CREATE TABLE {pipeline.name} ({columns}, {index}) {charset}")


def force(monkeypatch, plan: str) -> None:
    """Lets every run use one plan."""
    monkeypatch.setattr(glue_job, "choose_plan", lambda *_: (plan, "few_ids" if plan == "lookup" else "many_ids"))
    monkeypatch.setattr(glue_job, "uses_index", lambda *_: True)  # the optimizer scans a table of a few rows


def insert(pipeline, rows, binary: bool) -> None:
    """Fills the table."""
    value = "%s"
    if binary:
        value = "decode(%s, 'hex')" if pipeline.on_postgresql else "UNHEX(%s)"
    ignore, conflict = ("", "ON CONFLICT DO NOTHING") if pipeline.on_postgresql else ("IGNORE", "")
    with pipeline.database.connect(autocommit=True) as connection, connection.cursor() as cursor:
        cursor.executemany(f"INSERT {ignore} INTO {pipeline.name} VALUES ({value}, %s) {conflict}", rows)


def assert_plans_agree(pipeline, monkeypatch, kind, index, rows, source, batch) -> None:
    """Both plans give the oracle's bytes and counts; a lookup asks for at most `batch` ids at a time."""
    create(pipeline, f"id {keys_of(pipeline, kind)[0]}, v VARCHAR(9)", index)
    insert(pipeline, rows, kind == "binary")
    if pipeline.on_postgresql:
        text = "encode(id, 'hex')" if kind == "binary" else "id::text"
    else:
        text = "LOWER(HEX(id))" if kind == "binary" else "CAST(id AS CHAR CHARACTER SET utf8mb4)"
    table = pipeline.table_texts([text, "v"])
    lines = "\n".join(json.dumps({"id": key}) for key in source).encode()
    pipeline.put(lines)
    expected = oracle.overlay([lines], ("id", "v"), table, integer_key="integer" in kind)
    monkeypatch.setattr(glue_job, "LOOKUP_BATCH", batch)
    for plan in ("lookup", "scan"):
        force(monkeypatch, plan)
        result = pipeline.run()
        assert result.plan == plan
        assert pipeline.output() == expected.csv
        assert {name: getattr(result, name) for name in expected.counts} == expected.counts


@pytest.mark.parametrize(
    ("server", "kind", "index"),
    [
        *(("pipeline", kind, index) for kind in KEYS for index in INDEXES[:2]),
        *(("on_postgresql", kind, INDEXES[i % 2]) for i, kind in enumerate(POSTGRESQL_KEYS)),
    ],
)
def test_both_plans_find_every_kind_of_id_in_statements_of_one_id_each(request, monkeypatch, server, kind, index):
    pipeline = request.getfixturevalue(server)
    _, known, others = keys_of(pipeline, kind)
    rows = [(key, value) for key in [*known[1:], None] for value in ("x", "", "Y", None)]
    assert_plans_agree(pipeline, monkeypatch, kind, index, rows, [*known, *others, None, known[1]], batch=1)


@pytest.mark.parametrize(
    ("server", "kind"),
    [
        *(("pipeline", kind) for kind in KEYS),
        *(("by_connector_j", kind) for kind in ("text in latin1", "padded integer", "binary")),
        *(("on_postgresql", kind) for kind in POSTGRESQL_KEYS if kind not in {"citext", "small integer"}),
    ],
)
@settings(max_examples=2, phases=[Phase.generate], suppress_health_check=list(HealthCheck))  # a shrink takes minutes
@given(data=st.data())
def test_both_plans_agree_with_the_oracle(request, monkeypatch, server, kind, data):
    pipeline = request.getfixturevalue(server)
    _, known, others = keys_of(pipeline, kind)
    index = data.draw(st.sampled_from(INDEXES), "index")
    cells = st.sampled_from(["x", "", "Y", None])
    rows = data.draw(st.lists(st.tuples(st.sampled_from(known) | st.none(), cells), max_size=12), "rows")
    ids = st.sampled_from(known + others) | st.none()
    if "integer" in kind:
        ids |= st.sampled_from([7, -4, 0, 42])
    source = data.draw(st.lists(ids, min_size=1, max_size=10), "ids")
    batch = data.draw(st.integers(1, 4), "batch")
    assert_plans_agree(pipeline, monkeypatch, kind, index, rows, source, batch)


def test_executors_open_no_more_connections_than_they_may(on_each):
    pipeline = on_each
    fill(pipeline, "INT")
    predicates = glue_job.range_predicates([str(cut) for cut in range(20_000, 180_000, 20_000)])
    database = pipeline.target()
    with Session(pipeline.spark, database) as session:
        free = "current_setting('max_connections')::int - 3" if pipeline.on_postgresql else "@@max_connections"
        [server] = session.ask(f"SELECT {free} AS most")
        shared = glue_job.describe_table(session, database, "id")
        table = glue_job.describe_table(session, database, "id", 2)
    assert shared.connections == int(server["most"]) // glue_job.CONNECTION_SHARE
    assert table.connections == 2
    for described, tasks in ((shared, len(predicates)), (table, 2)):  # a task has one connection at a time
        frame = glue_job.read_rows(pipeline.spark, described, described.key, predicates, 1)
        assert frame.rdd.getNumPartitions() == tasks
    pipeline.put(b'{"id":3}\n{"id":4}')
    assert pipeline.run(max_connections="1").table_rows == 60_000


@pytest.mark.parametrize("kind", KEYS)
def test_literals_let_the_database_use_the_index(pipeline, kind):
    ddl, known, others = KEYS[kind]
    number = "seq" if re.match("BIGINT|INT|DEC", ddl) else "UNHEX(HEX(seq))" if kind == "binary" else "CONCAT('k', seq)"
    pipeline.sql(
        f"CREATE TABLE {pipeline.name} (id {ddl} PRIMARY KEY, v VARCHAR(200)) CHARACTER SET utf8mb4",
        f"INSERT INTO {pipeline.name} SELECT {number}, REPEAT('x', 200) FROM seq_1000_to_9000",
    )
    database = pipeline.target()
    with Session(pipeline.spark, database) as session:
        table = glue_job.describe_table(session, database, "id")
        assert table.indexed
        assert table.unique == (kind != "decimal")
        for words in (known, known + others):
            predicates = glue_job.lookup_predicates(table, words, 1)
            assert len(predicates) == 1 + (kind == "unsigned integer")
            for predicate in predicates:
                assert predicate.startswith("(k IN (")
                assert glue_job.uses_index(session, table, predicate)
        assert not glue_job.uses_index(session, table, "v = 'x'".replace("v", "c1"))


@pytest.mark.parametrize("kind", POSTGRESQL_KEYS)
def test_literals_let_postgresql_use_the_index(on_postgresql, kind):
    pipeline, (ddl, known, others) = on_postgresql, POSTGRESQL_KEYS[kind]
    numbers = re.match("BIGINT|SMALLINT|whole|NUMERIC", ddl)
    made = {"BYTEA": "decode(md5(seq::text), 'hex')", "UUID": "md5(seq::text)::uuid", "CHAR(20)": "'k' || seq"}
    number = "seq" if numbers else made.get(ddl, "'k' || seq || repeat('x', 9)")
    pipeline.sql(
        f"CREATE TABLE {pipeline.name} (id {ddl} PRIMARY KEY, v VARCHAR(200))",
        f"INSERT INTO {pipeline.name} SELECT {number}, repeat('x', 200) FROM {pipeline.series(30_000)}",
        f"ANALYZE {pipeline.name}",
    )
    database = pipeline.target()
    with Session(pipeline.spark, database) as session:
        table = glue_job.describe_table(session, database, "id")
        assert table.indexed
        assert table.unique
        for words in (known, known + others):
            [predicate] = glue_job.lookup_predicates(table, words, 1)
            assert predicate.startswith("(k IN (")
            assert glue_job.uses_index(session, table, predicate)
        assert not glue_job.uses_index(session, table, "c1 = 'x'")


def test_small_partitions_do_not_hinder_a_lookup(on_postgresql):
    pipeline, name = on_postgresql, on_postgresql.name
    pipeline.sql(
        f"CREATE TABLE {name} (id BIGINT, t INT, PRIMARY KEY (id, t)) PARTITION BY LIST (t)",
        *(f"CREATE TABLE {name}_{i} PARTITION OF {name} FOR VALUES IN ({i})" for i in range(3)),
        f"INSERT INTO {name} SELECT seq, 0 FROM {pipeline.series(200_000)}",
        f"ANALYZE {name}",
    )
    pipeline.put(b'{"id":3}\n{"id":200001}')
    result = pipeline.run()
    assert (result.plan, result.matched, result.table_rows) == ("lookup", 1, 200_000)
    assert pipeline.output() == b"id,t\n3,0\n200001,\n"


def fill(pipeline, key: str, index: str = "PRIMARY KEY (id)") -> None:
    """A table that is large enough for a lookup."""
    day = "DATE '2000-01-01' + seq" if pipeline.on_postgresql else "'2000-01-01' + INTERVAL seq DAY"
    value = "CONCAT('k', seq)" if "CHAR" in key else day if key == "DATE" else "seq * 3"
    create(pipeline, f"id {key} NOT NULL, v INT", index)
    pipeline.sql(
        f"INSERT INTO {pipeline.name} SELECT {value}, seq FROM {pipeline.series(60_000)}",
        f"ANALYZE {'' if pipeline.on_postgresql else 'TABLE'} {pipeline.name}",
    )


@pytest.mark.parametrize(
    ("server", "key", "index", "records", "plan", "reason"),
    [
        ("pipeline", "INT", "PRIMARY KEY (id)", 100, "lookup", "few_ids"),
        ("pipeline", "VARCHAR(20)", "KEY (id, v)", 100, "lookup", "few_ids"),
        ("pipeline", "INT", "PRIMARY KEY (id)", 20_000, "scan", "many_ids"),
        ("pipeline", "INT", "KEY (v)", 100, "scan", "no_index"),
        ("pipeline", "VARCHAR(20)", "KEY (id(5))", 100, "scan", "no_index"),
        ("pipeline", "VARCHAR(20)", "FULLTEXT (id)", 100, "scan", "no_index"),
        ("pipeline", "INT", "KEY (v, id)", 100, "scan", "no_index"),
        ("pipeline", "VARCHAR(20) CHARACTER SET cp932", "PRIMARY KEY (id)", 100, "scan", "key_type"),
        ("pipeline", "DATE", "PRIMARY KEY (id)", 100, "scan", "key_type"),
        ("on_postgresql", "INT", "PRIMARY KEY (id)", 100, "lookup", "few_ids"),
        ("on_postgresql", "VARCHAR(20) COLLATE no_case", "KEY (id, v)", 100, "lookup", "few_ids"),
        ("on_postgresql", "INT", "PRIMARY KEY (id)", 20_000, "scan", "many_ids"),
        ("on_postgresql", "VARCHAR(20)", "KEY (lower(id))", 100, "scan", "no_index"),
        ("on_postgresql", "DATE", "PRIMARY KEY (id)", 100, "scan", "key_type"),
    ],
)
def test_the_plan_follows_the_source_and_the_index(request, slack, caplog, server, key, index, records, plan, reason):
    pipeline = request.getfixturevalue(server)
    fill(pipeline, key, index)
    # Every second id is in the table; the ids before the first of the source are not in it.
    ids = [f"k{i}" if "CHAR" in key else i * 3 // 2 for i in range(2_000, 2_000 + records)]
    pipeline.put("\n".join(json.dumps({"id": i}) for i in ids).encode())
    with caplog.at_level(logging.INFO):
        result = pipeline.run(language="en")
    assert (result.plan, result.plan_reason) == (plan, reason)
    told = glue_job.TEXTS["en"][reason]
    assert f"plan {plan}: {told}" in caplog.text
    assert f"*Read plan*\n{plan} ({told})" in [item["text"] for item in slack.messages[0]["blocks"][1]["fields"]]
    expected = oracle.overlay(
        ["\n".join(json.dumps({"id": i}) for i in ids).encode()],
        ("id", "v"),
        pipeline.table_texts(
            [f"CAST({name} AS {'TEXT' if pipeline.on_postgresql else 'CHAR'})" for name in ("id", "v")]
        ),
        integer_key=key == "INT",
    )
    assert pipeline.output() == expected.csv
    assert {name: getattr(result, name) for name in expected.counts} == expected.counts


def test_a_lookup_the_database_would_not_use_the_index_for_becomes_a_scan(on_each, monkeypatch):
    pipeline = on_each
    fill(pipeline, "INT")
    monkeypatch.setattr(type(pipeline.engine), "key_literal", lambda _self, _column, text: f"(k * 0 + {text})")
    pipeline.put(b'{"id":3}\n{"id":4}')
    result = pipeline.run()
    assert (result.plan, result.plan_reason) == ("scan", "index_unused")
    assert pipeline.output() == b"id,v\n3,1\n4,\n"


def test_first_unmatched_ids_are_found_behind_many_matched_ones(on_each, monkeypatch):
    pipeline = on_each
    fill(pipeline, "INT")
    monkeypatch.setattr(glue_job, "FIRST_IDS", 50)
    pipeline.put("\n".join(f'{{"id":{i * 3}}}' for i in range(1, 501) if i not in {480, 490}).encode())
    result = pipeline.run()
    assert result.plan == "lookup"
    assert result.unmatched_ids == ["1440", "1470", *(str(i * 3) for i in range(501, 509))]
    assert result.unmatched == 60_000 - 498


def test_no_id_that_a_row_can_have_asks_for_no_row(on_each):
    pipeline = on_each
    fill(pipeline, "INT")
    pipeline.put(b'{"id":"x"}\n{"id":99999999999}')
    result = pipeline.run()
    assert (result.plan, result.matched, result.unmatched) == ("lookup", 0, 60_000)
    assert result.unmatched_ids == [str(i * 3) for i in range(1, 11)]


def test_lookups_are_cut_into_bounded_statements():
    text = Table(DATABASE, (), TableColumn("id", "varchar", "varchar(700)", "utf8mb4"), True, True, (), 10**8, 0, 9)
    integer = Table(DATABASE, (), TableColumn("id", "bigint", "bigint(20)"), True, True, (), 10**8, 0, 9)
    numbers = glue_job.lookup_predicates(integer, map(str, range(10_000)), 4)
    assert [predicate.count("k IN (") for predicate in numbers] == [2] * 6
    assert numbers[0].startswith("(k IN (0, 1, 2,")
    assert all(len(ids.split(",")) <= glue_job.LOOKUP_BATCH for p in numbers for ids in p.split(" OR "))
    assert len(glue_job.lookup_predicates(integer, map(str, range(900_000)), 4)) == 100
    long = glue_job.lookup_predicates(text, [f"{i:04}" + "あ" * 600 for i in range(1_000)], 1)
    assert max(map(len, long)) < 2 * glue_job.LOOKUP_BATCH_BYTES * glue_job.LISTS_PER_LOOKUP
    assert sum(predicate.count("_utf8mb4 x'") for predicate in long) == 1_000


def test_a_huge_table_is_looked_up_within_the_bound_of_ids():
    table = Table(DATABASE, (), TableColumn("id", "bigint", "bigint(20)"), True, True, (), 10**8, 0, 9)

    def plan(records: int) -> tuple[str, str]:
        return glue_job.choose_plan(Source(None, ("id",), (("id",),), (records,), 0, 1), table)

    assert plan(glue_job.MAX_LOOKUP_IDS) == ("lookup", "few_ids")
    assert plan(glue_job.MAX_LOOKUP_IDS + 1) == ("scan", "many_ids")
