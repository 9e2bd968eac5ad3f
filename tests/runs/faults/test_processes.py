"""Runs that are stopped or killed: processes of their own, as Glue has them, hit while they wait.

They wait as long as any run does: with shorter limits, one that did not end at once would end soon after.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from local.glue.deploy import Pipeline, deploy
from tests.conftest import EXECUTORS_CONF, NUMBERS, ROOT
from tests.runs.faults.conftest import OLD, PART, SOURCE, WHOLE, WITHIN, Ended, Site
from tests.runs.faults.page import faults, record
from tests.runs.faults.proxies import Handler, Plan, Reply, Rule

pytestmark = pytest.mark.long

METHODS = ("GET", "PUT", "POST", "DELETE", "HEAD")
START_SECONDS, STOP_SECONDS = 300, 60


class Run:
    """A run by `python -m local run`, by way of both proxies.

    Attributes:
        process: The runner, which stands for the Glue service.
    """

    def __init__(self, site: Site, engine: str, **environment: str) -> None:
        self.site = site
        name = f"{site.pipeline.name}-{next(NUMBERS)}"
        source, destination = f"in/{site.pipeline.name}.json", f"out/{site.pipeline.name}.csv"
        pipeline = Pipeline(name, site.pipeline.name, "lake", source, "lake", destination, site.slack.webhook)
        deploy(site.pipeline.aws, site.pipeline.database, pipeline, ROOT / "glue_job.py")
        arguments = {
            "--language": "en",
            "--engine": engine,
            "--connection_name": site.pipeline.connection_name,
            "--conf": EXECUTORS_CONF,
        }
        tokens = itertools.chain.from_iterable(arguments.items())
        self.process = subprocess.Popen(
            [sys.executable, "-m", "local", "run", pipeline.job, *tokens],
            cwd=ROOT,
            env={**os.environ, **site.pipeline.aws.environment(), "AWS_ENDPOINT_URL": site.aws.url, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    @property
    def driver(self) -> int:
        """The process of the job, a child of the runner's."""
        [child] = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(child)

    def stop(self, seconds: float) -> float:
        """Stops the job's process, which has so many seconds to end; returns those it took. The runner may go on."""
        driver, began = self.driver, time.monotonic()
        os.kill(driver, signal.SIGTERM)
        while Path(f"/proc/{driver}").exists():
            assert time.monotonic() < began + seconds
            time.sleep(0.1)
        return time.monotonic() - began

    def end(self, seconds: float) -> Ended:
        """Waits for the end of the run, at most so many seconds; returns how it ended."""
        began = time.monotonic()
        log, _ = self.process.communicate(timeout=seconds)
        ended = self.site.ended(began)
        assert not self.process.returncode or "password" not in log
        return ended


@contextmanager
def run_that_waits(site: Site, engine: str, method: str, target: str, *, silence: bool = False) -> Iterator[Run]:
    """Starts a run and lets one of its requests to S3 wait for the answer; with `silence` all that follow it, too.

    They wait until there are no rules any more.
    """

    def hold(_handler: Handler, _send: Callable[[], Reply]) -> None:
        if silence:
            site.aws.rules = [
                Rule(name, "/lake", hold, times=None) for name in ("GET", "PUT", "POST", "DELETE", "HEAD")
            ]
        while site.aws.rules:
            time.sleep(0.1)

    rule = Rule(method, target, hold, times=None)
    site.aws.rules = [rule]
    try:
        with started(site, engine, lambda: rule.struck > 0) as run:
            yield run
    finally:
        site.aws.rules = ()


@contextmanager
def started(site: Site, engine: str, reached: Callable[[], bool]) -> Iterator[Run]:
    """Starts a run and waits until it has come as far as it should."""
    run = Run(site, engine)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not reached():
            assert run.process.poll() is None, run.process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield run
    finally:
        run.process.terminate()
        run.process.wait(30)


@pytest.fixture
def uploading(site: Site, engine: str) -> Iterator[Run]:
    """A run that sends its parts, which do not get through."""
    with run_that_waits(site, engine, "PUT", PART) as run:
        yield run


STOPS = {
    "SIGTERM to all processes of the run": lambda run: run.process.terminate(),
    "SIGTERM to the driver": lambda run: os.kill(run.driver, signal.SIGTERM),
}


@faults(*STOPS)
def test_a_stopped_run_cleans_up_and_tells(uploading: Run, engine: str, fault: str) -> None:
    """Stopped in the console, or by its timeout."""
    STOPS[fault](uploading)
    check_stopped(uploading, engine, fault, "publishing")


@faults("SIGTERM to the driver while S3 does not answer a small output")
def test_a_stop_while_the_output_is_put_says_what_is_not_known(site: Site, fault: str) -> None:
    site.shrink()
    with run_that_waits(site, "driver", "PUT", WHOLE) as run:
        os.kill(run.driver, signal.SIGTERM)
        ended = run.end(STOP_SECONDS)
    assert ended.output == OLD
    [message] = ended.messages
    assert "S3 did not tell whether it replaced" in str(message)
    assert "unchanged" not in str(message)
    record(fault, "driver", "failed, one message that the output may be new", ended.seconds)


def check_stopped(run: Run, engine: str, fault: str, *stages: str) -> None:
    """Checks that a run ended in time, left the output as it was, and told of it."""
    ended = run.end(STOP_SECONDS)
    assert run.process.returncode
    assert ended.output == OLD
    assert not ended.uploads
    [message] = ended.messages
    assert message["text"].splitlines()[0].endswith(tuple(f"failed ({stage})" for stage in stages))
    assert "The run was stopped" in str(message)
    assert "is unchanged" in str(message)
    record(fault, engine, "failed, output unchanged, one message", ended.seconds)


@faults("SIGTERM to the driver while S3 does not answer")
def test_a_stop_does_not_wait_for_s3(site: Site, engine: str, fault: str) -> None:
    with run_that_waits(site, engine, "GET", SOURCE) as run:
        os.kill(run.driver, signal.SIGTERM)
        check_stopped(run, engine, fault, "reading the source")


@faults("SIGTERM to the driver while S3 answers neither an upload nor that it is aborted")
def test_a_stop_does_not_wait_for_the_abort(site: Site, engine: str, fault: str) -> None:
    with run_that_waits(site, engine, "PUT", PART, silence=True) as run:
        seconds = run.stop(STOP_SECONDS)
        site.aws.rules = ()  # the runner looks at the output
        ended = run.end(STOP_SECONDS)
    assert ended.output == OLD
    [upload] = ended.uploads
    [message] = ended.messages
    assert "The run was stopped" in str(message)
    assert "is unchanged" in str(message)
    record(fault, engine, "failed, output unchanged, one message, the next run cleans up", seconds)
    s3 = site.pipeline.aws.client("s3")
    s3.abort_multipart_upload(Bucket="lake", Key=upload["Key"], UploadId=upload["UploadId"])


@faults("SIGTERM to the driver while the database does not answer")
def test_a_stop_does_not_wait_for_the_database(site: Site, engine: str, fault: str) -> None:
    """Neither on the connections that are open nor on new ones."""
    silence = Plan(after=0, then=lambda _: None, stalls=True)

    def fall_silent(_client: object) -> None:
        site.database.plan = silence

    site.database.follow(Plan(after=WITHIN, then=fall_silent, stalls=True))
    with started(site, engine, lambda: site.database.plan is silence) as run:
        os.kill(run.driver, signal.SIGTERM)
        check_stopped(run, engine, fault, "overlay", "reading the source")


@faults("SIGKILL of the driver")
def test_the_next_run_cleans_up_after_a_killed_one(uploading: Run, site: Site, engine: str, fault: str) -> None:
    os.killpg(uploading.driver, signal.SIGKILL)
    ended = uploading.end(STOP_SECONDS)
    assert uploading.process.returncode
    assert (ended.output, ended.messages, len(ended.uploads)) == (OLD, [], 1)
    outcome = "failed, output unchanged, no message (Glue's event tells), the next run cleans up"
    record(fault, engine, outcome, ended.seconds)
    site.aws.rules = ()
    site.pipeline.limits = replace(site.pipeline.limits, stale_upload_seconds=0)
    after = site.run()
    assert after.error is None
    assert after.output == site.expected
    assert not after.uploads


def executor_of(client: int, server: int) -> int:
    """The executor whose Python worker has the connection between these two ports."""
    ends = [f"0100007F:{port:04X}" for port in (client, server)]
    lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines())
    [inode] = {fields[9] for fields in lines if fields[1:3] == ends}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            open_files = {str(path.readlink()) for path in (process / "fd").iterdir()}
        except OSError:
            continue
        if f"socket:[{inode}]" in open_files:
            pid = int(process.name)
            while b"CoarseGrainedExecutorBackend" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            return pid
    raise LookupError(client)


@faults("SIGKILL of an executor while it uploads")
def test_a_killed_executor_is_made_good(site: Site, fault: str) -> None:
    """What it had read is lost with it and read again."""
    site.pipeline.engine = "spark"
    killed: list[int] = []

    def kill(handler: Handler, _send: Callable[[], Reply]) -> None:
        executor = executor_of(handler.client_address[1], handler.server.server_port)
        os.kill(executor, signal.SIGKILL)
        killed.append(executor)

    site.aws.rules = [Rule("PUT", PART, kill)]
    run = Run(site, "spark", LOCAL_SPARK_MASTER="local-cluster[2,1,1024]", LOCAL_SPARK_MEMORY="1g")
    try:
        ended = run.end(2 * START_SECONDS)
    finally:
        run.process.terminate()
    assert len(killed) == 1
    assert run.process.returncode == 0
    site.rides_out(fault, ended)
