"""The README's way from nothing to a scheduled job, block by block as it is written, on moto and MariaDB."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from local import demo
from local.deploy import jdbc_jar
from local.services import Aws, MariaDB, SlackReceiver
from local.terraform import Terraform, plugin_dir
from tests.conftest import ROOT

SECTIONS = {"README.en.md": ("Deploy", "Operate"), "README.md": ("デプロイ", "運用")}


def section_blocks(file: str) -> list[str]:
    """The shell blocks of the two sections."""
    text = (ROOT / file).read_text(encoding="utf-8")
    parts = {part.partition("\n")[0]: part for part in text.split("\n## ")}
    return [block for name in SECTIONS[file] for block in re.findall(r"```sh\n(.*?)```", parts[name], re.DOTALL)]


@dataclass
class Shell:
    """A user's shell in a folder: what one block exports, the next one sees."""

    folder: Path
    environment: dict[str, str]
    blocks: Iterator[str] = field(default_factory=lambda: iter(section_blocks("README.en.md")))

    def follow(self, *words: str, **replaced: str) -> str:
        """Runs the next block, which must hold the words; its output."""
        block = next(self.blocks)
        for word in words:
            assert word in block
        for old, new in replaced.items():
            assert f'"{old}"' in block
            block = block.replace(f'"{old}"', json.dumps(new))
        return self.do(block)

    def do(self, script: str) -> str:
        """Runs a script; its output."""
        kept = self.folder / "kept.env"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{script}\nenv -0 > {kept.name}"],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}"
        self.environment = dict(item.split("=", 1) for item in kept.read_text().split("\0") if item)
        kept.unlink()
        return done.stdout

    def edit(self, **entries: dict[str, Any]) -> None:
        """Changes fields of entries of configs.json, by `group.field`."""
        path = self.folder / "configs.json"
        settings = json.loads(path.read_text())
        for name, changes in entries.items():
            entry = settings["configs"].setdefault(name, json.loads(json.dumps(settings["configs"]["customers"])))
            for place, value in changes.items():
                group, _, name_of_field = place.partition(".")
                entry[group][name_of_field] = value
        path.write_text(json.dumps(settings, indent=2))


@pytest.fixture
def shell(terraform, tmp_path, customers) -> Iterator[tuple[Shell, Aws, SlackReceiver, MariaDB]]:
    """A clone of the repository, an AWS account with a source, a table."""
    with Aws() as aws, SlackReceiver() as slack:
        aws.client("s3").create_bucket(
            Bucket="lake", CreateBucketConfiguration={"LocationConstraint": "ap-northeast-1"}
        )
        aws.client("s3").put_object(Bucket="lake", Key="in/customers.json", Body=demo.sample_source())
        clone = Terraform(tmp_path, aws.environment(), {"use_path_style": "true"})
        mirror = plugin_dir()
        init = ["-lockfile=readonly", "-backend-config=use_path_style=true"]
        environment = clone.environment | {
            "AWS_PAGER": "",
            "PATH": f"{ROOT / '.venv-tools' / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "TF_CLI_ARGS_init": " ".join(init + ([f"-plugin-dir={mirror}"] if mirror else [])),
            "TF_INPUT": "0",
        }
        made = Shell(tmp_path, environment)
        made.do("git init -q && git config user.name me && git config user.email me@localhost")
        yield made, aws, slack, customers


def run_job(aws: Aws, job: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "local", "run", job],
        cwd=ROOT,
        env=os.environ | aws.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def credentials(slack: SlackReceiver, database: MariaDB, *names: str) -> str:
    entry = {"username": database.user, "password": database.password, "slack_webhook": slack.webhook}
    return json.dumps(dict.fromkeys(names, entry))


def test_both_readmes_hold_the_same_commands():
    assert section_blocks("README.md") == section_blocks("README.en.md")


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
        "s3-uri-of-the-jar": "driver.jar",
    }.items():
        assert f"<{placeholder}>" in settings
        settings = settings.replace(f"<{placeholder}>", value)
    (user.folder / "common_settings.json").write_text(settings)
    (user.folder / "driver.jar").write_bytes(jdbc_jar().read_bytes())
    user.do("git add -A && git commit -qm settings")
    user.follow(
        "TF_VAR_credentials",
        etl=database.user,
        secret=database.password,
        **{"https://hooks.slack.com/services/T/B/X": slack.webhook},
    )

    shown = user.follow("terraform init", "terraform plan", "terraform apply", "terraform output jobs")
    assert '"schedule" = "cron(0 18 * * ? *) UTC"' in shown
    assert "JobRunId" in user.follow("start-job-run", "filter-log-events")
    assert aws.client("glue").get_trigger(Name="job-customers-schedule")["Trigger"]["Schedule"] == "cron(0 18 * * ? *)"
    run_job(aws, "job-customers")
    published = aws.client("s3").get_object(Bucket="lake", Key="out/customers.csv")["Body"].read()
    assert published.count(b"\n") > 2

    apply = section_blocks("README.en.md")[4]
    add_a_pipeline(user, aws, slack, database)
    rotate_a_password(user, aws, slack, database, apply)
    roll_back(user, aws, apply)

    assert "[" in user.follow("get-job-runs")
    user.follow("terraform destroy")
    assert aws.client("glue").list_jobs()["JobNames"] == []
    assert published == aws.client("s3").get_object(Bucket="lake", Key="out/customers.csv")["Body"].read()
    assert next(user.blocks, None) is None


def add_a_pipeline(user: Shell, aws: Aws, slack: SlackReceiver, database: MariaDB) -> None:
    user.edit(vip={"S3.destination_file": "out/vip.csv"})
    user.environment["TF_VAR_credentials"] = credentials(slack, database, "customers", "vip")
    user.follow("terraform plan -out=tfplan", "terraform apply tfplan")
    assert sorted(aws.client("glue").list_jobs()["JobNames"]) == ["job-customers", "job-vip"]


def rotate_a_password(user: Shell, aws: Aws, slack: SlackReceiver, database: MariaDB, apply: str) -> None:
    with database.connect(autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE USER rotated IDENTIFIED BY 'new-p4ss'")
        cursor.execute(f"GRANT SELECT ON {database.database}.* TO rotated")
    changed = json.loads(credentials(slack, database, "customers", "vip"))
    changed["vip"] |= {"username": "rotated", "password": "new-p4ss"}
    user.environment["TF_VAR_credentials"] = json.dumps(changed)
    user.edit(vip={"SecretsManager.credentials_version": 2})
    user.do(apply)
    arguments = aws.client("glue").get_job(JobName="job-vip")["Job"]["DefaultArguments"]
    stored = aws.client("secretsmanager").get_secret_value(SecretId=arguments["--secret_name"])["SecretString"]
    assert json.loads(stored)["password"] == "new-p4ss"
    run_job(aws, "job-vip")


def roll_back(user: Shell, aws: Aws, apply: str) -> None:
    def script() -> str:
        return aws.client("glue").get_job(JobName="job-vip")["Job"]["Command"]["ScriptLocation"]

    before = script()
    user.do(f"git add -A && git commit -qm vip\necho '# changed' >> glue_job.py\ngit commit -qam script\n{apply}")
    assert script() != before
    user.do(f"git revert --no-edit HEAD\n{apply}")
    assert script() == before
