"""Keeps what tests measured and writes docs/reliability.md from it: `python -m tests.figures`."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from bench.suite import read_machine
from overlay.limits import Limits

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "figures"
PAGE = ROOT / "docs" / "reliability.md"
# Of each section: its title, what its rows are, and the facts beside their names.
SECTIONS = {
    "faults": ("Faults", "fault", ("outcome", "seconds, driver engine", "seconds, Spark engine")),
    "hostile": ("Hostile input", "input", ("outcome", "inputs")),
    "soak": ("Job against oracle", "pairs of source and table", ("pairs", "seconds")),
}
ABOUT = """\
# Reliability

What the tests saw, on real parts: MariaDB, Spark, moto's S3, Secrets Manager and Glue, a Slack receiver. Proxies
between the job and its servers break what passes. Made by `make reliability`; not edited by hand.
"""
LIMITS = Limits()
STALL, LOCK = LIMITS.socket_seconds / 60, LIMITS.lock_seconds / 60  # minutes


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

"Ridden out" means that the run succeeded and its output is what `reference/oracle.py` says. Seconds are of the whole
run, or from the signal on where a process was stopped or killed; there are none where a fault does not concern an
engine. The tests shorten what the job waits for; otherwise it is:

| what | waits | then |
| --- | --- | --- |
| AWS does not answer | {LIMITS.aws.read_seconds:g} s, {LIMITS.aws.attempts} attempts | the run fails |
| the answer of S3 is torn | {LIMITS.read_attempts} attempts | the run fails |
| a task of Spark fails | 4 attempts | the run fails, or asks the database again as below |
| the database stalls | {STALL:g} minutes | it is asked again as below; \
the run fails within about {2 * STALL:g} minutes, on Spark {8 * STALL:g} |
| the table is locked | {LOCK:g} minutes | it is asked again as below; \
the run fails within about {3 * LOCK:g} minutes, on Spark {8 * LOCK:g} |
| the database is not reached at first | again after {listed(LIMITS.first_waits)} s | the run fails |
| the database is lost later (restart, failover, no connection left) | again after {listed(LIMITS.later_waits)} s, \
if within {LIMITS.patience_seconds / 60:g} minutes | the run fails |
| Slack does not answer | {LIMITS.slack_seconds:g} s | the run goes on |
| the run is stopped | {LIMITS.stop_seconds:g} s for Spark's jobs, {LIMITS.aws_brief.read_seconds:g} s for S3, \
{LIMITS.stop_seconds:g} s for Slack | the process ends |
| a killed run left an upload | {LIMITS.stale_upload_seconds / 3600:g} hours | the next run aborts it |
""",
}


def record(section: str, name: str, **facts: object) -> None:
    """Keeps one row of a table: `section` is the table, `name` what was tried, `facts` its further columns."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{section}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"name": name, **facts}, ensure_ascii=False) + "\n")


def table(section: str) -> Iterator[str]:
    """One table in Markdown: a row for each name, with the last fact of each kind."""
    title, kind, columns = SECTIONS[section]
    lines = (FOLDER / f"{section}.jsonl").read_text(encoding="utf-8").splitlines()
    rows: dict[str, dict[str, object]] = {}
    for row in map(json.loads, lines):
        rows.setdefault(row["name"], {}).update(row)
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
    origin = f"`make reliability`, {today}, {machine['cpu']}, {machine['cores']} cores"
    tables = [line for section in SECTIONS if (FOLDER / f"{section}.jsonl").exists() for line in table(section)]
    PAGE.write_text("\n".join([ABOUT, origin, *tables, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
