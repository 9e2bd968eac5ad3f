"""Section `publish`: S3's part rules for any sizes, on moto's S3 with its real part minimum."""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
import os
import secrets
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark import TaskContext, cloudpickle
from pyspark.sql import SparkSession

import glue_job
from glue_job import (
    LINES,
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
    Settings,
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

UNITS = st.lists(
    st.tuples(st.integers(1, 10), st.one_of(st.integers(1, 100), st.integers(1, 40 * MIB), st.just(5000 * MIB))),
    min_size=1,
    max_size=300,
)


@given(UNITS, st.integers(1, 200))
def test_every_task_is_big_enough_and_parts_never_run_out(units, parallelism):
    tasks, part_bytes = plan_upload(units, parallelism)
    sizes = iter(units)
    next_row, next_part = 0, 1
    for task in tasks:
        assert (task.first_row, task.first_part) == (next_row, next_part)
        rows = size = 0
        while rows < task.rows:
            more_rows, more_size = next(sizes)
            rows, size = rows + more_rows, size + more_size
        assert rows == task.rows
        assert len(tasks) == 1 or size >= MIN_TASK_BYTES
        assert size / part_bytes + 1 <= task.parts
        next_row, next_part = next_row + rows, next_part + task.parts
    assert next(sizes, None) is None
    assert next_part - 1 <= MAX_PARTS


def test_a_petabyte_still_fits_the_part_limit():
    tasks, _ = plan_upload([(1000, 1024**4)] * 4096, 200)
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
    third_is_being_made, second_is_on_its_way = threading.Event(), threading.Event()
    lines = ["x" * MIB + "\n"] * 60

    def batches() -> Iterator[pa.RecordBatch]:
        for number, batch in enumerate(batches_of(lines, 0, 1)):
            if number == 25:  # parts 1 and 2 are cut, 3 is being made
                third_is_being_made.set()
            yield batch

    def hold(number: int) -> None:
        if number == 2:
            second_is_on_its_way.set()
        if number == 1 and not (third_is_being_made.wait(60) and second_is_on_its_way.wait(60)):
            pytest.fail("part 1 was waited for")

    wire = Wire(hold)
    parts = list(upload_rows(wire, make_upload("k", "id"), UploadTask(0, 60, 1, 10), batches()))
    assert [part["part"] for part in parts] == [1, 2, 3, 4, 5, 6, 7]
    assert wire.most_at_a_time == UPLOADS_AT_A_TIME


def test_a_task_holds_a_few_parts_however_many_rows_it_has():
    wire = Wire(lambda _number: time.sleep(0.02))  # slower than the rows come, so that parts would pile up
    pulled = held = 0
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
    assert not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]


def settings_for(key: str) -> Settings:
    """Settings of a run that writes there."""
    values = {"JOB_NAME": "j", "secret_name": "s", "connection_name": "c", "source_bucket": "lake"}
    values |= {"source_key": "in.json", "destination_bucket": "lake", "destination_file": key}
    return make_settings(
        read_arguments(["glue_job.py", *itertools.chain.from_iterable((f"--{k}", v) for k, v in values.items())])
    )


def unit_packer(unit_rows: int) -> Any:
    """What packs rows (ordinal, line), of which some units are cut and in no order, as `merge` does."""

    def pack(batches: Any) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for i in reversed(range(batch.num_rows)):
                row = pa.RecordBatch.from_arrays(batch.slice(i, 1).columns, schema=glue_job.LINES)
                yield glue_job.unit_batch([(row.column(0)[0].as_py() // unit_rows, *glue_job.pack(row))])

    return pack


def overlay_of(spark: Any, rows: int, size: int, unit_rows: int = 1) -> Overlay:
    """Rows of `size` bytes each, in no order, and the units that go with them."""
    lines = spark.range(0, rows, 1, 3).selectExpr(
        f"{rows - 1} - id AS ordinal", f"concat(repeat(char(97 + ({rows - 1} - id) % 26), {size - 1}), '\n') AS line"
    )
    frame = lines.mapInArrow(unit_packer(unit_rows), glue_job.OVERLAY_SCHEMA)
    counts = [min(unit_rows, rows - first) for first in range(0, rows, unit_rows)]
    return Overlay(frame, ("a",), "a\n", tuple((count, count * size) for count in counts), {})


def bytes_of(rows: int, size: int) -> bytes:
    """The object that `overlay_of` makes."""
    return b"a\n" + b"".join(bytes([97 + i % 26]) * (size - 1) + b"\n" for i in range(rows))


def test_more_parts_than_s3_takes_become_fewer_and_bigger(spark, aws, monkeypatch):
    monkeypatch.setattr(glue_job, "MAX_PARTS", 6)
    monkeypatch.setattr(glue_job, "MAX_TASKS", 2)
    client, overlay = aws.client("s3"), overlay_of(spark, 64, MIB, 3)  # 8 parts of PART_BYTES
    tasks, part_bytes = plan_upload(overlay.units, 2)
    assert tasks[-1].first_part + tasks[-1].parts - 1 <= 6
    assert part_bytes > glue_job.PART_BYTES
    publish(spark, client, overlay, settings_for("out/many.csv"))
    assert read_object(client, "out/many.csv") == bytes_of(64, MIB)
    # S3 appends the number of parts to the ETag.
    assert int(client.head_object(Bucket="lake", Key="out/many.csv")["ETag"].strip('"').split("-")[1]) <= 6


def test_a_small_output_whose_task_fails_after_sending_stays_unseen(spark, aws, monkeypatch):
    client, send = aws.client("s3"), glue_job.send

    def send_and_die(*arguments: Any) -> Any:
        send(*arguments)
        raise OutputError("unexpected", problem="the executor was lost")

    client.put_object(Bucket="lake", Key="out/small.csv", Body=b"old")
    monkeypatch.setattr(glue_job, "send", send_and_die)
    with pytest.raises(Exception, match="the executor was lost"):
        publish(spark, client, overlay_of(spark, 3, 10), settings_for("out/small.csv"))
    assert read_object(client, "out/small.csv") == b"old"
    assert not uploads(client)


def test_a_worker_process_makes_one_client(spark, monkeypatch):
    monkeypatch.setattr(glue_job, "s3_client", lambda _region: secrets.token_hex())

    def clients(batches: Any) -> Iterator[pa.RecordBatch]:
        for _ in batches:
            found = glue_job.worker_s3_client("of this test")
            yield pa.RecordBatch.from_pydict({"process": [os.getpid()], "client": [found]})

    rows = spark.range(0, 12, 1, 12).mapInArrow(clients, "process bigint, client string").collect()
    assert len({row.client for row in rows}) == len({row.process for row in rows}) < len(rows)


def publish_with_failing_attempts(endpoint: str, ledger: Path) -> None:
    """A part is sent, then each task fails at its first attempt and takes its worker process down at its second."""
    cloudpickle.register_pickle_by_value(glue_job)
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    os.environ["PYSPARK_PYTHON"] = sys.executable
    session = SparkSession.builder.master("local[2,3]").config("spark.driver.memory", "1g")
    for name, value in {"driver.host": "127.0.0.1", "driver.bindAddress": "127.0.0.1", "ui.enabled": "false"}.items():
        session = session.config(f"spark.{name}", value)
    spark = session.getOrCreate()
    spark.sparkContext.setLogLevel("OFF")
    original = glue_job.upload_rows

    def failing(client: Any, upload: Upload, task: UploadTask, batches: Any) -> Iterator[dict[str, Any]]:
        attempt = TaskContext.get().attemptNumber()
        parts = original(client, upload, task, batches)
        first = next(parts)
        with ledger.open("a") as file:
            file.write(f"{task.first_part} {attempt}\n")
        if attempt == 0:
            raise OutputError("unexpected", problem="reset")
        if attempt == 1:
            os._exit(1)
        yield first
        yield from parts

    glue_job.upload_rows = failing
    client = boto3.client("s3", endpoint_url=endpoint)
    publish(spark, client, overlay_of(spark, 34, MIB), settings_for("out/retried.csv"))


def test_tasks_that_fail_and_die_after_a_part_was_sent_are_retried(aws, tmp_path):
    ledger = tmp_path / "attempts"
    process = multiprocessing.get_context("spawn").Process(  # a process has one Spark, and ours never retries
        target=publish_with_failing_attempts, args=(aws.endpoint, ledger)
    )
    process.start()
    process.join()
    assert process.exitcode == 0
    attempts = sorted(tuple(map(int, line.split())) for line in ledger.read_text().splitlines())
    tasks, _ = plan_upload(((1, MIB),) * 34, 2)
    assert attempts == [(task.first_part, attempt) for task in tasks for attempt in range(3)]
    client = aws.client("s3")
    assert read_object(client, "out/retried.csv") == bytes_of(34, MIB)
    assert not uploads(client)


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
        lines = spark.range(first, first + partitions * rows, 1, min(partitions, 4)).selectExpr(
            "id AS ordinal", f"concat(repeat(char(97 + id % 26), {size - 1}), '\n') AS line"
        )
        piece = lines.mapInArrow(unit_packer(1), glue_job.OVERLAY_SCHEMA).repartition(partitions)
        frame = piece if frame is None else frame.union(piece)
        first += partitions * rows
    overlay = Overlay(frame, ("a",), "a\n", tuple((1, size) for size in sizes), {})
    client = aws.client("s3")
    written, _ = publish(spark, client, overlay, settings_for("out/sizes.csv"))
    expected = hashlib.sha256(b"a\n")
    for ordinal, size in enumerate(sizes):
        expected.update(bytes([97 + ordinal % 26]) * (size - 1) + b"\n")
    data = read_object(client, "out/sizes.csv")
    assert (len(data), written.bytes) == (2 + sum(sizes),) * 2
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


def test_only_old_uploads_to_exactly_this_key_are_aborted(aws, monkeypatch):
    client = aws.client("s3")
    for key in ("out/left.csv", "out/left.csv.bak"):
        client.create_multipart_upload(Bucket="lake", Key=key)
    glue_job.abort_leftovers(client, "lake", "out/left.csv")
    assert len(uploads(client)) == 2
    monkeypatch.setattr(glue_job, "STALE_UPLOAD_SECONDS", 0)
    glue_job.abort_leftovers(client, "lake", "out/left.csv")
    [left] = uploads(client)
    assert left["Key"] == "out/left.csv.bak"
    client.abort_multipart_upload(Bucket="lake", Key=left["Key"], UploadId=left["UploadId"])


def test_a_role_that_may_not_list_uploads_gets_a_warning(aws, caplog):
    glue_job.abort_leftovers(aws.client("s3"), "nowhere", "out/left.csv")
    assert "s3://nowhere/out/left.csv that killed runs left were not cleaned up: NoSuchBucket" in caplog.text


def test_lines_of_a_unit_come_in_order_a_few_at_a_time():
    order = [(7 * i) % 40 for i in range(40)]  # each of 0 to 39 once
    blocks = []
    for start in range(0, 40, 5):
        here = order[start : start + 5]
        batch = pa.RecordBatch.from_arrays(
            [pa.array(here), pa.array([f"{i:02}" + "x" * MIB for i in here])], schema=LINES
        )
        blocks += [(0, data) for data in glue_job.pack(batch)]
    found = list(glue_job.ordered_lines([glue_job.unit_batch(blocks)]))
    assert [i for batch in found for i in batch.column(0).to_pylist()] == list(range(40))
    assert [line[:2] for batch in found for line in batch.column(1).to_pylist()] == [f"{i:02}" for i in range(40)]
    assert {batch.schema for batch in found} == {LINES}
    assert max(batch.nbytes for batch in found) < glue_job.PART_BYTES + 2 * MIB


def test_the_etag_of_a_whole_is_that_of_s3(aws):
    client = aws.client("s3")
    with MultipartUpload(client, "lake", "out/etag.csv", "text/csv") as multipart:
        upload = make_upload("out/etag.csv", multipart.upload_id)
        parts = list(upload_rows(client, upload, UploadTask(0, 20, 1, 10), batches_of(["x" * MIB + "\n"] * 20, 0)))
        multipart.complete([{"PartNumber": part["part"], "ETag": part["etag"]} for part in parts])
    found = client.head_object(Bucket="lake", Key="out/etag.csv")["ETag"]
    assert glue_job.whole_etag([part["etag"] for part in parts]) == found
    assert not glue_job.whole_etag(['"of a KMS key"'])


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
