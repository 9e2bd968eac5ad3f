"""One run: its stages and their times, its one way to fail, its end by SIGTERM.

In: job arguments. Out: a Result, or one JobError; of either the run report, the metrics and at most
one message. The message, the exit status and the output agree.
"""

import json
import logging
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import FrameType
from typing import Any, Self

from overlay import aws
from overlay.arguments import language_of, parse_arguments, read_settings
from overlay.engines.choice import ChosenEngine
from overlay.engines.engine import Inputs, Output
from overlay.engines.spark import end_jobs, running_jobs
from overlay.errors import JobError, OutputError, Stopped, Verbatim, joined
from overlay.limits import Limits
from overlay.merge import Counts
from overlay.report.document import failure_facts, success_facts
from overlay.report.guard import find_implausible
from overlay.report.metrics import put_metrics
from overlay.report.notify import notify
from overlay.report.result import Result, is_news
from overlay.report.run_report import Reporter, utc_now
from overlay.report.slack import failure_message, success_message
from overlay.report.slack_text import visible
from overlay.secret import Secret, find_webhooks, load_secret
from overlay.settings import Settings
from overlay.source.objects import SourceObject
from overlay.table.describe import Table
from overlay.upload import Published

LOG = logging.getLogger(__name__)


class Stop:
    """Knows whether the run is about to end (SIGTERM): from then on nothing is asked of the JVM that may wait.

    Attributes:
        begun: Set by the signal.
    """

    def __init__(self) -> None:
        self.begun = threading.Event()
        self._watches = False

    def ignore(self) -> None:
        """Lets SIGTERM change nothing any more: the run is committed, and only has to tell of it."""
        if threading.current_thread() is threading.main_thread() and self._watches:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def watch(self, limits: Limits) -> None:
        """Lets SIGTERM raise Stopped in the main thread. Spark's jobs end first, so no part comes after the abort."""

        def stop(_number: int, _frame: FrameType | None) -> None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            self.begun.set()
            end_jobs(limits.stop_seconds)
            raise Stopped

        self._watches = True
        signal.signal(signal.SIGTERM, stop)


class Progress:
    """Times the stages of a run, logs one line each as JSON, and knows the one that is on.

    Attributes:
        stage: The one that is on, or was last.
        stages: Those that ended: name, start and seconds (both since the run began).
        started: In UTC, ISO 8601.
    """

    def __init__(self, run_id: str, limits: Limits) -> None:
        self.stage = "settings"
        self.stages: list[dict[str, Any]] = []
        self.started = utc_now()
        self._run_id, self._limits = run_id, limits
        self._began = time.monotonic()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[dict[str, object]]:
        """Around a stage; what it counts goes into the dictionary."""
        self.stage = stage
        facts: dict[str, object] = {}
        start, over = self.seconds, threading.Event()
        beat = threading.Thread(target=self._beat, args=(stage, start, over), daemon=True)
        beat.start()
        try:
            yield facts
        except BaseException:
            facts["failed"] = True
            raise
        finally:
            over.set()
            beat.join(1)
            seconds = round(self.seconds - start, 3)
            self.stages.append({"stage": stage, "start": round(start, 3), "seconds": seconds})
            line = {"stage": stage, "seconds": seconds, "run_id": self._run_id, **facts}
            LOG.info("STAGE %s", json.dumps(line, ensure_ascii=False))

    def _beat(self, stage: str, start: float, over: threading.Event) -> None:
        while not over.wait(self._limits.progress_seconds):
            LOG.info("stage %s: %.0f s%s", stage, self.seconds - start, running_jobs())

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._began


class Run:
    """The block of a run: whatever ends it becomes one JobError, told once.

    Attributes:
        stage: Around each stage (see `Progress`).
        settings: Once they are read.
    """

    settings: Settings

    def __init__(self, argv: Sequence[str], limits: Limits, stop: Stop) -> None:
        self._argv, self._limits, self._stop = argv, limits, stop
        self._arguments = parse_arguments(argv)
        self._secret: Secret | None = None
        self._reporter: Reporter | None = None
        self._engine: ChosenEngine | None = None
        self.stage = Progress(self._arguments["run_id"], limits)

    def __enter__(self) -> Self:
        return self

    def read_settings(self) -> Settings:
        """The checked settings; from here on the run before is known.

        Raises:
            SettingsError: an argument is missing or wrong.
        """
        self.settings = read_settings(self._argv, self._limits, datetime.fromisoformat(self.stage.started))
        self._arguments["destination_file"] = self.settings.destination_file  # with its date, as people are told of it
        self._reporter = Reporter(self.settings, self.stage)
        return self.settings

    def load_secret(self) -> Secret:
        """Who logs in, and the webhooks; from here on the log and messages are redacted.

        Raises:
            SettingsError: the secret is missing or wrong.
            AwsError: a call was denied or failed.
        """
        self._secret = load_secret(self.settings)
        return self._secret

    def choose_engine(self, objects: Sequence[SourceObject], table: Table) -> ChosenEngine:
        """The engine for this source and table."""
        self._inputs = Inputs(self.settings, objects, table)
        self._engine = ChosenEngine(self._inputs)
        return self._engine

    def check_guard(self, counts: Counts, columns: Sequence[str]) -> int:
        """How much the guard finds implausible in an output that it lets pass.

        Raises:
            OutputError: it finds something; not in a dry run and with `--guard off`, which tell it as a warning.
        """
        assert self._reporter
        settings, last = self.settings, self._reporter.last
        if settings.guard.is_set and not last.success:
            LOG.info("the guard compares nothing, as there is no report of a success at %s", settings.report_key)
        self._findings = find_implausible(settings.guard, counts, columns, last.success)
        if self._findings and settings.guard.enabled and not settings.dry_run:
            raise OutputError("guard_tripped", output=Verbatim(settings.destination), problem=joined(self._findings))
        if self._findings:
            LOG.warning("the guard lets this pass: %s", joined(self._findings).text(settings.language))
        return len(self._findings)

    def succeed(self, output: Output) -> Result:
        """Tells the log, the run report, the webhooks and the metrics of a success; nothing here can fail the run."""
        assert self._secret and self._reporter
        result = self._result(output)
        LOG.info("RESULT %s", json.dumps(result.as_dict(), ensure_ascii=False))
        self._reporter.success(result)
        if is_news(self.settings, result, self._reporter.last):
            message = success_message(self.settings, result, self._reporter.last, aws.region())
            notify(self._secret.webhooks, message, success_facts(self.settings, result), self._limits)
        if not self.settings.dry_run:
            put_metrics(self.settings.job_name, self.stage, result, self._limits)
        return result

    def _result(self, output: Output) -> Result:
        assert self._engine
        settings, csv = self.settings, output.csv

        def listed(key: str, item: Published | None) -> dict[str, Any] | None:
            return {"url": f"s3://{settings.destination_bucket}/{key}", **item._asdict()} if item else None

        return Result(
            counts=output.counts,
            columns=list(output.columns),
            **csv._asdict() | {"etag": csv.etag.strip('"')},
            output=settings.destination,
            unmatched_file=listed(settings.unmatched_file, output.unmatched),
            differences_file=listed(settings.differences_file, output.differences),
            source_bytes=self._inputs.source_bytes,
            engine=self._engine.name,
            engine_reason=self._engine.reason,
            plan=self._engine.plan.name,
            plan_reason=self._engine.plan.reason,
            seconds=round(self.stage.seconds, 1),
            dry_run=settings.dry_run,
            findings=self._findings,
        )

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> None:
        """Makes the one JobError of whatever ended the block, tells of it, and raises it.

        It carries no cause, as stack traces of drivers may quote what they were given.
        """
        try:
            if error is not None and isinstance(error, (Exception, Stopped)):
                failure = self._explain(error)
                self._tell(failure)
                raise failure from None
            self._stop.ignore()
        finally:
            if self._engine and not self._stop.begun.is_set():
                self._close(self._engine)

    def _close(self, engine: ChosenEngine) -> None:
        try:
            engine.close()
        except Exception as error:  # the run has succeeded, or has its error
            LOG.warning("the engine was not closed: %s", type(error).__name__)

    def _explain(self, error: BaseException) -> JobError:
        """The JobError behind an exception, with secrets taken out; logs it as its readers are told of it.

        The stack trace of what has a message would only bury that.
        """
        redact = self._secret.redact if self._secret else str
        failure = error if isinstance(error, JobError) else None
        if self._stop.begun.is_set() and not (failure and failure.code == "output_unsure"):
            failure = JobError("stopped")  # whatever else broke with the JVM
        level = logging.DEBUG if failure else logging.ERROR
        for line in redact("".join(traceback.format_exception(error))).splitlines():
            LOG.log(level, "    | %s", line)
        if failure is None:
            problem = f"{type(error).__name__}: {telling_line(str(error))[:500]}"
            failure = JobError("unexpected", problem=Verbatim(problem))
        failure.redact(redact)
        LOG.error("%s → %s", *failure.message(language_of(self._arguments)))
        return failure

    def _tell(self, failure: JobError) -> None:
        """Tells the webhooks of a failure, also of one in the job arguments or the secret where these still name them.

        They come first, as a run that is stopped has little time.
        """
        seconds = self._limits.stop_seconds if self._stop.begun.is_set() else self._limits.slack_seconds
        webhooks = self._secret.webhooks if self._secret else None
        if webhooks is None:
            webhooks = aws.within(seconds, "finding the webhook", lambda: find_webhooks(self._arguments, self._limits))
        since = self._reporter.last.failing_since if self._reporter else ""
        message = failure_message(failure, self._arguments, self.stage, since, aws.region())
        settings = self.settings if self._reporter else None
        facts = failure_facts(failure, self._arguments, self.stage.stage, settings)
        failure.reported = notify(webhooks or {}, message, facts, self._limits, seconds)
        if self._reporter:
            self._reporter.failure(failure)
        if self._arguments.get("dry_run") != "true":
            put_metrics(self._arguments.get("JOB_NAME", "?"), self.stage, None, self._limits)


def telling_line(text: str) -> str:
    """The line of an exception's text that says most, among frames of Java and Python."""
    frames = ("An error occurred while calling", "Driver stacktrace:")
    lines = [line for line in text.splitlines() if line[:1].strip() and not line.startswith(frames)] or [text]
    # The exception of a Python worker comes as a whole stack trace, whose last line tells.
    return lines[-1 if "Traceback (most recent call last)" in text else 0].lstrip(": ").strip()


class OneLine(logging.Formatter):
    """A record is a line, whatever its values hold: no value forges a record of its own, or moves the cursor."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        return visible(super().format(record))


def log_to_stderr() -> None:
    """Lets the log of the job go where Glue takes it from.

    A run with `--customer-driver-env-vars CUSTOMER_LOG_LEVEL=DEBUG` logs the stack traces of known errors, too.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler], force=True)
    logging.getLogger("overlay").setLevel("DEBUG" if os.environ.get("CUSTOMER_LOG_LEVEL") == "DEBUG" else "INFO")
