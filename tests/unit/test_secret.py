"""Module `secret`: the fields of a secret, which no text shows, without servers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import SettingsError
from overlay.secret import is_webhook, make_secret, parse_secret
from tests.samples import SECRET, SECRET_VALUES
from tests.texts import english_in

TEAMS = "https://x.example:443/workflows/0a1b2c3d/triggers/manual/paths/invoke?api-version=1&sv=1.0&sig=SiG%2F-9_x"
PROGRAM = "https://example.com/hooks/customers"
FIELDS = (
    "Store a JSON object with username, password, db_name, table_name, slack_webhook, teams_webhook, json_webhook "
    "(strings): TF_VAR_credentials and terraform apply, or Secrets Manager."
)


def test_secret_is_read_and_hidden():
    secret = make_secret("a", parse_secret("a", json.dumps(SECRET_VALUES)))
    assert secret == SECRET
    assert "p@ss" not in repr(secret)
    assert "token" not in repr(secret)


@pytest.mark.parametrize("webhook", [None, ""])
def test_webhook_is_optional(webhook):
    secret = make_secret("a", SECRET_VALUES | {"slack_webhook": webhook})
    assert secret.slack_webhook == ""
    assert secret.redact("x /services/ p@ss") == "x /services/ ***"


def test_a_schema_is_optional_and_kept():
    assert make_secret("a", SECRET_VALUES).schema_name == ""
    assert make_secret("a", SECRET_VALUES | {"schema_name": "app"}).schema_name == "app"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "is not a JSON object"),
        ("password=hunter2", "is not a JSON object"),
        ('["hunter2"]', "is not a JSON object"),
        (json.dumps({"username": "etl", "password": 1, "db_name": ""}), "lacks password, db_name, table_name"),
        (json.dumps(SECRET_VALUES | {"slack_webhook": "hunter2"}), "has a slack_webhook that is not a URL"),
        # what a template for it may hold; urlsplit takes brackets for an address of IPv6
        (
            json.dumps(SECRET_VALUES | {"slack_webhook": "https://[hunter2]/services/x"}),
            "has a slack_webhook that is not a URL",
        ),
        (
            json.dumps(SECRET_VALUES | {"slack_webhook": "https://[::1/services/x"}),
            "has a slack_webhook that is not a URL",
        ),
        *(
            (json.dumps(SECRET_VALUES | {name: value}), f"has a {name} that is not a URL")
            for name in ("teams_webhook", "json_webhook")
            for value in ("hunter2", ["hunter2"], "ftp://hunter2/x")
        ),
        *(
            (
                json.dumps(SECRET_VALUES | {"password": password}),
                "has a password with a line end around it, as a paste from a shell leaves one",
            )
            for password in ("hunter2\n", "hunter2\r\n", "\nhunter2")
        ),
        (json.dumps(SECRET_VALUES | {"username": " \n"}), "lacks username"),
        (json.dumps(SECRET_VALUES | {"schema_name": ["hunter2"]}), "has a schema_name that is not a string"),
    ],
)
def test_wrong_secret_is_explained_and_not_quoted(text, problem):
    with pytest.raises(SettingsError) as caught:
        make_secret("a", parse_secret("a", text))
    assert str(caught.value) == f"Secret 'a' {problem}. {FIELDS}"
    assert "hunter2" not in str(caught.value)
    assert not english_in(caught.value)


def test_blanks_around_a_value_are_no_part_of_it_but_of_a_password():
    pasted = {name: f" {value}\r\n" for name, value in SECRET_VALUES.items()} | {
        "password": " p ",
        "schema_name": "app\n",
    }
    values = make_secret("a", parse_secret("a", json.dumps(pasted)))
    assert values == make_secret("a", SECRET_VALUES | {"password": " p ", "schema_name": "app"})


def test_redaction_covers_password_webhook_and_its_token():
    text = f"x p@ss {SECRET_VALUES['slack_webhook']} host=hooks.slack.com url=/services/T1/B1/token y"
    assert SECRET.redact(text) == "x *** *** host=hooks.slack.com url=/*** y"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TEAMS, "***"),
        ("url: /workflows/0a1b2c3d/triggers/manual/paths/invoke", "url: /***"),
        ("Refused 0a1b2c3d with SiG%2F-9_x=/SiG/-9_x", "Refused *** with ***=/***"),
        # Words and short values are nobody's secret, and may stand in what a database says.
        (
            "the manual of triggers, workflows, table customers, 1.0",
            "the manual of triggers, workflows, table customers, 1.0",
        ),
        (PROGRAM, "***"),
        ("hooks/customers", "***"),
    ],
)
def test_redaction_covers_what_is_secret_in_any_webhook(text, expected):
    secret = make_secret("a", SECRET_VALUES | {"teams_webhook": TEAMS, "json_webhook": PROGRAM})
    assert secret.redact(text) == expected
    assert "SiG" not in repr(secret)
    assert "customers" not in repr(secret).replace("table_name='customers'", "")


@given(st.text(max_size=20), st.text(max_size=20))
def test_neither_password_nor_webhook_is_left_in_any_text(before, behind):
    token = "services/T1/B1/token"
    hidden = (SECRET.password, SECRET.slack_webhook, token)
    for value in hidden:
        text = SECRET.redact(f"{before}{value}{behind}")
        assert not any(secret_text in text for secret_text in hidden)
        assert "***" in text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", True),
        ("https://hooks.slack.com/services/x", True),
        ("http://127.0.0.1:1/x", True),
        ("ftp://x/y", False),
        ("hooks.slack.com/x", False),
        ("https://[your-host]/x", False),
        (None, False),
        (["https://x"], False),
    ],
)
def test_a_webhook_is_a_url_or_nothing(value, expected):
    assert is_webhook(value) is expected
