"""Module `errors`: every message exists in both languages, and errors travel as data and without secrets."""

from __future__ import annotations

import ast
import gzip
import json
import re
import string
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay import messages_en, messages_ja, texts_en, texts_ja
from overlay.errors import (
    ERROR_CLASSES,
    REPORTED,
    Detail,
    JobError,
    OutputError,
    Phrase,
    SourceError,
    TableError,
    TransientTableError,
    Verbatim,
    error_from_data,
    library_words,
    near_miss,
    phrase,
)
from overlay.source.json_text import reason, scanner
from tests.conftest import ROOT
from tests.texts import english_in

JAPANESE = re.compile("[\u3041-\u30ff\u4e00-\u9fff]")
FILES = sorted((ROOT / "overlay").rglob("*.py"))


def fields_of(message: Iterable[str]) -> set[str]:
    """The details a message takes."""
    return {name for part in message for _, name, _, _ in string.Formatter().parse(part) if name}


# The catalogues.


CATALOGUES = {
    "MESSAGES": (messages_en.MESSAGES, messages_ja.MESSAGES),
    "PHRASES": (messages_en.PHRASES, messages_ja.PHRASES),
    "TEXTS": (texts_en.TEXTS, texts_ja.TEXTS),
}


@pytest.mark.parametrize("name", CATALOGUES)
def test_both_catalogues_have_the_same_codes_in_the_same_order(name):
    english, japanese = CATALOGUES[name]
    assert list(japanese) == list(english)


@pytest.mark.parametrize("code", messages_en.MESSAGES)
def test_both_languages_tell_the_same(code):
    english, japanese = messages_en.MESSAGES[code], messages_ja.MESSAGES[code]
    # {fields}, {arguments} or {user} may stand in one language only where the other explains it in words
    assert fields_of(japanese) == fields_of(english)
    for cause, hint in (english, japanese):
        assert cause
        assert hint
    assert not JAPANESE.search(" ".join(english))
    assert JAPANESE.search(japanese[1])


@pytest.mark.parametrize("name", ["PHRASES", "TEXTS"])
def test_phrases_and_texts_are_in_both_languages(name):
    english, japanese = CATALOGUES[name]
    for code, text in english.items():
        assert fields_of([japanese[code]]) == fields_of([text]), code
        assert JAPANESE.search(japanese[code]), code
        assert not JAPANESE.search(text), code


def example(code: str) -> JobError:
    """An error with a code, whose details have no words of their own."""
    return JobError(code, **{name: Verbatim("-") for name in fields_of(messages_en.MESSAGES[code])})


def test_japanese_messages_hold_no_english_of_ours():
    words = {code: english_in(example(code)) for code in messages_ja.MESSAGES}
    assert {code: english for code, english in words.items() if english} == {}
    for code, text in messages_ja.PHRASES.items():
        error = JobError("unexpected", problem=phrase(code, **dict.fromkeys(fields_of([text]), Verbatim("-"))))
        assert english_in(error) == [], code


# What is called so in Japanese, too; all other Latin words are names: with a capital, a digit or a sign.
LATIN = {"columns", "csv", "endpoint", "gzip", "id", "jar", "key", "null", "port", "true", "password", "username"}
LATIN |= {"terraform", "apply", "u", "t", "guard", "off"}


def test_latin_words_of_the_japanese_catalogue_are_names():
    catalogue = [messages_ja.PHRASES, texts_ja.TEXTS, messages_ja.LIBRARY_WORDS]
    texts = [text for messages in messages_ja.MESSAGES.values() for text in messages]
    texts += [text for part in catalogue for text in part.values()]
    words = {word for text in texts for word in re.findall(r"[!-z|~]+", re.sub("{.*?}", " ", text))}
    plain = {word for word in (word.strip("()'.,:") for word in words) if re.fullmatch("[a-z]+", word)}
    assert plain - LATIN == set()
    assert {"gzip", "null"} <= plain


def test_english_in_a_japanese_message_is_seen():
    assert english_in(JobError("unexpected", problem=Verbatim("it is not there"))) == ["it is", "not there"]


# Who uses them.


class Use(NamedTuple):
    """A call that makes an error or a phrase: where, the code, and the names of its details (None: not written out)."""

    line: str
    code: str
    details: frozenset[str] | None


def uses(source: str, file: str, makers: Iterable[str]) -> Iterator[Use]:
    """The calls of some functions or classes in a source, by name or by a variable that holds one of them."""
    nodes = list(ast.walk(ast.parse(source)))
    variables = names_by_variable(node for node in nodes if isinstance(node, ast.Assign))
    for call in (node for node in nodes if isinstance(node, ast.Call)):
        if {*names_in(call.func), *variables[ast.unparse(call.func)]} & set(makers):
            assert call.args, f"{file}:{call.lineno}: no code"
            named = [keyword.arg for keyword in call.keywords]
            details = None if None in named else frozenset(filter(None, named))
            yield from (Use(f"{file}:{call.lineno}", code, details) for code in codes_in(call.args[0]))


def names_in(function: ast.expr) -> list[str]:
    """The names a called expression may stand for: `TableError`, `(TableError if lost else SourceError)`."""
    match function:
        case ast.Name(id=name):
            return [name]
        case ast.IfExp(body=chosen, orelse=alternative):
            return names_in(chosen) + names_in(alternative)
    return []


def names_by_variable(assignments: Iterable[ast.Assign]) -> defaultdict[str, list[str]]:
    """By each variable of a module the names that it is set to anywhere."""
    names = defaultdict[str, list[str]](list)
    for assignment in assignments:
        for target in assignment.targets:
            names[ast.unparse(target)] += names_in(assignment.value)
    return names


def codes_in(argument: ast.expr) -> list[str]:
    """The codes an argument may be; a variable has none that can be read."""
    match argument:
        case ast.Constant(value=str(code)):
            return [code]
        case ast.IfExp(body=chosen, orelse=alternative):
            return codes_in(chosen) + codes_in(alternative)
    return []


ERRORS = [use for file in FILES for use in uses(file.read_text(), file.name, ERROR_CLASSES)]
PHRASES = [use for file in FILES for use in uses(file.read_text(), file.name, ["phrase"])]
# Codes that reach their class or `phrase` through a parameter.
CONSTANTS = {
    node.value
    for file in FILES
    if not file.name.startswith("messages_")
    for node in ast.walk(ast.parse(file.read_text()))
    if isinstance(node, ast.Constant) and isinstance(node.value, str)
}


@pytest.mark.parametrize("use", ERRORS, ids=lambda use: f"{use.code}-{use.line}")
def test_an_error_has_a_message_and_exactly_its_details(use):
    assert use.code in messages_en.MESSAGES, use.line
    assert use.details in {None, frozenset(fields_of(messages_en.MESSAGES[use.code]))}, use.line


@pytest.mark.parametrize("use", PHRASES, ids=lambda use: f"{use.code}-{use.line}")
def test_a_phrase_is_in_the_catalogue_and_has_exactly_its_details(use):
    assert use.code in messages_en.PHRASES, use.line
    assert use.details in {None, frozenset(fields_of([messages_en.PHRASES[use.code]]))}, use.line


def test_every_message_and_every_phrase_is_used():
    assert set(messages_en.MESSAGES) - {use.code for use in ERRORS} - CONSTANTS == set()
    assert set(messages_en.PHRASES) - {use.code for use in PHRASES} - CONSTANTS == set()
    # Nearly all stand at the call itself, where the tests above check their details.
    assert len({use.code for use in ERRORS}) >= len(messages_en.MESSAGES) - 2
    assert len({use.code for use in PHRASES}) >= len(messages_en.PHRASES) - 11


@pytest.mark.parametrize(
    ("source", "codes"),
    [
        ('raise TableError("a", host=1)', ["a"]),
        ('(TableError if lost else SourceError)("a")', ["a"]),
        ('kind = TableError if lost else SourceError\nraise kind("a" if x else "b", c=d)', ["a", "b"]),
        ('raise ValueError("a")', []),
    ],
)
def test_what_makes_an_error_is_found(source, codes):
    assert [use.code for use in uses(source, "x", ERROR_CLASSES)] == codes


WRONG = """
from overlay.errors import JobError, Verbatim, phrase

name = "x"
JobError("a", detail="a sentence of English")
JobError("a", detail=f"is {name}")
phrase("a", detail=name)
JobError("a", detail=1.5)
JobError("a", detail=None)
"""
RIGHT = """
from overlay.errors import JobError, Verbatim, library_words, near_miss, phrase

JobError("a", one=Verbatim("x"), two=phrase("b", three=3), four=library_words("x"), five=near_miss("a", ["b"]))
"""


def mypy(code: str, folder: Path) -> list[str]:
    """The errors that the type checker finds in a module beside the package."""
    file = folder / "snippet.py"
    file.write_text(code)
    command = [sys.executable, "-m", "mypy", "--no-error-summary", f"--cache-dir={folder}", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert not done.stderr
    return done.stdout.splitlines()


def test_the_type_checker_refuses_a_text_among_the_details(tmp_path):
    """A sentence of English would stay English in a Japanese message: a detail is a phrase, a name, or a number."""
    assert mypy(RIGHT, tmp_path) == []
    errors = mypy(WRONG, tmp_path)
    assert [int(error.split(":")[1]) for error in errors] == [5, 6, 7, 8, 9]
    assert all("[arg-type]" in error for error in errors)


# What libraries say.


@pytest.mark.parametrize(
    "text", ['{"a" 1}', '{"a":1,}', '{"a":1 "b"', "{1:2}", '"a', '"\\x"', '"\\u12"', '"\t"', "[1 2]"]
)
def test_what_json_says_is_known_in_japanese(text):
    with pytest.raises(json.JSONDecodeError) as caught:
        scanner(str)(text, 0)
    assert JAPANESE.search(reason(caught.value).text("ja"))
    assert reason(caught.value).text("en") == caught.value.msg


@pytest.mark.parametrize("data", [b"\xff", b"\xe3a", b"\xe3\x81"])
def test_what_utf_8_says_is_known_in_japanese(data):
    with pytest.raises(UnicodeDecodeError) as caught:
        data.decode()
    assert JAPANESE.search(library_words(caught.value.reason).text("ja"))


def test_what_gzip_says_of_a_torn_file_is_known_in_japanese():
    with pytest.raises(EOFError) as caught:
        gzip.decompress(gzip.compress(b"x" * 99)[:-9])
    assert JAPANESE.search(library_words(str(caught.value)).text("ja"))


# Errors as data, and without secrets.

TEXT = st.text(max_size=6)
DETAILS: st.SearchStrategy[Detail] = st.recursive(
    TEXT.map(Verbatim) | st.integers() | TEXT.map(library_words),
    lambda inner: st.builds(Phrase, TEXT, st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=6,
)
ANY_ERROR = st.builds(
    lambda kind, code, details: kind(code, **details),
    st.sampled_from(list(ERROR_CLASSES.values())),
    TEXT,
    st.dictionaries(TEXT.filter(lambda name: name not in {"self", "code"}), DETAILS, max_size=4),
)


@given(ANY_ERROR)
def test_any_error_keeps_class_code_and_details_as_data(error):
    received = error_from_data(json.loads(json.dumps(error.to_data())))
    assert type(received) is type(error)
    assert (received.code, received.details, received.reported) == (error.code, error.details, False)


def test_an_error_of_each_code_says_the_same_behind_its_way_as_data():
    for code in messages_en.MESSAGES:
        error = example(code)
        received = error_from_data(json.loads(json.dumps(error.to_data())))
        assert [received.message(language) for language in ("en", "ja")] == [error.message("en"), error.message("ja")]


def test_every_class_of_errors_can_be_received():
    assert {cls.__name__: cls for cls in [JobError, *subclasses(JobError)]} == ERROR_CLASSES


def subclasses(cls: type) -> list[type]:
    """All classes below one."""
    return [lower for direct in cls.__subclasses__() for lower in (direct, *subclasses(direct))]


def test_phrases_travel_to_the_driver_and_are_redacted_in_both_languages():
    problem = phrase("gzip_broken", reason=library_words("hunter2"))
    error = SourceError("source_malformed", problem=problem, record=1, offset=2, url=Verbatim("a>>b"))
    received = error_from_data(json.loads(json.dumps(error.to_data())))
    assert received.details == error.details
    received.redact(lambda text: text.replace("hunter2", "***"))
    assert received.message("en").cause.endswith("byte offset 2: broken gzip file (***).")
    assert received.message("ja").cause.endswith("バイト位置 2): gzip ファイルが壊れています (***)")


@given(ANY_ERROR, st.sampled_from(["a", "0", "あ"]))
def test_redaction_reaches_every_text_of_the_details_and_nothing_else(error, hidden):
    """Codes and names of details are ours; what is hidden is the value of a secret."""
    before = error.to_data()
    error.redact(lambda text: text.replace(hidden, "*"))
    assert error.to_data()["details"] == {name: replaced(data, hidden) for name, data in before["details"].items()}


def replaced(data: object, hidden: str) -> object:
    """A detail as data, with a text hidden in its values."""
    match data:
        case {"code": code, "details": details}:
            return {"code": code, "details": {name: replaced(inner, hidden) for name, inner in details.items()}}
        case str():
            return data.replace(hidden, "*")
    return data


# What an error says of itself.


def test_an_error_of_the_database_that_may_pass_is_one_of_the_table():
    assert issubclass(TransientTableError, TableError)


def test_error_text_says_what_and_what_to_do():
    error = JobError("secret_missing", secret=Verbatim("a"))
    cause = "Secret 'a' does not exist in Secrets Manager."
    hint = "Run terraform apply, which makes it, or check secret_arn in configs.json (--secret_name)."
    assert error.message("en") == (cause, hint)
    assert str(error) == f"{cause} {hint}"
    error.reported = True
    assert str(error) == f"{cause} {hint} {REPORTED}"


def test_a_detail_that_looks_like_a_template_is_none():
    error = OutputError("destination_missing", bucket=Verbatim("{code} {0} {bucket}"))
    assert error.message("en").cause == "Destination bucket '{code} {0} {bucket}' does not exist."


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
    near = near_miss(name, present)
    assert (near.text("en") if isinstance(near, Phrase) else near) == expected
