"""The guard keeps the output from being replaced by an implausible one; a dry run replaces nothing."""

from __future__ import annotations

import json

import pytest

from overlay.errors import JobError
from tests.runs.test_report import PATIENT, SCHEMA, read_object, report_of

GUARD = {"guard_max_drop_percent": "50", "guard_same_columns": "true"}
SOURCE = b'{"id":1,"name":"A"}\n{"id":2,"name":"B"}\n{"id":3,"name":"C"}\n'


@pytest.fixture
def guarded(pipeline):
    """A pipeline with three records, after its first run."""
    pipeline.limits, pipeline.engine = PATIENT, "driver"
    pipeline.sql(
        f"CREATE TABLE {pipeline.name} (id INT PRIMARY KEY, zip CHAR(3))",
        f"INSERT INTO {pipeline.name} VALUES (1, '001'), (2, '002'), (9, '009')",
    )
    pipeline.put(SOURCE)
    pipeline.run(**GUARD, language="en")
    return pipeline


@pytest.fixture
def on_each_engine(guarded, engine):
    """The same, run by each engine from now on."""
    guarded.engine = engine
    return guarded


def dry_report_of(pipeline) -> dict:
    """The report of the last dry run."""
    report = json.loads(read_object(pipeline, f"out/{pipeline.name}.csv.dry-run.report.json"))
    assert [error.message for error in SCHEMA.iter_errors(report)] == []
    return report


def test_an_implausible_output_replaces_nothing_until_it_is_let_pass(guarded, slack):
    assert "ℹ️ The guard compared nothing: there is no report of a success yet" in str(slack.messages[-1])
    before, report = guarded.output(), report_of(guarded)
    guarded.put(b'{"id":1,"memo":"a test"}\n')
    with pytest.raises(JobError) as caught:
        guarded.run(**GUARD, language="en")
    assert str(caught.value) == (
        f"The guard kept the output s3://lake/out/{guarded.name}.csv as it was: the source has 2 records fewer "
        "than in the last success (66.7% of 3, guard.max_drop_percent 50); the columns are not those of the last "
        "success (guard.same_columns): new memo, gone name. Look at the source. If it is right, start one run with "
        "--guard off, or change guard in configs.json. [reported]"
    )
    assert (guarded.output(), guarded.uploads()) == (before, [])
    failed = report_of(guarded)
    assert (failed["error"]["code"], failed["error"]["stage"]) == ("guard_tripped", "guard")
    assert failed["last_success"] == report["last_success"]
    message = str(slack.messages[-1])
    assert f"❌ job-{guarded.name}: failed (guard)" in message
    assert f"The output `s3://lake/out/{guarded.name}.csv` is unchanged." in message
    guarded.run(**GUARD, guard="off", language="en")
    assert guarded.output() == b"id,memo,zip\n1,a test,001\n"
    warning = "⚠️ The guard would not let this output pass: the source has 2 records fewer than in the last success"
    assert warning in str(slack.messages[-1])
    assert report_of(guarded)["warnings"][0]["code"] == "implausible"
    guarded.run(**GUARD, language="en")
    assert "guard" not in str(slack.messages[-1])
    assert [run["status"] for run in report_of(guarded)["history"]] == [
        "succeeded",
        "failed",
        "succeeded",
        "succeeded",
    ]


def test_a_broken_report_lets_an_output_pass(guarded):
    guarded.put(b"{}", f"out/{guarded.name}.csv.report.json")
    guarded.put(b'{"id":1}\n')
    guarded.run(**GUARD)
    assert guarded.output() == b"id,zip\n1,001\n"


def test_a_dry_run_writes_nothing_but_its_report(on_each_engine, slack):
    before, report = on_each_engine.output(), read_object(on_each_engine, f"out/{on_each_engine.name}.csv.report.json")
    on_each_engine.put(b'{"id":1}\n')
    result = on_each_engine.run(
        **GUARD, dry_run="true", language="en", unmatched_file="out/alone.csv", notify="on_failure"
    )
    assert (result.dry_run, result.rows, result.bytes) == (True, 1, len(b"id,zip\n1,001\n"))
    assert result.unmatched_file["rows"] == 2
    assert (on_each_engine.output(), on_each_engine.uploads()) == (before, [])
    assert read_object(on_each_engine, f"out/{on_each_engine.name}.csv.report.json") == report
    listed = on_each_engine.aws.client("s3").list_objects_v2(Bucket="lake", Prefix="out/alone.csv")
    assert listed["KeyCount"] == 0
    dry = dry_report_of(on_each_engine)
    assert (dry["dry_run"], dry["counts"]["source_records"]) == (True, 1)
    assert [warning["code"] for warning in dry["warnings"]] == ["implausible", "fewer_records"]
    message = str(slack.messages[-1])
    assert f"🧪 job-{on_each_engine.name}: dry run, nothing was written" in message
    assert "(-66.7% since last time)" in message
    assert "Output in S3" not in message


def test_a_dry_run_fails_as_a_run_does(guarded, slack):
    report = report_of(guarded)
    guarded.put('{"id":1,"name":"😀"}\n'.encode())
    with pytest.raises(JobError) as caught:
        guarded.run(dry_run="true", csv_encoding="cp932")
    assert caught.value.code == "not_encodable"
    assert "🧪 ❌" in str(slack.messages[-1])
    assert report_of(guarded) == report
    assert dry_report_of(guarded)["error"]["code"] == "not_encodable"
