"""The table of the READMEs: this job against what one would write instead, out of docs/benchmark.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from bench.data import CaseSize
from bench.report import (
    BIG_TABLE,
    JOB,
    LARGE,
    MIDDLE,
    PLAIN,
    SMALL,
    TABLE,
    USUAL,
    Measurements,
    case_text,
    pipe_table,
)

ROOT = Path(__file__).resolve().parents[2]
CASES = (
    CaseSize(*USUAL),
    CaseSize(SMALL, TABLE),
    CaseSize(MIDDLE, TABLE),
    CaseSize(SMALL, BIG_TABLE),
    CaseSize(MIDDLE, BIG_TABLE),
    CaseSize(LARGE, BIG_TABLE),
)
CONTESTANTS = ("loop", PLAIN, "polars", "duckdb", JOB)
WORDS = {
    "ja": {
        "header": ("入力 x テーブル (件)", "pandas で 1 行ずつ", "素の PySpark", "polars", "DuckDB", "このジョブ"),
        "seconds": "{:,.1f} 秒",
        "rough": "約 {:,.0f} 秒",
        "faster": "このジョブより polars か DuckDB が速いのは {} です。",
        "between": "、",
    },
    "en": {
        "header": ("records x rows", "pandas, row by row", "plain PySpark", "polars", "DuckDB", "this job"),
        "seconds": "{:,.1f} s",
        "rough": "~{:,.0f} s",
        "faster": "polars or DuckDB is faster than this job with {}.",
        "between": ", ",
    },
}


def tables(language: str) -> Iterator[tuple[str, Iterator[str]]]:
    """The table by the name of its block."""
    yield "comparison", comparison(language)


def comparison(language: str) -> Iterator[str]:
    """Seconds of all, and the cases in which one had better take something else."""
    words = WORDS[language]
    measurements = Measurements(json.loads((ROOT / "docs" / "benchmark.json").read_text(encoding="utf-8")))
    rows = ((case_text(*case), *(cell(measurements, name, case, language) for name in CONTESTANTS)) for case in CASES)
    yield from pipe_table(tuple(words["header"]), rows)
    yield ""
    yield str(words["faster"]).format(str(words["between"]).join(case_text(*case) for case in lost(measurements)))


def cell(measurements: Measurements, name: str, case: CaseSize, language: str) -> str:
    """One time; empty where nothing was measured."""
    result = measurements.get(name, *case)
    if result is None:
        return ""
    rough = any("extrapolated" in remark for remark in result.remarks)
    return str(WORDS[language]["rough" if rough else "seconds"]).format(result.seconds)


def lost(measurements: Measurements) -> Iterator[CaseSize]:
    """The cases of the table in which a peer is faster than the job."""
    for case in CASES:
        job, peer = measurements.get(JOB, *case), measurements.best_peer(*case)
        if job and peer and peer[1].seconds < job.seconds:
            yield case
