"""Microsoft Teams: in goes a message as Slack has it, out comes the same as an Adaptive Card for a Workflows webhook.

Text of an Adaptive Card is Markdown, but for the runs of a RichTextBlock, which have none: so whatever may hold a value
is a run, and no value is made a link, a mention or bold.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from overlay.report.slack_text import Span, plain, read_spans

# Teams takes 28 KB (learn.microsoft.com, "Limits and specifications for Microsoft Teams", of a webhook's message).
MESSAGE_BYTES = 28_000
_TEXT_LIMITS = (2_000, 500, 60)  # characters of a value: the first with which the message is small enough
# What Markdown, or a date of a card ({{DATE(...)}}), is made of. Our own words have none of it.
_MARKDOWN = re.compile(r"[\\`*_\[\]{}]|^\s*([-+]|\d+[.)])\s")
_KINDS = {"code": {"fontType": "Monospace"}, "bold": {"weight": "Bolder"}}


def teams_message(message: Mapping[str, Any]) -> dict[str, Any]:
    """What the trigger "When a Teams webhook request is received" takes."""
    for limit in _TEXT_LIMITS:
        attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "content": _card(message, limit)}
        payload = {"type": "message", "attachments": [attachment]}
        if len(json.dumps(payload)) <= MESSAGE_BYTES:
            break
    return payload


def _card(message: Mapping[str, Any], limit: int) -> dict[str, Any]:
    header, *sections = message["blocks"]
    body = [*_texts(read_spans(header["text"]), limit, size="Large", weight="Bolder")]
    actions = []
    for section in sections:
        body += _facts(section.get("fields", []), limit)
        style = {"size": "Small", "isSubtle": True} if "elements" in section else {}
        for item in [*section.get("elements", []), *([section["text"]] if "text" in section else [])]:
            spans = read_spans(item)
            body += _texts(spans, limit, **style)
            actions += [{"type": "Action.OpenUrl", "title": span.text, "url": span.url} for span in spans if span.url]
    return {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": {"width": "Full"},
        "body": body,
        "actions": actions,
    }


def _facts(fields: Sequence[Mapping[str, Any]], limit: int) -> Iterator[dict[str, Any]]:
    """A FactSet, whose values are Markdown; facts that may hold any are texts below it."""
    facts, others = [], []
    for field in fields:
        name, _, value = plain(field).partition("\n")
        if _MARKDOWN.search(value) or any(span.style == "code" for span in read_spans(field)):
            others.append(read_spans(field))
        else:
            facts.append({"title": name, "value": value})
    if facts:
        yield {"type": "FactSet", "facts": facts}
    for spans in others:
        yield from _texts(spans, limit)


def _texts(spans: Sequence[Span], limit: int, **style: Any) -> Iterator[dict[str, Any]]:
    """A RichTextBlock for each line. Links are left out: they are buttons, which every client shows."""
    lines: list[list[dict[str, Any]]] = [[]]
    for span in (span for span in spans if not span.url):
        first, *others = span.text.split("\n")
        lines[-1] += _run(first, span.style, limit, style)
        lines += [_run(text, span.style, limit, style) for text in others]
    for number, runs in enumerate(filter(None, lines)):
        yield {"type": "RichTextBlock", "inlines": runs} | ({"spacing": "None"} if number else {})


def _run(text: str, kind: str, limit: int, style: Mapping[str, Any]) -> list[dict[str, Any]]:
    if not text:
        return []
    text = text if len(text) <= limit else f"{text[: limit - 1]}…"
    return [{"type": "TextRun", "text": re.sub(r"\{(?=\{)", "{ ", text), **_KINDS.get(kind, {}), **style}]
