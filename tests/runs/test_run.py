"""A run as a whole: every failure leaves the output as it was, tells Slack once, and raises."""

from __future__ import annotations

import json
import logging
import socket
import time
from dataclasses import replace

import jsonschema
import pytest

from local.services.slack import Reply
from overlay.errors import JobError
from overlay.report.slack_text import slack_escape, visible
from overlay.report.teams import teams_message
from overlay.texts_en import TEXTS
from tests.conftest import CLOSED_PORT, ROOT
from tests.texts import english_in, texts_in

MESSAGE = jsonschema.Draft7Validator(json.loads((ROOT / "schemas" / "message.schema.json").read_text()))
OLD = b"the output of yesterday\n"


@pytest.fixture
def ready(pipeline):
    """A pipeline that would succeed, with an older output in place."""
    return made_ready(pipeline)


@pytest.fixture
def ready_on_each(on_each):
    """A pipeline on each kind of server that would succeed, with an older output in place."""
    return made_ready(on_each)


def made_ready(pipeline):
    pipeline.sql(
        f"CREATE TABLE {pipeline.name} (id INT PRIMARY KEY, name VARCHAR(20))",
        f"INSERT INTO {pipeline.name} VALUES (1, 'a')",
    )
    pipeline.put(b'{"id":1}\n{"id":2}\n')
    pipeline.put(OLD, f"out/{pipeline.name}.csv")
    return pipeline


def fails(pipeline, slack, caplog, stage: str, message: str, **arguments: str) -> None:
    """Runs the job, expects a failure, and checks everything a failed run promises."""
    slack.messages.clear()
    with caplog.at_level(logging.INFO), pytest.raises(JobError) as caught:
        pipeline.run(**{"language": "en", **arguments})
    error = caught.value
    assert message in str(error)
    assert error.code in {"database_failed", "where_refused"} or not english_in(error)
    assert error.reported == str(error).endswith(" [reported]") == bool(slack.messages)
    assert error.__suppress_context__
    assert pipeline.output() == OLD
    assert not pipeline.uploads()
    for secret in (pipeline.database.password, pipeline.webhook, pipeline.webhook.rpartition("/")[2]):
        assert secret not in f"{error} {caplog.text} {slack.messages}"
    if slack.messages:
        [payload] = slack.messages
        assert payload["text"].splitlines()[0] == f"❌ job-{pipeline.name}: failed ({TEXTS[stage]})"
        texts = texts_in(payload)
        cause = error.message("en").cause
        assert slack_escape(visible(cause)) in texts
        assert any(text.endswith("is unchanged.") for text in texts)


def test_success_tells_slack(ready, slack):
    result = ready.run(language="en")
    assert ready.output() == b"id,name\n1,a\n2,\n"
    [payload] = slack.messages
    assert payload["text"].splitlines()[0] == f"✅ job-{ready.name}: published"
    assert (result.counts.matched, result.counts.source_only, result.plan) == (1, 1, "scan")


def test_no_webhook_is_fine(ready, slack):
    ready.secret(slack_webhook="")
    ready.run()
    assert not slack.messages


@pytest.mark.parametrize("language", ["ja", "en"])
def test_teams_and_a_program_hear_of_a_run_as_slack_does(ready, slack, teams, program, language):
    ready.secret(teams_webhook=teams.webhook, json_webhook=program.webhook)
    ready.run(language=language)
    ready.put(b'[{"id":')
    with pytest.raises(JobError) as caught:
        ready.run(language=language)
    assert caught.value.reported
    assert teams.messages == [teams_message(message) for message in slack.messages]
    succeeded, failure = program.messages
    url = f"s3://lake/out/{ready.name}.csv"
    for document, status in ((succeeded, "succeeded"), (failure, "failed")):
        MESSAGE.validate(document)
        assert (document["status"], document["job"], document["run_id"]) == (status, f"job-{ready.name}", "jr_1")
        assert (document["output"], document["report"]) == (url, f"{url}.report.json")
    assert (succeeded["source_records"], succeeded["matched"], succeeded["source_only"]) == (2, 1, 1)
    assert (failure["stage"], failure["code"]) == ("source", caught.value.code)
    assert (failure["cause"], failure["hint"]) == caught.value.message(language)
    assert [document["title"] for document in program.messages] == [
        message["blocks"][0]["text"]["text"] for message in slack.messages
    ]


def test_teams_alone_is_told_also_of_a_secret_that_lacks_fields(ready, slack, teams):
    ready.secret(slack_webhook="", teams_webhook=teams.webhook, table_name="")
    with pytest.raises(JobError) as caught:
        ready.run(language="en")
    assert caught.value.reported
    assert not slack.messages
    [payload] = teams.messages
    assert f"Secret '{ready.name}' lacks table_name." in json.dumps(payload)


def test_a_failure_that_nobody_took_is_not_reported(ready, slack, teams):
    ready.secret(teams_webhook=teams.webhook, slack_webhook="", table_name="nope")
    teams.answer(Reply(status=404))
    with pytest.raises(JobError) as caught:
        ready.run()
    assert not caught.value.reported


def test_slack_down_does_not_fail_the_run(ready, slack):
    ready.limits = replace(ready.limits, slack_attempts=2)
    slack.answer(*[Reply(status=500)] * 2)
    ready.run()
    assert [request.status for request in slack.requests] == [500, 500]
    assert not slack.messages
    assert ready.output() == b"id,name\n1,a\n2,\n"


def test_wrong_argument(ready, slack, caplog):
    fails(ready, slack, caplog, "settings", "Job argument --csv_quote is 'some'", csv_quote="some")
    assert slack.messages


def test_secret_missing(ready, slack, caplog):
    fails(ready, slack, caplog, "secret", "Secret 'nope' does not exist", secret_name="nope")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "is not a JSON object"),
        ('{"username":"etl"}', "lacks password, db_name, table_name"),
    ],
)
def test_secret_invalid(ready, slack, caplog, text, message):
    ready.aws.client("secretsmanager").put_secret_value(SecretId=ready.name, SecretString=text)
    fails(ready, slack, caplog, "secret", message)


def test_a_webhook_that_is_no_url_is_told_and_not_asked(ready, slack, caplog):
    ready.secret(slack_webhook="https://[your-host]/services/x")
    fails(ready, slack, caplog, "secret", "has a slack_webhook that is not a URL")
    assert not slack.messages


def test_a_japanese_message_is_japanese_to_its_details(ready, slack):
    ready.put(b'{"ID":1,"name":2}\n{"ID":')
    with pytest.raises(JobError):
        ready.run(language="ja")
    ready.put(b'{"ID":1,"name":2}')
    with pytest.raises(JobError):
        ready.run(language="ja")
    torn, renamed = (texts_in(payload) for payload in slack.messages)
    assert any("(レコード 2、バイト位置 24): 値がありません" in text for text in torn)
    assert any("キー列 'id' がありません ('ID' の間違いではありませんか)。" in text for text in renamed)


@pytest.mark.parametrize("text", ['{"slack_webhook": "%s"}', '{"slack_webhook": "%s", "username": "etl"}'])
def test_slack_hears_of_a_secret_that_lacks_fields(ready, slack, caplog, text):
    ready.aws.client("secretsmanager").put_secret_value(SecretId=ready.name, SecretString=text % slack.webhook)
    fails(ready, slack, caplog, "secret", "password, db_name, table_name")
    assert slack.messages


def test_login_table_and_webhook_may_come_from_three_places(ready, slack, caplog):
    secrets = ready.aws.client("secretsmanager")
    login = json.dumps({"username": ready.database.user, "password": ready.database.password, "engine": "mariadb"})
    secrets.put_secret_value(SecretId=ready.name, SecretString=login)
    webhook = json.dumps({"slack_webhook": ready.webhook})
    secrets.create_secret(Name=f"{ready.name}-slack", SecretString=webhook)
    places = {
        "db_name": ready.database.database,
        "table_name": ready.name,
        "slack_secret_name": f"{ready.name}-slack",
    }
    ready.run(**places)
    assert ready.output() == b"id,name\n1,a\n2,\n"
    assert len(slack.messages) == 1
    ready.put(OLD, f"out/{ready.name}.csv")
    fails(ready, slack, caplog, "secret", "Secret 'nope' does not exist", **places | {"slack_secret_name": "nope"})
    fails(ready, slack, caplog, "secret", "Secret 'nope' does not exist", **places | {"secret_name": "nope"})
    assert slack.messages


def test_connection_missing(ready, slack, caplog):
    fails(ready, slack, caplog, "connection", "Glue connection 'nope' does not exist", connection_name="nope")
    assert slack.messages


def test_connection_with_another_scheme(ready, slack, caplog):
    ready.connection(JDBC_CONNECTION_URL="jdbc:mariadb://db:3306/demo")
    fails(ready, slack, caplog, "connection", "JDBC_CONNECTION_URL is 'jdbc:mariadb://db:3306/demo'")


def test_destination_bucket_missing(ready, slack, caplog):
    fails(ready, slack, caplog, "connection", "Destination bucket 'nowhere'", destination_bucket="nowhere")


@pytest.mark.parametrize(
    "arguments", [{"source_key": "in/nope.json"}, {"source_key": "in/nope/"}, {"source_bucket": "nowhere"}]
)
def test_object_missing(ready, slack, caplog, arguments):
    fails(ready, slack, caplog, "listing", "No source object at s3://", **arguments)
    assert slack.messages


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "has no records; publishing it would erase the output"),
        (b"[]", "has no records"),
        (b"{}\n{}", "has no columns"),
        (b'{"id":1}\n{"id":}\n', "record 2, byte offset 15: expected a value"),
        (b'[{"id":1},{"id":2', "record 2, byte offset 17: the file ends inside an array or object"),
        (b'{"id":1}\n[2]\n', "Record 2 of s3://lake/in/"),
        (b'{"ID":1,"name":2}', "has the key column 'id' (did you mean 'ID'?). Columns found: ID, name."),
    ],
)
def test_wrong_source(ready, slack, caplog, engine, data, message):
    ready.engine = engine
    ready.put(data)
    fails(ready, slack, caplog, "source", message)
    assert slack.messages


@pytest.mark.parametrize(("level", "traces"), [(logging.INFO, 0), (logging.DEBUG, 1)])
def test_log_of_a_known_error_has_its_words_once(ready, caplog, level, traces):
    with caplog.at_level(level, "overlay"), pytest.raises(JobError) as caught:
        ready.run(source_key="in/nope.json", language="ja")
    for text in caught.value.message("ja"):
        assert caplog.text.count(text) == 1
    assert ("Traceback" in caplog.text) == bool(traces)


def test_log_of_an_unknown_error_has_its_stack_trace(ready, caplog, monkeypatch):
    monkeypatch.setattr("glue_job.check_destination", lambda settings: 1 / 0)
    with pytest.raises(JobError, match="ZeroDivisionError: division by zero"):
        ready.run()
    assert "ZeroDivisionError" in caplog.text.split("Traceback (most recent call last):")[1]


def test_key_missing_in_table(ready_on_each, slack, caplog):
    ready, quote_name = ready_on_each, ready_on_each.dialect.quote_name
    ready.sql(f"ALTER TABLE {ready.name} RENAME COLUMN {quote_name('id')} TO {quote_name('Id')}")
    fails(ready, slack, caplog, "table", "has no key column 'id' (did you mean 'Id'?). Columns found: Id, name.")


def test_condition_that_the_server_refuses(ready_on_each, slack, caplog):
    expected = "The database refuses the condition 'name = 1) OR (id = 2' on table demo."
    fails(ready_on_each, slack, caplog, "table", expected, table_where="name = 1) OR (id = 2")


def test_column_that_neither_side_has(ready, slack, caplog):
    expected = "Neither source nor table has the column 'nmae' (did you mean 'name'?). Columns found: id, name"
    fails(ready, slack, caplog, "source", expected, columns='["id", "nmae"]')


def test_table_missing(ready_on_each, slack, caplog):
    ready = ready_on_each
    ready.secret(table_name=ready.name + "s")
    schema = "public." if ready.on_postgresql else ""
    expected = (
        f"Table demo.{schema}{ready.name}s does not exist, or 'etl' may not read it (did you mean '{ready.name}'?)"
    )
    fails(ready, slack, caplog, "table", expected)


def test_database_missing(ready_on_each, slack, caplog):
    ready = ready_on_each
    ready.secret(db_name="nope")
    schema = "public." if ready.on_postgresql else ""
    fails(ready, slack, caplog, "table", f"Table nope.{schema}{ready.name} does not exist")


def test_wrong_password(ready_on_each, slack, caplog):
    ready = ready_on_each
    ready.secret(password="wr0ng-s3cret")
    fails(ready, slack, caplog, "table", "refused the login of 'etl'. Check username and password in the secret")
    assert "wr0ng-s3cret" not in f"{caplog.text}{slack.messages}"


def impatient(pipeline):
    """Shortens the waits of a pipeline before a run asks the database again."""
    pipeline.limits = replace(pipeline.limits, first_waits=(0.1, 0.4))
    return pipeline


def test_closed_port(ready_on_each, slack, caplog):
    ready = impatient(ready_on_each)
    ready.connection(**ready.properties(CLOSED_PORT))
    fails(ready, slack, caplog, "table", "cannot be reached. Check Database.endpoint and port")


@pytest.mark.long
def test_silent_host_is_given_up_in_bounded_time(ready_on_each, slack, caplog):
    ready = impatient(ready_on_each)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        seconds = "2" if ready.on_postgresql else "2000"  # or milliseconds
        url = ready.properties(silent.getsockname()[1])["JDBC_CONNECTION_URL"]
        joined = "&" if "?" in url else "?"
        ready.connection(JDBC_CONNECTION_URL=f"{url}{joined}connectTimeout={seconds}&socketTimeout={seconds}")
        start = time.monotonic()
        fails(ready, slack, caplog, "table", "cannot be reached")
        assert time.monotonic() - start < 90


def test_driver_class_missing(ready, slack, caplog):
    ready.connection(JDBC_DRIVER_CLASS_NAME="com.example.Driver")
    fails(ready, slack, caplog, "table", "JDBC driver class 'com.example.Driver' is not on the class path")


def test_character_the_encoding_lacks(ready, slack, caplog, engine):
    ready.engine = engine
    ready.put('{"id":1}\n{"id":2,"name":"☃"}\n'.encode())
    expected = "row 2, column 'name': cp932 has no character '☃' (U+2603)"
    fails(ready, slack, caplog, "publish", expected, csv_encoding="cp932")


def test_column_name_the_encoding_lacks(ready, slack, caplog, engine):
    ready.engine = engine
    ready.put('{"id":1,"☃":2}'.encode())
    fails(ready, slack, caplog, "publish", "header, column '☃': cp932 has no character", csv_encoding="cp932")


def test_character_the_encoding_lacks_in_a_multipart_upload(ready, slack, caplog, engine):
    ready.engine = engine
    lines = [json.dumps({"id": i, "name": "x" * 400}) for i in range(60_000)]
    lines[50_000] = '{"id":50000,"name":"☃"}'
    ready.put("\n".join(lines).encode())
    expected = "row 50001, column 'name': cp932 has no character '☃'"
    fails(ready, slack, caplog, "publish", expected, csv_encoding="cp932")
