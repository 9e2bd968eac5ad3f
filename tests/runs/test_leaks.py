"""Marked secrets, runs that succeed and that fail, and everything they leave: none of the secrets is in it.

What Terraform leaves is searched in tests/deploy, as are the runner's masks.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from local.glue.deploy import ARTIFACTS, Pipeline, deploy
from local.services.certificates import make_certificates
from local.services.processes import LOOPBACK
from local.services.slack import Reply
from tests import figures
from tests.conftest import CLOSED_PORT, NUMBERS, ROOT
from tests.leaks import leaks

pytestmark = pytest.mark.long

PASSWORD = "M4rked/p4ss+w0rd?&=%'\"\\<é>Zq"
WRONG = "Wr0ng/m4rked+p4ss?&=%'\"<ü>Qz"
# What is changed before a run, and what its log must tell, so that it failed where it was meant to.
VARIANTS = {
    "success": "RESULT ",
    "wrong password": "refused the login",
    "unreachable host": "cannot be reached",
    "SQL error": "failed: ",
    "secret that is no JSON": "is not a JSON object",
    "Slack that refuses": "Slack attempt 1: HTTP 404",
    "certificate that is refused": "was refused: ",
}
REACH_AN_ENGINE = {"success", "SQL error", "Slack that refuses"}


@pytest.mark.parametrize(
    "text",
    [
        PASSWORD,
        f"x{PASSWORD[:16]}",
        quote(PASSWORD),
        json.dumps({"a": PASSWORD}),
        *(base64.b64encode(f"{prefix}{PASSWORD} x".encode()).decode() for prefix in ("", "a", "ab")),
        PASSWORD[::-1],
        PASSWORD.encode().hex(),
    ],
)
def test_the_search_sees_what_is_there(text):
    assert leaks([("log", f"a {text} b".encode())], [PASSWORD])
    assert not leaks([("log", f"a {text} b".encode())], [WRONG])


@pytest.fixture
def marked(aws, database, slack) -> Iterator[Pipeline]:
    """A deployed pipeline whose user has the marked password."""
    name = f"leak{next(NUMBERS)}"
    with database.connect(autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE {name} (id INT PRIMARY KEY, v INT)")
        cursor.execute(f"CREATE VIEW broken{name} AS SELECT id, EXP(id * 1000) AS v FROM {name}")
        cursor.execute(f"INSERT INTO {name} VALUES (1, 2)")
        cursor.execute(f"CREATE USER {name} IDENTIFIED BY %s", [PASSWORD])
        cursor.execute(f"GRANT SELECT, SHOW VIEW ON demo.* TO {name}")
    pipeline = Pipeline(name, name, "lake", f"in/{name}.json", "lake", f"out/{name}.csv", slack.webhook)
    deploy(aws, database, pipeline, ROOT / "glue_job.py")
    return pipeline


def prepare(aws, slack, teams, pipeline: Pipeline, variant: str, home: Path) -> None:
    """Makes a run end as the variant says."""
    secret: dict[str, Any] = {
        "username": pipeline.name,
        "password": WRONG if variant == "wrong password" else PASSWORD,
        "db_name": "demo",
        "table_name": f"broken{pipeline.table}" if variant == "SQL error" else pipeline.table,
        "slack_webhook": slack.webhook,
        "teams_webhook": teams.webhook,
        "json_webhook": teams.webhook.replace("invoke?", "else?"),  # which nobody answers at
    }
    text = json.dumps(secret)
    text = text[:-1] if variant == "secret that is no JSON" else text
    aws.client("secretsmanager").put_secret_value(SecretId=pipeline.secret, SecretString=text)
    aws.client("s3").put_object(Bucket="lake", Key=pipeline.source_key, Body=b'{"id":1}')
    properties = aws.client("glue").get_connection(Name=pipeline.connection)["Connection"]["ConnectionProperties"]
    if variant == "unreachable host":
        properties["JDBC_CONNECTION_URL"] = f"jdbc:mysql://{LOOPBACK}:{CLOSED_PORT}/demo"
    if variant == "certificate that is refused":
        ca, _ = make_certificates(home, "DNS:elsewhere")
        aws.client("s3").put_object(Bucket="lake", Key="ca/other.pem", Body=ca.read_bytes())
        properties |= {"JDBC_ENFORCE_SSL": "true", "CUSTOM_JDBC_CERT": "s3://lake/ca/other.pem"}
    definition = {"Name": pipeline.connection, "ConnectionType": "JDBC", "ConnectionProperties": properties}
    aws.client("glue").update_connection(Name=pipeline.connection, ConnectionInput=definition)
    slack.answer(*[Reply(404, "no_service")] * (variant == "Slack that refuses"))
    teams.answer(*[Reply(401, f"no {teams.webhook}")] * (variant == "Slack that refuses"))


def left_behind(aws, slack, teams, pipeline: Pipeline, folder: Path) -> Iterator[tuple[str, bytes]]:
    """What can be read after a run by somebody who may not read the secret."""
    requests = [*slack.requests, *teams.requests]
    yield "messages", "\n".join(json.dumps(request.payload, ensure_ascii=False) for request in requests).encode()
    glue = aws.client("glue")
    yield "job", json.dumps(glue.get_job(JobName=pipeline.job)["Job"], default=str).encode()
    yield "connection", json.dumps(glue.get_connection(Name=pipeline.connection)["Connection"], default=str).encode()
    s3 = aws.client("s3")
    for bucket in ("lake", ARTIFACTS):
        for item in s3.list_objects_v2(Bucket=bucket)["Contents"]:
            if not item["Key"].endswith(".jar"):
                yield f"s3://{bucket}/{item['Key']}", s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
    for file in folder.rglob("*"):
        if file.is_file():
            yield file.name, file.read_bytes()


CASES = [*((variant, "driver") for variant in VARIANTS), ("success", "spark"), ("SQL error", "spark")]


@pytest.mark.parametrize(("variant", "engine"), CASES)
def test_nothing_that_a_run_leaves_holds_a_secret(aws, database, slack, teams, marked, tmp_path, variant, engine):
    (tmp_path / "ca").mkdir()
    prepare(aws, slack, teams, marked, variant, tmp_path / "ca")
    # As much as Glue logs, and the event log that its Spark UI is made of.
    conf = "spark.log.level=INFO --conf spark.eventLog.enabled=true --conf spark.eventLog.dir=" + tmp_path.as_uri()
    command = [sys.executable, "-m", "local", "run", marked.job, "--language", "en", "--engine", engine, "--conf", conf]
    environment = {**os.environ, **aws.environment()}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    log = done.stdout
    assert VARIANTS[variant].encode() in log, log[-3000:].decode()
    assert (f"engine {engine}:".encode() in log) == (variant in REACH_AN_ENGINE)
    assert (done.returncode == 0) == (variant in {"success", "Slack that refuses"})
    assert (b"SparkContext" in log) == (engine == "spark")
    traces = [("log", log), *left_behind(aws, slack, teams, marked, tmp_path)]
    assert any(b"SparkListenerApplicationStart" in data for _, data in traces) == (engine == "spark")
    # Nobody can read the webhooks of a secret that is no JSON.
    assert [len(receiver.requests) for receiver in (slack, teams)] == [0, 0] if "JSON" in variant else [1, 2]
    tokens = [slack.webhook.rpartition("/")[2], teams.webhook.rpartition("=")[2]]
    secrets = [PASSWORD, WRONG, slack.webhook, teams.webhook, *tokens, database.password]
    assert leaks(traces, secrets) == []
    figures.record("hostile", f"secrets after: {variant}, {engine} engine", outcome="none found", inputs=len(traces))
