"""Publishing on both engines: one object by S3's rules for any sizes, all or nothing, whatever happens to a worker."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyspark import TaskContext

from overlay import aws as job_aws
from overlay import upload
from overlay.csv_text import header
from overlay.engines import driver, workers
from overlay.errors import OutputError, Verbatim
from overlay.limits import MIB, Limits
from overlay.settings import CsvFormat
from overlay.upload import MultipartUpload, Part, UploadTarget, plan_parts, send_part
from tests.conftest import Pipeline

LIMITS = Limits()
LINE = pa.schema([("part", pa.int32()), ("row", pa.int64()), ("line", pa.string())])


def fill(pipeline: Pipeline, widths: Iterable[tuple[int, int]]) -> int:
    """Makes a table whose rows have notes of so many characters, and a source of their ids; the number of records."""
    pipeline.sql(f"CREATE TABLE {pipeline.name} (id INT PRIMARY KEY, note LONGTEXT) CHARACTER SET utf8mb4")
    records = 0
    for rows, width in widths:
        letter = "CHAR(97 + id % 26 USING utf8mb4)"
        ids = f"SELECT seq + {records} AS id FROM seq_1_to_{rows}"
        pipeline.sql(f"INSERT INTO {pipeline.name} SELECT id, REPEAT({letter}, {width}) FROM ({ids}) AS ids")
        records += rows
    pipeline.sql(f"ANALYZE TABLE {pipeline.name}")
    pipeline.put("\n".join(f'{{"id":{number}}}' for number in range(1, records + 1)).encode())
    return records


def lines_of(widths: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    """The lines of the output for that table."""
    yield b"id,note\n"
    number = 0
    for rows, width in widths:
        for _ in range(rows):
            number += 1
            yield b"%d,%b\n" % (number, bytes([97 + number % 26]) * width)


def digest(chunks: Iterable[bytes]) -> str:
    """Makes a digest that tells large contents apart."""
    whole = hashlib.sha256()
    for data in chunks:
        whole.update(data)
    return whole.hexdigest()


def parts_of(pipeline: Pipeline) -> int:
    """The number of parts of the output, which S3 appends to its ETag; 0 where it is one PutObject."""
    head = pipeline.aws.client("s3").head_object(Bucket="lake", Key=f"out/{pipeline.name}.csv")
    return int(head["ETag"].strip('"').partition("-")[2] or 0)


# Rows, and the characters of the note of each.
WIDTHS = {
    "one line": [(1, 1)],
    "six MiB": [(6, MIB)],
    "3,000 of 10 KB": [(3000, 10_000)],
    "a few wide ones among many": [(20_000, 1), (40, 1_000_000), (20_000, 1)],
}


# Spark, of which a run takes seconds, gets the two ends.
@pytest.mark.parametrize(
    ("engine", "case"), [*(("driver", case) for case in WIDTHS), ("spark", "one line"), ("spark", [*WIDTHS][-1])]
)
def test_lines_of_any_width_make_one_object(pipeline, engine, case):
    """The records are narrow, so that neither the size of the source nor a number of rows tells that of the output."""
    records = fill(pipeline, WIDTHS[case])
    pipeline.engine = engine
    result = pipeline.run()
    data = pipeline.output()
    assert (result.engine, result.rows, result.bytes) == (engine, records, len(data))
    assert digest([data]) == digest(lines_of(WIDTHS[case]))
    assert parts_of(pipeline) >= len(data) // (16 * MIB)  # nobody holds much more than a part
    assert not pipeline.uploads()


def test_more_parts_than_s3_takes_become_fewer_and_bigger(pipeline, engine):
    """Parts of 8 MiB would be six. The driver estimates the output by the source, which says nothing of wide rows."""
    fill(pipeline, [(48, MIB)])
    pipeline.engine = engine
    pipeline.limits = replace(LIMITS, parts_max=5)
    pipeline.run()
    assert digest([pipeline.output()]) == digest(lines_of([(48, MIB)]))
    assert 1 < parts_of(pipeline) <= 5


WIDE = {"id": 10_001, "note": "x" * 100_000}
# Records among 10,000 narrow ones, and the characters in the note of the last row of the table.
WIDE_LINES = {
    "records": ([WIDE] * 300, 1),
    "a row that many records share": ([{"id": 10_001}] * 300, 100_000),
}


@pytest.mark.parametrize("wide", WIDE_LINES)
def test_the_driver_formats_little_at_a_time_whatever_is_wide(pipeline, monkeypatch, wide):
    sizes = []
    encode = workers.encoded
    monkeypatch.setattr(driver, "encoded", lambda data, *arguments: sizes.append(len(data)) or encode(data, *arguments))
    records, width = WIDE_LINES[wide]
    narrow = fill(pipeline, [(10_000, 1), (1, width)]) - 1
    pipeline.put("\n".join(map(json.dumps, [*({"id": n + 1} for n in range(narrow)), *records])).encode())
    result = pipeline.run()
    assert result.bytes > sum(sizes) > 300 * 100_000
    assert max(sizes) < 2 * MIB


def test_parts_are_whole_and_long_enough_in_an_encoding_that_writes_less(pipeline, engine):
    """Half-width katakana have three bytes in UTF-8, by which parts are planned, and one in cp932.

    What the encoding lacks is noticed when parts were sent already: the output stays what it was.
    """
    rows = 12_000
    pipeline.sql(
        f"CREATE TABLE {pipeline.name} (id INT PRIMARY KEY, note TEXT) CHARACTER SET utf8mb4",
        f"INSERT INTO {pipeline.name} SELECT seq, REPEAT('ｱ', 1500) FROM seq_1_to_{rows}",
        f"ANALYZE TABLE {pipeline.name}",
    )
    pipeline.put("\n".join(f'{{"id":{number}}}' for number in range(1, rows + 1)).encode())
    pipeline.engine = engine
    pipeline.run(csv_encoding="cp932")
    before = pipeline.output()
    lines = (f"{number},{'ｱ' * 1500}\n".encode("cp932") for number in range(1, rows + 1))
    assert digest([before]) == digest([b"id,note\n", *lines])
    assert parts_of(pipeline) > 1
    pipeline.sql(f"UPDATE {pipeline.name} SET note = 'x☃' WHERE id = {rows - 1}")
    with pytest.raises(OutputError) as caught:
        pipeline.run(csv_encoding="cp932")
    assert f"row {rows - 1}, column 'note': cp932 has no character '☃' (U+2603)." in str(caught.value).lower().replace(
        "u+2603", "U+2603"
    )
    assert pipeline.output() == before
    assert not pipeline.uploads()


# Failures of those who upload. Functions that workers run are imported by them from here.


def sent_and_failed(uploading: workers.Uploading, batches: workers.Batches) -> Iterator[pa.RecordBatch]:
    """Sends all parts of a worker, and reports an error."""
    list(workers.upload_lines(uploading, batches))
    yield workers.error_row(workers.PARTS, OutputError("unexpected", problem=Verbatim("the executor was lost")))


def test_a_small_output_whose_upload_fails_after_sending_stays_unseen(pipeline, engine, monkeypatch):
    def send_and_fail(*arguments: Any) -> Part:
        send_part(*arguments)
        raise OutputError("unexpected", problem=Verbatim("the executor was lost"))

    fill(pipeline, [(3, 9)])
    pipeline.put(b"old", f"out/{pipeline.name}.csv")
    pipeline.engine = engine
    pipeline.limits = replace(pipeline.limits, put_bytes_max=0)
    if engine == "driver":
        monkeypatch.setattr(upload, "send_part", send_and_fail)
    else:
        monkeypatch.setattr(workers, "upload_lines", sent_and_failed)
    with pytest.raises(OutputError, match="the executor was lost"):
        pipeline.run()
    assert pipeline.output() == b"old"
    assert not pipeline.uploads()


def without_a_record(
    reading: workers.Reading, columns: Any, starts: Any, batches: workers.Batches
) -> Iterator[pa.RecordBatch]:
    """Loses the first record."""
    for number, batch in enumerate(workers.parse_records(reading, columns, starts, batches)):
        yield batch if number else batch.slice(1)


def without_a_line(uploading: workers.Uploading, batches: workers.Batches) -> Iterator[pa.RecordBatch]:
    """Loses the last line of each batch."""
    yield from workers.upload_lines(uploading, (batch.slice(0, batch.num_rows - 1) for batch in batches))


@pytest.mark.parametrize(("name", "lossy"), [("parse_records", without_a_record), ("upload_lines", without_a_line)])
def test_lost_rows_are_noticed(pipeline, monkeypatch, name, lossy):
    """The driver has all records in memory; what workers do is counted."""
    fill(pipeline, [(50, 9)])
    pipeline.put(b"old", f"out/{pipeline.name}.csv")
    pipeline.engine = "spark"
    monkeypatch.setattr(workers, name, lossy)
    with pytest.raises(OutputError) as caught:
        pipeline.run()
    assert str(caught.value).startswith("The output has 49 rows for 50 source records; it was not published.")
    assert pipeline.output() == b"old"
    assert not pipeline.uploads()


def dying(ledger: Path, uploading: workers.Uploading, batches: workers.Batches) -> Iterator[pa.RecordBatch]:
    """Sends its parts, then fails at its first attempt and takes its worker process down at its second."""
    attempt = TaskContext.get().attemptNumber()
    parts = list(workers.upload_lines(uploading, batches))
    if parts and parts[0].num_rows:
        with ledger.open("a") as file:
            file.write(f"{parts[0].column('number')[0]} {attempt}\n")
        if attempt == 0:
            raise OSError("reset")
        if attempt == 1:
            os._exit(1)
    yield from parts


@pytest.mark.long
def test_workers_that_fail_and_die_after_parts_were_sent_are_retried(pipeline, monkeypatch, tmp_path):
    ledger = tmp_path / "attempts"
    widths = [(34, MIB)]
    fill(pipeline, widths)
    pipeline.engine = "spark"
    monkeypatch.setattr(workers, "upload_lines", partial(dying, ledger))
    pipeline.run()
    attempts = sorted(tuple(map(int, line.split())) for line in ledger.read_text().splitlines())
    firsts = sorted({part for part, _ in attempts})
    assert len(firsts) > 1
    assert attempts == [(part, attempt) for part in firsts for attempt in range(3)]
    assert digest([pipeline.output()]) == digest(lines_of(widths))
    assert not pipeline.uploads()


def clients_of_workers(limits: Limits, batches: workers.Batches) -> Iterator[pa.RecordBatch]:
    """Which client a worker process gets for each batch."""
    for _ in batches:
        client = job_aws.client("s3", limits.aws, "ap-northeast-1")
        client.token = getattr(client, "token", "") or secrets.token_hex()
        yield pa.RecordBatch.from_pydict({"process": [os.getpid()], "client": [client.token]})


def test_a_worker_process_makes_one_client(spark):
    rows = spark.range(0, 12, 1, 12)
    answers = rows.mapInArrow(partial(clients_of_workers, LIMITS), "process bigint, client string").collect()
    assert len({row.client for row in answers}) == len({row.process for row in answers}) < len(answers) == 12


# What a worker does with its lines, without Spark.


class Wire:
    """A client of S3 that counts what came through."""

    def __init__(self) -> None:
        self.sent = 0
        self.parts: dict[int, bytes] = {}

    def upload_part(self, *, PartNumber: int, Body: bytearray, **_: Any) -> dict[str, str]:
        self.sent += len(Body)
        self.parts[PartNumber] = bytes(Body)
        return {"ETag": str(PartNumber)}


def uploading(target: UploadTarget, part_bytes: int = 8 * MIB) -> workers.Uploading:
    """Makes what a worker needs for its upload."""
    form = CsvFormat()
    return workers.Uploading(target, form, ("a",), header(("a",), form), part_bytes, "ap-northeast-1", LIMITS)


def batches_of(lines: Iterable[tuple[int, int, str]], size: int) -> Iterator[pa.RecordBatch]:
    """Lines (part, row, text) as Spark hands them to a worker, in batches of `size` rows."""
    rows = [{"part": part, "row": row, "line": line} for part, row, line in lines]
    for start in range(0, len(rows), size):
        yield pa.RecordBatch.from_pylist(rows[start : start + size], LINE)


@pytest.mark.parametrize("batch_rows", [1, 3, 100])
def test_a_batch_may_hold_lines_of_several_parts_and_a_part_those_of_several_batches(monkeypatch, batch_rows):
    wire = Wire()
    monkeypatch.setattr(job_aws, "client", lambda *_: wire)
    lines = [(part, row, f"{part}:{row}\n") for part, count in ((1, 4), (3, 1), (4, 7)) for row in range(1, count + 1)]
    [batch] = workers.upload_lines(uploading(UploadTarget("lake", "k")), batches_of(lines, batch_rows))
    assert {number: data.decode() for number, data in wire.parts.items()} == {
        1: "a\n1:1\n1:2\n1:3\n1:4\n",
        3: "3:1\n",
        4: "".join(f"4:{row}\n" for row in range(1, 8)),
    }
    rows = batch.to_pylist()
    assert [(row["number"], row["rows"], row["etag"], row["message"]) for row in rows] == [
        (1, 4, "1", None),
        (3, 1, "3", None),
        (4, 7, "4", None),
    ]
    assert [row["bytes"] for row in rows] == [len(wire.parts[row["number"]]) for row in rows]


def test_a_worker_holds_a_few_parts_however_many_it_uploads(monkeypatch):
    wire, most = Wire(), 0
    monkeypatch.setattr(job_aws, "client", lambda *_: wire)

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal most
        for number in range(200):
            yield from batches_of([(1 + number // 8, number, "x" * MIB)], 1)
            most = max(most, (number + 1) * MIB - wire.sent)

    [batch] = workers.upload_lines(uploading(UploadTarget("lake", "k")), batches())
    assert batch.num_rows == len(wire.parts) == 25
    assert most <= (LIMITS.uploads_at_a_time + 2) * 8 * MIB


@pytest.mark.parametrize("sizes", [[17], [13, 21, 13], [60, 1, 1, 1, 16], [1] * 41])
def test_parts_of_several_workers_make_one_object(aws, sizes):
    """Bins of so many MiB are dealt out to parts, and parts to two workers."""
    s3 = job_aws.client("s3", LIMITS.aws)
    target = UploadTarget("lake", f"out/workers-{len(sizes)}-{sizes[0]}.csv", fingerprint=True)
    lines = {number: [chr(65 + number) * (MIB - 1) + "\n"] * size for number, size in enumerate(sizes)}
    bins = [(number, len(texts), len(texts) * MIB) for number, texts in lines.items()]
    plan = plan_parts(bins, LIMITS.part_bytes, LIMITS, running=False)
    assert [number for number, _, _ in plan] == [*lines]
    numbered = [(part, start + row, text) for n, part, start in plan for row, text in enumerate(lines[n], 1)]
    firsts = list(dict.fromkeys(part for _, part, _ in plan))
    parts: list[Part] = []
    with MultipartUpload(s3, target, "text/csv") as multipart:
        for own in (firsts[1::2], firsts[::2]):
            dealt = batches_of([line for line in numbered if line[0] in own], 5)
            for batch in workers.upload_lines(uploading(multipart.target), dealt):
                assert not batch.column("message").drop_null()
                parts += [
                    Part(row["number"], row["etag"], row["bytes"], row["fingerprint"]) for row in batch.to_pylist()
                ]
        published = multipart.complete(sorted(parts), sum(sizes))
    whole = b"a\n" + "".join(text for texts in lines.values() for text in texts).encode()
    assert digest([s3.get_object(**target.object)["Body"].read()]) == digest([whole])
    assert (published.rows, published.bytes) == (sum(sizes), len(whole))
    assert all(part.bytes >= LIMITS.part_bytes_min for part in sorted(parts)[:-1])


def test_the_error_of_a_worker_names_the_row_of_the_output(monkeypatch):
    monkeypatch.setattr(job_aws, "client", lambda *_: Wire())
    form = CsvFormat(encoding="cp932")
    own = uploading(UploadTarget("lake", "k"))._replace(form=form, columns=("a", "b"))
    lines = [(2, 7, "x,y\n"), (2, 8, "x,y\n"), (3, 9, 'x,"☃"\n')]
    [batch] = workers.upload_lines(own, batches_of(lines, 2))
    [row] = batch.to_pylist()
    error = json.loads(row["message"])["error"]
    assert (error["error"], error["code"]) == ("OutputError", "not_encodable")
    assert error["details"]["row"] == {"code": "row", "details": {"number": 9}}
    assert error["details"]["column"] == "b"
