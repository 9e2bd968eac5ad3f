"""The job's process in a measurement: local/bootstrap.py, but the Spark session is started, and timed, before it.

    python job_process.py SCRIPT [ARGUMENT ...]

Prints `RESULT {json}`: `session` is the seconds until there was a session that can plan SQL (which Spark makes
when it is first asked to), `seconds` those from then to the job's end.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

LOCAL = Path(__file__).resolve().parent.parent / "local"


def main() -> None:
    """Runs the script that the first argument names."""
    began = time.monotonic()
    sys.path[0] = str(LOCAL)  # bootstrap takes it out again
    import bootstrap  # noqa: PLC0415
    from pyspark import __version__  # noqa: PLC0415  its import belongs to the start
    from pyspark.sql import SparkSession  # noqa: PLC0415

    SparkSession.builder.getOrCreate().sql("SELECT 1")
    ready = time.monotonic()
    bootstrap.main()
    ended = time.monotonic()
    result = {"session": ready - began, "seconds": ended - ready, "libraries": {"pyspark": __version__}}
    print("RESULT", json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
