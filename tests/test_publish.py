"""Section `publish`: S3's part rules for any sizes, on moto's S3 with its real part minimum."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import glue_job
from glue_job import (
    MAX_PARTS,
    MIB,
    MIN_PART_BYTES,
    MIN_TASK_BYTES,
    UPLOADS_AT_A_TIME,
    AwsError,
    CsvFormat,
    MultipartUpload,
    OutputError,
    Overlay,
    Upload,
    UploadTask,
    cut_parts,
    line_bytes,
    make_settings,
    plan_upload,
    publish,
    read_arguments,
    upload_rows,
)

BUCKETS = st.lists(
    st.tuples(st.integers(1, 10), st.one_of(st.integers(1, 100), st.integers(1, 40 * MIB), st.just(5000 * MIB))),
    min_size=1,
    max_size=300,
).map(lambda sizes: [(rows, size, size) for rows, size in sizes])


@given(BUCKETS, st.integers(1, 200))
def test_every_task_is_big_enough_and_parts_never_run_out(buckets, parallelism):
    tasks, part_bytes = plan_upload(buckets, parallelism)
    sizes = iter(buckets)
    next_row, next_part = 0, 1
    for task in tasks:
        assert (task.first_row, task.first_part) == (next_row, next_part)
        rows = size = 0
        while rows < task.rows:
            more_rows, more_size, _ = next(sizes)
            rows, size = rows + more_rows, size + more_size
        assert rows == task.rows
        assert len(tasks) == 1 or size >= MIN_TASK_BYTES
        assert size / part_bytes + 1 <= task.parts
        next_row, next_part = next_row + rows, next_part + task.parts
    assert next(sizes, None) is None
    assert next_part - 1 <= MAX_PARTS


def test_a_petabyte_still_fits_the_part_limit():
    tasks, _ = plan_upload([(1000, 1024**4, 1)] * 4096, 200)
    assert tasks[-1].first_part + tasks[-1].parts - 1 <= MAX_PARTS


@given(st.lists(st.text(max_size=4), min_size=1, max_size=20), st.data())
def test_line_bytes_are_the_joined_lines(lines, data):
    start = data.draw(st.integers(0, len(lines) - 1))
    assert line_bytes(pa.array(lines)) == "".join(lines).encode()
    assert line_bytes(pa.array(lines).slice(start)) == "".join(lines[start:]).encode()


def uploads(client: Any) -> list[Any]:
    """Multipart uploads that nobody completed or aborted."""
    return client.list_multipart_uploads(Bucket="lake").get("Uploads", [])


def read_object(client: Any, key: str) -> bytes:
    """An object whole."""
    return client.get_object(Bucket="lake", Key=key)["Body"].read()


def batches_of(lines: list[str], first_row: int, size: int = 3) -> list[pa.RecordBatch]:
    """Rows as Spark hands them to a task."""
    return [
        pa.RecordBatch.from_arrays(
            [pa.array(range(first_row + i, first_row + i + len(lines[i : i + size]))), pa.array(lines[i : i + size])],
            names=["ordinal", "line"],
        )
        for i in range(0, len(lines), size)
    ]


def make_upload(key: str, upload_id: str, part_bytes: int = 8 * MIB) -> Upload:
    """Where the tests write."""
    return Upload("lake", key, upload_id, part_bytes, CsvFormat(), ("a",), b"a\n", None)


@pytest.mark.parametrize("sizes", [[17 * MIB], [13 * MIB, 21 * MIB + 7, 13 * MIB], [60 * MIB, 16 * MIB]])
def test_parts_of_several_tasks_make_one_object(aws, sizes):
    client = aws.client("s3")
    key = f"out/parts-{len(sizes)}-{sizes[0]}.csv"
    tasks, parts, whole, first_row, first_part = [], [], b"a\n", 0, 1
    with MultipartUpload(client, "lake", key, "text/csv") as multipart:
        upload = make_upload(key, multipart.upload_id)
        for size in sizes:
            lines = [f"{size:09d}\n" * 1000] * (size // 10_000) + ["x" * (size % 10_000 - 1) + "\n"]
            tasks.append(UploadTask(first_row, len(lines), first_part, 100))
            parts += upload_rows(client, upload, tasks[-1], batches_of(lines, first_row, 37))
            whole += "".join(lines).encode()
            first_row, first_part = first_row + len(lines), first_part + 100
        multipart.complete([{"PartNumber": part["part"], "ETag": part["etag"]} for part in parts])
    assert client.get_object(Bucket="lake", Key=key)["Body"].read() == whole
    assert all(part["bytes"] >= 5 * MIB for part in parts[:-1])
    assert not uploads(client)


def test_attempts_of_a_task_that_all_end_leave_one_object(aws):
    client = aws.client("s3")
    lines = [f"{i:07d}" + "x" * MIB + "\n" for i in range(40)]
    task = UploadTask(0, len(lines), 1, 10)
    with MultipartUpload(client, "lake", "out/attempts.csv", "text/csv") as multipart:
        upload = make_upload("out/attempts.csv", multipart.upload_id)
        interrupted = upload_rows(client, upload, task, batches_of(lines, 0))
        next(interrupted)
        interrupted.close()
        first = upload_rows(client, upload, task, batches_of(lines, 0, 3))
        taken = [next(first)]
        late = list(upload_rows(client, upload, task, batches_of(lines, 0, 7)))  # overwrites while `first` goes on
        taken += first
        assert late == taken
        multipart.complete([{"PartNumber": part["part"], "ETag": part["etag"]} for part in taken])
    assert read_object(client, "out/attempts.csv") == b"a\n" + "".join(lines).encode()
    assert not uploads(client)


def test_attempts_with_other_bytes_are_refused_not_mixed(aws):
    client = aws.client("s3")
    client.put_object(Bucket="lake", Key="out/mixed.csv", Body=b"old")
    task = UploadTask(0, 20, 1, 10)
    with (
        pytest.raises(AwsError, match="InvalidPart"),
        MultipartUpload(client, "lake", "out/mixed.csv", "text/csv") as multipart,
    ):
        upload = make_upload("out/mixed.csv", multipart.upload_id)
        taken = list(upload_rows(client, upload, task, batches_of(["x" * MIB + "\n"] * 20, 0)))
        list(upload_rows(client, upload, task, batches_of(["y" * MIB + "\n"] * 20, 0)))
        multipart.complete([{"PartNumber": part["part"], "ETag": part["etag"]} for part in taken])
    assert read_object(client, "out/mixed.csv") == b"old"
    assert not uploads(client)


class Wire:
    """An S3 client that counts the bytes that came through; `hold` is called with a part's number before it does."""

    def __init__(self, hold: Any = None) -> None:
        self.sent, self.most_at_a_time, self._now = 0, 0, 0
        self._lock, self._hold = threading.Lock(), hold

    def upload_part(self, *, PartNumber: int, Body: bytearray, **_: Any) -> dict[str, str]:
        with self._lock:
            self._now += 1
            self.most_at_a_time = max(self.most_at_a_time, self._now)
        if self._hold:
            self._hold(PartNumber)
        with self._lock:
            self._now -= 1
            self.sent += len(Body)
        return {"ETag": str(PartNumber)}


def test_the_next_part_is_made_while_others_are_on_their_way():
    third_is_being_made = threading.Event()
    lines = ["x" * MIB + "\n"] * 60

    def batches() -> Iterator[pa.RecordBatch]:
        for number, batch in enumerate(batches_of(lines, 0, 1)):
            if number == 25:  # parts 1 and 2 are cut, 3 is being made
                third_is_being_made.set()
            yield batch

    wire = Wire(lambda number: number > 1 or third_is_being_made.wait(30) or pytest.fail("part 1 was waited for"))
    parts = list(upload_rows(wire, make_upload("k", "id"), UploadTask(0, 60, 1, 10), batches()))
    assert [part["part"] for part in parts] == [1, 2, 3, 4, 5, 6, 7]
    assert wire.most_at_a_time == UPLOADS_AT_A_TIME


def test_a_task_holds_a_few_parts_however_many_rows_it_has():
    wire, pulled, held = Wire(), 0, 0
    lines = ["x" * MIB + "\n"] * 300

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal pulled, held
        for batch in batches_of(lines, 0, 1):
            pulled += MIB + 1
            held = max(held, pulled - wire.sent)
            yield batch

    assert len(list(upload_rows(wire, make_upload("k", "id"), UploadTask(0, 300, 1, 50), batches()))) == 37
    assert held <= (UPLOADS_AT_A_TIME + 1) * 8 * MIB + MIN_PART_BYTES + 2 * MIB


def test_a_part_that_fails_fails_its_task_after_all_others_are_through():
    def hold(number: int) -> None:
        if number == 2:
            raise ConnectionError("reset")

    wire = Wire(hold)
    with pytest.raises(ConnectionError):
        list(upload_rows(wire, make_upload("k", "id"), UploadTask(0, 60, 1, 10), batches_of(["x" * MIB] * 60, 0, 1)))
    assert threading.active_count() == len(
        [thread for thread in threading.enumerate() if "ThreadPool" not in thread.name]
    )


# Rows by partition: (partitions, rows of each, bytes of each row).
PARTITIONS = {
    "one byte": [(1, 1, 1)],
    "six MiB": [(1, 6, MIB)],
    "3,000 of 10 KB": [(3000, 1, 10_000)],
    "a skewed one of 300 MB": [(20, 1, 10_000), (1, 300, 1_000_000), (20, 1, 10_000)],
}


@pytest.mark.parametrize("case", PARTITIONS)
def test_partitions_of_any_size_make_one_object(spark, aws, case):
    sizes = [size for partitions, rows, size in PARTITIONS[case] for _ in range(partitions * rows)]
    frame, first = None, 0
    for partitions, rows, size in PARTITIONS[case]:
        piece = spark.range(first, first + partitions * rows, 1, partitions).selectExpr(
            "id AS ordinal", f"concat(repeat(char(97 + id % 26), {size - 1}), '\n') AS line"
        )
        frame = piece if frame is None else frame.union(piece)
        first += partitions * rows
    settings = make_settings(
        read_arguments(
            [
                "glue_job.py",
                *("--JOB_NAME", "j", "--secret_name", "s", "--connection_name", "c", "--source_bucket", "lake"),
                *("--source_key", "in.json", "--destination_bucket", "lake", "--destination_file", "out/sizes.csv"),
            ]
        )
    )
    overlay = Overlay(frame, ("a",), "a\n", tuple((1, size, size) for size in sizes), 1, {})
    client = aws.client("s3")
    written = publish(spark, client, overlay, settings)
    expected = hashlib.sha256(b"a\n")
    for ordinal, size in enumerate(sizes):
        expected.update(bytes([97 + ordinal % 26]) * (size - 1) + b"\n")
    data = read_object(client, "out/sizes.csv")
    assert (len(data), written) == (2 + sum(sizes),) * 2
    assert hashlib.sha256(data).digest() == expected.digest()
    assert not uploads(client)


def test_rows_that_grew_do_not_run_into_the_parts_of_the_next_task():
    grown = batches_of(["x" * MIB + "\n"] * 40, 0)
    parts = cut_parts(make_upload("out/grown.csv", "id"), UploadTask(0, 40, 1, 3), grown)
    assert [len(next(parts)), len(next(parts))] == [8 * MIB, 8 * MIB]
    with pytest.raises(OutputError, match="was not published"):
        next(parts)


@pytest.mark.parametrize("first_row", [0, 1])
def test_lost_rows_are_noticed(aws, first_row):
    upload = make_upload("out/lost.csv", "id")
    with pytest.raises(OutputError, match="was not published"):
        list(upload_rows(aws.client("s3"), upload, UploadTask(0, 3, 1, 2), batches_of(["x\n", "y\n"], first_row)))


@pytest.mark.parametrize("error", [ValueError("task failed"), KeyboardInterrupt()])
def test_failure_aborts_the_upload(aws, error):
    client = aws.client("s3")
    with pytest.raises(type(error)), MultipartUpload(client, "lake", "out/aborted.csv", "text/csv"):
        raise error
    assert not client.list_multipart_uploads(Bucket="lake").get("Uploads")


def test_failed_complete_aborts_the_upload(aws):
    client = aws.client("s3")
    with (
        pytest.raises(AwsError, match="InvalidPart"),
        MultipartUpload(client, "lake", "out/bad.csv", "text/csv") as upload,
    ):
        upload.complete([{"PartNumber": 1, "ETag": "no such part"}])
    assert not client.list_multipart_uploads(Bucket="lake").get("Uploads")


def test_missing_bucket_is_named(aws):
    client = aws.client("s3")
    with pytest.raises(OutputError) as caught:
        glue_job.check_destination(client, "nowhere", "out/a.csv")
    assert str(caught.value) == "Destination bucket 'nowhere' does not exist. Check --destination_bucket."
    with (
        pytest.raises(OutputError, match="'nowhere' does not exist"),
        MultipartUpload(client, "nowhere", "k", "text/csv"),
    ):
        pass
