"""Source objects in memory: made by Hypothesis, read as the job reads them, and what the oracle makes of them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from overlay.limits import Limits
from overlay.source.columns import record_batches
from overlay.source.json_reader import RecordReader
from overlay.source.objects import ByteRange, SourceObject
from reference import oracle

LIMITS = Limits()
URL = "s3://lake/a"  # of the object that `read_records` reads
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('abé"', max_size=3), inner, max_size=3),
    max_leaves=5,
)
RECORDS = st.lists(st.dictionaries(st.sampled_from(["id", "a", "b", "列"]), JSON, max_size=4), min_size=1, max_size=12)
FLAT = st.lists(  # mostly what Arrow may parse
    st.fixed_dictionaries(
        {},
        optional={
            "id": st.integers(-(2**63), 2**63 - 1) | st.none(),
            "a": st.text(st.characters(exclude_categories=["Cs"])) | st.none(),
            "列": st.integers(-9, 9) | st.sampled_from([2**63, 1.5, True, "1", [1], {"a": 0}]),
        },
    ),
    max_size=12,
)
Records = list[dict[str, str]]


class Store:
    """Answers the one call that the reader makes of S3, from bytes in memory."""

    def __init__(self, **objects: bytes):
        self.objects = objects

    def get_object(self, Bucket: str, Key: str, Range: str, IfMatch: str) -> dict[str, Any]:
        start, end = map(int, Range.removeprefix("bytes=").split("-"))
        return {"Body": io.BytesIO(self.objects[Key][start : end + 1])}


def reader(
    data: bytes, start: int = 0, end: int | None = None, limits: Limits = LIMITS, records_at: str = ""
) -> RecordReader:
    """The job's reader of an object, or of a range of its bytes."""
    item = SourceObject("lake", "a", len(data), "etag", records_at)
    return RecordReader(Store(a=data), ByteRange(item, start, end), limits)


def read_records(data: bytes, range_bytes: int | None = None, limits: Limits = LIMITS, records_at: str = "") -> Records:
    """Reads the records of an object, whole or cut into ranges, as the job does: column name to text."""
    step = range_bytes or len(data)
    ranges = [(start, start + step) for start in range(0, len(data), step)] if range_bytes else [(0, None)]
    batches = [
        batch for start, end in ranges for batch in record_batches([reader(data, start, end, limits, records_at)])
    ]
    return [present(record) for batch in batches for record in batch.to_pylist()]


def expected_records(data: bytes) -> Records:
    """Reads the records of an object as the oracle does: column name to text."""
    return [
        present({name: oracle.text_of(value) for name, value in record.items()}) for record in oracle.records_of(data)
    ]


def present(texts: dict[str, str | None]) -> dict[str, str]:
    """Leaves out the values that are missing."""
    return {name: text for name, text in texts.items() if text is not None}


def in_chunks(chunk_bytes: int, **changes: int) -> Limits:
    """The limits with which an object is read in chunks of that size, the first one too."""
    return replace(LIMITS, **({"chunk_bytes": chunk_bytes, "sniff_bytes": chunk_bytes} | changes))


def json_lines(records: Sequence[dict[str, Any]], separator: str = "\n") -> bytes:
    """Records as JSON Lines."""
    return separator.join(json.dumps(record, ensure_ascii=False) for record in records).encode()
