"""Draws the architecture as SVG: what is deployed, what a run reads and writes, who hears of it.

Out of the standard library alone, as text that is compared with the committed pictures (tests/pages/test_docs.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 1040, 620
STYLE = """\
text{font:14px system-ui,-apple-system,"Segoe UI","Hiragino Sans","Noto Sans CJK JP","Noto Sans JP",sans-serif;\
fill:#1f2328}
.title{font-weight:600}.small{font-size:12px;fill:#57606a}.back{fill:#fff}
.frame{fill:none;stroke:#8c959f;stroke-dasharray:6 4}.box{fill:#f6f8fa;stroke:#8c959f}
.job{fill:#fff7ed;stroke:#c2410c;stroke-width:1.5}.store{fill:#eff6ff;stroke:#0369a1;stroke-width:1.5}
.line{fill:none;stroke:#57606a;stroke-width:1.5}.line.data{stroke:#0369a1;stroke-width:3}.alarm{stroke-dasharray:5 4}
.head{fill:#57606a}.head.data{fill:#0369a1}
"""
DARK = """\
text{fill:#e6edf3}.small{fill:#9ba3ad}.back{fill:#0d1117}.frame{stroke:#6e7681}.box{fill:#161b22;stroke:#6e7681}
.job{fill:#2a1a10;stroke:#fb923c}.store{fill:#0c2233;stroke:#38bdf8}.line{stroke:#9ba3ad}.line.data{stroke:#38bdf8}
.head{fill:#9ba3ad}.head.data{fill:#38bdf8}
"""
HEAD = 9  # length of an arrow's head
TEXTS = {
    "ja": {
        "title": "アーキテクチャ: S3 の JSON と RDS のテーブルから CSV を 1 つ作る",
        "settings": "configs.json",
        "settings_note": "common_settings.json",
        "terraform": "Terraform",
        "terraform_note": "plan → 承認 → apply",
        "made": "エントリーごとに作るもの: シークレット、接続、",
        "made_note": "ジョブ、ロール、スケジュール、ログ、通知",
        "aws": "AWS アカウント",
        "vpc": "VPC",
        "trigger": "スケジュール",
        "trigger_note": "Glue トリガー (cron)",
        "secret": "Secrets Manager",
        "secret_note": "ログイン、Webhook",
        "connection": "Glue 接続",
        "connection_note": "JDBC URL、サブネット",
        "alarm": "EventBridge → SNS",
        "alarm_note": "失敗・時間切れ・停止",
        "people": "メールなど",
        "people_note": "ジョブが言えない失敗も",
        "job": "Glue ジョブ",
        "script": "glue_job.py + overlay/",
        "script_note": "段階を進め、エンジンを選ぶ",
        "either": "どちらか一方",
        "driver": "driver エンジン",
        "driver_note": "小・中規模: 1 プロセス",
        "spark": "spark エンジン",
        "spark_note": "大規模: 全ワーカー",
        "database": "RDS のテーブル",
        "database_note": "MySQL、MariaDB、PostgreSQL",
        "source": "S3 入力",
        "source_note": "JSON を並列に読む",
        "output": "S3 出力",
        "output_note": "CSV 1 つ、並列に書く",
        "logs": "CloudWatch Logs",
        "logs_note": "段階、時間、原因",
        "slack": "Slack",
        "slack_note": "実行ごとに 1 通",
        "starts": "起動",
        "fills": "JDBC: lookup または scan",
        "tells": "成功 / 失敗と次に確認すること",
    },
    "en": {
        "title": "Architecture: one CSV from JSON in S3 and a table in RDS",
        "settings": "configs.json",
        "settings_note": "common_settings.json",
        "terraform": "Terraform",
        "terraform_note": "plan → approval → apply",
        "made": "Made for each entry: secret, connection, job,",
        "made_note": "role, schedule, logs, alarm",
        "aws": "AWS account",
        "vpc": "VPC",
        "trigger": "Schedule",
        "trigger_note": "Glue trigger (cron)",
        "secret": "Secrets Manager",
        "secret_note": "login, webhook",
        "connection": "Glue connection",
        "connection_note": "JDBC URL, subnet",
        "alarm": "EventBridge → SNS",
        "alarm_note": "failed, timed out, stopped",
        "people": "E-mail, ...",
        "people_note": "also of silent failures",
        "job": "Glue job",
        "script": "glue_job.py + overlay/",
        "script_note": "the stages, and the choice of the engine",
        "either": "one of the two",
        "driver": "driver engine",
        "driver_note": "most runs: 1 process",
        "spark": "spark engine",
        "spark_note": "big data: all workers",
        "database": "Table in RDS",
        "database_note": "MySQL, MariaDB, PostgreSQL",
        "source": "S3 source",
        "source_note": "JSON, read in parallel",
        "output": "S3 output",
        "output_note": "one CSV, in parallel",
        "logs": "CloudWatch Logs",
        "logs_note": "stages, times, causes",
        "slack": "Slack",
        "slack_note": "one message a run",
        "starts": "starts",
        "fills": "JDBC: lookup or scan",
        "tells": "success, or what to check",
    },
}


class Box(NamedTuple):
    """A box of the picture; `name` leads to its text and, with `_note`, to the line below."""

    name: str
    x: int
    y: int
    width: int
    height: int
    look: str = "box"


# Each with the base line of its title.
FRAMES = (
    (Box("aws", 20, 118, 806, 490, "frame"), 139),
    (Box("vpc", 236, 252, 384, 340, "frame"), 273),
    (Box("job", 256, 282, 344, 178, "job"), 302),
)
BOXES = (
    Box("settings", 50, 28, 190, 54),
    Box("terraform", 300, 28, 210, 54),
    Box("trigger", 50, 160, 160, 54),
    Box("secret", 246, 160, 170, 54),
    Box("connection", 436, 160, 174, 54),
    Box("alarm", 640, 160, 170, 54),
    Box("people", 864, 160, 160, 54),
    Box("script", 276, 310, 304, 50),
    Box("driver", 276, 396, 146, 52),
    Box("spark", 434, 396, 146, 52),
    Box("source", 40, 391, 164, 58, "store"),
    Box("output", 656, 391, 154, 58, "store"),
    Box("database", 328, 520, 200, 58, "store"),
    Box("logs", 656, 494, 154, 54),
    Box("slack", 864, 308, 160, 54),
)


class Arrow(NamedTuple):
    """A way from one point to another, with a text beside it."""

    points: tuple[tuple[int, int], ...]
    look: str = ""
    text: str = ""
    text_position: tuple[int, int] = (0, 0)


ARROWS = (
    Arrow(((240, 55), (300, 55))),
    Arrow(((405, 82), (405, 118))),
    Arrow(((130, 214), (130, 335), (276, 335)), text="starts", text_position=(140, 326)),
    Arrow(((331, 214), (331, 282))),
    Arrow(((523, 214), (523, 282))),
    Arrow(((600, 294), (725, 294), (725, 214)), "alarm"),
    Arrow(((810, 187), (864, 187)), "alarm"),
    Arrow(((580, 335), (864, 335)), text="tells", text_position=(632, 326)),
    Arrow(((349, 360), (349, 396)), text="either", text_position=(362, 382)),
    Arrow(((507, 360), (507, 396))),
    Arrow(((600, 452), (630, 452), (630, 521), (656, 521))),
    Arrow(((204, 420), (256, 420)), "data"),
    Arrow(((600, 420), (656, 420)), "data"),
    Arrow(((428, 520), (428, 460)), "data", "fills", (442, 494)),
)


def svg(language: str) -> str:
    """The picture in a language; the same source gives the same text."""
    texts = TEXTS[language]
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="title">',
        f'<title id="title">{escape(texts["title"])}</title>',
        f"<style>\n{STYLE}@media (prefers-color-scheme: dark){{\n{DARK}}}\n</style>",
        f'<rect class="back" width="{WIDTH}" height="{HEIGHT}" rx="8"/>',
    ]
    for frame, line in FRAMES:
        lines += [rectangle(frame), label(texts[frame.name], frame.x + 20, line, "title")]
    lines += [label(texts["made"], 540, 50, "small"), label(texts["made_note"], 540, 68, "small")]
    for arrow in ARROWS:
        lines += arrow_lines(arrow, texts.get(arrow.text, ""))
    for box in BOXES:
        middle = box.x + box.width // 2
        lines.append(rectangle(box))
        lines.append(label(texts[box.name], middle, box.y + box.height // 2 - 3, "title", "middle"))
        lines.append(label(texts[f"{box.name}_note"], middle, box.y + box.height // 2 + 16, "small", "middle"))
    return "\n".join([*lines, "</svg>"]) + "\n"


def rectangle(box: Box) -> str:
    """Draws the outline of a box."""
    return f'<rect class="{box.look}" x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" rx="8"/>'


def label(text: str, x: int, y: int, look: str, anchor: str = "start") -> str:
    """A text on its base line."""
    return f'<text class="{look}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def arrow_lines(arrow: Arrow, text: str) -> Iterator[str]:
    """A line that ends in a head, and its text."""
    (x0, y0), (x, y) = arrow.points[-2:]
    right, down = (x > x0) - (x < x0), (y > y0) - (y < y0)
    back = (x - right * HEAD, y - down * HEAD)
    half = HEAD // 2
    head = ((x, y), (back[0] - down * half, back[1] - right * half), (back[0] + down * half, back[1] + right * half))
    yield f'<polyline class="line {arrow.look}" points="{coordinates([*arrow.points[:-1], back])}"/>'
    yield f'<polygon class="head {arrow.look}" points="{coordinates(head)}"/>'
    if text:
        yield label(text, *arrow.text_position, "small")


def coordinates(points: Sequence[tuple[int, int]]) -> str:
    """Points as SVG writes them."""
    return " ".join(f"{x},{y}" for x, y in points)
