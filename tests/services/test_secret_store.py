"""Module `secret` on Secrets Manager (moto): what is read for a run, and the webhook of one that did not get so far."""

from __future__ import annotations

import json

import pytest

from overlay.errors import AwsError, SettingsError
from overlay.limits import AwsTimeouts, Limits
from overlay.secret import find_webhooks, load_secret
from overlay.settings import Settings, make_settings
from tests.conftest import CLOSED_PORT, NUMBERS
from tests.samples import ARGUMENTS, SECRET_VALUES
from tests.texts import english_in


@pytest.fixture
def store(aws):
    """Stores a secret under a name of its own; a text as it is, bytes as a binary secret."""

    def store_secret(value: object) -> str:
        name = f"secret{next(NUMBERS)}"
        kind = "SecretBinary" if isinstance(value, bytes) else "SecretString"
        content = value if isinstance(value, (bytes, str)) else json.dumps(value)
        aws.client("secretsmanager").create_secret(Name=name, **{kind: content})
        return name

    return store_secret


def settings_of(**arguments: str) -> Settings:
    """The settings of a run."""
    return make_settings(ARGUMENTS | arguments)


def test_the_secret_of_a_run_is_read(store):
    name = store(SECRET_VALUES | {"schema_name": "app", "more": [1]})
    secret = load_secret(settings_of(secret_name=name))
    assert (secret.name, secret.username, secret.password) == (name, "etl", "p@ss")
    assert (secret.db_name, secret.schema_name, secret.table_name) == ("shop", "app", "customers")
    assert secret.slack_webhook == SECRET_VALUES["slack_webhook"]


def test_arguments_say_of_the_table_what_a_secret_that_rds_manages_does_not(store):
    name = store({"username": "etl", "password": "p@ss"})
    secret = load_secret(settings_of(secret_name=name, db_name="d", schema_name="s", table_name="t"))
    assert (secret.db_name, secret.schema_name, secret.table_name, secret.slack_webhook) == ("d", "s", "t", "")


def test_arguments_go_before_the_secret(store):
    name = store(SECRET_VALUES | {"schema_name": "app"})
    secret = load_secret(settings_of(secret_name=name, table_name="orders"))
    assert (secret.db_name, secret.schema_name, secret.table_name) == ("shop", "app", "orders")


def test_the_webhook_may_have_a_secret_of_its_own(store):
    arguments = {"secret_name": store(SECRET_VALUES), "slack_secret_name": store({"slack_webhook": "https://other/x"})}
    assert load_secret(settings_of(**arguments)).slack_webhook == "https://other/x"
    assert find_webhooks(arguments) == {"slack_webhook": "https://other/x"}


def test_each_webhook_comes_from_the_secret_of_the_webhooks(store):
    webhooks = {"teams_webhook": "https://flow/x?sig=s", "json_webhook": "https://program/x"}
    arguments = {
        "secret_name": store(SECRET_VALUES),
        "slack_secret_name": store(webhooks | {"json_webhook": " https://program/x\n"}),
    }
    assert load_secret(settings_of(**arguments)).webhooks == webhooks | {"slack_webhook": ""}
    assert find_webhooks(arguments) == webhooks
    assert load_secret(settings_of(secret_name=store(SECRET_VALUES | webhooks))).webhooks == webhooks | {
        "slack_webhook": SECRET_VALUES["slack_webhook"]
    }


def test_a_missing_secret_is_named(aws):
    with pytest.raises(SettingsError) as caught:
        load_secret(settings_of(secret_name="nope"))
    assert str(caught.value) == (
        "Secret 'nope' does not exist in Secrets Manager. "
        "Run terraform apply, which makes it, or check secret_arn in configs.json (--secret_name)."
    )
    assert not english_in(caught.value)


@pytest.mark.parametrize("value", [b"\x00hunter2", "hunter2", ["hunter2"]])
def test_a_secret_that_holds_something_else_is_named_and_not_quoted(store, value):
    name = store(value)
    with pytest.raises(SettingsError) as caught:
        load_secret(settings_of(secret_name=name))
    assert str(caught.value).startswith(f"Secret '{name}' is not a JSON object. Store a JSON object with username,")
    assert "hunter2" not in str(caught.value)


UNREACHABLE = Limits(aws=AwsTimeouts(attempts=1, connect_seconds=1, read_seconds=1))


@pytest.fixture
def unreachable(aws, monkeypatch):
    """Secrets Manager that nobody answers for (a VPC without its endpoint)."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{CLOSED_PORT}")


def test_a_call_that_fails_names_the_action_and_the_secret(unreachable):
    with pytest.raises(AwsError) as caught:
        load_secret(make_settings(ARGUMENTS, UNREACHABLE))
    assert str(caught.value) == (
        "AWS secretsmanager:GetSecretValue on a failed: EndpointConnectionError. "
        "Look at the log, then run the job again."
    )
    assert not english_in(caught.value)


# The webhook of a run whose arguments or secret are what it failed on.


def test_a_secret_that_lacks_all_else_has_its_webhook(store):
    webhooks = {"slack_webhook": "https://hooks/x", "teams_webhook": "https://flow/x", "json_webhook": "no url"}
    assert find_webhooks({"secret_name": store(webhooks)}) == {
        "slack_webhook": "https://hooks/x",
        "teams_webhook": "https://flow/x",
    }


@pytest.mark.parametrize("value", ["not json", {}, {"slack_webhook": ["x"]}, {"slack_webhook": "no url"}])
def test_without_a_webhook_there_is_none(store, value):
    assert find_webhooks({"secret_name": store(value)}) == {}


def test_without_a_secret_there_is_no_webhook(aws):
    assert find_webhooks({}) == find_webhooks({"secret_name": ""}) == find_webhooks({"secret_name": "nope"}) == {}


def test_where_aws_is_not_reached_there_is_no_webhook(unreachable):
    assert find_webhooks({"secret_name": "a"}, UNREACHABLE) == {}
