"""What people are shown, as tests read it: the texts of Slack's payloads, and English where none should be."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from overlay.errors import JobError


def objects_in(payload: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every text object of a payload's blocks."""
    for block in payload["blocks"]:
        yield from filter(None, [block.get("text"), *block.get("fields", []), *block.get("elements", [])])


def texts_in(payload: Mapping[str, Any]) -> list[str]:
    """Every text of a payload's blocks."""
    return [item["text"] for item in objects_in(payload)]


def english_in(error: JobError) -> list[str]:
    """Where words of English follow each other in the Japanese message."""
    japanese = re.sub(r"--\w+|terraform apply", "", " ".join(error.message("ja")))
    return re.findall("[A-Za-z]+ [a-z]{2,}", japanese)
