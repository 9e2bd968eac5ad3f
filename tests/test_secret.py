"""Section `secret`: the secret and the connection, without servers."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from glue_job import Secret, SettingsError, make_database, make_secret, parse_secret
from tests.test_errors import english_in

VALUES = {
    "username": "etl",
    "password": "p@ss",
    "db_name": "shop",
    "table_name": "customers",
    "slack_webhook": "https://hooks.slack.com/services/T1/B1/token",
}
SECRET = Secret(name="a", **VALUES)
FIELDS = "Store a JSON object with username, password, db_name, table_name, slack_webhook (strings)."


def test_secret_is_read_and_hidden():
    secret = make_secret("a", parse_secret("a", json.dumps(VALUES)))
    assert secret == SECRET
    assert "p@ss" not in repr(secret)
    assert "token" not in repr(secret)


def test_webhook_is_optional():
    values = VALUES | {"slack_webhook": None}
    assert make_secret("a", values).slack_webhook == ""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "is not a JSON object"),
        ("password=hunter2", "is not a JSON object"),
        ('["hunter2"]', "is not a JSON object"),
        (json.dumps({"username": "etl", "password": 1, "db_name": ""}), "lacks password, db_name, table_name"),
        (json.dumps(VALUES | {"slack_webhook": "hunter2"}), "has a slack_webhook that is not a URL"),
        # what a template for it may hold; urlsplit takes brackets for an address of IPv6
        (
            json.dumps(VALUES | {"slack_webhook": "https://[hunter2]/services/x"}),
            "has a slack_webhook that is not a URL",
        ),
        (json.dumps(VALUES | {"slack_webhook": "https://[::1/services/x"}), "has a slack_webhook that is not a URL"),
        (json.dumps(VALUES | {"schema_name": ["hunter2"]}), "has a schema_name that is not a string"),
    ],
)
def test_wrong_secret_is_explained_and_not_quoted(text, problem):
    with pytest.raises(SettingsError) as caught:
        make_secret("a", parse_secret("a", text))
    assert str(caught.value) == f"Secret 'a' {problem}. {FIELDS}"
    assert "hunter2" not in str(caught.value)
    assert not english_in(caught.value)


def test_redaction_covers_password_webhook_and_its_token():
    text = f"x p@ss {VALUES['slack_webhook']} host=hooks.slack.com url=/services/T1/B1/token y"
    assert SECRET.redact(text) == "x *** *** host=hooks.slack.com url=/*** y"


def test_url_streams_and_times_out():
    database = make_database("c", {"JDBC_CONNECTION_URL": "jdbc:mysql://db:3306/shop"}, SECRET)
    assert database.host == "db:3306"
    assert database.driver == "com.mysql.cj.jdbc.Driver"
    assert database.url == (
        "jdbc:mysql://db:3306/shop?connectTimeout=10000&socketTimeout=600000"
        "&sessionVariables=net_write_timeout=3600,lock_wait_timeout=300&useCursorFetch=true"
    )
    assert "p@ss" not in repr(database)


def test_what_the_connection_says_wins():
    properties = {
        "JDBC_CONNECTION_URL": "jdbc:mysql://db/shop?connectTimeout=5&permitMysqlScheme",
        "JDBC_DRIVER_CLASS_NAME": "org.mariadb.jdbc.Driver",
        "JDBC_ENFORCE_SSL": "true",
    }
    assert make_database("c", properties, SECRET).url == (
        "jdbc:mysql://db/shop?connectTimeout=5&permitMysqlScheme&socketTimeout=600000"
        "&sessionVariables=net_write_timeout=3600,lock_wait_timeout=300&allowLocalInfile=false&useSSL=true&trustServerCertificate=true"
    )


def test_url_of_postgresql_names_the_database_of_the_secret():
    properties = {"JDBC_CONNECTION_URL": "jdbc:postgresql://db:5432/other?socketTimeout=5", "JDBC_ENFORCE_SSL": "true"}
    database = make_database("c", properties, replace(SECRET, db_name="shop ?&/%"))
    assert database.driver == "org.postgresql.Driver"
    assert database.url == (
        "jdbc:postgresql://db:5432/shop%20%3F%26%2F%25?socketTimeout=5&connectTimeout=10&tcpKeepAlive=true&sslmode=require"
    )
    assert database.table == ("shop ?&/%", "public", "customers")


def test_a_schema_is_postgresqls_alone():
    secret = make_secret("a", VALUES | {"schema_name": "app"})
    assert make_database("c", {"JDBC_CONNECTION_URL": "jdbc:postgresql://db/x"}, secret).table.schema == "app"
    with pytest.raises(
        SettingsError, match="schema_name 'app' is for PostgreSQL, the connection has jdbc:mysql://"
    ) as caught:
        make_database("c", {"JDBC_CONNECTION_URL": "jdbc:mysql://db/x"}, secret)
    assert not english_in(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "jdbc:mariadb://db/shop",
        "jdbc:oracle://db/x?password=p@ss",
        "jdbc:mysql:///shop",
        "jdbc:mysql://[your-host]:3306/shop",
        "jdbc:postgresql:x",
    ],
)
def test_other_urls_are_refused(url):
    with pytest.raises(SettingsError) as caught:
        make_database("c", {"JDBC_CONNECTION_URL": url}, SECRET)
    assert str(caught.value) == (
        f"Glue connection 'c': JDBC_CONNECTION_URL is {url.split('?')[0]!r}, expected "
        "jdbc:mysql://host:port/database or jdbc:postgresql://host:port/database. "
        "Correct the properties of the connection (configs.json)."
    )
    assert not english_in(caught.value)
