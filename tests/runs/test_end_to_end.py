"""The deployed job through `python -m local run`: the uploaded script, its own process, exit status, no leftovers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import boto3
import pytest
import requests

import glue_job
from local.glue.deploy import ARTIFACTS, Pipeline, deploy
from local.glue.service import client, read_definition, role_credentials, run_job, script_arguments
from local.services.aws import Aws
from local.services.processes import STOP_SECONDS
from overlay.errors import JobError, SourceError, Verbatim
from overlay.limits import Limits
from reference import oracle
from tests.conftest import EXECUTORS_CONF, NUMBERS, ROOT

ROWS = [(str(i), f"顧客{i}", None if i % 3 else f"{i}.50") for i in range(1, 501)]
RECORDS = [{"id": i, "name": None if i % 2 else f"新{i}", "tags": [1.5, "あ"]} for i in range(250, 750)]


def deploy_on(server, aws, slack) -> Pipeline:
    """A deployed pipeline with a table on a server, and a source."""
    name = f"e2e{next(NUMBERS)}"
    with server.connect(autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE {name} (id INT PRIMARY KEY, name VARCHAR(20), price DECIMAL(8,2))")
        cursor.executemany(f"INSERT INTO {name} VALUES (%s, %s, %s)", ROWS)
    pipeline = Pipeline(name, name, "lake", f"in/{name}.json", "lake", f"out/{name}.csv", slack.webhook)
    deploy(aws, server, pipeline, ROOT / "glue_job.py")
    aws.client("s3").put_object(Bucket="lake", Key=pipeline.source_key, Body=json.dumps(RECORDS).encode())
    return pipeline


@pytest.fixture
def deployed(aws, database, slack):
    """A deployed pipeline on MariaDB."""
    return deploy_on(database, aws, slack)


def command(aws, *arguments: str) -> subprocess.Popen:
    """`python -m local ...` as a user starts it."""
    environment = {**os.environ, **aws.environment()}
    return subprocess.Popen(
        [sys.executable, "-m", "local", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def processes_with(text: str) -> list[str]:
    """Living processes whose command line or environment holds a text."""
    lines = []
    for folder in Path("/proc").iterdir():
        try:
            line = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
        except OSError:
            continue
        if text.encode() in line and folder.name != str(os.getpid()):
            lines.append(line.replace(b"\0", b" ").decode(errors="replace")[:200])
    return lines


@pytest.mark.long
def test_executors_in_processes_of_their_own_publish_the_same(aws, slack, deployed, database, capfd):
    """Two executor JVMs beside the driver's, which verify the database's certificate; several tasks at each stage."""
    aws.client("s3").put_object(Bucket="lake", Key="ca/executors.pem", Body=database.ca.encode())
    glue = aws.client("glue")
    properties = glue.get_connection(Name=deployed.connection)["Connection"]["ConnectionProperties"]
    properties |= {"JDBC_ENFORCE_SSL": "true", "CUSTOM_JDBC_CERT": "s3://lake/ca/executors.pem"}
    connection = {"Name": deployed.connection, "ConnectionType": "JDBC", "ConnectionProperties": properties}
    glue.update_connection(Name=deployed.connection, ConnectionInput=connection)
    sources = [
        "\n".join(json.dumps({"id": i, "name": f"あ{i}" * 20 if i % 2 else None}) for i in range(first, first + 60_000))
        for first in (0, 60_000, 120_000, 180_000)
    ]
    folder = f"in/{deployed.name}/"
    for number, source in enumerate(sources):
        aws.client("s3").put_object(Bucket="lake", Key=f"{folder}{number}.json", Body=source.encode())
    with database.connect(autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(f"TRUNCATE {deployed.table}")
        cursor.execute(
            f"INSERT INTO {deployed.table} SELECT seq * 3, CONCAT('顧客', seq), seq / 8 FROM seq_1_to_100000"
        )
        cursor.execute(f"SELECT CAST(id AS CHAR), name, CAST(price AS CHAR) FROM {deployed.table}")
        rows = cursor.fetchall()
    environment = {"LOCAL_SPARK_MASTER": "local-cluster[2,1,1024]", "LOCAL_SPARK_MEMORY": "1g"}
    arguments = {"--source_key": folder, "--engine": "spark", "--conf": EXECUTORS_CONF}
    assert run_job(deployed.job, arguments, environment=environment | aws.environment()) == 0
    log = capfd.readouterr().err
    expected = oracle.overlay([source.encode() for source in sources], ("id", "name", "price"), rows)
    assert aws.client("s3").get_object(Bucket="lake", Key=deployed.destination_file)["Body"].read() == expected.csv
    result = json.loads(log.split(" RESULT ", 1)[1].splitlines()[0])
    assert {name: result[name] for name in expected.counts} == expected.counts
    assert result["engine"] == "spark"


def test_the_deployed_job_publishes_what_the_oracle_says(aws, slack, deployed, database):
    process = command(aws, "run", deployed.job, "--language", "en")
    log, _ = process.communicate(timeout=180)
    assert process.returncode == 0, log
    expected = oracle.overlay([json.dumps(RECORDS).encode()], ("id", "name", "price"), ROWS)
    output = aws.client("s3").get_object(Bucket="lake", Key=deployed.destination_file)["Body"].read()
    assert output == expected.csv
    result = json.loads(log.split(" RESULT ", 1)[1].splitlines()[0])
    assert {name: result[name] for name in expected.counts} == expected.counts
    assert result["engine"] == "driver"
    assert [message["text"].splitlines()[0] for message in slack.messages] == [f"✅ {deployed.job}: published"]
    for secret in (database.password, slack.webhook):
        assert secret not in log
    assert f"The CSV begins: s3://lake/{deployed.destination_file}\n  {expected.csv.decode().splitlines()[0]}\n" in log
    [page] = re.findall(r"the run report +(\S+)", log)
    assert deployed.job in (ROOT / page).read_text()


def test_the_deployed_job_reads_postgresql(aws, slack, postgresql):
    pipeline = deploy_on(postgresql, aws, slack)
    process = command(aws, "run", pipeline.job, "--language", "en")
    log, _ = process.communicate(timeout=180)
    assert process.returncode == 0, log
    expected = oracle.overlay([json.dumps(RECORDS).encode()], ("id", "name", "price"), ROWS)
    assert aws.client("s3").get_object(Bucket="lake", Key=pipeline.destination_file)["Body"].read() == expected.csv
    assert [message["text"].splitlines()[0] for message in slack.messages] == [f"✅ {pipeline.job}: published"]
    assert postgresql.password not in log


def test_a_failed_job_exits_with_1_and_one_message(aws, slack, deployed, database):
    process = command(aws, "run", deployed.job, "--source_key", "in/nope.json")
    log, _ = process.communicate(timeout=180)
    assert process.returncode == 1
    cause, hint = SourceError("source_missing", url=Verbatim("s3://lake/in/nope.json")).message("ja")
    assert log.splitlines()[-3:] == ["入力の確認で失敗しました", cause, hint]
    before = log.split("\nブラウザーで開くページ")[0]
    assert (before.count(cause), before.count(hint), log.count("Traceback")) == (1, 1, 0)
    [message] = slack.messages
    assert message["text"].splitlines()[0] == f"❌ {deployed.job}: 失敗しました (入力の確認)"
    for secret in (database.password, slack.webhook):
        assert secret not in log


@pytest.mark.long
def test_processes_that_parse_import_what_was_uploaded(aws, deployed):
    """They start in the folder of the run, which holds neither the package nor its sources."""
    records = [{"id": number, "tags": [1.5, "x" * 30_000]} for number in range(1_200)]
    data = "\n".join(map(json.dumps, records)).encode()
    assert len(data) > Limits().process_bytes_min
    aws.client("s3").put_object(Bucket="lake", Key=deployed.source_key, Body=data)
    process = command(aws, "run", deployed.job)
    log, _ = process.communicate(timeout=300)
    assert process.returncode == 0, log
    assert "the source is parsed by " in log
    output = aws.client("s3").get_object(Bucket="lake", Key=deployed.destination_file)["Body"].read()
    assert output == oracle.overlay([data], ("id", "name", "price"), ROWS).csv


def test_the_uploaded_script_runs_not_the_working_copy(aws, deployed):
    script = b"import sys\nprint('uploaded', sys.argv[1:])\nimport glue_job\n"
    aws.client("s3").put_object(Bucket=ARTIFACTS, Key="glue_job.py", Body=script)
    process = command(aws, "run", deployed.job)
    log, _ = process.communicate(timeout=60)
    assert "uploaded" in log
    assert "'--JOB_NAME', '" + deployed.job in log
    assert "--extra-jars" not in log
    assert process.returncode == 1
    assert "No module named 'glue_job'" in log


S3, ANY = "arn:aws:s3:::lake", "*"  # moto does not know the resource of other calls
DENIED = {
    "listing": ("s3:ListBucket", S3, "AWS denied s3:ListBucket on s3://lake/in/a.json"),
    "source": ("s3:*", f"{S3}/in/*", "AWS denied s3:GetObject on s3://lake/in/a.json"),
    "destination": ("s3:*", f"{S3}/out/*", "AWS denied s3:PutObject on s3://lake/out/"),
    "secret": ("secretsmanager:*", ANY, "AWS denied secretsmanager:GetSecretValue on "),
    "connection": ("glue:GetConnection", ANY, "AWS denied glue:GetConnection on "),
}
ALLOW = {"Effect": "Allow", "Action": "*", "Resource": "*"}


def policy(*statements) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


@pytest.fixture(scope="module")
def guarded_aws(database):
    """An AWS that enforces IAM policies, a job a role that lacks something, and the keys of an administrator."""
    with Aws() as aws:
        with database.connect(autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE guarded (id INT PRIMARY KEY)")
        iam = aws.client("iam")
        for name, (action, resource, _) in DENIED.items():
            role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=policy(ALLOW))["Role"]["Arn"]
            statements = policy(ALLOW, {"Effect": "Deny", "Action": action, "Resource": resource})
            iam.put_role_policy(RoleName=name, PolicyName=name, PolicyDocument=statements)
            pipeline = Pipeline(name, "guarded", "lake", "in/a.json", "lake", "out/a.csv", glue={"Role": role})
            deploy(aws, database, pipeline, ROOT / "glue_job.py")
        aws.client("s3").put_object(Bucket="lake", Key="in/a.json", Body=b'{"id":1}')
        iam.create_user(UserName="admin")
        iam.put_user_policy(UserName="admin", PolicyName="all", PolicyDocument=policy(ALLOW))
        key = iam.create_access_key(UserName="admin")["AccessKey"]
        requests.post(f"{aws.endpoint}/moto-api/reset-auth", data=b"0", timeout=10).raise_for_status()
        yield aws.environment() | {
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        }


@pytest.mark.parametrize(
    ("denied", "engine"), [*((denied, "driver") for denied in DENIED), ("source", "spark"), ("destination", "spark")]
)
def test_access_denied_names_call_and_resource(guarded_aws, spark, monkeypatch, denied, engine):
    """In the name of the job's role, as the runner does, but in this process: five more need no JVM of their own."""
    job = read_definition(client("glue", guarded_aws), f"job-{denied}")
    variables = guarded_aws | role_credentials(client("sts", guarded_aws), job["Role"])
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
        monkeypatch.setitem(spark.sparkContext.environment, name, value)  # its workers are its own, too
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # which keeps credentials
    arguments = script_arguments(job["Name"], job["DefaultArguments"] | {"--engine": engine})
    with pytest.raises(JobError) as caught:
        glue_job.run(["glue_job.py", *arguments])
    assert DENIED[denied][2] in str(caught.value)


@pytest.mark.parametrize(("engine", "status"), [("driver", 0), ("spark", 1)])
def test_the_spark_engine_alone_starts_a_session(aws, deployed, capfd, engine, status):
    """Each would fail with a listener that does not exist; a session takes seconds of each run."""
    arguments = {"--engine": engine, "--conf": "spark.extraListeners=no.such.Listener"}
    assert run_job(deployed.job, arguments, environment=aws.environment()) == status
    assert ("no.such.Listener" in capfd.readouterr().err) == bool(status)


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, *(pytest.param(number, marks=pytest.mark.long) for number in (signal.SIGINT, signal.SIGKILL))],
)
def test_a_stopped_runner_leaves_no_process(aws, deployed, number):
    marker = f"stopped-{deployed.name}-{number}"
    aws.client("s3").put_object(
        Bucket=ARTIFACTS,
        Key="glue_job.py",
        Body=b"""
import time
from pyspark import SparkContext
SparkContext.getOrCreate()
print("ready", flush=True)
time.sleep(600)
""",
    )
    process = command(aws, "run", deployed.job, "--marker", marker)
    assert process.stdout
    while "ready" not in process.stdout.readline():
        assert process.poll() is None
    assert processes_with(marker)
    process.send_signal(number)
    assert process.wait(3 * STOP_SECONDS) != 0  # the runner waits so long twice: for SIGTERM, then for SIGKILL
    deadline = time.monotonic() + 30
    while processes_with(marker) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not processes_with(marker)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["run", "nope"], "There is no Glue job 'nope'. Jobs: "),
        (["run"], "usage: python -m local run JOB_NAME"),
        (["run", "x", "--a"], "expected --key value pairs after the job's name, at '--a'"),
        (["run", "x", "--JOB_NAME", "y"], "name the job right after `run`"),
        (["fly"], "usage: python -m local"),
    ],
)
def test_wrong_commands_are_explained(aws, arguments, text):
    process = command(aws, *arguments)
    log, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert text in log
    assert "Traceback" not in log
