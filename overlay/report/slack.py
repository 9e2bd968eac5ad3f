"""Slack: in goes a Result or a JobError, out comes a Block Kit payload.

A header takes 150 characters, a section 3,000, each of its 10 fields 2,000 (docs.slack.dev/reference/block-kit), all
together about 13,200 (msg_blocks_too_long; not documented). The limits below keep every message under them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from overlay.arguments import language_of
from overlay.errors import JobError
from overlay.report.result import LastRun, Result, Stages, collect_warnings
from overlay.report.slack_text import (
    DRY_MARK,
    Console,
    as_code,
    change,
    clip,
    date_text,
    duration,
    link,
    share,
    size_text,
    texts,
)
from overlay.settings import Settings

# All in characters, escapes counted.
HEADER_LIMIT = 150
CAUSE_LIMIT = 1_800
HINT_LIMIT = 900
NAME_LIMIT = 300  # a URL of S3, the id of a run
ID_LIMIT = 80
COLUMNS_LISTED = 10


def success_message(settings: Settings, result: Result, last: LastRun, region: str) -> dict[str, Any]:
    """The message of a run that published its output; `region` is for links to the console, empty outside AWS.

    That of a dry run has no link to an output, as what is there is of another run.
    """
    language, bucket = settings.language, settings.destination_bucket
    words, console, counts = texts(language), Console(region), result.counts
    since = {name: change(getattr(counts, name), last.count(name)) for name in ("source_records", "unmatched")}
    since = {name: words["since_last"].format(change=text) if text else "" for name, text in since.items()}
    summary = {
        words["source_records"]: f"{counts.source_records:,}{since['source_records']}",
        words["matched"]: share(counts.matched, counts.source_records),
        words["source_only"]: share(counts.source_only, counts.source_records),
        words["filled_cells"]: share(counts.filled_cells, counts.source_records * len(result.columns)),
        words["unmatched_rows"]: share(counts.unmatched, counts.table_rows) + since["unmatched"],
        words["seconds"]: duration(result.seconds, language),
    }
    choices = ((result.engine, result.engine_reason), (result.plan, result.plan_reason))
    facts = summary | {
        words["engine"]: " · ".join(f"{name} ({words[reason]})" if reason else name for name, reason in choices),
        words["output"]: f"{as_code(result.output, NAME_LIMIT)}\n{size_text(result.bytes, language)}",
    }
    notes = _unmatched_paragraph(settings, result, last, console) + _overridden_paragraph(settings, result, console)
    paragraphs = [_mrkdwn(text) for text in notes]
    for code, text in collect_warnings(result, last, language).items():
        # The guard names columns; else our own words and numbers.
        paragraphs.append(_plain(clip(text, CAUSE_LIMIT)) if code == "implausible" else _mrkdwn(text))
    if settings.guard.is_set and not last.success:
        paragraphs.append(_mrkdwn(words["guard_first"]))
    return _message(
        _header("dry_run" if result.dry_run else "success", language, settings.job_name),
        [_facts_section(facts), *({"text": text} for text in paragraphs)],
        [
            _run_note(settings.run_id, language),
            link(console.run(settings.job_name, settings.run_id), words["open_run"]),
            link(console.object(bucket, "" if result.dry_run else settings.destination_file), words["open_output"]),
            link(console.object(bucket, settings.own_report_keys[1]), words["open_report"]),
        ],
        " · ".join(f"{name} {value}" for name, value in summary.items()),
    )


def failure_message(
    error: JobError, arguments: Mapping[str, str], progress: Stages, since: str, region: str
) -> dict[str, Any]:
    """The message of a run that failed.

    Args:
        error: Without secrets.
        arguments: Of the job, unchecked (see `parse_arguments`).
        progress: Its stage is the one that failed.
        since: When the first of the failures in a row was, in UTC; empty where this is the first, or not certain.
        region: For links to the console; empty outside AWS.
    """
    language, job, run_id = language_of(arguments), arguments.get("JOB_NAME", "?"), arguments["run_id"]
    words, console, message = texts(language), Console(region), error.message(language)
    cause, hint = clip(message.cause, CAUSE_LIMIT), clip(message.hint, HINT_LIMIT)
    facts = {words["since"]: date_text(since)} if since else {}
    facts[words["seconds"]] = duration(progress.seconds, language)
    # Cause and hint quote values, so they stand in text without markup.
    paragraphs = [_mrkdwn(f"*{words['cause']}*"), _plain(cause), _mrkdwn(f"*{words['hint']}*"), _plain(hint)]
    bucket, key = arguments.get("destination_bucket"), arguments.get("destination_file")
    if bucket and key and error.code != "output_unsure":
        paragraphs.append(_mrkdwn(words["unchanged"].format(output=as_code(f"s3://{bucket}/{key}", NAME_LIMIT))))
    # Where Terraform sends it (monitoring.tf, log_prefixes), unless the job says otherwise: Glue writes to the groups
    # <prefix>/output and <prefix>/error.
    log_prefix = arguments.get("custom-logGroup-prefix", f"/aws-glue/jobs/{job}")
    header = _header("failure", language, job, words[progress.stage])
    return _message(
        f"{DRY_MARK} {header}" if arguments.get("dry_run") == "true" else header,
        [*({"text": text} for text in paragraphs), _facts_section(facts)],
        [
            _run_note(run_id, language),
            link(console.run(job, run_id), words["open_run"]),
            link(console.logs(log_prefix), words["open_logs"]),
        ],
        f"{cause}\n{hint}",
    )


def _message(title: str, sections: Sequence[Mapping[str, Any]], notes: Sequence[str], summary: str) -> dict[str, Any]:
    """A Block Kit payload: header, sections, small notes (empty ones are left out).

    All texts are escaped by the caller. Notifications, screen readers and old clients show the `text` of the payload.
    """
    blocks: list[dict[str, Any]] = [{"type": "header", "text": _plain(title)}]
    blocks += [{"type": "section", **section} for section in sections]
    if elements := [_mrkdwn(note) for note in notes if note]:
        blocks.append({"type": "context", "elements": elements})
    return {"text": f"{title}\n{summary}", "blocks": blocks}


def _unmatched_paragraph(settings: Settings, result: Result, last: LastRun, console: Console) -> list[str]:
    """The paragraph of ids that only the table has, with a link to the list of all; none without such ids.

    No warning where the last success had some, too.
    """
    words, counts = texts(settings.language), result.counts
    if not counts.unmatched:
        return []
    ids = ", ".join(as_code(key, ID_LIMIT) for key in counts.unmatched_ids)
    more = counts.unmatched - len(counts.unmatched_ids)
    mark = "ℹ️" if last.count("unmatched") else "⚠️"
    text = words["unmatched"].format(mark=mark, count=f"{counts.unmatched:,}", ids=ids)
    text += words["more"].format(count=f"{more:,}") if more > 0 else ""
    url = console.object(settings.destination_bucket, "" if result.dry_run else settings.unmatched_file)
    return ["\n".join(filter(None, (text, link(url, words["open_list"]))))]


def _overridden_paragraph(settings: Settings, result: Result, console: Console) -> list[str]:
    """The paragraph of columns whose values the source overrides, most first, with a link to the list of cells."""
    words, counts = texts(settings.language), sorted(result.counts.overridden.items(), key=lambda item: -item[1])
    if not counts:
        return []
    columns = ", ".join(f"{as_code(name, ID_LIMIT)} {count:,}" for name, count in counts[:COLUMNS_LISTED])
    more = len(counts) - COLUMNS_LISTED
    text = words["overridden"].format(columns=columns) + (words["more"].format(count=f"{more:,}") if more > 0 else "")
    url = console.object(settings.destination_bucket, "" if result.dry_run else settings.differences_file)
    label, rows = words["open_differences"], (result.differences_file or {}).get("rows", 0)
    if left_out := sum(result.counts.overridden.values()) - rows:
        label += f" ({words['first_listed'].format(count=f'{rows:,}', more=f'{left_out:,}')})"
    return ["\n".join(filter(None, (text, link(url, label))))]


def _run_note(run_id: str, language: str) -> str:
    return f"{texts(language)['run']} {as_code(run_id, NAME_LIMIT)}" if run_id else ""


def _header(kind: str, language: str, job: str, stage: str = "") -> str:
    """The header of a message; the name of the job gives way where it is too long."""
    template = texts(language)[kind]
    return template.format(job=clip(job, HEADER_LIMIT - len(template.format(job="", stage=stage))), stage=stage)


def _facts_section(facts: Mapping[str, str]) -> dict[str, Any]:
    """Facts in two columns, as the content of a section; it takes ten."""
    return {"fields": [_mrkdwn(f"*{name}*\n{value}") for name, value in facts.items()]}


def _mrkdwn(text: str) -> dict[str, Any]:
    """A text object in Slack's markup. Verbatim: names and URLs in it are not made links, nor mentions."""
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _plain(text: str) -> dict[str, Any]:
    """A text object without markup; Slack takes none that is empty."""
    return {"type": "plain_text", "text": text or "-", "emoji": False}
