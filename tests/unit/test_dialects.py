"""`dialects`: names, literals and types into SQL, and what errors mean, without a server."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.dialects.base import Failure, TableColumn, TableName
from overlay.dialects.mysql import MYSQL_CODES, MySQL
from overlay.dialects.postgresql import PostgreSQL
from overlay.limits import Limits

MYSQL, POSTGRESQL = MySQL(), PostgreSQL()
NAME = TableName('d`b"', "s'c", "t日")
MYSQL_NAME = NAME._replace(schema="")  # which `connection` refuses there
CONNECTOR_J, MARIADB = "com.mysql.cj.jdbc.Driver", "org.mariadb.jdbc.Driver"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_literals_hold_no_text_that_could_end_them(text):
    assert re.fullmatch("_utf8mb4 x'[0-9a-f]*'", MYSQL.text_literal(text))
    assert re.fullmatch(r"E'([A-Za-z0-9 _.-]|\\U[0-9a-f]{8})*'", POSTGRESQL.text_literal(text))


def test_names_are_quoted_whatever_is_in_them():
    assert MYSQL.quote_name('a`b"') == '`a``b"`'
    assert POSTGRESQL.quote_name('a`b"') == '"a`b"""'
    assert MYSQL.qualified(MYSQL_NAME) == '`d``b"`.`t日`'
    assert POSTGRESQL.qualified(NAME) == '"s\'c"."t日"'
    assert MYSQL.readable(MYSQL_NAME) == 'd`b".t日'
    assert POSTGRESQL.readable(NAME) == "d`b\".s'c.t日"


def test_text_expressions():
    assert MYSQL.text_expression(TableColumn("a`b", "int", "int(11)")) == "CAST(`a``b` AS CHAR CHARACTER SET utf8mb4)"
    assert MYSQL.text_expression(TableColumn("a", "bit", "bit(8)")) == "CAST(`a` + 0 AS CHAR CHARACTER SET utf8mb4)"
    assert MYSQL.text_expression(TableColumn("a", "binary", "binary(9)")) == "LOWER(HEX(`a`))"
    assert MYSQL.text_expression(TableColumn("a", "point", "point")) == "ST_AsText(`a`)"
    assert POSTGRESQL.text_expression(TableColumn('a"b', "integer", "integer")) == '"a""b"::pg_catalog.text'
    assert POSTGRESQL.text_expression(TableColumn("a", "bytea", "bytea")) == "pg_catalog.encode(\"a\", 'hex')"
    assert POSTGRESQL.text_expression(TableColumn("a", "inet", "inet")) == 'pg_catalog.abbrev("a")'


@pytest.mark.parametrize(
    ("kind", "plain", "plain_by_3"),
    [
        ("int", True, False),
        ("date", True, False),
        ("enum", True, True),
        ("double", False, False),
        ("bit", False, False),
    ],
)
def test_only_what_the_driver_of_mariadb_receives_as_it_is_printed_is_not_cast(kind, plain, plain_by_3):
    """tests/services/test_types.py compares both of every type."""
    column = TableColumn("a", kind, kind)
    cast = MYSQL.text_expression(column)
    assert MYSQL.wire_expression(column, "MariaDB Connector/J 2.7.6") == ("`a`" if plain else cast)
    assert MYSQL.wire_expression(column, "MariaDB Connector/J 3.5.1") == ("`a`" if plain_by_3 else cast)
    assert MYSQL.wire_expression(
        column, "MySQL Connector/J mysql-connector-j-9.1.0 (Revision: x)"
    ) == MYSQL.text_expression(column)
    assert POSTGRESQL.wire_expression(column, POSTGRESQL.driver) == POSTGRESQL.text_expression(column)


@pytest.mark.parametrize(
    ("kind", "text", "literal"),
    [
        ("tinyint(4)", "-128", "-128"),
        ("tinyint(4)", "128", None),
        ("tinyint(3) unsigned", "255", "255"),
        ("tinyint(3) unsigned", "-1", None),
        ("bigint(20) unsigned", "18446744073709551615", "18446744073709551615"),
        ("bigint(20)", "9223372036854775808", None),
        ("int(11)", "1) OR (1=1", None),
        ("int(11)", "٣", None),
        ("int(11)", "7\n", None),
        ("decimal(9,2)", "1.50", "1.50"),
        ("decimal(9,2)", "1e5", None),
        ("binary(2)", "00ff", "x'00ff'"),
        ("binary(2)", "00FF", None),
        ("varbinary(9)", "0", None),
        ("varchar(9)", "'", "_utf8mb4 x'27'"),
    ],
)
def test_ids_that_no_row_can_have_are_not_asked_for(kind, text, literal):
    column = TableColumn("id", kind.partition("(")[0], kind, "utf8mb4" if "char" in kind else None)
    assert MYSQL.key_literal(column, text) == literal


@pytest.mark.parametrize(
    ("kind", "text", "literal"),
    [
        ("smallint", "-32768", "'-32768'"),
        ("smallint", "32768", None),
        ("integer", "2147483648", None),
        ("bigint", "-9223372036854775808", "'-9223372036854775808'"),
        ("bigint", "9223372036854775808", None),
        ("integer", "1) OR (1=1", None),
        ("integer", "007", None),
        ("numeric", "1.50", "E'1.50'"),
        ("numeric", "NaN", "E'NaN'"),
        ("numeric", "1e5", None),
        ("uuid", "123e4567-e89b-12d3-a456-426655440000", "E'123e4567-e89b-12d3-a456-426655440000'"),
        ("uuid", "123E4567-e89b-12d3-a456-426655440000", None),
        ("bytea", "00ff", r"E'\U0000005cx00ff'"),
        ("bytea", "00FF", None),
        ("text", "'", r"E'\U00000027'"),
        ("text", "a\0", None),
    ],
)
def test_ids_that_no_row_of_postgresql_can_have_are_not_asked_for(kind, text, literal):
    assert POSTGRESQL.key_literal(TableColumn("id", kind, kind, "UTF8"), text) == literal


@pytest.mark.parametrize(
    ("charset", "inside", "outside"),
    [
        ("ascii", "a~", "é"),
        ("latin1", "é€\x81ÿ", "日"),
        ("utf8", "日\uffff", "😀"),
        ("utf8mb3", "日\uffff", "😀"),
        ("utf8mb4", "日😀", None),
    ],
)
def test_texts_that_the_character_set_of_the_key_lacks_are_not_asked_for(charset, inside, outside):
    column = TableColumn("id", "varchar", "varchar(9)", charset)
    assert MYSQL.can_look_up(column)
    for text in ("", inside, *inside):
        assert MYSQL.key_literal(column, text) == f"_utf8mb4 x'{text.encode().hex()}'"
    assert outside is None or MYSQL.key_literal(column, inside + outside) is None


@pytest.mark.parametrize("charset", ["cp932", "ujis", "utf16", None])
def test_texts_are_looked_up_where_codes_and_characters_pair_off(charset):
    assert not MYSQL.can_look_up(TableColumn("id", "varchar", "varchar(9)", charset))


@pytest.mark.parametrize(("charset", "expected"), [("UTF8", True), ("LATIN1", False), ("EUC_JP", False)])
def test_texts_are_looked_up_where_the_database_can_hold_any(charset, expected):
    assert POSTGRESQL.can_look_up(TableColumn("id", "text", "text", charset)) is expected
    assert POSTGRESQL.can_look_up(TableColumn("id", "bigint", "bigint", charset))


@pytest.mark.parametrize("kind", ["date", "float", "double", "text", "blob", "enum", "time", "bit", "json"])
def test_what_no_literal_is_known_of_is_not_looked_up(kind):
    assert not MYSQL.can_look_up(TableColumn("id", kind, kind, "utf8mb4"))
    assert kind == "text" or not POSTGRESQL.can_look_up(TableColumn("id", kind, kind, "UTF8"))


ALWAYS = "time_zone=@@global.time_zone,sql_mode='',sql_select_limit=18446744073709551615,sql_big_selects=1"


def test_times_are_in_the_unit_of_each_driver():
    limits = replace(Limits(), connect_seconds=1.5, socket_seconds=2.5, client_seconds=3.5, lock_seconds=4.5)
    charsets = "".join(f",character_set_{name}=utf8mb4" for name in ("client", "connection", "results"))
    for driver, others in ((MARIADB, charsets), (CONNECTOR_J, "")):
        parameters = MYSQL.parameters(driver, tls=False, verified=False, limits=limits)
        assert (parameters["connectTimeout"], parameters["socketTimeout"]) == ("1500", "2500")
        assert parameters["sessionVariables"] == f"net_write_timeout=4,lock_wait_timeout=5,{ALWAYS}{others}"
    parameters = POSTGRESQL.parameters(POSTGRESQL.driver, tls=False, verified=False, limits=limits)
    assert (parameters["connectTimeout"], parameters["socketTimeout"]) == ("2", "3")
    session = POSTGRESQL.session(limits)
    assert "SET idle_in_transaction_session_timeout = '4s'" in session
    assert "SET lock_timeout = '5s'" in session


@pytest.mark.parametrize(
    ("dialect", "driver", "verified", "expected"),
    [
        (MYSQL, CONNECTOR_J, False, {"sslMode": "REQUIRED"}),
        (MYSQL, MARIADB, False, {"useSSL": "true", "trustServerCertificate": "true"}),
        (MYSQL, MARIADB, True, {"useSSL": "true"}),
        (POSTGRESQL, POSTGRESQL.driver, False, {"sslmode": "require"}),
    ],
)
def test_encryption_is_what_each_driver_calls_it(dialect, driver, verified, expected):
    plain = dialect.parameters(driver, tls=False, verified=False, limits=Limits())
    assert dialect.parameters(driver, tls=True, verified=verified, limits=Limits()) == plain | expected
    assert not {"sslMode", "useSSL", "trustServerCertificate", "sslmode"} & set(plain)


def test_each_driver_streams_and_reads_no_file_of_a_worker():
    mysql = MYSQL.parameters(CONNECTOR_J, tls=False, verified=False, limits=Limits())
    mariadb = MYSQL.parameters(MARIADB, tls=False, verified=False, limits=Limits())
    assert (mysql["useCursorFetch"], mariadb["allowLocalInfile"]) == ("true", "false")


def test_only_postgresql_needs_the_database_in_its_url():
    assert MYSQL.address("jdbc:mysql://h:1/x", "y") == "jdbc:mysql://h:1/x"
    assert POSTGRESQL.address("jdbc:postgresql://h:1/x", "日 ?&") == "jdbc:postgresql://h:1/%E6%97%A5%20%3F%26"


@pytest.mark.parametrize(
    ("state", "code", "expected"),
    [
        ("28000", 1045, Failure.LOGIN_REFUSED),
        ("42000", 1044, Failure.TABLE_REFUSED),
        ("42000", 1049, Failure.TABLE_REFUSED),
        ("42S02", 1146, Failure.TABLE_REFUSED),
        ("40001", 1205, Failure.TRANSIENT),  # as Connector/J says it
        ("HY000", 1205, Failure.TRANSIENT),  # as the server does
        ("40001", 1213, Failure.TRANSIENT),
        ("42000", 1226, Failure.NO_CONNECTION_LEFT),
        ("08004", 1040, Failure.NO_CONNECTION_LEFT),
        ("HY000", 1345, Failure.FAILED),
        ("28000", 4151, Failure.ACCOUNT_REFUSED),  # the code goes before the state
        ("08004", 1130, Failure.ADDRESS_REFUSED),
        ("42S02", 0, Failure.TABLE_REFUSED),
        ("42S02", -1, Failure.TABLE_REFUSED),
        ("08S01", 0, Failure.TRANSIENT),
        ("08000", -1, Failure.TRANSIENT),
        ("08001", 0, Failure.FAILED),
        ("40002", 0, Failure.TRANSIENT),
        ("42000", 1064, None),
        ("HY000", 1030, None),
        ("S1000", 0, None),
        ("", 0, None),
    ],
)
def test_errors_of_mysql_mean_what_their_code_says_else_their_state(state, code, expected):
    assert MYSQL.failure(state, code) is expected


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("28P01", Failure.LOGIN_REFUSED),
        ("28000", Failure.LOGIN_REFUSED),
        ("3D000", Failure.TABLE_REFUSED),
        ("42P01", Failure.TABLE_REFUSED),
        ("42501", Failure.TABLE_REFUSED),
        ("08001", Failure.UNREACHABLE),
        ("08004", Failure.AUTHENTICATION_UNSUPPORTED),
        ("08006", Failure.TRANSIENT),
        ("40P01", Failure.TRANSIENT),
        ("53300", Failure.NO_CONNECTION_LEFT),
        ("57P01", Failure.TRANSIENT),
        ("57014", Failure.TRANSIENT),
        ("53200", None),  # out of memory
        ("42601", None),
        ("XX000", None),
        ("", None),
    ],
)
def test_errors_of_postgresql_mean_what_their_state_says(state, expected):
    assert POSTGRESQL.failure(state, 0) is expected


def test_a_server_that_admits_no_such_connection_is_no_wrong_password():
    text = 'FATAL: no pg_hba.conf entry for host "::1", user "etl", database "demo", no encryption'
    assert POSTGRESQL.failure("28000", 0, text) is Failure.TLS_REFUSED
    japanese = 'FATAL: ホスト"::1"、ユーザー"etl"用のエントリがpg_hba.confにありません'
    assert POSTGRESQL.failure("28000", 0, japanese) is Failure.ADDRESS_REFUSED


def test_each_code_of_mysql_has_one_meaning():
    codes = [(int(code), failure) for failure, names in MYSQL_CODES.items() for code in re.findall(r"\d{4}", names)]
    assert max(Counter(code for code, _ in codes).values()) == 1
    assert len(codes) == len(re.findall(r"(?:ER|CR)_\w+|RDS", " ".join(MYSQL_CODES.values())))
    assert all(MYSQL.failure("", code) is failure for code, failure in codes)
