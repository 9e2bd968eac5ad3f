"""The pages of the benchmark in Japanese: what report, scaling and plot say in English, phrase by phrase.

A phrase book, as the numbers are put into the sentences where they are reckoned; a test notices what it lacks.
"""

from __future__ import annotations

import re
from functools import cache

# `{}` is a number, or words that are themselves looked up; numbered where Japanese has another order.
PHRASES = {
    "# Benchmark": "# ベンチマーク",
    "[日本語](benchmark.md)": "[English](benchmark.en.md)",
    "The job against what one would write instead. Made by `make bench`; not edited by hand.": (
        "このジョブと、代わりに書くであろうものとの比較。`make bench` が作ったもので、手では書き換えません。"
    ),
    "![time and memory against size](benchmark.en.svg)": "![大きさと時間・メモリ](benchmark.svg)",
    "## All at a glance": "## 一覧",
    "## Targets met and missed": "## 達成した目標と未達の目標",
    "## Method": "## 計測方法",
    "## {} (source {} MiB, CSV {} MiB)": "## {} (入力 {} MiB、CSV {} MiB)",
    "{}. Cases are source records x table rows. Times are without the start of Spark.": (
        "{}。大きさは入力の件数 x テーブルの行数です。時間は Spark の起動を含みません。"
    ),
    "Before: the job when it had one engine, on two cores, 2026-11-24; compare on the same machine alone.": (
        "「以前」は、エンジンが 1 つだったときのこのジョブです (2 コア、2026-11-24)。比べるのは同じマシンの中だけに。"
    ),
    "{} met, {} missed, {} not measured": "達成 {}、未達 {}、未計測 {}",
    "{} met, {} missed": "達成 {}、未達 {}",
    "{} met": "達成 {}",
    "array of {}": "配列 {}",
    "{} records": "入力 {} 件",
    "source x table": "入力 x テーブル",
    "source": "入力",
    "this job": "このジョブ",
    "this job (Spark engine)": "このジョブ (Spark エンジン)",
    "this job, again in its JVM": "このジョブ (同じ JVM で 2 回目)",
    "plain PySpark": "素の PySpark",
    "pandas merge + SQLAlchemy/PyMySQL": "pandas の merge + SQLAlchemy/PyMySQL",
    "DuckDB, table as Arrow": "DuckDB (テーブルは Arrow)",
    "row-by-row pandas loop": "pandas で 1 行ずつ",
    "floor: read, read, write": "下限: 読む、読む、書く",
    "case": "大きさ",
    "target": "目標",
    "measured": "結果",
    "met": "達成",
    "missed": "**未達**",
    "not measured": "未計測",
    "at most {} s": "{} 秒以下",
    "at most 1/6 of plain PySpark": "素の PySpark の 1/6 以下",
    "at most {} x the best peer": "最も速い比較対象の {} 倍以下",
    "at most {} x the floor": "下限の {} 倍以下",
    "at least {} x faster than the row-by-row loop": "1 行ずつのループの {} 倍以上の速さ",
    "no more memory than before": "以前よりメモリを使わない",
    "no more memory than before, on the engine it chooses": "以前よりメモリを使わない (自動で選ばれたエンジン)",
    "no more memory than before, Spark engine": "以前よりメモリを使わない (Spark エンジン)",
    "Spark engine: at most 1.25 x the {} s of before": "Spark エンジン: 以前の {} 秒の 1.25 倍以下",
    "{} to {}": "{} から {}",
    "{} s": "{} 秒",
    "~{} s": "約 {} 秒",
    "{} x": "{} 倍",
    "{} x of {}": "{1} の {0} 倍",
    "{} x: {} GiB, {} before": "{} 倍: {} GiB、以前は {}",
    "{} x: {} GiB, {} before, at worst with {}": "{} 倍: {} GiB、以前は {} (最も悪い {} で)",
    "every peer ran out of time or memory": "どの比較対象も時間かメモリが尽きた",
    "a peer failed": "比較対象の 1 つが失敗した",
    "out of time": "時間切れ",
    "out of memory": "メモリ不足",
    "out of time at {}": "時間切れ ({} で)",
    "out of memory at {}": "メモリ不足 ({} で)",
    "time s": "時間 (秒)",
    "least to most": "最短 - 最長",
    "CPU s": "CPU (秒)",
    "peak GiB": "最大メモリ (GiB)",
    "wall s": "全体 (秒)",
    "remarks": "備考",
    "driver engine": "driver エンジン",
    "spark engine": "Spark エンジン",
    "Spark engine": "Spark エンジン",
    "lookup plan": "lookup",
    "scan plan": "scan",
    "reads the rows it needs by id": "必要な行だけを id で読む",
    "reads the whole table": "テーブル全体を読む",
    "extrapolated from a sample of 30 s": "30 秒分からの推定",
    "**differs: {}**": "**値が違う列: {}**",
    "Spark started in {} s before": "その前の Spark の起動は {} 秒",
    "machine": "マシン",
    "{} cores, {} GiB, one for everything": "{} コア、{} GiB、すべてを 1 台で",
    "measured {} on {}": "{}、{} で計測",
    "command": "コマンド",
    "versions": "バージョン",
    "table of {}": "テーブル {} 行",
    "{} GiB on disk, made in {} s, COUNT(*) {} s": "ディスク上 {} GiB、作成 {} 秒、COUNT(*) {} 秒",
    "{}, {}, {} cores": "{}、{}、{} コア",
    # scaling
    "Measured on {} cores ([benchmark](benchmark.en.md) has machines and dates):": (
        "{} コアで計測しました (マシンと日付は[ベンチマーク](benchmark.md)):"
    ),
    "- {} s of the driver, however small the data are;": "- データがどれほど小さくても、ドライバーに {} 秒",
    "- {} core-seconds for a million source records (parsed, shuffled, written);": (
        "- 入力 100 万件につき {} コア秒 (解析、シャッフル、書き込み)"
    ),
    "- {} core-seconds for a million rows of the table (read, shuffled, compared);": (
        "- テーブル 100 万行につき {} コア秒 (読み取り、シャッフル、比較)"
    ),
    "- {} s at most in which the database hands out a million rows of 12 columns.": (
        "- データベースが 12 列の 100 万行を渡すのに、長くて {} 秒"
    ),
    "{} workers": "{} ワーカー",
    "{} min, {}": "{} 分、{}",
    "`*`: the database is what the run waits for; more workers cost more and save nothing.": (
        "`*`: データベースを待っているところです。ワーカーを増やしても費用が増えるだけで、速くなりません。"
    ),
    "The driver engine, in scans: {} s, {} s for a million source records and {} s for a million rows.": (
        "driver エンジンの scan: {} 秒に、入力 100 万件につき {} 秒、テーブル 100 万行につき {} 秒を加えます。"
    ),
    "The job reckons with these constants (`overlay/engines/cost.py`); each column of a row is a cell:": (
        "ジョブが見積もりに使う定数です (`overlay/engines/cost.py`)。セルは、1 行の 1 列を 1 つと数えます:"
    ),
    "fixed": "固定",
    "a MB of JSON, of one core": "JSON 1 MB、1 コアで",
    "a million cells of the table": "テーブルの 100 万セル",
    "{} s of one of its streams": "1 つの接続で {} 秒",
    "{} s of one core, busy for {} of the time": "1 コアで {} 秒 (稼働率 {})",
    "the database, a million cells": "データベース、100 万セル",
    "in that": "上に含む",
    "{} s of one connection, {} at a time": "1 つの接続で {} 秒、同時に {} まで",
    "So Spark is chosen from so many rows on (of 12 columns; where the source fits into the driver):": (
        "これにより、次の行数から Spark が選ばれます (12 列、入力がドライバーに収まる場合):"
    ),
    "never": "選ばれない",
    "{} M": "{} M",
    # plot
    "Time and peak memory against size of source and table": "入力とテーブルの大きさと、時間・最大メモリ",
    "Lower is better. Both axes are logarithmic. A line ends where its contestant ran out of time or memory.": (
        "低いほど良い。両軸とも対数目盛り。線は、時間かメモリが尽きたところで終わる。"
    ),
    "time, s (table of {} rows)": "時間 (秒)、テーブル {} 行",
    "peak memory, GiB (table of {} rows)": "最大メモリ (GiB)、テーブル {} 行",
    "records of the source": "入力の件数",
}
METHOD = """\
どの大きさも、1 台のマシンで 1 つのコマンドによる 1 回の計測です。MariaDB と S3 サーバー (moto)
も同じマシンのループバックにあり、全員が共有します。MariaDB の設定は {options} で、
計測の前にテーブルを 1 度読んであります。テーブルは {columns} 列 (日本語テキスト、小数、日時、日付、NULL)、
入力はそのうち 6 列の JSON Lines (「配列」とあるものは 1 つの JSON 配列) で、id は順不同です。
それぞれ {repeats} 回を交代で行い、毎回違うものから始めます。表の値は中央値です。

- **時間** は、最初のバイトを読んでから S3 にオブジェクトができるまで。Python の起動とライブラリーの読み込み、
  Spark の起動は含みません (別に示します)。Spark の起動とは、driver エンジンではライブラリーを読み込んだ JVM、
  ほかでは SQL を計画できるセッションができるまで。**全体** はそのすべてを含みます。
- **CPU** と **最大メモリ** は、プロセスとその子すべて (ドライバー、JVM、Python ワーカー) のもの。
  メモリは PSS の合計を 1 秒に 4 回見たもの。サーバーは含みません。
- このジョブは Spark の `local[*]`、ドライバーのヒープ {heap}、出荷時の設定で動き、
  エンジンを自動で選びます (備考に示します)。**Spark エンジン** は `--engine spark` を付けたもの。
  **同じ JVM で 2 回目** は、
  1 つの JVM での 2 回のうち 2 回目です (CPU、メモリ、全体は 2 回分): 速くなった分は、JVM (クラス、
  コンパイラー) と Python ワーカーの立ち上がりです。Glue は毎回立ち上がりから始まるため、目標には数えません。
- **素の PySpark** は、Glue のエンジニアが最初に書くもの。同じ Spark、ヒープ、JDBC ドライバーで、立ち上がりも同じです:
  `read.json`、4 範囲の `read.jdbc`、左結合、列ごとの `coalesce`、入力順を保つ `orderBy`、1 つの CSV。
  ここには S3A がないため、JSON と CSV は boto3 でローカルファイルを経由します。件数は数えません。日時と TINYINT(1)
  は Spark の表記になるため、その列は値が違います。
- **polars** と **DuckDB** は、connectorx の 8 接続 (1、2、4、8 のうち最も速いもの) でテーブル全体を、
  CSV に書くべきデータベース自身の表記のテキストで読みます。
  **pandas** と **ループ** は PyMySQL で 200,000 行ずつ読みます。
  これらは入力順を保ち、ジョブと同じ件数を数えます。polars と DuckDB には入力の列の型を教え、
  pandas には Arrow の型を与えて `1` が `1.0` になるのを防いでいます。
- **ループ** は元のシステムの動き: `iterrows` で 1 件ずつ、テーブルのデータフレームを引きます。
  {limit} 分を超えるものは 30 秒だけ動かして推定します。
- **下限** は、入力を読み、必要なテーブルの行を読み (テーブルが入力の 8 倍以上なら id で、それ以外は全体を)、
  CSV と同じバイト数を書きます。解析も結合もしません。
- 出力は読み戻して、行数、列ごとのセルの順序付きチェックサム、件数を、テストの参照実装のものと比べます。
  違いがあれば備考に出ます。
- 1 回の上限は {limit} 分と、マシンのメモリの 80 % (ただし空きの最後の 1 GiB は使わない)。どちらかが尽きたら、
  その大きさ以上ではもう動かしません。空きメモリはサーバーによって変わります:
  S3 サーバーはオブジェクトをメモリに置きます。
"""


@cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    """The phrases with something to fill in, the longest first: `{} s` would take what others say better."""
    templates = sorted((english for english in PHRASES if "{}" in english), key=len, reverse=True)
    return [(re.compile("(.+?)".join(map(re.escape, text.split("{}")))), PHRASES[text]) for text in templates]


def phrase(text: str) -> str:
    """A sentence, or what a cell of a table says; what is in no phrase stays: numbers, names, code."""
    if text in PHRASES:
        return PHRASES[text]
    for pattern, japanese in _patterns():
        if match := pattern.fullmatch(text):
            return japanese.format(*map(phrase, match.groups()))
    return text


def line(text: str) -> str:
    """A line of a page; a table's by its cells, and these by their remarks."""
    if not text.startswith("| "):
        return phrase(text)
    cells = text.removeprefix("| ").removesuffix(" |").split(" | ")
    return f"| {' | '.join('、'.join(map(phrase, cell.split('; '))) if '`' not in cell else cell for cell in cells)} |"
