"""`python -m local report RUN.json`: a run report (schemas/run_report.schema.json) as one page, without any network."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import jsonschema
from botocore.exceptions import BotoCoreError, ClientError

from local.services.processes import ServiceError
from overlay.report.slack_text import duration
from overlay.report.slack_text import texts as texts_of_job

ROOT = Path(__file__).resolve().parents[2]
# Beside those of the job itself.
TEXTS = {
    "ja": {
        "succeeded": "成功",
        "failed": "失敗",
        "last": "最後の成功",
        "records": "入力レコード",
        "rows": "テーブルの行",
        "cells": "出力のセル",
        "unmatched": "テーブルのみ",
        "filled_cells": "補完したセル",
        "source_duplicates": "入力の重複 id",
        "table_duplicates": "テーブルの重複 id",
        "missing_ids": "id なし",
        "stages": "段階と時間",
        "columns": "列ごとの値の出どころ",
        "from_source": "入力",
        "from_table": "テーブル",
        "from_empty": "空",
        "ids": "テーブルのみの id",
        "more": "他 {count} 件",
        "listed": "一覧: {url} ({rows} 件)",
        "none": "なし",
        "bytes": "バイト",
    },
    "en": {
        "succeeded": "Succeeded",
        "failed": "Failed",
        "last": "Last success",
        "records": "Source records",
        "rows": "Table rows",
        "cells": "Output cells",
        "unmatched": "Table only",
        "filled_cells": "Filled from the table",
        "source_duplicates": "Duplicate ids, source",
        "table_duplicates": "Duplicate ids, table",
        "missing_ids": "Without an id",
        "stages": "Stages",
        "columns": "Where the values of each column come from",
        "from_source": "Source",
        "from_table": "Table",
        "from_empty": "Empty",
        "ids": "Ids that only the table has",
        "more": "+{count} more",
        "listed": "All of them: {url} ({rows})",
        "none": "None",
        "bytes": "bytes",
    },
}
STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #1b1f24; --soft: #5b6470; --line: #e1e4e8;
  --source: #2f6fdb; --table: #d97f06; --empty: #c6ccd4; --good: #1a7f4b; --bad: #c62f2f; --track: #eef0f3; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --card: #1d2126; --ink: #e8eaed; --soft: #9aa4b0;
  --line: #30363d; --source: #6ba1f5; --table: #f0a53c; --empty: #525b66; --good: #46c07f; --bad: #f07070;
  --track: #2a2f36; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 14px/1.5 system-ui, "Noto Sans CJK JP",
  "Hiragino Sans", "Yu Gothic UI", sans-serif; }
main { max-width: 860px; margin: 0 auto; padding: 24px 16px 40px; }
h1 { margin: 0; font-size: 21px; overflow-wrap: anywhere; }
h2 { margin: 0 0 12px; font-size: 14px; }
header { display: flex; gap: 12px; align-items: center; margin-bottom: 4px; }
.status { padding: 2px 10px; border-radius: 99px; color: #fff; background: var(--good); font-weight: 600; flex: none; }
.failed .status { background: var(--bad); }
.origin { color: var(--soft); margin: 0 0 16px; overflow-wrap: anywhere; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px;
  margin-top: 14px; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(180px, 1fr)); gap: 10px 20px; margin: 0; }
dt { color: var(--soft); font-size: 12px; } dd { margin: 0; overflow-wrap: anywhere; }
.row { display: grid; grid-template-columns: 150px 1fr 150px; gap: 12px; align-items: center; padding: 3px 0; }
.row > :first-child { overflow-wrap: anywhere; } .row > :last-child { text-align: right; color: var(--soft);
  font-variant-numeric: tabular-nums; }
.bar { height: 14px; background: var(--track); border-radius: 4px; overflow: hidden; display: flex; }
.bar i { display: block; height: 100%; } .source { background: var(--source); } .table { background: var(--table); }
.empty { background: var(--empty); } .gap { background: none; }
.legend { display: flex; gap: 16px; color: var(--soft); font-size: 12px; margin: -6px 0 8px; }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 6px; }
code { font: 13px ui-monospace, "Noto Sans Mono CJK JP", monospace; background: var(--track); border-radius: 4px;
  padding: 1px 6px; overflow-wrap: anywhere; white-space: pre-wrap; }
.ids { display: flex; flex-wrap: wrap; gap: 6px; margin: 0; }
.warning { border-left: 4px solid var(--table); } .error { border-left: 4px solid var(--bad); }
p { margin: 0 0 8px; overflow-wrap: anywhere; } p:last-child { margin: 0; }
@media (max-width: 560px) { .row { grid-template-columns: 84px 1fr 108px; font-size: 12px; }
  .row > :last-child { white-space: nowrap; } }
"""
HEAD = (
    '<!doctype html><html lang="{language}"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width">'
    # Whatever a value might smuggle in: nothing runs and nothing is fetched.
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    "<title>{title}</title><style>{style}</style></head>"
)


def read_report(location: str) -> dict[str, Any]:
    """The report at a location: a file or an s3:// URL.

    Raises:
        ServiceError: it cannot be read, or is no run report.
    """
    try:
        if location.startswith("s3://"):
            url = urlsplit(location)
            client = boto3.client("s3", endpoint_url=os.environ.get("AWS_ENDPOINT_URL"))
            data = client.get_object(Bucket=url.netloc, Key=location.split("/", 3)[3])["Body"].read()
        else:
            data = Path(location).read_bytes()
    except (OSError, IndexError, ClientError, BotoCoreError) as error:
        message = f"{location} cannot be read: {error}"
        raise ServiceError(message) from None
    schema = json.loads((ROOT / "schemas" / "run_report.schema.json").read_text())
    try:
        report: dict[str, Any] = json.loads(data)
        jsonschema.Draft7Validator(schema).validate(report)
    except (ValueError, RecursionError) as error:
        message = f"{location} is not JSON: {error}"
        raise ServiceError(message) from None
    except jsonschema.ValidationError as error:
        message = f"{location} is no run report: {error.json_path}: {error.message[:200]}"
        raise ServiceError(message) from None
    return report


def write(location: str, page: Path) -> Path:
    """Writes the page of a report; returns its path."""
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(render(read_report(location)), encoding="utf-8", errors="backslashreplace")
    return page


def text(value: object) -> str:
    """A value in HTML."""
    return html.escape(str(value))


def bar(*parts: tuple[str, float]) -> str:
    """A bar of coloured parts (class, share of the whole)."""
    return (
        '<div class="bar">'
        + "".join(f'<i class="{kind}" style="width:{100 * size:.3f}%"></i>' for kind, size in parts)
        + "</div>"
    )


def row(name: str, middle: str, value: str) -> str:
    """A line: what, bar, number."""
    return f"<div class=row><span>{text(name)}</span>{middle}<span>{value}</span></div>"


def share_of(count: int, whole: int) -> float:
    """A share, from 0 to 1."""
    return count / whole if whole else 0.0


def card(title: str, *content: str, kind: str = "") -> str:
    """A box of the page."""
    return f'<section class="{kind}"><h2>{text(title)}</h2>{"".join(content)}</section>'


def legend(names: Iterable[tuple[str, str]]) -> str:
    """What the colours mean."""
    return (
        "<div class=legend>"
        + "".join(f'<span><i class="{kind}"></i>{text(name)}</span>' for kind, name in names)
        + "</div>"
    )


def counts_card(report: Mapping[str, Any], texts: Mapping[str, str]) -> str:
    """The counts as bars: of the source's records, the table's rows and the output's cells."""
    counts = report["counts"]
    records, rows = counts["source_records"], counts["table_rows"]
    cells = records * len(report["columns"])
    lines = []
    for name, whole, kind, whole_name in (
        ("matched", records, "source", "records"),
        ("source_only", records, "source", "records"),
        ("missing_ids", records, "source", "records"),
        ("source_duplicates", records, "source", "records"),
        ("unmatched", rows, "table", "rows"),
        ("table_duplicates", rows, "table", "rows"),
        ("filled_cells", cells, "table", "cells"),
    ):
        if counts[name] or name in {"matched", "source_only", "unmatched", "filled_cells"}:
            share = share_of(counts[name], whole)
            lines.append((whole_name, row(texts[name], bar((kind, share)), f"{counts[name]:,} ({100 * share:.1f}%)")))
    cards = [
        card(f"{texts[group]}: {whole:,}", *(line for name, line in lines if name == group))
        for group, whole in (("records", records), ("rows", rows), ("cells", cells))
    ]
    return "".join(cards)


def stages_card(report: Mapping[str, Any], texts: Mapping[str, str]) -> str:
    """When each stage began and how long it took."""
    whole = max([report["seconds"], *(stage["start"] + stage["seconds"] for stage in report["stages"])])
    lines = [
        row(
            texts[stage["stage"]],
            bar(("gap", share_of(stage["start"], whole)), ("source", max(share_of(stage["seconds"], whole), 0.003))),
            duration(stage["seconds"], report["language"]),
        )
        for stage in report["stages"]
    ]
    return card(f"{texts['stages']}: {duration(report['seconds'], report['language'])}", *lines)


def columns_card(report: Mapping[str, Any], texts: Mapping[str, str]) -> str:
    """Where the cells of each column come from."""
    kinds = ("source", "table", "empty")
    records = report["counts"]["source_records"]
    lines = [
        row(
            column["name"],
            bar(*((kind, share_of(column[kind], records)) for kind in kinds)),
            " · ".join(f"{100 * share_of(column[kind], records):.0f}%" for kind in kinds),
        )
        for column in report["columns"]
    ]
    return card(texts["columns"], legend((kind, texts[f"from_{kind}"]) for kind in kinds), *lines)


def ids_card(report: Mapping[str, Any], texts: Mapping[str, str]) -> str:
    """The first ids that only the table has."""
    ids, count = report["unmatched_ids"], report["counts"]["unmatched"]
    items = [f"<code>{text(key)}</code>" for key in ids]
    if count > len(ids):
        items.append(f"<span>{text(texts['more'].format(count=f'{count - len(ids):,}'))}</span>")
    lines = [f"<p class=ids>{' '.join(items) or text(texts['none'])}</p>"]
    if whole_list := report["unmatched_file"]:
        link = texts["listed"].format(url=whole_list["url"], rows=f"{whole_list['rows']:,}")
        lines.append(f'<p style="margin-top:10px">{text(link)}</p>')
    return card(f"{texts['ids']}: {count:,}", *lines)


def facts_card(report: Mapping[str, Any], texts: Mapping[str, str]) -> str:
    """The run itself: its id and time, engine and plan, the size of its output, since when it fails."""
    facts = {texts["run"]: report["run_id"] or "-", texts["seconds"]: duration(report["seconds"], report["language"])}
    if "output" in report:
        choices = ((report[name], report[f"{name}_reason"]) for name in ("engine", "plan"))
        facts[texts["engine"]] = " · ".join(f"{name} ({texts[reason]})" if reason else name for name, reason in choices)
        facts[texts["output"]] = f"{report['output']['bytes']:,} {texts['bytes']}"
    if report["failing_since"]:
        facts[texts["since"]] = report["failing_since"]
        facts[texts["last"]] = (report["last_success"] or {"ended": "-"})["ended"]
    lines = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in facts.items())
    return f"<section><dl>{lines}</dl></section>"


def render(report: Mapping[str, Any]) -> str:
    """The page of a report that keeps to the schema."""
    texts = {**texts_of_job(report["language"]), **TEXTS[report["language"]]}
    cards = [facts_card(report, texts)]
    if error := report["error"]:
        paragraphs = (f"<p><b>{text(texts[name])}</b><br>{text(error[name])}</p>" for name in ("cause", "hint"))
        cards.append(card(f"{texts['failed']}: {texts[error['stage']]}", *paragraphs, kind="error"))
    cards += [f'<section class="warning">{text(warning["text"])}</section>' for warning in report.get("warnings", [])]
    if "counts" in report:
        cards += [counts_card(report, texts), columns_card(report, texts)]
    cards.append(stages_card(report, texts))
    if "counts" in report:
        cards.append(ids_card(report, texts))
    status = report["status"]
    return (
        HEAD.format(language=report["language"], title=text(report["job"]), style=STYLE)
        + f'<body class="{status}"><main><header><span class=status>{text(texts[status])}</span>'
        + f"<h1>{text(report['job'])}</h1></header>"
        + f"<p class=origin>{text(report['ended'])} · {text(report['source'])} → {text(report['destination'])}</p>"
        + "".join(cards)
        + "</main></body></html>\n"
    )
