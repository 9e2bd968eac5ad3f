"""`python -m bench.contestants NAME`: one contestant in a process of its own; prints `RESULT {json}`."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from importlib.metadata import version
from typing import Any

from bench.contestants import VARIABLE, Contestant, Task

# The modules of the contestants by the names that reports have. None has the name of a library: a module that
# imports polars and is called so would, started by its path, import itself.
MODULES = {
    "plain": "plain_pyspark",
    "polars": "with_polars",
    "duckdb": "with_duckdb",
    "pandas": "with_pandas",
    "loop": "row_by_row",
    "floor": "floor",
}


def main(name: str) -> None:
    """Runs a contestant; `seconds` begins after the imports, as the job's begins after the start of Spark."""
    task = Task(**json.loads(os.environ[VARIABLE]))
    began = time.monotonic()
    contestant: Contestant = importlib.import_module(f"bench.contestants.{MODULES[name]}")
    result: dict[str, Any] = {"libraries": {name: version(name) for name in contestant.LIBRARIES}}
    if start := getattr(contestant, "start", None):
        start()
        result["session"] = time.monotonic() - began
    began = time.monotonic()
    counts = contestant.run(task)
    result["seconds"] = time.monotonic() - began
    print("RESULT", json.dumps({**result, **counts}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
