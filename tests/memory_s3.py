"""The calls of S3 that the job makes, over bytes in memory: parts may be small, and their rules still hold."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterator
from typing import Any

from overlay.limits import Limits
from overlay.source.objects import SourceObject


class MemoryS3:
    """One bucket.

    Attributes:
        objects: What is visible, by key.
        uploads: Parts of multipart uploads that are neither complete nor aborted, by upload and number.
    """

    def __init__(self, limits: Limits, **objects: bytes) -> None:
        self.objects = objects
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.meta = self
        self.region_name = "ap-northeast-1"
        self._limits = limits
        self._lock = threading.Lock()

    def sources(self) -> list[SourceObject]:
        """The objects as the job lists them."""
        return [SourceObject("lake", key, len(data), "e") for key, data in self.objects.items()]

    def get_object(self, Bucket: str, Key: str, Range: str, IfMatch: str) -> dict[str, Any]:
        """Bytes of an object."""
        start, end = map(int, Range.removeprefix("bytes=").split("-"))
        return {"Body": io.BytesIO(self.objects[Key][start : end + 1])}

    def get_paginator(self, operation: str) -> MemoryS3:
        """Returns the paginator of list_multipart_uploads, which is this object."""
        assert operation == "list_multipart_uploads"
        return self

    def paginate(self, **_: str) -> Iterator[dict[str, Any]]:
        """Yields a page without uploads: none is old."""
        yield {}

    def create_multipart_upload(self, Bucket: str, Key: str, ContentType: str) -> dict[str, str]:
        """Begins an upload."""
        with self._lock:
            upload = f"{Key}-{len(self.uploads)}"
            self.uploads[upload] = {}
        return {"UploadId": upload}

    def upload_part(self, Bucket: str, Key: str, UploadId: str, PartNumber: int, Body: Any) -> dict[str, str]:
        """Keeps a part; one that is there already is replaced, which the job never does."""
        data = bytes(Body)
        with self._lock:
            assert PartNumber not in self.uploads[UploadId]
            assert 1 <= PartNumber <= self._limits.parts_max
            self.uploads[UploadId][PartNumber] = data
        return {"ETag": f'"{hashlib.md5(data).hexdigest()}"'}

    def complete_multipart_upload(
        self, Bucket: str, Key: str, UploadId: str, MultipartUpload: dict[str, Any]
    ) -> dict[str, str]:
        """Makes the object of all parts, none of which but the last is too small."""
        parts = self.uploads.pop(UploadId)
        numbers = [part["PartNumber"] for part in MultipartUpload["Parts"]]
        assert numbers == sorted(parts)
        assert all(len(parts[number]) >= self._limits.part_bytes_min for number in numbers[:-1])
        for part in MultipartUpload["Parts"]:
            assert part["ETag"] == f'"{hashlib.md5(parts[part["PartNumber"]]).hexdigest()}"'
        self.objects[Key] = b"".join(parts[number] for number in numbers)
        return {"ETag": '"e-1"'}

    def put_object(self, Bucket: str, Key: str, ContentType: str, Body: bytes) -> dict[str, str]:
        """Makes an object that is small."""
        assert len(Body) <= self._limits.put_bytes_max
        self.objects[Key] = Body
        return {"ETag": '"e"'}

    def abort_multipart_upload(self, Bucket: str, Key: str, UploadId: str) -> None:
        """Forgets an upload."""
        self.uploads.pop(UploadId)
