"""`table.lookup`: when ids are looked up, and in which statements, without a server."""

from __future__ import annotations

from dataclasses import replace

import pytest

from overlay.connection import make_database
from overlay.dialects.base import TableColumn
from overlay.limits import Limits
from overlay.secret import make_secret
from overlay.table.describe import Table
from overlay.table.lookup import lookup_predicates, lookup_reason

LIMITS = Limits()
SECRET = make_secret("s", {"username": "etl", "password": "p", "db_name": "shop", "table_name": "customer"})
DATABASE = make_database("c", {"JDBC_CONNECTION_URL": "jdbc:mysql://db:3306/shop"}, SECRET)
BIGINT = TableColumn("k", "bigint", "bigint(20)")
VARCHAR = TableColumn("k", "varchar", "varchar(700)", "utf8mb4")


def table(key: TableColumn = BIGINT, rows: int = 10**8, row_bytes: int = 0, *, indexed: bool = True) -> Table:
    """A table by its key and its size."""
    return Table(DATABASE, (key,), key, True, indexed, (), rows, row_bytes, 9, "")


def test_a_condition_stands_in_parentheses_beside_what_a_statement_asks_for():
    some = replace(table(), where="a = 1 OR b = 2 -- (")
    assert (
        some.from_where("c = 3 OR d = 4")
        == "FROM `shop`.`customer` WHERE (a = 1 OR b = 2 -- (\n) AND (c = 3 OR d = 4\n)"
    )
    assert some.from_where() == "FROM `shop`.`customer` WHERE (a = 1 OR b = 2 -- (\n)"
    assert table().from_where() == "FROM `shop`.`customer`"


def test_lookups_are_cut_into_bounded_statements():
    numbers = lookup_predicates(table(), map(str, range(10_000)), 4, LIMITS)
    assert [predicate.count("`k` IN (") for predicate in numbers] == [2] * 6
    assert numbers[0].startswith("(`k` IN (0, 1, 2,")
    assert all(len(ids.split(",")) <= LIMITS.lookup_list for p in numbers for ids in p.split(" OR "))
    assert len(lookup_predicates(table(), map(str, range(9_000)), 4, replace(LIMITS, lookup_list=9))) == 100
    long = lookup_predicates(table(VARCHAR), [f"{i:04}" + "あ" * 600 for i in range(1_000)], 1, LIMITS)
    assert max(map(len, long)) < 2 * LIMITS.lookup_list_bytes * LIMITS.lists_per_lookup
    assert sum(predicate.count("_utf8mb4 x'") for predicate in long) == 1_000


def test_each_list_of_texts_takes_only_those_between_its_first_and_last():
    text = "CAST(CAST(`k` AS CHAR CHARACTER SET utf8mb4) AS BINARY)"
    assert lookup_predicates(table(VARCHAR), ["b", "a", "c"], 1, replace(LIMITS, lookup_list=2)) == [
        f"(`k` IN (_utf8mb4 x'61', _utf8mb4 x'62') AND {text} BETWEEN x'61' AND x'62')",
        f"(`k` IN (_utf8mb4 x'63') AND {text} BETWEEN x'63' AND x'63')",
    ]


def test_signed_and_unsigned_numbers_are_not_mixed_in_a_list():
    key = TableColumn("k", "bigint", "bigint(20) unsigned")
    predicates = lookup_predicates(table(key), ["18446744073709551615", "7", "9223372036854775807", "-1"], 1, LIMITS)
    assert predicates == ["(`k` IN (7, 9223372036854775807))", "(`k` IN (18446744073709551615))"]


def test_ids_that_no_row_can_have_make_no_statement():
    assert lookup_predicates(table(), ["x", "7.5", "99999999999999999999"], 1, LIMITS) == []
    assert lookup_predicates(table(), [], 1, LIMITS) == []


@pytest.mark.parametrize(
    ("described", "records", "reason"),
    [
        (table(), LIMITS.lookup_ids_max, "few_ids"),
        (table(), LIMITS.lookup_ids_max + 1, "many_ids"),
        (table(rows=10**6), 10**5, "few_ids"),
        (table(rows=10**6), 10**5 + 1, "many_ids"),
        (table(rows=LIMITS.lookup_rows_min), 1, "few_ids"),
        (table(rows=LIMITS.lookup_rows_min - 1), 1, "small_table"),
        (table(indexed=False), 1, "no_index"),
        (table(TableColumn("k", "date", "date")), 1, "key_type"),
        (table(TableColumn("k", "varchar", "varchar(9)", "cp932")), 1, "key_type"),
    ],
)
def test_few_ids_of_a_large_indexed_table_are_looked_up(described, records, reason):
    assert lookup_reason(described, records, LIMITS) == reason


@pytest.mark.parametrize(
    ("row_bytes", "rows"), [(0, 10_000), (150, 10_000), (16_384, 1_024), (400_000, 41), (2**30, 1)]
)
def test_the_rows_that_a_driver_holds_are_bounded_by_their_bytes(row_bytes, rows):
    assert table(rows=10**6, row_bytes=row_bytes).fetch_rows(LIMITS) == rows
