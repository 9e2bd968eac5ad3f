"""Runs that are stopped or killed: processes of their own, as Glue has them, hit while they upload."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import glue_job
from local.deploy import Pipeline, deploy
from tests.conftest import EXECUTORS_CONF, NUMBERS, ROOT
from tests.faults.conftest import OLD, Ended, Site
from tests.faults.page import faults, record
from tests.faults.proxies import Handler, Reply, Rule

PART = r"/lake/out/fault.*partNumber="
START_SECONDS, STOP_SECONDS = 300, 60


class Run:
    """A run by `python -m local run`, whose parts do not get through.

    Attributes:
        process: The runner, which stands for the Glue service.
    """

    def __init__(self, site: Site, **environment: str) -> None:
        self.site = site
        name = f"{site.pipeline.name}-{next(NUMBERS)}"
        source, destination = f"in/{site.pipeline.name}.json", f"out/{site.pipeline.name}.csv"
        pipeline = Pipeline(name, site.pipeline.name, "lake", source, "lake", destination, site.slack.webhook)
        deploy(site.pipeline.aws, site.pipeline.database, pipeline, ROOT / "glue_job.py")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "local", "run", pipeline.job, "--language", "en", "--conf", EXECUTORS_CONF],
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

    def end(self, seconds: float) -> Ended:
        """Its end, within so many seconds."""
        began = time.monotonic()
        log, _ = self.process.communicate(timeout=seconds)
        ended = self.site.ended(None, began)
        assert not self.process.returncode or "password" not in log
        return ended


@pytest.fixture
def uploading(site: Site) -> Iterator[Run]:
    """A run that sends its parts, which do not get through."""
    over = threading.Event()

    def hold(_handler: Handler, _send: Callable[[], Reply]) -> None:
        over.wait(2 * START_SECONDS)

    rule = Rule("PUT", PART, hold, times=None)
    site.aws.rules = [rule]
    run = Run(site)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not rule.struck:
            assert run.process.poll() is None, run.process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield run
    finally:
        over.set()
        run.process.terminate()
        run.process.wait(30)


STOPS = {
    "SIGTERM to all processes of the run": lambda run: run.process.terminate(),
    "SIGTERM to the driver": lambda run: os.kill(run.driver, signal.SIGTERM),
}


@faults(*STOPS)
def test_a_stopped_run_cleans_up_and_tells(uploading: Run, fault: str) -> None:
    """Stopped in the console, or by its timeout."""
    STOPS[fault](uploading)
    ended = uploading.end(STOP_SECONDS)
    assert uploading.process.returncode
    assert ended.output == OLD
    assert not ended.uploads
    [message] = ended.messages
    assert message["text"].splitlines()[0].endswith("failed (publishing)")
    assert "The run was stopped" in str(message)
    assert "is unchanged" in str(message)
    record(fault, "failed, output unchanged, one message", ended.seconds)


@faults("SIGKILL of the driver")
def test_the_next_run_cleans_up_after_a_killed_one(
    uploading: Run, site: Site, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    os.killpg(uploading.driver, signal.SIGKILL)
    ended = uploading.end(STOP_SECONDS)
    assert uploading.process.returncode
    assert (ended.output, ended.messages, len(ended.uploads)) == (OLD, [], 1)
    record(fault, "failed, output unchanged, no message (Glue's event tells), the next run cleans up", ended.seconds)
    site.aws.rules = ()
    monkeypatch.setattr(glue_job, "STALE_UPLOAD_SECONDS", 0)
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
    killed: list[int] = []

    def kill(handler: Handler, _send: Callable[[], Reply]) -> None:
        executor = executor_of(handler.client_address[1], handler.server.server_port)
        os.kill(executor, signal.SIGKILL)
        killed.append(executor)

    site.aws.rules = [Rule("PUT", PART, kill)]
    run = Run(site, LOCAL_SPARK_MASTER="local-cluster[2,1,1024]", LOCAL_SPARK_MEMORY="1g")
    try:
        ended = run.end(2 * START_SECONDS)
    finally:
        run.process.terminate()
    assert len(killed) == 1
    assert run.process.returncode == 0
    site.rides_out(fault, ended)
