"""Module `engines.cost`: which engine a run costs less on, from sizes and machines alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from overlay.engines.cost import (
    MEMORY_AT_LEAST,
    Machines,
    Work,
    choose,
    driver_bytes,
    driver_seconds,
    held_bytes,
    spark_seconds,
)

GIB = 2**30
SMALL = Work(source_bytes=3e6, rows=50_000, row_bytes=120, columns=12, reads_all=True)
BIG_TABLE = replace(SMALL, rows=500_000_000)
BIG_SOURCE = replace(SMALL, source_bytes=20e9, rows=500_000_000)
WORKER = Machines(cores=4, executor_cores=4, connections=40, memory=4 * GIB)  # two workers of G.1X


def workers(count: int) -> Machines:
    """So many workers of G.1X, one of which is the driver's."""
    return replace(WORKER, executor_cores=4 * (count - 1))


def test_what_nearly_everybody_has_runs_in_the_driver_whatever_the_number_of_workers():
    for count in (2, 10, 50):
        assert choose(SMALL, workers(count)) == ("driver", "small_source")
        assert choose(replace(SMALL, source_bytes=125e6, rows=2_000_000), workers(count)) == ("driver", "small_source")


def test_a_large_table_goes_to_many_workers():
    assert choose(BIG_TABLE, workers(50)) == ("spark", "large_table")


def test_one_core_of_executors_is_no_faster_than_the_driver():
    assert choose(BIG_TABLE, replace(WORKER, executor_cores=1)) == ("driver", "small_source")


def test_a_lookup_stays_in_the_driver_however_large_the_table_is():
    assert choose(replace(BIG_TABLE, reads_all=False), workers(50)) == ("driver", "small_source")


def test_a_source_that_does_not_fit_goes_to_spark():
    assert choose(BIG_SOURCE, workers(2)) == ("spark", "large_source")
    assert choose(replace(SMALL, source_bytes=1e6), replace(WORKER, memory=MEMORY_AT_LEAST)) == (
        "spark",
        "large_source",
    )


def test_wide_rows_do_not_fit_where_narrow_ones_do():
    source = replace(SMALL, source_bytes=50e6, rows=10_000_000)
    assert choose(source, workers(2))[0] == "driver"
    assert choose(replace(source, row_bytes=20_000), workers(2)) == ("spark", "large_source")


def test_what_may_be_held_is_what_an_estimate_lets_through():
    needed = driver_bytes(SMALL)
    assert held_bytes(needed) == pytest.approx(SMALL.source_bytes + SMALL.wanted_rows * SMALL.row_bytes)
    assert held_bytes(0) == 0


@pytest.mark.parametrize("seconds", [driver_seconds, spark_seconds])
def test_more_work_takes_longer(seconds):
    for change in ({"source_bytes": 4e9}, {"rows": 10**9}, {"columns": 5_000}):
        assert seconds(replace(SMALL, **change), WORKER) > seconds(SMALL, WORKER)


def test_the_database_bounds_what_more_executors_gain():
    assert spark_seconds(BIG_TABLE, workers(50)) == spark_seconds(BIG_TABLE, workers(1_000))
    one = replace(workers(50), connections=1)
    assert spark_seconds(BIG_TABLE, one) > 4 * spark_seconds(BIG_TABLE, workers(50))
    assert driver_seconds(BIG_TABLE, one) > driver_seconds(BIG_TABLE, workers(50))  # which reads by two
