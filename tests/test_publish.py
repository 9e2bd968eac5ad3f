"""Section `publish`: S3's part rules for any sizes, on moto's S3 with its real part minimum."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import glue_job
from glue_job import (
    MAX_PARTS,
    MIB,
    MIN_TASK_BYTES,
    AwsError,
    CsvFormat,
    MultipartUpload,
    OutputError,
    Upload,
    UploadTask,
    line_bytes,
    plan_upload,
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


def batches_of(lines: list[str], first_row: int, size: int = 3) -> list[pa.RecordBatch]:
    """Rows as Spark hands them to a task."""
    return [
        pa.RecordBatch.from_arrays(
            [pa.array(range(first_row + i, first_row + i + len(lines[i : i + size]))), pa.array(lines[i : i + size])],
            names=["ordinal", "line"],
        )
        for i in range(0, len(lines), size)
    ]


def make_upload(key: str, upload_id: str | None, part_bytes: int = 8 * MIB) -> Upload:
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
    assert not client.list_multipart_uploads(Bucket="lake").get("Uploads")


def test_a_retried_task_overwrites_its_own_parts(aws):
    client = aws.client("s3")
    lines = ["x" * MIB + "\n"] * 20
    with MultipartUpload(client, "lake", "out/retried.csv", "text/csv") as multipart:
        upload = make_upload("out/retried.csv", multipart.upload_id)
        task = UploadTask(0, len(lines), 1, 10)
        interrupted = upload_rows(client, upload, task, batches_of(lines, 0))
        next(interrupted)
        interrupted.close()
        parts = list(upload_rows(client, upload, task, batches_of(lines, 0)))
        multipart.complete([{"PartNumber": part["part"], "ETag": part["etag"]} for part in parts])
    assert client.get_object(Bucket="lake", Key="out/retried.csv")["Body"].read() == b"a\n" + "".join(lines).encode()


@pytest.mark.parametrize("first_row", [0, 1])
def test_lost_rows_are_noticed(aws, first_row):
    upload = make_upload("out/lost.csv", None)
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
