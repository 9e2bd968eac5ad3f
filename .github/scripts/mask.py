"""Has the runner mask each secret in TF_VAR_credentials: by itself it knows the JSON as a whole alone."""

from __future__ import annotations

import json
import os
import re
from typing import Any


def secrets(text: str) -> list[str]:
    """Passwords, webhooks and their tokens, longest first; none where the text is no JSON (Terraform then says so)."""
    try:
        entries: Any = json.loads(text or "{}")
        found = {value for entry in entries.values() for field, value in entry.items() if field != "username"}
    except (ValueError, AttributeError, TypeError):
        return []
    found = {value for value in found if isinstance(value, str)}
    # Slack's token is the last part of the path; the signature of Teams stands behind it, beside numbers and words.
    urls = [value for value in found if "://" in value]
    found |= {token for url in urls for pattern in ("[^/]+$", "(?<==)[^&=]{16,}") for token in re.findall(pattern, url)}
    return sorted(filter(None, found), key=lambda value: (-len(value), value))


def main() -> None:
    """Writes the runner's commands."""
    for secret in secrets(os.environ.get("TF_VAR_credentials", "")):  # noqa: SIM112
        for line in filter(None, secret.splitlines()):
            print(f"::add-mask::{line.replace('%', '%25')}")  # noqa: T201


if __name__ == "__main__":
    main()
