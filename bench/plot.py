"""Draws the growth curves as SVG by hand: a library's would carry its version, a clock, and one theme of colours."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from bench import japanese
from bench.data import size_text
from bench.measure import GIB
from bench.report import JOB, NAMES, PLAIN, SPARK, Summary, case_size, summary

TITLE = "Time and peak memory against size of source and table"
ABOUT = "Lower is better. Both axes are logarithmic. A line ends where its contestant ran out of time or memory."
WIDTH, PANEL_HEIGHT = 960, 250
LEFT, TOP, GAP_X, GAP_Y, BOTTOM = 70, 132, 40, 60, 55
# Colours that people with colour blindness tell apart, on light and on dark; the symbol says it once more.
LOOKS = {
    JOB: ("#c2410c", "#fb923c", "circle"),
    SPARK: ("#9f1239", "#fda4af", "down"),
    PLAIN: ("#1f2328", "#e6edf3", "bar"),
    "pandas": ("#a21caf", "#e879f9", "diamond"),
    "polars": ("#0369a1", "#38bdf8", "square"),
    "duckdb": ("#047857", "#34d399", "triangle"),
    "loop": ("#854d0e", "#facc15", "cross"),
    "floor": ("#57606a", "#9ba3ad", "plus"),
}
SYMBOLS = {
    "circle": "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0",
    "square": "M-4 -4h8v8h-8z",
    "down": "M0 5.5L5 -4H-5z",
    "bar": "M-6 -2.5h12v5h-12z",
    "triangle": "M0 -5.5L5 4H-5z",
    "diamond": "M0 -6L5 0L0 6L-5 0z",
    "cross": "M-4 -4L4 4M4 -4L-4 4",
    "plus": "M0 -5V5M-5 0H5",
}
STYLE = """\
text{font:13px system-ui,sans-serif;fill:#1f2328}
.back{fill:#fff}.axis{stroke:#8c959f;fill:none}.grid{stroke:#d8dee4;fill:none}.small{font-size:11px}
.line{fill:none;stroke-width:1.6}.job .line{stroke-width:3}.floor .line,.spark .line{stroke-dasharray:5 4}
.mark{stroke-width:1.6}
"""
DARK = "text{fill:#e6edf3}.back{fill:#0d1117}.axis{stroke:#6e7681}.grid{stroke:#30363d}"


@dataclass(frozen=True)
class Scale:
    """A logarithmic axis: values from `low` to `high` onto pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self) -> Iterator[float]:
        """1, 2, 5, 10, ... within the axis."""
        for power in range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1):
            for step in (1, 2, 5):
                if self.low <= step * 10.0**power <= self.high:
                    yield step * 10.0**power


@dataclass(frozen=True)
class Quantity:
    """What a row of panels shows."""

    title: str
    value: Callable[[Summary], float]


QUANTITIES = (Quantity("time, s", lambda one: one.seconds), Quantity("peak memory, GiB", lambda one: one.peak / GIB))


def line_cases(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Picks the cases whose source is JSON Lines: arrays are not drawn."""
    return [case for case in results["cases"] if not case_size(case).array]


def points(results: Mapping[str, Any], quantity: Quantity) -> dict[tuple[str, int], list[tuple[int, float]]]:
    """Makes the curves (source records, value) by contestant and table rows; one ends where its contestant ran out."""
    curves: dict[tuple[str, int], list[tuple[int, float]]] = {}
    for case in sorted(line_cases(results), key=lambda case: case["records"]):
        for name, runs in case["runs"].items():
            result = summary(runs)
            if name in LOOKS and result.status == "ok" and quantity.value(result) > 0:
                curves.setdefault((name, case["rows"]), []).append((case["records"], quantity.value(result)))
    return curves


def styles() -> str:
    """The style sheet, for both themes."""
    light, dark = STYLE, DARK
    for name, (on_light, on_dark, _) in LOOKS.items():
        rule = ".{0} .line,.{0} .mark{{stroke:{1}}}.{0} .mark{{fill:{1}}}"
        light += rule.format(name, on_light) + "\n"
        dark += rule.format(name, on_dark)
    return f"<style>{light}@media(prefers-color-scheme:dark){{{dark}}}</style>"


def mark(name: str, x: float, y: float) -> str:
    """The symbol of a contestant."""
    return f'<path class="mark" transform="translate({x} {y})" d="{SYMBOLS[LOOKS[name][2]]}"/>'


def legend(names: list[str], say: Callable[[str], str]) -> Iterator[str]:
    """Names in rows of three."""
    for number, name in enumerate(names):
        x, y = LEFT + (0, 297, 594)[number % 3], 50 + number // 3 * 22
        line = f'<path class="line" d="M{x} {y}h22"/>{mark(name, x + 11, y)}'
        yield f'<g class="{name}">{line}</g><text x="{x + 30}" y="{y + 4}">{escape(say(NAMES[name]))}</text>'


def axes(x: Scale, y: Scale, sizes: list[int], *, first: bool) -> Iterator[str]:
    """Grid and labels of a panel."""
    yield f'<path class="axis" d="M{x.start} {y.end}V{y.start}H{x.end}"/>'
    for size in sizes:
        yield f'<path class="axis" d="M{x(size)} {y.start}v5"/>'
        yield f'<text class="small" x="{x(size)}" y="{y.start + 19}" text-anchor="middle">{size_text(size)}</text>'
    for tick in y.ticks():
        yield f'<path class="grid" d="M{x.start} {y(tick)}H{x.end}"/>'
        if first:
            yield f'<text class="small" x="{x.start - 8}" y="{y(tick) + 4}" text-anchor="end">{tick:g}</text>'


def curve(name: str, values: list[tuple[int, float]], x: Scale, y: Scale) -> str:
    """One contestant in one panel."""
    pixels = [(x(records), y(value)) for records, value in values]
    line = "L".join(f"{across} {down}" for across, down in pixels)
    return f'<g class="{name}"><path class="line" d="M{line}"/>{"".join(mark(name, *pixel) for pixel in pixels)}</g>'


def svg(results: Mapping[str, Any], language: str) -> str:
    """The plot: time above memory, a column for each size of the table, both axes logarithmic."""
    say = japanese.phrase if language == "ja" else str
    cases = line_cases(results)
    tables = sorted({case["rows"] for case in cases})
    sizes = sorted({case["records"] for case in cases})
    names = [name for name in LOOKS if any(name in case["runs"] for case in cases)]
    panel = (WIDTH - LEFT - 20 - GAP_X * (len(tables) - 1)) / max(len(tables), 1)
    height = TOP + len(QUANTITIES) * (PANEL_HEIGHT + GAP_Y) - GAP_Y + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{say(TITLE)}</title>",
        f'{styles()}<rect class="back" width="{WIDTH}" height="{height}"/>',
        f'<text x="{LEFT}" y="26">{say(ABOUT)}</text>',
        *legend(names, say),
    ]
    for row, quantity in enumerate(QUANTITIES):
        curves = points(results, quantity)
        values = [value for curve_points in curves.values() for _, value in curve_points] or [1.0]
        down = TOP + row * (PANEL_HEIGHT + GAP_Y)
        y = Scale(min(values) / 1.3, max(values) * 1.3, down + PANEL_HEIGHT, down + 24)
        for column, rows in enumerate(tables):
            left = round(LEFT + column * (panel + GAP_X), 1)
            x = Scale(sizes[0] / 1.5, sizes[-1] * 1.5, left, round(left + panel, 1))
            title = say(f"{quantity.title} (table of {size_text(rows)} rows)")
            parts.append(f'<text x="{left}" y="{down + 12}">{title}</text>')
            parts += axes(x, y, sorted({case["records"] for case in cases if case["rows"] == rows}), first=column == 0)
            parts += [curve(name, curves[name, rows], x, y) for name in names if (name, rows) in curves]
    axis = say("records of the source")
    parts.append(f'<text x="{WIDTH / 2}" y="{height - 12}" text-anchor="middle">{axis}</text></svg>')
    return "\n".join(parts) + "\n"
