"""Values as text for people, and links to the AWS console.

In goes whatever a run met, out comes text that hides nothing and formats nothing.
"""

import bisect
import html
import itertools
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import quote

from overlay import texts_en, texts_ja
from overlay.limits import MIB

DRY_MARK = "🧪"  # before what a dry run says
LINK_LIMIT = 1_200  # characters of a URL
# What moves the cursor, begins a line or turns the direction of text: none of it is visible, all of it can deceive.
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
# The markup that `as_code`, `link`, `date_text` and our bold names write; values stand in code alone.
_MARKUP = re.compile(
    r"`(?P<code>[^`\n]*)`|<(?P<link>[^<>|]+)\|(?P<label>[^<>]*)>|^\*(?P<bold>[^*\n]+)\*$", re.MULTILINE
)
_LEAST_PERCENT, _MOST_PERCENT = 0.1, 99.9  # what a share that is neither nothing nor all is rounded to


def texts(language: str) -> Mapping[str, str]:
    """The texts of messages and reports in a language, by name."""
    return {"en": texts_en.TEXTS, "ja": texts_ja.TEXTS}[language]


def visible(text: object) -> str:
    """Writes the invisible characters of a text as escapes: no value begins a line of its own or hides another."""
    return _INVISIBLE.sub(lambda match: match[0].encode("unicode_escape").decode(), str(text))


def slack_escape(text: object) -> str:
    """Escapes the three control characters of Slack (https://docs.slack.dev/messaging/formatting-message-text)."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def clip(text: object, limit: int) -> str:
    """Makes a value visible, escapes it and cuts it to `limit` characters, escaped as Slack counts them.

    An escape is kept whole or left out.
    """
    chars = [slack_escape(char) for char in visible(text)[: limit + 1]]
    lengths = list(itertools.accumulate(map(len, chars), initial=0))
    if lengths[-1] <= limit:
        return "".join(chars)
    return "".join(chars[: bisect.bisect_right(lengths, limit - 1) - 1]) + "…"


def as_code(text: object, limit: int) -> str:
    """Writes a value as inline code: the one place in mrkdwn where nothing is formatted, linked or mentioned."""
    inside = clip(str(text).replace("`", "ˋ"), limit)
    return f"`{inside}`" if inside else '`""`'


def link(url: str, label: str) -> str:
    """Writes a link in mrkdwn; an empty text without a URL or with one that is too long."""
    return f"<{slack_escape(url)}|{label}>" if 0 < len(url) <= LINK_LIMIT else ""


def share(part: int, whole: int) -> str:
    """Writes a count and its share of the whole: `1 (<0.1%)` and `99,999 (>99.9%)` are not rounded to none and all."""
    return f"{part:,} ({slack_escape(percentage(part, whole))})" if whole else f"{part:,}"


def percentage(part: int, whole: int) -> str:
    """Writes a share of a whole that is not nothing in percent."""
    percent = 100 * part / whole
    if 0 < percent < _LEAST_PERCENT:
        return f"<{_LEAST_PERCENT}%"
    if part < whole and percent > _MOST_PERCENT:
        return f">{_MOST_PERCENT}%"
    return f"{percent:.1f}%"


def change(now: int, before: int | None) -> str:
    """Writes how a count differs from an earlier one: `+1.2%`, `±0`, as a number where it is hardly a percentage."""
    if before is None:
        return ""
    difference = now - before
    percent = 100 * difference / before if before else 0.0
    if abs(percent) < _LEAST_PERCENT:
        return f"{difference:+,}" if difference else "±0"
    return f"{max(percent, -_MOST_PERCENT) if now else percent:+,.1f}%"


def duration(seconds: float, language: str) -> str:
    """Writes a time span in minutes and seconds, or in seconds alone below a minute."""
    minutes, whole_seconds = divmod(round(seconds), 60)
    if not minutes:
        return texts(language)["short_duration"].format(seconds=f"{seconds:,.1f}")
    return texts(language)["duration"].format(minutes=f"{minutes:,}", seconds=whole_seconds)


def size_text(size: int, language: str) -> str:
    """Writes a number of bytes, in MiB from one MiB on."""
    return texts(language)["size"].format(size=f"{size:,}") if size < MIB else f"{size / MIB:,.1f} MiB"


def date_text(moment: str) -> str:
    """Writes an ISO time in UTC as Slack's date, which each reader sees in their own time zone."""
    utc = datetime.fromisoformat(moment)
    return f"<!date^{int(utc.timestamp())}^{{date_num}} {{time}}|{utc:%Y-%m-%d %H:%M} UTC>"


class Span(NamedTuple):
    """Some text of a message, as people read it."""

    text: str
    style: str = ""  # code or bold
    url: str = ""


def read_spans(item: Mapping[str, Any]) -> list[Span]:
    """Reads a text object of a Slack message, so that what is not Slack can be told the same."""
    text = item["text"]
    return [*_read_mrkdwn(text)] if item["type"] == "mrkdwn" else [Span(html.unescape(text))]


def plain(item: Mapping[str, Any]) -> str:
    """The text of a text object without its markup and its links."""
    return "".join(span.text for span in read_spans(item) if not span.url).strip()


def _read_mrkdwn(text: str) -> Iterator[Span]:
    end = 0
    for markup in _MARKUP.finditer(text):
        yield Span(html.unescape(text[end : markup.start()]))
        end = markup.end()
        if markup["link"]:
            url = "" if markup["link"].startswith("!date^") else html.unescape(markup["link"])
            yield Span(html.unescape(markup["label"]), url=url)
        else:
            style = "bold" if markup["bold"] else "code"
            yield Span(html.unescape(markup[style]), style)
    yield Span(html.unescape(text[end:]))


class Console(NamedTuple):
    """The AWS console of a region; without a region (a run outside AWS) all its URLs are empty."""

    region: str

    def run(self, job: str, run_id: str) -> str:
        """The URL of a run of a Glue job."""
        page = f"gluestudio/home?region={self.region}#/job/{_url_quote(job)}/run/{_url_quote(run_id)}"
        return self._url(page, job, run_id)

    def logs(self, prefix: str) -> str:
        """The URL of the log groups below a prefix: its fragment has `$` for `%`, and names quoted twice."""
        groups = _url_quote(f"?logGroupNameFilter={_url_quote(f'{prefix}/')}").replace("%", "$")
        return self._url(f"cloudwatch/home?region={self.region}#logsV2:log-groups{groups}", prefix)

    def object(self, bucket: str, key: str) -> str:
        """The URL of an object in S3."""
        page = f"s3/object/{_url_quote(bucket)}?region={self.region}&prefix={_url_quote(key)}"
        return self._url(page, bucket, key)

    def _url(self, page: str, *names: str) -> str:
        """The URL of a page, or an empty one where the region or one of the names in it is empty."""
        return f"https://{self.region}.console.aws.amazon.com/{page}" if all((self.region, *names)) else ""


def _url_quote(text: str) -> str:
    return quote(text, safe="", errors="backslashreplace")  # a lone surrogate, which UTF-8 lacks, becomes an escape
