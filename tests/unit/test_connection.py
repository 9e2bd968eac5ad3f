"""Module `connection`: the properties of a Glue connection as URL, driver and TLS, without servers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from overlay.connection import make_database
from overlay.dialects.base import TableName
from overlay.errors import SettingsError
from overlay.limits import Limits
from overlay.secret import make_secret
from tests.samples import SECRET, SECRET_VALUES
from tests.texts import english_in

WITH_CA = {
    "JDBC_CONNECTION_URL": "jdbc:mysql://db/shop",
    "JDBC_DRIVER_CLASS_NAME": "org.mariadb.jdbc.Driver",
    "JDBC_ENFORCE_SSL": "true",
    "CUSTOM_JDBC_CERT": "s3://lake/ca.pem",
}


def test_url_streams_and_times_out():
    database = make_database("c", {"JDBC_CONNECTION_URL": "jdbc:mysql://db:3306/shop"}, SECRET)
    assert database.host == "db:3306"
    assert database.driver == "com.mysql.cj.jdbc.Driver"
    assert database.url == (
        "jdbc:mysql://db:3306/shop?connectTimeout=10000&socketTimeout=600000"
        "&sessionVariables=net_write_timeout=3600,lock_wait_timeout=300,"
        "time_zone=@@global.time_zone,sql_mode='',sql_select_limit=18446744073709551615,sql_big_selects=1"
        "&useCursorFetch=true&processEscapeCodesForPrepStmts=false"
    )
    assert "p@ss" not in repr(database)


def test_times_are_those_of_the_limits():
    limits = Limits(connect_seconds=1.5, socket_seconds=2, client_seconds=0.5, lock_seconds=3)
    database = make_database("c", {"JDBC_CONNECTION_URL": "jdbc:mysql://db:3306/shop"}, SECRET, limits)
    assert database.limits is limits
    assert database.url.endswith(
        "?connectTimeout=1500&socketTimeout=2000&sessionVariables=net_write_timeout=1,lock_wait_timeout=3,"
        "time_zone=@@global.time_zone,sql_mode='',sql_select_limit=18446744073709551615,sql_big_selects=1"
        "&useCursorFetch=true&processEscapeCodesForPrepStmts=false"
    )


def test_a_driver_is_given_login_session_and_fetch_size():
    database = make_database("c", {"JDBC_CONNECTION_URL": "jdbc:mysql://db/shop"}, SECRET, Limits(fetch_rows=7))
    assert database.options == {
        "driver": "com.mysql.cj.jdbc.Driver",
        "user": "etl",
        "password": "p@ss",
        "fetchsize": "7",
        "sessionInitStatement": "SET SESSION TRANSACTION READ ONLY",
    }


def test_what_the_connection_says_wins():
    properties = {
        "JDBC_CONNECTION_URL": "jdbc:mysql://db/shop?connectTimeout=5&permitMysqlScheme",
        "JDBC_DRIVER_CLASS_NAME": "org.mariadb.jdbc.Driver",
        "JDBC_ENFORCE_SSL": "true",
    }
    assert make_database("c", properties, SECRET).url == (
        "jdbc:mysql://db/shop?connectTimeout=5&permitMysqlScheme&socketTimeout=600000"
        "&sessionVariables=net_write_timeout=3600,lock_wait_timeout=300,time_zone=@@global.time_zone,sql_mode='',"
        "sql_select_limit=18446744073709551615,sql_big_selects=1,"
        "character_set_client=utf8mb4,character_set_connection=utf8mb4,character_set_results=utf8mb4"
        "&allowLocalInfile=false&useSSL=true&trustServerCertificate=true"
    )


def test_url_of_postgresql_names_the_database_of_the_secret():
    properties = {"JDBC_CONNECTION_URL": "jdbc:postgresql://db:5432/other?socketTimeout=5", "JDBC_ENFORCE_SSL": "true"}
    database = make_database("c", properties, replace(SECRET, db_name="shop ?&/%"))
    assert database.driver == "org.postgresql.Driver"
    assert database.url == (
        "jdbc:postgresql://db:5432/shop%20%3F%26%2F%25?socketTimeout=5&connectTimeout=10&tcpKeepAlive=true&sslmode=require"
    )
    assert database.table == TableName("shop ?&/%", "public", "customers")


def test_a_schema_is_postgresqls_alone():
    secret = make_secret("a", SECRET_VALUES | {"schema_name": "app"})
    assert make_database("c", {"JDBC_CONNECTION_URL": "jdbc:postgresql://db/x"}, secret).table.schema == "app"
    with pytest.raises(
        SettingsError, match=r"SecretsManager\.schema_name 'app' is for PostgreSQL, the connection has jdbc:mysql://"
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
        "Correct Database in configs.json (ca_uri, enforce_ssl, endpoint) and run terraform apply."
    )
    assert not english_in(caught.value)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"CUSTOM_JDBC_CERT": "ca.pem"}, "is 'ca.pem', expected s3://bucket/bundle.pem"),
        ({"CUSTOM_JDBC_CERT": "s3://[b]/ca"}, "is 's3://[b]/ca', expected s3://bucket/bundle.pem"),
        ({"JDBC_ENFORCE_SSL": "false"}, "is set, but enforce_ssl (JDBC_ENFORCE_SSL) is not true"),
        ({"JDBC_DRIVER_CLASS_NAME": ""}, "needs the driver org.mariadb.jdbc.Driver"),
        (
            {"JDBC_CONNECTION_URL": "jdbc:mysql://db/shop?trustServerCertificate=true"},
            "is set, and trustServerCertificate in JDBC_CONNECTION_URL says how to verify",
        ),
    ],
)
def test_a_bundle_that_would_not_be_used_is_refused(changes, problem):
    with pytest.raises(SettingsError) as caught:
        make_database("c", WITH_CA | changes, SECRET)
    assert str(caught.value).startswith(f"Glue connection 'c': Database.ca_uri (CUSTOM_JDBC_CERT) {problem}. ")
    assert not english_in(caught.value)


def test_with_a_bundle_the_url_trusts_nobody_else():
    database = make_database("c", WITH_CA, SECRET)
    assert database.url.endswith("&useSSL=true")
    assert "serverSslCert" not in database.options
    assert database.ca_uri == "s3://lake/ca.pem"


def test_a_driver_is_given_the_certificates_themselves():
    database = replace(make_database("c", WITH_CA, SECRET), ca="-----BEGIN CERTIFICATE-----")
    assert database.options["serverSslCert"] == "-----BEGIN CERTIFICATE-----"
    assert "BEGIN" not in repr(database)
