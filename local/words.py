"""What the commands of local/ say, in the languages that an entry may have."""

from __future__ import annotations

from collections.abc import Mapping

_TEXTS = {
    "ja": {
        "start": "{database}、AWS API (moto)、Slack 受信サーバーを起動",
        "load": "テーブル ({rows:,} 行) と入力 ({records:,} 件) を作成",
        "load_own": "{table} と {source} を読み込み",
        "deploy": "AWS API でパイプラインを作成",
        "run": "ジョブを実行",
        "seconds": "{:.1f} 秒",
        "csv": "CSV の先頭: {output}",
        "saved": "全体は {path}",
        "origin_colour": "入力の値\tテーブルで補った値",
        "origin_plain": "+ はテーブルで補った値、ほかは入力の値",
        "slack": "Slack のメッセージ",
        "pages": "ブラウザーで開くページ",
        "report_page": "実行レポート",
        "slack_page": "Slack の見え方",
        "guard": "入力が 3 件に減ったら: ガードが出力の置き換えを止めます。ドライランなら書き込まずに確認できます",
        "next": "次に試すこと",
        "try_own": "自分の JSON とテーブルで実行",
        "try_keep": "サービスを起動したまま、引数を変えて何度も実行",
        "try_deploy": "AWS アカウントなしで Terraform の設定を検査 (デプロイは docs/deployment.md)",
        "took": "かかった時間: {:.1f} 秒",
        "up": "Ctrl-C までサービスを起動したままにします。別のターミナルで、このフォルダーから:",
        "again": "もう一度実行する。CSV の先頭を表示し、上の 2 つのページを更新します (ブラウザーで再読み込み)",
        "change": "テーブルを書き換える",
        "upload": "自分の JSON を入力にする",
        "failed": "{stage}で失敗しました",
        "no_key": "{file} に列 {key!r} がありません。列: {columns}。KEY= で指定してください。",
        "no_file": "{file} を読めません: {reason}",
        "tables": "{file} からテーブルが 1 つだけできるはずが、できたもの: {tables}。",
        "none": "なし",
        "not_loaded": "{file} を読み込めません: {reason}",
    },
    "en": {
        "start": "starting {database}, the AWS APIs (moto) and a Slack receiver",
        "load": "making a table of {rows:,} rows and a source of {records:,} records",
        "load_own": "loading {table} and {source}",
        "deploy": "making the pipeline through the AWS API",
        "run": "running the job",
        "seconds": "{:.1f} s",
        "csv": "The CSV begins: {output}",
        "saved": "all of it: {path}",
        "origin_colour": "from the source\tfilled from the table",
        "origin_plain": "+ filled from the table; all else is from the source",
        "slack": "Slack message",
        "pages": "Pages for a browser",
        "report_page": "the run report",
        "slack_page": "as Slack shows it",
        "guard": "Were the source cut to 3 records: the guard keeps the output; a dry run tells, and writes nothing",
        "next": "Try next",
        "try_own": "the job on your own JSON and table",
        "try_keep": "leave the services up and run again, with other arguments",
        "try_deploy": "check the Terraform without an account (to deploy: docs/deployment.en.md)",
        "took": "It took {:.1f} s.",
        "up": "The services stay up until Ctrl-C. In another terminal, in this folder:",
        "again": "run again: it shows how the CSV begins and refreshes both pages above (reload them)",
        "change": "change the table",
        "upload": "make a JSON file of yours the source",
        "failed": "failed ({stage})",
        "no_key": "{file} has no column {key!r}. Columns: {columns}. Name it by KEY=.",
        "no_file": "{file} cannot be read: {reason}",
        "tables": "{file} should make one table; it made: {tables}.",
        "none": "none",
        "not_loaded": "{file} cannot be loaded: {reason}",
    },
}


def texts(language: str) -> Mapping[str, str]:
    """The texts in a language, by name."""
    return _TEXTS[language]
