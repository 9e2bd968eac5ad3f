"""The benchmark: every contestant does the same job, the measuring measures, the page says what the numbers say."""

from __future__ import annotations

import collections
import copy
import json
import sys
import textwrap
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import data, plot, report, scaling
from bench.__main__ import BEGIN, END, main, parse
from bench.measure import GIB, ROOT, Limits, measure
from bench.report import JOB, WARM
from bench.stage import SERVER_OPTIONS, Case, Stage, differences, fingerprint
from bench.suite import PEER_PYTHON, WARM_ROWS, Options, Suite, check_peers, parse_cases
from local.services import Aws, MariaDB, ServiceError

MIB = 1024**2
LIMITS = Limits(300, 4 * GIB)
RECORDS, ROWS = 300, 1_000


@pytest.fixture(scope="module")
def stage(database: MariaDB, aws: Aws) -> Stage:
    """Servers with the table."""
    stage = Stage(database, aws)
    stage.make_table(ROWS)
    return stage


@pytest.fixture(scope="module")
def case(stage: Stage) -> Case:
    """The source on the table."""
    return stage.make_case(RECORDS)


@pytest.fixture
def published(stage: Stage) -> Iterator[Stage]:
    """The stage with nothing published yet."""
    stage.clear()
    assert stage.published() is None
    yield stage


def python(code: str) -> list[str]:
    """A command that runs Python code."""
    return [sys.executable, "-c", textwrap.dedent(code)]


@pytest.mark.parametrize("name", ["polars", "duckdb", "pandas", "loop"])
def test_peers_publish_what_the_oracle_does(published: Stage, case: Case, name: str) -> None:
    check_peers([name])  # make bench-setup puts them there; make test does that first
    run = published.run_peer(PEER_PYTHON, name, case, LIMITS)
    assert run.status == "ok", run.log
    assert differences(case, published.published(), run.result) == []
    assert {"matched", "unmatched", "unmatched_ids", "seconds", "libraries"} <= run.result.keys()


def test_job_publishes_the_oracles_bytes_with_its_session_start_apart(published: Stage, case: Case) -> None:
    run = published.run_job("1g", LIMITS, runs=2)  # the second one is timed, and publishes the same
    assert run.status == "ok", run.log
    found = published.published()
    assert found == case.expected
    assert differences(case, found, run.result) == []
    assert run.result["session"] > 0
    assert run.result["session"] + run.result["seconds"] < run.wall


def test_floor_writes_as_many_bytes_as_the_csv_has(published: Stage, case: Case, aws: Aws) -> None:
    run = published.run_peer(PEER_PYTHON, "floor", case, LIMITS)
    assert run.status == "ok", run.log
    head = aws.client("s3").head_object(Bucket="bench-output", Key="out/big.csv")
    assert head["ContentLength"] == case.expected.bytes


def test_loop_that_would_take_too_long_is_extrapolated(published: Stage, case: Case) -> None:
    run = published.run_peer(PEER_PYTHON, "loop", case, LIMITS, seconds=0.001, sample_seconds=0)
    assert run.status == "ok", run.log
    assert run.result["done"] == 100
    assert run.result["extrapolated"] > 0
    assert published.published() is None


def test_differences_name_counts_columns_and_missing_rows(case: Case, tmp_path: Path) -> None:
    rows = [dict.fromkeys(data.OUTPUT_COLUMNS, "1") for _ in range(RECORDS)]
    path = tmp_path / "out.csv"

    def write(**cells: str) -> Path:
        lines = [",".join(data.OUTPUT_COLUMNS), *(",".join((row | cells).values()) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
        return path

    ones = Case(RECORDS, ROWS, 0, fingerprint(write()), {"matched": 7})
    assert differences(ones, fingerprint(write()), {"matched": 7, "seconds": 1}) == []
    assert differences(ones, fingerprint(write(qty="1.0")), {"matched": 8}) == ["matched", "column qty"]
    rows[0] = rows[0] | {"name": "12", "price": ""}
    assert differences(ones, fingerprint(write()), {}) == ["column name", "column price"]
    del rows[0]
    assert differences(ones, fingerprint(write()), {}) == ["299 rows"]
    assert differences(ones, None, {}) == ["no output"]


def test_fingerprint_does_not_depend_on_quotes_but_on_the_order_of_rows(tmp_path: Path) -> None:
    header = ",".join(data.OUTPUT_COLUMNS)

    def columns(first: str, second: str) -> Any:
        path = tmp_path / "out.csv"
        path.write_text(f"{header}\n{first}{',' * 11}\n{second}{',' * 11}\n")
        return fingerprint(path).columns

    assert columns("1", "2") == columns('"1"', "2")
    assert columns("1", "2") != columns("2", "1")
    assert columns("1", "23") != columns("12", "3")


def test_memory_and_cpu_of_children_are_measured(tmp_path: Path) -> None:
    run = measure(
        python(
            """
            import subprocess, sys, time
            child = 'import time; held = b"x" * (200 << 20); end = time.process_time() + 1\\n'
            child += 'while time.process_time() < end: pass\\ntime.sleep(1)'
            process = subprocess.Popen([sys.executable, "-c", child])
            held = b"y" * (100 << 20)
            process.wait()
            print('RESULT {"a": 1}'); print('x RESULT {"b": 2}'); print("bye")
            """
        ),
        {},
        LIMITS,
    )
    assert run.status == "ok"
    assert 300 * MIB < run.peak < 400 * MIB
    assert 1.0 < run.cpu < 4.0
    assert run.wall > 2.0
    assert run.result == {"a": 1, "b": 2}
    assert run.log == ["bye"]


def test_cpu_of_a_process_left_behind_is_measured_and_it_is_ended() -> None:
    run = measure(
        python(
            """
            import subprocess, sys
            code = "import time\\nwhile time.process_time() < 1: pass\\nprint(flush=True)\\nwhile True: pass"
            child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE)
            child.stdout.readline()
            print(child.pid)
            """
        ),
        {},
        LIMITS,
    )
    assert run.status == "ok"
    assert run.cpu > 0.5
    assert not Path(f"/proc/{run.log[0]}").exists()


@pytest.mark.parametrize(
    ("code", "limits", "status"),
    [
        ("import time; time.sleep(60)", Limits(0.5, GIB), "out of time"),
        ("import time; held = b'x' * (300 << 20); time.sleep(60)", Limits(60, 200 * MIB), "out of memory"),
        ("raise MemoryError", LIMITS, "out of memory"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", LIMITS, "out of memory"),
        ("raise SystemExit(3)", LIMITS, "failed"),
    ],
)
def test_status_says_why_there_are_no_numbers(code: str, limits: Limits, status: str) -> None:
    assert measure(python(code), {}, limits).status == status


def test_suite_takes_turns_and_writes_its_json_after_every_case(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.suite.memory_limit", lambda: LIMITS.memory)  # whatever else runs here
    target = tmp_path / "benchmark.json"
    options = Options([(100, ROWS), (RECORDS, ROWS)], ["duckdb", "floor"], 2, 300.0)
    suite = Suite(stage, options, target, "python -m bench")
    turns = []

    class StopError(Exception):
        pass

    def watched(name: str, case: Case) -> dict[str, Any]:
        turns.append(name)
        if case.records == RECORDS:
            raise StopError
        return run_one(name, case)

    run_one, suite._one = suite._one, watched
    with pytest.raises(StopError):
        suite.run()
    assert turns[:4] == ["duckdb", "floor", "floor", "duckdb"]
    [kept] = json.loads(target.read_text())["cases"]
    assert (kept["records"], kept["rows"]) == (100, ROWS)
    for runs in kept["runs"].values():
        assert [(run["status"], run["seconds"] > 0, run["peak"] > 0) for run in runs] == [("ok", True, True)] * 2
    assert [run["differs"] for run in kept["runs"]["duckdb"]] == [[], []]


def test_who_runs_out_of_time_is_not_run_again_there_or_at_anything_larger(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.suite.memory_limit", lambda: LIMITS.memory)
    options = Options([(100, ROWS), (RECORDS, ROWS)], ["floor"], 3, 0.05)
    suite = Suite(stage, options, tmp_path / "benchmark.json", "python -m bench")
    suite.run()
    first, second = [case["runs"]["floor"] for case in suite.results["cases"]]
    assert [run["status"] for run in first] == ["out of time"]
    assert second == [{"status": "out of time", "at": "100 x 1k"}]


def test_cases_are_ordered_by_table_and_wrong_ones_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_cases("1Mx20M,20kx2M,300x20M,1Mx20M") == [
        (20_000, 2_000_000),
        (300, 20_000_000),
        (1_000_000, 20_000_000),
    ]
    for wrong in (["--cases", "20k"], ["--contestants", "job,spark"]):
        with pytest.raises(SystemExit):
            parse(wrong)
    assert "no such contestant: spark" in capsys.readouterr().err


# Seconds and GiB of the job on each case: within every bound, and no more.
JOB_RUNS = {
    (20_000, 2_000_000): (4.0, 1.0),
    (1_000_000, 2_000_000): (10.0, 2.0),
    (5_000_000, 2_000_000): (50.0, 2.5),
    (20_000, 20_000_000): (6.2, 1.0),
    (1_000_000, 20_000_000): (30.0, 2.0),
    (5_000_000, 20_000_000): (65.0, 2.2),
}
PEER_SECONDS = {"polars": 10.0, "duckdb": 31.0, "pandas": 200.0, "loop": 1_000.0, "floor": 5.0}


def one_run(seconds: float, gib: float, **more: Any) -> dict[str, Any]:
    return {"status": "ok", "seconds": seconds, "wall": seconds + 5, "cpu": 9.0, "peak": int(gib * GIB), **more}


@pytest.fixture
def results() -> dict[str, Any]:
    """What a whole run of the benchmark left."""
    cases = []
    for (records, rows), (seconds, gib) in JOB_RUNS.items():
        times = (seconds, seconds * 9, seconds / 2)
        runs = {JOB: [one_run(each, gib, session=4.0, plan="scan", differs=[]) for each in times]}
        if rows == WARM_ROWS:
            runs[WARM] = [one_run(seconds / 3, gib + 1, session=4.0, plan="scan", differs=[])]
        for name, peer_seconds in PEER_SECONDS.items():
            runs[name] = [one_run(peer_seconds, 3.0)]
        if rows > 2_000_000:
            runs["polars"] = [{"status": "out of memory", "at": "20k x 20M"}]
        runs["loop"][0] |= {"done": 100}
        sizes = {"records": records, "rows": rows, "source_bytes": 12 * MIB, "output_bytes": 11 * MIB}
        cases.append({**sizes, "runs": runs})
    return {
        "date": "2026-01-02",
        "command": "python -m bench",
        "repeats": 3,
        "heap": "4g",
        "seconds_limit": 600.0,
        "machine": {"cpu": "a processor", "cores": 2, "architecture": "x86_64", "memory": 8 * GIB},
        "versions": {"commit": "abc1234", "Python": "3.11.9"},
        "tables": [
            {"rows": rows, "seconds": 9.0, "bytes": GIB, "count_seconds": seconds}
            for rows, seconds in ((2_000_000, 0.1), (20_000_000, 1.0))
        ],
        "cases": cases,
    }


def test_targets_at_their_bounds_are_met(results: dict[str, Any]) -> None:
    found = [(one.case, one.measured, one.verdict) for one in report.targets(results)]
    assert found == [
        ("20k x 20M", "0.20 x of DuckDB, table as Arrow", "met"),
        ("20k x 20M", "1.30 x after 1.0 s of COUNT(*)", "met"),
        ("1M x 2M", "1.00 x of polars + connectorx", "met"),
        ("5M x 20M", "ok", "met"),
        ("5M x 20M", "1.30 x per source record (0.78 x per row of source and table)", "met"),
        ("1M to 5M records", "1.25 x", "met"),
        ("1M x 2M", "2.00 x", "met"),
        ("1M x 2M", "100.00 x", "met"),
    ]


def test_targets_missed_by_a_little_are_not_met(results: dict[str, Any]) -> None:
    for case in results["cases"]:
        rows, records = case["rows"], case["records"]
        factor = {(20_000, 20_000_000): 1.02, (1_000_000, 2_000_000): 1.01, (5_000_000, 20_000_000): 1.03}
        for run in case["runs"][JOB]:
            run["seconds"] *= factor.get((records, rows), 1)
            run["peak"] += records // 5_000_000 * MIB
    verdicts = [one.verdict for one in report.targets(results)]
    assert verdicts == ["not met", "not met", "not met", "met", "not met", "not met", "not met", "not met"]


def test_targets_without_their_cases_are_not_measured(results: dict[str, Any]) -> None:
    results["cases"] = []
    assert {one.verdict for one in report.targets(results)} == {"not measured"}


def test_job_that_runs_out_of_memory_misses_and_peers_that_do_lose(results: dict[str, Any]) -> None:
    largest, small = results["cases"][-1], results["cases"][3]
    largest["runs"][JOB] = [{"status": "out of memory"}]
    for name in ("polars", "duckdb", "pandas"):
        small["runs"][name] = [{"status": "out of time"}]
    found = [(one.measured, one.verdict) for one in report.targets(results)]
    assert found[0] == ("every peer ran out of time or memory", "met")
    assert found[3] == ("out of memory", "not met")
    assert found[4] == ("-", "not measured")


def test_runs_before_one_that_ran_out_count_and_it_is_told(results: dict[str, Any]) -> None:
    largest = results["cases"][-1]["runs"]
    largest["duckdb"] = [one_run(50.0, 3.0), one_run(54.0, 5.0), {"status": "out of memory"}]
    largest["pandas"] = [one_run(50.0, 3.0), {"status": "failed"}]
    page = report.markdown(results, [])
    assert "| 52.0 | 50.0 - 54.0 | 9.0 | 4.00 | 57.0 | 2 runs, then out of memory |" in page
    assert "| pandas merge + SQLAlchemy/PyMySQL | failed | - |" in page


def test_peer_that_breaks_is_no_peer_beaten(results: dict[str, Any]) -> None:
    for name in ("polars", "duckdb", "pandas"):
        results["cases"][3]["runs"][name] = [{"status": "failed"}]
    assert next(report.targets(results)) == report.Verdict(
        "20k x 20M", "at most 1/5 of the best peer's time", "a peer failed", "not measured"
    )


def test_page_tells_medians_statuses_and_remarks(results: dict[str, Any]) -> None:
    results["cases"][0]["runs"]["pandas"][0]["differs"] = ["column qty"]
    page = report.markdown(results, ["--some-option"])
    assert "## 20k x 2M (source 12.0 MiB, CSV 11.0 MiB)" in page
    job = "| this job | 4.0 | 2.0 - 36.0 | 9.0 | 1.00 | 9.0 | scan plan; Spark session started in 4.0 s before |"
    assert job in page
    assert "| this job, again in its session | 1.3 | 1.3 - 1.3 | 9.0 | 2.00 | 6.3 | scan plan; Spark" in page
    assert page.count("again in its session |") == 3  # the tables of 2M rows
    assert "| polars + connectorx | out of memory at 20k x 20M | - | - | - | - |  |" in page
    assert "| extrapolated from a sample of 30 s |" in page
    assert "**differs: column qty**" in page
    assert "| 1M x 2M | at least 100 x faster than the loop | 100.00 x | met |" in page
    assert "`--some-option`" in page
    assert max(map(len, page.split("## Method")[1].split("| --- |")[0].splitlines())) <= 120


def test_plot_is_wellformed_for_both_themes_and_has_a_curve_for_each(results: dict[str, Any]) -> None:
    text = plot.svg(results)
    root = ET.fromstring(text)
    groups = [element.get("class") for element in root.iter("{http://www.w3.org/2000/svg}g")]
    # Each has its legend and a curve in four panels, but for the peer that finished on one table alone.
    assert collections.Counter(filter(None, groups)) == {**dict.fromkeys(plot.LOOKS, 5), "polars": 3}
    assert "prefers-color-scheme:dark" in text
    assert text == plot.svg(copy.deepcopy(results))
    numbers = [float(y) for y in (e.get("y") for e in root.iter("{http://www.w3.org/2000/svg}text")) if y]
    assert min(numbers) > 0
    assert max(numbers) < float((root.get("viewBox") or "").split()[3])


def test_report_renders_page_and_plot_from_the_json(
    results: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "benchmark.json").write_text(json.dumps(results))
    assert main(["--report", "--output", str(tmp_path)]) == 0
    assert "100.00 x" in capsys.readouterr().out
    assert (tmp_path / "benchmark.md").read_text().startswith("# Benchmark\n")
    assert (tmp_path / "benchmark.svg").read_text() == plot.svg(results)


def test_model_gives_back_what_made_the_numbers(results: dict[str, Any]) -> None:
    for case in results["cases"]:
        records, rows = case["records"] / 1e6, case["rows"] / 1e6
        case["runs"][JOB] = [one_run(30 + records, 1.0, plan="scan") | {"cpu": 10 + 2 * records + 3 * rows}]
        case["runs"]["floor"] = [one_run(1 + rows / 2, 1.0, lookup=False)]
    model = scaling.fit(results)
    assert (model.fixed, model.record, model.row, model.delivery) == pytest.approx((30.02, 2, 3, 0.55))
    # 10 M records and 100 M rows: 320 core-seconds; 4 cores of which 70 % are used, or 55 s of the database.
    assert model.seconds(10_000_000, 100_000_000, 2) == pytest.approx((30.02 + 320 / 4 / 0.7, False))
    assert model.seconds(10_000_000, 100_000_000, 50) == pytest.approx((85.02, True))
    assert "| 10M x 100M | 2.4 min, $0.05 |" in "\n".join(scaling.lines(results))


def test_model_is_not_made_of_too_few_sizes(results: dict[str, Any]) -> None:
    results["cases"] = results["cases"][:2]
    with pytest.raises(ValueError, match="too few sizes"):
        scaling.fit(results)


def test_pages_show_what_was_measured() -> None:
    results = json.loads((ROOT / "docs" / "benchmark.json").read_text())
    assert (ROOT / "docs" / "benchmark.md").read_text() == report.markdown(results, SERVER_OPTIONS)
    assert (ROOT / "docs" / "benchmark.svg").read_text() == plot.svg(results)
    overview, model = "\n".join(report.overview(results)), "\n".join(scaling.lines(results))
    for name, text in (("README.md", overview), ("README.en.md", overview), ("docs/scaling.md", model)):
        assert f"{BEGIN}\n\n{text}\n\n{END}" in (ROOT / name).read_text()


def test_missing_peers_are_told_of_before_anything_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.suite.PEER_PYTHON", Path(__file__).resolve().parent.parent / ".venv-none")
    check_peers([JOB])
    with pytest.raises(ServiceError, match=r"^\.venv-none is missing. Run: make bench-setup$"):
        check_peers([JOB, "polars"])
