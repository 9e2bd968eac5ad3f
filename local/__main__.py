"""The commands: `run` acts as the Glue service for one run, `report` shows its report, `demo` a whole pipeline."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from local import demo
from local.glue.service import RunnerError, run_job
from local.pages import report
from local.services.processes import ServiceError, exit_on_sigterm

USAGE = (
    "python -m local run JOB_NAME [--key value ...]  |  python -m local report RUN.json [PAGE.html]  |  "
    "python -m local demo [--keep] [--pictures]"
)


def run(arguments: Sequence[str]) -> int:
    """`python -m local run`: the exit status of the job."""
    if not arguments or arguments[0].startswith("--"):
        raise SystemExit(f"usage: {USAGE}")
    job_name, *pairs = arguments
    names, values = pairs[::2], pairs[1::2]
    wrong = next((name for name in names if not name.startswith("--")), None)
    if wrong or len(names) != len(values):
        message = f"expected --key value pairs after the job's name, at {wrong or names[-1]!r}\nusage: {USAGE}"
        raise SystemExit(message)
    if "--JOB_NAME" in names:
        raise SystemExit("--JOB_NAME is given by the service; name the job right after `run`")
    return run_job(job_name, dict(zip(names, values, strict=True)))


def main(argv: Sequence[str]) -> int:
    """Runs a command; returns the exit status."""
    exit_on_sigterm()
    command, *arguments = argv or [""]
    try:
        if command == "run":
            return run(arguments)
        if command == "report" and len(arguments) in {1, 2}:
            location, *page = arguments
            target = Path(page[0]) if page else Path("build") / f"{Path(location).name}.html"
            print(report.write(location, target))
            return 0
        if command == "demo" and set(arguments) <= {"--keep", "--pictures"}:
            return demo.main(keep="--keep" in arguments, pictures="--pictures" in arguments)
    except (RunnerError, ServiceError) as error:
        raise SystemExit(str(error)) from None
    except KeyboardInterrupt:
        return 130
    raise SystemExit(f"usage: {USAGE}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
