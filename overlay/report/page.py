"""The run report as one page, without any network: the data of a report in, HTML out."""

import html
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from overlay.report.slack_text import DRY_MARK, change, duration, percentage, share, size_text
from overlay.report.slack_text import texts as texts_of

PICTURE = 280, 44, 6  # of the last runs: width, height, margin in pixels
STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #1b1f24; --soft: #5b6470; --line: #e1e4e8;
  --source: #2f6fdb; --table: #d97f06; --empty: #c6ccd4; --alone: #9dbbe8;
  --good: #1a7f4b; --bad: #c62f2f; --track: #eef0f3; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --card: #1d2126; --ink: #e8eaed; --soft: #9aa4b0;
  --line: #30363d; --source: #6ba1f5; --table: #f0a53c; --empty: #525b66; --alone: #3f5f91;
  --good: #46c07f; --bad: #f07070;
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
.row { display: grid; grid-template-columns: 150px 1fr 180px; gap: 12px; align-items: center; padding: 3px 0; }
.row > :first-child { overflow-wrap: anywhere; } .row > :last-child { text-align: right; color: var(--soft);
  font-variant-numeric: tabular-nums; }
.bar { height: 14px; background: var(--track); border-radius: 4px; overflow: hidden; display: flex; }
.bar i { display: block; height: 100%; } .source { background: var(--source); } .table { background: var(--table); }
.empty { background: var(--empty); } .alone { background: var(--alone); } .gap { background: none; }
.legend { display: flex; gap: 16px; color: var(--soft); font-size: 12px; margin: -6px 0 8px; }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 6px; }
code { font: 13px ui-monospace, "Noto Sans Mono CJK JP", monospace; background: var(--track); border-radius: 4px;
  padding: 1px 6px; overflow-wrap: anywhere; white-space: pre-wrap; }
.ids { display: flex; flex-wrap: wrap; gap: 6px; margin: 0; }
svg { display: block; } polyline { fill: none; stroke: var(--source); stroke-width: 2; }
circle { fill: var(--source); } circle.failed { fill: var(--bad); }
.warning { border-left: 4px solid var(--table); } .error { border-left: 4px solid var(--bad); }
p { margin: 0 0 8px; overflow-wrap: anywhere; } p:last-child { margin: 0; }
@media (max-width: 560px) { .row { grid-template-columns: 84px 1fr 136px; font-size: 12px; }
  .row > :last-child { white-space: nowrap; } }
"""
HEAD = (
    '<!doctype html><html lang="{language}"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width">'
    # Whatever a value might smuggle in: nothing runs and nothing is fetched.
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    "<title>{title}</title><style>{style}</style></head>"
)


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


def time_text(moment: str, report: Mapping[str, Any]) -> str:
    """A time of the report in its time zone."""
    zone = ZoneInfo(report.get("timezone", "UTC"))
    return f"{datetime.fromisoformat(moment).astimezone(zone):%Y-%m-%d %H:%M:%S %Z}"


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
    records = counts["source_records"]
    wholes = {
        "source_records": records,
        "table_rows": counts["table_rows"],
        "output_cells": records * len(report["columns"]),
    }
    kinds = {"matched": "source", "source_only": "alone"}
    both = bar(*((kind, share_of(counts[name], records)) for name, kind in kinds.items()))
    names = [(kind, f"{texts[name]} {share(counts[name], records)}") for name, kind in kinds.items()]
    boxes: dict[str, list[str]] = {"source_records": [legend(names), both], "table_rows": [], "output_cells": []}
    for box, name, label, kind in (
        ("source_records", "missing_ids", "no_id", "source"),
        ("source_records", "source_duplicates", "source_duplicates", "source"),
        ("table_rows", "unmatched", "unmatched_rows", "table"),
        ("table_rows", "table_duplicates", "table_duplicates", "table"),
        ("output_cells", "filled_cells", "filled_cells", "table"),
    ):
        if (count := counts[name]) or name in {"unmatched", "filled_cells"}:
            whole = wholes[box]
            boxes[box].append(row(texts[label], bar((kind, share_of(count, whole))), share(count, whole)))
    return "".join(card(f"{texts[box]}: {wholes[box]:,}", *lines) for box, lines in boxes.items())


def history_card(report: Mapping[str, Any], texts: Mapping[str, str]) -> str:
    """The records of the last runs as a line; a run that failed is a point at the bottom of it."""
    runs = report.get("history", [])
    if len(runs) < 2:  # noqa: PLR2004  one point is no line
        return ""
    width, height, margin = PICTURE
    most = max(run["source_records"] or 0 for run in runs) or 1
    step = (width - 2 * margin) / (len(runs) - 1)
    heights = [height - margin - (run["source_records"] or 0) / most * (height - 2 * margin) for run in runs]
    points = [(f"{margin + step * number:.1f}", f"{y:.1f}") for number, y in enumerate(heights)]
    line = " ".join(",".join(point) for point, run in zip(points, runs, strict=True) if run["status"] == "succeeded")
    circles = "".join(
        f'<circle class="{run["status"]}" cx="{x}" cy="{y}" r="3">'
        f"<title>{_run_text(run, report, texts)}</title></circle>"
        for (x, y), run in zip(points, runs, strict=True)
    )
    picture = f'<svg width="{width}" height="{height}"><polyline points="{line}"/>{circles}</svg>'
    before = [run["source_records"] for run in runs[:-1] if run["status"] == "succeeded"]
    since = change(runs[-1]["source_records"] or 0, before[-1]) if before and "counts" in report else ""
    note = f"<p class=origin>{text(texts['since_last'].format(change=since).strip())}</p>" if since else ""
    return card(texts["history"].format(count=len(runs)), picture, note)


def _run_text(run: Mapping[str, Any], report: Mapping[str, Any], texts: Mapping[str, str]) -> str:
    records = "" if run["source_records"] is None else f" · {run['source_records']:,}"
    return text(f"{time_text(run['ended'], report)} · {texts[run['status']]}{records}")


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
            " · ".join(text(percentage(column[kind], records)) for kind in kinds),
        )
        for column in report["columns"]
    ]
    return card(texts["columns"], legend((kind, texts[f"from_{kind}"]) for kind in kinds), *lines)


def overridden_card(report: Mapping[str, Any], texts: Mapping[str, str]) -> str:
    """The cells of each column in which the source overrides a value of the table."""
    if not (counts := report.get("overridden")):
        return ""
    records = report["counts"]["source_records"]
    lines = [
        row(name, bar(("source", share_of(count, records))), share(count, records)) for name, count in counts.items()
    ]
    if listed := report.get("differences_file"):
        left_out = sum(counts.values()) - listed["rows"]
        first = texts["first_listed"].format(count=f"{listed['rows']:,}", more=f"{left_out:,}")
        note = f" ({text(first)})" if left_out else ""
        lines.append(f'<p style="margin-top:10px">{text(listed["url"])}{note}</p>')
    return card(texts["overridden_columns"], *lines)


def ids_card(report: Mapping[str, Any], texts: Mapping[str, str]) -> str:
    """The first ids that only the table has."""
    ids, count = report["unmatched_ids"], report["counts"]["unmatched"]
    items = [f"<code>{text(key)}</code>" for key in ids]
    if count > len(ids):
        items.append(f"<span>{text(texts['more'].format(count=f'{count - len(ids):,}').strip())}</span>")
    lines = [f"<p class=ids>{' '.join(items) or text(texts['none'])}</p>"]
    if whole_list := report["unmatched_file"]:
        link = texts["listed"].format(url=whole_list["url"], rows=f"{whole_list['rows']:,}")
        lines.append(f'<p style="margin-top:10px">{text(link)}</p>')
    return card(f"{texts['alone_ids']}: {count:,}", *lines)


def facts_card(report: Mapping[str, Any], texts: Mapping[str, str]) -> str:
    """The run itself: its id and time, engine and plan, the size of its output, since when it fails."""
    facts = {texts["run"]: report["run_id"] or "-", texts["seconds"]: duration(report["seconds"], report["language"])}
    if "output" in report:
        choices = ((report[name], report[f"{name}_reason"]) for name in ("engine", "plan"))
        facts[texts["engine"]] = " · ".join(f"{name} ({texts[reason]})" if reason else name for name, reason in choices)
        facts[texts["output"]] = size_text(report["output"]["bytes"], report["language"])
    if report["failing_since"]:
        facts[texts["since"]] = time_text(report["failing_since"], report)
        last = report["last_success"]
        facts[texts["last"]] = time_text(last["ended"], report) if last else "-"
    lines = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in facts.items())
    return f"<section><dl>{lines}</dl></section>"


def render(report: Mapping[str, Any]) -> str:
    """The page of a report that keeps to the schema."""
    texts = texts_of(report["language"])
    cards = [facts_card(report, texts)]
    if error := report["error"]:
        paragraphs = (f"<p><b>{text(texts[name])}</b><br>{text(error[name])}</p>" for name in ("cause", "hint"))
        cards.append(card(f"{texts['failed']}: {texts[error['stage']]}", *paragraphs, kind="error"))
    cards += [f'<section class="warning">{text(warning["text"])}</section>' for warning in report.get("warnings", [])]
    if "counts" in report:
        cards += [counts_card(report, texts), columns_card(report, texts), overridden_card(report, texts)]
    cards += [history_card(report, texts), stages_card(report, texts)]
    if "counts" in report:
        cards.append(ids_card(report, texts))
    status, mark = report["status"], f"{DRY_MARK} " if report.get("dry_run") else ""
    return (
        HEAD.format(language=report["language"], title=text(report["job"]), style=STYLE)
        + f'<body class="{status}"><main><header><span class=status>{mark}{text(texts[status])}</span>'
        + f"<h1>{text(report['job'])}</h1></header>"
        + f"<p class=origin>{text(time_text(report['ended'], report))} · "
        + f"{text(report['source'])} → {text(report['destination'])}</p>"
        + "".join(cards)
        + "</main></body></html>\n"
    )
