"""`python -m bench.contestants NAME`: one contestant in a process of its own; prints `RESULT {json}`."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from importlib.metadata import version

from bench.contestants import VARIABLE, Contestant, Task


def main(name: str) -> None:
    """Runs a contestant; `seconds` begins after the imports, as the job's begins after the start of Spark."""
    task = Task(**json.loads(os.environ[VARIABLE]))
    contestant: Contestant = importlib.import_module(f"bench.contestants.{name}")
    began = time.monotonic()
    counts = contestant.run(task)
    result = {"seconds": time.monotonic() - began, "libraries": {name: version(name) for name in contestant.LIBRARIES}}
    print("RESULT", json.dumps({**result, **counts}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
