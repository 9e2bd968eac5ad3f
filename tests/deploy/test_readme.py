"""The way of the pages from nothing to a scheduled job, and how it is operated, as written, on moto and MariaDB."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from local import demo
from local.services.aws import Aws
from local.services.databases import MariaDB
from local.services.processes import run_process
from local.services.slack import SlackReceiver
from local.terraform import Terraform, plugin_flags
from tests.conftest import ROOT

pytestmark = pytest.mark.long

PAGES = ("README", "docs/deployment", "docs/github-actions", "docs/operations")


def blocks_of(text: str, kind: str = "sh") -> list[str]:
    """The code blocks of a kind, those in lists too."""
    return [textwrap.dedent(block) for block in re.findall(rf"```{kind}\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)]


def page_blocks(page: str, suffix: str = ".en") -> list[str]:
    """The shell blocks of a page, without those that run something of this repository."""
    text = (ROOT / f"{page}{suffix}.md").read_text(encoding="utf-8")
    return [block for block in blocks_of(text) if not block.startswith("make ")]


@dataclass
class Shell:
    """A user's shell in a folder: what one block exports, the next one sees."""

    folder: Path
    environment: dict[str, str]
    blocks_left: set[str] = field(default_factory=lambda: {block for page in PAGES for block in page_blocks(page)})

    def follow(self, *words: str, **replaced: str) -> str:
        """Runs the one block of the pages that holds the words; its output."""
        (block,) = {block for page in PAGES for block in page_blocks(page) if all(word in block for word in words)}
        self.blocks_left.discard(block)
        for old, new in replaced.items():
            assert f'"{old}"' in block
            block = block.replace(f'"{old}"', json.dumps(new))
        return self.do(block)

    def apply(self) -> str:
        """Runs the block that only deploys, as it stands in several sections."""
        (block,) = {
            text
            for text in page_blocks("docs/operations")
            if re.fullmatch(r"terraform plan.*\nterraform apply.*\n", text)
        }
        self.blocks_left.discard(block)
        return self.do(block)

    def do(self, script: str) -> str:
        """Runs a script; its output."""
        exports = self.folder / "kept.env"
        command = ["bash", "-euo", "pipefail", "-c", f"{script}\nenv -0 > {exports.name}"]
        done = run_process(command, self.folder, self.environment)
        assert done.returncode == 0, f"{script}\n{done.stdout}"
        self.environment = dict(item.split("=", 1) for item in exports.read_text().split("\0") if item)
        exports.unlink()
        return done.stdout

    def edit(self, **entries: dict[str, Any]) -> None:
        """Changes fields of entries of configs.json, by `group.field`."""
        path = self.folder / "configs.json"
        settings = json.loads(path.read_text())
        for name, changes in entries.items():
            entry = settings["configs"].setdefault(name, json.loads(json.dumps(settings["configs"]["customers"])))
            for setting, value in changes.items():
                group, _, name_of_field = setting.partition(".")
                entry[group][name_of_field] = value
        path.write_text(json.dumps(settings, indent=2))


def sql_statements() -> list[str]:
    """The SQL of the operations."""
    text = (ROOT / "docs" / "operations.en.md").read_text(encoding="utf-8")
    return [statement for block in blocks_of(text, "sql") for statement in block.split(";\n") if statement]


@pytest.fixture
def shell(terraform, tmp_path, customers) -> Iterator[tuple[Shell, Aws, SlackReceiver, MariaDB]]:
    """A clone of the repository as it is before its settings are filled in, an AWS account with a source, a table."""
    with Aws() as aws, SlackReceiver() as slack:
        aws.client("s3").create_bucket(
            Bucket="lake", CreateBucketConfiguration={"LocationConstraint": "ap-northeast-1"}
        )
        aws.client("s3").put_object(Bucket="lake", Key="in/customers.json", Body=demo.sample_source())
        clone = Terraform(tmp_path, aws.environment(), {"use_path_style": "true"})
        shutil.copytree(ROOT / "docs" / "iam", tmp_path / "docs" / "iam")
        for example in (ROOT / "tests" / "terraform" / "example").iterdir():
            shutil.copy(example, tmp_path)
        environment = clone.environment | {
            "AWS_PAGER": "",
            "PATH": f"{ROOT / '.venv-tools' / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "TF_CLI_ARGS_init": " ".join(
                ["-lockfile=readonly", "-backend-config=use_path_style=true", *plugin_flags()]
            ),
            "TF_INPUT": "0",
        }
        user = Shell(tmp_path, environment)
        user.do("git init -q && git config user.name me && git config user.email me@localhost")
        yield user, aws, slack, customers


def run_job(aws: Aws, job: str, *arguments: str) -> str:
    done = run_process([sys.executable, "-m", "local", "run", job, *arguments], ROOT, os.environ | aws.environment())
    assert done.returncode == 0, done.stdout
    return done.stdout


def credentials(slack: SlackReceiver, database: MariaDB, *names: str) -> str:
    entry = {"username": database.user, "password": database.password, "slack_webhook": slack.webhook}
    return json.dumps(dict.fromkeys(names, entry))


@pytest.mark.parametrize("page", PAGES)
def test_both_languages_hold_the_same_commands(page):
    assert page_blocks(page, "") == page_blocks(page) != []


def test_every_step_from_nothing_to_a_scheduled_job_and_back(shell):
    user, aws, slack, database = shell
    user.follow("create-bucket", "put-bucket-versioning")

    user.edit(
        customers={
            "SecretsManager.db_name": database.database,
            "S3.source_bucket": "lake",
            "S3.destination_bucket": "lake",
            "Database.endpoint": database.host,
            "Database.port": database.port,
        }
    )
    settings = (user.folder / "common_settings.json").read_text()
    for placeholder, value in {
        "security-group": "sg-0123456789abcdef0",
        "subnet": "subnet-0123456789abcdef0",
        "availability-zone": "ap-northeast-1a",
    }.items():
        assert f"<{placeholder}>" in settings
        settings = settings.replace(f"<{placeholder}>", value)
    (user.folder / "common_settings.json").write_text(settings)
    user.do("git add -A && git commit -qm settings")
    log = user.follow(
        "export TF_VAR_credentials",
        etl=database.user,
        secret=database.password,
        **{"https://hooks.slack.com/services/T/B/X": slack.webhook},
    )
    assert "Apply complete" in log
    assert "JobRunId" in log
    assert '"schedule" = "cron(0 18 * * ? *) UTC"' in user.follow("terraform output jobs", "filter-log-events")
    assert aws.client("glue").get_trigger(Name="job-customers-schedule")["Trigger"]["Schedule"] == "cron(0 18 * * ? *)"
    run_job(aws, "job-customers")
    published = aws.client("s3").get_object(Bucket="lake", Key="out/customers.csv")["Body"].read()
    assert published.count(b"\n") > 2

    roles_of_the_workflow(user, aws)
    operate(user, aws, published)
    take_over_a_table(database)
    add_a_pipeline(user, aws, slack, database)
    rotate_a_password_and_change_the_schedule(user, aws, slack, database)
    backfill(user, aws)
    roll_back(user, aws)

    assert "[" in user.follow("ExecutionTime, MaxCapacity")
    user.follow("terraform destroy")
    assert aws.client("glue").list_jobs()["JobNames"] == []
    assert published == aws.client("s3").get_object(Bucket="lake", Key="out/customers.csv")["Body"].read()
    assert user.blocks_left == set()


# `gh api` with what GitHub tells of a repository, and so much of jq as the page needs: a text with \(.path) in it.
GH = r"""
import functools, re, sys
command, path, option, text = sys.argv[1:]
assert (command, path, option) == ("api", "repos/OWNER/NAME", "--jq"), sys.argv
repository = {"id": 2, "name": "NAME", "owner": {"id": 1, "login": "OWNER"}}
value = lambda found: str(functools.reduce(dict.__getitem__, found[1].split("."), repository))
print(re.sub(r"\\\(\.([\w.]+)\)", value, text.strip('"')))
"""


def roles_of_the_workflow(user: Shell, aws: Aws) -> None:
    iam = aws.client("iam")
    tools = user.folder / "tools"
    tools.mkdir()
    (tools / "gh").write_text(f"#!{sys.executable}\n{GH}")
    (tools / "gh").chmod(0o755)
    user.environment["PATH"] = f"{tools}{os.pathsep}{user.environment['PATH']}"
    user.follow("docs/iam/", "create-role", "put-role-policy")
    for role, policies in {"plan": ["plan"], "apply": ["apply", "plan"]}.items():
        name = f"rds-glue-s3-etl-{role}"
        assert sorted(iam.list_role_policies(RoleName=name)["PolicyNames"]) == policies
        trust = json.dumps(iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"])
        documents = [iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"] for policy in policies]
        text = trust + json.dumps(documents)
        assert not re.findall("ACCOUNT|REGION|STATE_|REPOSITORY|NUMBERED|PROJECT|PREFIX", text)
        for words in (
            "repo:OWNER/NAME:",
            "repo:OWNER@1/NAME@2:",
            ":123456789012:oidc-provider/",
            "s3:::my-terraform-state/rds-glue-s3-etl.tfstate",
        ):
            assert words in text


def operate(user: Shell, aws: Aws, published: bytes) -> None:
    output = {"Bucket": "lake", "Key": "out/customers.csv"}
    s3, glue = aws.client("s3"), aws.client("glue")
    assert "s3://lake/out/customers.csv" in user.follow("export JOB")
    assert "SUCCEEDED" in user.follow("get-job-runs", "--max-results 5")
    user.follow("filter-log-events", "?STAGE")

    user.follow("put-bucket-versioning", '"$BUCKET"')
    s3.put_object(**output, Body=b"wrong")
    s3.put_object(Bucket="lake", Key="out/customers.csv.old", Body=b"another key with this prefix")
    assert "True" in user.follow("list-object-versions", "--output table")
    user.follow("copy-object")
    assert s3.get_object(**output)["Body"].read() == published

    for _ in range(2):
        s3.create_multipart_upload(**output)
    user.follow("list-multipart-uploads")
    assert not s3.list_multipart_uploads(Bucket="lake").get("Uploads")
    user.follow("list-multipart-uploads")

    ids = [run["Id"] for run in glue.get_job_runs(JobName="job-customers")["JobRuns"]]
    assert json.loads(user.follow('start-job-run --job-name "$JOB"\n'))["JobRunId"] not in ids
    stopped = json.loads(user.follow("batch-stop-job-run"))["SuccessfulSubmissions"][0]["JobRunId"]
    assert glue.get_job_run(JobName="job-customers", RunId=stopped)["JobRun"]["JobRunState"] == "STOPPED"
    glue.get_job_runs(JobName="job-customers")  # moto's runs go on when they are looked at

    for option in ("--dry_run", "--guard", "--count_overridden"):
        run = json.loads(user.follow(f'{{"{option}"'))["JobRunId"]
        assert option in glue.get_job_run(JobName="job-customers", RunId=run)["JobRun"]["Arguments"]
        glue.get_job_runs(JobName="job-customers")

    user.follow("put-bucket-notification-configuration")  # of which moto tells nothing back

    user.follow("stop-trigger", "start-trigger")
    assert glue.get_trigger(Name="job-customers-schedule")["Trigger"]["State"] == "ACTIVATED"


def take_over_a_table(database: MariaDB) -> None:
    statements = [statement.replace("shop.", f"{database.database}.") for statement in sql_statements()]
    with database.connect(autocommit=True) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    with (
        database.connect(user="glue_reader", password="choose-a-password") as connection,
        connection.cursor() as cursor,
    ):
        assert cursor.execute("SELECT id FROM customers LIMIT 1") == 1


def backfill(user: Shell, aws: Aws) -> None:
    """The command as it stands in an account with dates in keys, then the run that Glue would make of it."""
    s3, glue = aws.client("s3"), aws.client("glue")
    path = user.folder / "configs.json"
    before = path.read_text()
    keys = {field: f"{field[0]}/customers-{{yyyy}}-{{mm}}-{{dd}}" for field in ("source_key", "destination_file")}
    user.edit(customers={f"S3.{field}": key for field, key in keys.items()})
    user.apply()
    run = json.loads(user.follow("--date"))["JobRunId"]
    arguments = glue.get_job_run(JobName="job-customers", RunId=run)["JobRun"]["Arguments"]
    assert (arguments["--date"], arguments["--source_key"]) == ("2026-11-01", keys["source_key"])

    s3.put_object(Bucket="lake", Key="s/customers-2026-11-01", Body=demo.sample_source())
    assert "s3://lake/d/customers-2026-11-01\n" in run_job(aws, "job-customers", "--date", "2026-11-01")
    assert s3.get_object(Bucket="lake", Key="d/customers-2026-11-01")["Body"].read().count(b"\n") > 2
    assert s3.get_object(Bucket="lake", Key="d/customers-yyyy-mm-dd.report.json")

    path.write_text(before)  # the next deployment takes the dates out


def add_a_pipeline(user: Shell, aws: Aws, slack: SlackReceiver, database: MariaDB) -> None:
    user.edit(vip={"S3.destination_file": "out/vip.csv"})
    user.environment["TF_VAR_credentials"] = credentials(slack, database, "customers", "vip")
    user.apply()
    assert sorted(aws.client("glue").list_jobs()["JobNames"]) == ["job-customers", "job-vip"]


def rotate_a_password_and_change_the_schedule(user: Shell, aws: Aws, slack: SlackReceiver, database: MariaDB) -> None:
    with database.connect(autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE USER rotated IDENTIFIED BY 'new-p4ss'")
        cursor.execute(f"GRANT SELECT ON {database.database}.* TO rotated")
    changed = json.loads(credentials(slack, database, "customers", "vip"))
    changed["vip"] |= {"username": "rotated", "password": "new-p4ss"}
    user.environment["TF_VAR_credentials"] = json.dumps(changed)
    user.edit(vip={"SecretsManager.credentials_version": 2})
    path = user.folder / "configs.json"
    path.write_text(path.read_text().replace("cron(0 18 * * ? *)", "cron(30 20 * * ? *)"))
    assert "cron(30 20 * * ? *)" in user.follow("get-trigger")
    arguments = aws.client("glue").get_job(JobName="job-vip")["Job"]["DefaultArguments"]
    stored = aws.client("secretsmanager").get_secret_value(SecretId=arguments["--secret_name"])["SecretString"]
    assert json.loads(stored)["password"] == "new-p4ss"
    run_job(aws, "job-vip")


def roll_back(user: Shell, aws: Aws) -> None:
    def script() -> str:
        return aws.client("glue").get_job(JobName="job-vip")["Job"]["Command"]["ScriptLocation"]

    before = script()
    user.do("git add -A && git commit -qm vip\necho '# changed' >> glue_job.py\ngit commit -qam script")
    user.apply()
    assert script() != before
    assert sorted(aws.client("glue").list_jobs()["JobNames"]) == ["job-customers", "job-vip"]
    user.follow("git revert")
    assert script() == before
