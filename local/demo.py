"""`make demo` and `make try`: one pipeline from nothing to a published CSV and a Slack message, on this machine."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from local import outcome, own_files
from local.glue.deploy import Pipeline, make_pipeline, upload_code
from local.glue.service import run_job
from local.outcome import fit, width
from local.pages import browser, report
from local.services.aws import Aws
from local.services.databases import MariaDB, PostgreSQL
from local.services.slack import SlackReceiver
from local.words import texts
from overlay.report.slack_text import texts as texts_of_job

ROOT = Path(__file__).resolve().parent.parent
ROWS = 50_000
RECORDS = 30_000
PREVIEW_ROWS = 5
CELL_WIDTH = 20
PIPELINE = Pipeline(
    *("demo", "customers", "demo-source", "in/customers.json", "demo-output", "out/customers.csv"),
    arguments={"unmatched_file": "out/customers-unmatched.csv", "guard_max_drop_percent": "50"},
)
COLUMNS = """
  id BIGINT PRIMARY KEY,
  name VARCHAR(40),
  zip CHAR(7),
  balance DECIMAL(12,2),
  active {flag},
  born DATE,
  updated {moment}(6),
  note TEXT
"""
TABLES: Mapping[type[MariaDB | PostgreSQL], tuple[str, ...]] = {
    MariaDB: (
        f"CREATE TABLE customers ({COLUMNS.format(flag='TINYINT(1)', moment='DATETIME')})",
        f"""INSERT INTO customers
SELECT seq, CONCAT('顧客', seq), LPAD(seq % 9999999, 7, '0'), seq * 1.5, seq % 2,
       '1970-01-01' + INTERVAL seq % 15000 DAY, '2026-01-01 09:00:00.123' + INTERVAL seq SECOND,
       CASE seq % 4 WHEN 0 THEN NULL WHEN 1 THEN 'a, b' WHEN 2 THEN CONCAT('says "', seq, '"') ELSE 'two\\nlines' END
FROM seq_1_to_{ROWS}""",
        "ANALYZE TABLE customers",
    ),
    PostgreSQL: (
        f"CREATE TABLE customers ({COLUMNS.format(flag='SMALLINT', moment='TIMESTAMP')})",
        f"""INSERT INTO customers
SELECT seq, CONCAT('顧客', seq), LPAD((seq % 9999999)::text, 7, '0'), seq * 1.5, seq % 2,
       DATE '1970-01-01' + seq % 15000, TIMESTAMP '2026-01-01 09:00:00.123' + seq * INTERVAL '1 second',
       CASE seq % 4 WHEN 0 THEN NULL WHEN 1 THEN 'a, b' WHEN 2 THEN CONCAT('says "', seq, '"') ELSE E'two\\nlines' END
FROM generate_series(1, {ROWS}) seq""",
        "ANALYZE customers",
    ),
}
# How an origin looks where there is no colour, and where there is (ANSI).
MARKS = {"source": "", "table": "+", "missing": ""}
COLOURS = {"source": "36", "table": "33", "missing": "2"}


@dataclass(frozen=True)
class Choices:
    """What the command line says of a demo."""

    language: str = "ja"
    server: type[MariaDB | PostgreSQL] = MariaDB
    keep: bool = False
    pictures: bool = False


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


def fill_table(database: MariaDB | PostgreSQL) -> None:
    """Makes the sample table."""
    with database.connect(autocommit=True) as connection, connection.cursor() as cursor:
        for statement in TABLES[type(database)]:
            cursor.execute(statement)


def run_and_show(environment: Mapping[str, str], job: str = PIPELINE.job, language: str = "ja") -> int:
    """Runs the job, its stages and problems on the terminal; returns the exit status."""
    reading, writing = os.pipe()

    def show() -> None:
        with open(reading, encoding="utf-8", errors="replace", newline="\n") as log:  # noqa: PTH123
            for line in log:
                if shown := readable(line.rstrip(), language):
                    print("  " + shown, flush=True)

    with ThreadPoolExecutor(1) as pool, open(writing, "wb") as log:  # noqa: PTH123
        shown = pool.submit(show)
        status = run_job(job, {}, environment=environment, output=log)
        log.close()
        shown.result()
    return status


def readable(line: str, language: str) -> str:
    """A line of the log as it is shown; an empty one where it is of no use to a reader here."""
    entry = re.fullmatch(r"\d{4}-\S+ \S+ (INFO|WARNING|ERROR) (.*)", line)
    if entry is None:
        return line
    level, text = entry.groups()
    if not text.startswith("STAGE {"):
        return text if level != "INFO" else ""
    facts = json.loads(text.removeprefix("STAGE "))
    stage, seconds = texts_of_job(language)[facts["stage"]], texts(language)["seconds"].format(facts["seconds"])
    known = ("stage", "seconds", "run_id")
    counts = [f"{name} {value:,}" for name, value in facts.items() if name not in known and type(value) is int]
    return f"{fit(stage, 24)}{seconds:>8}   {', '.join(counts)}".rstrip()


def origin(record: Mapping[str, Any], name: str, cell: str) -> str:
    """Where a cell comes from: `source`, `table` or `missing`."""
    if record.get(name) is not None:
        return "source"
    return "table" if cell else "missing"


def preview(data: bytes, words: Mapping[str, str], *, colour: bool) -> Iterator[str]:
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
        legend = zip(("source", "table"), words["origin_colour"].split("\t"), strict=True)
        yield "  " + "  ".join(f"\x1b[{COLOURS[kind]}m■ {text}\x1b[0m" for kind, text in legend)
    else:
        yield f"  {words['origin_plain']}"


def show_outcome(aws: Aws, slack: SlackReceiver, pipeline: Pipeline, language: str, *, sample: bool) -> None:
    """CSV, Slack messages and pages of the run."""
    words, s3 = texts(language), aws.client("s3")
    folder, bucket = outcome.folder(pipeline.job), pipeline.destination_bucket
    output = outcome.fetch(s3, bucket, pipeline.destination_file, folder / Path(pipeline.destination_file).name)
    if output:
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        rows = preview(output.read_bytes(), words, colour=colour) if sample else outcome.first_lines(output, "utf-8")
        print("\n".join(outcome.csv_lines(f"s3://{bucket}/{pipeline.destination_file}", output, rows, language)))
    for message in slack.messages:
        print(f"\n{words['slack']}", *outcome.message_lines(message), sep="\n")
    pages = {"slack_page": outcome.write_slack_page(pipeline.job, slack.messages)}
    saved = outcome.fetch(s3, bucket, f"{pipeline.destination_file}.report.json", folder / "report.json")
    if saved:
        pages = {"report_page": report.write(str(saved), folder / "report.html"), **pages}
    print("\n".join(outcome.page_lines(pages, language)))


def show_guard(aws: Aws, slack: SlackReceiver, language: str) -> None:
    """What Slack hears of a source that is cut short: of a run, which the guard stops, and of a dry run."""
    key = "in/cut-short.json"
    data = b"\n".join(sample_source().splitlines()[:3])
    aws.client("s3").put_object(Bucket=PIPELINE.source_bucket, Key=key, Body=data)
    with ThreadPoolExecutor() as pool:
        for dry_run in ("false", "true"):
            overrides = {"--source_key": key, "--dry_run": dry_run}
            pool.submit(run_job, PIPELINE.job, overrides, environment=aws.environment(), output=subprocess.DEVNULL)
    print(f"\n{texts(language)['guard']}")
    for message in sorted(slack.messages[-2:], key=lambda message: "🧪" in message["text"]):
        print(*outcome.message_lines(message), "", sep="\n")


def show_next(choices: Choices) -> None:
    """Three things to try."""
    words = texts(choices.language)
    flags = (" POSTGRESQL=1" if choices.server is PostgreSQL else "") + (
        " ENGLISH=1" if choices.language == "en" else ""
    )
    things = {
        f"make try JSON=my.json TABLE=my.csv KEY=code{flags}": words["try_own"],
        f"make demo KEEP=1{flags}": words["try_keep"],
        "terraform init -backend=false && terraform validate": words["try_deploy"],
    }
    print(f"\n{words['next']}")
    for command, meaning in things.items():
        print(f"  {meaning}\n    {command}")


def wait_for_ctrl_c(
    environment: Mapping[str, str],
    database: MariaDB | PostgreSQL,
    slack: SlackReceiver,
    pipeline: Pipeline,
    language: str,
) -> None:
    """Keeps the services up, says how to use them, and shows further Slack messages, here and on their page."""
    words, count = texts(language), len(slack.messages)
    print(f"\n{words['up']}\n")
    for name, value in environment.items():
        print(f"  export {name}={value}")
    upload = f"boto3.client('s3').upload_file('my.json', '{pipeline.source_bucket}', 'in/my.json')"
    login = f"--host={database.host} --port={database.port} --user={database.user}"
    client = {
        MariaDB: f"mariadb {login} --password={database.password} {database.database}",
        PostgreSQL: f"PGPASSWORD={database.password} psql {login.replace('user', 'username')} {database.database}",
    }[type(database)]
    commands = {
        "again": [f".venv/bin/python -m local run {pipeline.job}"],
        "change": [client],
        "upload": [
            f'.venv/bin/python -c "import boto3; {upload}"',
            f".venv/bin/python -m local run {pipeline.job} --source_key in/my.json",
        ],
    }
    for name, lines in commands.items():
        print(f"\n{words[name]}\n", *(f"  {line}" for line in lines), sep="\n", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            for message in slack.messages[count:]:
                print(f"\n{words['slack']}", *outcome.message_lines(message), sep="\n", flush=True)
                outcome.write_slack_page(pipeline.job, slack.messages)
                count += 1
            threading.Event().wait(0.2)


@contextlib.contextmanager
def step(name: str, language: str) -> Iterator[None]:
    """Prints a step before it, and its seconds after it."""
    start = time.monotonic()
    print(f"{name} ...", flush=True)
    yield
    print(f"  {texts(language)['seconds'].format(time.monotonic() - start)}", flush=True)


def take_pictures(aws: Aws, slack: SlackReceiver) -> None:
    """The pictures of docs/: the report of this run; of Slack a run that has every warning, and the second failure."""
    folder = outcome.folder(PIPELINE.job)
    browser.picture(folder / "report.html", ROOT / "docs" / "report.png", 900, 1400)
    lines = sample_source().splitlines()
    doubtful = b"\n".join([*lines[: RECORDS // 3], lines[0], b'{"name": "nobody"}'])
    before = len(slack.messages)
    aws.client("s3").put_object(Bucket=PIPELINE.source_bucket, Key="in/doubtful.json", Body=doubtful)
    for key in ("in/doubtful.json", "in/customer.json", "in/customer.json"):
        overrides = {"--source_key": key, "--guard": "off"}
        run_job(PIPELINE.job, overrides, environment=aws.environment(), output=subprocess.DEVNULL)
    warned, _, failed = slack.messages[before:]
    browser.picture(outcome.write_slack_page(PIPELINE.job, [warned, failed]), ROOT / "docs" / "slack.png", 720, 880)


def start(
    services: contextlib.ExitStack, server: type[MariaDB | PostgreSQL]
) -> tuple[MariaDB | PostgreSQL, Aws, SlackReceiver]:
    """Starts database, AWS APIs and Slack receiver, the slow ones side by side; the job's code is then in S3."""
    database, aws, slack = server(), Aws(), SlackReceiver()
    # The pool stays, too: a server ends with the thread that started it.
    ready = services.enter_context(ThreadPoolExecutor(1)).submit(database.__enter__)
    services.push(database)
    services.enter_context(aws)
    services.enter_context(slack)
    upload_code(aws, ROOT / "glue_job.py")
    ready.result()
    return database, aws, slack


def run_pipeline(
    choices: Choices, pipeline: Pipeline, load: Callable[[MariaDB | PostgreSQL], tuple[str, bytes]], loading: str
) -> int:
    """From nothing to what a run leaves; `load` fills the database and gives table and source.

    Returns:
        The exit status of the job.
    """
    words, began = texts(choices.language), time.monotonic()
    with contextlib.ExitStack() as services:
        with step(words["start"].format(database=choices.server.__name__), choices.language):
            database, aws, slack = start(services, choices.server)
        with step(loading, choices.language):
            table, source = load(database)
        with step(words["deploy"], choices.language):
            arguments = {**pipeline.arguments, "language": choices.language}
            pipeline = replace(pipeline, table=table, webhook=slack.webhook, arguments=arguments)
            make_pipeline(aws, database, pipeline)
            aws.client("s3").put_object(Bucket=pipeline.source_bucket, Key=pipeline.source_key, Body=source)
        with step(words["run"], choices.language):
            status = run_and_show(aws.environment(), pipeline.job, choices.language)
        is_sample = pipeline.job == PIPELINE.job
        show_outcome(aws, slack, pipeline, choices.language, sample=is_sample)
        print(f"\n{words['took'].format(time.monotonic() - began)}", flush=True)
        if choices.pictures:
            take_pictures(aws, slack)
        elif is_sample and status == 0:
            show_guard(aws, slack, choices.language)
        if is_sample and not choices.keep:
            show_next(choices)
        if choices.keep:
            wait_for_ctrl_c(aws.environment(), database, slack, pipeline, choices.language)
    return status


def main(choices: Choices) -> int:
    """Runs the demo; returns the exit status of the job."""

    def load(database: MariaDB | PostgreSQL) -> tuple[str, bytes]:
        with ThreadPoolExecutor(1) as pool:
            filled = pool.submit(fill_table, database)
            source = sample_source()
            filled.result()
        return PIPELINE.table, source

    return run_pipeline(choices, PIPELINE, load, texts(choices.language)["load"].format(rows=ROWS, records=RECORDS))


def try_own(choices: Choices, source: Path, table: Path, key: str) -> int:
    """Runs the job on two files of the reader's; returns its exit status.

    Raises:
        ServiceError: a file cannot be read or loaded.
    """
    words = texts(choices.language)
    content = own_files.read(source, words)
    own_files.read(table, words)
    pipeline = Pipeline(
        *("try", own_files.TABLE, "try-source", f"in/{source.name}", "try-output", "out/try.csv"),
        arguments={"key": key},
    )

    def load(database: MariaDB | PostgreSQL) -> tuple[str, bytes]:
        return own_files.load(database, table, key, words), content

    return run_pipeline(choices, pipeline, load, words["load_own"].format(table=table, source=source))
