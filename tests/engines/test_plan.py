"""How the table is read: lookup and scan give the same bytes and counts, the oracle's; which one runs, and why."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from overlay import dialects
from overlay.arguments import read_settings
from overlay.engines import driver, rows
from overlay.engines.engine import Inputs
from overlay.engines.rows import RowReader
from overlay.engines.spark import SparkEngine
from overlay.source.objects import list_objects
from overlay.table import describe, lookup, pool
from overlay.table.jdbc import Connection
from overlay.texts_en import TEXTS
from tests.agreement import assert_agrees
from tests.key_types import FILLED, INDEXES, MYSQL_KEYS, POSTGRESQL_KEYS, create, expectation, fill, insert, key_kind

# What takes another way through the Spark engine: zeros, big numbers, collations, domains, bytes.
ON_SPARK = (
    *(("pipeline", kind, "KEY (id)") for kind in ("padded integer", "accent-insensitive text", "binary")),
    ("by_connector_j", "unsigned integer", "UNIQUE (id)"),
    *(("on_postgresql", kind, "KEY (id)") for kind in ("integer domain of domains", "case-insensitive text")),
    ("on_postgresql", "binary domain of domains", "UNIQUE (id)"),
)


def force(monkeypatch, plan: str) -> None:
    """Lets every run of the driver engine use one plan."""
    monkeypatch.setattr(lookup, "lookup_reason", lambda *_: "few_ids" if plan == "lookup" else "many_ids")
    monkeypatch.setattr(RowReader, "_is_by_index", lambda *_: True)  # the optimizer scans a table of a few rows


def assert_plans_agree(pipeline, monkeypatch, kind, index, rows, ids, lookup_list, plans=("lookup", "scan")) -> None:
    """Both plans give the oracle's bytes and counts; a lookup asks for at most `lookup_list` ids at a time."""
    create(pipeline, f"id {key_kind(pipeline, kind)[0]}, v VARCHAR(9)", index)
    insert(pipeline, rows, binary="binary" in kind)
    lines = "\n".join(json.dumps({"id": id_}) for id_ in ids).encode()
    pipeline.put(lines)
    expected = expectation(pipeline, kind, lines)
    pipeline.limits = replace(pipeline.limits, lookup_list=lookup_list)
    for plan in plans:
        force(monkeypatch, plan)
        result = pipeline.run()
        assert (result.engine, result.plan) == (pipeline.engine, plan)
        assert_agrees(pipeline, result, expected)


def every_id(pipeline, kind: str) -> tuple[list[tuple[str | None, str | None]], list[str | None]]:
    """Rows of every key of a kind, each several times, and a source that names each and others."""
    _, keys, other_ids = key_kind(pipeline, kind)
    rows = [(key, value) for key in [*keys[1:], None] for value in ("x", "", "Y", None)]
    return rows, [*keys, *other_ids, None, keys[1]]


@pytest.mark.parametrize(
    ("server", "kind", "index"),
    [
        *(("pipeline", kind, index) for kind in MYSQL_KEYS for index in INDEXES[:2]),
        *(("on_postgresql", kind, INDEXES[i % 2]) for i, kind in enumerate(POSTGRESQL_KEYS)),
    ],
)
def test_both_plans_find_every_kind_of_id_in_statements_of_one_id_each(request, monkeypatch, server, kind, index):
    pipeline = request.getfixturevalue(server)
    pipeline.engine = "driver"
    rows, ids = every_id(pipeline, kind)
    assert_plans_agree(pipeline, monkeypatch, kind, index, rows, ids, 1)


@pytest.mark.parametrize(("server", "kind", "index"), ON_SPARK)
def test_spark_finds_every_kind_of_id_by_a_scan(request, monkeypatch, server, kind, index):
    pipeline = request.getfixturevalue(server)
    pipeline.engine = "spark"
    rows, ids = every_id(pipeline, kind)
    assert_plans_agree(pipeline, monkeypatch, kind, index, rows, ids, 1, plans=["scan"])


@pytest.mark.long  # a search; the kinds themselves are above
@pytest.mark.parametrize(
    ("server", "kind"),
    [
        *(("pipeline", kind) for kind in MYSQL_KEYS),
        *(("by_connector_j", kind) for kind in MYSQL_KEYS),
        *(("on_postgresql", kind) for kind in POSTGRESQL_KEYS),
    ],
)
@settings(max_examples=4, phases=[Phase.generate], suppress_health_check=list(HealthCheck))  # a shrink takes minutes
@given(data=st.data())
def test_both_plans_agree_with_the_oracle(request, monkeypatch, server, kind, data):
    pipeline = request.getfixturevalue(server)
    pipeline.engine = "driver"
    _, keys, other_ids = key_kind(pipeline, kind)
    index = data.draw(st.sampled_from(INDEXES), "index")
    cells = st.sampled_from(["x", "", "Y", None])
    rows = data.draw(st.lists(st.tuples(st.sampled_from(keys) | st.none(), cells), max_size=12), "rows")
    ids = st.sampled_from(keys + other_ids) | st.none()
    if "integer" in kind:
        ids |= st.sampled_from([7, -4, 0, 42])
    source = data.draw(st.lists(ids, min_size=1, max_size=10), "ids")
    lookup_list = data.draw(st.integers(1, 4), "lookup_list")
    assert_plans_agree(pipeline, monkeypatch, kind, index, rows, source, lookup_list)


# What is large.


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
    assert (result.plan, result.counts.matched, result.counts.table_rows) == ("lookup", 1, 200_000)
    assert pipeline.output() == b"id,t\n3,0\n200001,\n"


PLANS = [
    ("pipeline", "INT", "PRIMARY KEY (id)", 100, "lookup", "few_ids"),
    ("by_connector_j", "VARCHAR(20)", "KEY (id, v)", 100, "lookup", "few_ids"),
    ("pipeline", "INT", "PRIMARY KEY (id)", 7_000, "scan", "many_ids"),
    ("pipeline", "INT", "KEY (v)", 100, "scan", "no_index"),
    ("pipeline", "VARCHAR(20)", "KEY (id(5))", 100, "scan", "no_index"),
    ("pipeline", "VARCHAR(20)", "FULLTEXT (id)", 100, "scan", "no_index"),
    ("pipeline", "INT", "KEY (v, id)", 100, "scan", "no_index"),
    ("pipeline", "VARCHAR(20) CHARACTER SET cp932", "PRIMARY KEY (id)", 100, "scan", "key_type"),
    ("pipeline", "DATE", "PRIMARY KEY (id)", 100, "scan", "key_type"),
    ("on_postgresql", "INT", "PRIMARY KEY (id)", 100, "lookup", "few_ids"),
    ("on_postgresql", "VARCHAR(20) COLLATE no_case", "KEY (id, v)", 100, "lookup", "few_ids"),
    ("on_postgresql", "INT", "PRIMARY KEY (id)", 7_000, "scan", "many_ids"),
    ("on_postgresql", "VARCHAR(20)", "KEY (lower(id))", 100, "scan", "no_index"),
    ("on_postgresql", "DATE", "PRIMARY KEY (id)", 100, "scan", "key_type"),
]
PLANS_OF_SPARK = [  # which scans always
    ("pipeline", "INT", "PRIMARY KEY (id)", 100, "scan", "always_scans"),
    ("on_postgresql", "VARCHAR(20)", "KEY (lower(id))", 100, "scan", "always_scans"),
]


@pytest.mark.parametrize(
    ("engine", "server", "key", "index", "records", "plan", "reason"),
    [*(("driver", *case) for case in PLANS), *(("spark", *case) for case in PLANS_OF_SPARK)],
)
def test_the_plan_follows_the_source_and_the_index(
    request, slack, caplog, engine, server, key, index, records, plan, reason
):
    pipeline = request.getfixturevalue(server)
    pipeline.engine = engine
    fill(pipeline, key, index)
    # Every second id is in the table; the ids before the first of the source are not in it.
    ids = [f"k{i}" if "CHAR" in key else i * 3 // 2 for i in range(2_000, 2_000 + records)]
    lines = "\n".join(json.dumps({"id": i}) for i in ids).encode()
    pipeline.put(lines)
    with caplog.at_level(logging.INFO):
        result = pipeline.run(language="en")
    assert (result.plan, result.plan_reason) == (plan, reason)
    assert f"plan {plan}: {TEXTS[reason]}" in caplog.text
    fields = [item["text"] for item in slack.messages[0]["blocks"][1]["fields"]]
    choices = f"{engine} ({TEXTS['engine_forced']}) · {plan} ({TEXTS[reason]})"
    assert f"*{TEXTS['engine']}*\n{choices}" in fields
    assert_agrees(pipeline, result, expectation(pipeline, "integer" if key == "INT" else "", lines))


def test_a_lookup_the_database_would_not_use_the_index_for_becomes_a_scan(on_each, monkeypatch):
    pipeline = on_each
    fill(pipeline, "INT")
    monkeypatch.setattr(dialects.postgresql, "SMALL_COST", 0)
    monkeypatch.setattr(type(pipeline.dialect), "key_literal", lambda _self, _column, text: f"(id * 0 + {text})")
    pipeline.put(b'{"id":3}\n{"id":4}')
    result = pipeline.run()
    assert (result.plan, result.plan_reason) == ("scan", "index_unused")
    assert pipeline.output() == b"id,v\n3,1\n4,\n"


@pytest.mark.parametrize("engine", ["driver", "spark"])
def test_first_unmatched_ids_are_found_behind_many_matched_ones(on_each, engine):
    pipeline = on_each
    pipeline.engine = engine
    pipeline.limits = replace(pipeline.limits, first_ids=50)
    fill(pipeline, "INT")
    pipeline.put("\n".join(f'{{"id":{i * 3}}}' for i in range(1, 501) if i not in {480, 490}).encode())
    result = pipeline.run()
    assert result.plan == ("lookup" if engine == "driver" else "scan")
    assert result.counts.unmatched_ids == ["1440", "1470", *(str(i * 3) for i in range(501, 509))]
    assert result.counts.unmatched == FILLED - 498


@pytest.mark.parametrize("index", ["PRIMARY KEY (id)", "KEY (id)"], ids=["unique", "repeated"])
def test_a_lookup_counts_a_large_table_in_ranges_unless_ids_repeat(on_each, monkeypatch, index):
    """Of an id in two ranges nobody would see that it repeats."""
    pipeline, counted = on_each, []
    ask = Connection.ask

    def count(self, sql):
        if sql.startswith("SELECT COUNT(*) AS table_rows"):
            counted.append(sql)
        return ask(self, sql)

    fill(pipeline, "INT", index)
    monkeypatch.setattr(Connection, "ask", count)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: range(4))
    pipeline.limits = replace(pipeline.limits, counted_rows_min=1)
    pipeline.engine = "driver"
    pipeline.put(b'{"id":3}\n{"id":4}')
    result = pipeline.run()
    assert (result.plan, result.counts.table_rows, result.counts.table_duplicates) == ("lookup", FILLED, 0)
    assert len(counted) in (range(3, 7) if index.startswith("PRIMARY") else [1])  # the estimates are about even


def test_no_id_that_a_row_can_have_asks_for_no_row(on_each):
    pipeline = on_each
    fill(pipeline, "INT")
    pipeline.put(b'{"id":"x"}\n{"id":99999999999}')
    result = pipeline.run()
    assert (result.plan, result.counts.matched, result.counts.unmatched) == ("lookup", 0, FILLED)
    assert result.counts.unmatched_ids == [str(i * 3) for i in range(1, 11)]


# Ranges and connections.

RANGES = {
    "skewed": (
        "id BIGINT PRIMARY KEY, v INT",
        "seq - 10000 + CASE seq WHEN 20000 THEN 1000000000000000 ELSE 0 END",
        "id",
    ),
    "texts": (
        "id VARCHAR(20) COLLATE {0} PRIMARY KEY, v INT",
        "CONCAT(CASE seq % 2 WHEN 0 THEN 'k' ELSE 'K' END, seq)",
        "id",
    ),
    "another primary key": ("v INT PRIMARY KEY, id DATE", "{1}", "v"),
    "no index": ("id DATE, v INT", "{1}", None),
}


@pytest.mark.parametrize(
    ("server", "engine", "case"),
    [
        *((server, "driver", case) for server in ("pipeline", "by_connector_j", "on_postgresql") for case in RANGES),
        ("by_connector_j", "spark", "texts"),
        ("pipeline", "spark", "no index"),
        ("on_postgresql", "spark", "skewed"),
    ],
)
def test_a_large_table_is_read_in_ranges(request, server, engine, case, caplog, monkeypatch):
    pipeline = request.getfixturevalue(server)
    pipeline.engine = engine
    force(monkeypatch, "scan")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: range(16))  # cores, of which each second reads the table
    pipeline.limits = replace(pipeline.limits, range_rows_max=2_000)
    columns, value, column = RANGES[case]
    day = "DATE '2000-01-01' + seq" if pipeline.on_postgresql else "'2000-01-01' + INTERVAL seq DAY"
    filled = columns.format("no_case" if pipeline.on_postgresql else "utf8mb4_general_ci")
    signed = value if pipeline.on_postgresql else value.replace("seq - 10000", "CAST(seq AS SIGNED) - 10000")
    ids = signed.format("", day)
    pipeline.sql(
        f"CREATE TABLE {pipeline.name} ({filled})",
        f"INSERT INTO {pipeline.name} (id, v) SELECT {ids}, seq FROM {pipeline.series(20_000)}",
        f"ANALYZE {'' if pipeline.on_postgresql else 'TABLE'} {pipeline.name}",
    )
    texts = ["id::text", "v"] if pipeline.on_postgresql else ["CAST(id AS CHAR)", "v"]
    id_of = {v: key for key, v in pipeline.table_texts(texts)}
    pipeline.put("\n".join(json.dumps({"id": id_of.get(v, "x"), "v": None}) for v in (0, 1, 11_111, 20_000)).encode())
    with caplog.at_level("INFO"):
        result = pipeline.run()
    cells = [line.split(",")[:2] for line in pipeline.output().decode().splitlines()[1:]]
    assert cells == [["x", ""], [id_of[1], "1"], [id_of[11_111], "11111"], [id_of[20_000], "20000"]]
    counts = result.counts
    assert (result.plan, counts.table_rows, counts.unmatched, counts.table_duplicates) == ("scan", 20_000, 19_997, 0)
    messages = [line for line in caplog.messages if line.startswith("the table is cut into ")]
    assert [line.split(" ranges of column ")[1] for line in messages] == ([repr(column)] if column else [])
    if column:
        assert 6 <= int(messages[0].split()[5]) <= 20


def test_executors_open_no_more_connections_than_they_may(on_each):
    pipeline = on_each
    pipeline.limits = replace(pipeline.limits, range_rows_max=2_000)
    fill(pipeline, "INT")
    pipeline.put(b'{"id":3}\n{"id":4}')
    run_settings = read_settings(pipeline.arguments(), pipeline.limits)
    for connections, partitions in ((9, 9), (2, 2), (1_000, range(10, 21))):
        table = pipeline.describe(max_connections=connections)
        engine = SparkEngine(Inputs(run_settings, list_objects(run_settings), table))
        engine.read_source()
        reading = engine._rows(table, None).rdd.getNumPartitions()  # each has one connection at a time
        engine.close()
        assert reading == partitions if isinstance(partitions, int) else reading in partitions


@pytest.mark.parametrize("plan", ["lookup", "scan"])
@pytest.mark.parametrize("most", [1, 2, 5])
def test_the_driver_opens_no_more_connections_than_it_may(pipeline, monkeypatch, plan, most):
    lock, now, counts = threading.Lock(), [], []

    class Counted(Connection):
        def __init__(self, *arguments) -> None:
            with lock:
                now.append(self)
                counts.append(len(now))
            super().__init__(*arguments)
            time.sleep(0.1)

        def __exit__(self, *error) -> None:
            super().__exit__(*error)
            with lock:
                now.remove(self)

    for module in (pool, describe, driver, rows):
        monkeypatch.setattr(module, "Connection", Counted)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: range(16))
    force(monkeypatch, plan)
    pipeline.engine = "driver"
    pipeline.limits = replace(pipeline.limits, range_rows_max=2_000, lookup_list=1, lists_per_lookup=1)
    fill(pipeline, "INT", "KEY (id)")
    pipeline.put(b'{"id":3}\n{"id":4}\n{"id":6}\n{"id":9}\n{"id":12}\n{"id":15}')
    result = pipeline.run(max_connections=str(most), unmatched_file=f"out/{pipeline.name}.ids")
    assert (result.plan, result.counts.table_rows, result.counts.table_duplicates) == (plan, FILLED, 0)
    assert pipeline.output() == b"id,v\n3,1\n4,\n6,2\n9,3\n12,4\n15,5\n"
    assert (max(counts), now) == (most, [])


def test_a_run_of_spark_with_one_connection_reads_all_rows(on_each):
    pipeline = on_each
    pipeline.engine = "spark"
    pipeline.limits = replace(pipeline.limits, range_rows_max=2_000)
    fill(pipeline, "INT")
    pipeline.put(b'{"id":3}\n{"id":4}')
    assert pipeline.run(max_connections="1").counts.table_rows == FILLED
