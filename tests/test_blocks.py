"""Section `blocks`: where rows meet, and what the columns of a task's rows become there."""

from __future__ import annotations

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import glue_job
from glue_job import (
    KeyedRows,
    TableKeys,
    first_ids,
    first_of_each,
    key_bits,
    key_filter,
    key_hashes,
    may_have,
    pack,
    partition_numbers,
    spark_hash,
    target_of,
    unpack,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
KEYS = st.integers(-(2**64), 2**64).map(str) | TEXT


@given(st.lists(KEYS, min_size=1), st.integers(1, 500))
def test_a_key_has_one_target_whatever_lies_beside_it(keys, targets):
    together = target_of(key_hashes(pa.array(keys)), targets).tolist()
    assert together == [target_of(key_hashes(pa.array([key])), targets)[0] for key in keys]
    assert all(0 <= target < targets for target in together)


@pytest.mark.parametrize("step", [1, 10, 64, 10**12])
@pytest.mark.parametrize("text", ["{}", "k{}"])
def test_targets_are_even(step, text):
    keys = pa.array([text.format(i * step) for i in range(64_000)])
    counts = np.bincount(target_of(key_hashes(keys), 64))
    assert len(counts) == 64
    assert 700 < counts.min() <= counts.max() < 1_300


@given(st.lists(KEYS, max_size=50), st.lists(KEYS, min_size=1, max_size=50))
def test_a_filter_denies_no_key_it_was_given(keys, others):
    hashes = key_hashes(pa.array(keys, pa.string()))
    bitmap = key_filter([key_bits(hashes[::2]), key_bits(hashes[1::2])])
    assert may_have(bitmap, hashes).all()
    found = may_have(bitmap, key_hashes(pa.array(others))).tolist()
    bits = set(key_bits(hashes).tolist())
    assert found == [int(bit) in bits for bit in key_bits(key_hashes(pa.array(others)))]


@pytest.mark.parametrize("text", ["{}", "k{}"])
def test_a_filter_denies_most_other_keys(text):
    bitmap = key_filter([key_bits(key_hashes(pa.array([text.format(i * 3) for i in range(300_000)])))])
    others = key_hashes(pa.array([text.format(i * 3 + 1) for i in range(300_000)]))
    assert may_have(bitmap, others).mean() < 0.005


def test_rows_that_no_record_can_have_are_counted_and_their_first_ids_kept():
    bitmap = key_filter([key_bits(key_hashes(pa.array(["5", "700"])))])
    batches = [
        pa.RecordBatch.from_pydict({"c0": [str(i) for i in range(start, start + 500)] + [None]})
        for start in range(1_000, 0, -500)
    ]
    keys = TableKeys(1, 0, unique=True, zerofill=False, integer=True)
    run = glue_job._row_packer(keys, 4, SimpleNamespace(value=bitmap))
    blocks = list(glue_job.blocks_of(run(batches)))
    table = KeyedRows(blocks, keys)
    assert sorted(table.ids.to_pylist()) == ["700"]
    assert table.left_out == [{"without_key": 2, "unmatched": 999, "ids": [str(i) for i in range(500, 510)]}]


def test_numbers_go_to_the_partitions_they_are_meant_for(spark):
    numbers = [0, 1, -1, 7, 2**31 - 1, -(2**31), *range(1_000, 1_050)]
    rows = spark.createDataFrame([(number,) for number in numbers], "n int").selectExpr("n", "hash(n) AS h").collect()
    assert [(row.n, row.h) for row in rows] == [(number, spark_hash(number)) for number in numbers]
    found = partition_numbers(7)
    frame = spark.createDataFrame([(number,) for number in found], "n int").repartition(7, "n")
    assert frame.rdd.glom().map(lambda part: [row.n for row in part]).collect() == [[number] for number in found]


@given(st.lists(TEXT | st.none(), min_size=1), st.integers(1, 60))
def test_blocks_are_cut_and_read_back(texts, most):
    batch = pa.RecordBatch.from_arrays([pa.array(texts, pa.string())], names=["c0"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(glue_job, "PACKED_BYTES", most)
        blocks = list(pack(batch))
    read = [unpack(pa.py_buffer(block), batch.schema).column(0).to_pylist() for block in blocks]
    assert list(itertools.chain.from_iterable(read)) == texts


@given(st.lists(st.tuples(st.sampled_from("abc"), st.none() | TEXT, st.none() | TEXT, st.integers(1, 3)), max_size=20))
def test_of_rows_with_one_key_the_first_by_its_text_stays(rows):
    columns = list(zip(*rows, strict=True)) or [[]] * 4
    names = ["c0", "c1", "c2", "copies"]
    types = [pa.string()] * 3 + [pa.int64()]
    table = pa.table([pa.array(c, t) for c, t in zip(columns, types, strict=True)], names)
    found = first_of_each(table, TableKeys(3, 0, unique=False, zerofill=False, integer=False)).to_pylist()

    def order(row):
        return [(cell is not None, (cell or "").encode()) for cell in row[:3]]

    expected = {}
    for key in {row[0] for row in rows}:
        alike = sorted((row for row in rows if row[0] == key), key=order)
        expected[key] = (*alike[0][:3], sum(row[3] for row in alike))
    assert {row["c0"]: tuple(row.values()) for row in found} == expected
    assert len(found) == len(expected)


@pytest.mark.parametrize(
    ("ids", "integer", "first"),
    [
        (["10", "9", "-1"], True, ["-1", "9", "10"]),
        (["18446744073709551615", "9"], True, ["9", "18446744073709551615"]),
        (["10", "9", "é", "z", "Z"], False, ["10", "9", "Z", "z", "é"]),
        ([], True, []),
    ],
)
def test_first_ids(ids, integer, first):
    array = pa.array(ids, pa.string())
    assert first_ids(array, array, integer=integer) == first


def packed(rows: pa.RecordBatch) -> list[glue_job.Packed]:
    """Rows of the table as blocks."""
    return [glue_job.Packed(glue_job.TABLE_BLOCK, 0, 0, pa.py_buffer(data)) for data in pack(rows)]


def test_zeros_before_a_padded_key_do_not_count():
    rows = pa.RecordBatch.from_arrays([pa.array(["000007", "000000", "123456"])], names=["c0"])
    assert KeyedRows(packed(rows), TableKeys(1, 0, unique=True, zerofill=True, integer=True)).match.to_pylist() == [
        "7",
        "0",
        "123456",
    ]


def test_a_tasks_output_is_cut_by_bytes_not_by_records(monkeypatch):
    """A thousand records that all take one large row of the table."""
    monkeypatch.setattr(glue_job, "GROUP_BYTES", 1_000_000)
    keys = TableKeys(2, 0, unique=True, zerofill=False, integer=True)
    rows = packed(pa.RecordBatch.from_pydict({"c0": ["1"], "c1": ["x" * 100_000]}))
    left_out = glue_job.LeftOut()
    left_out.without_key = 3
    [block] = glue_job.blocks_of([left_out.summary()])
    table = KeyedRows([*rows, block], keys)
    task = glue_job.OverlayTask(("id", "v"), (("id",),), [0], ("id", "v"), keys, glue_job.CsvFormat(), 1_000)
    records = pa.RecordBatch.from_arrays(
        [pa.array(range(100)), pa.array(["1"] * 100), pa.array(["1"] * 100)], schema=glue_job.source_schema(1)
    )
    tally = glue_job.Tally(2)
    batches = list(glue_job.overlay_records([(0, records)], table, task, tally))
    assert 9 <= len(batches) <= 12
    assert max(batch.nbytes for batch in batches) < 1_200_000
    summary = json.loads(tally.summary(table, integer=True))
    assert summary["units"] == [[0, 100, 100 * 100_003]]
    assert (summary["matched"], summary["source_duplicates"], summary["table_rows"]) == (100, 99, 4)
