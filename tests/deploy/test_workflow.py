"""The GitHub Actions workflow: what it may do, and its scripts on moto."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.services.aws import REGION, Aws
from local.services.processes import run_process
from local.terraform import Terraform, plugin_flags
from tests.conftest import ROOT

WORKFLOW = ROOT / ".github" / "workflows" / "terraform.yml"
SCRIPTS = ROOT / ".github" / "scripts"
STATE = {"bucket": "tfstate", "key": "etl.tfstate"}
PASSWORD = "p4ss-of-acme"
WEBHOOK = "https://hooks.slack.com/services/T1/B1/t0ken-of-acme"


@pytest.fixture(scope="module")
def workflow() -> dict[Any, Any]:
    return yaml.safe_load(WORKFLOW.read_text())


def steps(workflow) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, job in workflow["jobs"].items():
        yield from ((name, step) for step in job["steps"])


def test_actions_are_pinned_by_commit_with_their_version(workflow):
    lines = [line for line in WORKFLOW.read_text().splitlines() if "uses:" in line]
    assert len(lines) == sum("uses" in step for _, step in steps(workflow)) > 0
    for line in lines:
        assert re.search(r"uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line


def test_each_job_has_the_least_permissions(workflow):
    assert workflow["permissions"] == {}
    assert {name: job["permissions"] for name, job in workflow["jobs"].items()} == {
        "checks": {"contents": "read"},
        "audit": {"contents": "read"},
        "plan": {"contents": "read", "id-token": "write"},
        "comment": {"contents": "read", "pull-requests": "write"},
        "apply": {"contents": "read", "id-token": "write"},
    }
    for _, step in steps(workflow):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
    assert all(job["timeout-minutes"] <= 180 for job in workflow["jobs"].values())


def test_forks_get_no_secret(workflow):
    triggers = workflow[True]  # YAML 1.1 reads the key `on` as true
    assert set(triggers) == {"pull_request", "push", "workflow_dispatch"}
    assert triggers["push"] == {"branches": ["main"]}
    assert "head.repo.full_name == github.repository" in workflow["jobs"]["plan"]["if"]
    assert "vars.AWS_PLAN_ROLE_ARN != ''" in workflow["jobs"]["plan"]["if"]


def test_plan_of_a_pull_request_can_wait_for_a_reviewer(workflow):
    """The role for plans trusts pull requests by it alone, so a workflow that leaves it out gets no role."""
    plan = workflow["jobs"]["plan"]
    assert plan["environment"] == {"name": "${{ github.event_name == 'pull_request' && 'pull-request' || '' }}"}
    [statement] = json.loads((ROOT / "docs" / "iam" / "trust-plan.json").read_text())["Statement"]
    subjects = statement["Condition"]["StringEquals"]["token.actions.githubusercontent.com:sub"]
    assert {subject.partition(":")[2].partition(":")[2] for subject in subjects} == {
        "environment:pull-request",
        "ref:refs/heads/main",
    }
    assert "github.event.pull_request.user.login != 'dependabot[bot]'" in plan["if"]  # it is given no secret


def test_dependabot_moves_the_pins():
    [update] = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
    assert (update["package-ecosystem"], update["directory"]) == ("github-actions", "/")


def test_audit_holds_up_no_plan(workflow):
    assert [job for job, step in steps(workflow) if step.get("run") == "make audit"] == ["audit"]
    assert [name for name, job in workflow["jobs"].items() if "audit" in job.get("needs", [])] == []
    assert workflow["jobs"]["plan"]["needs"] == "checks"


def test_secrets_reach_only_the_steps_that_need_them(workflow):
    with_secret = [(job, step["name"]) for job, step in steps(workflow) if "secrets." in json.dumps(step)]
    assert with_secret == [("plan", "Plan"), ("apply", "Apply")]
    for _, step in steps(workflow):
        outside_env = json.dumps({name: value for name, value in step.items() if name != "env"})
        assert "secrets." not in outside_env
        assert "${{" not in step.get("run", "")  # an expression in a script is an injection
    assert WORKFLOW.read_text().count("secrets.") == 2
    assert "aws-access-key-id" not in WORKFLOW.read_text()


def test_applies_run_on_main_alone_one_at_a_time_behind_the_environment(workflow):
    apply = workflow["jobs"]["apply"]
    assert apply["environment"] == "production"
    assert apply["needs"] == "plan"
    assert "github.event_name != 'pull_request' && github.ref == 'refs/heads/main'" in apply["if"]
    applying = [job for job, step in steps(workflow) if "AWS_APPLY_ROLE_ARN" in json.dumps(step)]
    assert applying == ["apply"]
    assert workflow["concurrency"] == {
        "group": "terraform-${{ github.event.pull_request.number || github.ref }}",
        "cancel-in-progress": "${{ github.event_name == 'pull_request' }}",
    }


@pytest.mark.parametrize("role", ["plan", "apply"])
def test_roles_trust_the_repository_by_name_and_by_number(role):
    """Both forms of GitHub's subjects ("OpenID Connect reference", Immutable subject claims), whole and without *."""
    [statement] = json.loads((ROOT / "docs" / "iam" / f"trust-{role}.json").read_text())["Statement"]
    assert list(statement["Condition"]) == ["StringEquals"]
    subjects = statement["Condition"]["StringEquals"]["token.actions.githubusercontent.com:sub"]
    by_name = {subject for subject in subjects if subject.startswith("repo:REPOSITORY:")}
    assert by_name
    assert set(subjects) == by_name | {subject.replace("REPOSITORY", "NUMBERED") for subject in by_name}
    assert not any("*" in subject for subject in subjects)


def run(script: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A script as its step runs it."""
    return run_process(["bash", "-e", "-o", "pipefail", SCRIPTS / script], folder, environment)


def render(text: str, changes: str = "true", credentials: str = "") -> str:
    environment = {
        **os.environ,
        "GITHUB_SERVER_URL": "https://github.example",
        "GITHUB_REPOSITORY": "o/r",
        "GITHUB_RUN_ID": "7",
        "TF_VAR_credentials": credentials,
    }
    command = [sys.executable, str(SCRIPTS / "report.py"), changes]
    return subprocess.run(command, input=text, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


@pytest.mark.parametrize("inside", ["```", "`````", "~~~", "</details>", "<!-- x -->", "@someone"])
def test_plan_stays_inside_its_code_block(inside):
    text = render(f"before\n{inside}\nafter\n\nPlan: 1 to add, 0 to change, 0 to destroy.\n")
    lines = text.splitlines()
    assert lines[0] == "<!-- terraform-plan -->"
    assert lines[3] == "Plan: 1 to add, 0 to change, 0 to destroy."
    opening = lines.index(next(line for line in lines if line.endswith("text") and line.startswith("```")))
    fence = lines[opening].removesuffix("text")
    assert set(fence) == {"`"}
    assert fence not in inside
    closing = lines.index(fence, opening + 1)
    assert inside in lines[opening + 1 : closing]
    assert lines[closing + 1 :] == []


@pytest.mark.parametrize("line", ['+ name = "x"', "表" * 40, "\N{GRINNING FACE}" * 40])
def test_long_plan_is_cut_below_the_limit_of_a_comment_with_a_notice(line):
    text = render("\n".join([line] * 20_000))
    assert len(text.encode("utf-16-le")) // 2 < 65_536
    assert "https://github.example/o/r/actions/runs/7" in text.splitlines()[-1]
    assert "Cut to" not in render(line)


OBJECT = """\
  # aws_s3_object.code["p/1/a.py"] will be {done}
  # (because key ["p/1/a.py"] is not in for_each map)
  {sign} resource "aws_s3_object" "code" {{
      {sign} key      = "p/1/a.py"
      {sign} tags_all = {{
          {sign} "Project" = "p"
        }}
    }}

"""


def test_objects_of_the_code_are_told_by_name():
    jar = OBJECT.replace("code", "jar").format(done="created", sign="+")
    objects = OBJECT.format(done="destroyed", sign="-") + OBJECT.format(done="created", sign="+")
    text = render(f"before\n\n{objects}{jar}Plan: 1 to add.\n")
    names = "".join(f'  # aws_s3_object.code["p/1/a.py"] will be {done}\n' for done in ("destroyed", "created"))
    assert f"before\n\n{names}{jar}Plan: 1 to add.\n" in text


def test_a_line_that_names_every_module_is_cut():
    line = '    ~ "--extra-py-files" = "s3://b/p/1/a.py,' + 99 * "s3://b/p/1/b.py,"
    assert f"before\n{line[:400]} [...]\nafter\n" in render(f"before\n{line}\nafter\n")


def test_secret_in_a_plan_would_not_be_shown():
    teams = "https://x.example/workflows/1/paths/invoke?sv=1.0&sig=s1gnature-0f-acme"
    credentials = json.dumps({"acme": {"password": PASSWORD, "slack_webhook": WEBHOOK, "teams_webhook": teams}})
    text = render(f"a {PASSWORD} b {WEBHOOK} c t0ken-of-acme d s1gnature-0f-acme 1.0 {teams}", credentials=credentials)
    assert "a *** b *** c *** d *** 1.0 ***" in text


@pytest.fixture(scope="module")
def planned(terraform, tmp_path_factory) -> Iterator[tuple[Path, dict[str, str], Aws]]:
    """A checkout that init.sh prepared on moto, with what the runner sets."""
    with Aws() as aws:
        s3 = aws.client("s3")
        s3.create_bucket(Bucket=STATE["bucket"], CreateBucketConfiguration={"LocationConstraint": REGION})
        folder = tmp_path_factory.mktemp("workflow")
        copy = Terraform(folder, aws.environment(), STATE)
        (folder / "common_settings.json").write_text((ROOT / "tests/terraform/common_settings.json").read_text())
        entries = json.loads((ROOT / "tests/terraform/configs.json").read_text())["configs"]
        del entries["first"]["Monitoring"]  # of which the plan warns
        (folder / "configs.json").write_text(json.dumps({"configs": entries}))
        names = [name for name, entry in entries.items() if "slack" in entry]
        environment = copy.environment | {
            "AWS_REGION": REGION,
            "TF_STATE_BUCKET": STATE["bucket"],
            "TF_STATE_KEY": STATE["key"],
            "TF_CLI_ARGS_init": " ".join(["-backend-config=use_path_style=true", *plugin_flags()]),
            "GITHUB_SERVER_URL": "https://github.example",
            "GITHUB_REPOSITORY": "o/r",
            "GITHUB_RUN_ID": "7",
            "GITHUB_OUTPUT": str(folder / "output.txt"),
            "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
            "TF_VAR_credentials": json.dumps(
                {name: {"username": "etl", "password": PASSWORD, "slack_webhook": WEBHOOK} for name in names}
            ),
        }
        done = run("init.sh", folder, environment)
        assert done.returncode == 0, done.stdout
        yield folder, environment, aws


def without_commands(text: str) -> str:
    """What people read of a step's output: the runner takes its commands out."""
    return "\n".join(line for line in text.splitlines() if not line.startswith("::add-mask::"))


@pytest.mark.long
def test_plan_is_told_and_applied_with_the_credentials_given_again(planned):
    folder, environment, aws = planned
    done = run("plan.sh", folder, environment)
    assert done.returncode == 0, done.stdout
    assert (folder / "output.txt").read_text().splitlines()[-1] == "changes=true"
    assert f"::add-mask::{PASSWORD}" in done.stdout.splitlines()
    assert f"::add-mask::{WEBHOOK}" in done.stdout.splitlines()
    comment = (folder / "plan.md").read_text()
    assert comment == (folder / "summary.md").read_text()
    assert re.search(r"^Plan: \d+ to add, 0 to change, 0 to destroy\.$", comment, re.MULTILINE)
    warning = " ".join(comment.partition("\nWarning: ")[2].split())
    assert "Nobody would notice that these no longer run: configs.first (configs.json)." in warning
    assert "Saved the plan" not in comment
    for text in (comment, without_commands(done.stdout)):
        assert PASSWORD not in text
        assert WEBHOOK not in text
    refused = run("apply.sh", folder, {name: value for name, value in environment.items() if "TF_VAR" not in name})
    assert refused.returncode != 0
    assert "credentials" in refused.stdout
    assert aws.client("glue").list_jobs()["JobNames"] == []
    applied = run("apply.sh", folder, environment)
    assert applied.returncode == 0, applied.stdout
    assert "Apply complete!" in applied.stdout
    assert aws.client("glue").list_jobs()["JobNames"] != []


@pytest.mark.long
def test_failed_plan_is_told_and_fails_the_step(planned):
    folder, environment, _ = planned
    done = run("plan.sh", folder, {**environment, "TF_VAR_credentials": "{}"})
    assert done.returncode != 0
    assert (folder / "output.txt").read_text().splitlines()[-1] == "changes=error"
    comment = (folder / "plan.md").read_text()
    assert "### Terraform plan failed" in comment
    assert "was never filled in" in " ".join(comment.split())


def test_missing_state_bucket_is_named(tmp_path):
    done = run("init.sh", tmp_path, {**os.environ, "AWS_REGION": REGION, "TF_STATE_BUCKET": "", "TF_STATE_KEY": "k"})
    assert done.returncode != 0
    assert "set the repository variable TF_STATE_BUCKET" in done.stdout


@pytest.mark.parametrize(
    ("existing", "expected"),
    [("", "POST repos/o/r/issues/3/comments"), ("41\n42\n", "PATCH repos/o/r/issues/comments/41")],
)
def test_one_comment_is_made_then_updated(tmp_path, existing, expected):
    gh = tmp_path / "bin" / "gh"
    gh.parent.mkdir()
    gh.write_text('#!/bin/sh\nprintf "%s\\n" "$*" >>calls\ncase "$*" in *paginate*) printf "$EXISTING" ;; esac\n')
    gh.chmod(0o755)
    (tmp_path / "plan.md").write_text("<!-- terraform-plan -->\n")
    path = f"{gh.parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "GITHUB_REPOSITORY": "o/r", "PULL_REQUEST": "3", "EXISTING": existing}
    done = run("comment.sh", tmp_path, environment)
    assert done.returncode == 0, done.stdout
    looked, written = (tmp_path / "calls").read_text().splitlines()
    assert "repos/o/r/issues/3/comments" in looked
    method, path = expected.split()
    assert written == f"api --silent --method {method} {path} --field body=@plan.md"
