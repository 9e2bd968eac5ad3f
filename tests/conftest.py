"""Real parts for the tests: both databases, moto's server, a Slack receiver, a Spark session, each started once."""

from __future__ import annotations

import gc
import itertools
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import hypothesis
import pytest

import glue_job
from local import demo
from local.glue import service
from local.glue.deploy import jdbc_jar
from local.services.aws import Aws
from local.services.databases import MariaDB, PostgreSQL
from local.services.slack import SlackReceiver, TeamsReceiver
from overlay import aws as job_aws
from overlay.arguments import read_settings
from overlay.connection import Database, make_database
from overlay.dialects.base import Dialect
from overlay.dialects.mysql import MySQL
from overlay.dialects.postgresql import PostgreSQL as PostgreSQLDialect
from overlay.limits import Limits
from overlay.report.result import Result
from overlay.secret import make_secret
from overlay.table.describe import Table, describe_with
from overlay.table.jdbc import Connection

ROOT = Path(__file__).resolve().parent.parent
# A JVM of a test lives for seconds: the optimizing compiler would cost it more than it gives.
os.environ.setdefault("SPARK_SUBMIT_OPTS", service.quick_java())
# For `--conf` where executors have JVMs of their own.
EXECUTORS_CONF = f"spark.executor.extraJavaOptions={service.QUICK_JAVA}"
hypothesis.settings.register_profile(
    "job",
    deadline=None,  # Spark's first run of a plan is many times slower
    derandomize=True,  # no test fails by chance; the soak searches
)
hypothesis.settings.load_profile("job")
NUMBERS = itertools.count(1)
CLOSED_PORT = 1  # of loopback, where nobody listens (tcpmux); a free port may be somebody's a moment later
CONNECTOR_J = "com.mysql.cj.jdbc.Driver"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks as long what Spark, of which a run takes seconds, does on MariaDB once more by MySQL's driver."""
    for item in items:
        call = getattr(item, "callspec", None)
        if call and "spark" in item.nodeid.lower() and "by_connector_j" in call.params.values():
            item.add_marker(pytest.mark.long)


def pytest_collection_finish() -> None:
    """Lets the garbage collector pass over the thousands of tests that there are until the end: 5 of 100 s."""
    gc.freeze()


def connector_j_jar() -> Path:
    """MySQL Connector/J, which Glue ships and Debian does not; MYSQL_JDBC_JAR names another (Glue's is 8.0.33)."""
    if named := os.environ.get("MYSQL_JDBC_JAR"):
        return Path(named)
    jars = sorted((ROOT / "build" / "drivers").glob("**/mysql-connector-j-*.jar"))
    assert jars, "MySQL Connector/J is missing. Run: make drivers"
    return jars[0]


@pytest.fixture(scope="session")
def terraform() -> None:
    """Terraform, without which a laptop skips what needs it; CI must have it (local.terraform then says so)."""
    if not (shutil.which("terraform") or os.environ.get("CI")):
        pytest.skip("terraform 1.11 or newer is not installed")


@pytest.fixture(scope="session")
def database() -> Iterator[MariaDB]:
    """A MariaDB server."""
    with MariaDB() as server:
        yield server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server with collations that take different texts for equal, an extension, types and domains."""
    with PostgreSQL() as server:
        with server.connect(autocommit=True) as connection:
            for name, level in (("no_case", 2), ("no_accent", 1)):
                options = f"provider = icu, locale = 'und-u-ks-level{level}', deterministic = false"
                connection.execute(f"CREATE COLLATION {name} ({options})")
            connection.execute("CREATE EXTENSION citext")
            connection.execute("CREATE TYPE mood AS ENUM ('a', '日')")
            connection.execute("CREATE TYPE pair AS (n INT, t TEXT, b BYTEA)")
            below = {"more": "whole", "most": "more"}  # domains of domains
            for name, kind in (("bytes", "bytea"), ("address", "inet"), ("mood", "mood"), ("list", "integer[]")):
                below |= {f"{name}_above": kind, f"{name}_below": f"{name}_above"}
            connection.execute("CREATE DOMAIN whole AS integer CHECK (VALUE > -100)")
            for name, kind in below.items():
                connection.execute(f"CREATE DOMAIN {name} AS {kind}")
        yield server


@pytest.fixture(scope="session")
def customers(database: MariaDB) -> MariaDB:
    """The server with the demo's table."""
    demo.fill_table(database)
    return database


@pytest.fixture(scope="session")
def aws() -> Iterator[Aws]:
    """Moto's server; the process environment points boto3 at it."""
    with Aws() as server:
        os.environ.update(server.environment())
        job_aws.client.cache_clear()
        server.client("s3").create_bucket(
            Bucket="lake", CreateBucketConfiguration={"LocationConstraint": "ap-northeast-1"}
        )
        yield server


@pytest.fixture(scope="session")
def slack_server() -> Iterator[SlackReceiver]:
    """The receiver of webhook posts."""
    with SlackReceiver() as server:
        yield server


@pytest.fixture
def slack(slack_server: SlackReceiver) -> SlackReceiver:
    """Empties the receiver for a test; what still comes of an earlier one goes to that one's lists."""
    slack_server.messages, slack_server.requests = [], []
    slack_server.answer()
    return slack_server


@pytest.fixture
def teams() -> Iterator[TeamsReceiver]:
    """A workflow of Teams."""
    with TeamsReceiver() as server:
        yield server


@pytest.fixture
def program() -> Iterator[TeamsReceiver]:
    """A receiver of JSON, which answers as Teams does."""
    with TeamsReceiver() as server:
        yield server


@pytest.fixture(scope="session")
def spark(aws: Aws) -> Iterator[Any]:
    """A Spark session in this process; its workers import the package from the repository."""
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    session = (
        SparkSession.builder.master("local[2,4]")  # a task has four attempts on Glue too
        .config("spark.jars", f"{jdbc_jar()},{jdbc_jar(PostgreSQL)},{connector_j_jar()}")
        .config("spark.driver.memory", "2g")
        .config("spark.python.daemon.module", "tests.spark_daemon")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("OFF")
    yield session
    session.stop()


@dataclass
class Pipeline:
    """One pipeline on the real parts: put the source, make the table, run the job in this process."""

    spark: Any
    aws: Aws
    database: MariaDB | PostgreSQL
    name: str
    webhook: str = ""
    driver: str = ""
    connection_name: str = ""
    engine: str = "auto"
    limits: Limits = field(default_factory=Limits)

    def sql(self, *statements: str) -> None:
        """Runs SQL as the owner of the database."""
        with self.database.connect(autocommit=True) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def table_texts(self, expressions: Sequence[str]) -> list[tuple[str | None, ...]]:
        """The rows as the server itself prints the expressions."""
        with self.database.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT {', '.join(expressions)} FROM {self.name}")
            return list(cursor.fetchall())

    @property
    def dialect(self) -> Dialect:
        """What the job makes of the database."""
        return PostgreSQLDialect() if self.on_postgresql else MySQL()

    def target(self, **secret: str) -> Database:
        """Makes the database as the job gets it from connection and secret."""
        login = {"username": self.database.user, "password": self.database.password}
        names = {"db_name": self.database.database, "table_name": self.name}
        return make_database("c", self.properties(), make_secret("s", login | names | secret), self.limits)

    def describe(
        self, key: str = "id", max_connections: int = 0, *, arguments: Mapping[str, str] | None = None, **secret: str
    ) -> Table:
        """The table as the job describes it."""
        settings = read_settings(self.arguments(key=key, **(arguments or {})), self.limits)
        with Connection(self.target(**secret)) as connection:
            return describe_with(connection, replace(settings, max_connections=max_connections))

    def series(self, last: int) -> str:
        """A table expression of the numbers from 1 on, in column `seq`."""
        return f"generate_series(1, {last}) AS seq" if self.on_postgresql else f"seq_1_to_{last}"

    @property
    def on_postgresql(self) -> bool:
        return isinstance(self.database, PostgreSQL)

    def properties(self, port: int = 0) -> dict[str, str]:
        """The properties of a Glue connection, as Terraform makes them; to another port where one is given."""
        url = self.database.jdbc_url.replace(f":{self.database.port}/", f":{port or self.database.port}/")
        if self.driver == CONNECTOR_J:
            url = url.removesuffix("?permitMysqlScheme")
        return {"JDBC_CONNECTION_URL": url, "JDBC_DRIVER_CLASS_NAME": self.driver or self.database.driver}

    def put(self, data: bytes, key: str | None = None) -> None:
        """Stores a source object."""
        self.aws.client("s3").put_object(Bucket="lake", Key=key or f"in/{self.name}.json", Body=data)

    def secret(self, **changes: str) -> None:
        """Stores the secret, with changes."""
        values = {
            "username": self.database.user,
            "password": self.database.password,
            "db_name": self.database.database,
            "table_name": self.name,
            "slack_webhook": self.webhook,
        } | changes
        client = self.aws.client("secretsmanager")
        try:
            client.create_secret(Name=self.name, SecretString=json.dumps(values))
        except client.exceptions.ResourceExistsException:
            client.put_secret_value(SecretId=self.name, SecretString=json.dumps(values))

    def connection(self, **changes: str) -> None:
        """Stores a Glue connection, with changes, and uses it from now on."""
        properties = self.properties() | changes
        self.connection_name = f"{self.name}-{next(NUMBERS)}"
        definition = {"Name": self.connection_name, "ConnectionType": "JDBC", "ConnectionProperties": properties}
        self.aws.client("glue").create_connection(ConnectionInput=definition)

    def arguments(self, **changes: str) -> list[str]:
        """The argument vector of a run."""
        values = {
            "JOB_NAME": f"job-{self.name}",
            "JOB_RUN_ID": "jr_1",
            "secret_name": self.name,
            "connection_name": self.connection_name,
            "source_bucket": "lake",
            "source_key": f"in/{self.name}.json",
            "destination_bucket": "lake",
            "destination_file": f"out/{self.name}.csv",
            "engine": self.engine,
        } | changes
        return ["glue_job.py", *itertools.chain.from_iterable((f"--{k}", v) for k, v in values.items())]

    def run(self, **changes: str) -> Result:
        """Runs the job."""
        return glue_job.run(self.arguments(**changes), self.limits)

    def output(self) -> bytes:
        """The published object."""
        return self.aws.client("s3").get_object(Bucket="lake", Key=f"out/{self.name}.csv")["Body"].read()

    def uploads(self) -> list[Any]:
        """Multipart uploads that nobody completed or aborted."""
        return self.aws.client("s3").list_multipart_uploads(Bucket="lake").get("Uploads", [])


@pytest.fixture
def make_pipeline(spark: Any, aws: Aws, database: MariaDB) -> Callable[..., Pipeline]:
    """Makes a pipeline of its own, with secret and connection."""

    def make(webhook: str = "", server: MariaDB | PostgreSQL = database, driver: str = "") -> Pipeline:
        pipeline = Pipeline(spark, aws, server, f"t{next(NUMBERS)}", webhook, driver)
        pipeline.secret()
        pipeline.connection()
        return pipeline

    return make


@pytest.fixture
def pipeline(make_pipeline: Callable[..., Pipeline], slack: SlackReceiver) -> Pipeline:
    """A pipeline on MariaDB that tells Slack."""
    return make_pipeline(slack.webhook)


@pytest.fixture
def by_connector_j(make_pipeline: Callable[..., Pipeline], slack: SlackReceiver) -> Pipeline:
    """A pipeline on MariaDB by the driver that Glue ships."""
    return make_pipeline(slack.webhook, driver=CONNECTOR_J)


@pytest.fixture(params=["pipeline", "by_connector_j"], ids=["mariadb", "connector_j"])
def by_each_driver(request: pytest.FixtureRequest) -> Pipeline:
    """A pipeline on MariaDB by each of the two drivers."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def on_postgresql(make_pipeline: Callable[..., Pipeline], slack: SlackReceiver, postgresql: PostgreSQL) -> Pipeline:
    """A pipeline on PostgreSQL that tells Slack."""
    return make_pipeline(slack.webhook, postgresql)


@pytest.fixture(params=["pipeline", "by_connector_j", "on_postgresql"], ids=["mariadb", "connector_j", "postgresql"])
def on_each(request: pytest.FixtureRequest) -> Pipeline:
    """A pipeline on each kind of server and by each driver, one after the other."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["driver", "spark"])
def engine(request: pytest.FixtureRequest) -> str:
    """Runs a test on each engine: both give the same bytes and counts."""
    return request.param


@pytest.fixture(autouse=True)
def new_clients(request: pytest.FixtureRequest) -> Iterator[None]:
    """Forgets the clients of AWS, which take a run 0.1 s, before and after a test that may change their environment."""
    if "monkeypatch" not in request.fixturenames:
        yield
        return
    job_aws.client.cache_clear()
    yield
    job_aws.client.cache_clear()
