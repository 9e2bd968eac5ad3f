"""The secret of a pipeline, who logs in where and the webhook of Slack: settings go in, a checked `Secret` comes out.

No repr shows password or webhook, no error quotes what the secret holds, and it takes both out of other texts.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

from overlay.aws import aws_errors, client
from overlay.errors import JobError, Phrase, SettingsError, Verbatim, phrase
from overlay.limits import LIMITS, AwsTimeouts, Limits
from overlay.settings import Settings

_TOKEN_LENGTH = 6  # the parts of a webhook's path that are secret are longer
_FIELDS = ("username", "password", "db_name", "table_name")


@dataclass(frozen=True)
class Secret:
    """Login, table and webhook; an empty webhook is none, an empty schema is the dialect's default."""

    name: str
    username: str
    db_name: str
    table_name: str
    password: str = field(repr=False)
    slack_webhook: str = field(repr=False, default="")
    schema_name: str = ""

    def redact(self, text: str) -> str:
        """`text` without the password and the webhook."""
        return hide(hide_webhook(text, self.slack_webhook), [self.password])


def load_secret(settings: Settings) -> Secret:
    """Reads what a run logs in with, and its webhook, from Secrets Manager.

    What the job arguments say of the table goes before the secret, as one that RDS manages holds the login alone.

    Raises:
        SettingsError: a secret is missing, not a JSON object, or lacks a field.
        AwsError: a call was denied or failed.
    """
    values = _read_secret(settings.secret_name, settings.limits.aws)
    arguments = {name: getattr(settings, name).strip() for name in ("db_name", "schema_name", "table_name")}
    values |= {name: value for name, value in arguments.items() if value}
    if name := settings.slack_secret_name:
        values["slack_webhook"] = _read_secret(name, settings.limits.aws).get("slack_webhook")
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
    webhook, schema = values.get("slack_webhook") or "", values.get("schema_name") or ""
    if not is_webhook(webhook):
        raise _invalid(name, phrase("webhook_no_url"))
    if not isinstance(schema, str):
        raise _invalid(name, phrase("schema_no_string"))
    return Secret(name=name, slack_webhook=webhook, schema_name=schema, **{key: values[key] for key in _FIELDS})


def _invalid(name: str, problem: Phrase) -> SettingsError:
    expected = Verbatim(", ".join((*_FIELDS, "slack_webhook")))
    return SettingsError("secret_invalid", secret=Verbatim(name), problem=problem, fields=expected)


def find_webhook(arguments: Mapping[str, str], limits: Limits = LIMITS) -> str:
    """The webhook of a run that did not get as far as its secret; empty where it cannot be had.

    From the job arguments by name, unchecked, as they may be what the run failed on.
    """
    name = arguments.get("slack_secret_name") or arguments.get("secret_name")
    try:
        webhook = _read_secret(name, limits.aws).get("slack_webhook") if name else ""
    except JobError:
        return ""
    return webhook if isinstance(webhook, str) and is_webhook(webhook) else ""


def is_webhook(value: object) -> bool:
    """Whether a value can be posted to, or is empty."""
    return isinstance(value, str) and (not value or split_url(value).scheme in {"https", "http"})


def hide(text: str, values: Iterable[str]) -> str:
    """`text` without any of some values; empty ones hide nothing."""
    for value in filter(None, values):
        text = text.replace(value, "***")
    return text


def hide_webhook(text: str, webhook: str) -> str:
    """`text` without the webhook, nor what is secret in its path, which alone is the token."""
    path = urlsplit(webhook).path.strip("/")
    return hide(text, (webhook, path, *(part for part in path.split("/") if len(part) >= _TOKEN_LENGTH)))


def split_url(url: str) -> SplitResult:
    """The parts of a URL; all empty where it is none (`https://[your-host]`: brackets are for addresses of IPv6)."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")
