"""The tables of the READMEs: the settings out of the JSON Schemas, the comparison out of the benchmark."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.measure import GIB
from bench.report import BIG_TABLE, JOB, MIDDLE, SMALL, TABLE, Measurements, Summary, case_text, pipe_table

ROOT = Path(__file__).resolve().parents[2]
FILES = ("configs", "common_settings")
TEXT = {"ja": "x-ja", "en": "description"}  # where a field of a schema has its text
HEADER = {
    "ja": {"configs": "configs.json のエントリー", "common_settings": "common_settings.json", "default": "既定値"},
    "en": {"configs": "entry of configs.json", "common_settings": "common_settings.json", "default": "default"},
}
REQUIRED = {"ja": "必須", "en": "required"}
EMPTY = {"ja": "空", "en": "empty"}
BY_HAND = {
    "ja": ("入力 x テーブル", "手書き: 1 行ずつ", "手書き: pandas merge", "このジョブ", "メモリ: pandas → このジョブ"),
    "en": ("source x table", "by hand: row by row", "by hand: pandas merge", "this job", "memory: pandas → this job"),
}
WORDS = {
    "ja": {
        "out of time": "制限時間内に終わらず",
        "out of memory": "メモリ不足",
        "earlier": " ({} の時点)",
        "extrapolated": "約 ",
        "limit": "この計測では 1 回を {:g} 秒で打ち切りました (「約」は一部の実行からの推定)。",
    },
    "en": {
        "out of time": "out of time",
        "out of memory": "out of memory",
        "earlier": " at {}",
        "extrapolated": "~",
        "limit": "A run was stopped after {:g} seconds (with ~: estimated from a part of it).",
    },
}


def fields(name: str) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    """Path, schema and whether it is required, of each value of a settings file, in the schema's order."""
    schema = json.loads((ROOT / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8"))
    if name == "configs":
        schema = schema["properties"]["configs"]["additionalProperties"]
    yield from fields_below(schema, "", required=True)


def fields_below(
    schema: Mapping[str, Any], path: str, *, required: bool
) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    """The values below an object; they are required where all objects above them are."""
    for name, field in schema.get("properties", {}).items():
        needed = required and name in schema.get("required", [])
        if "properties" in field:
            yield from fields_below(field, f"{path}{name}.", required=needed)
        elif name != "$schema":
            yield f"{path}{name}", field, needed


def allowed(field: Mapping[str, Any]) -> list[str]:
    """The values that a field takes, where they can be counted."""
    if field.get("type") == "boolean":
        return ["true", "false"]
    if "enum" in field:
        return [str(value) for value in field["enum"]]
    words = re.fullmatch(r"\^\(([\w-]+(\|[\w-]+)*)\)\$", field.get("pattern", ""))
    return words.group(1).split("|") if words else []


def tables(language: str) -> Iterator[tuple[str, Iterator[str]]]:
    """The tables of a README by the names of their blocks."""
    for name in FILES:
        yield name, table(name, language)
    yield "by hand", by_hand(language)


def table(name: str, language: str) -> Iterator[str]:
    """A file's settings as a table of Markdown."""
    words = HEADER[language]
    rows = (
        (f"`{path}`", marked_text(field, language), default(field, language, required=required))
        for path, field, required in fields(name)
    )
    yield from pipe_table((words[name], "", words["default"]), rows)


def marked_text(field: Mapping[str, Any], language: str) -> str:
    """The text of a field, its values as code, what Markdown would read as markup escaped."""
    text = re.sub(r"([*<|])", r"\\\1", field[TEXT[language]])
    for value in allowed(field):
        text = re.sub(rf"(?<![\w.-]){re.escape(value)}(?![\w-])", f"`{value}`", text, flags=re.ASCII)
    return text


def default(field: Mapping[str, Any], language: str, *, required: bool) -> str:
    """Names what is used where a field is left out."""
    if required:
        return REQUIRED[language]
    if "default" not in field:
        return ""
    value = field["default"]
    text = value if isinstance(value, str) else json.dumps(value)
    return f"`{text}`" if text else EMPTY[language]


def by_hand(language: str) -> Iterator[str]:
    """Compares the job with what one would write by hand: seconds and peak memory of docs/benchmark.json."""
    results = json.loads((ROOT / "docs" / "benchmark.json").read_text(encoding="utf-8"))
    measurements = Measurements(results)
    cases = ((SMALL, TABLE), (MIDDLE, TABLE), (SMALL, BIG_TABLE), (MIDDLE, BIG_TABLE))
    yield from pipe_table(BY_HAND[language], (by_hand_row(measurements, case, language) for case in cases))
    yield ""
    yield WORDS[language]["limit"].format(results["seconds_limit"])


def by_hand_row(measurements: Measurements, case: tuple[int, int], language: str) -> tuple[str, ...]:
    """One case."""
    words = WORDS[language]

    def seconds(name: str) -> str:
        result = measurements.get(name, *case)
        if result is None:
            status, _, earlier = measurements.status(name, *case).partition(" at ")
            return words.get(status, status) + (words["earlier"].format(earlier) if earlier else "")
        rough = words["extrapolated"] if any("extrapolated" in remark for remark in result.remarks) else ""
        return f"{rough}{result.seconds:,.1f} s"

    def memory(result: Summary | None) -> str:
        return f"{result.peak / GIB:.2f} GiB" if result else "-"

    peaks = f"{memory(measurements.get('pandas', *case))} → {memory(measurements.get(JOB, *case))}"
    return case_text(*case), seconds("loop"), seconds("pandas"), seconds(JOB), peaks
