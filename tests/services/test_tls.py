"""TLS to the database: a real server whose certificate a private CA signed, verified, and refused where it is wrong."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from local.services.databases import MariaDB
from overlay.arguments import read_settings
from overlay.connection import load_database, make_database, read_ca
from overlay.errors import SettingsError, TableError
from overlay.table.jdbc import Cause, table_error
from tests.conftest import NUMBERS, Pipeline
from tests.samples import SECRET
from tests.texts import english_in


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[MariaDB]:
    """A server with a CA of its own and a certificate for another host."""
    with MariaDB(names="DNS:db.example.com") as server:
        yield server


@pytest.fixture
def tls_only(pipeline: Pipeline) -> Pipeline:
    """A pipeline that would succeed, whose user the server lets in by TLS alone."""
    user = f"tls{next(NUMBERS)}"
    pipeline.sql(
        f"CREATE TABLE {pipeline.name} (id INT PRIMARY KEY, name VARCHAR(20))",
        f"INSERT INTO {pipeline.name} VALUES (1, 'a')",
        f"CREATE USER {user} IDENTIFIED BY 'tls-p4ss' REQUIRE SSL",
        f"GRANT SELECT ON demo.* TO {user}",
    )
    pipeline.put(b'{"id":1}\n{"id":2}\n')
    pipeline.secret(username=user, password="tls-p4ss")
    return pipeline


def trust(pipeline: Pipeline, bundle: str, **changes: str) -> None:
    """Stores a CA bundle and lets the connection name it."""
    key = f"ca/{pipeline.name}.pem"
    pipeline.put(bundle.encode(), key)
    pipeline.connection(JDBC_ENFORCE_SSL="true", CUSTOM_JDBC_CERT=f"s3://lake/{key}", **changes)


def refused(pipeline: Pipeline, caplog) -> str:
    """The message of a run that ends at the certificate."""
    with caplog.at_level(logging.INFO), pytest.raises(TableError) as caught:
        pipeline.run()
    assert caught.value.code == "certificate_refused"
    assert "tls-p4ss" not in caplog.text
    return str(caught.value)


def test_a_certificate_is_verified_by_any_ca_of_a_bundle(tls_only, elsewhere, engine):
    """By the driver's own connections, and by those that executors open."""
    bundle = f"Amazon RDS has words between certificates\n{elsewhere.ca}# more\r\n{tls_only.database.ca}"
    trust(tls_only, bundle)
    tls_only.engine = engine
    result = tls_only.run()
    assert (result.engine, result.counts.matched) == (engine, 1)


def test_another_ca_is_refused(tls_only, elsewhere, caplog):
    trust(tls_only, elsewhere.ca)
    message = refused(tls_only, caplog)
    assert message.startswith(
        f"The certificate of the database at 127.0.0.1:{tls_only.database.port} was refused: PKIX"
    )
    assert f"Check that Database.ca_uri (s3://lake/ca/{tls_only.name}.pem) holds the CA that signed it" in message


def test_a_certificate_for_another_host_is_refused(tls_only, elsewhere, caplog):
    trust(tls_only, elsewhere.ca, JDBC_CONNECTION_URL=elsewhere.jdbc_url)
    message = refused(tls_only, caplog)
    assert "was refused: " in message
    assert '"127.0.0.1" doesn\'t correspond to certificate CN "test server"' in message


def test_without_a_ca_bundle_the_connection_is_encrypted_only(tls_only):
    tls_only.connection(JDBC_ENFORCE_SSL="true")
    assert tls_only.run().counts.matched == 1


def test_without_tls_the_user_is_not_let_in(tls_only):
    """Or the tests above would not show that it is on."""
    with pytest.raises(TableError) as caught:
        tls_only.run()
    assert caught.value.code == "login_refused"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (None, "does not exist"),
        (b"", "holds no certificates in PEM form"),
        (b"\x30\x82\x01", "holds no certificates in PEM form"),
        (
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "holds no certificates in PEM form",
        ),
    ],
)
def test_a_bundle_that_is_none_is_named(tls_only, body, problem):
    trust(tls_only, "")
    key = f"ca/{tls_only.name}.pem"
    client = tls_only.aws.client("s3")
    client.delete_object(Bucket="lake", Key=key) if body is None else tls_only.put(body, key)
    with pytest.raises(SettingsError) as caught:
        load_database(read_settings(tls_only.arguments()), SECRET)
    assert str(caught.value) == (
        f"The CA bundle s3://lake/{key} {problem}. "
        "Let Database.ca_uri name an S3 object with the certificates of the CA in PEM form."
    )
    assert not english_in(caught.value)


def test_only_the_certificates_of_a_bundle_go_on(tls_only, elsewhere):
    trust(tls_only, f"words\n{elsewhere.ca}# more\r\n{tls_only.database.ca}")
    certificates = read_ca(f"s3://lake/ca/{tls_only.name}.pem", tls_only.limits)
    assert certificates == f"{elsewhere.ca.strip()}\n{tls_only.database.ca.strip()}"


def test_an_expired_certificate_is_not_an_unreachable_host():
    properties = {
        "JDBC_CONNECTION_URL": "jdbc:mysql://db/shop",
        "JDBC_DRIVER_CLASS_NAME": "org.mariadb.jdbc.Driver",
        "JDBC_ENFORCE_SSL": "true",
        "CUSTOM_JDBC_CERT": "s3://lake/ca.pem",
    }
    problem = "PKIX path validation failed: java.security.cert.CertPathValidatorException: validity check failed"
    text = f"Could not connect to address=(host=db)(port=3306)(type=master) : {problem}"
    chain = [
        Cause("java.sql.SQLNonTransientConnectionException", text, "08000", 0, "x.Y", of_sql=True),
        Cause("javax.net.ssl.SSLHandshakeException", problem),
    ]
    error = table_error(chain, make_database("c", properties, SECRET), connecting=True)
    assert error.code == "certificate_refused"
    assert error.details["problem"].endswith("CertPathValidatorException: validity check failed")
    assert error.details["url"] == "s3://lake/ca.pem"
