"""The tables of docs/troubleshooting.md: a row for each entry of the catalogues, and the messages of local/."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from bench.report import pipe_table
from local import words
from overlay import errors, messages_en, messages_ja

ROOT = Path(__file__).resolve().parents[2]

CATALOGUES = {"ja": messages_ja.MESSAGES, "en": messages_en.MESSAGES}
# What a class is called on the page, where each has a block: a TransientTableError is a TableError to readers, as the
# job has already tried again what may be worth it when they hear of one.
SHOWN_CLASSES = {
    name: next(base for base in reversed(kind.__mro__) if base.__base__ is errors.JobError or base is kind).__name__
    for name, kind in errors.ERROR_CLASSES.items()
}

# How a detail of a message is called where a page shows its template; others go by their own name.
DETAILS = {
    "ja": {
        "arguments": "引数の一覧",
        "bucket": "バケット",
        "character": "文字",
        "codepoint": "コードポイント",
        "column": "列",
        "columns": "列の一覧",
        "conflict": "矛盾の内容",
        "connection": "接続名",
        "driver": "クラス",
        "encoding": "文字コード",
        "expected": "期待値",
        "fields": "項目",
        "host": "ホスト",
        "key": "キー列",
        "kind": "実際",
        "name": "名前",
        "offset": "位置",
        "operation": "操作",
        "output": "出力",
        "problem": "内容",
        "path": "パス",
        "record": "番号",
        "resource": "場所",
        "row": "場所",
        "secret": "シークレット名",
        "table": "テーブル",
        "url": "場所",
        "user": "ユーザー",
        "value": "値",
        "where": "条件",
        "written": "実際",
    },
    "en": {},
}

# What is most often behind a message on AWS, where the hint in Slack has no room for it.
CAUSES: dict[str, dict[str, str]] = json.loads((Path(__file__).with_name("causes.json")).read_text(encoding="utf-8"))
HEADER = {
    "ja": ("コード", "メッセージ", "よくある原因", "次に確認すること"),
    "en": ("code", "message", "what is often behind it", "check next"),
}
LOCAL_HEADER = {"ja": ("メッセージ", "クラス"), "en": ("message", "class")}


@cache
def classes_of_codes() -> Mapping[str, set[str]]:
    """Reads from the sources of the package with which classes each code is raised, named as the page shows them."""
    classes: dict[str, set[str]] = {}
    for path in sorted((ROOT / "overlay").rglob("*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        functions = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)]
        returns = {function.name: function.returns for function in functions}
        for function in functions:
            for call in ast.walk(function):
                match call:
                    case ast.Call(func=called, args=[ast.Constant(value=str(code)), *_]) if code in CATALOGUES["en"]:
                        helper = ast.unparse(called).rpartition(".")[2]
                        names = first_classes(called, returns.get(helper), function.returns)
                        classes.setdefault(code, set()).update(SHOWN_CLASSES[name] for name in names)
    return classes


def first_classes(*nodes: ast.expr | None) -> list[str]:
    """Finds the error classes in the first of the nodes that names any: what is called, else an annotation of a return.

    So `XxxError(...)` is understood, `(XxxError if ... else YyyError)(...)`, `self._error(...)`, and a variable.
    """
    texts = (ast.unparse(node) for node in nodes if node)
    names = ([name for name in re.findall(r"\w+", text) if name in SHOWN_CLASSES] for text in texts)
    return next(filter(None, names), [])


def readable(template: str, language: str) -> str:
    """Makes a template readable: the details by their names; `near`, which is added only at times, is left out."""

    def name(field: re.Match[str]) -> str:
        detail = field.group(1)
        return "" if detail == "near" else f"‹{DETAILS[language].get(detail, detail)}›"

    return re.sub(r"\{(\w+)(?:![rs])?(?::[^}]*)?\}", name, template)


def cell(text: str) -> str:
    """A text in a table of Markdown."""
    return text.replace("|", "\\|").replace("\n", " ")


def job_rows(name: str, language: str) -> Iterator[tuple[str, ...]]:
    """A row for each code that a class is raised with."""
    for code, message in CATALOGUES[language].items():
        if name in classes_of_codes()[code]:
            cause, hint = (cell(readable(text, language)) for text in message)
            yield f'<a id="{code}"></a>`{code}`', cause, cell(CAUSES.get(code, {}).get(language, "")), hint


def local_rows(language: str = "en") -> Iterator[tuple[str, ...]]:
    """The messages of local/: `message = ...` above `raise RunnerError(message)`."""
    for path in sorted((ROOT / "local").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for block in (getattr(node, field, None) for field in ("body", "orelse", "handlers")):
                yield from raised_in(block if isinstance(block, list) else [], language)


def raised_in(block: list[ast.stmt], language: str) -> Iterator[tuple[str, ...]]:
    """The messages that the statements of one block raise."""
    text = ""
    for statement in block:
        match statement:
            case ast.Assign(targets=[ast.Name(id="message")], value=value):
                text = template_of(value, language)
            case ast.Raise(exc=ast.Call(func=ast.Name(id="RunnerError" | "ServiceError" as name))):
                yield cell(text), f"`{name}`"


def template_of(value: ast.expr, language: str) -> str:
    """Reads a text of the source; what an f-string fills in is shown by its last name."""
    match value:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(template_of(part, language) for part in parts)
        case ast.FormattedValue(value=filled):
            names = re.findall(r"[a-z_]+", ast.unparse(filled))
            return f"‹{names[-1] if names else '…'}›"
        case ast.Call(
            func=ast.Attribute(value=ast.Subscript(slice=ast.Constant(value=str(name))))
        ):  # words["…"].format
            return readable(words.texts(language)[name], language)
    return ""


def tables(language: str) -> Iterator[tuple[str, Iterator[str]]]:
    """The tables of the page by the names of their blocks."""
    for name in dict.fromkeys(SHOWN_CLASSES.values()):
        yield name, pipe_table(HEADER[language], job_rows(name, language))
    yield "local", pipe_table(LOCAL_HEADER[language], local_rows(language))
