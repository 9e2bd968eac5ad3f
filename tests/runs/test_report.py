"""What a run leaves behind: run report, list of unmatched ids, metrics, log; and when Slack hears of a success."""

from __future__ import annotations

import json
import logging
import re
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

import boto3
import jsonschema
import pytest
from botocore.config import Config

from overlay.engines import spark as spark_engine
from overlay.errors import JobError, SourceError, Verbatim
from overlay.limits import AwsTimeouts, Limits
from overlay.report import run_report
from overlay.report.metrics import put_metrics
from overlay.report.page import render
from overlay.run import Progress
from overlay.upload import MultipartUpload
from tests.conftest import ROOT

SCHEMA = jsonschema.Draft7Validator(json.loads((ROOT / "schemas" / "run_report.schema.json").read_text()))
BIG = 60_000  # rows, so that few ids are looked up
# However busy the machine is, what a run can do without arrives.
PATIENT = Limits(aws_brief=AwsTimeouts(attempts=1, read_seconds=60), report_seconds=60, metrics_seconds=60)


@pytest.fixture
def ready(pipeline):
    """A pipeline with two of three rows in the source, and a record of its own."""
    pipeline.limits = PATIENT
    pipeline.sql(
        f"CREATE TABLE {pipeline.name} (id INT PRIMARY KEY, name VARCHAR(20), zip CHAR(3))",
        f"INSERT INTO {pipeline.name} VALUES (1, 'a', NULL), (2, 'b', '002'), (3, 'c', '003')",
    )
    pipeline.put(b'{"id":1,"name":"A"}\n{"id":2,"name":null}\n{"id":9,"memo":""}\n')
    return pipeline


def read_object(pipeline, key: str) -> bytes:
    """An object beside the output."""
    return pipeline.aws.client("s3").get_object(Bucket="lake", Key=key)["Body"].read()


def report_of(pipeline) -> dict:
    """Reads the run report, which must be as its schema says and hold no secret."""
    data = read_object(pipeline, f"out/{pipeline.name}.csv.report.json")
    report = json.loads(data)
    assert [error.message for error in SCHEMA.iter_errors(report)] == []
    for secret in (pipeline.database.password, pipeline.webhook, pipeline.webhook.rpartition("/")[2]):
        assert secret.encode() not in data
    return report


def fail(pipeline, **arguments: str) -> JobError:
    """A run that fails."""
    with pytest.raises(JobError) as caught:
        pipeline.run(**{"source_key": "in/nope.json", "language": "en", **arguments})
    return caught.value


def test_report_of_a_success(ready, engine):
    result = ready.run(language="en", engine=engine)
    report = report_of(ready)
    assert report["counts"] == {
        "source_records": 3,
        "matched": 2,
        "source_only": 1,
        "filled_cells": 2,
        "unmatched": 1,
        "source_duplicates": 0,
        "table_duplicates": 0,
        "table_rows": 3,
        "missing_ids": 0,
    }
    assert report["columns"] == [
        {"name": "id", "source": 3, "table": 0, "empty": 0},
        {"name": "name", "source": 1, "table": 1, "empty": 1},
        {"name": "memo", "source": 1, "table": 0, "empty": 2},
        {"name": "zip", "source": 0, "table": 1, "empty": 2},
    ]
    assert (report["engine"], report["engine_reason"]) == (engine, "engine_forced")
    assert (report["plan"], report["unmatched_ids"]) == ("scan", ["3"])
    assert report["plan_reason"] == ("small_table" if engine == "driver" else "always_scans")
    head = ready.aws.client("s3").head_object(Bucket="lake", Key=f"out/{ready.name}.csv")
    assert report["output"] == {"bytes": head["ContentLength"], "etag": head["ETag"].strip('"'), "fingerprint": ""}
    assert report["source_bytes"] == len(b'{"id":1,"name":"A"}\n{"id":2,"name":null}\n{"id":9,"memo":""}\n')
    stages = [stage["stage"] for stage in report["stages"]]
    assert stages == ["secret", "connection", "listing", "table", "source", "overlay", "guard", "publish"]
    page = read_object(ready, f"out/{ready.name}.csv.report.html").decode()
    assert page == render(report)
    assert report["timezone"] == "Asia/Tokyo"
    assert " JST" in page
    assert sum(stage["seconds"] for stage in report["stages"]) <= report["seconds"]
    assert result.as_dict()["coverage"] == [[3, 0, 0], [1, 1, 1], [1, 0, 2], [0, 1, 2]]


def test_failures_in_a_row_are_dated_and_the_last_success_is_kept(ready, slack, monkeypatch):
    ready.run()
    success = report_of(ready)["last_success"]
    assert success["source_records"] == 3
    times = iter(f"2026-11-24T0{hour}:00:00Z" for hour in range(9))
    monkeypatch.setattr(run_report, "utc_now", lambda: next(times))
    fail(ready)
    first = report_of(ready)
    assert first["failing_since"] == first["ended"]
    assert (first["error"]["code"], first["error"]["stage"]) == ("source_missing", "listing")
    assert "Failing since" not in str(slack.messages[-1])
    fail(ready)
    second = report_of(ready)
    assert second["failing_since"] == first["ended"] != second["ended"]
    assert second["last_success"] == success
    assert "*Failing since*\\n<!date^" in json.dumps(slack.messages[-1])


def test_fewer_than_half_of_the_last_records_is_a_warning(ready, slack):
    ready.run()
    ready.put(b'{"id":1}\n')
    ready.run(language="en")
    warning = "⚠️ Fewer than half of the last run's records: 3 then, 1 now"
    assert warning in str(slack.messages[-1])
    assert report_of(ready)["warnings"] == [{"code": "fewer_records", "text": warning}]


def test_the_error_says_whether_slack_has_it(ready, slack):
    assert str(fail(ready)).endswith("that the file arrived. [reported]")
    ready.secret(slack_webhook="")
    assert str(fail(ready)).endswith("that the file arrived.")
    assert len(slack.messages) == 1


@pytest.mark.parametrize("data", [b"", b"[]", b'{"failing_since": 3, "last_success": null}', b"[" * 99_999])
def test_what_is_no_report_is_replaced(ready, data):
    ready.put(data, f"out/{ready.name}.csv.report.json")
    fail(ready)
    report = report_of(ready)
    assert (report["failing_since"], report["last_success"]) == (report["ended"], None)


def test_a_report_that_cannot_be_written_fails_nothing(ready, caplog, monkeypatch):
    def deaf_client(service, timeouts):
        config = Config(retries={"mode": "standard", "total_max_attempts": timeouts.attempts})
        return boto3.client(service, endpoint_url="http://127.0.0.1:9", config=config)  # nobody listens there

    monkeypatch.setattr(run_report, "client", deaf_client)
    ready.run()
    assert ready.output().startswith(b"id,name")
    for operation in ("reading the last run report", "writing the run report"):
        assert f"{operation} failed: EndpointConnectionError; the run goes on without it" in caplog.text


def test_the_report_among_the_sources_is_no_source(ready):
    """The pattern matches the report of the run before, whose name nobody chose."""
    for _ in range(2):
        ready.put(b'{"id":1}\n', f"{ready.name}/a.json")
        result = ready.run(source_key=f"{ready.name}/*.json", destination_file=f"{ready.name}/out.csv")
        assert result.counts.source_records == 1
    assert read_object(ready, f"{ready.name}/out.csv.report.json")


def test_a_day_is_made_anew_and_all_days_have_one_report(ready, slack, engine):
    """`--date` reads and writes the keys of that day; the run of another day knows the run before."""
    name, days = ready.name, {"2026-11-01": b'{"id":1}\n{"id":3}\n{"id":4}\n', "2026-11-02": b'{"id":2}\n'}
    keys = {
        "source_key": f"in/{name}/{{yyyy}}/{{mm}}/{{dd}}/",
        "destination_file": f"out/{name}/{{yyyy}}-{{mm}}-{{dd}}.csv",
        "unmatched_file": f"out/{name}/{{dd}}-ids.csv",
    }
    for day, data in days.items():
        folder = f"in/{name}/{day.replace('-', '/')}/"
        ready.put(data, f"{folder}a.json")
        result = ready.run(**keys, date=day, language="en", engine=engine)
        assert result.output == f"s3://lake/out/{name}/{day}.csv"
        assert read_object(ready, f"out/{name}/{day}.csv").count(b"\n") == 1 + data.count(b"\n")
        report = json.loads(read_object(ready, f"out/{name}/yyyy-mm-dd.csv.report.json"))
        assert (report["source"], report["destination"]) == (f"s3://lake/{folder}", result.output)
    assert read_object(ready, f"out/{name}/02-ids.csv").split() == [b"id", b"1", b"3"]
    assert [warning["code"] for warning in report["warnings"]] == ["fewer_records"]

    assert fail(ready, **keys, date="2026-11-03").code == "source_missing"
    assert f"The output `s3://lake/out/{name}/2026-11-03.csv` is unchanged." in str(slack.messages[-1])
    assert json.loads(read_object(ready, f"out/{name}/yyyy-mm-dd.csv.report.json"))["status"] == "failed"


def test_without_a_date_keys_have_that_of_the_start_of_the_run(ready):
    """In the same second as `started` of the run report, whatever the time that the run takes."""
    ready.put(b'{"id":1}\n', f"in/{ready.name}.json")
    keys = {"destination_file": f"out/{ready.name}-{{yyyy}}{{mm}}{{dd}}{{hh}}.csv", "timezone": "Asia/Kathmandu"}
    result = ready.run(**keys)
    report = json.loads(read_object(ready, f"out/{ready.name}-yyyymmddhh.csv.report.json"))
    started = datetime.fromisoformat(report["started"]) + timedelta(hours=5, minutes=45)
    assert result.output == f"s3://lake/out/{ready.name}-{started:%Y%m%d%H}.csv"


@pytest.mark.parametrize(
    ("plan", "kind", "rows", "ids", "listed"),
    [
        ("scan", "INT", "(10), (9), (-2), (7), (1)", "1 7", "-2 9 10"),
        ("scan", "INT(4) ZEROFILL", "(10), (9), (7), (1)", "1 7", "0009 0010"),
        ("scan", "BIGINT UNSIGNED", "(18446744073709551615), (5), (1)", "1", "5 18446744073709551615"),
        ("scan", "VARCHAR(9)", "('b'), ('a,1'), ('B'), (NULL), ('é'), ('b')", "x", 'B "a,1" b é'),
        ("lookup", "INT", f"(10), (9), (-2), (7), (1)@{BIG}", "1 7", "-2 9 10"),
    ],
)
def test_unmatched_file_lists_every_id_once_in_order(pipeline, engine, plan, kind, rows, ids, listed):
    values, _, more = rows.partition("@")
    key = "PRIMARY KEY" if more else ""
    pipeline.sql(
        f"CREATE TABLE {pipeline.name} (id {kind} {key}, t INT)", f"INSERT INTO {pipeline.name} (id) VALUES {values}"
    )
    if more:
        pipeline.sql(
            f"INSERT INTO {pipeline.name} (id) SELECT 100 + seq FROM seq_1_to_{BIG}", f"ANALYZE TABLE {pipeline.name}"
        )
    pipeline.put("\n".join(json.dumps({"id": key}) for key in ids.split()).encode())
    result = pipeline.run(unmatched_file=f"out/{pipeline.name}-u.csv", csv_line_ending="crlf", engine=engine)
    lines = read_object(pipeline, f"out/{pipeline.name}-u.csv").decode().split("\r\n")
    assert result.plan == (plan if engine == "driver" else "scan")
    assert lines[: len(listed.split()) + 1] == ["id", *listed.split()]
    assert lines[-1] == ""
    expected = [str(number) for number in range(101, 101 + BIG)] if more else []
    assert lines[len(listed.split()) + 1 : -1] == expected
    report = report_of(pipeline)["unmatched_file"]
    assert (report["url"], report["rows"]) == (f"s3://lake/out/{pipeline.name}-u.csv", len(lines) - 2)


def test_unmatched_file_of_many_batches_and_partitions(ready, engine, monkeypatch):
    monkeypatch.setattr(spark_engine, "LISTED_IDS", 1)
    ready.limits = replace(ready.limits, fetch_rows=2)
    ready.sql(f"INSERT INTO {ready.name} SELECT seq, NULL, NULL FROM seq_10_to_29", f"ANALYZE TABLE {ready.name}")
    ready.run(unmatched_file=f"out/{ready.name}-u.csv", engine=engine)
    assert read_object(ready, f"out/{ready.name}-u.csv").decode().split() == ["id", "3", *map(str, range(10, 30))]


def test_unmatched_file_without_ids_is_a_header(ready, engine):
    ready.put(b'{"id":1}\n{"id":2}\n{"id":3}\n')
    ready.run(unmatched_file=f"out/{ready.name}-u.csv", csv_encoding="utf-8-sig", engine=engine)
    assert read_object(ready, f"out/{ready.name}-u.csv") == "\ufeffid\n".encode()


def test_an_id_that_the_encoding_lacks_leaves_both_objects_as_they_were(pipeline, slack, engine):
    pipeline.engine = engine
    pipeline.sql(f"CREATE TABLE {pipeline.name} (id VARCHAR(9))", f"INSERT INTO {pipeline.name} VALUES ('a'), ('☃')")
    pipeline.put(b'{"id":"a"}')
    for key in (f"out/{pipeline.name}.csv", f"out/{pipeline.name}-u.csv"):
        pipeline.put(b"old", key)
    error = fail(pipeline, source_key=f"in/{pipeline.name}.json", unmatched_file=key, csv_encoding="cp932")
    assert str(error).startswith("row 1, column 'id (--unmatched_file)': cp932 has no character '☃'")
    assert (pipeline.output(), read_object(pipeline, key)) == (b"old", b"old")
    assert not pipeline.uploads()


def test_an_output_that_s3_refuses_leaves_no_upload(ready, engine, monkeypatch):
    """The list is complete before the output, so it alone may be new."""
    ready.engine = engine
    ready.limits = replace(ready.limits, put_bytes_max=0)
    key = f"out/{ready.name}-u.csv"
    ready.put(b"old", f"out/{ready.name}.csv")
    real = MultipartUpload.complete

    def complete(self, parts, rows):
        if self.target.key != key:
            raise SourceError("source_changed", url=Verbatim("x"))
        return real(self, parts, rows)

    monkeypatch.setattr(MultipartUpload, "complete", complete)
    assert fail(ready, source_key=f"in/{ready.name}.json", unmatched_file=key).code == "source_changed"
    assert (ready.output(), read_object(ready, key)) == (b"old", b"id\n3\n")
    assert not ready.uploads()


def test_on_change_tells_what_changed_and_nothing_else(ready, slack):
    def messages(**arguments) -> int:
        slack.messages.clear()
        ready.run(notify="on_change", **arguments)
        return len(slack.messages)

    assert [messages(), messages()] == [1, 0]
    assert [messages(engine="spark"), messages(engine="driver")] == [0, 0]  # whoever wrote the bytes
    ready.sql(f"UPDATE {ready.name} SET name = 'B' WHERE id = 2")
    assert messages() == 1
    ready.sql(f"INSERT INTO {ready.name} VALUES (4, NULL, NULL)")  # the output is the same, what it lacks is not
    assert [messages(), messages()] == [1, 0]
    fail(ready, notify="on_change")
    assert messages() == 1  # it is well again


def test_on_failure_tells_failures_alone(ready, slack):
    ready.run(notify="on_failure")
    assert not slack.messages
    fail(ready, notify="on_failure")
    assert len(slack.messages) == 1


def metrics_of(pipeline, name: str) -> dict[tuple[str, ...], float]:
    """The sums of a metric's values, by the dimensions beside the job."""
    cloudwatch = pipeline.aws.client("cloudwatch")
    job = {"Name": "Job", "Value": f"job-{pipeline.name}"}
    sums = {}
    for metric in cloudwatch.list_metrics(Namespace="RdsGlueS3Etl", MetricName=name, Dimensions=[job])["Metrics"]:
        answer = cloudwatch.get_metric_statistics(
            Namespace="RdsGlueS3Etl",
            MetricName=name,
            Dimensions=metric["Dimensions"],
            StartTime=time.time() - 3600,
            EndTime=time.time() + 3600,
            Period=7200,
            Statistics=["Sum", "SampleCount"],
        )
        more = tuple(item["Value"] for item in metric["Dimensions"] if item["Name"] != "Job")
        sums[more] = sum(point["Sum"] for point in answer["Datapoints"])
    return sums


def test_metrics_of_a_success_and_a_failure(ready):
    result = ready.run()
    values = {
        "SourceRecords": 3,
        "MatchedRecords": 2,
        "SourceOnlyRecords": 1,
        "FilledCells": 2,
        "UnmatchedRows": 1,
        "SourceDuplicates": 0,
        "TableDuplicates": 0,
        "TableRows": 3,
        "MissingIds": 0,
        "OutputBytes": result.bytes,
        "Succeeded": 1,
    }
    assert {name: metrics_of(ready, name) for name in values} == {name: {(): value} for name, value in values.items()}
    assert round(metrics_of(ready, "DurationSeconds")[()], 1) >= result.seconds  # which is rounded
    stages = metrics_of(ready, "StageSeconds")
    names = {
        (stage,) for stage in ("secret", "connection", "listing", "table", "source", "overlay", "guard", "publish")
    }
    assert set(stages) == names
    fail(ready)
    assert metrics_of(ready, "Succeeded") == {(): 1}
    assert metrics_of(ready, "SourceRecords") == {(): 3}
    assert metrics_of(ready, "StageSeconds")[("connection",)] > stages[("connection",)]


@pytest.fixture
def silent():
    """An address that takes connections and says nothing, as a network does that drops packets."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_silent_cloudwatch_costs_seconds(silent, monkeypatch, caplog):
    monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDWATCH", silent)
    limits = Limits(metrics_seconds=25)  # the client's own timeout is the first to end it
    start = time.monotonic()
    put_metrics("job-a", Progress("", limits), None, limits)
    assert time.monotonic() - start < 30
    assert "sending metrics failed: ReadTimeoutError; the run goes on without it" in caplog.text


def test_each_stage_is_one_line_of_json(ready, caplog):
    with caplog.at_level(logging.INFO):
        ready.run()
        fail(ready)
    lines = [json.loads(line.split("STAGE ")[1]) for line in caplog.messages if line.startswith("STAGE ")]
    assert all(line["run_id"] == "jr_1" and line["seconds"] >= 0 for line in lines)
    stages = {line["stage"]: line for line in lines[:8]}
    assert (stages["source"]["records"], stages["source"]["columns"]) == (3, 3)
    assert (stages["overlay"]["plan"], stages["overlay"]["matched"], stages["overlay"]["unmatched"]) == ("scan", 2, 1)
    assert stages["publish"]["rows"] == 3
    assert [line["stage"] for line in lines if line.get("failed")] == ["listing"]


def that_stay(threads: Iterable[threading.Thread]) -> list[threading.Thread]:
    """The threads that do not end."""
    threads = list(threads)
    for thread in threads:
        thread.join(30)
    return [thread for thread in threads if thread.is_alive()]


def test_long_stages_say_how_far_they_are(spark, caplog):
    progress = Progress("jr_1", Limits(progress_seconds=0.3))
    with caplog.at_level(logging.INFO), progress("overlay"):
        spark.range(0, 4, 1, 4).rdd.foreach(lambda _: __import__("time").sleep(0.5))
    assert any(re.fullmatch(r"stage overlay: \d+ s, (\d) of 4 tasks done", line) for line in caplog.messages)
    assert not that_stay(thread for thread in threading.enumerate() if "_beat" in thread.name)
    count = len(caplog.messages)
    time.sleep(0.7)
    assert len(caplog.messages) == count


def test_a_failed_stage_ends_its_thread():
    progress = Progress("", Limits(progress_seconds=0.05))
    before = set(threading.enumerate())
    with pytest.raises(ValueError, match="x"), progress("overlay"):
        raise ValueError("x")
    assert not that_stay(set(threading.enumerate()) - before)
