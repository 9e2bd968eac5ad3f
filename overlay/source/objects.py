"""The objects of the source in S3: which they are, who reads which bytes of them, and reading those bytes.

In: a client of S3, and `source_key` or byte ranges. Out: the listed objects, byte ranges to read side by side, bytes.
What is read is pinned to the version that was listed, so that a source that is replaced meanwhile is not mixed: an
object that is gone or was replaced is a SourceError, what S3 denies or fails to do is an AwsError.
"""

import codecs
import io
import logging
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from botocore.exceptions import BotoCoreError

from overlay.aws import aws_error, aws_errors, client
from overlay.errors import SourceError, Verbatim
from overlay.limits import Limits
from overlay.settings import Settings, is_source_key

LOG = logging.getLogger(__name__)
BLANKS = " \t\r\n"  # of JSON (RFC 8259); `str.strip` without them takes more
_GONE = ("404", "NoSuchKey", "NoSuchBucket")
RANGES_PER_CORE = 3  # so that cores which are done early find more to do


class SourceObject(NamedTuple):
    """One S3 object, pinned to the version that was listed."""

    bucket: str
    key: str
    size: int  # bytes
    etag: str
    records_at: str = ""  # names joined by dots that lead to the array of records; empty: records are all there is

    @property
    def url(self) -> str:
        """The object for people and messages."""
        return f"s3://{self.bucket}/{self.key}"


class ByteRange(NamedTuple):
    """The records that begin in bytes [start, end) of an object, or all of it when `end` is None."""

    object: SourceObject
    start: int
    end: int | None


def list_objects(settings: Settings) -> list[SourceObject]:
    """Lists the objects that `source_key` means, in the order of their keys; a SourceError where there is none.

    One key is listed too: unlike HEAD, a list tells a missing object from a denied one to a role that may list no more
    than this prefix. Reports of runs are left out, where they lie among them, and so is what its writer hides from
    readers (`_SUCCESS`, `_committed_1`, `.part`), as Spark does (InMemoryFileIndex 3.5).
    """
    bucket, pattern = settings.source_bucket, settings.source_key
    ours = settings.report_keys if bucket == settings.destination_bucket else ()
    paginator = client("s3", settings.limits.aws).get_paginator("list_objects_v2")
    missing = SourceError("source_missing", url=Verbatim(settings.source))
    with aws_errors("s3:ListBucket", settings.source, dict.fromkeys(_GONE, missing)):
        pages = paginator.paginate(Bucket=bucket, Prefix=pattern.partition("*")[0])
        listed = [item for page in pages for item in page.get("Contents", [])]
    objects = [
        SourceObject(bucket, key, item["Size"], item["ETag"], settings.records_at)
        for item in listed
        if is_source_key(key := item["Key"], pattern) and not key.endswith("/") and key not in ours
    ]
    readable = [item for item in objects if not _is_hidden(item.key, pattern)]
    if len(readable) < len(objects):
        LOG.info("%d objects whose names begin with _ or . are left out", len(objects) - len(readable))
    if readable:
        return readable
    if any(item["Key"].startswith(f"{pattern}/") for item in listed):
        raise SourceError("source_is_folder", url=Verbatim(settings.source))
    raise missing


def _is_hidden(key: str, pattern: str) -> bool:
    """Whether a name below the folder of `source_key` begins with `_` or `.`, and not as `source_key` itself does."""
    folder, _, name = pattern.rpartition("/")
    names = key[len(folder) :].lstrip("/").split("/")
    return not name.startswith(("_", ".")) and any(each.startswith(("_", ".")) for each in names)


def cut_ranges(s3: Any, objects: Sequence[SourceObject], parallelism: int, limits: Limits) -> list[list[ByteRange]]:
    """Cuts objects into groups of byte ranges that `parallelism` readers share: the ranges are in order, and complete.

    Big JSON Lines are cut by bytes, as a newline is always the end of a line. An array (`records_at`, too) or gzip is
    one range, since what looks like the end of a record may lie in a text. Small objects are grouped. Empty ones have
    no records.
    """
    share = sum(item.size for item in objects) // (RANGES_PER_CORE * parallelism)
    size = min(max(share, limits.range_bytes_min), limits.range_bytes_max)
    groups: list[list[ByteRange]] = []
    room = 0  # bytes that the last group may still take
    for item in objects:
        if item.size > size and not item.records_at and first_byte(s3, item, limits) == b"{":
            groups += [[ByteRange(item, at, min(at + size, item.size))] for at in range(0, item.size, size)]
            room = 0
        elif 0 < item.size <= room:
            groups[-1].append(ByteRange(item, 0, None))
            room -= item.size
        elif item.size:
            groups.append([ByteRange(item, 0, None)])
            room = size - item.size
    return groups


def first_byte(s3: Any, item: SourceObject, limits: Limits) -> bytes:
    """Reads what an object begins with, behind a byte order mark and blanks: `{` is JSON Lines, `[` an array."""
    head = read_range(s3, item, 0, min(limits.sniff_bytes, item.size), limits.read_attempts)
    return head.removeprefix(codecs.BOM_UTF8).lstrip(BLANKS.encode())[:1]


def read_range(s3: Any, item: SourceObject, start: int, end: int, attempts: int) -> bytes:
    """Reads bytes [start, end) of the listed version of an object.

    boto3 asks again until S3 answers (throttling, 5xx, a lost connection), but not when the answer is torn: that is
    tried `attempts` times here.
    """
    attempt = 1
    while True:
        body = _get(s3, item, start, end)
        try:
            return bytes(body.read())
        except (BotoCoreError, OSError) as error:
            if attempt >= attempts:
                raise aws_error(error, "s3:GetObject", item.url) from error
        time.sleep(attempt)
        attempt += 1


def _get(s3: Any, item: SourceObject, start: int, end: int) -> Any:
    url = Verbatim(item.url)
    meanings = dict.fromkeys(_GONE, SourceError("source_missing", url=url))
    meanings |= dict.fromkeys(("PreconditionFailed", "412"), SourceError("source_changed", url=url))
    meanings |= {"InvalidObjectState": SourceError("source_archived", url=url)}
    version = {"Bucket": item.bucket, "Key": item.key, "IfMatch": item.etag}
    with aws_errors("s3:GetObject", item.url, meanings):
        return s3.get_object(**version, Range=f"bytes={start}-{end - 1}")["Body"]


class ObjectStream(io.RawIOBase):
    """An S3 object from byte `start` on as a file, read by ranges of the size that a buffer around it asks for."""

    def __init__(self, s3: Any, item: SourceObject, start: int, attempts: int) -> None:
        self._s3, self._item, self._position, self._attempts = s3, item, start, attempts

    def readable(self) -> bool:
        """Says that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer; returns the number of bytes, 0 at the end."""
        end = min(self._position + len(buffer), self._item.size)
        if end <= self._position:
            return 0
        data = read_range(self._s3, self._item, self._position, end, self._attempts)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
