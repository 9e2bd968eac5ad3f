"""source.objects against S3 (moto): what is listed, and bytes of that very version or an error."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import IncompleteReadError
from botocore.stub import Stubber
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overlay import aws as job_aws
from overlay.errors import AwsError, SourceError
from overlay.limits import Limits
from overlay.settings import Settings, make_settings
from overlay.source import objects
from overlay.source.columns import record_batches
from overlay.source.json_reader import RecordReader
from overlay.source.objects import ObjectStream, SourceObject, cut_ranges, first_byte, list_objects, read_range
from tests.sources import expected_records, json_lines, present
from tests.texts import english_in

LIMITS = Limits()
DATA = bytes(range(256)) * 40


def settings_for(source_key: str, **changes: str) -> Settings:
    """The settings of a run that reads there."""
    values = {"JOB_NAME": "j", "secret_name": "s", "connection_name": "c", "source_bucket": "lake"}
    values |= {"source_key": source_key, "destination_bucket": "lake", "destination_file": "objects/out.csv"}
    return make_settings(values | changes, LIMITS)


@pytest.fixture
def s3(aws: Any) -> Any:
    """The job's own client."""
    return job_aws.client("s3", LIMITS.aws)


@pytest.fixture
def stored(aws: Any, s3: Any) -> SourceObject:
    """An object of 10 KiB."""
    etag = s3.put_object(Bucket="lake", Key="objects/stored", Body=DATA)["ETag"]
    return SourceObject("lake", "objects/stored", len(DATA), etag)


def test_objects_are_listed_in_the_order_of_their_keys(s3):
    keys = ["b.json", "a.json", "x/a.json", "a.txt", "あ.json", "folder/", "10.json", "2.json"]
    for key in keys:
        s3.put_object(Bucket="lake", Key=f"objects/list/{key}", Body=key.encode())
    [listed, *further] = list_objects(settings_for("objects/list/b.json"))
    assert listed == SourceObject("lake", "objects/list/b.json", 6, s3.head_object(**address(listed))["ETag"])
    assert not further
    assert listed.url == "s3://lake/objects/list/b.json"
    folder = [item.key.removeprefix("objects/list/") for item in list_objects(settings_for("objects/list/"))]
    assert folder == ["10.json", "2.json", "a.json", "a.txt", "b.json", "x/a.json", "あ.json"]
    wildcard = [item.key.removeprefix("objects/list/") for item in list_objects(settings_for("objects/list/*.json"))]
    assert wildcard == ["10.json", "2.json", "a.json", "b.json", "あ.json"]


def test_what_a_writer_hides_is_no_source_unless_it_is_asked_for(s3):
    hidden = ["_SUCCESS", "_committed_1", ".part", "_temporary/0/a.json", "x/.b.json"]
    for key in ["a.json", "x/c_d.json", *hidden]:
        s3.put_object(Bucket="lake", Key=f"objects/_job/hidden/{key}", Body=b"{}")

    def keys(source_key: str) -> list[str]:
        listed = list_objects(settings_for(f"objects/_job/hidden/{source_key}"))
        return [item.key.removeprefix("objects/_job/hidden/") for item in listed]

    assert keys("") == ["a.json", "x/c_d.json"]
    assert keys("*") == ["a.json"]
    assert keys("_*") == ["_SUCCESS", "_committed_1"]
    for key in hidden:
        assert keys(key) == [key]
    with pytest.raises(SourceError) as caught:
        keys("_temporary/0/b*")
    assert caught.value.code == "source_missing"


def test_a_folder_without_its_slash_is_told(s3):
    s3.put_object(Bucket="lake", Key="objects/folder-only/a.json", Body=b"{}")
    with pytest.raises(SourceError) as caught:
        list_objects(settings_for("objects/folder-only"))
    assert str(caught.value) == (
        "No source object at s3://lake/objects/folder-only, but there are objects below s3://lake/objects/folder-only/."
        " For all objects of the folder write S3.source_key in configs.json (--source_key) with a / at its end."
    )
    assert not english_in(caught.value)


def test_an_archived_source_says_how_to_get_it_back(s3, stored):
    archived = "objects/archived"
    s3.put_object(Bucket="lake", Key=archived, Body=b"{}", StorageClass="GLACIER")
    [item] = list_objects(settings_for(archived))
    with pytest.raises(SourceError) as caught:
        first_byte(s3, item, LIMITS)
    assert (caught.value.code, "restore-object" in str(caught.value)) == ("source_archived", True)
    assert not english_in(caught.value)


def address(item: SourceObject) -> dict[str, str]:
    """The object as the API names it."""
    return {"Bucket": item.bucket, "Key": item.key}


def test_more_objects_than_a_page_are_listed(s3, request):
    def three_a_page(params: dict[str, Any], **_: Any) -> None:
        params["MaxKeys"] = 3

    s3.meta.events.register("provide-client-params.s3.ListObjectsV2", three_a_page)
    request.addfinalizer(lambda: s3.meta.events.unregister("provide-client-params.s3.ListObjectsV2", three_a_page))
    for number in range(8):
        s3.put_object(Bucket="lake", Key=f"objects/many/{number}", Body=b"{}")
    assert len(s3.list_objects_v2(Bucket="lake", Prefix="objects/many/")["Contents"]) == 3
    assert [item.key[-1] for item in list_objects(settings_for("objects/many/"))] == [*"01234567"]


def test_the_report_of_the_run_before_is_no_source(s3):
    settings = settings_for("objects/beside/*.json", destination_file="objects/beside/a.csv")
    for key in ("objects/beside/a.json", settings.report_key):
        s3.put_object(Bucket="lake", Key=key, Body=b"{}")
    assert [item.key for item in list_objects(settings)] == ["objects/beside/a.json"]
    elsewhere = replace(settings, destination_bucket="another")
    assert [item.key for item in list_objects(elsewhere)] == sorted(["objects/beside/a.json", settings.report_key])


@pytest.mark.parametrize("changes", [{}, {"source_bucket": "nowhere"}], ids=["key", "bucket"])
def test_a_missing_source_is_named(aws, changes):
    settings = settings_for("objects/none/*.json", **changes)
    with pytest.raises(SourceError) as caught:
        list_objects(settings)
    assert str(caught.value) == (
        f"No source object at s3://{settings.source_bucket}/objects/none/*.json. "
        "Check S3.source_bucket and S3.source_key in configs.json (--source_key), and that the file arrived."
    )
    assert not english_in(caught.value)


def test_a_denied_list_is_no_missing_source(s3):
    with Stubber(s3) as stub:
        stub.add_client_error("list_objects_v2", "AccessDenied", http_status_code=403)
        with pytest.raises(AwsError) as caught:
            list_objects(settings_for("objects/none/*.json"))
    assert caught.value.code == "access_denied"
    assert (caught.value.details["operation"], caught.value.details["resource"]) == (
        "s3:ListBucket",
        "s3://lake/objects/none/*.json",
    )


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(st.integers(0, len(DATA) - 1), st.integers(1, len(DATA)), st.integers(1, 5000))
def test_ranges_and_streams_are_the_bytes_of_the_object(s3, stored, start, size, buffer_bytes):
    end = min(start + size, len(DATA))
    assert read_range(s3, stored, start, end, 1) == DATA[start:end]
    with io.BufferedReader(ObjectStream(s3, stored, start, 1), buffer_bytes) as stream:
        assert stream.read() == DATA[start:]


def test_a_replaced_source_is_an_error_and_no_mix(s3, stored):
    stream = io.BufferedReader(ObjectStream(s3, stored, 0, 5), 1000)
    assert stream.read(500) == DATA[:500]
    s3.put_object(**address(stored), Body=b"other")
    with pytest.raises(SourceError) as caught:
        stream.read()
    assert str(caught.value) == (
        "s3://lake/objects/stored was replaced while the job read it. Run the job again once the upload is complete."
    )
    assert not english_in(caught.value)


def test_a_source_that_is_gone_is_missing(s3, stored):
    s3.delete_object(**address(stored))
    with pytest.raises(SourceError) as caught:
        first_byte(s3, stored, LIMITS)
    assert caught.value.code == "source_missing"
    assert "s3://lake/objects/stored" in str(caught.value)


@pytest.mark.parametrize(
    ("code", "expected"), [("AccessDenied", "access_denied"), ("SlowDown", "aws_failed"), ("412", "source_changed")]
)
def test_what_s3_refuses_is_named(s3, stored, code, expected):
    with Stubber(s3) as stub:
        stub.add_client_error("get_object", code)
        with pytest.raises((AwsError, SourceError)) as caught:
            read_range(s3, stored, 0, 1, 5)
    assert caught.value.code == expected
    assert caught.value.details.get("operation", "s3:GetObject") == "s3:GetObject"
    assert stored.url in caught.value.message("en").cause


class Torn:
    """A client of S3 whose first answers break off in the middle."""

    def __init__(self, s3: Any, times: int) -> None:
        self.calls, self._s3, self._times = 0, s3, times

    def get_object(self, **request: Any) -> dict[str, Any]:
        self.calls += 1
        return {"Body": self if self.calls <= self._times else self._s3.get_object(**request)["Body"]}

    def read(self) -> bytes:
        raise IncompleteReadError(actual_bytes=1, expected_bytes=2)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The seconds that were waited."""
    seconds: list[float] = []
    monkeypatch.setattr(objects.time, "sleep", seconds.append)
    return seconds


def test_a_torn_answer_is_asked_for_again_as_often_as_the_limits_say(s3, stored, waits):
    torn = Torn(s3, times=2)
    assert read_range(torn, stored, 10, 20, LIMITS.read_attempts) == DATA[10:20]
    assert (torn.calls, waits) == (3, [1, 2])
    torn = Torn(s3, times=99)
    with pytest.raises(AwsError, match="IncompleteReadError"):
        read_range(torn, stored, 10, 20, 3)
    assert torn.calls == 3


@pytest.mark.parametrize("form", ["lines", "gzip", "array"])
def test_records_of_listed_objects_are_read_by_range(s3, form):
    records = [{"id": i, "v": "あ" * (i % 9), "n": {"a": i}} for i in range(400)]
    data = json.dumps(records).encode() if form == "array" else json_lines(records)
    prefix = f"objects/read-{form}/"
    s3.put_object(Bucket="lake", Key=f"{prefix}1", Body=gzip.compress(data) if form == "gzip" else data)
    s3.put_object(Bucket="lake", Key=f"{prefix}2", Body=b'{"late":1}')
    limits = replace(LIMITS, chunk_bytes=2000, sniff_bytes=100, range_bytes_min=1000, range_bytes_max=1000)
    groups = cut_ranges(s3, list_objects(settings_for(prefix)), 1, limits)
    assert len(groups) == {"lines": -(-len(data) // 1000) + 1, "gzip": 2, "array": 2}[form]
    batches = [batch for group in groups for batch in record_batches([RecordReader(s3, cut, limits) for cut in group])]
    rows = [present(row) for batch in batches for row in batch.to_pylist()]
    assert rows == [*expected_records(data), {"late": "1"}]
