"""What Spark says of a worker that fails, as a run tells it: the line that says most, and no fault of the database."""

from __future__ import annotations

import pytest

from overlay.run import telling_line
from overlay.table.jdbc import causes, table_error
from tests.unit.test_jdbc_errors import DATABASES

CASES = {
    "an error in a worker": ('raise MemoryError("too much")', "MemoryError: too much"),
    "a worker that dies": ("import os; os._exit(1)", "org.apache.spark.SparkException: Job aborted"),
}


@pytest.mark.parametrize("case", CASES)
def test_an_exception_of_spark_is_told_by_the_line_that_says_most(spark, case):
    code, line = CASES[case]
    rows = spark.sparkContext.parallelize([1], 1).map(lambda _: exec(code))
    with pytest.raises(Exception, match="An error occurred while calling") as caught:
        rows._jrdd.count()
    assert telling_line(str(caught.value)).startswith(line)
    assert table_error(causes(caught.value), DATABASES["M"]) is None
