"""Module `settings`: job arguments in, checked settings out."""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from overlay.arguments import check_unknown, parse_arguments, read_settings
from overlay.errors import SettingsError
from overlay.limits import Limits
from overlay.output_columns import OutputColumn
from overlay.settings import OPTIONAL_ARGUMENTS, REQUIRED_ARGUMENTS, CsvFormat, Settings
from tests.conftest import ROOT
from tests.samples import ARGUMENTS
from tests.texts import english_in

OURS = (*REQUIRED_ARGUMENTS, *OPTIONAL_ARGUMENTS, "JOB_RUN_ID", "custom-logGroup-prefix")


def argv(**changes: str | None) -> list[str]:
    """An argument vector; None leaves an argument out."""
    values = {name: value for name, value in (ARGUMENTS | changes).items() if value is not None}
    return ["job.py", *(token for name, value in values.items() for token in (f"--{name}", value))]


def settings_of(**changes: str | None) -> Settings:
    """The settings of an argument vector."""
    return read_settings(argv(**changes))


def test_defaults():
    settings = settings_of()
    assert (settings.key, settings.language, settings.csv) == ("id", "ja", CsvFormat())
    assert (settings.engine, settings.notify, settings.max_connections) == ("auto", "always", 0)
    assert (settings.run_id, settings.unmatched_file, settings.limits) == ("", "", Limits())
    assert (settings.columns, settings.row_key, settings.table_where) == ((), "id", "")
    assert settings.source == "s3://lake/in/a.json"
    assert settings.destination == "s3://lake/out/a.csv"
    assert (settings.timezone, settings.date, settings.report_key) == ("Asia/Tokyo", "", "out/a.csv.report.json")


def test_all_options():
    settings = settings_of(
        key="code",
        language="en",
        csv_encoding="cp932",
        csv_delimiter="\\t",
        csv_line_ending="crlf",
        csv_quote="all",
        csv_null="NULL",
        csv_escape_formulas="true",
        db_name="shop",
        table_name="customers",
        slack_secret_name="s",
        notify="on_change",
        unmatched_file="out/a-unmatched.csv",
        schema_name="app",
        max_connections="7",
        engine="spark",
        columns='["code", {"from": "zip", "as": "postcode"}, {"as": "\\u0041", "from": "zip"}]',
        table_key="customer_id",
        table_where="deleted_at IS NULL",
        JOB_RUN_ID="jr_1",
    )
    assert settings.columns == (("code", "code"), ("zip", "postcode"), OutputColumn("zip", "A"))
    assert (settings.row_key, settings.table_where) == ("customer_id", "deleted_at IS NULL")
    assert settings.csv == CsvFormat("cp932", "\t", "crlf", "all", "NULL", True)
    assert (settings.key, settings.language, settings.run_id) == ("code", "en", "jr_1")
    assert (settings.notify, settings.unmatched_file) == ("on_change", "out/a-unmatched.csv")
    assert (settings.db_name, settings.table_name, settings.slack_secret_name) == ("shop", "customers", "s")
    assert (settings.schema_name, settings.max_connections, settings.engine) == ("app", 7, "spark")


def test_glues_own_arguments_are_let_through(caplog):
    extra = [
        "--job-bookmark-option",
        "job-bookmark-disable",
        "--enable-metrics",
        "true",
        "--TempDir",
        "s3://x/",
        "--conf",
        "a=b",
        "--debug",
        "true",
        "--mode",
        "batch",
        "--endpoint",
        "https://x",
    ]
    with caplog.at_level(logging.INFO, logger="overlay"):
        assert read_settings([*argv(), *extra]) == settings_of()
    assert not caplog.messages


def test_limits_are_handed_on():
    limits = Limits(chunk_bytes=64)
    assert read_settings(argv(), limits).limits is limits


DATED = {"source_key": "in/{yyyy}/", "destination_file": "out/{mm}/a.csv", "unmatched_file": "out/{dd}/{hh}.csv"}


def test_keys_have_the_date_of_the_start_of_the_run_in_its_zone():
    started = datetime(2026, 10, 31, 23, 30, tzinfo=UTC)
    for zone, keys in {"Asia/Tokyo": ("11", "01/08"), "UTC": ("10", "31/23")}.items():
        settings = read_settings(argv(**DATED, timezone=zone), started=started)
        assert (settings.source, settings.destination) == ("s3://lake/in/2026/", f"s3://lake/out/{keys[0]}/a.csv")
        assert (settings.unmatched_file, settings.timezone) == (f"out/{keys[1]}.csv", zone)
    assert read_settings(argv(**DATED), started=started).source_key == "in/2026/"
    assert datetime.now(UTC).year <= int(settings_of(**DATED).source_key[3:7])


def test_keys_have_the_date_that_is_asked_for_and_the_report_has_none():
    settings = settings_of(**DATED, date="2026-11-02T05")
    assert (settings.source_key, settings.destination_file) == ("in/2026/", "out/11/a.csv")
    assert (settings.unmatched_file, settings.date) == ("out/02/05.csv", "2026-11-02T05")
    assert settings.report_key == "out/mm/a.csv.report.json"


def test_an_argument_that_is_like_none_of_ours_is_logged_and_let_through(caplog):
    """Airflow adds one to each run."""
    with caplog.at_level(logging.INFO, logger="overlay"):
        assert settings_of(airflow_task_uuid="0190") == settings_of()
    assert caplog.messages == ["argument --airflow_task_uuid is not known to this job"]
    assert "0190" not in caplog.text


VALUE = st.text(max_size=5) | st.sampled_from(["", "-", "--", "--x", "-1", "a=b", "=", "==", "--x=y", "a b", "\n"])
FOREIGN = VALUE.filter(lambda text: text.partition("=")[0] not in {f"--{name}" for name in OURS})


@given(st.dictionaries(st.sampled_from(OURS), st.tuples(FOREIGN, st.booleans(), st.lists(FOREIGN, max_size=3))))
def test_every_argument_is_read_whatever_its_value_and_whatever_stands_between(arguments):
    """A value may be empty or begin with dashes, `--name=value` is read as `--name value` is."""
    tokens = [
        token
        for name, (value, with_equals, between) in arguments.items()
        for token in ([f"--{name}={value}"] if with_equals else [f"--{name}", value])
        + ["--foreign", *between, "--foreign"]  # Glue's own, and their values
    ]
    values = {name: value for name, (value, _, _) in arguments.items()}
    assert parse_arguments(["job.py", *tokens]) == values | {"run_id": values.get("JOB_RUN_ID", "")}


@given(st.lists(VALUE | st.sampled_from([f"--{name}" for name in OURS]), max_size=8))
def test_no_argument_vector_stops_the_search_for_the_webhook(tokens):
    assert set(parse_arguments(["job.py", *tokens])) <= {*OURS, "run_id"}


def test_a_name_whose_value_is_left_out_is_empty_and_takes_no_other_argument():
    assert parse_arguments(["job.py", "--secret_name", "--source_key", "a", "--key"]) == {
        "secret_name": "",
        "source_key": "a",
        "key": "",
        "run_id": "",
    }


@pytest.mark.parametrize("name", [*REQUIRED_ARGUMENTS, *OPTIONAL_ARGUMENTS])
def test_an_abbreviation_is_no_argument(name):
    """AWS's own getResolvedOptions takes one."""
    assert parse_arguments(["job.py", f"--{name[:-1]}", "x"]) == {"run_id": ""}


@pytest.mark.parametrize("name", OPTIONAL_ARGUMENTS)
def test_a_misspelt_argument_is_refused_however_it_is_spelt(name):
    for spelling in {name.replace("_", "-"), name[:-1], f"{name}s"} - {name}:
        if len(spelling) > 3:
            with pytest.raises(SettingsError) as caught:
                check_unknown(argv(**{spelling: "x"}))
            assert f"Job argument --{spelling} is unknown (did you mean" in str(caught.value)
            assert not english_in(caught.value)


@pytest.mark.parametrize("name", list(ARGUMENTS))
def test_missing_argument_is_named(name):
    with pytest.raises(SettingsError) as caught:
        read_settings(argv(**{name: None}))
    assert str(caught.value).startswith(f"Job argument --{name} is missing. Run terraform apply, which sets it from")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"languge": "en"}, "Job argument --languge is unknown (did you mean 'language'?)."),
        ({"secret-name": "x"}, "Job argument --secret-name is unknown (did you mean 'secret_name'?)."),
        # getResolvedOptions itself would take this abbreviation for --csv_quote
        ({"csv_quo": "all"}, "Job argument --csv_quo is unknown (did you mean 'csv_quote'?)."),
        (
            {"max_connections": "0"},
            "Job argument --max_connections is '0', expected a whole number from 1 to 99999.",
        ),
        (
            {"language": "fr"},
            "Job argument --language is 'fr', expected ja / en. Correct it where",
        ),
        ({"csv_encoding": "sjis"}, "Job argument --csv_encoding is 'sjis', expected utf-8 / utf-8-sig / cp932."),
        ({"csv_delimiter": ",,"}, "Job argument --csv_delimiter is ',,', expected one character"),
        ({"csv_delimiter": '"'}, "Job argument --csv_delimiter is '\"', expected one character"),
        ({"csv_line_ending": "cr"}, "Job argument --csv_line_ending is 'cr', expected lf / crlf."),
        ({"csv_escape_formulas": "yes"}, "Job argument --csv_escape_formulas is 'yes', expected true / false."),
        ({"source_bucket": ""}, "Job argument --source_bucket is '', expected a value."),
        ({"destination_file": "out/"}, "Job argument --destination_file is 'out/', expected the key of one object."),
        ({"csv_null": "a,b"}, "contradict each other: csv.null (--csv_null) 'a,b' holds the delimiter"),
        (
            {"csv_null": "☃", "csv_encoding": "cp932"},
            "csv.null (--csv_null) '☃' does not exist in cp932 (csv.encoding)",
        ),
        ({"destination_file": "in/a.json"}, "would overwrite or join the source s3://lake/in/a.json"),
        ({"source_key": "out/*.csv"}, "would overwrite or join the source s3://lake/out/*.csv"),
        ({"source_key": "out/"}, "would overwrite or join the source s3://lake/out/"),
        ({"engine": "fast"}, "Job argument --engine is 'fast', expected auto / driver / spark."),
        ({"notify": "never"}, "Job argument --notify is 'never', expected always / on_change / on_failure."),
        ({"records_at": "data."}, "Job argument --records_at is 'data.', expected names joined by dots."),
        *(
            ({"columns": text}, f"is {text!r}, expected a JSON list of columns, each a name or {{")
            for text in ("id", "[]", "{}", '{"id": 1}', '"id"', "[1]", '[""]', "[[]]", "[null]", '["\\ud800"]')
        ),
        *(
            ({"columns": text}, f"is {text!r}, expected a JSON list of columns, each a name or {{")
            for text in ('[{"from": "a"}]', '[{"from": "", "as": "a"}]', '[{"from": "a", "as": "b", "to": "c"}]')
        ),
        (
            {"columns": '["a", "b", {"from": "c", "as": "b"}]'},
            "expected each name of the output once ('b' is there twice).",
        ),
        ({"table_where": "a = 1; b"}, "Job argument --table_where is 'a = 1; b', expected one SQL condition without ;"),
        ({"table_where": "tags ? 'x'"}, "expected one SQL condition without ; and ?."),
        ({"unmatched_file": "out/"}, "Job argument --unmatched_file is 'out/', expected the key of one object."),
        (
            {"unmatched_file": "out/a.csv"},
            "S3.unmatched_file (--unmatched_file) 'out/a.csv' is the key of the output, of",
        ),
        ({"unmatched_file": "out/a.csv.report.json"}, "is the key of the output, of its run report or of another list"),
        (
            {"unmatched_file": "in/a.json"},
            "S3.unmatched_file (--unmatched_file) s3://lake/in/a.json would overwrite or join the source",
        ),
        (
            {"source_key": "in/", "unmatched_file": "in/b.csv"},
            "S3.unmatched_file (--unmatched_file) s3://lake/in/b.csv would overwrite or join the source s3://lake/in/",
        ),
        ({"timezone": ""}, "Job argument --timezone is '', expected a value."),
        ({"source_key": "in/{yy}.json"}, "Job argument --source_key is 'in/{yy}.json', expected a key with braces"),
        ({"destination_file": "out/a}.csv"}, "Job argument --destination_file is 'out/a}.csv', expected a key with"),
        ({"unmatched_file": "out/{id}.csv"}, "Job argument --unmatched_file is 'out/{id}.csv', expected a key with"),
        ({"destination_file": "out/{dd}/"}, "--destination_file is 'out/{dd}/', expected the key of one object."),
        ({"date": "2026-11-01"}, "--date is 2026-11-01, but none of S3.source_key, S3.destination_file and"),
        (
            {"source_key": "x/{yyyy}.json", "destination_file": "x/2026.json", "date": "2026-11-01"},
            "S3.destination_file (--destination_file) s3://lake/x/2026.json would overwrite or join the source",
        ),
        (
            {"destination_file": "out/{mm}.csv", "unmatched_file": "out/{dd}.csv", "date": "2026-11-11"},
            "S3.unmatched_file (--unmatched_file) 'out/11.csv' is the key of the output, of its run report or",
        ),
        ({"source_key": "out/a.csv.report.json"}, "the run report s3://lake/out/a.csv.report.json would overwrite the"),
    ],
)
def test_wrong_arguments_are_explained(changes, text):
    with pytest.raises(SettingsError) as caught:
        settings_of(**changes)
    assert text in str(caught.value)
    assert not english_in(caught.value)


SCHEMA = json.loads((ROOT / "schemas" / "configs.schema.json").read_text())
ENTRY = SCHEMA["properties"]["configs"]["additionalProperties"]["properties"]
CHECKED_BY_THE_PLAN = {
    **{f"csv_{name}": rule for name, rule in ENTRY["csv"]["properties"].items()},
    **ENTRY["S3"]["properties"],
    **{name: ENTRY[name] for name in ("key", "language")},
    **{name: ENTRY["Database"]["properties"][name] for name in ("table_key", "table_where")},
}
TEXTS = {name: rule["pattern"] for name, rule in CHECKED_BY_THE_PLAN.items() if "pattern" in rule}


@pytest.mark.parametrize("name", TEXTS)
@settings(max_examples=30)  # of each of the many
@given(st.data())
def test_what_the_plan_lets_pass_reaches_the_job_as_it_is(name, data):
    """Leading dashes, blanks, quotes, `$`, `=`, any character: by the rule that the schema shares with data.tf."""
    text = data.draw(st.from_regex(TEXTS[name].removeprefix("^").removesuffix("$"), fullmatch=True))
    text = data.draw(st.sampled_from([text, f"--{text}", f"-{text}=1"]))
    assume(re.search(TEXTS[name].removesuffix("$") + r"\Z", text) and not (name == "csv_null" and "," in text))
    arguments = {"source_bucket": "sources", "unmatched_file": "never-this", name: text}
    settings = read_settings(argv(**arguments))
    assume("{" not in text)  # of dates the job has those of a day: tests/unit/test_dates.py
    expected = "\t" if name == "csv_delimiter" and text in {"tab", "\\t"} else text
    assert (getattr(settings.csv, name[4:]) if name.startswith("csv_") else getattr(settings, name)) == expected
