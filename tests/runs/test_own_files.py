"""What `make demo` and `make try` make of files and logs."""

from __future__ import annotations

import pytest

from local import demo, outcome, own_files
from local.pages import slack_page
from local.services.processes import ServiceError
from local.words import texts

WORDS = texts("en")
CSV = 'code,name\n{},"a ""b"""\n{},\n'


@pytest.fixture(params=["database", "postgresql"])
def server(request):
    database = request.getfixturevalue(request.param)
    yield database
    with database.connect(autocommit=True) as connection, connection.cursor() as cursor:
        for name in (own_files.TABLE, "dumped"):
            cursor.execute(f"DROP TABLE IF EXISTS {name}")


@pytest.mark.parametrize(("ids", "kind"), [(("7", "12"), int), (("007", "12"), str), (("A1", "B2"), str)])
def test_a_csv_becomes_a_table_whose_key_is_an_integer_where_all_are(server, tmp_path, ids, kind):
    path = tmp_path / "mine.csv"
    path.write_text("\ufeff" + CSV.format(*ids), encoding="utf-8")
    assert own_files.load(server, path, "code", WORDS) == own_files.TABLE
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT code, name FROM {own_files.TABLE} ORDER BY code DESC")
        rows = sorted(cursor.fetchall(), key=lambda row: ids.index(str(row[0])))
    assert [tuple(row) for row in rows] == [(kind(ids[0]), 'a "b"'), (kind(ids[1]), None)]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"kode,name\n1,x\n", "has no column 'code'. Columns: kode, name. Name it by KEY=."),
        ("a.csv", b"", "has no column 'code'. Columns: none."),
        ("a.csv", b"code\n\xff\n", "cannot be loaded: "),
        ("a.csv", b"code,b\n1\n", "cannot be loaded: "),
        ("a.sql", b"SELECT nonsense FROM nowhere;", "cannot be loaded: "),
    ],
)
def test_a_file_that_makes_no_table_is_told(server, tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ServiceError) as caught:
        own_files.load(server, tmp_path / name, "code", WORDS)
    assert words in str(caught.value)


def test_a_dump_names_its_table(server, tmp_path, monkeypatch):
    path = tmp_path / "dump.sql"
    path.write_text("CREATE TABLE dumped (code INT PRIMARY KEY); INSERT INTO dumped VALUES (7);")
    with server.connect(autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE dumps")
    monkeypatch.setattr(server, "database", "dumps")
    assert own_files.load(server, path, "code", WORDS) == "dumped"
    path.write_text("CREATE TABLE another (code INT)")
    with pytest.raises(ServiceError, match="should make one table; it made: "):
        own_files.load(server, path, "code", WORDS)
    monkeypatch.undo()
    with server.connect(autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("DROP DATABASE dumps")


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ServiceError, match=r"no\.json cannot be read: No such file or directory"):
        own_files.read(tmp_path / "no.json", WORDS)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (
            '2026-01-02 03:04:05,678 INFO STAGE {"stage": "source", "seconds": 1.25, "run_id": "x", "records": 30000}',
            "1.2 秒",
        ),
        ("2026-01-02 03:04:05,678 INFO engine driver: small", ""),
        ("2026-01-02 03:04:05,678 WARNING Slack attempt 1: HTTP 500", "Slack attempt 1: HTTP 500"),
        ("Traceback (most recent call last):", "Traceback (most recent call last):"),
    ],
)
def test_of_a_log_stages_and_problems_are_shown(line, shown):
    text = demo.readable(line, "ja")
    assert shown in text
    assert bool(shown) == bool(text)


def test_markup_of_slack_is_not_printed():
    message = {
        "blocks": [
            {"text": {"text": "*job* `a*b*c` <https://x/|Glue> &lt;1%"}},
            {"fields": [{"text": "*Rows*\n7"}, {"text": "*All rows*\n8"}]},
        ]
    }
    assert list(outcome.message_lines(message)) == ["  │ job a*b*c Glue <1%", "  │ Rows      7", "  │ All rows  8"]
    assert slack_page.unmarked("<!date^1^{date}|2026-01-01> *a _b_*") == "2026-01-01 a b"


def test_lines_of_a_csv_are_cut_to_a_terminal(tmp_path):
    csv = tmp_path / "out.csv"
    csv.write_bytes(("id,名前\n" + "長" * 200 + "\n" * 9).encode())
    lines = list(outcome.first_lines(csv, "utf-8"))
    assert lines[0] == "  id,名前"
    assert len(lines) == outcome.FIRST_LINES
    assert all(outcome.width(line) <= outcome.LINE_WIDTH + 2 for line in lines)
