"""The benchmark: every contestant does the same job, the measuring measures, the page says what the numbers say."""

from __future__ import annotations

import collections
import copy
import json
import re
import sys
import textwrap
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import data, japanese, plot, report, scaling
from bench.__main__ import BEGIN, END, main, parse
from bench.data import CaseSize
from bench.measure import GIB, ROOT, Bounds, Measured, measure
from bench.report import JOB, MET, MISSED, NOT_MEASURED, PLAIN, SPARK, WARM, case_size
from bench.stage import SERVER_OPTIONS, Case, Fingerprint, Stage, Table, differences, fingerprint
from bench.suite import (
    CONTESTANTS,
    GRID,
    NO_ARRAYS,
    PEER_PYTHON,
    WARM_ROWS,
    Options,
    Suite,
    check_peers,
    estimate,
    parse_cases,
)
from local.services.aws import Aws
from local.services.databases import MariaDB
from local.services.processes import ServiceError
from overlay.engines.cost import DRIVER_FIXED

pytestmark = pytest.mark.long

MIB = 1024**2
BOUNDS = Bounds(300, 4 * GIB)
RECORDS, ROWS = 300, 1_000
EMPTY = Fingerprint(0, "", 0, {})


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
def array_case(stage: Stage, case: Case) -> Iterator[Case]:
    """The source as one array, in the place of its lines."""
    yield stage.make_case(case.size.records, array=True)
    stage.make_case(case.size.records)


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
    run = published.run_peer(PEER_PYTHON, name, case, BOUNDS)
    assert run.status == "ok", run.log
    assert differences(case, published.published(), run.result) == []
    assert {"matched", "unmatched", "unmatched_ids", "seconds", "libraries"} <= run.result.keys()


def test_peers_that_are_not_skipped_read_an_array_too(published: Stage, array_case: Case) -> None:
    check_peers(report.PEERS)
    for name in set(report.PEERS) - {PLAIN} - NO_ARRAYS.keys():
        published.clear()
        run = published.run_peer(PEER_PYTHON, name, array_case, BOUNDS)
        assert run.status == "ok", run.log
        assert differences(array_case, published.published(), run.result) == []


@pytest.mark.parametrize("size", ["case", "array_case"])
def test_plain_pyspark_differs_in_what_spark_prints_otherwise(
    published: Stage, size: str, request: pytest.FixtureRequest
) -> None:
    case = request.getfixturevalue(size)
    run = published.run_plain("1g", case, BOUNDS)
    assert run.status == "ok", run.log
    assert differences(case, published.published(), run.result) == ["column updated", "column active"]
    assert 0 < run.result["session"] < run.result["session"] + run.result["seconds"] < run.wall
    assert run.result["libraries"].keys() == {"pyspark"}


def test_job_on_the_spark_engine_reads_an_array(published: Stage, array_case: Case) -> None:
    run = published.run_job("1g", BOUNDS, engine="spark")
    assert run.status == "ok", run.log
    assert published.published() == array_case.expected
    assert run.result["engine"] == "spark"


def test_job_publishes_the_oracles_bytes_with_its_session_start_apart(published: Stage, case: Case) -> None:
    run = published.run_job("1g", BOUNDS, runs=2)  # the second one is timed, and publishes the same
    assert run.status == "ok", run.log
    output = published.published()
    assert output == case.expected
    assert differences(case, output, run.result) == []
    assert run.result["engine"] == "driver"
    assert run.result["session"] > 0
    assert run.result["session"] + run.result["seconds"] < run.wall


def test_floor_writes_as_many_bytes_as_the_csv_has(published: Stage, case: Case, aws: Aws) -> None:
    run = published.run_peer(PEER_PYTHON, "floor", case, BOUNDS)
    assert run.status == "ok", run.log
    head = aws.client("s3").head_object(Bucket="bench-output", Key="out/big.csv")
    assert head["ContentLength"] == case.expected.bytes


def test_loop_that_would_take_too_long_is_extrapolated(published: Stage, case: Case) -> None:
    run = published.run_peer(PEER_PYTHON, "loop", case, BOUNDS, seconds=0.001, sample_seconds=0)
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

    case_of_ones = Case(CaseSize(RECORDS, ROWS), 0, fingerprint(write()), {"matched": 7})
    assert differences(case_of_ones, fingerprint(write()), {"matched": 7, "seconds": 1}) == []
    assert differences(case_of_ones, fingerprint(write(qty="1.0")), {"matched": 8}) == ["matched", "column qty"]
    rows[0] = rows[0] | {"name": "12", "price": ""}
    assert differences(case_of_ones, fingerprint(write()), {}) == ["column name", "column price"]
    del rows[0]
    assert differences(case_of_ones, fingerprint(write()), {}) == ["299 rows"]
    assert differences(case_of_ones, None, {}) == ["no output"]


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
        BOUNDS,
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
        BOUNDS,
    )
    assert run.status == "ok"
    assert run.cpu > 0.5
    assert not Path(f"/proc/{run.log[0]}").exists()


@pytest.mark.parametrize(
    ("code", "bounds", "status"),
    [
        ("import time; time.sleep(60)", Bounds(0.5, GIB), "out of time"),
        ("import time; held = b'x' * (300 << 20); time.sleep(60)", Bounds(60, 200 * MIB), "out of memory"),
        ("raise MemoryError", BOUNDS, "out of memory"),
        ("raise SystemExit('java.lang.OutOfMemoryError' + '\\n\\tat a.frame' * 99)", BOUNDS, "out of memory"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", BOUNDS, "out of memory"),
        ("raise SystemExit(3)", BOUNDS, "failed"),
    ],
)
def test_status_says_why_there_are_no_numbers(code: str, bounds: Bounds, status: str) -> None:
    assert measure(python(code), {}, bounds).status == status


def test_suite_takes_turns_and_writes_its_json_after_every_case(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.suite.memory_limit", lambda: BOUNDS.memory)  # whatever else runs here
    target = tmp_path / "benchmark.json"
    options = Options([CaseSize(100, ROWS), CaseSize(RECORDS, ROWS)], ["duckdb", "floor"], 2, 300.0)
    suite = Suite(stage, options, target, "python -m bench")
    turns = []

    class StopError(Exception):
        pass

    def watched(name: str, case: Case) -> dict[str, Any]:
        turns.append(name)
        if case.size.records == RECORDS:
            raise StopError
        return run_one(name, case)

    run_one, suite._one = suite._one, watched
    with pytest.raises(StopError):
        suite.run()
    assert turns[:4] == ["duckdb", "floor", "floor", "duckdb"]
    [written_case] = json.loads(target.read_text())["cases"]
    assert (written_case["records"], written_case["rows"]) == (100, ROWS)
    for runs in written_case["runs"].values():
        assert [(run["status"], run["seconds"] > 0, run["peak"] > 0) for run in runs] == [("ok", True, True)] * 2
    assert [run["differs"] for run in written_case["runs"]["duckdb"]] == [[], []]


def test_who_runs_out_of_time_is_not_run_again_there_or_at_anything_larger(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.suite.memory_limit", lambda: BOUNDS.memory)
    options = Options([CaseSize(100, ROWS), CaseSize(RECORDS, ROWS)], ["floor"], 3, 0.05)
    suite = Suite(stage, options, tmp_path / "benchmark.json", "python -m bench")
    suite.run()
    first, second = [case["runs"]["floor"] for case in suite.results["cases"]]
    assert [run["status"] for run in first] == ["out of time"]
    assert second == [{"status": "out of time", "at": "100 x 1k"}]


class Nowhere:
    """Stands in for a stage: a run takes no time, and a contestant in `losers` runs out of memory."""

    rows = 0

    def __init__(self, losers: set[str]) -> None:
        self.losers, self.runs = losers, []

    def make_table(self, rows: int) -> Table:
        self.rows = rows
        return Table(rows, 1.0, GIB, 0.1)

    def make_case(self, records: int, *, array: bool) -> Case:
        self.size = CaseSize(records, self.rows, array)
        return Case(self.size, 1, EMPTY, {})

    def published(self) -> Fingerprint:
        return EMPTY

    def clear(self) -> None: ...

    def run_job(self, heap: str, bounds: Bounds, runs: int, engine: str) -> Measured:
        return self._run(f"job {runs} {engine}".strip())

    def run_plain(self, heap: str, case: Case, bounds: Bounds) -> Measured:
        return self._run("plain")

    def run_peer(self, python: Path, name: str, case: Case, bounds: Bounds) -> Measured:
        return self._run(name)

    def _run(self, name: str) -> Measured:
        self.runs.append((name, *self.size))
        lost = f"{name} {self.size.array}" in self.losers
        return Measured("out of memory" if lost else "ok", 1.0, 1.0, 1, {} if lost else {"seconds": 1.0}, [])


def suite_on(stage: Nowhere, target: Path, cases: str, *names: str) -> dict[str, Any]:
    """What a suite keeps of its runs."""
    suite = Suite(stage, Options(parse_cases(cases), names, 1, 9.0), target, "python -m bench")  # type: ignore[arg-type]
    suite.run()
    return {report.case_text(*report.case_size(case)): case["runs"] for case in suite.results["cases"]}


def test_each_contestant_is_run_in_its_way(tmp_path: Path) -> None:
    stage = Nowhere(set())
    suite_on(stage, tmp_path / "benchmark.json", "300x1k", *CONTESTANTS)
    ways = ["job 1", "job 1 spark", "job 2", "plain", "polars", "duckdb", "pandas", "loop", "floor"]
    assert stage.runs == [(way, 300, 1_000, False) for way in ways]


def test_array_is_for_those_who_gain_from_it(tmp_path: Path) -> None:
    stage = Nowhere(set())
    runs = suite_on(stage, tmp_path / "benchmark.json", "array-300x1k,300x1k", JOB, WARM, "duckdb", "loop")
    assert [name for name, *_, array in stage.runs if array] == ["job 1", "duckdb"]
    assert list(runs) == ["300 x 1k", "array of 300 x 1k"]
    assert runs["array of 300 x 1k"]["loop"] == [{"status": "skipped", "reason": NO_ARRAYS["loop"]}]
    assert WARM not in runs["array of 300 x 1k"]


def test_who_loses_to_lines_loses_to_an_array_but_not_the_other_way_round(tmp_path: Path) -> None:
    stage = Nowhere({"duckdb False", "polars True"})
    runs_of_cases = suite_on(stage, tmp_path / "benchmark.json", "300x1k,array-300x1k,300x2k", "duckdb", "polars")
    statuses = {case: {name: run["status"] for name, [run] in runs.items()} for case, runs in runs_of_cases.items()}
    assert statuses == {
        "300 x 1k": {"duckdb": "out of memory", "polars": "ok"},
        "array of 300 x 1k": {"duckdb": "out of memory", "polars": "out of memory"},
        "300 x 2k": {"duckdb": "out of memory", "polars": "ok"},
    }
    assert runs_of_cases["array of 300 x 1k"]["duckdb"][0]["at"] == "300 x 1k"


def test_source_as_an_array_holds_the_same_records() -> None:
    chunks = [b"\n".join(line.encode() for line in data.source_lines(records, ROWS)) for records in (3, 1)]
    text = b"\n".join(data.as_array(chunk, first=number == 0) for number, chunk in enumerate(chunks)) + b"]"
    assert json.loads(text) == [json.loads(line) for chunk in chunks for line in chunk.splitlines()]


def test_cases_are_ordered_by_table_and_wrong_ones_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_cases("1Mx20M,array-5Mx2M,5Mx2M,20kx2M,300x20M,1Mx20M") == [
        (20_000, 2_000_000, False),
        (5_000_000, 2_000_000, False),
        (5_000_000, 2_000_000, True),
        (300, 20_000_000, False),
        (1_000_000, 20_000_000, False),
    ]
    assert parse_cases(GRID) == [data.parse_case(text) for text in GRID.split(",")]
    assert parse([]).cases[0] == (30_000, 50_000, False)
    for wrong in (["--cases", "20k"], ["--cases", "lines-20kx2M"], ["--contestants", "job,java"]):
        with pytest.raises(SystemExit):
            parse(wrong)
    assert "no such contestant: java" in capsys.readouterr().err


def test_estimate_counts_no_run_that_is_skipped() -> None:
    lines, array = (Options(parse_cases(text), [JOB, WARM, "loop"], 1, 600.0) for text in ("5Mx2M", "array-5Mx2M"))
    alone = Options(array.cases, [JOB], 1, 600.0)
    assert estimate(array) == estimate(alone) < estimate(lines)


# Seconds and GiB of the job on each case: within every bound, and no more.
JOB_RUNS = {
    CaseSize(30_000, 50_000): (2.0, 0.5),
    CaseSize(20_000, 2_000_000): (5.0, 1.0),
    CaseSize(1_000_000, 2_000_000): (9.0, 2.19),
    CaseSize(5_000_000, 2_000_000): (50.0, 2.59),
    CaseSize(5_000_000, 2_000_000, array=True): (60.0, 2.59),
    CaseSize(20_000, 20_000_000): (6.0, 1.0),
    CaseSize(1_000_000, 20_000_000): (24.0, 2.37),
    CaseSize(5_000_000, 20_000_000): (27.0, 2.59),
}
SPARK_SECONDS = 128.75
PEER_SECONDS = {PLAIN: 12.0, "polars": 10.0, "duckdb": 30.0, "pandas": 200.0, "loop": 1_800.0, "floor": 4.5}


def one_run(seconds: float, gib: float, **more: Any) -> dict[str, Any]:
    return {"status": "ok", "seconds": seconds, "wall": seconds + 5, "cpu": 9.0, "peak": int(gib * GIB), **more}


@pytest.fixture
def results() -> dict[str, Any]:
    """What a whole run of the benchmark left."""
    cases = []
    for size, (seconds, gib) in JOB_RUNS.items():
        times = (seconds, seconds * 9, seconds / 2)
        facts = {"session": 4.0, "plan": "scan", "differs": []}
        runs = {JOB: [one_run(duration, gib, **facts, engine="driver") for duration in times]}
        runs[SPARK] = [one_run(SPARK_SECONDS, gib, **facts, engine="spark")]
        if size.rows == WARM_ROWS and not size.array:
            runs[WARM] = [one_run(seconds / 3, gib + 1, **facts, engine="driver")]
        for name, peer_seconds in PEER_SECONDS.items():
            runs[name] = [one_run(peer_seconds, 3.0)]
        if size.rows > 50_000:
            runs[PLAIN] = [one_run(300.0, 3.0, session=4.0, differs=["column active"])]
        if size.rows > 2_000_000:
            runs["polars"] = [{"status": "out of memory", "at": "20k x 20M"}]
        runs["loop"] = [{"status": "skipped", "reason": "why"}] if size.array else [runs["loop"][0] | {"done": 100}]
        when = "2026-01-01 on another" if size.rows > 2_000_000 else "2026-01-02 on a processor"
        sizes = {"source_bytes": 12 * MIB, "output_bytes": 11 * MIB}
        cases.append({**size._asdict(), "measured": when, **sizes, "runs": runs})
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
            for rows, seconds in ((50_000, 0.1), (2_000_000, 0.1), (20_000_000, 1.0))
        ],
        "cases": cases,
    }


def runs_of(results: dict[str, Any], records: int, rows: int) -> dict[str, Any]:
    """The runs of a case of JSON Lines."""
    [runs] = [case["runs"] for case in results["cases"] if report.case_size(case) == (records, rows, False)]
    return runs


def test_targets_at_their_bounds_are_met(results: dict[str, Any]) -> None:
    rows = [(target.case, target.measured, target.verdict) for target in report.targets(results)]
    assert rows == [
        ("30k x 50k", "2.00 s", MET),
        ("30k x 50k", "0.17 x", MET),
        ("20k x 2M", "0.50 x of polars + connectorx", MET),
        ("1M x 2M", "0.90 x of polars + connectorx", MET),
        ("1M x 2M", "2.00 x", MET),
        ("20k x 20M", "0.20 x of DuckDB, table as Arrow", MET),
        ("1M x 20M", "0.80 x of DuckDB, table as Arrow", MET),
        ("5M x 20M", "0.90 x of DuckDB, table as Arrow", MET),
        ("5M x 20M", "1.00 x: 2.59 GiB, 2.59 before", MET),
        ("1M x 2M", "200.00 x", MET),
        ("1M to 5M records", "1.00 x: 2.59 GiB, 2.59 before, at worst with 5M x 20M", MET),
        ("1M to 5M records", "1.00 x: 2.59 GiB, 2.59 before, at worst with 5M x 20M", MET),
        ("5M x 20M", "128.75 s", MET),
    ]


def test_targets_missed_by_a_little_are_missed(results: dict[str, Any]) -> None:
    for case in results["cases"]:
        for run in [*case["runs"][JOB], *case["runs"][SPARK]]:
            run["seconds"] *= 1.01
            run["peak"] += 20 * MIB
    assert {target.verdict for target in report.targets(results)} == {MISSED}


def test_targets_without_their_cases_or_contestants_are_not_measured(results: dict[str, Any]) -> None:
    for case in results["cases"]:
        del case["runs"][SPARK], case["runs"]["loop"]
    verdicts = list(report.targets(results))
    assert [number for number, target in enumerate(verdicts) if target.verdict == NOT_MEASURED] == [9, 11, 12]
    assert report.tally(verdicts) == "10 met, 3 not measured"
    results["cases"] = []
    assert {target.verdict for target in report.targets(results)} == {NOT_MEASURED}


def test_job_that_runs_out_of_memory_misses_and_peers_that_do_lose(results: dict[str, Any]) -> None:
    largest, small = runs_of(results, 5_000_000, 20_000_000), runs_of(results, 20_000, 20_000_000)
    largest[JOB] = largest[SPARK] = [{"status": "out of memory"}]
    for name in report.PEERS:
        small[name] = [{"status": "out of time"}]
    rows = [(target.case, target.measured, target.verdict) for target in report.targets(results)]
    assert rows[5] == ("20k x 20M", "every peer ran out of time or memory", MET)
    assert [rows[number] for number in (7, 8, 10, 11, 12)] == [("5M x 20M", "out of memory", MISSED)] * 5


def test_memory_of_an_array_counts(results: dict[str, Any]) -> None:
    [array] = [case for case in results["cases"] if case["array"]]
    for run in array["runs"][SPARK]:
        run["peak"] *= 2
    worst = "2.00 x: 5.18 GiB, 2.59 before, at worst with array of 5M x 2M"
    assert [one.measured for one in report.targets(results) if one.verdict == MISSED] == [worst]


def test_runs_before_one_that_ran_out_count_and_it_is_told(results: dict[str, Any]) -> None:
    largest = results["cases"][-1]["runs"]
    largest["duckdb"] = [one_run(50.0, 3.0), one_run(54.0, 5.0), {"status": "out of memory"}]
    largest["pandas"] = [one_run(50.0, 3.0), {"status": "failed"}]
    page = report.markdown(results, [], "en")
    assert "| 52.0 | 50.0 - 54.0 | 9.0 | 4.00 | 57.0 | 2 runs, then out of memory |" in page
    assert "| pandas merge + SQLAlchemy/PyMySQL | failed | - |" in page


def test_peer_that_breaks_is_no_peer_beaten(results: dict[str, Any]) -> None:
    for name in report.PEERS:
        runs_of(results, 20_000, 20_000_000)[name] = [{"status": "failed"}]
    assert list(report.targets(results))[5] == report.Verdict(
        "20k x 20M", "at most 0.2 x the best peer", "a peer failed", NOT_MEASURED
    )


def test_page_tells_medians_statuses_and_remarks(results: dict[str, Any]) -> None:
    runs_of(results, 20_000, 2_000_000)["pandas"][0]["differs"] = ["column qty"]
    page = report.markdown(results, ["--some-option"], "en")
    assert "## 20k x 2M (source 12.0 MiB, CSV 11.0 MiB)" in page
    assert "## array of 5M x 2M (source" in page
    started = "Spark started in 4.0 s before"
    assert f"| this job | 5.0 | 2.5 - 45.0 | 9.0 | 1.00 | 10.0 | driver engine; scan plan; {started} |" in page
    assert "| this job (Spark engine) | 128.8 | 128.8 - 128.8 | 9.0 | 1.00 | 133.8 | spark engine; scan plan; " in page
    assert "| this job, again in its JVM | 1.7 | 1.7 - 1.7 | 9.0 | 2.00 | 6.7 | driver engine; scan" in page
    assert (
        f"| plain PySpark | 300.0 | 300.0 - 300.0 | 9.0 | 3.00 | 305.0 | **differs: column active**; {started} |"
        in page
    )
    assert "| row-by-row pandas loop | skipped | - | - | - | - | why |" in page
    assert page.count("again in its JVM |") == 3  # the tables of 2M rows
    assert "| polars + connectorx | out of memory at 20k x 20M | - | - | - | - |  |" in page
    assert "| extrapolated from a sample of 30 s |" in page
    assert "**differs: column qty**" in page
    assert "| 1M x 2M | at least 200 x faster than the row-by-row loop | 200.00 x | met |" in page
    assert "\n13 met. Cases are source records x table rows." in page
    assert "`--some-option`" in page
    assert "| measured 2026-01-02 on a processor | 30k x 50k; " in page
    assert "| measured 2026-01-01 on another | 20k x 20M; " in page
    assert max(map(len, page.split("## Method")[1].split("| --- |")[0].splitlines())) <= 120


def test_plot_is_wellformed_for_both_themes_and_has_a_curve_for_each(results: dict[str, Any]) -> None:
    text = plot.svg(results, "en")
    root = ET.fromstring(text)
    groups = [element.get("class") for element in root.iter("{http://www.w3.org/2000/svg}g")]
    # Each has its legend and a curve in six panels, but for the peer that finished on two tables alone.
    assert collections.Counter(filter(None, groups)) == {**dict.fromkeys(plot.LOOKS, 7), "polars": 5}
    assert {looks[2] for looks in plot.LOOKS.values()} == plot.SYMBOLS.keys()
    assert "prefers-color-scheme:dark" in text
    assert text == plot.svg(copy.deepcopy(results), "en")
    numbers = [float(y) for y in (e.get("y") for e in root.iter("{http://www.w3.org/2000/svg}text")) if y]
    assert min(numbers) > 0
    assert max(numbers) < float((root.get("viewBox") or "").split()[3])


def test_report_renders_page_and_plot_from_the_json(
    results: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "benchmark.json").write_text(json.dumps(results))
    assert main(["--report", "--output", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "200.00 x" in out
    assert "Targets: 13 met" in out
    assert (tmp_path / "benchmark.en.md").read_text().startswith("# Benchmark\n")
    assert (tmp_path / "benchmark.md").read_text().startswith("# ベンチマーク\n")
    assert (tmp_path / "benchmark.en.svg").read_text() == plot.svg(results, "en")


def test_model_gives_back_what_made_the_numbers(results: dict[str, Any]) -> None:
    for case in results["cases"]:
        records, rows = case["records"] / 1e6, case["rows"] / 1e6
        if case["array"]:  # the model is not of arrays, nor of the driver's engine
            continue
        case["runs"][SPARK] = [one_run(30 + records, 1.0, plan="scan") | {"cpu": 10 + 2 * records + 3 * rows}]
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


def test_where_the_engine_changes_more_workers_make_it_change_sooner(results: dict[str, Any]) -> None:
    assert scaling.crossover(1_000_000, 1) == "never"  # nobody but the driver
    few, many = (float(scaling.crossover(1_000_000, workers).removesuffix(" M")) for workers in (5, 50))
    assert 2 < many <= few < 1_000
    assert scaling.crossover(1_000_000, 50) in "\n".join(scaling.engine_lines(results))


def test_what_the_driver_engine_takes_is_fitted_to_its_scans(results: dict[str, Any]) -> None:
    def case(records: int, rows: int, seconds: float, plan: str = "scan") -> dict[str, Any]:
        run = one_run(seconds, 1.0, engine="driver", plan=plan)
        return {"records": records, "rows": rows, "source_bytes": 1, "output_bytes": 1, "runs": {JOB: [run]}}

    fixed = DRIVER_FIXED
    results["cases"] = [
        case(1_000_000, 2_000_000, fixed + 3 + 4),
        case(5_000_000, 20_000_000, fixed + 15 + 40),
        case(20_000, 20_000_000, 1, "lookup"),
    ]
    assert scaling.fit_driver(results) == pytest.approx((3, 2))
    results["cases"] = results["cases"][1:]
    assert scaling.fit_driver(results) is None


def test_cases_are_added_to_those_that_were_measured(results: dict[str, Any], tmp_path: Path) -> None:
    before = copy.deepcopy(results)
    size = CaseSize(results["cases"][0]["records"], results["cases"][0]["rows"])
    suite = Suite(None, Options([size], [JOB], 1, 1), tmp_path / "x.json", "python -m bench --add")  # type: ignore[arg-type]
    suite.add_to(before)
    assert [case_size(case) for case in suite.results["cases"]] == [case_size(case) for case in before["cases"][1:]]
    assert all(table["rows"] != size.rows for table in suite.results["tables"])
    assert suite.results["command"] == f"{before['command']}; python -m bench --add"


def test_pages_show_what_was_measured() -> None:
    results = json.loads((ROOT / "docs" / "benchmark.json").read_text())
    model = list(scaling.lines(results))
    for language, suffix in report.LANGUAGES.items():
        page = ROOT / "docs" / f"benchmark{suffix}.md"
        assert page.read_text() == report.markdown(results, SERVER_OPTIONS, language)
        assert page.with_suffix(".svg").read_text() == plot.svg(results, language)
        text = "\n".join(map(japanese.line, model) if language == "ja" else model)
        assert f"{BEGIN}\n\n{text}\n\n{END}" in (ROOT / "docs" / f"scaling{suffix}.md").read_text()


def test_japanese_pages_have_no_english_sentence(results: dict[str, Any]) -> None:
    measured = json.loads((ROOT / "docs" / "benchmark.json").read_text())
    lines = []
    for source in (results, measured):
        lines += map(japanese.line, [*report.result_lines(source), *report.machine_lines(source)])
    lines += map(japanese.line, scaling.lines(measured))
    lines += re.findall(">([^<]+)</t", plot.svg(measured, "ja"))
    prose = [re.sub(r"`[^`]*`|^\| バージョン .*|column \w+", "", line) for line in lines]
    assert [line for line in prose if re.search(r"[a-z]{2,} [a-z]{2,}", line)] == []


def test_phrase_fills_in_words_that_are_looked_up() -> None:
    assert japanese.phrase("1.21 x of DuckDB, table as Arrow") == "DuckDB (テーブルは Arrow) の 1.21 倍"
    assert (
        japanese.line("| 1M x 2M | 2.5 s | lookup plan; driver engine |")
        == "| 1M x 2M | 2.5 秒 | lookup、driver エンジン |"
    )
    assert japanese.line("said by nobody") == "said by nobody"


def test_missing_peers_are_told_of_before_anything_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.suite.PEER_PYTHON", ROOT / ".venv-none")
    check_peers([JOB, SPARK, WARM, PLAIN])
    with pytest.raises(ServiceError, match=r"^\.venv-none is missing. Run: make bench-setup$"):
        check_peers([JOB, "polars"])
