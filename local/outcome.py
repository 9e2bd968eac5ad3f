"""What a run left, shown on a terminal and as two pages in build/."""

from __future__ import annotations

import itertools
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from local.pages import report, slack_page
from local.words import texts
from overlay.dates import undated
from overlay.report.slack_text import texts as texts_of_job

ROOT = Path(__file__).resolve().parent.parent
FIRST_LINES = 6
LINE_WIDTH = 118


def folder(job: str) -> Path:
    """Where the pages of a job and what it wrote are kept."""
    path = ROOT / "build" / job.removeprefix("job-")
    path.mkdir(parents=True, exist_ok=True)
    return path


def width(text: str) -> int:
    """Columns of a terminal that a text takes."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def fit(text: str, columns: int) -> str:
    """A text cut and padded to a number of terminal columns."""
    text = text[: columns + 1].replace("\n", "⏎")  # a cell may have megabytes
    if width(text) > columns:
        while width(text) > columns - 1:
            text = text[:-1]
        text += "…"
    return text + " " * (columns - width(text))


def fetch(s3: Any, bucket: str, key: str, path: Path, since: datetime | None = None) -> Path | None:
    """Saves an object; None where there is none, or none that was written since a time."""
    try:
        answer = s3.get_object(Bucket=bucket, Key=key)
    except ClientError:
        return None
    if since and answer["LastModified"] < since.replace(microsecond=0):
        return None
    path.write_bytes(answer["Body"].read())
    return path


def first_lines(csv: Path, encoding: str) -> Iterator[str]:
    """How a CSV begins, as it is written."""
    with csv.open(encoding=encoding, errors="replace", newline="\n") as lines:
        yield from (f"  {fit(line.rstrip(), LINE_WIDTH).rstrip()}" for line in itertools.islice(lines, FIRST_LINES))


def csv_lines(url: str, csv: Path, rows: Iterable[str], language: str) -> Iterator[str]:
    """Some rows of the output, and where all of it is."""
    words = texts(language)
    yield "\n" + words["csv"].format(output=url)
    yield from rows
    yield f"  ({words['saved'].format(path=csv.relative_to(ROOT))})"


def message_lines(message: Mapping[str, Any]) -> Iterator[str]:
    """A Slack message as text."""
    for block in message["blocks"]:
        if "fields" in block:
            facts = [slack_page.unmarked(field["text"]).split("\n", 1) for field in block["fields"]]
            columns = max(width(name) for name, _ in facts)
            text = "\n".join(f"{fit(name, columns)}  {value.replace(chr(10), ' · ')}" for name, value in facts)
        else:
            text = " · ".join(slack_page.unmarked(item["text"]) for item in block.get("elements", [block.get("text")]))
        yield from (f"  │ {line}" for line in text.splitlines())


def write_slack_page(job: str, messages: Sequence[Mapping[str, Any]]) -> Path:
    """Writes the page of some messages; its path."""
    path = folder(job) / "slack.html"
    path.write_text(slack_page.render(messages, datetime.now(UTC).astimezone()), encoding="utf-8")
    return path


def page_lines(pages: Mapping[str, Path], language: str) -> Iterator[str]:
    """Where the pages are."""
    words = texts(language)
    columns = max(width(words[name]) for name in pages)
    yield f"\n{words['pages']}"
    yield from (f"  {fit(words[name], columns)}  {path.relative_to(ROOT)}" for name, path in pages.items())


def lines_after(arguments: Mapping[str, str], s3: Any, since: datetime) -> Iterator[str]:
    """What `python -m local run` ends with: how the CSV begins, or why there is none, and where the page is."""
    job, bucket, file = (
        arguments.get(f"--{name}", "") for name in ("JOB_NAME", "destination_bucket", "destination_file")
    )
    is_dry = arguments.get("--dry_run") == "true"
    report_key = f"{undated(file)}.{'dry-run.' if is_dry else ''}report.json"
    saved = fetch(s3, bucket, report_key, folder(job) / "report.json", since)
    if saved is None:  # a run that did not come so far
        return
    run = json.loads(saved.read_text(encoding="utf-8"))
    pages = {"report_page": report.write(str(saved), folder(job) / "report.html")}
    if (slack := folder(job) / "slack.html").exists():
        pages["slack_page"] = slack
    if error := run["error"]:
        yield from page_lines(pages, run["language"])
        stage = texts_of_job(run["language"])[error["stage"]]
        yield from ("", texts(run["language"])["failed"].format(stage=stage), error["cause"], error["hint"])
        return
    key = run["destination"].removeprefix(f"s3://{bucket}/")  # with the date of the run
    output = None if is_dry else fetch(s3, bucket, key, folder(job) / Path(key).name)
    if output is None:
        yield from page_lines(pages, run["language"])
        return
    rows = first_lines(output, arguments.get("--csv_encoding", "utf-8"))
    yield from csv_lines(run["destination"], output, rows, run["language"])
    yield from page_lines(pages, run["language"])
