"""The message for programs: in goes a Result or a JobError, out comes a flat JSON object.

Its fields (schemas/message.schema.json) are always the same ones, null where they do not apply.
"""

from collections.abc import Mapping
from typing import Any

from overlay.arguments import language_of
from overlay.errors import JobError
from overlay.report.metrics import COUNT_METRICS
from overlay.report.result import Result
from overlay.report.slack_text import plain
from overlay.settings import Settings

_EMPTY = dict.fromkeys(("stage", "code", "cause", "hint", *COUNT_METRICS.values(), "output", "report"))


def success_facts(settings: Settings, result: Result) -> dict[str, Any]:
    """The facts of a run that published its output, or would have."""
    counts = result.counts.as_dict()
    return {
        "job": settings.job_name,
        "run_id": settings.run_id,
        "status": "dry_run" if result.dry_run else "succeeded",
        **_EMPTY,
        **{name: counts[name] for name in COUNT_METRICS.values()},
        **_urls(settings),
    }


def failure_facts(
    error: JobError, arguments: Mapping[str, str], stage: str, settings: Settings | None
) -> dict[str, Any]:
    """The facts of a run that failed.

    Args:
        error: Without secrets.
        arguments: Of the job, unchecked.
        stage: That failed.
        settings: None where they are what it failed on: there is no report then, and nobody knows the output.
    """
    message = error.message(language_of(arguments))
    return {
        "job": arguments.get("JOB_NAME", "?"),
        "run_id": arguments["run_id"],
        "status": "failed",
        **_EMPTY,
        "stage": stage,
        "code": error.code,
        **message._asdict(),
        **(_urls(settings) if settings else {}),
    }


def _urls(settings: Settings) -> dict[str, str]:
    report = f"s3://{settings.destination_bucket}/{settings.own_report_keys[0]}"
    return {"output": settings.destination, "report": report}


def json_document(message: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts, and title and text of the message as Slack has it."""
    header, *sections = message["blocks"]
    lines = []
    for section in sections:
        lines += [plain(fact).replace("\n", ": ", 1).replace("\n", ", ") for fact in section.get("fields", [])]
        lines += [plain(section["text"])] if "text" in section else []
    return {**facts, "title": plain(header["text"]), "text": "\n".join(lines)}
