"""source.parallel on S3 (moto): by threads or by processes, the same batches in order, and the same error."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from overlay import aws as job_aws
from overlay.errors import SourceError
from overlay.limits import Limits
from overlay.source import parallel
from overlay.source.objects import SourceObject, cut_ranges
from overlay.source.parallel import parse_groups

CORES = 3
BY_THREADS = Limits(range_bytes_min=20_000, range_bytes_max=20_000, sniff_bytes=2_000, chunk_bytes=8_000)
BY_PROCESSES = Limits(
    range_bytes_min=20_000, range_bytes_max=20_000, sniff_bytes=2_000, chunk_bytes=8_000, process_bytes_min=1
)
NESTED = [
    {"id": number, "price": number / 7, "tags": {"a": [number, None, True], "名": "x" * 20}} for number in range(1_000)
]
TEXTS = [{"id": number, "name": f"n{number}"} for number in range(3_000)]


def store(records: list[Any], *, broken_at: int | None = None) -> list[SourceObject]:
    """Puts JSON Lines, one of which may be cut off."""
    lines = [json.dumps(record) for record in records]
    if broken_at is not None:
        lines[broken_at] = lines[broken_at][:-1]
    client, data = job_aws.client("s3", Limits().aws), "\n".join(lines).encode()
    etag = client.put_object(Bucket="lake", Key="in/parallel.json", Body=data)["ETag"]
    return [SourceObject("lake", "in/parallel.json", len(data), etag)]


def parse(objects: list[SourceObject], limits: Limits) -> pa.Table:
    """All records, of each batch what is to be kept."""
    s3 = job_aws.client("s3", limits.aws)
    groups = cut_ranges(s3, objects, CORES, limits)
    assert len(groups) > CORES
    batches = list(parse_groups(s3, groups, CORES, limits, lambda batch: (batch.num_rows, batch)))
    assert all(rows == batch.num_rows for rows, batch in batches)
    return pa.Table.from_batches([batch for _, batch in batches])


@pytest.fixture
def processes(aws: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collects how many processes were started, each time."""
    sizes: list[int] = []

    class Counted(parallel.ProcessPoolExecutor):
        def __init__(self, size: int, *arguments: Any) -> None:
            sizes.append(size)
            super().__init__(size, *arguments)

    monkeypatch.setattr(parallel, "ProcessPoolExecutor", Counted)
    return sizes


def test_processes_parse_what_threads_parse(processes):
    objects = store(NESTED)
    expected = parse(objects, BY_THREADS)
    assert processes == []
    assert parse(objects, BY_PROCESSES) == expected
    assert processes == [CORES]
    assert expected.num_rows == len(NESTED)
    assert expected.column("price").to_pylist() == [str(record["price"]) for record in NESTED]


def test_what_arrow_parses_needs_no_process(processes):
    assert parse(store(TEXTS), BY_PROCESSES).num_rows == len(TEXTS)
    assert processes == []


def test_little_is_parsed_in_this_process(processes):
    little = Limits(range_bytes_min=20_000, range_bytes_max=20_000, sniff_bytes=2_000, process_bytes_min=10**9)
    assert parse(store(NESTED), little).num_rows == len(NESTED)
    assert processes == []


@pytest.mark.parametrize("broken_at", [0, 500, 999])
def test_an_error_is_the_same_wherever_it_is_met(processes, broken_at):
    objects = store(NESTED, broken_at=broken_at)
    errors = []
    for limits in (BY_THREADS, BY_PROCESSES):
        with pytest.raises(SourceError) as caught:
            parse(objects, limits)
        errors.append((caught.value.code, str(caught.value), caught.value.details["record"]))
    assert errors[0] == errors[1]
    assert errors[0][2] == broken_at + 1


def test_what_seen_raises_ends_the_parsing(processes):
    def refuse(_batch: pa.RecordBatch) -> None:
        raise MemoryError

    s3 = job_aws.client("s3", Limits().aws)
    for limits in (BY_THREADS, BY_PROCESSES):
        groups = cut_ranges(s3, store(NESTED), CORES, limits)
        with pytest.raises(MemoryError):
            list(parse_groups(s3, groups, CORES, limits, refuse))
