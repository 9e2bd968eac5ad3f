"""The reader's own two files for `make try`: the JSON as it is, the table out of a CSV or an SQL dump."""

from __future__ import annotations

import csv
import io
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from local.services.databases import MariaDB, PostgreSQL
from local.services.processes import ServiceError, program
from overlay.dialects.base import Dialect
from overlay.dialects.mysql import MySQL
from overlay.dialects.postgresql import PostgreSQL as PostgreSQLDialect

TABLE = "mine"
ROWS_AT_A_TIME = 1_000
CLIENTS = {MariaDB: ("mariadb", "mariadb-client"), PostgreSQL: ("psql", "postgresql-client")}
DIALECTS: Mapping[type[MariaDB | PostgreSQL], Dialect] = {MariaDB: MySQL(), PostgreSQL: PostgreSQLDialect()}


def read(path: Path, words: Mapping[str, str]) -> bytes:
    """The bytes of a file.

    Raises:
        ServiceError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        message = words["no_file"].format(file=path, reason=error.strerror)
        raise ServiceError(message) from None


def load(database: MariaDB | PostgreSQL, path: Path, key: str, words: Mapping[str, str]) -> str:
    """Makes the table; its name.

    Raises:
        ServiceError: the file cannot be loaded, or does not make one table.
    """
    if path.suffix == ".sql":
        return load_dump(database, path, words)
    return load_csv(database, path, key, words)


def load_csv(database: MariaDB | PostgreSQL, path: Path, key: str, words: Mapping[str, str]) -> str:
    """Makes a table of text columns, with an index on the key; what a CSV leaves empty is null.

    The key is an integer where all its values are, as in a table of one's own: `7` and `007` are then the same.

    Raises:
        ServiceError: the file has no such column, or is no CSV.
    """
    try:
        rows = list(csv.reader(io.StringIO(read(path, words).decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        message = words["not_loaded"].format(file=path, reason=error)
        raise ServiceError(message) from None
    header, values = (rows[0], [row for row in rows[1:] if row]) if rows else ([], [])
    if key not in header:
        known = ", ".join(header) or words["none"]
        message = words["no_key"].format(file=path, key=key, columns=known)
        raise ServiceError(message)
    integer = all(re.fullmatch(r"-?(0|[1-9]\d{0,17})", row[header.index(key)]) for row in values)
    names = [DIALECTS[type(database)].quote_name(name) for name in header]
    text = "LONGTEXT" if isinstance(database, MariaDB) else "TEXT"
    kinds = [("BIGINT" if integer else "VARCHAR(255)") if name == key else text for name in header]
    columns = ", ".join(f"{name} {kind}" for name, kind in zip(names, kinds, strict=True))
    marks = ", ".join(["%s"] * len(header))
    try:
        with database.connect(autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE TABLE {TABLE} ({columns.replace('%', '%%')})")
            cursor.execute(f"CREATE INDEX {TABLE}_key ON {TABLE} ({names[header.index(key)]})")
            for start in range(0, len(values), ROWS_AT_A_TIME):
                some = [[cell or None for cell in row] for row in values[start : start + ROWS_AT_A_TIME]]
                cursor.executemany(f"INSERT INTO {TABLE} VALUES ({marks})", some)
    except Exception as error:  # of two drivers
        message = words["not_loaded"].format(file=path, reason=error)
        raise ServiceError(message) from None
    return TABLE


def load_dump(database: MariaDB | PostgreSQL, path: Path, words: Mapping[str, str]) -> str:
    """Lets the client of the database run an SQL dump, which must make one table.

    Raises:
        ServiceError: it fails, or makes none or several.
    """
    client = program(*CLIENTS[type(database)])
    login = [f"--host={database.host}", f"--port={database.port}"]
    if isinstance(database, MariaDB):
        command = [client, "--no-defaults", *login, f"--user={database.user}", database.database]
        environment = {"MYSQL_PWD": database.password}
    else:
        options = ["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--output=/dev/null"]
        command = [client, *options, *login, f"--username={database.user}", database.database]
        environment = {"PGPASSWORD": database.password}
    with path.open("rb") as dump:
        done = subprocess.run(  # noqa: S603
            command, stdin=dump, capture_output=True, text=True, check=False, env=os.environ | environment
        )
    if done.returncode:
        message = words["not_loaded"].format(file=path, reason=done.stderr.strip()[-500:])
        raise ServiceError(message)
    schema = database.database if isinstance(database, MariaDB) else "public"
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = %s", [schema])
        names = [str(row[0]) for row in cursor.fetchall()]
    if len(names) != 1:
        message = words["tables"].format(file=path, tables=", ".join(names) or words["none"])
        raise ServiceError(message)
    return names[0]
