"""The first code of a job's process: starts its JVM and runs the script as `__main__`, as Glue does.

    python bootstrap.py SCRIPT [ARGUMENT ...]

It is started by path, from a folder that holds neither this repository nor its glue_job.py.
"""

from __future__ import annotations

import runpy
import sys
import threading
from pathlib import Path

from pyspark import SparkContext


def main() -> None:
    """Runs the script that the first argument names."""
    # Glue has a JVM before it has a script; here it starts while the script is imported, which saves a second.
    threading.Thread(target=SparkContext._ensure_initialized, daemon=True).start()
    sys.argv = sys.argv[1:]
    sys.path.remove(str(Path(__file__).parent))  # the script must not see our modules
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except Exception as error:
        if any(kind.__name__ == "JobError" for kind in type(error).__mro__):
            sys.exit(1)  # its log has said it, in the language of the run
        raise


if __name__ == "__main__":
    main()
