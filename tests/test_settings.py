"""Section `settings`: job arguments."""

from __future__ import annotations

import pytest

from glue_job import CsvFormat, SettingsError, make_settings, read_arguments
from tests.test_errors import english_in

ARGUMENTS = {
    "JOB_NAME": "job-a",
    "secret_name": "a",
    "connection_name": "a",
    "source_bucket": "lake",
    "source_key": "in/a.json",
    "destination_bucket": "lake",
    "destination_file": "out/a.csv",
}


def argv(**changes: str | None) -> list[str]:
    """An argument vector; None leaves an argument out."""
    values = {name: value for name, value in (ARGUMENTS | changes).items() if value is not None}
    return ["job.py", *(token for name, value in values.items() for token in (f"--{name}", value))]


def settings_of(**changes: str | None):
    """The settings of an argument vector."""
    return make_settings(read_arguments(argv(**changes)))


def test_defaults():
    settings = settings_of()
    assert (settings.key, settings.language, settings.csv) == ("id", "ja", CsvFormat())
    assert settings.source == "s3://lake/in/a.json"
    assert settings.destination == "s3://lake/out/a.csv"


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
        JOB_RUN_ID="jr_1",
    )
    assert settings.csv == CsvFormat("cp932", "\t", "crlf", "all", "NULL", True)
    assert (settings.key, settings.language, settings.run_id) == ("code", "en", "jr_1")
    assert (settings.notify, settings.unmatched_file) == ("on_change", "out/a-unmatched.csv")
    assert (settings.db_name, settings.table_name, settings.slack_secret_name) == ("shop", "customers", "s")


def test_glues_own_arguments_are_let_through():
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
    assert make_settings(read_arguments([*argv(), *extra])).job_name == "job-a"


@pytest.mark.parametrize("name", list(ARGUMENTS))
def test_missing_argument_is_named(name):
    with pytest.raises(SettingsError) as caught:
        read_arguments(argv(**{name: None}))
    assert str(caught.value) == (f"Job argument --{name} is missing. Add it to the default arguments of the Glue job.")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"languge": "en"}, "Job argument --languge is unknown (did you mean 'language'?)."),
        ({"secret-name": "x"}, "Job argument --secret-name is unknown (did you mean 'secret_name'?)."),
        # getResolvedOptions itself would take this abbreviation for --csv_quote
        ({"csv_quo": "all"}, "Job argument --csv_quo is unknown (did you mean 'csv_quote'?)."),
        (
            {"max_connections": "0"},
            "Job argument --max_connections is '0', expected a whole number from 1 to 99999. Correct the job argument.",
        ),
        ({"language": "fr"}, "Job argument --language is 'fr', expected ja / en. Correct the job argument."),
        ({"csv_encoding": "sjis"}, "Job argument --csv_encoding is 'sjis', expected utf-8 / utf-8-sig / cp932."),
        ({"csv_delimiter": ",,"}, "Job argument --csv_delimiter is ',,', expected one character"),
        ({"csv_delimiter": '"'}, "Job argument --csv_delimiter is '\"', expected one character"),
        ({"csv_line_ending": "cr"}, "Job argument --csv_line_ending is 'cr', expected lf / crlf."),
        ({"csv_escape_formulas": "yes"}, "Job argument --csv_escape_formulas is 'yes', expected true / false."),
        ({"source_bucket": ""}, "Job argument --source_bucket is '', expected a value."),
        ({"destination_file": "out/"}, "Job argument --destination_file is 'out/', expected the key of one object."),
        ({"csv_null": "a,b"}, "contradict each other: --csv_null 'a,b' holds the delimiter"),
        ({"csv_null": "☃", "csv_encoding": "cp932"}, "--csv_null '☃' does not exist in --csv_encoding cp932"),
        ({"destination_file": "in/a.json"}, "would overwrite or join the source s3://lake/in/a.json"),
        ({"source_key": "out/*.csv"}, "would overwrite or join the source s3://lake/out/*.csv"),
        ({"source_key": "out/"}, "would overwrite or join the source s3://lake/out/"),
        ({"notify": "never"}, "Job argument --notify is 'never', expected always / on_change / on_failure."),
        ({"unmatched_file": "out/"}, "Job argument --unmatched_file is 'out/', expected the key of one object."),
        ({"unmatched_file": "out/a.csv"}, "--unmatched_file 'out/a.csv' is the key of the output or of its run report"),
        ({"unmatched_file": "out/a.csv.report.json"}, "is the key of the output or of its run report"),
        ({"unmatched_file": "in/a.json"}, "--unmatched_file s3://lake/in/a.json would overwrite or join the source"),
        (
            {"source_key": "in/", "unmatched_file": "in/b.csv"},
            "--unmatched_file s3://lake/in/b.csv would overwrite or join the source s3://lake/in/",
        ),
        ({"source_key": "out/a.csv.report.json"}, "the run report s3://lake/out/a.csv.report.json would overwrite the"),
    ],
)
def test_wrong_arguments_are_explained(changes, text):
    with pytest.raises(SettingsError) as caught:
        settings_of(**changes)
    assert text in str(caught.value)
    assert not english_in(caught.value)
