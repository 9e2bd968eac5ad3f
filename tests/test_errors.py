"""Section `errors`: every message exists in both languages and travels from executors to the driver."""

from __future__ import annotations

import ast
import gzip
import json
import re
import string
from collections.abc import Iterable, Iterator

import pytest

import glue_job
from glue_job import (
    ERROR_CLASSES,
    MESSAGES,
    OF_LIBRARIES,
    PHRASES,
    JobError,
    OutputError,
    near_miss,
    of_library,
    phrase,
    received_from_executor,
    sent_to_driver,
)
from tests.conftest import ROOT

SOURCE = (ROOT / "glue_job.py").read_text(encoding="utf-8")
JAPANESE = re.compile("[\u3041-\u30ff\u4e00-\u9fff]")
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
ARGUMENTS = {"name", "value", "encoding"}  # the details that are names and values of job arguments: plain words


def fields_of(message: Iterable[str]) -> set[str]:
    """The details a message takes."""
    return {name for part in message for _, name, _, _ in string.Formatter().parse(part) if name}


def english_in(error: JobError) -> list[str]:
    """Where words of English follow each other in the Japanese message."""
    told = re.sub(r"--\w+|terraform apply", "", " ".join(error.message("ja")))
    return re.findall("[A-Za-z]+ [a-z]{2,}", told)


class Details:
    """Follows the details of all errors in a source back to the literal texts they are made of.

    Through local variables, attributes, what functions return, and parameters to the calls that fill them.
    """

    def __init__(self, source: str) -> None:
        tree = ast.parse(source)
        self.functions: dict[str, list[ast.FunctionDef]] = {}
        self.attributes: dict[str, list[tuple[ast.expr, ast.AST]]] = {}
        self.calls: list[tuple[ast.Call, ast.AST]] = []
        self.seen: set[tuple[object, ...]] = set()
        self.texts: list[str] = []
        self._index(tree, tree)
        for call, scope in self.calls:
            if called(call) in {*ERROR_CLASSES, "phrase"}:
                for keyword in call.keywords:
                    if keyword.arg not in ARGUMENTS:
                        self.follow(keyword.value, scope)

    def _index(self, node: ast.AST, scope: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            match child:
                case ast.Call():
                    self.calls.append((child, scope))
                case ast.FunctionDef(name=name):
                    self.functions.setdefault(name, []).append(child)
                case ast.Assign(targets=[ast.Attribute(attr=name)], value=value):
                    self.attributes.setdefault(name, []).append((value, scope))
            self._index(child, child if isinstance(child, FUNCTION) else scope)

    def follow(self, value: ast.AST, scope: ast.AST) -> None:
        """Adds the texts that an expression may be made of."""
        match value:
            case ast.Constant(value=str(text)):
                self.texts.append(text)
            case ast.Attribute(value=ast.Name(id="self"), attr=name):
                for assigned, place in self.once(self.attributes.get(name, []), name):
                    self.follow(assigned, place)
            case ast.Name(id=name) if isinstance(scope, ast.FunctionDef):
                for assigned in self.once(assigned_in(scope, name), name, scope):
                    self.follow(assigned, scope)
                for filled, place in self.once(self._filled(scope, name), name, scope, "filled"):
                    self.follow(filled, place)
            case ast.Call():
                for returned, place in self.once(self._returned(called(value)), called(value), "returns"):
                    self.follow(returned, place)
        for part in parts_of(value):
            self.follow(part, scope)

    def _returned(self, name: str) -> Iterator[tuple[ast.AST, ast.AST]]:
        """What the functions and methods of a name return."""
        for function in self.functions.get(name, []) if not hasattr(str, name) else ():
            yield from ((node, function) for node in ast.walk(function) if isinstance(node, ast.Return))

    def _filled(self, function: ast.FunctionDef, name: str) -> Iterator[tuple[ast.AST, ast.AST]]:
        """What the calls of a function give to one of its parameters."""
        names = [argument.arg for argument in function.args.args]
        for call, scope in self.calls if name in names else ():
            if called(call) == function.name:
                index = names.index(name) - (names[0] == "self")
                starred = [part for part in call.args if isinstance(part, ast.Starred)]
                named = [keyword.value for keyword in call.keywords if keyword.arg == name]
                yield from ((part, scope) for part in starred or named or call.args[index : index + 1])

    def once(self, nodes: Iterable, *key: object) -> Iterable:
        """`nodes` the first time they are asked for, nothing afterwards."""
        if key in self.seen:
            return []
        self.seen.add(key)
        return nodes


def called(call: ast.Call) -> str:
    """The name of the function or method of a call."""
    return getattr(call.func, "id", getattr(call.func, "attr", ""))


def assigned_in(function: ast.FunctionDef, name: str) -> Iterator[ast.expr]:
    """What a function assigns to a local variable."""
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                yield value
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
                pairs = zip(targets, values, strict=True)
                yield from (value for target, value in pairs if ast.unparse(target) == name)


def parts_of(value: ast.AST) -> list[ast.AST]:
    """The expressions whose texts go into the value of another."""
    match value:
        case ast.Compare() | ast.Attribute() | ast.Call(func=ast.Name(id="phrase" | "of_library")):
            return []
        case ast.Call(func=function, args=args):
            receiver = [function.value] if isinstance(function, ast.Attribute) else []
            return receiver + [part for part in args if not isinstance(part, ast.Constant)]  # `.get("x")`
        case ast.IfExp(body=one, orelse=other):
            return [one, other]
        case (
            ast.Subscript(value=inner)
            | ast.FormattedValue(value=inner)
            | ast.DictComp(value=inner)
            | ast.ListComp(elt=inner)
            | ast.GeneratorExp(elt=inner)
        ):
            return [inner]
        case ast.Dict(values=values):
            return list(values)
    return list(ast.iter_child_nodes(value))


def words_in(source: str) -> Iterator[str]:
    """The texts of English among the details of the errors of a source."""
    for text in Details(source).texts:
        if re.search("[A-Za-z] | [A-Za-z]|^[A-Za-z]{3,}$", text):
            yield text


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


@pytest.mark.parametrize("code", list(PHRASES))
def test_phrases_are_in_both_languages(code):
    languages = PHRASES[code]
    assert set(languages) == {"en", "ja"}
    assert fields_of([languages["ja"]]) == fields_of([languages["en"]])
    assert JAPANESE.search(languages["ja"])
    assert not JAPANESE.search(languages["en"])
    assert f'"{code}"' in SOURCE.partition("def phrase(")[2]


def test_details_of_errors_are_data_or_phrases():
    assert sorted(words_in(SOURCE)) == []


@pytest.mark.parametrize(
    ("ours", "wrong"),
    [
        ('expected=phrase("count")', 'expected="a number"'),
        ('problem = phrase("webhook_no_url")', 'problem = f"is {webhook}"'),
        ('problem = phrase("connection_lost") if', 'problem = "lost it" if'),
        ('at, problem = pos, phrase("values_on_line")', 'at, problem = pos, "two values"'),  # through `malformed`
        ('return phrase("nested")', 'return "too deep"'),
        ('self.broken = phrase("not_utf8"', 'self.broken = "not UTF".format("not_utf8"'),
        ('len(self.text)), phrase("array_ends")', 'len(self.text)), "torn off"'),
        ('return phrase("near", name=by_fold[close[0]])', 'return f" (or {name}?)"'),
        ('else phrase("header")', 'else "header"'),
        ("source=settings.source)", 'source="the source")'),
    ],
)
def test_a_text_among_the_details_is_found(ours, wrong):
    assert ours in SOURCE
    assert len(list(words_in(SOURCE.replace(ours, wrong)))) == 1


def test_phrases_travel_to_the_driver_and_are_redacted_in_both_languages():
    details = {
        "problem": phrase("gzip_broken", reason=of_library("hunter2")),
        "record": 1,
        "offset": 2,
        "place": "a>>b",
    }
    with pytest.raises(RuntimeError) as caught, sent_to_driver():
        raise OutputError("source_malformed", **details)
    received = received_from_executor(Exception(f"x {caught.value} y"))
    assert received.details == details
    received.redact(lambda text: text.replace("hunter2", "***"))
    assert received.message("en").cause.endswith("byte offset 2: broken gzip file (***).")
    assert received.message("ja").cause.endswith("バイト位置 2): gzip ファイルが壊れています (***)")


@pytest.mark.parametrize(
    "text", ['{"a" 1}', '{"a":1,}', '{"a":1 "b"', "{1:2}", '"a', '"\\x"', '"\\u12"', '"\t"', "[1 2]"]
)
def test_what_json_says_is_known_in_japanese(text):
    with pytest.raises(json.JSONDecodeError) as caught:
        glue_job.json_scanner(str)(text, 0)
    assert caught.value.msg in OF_LIBRARIES


@pytest.mark.parametrize("data", [b"\xff", b"\xe3a", b"\xe3\x81"])
def test_what_utf_8_says_is_known_in_japanese(data):
    with pytest.raises(UnicodeDecodeError) as caught:
        data.decode()
    assert caught.value.reason in OF_LIBRARIES


def test_what_gzip_says_of_a_torn_file_is_known_in_japanese():
    with pytest.raises(EOFError) as caught:
        gzip.decompress(gzip.compress(b"x" * 99)[:-9])
    assert JAPANESE.search(of_library(str(caught.value))["ja"])


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
    assert glue_job.in_language({"near": near_miss(name, present)}, "en") == {"near": expected}
