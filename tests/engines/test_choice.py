"""Which engine a run uses, and that it moves on to Spark where the driver's memory runs short, to the same bytes."""

from __future__ import annotations

import gzip
import json
import logging
import os
import signal
import threading
import time
from dataclasses import replace

import pytest
from pyspark import SparkConf, SparkContext

from overlay.engines import choice
from overlay.engines.cost import COPIES, MEMORY_AT_LEAST
from overlay.errors import SourceError
from overlay.limits import MIB
from overlay.source import parallel
from overlay.table.jdbc import Connection
from overlay.texts_en import TEXTS
from reference import oracle
from tests.agreement import assert_agrees

RECORDS = 3_000
SECONDS = 30  # for another thread, or the server, to get somewhere


def make_table(pipeline, width: int) -> None:
    """A table of rows with a text of a width, of which each second record has one."""
    text = f"REPEAT('x', {width})"
    pipeline.sql(
        f"CREATE TABLE {pipeline.name} (id INT PRIMARY KEY, v TEXT)",
        f"INSERT INTO {pipeline.name} SELECT seq * 2, {text} FROM {pipeline.series(RECORDS)}",
        f"ANALYZE {'' if pipeline.on_postgresql else 'TABLE'} {pipeline.name}",
    )


def source(width: int) -> bytes:
    """Records with a note of a width."""
    note = {"note": "n" * width} if width else {}
    return "\n".join(json.dumps({"id": number} | note) for number in range(RECORDS)).encode()


def expected(width: int, lines: bytes) -> oracle.Expected:
    """What is published."""
    return oracle.overlay([lines], ["id", "v"], [(str(n * 2), "x" * width) for n in range(1, RECORDS + 1)])


# What the driver may hold, a source whose size says less than it holds, and rows: which of both is too large.
SHORT = {
    "the source": (2 * MIB, 2_000, ".gz", 10),
    "the rows": (3 * MIB, 0, "", 3_000),
}


@pytest.mark.parametrize("too_large", SHORT)
def test_a_run_whose_memory_runs_short_begins_anew_on_spark(on_each, slack, monkeypatch, caplog, too_large):
    held, note, suffix, width = SHORT[too_large]
    pipeline = on_each
    monkeypatch.setattr(choice, "free_memory", lambda: MEMORY_AT_LEAST + COPIES * held)
    make_table(pipeline, width)
    lines = source(note)
    key = f"in/{pipeline.name}.json{suffix}"
    pipeline.put(gzip.compress(lines) if suffix else lines, key)
    with caplog.at_level(logging.INFO):
        result = pipeline.run(source_key=key, language="en")
    assert (result.engine, result.engine_reason) == ("spark", "memory_short")
    assert f"engine driver: {TEXTS['small_source']}" in caplog.text  # it was tried
    assert f"engine spark: {TEXTS['memory_short']}" in caplog.text
    assert_agrees(pipeline, result, expected(width, lines))
    assert pipeline.uploads() == []
    assert TEXTS["memory_short"] in json.dumps(slack.messages)


def killed(*_: object) -> None:
    """Parses no group, as the kernel kills the process; the children import it from here."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_run_whose_parsing_processes_are_killed_begins_anew_on_spark(pipeline, monkeypatch):
    ranges = {"range_bytes_min": 20_000, "range_bytes_max": 20_000, "sniff_bytes": 2_000, "process_bytes_min": 1}
    pipeline.limits = replace(pipeline.limits, **ranges)
    monkeypatch.setattr(parallel, "parse_group", killed)
    make_table(pipeline, 10)
    lines = b"\n".join(b'{"id":%d,"note":[1.5]}' % number for number in range(RECORDS))
    pipeline.put(lines)
    result = pipeline.run()
    assert (result.engine, result.engine_reason) == ("spark", "memory_short")
    assert_agrees(pipeline, result, expected(10, lines))


def test_an_engine_that_is_named_stays(pipeline, monkeypatch):
    monkeypatch.setattr(choice, "free_memory", lambda: 0)
    make_table(pipeline, 10)
    pipeline.put(source(10))
    pipeline.engine = "driver"
    result = pipeline.run()
    assert (result.engine, result.engine_reason) == ("driver", "engine_forced")
    assert_agrees(pipeline, result, expected(10, source(10)))


def test_the_job_says_what_it_expects_of_each_engine(pipeline, caplog):
    make_table(pipeline, 10)
    pipeline.put(source(10))
    with caplog.at_level(logging.INFO):
        result = pipeline.run()
    assert (result.engine, result.engine_reason) == ("driver", "small_source")
    assert "driver: about 2 s, Spark: at least 18 s; the driver needs 300 of " in caplog.text


@pytest.mark.parametrize(("memory", "counted"), [(10**12, []), (0, ["executors"])])
def test_executors_are_counted_only_where_they_matter(pipeline, monkeypatch, memory, counted):
    """To count them takes a session."""
    calls = []
    monkeypatch.setattr(choice, "free_memory", lambda: memory)
    monkeypatch.setattr(choice, "executor_cores", lambda: calls.append("executors") or 2)
    make_table(pipeline, 10)
    pipeline.put(source(10))
    result = pipeline.run()
    assert (result.engine, calls) == ("spark" if counted else "driver", counted)


@pytest.mark.parametrize(("instances", "cores"), [("9", "4"), ("9", None), (None, None)])
def test_executors_that_are_not_up_yet_count(spark, monkeypatch, instances, cores):
    conf = SparkConf(loadDefaults=False)
    for name, value in (("instances", instances), ("cores", cores)):
        if value:
            conf.set(f"spark.executor.{name}", value)
    monkeypatch.setattr(SparkContext, "getConf", lambda _: conf)
    assert choice.executor_cores() == (36 if cores else spark.sparkContext.defaultParallelism)


# The table streams while the source is parsed.


def test_the_table_streams_while_the_source_is_parsed(on_each, monkeypatch):
    pipeline, streaming = on_each, threading.Event()
    read_batches, parse = Connection.batches, parallel.record_batches

    def batches(*arguments):
        for batch in read_batches(*arguments):
            streaming.set()
            yield batch

    def parse_once_the_table_streams(readers):
        assert streaming.wait(SECONDS)
        yield from parse(readers)

    monkeypatch.setattr(Connection, "batches", batches)
    monkeypatch.setattr(parallel, "record_batches", parse_once_the_table_streams)
    make_table(pipeline, 10)
    pipeline.put(source(10))
    result = pipeline.run()
    assert (result.plan, result.plan_reason) == ("scan", "small_table")
    assert_agrees(pipeline, result, expected(10, source(10)))


@pytest.mark.parametrize("data", [b'{"id":1}\n{"id":', b"", b'{"other":1}'])
def test_a_scan_ends_with_a_source_that_fails(on_each, data):
    pipeline = on_each
    make_table(pipeline, 3_000)
    pipeline.put(data)
    with pytest.raises(SourceError):
        pipeline.run()
    until = time.monotonic() + SECONDS
    while busy(pipeline) and time.monotonic() < until:
        time.sleep(0.05)
    assert busy(pipeline) == []


def busy(pipeline) -> list[str]:
    """Threads that still read the table."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("table")]


def test_a_scan_that_failed_while_the_source_was_parsed_is_begun_again(on_each, monkeypatch):
    pipeline, failed = on_each, threading.Event()
    parse = parallel.record_batches

    class Lost(Connection):
        def batches(self, *arguments):
            if not failed.is_set():
                failed.set()
                self._connection.close()
            return super().batches(*arguments)

    def parse_once_it_failed(readers):
        assert failed.wait(SECONDS)
        yield from parse(readers)

    monkeypatch.setattr("overlay.table.pool.Connection", Lost)
    monkeypatch.setattr(parallel, "record_batches", parse_once_it_failed)
    make_table(pipeline, 10)
    pipeline.put(source(10))
    pipeline.engine = "driver"
    result = pipeline.run()
    assert failed.is_set()
    assert_agrees(pipeline, result, expected(10, source(10)))
