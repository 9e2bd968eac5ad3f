"""Finds where a secret turns up again: as it is, in part, and in the forms that programs give a text."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

PART = 8  # characters that are no chance


def forms(secret: str) -> Iterator[tuple[str, bytes]]:
    """Yields the forms of a secret that must not turn up, by name. Short secrets have no parts."""
    data = secret.encode()
    yield "plain", data
    yield "reversed", secret[::-1].encode()
    yield "URL-encoded", quote(secret, safe="").encode()
    yield "URL-encoded as a path", quote(secret).encode()
    yield "URL-encoded for a form", quote_plus(secret).encode()
    yield "in JSON", json.dumps(secret)[1:-1].encode()
    yield "in hexadecimal", data.hex().encode()
    for offset in range(3):  # of the secret in what was encoded; the characters at both ends depend on the neighbours
        encoded = base64.b64encode(b"\x00" * offset + data)
        core = encoded[4 if offset else 0 : len(encoded) // 4 * 4 - 4]
        yield "in base64", core
        yield "in base64 for URLs", core.replace(b"+", b"-").replace(b"/", b"_")
    if len(secret) >= 2 * PART:
        middle = len(secret) // 2
        for part in (secret[:middle], secret[middle:]):
            yield "in part", part.encode()
            yield "in part, reversed", part[::-1].encode()


def leaks(traces: Iterable[tuple[str, bytes]], secrets: Iterable[str]) -> list[str]:
    """Finds which secrets are in which traces (name, content), and in which form; no secret is named itself."""
    searched = [(f"secret {number}", *form) for number, secret in enumerate(secrets, 1) for form in forms(secret)]
    return [f"{name} {form}: {trace}" for trace, data in traces for name, form, text in searched if text in data]
