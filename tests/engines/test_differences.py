"""Cells that the source overrides: counted and listed alike by both engines, on both databases."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

SOURCE = b"""{"id":1,"name":"A","zip":"001"}
{"id":"002","name":"B","zip":null,"memo":"x"}
{"id":3,"name":"a, b","zip":"9"}
{"id":4,"name":"new"}
"""
LISTED = b"""id,column,source,table
1,name,A,a
002,name,B,b
3,name,"a, b",c
3,zip,9,003
"""


@pytest.mark.parametrize(
    ("server", "engine"), [("pipeline", "driver"), ("pipeline", "spark"), ("on_postgresql", "driver")]
)
def test_overridden_cells_are_counted_and_listed(request, slack, server, engine):
    pipeline = request.getfixturevalue(server)
    pipeline.engine, name = engine, pipeline.name
    pipeline.sql(
        f"CREATE TABLE {name} (id INT PRIMARY KEY, zip CHAR(3), name VARCHAR(9))",
        f"INSERT INTO {name} VALUES (1, '001', 'a'), (2, '002', 'b'), (3, '003', 'c'), (5, NULL, 'e')",
    )
    pipeline.put(SOURCE)
    plain = pipeline.run()
    assert plain.counts.overridden == {}
    output = pipeline.output()
    s3, key = pipeline.aws.client("s3"), f"out/{name}.differences.csv"
    result = pipeline.run(differences_file=key, language="en")
    assert result.counts.overridden == {"name": 3, "zip": 1}
    assert pipeline.output() == output
    assert s3.get_object(Bucket="lake", Key=key)["Body"].read() == LISTED
    assert result.differences_file["rows"] == 4
    assert "ℹ️ Values of the table that the source overrides: `name` 3, `zip` 1" in str(slack.messages[-1])
    report = json.loads(s3.get_object(Bucket="lake", Key=f"out/{name}.csv.report.json")["Body"].read())
    assert report["overridden"] == {"name": 3, "zip": 1}
    assert report["differences_file"]["url"] == f"s3://lake/{key}"
    pipeline.limits = replace(pipeline.limits, differences_max=2)
    pipeline.run(differences_file=key, language="en", columns='["id", "zip", {"from": "name", "as": "full"}]')
    assert s3.get_object(Bucket="lake", Key=key)["Body"].read() == b"".join(LISTED.splitlines(keepends=True)[:3])
    counted = pipeline.run(count_overridden="true")
    assert (counted.counts.overridden, counted.differences_file) == ({"name": 3, "zip": 1}, None)
