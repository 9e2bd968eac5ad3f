"""`make demo`: one pipeline from nothing to a published CSV and a Slack message, on this machine."""

from __future__ import annotations

import contextlib
import csv
import html
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from local.glue.deploy import Pipeline, deploy
from local.glue.service import run_job
from local.pages import browser, report, slack_page
from local.services.aws import Aws
from local.services.databases import MariaDB
from local.services.processes import start_process, stop_process
from local.services.slack import SlackReceiver

ROOT = Path(__file__).resolve().parent.parent
ROWS = 50_000
RECORDS = 30_000
PREVIEW_ROWS = 8
CELL_WIDTH = 20
PIPELINE = Pipeline(
    *("demo", "customers", "demo-source", "in/customers.json", "demo-output", "out/customers.csv"),
    arguments={"unmatched_file": "out/customers-unmatched.csv"},
)
FOLDER = ROOT / "build" / "demo"
TABLE = """
CREATE TABLE customers (
  id BIGINT PRIMARY KEY,
  name VARCHAR(40),
  zip CHAR(7),
  balance DECIMAL(12,2),
  active TINYINT(1),
  born DATE,
  updated DATETIME(6),
  note TEXT
)
"""
FILL = f"""
INSERT INTO customers
SELECT seq, CONCAT('顧客', seq), LPAD(seq % 9999999, 7, '0'), seq * 1.5, seq % 2,
       '1970-01-01' + INTERVAL seq % 15000 DAY, '2026-01-01 09:00:00.123' + INTERVAL seq SECOND,
       CASE seq % 4 WHEN 0 THEN NULL WHEN 1 THEN 'a, b' WHEN 2 THEN CONCAT('says "', seq, '"') ELSE 'two\\nlines' END
FROM seq_1_to_{ROWS}
"""
# How an origin looks where there is no colour, and where there is (ANSI).
MARKS = {"source": "", "table": "+", "missing": ""}
COLOURS = {"source": "36", "table": "33", "missing": "2"}


def sample_record(number: int) -> dict[str, Any]:
    """One record of the sample: ids 1, 3, 5, ... of the table, every tenth unknown to it."""
    key: int | str = number * 2 - 1 if number % 10 else number + 1_000_000
    if number % 7 == 0:
        key = f"{key:08d}"
    record: dict[str, Any] = {"id": key, "name": f"株式会社 第{number}商店", "balance": None}
    if number % 2:
        record["balance"] = "BALANCE"  # becomes the literal 1234.10, which Python would write as 1234.1
    if number % 3 == 0:
        record["name"] = None
    if number % 4 == 0:
        record["zip"] = f"{number:07d}"
    if number % 5 == 0:
        record["tags"] = {"rank": number % 3, "labels": ["東京", "VIP"]}
    if number == RECORDS:
        record["memo"] = "最後のレコードだけの列"
    return record


def sample_source() -> bytes:
    """The sample as JSON Lines."""
    lines = (json.dumps(sample_record(number), ensure_ascii=False) for number in range(1, RECORDS + 1))
    return re.sub('"BALANCE"', "1234.10", "\n".join(lines)).encode()


def fill_table(database: MariaDB) -> None:
    """Makes the sample table."""
    with database.connect(autocommit=True) as connection, connection.cursor() as cursor:
        for statement in (TABLE, FILL, "ANALYZE TABLE customers"):
            cursor.execute(statement)


def run_and_show(environment: Mapping[str, str]) -> tuple[int, dict[str, Any] | None]:
    """Runs the job as a user would, its log on the terminal; returns the exit status and the result it logged."""
    command = [sys.executable, "-m", "local", "run", PIPELINE.job]
    result = None
    process = start_process(
        command, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        assert process.stdout
        for raw in io.TextIOWrapper(process.stdout, encoding="utf-8", errors="replace", newline="\n"):
            for line in filter(str.strip, re.split(r"[\r\n]+", raw)):
                if " RESULT {" in line:
                    result = json.loads(line.split(" RESULT ", 1)[1])
                else:
                    print("  " + line.rstrip())
        return process.wait(), result
    finally:
        stop_process(process)


def width(text: str) -> int:
    """Columns of a terminal that a text takes."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def fit(text: str, columns: int) -> str:
    """A text cut and padded to a number of terminal columns."""
    text = text.replace("\n", "⏎")
    if width(text) > columns:
        while width(text) > columns - 1:
            text = text[:-1]
        text += "…"
    return text + " " * (columns - width(text))


def origin(record: Mapping[str, Any], name: str, cell: str) -> str:
    """Where a cell comes from: `source`, `table` or `missing`."""
    if record.get(name) is not None:
        return "source"
    return "table" if cell else "missing"


def preview(data: bytes, *, colour: bool) -> Iterator[str]:
    """The first rows of the CSV as an aligned table that shows the origin of each cell."""
    rows = csv.reader(io.StringIO(data.decode(), newline=""))
    header = next(rows)
    first_rows = [row for row, _ in zip(rows, range(PREVIEW_ROWS), strict=False)]
    widths = [
        min(max(width(cell.replace("\n", "⏎")) + 1 for cell in column), CELL_WIDTH)
        for column in zip(header, *first_rows, strict=True)
    ]
    yield "  " + "  ".join(fit(name, size) for name, size in zip(header, widths, strict=True))
    for number, row in enumerate(first_rows, 1):
        cells = []
        for name, cell, size in zip(header, row, widths, strict=True):
            kind = origin(sample_record(number), name, cell)
            text = fit(cell if colour else cell + MARKS[kind], size)
            cells.append(f"\x1b[{COLOURS[kind]}m{text}\x1b[0m" if colour else text)
        yield "  " + "  ".join(cells)
    if colour:
        legend = {"source": "from the source", "table": "filled from the table"}
        yield "  " + "  ".join(f"\x1b[{COLOURS[kind]}m■ {text}\x1b[0m" for kind, text in legend.items())
    else:
        yield "  + filled from the table; all else is from the source"


def show_counts(result: Mapping[str, Any]) -> None:
    """The counts of a run."""
    names = {
        "source_records": "source records",
        "matched": "matched",
        "source_only": "source only",
        "filled_cells": "cells filled from the table",
        "unmatched": "table rows the source lacks",
        "bytes": "bytes written",
    }
    for key, name in names.items():
        print(f"  {name:<28}{result[key]:>12,}")


def show_message(message: Mapping[str, Any]) -> None:
    """A Slack message as text, links by their labels."""
    for block in message["blocks"]:
        if "fields" in block:
            facts = [field["text"].replace("*", "").split("\n", 1) for field in block["fields"]]
            columns = max(width(name) for name, _ in facts)
            lines = [f"{fit(name, columns)}  {value}" for name, value in facts]
            text = "\n".join(line.replace("\n", " · ") for line in lines)
        else:
            text = " · ".join(item["text"] for item in block.get("elements", [block.get("text")]))
        for line in re.sub(r"<[^|>]*\|([^>]*)>", r"\1", text).replace("`", "").splitlines():
            print(f"  │ {html.unescape(line)}")


def wait_for_ctrl_c(environment: Mapping[str, str], database: MariaDB, slack: SlackReceiver) -> None:
    """Keeps the services up, says how to use them, and shows further Slack messages."""
    message_count = len(slack.messages)
    print("\nThe services stay up until Ctrl-C. In another terminal, in this folder:\n")
    for name, value in environment.items():
        print(f"  export {name}={value}")
    print(f"  .venv/bin/python -m local run {PIPELINE.job}")
    print("\nYour own data: upload a JSON file and name it (and anything else of the job) on the command line:\n")
    upload = f"boto3.client('s3').upload_file('my.json', '{PIPELINE.source_bucket}', 'in/my.json')"
    print(f'  .venv/bin/python -c "import boto3; {upload}"')
    print(f"  .venv/bin/python -m local run {PIPELINE.job} --source_key in/my.json --language en")
    print(f"\nYour own table: replace `{PIPELINE.table}` with any MySQL client.\n")
    login = f"--host={database.host} --port={database.port} --user={database.user} --password={database.password}"
    print(f"  mariadb {login} {database.database} < my_table.sql")
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            for message in slack.messages[message_count:]:
                print("\nSlack message")
                show_message(message)
                message_count += 1
            threading.Event().wait(0.5)


def show_outcome(aws: Aws, slack: SlackReceiver, result: Mapping[str, Any] | None) -> None:
    """Counts, CSV and Slack messages of the run."""
    if result:
        target = fetch(aws, PIPELINE.destination_file)
        data = target.read_bytes()
        print("\nCounts")
        show_counts(result)
        print(f"\nCSV: {result['output']}, saved as {target.relative_to(ROOT)}")
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        print("\n".join(preview(data, colour=colour)))
    for message in slack.messages:
        print("\nSlack message")
        show_message(message)
    FOLDER.mkdir(parents=True, exist_ok=True)
    page = FOLDER / "slack.html"
    page.write_text(slack_page.render(slack.messages, datetime.now(UTC).astimezone()), encoding="utf-8")
    pages = {
        "the run report": report.write(
            str(fetch(aws, f"{PIPELINE.destination_file}.report.json")), FOLDER / "report.html"
        ),
        "as Slack shows it": page,
    }
    print("\nIn a browser")
    for name, path in pages.items():
        print(f"  {name:<20}{path.relative_to(ROOT)}")


def fetch(aws: Aws, key: str) -> Path:
    """An object beside the output, saved."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    target = FOLDER / Path(key).name
    target.write_bytes(aws.client("s3").get_object(Bucket=PIPELINE.destination_bucket, Key=key)["Body"].read())
    return target


def steps(names: Sequence[str]) -> Iterator[None]:
    """Prints a step and the seconds of the one before, each time the next is asked for."""
    for number, name in enumerate(names, 1):
        start = time.monotonic()
        print(f"[{number}/{len(names)}] {name} ...", flush=True)
        yield
        print(f"      {time.monotonic() - start:.1f} s", flush=True)


def take_pictures(aws: Aws, slack: SlackReceiver) -> None:
    """The pictures of docs/: the pages of this run, and what Slack shows of one that fails."""
    wrong = {"--source_key": "in/customer.json"}
    run_job(PIPELINE.job, wrong, environment=aws.environment(), output=subprocess.DEVNULL)
    page = FOLDER / "pictures.html"
    page.write_text(slack_page.render(slack.messages, datetime.now(UTC).astimezone()), encoding="utf-8")
    browser.picture(page, ROOT / "docs" / "slack.png", 720, 760)
    browser.picture(FOLDER / "report.html", ROOT / "docs" / "report.png", 900, 1420)


def main(*, keep: bool, pictures: bool = False) -> int:
    """Runs the demo; returns the exit status of the job."""
    start = time.monotonic()
    step = steps(
        [
            "starting MariaDB, the AWS APIs (moto) and a Slack receiver",
            f"making a table of {ROWS:,} rows and a source of {RECORDS:,} records",
            "deploying one pipeline through the AWS API",
            "running the job",
        ]
    )
    next(step)
    with MariaDB() as database, Aws() as aws, SlackReceiver() as slack:
        next(step)
        fill_table(database)
        source = sample_source()
        next(step)
        pipeline = Pipeline(**{**vars(PIPELINE), "webhook": slack.webhook})
        deploy(aws, database, pipeline, ROOT / "glue_job.py")
        aws.client("s3").put_object(Bucket=PIPELINE.source_bucket, Key=PIPELINE.source_key, Body=source)
        next(step)
        status, result = run_and_show(aws.environment())
        next(step, None)
        show_outcome(aws, slack, result)
        if pictures:
            take_pictures(aws, slack)
        print(f"\nThe demo took {time.monotonic() - start:.0f} s.", flush=True)
        if keep:
            wait_for_ctrl_c(aws.environment(), database, slack)
    return status
