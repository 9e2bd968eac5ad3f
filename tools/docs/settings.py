"""The tables of docs/configuration: the settings, out of the JSON Schemas."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.report import pipe_table

ROOT = Path(__file__).resolve().parents[2]
FILES = ("configs", "common_settings")
TEXT = {"ja": "x-ja", "en": "description"}  # where a field of a schema has its text
HEADER = {
    "ja": {"configs": "configs.json のエントリー", "common_settings": "common_settings.json", "default": "既定値"},
    "en": {"configs": "entry of configs.json", "common_settings": "common_settings.json", "default": "default"},
}
REQUIRED = {"ja": "必須", "en": "required"}
EMPTY = {"ja": "空", "en": "empty"}


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
    """The tables of the page by the names of their blocks."""
    for name in FILES:
        yield name, table(name, language)


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
