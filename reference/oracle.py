"""Says what a run must publish and count, with dicts and loops: the judge of the job's bytes in tests and bench.

It stands beside both so that neither imports the other, and shares no code with the job (`overlay`) on purpose.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction


class Number(str):
    """A JSON number as written."""


@dataclass
class Expected:
    """What a run must publish and report."""

    csv: bytes
    counts: dict[str, object]


@dataclass
class Csv:
    """CSV options under the names of the job arguments."""

    encoding: str = "utf-8"
    delimiter: str = ","
    line_ending: str = "lf"
    quote: str = "minimal"
    null: str = ""
    escape_formulas: bool = False

    def cell(self, text: str | None) -> str:
        """One cell."""
        if text is None:
            return self.null
        if self.escape_formulas and text[:1] and text[0] in "=+-@\t\r":
            text = "'" + text
        needed = text in {"", self.null} or any(c in text for c in (self.delimiter, '"', "\r", "\n"))
        return '"' + text.replace('"', '""') + '"' if needed or self.quote == "all" else text

    def line(self, cells: Sequence[str | None]) -> str:
        """One line."""
        text = self.delimiter.join(map(self.cell, cells)) or '""'  # readers skip a blank line
        return text + {"lf": "\n", "crlf": "\r\n"}[self.line_ending]


def records_of(data: bytes) -> list[dict]:
    """The records of one source object."""
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    text = data.decode("utf-8-sig")
    loads = {"parse_int": Number, "parse_float": Number}
    if text.lstrip(" \t\r\n")[:1] == "[":
        return json.loads(text, **loads)
    return [json.loads(line, **loads) for line in text.split("\n") if line.strip(" \t\r")]


def text_of(value: object, nested: bool = False) -> str | None:
    """A JSON value as text."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False) if nested else value
    if isinstance(value, dict):
        return "{" + ",".join(f"{text_of(k, True)}:{text_of(v, True)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(str(text_of(item, True)) for item in value) + "]"
    if value is None:
        return "null" if nested else None
    return "true" if value else "false"


def canonical(text: str) -> str:
    """An integer by its value, anything else by its text."""
    if not re.fullmatch(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?", text):
        return text
    value = Fraction(text + "0" if text.endswith(".") else text)
    return str(value.numerator) if value.denominator == 1 and abs(value) < 10**20 else text


def overlay(
    sources: Sequence[bytes],
    columns: Sequence[str],
    rows: Sequence[Sequence[str | None]],
    *,
    key: str = "id",
    table_key: str = "",
    chosen_columns: Sequence[str | dict[str, str]] = (),
    integer_key: bool = True,
    csv: Csv | None = None,
) -> Expected:
    """The CSV and the counts for source objects and a table given as the database's own texts.

    `chosen_columns` is what `columns` of an entry says; rows that do not meet `table_where` are not among `rows`.
    """
    csv, table_key = csv or Csv(), table_key or key
    records = [record for data in sources for record in records_of(data)]
    source_columns = list(dict.fromkeys(name for record in records for name in record))
    output = source_columns + [
        name for name in columns if name not in source_columns and (name != table_key or key == table_key)
    ]
    titles = output
    if chosen_columns:
        output = [column if isinstance(column, str) else column["from"] for column in chosen_columns]
        titles = [column if isinstance(column, str) else column["as"] for column in chosen_columns]
    match_of = canonical if integer_key else str
    key_index = list(columns).index(table_key)

    table: dict[str, list[Sequence[str | None]]] = {}
    for row in rows:
        if row[key_index] is not None:
            table.setdefault(match_of(row[key_index]), []).append(row)
    chosen = {
        match: min(group, key=lambda row: [(cell is not None, (cell or "").encode()) for cell in row])
        for match, group in table.items()
    }

    source_matches: set[str] = set()
    matched = filled = missing = 0
    coverage = [[0, 0, 0] for _ in output]  # of each column: cells from the source, from the table, empty
    lines = [csv.line(titles)]
    for record in records:
        identity = text_of(record.get(key))
        match = None if identity is None else match_of(identity)
        missing += match is None
        if match is not None:
            source_matches.add(match)
        table_cells = dict(zip(columns, chosen[match], strict=True)) if match in chosen else {}
        matched += bool(table_cells)
        cells = []
        for name, cover in zip(output, coverage, strict=True):
            value = text_of(record.get(name))
            cover[0] += value is not None
            if value is None and table_cells.get(name) is not None:
                value = table_cells[name]
                filled += 1
                cover[1] += 1
            cover[2] += value is None
            cells.append(value)
        lines.append(csv.line(cells))

    unmatched = [row for row in rows if row[key_index] is None or match_of(row[key_index]) not in source_matches]
    ids = {row[key_index] for row in unmatched if row[key_index] is not None}
    first_ids = sorted(ids, key=(lambda text: int(text)) if integer_key else str.encode)[:10]  # type: ignore[arg-type]
    nulls = sum(row[key_index] is None for row in rows)
    counts = {
        "source_records": len(records),
        "matched": matched,
        "source_only": len(records) - matched,
        "filled_cells": filled,
        "unmatched": len(unmatched),
        "unmatched_ids": first_ids,
        "source_duplicates": len(records) - missing - len(source_matches),
        "missing_ids": missing,
        "table_rows": len(rows),
        "table_duplicates": len(rows) - nulls - len(table),
        "columns": titles,
        "coverage": coverage,
    }
    return Expected("".join(lines).encode(csv.encoding), counts)
