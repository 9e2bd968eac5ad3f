"""Received Slack messages as Slack shows them: one page, so that a developer sees what users see."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from overlay.report.page import HEAD

STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1d1c1d; --soft: #616061; --line: #dddddd; --link: #1264a3;
  --code: #c01343; --track: #f6f6f6; --mention: #fff3c4; }
@media (prefers-color-scheme: dark) { :root { --page: #1a1d21; --ink: #d1d2d3; --soft: #9a9b9d; --line: #3b3d42;
  --link: #1d9bd1; --code: #e8912d; --track: #232529; --mention: #5c4a10; } }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.46668 Lato, Slack-Lato, "Noto Sans CJK JP",
  "Hiragino Sans", "Yu Gothic UI", "Noto Color Emoji", sans-serif; }
main { max-width: 700px; margin: 0 auto; padding: 16px 20px; }
article { display: grid; grid-template-columns: 36px 1fr; gap: 8px; padding: 10px 0; }
.avatar { width: 36px; height: 36px; border-radius: 8px; background: #2f6fdb; color: #fff; font-weight: 700;
  display: grid; place-items: center; }
.from b { font-weight: 900; } .from span { color: var(--soft); font-size: 12px; margin-left: 6px; }
.from .app { background: var(--track); border: 1px solid var(--line); border-radius: 3px; padding: 0 3px;
  font-size: 10px; }
.header { font-size: 18px; font-weight: 900; margin: 6px 0; overflow-wrap: anywhere; }
.section, .fields > div { overflow-wrap: anywhere; white-space: pre-wrap; } .section { margin: 6px 0; }
.fields { display: grid; grid-template-columns: 1fr 1fr; gap: 8px 16px; margin: 8px 0; }
.context { color: var(--soft); font-size: 13px; display: flex; flex-wrap: wrap; gap: 2px 12px; margin: 8px 0; }
a { color: var(--link); text-decoration: none; }
code { font: 12px/1.5 Monaco, Menlo, "Noto Sans Mono CJK JP", monospace; color: var(--code); background: var(--track);
  border: 1px solid var(--line); border-radius: 3px; padding: 2px 3px 1px; overflow-wrap: anywhere;
  white-space: pre-wrap; }
.mention { background: var(--mention); }
"""
# What Slack's markup has (https://docs.slack.dev/messaging/formatting-message-text), the first that fits.
_MARKUP = re.compile(
    r"(?P<code>`[^`\n]+`)|<(?P<link>[^<>]+)>|(?<![\w*])\*(?P<bold>[^\s*][^*\n]*)\*(?!\w)"
    r"|(?<!\w)_(?P<italic>[^\s_][^_\n]*)_(?!\w)|(?<!\w)~(?P<strike>[^\s~][^~\n]*)~(?!\w)"
)


def plain(text: str) -> str:
    """Text without markup as HTML. Slack takes three entities for what they stand for, so they are HTML already."""
    for entity, char in (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
        text = text.replace(entity, char)
    return html.escape(text)


def mrkdwn(text: str) -> str:
    """Slack's markup as HTML."""
    parts, end = [], 0
    for markup in _MARKUP.finditer(text):
        parts += [plain(text[end : markup.start()]), _marked(markup)]
        end = markup.end()
    return "".join([*parts, plain(text[end:])])


def unmarked(text: str) -> str:
    """Slack's markup as plain text: what is bold without its asterisks, links by their labels."""
    parts, end = [], 0
    for markup in _MARKUP.finditer(text):
        kind = str(markup.lastgroup)
        content = markup[kind].strip("`") if kind == "code" else markup[kind].rpartition("|")[2]
        parts += [text[end : markup.start()], content if kind in {"code", "link"} else unmarked(content)]
        end = markup.end()
    return html.unescape("".join([*parts, text[end:]]))


def _marked(markup: re.Match[str]) -> str:
    kind = str(markup.lastgroup)
    content = markup[kind]
    if kind == "code":
        return f"<code>{plain(content[1:-1])}</code>"
    if kind != "link":
        tag = {"bold": "b", "italic": "i", "strike": "s"}[kind]
        return f"<{tag}>{mrkdwn(content)}</{tag}>"
    target, _, label = content.partition("|")
    if target.startswith("!date^"):
        moment = datetime.fromtimestamp(int(target.split("^")[1]), UTC).astimezone()
        return f"{moment:%Y-%m-%d %H:%M}"
    if target[:1] in "!@#":
        return f'<span class="mention">{plain(label or target)}</span>'
    return f'<a href="{plain(target)}">{plain(label or target)}</a>'


def text_object(item: Mapping[str, Any]) -> str:
    """A text object as HTML."""
    to_html: Callable[[str], str] = mrkdwn if item["type"] == "mrkdwn" else plain
    return to_html(item["text"])


def block(item: Mapping[str, Any]) -> str:
    """A block as HTML."""
    kind = item["type"]
    if kind == "context":
        return (
            '<div class="context">'
            + "".join(f"<span>{text_object(part)}</span>" for part in item["elements"])
            + "</div>"
        )
    content = f'<div class="{kind}">{text_object(item["text"])}</div>' if "text" in item else ""
    if "fields" in item:
        fields = "".join(f"<div>{text_object(part)}</div>" for part in item["fields"])
        content += f'<div class="fields">{fields}</div>'
    return content


def render(messages: Iterable[Mapping[str, Any]], time: datetime) -> str:
    """The page of some messages."""
    articles = "".join(
        '<article><div class="avatar">E</div><div><div class="from"><b>rds-glue-s3-etl</b> <span class="app">APP</span>'
        f"<span>{time:%H:%M}</span></div>{''.join(map(block, message['blocks']))}</div></article>"
        for message in messages
    )
    return HEAD.format(language="ja", title="Slack", style=STYLE) + f"<body><main>{articles}</main></body></html>\n"
