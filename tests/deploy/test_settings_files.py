"""schemas/ and data.tf: what the editor marks is what the plan refuses."""

from __future__ import annotations

import json
import re
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from local.terraform import Terraform
from overlay.secret import WEBHOOKS
from overlay.settings import make_settings
from tests.conftest import ROOT
from tests.samples import ARGUMENTS

CASES = ROOT / "tests" / "terraform"
# Rules between fields or entries, which a schema cannot say; data.tf can.
BEYOND_SCHEMA = {
    "twice_a",
    "twice_b",
    "Case",
    "case",
    "over_itself",
    "in_source_folder",
    "flex",
    "ca_unused",
    "two_logins",
    "null_delimiter",
    "copied",
    "list_over_output",
    "list_over_source",
    "differences_over_source",
    "schema_of_mysql",
    "dated_source",
    "dated_twice",
    "starts_itself",
    "columns_twice",
}


def load(path) -> dict:
    return json.loads(path.read_text())


def validator(name: str) -> jsonschema.Draft7Validator:
    schema = load(ROOT / "schemas" / f"{name}.schema.json")
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


@pytest.fixture(scope="module")
def copy(terraform, tmp_path_factory) -> Terraform:
    """The configuration, to ask for its locals."""
    terraform_copy = Terraform(tmp_path_factory.mktemp("rules"), {})
    terraform_copy.init()
    return terraform_copy


def evaluate(copy: Terraform, expression: str, configs: dict, shared: dict) -> Any:
    """The value of an expression over two settings files, as Terraform itself evaluates data.tf."""
    (copy.folder / "configs.json").write_text(json.dumps(configs))
    (copy.folder / "common_settings.json").write_text(json.dumps(shared))
    process = copy.start("console")
    output, _ = process.communicate(f"jsonencode({expression})".encode())
    return json.loads(json.loads(output.decode().strip().splitlines()[-1]))


def errors_of(copy: Terraform, configs: dict, shared: dict) -> list[str]:
    """What the plan says of two settings files."""
    return list(evaluate(copy, "local.errors", configs, shared))


@pytest.mark.parametrize(
    ("name", "driver", "errors"),
    [
        ("first", None, ["class_name", "jar_uri"]),
        ("first", {"class_name": "com.mysql.cj.jdbc.Driver", "jar_uri": ""}, []),
        ("third", None, []),
    ],
)
def test_a_driver_is_named_where_a_database_needs_one(copy, name, driver, errors):
    entry, shared = load(CASES / "configs.json")["configs"][name], load(CASES / "common_settings.json")
    entry["Database"].pop("ca_uri", None)  # which only one of the drivers knows
    shared["connection"]["jdbc_driver"] = driver
    if not driver:
        del shared["connection"]["jdbc_driver"]
    messages = errors_of(copy, {"configs": {name: entry}}, shared)
    assert [error.split(" is ")[0].rpartition(".")[2] for error in messages] == errors
    assert validator("common_settings").is_valid(shared)


@pytest.mark.parametrize(
    ("tags", "right"),
    [
        ({f"t{number}": "" for number in range(48)}, True),
        ({f"t{number}": "" for number in range(49)}, False),
        pytest.param({"Team": 1}, False, marks=pytest.mark.long),
        pytest.param(["Team"], False, marks=pytest.mark.long),
        pytest.param({"aws:team": "x"}, False, marks=pytest.mark.long),
        pytest.param({"Project": "x"}, False, marks=pytest.mark.long),
        pytest.param({"ManagedBy": "x"}, False, marks=pytest.mark.long),
    ],
)
def test_tags_are_those_that_aws_takes_beside_ours(copy, tags, right):
    shared = load(CASES / "common_settings.json") | {"tags": tags}
    errors = errors_of(copy, load(CASES / "configs.json"), shared)
    assert [error.split(": ")[1][:5] for error in errors] == ([] if right else ["tags "])
    assert validator("common_settings").is_valid(shared) == right


KEYS = {
    "source_key": "in/{yyyy}/{mm}/{dd}T{hh}-*.json",
    "destination_file": "out/{yyyy}{mm}/a.csv",
    "unmatched_file": "out/{dd}.{hh}/ids.csv",
}


def test_plan_knows_the_keys_that_the_job_makes_of_dates(copy):
    """The role allows what any day has, and one report."""
    entry = load(CASES / "configs.json")["configs"]["third"] | {"on_arrival": False}
    entry["S3"] |= KEYS
    expression = "[local.errors, local.key_patterns.a, local.undated_files.a]"
    shared = load(CASES / "common_settings.json")
    errors, patterns, undated = evaluate(copy, expression, {"configs": {"a": entry}}, shared)
    assert (errors, undated) == ([], "out/yyyymm/a.csv")
    for started in (datetime(2026, 1, 1, tzinfo=UTC), datetime(2099, 12, 31, 23, tzinfo=UTC)):
        settings = make_settings(ARGUMENTS | KEYS, started=started)
        assert settings.undated_file == undated
        for name, pattern in patterns.items():
            assert fnmatchcase(getattr(settings, name), pattern)
            assert not fnmatchcase(f"{getattr(settings, name)}x", pattern)
            assert not fnmatchcase(getattr(settings, name).replace("/", "/2026/", 1), pattern)


def test_every_time_zone_passes_but_those_of_letters_alone():
    pattern = validator("configs").schema["properties"]["configs"]["additionalProperties"]["properties"]["timezone"]
    zones = zoneinfo.available_timezones()
    assert {"Asia/Tokyo", "America/Argentina/Buenos_Aires", "Etc/GMT+9"} <= zones
    refused = {zone for zone in zones if not re.search(pattern["pattern"], zone)}
    assert {zone for zone in refused if "/" in zone} == set()
    assert {"Japan", "EST"} <= refused


B, C = "ap-northeast-1b", "ap-northeast-1c"
SUBNET = "subnet-0123456789abcdef0"


@pytest.mark.parametrize(
    ("further", "right"),
    [
        ([], True),
        ([{"subnet_id": SUBNET, "availability_zone": B}, {"subnet_id": SUBNET, "availability_zone": C}], True),
        ([{"subnet_id": "subnet", "availability_zone": B}], False),
        pytest.param([{"subnet_id": SUBNET, "availability_zone": "b"}], False, marks=pytest.mark.long),
        pytest.param([{"subnet_id": SUBNET}], False, marks=pytest.mark.long),
        pytest.param([{"subnet_id": SUBNET, "availability_zone": B, "vpc": "x"}], False, marks=pytest.mark.long),
        pytest.param([SUBNET], False, marks=pytest.mark.long),
        pytest.param({"subnet_id": SUBNET, "availability_zone": B}, False, marks=pytest.mark.long),
        pytest.param(SUBNET, False, marks=pytest.mark.long),
    ],
)
def test_further_subnets_are_checked_like_the_first(copy, further, right):
    shared = load(CASES / "common_settings.json")
    shared["connection"]["further_subnets"] = further
    text = "connection.further_subnets must be a list of objects, each with subnet_id and availability_zone as above"
    assert errors_of(copy, load(CASES / "configs.json"), shared) == ([] if right else [f"common_settings.json: {text}"])
    assert validator("common_settings").is_valid(shared) == right


def test_a_zone_has_one_subnet(copy):
    shared = load(CASES / "common_settings.json")
    shared["connection"]["further_subnets"] = [{"subnet_id": SUBNET, "availability_zone": zone} for zone in (B, B)]
    [error] = errors_of(copy, load(CASES / "configs.json"), shared)
    assert error.endswith("connection.further_subnets has a subnet in a zone that another one is in")


def values_of(schema: dict, path: str = "") -> Iterator[tuple[str, dict]]:
    """Each value of a settings file by its path."""
    for name, field in schema["properties"].items():
        if "properties" in field:
            yield from values_of(field, f"{path}{name}.")
        elif name != "$schema":
            yield f"{path}{name}", field


# What data.tf checks in words of its own: lists, maps, what belongs together; and secrets, which no message may quote.
OTHERWISE = {"SecretsManager.username", "SecretsManager.password", "tags", "alarm_emails"}
OTHERWISE |= {f"slack.{webhook}" for webhook in WEBHOOKS}
OTHERWISE |= {"kms_key_arns", "connection.further_subnets", "connection.jdbc_driver.class_name"}
OTHERWISE |= {"connection.jdbc_driver.jar_uri", "columns"}
UNDERSTOOD = ["string", "integer", "number", "boolean", ["integer", "string"]]


@pytest.mark.parametrize("name", ["configs", "common_settings"])
def test_plan_knows_every_word_of_the_rules_in_the_schemas(name):
    schema = load(ROOT / "schemas" / f"{name}.schema.json")
    if name == "configs":
        schema = schema["properties"]["configs"]["additionalProperties"]
    words = {"type", "pattern", "minimum", "maximum", "enum", "default", "description", "x-ja", "x-rule"}
    for path, field in values_of(schema):
        assert ("x-rule" in field) == (path not in OTHERWISE), path
        if "x-rule" in field:
            assert set(field) <= words, path
            assert field["type"] in UNDERSTOOD, path
            assert field["x-rule"].startswith("must be "), path


@pytest.mark.parametrize("name", sorted(load(CASES / "wrong_configs.json")["configs"]))
def test_schema_refuses_each_wrong_entry(name):
    entry = load(CASES / "wrong_configs.json")["configs"][name]
    accepted = validator("configs").is_valid({"configs": {name: entry}})
    assert accepted == (name in BEYOND_SCHEMA)


@pytest.mark.parametrize("field", sorted(load(CASES / "wrong_common_settings.json")))
def test_schema_refuses_each_wrong_common_setting(field):
    right, wrong = load(CASES / "common_settings.json"), load(CASES / "wrong_common_settings.json")
    assert not validator("common_settings").is_valid(right | {field: wrong[field]})


@pytest.mark.parametrize("name", ["configs", "common_settings"])
def test_schema_takes_what_terraform_takes(name):
    assert list(validator(name).iter_errors(load(CASES / f"{name}.json"))) == []


def unfilled(name: str, path: Path) -> set[str]:
    """The placeholders that a plan would refuse; there may be no other errors."""
    errors = list(validator(name).iter_errors(load(path)))
    assert all(str(error.instance).startswith("<") for error in errors), errors
    return {error.instance for error in errors}


@pytest.mark.parametrize(("name", "placeholders"), [("configs", 4), ("common_settings", 3)])
def test_example_lacks_only_what_a_user_must_fill_in(name, placeholders):
    assert len(unfilled(name, CASES / "example" / f"{name}.json")) == placeholders


@pytest.mark.parametrize("name", ["configs", "common_settings"])
def test_repository_holds_the_example_until_a_user_begins_to_fill_it_in(name):
    ours, example = ROOT / f"{name}.json", CASES / "example" / f"{name}.json"
    begun = any(f'"{placeholder}"' not in ours.read_text() for placeholder in unfilled(name, example))
    assert begun or ours.read_text() == example.read_text()
