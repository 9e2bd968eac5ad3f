"""Generated sources and tables on every database, by every driver, with every CSV option: the bytes of the oracle.

The driver engine on many, S3 in memory, so that little data makes many parts; Spark, whole runs, on a few.
"""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from overlay import aws as job_aws
from overlay.arguments import read_settings
from overlay.engines import sieve
from overlay.engines.driver import DriverEngine
from overlay.engines.engine import Inputs, Output
from overlay.engines.rows import RowReader
from overlay.errors import OutputError
from overlay.limits import Limits
from overlay.table import lookup
from overlay.table.describe import describe_table
from tests.agreement import assert_agrees
from tests.conftest import NUMBERS
from tests.engines.pairs import Pair, expectation, fill_table, make_pair, unmatched_list
from tests.memory_s3 import MemoryS3

EXAMPLES = 25  # on each database, by each driver; the soak has any number
SPARK_EXAMPLES = 1
SERVERS = ("pipeline", "by_connector_j", "on_postgresql")
CSV, LIST = "out/a.csv", "out/a.ids"


def run_driver_engine(pipeline, pair: Pair, monkeypatch, plan: str) -> tuple[MemoryS3, Output | None]:
    """What the driver engine leaves in S3, and its answer; None where a character does not exist in the encoding."""
    s3 = MemoryS3(pair.limits, **{f"in/{number}": data for number, data in enumerate(pair.objects)})
    pipeline.limits = pair.limits
    changes = pair.all_arguments(pipeline.dialect.quote_name)
    arguments = pipeline.arguments(source_key="in/", destination_file=CSV, unmatched_file=LIST, **changes)
    settings, sources = read_settings(arguments, pair.limits), s3.sources()
    table = describe_table(pipeline.target(), settings)
    assert (table.unique, table.indexed) == (pair.unique, True)
    assert table.names == tuple(name for name in pair.columns if name in names_read(pair))
    with monkeypatch.context() as patch:
        patch.setattr(job_aws, "client", lambda *_: s3)
        patch.setattr(os, "sched_getaffinity", lambda _pid: range(pair.cores))
        patch.setattr(lookup, "lookup_reason", lambda *_: "few_ids" if plan == "lookup" else "many_ids")
        patch.setattr(RowReader, "_is_by_index", lambda *_: True)  # the optimizer scans a table of a few rows
        patch.setattr(sieve, "SIFTED_ROWS", 2)  # so that likely rows are looked at exactly more than once
        engine = DriverEngine(Inputs(settings, sources, table))
        try:
            engine.read_source()
            engine.overlay()
            output = engine.publish()
            assert engine.plan.name == plan
        except OutputError as error:
            assert error.code == "not_encodable"
            output = None
        finally:
            engine.close()
    return s3, output


def names_read(pair: Pair) -> set[str]:
    """The columns of the table that have to be read: all, unless some are chosen and no row has to be among equals."""
    if not (pair.chosen_columns and pair.unique):
        return set(pair.columns)
    names = (column if isinstance(column, str) else column["from"] for column in pair.chosen_columns)
    return {pair.table_key, *names}


def check_driver_engine(pipeline, pair: Pair, monkeypatch, plan: str) -> bool:
    """Compares bytes, counts and list with the oracle's; says whether there are any in the encoding."""
    expected, listed = expectation(pair), unmatched_list(pair)
    s3, output = run_driver_engine(pipeline, pair, monkeypatch, plan)
    assert not s3.uploads
    if expected is None or listed is None:
        assert output is None
        assert not {CSV, LIST} & set(s3.objects)  # neither is seen without the other
        return False
    assert output is not None
    assert s3.objects[CSV] == expected.csv
    assert s3.objects[LIST] == listed
    counts = {**output.counts.as_dict(), "columns": list(output.columns)}
    assert {name: counts[name] for name in expected.counts} == expected.counts
    assert (output.csv.rows, output.csv.bytes) == (expected.counts["source_records"], len(expected.csv))
    assert output.unmatched is not None
    assert output.unmatched.bytes == len(listed)
    return True


@pytest.mark.parametrize("server", SERVERS)
def test_the_driver_engine_gives_the_bytes_of_the_oracle(request, monkeypatch, server):
    pipeline = request.getfixturevalue(server)
    published = 0
    for number in range(EXAMPLES):
        seed = f"{server}-{number}"
        pair = make_pair(seed, nul=not pipeline.on_postgresql)
        fill_table(pipeline, pair)
        try:
            published += check_driver_engine(pipeline, pair, monkeypatch, ("lookup", "scan")[number % 2])
        except Exception as error:
            error.add_note(f"the pair of seed {seed!r}")
            raise
    assert EXAMPLES * 0.8 < published < EXAMPLES


@pytest.mark.parametrize("server", SERVERS)
def test_the_spark_engine_gives_the_bytes_of_the_oracle(request, server):
    pipeline = request.getfixturevalue(server)
    pipeline.engine = "spark"
    done, number = 0, 0
    while done < SPARK_EXAMPLES:
        pair = make_pair(f"spark:{server}:{number}", nul=not pipeline.on_postgresql)
        number += 1
        done += run_spark_engine(pipeline, pair)


def run_spark_engine(pipeline, pair: Pair, *, any_size: bool = False) -> bool:
    """Compares a whole run with the oracle, of pairs that tell most, as it takes seconds; says whether it ran."""
    expected, listed = expectation(pair), unmatched_list(pair)
    tells_much = min(len(pair.rows_there), len(pair.objects)) >= 3 and pair.where_columns and pair.chosen_columns
    if expected is None or listed is None or not (any_size or tells_much):
        return False
    fill_table(pipeline, pair)
    pipeline.limits = replace(pair.limits, part_bytes=Limits().part_bytes, part_bytes_min=Limits().part_bytes_min)
    folder = f"pairs/{pipeline.name}-{next(NUMBERS)}/"
    for number, data in enumerate(pair.objects):
        pipeline.put(data, f"{folder}{number}.json")
    ids = f"out/{pipeline.name}.ids"
    result = pipeline.run(source_key=folder, unmatched_file=ids, **pair.all_arguments(pipeline.dialect.quote_name))
    assert (result.engine, result.plan) == ("spark", "scan")
    assert_agrees(pipeline, result, expected)
    assert pipeline.aws.client("s3").get_object(Bucket="lake", Key=ids)["Body"].read() == listed
    return True
