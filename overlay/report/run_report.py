"""The run report beside the output: JSON for programs and the next run, and the same as a page for people.

In goes a Result or a JobError, out go the objects (schemas/run_report.schema.json, `page`); from the one that the run
before left comes a LastRun.
Nothing here fails a run or holds it for long.
"""

import json
import logging
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from overlay.aws import client, error_code, within
from overlay.errors import JobError
from overlay.report.metrics import COUNT_METRICS
from overlay.report.page import render
from overlay.report.result import LastRun, Result, Stages, collect_news, collect_warnings
from overlay.settings import Settings

LOG = logging.getLogger(__name__)
# Of a result, as they are.
_FACTS = (
    *("engine", "engine_reason", "plan", "plan_reason", "source_bytes", "unmatched_ids"),
    *("unmatched_file", "overridden", "differences_file"),
)
# A role that may not list gets 403 for what is not there.
_ABSENT = frozenset({"NoSuchKey", "NoSuchBucket", "AccessDenied"})
_RUN_FACTS = ("ended", "status", "seconds", "source_records", "matched", "unmatched")  # of a run in the history
_STATUSES = {"succeeded", "failed"}
HISTORY_RUNS = 14  # that a report knows of, itself among them


def utc_now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def parse_report(data: bytes) -> LastRun:
    """Reads from a report what counts for the next run.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is no report.
        RecursionError: it is no report either, but JSON nested too deep.
    """
    report = json.loads(data)
    since, success = report["failing_since"] or "", report["last_success"] or {}
    history = [{name: run[name] for name in _RUN_FACTS} for run in report.get("history", [])]
    for moment in [*([since] if since else []), *(run["ended"] for run in history)]:
        datetime.fromisoformat(moment)
    counts = [success["source_records"], *success.get("counts", {}).values()] if success else []
    counts += [run["source_records"] for run in history if run["status"] == "succeeded"]
    if not all(type(count) is int for count in counts):
        raise ValueError("a count is no number")
    if {type(name) for name in success.get("columns", [])} - {str} or {run["status"] for run in history} - _STATUSES:
        raise ValueError("a column or status is none")
    return LastRun(since, success, history)


class Reporter:
    """Reads the report of the run before (`last`), once, and writes that of this run over it."""

    def __init__(self, settings: Settings, progress: Stages) -> None:
        self._settings, self._progress, self._limits = settings, progress, settings.limits
        self._client = client("s3", self._limits.aws_brief)
        self._object = {"Bucket": settings.destination_bucket, "Key": settings.report_key}
        self.last = within(self._limits.report_seconds, "reading the last run report", self._read) or LastRun()

    def success(self, result: Result) -> None:
        """Writes the report of a run that published its output."""
        end_time, facts = utc_now(), result.as_dict()
        counts = {name: facts[name] for name in COUNT_METRICS.values()}
        warnings = collect_warnings(result, self.last, self._settings.language)
        self._write(
            end_time,
            status="succeeded",
            counts=counts,
            columns=[
                {"name": name, "source": source, "table": table, "empty": empty}
                for name, (source, table, empty) in zip(result.columns, facts["coverage"], strict=True)
            ],
            warnings=[{"code": code, "text": text} for code, text in warnings.items()],
            output={name: facts[name] for name in ("bytes", "etag", "fingerprint")},
            **{name: facts[name] for name in _FACTS},
            last_success={
                "run_id": self._settings.run_id,
                "ended": end_time,
                "source_records": result.counts.source_records,
                "counts": counts,
                "columns": result.columns,
                "news": collect_news(result, self.last),
            },
        )

    def failure(self, error: JobError) -> None:
        """Writes the report of a run that failed; what the last success left stays in it."""
        end_time = utc_now()
        message = error.message(self._settings.language)
        self._write(
            end_time,
            status="failed",
            error={"code": error.code, "stage": self._progress.stage, **message._asdict()},
            failing_since=self.last.failing_since or end_time,
            last_success=dict(self.last.success) or None,
        )

    def _read(self) -> LastRun:
        """Reads the report of the run before; what is none is logged and counts as no report."""
        try:
            answer = self._client.get_object(**self._object)
        except ClientError as error:
            if error_code(error) in _ABSENT:
                return LastRun()
            raise
        try:
            return parse_report(answer["Body"].read(self._limits.report_bytes_max))
        except (ValueError, KeyError, TypeError, AttributeError):
            LOG.warning("s3://%s/%s is no run report; it will be replaced", *self._object.values())
            return LastRun()

    def _write(self, end_time: str, **facts: Any) -> None:
        settings, progress, seconds = self._settings, self._progress, round(self._progress.seconds, 3)
        counts = facts.get("counts", {})
        run = {"ended": end_time, "status": facts["status"], "seconds": seconds}
        run |= {name: counts.get(name) for name in ("source_records", "matched", "unmatched")}
        report = {
            "version": 1,
            "job": settings.job_name,
            "run_id": settings.run_id,
            "language": settings.language,
            "timezone": settings.timezone,
            "started": progress.started,
            "ended": end_time,
            "seconds": seconds,
            "dry_run": settings.dry_run,
            "stages": progress.stages,
            "source": settings.source,
            "destination": settings.destination,
            "error": None,
            "failing_since": None,
            "history": [*self.last.history[1 - HISTORY_RUNS :], run],
            **facts,
        }
        # A lone surrogate, which JSON may hold and UTF-8 lacks, becomes an escape.
        body = json.dumps(report, ensure_ascii=False, indent=1).encode(errors="backslashreplace")
        bucket, (key, page_key) = settings.destination_bucket, settings.own_report_keys

        def put() -> None:
            self._client.put_object(Bucket=bucket, Key=key, Body=body, ContentType="application/json")
            page = render(report).encode(errors="backslashreplace")
            self._client.put_object(Bucket=bucket, Key=page_key, Body=page, ContentType="text/html; charset=utf-8")

        within(self._limits.report_seconds, "writing the run report", put)
