"""Makes through the AWS API what Terraform makes for one pipeline: secret, connection, script, jar and job."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local.services import Aws, MariaDB, PostgreSQL, ServiceError

ARTIFACTS = "artifacts"
# Where Debian puts the JDBC drivers, by which package, and the variable that names another place.
DEBIAN_JARS = {
    MariaDB: ("mariadb-java-client.jar", "libmariadb-java", "MARIADB_JDBC_JAR"),
    PostgreSQL: ("postgresql.jar", "libpostgresql-jdbc-java", "POSTGRESQL_JDBC_JAR"),
}


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


def jdbc_jar(server: type[MariaDB | PostgreSQL] = MariaDB) -> Path:
    """The JDBC driver of a kind of server.

    Raises:
        ServiceError: it is not installed.
    """
    name, package, variable = DEBIAN_JARS[server]
    jar = Path(os.environ.get(variable) or f"/usr/share/java/{name}")
    if not jar.is_file():
        message = f"No JDBC driver at {jar}. Run: apt-get install {package}, or set {variable}."
        raise ServiceError(message)
    return jar


def deploy(aws: Aws, database: MariaDB | PostgreSQL, pipeline: Pipeline, script: Path) -> str:
    """Makes everything for one pipeline; returns the name of the job."""
    s3 = aws.client("s3")
    for bucket in {ARTIFACTS, pipeline.source_bucket, pipeline.destination_bucket}:
        make_bucket(s3, bucket)
    s3.upload_file(str(script), ARTIFACTS, "glue_job.py")
    if isinstance(database, MariaDB):
        s3.upload_file(str(jdbc_jar()), ARTIFACTS, "mariadb-java-client.jar")
    secret = {
        "username": database.user,
        "password": database.password,
        "db_name": database.database,
        "table_name": pipeline.table,
        "slack_webhook": pipeline.webhook,
    }
    aws.client("secretsmanager").create_secret(Name=pipeline.name, SecretString=json.dumps(secret))
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
    # The one of PostgreSQL is Glue's own.
    return f"s3://{ARTIFACTS}/mariadb-java-client.jar" if isinstance(database, MariaDB) else None


def _connection(database: MariaDB | PostgreSQL, pipeline: Pipeline) -> dict[str, Any]:
    properties = {
        "JDBC_CONNECTION_URL": database.jdbc_url,
        "JDBC_DRIVER_CLASS_NAME": database.driver,
        "JDBC_DRIVER_JAR_URI": _jar(database),
        "JDBC_ENFORCE_SSL": "false",
        "SECRET_ID": pipeline.name,
    }
    return {
        "Name": pipeline.name,
        "ConnectionType": "JDBC",
        "ConnectionProperties": {name: value for name, value in properties.items() if value},
    }


def _job(database: MariaDB | PostgreSQL, pipeline: Pipeline) -> dict[str, Any]:
    own = {
        "secret_name": pipeline.name,
        "connection_name": pipeline.name,
        "source_bucket": pipeline.source_bucket,
        "source_key": pipeline.source_key,
        "destination_bucket": pipeline.destination_bucket,
        "destination_file": pipeline.destination_file,
        **pipeline.arguments,
    }
    jar = _jar(database)
    glues = {
        **({"--extra-jars": jar} if jar else {}),
        "--enable-metrics": "true",
        "--enable-observability-metrics": "true",
        "--enable-job-insights": "true",
        "--job-bookmark-option": "job-bookmark-disable",
        "--TempDir": f"s3://{ARTIFACTS}/temporary/",
    }
    return {
        "Name": pipeline.job,
        "Role": "arn:aws:iam::123456789012:role/glue",
        "GlueVersion": "5.0",
        "WorkerType": "G.1X",
        "NumberOfWorkers": 2,
        "Timeout": 60,
        "MaxRetries": 0,
        "ExecutionProperty": {"MaxConcurrentRuns": 1},
        "Connections": {"Connections": [pipeline.name]},
        "Command": {"Name": "glueetl", "PythonVersion": "3", "ScriptLocation": f"s3://{ARTIFACTS}/glue_job.py"},
        "DefaultArguments": glues | {f"--{name}": value for name, value in own.items()},
        **pipeline.glue,
    }
