"""Tells of a run: one message in the form of each webhook, posted to all of them side by side.

In go the message as Slack has it and its facts; out comes whether anybody took it. Nothing here fails a run or
holds it.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import requests

from overlay.aws import within
from overlay.limits import Limits
from overlay.report.document import json_document
from overlay.report.teams import teams_message
from overlay.secret import hide_webhook

LOG = logging.getLogger(__name__)
Json = Mapping[str, Any]
_BODY_LIMIT = 200  # characters of an answer in the log
_SERVER_ERRORS = 500  # HTTP status, and all above


class Service(NamedTuple):
    """Who listens at a webhook."""

    name: str  # in the log
    successes: range  # HTTP status of a message that was taken
    form: Callable[[Json, Json], Json]  # the body, of the message and its facts


_ANY_SUCCESS = range(200, 300)  # Workflows answers 202
SERVICES = {
    "slack_webhook": Service("Slack", range(200, 201), lambda message, _: message),
    "teams_webhook": Service("Teams", _ANY_SUCCESS, lambda message, _: teams_message(message)),
    "json_webhook": Service("JSON webhook", _ANY_SUCCESS, json_document),
}


def notify(
    webhooks: Mapping[str, str], message: Json, facts: Json, limits: Limits, seconds: float | None = None
) -> bool:
    """Posts a message to each webhook there is; returns whether any of them took it. Never raises.

    All attempts and waits together take at most `seconds` (else `limits.slack_seconds`). Webhooks are secrets: neither
    they nor what quotes them is logged.

    Args:
        webhooks: By their names in the secret; an empty one is none.
        message: For Slack; the others are made of it.
        facts: For programs (see `document`).
        limits: Those of Slack hold for all.
        seconds: For a run that has less time.
    """
    seconds = limits.slack_seconds if seconds is None else seconds
    answers: list[bool] = []

    def post(service: Service, webhook: str) -> None:
        answers.append(_post(service, webhook, message, facts, limits, seconds))

    threads = [
        threading.Thread(target=post, args=(SERVICES[name], webhook), daemon=True)
        for name, webhook in webhooks.items()
        if webhook
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return any(answers)


def _post(service: Service, webhook: str, message: Json, facts: Json, limits: Limits, seconds: float) -> bool:
    deadline = time.monotonic() + seconds

    def deliver() -> bool:
        return _deliver(service, webhook, service.form(message, facts), limits, deadline)

    ok = within(seconds, f"posting to {service.name}", deliver) is True
    if not ok:
        LOG.warning("%s did not take the message; the run goes on without it", service.name)
    return ok


def _deliver(service: Service, webhook: str, payload: Json, limits: Limits, deadline: float) -> bool:
    """Tries until the payload is taken or refused for good, or the next attempt would begin after the deadline."""
    for number in range(1, limits.slack_attempts + 1):
        ok, wait = _attempt(service, webhook, payload, limits, number)
        if ok or wait is None or number == limits.slack_attempts or time.monotonic() + wait > deadline:
            return ok
        time.sleep(wait)
    return False


def _attempt(service: Service, webhook: str, payload: Json, limits: Limits, number: int) -> tuple[bool, float | None]:
    """Whether the payload was taken, and the seconds before another attempt makes sense (None: never)."""
    backoff = 2.0 ** (number - 1)
    timeout = (limits.slack_connect_seconds, limits.slack_read_seconds)
    try:
        answer = requests.post(webhook, json=payload, timeout=timeout, allow_redirects=False)
    except requests.RequestException as error:
        # The text of the exception holds the webhook, so only its kind is logged.
        LOG.warning("%s attempt %d: %s", service.name, number, type(error).__name__)
        # After a read timeout the service has the message, and may yet show it.
        return False, None if isinstance(error, requests.ReadTimeout) else backoff
    if answer.status_code in service.successes:
        return True, None
    said = hide_webhook(answer.text, webhook)[:_BODY_LIMIT]  # `invalid_blocks`; the page of a proxy may quote a URL
    LOG.warning("%s attempt %d: HTTP %d %r", service.name, number, answer.status_code, said)
    if answer.status_code != requests.codes.too_many_requests and answer.status_code < _SERVER_ERRORS:
        return False, None
    header = answer.headers.get("Retry-After", "").strip()
    return False, float(header) if header.isdecimal() else backoff
