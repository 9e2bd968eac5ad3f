"""The commands: `run` acts as the Glue service for one run, `report` shows its report, `demo` a whole pipeline."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from local import demo, outcome
from local.glue.service import RunnerError, client, read_definition, run_job
from local.pages import report
from local.services.databases import MariaDB, PostgreSQL
from local.services.processes import ServiceError, exit_on_sigterm

USAGE = (
    "python -m local run JOB_NAME [--key value ...]  |  python -m local report RUN.json [PAGE.html]  |  "
    "python -m local demo [--keep] [--pictures] [--english] [--postgresql]  |  "
    "python -m local try MY.json MY.csv|MY.sql KEY [--keep] [--english] [--postgresql]"
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
    overrides, began = dict(zip(names, values, strict=True)), datetime.now(UTC)
    status = run_job(job_name, overrides)
    defaults = read_definition(client("glue", os.environ), job_name).get("DefaultArguments", {})
    given = {**defaults, **overrides, "--JOB_NAME": job_name}
    for line in outcome.lines_after(given, client("s3", os.environ), began):
        print(line)
    return status


def choices(flags: Sequence[str]) -> demo.Choices:
    """What the flags of a demo say."""
    return demo.Choices(
        language="en" if "--english" in flags else "ja",
        server=PostgreSQL if "--postgresql" in flags else MariaDB,
        keep="--keep" in flags,
        pictures="--pictures" in flags,
    )


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
        flags = [argument for argument in arguments if argument.startswith("--")]
        files = [argument for argument in arguments if not argument.startswith("--")]
        if set(flags) <= {"--keep", "--pictures", "--english", "--postgresql"}:
            if command == "demo" and not files:
                return demo.main(choices(flags))
            if command == "try" and len(files) == 3 and all(files):  # noqa: PLR2004
                return demo.try_own(choices(flags), Path(files[0]), Path(files[1]), files[2])
    except (RunnerError, ServiceError) as error:
        raise SystemExit(str(error)) from None
    except KeyboardInterrupt:
        return 130
    raise SystemExit(f"usage: {USAGE}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
