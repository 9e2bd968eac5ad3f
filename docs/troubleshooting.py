"""The tables of docs/troubleshooting.md: a row for each entry of `MESSAGES` of the job, and the messages of local/."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from bench.report import pipe_table
from glue_job import ERROR_CLASSES, MESSAGES

ROOT = Path(__file__).resolve().parent.parent

# How a detail of a message is called where a page shows its template; others go by their own name.
DETAILS = {
    "ja": {
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
        "found": "実際",
        "host": "ホスト",
        "key": "キー列",
        "known": "引数の一覧",
        "name": "名前",
        "offset": "位置",
        "operation": "操作",
        "place": "場所",
        "problem": "内容",
        "record": "番号",
        "secret": "シークレット名",
        "table": "テーブル",
        "user": "ユーザー",
        "value": "値",
    },
    "en": {},
}

# What is most often behind a message on AWS, where the hint in Slack has no room for it.
CAUSES: dict[str, dict[str, str]] = json.loads((ROOT / "docs" / "causes.json").read_text(encoding="utf-8"))
HEADER = {
    "ja": ("コード", "メッセージ", "よくある原因", "次に確認すること"),
    "en": ("code", "message", "what is often behind it", "check next"),
}
LOCAL_HEADER = {"ja": ("メッセージ", "クラス"), "en": ("message", "class")}


@cache
def classes_of_codes() -> dict[str, list[str]]:
    """The error classes that the job raises with each code, as its source says."""
    found: dict[str, list[str]] = {}
    for node in ast.walk(ast.parse((ROOT / "glue_job.py").read_text(encoding="utf-8"))):
        match node:
            case ast.Call(func=ast.Name(id=name), args=[ast.Constant(value=str(code)), *_]) if name in ERROR_CLASSES:
                found.setdefault(code, [])
                found[code] += [name] * (name not in found[code])
    return found


def readable(template: str, language: str) -> str:
    """A template of `MESSAGES` for people: the details by their name; what is added only at times is left out."""

    def name(found: re.Match[str]) -> str:
        detail = found.group(1)
        return "" if detail == "near" else f"‹{DETAILS[language].get(detail, detail)}›"

    return re.sub(r"\{(\w+)(?:![rs])?(?::[^}]*)?\}", name, template)


def cell(text: str) -> str:
    """A text in a table of Markdown."""
    return text.replace("|", "\\|").replace("\n", " ")


def job_rows(name: str, language: str) -> Iterator[tuple[str, ...]]:
    """A row for each code that a class is raised with; one that more classes share is in the first."""
    raised = classes_of_codes()
    for code, messages in MESSAGES.items():
        if raised.get(code, ["JobError"])[0] == name:
            cause, hint = (cell(readable(part, language)) for part in messages[language])
            yield f'<a id="{code}"></a>`{code}`', cause, cell(CAUSES.get(code, {}).get(language, "")), hint


def local_rows() -> Iterator[tuple[str, ...]]:
    """The messages of local/: `message = ...` above `raise RunnerError(message)`."""
    for path in sorted((ROOT / "local").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for block in (getattr(node, field, None) for field in ("body", "orelse", "handlers")):
                yield from raised_in(block if isinstance(block, list) else [])


def raised_in(block: list[ast.stmt]) -> Iterator[tuple[str, ...]]:
    """The messages that the statements of one block raise."""
    text = ""
    for statement in block:
        match statement:
            case ast.Assign(targets=[ast.Name(id="message")], value=value):
                text = template_of(value)
            case ast.Raise(exc=ast.Call(func=ast.Name(id="RunnerError" | "ServiceError" as name))):
                yield cell(text), f"`{name}`"


def template_of(value: ast.expr) -> str:
    """A text of the source, the parts of an f-string that are filled in by their last name."""
    match value:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(map(template_of, parts))
        case ast.FormattedValue(value=filled):
            names = re.findall(r"[a-z_]+", ast.unparse(filled))
            return f"‹{names[-1] if names else '…'}›"
    return ""


def tables(language: str) -> Iterator[tuple[str, Iterator[str]]]:
    """The tables of the page by the names of their blocks."""
    for name in ERROR_CLASSES:
        yield name, pipe_table(HEADER[language], job_rows(name, language))
    yield "local", pipe_table(LOCAL_HEADER[language], local_rows())
