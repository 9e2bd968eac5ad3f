"""Has the runner mask each secret in TF_VAR_credentials: by itself it knows the JSON as a whole alone."""

from __future__ import annotations

import json
import os
from typing import Any


def secrets(text: str) -> list[str]:
    """Passwords, webhooks and their tokens, longest first; none where the text is no JSON (Terraform then says so)."""
    try:
        entries: Any = json.loads(text or "{}")
        found = {
            entry[field] for entry in entries.values() for field in ("password", "slack_webhook") if field in entry
        }
    except (ValueError, AttributeError, TypeError):
        return []
    found = {value for value in found if isinstance(value, str)}
    found |= {value.rpartition("/")[2] for value in found if "://" in value}
    return sorted(filter(None, found), key=lambda value: (-len(value), value))


def main() -> None:
    """Writes the runner's commands."""
    for secret in secrets(os.environ.get("TF_VAR_credentials", "")):  # noqa: SIM112
        for line in filter(None, secret.splitlines()):
            print(f"::add-mask::{line.replace('%', '%25')}")  # noqa: T201


if __name__ == "__main__":
    main()
