"""How the job reaches the table: a Glue connection and the secret go in, a checked `Database` comes out.

Nobody connects here: what a database answers is the business of `table.jdbc`.
"""

import functools
import re
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from overlay.aws import aws_errors, client
from overlay.dialects.base import Dialect, TableName
from overlay.dialects.mysql import MySQL
from overlay.dialects.postgresql import PostgreSQL
from overlay.errors import Detail, Phrase, SettingsError, Verbatim, phrase
from overlay.limits import LIMITS, Limits
from overlay.secret import Secret, split_url
from overlay.settings import Settings

DIALECTS: tuple[Dialect, ...] = (MySQL(), PostgreSQL())
_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")
# Parameters of a JDBC URL by which a driver would not verify the certificate after all.
_UNVERIFIED = {"usessl", "sslmode", "trustservercertificate", "disablesslhostnameverification"}


@dataclass(frozen=True)
class Database:
    """Where the table is and how a JDBC driver logs in; the repr shows no secret."""

    dialect: Dialect
    host: str  # with the port, for people
    url: str
    driver: str  # its class
    secret: Secret = field(repr=False)
    ca_uri: str = ""  # the S3 object of the CA bundle; empty where the certificate of the server is not verified
    ca: str = field(repr=False, default="")  # the certificates in it, as PEM
    limits: Limits = field(repr=False, default=LIMITS)

    @property
    def table(self) -> TableName:
        """Where the table is in it."""
        schema = self.secret.schema_name or self.dialect.default_schema
        return TableName(self.secret.db_name, schema, self.secret.table_name)

    @property
    def options(self) -> dict[str, str]:
        """Options of Spark's JDBC source. `password` is one of those Spark itself redacts (spark.redaction.regex)."""
        return {
            "driver": self.driver,
            "user": self.secret.username,
            "password": self.secret.password,
            "fetchsize": str(self.limits.fetch_rows),
            "sessionInitStatement": self.dialect.session(self.limits),
            # The certificates themselves, as executors have no file of them.
            **({"serverSslCert": self.ca} if self.ca else {}),
        }


def load_database(settings: Settings, secret: Secret) -> Database:
    """Reads the Glue connection, and the CA bundle where it names one, from AWS.

    Raises:
        SettingsError: the connection is missing, is not a JDBC connection to one of DIALECTS, or has no CA bundle.
        AwsError: a call was denied or failed.
    """
    name, limits = settings.connection_name, settings.limits
    missing = SettingsError("connection_missing", connection=Verbatim(name))
    with aws_errors("glue:GetConnection", name, {"EntityNotFoundException": missing}):
        answer = client("glue", limits.aws).get_connection(Name=name, HidePassword=True)
    database = make_database(name, answer["Connection"].get("ConnectionProperties", {}), secret, limits)
    return replace(database, ca=read_ca(database.ca_uri, limits)) if database.ca_uri else database


def read_ca(url: str, limits: Limits) -> str:
    """The certificates in the CA bundle at an S3 URL, as PEM without what may stand between them.

    Raises:
        SettingsError: there is no such object, or no certificate in it.
        AwsError: S3 denied the call or failed.
    """
    parts, missing = urlsplit(url), SettingsError("ca_invalid", url=Verbatim(url), problem=phrase("ca_missing"))
    with aws_errors("s3:GetObject", url, dict.fromkeys(("NoSuchKey", "NoSuchBucket", "404"), missing)):
        body = client("s3", limits.aws).get_object(Bucket=parts.netloc, Key=parts.path[1:])["Body"]
        text = body.read().decode("ascii", "replace")
    bundle = "\n".join(_CERTIFICATE.findall(text))
    try:
        ssl.create_default_context(cadata=bundle or "-")
    except (ssl.SSLError, ValueError):
        raise SettingsError("ca_invalid", url=Verbatim(url), problem=phrase("no_certificates")) from None
    return bundle


def make_database(connection: str, properties: Mapping[str, str], secret: Secret, limits: Limits = LIMITS) -> Database:
    """The checked database from the properties of the Glue connection named `connection` and from the secret.

    What the URL of the connection says goes before what the dialect would add to it.

    Raises:
        SettingsError: the URL is for none of DIALECTS, a schema is named where there are none, or the CA is of no use.
    """
    base, _, query = properties.get("JDBC_CONNECTION_URL", "").partition("?")
    host = split_url(base.removeprefix("jdbc:")).netloc
    dialect = next((dialect for dialect in DIALECTS if base.startswith(dialect.scheme)), None)
    if dialect is None or not host:
        urls: list[Detail] = [Verbatim(f"{each.scheme}host:port/database") for each in DIALECTS]
        expected = functools.reduce(lambda first, second: phrase("or", first=first, second=second), urls)
        raise _invalid(connection, phrase("url_invalid", url=Verbatim(base), expected=expected))
    if secret.schema_name and not dialect.default_schema:
        schema, scheme = Verbatim(secret.schema_name), Verbatim(dialect.scheme)
        raise SettingsError("arguments_conflict", conflict=phrase("schema_unused", schema=schema, scheme=scheme))
    driver = properties.get("JDBC_DRIVER_CLASS_NAME") or dialect.driver
    tls = properties.get("JDBC_ENFORCE_SSL", "false").lower() == "true"
    ca_uri = properties.get("CUSTOM_JDBC_CERT", "")
    present = {item.partition("=")[0] for item in query.split("&")}
    if ca_uri and (problem := _ca_problem(ca_uri, driver, tls=tls, present=present)):
        raise _invalid(connection, problem)
    parameters = dialect.parameters(driver, tls=tls, verified=bool(ca_uri), limits=limits)
    added = [f"{name}={value}" for name, value in parameters.items() if name not in present]
    url = f"{dialect.address(base, secret.db_name)}?{'&'.join([query, *added] if query else added)}"
    return Database(dialect, host, url, driver, secret, ca_uri, limits=limits)


def _ca_problem(ca_uri: str, driver: str, *, tls: bool, present: Iterable[str]) -> Phrase | None:
    """Why a CA bundle would not be used (nobody shall believe in a verification that is none).

    `present` are the names of the parameters of the URL.
    """
    parts = split_url(ca_uri)
    if parts.scheme != "s3" or not parts.netloc or not parts.path.strip("/"):
        return phrase("ca_uri_invalid", uri=Verbatim(ca_uri))
    if not tls:
        return phrase("ca_without_tls")
    if not driver.startswith("org.mariadb."):
        # The others read a file that would have to lie on every worker.
        return phrase("ca_needs_driver")
    doubtful = sorted(name for name in present if name.lower() in _UNVERIFIED)
    return phrase("ca_doubted", names=Verbatim(", ".join(doubtful))) if doubtful else None


def _invalid(connection: str, problem: Phrase) -> SettingsError:
    return SettingsError("connection_invalid", connection=Verbatim(connection), problem=problem)
