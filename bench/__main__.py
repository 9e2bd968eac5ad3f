"""`make bench`: the job against what a user would pick instead, on the same data, in one run."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench import japanese, plot, report, scaling
from bench.measure import ROOT
from bench.stage import SERVER_OPTIONS, Stage
from bench.suite import CONTESTANTS, GRID, Options, Suite, check_peers, command_line, estimate, parse_cases
from local.services.aws import Aws
from local.services.databases import MariaDB
from local.services.processes import ServiceError, exit_on_sigterm

RUN_SECONDS = 600
DOCS = ROOT / "docs"
BEGIN, END = "<!-- made by make bench -->", "<!-- end -->"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--cases",
        type=parse_cases,
        default=parse_cases(GRID),
        help=f"records x rows, `array-` before them where the source is a JSON array; default: {GRID}",
    )
    parser.add_argument("--contestants", default=",".join(CONTESTANTS), help=f"default: {','.join(CONTESTANTS)}")
    parser.add_argument("--repeats", type=int, default=3, help="the median of so many runs counts; default: 3")
    parser.add_argument("--seconds", type=float, default=RUN_SECONDS, help="limit of a run; default: 600")
    parser.add_argument("--output", type=Path, default=DOCS, help="folder of benchmark.{json,md,svg}")
    parser.add_argument("--add", action="store_true", help="keep what benchmark.json has of other cases")
    parser.add_argument("--report", action="store_true", help="only render benchmark.json once more")
    options = parser.parse_args(argv)
    options.contestants = options.contestants.split(",")
    if unknown := set(options.contestants) - set(CONTESTANTS):
        parser.error(f"no such contestant: {', '.join(sorted(unknown))}")
    return options


def render(folder: Path) -> None:
    """Makes pages and plots of the JSON, and prints the tables."""
    results = json.loads((folder / "benchmark.json").read_text())
    for language, suffix in report.LANGUAGES.items():
        (folder / f"benchmark{suffix}.md").write_text(report.markdown(results, SERVER_OPTIONS, language))
        (folder / f"benchmark{suffix}.svg").write_text(plot.svg(results, language))
    print("\n".join(report.terminal(results)))
    if folder == DOCS:
        try:
            lines = list(scaling.lines(results))
        except ValueError as error:
            print(f"docs/scaling.md stays as it was: {error}.")
            return
        fill_block(DOCS / "scaling.en.md", lines)
        fill_block(DOCS / "scaling.md", map(japanese.line, lines))


def fill_block(page: Path, lines: Iterable[str]) -> None:
    """Puts lines between the marks of a page."""
    before, _, behind = page.read_text().partition(f"{BEGIN}\n")
    page.write_text("\n".join([f"{before}{BEGIN}", "", *lines, "", END + behind.partition(END)[2]]))


def main(argv: Sequence[str]) -> int:
    """Runs what the command line says."""
    exit_on_sigterm()
    arguments = parse(argv)
    if not arguments.report:
        check_peers(arguments.contestants)
        options = Options(arguments.cases, arguments.contestants, arguments.repeats, arguments.seconds)
        print(f"This takes up to about {estimate(options) / 60:.0f} minutes.", flush=True)
        target = arguments.output / "benchmark.json"
        with MariaDB(SERVER_OPTIONS) as database, Aws() as aws:
            suite = Suite(Stage(database, aws), options, target, command_line(argv))
            if arguments.add:
                suite.add_to(json.loads(target.read_text()))
            suite.run()
    render(arguments.output)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ServiceError as error:
        raise SystemExit(str(error)) from None
    except KeyboardInterrupt:
        sys.exit(130)
