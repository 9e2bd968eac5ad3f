"""The secret of a pipeline, who logs in where and the webhooks: settings go in, a checked `Secret` comes out.

No repr shows password or webhooks, no error quotes what the secret holds, and it takes both out of other texts.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

from overlay.aws import aws_errors, client
from overlay.errors import JobError, Phrase, SettingsError, Verbatim, phrase
from overlay.limits import LIMITS, AwsTimeouts, Limits
from overlay.settings import Settings

WEBHOOKS = ("slack_webhook", "teams_webhook", "json_webhook")
_TOKEN_LENGTH = 6  # what is secret in a webhook is longer
_WORD = re.compile("[a-z]{,20}([-_][a-z]{,20})*")  # what a path may have beside a token: `services`, `workflows`
_FIELDS = ("username", "password", "db_name", "table_name")


@dataclass(frozen=True)
class Secret:
    """Login, table and webhooks; an empty webhook is none, an empty schema is the dialect's default."""

    name: str
    username: str
    db_name: str
    table_name: str
    password: str = field(repr=False)
    slack_webhook: str = field(repr=False, default="")
    teams_webhook: str = field(repr=False, default="")
    json_webhook: str = field(repr=False, default="")
    schema_name: str = ""

    @property
    def webhooks(self) -> dict[str, str]:
        """The webhooks by their names in the secret."""
        return {name: getattr(self, name) for name in WEBHOOKS}

    def redact(self, text: str) -> str:
        """`text` without the password and the webhooks."""
        for webhook in self.webhooks.values():
            text = hide_webhook(text, webhook)
        return hide(text, [self.password])


def load_secret(settings: Settings) -> Secret:
    """Reads what a run logs in with, and its webhooks, from Secrets Manager.

    What the job arguments say of the table goes before the secret, as one that RDS manages holds the login alone.

    Raises:
        SettingsError: a secret is missing, not a JSON object, or lacks a field.
        AwsError: a call was denied or failed.
    """
    values = _read_secret(settings.secret_name, settings.limits.aws)
    arguments = {name: getattr(settings, name).strip() for name in ("db_name", "schema_name", "table_name")}
    values |= {name: value for name, value in arguments.items() if value}
    if name := settings.slack_secret_name:
        others = _read_secret(name, settings.limits.aws)
        values |= {webhook: others.get(webhook) for webhook in WEBHOOKS}
    return make_secret(settings.secret_name, values)


def _read_secret(name: str, timeouts: AwsTimeouts) -> dict[str, Any]:
    missing = SettingsError("secret_missing", secret=Verbatim(name))
    with aws_errors("secretsmanager:GetSecretValue", name, {"ResourceNotFoundException": missing}):
        answer = client("secretsmanager", timeouts).get_secret_value(SecretId=name)
    return parse_secret(name, answer.get("SecretString"))


def parse_secret(name: str, text: str | None) -> dict[str, Any]:
    """The JSON object in the text of a secret; a SettingsError where it is none does not quote the text.

    Blanks around a value come of a paste from a shell: none but the password can have them.
    """
    try:
        values = json.loads(text or "")
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise _invalid(name, phrase("no_json_object"))
    return {
        key: value.strip() if isinstance(value, str) and key != "password" else value for key, value in values.items()
    }


def make_secret(name: str, values: Mapping[str, Any]) -> Secret:
    """The checked secret from the JSON object in it; a SettingsError says which field is missing or wrong."""
    missing = [key for key in _FIELDS if not isinstance(values.get(key), str) or not values[key]]
    if missing:
        raise _invalid(name, phrase("fields_missing", names=Verbatim(", ".join(missing))))
    if values["password"].strip("\r\n") != values["password"]:
        raise _invalid(name, phrase("password_line_end"))
    webhooks, schema = {key: values.get(key) or "" for key in WEBHOOKS}, values.get("schema_name") or ""
    for key, webhook in webhooks.items():
        if not is_webhook(webhook):
            raise _invalid(name, phrase("webhook_no_url", name=Verbatim(key)))
    if not isinstance(schema, str):
        raise _invalid(name, phrase("schema_no_string"))
    return Secret(name=name, schema_name=schema, **webhooks, **{key: values[key] for key in _FIELDS})


def _invalid(name: str, problem: Phrase) -> SettingsError:
    expected = Verbatim(", ".join((*_FIELDS, *WEBHOOKS)))
    return SettingsError("secret_invalid", secret=Verbatim(name), problem=problem, fields=expected)


def find_webhooks(arguments: Mapping[str, str], limits: Limits = LIMITS) -> dict[str, str]:
    """The webhooks of a run that did not get as far as its secret; those that cannot be had are missing.

    From the job arguments by name, unchecked, as they may be what the run failed on.
    """
    name = arguments.get("slack_secret_name") or arguments.get("secret_name")
    try:
        values = _read_secret(name, limits.aws) if name else {}
    except JobError:
        return {}
    return {key: values[key] for key in WEBHOOKS if values.get(key) and is_webhook(values[key])}


def is_webhook(value: object) -> bool:
    """Whether a value can be posted to, or is empty."""
    return isinstance(value, str) and (not value or split_url(value).scheme in {"https", "http"})


def hide(text: str, values: Iterable[str]) -> str:
    """`text` without any of some values; empty ones hide nothing."""
    for value in filter(None, values):
        text = text.replace(value, "***")
    return text


def hide_webhook(text: str, webhook: str) -> str:
    """`text` without the webhook, nor what is secret in it: the token in the path, or the signature behind it.

    Words are left, as they may be those of a table or of a database's message.
    """
    url = urlsplit(webhook)
    path, query = url.path.strip("/"), dict(parse_qsl(url.query))
    encoded = [pair.partition("=")[2] for pair in url.query.split("&")]
    values = (path, *path.split("/"), url.query, *encoded, *query.values())
    return hide(text, (webhook, *(v for v in values if len(v) >= _TOKEN_LENGTH and not _WORD.fullmatch(v))))


def split_url(url: str) -> SplitResult:
    """The parts of a URL; all empty where it is none (`https://[your-host]`: brackets are for addresses of IPv6)."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")
