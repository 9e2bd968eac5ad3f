"""TLS to the database: a real server whose certificate a private CA signed, verified, and refused where it is wrong."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

import glue_job
from glue_job import SettingsError, load_database, make_database, table_error
from local.services import MariaDB
from tests.conftest import NUMBERS, Pipeline
from tests.test_errors import english_in
from tests.test_run import ready  # noqa: F401  a fixture
from tests.test_secret import SECRET

PROPERTIES = {
    "JDBC_CONNECTION_URL": "jdbc:mysql://db/shop",
    "JDBC_DRIVER_CLASS_NAME": "org.mariadb.jdbc.Driver",
    "JDBC_ENFORCE_SSL": "true",
    "CUSTOM_JDBC_CERT": "s3://lake/ca.pem",
}


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[MariaDB]:
    """A server with a CA of its own and a certificate for another host."""
    with MariaDB(names="DNS:db.example.com") as server:
        yield server


@pytest.fixture
def tls_only(ready) -> Pipeline:  # noqa: F811
    """A pipeline whose user the server lets in by TLS alone."""
    user = f"tls{next(NUMBERS)}"
    ready.sql(
        f"CREATE USER {user} IDENTIFIED BY 'tls-p4ss' REQUIRE SSL",
        f"GRANT SELECT ON demo.* TO {user}",
    )
    ready.secret(username=user, password="tls-p4ss")
    return ready


def trust(pipeline: Pipeline, bundle: str, **changes: str) -> None:
    """Stores a CA bundle and lets the connection name it."""
    key = f"ca/{pipeline.name}.pem"
    pipeline.put(bundle.encode(), key)
    pipeline.connection(JDBC_ENFORCE_SSL="true", CUSTOM_JDBC_CERT=f"s3://lake/{key}", **changes)


def refused(pipeline: Pipeline, caplog) -> str:
    """The message of a run that ends at the certificate."""
    with caplog.at_level(logging.INFO), pytest.raises(glue_job.TableError) as caught:
        pipeline.run()
    assert caught.value.code == "certificate_refused"
    assert "tls-p4ss" not in caplog.text
    return str(caught.value)


def test_a_certificate_is_verified_by_any_ca_of_a_bundle(tls_only, elsewhere):
    bundle = f"Amazon RDS has words between certificates\n{elsewhere.ca}# more\r\n{tls_only.database.ca}"
    trust(tls_only, bundle)
    assert tls_only.run().matched == 1


def test_another_ca_is_refused(tls_only, elsewhere, caplog):
    trust(tls_only, elsewhere.ca)
    message = refused(tls_only, caplog)
    assert message.startswith(
        f"The certificate of the database at 127.0.0.1:{tls_only.database.port} was refused: PKIX"
    )
    assert f"Check that s3://lake/ca/{tls_only.name}.pem holds the CA that signed it" in message


def test_a_certificate_for_another_host_is_refused(tls_only, elsewhere, caplog):
    trust(tls_only, elsewhere.ca, JDBC_CONNECTION_URL=elsewhere.jdbc_url)
    message = refused(tls_only, caplog)
    assert "was refused: " in message
    assert '"127.0.0.1" doesn\'t correspond to certificate CN "test server"' in message


def test_without_a_ca_bundle_the_connection_is_encrypted_only(tls_only):
    tls_only.connection(JDBC_ENFORCE_SSL="true")
    assert tls_only.run().matched == 1


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
        load_database(tls_only.aws.client("glue"), client, tls_only.connection_name, SECRET)
    assert str(caught.value) == (
        f"The CA bundle s3://lake/{key} {problem}. "
        "Let Database.ca_uri name an S3 object with the certificates of the CA in PEM form."
    )
    assert not english_in(caught.value)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"CUSTOM_JDBC_CERT": "ca.pem"}, "CUSTOM_JDBC_CERT is 'ca.pem', expected s3://bucket/bundle.pem"),
        ({"CUSTOM_JDBC_CERT": "s3://[b]/ca"}, "CUSTOM_JDBC_CERT is 's3://[b]/ca', expected s3://bucket/bundle.pem"),
        ({"JDBC_ENFORCE_SSL": "false"}, "CUSTOM_JDBC_CERT is set, but JDBC_ENFORCE_SSL is not true"),
        ({"JDBC_DRIVER_CLASS_NAME": ""}, "CUSTOM_JDBC_CERT needs the driver org.mariadb.jdbc.Driver"),
        (
            {"JDBC_CONNECTION_URL": "jdbc:mysql://db/shop?trustServerCertificate=true"},
            "CUSTOM_JDBC_CERT is set, and trustServerCertificate in JDBC_CONNECTION_URL says how to verify",
        ),
    ],
)
def test_a_bundle_that_would_not_be_used_is_refused(changes, problem):
    with pytest.raises(SettingsError) as caught:
        make_database("c", PROPERTIES | changes, SECRET)
    assert f"Glue connection 'c': {problem}." in str(caught.value)
    assert not english_in(caught.value)


def test_with_a_bundle_the_url_trusts_nobody_else():
    database = make_database("c", PROPERTIES, SECRET)
    assert database.url.endswith("&useSSL=true")
    assert "serverSslCert" not in database.options
    assert database.ca_uri == "s3://lake/ca.pem"


def test_an_expired_certificate_is_not_an_unreachable_host():
    text = (
        "java.sql.SQLException: Could not connect to address=(host=db)(port=3306)(type=master) : PKIX path validation "
        "failed: java.security.cert.CertPathValidatorException: validity check failed\n\tat x"
    )
    error = table_error(text, make_database("c", PROPERTIES, SECRET))
    assert error.code == "certificate_refused"
    assert error.details["problem"].endswith("CertPathValidatorException: validity check failed")
