"""The data of every measurement: a table of 12 columns and a source that overlays it. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

# Columns in table order; all of the source's are among them.
COLUMNS = ("id", "name", "price", "qty", "city", "note", "updated", "born", "rate", "code", "active", "number")
# In the order they first appear in the source, which comes first in the output.
SOURCE_COLUMNS = ("id", "name", "price", "note", "qty", "city")
SOURCE_INTEGERS = frozenset({"id", "qty"})
OUTPUT_COLUMNS = SOURCE_COLUMNS + tuple(name for name in COLUMNS if name not in SOURCE_COLUMNS)
TABLE = """
CREATE OR REPLACE TABLE big (
  id BIGINT PRIMARY KEY, name VARCHAR(40), price DECIMAL(12,2), qty INT, city VARCHAR(40), note VARCHAR(60),
  updated DATETIME(6), born DATE, rate DECIMAL(12,4), code VARCHAR(30), active TINYINT(1), number INT)
"""
FILL = """
INSERT INTO big
SELECT seq, CONCAT('顧客', seq), seq * 1.5, seq % 100, '大阪市北区', IF(seq % 3, CONCAT('memo, ', seq), NULL),
       '2020-01-01 10:00:00.123' + INTERVAL seq SECOND, '1990-02-01' + INTERVAL seq % 9999 DAY, seq / 7,
       CONCAT('c', seq), seq % 2, IF(seq % 10, seq, NULL)
FROM seq_1_to_{rows}
"""
STRIDE = 7919  # a prime: ids in no order of the table's, and none twice

ARRAY = "array-"  # before the size of a case


class CaseSize(NamedTuple):
    """Records of the source, rows of the table, and whether the source is one JSON array, not JSON Lines."""

    records: int
    rows: int
    array: bool = False


def table_statements(rows: int) -> tuple[str, ...]:
    """The SQL that makes the table `big`, by MariaDB's sequence engine."""
    return TABLE, FILL.format(rows=rows), "ANALYZE TABLE big"


def source_ids(records: int, rows: int) -> Iterator[int]:
    """The ids of the source: none twice, two thirds of them in the table (fewer when records > 1.5 x rows)."""
    span = max(rows * 3 // 2, records)
    return (number * STRIDE % span + 1 for number in range(records))


def source_lines(records: int, rows: int) -> Iterator[str]:
    """The source as JSON Lines: keys are missing or null now and then, texts hold Japanese and commas."""
    for number, key in enumerate(source_ids(records, rows)):
        record: dict[str, object] = {"id": key, "name": f"新{key}", "price": f"{key}.50"}
        if number % 3:
            record["qty"] = key % 100
        record["note"] = None if number % 5 == 0 else f"note {number}, more"
        if number % 4:
            record["city"] = "東京都千代田区丸の内"
        yield json.dumps(record, ensure_ascii=False)


def source(records: int, rows: int) -> bytes:
    """The source object."""
    return "\n".join(source_lines(records, rows)).encode()


def as_array(chunk: bytes, *, first: bool) -> bytes:
    """Rewrites a chunk of JSON Lines as text of a JSON array; whoever writes the last one adds the `]`."""
    return (b"[" if first else b",") + chunk.replace(b"\n", b",\n")


def parse_case(text: str) -> CaseSize:
    """`20kx2M` or `array-5Mx2M` as a size.

    Raises:
        ValueError: the text is no case.
    """
    records, rows = map(parse_size, text.removeprefix(ARRAY).split("x"))
    return CaseSize(records, rows, text.startswith(ARRAY))


def parse_size(text: str) -> int:
    """`20k`, `1M` or `300` as a number.

    Raises:
        ValueError: the text is no size.
    """
    factor = {"k": 1_000, "M": 1_000_000}.get(text[-1:], 1)
    return int(text if factor == 1 else text[:-1]) * factor


def size_text(number: int) -> str:
    """A number as `20k`, `1M` or `300`."""
    for factor, letter in ((1_000_000, "M"), (1_000, "k")):
        if number and number % factor == 0:
            return f"{number // factor}{letter}"
    return str(number)
