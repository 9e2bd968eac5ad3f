"""upload against S3 (moto, with its real part minimum): an object that is whole or not there, whatever S3 answers."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from botocore.stub import Stubber

from overlay import aws as job_aws
from overlay.errors import AwsError, OutputError, Stopped
from overlay.limits import MIB, Limits
from overlay.settings import Settings, make_settings
from overlay.upload import (
    MultipartUpload,
    Part,
    Published,
    UploadTarget,
    abort_leftovers,
    check_destination,
    cut_parts,
    fingerprint_of,
    joined_fingerprint,
    put_whole,
    send,
    send_part,
    send_parts,
    whole_etag,
)
from tests.texts import english_in

LIMITS = Limits()
CSV = "text/csv; charset=utf-8"


@pytest.fixture
def s3(aws: Any) -> Any:
    """The job's own client."""
    return job_aws.client("s3", LIMITS.aws)


def uploads(s3: Any, prefix: str = "upload/") -> list[Any]:
    """Multipart uploads that nobody completed or aborted."""
    return s3.list_multipart_uploads(Bucket="lake", Prefix=prefix).get("Uploads", [])


def content(s3: Any, key: str) -> bytes:
    """Reads a whole object."""
    return s3.get_object(Bucket="lake", Key=key)["Body"].read()


def target_of(key: str, *, fingerprint: bool = False) -> UploadTarget:
    """Where the tests write."""
    return UploadTarget("lake", f"upload/{key}", fingerprint=fingerprint)


def cut(data: Iterator[bytes] | list[bytes], limits: Limits = LIMITS) -> Iterator[tuple[int, bytearray]]:
    """Cuts bytes into numbered parts."""
    return enumerate(cut_parts(data, limits.part_bytes, limits), 1)


def client_error(code: str) -> ClientError:
    """Makes the error that S3 answers with."""
    return ClientError({"Error": {"Code": code}}, "Operation")


class Faulty:
    """A client of S3 of which some operations do what a test says."""

    def __init__(self, s3: Any, **operations: Callable[..., Any]) -> None:
        self._s3, self._operations = s3, operations

    def __getattr__(self, name: str) -> Any:
        return self._operations.get(name) or getattr(self._s3, name)


def failing(error: Exception) -> Callable[..., Any]:
    """An operation that fails."""

    def fail(**_: Any) -> Any:
        raise error

    return fail


def lost(operation: Callable[..., Any], error: Exception | None = None) -> Callable[..., Any]:
    """Makes an operation that S3 does but whose answer is lost; with `error`, what S3 says when botocore asks again."""

    def do(**request: Any) -> Any:
        operation(**request)
        raise error or ReadTimeoutError(endpoint_url="http://s3")

    return do


# Parts.


@pytest.mark.parametrize("sizes", [[], [1], [17 * MIB], [13 * MIB, 21 * MIB + 7, 13 * MIB], [60 * MIB, 16 * MIB]])
def test_chunks_of_any_size_make_one_object(s3, sizes):
    target = target_of(f"chunks-{len(sizes)}-{sum(sizes)}.csv", fingerprint=True)
    chunks = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
    with MultipartUpload(s3, target, "text/csv; charset=windows-31j") as upload:
        parts = send_parts(s3, upload.target, cut(chunks), LIMITS)
        published = upload.complete(parts, 7)
    whole = b"".join(chunks)
    head = s3.head_object(**target.object)
    assert content(s3, target.key) == whole
    assert head["ContentType"] == "text/csv; charset=windows-31j"
    assert [part.number for part in parts] == [*range(1, len(parts) + 1)]
    assert all(part.bytes >= 5 * MIB for part in parts[:-1])
    assert (published.rows, published.bytes, published.etag) == (7, len(whole), head["ETag"])
    alone = Part(1, "", len(whole), fingerprint_of(whole))
    assert published.fingerprint == joined_fingerprint([alone])  # however it is cut
    assert not uploads(s3)


def test_nobody_who_does_not_ask_gets_a_fingerprint(s3):
    with MultipartUpload(s3, target_of("plain.csv"), CSV) as upload:
        parts = send_parts(s3, upload.target, cut([b"a\n"]), LIMITS)
        assert upload.complete(parts, 0).fingerprint == ""
    assert parts[0].fingerprint == ""


def test_attempts_that_all_end_leave_one_object(s3):
    """A part that is sent again takes the place of the one before, also while others are on their way."""
    target, chunks = target_of("attempts.csv"), [bytes([65 + i]) * MIB for i in range(40)]

    def interrupted() -> Iterator[tuple[int, bytearray]]:
        for number, data in cut(chunks):
            if number == 3:
                raise ValueError(number)
            yield number, data

    with MultipartUpload(s3, target, CSV) as upload:
        with pytest.raises(ValueError):
            send_parts(s3, upload.target, interrupted(), LIMITS)
        late: list[Part] = []

        def overtaken() -> Iterator[tuple[int, bytearray]]:
            for number, data in cut(chunks):
                if number == 2:
                    late.extend(send_parts(s3, upload.target, cut([b"".join(chunks)]), LIMITS))
                yield number, data

        parts = send_parts(s3, upload.target, overtaken(), LIMITS)
        assert late == parts
        upload.complete(parts, 0)
    assert content(s3, target.key) == b"".join(chunks)
    assert not uploads(s3)


def test_attempts_with_other_bytes_are_refused_not_mixed(s3):
    target = target_of("mixed.csv")
    s3.put_object(**target.object, Body=b"old")
    with pytest.raises(AwsError, match="InvalidPart"), MultipartUpload(s3, target, CSV) as upload:
        parts = send_parts(s3, upload.target, cut([b"x" * 20 * MIB]), LIMITS)
        send_parts(s3, upload.target, cut([b"y" * 20 * MIB]), LIMITS)
        upload.complete(parts, 0)
    assert content(s3, target.key) == b"old"
    assert not uploads(s3)


class Wire:
    """A client of S3 that counts the bytes that came through; `hold` is called with a part's number before it does."""

    def __init__(self, hold: Callable[[int], None] = lambda _: None) -> None:
        self.sent_bytes, self.most_at_a_time, self._now = 0, 0, 0
        self._lock, self._hold = threading.Lock(), hold

    def upload_part(self, *, PartNumber: int, Body: bytearray, **_: Any) -> dict[str, str]:
        with self._lock:
            self._now += 1
            self.most_at_a_time = max(self.most_at_a_time, self._now)
        self._hold(PartNumber)
        with self._lock:
            self._now -= 1
            self.sent_bytes += len(Body)
        return {"ETag": str(PartNumber)}


@pytest.mark.parametrize("at_a_time", [2, 3])
def test_the_next_part_is_made_while_others_are_on_their_way(at_a_time):
    all_are_on_their_way, next_is_being_made = threading.Barrier(at_a_time), threading.Event()

    def chunks() -> Iterator[bytes]:
        for number in range(60):
            if number == 8 * at_a_time + 9:  # as many parts as may be on their way are cut, one more is being made
                next_is_being_made.set()
            yield b"x" * MIB

    def hold(number: int) -> None:
        if number <= at_a_time:
            all_are_on_their_way.wait(30)
        if number == 1 and not next_is_being_made.wait(30):
            pytest.fail("part 1 was waited for")

    wire = Wire(hold)
    parts = send_parts(wire, target_of("k"), cut(chunks()), replace(LIMITS, uploads_at_a_time=at_a_time))
    assert [part.number for part in parts] == [1, 2, 3, 4, 5, 6, 7]
    assert wire.most_at_a_time == at_a_time


def test_a_few_parts_are_in_memory_however_many_there_are():
    wire = Wire(lambda _number: time.sleep(0.02))  # slower than the chunks come, so that parts would pile up
    made_bytes = held_bytes = 0

    def chunks() -> Iterator[bytes]:
        nonlocal made_bytes, held_bytes
        for _ in range(300):
            made_bytes += MIB
            held_bytes = max(held_bytes, made_bytes - wire.sent_bytes)
            yield b"x" * MIB

    assert len(send_parts(wire, target_of("k"), cut(chunks()), LIMITS)) == 37
    assert held_bytes <= (LIMITS.uploads_at_a_time + 1) * LIMITS.part_bytes + LIMITS.part_bytes_min + 2 * MIB


def test_a_part_that_fails_is_raised_after_all_others_are_through():
    def hold(number: int) -> None:
        if number == 2:
            raise client_error("InternalError")
        time.sleep(0.2)

    wire = Wire(hold)
    with pytest.raises(AwsError, match="InternalError"):
        send_parts(wire, target_of("k"), cut([b"x" * MIB] * 60), LIMITS)
    sent_bytes = wire.sent_bytes
    time.sleep(0.5)
    assert wire.sent_bytes == sent_bytes >= 8 * MIB
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("upload")]


# Whole or not at all.


@pytest.mark.parametrize("error", [ValueError("part failed"), KeyboardInterrupt()])
def test_failure_aborts_the_upload(s3, error):
    target = target_of("aborted.csv")
    with pytest.raises(type(error)), MultipartUpload(s3, target, CSV) as upload:
        send_part(s3, upload.target, 1, b"a\n")
        assert uploads(s3)
        raise error
    assert not uploads(s3)


def test_what_is_not_completed_is_aborted(s3):
    with MultipartUpload(s3, target_of("left.csv"), CSV) as upload:
        send_part(s3, upload.target, 1, b"a\n")
    assert not uploads(s3)
    assert not s3.list_objects_v2(Bucket="lake", Prefix="upload/left.csv").get("Contents")


def test_failed_complete_aborts_the_upload(s3):
    with pytest.raises(AwsError, match="InvalidPart") as caught, MultipartUpload(s3, target_of("bad"), CSV) as upload:
        upload.complete([Part(1, "no such part", 0, "")], 0)
    assert caught.value.details["operation"] == "s3:PutObject"
    assert caught.value.details["resource"] == "s3://lake/upload/bad"
    assert not uploads(s3)


def test_an_upload_that_is_not_aborted_hides_no_error(s3, caplog):
    target = target_of("kept.csv")
    faulty = Faulty(s3, abort_multipart_upload=failing(client_error("AccessDenied")))
    with pytest.raises(ValueError, match="part failed"), MultipartUpload(faulty, target, CSV):
        raise ValueError("part failed")
    [leftover] = uploads(s3)
    assert f"Upload {leftover['UploadId']} to s3://lake/upload/kept.csv was not aborted: ClientError" in caplog.text
    s3.abort_multipart_upload(UploadId=leftover["UploadId"], **target.object)


@pytest.mark.parametrize("error", [None, client_error("NoSuchUpload"), client_error("InternalError")], ids=str)
def test_a_published_object_whose_answer_was_lost_is_published(s3, caplog, error):
    target, data = target_of("lost.csv", fingerprint=True), b"x" * 20 * MIB
    s3.put_object(**target.object, Body=b"old")
    faulty = Faulty(s3, complete_multipart_upload=lost(s3.complete_multipart_upload, error))
    with MultipartUpload(faulty, target, CSV) as upload:
        parts = send_parts(faulty, upload.target, cut([data]), LIMITS)
        published = upload.complete(parts, 3)
    assert hashlib.sha256(content(s3, target.key)).digest() == hashlib.sha256(data).digest()
    assert published.etag == s3.head_object(**target.object)["ETag"]
    assert (published.rows, published.bytes, bool(published.fingerprint)) == (3, len(data), True)
    kind = type(error or ReadTimeoutError(endpoint_url="")).__name__
    assert f"s3://lake/upload/lost.csv is published, although S3 answered {kind}" in caplog.text


def test_what_fails_later_leaves_a_published_object_alone(s3):
    """Both objects of a run are completed one after the other."""
    target = target_of("first.csv")
    aborted = []
    faulty = Faulty(s3, abort_multipart_upload=lambda **request: aborted.append(request))
    with pytest.raises(ValueError, match="the second failed"), MultipartUpload(faulty, target, CSV) as upload:
        upload.complete([send_part(s3, upload.target, 1, b"a\n")], 0)
        raise ValueError("the second failed")
    assert content(s3, target.key) == b"a\n"
    assert not aborted


NEIGHBOUR = {"Key": "upload/unsure.csv.bak", "ETag": whole_etag([hashlib.md5(b"new").hexdigest()])}
# What S3 did with `complete`, what it says of a list, and the error of the run.
UNANSWERED = {
    "it was not done": (False, None, "aws_failed"),
    "it was not done, nor may be listed": (False, failing(client_error("AccessDenied")), "aws_failed"),
    "it was not done, and another key has the bytes": (False, lambda **_: {"Contents": [NEIGHBOUR]}, "aws_failed"),
    "it was done, but may not be listed": (True, failing(client_error("AccessDenied")), "output_unsure"),
    "it was done, but another object has taken its place": (True, lambda **_: {"Contents": []}, "output_unsure"),
    "it was done, but a list is not answered": (True, failing(ReadTimeoutError(endpoint_url="")), "output_unsure"),
}


@pytest.mark.parametrize("case", UNANSWERED)
def test_what_cannot_be_known_of_the_output_is_said(s3, case):
    done, listing, code = UNANSWERED[case]
    target = target_of("unsure.csv")
    s3.put_object(**target.object, Body=b"old")
    unanswered = failing(ReadTimeoutError(endpoint_url=""))
    complete = lost(s3.complete_multipart_upload) if done else unanswered
    operations = {"complete_multipart_upload": complete} | ({"list_objects_v2": listing} if listing else {})
    faulty = Faulty(s3, **operations)
    with pytest.raises((AwsError, OutputError)) as caught, MultipartUpload(faulty, target, CSV) as upload:
        upload.complete(send_parts(faulty, upload.target, cut([b"new"]), LIMITS), 1)
    assert caught.value.code == code
    assert not english_in(caught.value)
    assert content(s3, target.key) == (b"new" if done else b"old")
    assert not uploads(s3)
    if done:
        assert "S3 did not tell whether it replaced s3://lake/upload/unsure.csv (NoSuchUpload)" in str(caught.value)


def test_what_is_neither_completed_nor_aborted_is_unsure(s3):
    target = target_of("neither.csv")
    faulty = Faulty(
        s3,
        complete_multipart_upload=failing(ReadTimeoutError(endpoint_url="")),
        abort_multipart_upload=failing(client_error("SlowDown")),
    )
    with pytest.raises(OutputError, match=r"\(SlowDown\)") as caught, MultipartUpload(faulty, target, CSV) as upload:
        upload.complete([send_part(s3, upload.target, 1, b"new")], 1)
    assert caught.value.code == "output_unsure"
    [leftover] = uploads(s3)
    s3.abort_multipart_upload(UploadId=leftover["UploadId"], **target.object)


def test_etags_that_are_no_digests_prove_nothing(s3):
    """With KMS the ETag of the whole is not known beforehand, so a lost answer leaves the output unsure."""

    def upload_part(**request: Any) -> Any:
        return s3.upload_part(**request) | {"ETag": '"of a KMS key"'}

    def complete(**request: Any) -> Any:
        request["MultipartUpload"] = {"Parts": [{"PartNumber": 1, "ETag": f'"{hashlib.md5(b"new").hexdigest()}"'}]}
        return lost(s3.complete_multipart_upload)(**request)

    faulty = Faulty(s3, upload_part=upload_part, complete_multipart_upload=complete)
    with pytest.raises(OutputError) as caught, MultipartUpload(faulty, target_of("kms.csv"), CSV) as upload:
        upload.complete([send_part(faulty, upload.target, 1, b"new")], 1)
    assert caught.value.code == "output_unsure"


def test_the_etag_of_a_whole_is_that_of_s3(s3):
    target = target_of("etag.csv")
    with MultipartUpload(s3, target, CSV) as upload:
        parts = send_parts(s3, upload.target, cut([b"x" * 20 * MIB]), LIMITS)
        upload.complete(parts, 0)
    assert whole_etag([part.etag for part in parts]) == s3.head_object(**target.object)["ETag"]
    assert not whole_etag(['"of a KMS key"'])
    assert not whole_etag([parts[0].etag, '"of a KMS key"'])


# A small object.


def put_small(client: Any, key: str, rows: int, *, fingerprint: bool = False) -> Published:
    """Makes an object by one PutObject."""
    return put_whole(client, target_of(key, fingerprint=fingerprint), CSV, b"new", rows)


def test_a_small_object_is_seen_once_it_is_complete(s3):
    target = target_of("small.csv")
    with ExitStack() as stack:
        complete = send(stack, s3, settings_for("lake"), target.key, iter([bytearray(b"new")]))
        assert not s3.list_objects_v2(Bucket="lake", Prefix=target.key).get("Contents")
        assert complete(3).fingerprint == ""
    assert content(s3, target.key) == b"new"
    published = put_small(s3, "small.csv", 3, fingerprint=True)
    head = s3.head_object(**target.object)
    assert (content(s3, target.key), head["ContentType"]) == (b"new", CSV)
    alone = joined_fingerprint([Part(1, "", 3, fingerprint_of(b"new"))])
    assert published == (3, 3, head["ETag"], alone)
    assert put_small(s3, "small.csv", 3).fingerprint == ""


@pytest.mark.parametrize("size", [0, 1, LIMITS.put_bytes_max, LIMITS.put_bytes_max + 1, 3 * LIMITS.put_bytes_max])
def test_what_is_sent_is_one_put_up_to_a_size_and_parts_beyond_it(s3, size):
    settings, data = settings_for("lake"), b"x" * size
    with ExitStack() as stack:
        complete = send(stack, s3, settings, "upload/sent.csv", cut_parts([data], LIMITS.part_bytes, LIMITS))
        assert bool(uploads(s3)) == (size > LIMITS.put_bytes_max)
        published = complete(1)
    assert content(s3, "upload/sent.csv") == data
    assert ("-" in published.etag) == (size > LIMITS.put_bytes_max)
    assert published.bytes == size
    assert not uploads(s3)


def server_error() -> ClientError:
    """The error of S3 itself."""
    return ClientError({"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}, "PutObject")


def denial() -> ClientError:
    """The error of a role."""
    return ClientError({"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}, "PutObject")


@pytest.mark.parametrize("error", [None, server_error()], ids=str)
def test_a_small_object_whose_answer_was_lost_is_published(s3, caplog, error):
    faulty = Faulty(s3, put_object=lost(s3.put_object, error))
    published = put_small(faulty, "lost.csv", 3)
    assert published.etag == s3.head_object(Bucket="lake", Key="upload/lost.csv")["ETag"]
    assert "s3://lake/upload/lost.csv is published, although S3 answered " in caplog.text


DENIED = failing(client_error("AccessDenied"))
# What S3 did with the object, what the job was answered, what a list says, and the error of the run.
UNANSWERED_PUTS = {
    "refused": (False, denial(), None, "access_denied"),
    "refused, though the same bytes are there": (True, denial(), None, "access_denied"),
    "failed": (False, server_error(), None, "aws_failed"),
    "failed, nor may be listed": (False, server_error(), DENIED, "aws_failed"),
    "not answered, and not there": (False, None, None, "output_unsure"),
    "not answered, nor may be listed": (True, None, DENIED, "output_unsure"),
    "not answered, and another object has taken its place": (True, None, lambda **_: {}, "output_unsure"),
    "not awaited, as the run is stopped": (False, Stopped(), None, "output_unsure"),
}


@pytest.mark.parametrize("case", UNANSWERED_PUTS)
def test_what_cannot_be_known_of_a_small_object_is_said(s3, case):
    done, error, listing, code = UNANSWERED_PUTS[case]
    target = target_of("unsure.csv")
    s3.put_object(**target.object, Body=b"old")
    put = lost(s3.put_object, error) if done else failing(error or ReadTimeoutError(endpoint_url=""))
    faulty = Faulty(s3, put_object=put, **({"list_objects_v2": listing} if listing else {}))
    with pytest.raises((AwsError, OutputError)) as caught:
        put_small(faulty, "unsure.csv", 1)
    assert caught.value.code == code
    assert not english_in(caught.value)
    assert content(s3, target.key) == (b"new" if done else b"old")


def test_a_missing_bucket_is_named_by_a_small_object_too(s3):
    with pytest.raises(OutputError, match="'nowhere' does not exist"):
        put_whole(s3, UploadTarget("nowhere", "k"), CSV, b"", 0)


# What killed runs left.


def test_only_old_uploads_to_exactly_this_key_are_aborted(s3):
    target = target_of("killed.csv")
    for key in (target.key, f"{target.key}.bak"):
        s3.create_multipart_upload(Bucket="lake", Key=key)
    abort_leftovers(s3, target, LIMITS)
    assert len(uploads(s3)) == 2
    abort_leftovers(s3, target, replace(LIMITS, stale_upload_seconds=0))
    [leftover] = uploads(s3)
    assert leftover["Key"] == "upload/killed.csv.bak"
    s3.abort_multipart_upload(Bucket="lake", Key=leftover["Key"], UploadId=leftover["UploadId"])


def test_a_role_that_may_not_list_uploads_gets_a_warning(s3, caplog):
    abort_leftovers(s3, UploadTarget("nowhere", "out/left.csv"), LIMITS)
    assert "s3://nowhere/out/left.csv that killed runs left were not cleaned up: NoSuchBucket" in caplog.text


# The destination.


def settings_for(bucket: str) -> Settings:
    """The settings of a run that writes there."""
    values = {"JOB_NAME": "j", "secret_name": "s", "connection_name": "c", "source_bucket": "lake"}
    values |= {"source_key": "in.json", "destination_bucket": bucket, "destination_file": "upload/a.csv"}
    return make_settings(values, LIMITS)


def test_a_missing_bucket_is_named_before_and_while_it_is_written_to(s3):
    with pytest.raises(OutputError) as caught:
        check_destination(settings_for("nowhere"))
    assert str(caught.value) == (
        "Destination bucket 'nowhere' does not exist. "
        "Check S3.destination_bucket in configs.json (--destination_bucket)."
    )
    assert not english_in(caught.value)
    missing = UploadTarget("nowhere", "k", "id")
    with pytest.raises(OutputError, match="'nowhere' does not exist"), MultipartUpload(s3, missing, CSV):
        pass
    with pytest.raises(OutputError, match="'nowhere' does not exist"):
        send_part(s3, missing, 1, b"a\n")


def test_a_role_that_may_not_list_the_destination_is_no_failure(s3):
    check_destination(settings_for("lake"))
    with Stubber(s3) as stub:
        stub.add_client_error("list_objects_v2", "AccessDenied")
        check_destination(settings_for("lake"))
        stub.add_client_error("list_objects_v2", "InternalError")
        with pytest.raises(AwsError) as caught:
            check_destination(settings_for("lake"))
    assert caught.value.code == "aws_failed"
    assert caught.value.details["operation"] == "s3:ListBucket"
    assert caught.value.details["resource"] == "s3://lake/upload/a.csv"


def test_a_denied_upload_names_what_was_tried(s3):
    faulty = Faulty(s3, create_multipart_upload=failing(client_error("AccessDenied")))
    with pytest.raises(AwsError) as caught, MultipartUpload(faulty, target_of("denied.csv"), CSV):
        pass
    assert caught.value.code == "access_denied"
    assert caught.value.details["operation"] == "s3:PutObject"
    assert caught.value.details["resource"] == "s3://lake/upload/denied.csv"
