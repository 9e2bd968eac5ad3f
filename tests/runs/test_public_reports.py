"""Bug reports of others who do this job, each tried on this one: the value, or the message, that a user should see."""

from __future__ import annotations

import pytest

from overlay.errors import SourceError
from tests.services.test_types import set_globally

LINES = b'{"id":1}\n{"id":2}\n{"id":3}\n'


@pytest.fixture
def on_mariadb(by_each_driver, engine):
    """A pipeline on MariaDB by each driver, on each engine."""
    by_each_driver.engine = engine
    return by_each_driver


@pytest.fixture
def on_postgres(on_postgresql, engine):
    """A pipeline on PostgreSQL, on each engine."""
    on_postgresql.engine = engine
    return on_postgresql


def csv_of(pipeline, source=LINES, **arguments):
    """The lines of the CSV of a run, without the header."""
    pipeline.put(source)
    pipeline.run(**arguments)
    return pipeline.output().decode().splitlines()[1:]


def table(pipeline, columns, *rows, name=""):
    """Makes the table of a pipeline."""
    pipeline.sql(
        f"CREATE TABLE {name or pipeline.name} (id INT PRIMARY KEY, {columns})",
        f"INSERT INTO {name or pipeline.name} VALUES {', '.join(rows)}",
    )


def test_tinyint_1_keeps_its_number(on_mariadb):
    """aws-samples/aws-glue-samples#132: a tinyint(1) with 0 to 5 cannot be had from Glue."""
    table(on_mariadb, "a TINYINT(1)", "(1, 0)", "(2, 5)", "(3, -128)")
    assert csv_of(on_mariadb) == ["1,0", "2,5", "3,-128"]


def test_a_table_named_user_is_that_of_the_database(on_mariadb):
    """awsdocs/aws-glue-developer-guide#104: `user` is read from the schema mysql."""
    on_mariadb.sql("DROP TABLE IF EXISTS demo.user")
    table(on_mariadb, "a TEXT", "(1, 'x')", name="demo.user")
    on_mariadb.secret(table_name="user")
    assert csv_of(on_mariadb) == ["1,x", "2,", "3,"]


def test_zeros_at_the_end_stay(on_mariadb):
    """airbytehq/airbyte#56458: 0.0 is written as 0; here from both sides."""
    table(on_mariadb, "a DECIMAL(5,1), b TEXT", "(1, 0.0, NULL)", "(2, 10.0, NULL)")
    source = b'{"id":1,"b":0.0}\n{"id":2,"b":1.50}\n{"id":3,"b":1e2}\n'
    assert csv_of(on_mariadb, source) == ["1,0.0,0.0", "2,1.50,10.0", "3,1e2,"]


def test_zero_dates_are_printed(on_mariadb):
    """airbytehq/airbyte#6093: a date of zeros fails, or becomes null."""
    on_mariadb.sql(f"CREATE TABLE {on_mariadb.name} (id INT PRIMARY KEY, a DATE, b DATETIME)")
    with on_mariadb.database.connect(autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION sql_mode = ''")
        cursor.execute(f"INSERT INTO {on_mariadb.name} VALUES (1, 0, 0), (2, '2026-02-00', '2026-00-00 01:02:03')")
    assert csv_of(on_mariadb) == ["1,0000-00-00,0000-00-00 00:00:00", "2,2026-02-00,2026-00-00 01:02:03", "3,,"]


def test_decimals_beyond_38_digits_are_whole(on_mariadb):
    """reapit/foundations#2659: decimals of some lengths do not arrive."""
    most = "12345678901234567890123456789012345.123456789012345678901234567890"
    table(on_mariadb, "a DECIMAL(65,30)", f"(1, {most})", f"(2, -{most})")
    assert csv_of(on_mariadb) == [f"1,{most}", f"2,-{most}", "3,"]


@pytest.mark.parametrize("setting", ["sql_select_limit = 2", "max_join_size = 1"])
def test_a_limit_of_the_server_takes_no_rows_away(on_mariadb, setting):
    """Qihoo360/Quicksql#121: a connection returns so many rows and no more; here by a variable of the server."""
    table(on_mariadb, "a TEXT", *(f"({number}, 'x')" for number in (1, 2, 3)))
    name, value = setting.split(" = ")
    with set_globally(on_mariadb, name, value):
        assert csv_of(on_mariadb) == ["1,x", "2,x", "3,x"]


def test_infinite_dates_are_printed(on_postgres):
    """apache/spark#41843, AbsaOSS/pramen#375: infinity overflows, or becomes the year 9999."""
    table(on_postgres, "a DATE, b TIMESTAMPTZ", "(1, 'infinity', '-infinity')", "(2, '0044-03-15 BC', '294276-01-01Z')")
    assert csv_of(on_postgres) == ["1,infinity,-infinity", "2,0044-03-15 BC,294276-01-01 00:00:00+00", "3,,"]


def test_numeric_without_a_precision_is_as_written(on_postgres):
    """AbsaOSS/pramen#394: numeric without precision and scale fails, or gets 18 places."""
    table(on_postgres, "a NUMERIC", "(1, 1)", "(2, 1.50)", "(3, 1e-30)")
    assert csv_of(on_postgres) == ["1,1", "2,1.50", "3,0.000000000000000000000000000001"]


def test_records_without_a_line_between_them_are_refused(on_mariadb):
    """logstash-plugins/logstash-input-s3#130, s12v/awsbeats#39: of what Firehose joins, the first record is read."""
    table(on_mariadb, "a TEXT", "(1, 'x')")
    on_mariadb.put(b'{"id":1}{"id":2}{"id":3}')
    with pytest.raises(SourceError) as caught:
        on_mariadb.run()
    assert "byte offset 0: more than one value on the line" in str(caught.value)


def test_rows_whose_order_is_another_come_once(on_mariadb):
    """mydumper/mydumper#1888: rows at the edges of ranges are dumped twice."""
    on_mariadb.sql(
        f"CREATE TABLE {on_mariadb.name} (id BIGINT UNSIGNED PRIMARY KEY, a INT)",
        f"INSERT INTO {on_mariadb.name} SELECT IF(seq > 1000, 18446744073709551615 - seq, seq), seq FROM seq_1_to_2000",
    )
    ids = [*range(1, 1001), *(2**64 - 1 - number for number in range(1001, 2001))]
    source = "\n".join(f'{{"id":{number}}}' for number in ids).encode()
    assert csv_of(on_mariadb, source) == [f"{key},{number}" for number, key in enumerate(ids, 1)]
