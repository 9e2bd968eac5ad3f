"""What tests saw, and docs/reliability.md, which is made of it: `python -m tests.figures`."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import glue_job
from bench.suite import read_machine
from glue_job import AWS_CONFIG as AWS

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "figures"
PAGE = ROOT / "docs" / "reliability.md"
# Of each section: its title, what its rows are, and the facts beside their names.
SECTIONS = {
    "faults": ("Faults", "fault", ("outcome", "seconds")),
    "hostile": ("Hostile input", "input", ("outcome", "inputs")),
    "soak": ("Job against oracle", "pairs of source and table", ("pairs", "seconds")),
}
ABOUT = """\
# Reliability

What the tests saw, on real parts: MariaDB, Spark, moto's S3, Secrets Manager and Glue, a Slack receiver. Proxies
between the job and its servers break what passes. Made by `make reliability`; not edited by hand.
"""
STOP = glue_job.STOP_SECONDS
STALL, LOCK = glue_job.SOCKET_TIMEOUT_SECONDS // 60, glue_job.LOCK_TIMEOUT_SECONDS // 60  # minutes


def listed(numbers: Iterable[float]) -> str:
    """Numbers as a sentence has them."""
    *most, last = map(str, numbers)
    return f"{', '.join(most)} and {last}"


NOTES = {
    "faults": f"""\
For each fault a test proves that

- the object at the destination is the old one, byte for byte, or the new one, whole and right;
- no multipart upload is left, but by a driver that was killed, after which the next run cleans up;
- Slack got one message, or none where it could not be reached or the webhook could not be read;
- the run ended in time.

"Ridden out" means that the run succeeded and its output is what `tests/oracle.py` says. Seconds are of the whole run,
or from the signal on where a process was stopped or killed. The tests shorten what the job waits for; otherwise it is:

| what | waits | then |
| --- | --- | --- |
| AWS does not answer | {AWS.read_timeout} s, {AWS.retries["max_attempts"]} attempts | the task fails |
| the answer of S3 is torn | {glue_job.READ_ATTEMPTS} attempts | the task fails |
| a task fails | 4 attempts | the run fails, or asks the database again as below |
| the database stalls | {STALL} minutes | the task fails; the run within about {8 * STALL} minutes |
| the table is locked | {LOCK} minutes | the task fails; the run within about {4 * LOCK} minutes |
| the database is not reached at first | again after {listed(glue_job.FIRST_WAITS)} s | the run fails |
| the database is lost later (restart, failover, no connection left) | again after {listed(glue_job.LATER_WAITS)} s, \
if within {glue_job.PATIENCE_SECONDS // 60} minutes | the run fails |
| Slack does not answer | {glue_job.SLACK_SECONDS:g} s | the run goes on |
| the run is stopped | {STOP:g} s for its tasks, {STOP:g} s for Slack | the process ends |
| a killed run left an upload | {glue_job.STALE_UPLOAD_SECONDS // 3600} hours | the next run aborts it |
""",
}


def record(section: str, name: str, **facts: object) -> None:
    """Keeps one row of a table: `section` is the table, `name` what was tried, `facts` its further columns."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{section}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"name": name, **facts}, ensure_ascii=False) + "\n")


def table(section: str) -> Iterator[str]:
    """One table in Markdown, of the last row of each name."""
    title, kind, columns = SECTIONS[section]
    lines = (FOLDER / f"{section}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = {row["name"]: row for row in map(json.loads, lines)}
    yield from ("", f"## {title}", "", *([NOTES[section]] if section in NOTES else []))
    yield f"| {' | '.join((kind, *columns))} |"
    yield f"|{' --- |' * (1 + len(columns))}"
    for row in rows.values():
        cells = [str(row.get(column, "")).replace("|", "\\|") for column in ("name", *columns)]
        yield f"| {' | '.join(cells)} |"


def names(section: str) -> list[str]:
    """The names in a table of the page."""
    lines = PAGE.read_text(encoding="utf-8").partition(f"## {SECTIONS[section][0]}\n")[2].partition("\n## ")[0]
    head = f"| {' | '.join(SECTIONS[section][1:2] + SECTIONS[section][2])} |\n"
    rows = lines.partition(head)[2].splitlines()[1:]
    return [row.split(" | ")[0].removeprefix("| ") for row in rows if row.startswith("| ")]


def main() -> None:
    """Writes the page."""
    machine = read_machine()
    today = datetime.datetime.now(datetime.UTC).date()
    made = f"`make reliability`, {today}, {machine['cpu']}, {machine['cores']} cores"
    tables = [line for section in SECTIONS if (FOLDER / f"{section}.jsonl").exists() for line in table(section)]
    PAGE.write_text("\n".join([ABOUT, made, *tables, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
