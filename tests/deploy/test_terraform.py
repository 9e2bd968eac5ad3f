"""The deployment, for real: Terraform and the AWS provider against moto, then the deployed jobs on MariaDB."""

from __future__ import annotations

import base64
import contextlib
import fnmatch
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import requests

from local import demo
from local.glue.deploy import deploy, jdbc_jar, package_files
from local.services.aws import REGION, Aws
from local.services.databases import MariaDB
from local.services.slack import SlackReceiver, TeamsReceiver
from local.terraform import Terraform
from tests.conftest import ROOT
from tests.leaks import leaks

pytestmark = pytest.mark.long

ACCOUNT = "123456789012"
PASSWORD = "M4rked/acme+p4ss?&=Zq"
STATE = {"bucket": "tfstate", "key": "etl.tfstate", "region": REGION, "use_path_style": "true"}
TAGS = {f"Tag{number}": "x" for number in range(48)}  # as many as may be
ZONE = f"{REGION}c"
DAILY = {"max_hours_between_successes": 26}
# Attributes that moto 5.2 does not give back, so that every plan wants to set them again.
FORGOTTEN_BY_MOTO = {
    "aws_glue_connection": {"connection_type"},
    "aws_glue_job": {"job_run_queuing_enabled"},
}


@dataclass
class Deployment:
    """Two pipelines that Terraform deployed: `acme` with a login of its own, `beta` with one that RDS would manage."""

    aws: Aws
    terraform: Terraform
    database: MariaDB
    slack: SlackReceiver
    teams: TeamsReceiver
    secrets: list[str]
    log: str = ""
    calls: dict[str, list[Call]] = field(default_factory=dict)
    applied: list[str] = field(default_factory=list, repr=False)

    def settings(self, **changes: Any) -> None:
        """Writes configs.json anew, entries changed or (None) removed."""
        entries = {
            "acme": self.entry("acme", Database=self.verified, on_arrival=True),
            "beta": self.entry("beta", secret_arn=self.managed_secret, schedule="cron(0 18 * * ? *)", Monitoring=DAILY),
        } | changes
        entries = {name: entry for name, entry in entries.items() if entry is not None}
        (self.terraform.folder / "configs.json").write_text(json.dumps({"configs": entries}))

    def entry(self, name: str, **changes: Any) -> dict[str, Any]:
        """An entry of configs.json."""
        return {
            "SecretsManager": {"table_name": "customers", "db_name": self.database.database},
            "S3": {
                "source_bucket": "lake",
                "source_key": f"in/{name}.json",
                "destination_bucket": "lake",
                "destination_file": f"out/{name}.csv",
                "unmatched_file": f"out/{name}-unmatched.csv",
            },
            "slack": {"slack_webhook": "<in TF_VAR_credentials>"},
            "Database": {"endpoint": self.database.host, "dbtype": "mariadb", "port": self.database.port},
        } | changes

    @property
    def verified(self) -> dict[str, Any]:
        """The database with its certificate verified."""
        server = {"endpoint": self.database.host, "dbtype": "mariadb", "port": self.database.port}
        return {**server, "ca_uri": "s3://lake/ca/bundle.pem"}

    @property
    def managed_secret(self) -> str:
        return self.aws.client("secretsmanager").describe_secret(SecretId="rds!db-1")["ARN"]

    def changes(self) -> dict[str, set[str]]:
        """What a plan would change: the attributes by address, `+` for made and `-` for destroyed."""
        changes = {}
        for resource in self.terraform.plan()["resource_changes"]:
            change = resource["change"]
            forgotten = FORGOTTEN_BY_MOTO.get(resource["type"], set())
            if change["actions"] == ["update"]:
                names = {
                    name
                    for name in {*change["before"], *change["after"], *change["after_unknown"]}
                    if change["before"].get(name) != change["after"].get(name) or change["after_unknown"].get(name)
                } - forgotten
            else:
                signs = {"create": "+", "delete": "-"}  # neither "no-op" nor the "read" of a data source
                names = {signs[action] for action in change["actions"] if action in signs}
            if names:
                changes[resource["address"]] = names
        return changes


@dataclass(frozen=True)
class Call:
    """One AWS call as IAM sees it."""

    action: str
    resource: str
    context: tuple[tuple[str, str], ...] = ()


def prepare(aws: Aws, database: MariaDB) -> str:
    """What users have before they deploy: buckets, sources, a table, a secret that RDS manages; its password."""
    s3 = aws.client("s3")
    for bucket in ("lake", STATE["bucket"]):
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_bucket_versioning(Bucket=STATE["bucket"], VersioningConfiguration={"Status": "Enabled"})
    for name in ("acme", "beta"):
        s3.put_object(Bucket="lake", Key=f"in/{name}.json", Body=demo.sample_source())
    s3.put_object(Bucket="lake", Key="ca/bundle.pem", Body=database.ca.encode())
    with database.connect(autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE USER tls_only IDENTIFIED BY %s REQUIRE SSL", [PASSWORD])
        cursor.execute("GRANT SELECT ON demo.* TO tls_only")
    login = json.dumps({"username": "tls_only", "password": PASSWORD})
    aws.client("secretsmanager").create_secret(Name="rds!db-1", SecretString=login)
    return PASSWORD


@pytest.fixture(scope="module")
def deployment(terraform, customers, tmp_path_factory) -> Iterator[Deployment]:
    """Both pipelines, applied from a saved plan as CI does."""
    with Aws() as aws, SlackReceiver() as slack, TeamsReceiver() as teams:
        password = prepare(aws, customers)
        credentials = {
            "acme": {
                "username": "tls_only",
                "password": password,
                "slack_webhook": slack.webhook,
                "teams_webhook": teams.webhook,
            },
            "beta": {"slack_webhook": slack.webhook, "json_webhook": teams.webhook},
        }
        variables = {**aws.environment(), "TF_VAR_credentials": json.dumps(credentials)}
        copy = Terraform(tmp_path_factory.mktemp("deployment"), variables, STATE)
        tokens = [slack.webhook.rpartition("/")[2], teams.webhook.rpartition("=")[2]]
        hidden = [password, slack.webhook, teams.webhook, *tokens]
        deployed = Deployment(aws, copy, customers, slack, teams, hidden)
        (copy.folder / "driver.jar").write_bytes(jdbc_jar().read_bytes())
        shared = json.loads((ROOT / "tests" / "terraform" / "common_settings.json").read_text())
        shared["connection"]["jdbc_driver"]["jar_uri"] = "driver.jar"
        del shared["alarm_topic_arn"]
        shared["alarm_emails"] = ["oncall@example.com"]
        shared["tags"] = TAGS
        shared["connection"]["further_subnets"] = [{"subnet_id": "subnet-0fedcba9876543210", "availability_zone": ZONE}]
        (copy.folder / "common_settings.json").write_text(json.dumps(shared))
        deployed.settings()
        with recorded(aws) as deployed.applied:
            deployed.log += copy.init()
            deployed.log += copy.do("plan", "-no-color", "-input=false", "-out=tfplan")
            deployed.log += copy.do("apply", "-no-color", "-input=false", "tfplan")
        yield deployed


def test_configuration_is_formatted_and_valid(deployment):
    assert deployment.terraform.run("fmt", "-check", "-diff").stdout == ""
    deployment.terraform.do("validate")


def test_settings_rules_in_a_repository_that_is_filled_in(terraform, tmp_path):
    copy = Terraform(tmp_path, {})
    for name in ("configs.json", "common_settings.json"):
        shutil.copyfile(ROOT / "tests" / "terraform" / name, tmp_path / name)
    copy.init()
    done = copy.run("test", "-no-color", "-test-directory=tests/terraform")
    assert done.returncode == 0, done.stdout
    assert re.search(r"Success! \d+ passed, 0 failed", done.stdout)


def test_second_plan_is_empty(deployment):
    assert deployment.changes() == {}


def files_below(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file() and "providers" not in path.parts:
            yield str(path), path.read_bytes()
            if zipfile.is_zipfile(path) and path.suffix != ".jar":
                with zipfile.ZipFile(path) as archive:
                    yield from ((f"{path}!{name}", archive.read(name)) for name in archive.namelist())


def test_secrets_are_in_neither_state_nor_plan_nor_log(deployment):
    s3 = deployment.aws.client("s3")
    versions = s3.list_object_versions(Bucket=STATE["bucket"])["Versions"]
    states = [
        (version["Key"], s3.get_object(Bucket=STATE["bucket"], Key=version["Key"], VersionId=version["VersionId"]))
        for version in versions
    ]
    traces = [("log", deployment.log.encode()), *files_below(deployment.terraform.folder)]
    traces += [(key, answer["Body"].read()) for key, answer in states]
    assert any(b'"aws_glue_job"' in data for _, data in traces[-len(states) :])
    assert any(name.endswith("tfplan!tfplan") for name, _ in traces)
    traces += [(f"show {file}", deployment.terraform.do("show", "-json", *file).encode()) for file in ([], ["tfplan"])]
    assert leaks(traces, deployment.secrets) == []


def administrator(aws: Aws) -> dict[str, str]:
    """The environment of somebody who may do everything, for an AWS that enforces policies."""
    iam = aws.client("iam")
    iam.create_user(UserName="admin")
    everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    iam.put_user_policy(UserName="admin", PolicyName="all", PolicyDocument=json.dumps(everything))
    key = iam.create_access_key(UserName="admin")["AccessKey"]
    secret = key["SecretAccessKey"]
    return aws.environment() | {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": secret}


def moto_api(aws: Aws, path: str, data: bytes = b"") -> requests.Response:
    answer = requests.post(f"{aws.endpoint}/moto-api/{path}", data=data, timeout=30)
    answer.raise_for_status()
    return answer


@contextlib.contextmanager
def recorded(aws: Aws) -> Iterator[list[str]]:
    """Has moto record requests; its recording is the only item of the list after the block."""
    recordings: list[str] = []
    moto_api(aws, "recorder/reset-recording")
    moto_api(aws, "recorder/start-recording")
    try:
        yield recordings
    finally:
        moto_api(aws, "recorder/stop-recording")
    recordings.append(requests.get(f"{aws.endpoint}/moto-api/recorder/download-recording", timeout=30).text)


@pytest.fixture(scope="module")
def ran(deployment) -> dict[str, tuple[int, str]]:
    """Status and log of three runs under enforced policies, two that succeed and one that fails; calls are recorded."""
    aws = deployment.aws
    environment = {**os.environ, **administrator(aws)}
    big = [json.dumps({"id": number, "name": "x" * 900}) for number in range(25_000)]
    big[-1] = '{"id":1,"name":"\N{SNOWMAN}"}'
    done = {}
    for run, job, arguments in (
        ("acme", "job-acme", []),
        ("beta", "job-beta", ["--language", "en"]),
        ("acme fails", "job-acme", ["--csv_encoding", "cp932"]),
    ):
        if run == "acme fails":
            aws.client("s3").put_object(Bucket="lake", Key="in/acme.json", Body="\n".join(big).encode())
        command = [sys.executable, "-m", "local", "run", job, *arguments]
        with recorded(aws) as recordings:
            moto_api(aws, "reset-auth", b"0")
            try:
                process = subprocess.run(
                    command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
                )
            finally:
                moto_api(aws, "reset-auth", b"inf")
        done[run] = process.returncode, process.stdout.decode()
        deployment.calls.setdefault(job, []).extend(calls_of_roles(*recordings))
    return done


def test_deployed_jobs_publish_what_the_demo_publishes(deployment, ran):
    for run in ("acme", "beta"):
        assert ran[run][0] == 0, ran[run][1]
    s3 = deployment.aws.client("s3")
    deploy(deployment.aws, deployment.database, demo.PIPELINE, ROOT / "glue_job.py")
    source = {"Bucket": demo.PIPELINE.source_bucket, "Key": demo.PIPELINE.source_key}
    s3.put_object(Body=demo.sample_source(), **source)
    status = demo.run_and_show(deployment.aws.environment())
    assert status == 0
    output = {"Bucket": demo.PIPELINE.destination_bucket, "Key": demo.PIPELINE.destination_file}
    expected = s3.get_object(**output)["Body"].read()
    for name in ("acme", "beta"):
        assert s3.get_object(Bucket="lake", Key=f"out/{name}.csv")["Body"].read() == expected
        [listed] = re.findall(r'"unmatched": (\d+)', ran[name][1].split(" RESULT ")[1])
        ids = s3.get_object(Bucket="lake", Key=f"out/{name}-unmatched.csv")["Body"].read()
        assert ids.count(b"\n") == int(listed) + 1


def test_runs_leave_a_report_and_go_on_without_metrics(deployment, ran):
    body = deployment.aws.client("s3").get_object(Bucket="lake", Key="out/acme.csv.report.json")["Body"].read()
    report = json.loads(body)
    assert (report["status"], report["error"]["code"]) == ("failed", "not_encodable")
    assert report["last_success"]["source_records"] == demo.RECORDS
    for secret in deployment.secrets:
        assert secret.encode() not in body
    assert ran["acme fails"][1].splitlines()[-1] == report["error"]["hint"]
    # Moto's IAM calls it monitoring:PutMetricData, which no policy can name, so here the runs go on without.
    assert ran["acme"][0] == 0
    assert "sending metrics failed: AccessDenied; the run goes on without it" in ran["acme"][1]


def test_slack_hears_of_each_run_and_logs_hold_no_secret(deployment, ran):
    assert [message["text"].splitlines()[0] for message in deployment.slack.messages] == [
        "✅ job-acme: 出力しました",
        "✅ job-beta: published",
        "❌ job-acme: 失敗しました (出力)",
    ]
    card, document, _ = deployment.teams.messages
    assert card["attachments"][0]["content"]["type"] == "AdaptiveCard"
    assert (document["job"], document["status"]) == ("job-beta", "succeeded")
    # The page of the log groups that Terraform made.
    logs = json.loads(deployment.terraform.do("output", "-json", "jobs"))["acme"]["logs"]
    assert logs.endswith("$252Faws-glue$252Fjobs$252Fjob-acme$252F")
    assert logs in json.dumps(deployment.slack.messages[-1])
    status, log = ran["acme fails"]
    assert status == 1
    assert "'☃' (U+2603) は cp932 にありません" in log.splitlines()[-2]
    for _, text in ran.values():
        assert leaks([("log", text.encode())], deployment.secrets) == []


def requests_of(recording: str) -> Iterator[dict[str, Any]]:
    """The requests of moto's recording. Its threads write a request and its line break apart, so lines run together."""
    decoder = json.JSONDecoder()
    while recording := recording.lstrip():
        request, end = decoder.raw_decode(recording)
        yield request
        recording = recording[end:]


def test_requests_are_told_apart_where_lines_run_together():
    assert list(requests_of('{"a": 1}{"a": 2}\n\n{"a": 3}\n')) == [{"a": 1}, {"a": 2}, {"a": 3}]


def signed_requests(recording: str) -> Iterator[tuple[dict[str, Any], dict[str, str], str, str]]:
    """The requests to AWS of moto's recording, with headers in lower case, the access key and the service."""
    for request in requests_of(recording):
        headers = {name.lower(): value for name, value in request["headers"].items()}
        if signed := re.search(r"Credential=(\w+)/\d+/[\w-]+/(\w+)/", headers.get("authorization", "")):
            yield request, headers, signed[1], signed[2]


def calls_of_roles(recording: str) -> Iterator[Call]:
    """The calls that a run made in the name of its role, out of moto's recording."""
    for request, headers, access_key, service in signed_requests(recording):
        if access_key.startswith("ASIA"):  # of a role's session
            yield from (s3_call(request) if service == "s3" else json_call(request, headers))


def s3_target(request: dict[str, Any]) -> tuple[str, str, dict[str, list[str]]]:
    """Bucket, key and query of a request to S3."""
    url = urlsplit(request["url"])
    bucket, _, key = unquote(url.path).lstrip("/").partition("/")
    return bucket, key, parse_qs(url.query, keep_blank_values=True)


def s3_call(request: dict[str, Any]) -> Iterator[Call]:
    bucket, key, query = s3_target(request)
    if not key and "uploads" in query:
        yield Call("s3:ListBucketMultipartUploads", f"arn:aws:s3:::{bucket}")
        return
    if not key:
        assert (request["method"], query["list-type"]) == ("GET", ["2"])
        yield Call("s3:ListBucket", f"arn:aws:s3:::{bucket}", (("s3:prefix", query["prefix"][0]),))
        return
    names = {"GET": "GetObject", "HEAD": "GetObject", "DELETE": "AbortMultipartUpload"}
    yield Call(f"s3:{names.get(request['method'], 'PutObject')}", f"arn:aws:s3:::{bucket}/{key}")


def json_call(request: dict[str, Any], headers: dict[str, str]) -> Iterator[Call]:
    target = headers.get("x-amz-target", "")
    text = base64.b64decode(request["body"]).decode()
    if not target:  # CloudWatch speaks the query protocol
        form = parse_qs(text)
        yield Call(f"cloudwatch:{form['Action'][0]}", "*", (("cloudwatch:namespace", form["Namespace"][0]),))
        return
    body = json.loads(text)
    if target == "AWSGlue.GetConnection":
        for resource in ("catalog", f"connection/{body['Name']}"):
            yield Call("glue:GetConnection", f"arn:aws:glue:{REGION}:{ACCOUNT}:{resource}")
    else:
        assert target == "secretsmanager.GetSecretValue"
        yield Call("secretsmanager:GetSecretValue", body["SecretId"])


def listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def allows(statement: dict[str, Any], call: Call) -> bool:
    """Whether IAM would take a statement as allowing a call (StringEquals is all that these policies need)."""
    context = dict(call.context)
    for operator, conditions in statement.get("Condition", {}).items():
        assert operator == "StringEquals", statement["Sid"]
        if any(context.get(name) not in listed(values) for name, values in conditions.items()):
            return False
    return (
        statement["Effect"] == "Allow"
        and call.action in listed(statement["Action"])
        and any(fnmatch.fnmatchcase(call.resource, pattern) for pattern in listed(statement["Resource"]))
    )


# What the Glue service does in the role's name and a run here cannot show ("Step 2: Create an IAM role for AWS Glue"
# and AWSGlueServiceRole in the Glue guide; "Encryption context" of KMS for S3, Secrets Manager and CloudWatch Logs).
BY_THE_SERVICE = {
    "WriteLogs",
    "WriteMetrics",
    "DescribeNetwork",
    "MakeNetworkInterface",
    "TagNetworkInterface",
    "DeleteNetworkInterface",
    "UseKey",
}
# Actions without resource-level permissions (Service Authorization Reference).
WITHOUT_RESOURCES = {
    "cloudwatch:PutMetricData",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeRouteTables",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcAttribute",
    "ec2:DescribeVpcEndpoints",
}


@pytest.mark.parametrize("job", ["job-acme", "job-beta"])
def test_role_allows_what_its_runs_do_and_nothing_more(deployment, ran, job):
    policy = deployment.aws.client("iam").get_role_policy(RoleName=f"rds-glue-s3-etl-{job}", PolicyName="run")[
        "PolicyDocument"
    ]
    statements = [statement for statement in policy["Statement"] if statement["Sid"] not in BY_THE_SERVICE]
    calls = deployment.calls[job]
    assert len({call.action for call in calls}) >= 5
    for call in calls:
        assert any(allows(statement, call) for statement in statements), call
    needed = {"s3:AbortMultipartUpload"} if job == "job-beta" else set()  # only a run that fails aborts, and acme's did
    for statement in statements:
        for action in set(listed(statement["Action"])) - needed:
            assert any(call.action == action and allows(statement, call) for call in calls), statement["Sid"]
        for resource in listed(statement["Resource"]):
            # Of another subnet, which the job never reads; of a dry run (tests/runs/test_guard.py).
            unseen = resource.endswith((f".{ZONE}", ".dry-run.report.json", ".dry-run.report.html"))
            assert unseen or any(fnmatch.fnmatchcase(call.resource, resource) for call in calls), resource


@pytest.mark.parametrize("job", ["job-acme", "job-beta"])
def test_role_names_resources_wherever_iam_knows_them(deployment, job):
    policy = deployment.aws.client("iam").get_role_policy(RoleName=f"rds-glue-s3-etl-{job}", PolicyName="run")[
        "PolicyDocument"
    ]
    for statement in policy["Statement"]:
        if "*" in listed(statement["Resource"]):
            assert set(listed(statement["Action"])) <= WITHOUT_RESOURCES
        assert not any("*" in action for action in listed(statement["Action"]))


def test_role_may_use_a_subnet_that_another_account_shares(deployment):
    policy = policy_of(deployment, "job-acme")
    statements = {statement["Sid"]: statement for statement in policy["Statement"]}
    network = f"arn:aws:ec2:{REGION}:*"
    assert statements["MakeNetworkInterface"]["Resource"] == [
        f"{network}:network-interface/*",
        f"{network}:security-group/sg-0123456789abcdef0",
        f"{network}:subnet/subnet-0123456789abcdef0",
        f"{network}:subnet/subnet-0fedcba9876543210",
    ]
    for sid in ("TagNetworkInterface", "DeleteNetworkInterface"):
        assert statements[sid]["Resource"] == [f"{network}:network-interface/*"]


def policy_of(deployment: Deployment, job: str) -> dict[str, Any]:
    """What the role of a job allows."""
    iam = deployment.aws.client("iam")
    return iam.get_role_policy(RoleName=f"rds-glue-s3-etl-{job}", PolicyName="run")["PolicyDocument"]


def test_job_has_a_connection_for_each_subnet(deployment):
    glue = deployment.aws.client("glue")
    job = glue.get_job(JobName="job-acme")["Job"]
    names = ["connection-acme", f"connection-acme.{ZONE}"]
    assert job["Connections"]["Connections"] == names
    assert job["DefaultArguments"]["--connection_name"] == names[0]
    first, second = (glue.get_connection(Name=name)["Connection"] for name in names)
    assert first["ConnectionProperties"] == second["ConnectionProperties"]
    place = second["PhysicalConnectionRequirements"]
    assert (place["SubnetId"], place["AvailabilityZone"]) == ("subnet-0fedcba9876543210", ZONE)
    [readable] = [item for item in policy_of(deployment, "job-acme")["Statement"] if item["Sid"] == "ReadConnection"]
    assert [resource.rpartition("/")[2] for resource in readable["Resource"][1:]] == names


def our_key(deployment: Deployment) -> str:
    return deployment.aws.client("kms").describe_key(KeyId="alias/rds-glue-s3-etl")["KeyMetadata"]["Arn"]


def test_role_may_use_our_key_and_those_that_are_named(deployment):
    policy = policy_of(deployment, "job-acme")
    [resources] = [statement["Resource"] for statement in policy["Statement"] if statement["Sid"] == "UseKey"]
    assert resources == [our_key(deployment), "arn:aws:kms:ap-northeast-1:210987654321:key/source"]


def test_key_has_the_tag_by_which_it_may_be_deleted(deployment):
    tags = deployment.aws.client("kms").list_resource_tags(KeyId=our_key(deployment))["Tags"]
    assert {"TagKey": "Project", "TagValue": "rds-glue-s3-etl"} in tags


def code_of(deployment: Deployment) -> dict[str, bytes]:
    """The script and the modules that job-acme names, by URL."""
    job = deployment.aws.client("glue").get_job(JobName="job-acme")["Job"]
    urls = [job["Command"]["ScriptLocation"], *job["DefaultArguments"]["--extra-py-files"].split(",")]
    s3 = deployment.aws.client("s3")
    addresses = {url: urlsplit(url) for url in urls}
    return {
        url: s3.get_object(Bucket=address.netloc, Key=address.path[1:])["Body"].read()
        for url, address in addresses.items()
    }


def stored_code(deployment: Deployment) -> set[str]:
    """The URLs of all code in the bucket of artifacts."""
    bucket = f"rds-glue-s3-etl-{ACCOUNT}-{REGION}"
    objects = deployment.aws.client("s3").list_objects_v2(Bucket=bucket)["Contents"]
    return {f"s3://{bucket}/{item['Key']}" for item in objects if item["Key"].endswith(".py")}


def test_script_and_package_are_in_one_folder_of_their_version(deployment):
    code = code_of(deployment)
    assert len({url.rpartition("/")[0] for url in code}) == 1
    assert re.fullmatch(r"s3://[\w-]+/rds-glue-s3-etl/[0-9a-f]{16}/glue_job\.py", next(iter(code)))
    files = {"glue_job.py": ROOT / "glue_job.py", **package_files()}
    assert {url.rpartition("/")[2]: body for url, body in code.items()} == {
        name: file.read_bytes() for name, file in files.items()
    }
    assert stored_code(deployment) == set(code)


def test_everything_but_objects_has_the_tags(deployment):
    bucket = f"rds-glue-s3-etl-{ACCOUNT}-{REGION}"
    s3 = deployment.aws.client("s3")
    for item in s3.list_objects_v2(Bucket=bucket)["Contents"]:
        assert s3.get_object_tagging(Bucket=bucket, Key=item["Key"])["TagSet"] == []
    tags = {tag["Key"]: tag["Value"] for tag in s3.get_bucket_tagging(Bucket=bucket)["TagSet"]}
    assert tags == TAGS | {"Project": "rds-glue-s3-etl", "ManagedBy": "terraform"}


def test_changed_module_is_one_plan_and_one_apply_and_goes_back_to_the_very_files(deployment):
    terraform, before = deployment.terraform, code_of(deployment)
    module = terraform.folder / "overlay" / "errors.py"
    text = module.read_bytes()
    try:
        module.write_bytes(text + b"# changed\n")
        changes = deployment.changes()
        code = {address: signs for address, signs in changes.items() if address.startswith("aws_s3_object.code")}
        assert {address: names for address, names in changes.items() if address not in code} == {
            f'aws_glue_job.pipeline["{name}"]': {"command", "default_arguments"} for name in ("acme", "beta")
        }
        created = [address for address, signs in code.items() if signs == {"+"}]
        assert len(created) == len(before)
        assert [signs for address, signs in code.items() if address not in created] == [{"-"}] * len(before)

        # An apply that breaks off, and a change that is taken back: what the jobs name is in the state and stays.
        terraform.do("apply", "-no-color", "-auto-approve", f"-target={created[0]}")
        module.write_bytes(text)
        assert deployment.changes() == {created[0]: {"-"}}

        module.write_bytes(text + b"# changed\n")
        terraform.plan()
        with recorded(deployment.aws) as recordings:
            terraform.do("apply", "-no-color", "-input=false", "tfplan")
        steps = [
            call.action
            for call in calls_of_terraform(*recordings)
            if call.action == "glue:UpdateJob" or call.resource.endswith(".py")
        ]
        written = {"s3:PutObject", "glue:UpdateJob", "s3:DeleteObjectVersion"}
        assert [step for step, _ in itertools.groupby(filter(written.__contains__, steps))] == [
            "s3:PutObject",
            "glue:UpdateJob",
            "s3:DeleteObjectVersion",
        ]
        after = code_of(deployment)
        assert not set(after) & set(before)
        assert stored_code(deployment) == set(after)
        changed = {url for url, body in after.items() if body not in before.values()}
        assert {url.rpartition("/")[2] for url in changed} == {"errors.py"}
    finally:
        module.write_bytes(text)
        terraform.do("apply", "-no-color", "-auto-approve")
    assert code_of(deployment) == before
    assert stored_code(deployment) == set(before)


def test_two_modules_of_one_name_are_refused(deployment):
    twin = deployment.terraform.folder / "overlay" / "source" / "errors.py"
    twin.touch()
    try:
        done = deployment.terraform.run("plan", "-no-color", "-input=false")
    finally:
        twin.unlink()
    assert done.returncode == 1
    message = "Glue would lay overlay/errors.py and overlay/source/errors.py over each other as errors.py: rename one."
    assert message in " ".join(done.stdout.split())


def entries_changed(changes: dict[str, set[str]]) -> dict[str, set[str]]:
    """Sorts the changes of a plan by the entry whose resources they are of; `` stands for what belongs to none."""
    attributes: dict[str, set[str]] = {}
    for address, names in changes.items():
        entry = re.search(r'\["([\w-]+)(/[\w-]+)?"\]$', address)
        attributes.setdefault(entry[1] if entry else "", set()).update(names)
    return attributes


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"gamma": {}}, {"gamma": {"+"}}),
        ({"beta": None}, {"beta": {"-"}}),
        ({"beta": None, "delta": {}}, {"beta": {"-"}, "delta": {"+"}}),
    ],
    ids=["added", "removed", "renamed"],
)
def test_entry_touches_its_own_resources_and_what_lists_all(deployment, changes, expected):
    login = {"SecretsManager": {"table_name": "t", "db_name": "d", "username": "u", "password": "p"}}
    slack = {"slack": {"slack_webhook": ""}}
    entries = {
        name: None if change is None else deployment.entry(name, **login, **slack) for name, change in changes.items()
    }
    deployment.settings(**entries)
    try:
        assert entries_changed(deployment.changes()) == {"": {"event_pattern", "dashboard_body"}} | expected
    finally:
        deployment.settings()


GLUE_EVENT = {"jobName": "job-beta", "severity": "ERROR", "state": "FAILED", "jobRunId": "jr_1", "message": "no memory"}
QUOTED = 'JobError: column "id" has \\ in it'
REPORTED = "Error Category: UNCLASSIFIED_ERROR; SourceError: there is no id [reported]"
FLEX_NOTE = "Note: This run was executed with Flex execution. Check the logs if run failed due to executor termination."


@pytest.fixture
def alarms_of(deployment) -> Iterator[Callable[..., list[dict[str, Any]]]]:
    """Sends an event to the deployed rule; returns what its target gets, here a queue with the same transformer."""
    events, sqs = deployment.aws.client("events"), deployment.aws.client("sqs")
    queue = sqs.create_queue(QueueName="alarms")["QueueUrl"]
    [rule] = [rule["Name"] for rule in events.list_rules(NamePrefix="rds-glue-s3-etl-failed")["Rules"]]
    [target] = events.list_targets_by_rule(Rule=rule)["Targets"]
    assert target["Arn"] == topic_arn(deployment)
    # Moto publishes to no topic.
    events.put_targets(Rule=rule, Targets=[target | {"Arn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:alarms"}])

    def send(kind: str = "Glue Job State Change", source: str = "aws.glue", **changes: Any) -> list[dict[str, Any]]:
        detail = {name: value for name, value in (GLUE_EVENT | changes).items() if value is not None}
        entry = {"Source": source, "DetailType": kind, "Detail": json.dumps(detail)}
        assert events.put_events(Entries=[entry])["FailedEntryCount"] == 0
        messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
        for message in messages:
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return [json.loads(message["Body"]) for message in messages]

    yield send
    events.put_targets(Rule=rule, Targets=[target])


@pytest.mark.parametrize(
    ("change", "told"),
    [({}, 1), ({"bucket": {"name": "other"}}, 0), ({"object": {"key": "in/acme.json.part"}}, 0)],
)
def test_arrival_of_the_source_is_told_to_the_workflow_that_starts_the_job(deployment, change, told):
    events, glue, iam, sqs = (deployment.aws.client(name) for name in ("events", "glue", "iam", "sqs"))
    rule = "rds-glue-s3-etl-on-acme"
    [target] = events.list_targets_by_rule(Rule=rule)["Targets"]
    assert target["Arn"] == f"arn:aws:glue:{REGION}:{ACCOUNT}:workflow/job-acme"
    trigger = glue.get_trigger(Name="job-acme-arrival")["Trigger"]
    assert (trigger["Type"], trigger["WorkflowName"]) == (
        "EVENT",
        glue.get_workflow(Name="job-acme")["Workflow"]["Name"],
    )
    assert trigger["EventBatchingCondition"] == {"BatchSize": 100, "BatchWindow": 60}
    assert [action["JobName"] for action in trigger["Actions"]] == ["job-acme"]
    role = target["RoleArn"].rpartition("/")[2]
    [statement] = iam.get_role_policy(RoleName=role, PolicyName="tell")["PolicyDocument"]["Statement"]
    assert (statement["Action"], statement["Resource"]) == (["glue:notifyEvent"], [target["Arn"]])
    queue = sqs.create_queue(QueueName="arrivals")["QueueUrl"]
    queue_target = {"Id": target["Id"], "Arn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:arrivals"}
    events.put_targets(Rule=rule, Targets=[queue_target])  # moto knows no workflow as a target
    try:
        detail = {"bucket": {"name": "lake"}, "object": {"key": "in/acme.json"}} | change
        events.put_events(Entries=[{"Source": "aws.s3", "DetailType": "Object Created", "Detail": json.dumps(detail)}])
        messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
        assert len(messages) == told
        for message in messages:
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    finally:
        events.put_targets(Rule=rule, Targets=[target])


def topic_arn(deployment: Deployment) -> str:
    [topic] = deployment.aws.client("sns").list_topics()["Topics"]
    return topic["TopicArn"]


@pytest.mark.parametrize("message", ["no memory", QUOTED, "Job run stopped", "", None])
@pytest.mark.parametrize("state", ["FAILED", "TIMEOUT", "STOPPED", "ERROR"])
def test_run_that_ends_badly_without_a_word_in_slack_is_told(alarms_of, state, message):
    [alarm] = alarms_of(state=state, message=message)
    assert (alarm["version"], alarm["source"]) == ("1.0", "custom")
    assert alarm["content"]["title"] == f"❌ job-beta: {state}"
    run = f"https://{REGION}.console.aws.amazon.com/gluestudio/home?region={REGION}#/job/job-beta/run/jr_1 "
    log = "#logsV2:log-groups$3FlogGroupNameFilter$3D$252Faws-glue$252Fjobs$252Fjob-beta$252F"
    assert alarm["content"]["description"].endswith(log)
    for words in (f"ジョブ job-beta は {state} で終わりました。", f"The Glue job job-beta ended as {state}.", run):
        assert words in alarm["content"]["description"]
    assert alarm["metadata"]["additionalContext"].get("message") == message


@pytest.mark.parametrize(
    "event",
    [
        {"message": REPORTED},
        {"message": f"{REPORTED} {FLEX_NOTE}"},
        {"state": "SUCCEEDED"},
        {"jobName": "job-of-another-team"},
        {"kind": "Glue Job Run Status"},
        {"source": "aws.batch"},
    ],
)
def test_what_slack_was_told_or_is_not_ours_is_left_out(alarms_of, event):
    assert alarms_of(**event) == []


def test_pattern_takes_25_longest_names(deployment):
    [rule] = deployment.aws.client("events").list_rules(NamePrefix="rds-glue-s3-etl-failed")["Rules"]
    pattern = json.loads(rule["EventPattern"])
    pattern["detail"]["jobName"] = [f"{'p' * 19}-job-{'x' * 40}"] * 25
    assert len(json.dumps(pattern, separators=(",", ":"))) <= 2048


def test_topic_is_encrypted_and_services_may_publish_to_it(deployment):
    sns, kms = deployment.aws.client("sns"), deployment.aws.client("kms")
    topic = topic_arn(deployment)
    attributes = sns.get_topic_attributes(TopicArn=topic)["Attributes"]
    key_policy = kms.get_key_policy(KeyId=attributes["KmsMasterKeyId"], PolicyName="default")["Policy"]
    for policy, actions in (
        (attributes["Policy"], {"sns:Publish"}),
        (key_policy, {"kms:Decrypt", "kms:GenerateDataKey"}),
    ):
        statements = {statement["Sid"]: statement for statement in json.loads(policy)["Statement"]}
        for sid, service in (("Events", "events"), ("Alarms", "cloudwatch")):
            assert statements[sid]["Principal"] == {"Service": f"{service}.amazonaws.com"}
            assert set(listed(statements[sid]["Action"])) == actions
        assert statements["Alarms"]["Condition"] == {"StringEquals": {"aws:SourceAccount": ACCOUNT}}
        assert "Condition" not in statements["Events"]  # EventBridge would not get past any
    subscriptions = sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    assert [(subscription["Protocol"], subscription["Endpoint"]) for subscription in subscriptions] == [
        ("email", "oncall@example.com")
    ]


def test_logs_go_to_the_encrypted_groups_that_were_made(deployment):
    groups = {
        group["logGroupName"]: group for group in deployment.aws.client("logs").describe_log_groups()["logGroups"]
    }
    for name in ("job-acme", "job-beta"):
        job = deployment.aws.client("glue").get_job(JobName=name)["Job"]
        for stream in ("output", "error"):
            group = groups[f"{job['DefaultArguments']['--custom-logGroup-prefix']}/{stream}"]
            assert ":key/" in group["kmsKeyId"]
            assert group["retentionInDays"] == 90
        assert not job.get("SecurityConfiguration")  # Glue would write to groups of other names (JobRun.LogGroupName)


def test_alarms_of_a_daily_run(deployment):
    described = deployment.aws.client("cloudwatch").describe_alarms()["MetricAlarms"]
    alarms = {alarm["AlarmName"]: alarm for alarm in described}
    assert set(alarms) == {"job-beta-no-success", "job-beta-duration", "job-beta-rows"}  # acme asks for none
    for alarm in alarms.values():
        assert alarm["AlarmActions"] == [topic_arn(deployment)]
        assert len([query for query in alarm["Metrics"] if query["ReturnData"]]) == 1
        ids = {query["Id"] for query in alarm["Metrics"]}
        for query in alarm["Metrics"]:
            assert set(re.findall(r"\b[a-z]+\b", query.get("Expression") or "")) <= ids - {query["Id"]}
            if not query.get("Expression"):
                metric = query["MetricStat"]["Metric"]
                assert metric["Namespace"] == "RdsGlueS3Etl"
                assert metric["Dimensions"] == [{"Name": "Job", "Value": "job-beta"}]
                # PutMetricAlarm, Period
                assert query["MetricStat"]["Period"] * alarm["EvaluationPeriods"] <= 7 * 24 * 3600
    silence = alarms["job-beta-no-success"]
    assert (silence["EvaluationPeriods"], silence["TreatMissingData"]) == (26, "breaching")
    assert (silence["Threshold"], silence["ComparisonOperator"]) == (1, "LessThanThreshold")
    assert {alarms[f"job-beta-{kind}"]["TreatMissingData"] for kind in ("duration", "rows")} == {"notBreaching"}


def test_dashboard_is_what_cloudwatch_takes(deployment):
    """Against "Dashboard Body Structure and Syntax" of the CloudWatch API reference."""
    cloudwatch = deployment.aws.client("cloudwatch")
    [dashboard] = cloudwatch.list_dashboards()["DashboardEntries"]
    url = deployment.terraform.do("output", "-raw", "dashboard")
    assert url.endswith(f"home?region={REGION}#dashboards/dashboard/{dashboard['DashboardName']}")
    widgets = json.loads(cloudwatch.get_dashboard(DashboardName=dashboard["DashboardName"])["DashboardBody"])["widgets"]
    taken_cells: set[tuple[int, int]] = set()
    for widget in widgets:
        cells = {
            (x, y)
            for x in range(widget["x"], widget["x"] + widget["width"])
            for y in range(widget["y"], widget["y"] + widget["height"])
        }
        assert not cells & taken_cells
        assert all(0 <= x < 24 for x, _ in cells)
        taken_cells |= cells
    alarms = [alarm for widget in widgets if widget["type"] == "alarm" for alarm in widget["properties"]["alarms"]]
    assert sorted(alarms) == sorted(alarm["AlarmArn"] for alarm in cloudwatch.describe_alarms()["MetricAlarms"])
    panels = {widget["properties"]["title"]: widget["properties"] for widget in widgets if widget["type"] == "metric"}
    assert len(panels) == 6
    for panel in panels.values():
        metrics = [entry for entry in panel["metrics"] if len(entry) > 1]
        ids = {entry[-1]["id"] for entry in panel["metrics"]}
        assert len(ids) == len(panel["metrics"])
        assert all(re.fullmatch(r"[a-z]\w*", name) for name in ids)
        assert [entry[:4] for entry in metrics] == [
            ["RdsGlueS3Etl", metrics[0][1], "Job", job] for job in ("job-acme", "job-beta")
        ]
        for [expression] in (entry for entry in panel["metrics"] if len(entry) == 1):
            assert set(re.findall(r"\b[me]\d+\b", expression["expression"])) <= ids
    costs = [entry[0]["expression"] for entry in panels["費用の目安 (USD) / Estimated cost (USD)"]["metrics"][2:]]
    assert costs == [f"m{number} * {2 * 1 * 0.44 / 3600:.8f}" for number in range(2)]


def test_raised_version_writes_the_secret_anew(deployment):
    table = {"table_name": "customers", "db_name": deployment.database.database, "credentials_version": 2}
    deployment.settings(
        acme=deployment.entry("acme", SecretsManager=table, Database=deployment.verified, on_arrival=True)
    )
    try:
        assert deployment.changes() == {'aws_secretsmanager_secret_version.pipeline["acme"]': {"+", "-"}}
    finally:
        deployment.settings()


def test_second_apply_at_the_same_time_is_refused(deployment):
    deployment.settings(beta=None)
    first = deployment.terraform.start("apply", "-no-color")
    try:
        output = b""
        while b"Enter a value:" not in output:
            data = first.stdout.read1(4096)
            assert data, output.decode()
            output += data
        second = deployment.terraform.run("apply", "-no-color", "-auto-approve", "-lock-timeout=0s")
        assert second.returncode == 1
        assert "Error acquiring the state lock" in second.stdout
    finally:
        remainder, _ = first.communicate(b"no\n", timeout=60)
        deployment.settings()
    assert b"Apply cancelled" in remainder


def test_credentials_that_cannot_be_read_are_not_quoted(deployment):
    deployment.terraform.environment["TF_VAR_credentials"], credentials = (
        '{"acme": {"password": "hunter2"',
        deployment.terraform.environment["TF_VAR_credentials"],
    )
    try:
        done = deployment.terraform.run("plan", "-no-color", "-input=false")
    finally:
        deployment.terraform.environment["TF_VAR_credentials"] = credentials
    assert done.returncode == 1
    assert "TF_VAR_credentials must be a JSON object by entry name" in " ".join(done.stdout.split())
    assert "hunter2" not in done.stdout


@pytest.fixture(scope="module")
def destroyed(deployment) -> Deployment:
    """The deployment planned anew, changed in all that can be changed in place, and destroyed; calls are recorded."""
    terraform = deployment.terraform
    with recorded(deployment.aws) as planned:
        terraform.plan()
    shared = json.loads((terraform.folder / "common_settings.json").read_text())
    shared |= {
        "tags": {"Owner": "data"},
        "log_retention_days": 30,
        "permissions_boundary": f"arn:aws:iam::{ACCOUNT}:policy/boundary",
    }
    (terraform.folder / "common_settings.json").write_text(json.dumps(shared))
    deployment.settings(
        beta=deployment.entry(
            "beta", secret_arn=deployment.managed_secret, schedule="cron(0 19 * * ? *)", Monitoring=DAILY
        )
    )
    with recorded(deployment.aws) as changed:
        terraform.do("apply", "-no-color", "-auto-approve")
        terraform.do("destroy", "-no-color", "-auto-approve")
    deployment.calls["plan"] = [*calls_of_terraform(*planned)]
    deployment.calls["apply"] = [*calls_of_terraform(*deployment.applied), *calls_of_terraform(*changed)]
    return deployment


def calls_of_terraform(recording: str) -> Iterator[Call]:
    """The calls of Terraform, and what IAM asks for beside them: the right to tag and to pass a role."""
    for request, headers, _, signed_for in signed_requests(recording):
        if signed_for == "s3":
            yield from bucket_call(request, headers)
            continue
        service = {"monitoring": "cloudwatch"}.get(signed_for, signed_for)
        text = base64.b64decode(request["body"]).decode()
        if target := headers.get("x-amz-target"):
            body = json.loads(text)
            body |= body.get("ConnectionInput", {}) | body.get("JobUpdate", {}) | {"Action": target.rpartition(".")[2]}
        else:
            body = {name: values[0] for name, values in parse_qs(text).items()}
        action = f"{service}:{body['Action']}"
        resources = resources_of(action, body)
        context = (("aws:ResourceTag/Project", "rds-glue-s3-etl"),) if service == "kms" else ()
        for resource in resources:
            yield Call(action, resource, context)
        if body.get("Tags") or body.get("tags") or body.get("Tags.member.1.Key"):
            tagged = resources[0].replace("*", f"arn:aws:kms:{REGION}:{ACCOUNT}:key/new")  # CreateKey
            yield Call("iam:TagRole" if service == "iam" else f"{service}:TagResource", tagged, context)
        for target in body.get("Targets", []) if action == "events:PutTargets" else []:
            if "RoleArn" in target:
                yield Call("iam:PassRole", target["RoleArn"], (("iam:PassedToService", "events.amazonaws.com"),))
        if service == "glue" and "Role" in body:
            yield Call("iam:PassRole", body["Role"], (("iam:PassedToService", "glue.amazonaws.com"),))


# What S3 calls the subresources of a bucket, and IAM the right to them.
BUCKET_RIGHTS = {
    "accelerate": "AccelerateConfiguration",
    "acl": "BucketAcl",
    "cors": "BucketCORS",
    "encryption": "EncryptionConfiguration",
    "lifecycle": "LifecycleConfiguration",
    "logging": "BucketLogging",
    "object-lock": "BucketObjectLockConfiguration",
    "policy": "BucketPolicy",
    "publicAccessBlock": "BucketPublicAccessBlock",
    "replication": "ReplicationConfiguration",
    "requestPayment": "BucketRequestPayment",
    "tagging": "BucketTagging",
    "versioning": "BucketVersioning",
    "website": "BucketWebsite",
}


def bucket_call(request: dict[str, Any], headers: dict[str, str]) -> Iterator[Call]:
    """A call of S3 that may be about the bucket itself."""
    (bucket, key, query), method = s3_target(request), request["method"]
    rights = [right for name, right in BUCKET_RIGHTS.items() if name in query]
    if key:
        verb = {"GET": "Get", "HEAD": "Get", "PUT": "Put", "DELETE": "Delete"}[method]
        kind = "ObjectTagging" if rights else "ObjectVersion" if "versionId" in query else "Object"
        yield Call(f"s3:{verb}{kind}", f"arn:aws:s3:::{bucket}/{key}")
        assert not headers.get("x-amz-tagging")
        return
    verb = "Get" if method == "GET" else "Delete" if method == "DELETE" and rights == ["BucketPolicy"] else "Put"
    plain = {"GET": "ListBucket", "HEAD": "ListBucket", "PUT": "CreateBucket", "DELETE": "DeleteBucket"}[method]
    action = f"{verb}{rights[0]}" if rights else "ListBucketVersions" if "versions" in query else plain
    yield Call(f"s3:{action}", f"arn:aws:s3:::{bucket}")


# What IAM takes a call to be about (Service Authorization Reference): the first that fits; else it is about nothing.
ARNS = (
    ("glue:.*Job", ["{prefix}job/{name}"]),
    ("glue:.*Trigger", ["{prefix}trigger/{name}"]),
    ("glue:.*Workflow", ["{prefix}workflow/{name}"]),
    ("glue:.*Connection", ["{prefix}connection/{name}", "{prefix}catalog"]),
    ("kms:CreateAlias", ["{prefix}{name}", "{prefix}key/{TargetKeyId}"]),
    ("kms:DeleteAlias", ["{prefix}{name}"]),
    ("kms:(?!CreateKey|ListAliases).*", ["{prefix}key/{name}"]),
    ("secretsmanager:.*", ["{prefix}secret:{name}"]),
    ("events:.*", ["{prefix}rule/{name}"]),
    ("logs:.*", ["{prefix}log-group:{name}"]),
    ("iam:.*", [f"arn:aws:iam::{ACCOUNT}:role/{{name}}"]),
    ("sns:CreateTopic", ["{prefix}{name}"]),
    ("cloudwatch:.*Dashboards?", [f"arn:aws:cloudwatch::{ACCOUNT}:dashboard/{{name}}"]),
    ("cloudwatch:.*", ["{prefix}alarm:{name}"]),
)
# Parameters that name it, those of one call before those that only come beside them.
NAMES = ("ResourceArn", "ResourceARN", "resourceArn", "TopicArn", "SecretId", "RoleName", "JobName", "ConnectionName")
NAMES += ("Rule", "AlarmName", "AlarmNames.member.1", "DashboardName", "DashboardNames.member.1", "AliasName", "KeyId")
NAMES += ("logGroupName", "Name")


def resources_of(action: str, body: dict[str, Any]) -> list[str]:
    """The ARNs of what an action of IAM is about."""
    name = next((body[field] for field in NAMES if field in body), "")
    if name.startswith("arn:"):
        return [name]
    prefix = f"arn:aws:{action.partition(':')[0]}:{REGION}:{ACCOUNT}:"
    templates = next((arns for pattern, arns in ARNS if re.fullmatch(pattern, action)), ["*"])
    return [template.format_map({**body, "prefix": prefix, "name": name}) for template in templates]


# What AWS asks for without a call of Terraform's, or a change needs that is not made here.
UNSEEN = {
    "kms:Decrypt",  # of secrets and artifacts
    "kms:GenerateDataKey",
    "kms:PutKeyPolicy",  # another alarm_topic_arn
    "logs:AssociateKmsKey",  # another kms_key_arn
    "secretsmanager:UpdateSecret",
    "iam:DeleteRolePermissionsBoundary",  # permissions_boundary taken away
    "glue:StartTrigger",  # enabled
    "glue:StopTrigger",
}


@pytest.mark.parametrize("file", ["plan", "apply"])
def test_roles_of_the_workflow_are_bounded_by_the_names_of_their_deployment(file):
    """Two deployments of one account, and the workflow's own roles, are out of each other's reach."""
    text = (ROOT / "docs" / "iam" / f"{file}.json").read_text()
    for pattern in re.findall(r'"(arn:aws:[^"]+)"', text):
        assert re.search("PROJECT|PREFIX|STATE_BUCKET|:catalog$|:key/[*]$|(log-group|alarm):[*]$", pattern), pattern
    roles = re.findall(r":role/([^\"]+)", text)
    assert set(roles) == {"PROJECT-job-*"}
    for role in ("rds-glue-s3-etl-plan", "rds-glue-s3-etl-apply", "dev-job-x"):
        assert not fnmatch.fnmatchcase(role, roles[0].replace("PROJECT", "rds-glue-s3-etl"))


@pytest.mark.parametrize(("role", "files"), [("plan", ["plan"]), ("apply", ["plan", "apply"])])
def test_roles_of_the_workflow_allow_what_terraform_does_and_nothing_more(destroyed, role, files):
    policies = {name: (ROOT / "docs" / "iam" / f"{name}.json").read_text() for name in files}
    names = {"ACCOUNT": ACCOUNT, "REGION": REGION, "STATE_BUCKET": STATE["bucket"], "STATE_KEY": STATE["key"]}
    names |= {"PROJECT": "rds-glue-s3-etl", "PREFIX": ""}
    for name, value in names.items():
        policies = {file: text.replace(name, value) for file, text in policies.items()}
    statements = {file: json.loads(text)["Statement"] for file, text in policies.items()}
    calls = [call for call in destroyed.calls[role] if call.action != "sts:GetCallerIdentity"]  # which all may do
    for call in calls:
        assert any(allows(statement, call) for file in files for statement in statements[file]), call
    for statement in statements[role]:
        for action in set(statement["Action"]) - UNSEEN:
            assert any(call.action == action and allows(statement, call) for call in calls), action
        for resource in statement["Resource"]:
            unseen = set(statement["Action"]) <= UNSEEN
            assert unseen or any(fnmatch.fnmatchcase(call.resource, resource) for call in calls), resource
    # The quota for the inline policies of a role, blanks not counted.
    assert sum(len(re.sub(r"\s", "", text)) for text in policies.values()) <= 10_240


def test_destroy_leaves_nothing(destroyed):
    deployment = destroyed
    aws = deployment.aws
    assert deployment.terraform.do("state", "list") == ""
    demo_job = [demo.PIPELINE.job]
    assert aws.client("glue").list_jobs()["JobNames"] in ([], demo_job)
    connections = [connection["Name"] for connection in aws.client("glue").get_connections()["ConnectionList"]]
    assert connections in ([], [demo.PIPELINE.connection])
    assert aws.client("glue").list_triggers()["TriggerNames"] == []
    assert aws.client("iam").list_roles()["Roles"] == []
    assert aws.client("logs").describe_log_groups()["logGroups"] == []
    assert aws.client("events").list_rules()["Rules"] == []
    assert aws.client("sns").list_topics()["Topics"] == []
    assert aws.client("cloudwatch").describe_alarms()["MetricAlarms"] == []
    assert aws.client("cloudwatch").list_dashboards()["DashboardEntries"] == []
    buckets = {bucket["Name"] for bucket in aws.client("s3").list_buckets()["Buckets"]}
    assert not [bucket for bucket in buckets if bucket.startswith("rds-glue-s3-etl")]
    names = {secret["Name"] for secret in aws.client("secretsmanager").list_secrets()["SecretList"]}
    assert names <= {"rds!db-1", demo.PIPELINE.secret}
    kms = aws.client("kms")
    states = [kms.describe_key(KeyId=key["KeyId"])["KeyMetadata"]["KeyState"] for key in kms.list_keys()["Keys"]]
    assert states == ["PendingDeletion"]
