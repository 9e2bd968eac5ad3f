"""One object of the output: bytes in, an object that becomes visible whole or not at all out.

What is small is one PutObject. What is larger is a multipart upload: both objects of a run (the output, the list of
table-only ids) are on S3, or in memory, before either is seen.
"""

import hashlib
import itertools
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple, Self

from botocore.exceptions import BotoCoreError, ClientError

from overlay.aws import aws_errors, client, error_code
from overlay.csv_text import content_type, header
from overlay.differences import HEADER
from overlay.errors import OutputError, Stopped, Verbatim
from overlay.limits import MIB, AwsTimeouts, Limits
from overlay.settings import Settings
from overlay.threads import awaited, in_order

LOG = logging.getLogger(__name__)
# Bytes are the digits of a number, and its remainder tells contents apart, wherever they are cut into parts. ETags do
# not: they depend on the parts, and with KMS they are no digests at all. The prime is the last before 2**128.
FINGERPRINT_PRIME = 2**128 - 159


class Part(NamedTuple):
    """An uploaded part; the fingerprint is empty where nobody asked for it."""

    number: int
    etag: str
    bytes: int
    fingerprint: str


class Published(NamedTuple):
    """An object that a run wrote; the fingerprint is empty where nobody asked for it."""

    rows: int
    bytes: int
    etag: str
    fingerprint: str


@dataclass(frozen=True)
class UploadTarget:
    """Where parts go."""

    bucket: str
    key: str
    upload_id: str = ""  # empty before the multipart upload was begun
    fingerprint: bool = False  # whether somebody will ask if the contents changed
    dry: bool = False  # whether nothing is to be sent

    @property
    def url(self) -> str:
        """The object as a URL for people."""
        return f"s3://{self.bucket}/{self.key}"

    @property
    def object(self) -> dict[str, str]:
        """The object as the API names it."""
        return {"Bucket": self.bucket, "Key": self.key}


def _output_errors(target: UploadTarget, operation: str = "s3:PutObject") -> AbstractContextManager[None]:
    missing = OutputError("destination_missing", bucket=Verbatim(target.bucket))
    return aws_errors(operation, target.url, dict.fromkeys(("NoSuchBucket", "404"), missing))


def check_destination(settings: Settings) -> None:
    """Finds a missing bucket (OutputError) before hours of reading. A role that may not list gets 403: no answer."""
    target = UploadTarget(settings.destination_bucket, settings.destination_file)
    with _output_errors(target, "s3:ListBucket"):
        try:
            client("s3", settings.limits.aws).list_objects_v2(Bucket=target.bucket, Prefix=target.key, MaxKeys=1)
        except ClientError as error:
            if error_code(error) != "AccessDenied":
                raise


class MultipartUpload:
    """A multipart upload that is aborted unless its block ends with `complete()` having succeeded.

    By SIGTERM it is aborted with `brief` timeouts, as S3 may be what the run waits for.
    """

    def __init__(self, s3: Any, target: UploadTarget, content_type: str, brief: AwsTimeouts = Limits.aws_brief) -> None:
        self.target, self._s3, self._content_type, self._brief = target, s3, content_type, brief
        self._completing = self._done = False

    def __enter__(self) -> Self:
        with _output_errors(self.target):
            answer = self._s3.create_multipart_upload(ContentType=self._content_type, **self.target.object)
        self.target = replace(self.target, upload_id=answer["UploadId"])
        return self

    def complete(self, parts: Sequence[Part], rows: int) -> Published:
        """Makes the object visible, whole, of parts in the order of their numbers.

        S3 may have done so although its answer was lost; asked again it answers NoSuchUpload.
        """
        self._completing = True
        numbered = [{"PartNumber": part.number, "ETag": part.etag} for part in parts]
        with _output_errors(self.target):
            try:
                etag = self._s3.complete_multipart_upload(
                    UploadId=self.target.upload_id, MultipartUpload={"Parts": numbered}, **self.target.object
                )["ETag"]
            except (ClientError, BotoCoreError) as error:
                etag = whole_etag([part.etag for part in parts])
                if not _is_published(self._s3, self.target, etag, error):
                    raise
        self._done = True
        return _published(self.target, parts, rows, etag)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> None:
        if self._done:
            return
        upload = self.target.upload_id
        s3 = client("s3", self._brief) if isinstance(error, Stopped) else self._s3
        try:
            s3.abort_multipart_upload(UploadId=upload, **self.target.object)
        except (ClientError, BotoCoreError) as failure:
            if self._completing and error:  # an aborted upload can no longer become the object; this one may have
                problem = Verbatim(error_code(failure))
                raise OutputError("output_unsure", url=Verbatim(self.target.url), problem=problem) from error
            if not self._completing:
                # The first failure is the one to report; the next run and a lifecycle rule remove what stays.
                LOG.warning("Upload %s to %s was not aborted: %s", upload, self.target.url, type(failure).__name__)


class DryUpload:
    """What a dry run has in the place of a multipart upload: its parts are made, and not sent."""

    def __init__(self, target: UploadTarget) -> None:
        self.target = target

    def complete(self, parts: Sequence[Part], rows: int) -> Published:
        """What would have become visible."""
        return _published(self.target, parts, rows, "")


def put_whole(s3: Any, target: UploadTarget, content_type: str, data: bytes, rows: int) -> Published:
    """Makes a small object by one PutObject; before nothing was sent, so there is nothing to abort.

    Raises:
        OutputError: the bucket is gone; or no answer came, or was waited for by a run that is stopped, and the object
            is not known to be the one that was sent (`output_unsure`): S3 may have it yet.
        AwsError: S3 denied the call or failed, so the object is as it was.
    """
    etag = f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
    with _output_errors(target):
        try:
            etag = s3.put_object(ContentType=content_type, Body=data, **target.object)["ETag"]
        except ClientError as error:
            # An attempt before the last one may have gone through, its answer lost.
            failed = error.response["ResponseMetadata"]["HTTPStatusCode"] >= HTTPStatus.INTERNAL_SERVER_ERROR
            if not (failed and _is_published(s3, target, etag, error)):
                raise
        except (BotoCoreError, Stopped) as error:
            if isinstance(error, Stopped) or not _is_published(s3, target, etag, error):
                problem = Verbatim(error_code(error))
                raise OutputError("output_unsure", url=Verbatim(target.url), problem=problem) from error
    return _published(target, [_part(target, 1, etag, data)], rows, etag)


def _part(target: UploadTarget, number: int, etag: str, data: bytes | bytearray) -> Part:
    return Part(number, etag, len(data), fingerprint_of(data) if target.fingerprint else "")


def _published(target: UploadTarget, parts: Sequence[Part], rows: int, etag: str) -> Published:
    fingerprint = joined_fingerprint(parts) if target.fingerprint else ""
    return Published(rows, sum(part.bytes for part in parts), str(etag), fingerprint)


def _is_published(s3: Any, target: UploadTarget, etag: str, error: Exception) -> bool:
    """Whether the object has an ETag, although its upload ended in an error.

    By a list, as a role that may not read the output may list it.
    """
    try:
        answer = s3.list_objects_v2(Bucket=target.bucket, Prefix=target.key, MaxKeys=1)
    except (ClientError, BotoCoreError):
        return False
    etags = {item["Key"]: item["ETag"] for item in answer.get("Contents", [])}
    if not etag or etags.get(target.key) != etag:
        return False
    LOG.warning("%s is published, although S3 answered %s", target.url, type(error).__name__)
    return True


def send(
    stack: ExitStack, s3: Any, settings: Settings, key: str, parts: Iterator[bytearray]
) -> Callable[[int], Published]:
    """Uploads an object, but for what makes it visible: the function that is returned, which takes its rows.

    The stack aborts what is not completed.
    """
    first = list(itertools.islice(parts, 2))
    if len(first) == 1 and len(first[0]) <= settings.limits.put_bytes_max and not settings.dry_run:
        return partial(put_whole, s3, _target(s3, settings, key), content_type(settings.csv), bytes(first[0]))
    upload = begin_upload(stack, s3, settings, key)
    numbered = enumerate(itertools.chain(first, parts), 1)
    return partial(upload.complete, send_parts(s3, upload.target, numbered, settings.limits))


def send_differences(stack: ExitStack, s3: Any, settings: Settings, lines: Sequence[bytes]) -> Callable[[], Published]:
    """Uploads the list of cells that the source overrides, but for what makes it visible (see `send`)."""
    limits = settings.limits
    parts = cut_parts([header(HEADER, settings.csv), *lines], limits.part_bytes, limits)
    return partial(send(stack, s3, settings, settings.differences_file, parts), len(lines))


def _target(s3: Any, settings: Settings, key: str) -> UploadTarget:
    """Where an object goes, once what killed runs left there is gone."""
    on_change, dry = settings.notify == "on_change", settings.dry_run
    target = UploadTarget(settings.destination_bucket, key, fingerprint=on_change, dry=dry)
    if not dry:
        abort_leftovers(s3, target, settings.limits)
    return target


def begin_upload(stack: ExitStack, s3: Any, settings: Settings, key: str) -> MultipartUpload | DryUpload:
    """Begins the upload of one object of the output; the stack aborts it where it is not completed."""
    target = _target(s3, settings, key)
    if target.dry:
        return DryUpload(target)
    upload = MultipartUpload(s3, target, content_type(settings.csv), settings.limits.aws_brief)
    return stack.enter_context(upload)


def send_part(s3: Any, target: UploadTarget, number: int, data: bytes | bytearray) -> Part:
    """Uploads one part; raises OutputError where the bucket is gone, AwsError where S3 denied the call or failed."""
    if target.dry:
        return _part(target, number, "", data)
    with _output_errors(target):
        answer = s3.upload_part(Body=data, UploadId=target.upload_id, PartNumber=number, **target.object)
    return _part(target, number, answer["ETag"], data)


def send_parts(
    s3: Any, target: UploadTarget, parts: Iterable[tuple[int, bytes | bytearray]], limits: Limits
) -> list[Part]:
    """Uploads numbered parts, some at a time; the next is made while others are on their way.

    Whatever ends it but SIGTERM, it first waits for those: parts that arrive after the upload was aborted would stay in
    the bucket.
    """
    at_a_time = limits.uploads_at_a_time
    with awaited(ThreadPoolExecutor(at_a_time, "upload")) as pool:
        return list(in_order(pool, lambda part: send_part(s3, target, *part), parts, at_a_time))


def cut_parts(chunks: Iterable[bytes], part_bytes: int, limits: Limits) -> Iterator[bytearray]:
    """The same bytes in parts of `part_bytes`, the last one larger or smaller.

    A part is cut only when a whole smallest part stays behind, so that no part but the last is too small for S3, and
    that one only where there is no other. Behind half of the parts that S3 takes they grow, as `part_bytes` comes of an
    estimate: the rows of a narrow source may be wide.
    """
    buffer, number, size = bytearray(), 0, part_bytes
    for data in chunks:
        buffer += data
        while len(buffer) >= size + limits.part_bytes_min:
            yield buffer[:size]
            del buffer[:size]
            number += 1
            steps = max(number - limits.parts_max // 2, 0) // max(limits.parts_max // 16, 1)
            size = part_bytes << steps  # 8 MiB at first come to 1.3 TiB in all
    yield buffer


def plan_parts(
    bins: Iterable[tuple[int, int, int]], part_bytes: int, limits: Limits, *, running: bool
) -> list[tuple[int, int, int]]:
    """Deals bins of lines (number, lines, bytes) out to parts of at least `part_bytes` but the last.

    Where lines are wide a bin may be huge: as many part numbers stay free behind it as `cut_parts` makes of it. Returns
    for each bin its number, its (first) part from 1, and what its line numbers are to be raised by: nothing where they
    are `running` through all bins already.
    """
    plan, part, filled, start = [], 1, 0, 0
    for number, rows, size in bins:
        if filled >= part_bytes:
            part, filled = part + 1 + max(filled - limits.part_bytes_min, 0) // part_bytes, 0
        plan.append((number, part, 0 if running else start))
        filled, start = filled + size, start + rows
    return plan


def part_size(total: int, limits: Limits) -> int:
    """Bytes of a part for an object of about so many bytes: half of the parts that S3 takes stay in reserve."""
    return max(limits.part_bytes, -(-total // (limits.parts_max // 2)))


def whole_etag(etags: Sequence[str]) -> str:
    """The ETag of an object made of parts: MD5 over theirs, and their number (seen; S3 does not promise it).

    Empty where those of the parts are no digests (SSE-C, SSE-KMS).
    """
    digits = [etag.strip('"') for etag in etags]
    if not all(re.fullmatch("[0-9a-f]{32}", text) for text in digits):
        return ""
    digest = hashlib.md5(bytes.fromhex("".join(digits)), usedforsecurity=False).hexdigest()
    return f'"{digest}-{len(digits)}"'


def abort_leftovers(s3: Any, target: UploadTarget, limits: Limits) -> None:
    """Aborts what runs that were killed left behind at this key; younger uploads may be of a run that is on."""
    old = datetime.now(UTC) - timedelta(seconds=limits.stale_upload_seconds)
    try:
        pages = s3.get_paginator("list_multipart_uploads").paginate(Bucket=target.bucket, Prefix=target.key)
        for upload in itertools.chain.from_iterable(page.get("Uploads", []) for page in pages):
            if upload["Key"] == target.key and upload["Initiated"] < old:
                LOG.info("aborting upload %s of %s, which a killed run left", upload["UploadId"], upload["Initiated"])
                s3.abort_multipart_upload(UploadId=upload["UploadId"], **target.object)
    except (ClientError, BotoCoreError) as error:
        LOG.warning("Uploads to %s that killed runs left were not cleaned up: %s", target.url, error_code(error))


def fingerprint_of(data: bytes | bytearray) -> str:
    """The remainder of some bytes, in hexadecimal."""
    remainder = 0
    for start in range(0, len(data), MIB):
        digits = data[start : start + MIB]
        shifted = remainder * pow(256, len(digits), FINGERPRINT_PRIME)
        remainder = (shifted + int.from_bytes(digits, "big")) % FINGERPRINT_PRIME
    return f"{remainder:032x}"


def joined_fingerprint(parts: Iterable[Part]) -> str:
    """The remainder of the bytes of all parts, with their length, as a leading zero changes no number."""
    remainder = size = 0
    for part in parts:
        shifted = remainder * pow(256, part.bytes, FINGERPRINT_PRIME)
        remainder = (shifted + int(part.fingerprint, 16)) % FINGERPRINT_PRIME
        size += part.bytes
    return f"{size}-{remainder:032x}"
