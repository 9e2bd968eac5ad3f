"""Section `errors`: every message exists in both languages and travels from executors to the driver."""

from __future__ import annotations

import string

import pytest

import glue_job
from glue_job import MESSAGES, JobError, OutputError, near_miss, received_from_executor, sent_to_driver


def fields_of(message: glue_job.Message) -> set[str]:
    """The details a message takes."""
    return {name for part in message for _, name, _, _ in string.Formatter().parse(part) if name}


@pytest.mark.parametrize("code", list(MESSAGES))
def test_both_languages_tell_the_same(code):
    languages = MESSAGES[code]
    assert set(languages) == {"en", "ja"}
    english = fields_of(languages["en"])
    # {fields}, {known} or {user} may stand in one language only where the other explains it in words
    assert fields_of(languages["ja"]) == english
    for message in languages.values():
        assert message.cause
        assert message.hint


def test_error_keeps_class_and_details_on_the_way_to_the_driver():
    details = {"place": "row 3", "column": "a>>b", "encoding": "cp932", "character": "☃", "codepoint": "2603"}
    with pytest.raises(RuntimeError) as caught, sent_to_driver():
        raise OutputError("not_encodable", **details)
    wrapped = Exception(f"Job aborted ... {caught.value} ... at java.lang.Thread")
    received = received_from_executor(wrapped)
    assert type(received) is OutputError
    assert received.details == details


TOLD = {
    "an error in a task": ('raise MemoryError("too much")', "MemoryError: too much"),
    "a worker that dies": ("import os; os._exit(1)", "org.apache.spark.SparkException: Job aborted"),
}


@pytest.mark.parametrize("case", TOLD)
def test_an_exception_of_spark_is_told_by_the_line_that_says_most(spark, case):
    code, told = TOLD[case]
    rows = spark.sparkContext.parallelize([1], 1).map(lambda _: exec(code))
    with pytest.raises(Exception, match="An error occurred while calling") as caught:
        rows._jrdd.count()
    assert glue_job.telling_line(str(caught.value)).startswith(told)


@pytest.mark.parametrize("text", ["boom", "boom\n  at x", "", "\tat x"])
def test_any_text_has_a_telling_line(text):
    assert glue_job.telling_line(text) == text.split("\n")[0].strip()


def test_other_exceptions_are_not_ours():
    assert received_from_executor(ValueError("x")) is None


def test_error_text_says_what_and_what_to_do():
    error = JobError("secret_missing", secret="a")
    assert str(error) == (
        "Secret 'a' does not exist in Secrets Manager. Check --secret_name, or run terraform apply to make the secret."
    )


@pytest.mark.parametrize(
    ("name", "present", "expected"),
    [
        ("id", ["ID", "name"], " (did you mean 'ID'?)"),
        ("id", [" id", "name"], " (did you mean ' id'?)"),
        ("customers", ["customer", "orders"], " (did you mean 'customer'?)"),
        ("id", ["name"], ""),
        ("id", [], ""),
    ],
)
def test_near_miss(name, present, expected):
    assert near_miss(name, present) == expected
