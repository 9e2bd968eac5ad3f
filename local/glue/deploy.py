"""Makes through the AWS API what Terraform makes for one pipeline: secret, connection, code, jar and job."""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local.services.aws import Aws
from local.services.databases import MariaDB, PostgreSQL
from local.services.processes import ServiceError

ROOT = Path(__file__).resolve().parents[2]
ARTIFACTS = "artifacts"
# Where Debian puts the JDBC drivers, by which package, and the variable that names another place.
DEBIAN_JARS = {
    MariaDB: ("mariadb-java-client.jar", "libmariadb-java", "MARIADB_JDBC_JAR"),
    PostgreSQL: ("postgresql.jar", "libpostgresql-jdbc-java", "POSTGRESQL_JDBC_JAR"),
}
# Which Glue has which Spark: the one that is installed says which Glue this is.
GLUE_VERSIONS = {"3.5.4": "5.0", "3.5.6": "5.1", "4.1.1": "6.0"}


@dataclass(frozen=True)
class Pipeline:
    """One pipeline, as an entry of configs.json describes it.

    Attributes:
        arguments: Further default arguments of the job (`language`, `csv_encoding`, ...).
        glue: Changes of the job definition (`Timeout`, ...).
    """

    name: str
    table: str
    source_bucket: str
    source_key: str
    destination_bucket: str
    destination_file: str
    webhook: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    glue: Mapping[str, Any] = field(default_factory=dict)

    @property
    def job(self) -> str:
        """The name of the Glue job."""
        return f"job-{self.name}"

    @property
    def connection(self) -> str:
        """The name of the Glue connection."""
        return f"connection-{self.name}"

    @property
    def secret(self) -> str:
        """The name of the secret."""
        return f"rds-secret-{self.name}"


def jar_path(server: type[MariaDB | PostgreSQL], variables: Mapping[str, str]) -> Path:
    """Where the JDBC driver of a kind of server is, if it is installed."""
    name, _, variable = DEBIAN_JARS[server]
    return Path(variables.get(variable) or f"/usr/share/java/{name}")


def jdbc_jar(server: type[MariaDB | PostgreSQL] = MariaDB) -> Path:
    """The JDBC driver of a kind of server.

    Raises:
        ServiceError: it is not installed.
    """
    _, package, variable = DEBIAN_JARS[server]
    jar = jar_path(server, os.environ)
    if not jar.is_file():
        message = f"No JDBC driver at {jar}. Run: apt-get install {package}, or set {variable}."
        raise ServiceError(message)
    return jar


def glue_version() -> str:
    """The version of Glue that this environment stands for (requirements/glue-*.txt)."""
    return GLUE_VERSIONS[importlib.metadata.version("pyspark")]


def package_files(root: Path = ROOT) -> dict[str, Path]:
    """The modules of the package by the names they are deployed under, as main.tf deploys them.

    Glue lays the files of `--extra-py-files` side by side in one folder, so an `__init__.py`, which says that this
    folder is its package's path, goes by the name of its package.

    Raises:
        ServiceError: two have the same name.
    """
    files = {"glue_job.py": root / "glue_job.py"}
    for file in sorted((root / "overlay").rglob("*.py")):
        name = f"{file.parent.name}.py" if file.name == "__init__.py" else file.name
        if name in files:
            message = f"Glue would lay {file} over {files[name]} as {name}: rename one."
            raise ServiceError(message)
        files[name] = file
    return {name: file for name, file in sorted(files.items()) if name != "glue_job.py"}


def deploy(aws: Aws, database: MariaDB | PostgreSQL, pipeline: Pipeline, script: Path) -> str:
    """Makes everything for one pipeline, this repository's package beside the script; returns the name of the job."""
    upload_code(aws, script)
    return make_pipeline(aws, database, pipeline)


def upload_code(aws: Aws, script: Path) -> None:
    """Uploads the script, and this repository's package beside it."""
    s3, files = aws.client("s3"), {"glue_job.py": script, **package_files()}
    make_bucket(s3, ARTIFACTS)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda name: s3.put_object(Bucket=ARTIFACTS, Key=name, Body=files[name].read_bytes()), files))


def make_pipeline(aws: Aws, database: MariaDB | PostgreSQL, pipeline: Pipeline) -> str:
    """Makes everything for one pipeline but its code; returns the name of the job."""
    s3 = aws.client("s3")
    for bucket in {pipeline.source_bucket, pipeline.destination_bucket}:
        make_bucket(s3, bucket)
    if _jar(database):
        s3.upload_file(str(jdbc_jar()), ARTIFACTS, "mariadb-java-client.jar")
    secret = {
        "username": database.user,
        "password": database.password,
        "db_name": database.database,
        "table_name": pipeline.table,
        "slack_webhook": pipeline.webhook,
    }
    aws.client("secretsmanager").create_secret(Name=pipeline.secret, SecretString=json.dumps(secret))
    glue = aws.client("glue")
    glue.create_connection(ConnectionInput=_connection(database, pipeline))
    glue.create_job(**_job(database, pipeline))
    return pipeline.job


def make_bucket(s3: Any, bucket: str) -> None:
    """Makes a bucket unless it is there."""
    try:
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": s3.meta.region_name})
    except s3.exceptions.BucketAlreadyOwnedByYou:
        pass


def _jar(database: MariaDB | PostgreSQL) -> str | None:
    # The one of PostgreSQL is Glue's own, and from Glue 6.0 on that of MariaDB too.
    own = isinstance(database, MariaDB) and glue_version() < "6.0"
    return f"s3://{ARTIFACTS}/mariadb-java-client.jar" if own else None


def _connection(database: MariaDB | PostgreSQL, pipeline: Pipeline) -> dict[str, Any]:
    properties = {
        "JDBC_CONNECTION_URL": database.jdbc_url,
        "JDBC_DRIVER_CLASS_NAME": database.driver,
        "JDBC_DRIVER_JAR_URI": _jar(database),
        "JDBC_ENFORCE_SSL": "false",
        "SECRET_ID": pipeline.secret,
    }
    return {
        "Name": pipeline.connection,
        "ConnectionType": "JDBC",
        "ConnectionProperties": {name: value for name, value in properties.items() if value},
    }


def _job(database: MariaDB | PostgreSQL, pipeline: Pipeline) -> dict[str, Any]:
    own = {
        "secret_name": pipeline.secret,
        "connection_name": pipeline.connection,
        "source_bucket": pipeline.source_bucket,
        "source_key": pipeline.source_key,
        "destination_bucket": pipeline.destination_bucket,
        "destination_file": pipeline.destination_file,
        **pipeline.arguments,
    }
    jar = _jar(database)
    glues = {
        **({"--extra-jars": jar} if jar else {}),
        "--extra-py-files": ",".join(f"s3://{ARTIFACTS}/{name}" for name in package_files()),
        "--enable-metrics": "true",
        "--enable-observability-metrics": "true",
        "--enable-job-insights": "true",
        "--job-bookmark-option": "job-bookmark-disable",
        "--TempDir": f"s3://{ARTIFACTS}/temporary/",
    }
    return {
        "Name": pipeline.job,
        "Role": "arn:aws:iam::123456789012:role/glue",
        "GlueVersion": glue_version(),
        "WorkerType": "G.1X",
        "NumberOfWorkers": 2,
        "Timeout": 60,
        "MaxRetries": 0,
        "ExecutionProperty": {"MaxConcurrentRuns": 1},
        "Connections": {"Connections": [pipeline.connection]},
        "Command": {"Name": "glueetl", "PythonVersion": "3", "ScriptLocation": f"s3://{ARTIFACTS}/glue_job.py"},
        "DefaultArguments": glues | {f"--{name}": value for name, value in own.items()},
        **pipeline.glue,
    }
