"""Overlay a JSON file in S3 on a table in RDS by key and publish one CSV: one AWS Glue 5.0 job.

The file reads from top to bottom in the order of a run:

    settings -> engines -> secret -> slack -> source -> table -> overlay -> csv -> run() -> main()

Each section knows the constants, the errors and the sections above it; `run()` alone knows all of them and
`main()` alone knows `awsglue`. Importing the module does nothing. Functions that executors call are shipped to them
by value, so they build their own boto3 clients.
"""

from __future__ import annotations

import bisect
import codecs
import csv
import difflib
import fnmatch
import gzip
import hashlib
import heapq
import io
import itertools
import json
import logging
import math
import operator
import os
import re
import secrets
import signal
import ssl
import sys
import threading
import time
import traceback
import zipimport
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import FrameType, TracebackType
from typing import Any, NamedTuple, Protocol, TypeVar
from urllib.parse import SplitResult, quote, urlsplit

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
import requests
from awsglue.utils import getResolvedOptions
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pyspark import RDD, Accumulator, AccumulatorParam, Broadcast, StorageLevel, TaskContext
from pyspark.sql import Column, DataFrame, Row, SparkSession
from pyspark.sql import functions as F

LOG = logging.getLogger("glue_job")
T = TypeVar("T")

MIB = 1024 * 1024
AWS_CONFIG = Config(retries={"mode": "standard", "max_attempts": 6}, connect_timeout=10, read_timeout=60)


# ---------------------------------------------------------------------------------------------------------------------
# errors: what, where, what to do
# ---------------------------------------------------------------------------------------------------------------------


class Message(NamedTuple):
    """The cause of a failure and the next thing to check, as `str.format` templates."""

    cause: str
    hint: str


# One row per way to fail. `tests/test_errors.py` proves that both languages exist and take the same details.
MESSAGES: dict[str, dict[str, Message]] = {
    "argument_invalid": {
        "en": Message("Job argument --{name} is {value!r}, expected {expected}.", "Correct the job argument."),
        "ja": Message("ジョブ引数 --{name} の値 {value!r} は使えません。", "{expected} を指定してください。"),
    },
    "argument_missing": {
        "en": Message("Job argument --{name} is missing.", "Add it to the default arguments of the Glue job."),
        "ja": Message("ジョブ引数 --{name} がありません。", "Glue ジョブのデフォルト引数に追加してください。"),
    },
    "argument_unknown": {
        "en": Message("Job argument --{name} is unknown{near}.", "Known arguments: {known}."),
        "ja": Message("ジョブ引数 --{name} は未知です{near}。", "使える引数: {known}"),
    },
    "arguments_conflict": {
        "en": Message("Job arguments contradict each other: {conflict}.", "Change one of them."),
        "ja": Message("ジョブ引数が互いに矛盾しています: {conflict}", "どちらかを変更してください。"),
    },
    "secret_missing": {
        "en": Message(
            "Secret {secret!r} does not exist in Secrets Manager.",
            "Check --secret_name, or run terraform apply to make the secret.",
        ),
        "ja": Message(
            "Secrets Manager にシークレット {secret!r} がありません。",
            "--secret_name を確認するか、terraform apply でシークレットを作成してください。",
        ),
    },
    "secret_invalid": {
        "en": Message("Secret {secret!r} {problem}.", "Store a JSON object with {fields} (strings)."),
        "ja": Message(
            "シークレット {secret!r} の内容が不正です ({problem})。",
            "{fields} を文字列で持つ JSON オブジェクトを保存してください。",
        ),
    },
    "connection_missing": {
        "en": Message(
            "Glue connection {connection!r} does not exist.",
            "Check --connection_name, or run terraform apply to make the connection.",
        ),
        "ja": Message(
            "Glue 接続 {connection!r} がありません。",
            "--connection_name を確認するか、terraform apply で接続を作成してください。",
        ),
    },
    "connection_invalid": {
        "en": Message(
            "Glue connection {connection!r}: {problem}.", "Correct the properties of the connection (configs.json)."
        ),
        "ja": Message(
            "Glue 接続 {connection!r} の設定が不正です ({problem})。",
            "接続のプロパティ (configs.json) を直してください。",
        ),
    },
    "access_denied": {
        "en": Message(
            "AWS denied {operation} on {place}.",
            "Allow it in the role of the Glue job (and in the bucket or key policy).",
        ),
        "ja": Message(
            "AWS が {place} への {operation} を拒否しました。",
            "Glue ジョブのロール (とバケットや KMS キーのポリシー) で許可してください。",
        ),
    },
    "aws_failed": {
        "en": Message("AWS {operation} on {place} failed: {problem}.", "Look at the log, then run the job again."),
        "ja": Message(
            "AWS の {operation} ({place}) が失敗しました: {problem}", "ログを確認して、ジョブを再実行してください。"
        ),
    },
    "source_missing": {
        "en": Message(
            "No source object at {place}.", "Check --source_bucket and --source_key, and that the file arrived."
        ),
        "ja": Message(
            "入力ファイル {place} がありません。", "--source_bucket と --source_key、ファイルの到着を確認してください。"
        ),
    },
    "source_changed": {
        "en": Message("{place} was replaced while the job read it.", "Run the job again once the upload is complete."),
        "ja": Message("{place} が読み取り中に置き換えられました。", "アップロード完了後にジョブを再実行してください。"),
    },
    "source_empty": {
        "en": Message(
            "The source {place} has {problem}; publishing it would erase the output.",
            "Check the process that writes the file.",
        ),
        "ja": Message(
            "入力ファイル {place} が空です ({problem})。このまま公開すると出力が消えます。",
            "ファイルを作る側の処理を確認してください。",
        ),
    },
    "source_malformed": {
        "en": Message(
            "Malformed JSON in {place}, record {record}, byte offset {offset}: {problem}.",
            "Correct the file (an array of objects, or one object per line) and run the job again.",
        ),
        "ja": Message(
            "{place} の JSON が不正です (レコード {record}、バイト位置 {offset}): {problem}",
            "ファイル (オブジェクトの配列、または 1 行 1 オブジェクト) を直して再実行してください。",
        ),
    },
    "source_not_object": {
        "en": Message(
            "Record {record} of {place} (byte offset {offset}) is {found}, not an object.",
            "Every record must be a JSON object.",
        ),
        "ja": Message(
            "{place} のレコード {record} (バイト位置 {offset}) はオブジェクトではなく{found}です。",
            "すべてのレコードを JSON オブジェクトにしてください。",
        ),
    },
    "key_missing_in_source": {
        "en": Message(
            "No record of {place} has the key column {key!r}{near}.",
            "Columns found: {columns}. Correct them or set --key.",
        ),
        "ja": Message(
            "{place} のどのレコードにもキー列 {key!r} がありません{near}。",
            "見つかった列: {columns}。列名を直すか --key を設定してください。",
        ),
    },
    "key_missing_in_table": {
        "en": Message("Table {table} has no key column {key!r}{near}.", "Columns found: {columns}. Set --key."),
        "ja": Message(
            "テーブル {table} にキー列 {key!r} がありません{near}。",
            "見つかった列: {columns}。--key を設定してください。",
        ),
    },
    "table_missing": {
        "en": Message(
            "Table {table} does not exist, or {user!r} may not read it{near}.",
            "Check db_name, table_name and, of PostgreSQL, schema_name in the secret, and the grants of the user.",
        ),
        "ja": Message(
            "テーブル {table} がないか、ユーザー {user!r} に読み取り権限がありません{near}。",
            "シークレットの db_name、table_name (PostgreSQL では schema_name も)、ユーザーの権限を確認してください。",
        ),
    },
    "login_refused": {
        "en": Message(
            "The database at {host} refused the login of {user!r}.",
            "Check username and password in the secret {secret!r}.",
        ),
        "ja": Message(
            "データベース {host} がユーザー {user!r} のログインを拒否しました。",
            "シークレット {secret!r} の username と password を確認してください。",
        ),
    },
    "database_unreachable": {
        "en": Message(
            "The database at {host} cannot be reached.",
            "Check endpoint and port of the connection, its subnet, and the security group of the database.",
        ),
        "ja": Message(
            "データベース {host} に接続できません。",
            "接続のエンドポイントとポート、サブネット、データベースのセキュリティグループを確認してください。",
        ),
    },
    "certificate_refused": {
        "en": Message(
            "The certificate of the database at {host} was refused: {problem}.",
            "Check that {place} holds the CA that signed it, and that the certificate is for Database.endpoint.",
        ),
        "ja": Message(
            "データベース {host} のサーバー証明書を検証できません: {problem}",
            "CA バンドル {place} に署名元の CA があるか、Database.endpoint が証明書の名前と合うかを確認してください。",
        ),
    },
    "ca_invalid": {
        "en": Message(
            "The CA bundle {place} {problem}.",
            "Let Database.ca_uri name an S3 object with the certificates of the CA in PEM form.",
        ),
        "ja": Message(
            "CA バンドル {place} を使えません ({problem})。",
            "Database.ca_uri には CA 証明書 (PEM 形式) の S3 オブジェクトを指定してください。",
        ),
    },
    "driver_missing": {
        "en": Message(
            "JDBC driver class {driver!r} is not on the class path.",
            "Let JDBC_DRIVER_CLASS_NAME of the connection and the jar in --extra-jars fit each other.",
        ),
        "ja": Message(
            "JDBC ドライバークラス {driver!r} が見つかりません。",
            "接続の JDBC_DRIVER_CLASS_NAME と --extra-jars の jar を合わせてください。",
        ),
    },
    "driver_refuses_url": {
        "en": Message(
            "JDBC driver {driver!r} does not take the URL {url}.",
            "Let the driver class fit the URL; MariaDB Connector/J 3 needs permitMysqlScheme in it.",
        ),
        "ja": Message(
            "JDBC ドライバー {driver!r} は URL {url} を受け付けません。",
            "ドライバークラスと URL を合わせてください (MariaDB Connector/J 3 の URL は permitMysqlScheme も必要)。",
        ),
    },
    "database_failed": {
        "en": Message("The database at {host} failed: {problem}.", "Look at the log of the database, then run again."),
        "ja": Message(
            "データベース {host} でエラーが起きました: {problem}", "データベースのログを確認して再実行してください。"
        ),
    },
    "destination_missing": {
        "en": Message("Destination bucket {bucket!r} does not exist.", "Check --destination_bucket."),
        "ja": Message("出力先バケット {bucket!r} がありません。", "--destination_bucket を確認してください。"),
    },
    "not_encodable": {
        "en": Message(
            "{place}, column {column!r}: {encoding} has no character {character!r} (U+{codepoint}).",
            "Replace the character at its origin, or set --csv_encoding to utf-8 or utf-8-sig.",
        ),
        "ja": Message(
            "{place}、列 {column!r}: 文字 {character!r} (U+{codepoint}) は {encoding} にありません。",
            "元データの文字を置き換えるか、--csv_encoding を utf-8 か utf-8-sig にしてください。",
        ),
    },
    "rows_lost": {
        "en": Message(
            "The output has {found} rows for {expected} source records; it was not published.",
            "The source or the table changed during the run: run the job again.",
        ),
        "ja": Message(
            "入力 {expected} 件に対し出力が {found} 行になったため、公開しませんでした。",
            "実行中にデータが変わった可能性があります。再実行してください。",
        ),
    },
    "output_unsure": {
        "en": Message(
            "S3 did not tell whether it replaced {place} ({problem}).",
            "The object there is whole, the old one or the new one: see its time, or run the job again.",
        ),
        "ja": Message(
            "{place} が置き換わったかどうか、S3 から応答がありませんでした ({problem})。",
            "前回か今回のどちらか完全なファイルがあります。更新時刻を確認するか、再実行してください。",
        ),
    },
    "stopped": {
        "en": Message(
            "The run was stopped, by hand or by its timeout.",
            "Run it again; if it ran into its timeout, raise timeout_minutes or number_of_workers.",
        ),
        "ja": Message(
            "ジョブが停止されました (手動停止またはタイムアウト)。",
            "再実行してください。タイムアウトの場合は timeout_minutes か number_of_workers を増やしてください。",
        ),
    },
    "unexpected": {
        "en": Message("{problem}", "Look at the log of the run; the stack trace is there."),
        "ja": Message("{problem}", "実行ログのスタックトレースを確認してください。"),
    },
}

# Details in words, for the templates of MESSAGES.
PHRASES: dict[str, dict[str, str]] = {
    "near": {"en": " (did you mean {name!r}?)", "ja": " ({name!r} の間違いではありませんか)"},
    "one_character": {
        "en": "one character, not a quote or a line break (tab: \\t)",
        "ja": "1 文字 (引用符と改行以外、タブは \\t)",
    },
    "count": {"en": "a whole number from 1 to 99999", "ja": "整数 (1 から 99999)"},
    "value": {"en": "a value", "ja": "文字列 (1 文字以上)"},
    "object_key": {"en": "the key of one object", "ja": "オブジェクト 1 つのキー (末尾は / 以外)"},
    "null_is_special": {
        "en": "--csv_null {null!r} holds the delimiter, a quote or a line break",
        "ja": "--csv_null {null!r} に区切り文字、引用符または改行が含まれています",
    },
    "option_not_encodable": {
        "en": "--{name} {value!r} does not exist in --csv_encoding {encoding}",
        "ja": "--{name} {value!r} に --csv_encoding {encoding} で書けない文字があります",
    },
    "output_is_source": {
        "en": "--{name} {output} would overwrite or join the source {source}",
        "ja": "--{name} {output} が入力 {source} を上書きするか、次回の入力に混ざります",
    },
    "report_is_source": {
        "en": "the run report {report} would overwrite the source",
        "ja": "実行レポート {report} が入力を上書きします",
    },
    "list_is_output": {
        "en": "--unmatched_file {key!r} is the key of the output or of its run report",
        "ja": "--unmatched_file {key!r} が出力かその実行レポートのキーと同じです",
    },
    "schema_unused": {
        "en": "schema_name {schema!r} is for PostgreSQL, the connection has {scheme}",
        "ja": "schema_name {schema!r} は PostgreSQL 用ですが、接続は {scheme} です",
    },
    "no_json_object": {"en": "is not a JSON object", "ja": "JSON オブジェクトではありません"},
    "fields_missing": {"en": "lacks {names}", "ja": "{names} がありません"},
    "webhook_no_url": {"en": "has a slack_webhook that is not a URL", "ja": "slack_webhook が URL ではありません"},
    "schema_no_string": {"en": "has a schema_name that is not a string", "ja": "schema_name が文字列ではありません"},
    "ca_missing": {"en": "does not exist", "ja": "オブジェクトがありません"},
    "no_certificates": {"en": "holds no certificates in PEM form", "ja": "PEM 形式の証明書がありません"},
    "or": {"en": " or ", "ja": " か "},
    "url_invalid": {
        "en": "JDBC_CONNECTION_URL is {url!r}, expected {expected}",
        "ja": "JDBC_CONNECTION_URL の値 {url!r} が {expected} の形ではありません",
    },
    "ca_uri_invalid": {
        "en": "CUSTOM_JDBC_CERT is {uri!r}, expected s3://bucket/bundle.pem",
        "ja": "CUSTOM_JDBC_CERT の値 {uri!r} が s3://bucket/bundle.pem の形ではありません",
    },
    "ca_without_tls": {
        "en": "CUSTOM_JDBC_CERT is set, but JDBC_ENFORCE_SSL is not true",
        "ja": "CUSTOM_JDBC_CERT がありますが、JDBC_ENFORCE_SSL が true ではありません",
    },
    "ca_needs_driver": {
        "en": "CUSTOM_JDBC_CERT needs the driver org.mariadb.jdbc.Driver",
        "ja": "CUSTOM_JDBC_CERT にはドライバー org.mariadb.jdbc.Driver が必要です",
    },
    "ca_doubted": {
        "en": "CUSTOM_JDBC_CERT is set, and {names} in JDBC_CONNECTION_URL says how to verify",
        "ja": "CUSTOM_JDBC_CERT があるのに、JDBC_CONNECTION_URL の {names} も検証方法を指定しています",
    },
    "no_records": {"en": "no records", "ja": "レコードがありません"},
    "no_columns": {"en": "no columns", "ja": "列がありません"},
    "array": {"en": "an array", "ja": "配列"},
    "boolean": {"en": "a boolean", "ja": "真偽値"},
    "null": {"en": "null", "ja": " null 値"},
    "string_or_number": {"en": "a string or number", "ja": "文字列か数値"},
    "beginning": {
        "en": "it begins with {beginning!r}, expected '[' or '{{'",
        "ja": "先頭が '[' でも '{{' でもなく {beginning!r} です",
    },
    "gzip_broken": {"en": "broken gzip file ({reason})", "ja": "gzip ファイルが壊れています ({reason})"},
    "not_utf8": {"en": "not UTF-8 ({reason})", "ja": "UTF-8 ではありません ({reason})"},
    "not_json": {"en": "{text} is not JSON", "ja": "{text} は JSON の値ではありません"},
    "value_expected": {"en": "expected a value", "ja": "値がありません"},
    "values_on_line": {"en": "more than one value on the line", "ja": "1 行に複数の値があります"},
    "line_ends": {"en": "the line ends inside the record", "ja": "レコードの途中で行が終わっています"},
    "array_ends": {"en": "the file ends inside the array", "ja": "配列の途中でファイルが終わっています"},
    "after_record": {"en": "expected ',' or ']' after a record", "ja": "レコードの後に ',' か ']' がありません"},
    "after_array": {"en": "something follows the end of the array", "ja": "配列の終わりの後に余分な内容があります"},
    "record_too_large": {"en": "a record is larger than {limit} MiB", "ja": "レコードが {limit} MiB を超えています"},
    "nested": {"en": "nested too deeply", "ja": "入れ子が深すぎます"},
    "nested_in": {"en": "nested too deeply in {name!r}", "ja": "{name!r} の入れ子が深すぎます"},
    "surrogate_in": {
        "en": "half a surrogate pair in {name!r}",
        "ja": "{name!r} に片方だけのサロゲート文字があります",
    },
    "surrogate_in_name": {
        "en": "half a surrogate pair in the name {name!r}",
        "ja": "列名 {name!r} に片方だけのサロゲート文字があります",
    },
    "connection_lost": {
        "en": "the connection was lost, or timed out",
        "ja": "接続が切れたか、タイムアウトしました",
    },
    "row": {"en": "row {number}", "ja": "{number} 行目"},
    "header": {"en": "header", "ja": "ヘッダー"},
}
# What Python's json, utf-8 and gzip say of a source, in Japanese.
OF_LIBRARIES = {
    "Expecting property name enclosed in double quotes": "二重引用符で囲んだ項目名がありません",
    "Expecting ':' delimiter": "':' がありません",
    "Expecting ',' delimiter": "',' がありません",
    "Unterminated string starting at": "文字列が閉じられていません",
    "Invalid control character at": "文字列に制御文字がそのまま含まれています",
    "Invalid \\escape": "\\ の後の文字が不正です",
    "Invalid \\uXXXX escape": "\\u の後に 16 進数 4 桁がありません",
    "invalid start byte": "文字の先頭バイトが不正です",
    "invalid continuation byte": "文字の 2 バイト目以降が不正です",
    "unexpected end of data": "文字の途中で終わっています",
    "Compressed file ended before the end-of-stream marker was reached": "途中で切れています",
}


REPORTED = "[reported]"
Phrase = dict[str, str]  # a text by language


def phrase(code: str, /, **details: object) -> Phrase:
    """An entry of `PHRASES` as the detail of a JobError. Its own details may be phrases, too."""
    return {language: template.format(**in_language(details, language)) for language, template in PHRASES[code].items()}


def of_library(text: str) -> Phrase:
    """What a library says, in Japanese where `OF_LIBRARIES` knows it."""
    return {"en": text, "ja": OF_LIBRARIES.get(text, text)}


def in_language(details: Mapping[str, object], language: str) -> dict[str, object]:
    """Details with their phrases in one language."""
    return {name: value[language] if isinstance(value, dict) else value for name, value in details.items()}


class JobError(Exception):
    """A run that cannot go on.

    Attributes:
        code: The entry of `MESSAGES`.
        details: What fills its templates (never a secret): data, and phrases.
        reported: Whether Slack has it; the text then ends with REPORTED, by which the rule on Glue's own events
            (monitoring.tf) knows that nobody need be told again.
    """

    reported = False

    def __init__(self, code: str, **details: object) -> None:
        super().__init__(code)
        self.code = code
        self.details = details

    def message(self, language: str) -> Message:
        """The cause and the hint in `language` (`ja` or `en`)."""
        details = in_language(self.details, language)
        return Message(*(part.format(**details) for part in MESSAGES[self.code][language]))

    def redact(self, hide: Callable[[str], str]) -> None:
        """Takes secrets out of the details."""
        for name, value in self.details.items():
            if isinstance(value, str):
                self.details[name] = hide(value)
            elif isinstance(value, dict):
                self.details[name] = {language: hide(text) for language, text in value.items()}

    def __str__(self) -> str:
        return " ".join([*self.message("en"), *([REPORTED] if self.reported else [])])


class SettingsError(JobError):
    """The job arguments, the secret or the connection are wrong."""


class AwsError(JobError):
    """An AWS call failed for good."""


class SourceError(JobError):
    """The source objects are missing or wrong."""


class TableError(JobError):
    """The database or the table is missing, refuses or is wrong.

    Attributes:
        passing: Whether the database may get over it: it restarts, has no connection left, ended the statement.
    """

    passing = False


class OutputError(JobError):
    """The CSV cannot be made or published."""


class Stopped(BaseException):
    """The run has to end (SIGTERM). No `Exception`, or py4j, inside of which it is mostly raised, would wrap it.

    Attributes:
        begun: Whether the run is about to end. From then on nothing is asked of the JVM that may wait for the database.
    """

    begun = False


ERROR_CLASSES = {cls.__name__: cls for cls in (JobError, SettingsError, AwsError, SourceError, TableError, OutputError)}

# Spark hands the driver only the text of a Python worker's exception, so ours travels inside it as JSON.
_WIRE = re.compile(r'<<glue_job_error (\{"error": [^>]*)>>')  # not the line of code that a stack trace quotes


@contextmanager
def sent_to_driver() -> Iterator[None]:
    """On an executor: lets a JobError survive Spark's wrapping, for `received_from_executor`."""
    try:
        yield
    except JobError as error:
        wire = json.dumps({"error": type(error).__name__, "code": error.code, "details": error.details}, default=str)
        escaped = wire.replace(">", "\\u003e")
        raise RuntimeError(f"<<glue_job_error {escaped}>>") from None


def received_from_executor(error: BaseException) -> JobError | None:
    """On the driver: the JobError an executor raised, or None when the exception holds none."""
    found = _WIRE.search(str(error))
    if not found:
        return None
    wire = json.loads(found.group(1))
    return ERROR_CLASSES[wire["error"]](wire["code"], **wire["details"])


def near_miss(name: str, present: Iterable[str]) -> Phrase | str:
    """The phrase ` (did you mean 'ID'?)` for the present name closest to a missing one, else an empty string."""
    by_fold = {other.strip().casefold(): other for other in present}
    close = difflib.get_close_matches(name.strip().casefold(), by_fold, n=1, cutoff=0.75)
    return phrase("near", name=by_fold[close[0]]) if close else ""


def aws_error(error: Exception, operation: str, place: str) -> AwsError:
    """The JobError for a boto3 exception that no caller expects."""
    code = error_code(error)
    if code in {"AccessDenied", "AccessDeniedException", "403", "Forbidden", "InvalidAccessKeyId"}:
        return AwsError("access_denied", operation=operation, place=place)
    return AwsError("aws_failed", operation=operation, place=place, problem=code)


def error_code(error: Exception) -> str:
    """The code of the service, the HTTP status of an answer without a body (HEAD), else the kind of the exception."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return type(error).__name__


# ---------------------------------------------------------------------------------------------------------------------
# settings: the job arguments
# ---------------------------------------------------------------------------------------------------------------------

ENCODINGS = ("utf-8", "utf-8-sig", "cp932")
LANGUAGES = ("ja", "en")
LINE_ENDINGS = {"lf": "\n", "crlf": "\r\n"}
QUOTES = ("minimal", "all")
SWITCH = {"true": True, "false": False}
NOTIFY = ("always", "on_change", "on_failure")


@dataclass(frozen=True)
class CsvFormat:
    """How a cell and a row are written.

    Attributes:
        encoding: One of `ENCODINGS`.
        delimiter: One character.
        line_ending: `lf` or `crlf`.
        quote: `minimal` (RFC 4180: only where needed) or `all` (every value that is present).
        null: The text of a missing value; a present value with the same text is quoted.
        escape_formulas: Cells that a spreadsheet would take as a formula get a leading `'`.
    """

    encoding: str = "utf-8"
    delimiter: str = ","
    line_ending: str = "lf"
    quote: str = "minimal"
    null: str = ""
    escape_formulas: bool = False

    @property
    def codec(self) -> str:
        """The codec of the rows; the byte order mark of `utf-8-sig` belongs to the header alone."""
        return "utf-8" if self.encoding == "utf-8-sig" else self.encoding


@dataclass(frozen=True)
class Settings:
    """One run, as its job arguments describe it.

    Attributes:
        db_name, schema_name, table_name: Where the secret has none (one that RDS manages holds the login alone).
        slack_secret_name: The secret of the webhook, where it is not `secret_name`.
        max_connections: To the database that executors open at a time; 0: CONNECTION_SHARE of what the server takes.
        notify: When Slack hears of a success, one of `NOTIFY`; of a failure it always does.
        unmatched_file: The key, beside the output, of the list of all ids that only the table has; empty for none.
    """

    job_name: str
    secret_name: str
    connection_name: str
    source_bucket: str
    source_key: str
    destination_bucket: str
    destination_file: str
    run_id: str = ""
    key: str = "id"
    language: str = "ja"
    db_name: str = ""
    schema_name: str = ""
    table_name: str = ""
    slack_secret_name: str = ""
    max_connections: int = 0
    notify: str = "always"
    unmatched_file: str = ""
    csv: CsvFormat = field(default_factory=CsvFormat)

    @property
    def source(self) -> str:
        """The source as a URL for people."""
        return f"s3://{self.source_bucket}/{self.source_key}"

    @property
    def destination(self) -> str:
        """The output as a URL for people."""
        return f"s3://{self.destination_bucket}/{self.destination_file}"

    @property
    def report_key(self) -> str:
        """The key of the run report, beside the output."""
        return f"{self.destination_file}.report.json"


REQUIRED_ARGUMENTS = (
    "JOB_NAME",
    "secret_name",
    "connection_name",
    "source_bucket",
    "source_key",
    "destination_bucket",
    "destination_file",
)
CSV_ARGUMENTS = tuple(f"csv_{option.name}" for option in fields(CsvFormat))
OPTIONAL_ARGUMENTS = (
    "key",
    "language",
    "db_name",
    "schema_name",
    "table_name",
    "slack_secret_name",
    "max_connections",
    "notify",
    "unmatched_file",
    *CSV_ARGUMENTS,
)
_OURS = re.compile(r"[a-z]+(_[a-z]+)*")
# "Internal to AWS Glue" (AWS Glue guide, job parameters), and what it was seen to pass.
_GLUES_OWN = {"conf", "debug", "mode", "endpoint", "class", "continuous_log"}


def read_arguments(argv: Sequence[str]) -> dict[str, str]:
    """The job's own arguments out of `sys.argv`, by name.

    AWS's getResolvedOptions takes every declared option as required and accepts abbreviations, so the optional ones
    are declared only when they are there, and names are compared whole beforehand.

    Raises:
        SettingsError: an argument is missing, unknown or has no value.
    """
    names = [token[2:].split("=", 1)[0] for token in argv[1:] if token.startswith("--")]
    known = (*REQUIRED_ARGUMENTS, *OPTIONAL_ARGUMENTS)
    for name in names:
        # Glue adds arguments of its own; they are hyphenated or capitalised, ours are snake_case.
        foreign = not _OURS.fullmatch(name) or name in _GLUES_OWN
        if name not in known and (not foreign or name.replace("-", "_") in known):
            near = near_miss(name, known)
            raise SettingsError("argument_unknown", name=name, near=near, known=", ".join(known[1:]))
    for name in REQUIRED_ARGUMENTS:
        if name not in names:
            raise SettingsError("argument_missing", name=name)
    wanted = [name for name in known if name in names]
    try:
        options = getResolvedOptions(list(argv), wanted)
    except Exception as error:
        raise SettingsError("arguments_conflict", conflict=str(error)) from None
    return {name: options[name] for name in wanted} | {"run_id": options.get("JOB_RUN_ID") or ""}


def _choice(arguments: Mapping[str, str], name: str, choices: Iterable[str], default: str) -> str:
    value = arguments.get(name, default)
    if value not in choices:
        raise SettingsError("argument_invalid", name=name, value=value, expected=" / ".join(choices))
    return value


def csv_format(arguments: Mapping[str, str]) -> CsvFormat:
    """The CSV options among the job arguments, checked.

    Raises:
        SettingsError: a value is not allowed, or two contradict each other.
    """
    delimiter = arguments.get("csv_delimiter", ",")
    delimiter = {"tab": "\t", "\\t": "\t"}.get(delimiter, delimiter)
    if len(delimiter) != 1 or delimiter in '"\r\n\x00':
        expected = phrase("one_character")
        raise SettingsError("argument_invalid", name="csv_delimiter", value=delimiter, expected=expected)
    null = arguments.get("csv_null", "")
    if set(null) & {delimiter, '"', "\r", "\n"}:
        raise SettingsError("arguments_conflict", conflict=phrase("null_is_special", null=null))
    encoding = _choice(arguments, "csv_encoding", ENCODINGS, "utf-8")
    for name, value in (("csv_delimiter", delimiter), ("csv_null", null)):
        try:
            value.encode(encoding)
        except UnicodeEncodeError:
            conflict = phrase("option_not_encodable", name=name, value=value, encoding=encoding)
            raise SettingsError("arguments_conflict", conflict=conflict) from None
    return CsvFormat(
        encoding=encoding,
        delimiter=delimiter,
        line_ending=_choice(arguments, "csv_line_ending", LINE_ENDINGS, "lf"),
        quote=_choice(arguments, "csv_quote", QUOTES, "minimal"),
        null=null,
        escape_formulas=SWITCH[_choice(arguments, "csv_escape_formulas", SWITCH, "false")],
    )


def _count(arguments: Mapping[str, str], name: str) -> int:
    value = arguments.get(name, "0")
    if name in arguments and not re.fullmatch("[1-9][0-9]{0,4}", value):
        raise SettingsError("argument_invalid", name=name, value=value, expected=phrase("count"))
    return int(value)


def make_settings(arguments: Mapping[str, str]) -> Settings:
    """The checked settings of a run from its job arguments.

    Raises:
        SettingsError: a value is empty or not allowed, or two contradict each other.
    """
    for name in (*REQUIRED_ARGUMENTS, "key"):
        if not arguments.get(name, "id" if name == "key" else ""):
            raise SettingsError("argument_invalid", name=name, value="", expected=phrase("value"))
    for name in ("destination_file", "unmatched_file"):
        if (value := arguments.get(name, "")).endswith("/"):
            raise SettingsError("argument_invalid", name=name, value=value, expected=phrase("object_key"))
    settings = Settings(
        job_name=arguments["JOB_NAME"],
        run_id=arguments.get("run_id", ""),
        language=_choice(arguments, "language", LANGUAGES, "ja"),
        csv=csv_format(arguments),
        key=arguments.get("key", "id"),
        db_name=arguments.get("db_name", ""),
        schema_name=arguments.get("schema_name", ""),
        table_name=arguments.get("table_name", ""),
        slack_secret_name=arguments.get("slack_secret_name", ""),
        max_connections=_count(arguments, "max_connections"),
        notify=_choice(arguments, "notify", NOTIFY, "always"),
        unmatched_file=arguments.get("unmatched_file", ""),
        **{name: arguments[name] for name in REQUIRED_ARGUMENTS[1:]},
    )
    check_outputs(settings)
    return settings


def check_outputs(settings: Settings) -> None:
    """Refuses outputs that would overwrite each other or the source, or be read as a source by the next run.

    The run report alone may lie among the sources, as nobody chose its name: `list_objects` leaves it out.

    Raises:
        SettingsError: two arguments contradict each other.
    """
    bucket, report = settings.destination_bucket, settings.report_key
    if settings.source_bucket == bucket:
        for name in ("destination_file", "unmatched_file"):
            key = getattr(settings, name)
            if key and is_source_key(key, settings.source_key):
                conflict = phrase("output_is_source", name=name, output=f"s3://{bucket}/{key}", source=settings.source)
                raise SettingsError("arguments_conflict", conflict=conflict)
        if settings.source_key == report:
            conflict = phrase("report_is_source", report=f"s3://{bucket}/{report}")
            raise SettingsError("arguments_conflict", conflict=conflict)
    if settings.unmatched_file in {settings.destination_file, report}:
        conflict = phrase("list_is_output", key=settings.unmatched_file)
        raise SettingsError("arguments_conflict", conflict=conflict)


def is_source_key(key: str, pattern: str) -> bool:
    """Whether an S3 key is meant by `source_key`: itself, below a folder `.../`, or matching `*` (within a folder)."""
    if pattern.endswith("/") and "*" not in pattern:
        return key.startswith(pattern)
    return key.count("/") == pattern.count("/") and fnmatch.fnmatchcase(key, glob_pattern(pattern))


def glob_pattern(pattern: str) -> str:
    """`source_key` as an fnmatch pattern in which `*` is the only special character."""
    return pattern.replace("[", "[[]").replace("?", "[?]")


# ---------------------------------------------------------------------------------------------------------------------
# engines: what differs between MySQL or MariaDB and PostgreSQL; nothing below asks which one it is
# ---------------------------------------------------------------------------------------------------------------------

CONNECT_TIMEOUT_SECONDS = 10
# The longest silence of a statement at work (a COUNT over some 10^9 rows). Spark gives a task four attempts, so that a
# database that stalls costs 40 minutes before it is given up.
SOCKET_TIMEOUT_SECONDS = 600
LOCK_TIMEOUT_SECONDS = 300  # of LOCK TABLES and DDL, for which the default waits a day and more
CLIENT_TIMEOUT_SECONDS = 3600  # the server hangs up on a client that reads slower than this, as a busy executor does
SMALL_COST = 1_000  # of a plan of PostgreSQL: that of reading as many pages (8 kB) in a row
INTEGER_BITS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "integer": 32, "bigint": 64}
INTEGER_TYPES = frozenset(INTEGER_BITS)
BINARY_TYPES = frozenset({"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"})
SPATIAL_TYPES = frozenset(
    {
        "geometry",
        "point",
        "linestring",
        "polygon",
        "multipoint",
        "multilinestring",
        "multipolygon",
        "geometrycollection",
        "geomcollection",
    }
)
# The character sets a key may have to be looked up, and the characters each can hold: those whose codes and characters
# pair off. Elsewhere (cp932) two codes print as one character, and a lookup would find one of them.
_LATIN1 = set(bytes(range(256)).decode("cp1252", "ignore")) | set("\x81\x8d\x8f\x90\x9d")
KEY_CHARSETS: dict[str, Callable[[str], bool]] = {
    "ascii": str.isascii,
    "latin1": lambda text: _LATIN1.issuperset(text),
    "utf8": lambda text: not text or max(text) <= "\uffff",
    "utf8mb3": lambda text: not text or max(text) <= "\uffff",
    "utf8mb4": lambda _text: True,
}
# What a value of a type of PostgreSQL may look like: anything else is no literal of that type.
_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_KEY_TEXTS = {
    "numeric": re.compile(r"-?[0-9]{1,131072}(\.[0-9]{1,16383})?|NaN|-?Infinity"),
    "uuid": re.compile(_UUID),
    "bytea": re.compile("([0-9a-f]{2})*"),
}
_KEY_TEXTS |= dict.fromkeys(("text", "varchar", "bpchar", "citext"), re.compile("[^\0]*"))

_IS_TABLE = "c.relkind IN ('r', 'p', 'v', 'm', 'f')"

Ask = Callable[[str], list[dict[str, str | None]]]  # runs SQL; the rows of the answer by the labels of its columns


class TableName(NamedTuple):
    """Where a table is. `schema` is PostgreSQL's, in which alone a database has several."""

    database: str
    schema: str
    table: str


@dataclass(frozen=True)
class TableColumn:
    """A column as the catalogue describes it.

    Attributes:
        type: Without length and the like; that below a domain.
        full_type: What DDL says (`int(5) unsigned zerofill`).
        charset: Of the texts; of PostgreSQL, the encoding of the database.
    """

    name: str
    type: str
    full_type: str
    charset: str | None = None

    @property
    def is_integer(self) -> bool:
        return self.type in INTEGER_TYPES


class Index(NamedTuple):
    """An index. `alone`: it has one column."""

    first_column: str
    unique: bool
    alone: bool
    primary: bool


class Engine(Protocol):
    """One kind of database: its JDBC URL, its SQL, its catalogue and the texts of its errors.

    Attributes:
        scheme: What a URL begins with.
        driver: The JDBC driver that Glue brings.
        default_schema: Where a table is unless told; empty where a database has no schemas.
        session: SQL that makes a session read only, and its texts the same wherever the job runs.
        sorts: The same for a session that sorts texts by their bytes.
        table_refused: What the driver says of a database that is missing or forbidden.
        login_refused: What it says of a wrong login; `table_refused` goes before.
        exact_types: Types whose texts differ when their values do, so that a unique index proves the texts unique.
    """

    scheme: str
    driver: str
    default_schema: str
    session: str
    sorts: str
    table_refused: re.Pattern[str]
    login_refused: re.Pattern[str]
    exact_types: frozenset[str]

    def address(self, url: str, database: str) -> str:
        """The URL (without parameters) of the database that the table is in."""

    def parameters(self, driver: str, *, tls: bool, verified: bool) -> dict[str, str]:
        """Parameters of the URL: timeouts, streaming, encryption; `verified` by certificates it is given."""

    def quote_name(self, name: str) -> str:
        """An identifier, quoted."""

    def place(self, name: TableName) -> str:
        """The table in SQL."""

    def told(self, name: TableName) -> str:
        """The table for people."""

    def text_literal(self, text: str) -> str:
        """A string that no setting of the server can misread."""

    def text_expression(self, column: TableColumn) -> str:
        """SQL for a value as the database prints it (README, merge rules)."""

    def text(self, sql: str) -> str:
        """SQL for a number or a `by_bytes` as text."""

    def by_bytes(self, sql: str) -> str:
        """SQL for a text that compares byte for byte."""

    def bytes_literal(self, text: str) -> str:
        """What a `by_bytes` can be compared with."""

    def hash_range(self, sql: str, ranges: int, number: int) -> str:
        """A predicate that cuts the values of any type into so many ranges."""

    def can_look_up(self, column: TableColumn) -> bool:
        """Whether `key_literal` can write the values of a column."""

    def key_literal(self, column: TableColumn, text: str) -> str | None:
        """The SQL literal that equals every value of a column that prints as `text`; None when no value can.

        It may equal more values than that (a collation takes `A` for `a`), never fewer: equality of SQL is reflexive.
        The literal has the type of the column or converts to it without loss, so that the index can be used.
        """

    def columns(self, ask: Ask, name: TableName, key: str) -> list[TableColumn]:
        """The columns that the user may read and `SELECT *` shows, and the key; none where there is no such table."""

    def tables(self, ask: Ask, name: TableName) -> list[str]:
        """The names of the tables that may be meant: those beside this one, and those of its name in other schemas."""

    def indexes(self, ask: Ask, name: TableName) -> list[Index]:
        """The indexes whose order is that of whole values."""

    def row_bytes(self, ask: Ask, name: TableName, rows: int) -> int:
        """Bytes of a row as it is stored, on average; 0 where the catalogue does not know (views)."""

    def max_connections(self, ask: Ask) -> int:
        """How many the server takes."""

    def estimate(self, ask: Ask, sql: str) -> int:
        """How many rows the optimizer expects a statement to read."""

    def uses_index(self, ask: Ask, sql: str) -> bool:
        """Whether the database reads no more than the rows that a statement asks for."""


class MySQL(Engine):
    """MySQL and MariaDB.

    Spark's MySQL dialect answers to `jdbc:mysql:` alone, so MariaDB has that URL too: the generic dialect quotes
    columns with `"`, which both read as string literals.
    """

    scheme = "jdbc:mysql://"
    driver = "com.mysql.cj.jdbc.Driver"
    default_schema = ""
    session = "SET SESSION TRANSACTION READ ONLY"
    sorts = "SET SESSION max_sort_length = 8192"  # only so many bytes of a text take part in a sort
    table_refused = re.compile("Unknown database|Access denied for user .* to database")
    login_refused = re.compile("Access denied for user")
    exact_types = INTEGER_TYPES | {
        "char",
        "varchar",
        "tinytext",
        "text",
        "mediumtext",
        "longtext",
        "binary",
        "varbinary",
    }

    def address(self, url: str, database: str) -> str:  # noqa: ARG002  a session reads any database
        return url

    def parameters(self, driver: str, *, tls: bool, verified: bool) -> dict[str, str]:
        mysql = driver.startswith("com.mysql.")
        parameters = {
            "connectTimeout": str(CONNECT_TIMEOUT_SECONDS * 1000),
            "socketTimeout": str(int(SOCKET_TIMEOUT_SECONDS * 1000)),
            "sessionVariables": f"net_write_timeout={CLIENT_TIMEOUT_SECONDS},lock_wait_timeout={LOCK_TIMEOUT_SECONDS}",
        }
        if mysql:
            parameters["useCursorFetch"] = "true"  # without it Connector/J loads the whole result set
        else:
            # By the default of Connector/J 2.7 a server may ask for any file of a worker.
            parameters["allowLocalInfile"] = "false"
        if tls and mysql:
            parameters["sslMode"] = "REQUIRED"
        elif tls:
            # With a CA, Connector/J verifies the chain and the host name.
            parameters |= {"useSSL": "true"} | ({} if verified else {"trustServerCertificate": "true"})
        return parameters

    def quote_name(self, name: str) -> str:
        # https://dev.mysql.com/doc/refman/8.0/en/identifiers.html
        return "`" + name.replace("`", "``") + "`"

    def place(self, name: TableName) -> str:
        return f"{self.quote_name(name.database)}.{self.quote_name(name.table)}"

    def told(self, name: TableName) -> str:
        return f"{name.database}.{name.table}"

    def text_literal(self, text: str) -> str:
        return f"_utf8mb4 x'{text.encode().hex()}'"

    def text_expression(self, column: TableColumn) -> str:
        name = self.quote_name(column.name)
        if column.type in BINARY_TYPES:
            return f"LOWER(HEX({name}))"
        if column.type in SPATIAL_TYPES:
            return f"ST_AsText({name})"
        if column.type == "bit":
            name = f"{name} + 0"
        return f"CAST({name} AS CHAR CHARACTER SET utf8mb4)"

    def text(self, sql: str) -> str:
        return f"CONVERT({sql} USING utf8mb4)"

    def by_bytes(self, sql: str) -> str:
        return f"CAST({sql} AS BINARY)"

    def bytes_literal(self, text: str) -> str:
        return f"x'{text.encode().hex()}'"

    def hash_range(self, sql: str, ranges: int, number: int) -> str:
        return f"CRC32({sql}) % {ranges} = {number}"

    def can_look_up(self, column: TableColumn) -> bool:
        if column.type in {"char", "varchar"}:
            return column.charset in KEY_CHARSETS
        return column.is_integer or column.type in {"decimal", "binary", "varbinary"}

    def key_literal(self, column: TableColumn, text: str) -> str | None:
        if column.is_integer:
            return text if is_integer_text(text, column.type, signed="unsigned" not in column.full_type) else None
        if column.type == "decimal":
            return text if re.fullmatch(r"-?[0-9]{1,65}(\.[0-9]{1,38})?", text) else None
        if column.type in {"binary", "varbinary"}:
            return f"x'{text}'" if re.fullmatch("([0-9a-f]{2})*", text) else None
        return self.text_literal(text) if KEY_CHARSETS[column.charset or ""](text) else None

    def columns(self, ask: Ask, name: TableName, key: str) -> list[TableColumn]:
        rows = ask(
            "SELECT column_name AS name, LOWER(data_type) AS type, LOWER(column_type) AS full_type, "
            f"character_set_name AS charset FROM information_schema.columns WHERE {self._where(name)} "
            # A key may be invisible (sql_generate_invisible_primary_key of MySQL).
            f"AND (extra NOT LIKE '%INVISIBLE%' OR column_name = {self.text_literal(key)}) ORDER BY ordinal_position"
        )
        return [TableColumn(**row) for row in rows]  # type: ignore[arg-type]

    def tables(self, ask: Ask, name: TableName) -> list[str]:
        schema = self.text_literal(name.database)
        rows = ask(f"SELECT table_name AS name FROM information_schema.tables WHERE table_schema = {schema}")
        return [str(row["name"]) for row in rows]

    def indexes(self, ask: Ask, name: TableName) -> list[Index]:
        rows = ask(
            "SELECT index_name AS name, MAX(non_unique) AS repeats, COUNT(*) AS width, COUNT(sub_part) AS prefixes, "
            "MAX(IF(seq_in_index = 1 AND sub_part IS NULL, column_name, NULL)) AS first_column "
            f"FROM information_schema.statistics WHERE {self._where(name)} AND index_type = 'BTREE' GROUP BY index_name"
        )
        return [
            Index(
                str(row["first_column"]),
                unique=(row["repeats"], row["prefixes"]) == ("0", "0"),
                alone=row["width"] == "1",
                primary=row["name"] == "PRIMARY",
            )
            for row in rows
            if row["first_column"] is not None
        ]

    def row_bytes(self, ask: Ask, name: TableName, rows: int) -> int:  # noqa: ARG002  the catalogue has the quotient
        [size] = ask(f"SELECT avg_row_length AS bytes FROM information_schema.tables WHERE {self._where(name)}")
        return int(size["bytes"] or 0)

    def max_connections(self, ask: Ask) -> int:
        [limit] = ask("SELECT @@max_connections AS most")
        return int(limit["most"] or 0)

    def estimate(self, ask: Ask, sql: str) -> int:
        # The catalogue's own number is up to a day old on MySQL 8 (information_schema_stats_expiry).
        return max(int(row["rows"] or 0) for row in ask(f"EXPLAIN {sql}"))

    def uses_index(self, ask: Ask, sql: str) -> bool:
        return all(row["type"] not in {"ALL", "index"} for row in ask(f"EXPLAIN {sql}"))

    def _where(self, name: TableName) -> str:
        return f"table_schema = {self.text_literal(name.database)} AND table_name = {self.text_literal(name.table)}"


class PostgreSQL(Engine):
    """PostgreSQL 12 and newer."""

    scheme = "jdbc:postgresql://"
    driver = "org.postgresql.Driver"
    default_schema = "public"
    # Spark's reader opens its transaction before this statement, so that one is made read only as well. The driver asks
    # for the time zone of the machine it runs on and for three further digits.
    session = "; ".join(
        f"SET {setting}"
        for setting in (
            "default_transaction_read_only = on",
            "transaction_read_only = on",
            "TimeZone = 'UTC'",
            "DateStyle = 'ISO, YMD'",
            "IntervalStyle = 'postgres'",
            "extra_float_digits = 1",
            "bytea_output = 'hex'",
            f"idle_in_transaction_session_timeout = '{CLIENT_TIMEOUT_SECONDS}s'",
            f"lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'",
        )
    )
    sorts = session
    table_refused = re.compile('FATAL: database ".*" does not exist|permission denied for (database|schema)')
    login_refused = re.compile(
        'authentication failed for user|FATAL: role ".*" (does not exist|is not permitted to log in)'
    )
    exact_types = frozenset({"smallint", "integer", "bigint", *_KEY_TEXTS})

    def address(self, url: str, database: str) -> str:
        # A session is bound to the database of its URL.
        return f"{self.scheme}{urlsplit(url.removeprefix('jdbc:')).netloc}/{quote(database, safe='')}"

    def parameters(self, driver: str, *, tls: bool, verified: bool) -> dict[str, str]:  # noqa: ARG002  see check_ca_uri
        parameters = {
            "connectTimeout": str(CONNECT_TIMEOUT_SECONDS),
            "socketTimeout": str(SOCKET_TIMEOUT_SECONDS),
            "tcpKeepAlive": "true",
        }
        if tls:
            parameters["sslmode"] = "require"
        return parameters

    def quote_name(self, name: str) -> str:
        # https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-IDENTIFIERS
        return '"' + name.replace('"', '""') + '"'

    def place(self, name: TableName) -> str:
        return f"{self.quote_name(name.schema)}.{self.quote_name(name.table)}"

    def told(self, name: TableName) -> str:
        return f"{name.database}.{name.schema}.{name.table}"

    def text_literal(self, text: str) -> str:
        # Of what is not escaped nothing has a meaning to the server, the driver (?) or Spark.
        escaped = re.sub("[^A-Za-z0-9 _.-]", lambda found: f"\\U{ord(found[0]):08x}", text)
        return f"E'{escaped}'"

    def text_expression(self, column: TableColumn) -> str:
        name = self.quote_name(column.name)
        # As text an address has a prefix length that is not printed otherwise.
        return {"bytea": f"encode({name}, 'hex')", "inet": f"abbrev({name})"}.get(column.type, f"{name}::text")

    def text(self, sql: str) -> str:
        return f"({sql})::text"

    def by_bytes(self, sql: str) -> str:
        return f'({sql}) COLLATE "C"'

    def bytes_literal(self, text: str) -> str:
        return self.text_literal(text)

    def hash_range(self, sql: str, ranges: int, number: int) -> str:
        return f"(hashtext({self.by_bytes(self.text(sql))}) & 2147483647) % {ranges} = {number}"

    def can_look_up(self, column: TableColumn) -> bool:
        # A text that the encoding of the database lacks would be an error.
        return column.is_integer or (column.type in _KEY_TEXTS and column.charset == "UTF8")

    def key_literal(self, column: TableColumn, text: str) -> str | None:
        # Quoted, a number takes the type of the column: -9223372036854775808 is a numeric otherwise.
        if column.is_integer:
            return f"'{text}'" if is_integer_text(text, column.type, signed=True) else None
        if not _KEY_TEXTS[column.type].fullmatch(text):
            return None
        return self.text_literal(f"\\x{text}" if column.type == "bytea" else text)

    def columns(self, ask: Ask, name: TableName, key: str) -> list[TableColumn]:  # noqa: ARG002  all are visible
        rows = ask(
            "SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS full_type, "
            "CASE t.typname WHEN 'int2' THEN 'smallint' WHEN 'int4' THEN 'integer' WHEN 'int8' THEN 'bigint' "
            "ELSE t.typname END AS type, current_setting('server_encoding') AS charset "
            "FROM pg_attribute a JOIN pg_type given ON given.oid = a.atttypid "
            "JOIN pg_type t ON t.oid = COALESCE(NULLIF(given.typbasetype, 0), given.oid) "
            f"WHERE a.attrelid = ({self._oid(name)}) AND a.attnum > 0 AND NOT a.attisdropped "
            "AND has_column_privilege(a.attrelid, a.attnum, 'SELECT') ORDER BY a.attnum"
        )
        return [TableColumn(**row) for row in rows]  # type: ignore[arg-type]

    def tables(self, ask: Ask, name: TableName) -> list[str]:
        schema, table = self.text_literal(name.schema), self.text_literal(name.table)
        rows = ask(
            f"SELECT CASE nspname WHEN {schema} THEN relname ELSE concat(nspname, '.', relname) END AS name "
            "FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
            f"WHERE {_IS_TABLE} AND (nspname = {schema} OR relname = {table})"
        )
        return [str(row["name"]) for row in rows]

    def indexes(self, ask: Ask, name: TableName) -> list[Index]:
        # Not those of some rows, of expressions, of another order than the column's, nor those of a parent table that
        # lack the rows of its children (a partitioned table has all rows in its index).
        rows = ask(
            "SELECT a.attname AS first_column, i.indisunique AS unique, i.indnkeyatts = 1 AS alone, "
            "i.indisprimary AS primary FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
            "JOIN pg_am m ON m.oid = c.relam JOIN pg_class owner ON owner.oid = i.indrelid "
            "JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] "
            "JOIN pg_opclass o ON o.oid = i.indclass[0] "
            f"WHERE i.indrelid = ({self._oid(name)}) AND m.amname = 'btree' AND i.indisvalid AND i.indpred IS NULL "
            "AND o.opcdefault AND i.indcollation[0] = a.attcollation "
            "AND NOT (owner.relkind = 'r' AND owner.relhassubclass)"
        )
        flags = ("unique", "alone", "primary")
        return [Index(str(row["first_column"]), *(row[flag] == "t" for flag in flags)) for row in rows]

    def row_bytes(self, ask: Ask, name: TableName, rows: int) -> int:
        [size] = ask(
            f"WITH RECURSIVE tree (oid) AS ({self._oid(name)} UNION SELECT inhrelid FROM pg_inherits "
            "JOIN tree ON inhparent = tree.oid) SELECT SUM(pg_table_size(oid)) AS bytes FROM tree"
        )
        return int(size["bytes"] or 0) // max(rows, 1)

    def max_connections(self, ask: Ask) -> int:
        reserved = ("superuser_reserved_connections", "reserved_connections", "rds.rds_superuser_reserved_connections")
        names = ", ".join(map(self.text_literal, reserved))
        [limit] = ask(
            "SELECT current_setting('max_connections')::int "
            f"- (SELECT COALESCE(SUM(setting::int), 0) FROM pg_settings WHERE name IN ({names})) AS most"
        )
        return int(limit["most"] or 0)

    def estimate(self, ask: Ask, sql: str) -> int:
        return int(self._plan(ask, sql)["Plan Rows"])

    def uses_index(self, ask: Ask, sql: str) -> bool:
        def reads_little(plan: Mapping[str, Any]) -> bool:
            parts = plan.get("Plans", ())
            # A partition may be so small that an index would be a detour.
            return all(map(reads_little, parts)) if parts else "Index Cond" in plan or plan["Total Cost"] < SMALL_COST

        return reads_little(self._plan(ask, sql))

    def _plan(self, ask: Ask, sql: str) -> dict[str, Any]:
        [row] = ask(f"EXPLAIN (FORMAT JSON) {sql}")
        return dict(json.loads(str(row["QUERY PLAN"]))[0]["Plan"])

    def _oid(self, name: TableName) -> str:
        schema, table = self.text_literal(name.schema), self.text_literal(name.table)
        return (
            "SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            f"WHERE n.nspname = {schema} AND c.relname = {table} AND {_IS_TABLE}"
        )


ENGINES: tuple[Engine, ...] = (MySQL(), PostgreSQL())


def is_integer_text(text: str, kind: str, *, signed: bool) -> bool:
    """Whether a column of an integer type can hold what is written as its values are printed."""
    bits = INTEGER_BITS[kind]
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if signed else (0, 2**bits)
    return bool(re.fullmatch("0|-?[1-9][0-9]{0,19}", text)) and low <= int(text) < high


# ---------------------------------------------------------------------------------------------------------------------
# secret: who logs in where
# ---------------------------------------------------------------------------------------------------------------------

SECRET_FIELDS = ("username", "password", "db_name", "table_name")
SECRET_EXPECTS = ", ".join((*SECRET_FIELDS, "slack_webhook"))
_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")
# Parameters of a JDBC URL by which a driver would not verify the certificate after all.
_UNVERIFIED = {"usessl", "sslmode", "trustservercertificate", "disablesslhostnameverification"}


@dataclass(frozen=True)
class Secret:
    """The secret of a pipeline; password and webhook never appear in its repr."""

    name: str
    username: str
    db_name: str
    table_name: str
    password: str = field(repr=False)
    slack_webhook: str = field(repr=False, default="")
    schema_name: str = ""

    def redact(self, text: str) -> str:
        """`text` without the password and the webhook (nor the webhook's path, which alone is the token)."""
        hidden = (self.slack_webhook, urlsplit(self.slack_webhook).path.strip("/"), self.password)
        for value in filter(None, hidden):
            text = text.replace(value, "***")
        return text


def load_secret(client: Any, settings: Settings) -> Secret:
    """Reads what a run logs in with, and its webhook, with a Secrets Manager client.

    Raises:
        SettingsError: a secret is missing, not a JSON object, or lacks a field.
        AwsError: a call was denied or failed.
    """
    values = read_secret(client, settings.secret_name)
    place = {name: getattr(settings, name) for name in ("db_name", "schema_name", "table_name")}
    values |= {name: value for name, value in place.items() if value}
    if settings.slack_secret_name:
        values["slack_webhook"] = read_secret(client, settings.slack_secret_name).get("slack_webhook")
    return make_secret(settings.secret_name, values)


def read_secret(client: Any, name: str) -> dict[str, Any]:
    """The JSON object that a secret holds."""
    try:
        text = client.get_secret_value(SecretId=name).get("SecretString")
    except (ClientError, BotoCoreError) as error:
        if error_code(error) == "ResourceNotFoundException":
            raise SettingsError("secret_missing", secret=name) from error
        raise aws_error(error, "secretsmanager:GetSecretValue", name) from error
    return parse_secret(name, text)


def parse_secret(name: str, text: str | None) -> dict[str, Any]:
    """The JSON object in the text of a secret; no error quotes the text."""
    try:
        values = json.loads(text or "")
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise SettingsError("secret_invalid", secret=name, problem=phrase("no_json_object"), fields=SECRET_EXPECTS)
    return values


def make_secret(name: str, values: Mapping[str, Any]) -> Secret:
    """The checked secret."""
    missing = [key for key in SECRET_FIELDS if not isinstance(values.get(key), str) or not values[key]]
    if missing:
        problem = phrase("fields_missing", names=", ".join(missing))
        raise SettingsError("secret_invalid", secret=name, problem=problem, fields=SECRET_EXPECTS)
    webhook = values.get("slack_webhook") or ""
    if not is_webhook(webhook):
        problem = phrase("webhook_no_url")
        raise SettingsError("secret_invalid", secret=name, problem=problem, fields=SECRET_EXPECTS)
    schema = values.get("schema_name") or ""
    if not isinstance(schema, str):
        problem = phrase("schema_no_string")
        raise SettingsError("secret_invalid", secret=name, problem=problem, fields=SECRET_EXPECTS)
    given = {key: values[key] for key in SECRET_FIELDS}
    return Secret(name=name, slack_webhook=webhook, schema_name=schema, **given)


def is_webhook(value: object) -> bool:
    """Whether a value can be posted to, or is empty."""
    return isinstance(value, str) and (not value or split_url(value).scheme in {"https", "http"})


def split_url(url: str) -> SplitResult:
    """The parts of a URL; all empty where it is none (`https://[your-host]`: brackets are for addresses of IPv6)."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


FETCH_ROWS = 10_000  # a driver holds so many at a time


@dataclass(frozen=True)
class Database:
    """Where the table is and how Spark's JDBC reader logs in.

    Attributes:
        ca_uri: The S3 object of the CA bundle; empty where the certificate of the server is not verified.
        ca: The certificates in it, as PEM.
    """

    engine: Engine
    host: str
    url: str
    driver: str
    secret: Secret = field(repr=False)
    ca_uri: str = ""
    ca: str = field(repr=False, default="")

    @property
    def table(self) -> TableName:
        schema = self.secret.schema_name or self.engine.default_schema
        return TableName(self.secret.db_name, schema, self.secret.table_name)

    @property
    def options(self) -> dict[str, str]:
        """Options of Spark's JDBC source. `password` is one of those Spark itself redacts (spark.redaction.regex)."""
        return {
            "driver": self.driver,
            "user": self.secret.username,
            "password": self.secret.password,
            "fetchsize": str(FETCH_ROWS),
            "sessionInitStatement": self.engine.session,
            # The certificates themselves, as executors have no file of them.
            **({"serverSslCert": self.ca} if self.ca else {}),
        }


def load_database(client: Any, s3: Any, connection: str, secret: Secret) -> Database:
    """Reads host and driver from the Glue connection with a Glue client, and the CA bundle with an S3 client.

    Raises:
        SettingsError: the connection is missing, is not a JDBC connection to one of ENGINES, or has no CA bundle.
        AwsError: a call was denied or failed.
    """
    try:
        answer = client.get_connection(Name=connection, HidePassword=True)
    except (ClientError, BotoCoreError) as error:
        if error_code(error) == "EntityNotFoundException":
            raise SettingsError("connection_missing", connection=connection) from error
        raise aws_error(error, "glue:GetConnection", connection) from error
    database = make_database(connection, answer["Connection"].get("ConnectionProperties", {}), secret)
    return replace(database, ca=read_ca(s3, database.ca_uri)) if database.ca_uri else database


def read_ca(client: Any, place: str) -> str:
    """The certificates in the CA bundle at an S3 URL, as PEM without what may stand between them.

    Raises:
        SettingsError: there is no such object, or it holds no certificate.
        AwsError: S3 denied the call or failed.
    """
    url = urlsplit(place)
    try:
        text = client.get_object(Bucket=url.netloc, Key=url.path[1:])["Body"].read().decode("ascii", "replace")
    except (ClientError, BotoCoreError) as error:
        if error_code(error) in {"NoSuchKey", "NoSuchBucket", "404"}:
            raise SettingsError("ca_invalid", place=place, problem=phrase("ca_missing")) from error
        raise aws_error(error, "s3:GetObject", place) from error
    bundle = "\n".join(_CERTIFICATE.findall(text))
    try:
        ssl.create_default_context(cadata=bundle or "-")
    except (ssl.SSLError, ValueError):
        raise SettingsError("ca_invalid", place=place, problem=phrase("no_certificates")) from None
    return bundle


def make_database(connection: str, properties: Mapping[str, str], secret: Secret) -> Database:
    """The checked JDBC target from the properties of a Glue connection and the database that the secret names."""
    url = properties.get("JDBC_CONNECTION_URL", "")
    host = split_url(url.removeprefix("jdbc:")).netloc
    engine = next((engine for engine in ENGINES if url.startswith(engine.scheme)), None)
    if engine is None or not host:
        urls = [f"{engine.scheme}host:port/database" for engine in ENGINES]
        expected = {language: word.join(urls) for language, word in PHRASES["or"].items()}
        problem = phrase("url_invalid", url=url.partition("?")[0], expected=expected)
        raise SettingsError("connection_invalid", connection=connection, problem=problem)
    if secret.schema_name and not engine.default_schema:
        conflict = phrase("schema_unused", schema=secret.schema_name, scheme=engine.scheme)
        raise SettingsError("arguments_conflict", conflict=conflict)
    driver = properties.get("JDBC_DRIVER_CLASS_NAME") or engine.driver
    tls = properties.get("JDBC_ENFORCE_SSL", "false").lower() == "true"
    base, _, query = url.partition("?")
    present = {item.partition("=")[0] for item in query.split("&")}
    ca_uri = properties.get("CUSTOM_JDBC_CERT", "")
    if ca_uri:
        check_ca_uri(connection, ca_uri, driver, tls=tls, present=present)
    wanted = engine.parameters(driver, tls=tls, verified=bool(ca_uri))
    added = [f"{name}={value}" for name, value in wanted.items() if name not in present]
    parameters = "&".join([query, *added] if query else added)
    return Database(engine, host, f"{engine.address(base, secret.db_name)}?{parameters}", driver, secret, ca_uri)


def check_ca_uri(connection: str, ca_uri: str, driver: str, *, tls: bool, present: Iterable[str]) -> None:
    """Refuses a CA bundle that would not be used, so that nobody believes in a verification that is none.

    Raises:
        SettingsError: the bundle is no S3 object, TLS is off, the driver cannot be given it, or the URL says otherwise.
    """
    doubted = sorted(name for name in present if name.lower() in _UNVERIFIED)
    url = split_url(ca_uri)
    if url.scheme != "s3" or not url.netloc or not url.path.strip("/"):
        problem = phrase("ca_uri_invalid", uri=ca_uri)
    elif not tls:
        problem = phrase("ca_without_tls")
    elif not driver.startswith("org.mariadb."):
        # The others read a file that would have to lie on every worker.
        problem = phrase("ca_needs_driver")
    elif doubted:
        problem = phrase("ca_doubted", names=", ".join(doubted))
    else:
        return
    raise SettingsError("connection_invalid", connection=connection, problem=problem)


# ---------------------------------------------------------------------------------------------------------------------
# slack: one message a run, never in the way
# ---------------------------------------------------------------------------------------------------------------------

SLACK_ATTEMPTS = 4
SLACK_SECONDS = 45.0  # all attempts and waits together
SLACK_TIMEOUT = (5.0, 10.0)  # connect, read
# A header takes 150 characters, a section 3,000, each of its 10 fields 2,000 (docs.slack.dev/reference/block-kit), all
# together about 13,200 (msg_blocks_too_long; not documented).
HEADER_LIMIT = 150
CAUSE_LIMIT, HINT_LIMIT, PLACE_LIMIT, ID_LIMIT, LINK_LIMIT = 1_800, 900, 300, 80, 1_200
FEWER = 2  # a run with less than one FEWER-th of the last run's records is a warning
# What moves the cursor, begins a line or turns the direction of text: none of it is shown, all of it can deceive.
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")

TEXTS = {
    "ja": {
        "success": "✅ {job}: 出力しました",
        "failure": "❌ {job}: 失敗しました ({stage})",
        "unmatched": "⚠️ 入力にない id がテーブルに {count} 件あります: {ids}",
        "more": " 他 {count} 件",
        "duplicates": "⚠️ id の重複: 入力 {source} 件 (すべて出力)、テーブル {table} 件 (1 行だけ使用)",
        "missing_ids": "⚠️ id のないレコード: {count} 件 (補完せずに出力)",
        "fewer_records": "⚠️ 入力レコードが前回の半分未満です: 前回 {last} 件、今回 {count} 件",
        "cause": "原因",
        "hint": "次に確認すること",
        "unchanged": "出力ファイル {output} は前回のままです。",
        "source_records": "入力レコード",
        "matched": "一致",
        "source_only": "入力のみ",
        "filled_cells": "補完したセル",
        "unmatched_rows": "テーブルのみ",
        "output": "出力",
        "seconds": "所要時間",
        "duration": "{minutes} 分 {seconds} 秒",
        "since": "失敗の始まり",
        "plan": "読み取り方式",
        "few_ids": "id が少なく、キーに索引がある",
        "small_table": "小さなテーブル",
        "many_ids": "テーブルに対して id が多い",
        "no_index": "キーで始まる索引がない",
        "key_type": "この型のキーは索引で引けない",
        "index_unused": "データベースが索引を使わない",
        "run": "実行 ID",
        "open_run": "Glue の実行",
        "open_logs": "ログ",
        "open_output": "S3 の出力",
        "open_list": "テーブルのみの id の一覧",
        "open_report": "実行レポート",
        "settings": "設定",
        "secret": "シークレット",
        "connection": "接続",
        "source": "入力の読み取り",
        "table": "テーブルの読み取り",
        "overlay": "突き合わせ",
        "publish": "出力",
        "commit": "完了処理",
    },
    "en": {
        "success": "✅ {job}: published",
        "failure": "❌ {job}: failed ({stage})",
        "unmatched": "⚠️ {count} table rows have an id that the source lacks: {ids}",
        "more": " +{count} more",
        "duplicates": "⚠️ Duplicate ids: {source} in the source (all written), {table} in the table (one row used)",
        "missing_ids": "⚠️ Records without an id: {count} (written as they are)",
        "fewer_records": "⚠️ Fewer than half of the last run's records: {last} then, {count} now",
        "cause": "Cause",
        "hint": "Check next",
        "unchanged": "The output {output} is unchanged.",
        "source_records": "Source records",
        "matched": "Matched",
        "source_only": "Source only",
        "filled_cells": "Cells filled",
        "unmatched_rows": "Table only",
        "output": "Output",
        "seconds": "Duration",
        "duration": "{minutes} min {seconds} s",
        "since": "Failing since",
        "plan": "Read plan",
        "few_ids": "few ids, and an index on the key",
        "small_table": "a small table",
        "many_ids": "many ids for the size of the table",
        "no_index": "no index begins with the key",
        "key_type": "keys of this type cannot be looked up",
        "index_unused": "the database would not use the index",
        "run": "Run id",
        "open_run": "Glue run",
        "open_logs": "Logs",
        "open_output": "Output in S3",
        "open_list": "List of table-only ids",
        "open_report": "Run report",
        "settings": "settings",
        "secret": "secret",
        "connection": "connection",
        "source": "reading the source",
        "table": "reading the table",
        "overlay": "overlay",
        "publish": "publishing",
        "commit": "finishing",
    },
}


def visible(text: object) -> str:
    """Text with its invisible characters as escapes, so that no value begins a line of its own or hides another."""
    return _INVISIBLE.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def slack_escape(text: object) -> str:
    """Text with Slack's three control characters escaped (https://docs.slack.dev/messaging/formatting-message-text)."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def shown(text: object, limit: int) -> str:
    """A value for people: visible, escaped, cut to `limit` characters as Slack counts them (escaped)."""
    pieces = [slack_escape(char) for char in visible(text)[: limit + 1]]
    if sum(map(len, pieces)) <= limit:
        return "".join(pieces)
    kept = bisect.bisect_right(list(itertools.accumulate(map(len, pieces))), limit - 1)
    return "".join(pieces[:kept]) + "…"


def as_code(text: object, limit: int) -> str:
    """A value as inline code: the one place in mrkdwn where nothing is formatted, linked or mentioned."""
    inside = shown(str(text).replace("`", "ˋ"), limit)
    return f"`{inside}`" if inside else '`""`'


def link(url: str, label: str) -> str:
    """A link in mrkdwn; nothing without a URL."""
    return f"<{slack_escape(url)}|{label}>" if 0 < len(url) <= LINK_LIMIT else ""


def quoted(text: str) -> str:
    """A value as part of a URL."""
    return quote(text, safe="", errors="backslashreplace")


class Console(NamedTuple):
    """Pages of the AWS console; an empty URL where it lacks something."""

    region: str

    def _url(self, page: str, *needed: str) -> str:
        return f"https://{self.region}.console.aws.amazon.com/{page}" if all((self.region, *needed)) else ""

    def run(self, job: str, run_id: str) -> str:
        """A run of a Glue job."""
        place = f"job/{quoted(job)}/run/{quoted(run_id)}"
        return self._url(f"gluestudio/home?region={self.region}#/{place}", job, run_id)

    def logs(self, group: str, run_id: str) -> str:
        """The log streams of a run. In its fragment the console wants `$` for `%`, and names quoted twice."""
        name = quoted(quoted(group)).replace("%", "$")
        streams = quoted(f"?logStreamNameFilter={run_id}").replace("%", "$")
        page = f"cloudwatch/home?region={self.region}#logsV2:log-groups/log-group/{name}{streams}"
        return self._url(page, group, run_id)

    def object(self, bucket: str, key: str) -> str:
        """An object in S3."""
        page = f"s3/object/{quoted(bucket)}?region={self.region}&prefix={quoted(key)}"
        return self._url(page, bucket, key)


def mrkdwn(text: str) -> dict[str, Any]:
    """A text object in Slack's markup. Verbatim: names and URLs in it are not made links, nor mentions."""
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def plain(text: str) -> dict[str, Any]:
    """A text object without markup; Slack takes none that is empty."""
    return {"type": "plain_text", "text": text or "-", "emoji": False}


def columns_of(facts: Mapping[str, str]) -> dict[str, Any]:
    """Facts in two columns, as the content of a section; it takes ten."""
    return {"fields": [mrkdwn(f"*{name}*\n{value}") for name, value in facts.items()]}


def slack_message(
    title: str, sections: Sequence[Mapping[str, Any]], notes: Sequence[str], summary: str
) -> dict[str, Any]:
    """A Block Kit payload: header, sections, small notes.

    All texts are escaped by the caller. `text` is what notifications, screen readers and old clients show.
    """
    blocks: list[dict[str, Any]] = [{"type": "header", "text": plain(title)}]
    blocks += [{"type": "section", **section} for section in sections]
    if notes := [note for note in notes if note]:
        blocks.append({"type": "context", "elements": [mrkdwn(note) for note in notes]})
    return {"text": f"{title}\n{summary}", "blocks": blocks}


def title_of(kind: str, language: str, job: str, stage: str = "") -> str:
    """The header of a message; the name of the job gives way where it is too long."""
    room = HEADER_LIMIT - len(TEXTS[language][kind].format(job="", stage=stage))
    return TEXTS[language][kind].format(job=shown(job, room), stage=stage)


def share(part: int, whole: int) -> str:
    """A count and its share of the whole: `1 (<0.1%)` is not nothing and `>99.9%` is not all."""
    if not whole:
        return f"{part:,}"
    percent = 100 * part / whole
    about = "<0.1" if 0 < percent < 0.1 else ">99.9" if 99.9 < percent < 100 else f"{percent:.1f}"  # noqa: PLR2004
    return f"{part:,} ({slack_escape(about)}%)"


def duration(seconds: float, language: str) -> str:
    """A time span for people."""
    minutes, rest = divmod(round(seconds), 60)
    return TEXTS[language]["duration"].format(minutes=f"{minutes:,}", seconds=rest) if minutes else f"{seconds:.1f} s"


def size_text(size: int) -> str:
    """A number of bytes for people."""
    return f"{size:,} bytes" if size < MIB else f"{size / MIB:,.1f} MiB"


def date_text(moment: str) -> str:
    """An ISO time in UTC as Slack's date, which each reader sees in the time of their place."""
    found = datetime.fromisoformat(moment)
    return f"<!date^{int(found.timestamp())}^{{date_num}} {{time}}|{found:%Y-%m-%d %H:%M} UTC>"


def warnings_of(result: Result, last: LastRun, language: str) -> dict[str, str]:
    """What a success should be looked at for, by the names in TEXTS."""
    texts = TEXTS[language]
    found = {}
    if result.source_duplicates or result.table_duplicates:
        counts = {"source": f"{result.source_duplicates:,}", "table": f"{result.table_duplicates:,}"}
        found["duplicates"] = texts["duplicates"].format(**counts)
    if result.missing_ids:
        found["missing_ids"] = texts["missing_ids"].format(count=f"{result.missing_ids:,}")
    if result.source_records * FEWER < last.source_records:
        counts = {"last": f"{last.source_records:,}", "count": f"{result.source_records:,}"}
        found["fewer_records"] = texts["fewer_records"].format(**counts)
    return found


def success_message(settings: Settings, result: Result, last: LastRun, region: str) -> dict[str, Any]:
    """The message of a run that published its output; `last` is the run before."""
    texts, console, bucket = TEXTS[settings.language], Console(region), settings.destination_bucket
    counts = {
        texts["source_records"]: f"{result.source_records:,}",
        texts["matched"]: share(result.matched, result.source_records),
        texts["source_only"]: share(result.source_only, result.source_records),
        texts["filled_cells"]: share(result.filled_cells, result.source_records * len(result.columns)),
        texts["unmatched_rows"]: share(result.unmatched, result.table_rows),
        texts["seconds"]: duration(result.seconds, settings.language),
    }
    facts = {
        texts["plan"]: f"{result.plan} ({texts[result.plan_reason]})" if result.plan_reason else result.plan,
        texts["output"]: f"{as_code(result.output, PLACE_LIMIT)}\n{size_text(result.bytes)}",
    }
    paragraphs = []
    if result.unmatched:
        ids = ", ".join(as_code(key, ID_LIMIT) for key in result.unmatched_ids)
        rest = result.unmatched - len(result.unmatched_ids)
        more = texts["more"].format(count=f"{rest:,}") if rest > 0 else ""
        told = texts["unmatched"].format(count=f"{result.unmatched:,}", ids=ids) + more
        whole = link(console.object(bucket, settings.unmatched_file), texts["open_list"])
        paragraphs.append(mrkdwn(f"{told}\n{whole}" if whole else told))
    paragraphs += [mrkdwn(text) for text in warnings_of(result, last, settings.language).values()]
    links = [
        link(console.run(settings.job_name, settings.run_id), texts["open_run"]),
        link(console.object(bucket, settings.destination_file), texts["open_output"]),
        link(console.object(bucket, settings.report_key), texts["open_report"]),
    ]
    return slack_message(
        title_of("success", settings.language, settings.job_name),
        [columns_of(counts | facts), *({"text": text} for text in paragraphs)],
        [f"{texts['run']} {as_code(settings.run_id, PLACE_LIMIT)}" if settings.run_id else "", *links],
        " · ".join(f"{name} {value}" for name, value in counts.items()),
    )


@dataclass(frozen=True)
class Failure:
    """What a failed run tells.

    Attributes:
        message: Cause and hint, without secrets.
        output: The URL of the output that stays as it was; empty where it does not, or is not known.
        since: When the first of this row of failures was, in UTC; empty where that is not known.
        log_group: Where its log is.
    """

    job: str
    run_id: str
    language: str
    stage: str
    message: Message
    output: str
    seconds: float
    since: str
    log_group: str


def failure_message(failure: Failure, region: str) -> dict[str, Any]:
    """The message of a run that failed."""
    texts, console = TEXTS[failure.language], Console(region)
    cause, hint = shown(failure.message.cause, CAUSE_LIMIT), shown(failure.message.hint, HINT_LIMIT)
    facts = {texts["seconds"]: duration(failure.seconds, failure.language)}
    if failure.since:
        facts = {texts["since"]: date_text(failure.since)} | facts
    paragraphs = [mrkdwn(f"*{texts['cause']}*"), plain(cause), mrkdwn(f"*{texts['hint']}*"), plain(hint)]
    if failure.output:
        paragraphs.append(mrkdwn(texts["unchanged"].format(output=as_code(failure.output, PLACE_LIMIT))))
    return slack_message(
        title_of("failure", failure.language, failure.job, texts[failure.stage]),
        [*({"text": text} for text in paragraphs), columns_of(facts)],
        [
            f"{texts['run']} {as_code(failure.run_id, PLACE_LIMIT)}" if failure.run_id else "",
            link(console.run(failure.job, failure.run_id), texts["open_run"]),
            link(console.logs(failure.log_group, failure.run_id), texts["open_logs"]),
        ],
        f"{cause}\n{hint}",
    )


def post_to_slack(webhook: str, payload: Mapping[str, Any], deadline: float = SLACK_SECONDS) -> bool:
    """Posts a payload to an incoming webhook; True when Slack took it. Never raises, ends within `deadline` seconds.

    The thread is what bounds the time: a server that sends one byte every few seconds defeats socket timeouts.
    """
    if not webhook:
        return False
    delivered = threading.Event()
    thread = threading.Thread(
        target=_deliver, args=(webhook, payload, time.monotonic() + deadline, delivered), daemon=True
    )
    thread.start()
    thread.join(deadline)
    if not delivered.is_set():
        LOG.warning("Slack did not take the message; the run goes on without it")
    return delivered.is_set()


def _deliver(webhook: str, payload: Mapping[str, Any], until: float, delivered: threading.Event) -> None:
    for attempt in range(SLACK_ATTEMPTS):
        wait = 2.0**attempt
        try:
            answer = requests.post(webhook, json=payload, timeout=SLACK_TIMEOUT, allow_redirects=False)
        except requests.RequestException as error:
            # The text of the exception holds the webhook, so only its kind is logged.
            LOG.warning("Slack attempt %d: %s", attempt + 1, type(error).__name__)
            if isinstance(error, requests.ReadTimeout):
                return  # Slack has the message, and may yet show it
        else:
            if answer.status_code == requests.codes.ok:
                delivered.set()
                return
            LOG.warning("Slack attempt %d: HTTP %d", attempt + 1, answer.status_code)
            if answer.status_code != requests.codes.too_many_requests and answer.status_code < 500:  # noqa: PLR2004
                return
            wait = _retry_after(answer.headers.get("Retry-After"), wait)
        if attempt + 1 == SLACK_ATTEMPTS or time.monotonic() + wait > until:
            return
        time.sleep(wait)


def _retry_after(header: str | None, default: float) -> float:
    return float(header) if header and header.strip().isdecimal() else default


# ---------------------------------------------------------------------------------------------------------------------
# blocks: what Spark moves is not rows but Arrow record batches of many rows, each in one binary cell
# ---------------------------------------------------------------------------------------------------------------------

BLOCK_SCHEMA = "target int, kind int, split int, width int, data binary"
TABLE_BLOCK, LEFT_OUT, SOURCE_BLOCK = range(3)  # kinds, in the order in which a join takes them
PACKED_BYTES = 256 * 1024  # of a block
FILTER_BITS = 27  # 16 MiB, of which 5 M keys set 4 %
MAX_FILTER_RECORDS = 10_000_000  # the driver gets 4 bytes for each
BLOCKS_PER_BATCH = 500  # blocks, or rows of the table, that Spark hands to Python at a time
_NUMBER_KEY = "^-?[0-9]{1,18}$"


def key_hashes(keys: pa.Array) -> np.ndarray[Any, Any]:
    """A hash of the text of each key, of 64 bits."""
    is_number = pc.match_substring_regex(keys, _NUMBER_KEY)
    numbers = pc.if_else(is_number, keys, "0").cast(pa.int64()).to_numpy().astype(np.uint64)
    if not pc.all(is_number).as_py():
        others = np.flatnonzero(~is_number.to_numpy(zero_copy_only=False))
        numbers[others] = [zlib.crc32(key.encode()) for key in keys.take(pa.array(others)).to_pylist()]
    hashes: np.ndarray[Any, Any] = numbers * np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing: ids may be regular
    return hashes


def target_of(hashes: np.ndarray[Any, Any], targets: int) -> np.ndarray[Any, Any]:
    """The target, from 0 to `targets` - 1, where all rows with the same key meet."""
    found: np.ndarray[Any, Any] = (hashes >> np.uint64(32)) % np.uint64(targets)
    return found.astype(np.int64)


def key_bits(hashes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The bit of a filter that stands for each key."""
    return (hashes >> np.uint64(64 - FILTER_BITS)).astype(np.uint32)


def key_filter(bits: Iterable[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """A Bloom filter of one hash, as bytes: the keys that a source may have, of which it denies none."""
    bitmap = np.zeros(2**FILTER_BITS // 8, np.uint8)
    for found in bits:
        np.bitwise_or.at(bitmap, found >> 3, (1 << (found & 7)).astype(np.uint8))
    return bitmap


def may_have(bitmap: np.ndarray[Any, Any], hashes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Whether each key may be among those of the filter."""
    bits = key_bits(hashes)
    found: np.ndarray[Any, Any] = (bitmap[bits >> 3] >> (bits & 7).astype(np.uint8) & 1).astype(bool)
    return found


def runs(values: np.ndarray[Any, Any]) -> Iterator[tuple[int, int, int]]:
    """The runs of equal numbers: the number, where it starts, where it ends."""
    starts = map(int, np.flatnonzero(np.diff(values, prepend=values[:1] - 1)))
    for start, end in itertools.pairwise([*starts, len(values)]):
        yield int(values[start]), start, end


def pack(batch: pa.RecordBatch) -> Iterator[bytes]:
    """A record batch as blocks of about PACKED_BYTES, without its schema."""
    step = max(batch.num_rows * PACKED_BYTES // max(batch.nbytes, 1), 1)
    for start in range(0, batch.num_rows, step):
        yield batch.slice(start, step).serialize().to_pybytes()


def unpack(data: pa.Buffer, schema: pa.Schema) -> pa.RecordBatch:
    """The record batch of a block."""
    return pa.ipc.read_record_batch(data, schema)


BlockRow = tuple[int, int, int, int, bytes]  # of BLOCK_SCHEMA


def block_batch(blocks: Sequence[BlockRow]) -> pa.RecordBatch:
    """Blocks as rows of BLOCK_SCHEMA."""
    types = (pa.int32(), pa.int32(), pa.int32(), pa.int32(), pa.binary())
    arrays = [pa.array(column, kind) for column, kind in zip(zip(*blocks, strict=True), types, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, names=["target", "kind", "split", "width", "data"])


def to_targets(
    batch: pa.RecordBatch, hashes: np.ndarray[Any, Any], targets: int, label: tuple[int, int, int]
) -> list[BlockRow]:
    """The rows of a batch as blocks for the targets of the `hashes` of their keys; `label` is kind, split and width."""
    target = target_of(hashes, targets)
    order = np.argsort(target, kind="stable")
    batch = batch.take(pa.array(order))
    return [
        (number, *label, data)
        for number, start, end in runs(target[order])
        for data in pack(batch.slice(start, end - start))
    ]


def block_frame(rows: RDD[BlockRow]) -> DataFrame:
    """The rows as a DataFrame. `createDataFrame` does the same, but sends each row through Python once more."""
    spark: Any = SparkSession.active()
    schema = spark._jvm.org.apache.spark.sql.types.StructType.fromDDL(BLOCK_SCHEMA).json()
    arrays = spark._jvm.SerDeUtil.toJavaArray(rows._to_java_object_rdd())
    return DataFrame(spark._jsparkSession.applySchemaToPythonRDD(arrays.rdd(), schema), spark)


class Packed(NamedTuple):
    """A block and its label."""

    kind: int
    split: int
    width: int
    data: pa.Buffer


def blocks_of(batches: Iterable[pa.RecordBatch]) -> Iterator[Packed]:
    """The blocks in rows of BLOCK_SCHEMA."""
    for batch in batches:
        labels = (batch.column(name).to_pylist() for name in ("kind", "split", "width"))
        for kind, split, width, data in zip(*labels, batch.column("data"), strict=True):
            yield Packed(kind, split, width, data.as_buffer())


def gathered(items: Iterable[Any], most: int, size_of: Callable[[Any], int]) -> Iterator[list[Any]]:
    """The same record batches or blocks in lists of about `most` bytes."""
    held: list[Any] = []
    size = 0
    for item in items:
        held.append(item)
        size += size_of(item)
        if size >= most:
            yield held
            held, size = [], 0
    if held:
        yield held


def spark_hash(number: int) -> int:
    """Spark's hash of an INT (Murmur3_x86_32, seed 42), as `repartition` uses it: signed 32 bits."""
    mask = 0xFFFFFFFF
    part = number * 0xCC9E2D51 & mask
    part = ((part << 15 | part >> 17) & mask) * 0x1B873593 & mask
    value = 42 ^ part
    value = (value << 13 | value >> 19) & mask
    value = (value * 5 + 0xE6546B64 & mask) ^ 4
    value = (value ^ value >> 16) * 0x85EBCA6B & mask
    value = (value ^ value >> 13) * 0xC2B2AE35 & mask
    value ^= value >> 16
    return value - (1 << 32) if value >> 31 else value


def partition_numbers(partitions: int) -> list[int]:
    """For each partition a number that `repartition(partitions, number)` sends there.

    Spark hashes whatever it is given, so what shall go to a partition of its own goes by such a number.
    """
    found: dict[int, int] = {}
    for number in itertools.count():
        found.setdefault(spark_hash(number) % partitions, number)
        if len(found) == partitions:
            return [found[partition] for partition in range(partitions)]
    raise AssertionError("unreachable")


def number_at(numbers: Iterable[int], index: str) -> Column:
    """The number at the place that a column says. A `lit` of each would be a call of the JVM of its own."""
    return F.expr(f"get(array({', '.join(map(str, numbers))}), {index})")


# ---------------------------------------------------------------------------------------------------------------------
# source: S3 JSON -> one row per record, values as text, order as a position
# ---------------------------------------------------------------------------------------------------------------------

BLOCK_BYTES = 4 * MIB  # one range read, and the text that is parsed at a time
MAX_RECORD_BYTES = 64 * MIB
SNIFF_BYTES = 64 * 1024
MIN_SPLIT_BYTES, MAX_SPLIT_BYTES = 4 * MIB, 64 * MIB
READ_ATTEMPTS = 5
ROW_BITS = 40  # a position is `split << ROW_BITS | row in split`
GZIP_MAGIC = b"\x1f\x8b"
BLANKS = " \t\r\n"
_SPACE = re.compile(f"[{BLANKS}]*")
_CANONICAL_INTEGER = r"^(0|-?[1-9][0-9]{0,18})$"
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?")  # Decimal refuses exponents of 19 digits
_BOUNDARY = re.compile(rb"\}[ \t\r\n]*,[ \t\r\n]*\{")
BOUNDARY_BYTES = 1024  # of blanks in a boundary of an array that is cut
_MINUS_ZERO = re.compile(rb"-0[ \t\r]*[,}]")
LEARNT_RECORDS = 100
MAX_MISSES = 3  # blocks that turned out otherwise, then Arrow is left alone
MAX_INTEGER_DIGITS = 20  # BIGINT UNSIGNED


def s3_client(region: str | None) -> Any:
    """An S3 client for the driver."""
    return boto3.client("s3", region_name=region, config=AWS_CONFIG)


@contextmanager
def in_worker() -> Iterator[None]:
    """Around what a task does: its JobError survives Spark's wrapping, and the next task begins without delay.

    Spark invalidates all import caches as a task begins, and Python then reads the directory of pyspark.zip anew,
    for each finder of it in that cache; who imports from it again makes one without reading.
    """
    with sent_to_driver():
        yield
    for path, finder in list(sys.path_importer_cache.items()):
        if isinstance(finder, zipimport.zipimporter):
            del sys.path_importer_cache[path]


def worker_s3_client(region: str | None) -> Any:
    """The S3 client of a worker process: one for all its tasks, with the connections it has open."""
    # Our functions travel by value and start with empty globals in each task; a module that is installed there stays.
    clients = vars(boto3).setdefault("_glue_job_s3_clients", {})
    if region not in clients:
        clients[region] = s3_client(region)
    return clients[region]


class SourceObject(NamedTuple):
    """One S3 object, pinned to the version that was listed."""

    bucket: str
    key: str
    size: int  # bytes
    etag: str

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


class Piece(NamedTuple):
    """What one task reads of an object: the records that begin in [start, end), or all of it when `end` is None."""

    source: SourceObject
    start: int
    end: int | None
    of_array: bool = False


@dataclass(frozen=True)
class Source:
    """The parsed source.

    Attributes:
        blocks: Blocks of records (see `source_schema`): position, what the table's key is compared with, and the values
            in the column order of the split. One target has all records of a key.
        columns: Column names in the order they first appear.
        headers: The columns of each split, in its own order.
        counts: Records of each split.
        missing_ids: Records whose key is missing or null.
        size: Bytes of the objects.
        packed: Bytes of the blocks.
        targets: How many there are.
        keys: A filter of them (see `key_filter`), where they are few enough.
        nonce: What the match of a record without a key begins with.
    """

    blocks: RDD[BlockRow]
    columns: tuple[str, ...]
    headers: tuple[tuple[str, ...], ...]
    counts: tuple[int, ...]
    missing_ids: int
    size: int
    packed: int = 0
    targets: int = 1
    keys: np.ndarray[Any, Any] | None = field(repr=False, default=None)
    nonce: str = ""

    @property
    def records(self) -> int:
        return sum(self.counts)

    @property
    def bytes(self) -> int:
        """What the records take: the blocks are more than objects that are compressed."""
        return max(self.size, self.packed)


def source_schema(width: int) -> pa.Schema:
    """The schema of a block of records with the first `width` columns of their split."""
    cells = [(f"s{i}", pa.string()) for i in range(width)]
    return pa.schema([("position", pa.int64()), ("match", pa.string()), *cells])


def read_source(
    spark: SparkSession,
    client: Any,
    objects: Sequence[SourceObject],
    settings: Settings,
    *,
    integer_key: bool,
    targets: int,
) -> Source:
    """Parses the source once, in parallel, and keeps the records where the executors are.

    Raises:
        SourceError: objects are missing, empty or malformed, or no record has the key column.
        AwsError: S3 denied a call or failed.
    """
    parallelism = spark.sparkContext.defaultParallelism
    splits = plan_splits(client, objects, parallelism)
    nonce = f"\x00{secrets.token_hex(16)}:"
    task = SourceTask(splits, settings.key, integer_key, nonce, targets, client.meta.region_name)
    blocks, summaries = parse_splits(spark, task)
    if not follow_each_other(splits, summaries):
        LOG.info("the cuts of an array are not where records begin, or it is malformed; it is read in one piece")
        blocks.unpersist()
        whole = plan_splits(client, objects, parallelism, cut_arrays=False)
        blocks, summaries = parse_splits(spark, task._replace(splits=whole))
    headers = (tuple(summary["columns"]) for summary in summaries)
    bits = [summary["key_bits"] for summary in summaries]
    known: dict[tuple[str, ...], tuple[str, ...]] = {}
    source = Source(
        blocks=blocks,
        columns=tuple(dict.fromkeys(itertools.chain.from_iterable(summary["columns"] for summary in summaries))),
        headers=tuple(known.setdefault(header, header) for header in headers),  # they travel with every task
        counts=tuple(summary["records"] for summary in summaries),
        missing_ids=sum(summary["missing_ids"] for summary in summaries),
        size=sum(item.size for item in objects),
        packed=sum(summary["bytes"] for summary in summaries),
        targets=targets,
        keys=None if any(found is None for found in bits) else key_filter(bits),
        nonce=nonce,
    )
    check_source(source, settings)
    return source


class Collected(AccumulatorParam[dict[Any, Any]]):  # type: ignore[misc]
    """An accumulator of what tasks tell the driver beside their results, by keys that are the same at each attempt."""

    def zero(self, value: dict[Any, Any]) -> dict[Any, Any]:  # noqa: ARG002
        return {}

    def addInPlace(self, value1: dict[Any, Any], value2: dict[Any, Any]) -> dict[Any, Any]:  # noqa: N802
        return value1 | value2


def parse_splits(spark: SparkSession, task: SourceTask) -> tuple[RDD[BlockRow], list[dict[str, Any]]]:
    """The blocks of all splits, kept, and their summaries (see `split_blocks`), in order."""
    context = spark.sparkContext
    summaries = context.accumulator({}, Collected())
    splits = len(task.splits)
    blocks = context.parallelize(range(splits), max(splits, 1)).mapPartitions(_split_reader(task, summaries))
    # Parsing is the dear part, and columns must be known before the rest of the plan can be written down. On disk, as
    # the heap would grow with the source, and blocks are read as fast from the page cache.
    blocks = blocks.persist(StorageLevel.DISK_ONLY)
    blocks._jrdd.count()  # `blocks.count()` would send all of them to Python
    return blocks, [summaries.value[split] for split in range(splits)]


def follow_each_other(splits: Sequence[Sequence[Piece]], summaries: Sequence[Mapping[str, Any]]) -> bool:
    """Whether each piece of an array began where the one before it ended, so that all begin at records.

    Text in a record may look like the boundary of two, so a piece that begins inside an array only guesses.
    """
    at = 0
    for (piece, *_), summary in zip(splits, summaries, strict=True):
        if not piece.of_array:
            continue
        if summary["span"] is None:
            return False
        begins, ends = summary["span"]
        if begins is not None and begins != (at if piece.start else 0):
            return False
        at = at if begins is None else ends
        if at < (piece.end or 0):
            return False
    return True


def source_matches(source: Source) -> DataFrame:
    """What the keys of a source are compared with (id string), few of them twice."""

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for block in blocks_of(batches):
            match = unpack(block.data, source_schema(block.width)).column(1)
            yield pa.RecordBatch.from_arrays([pc.unique(match)], names=["id"])

    return block_frame(source.blocks).mapInArrow(read, "id string")


def source_ids(source: Source) -> set[str]:
    """The ids of a source, which must be few."""
    return {row.id for row in source_matches(source).collect() if not row.id.startswith(source.nonce)}


def check_source(source: Source, settings: Settings) -> None:
    """Refuses a source that would erase the output or that nothing can be matched with.

    Raises:
        SourceError: no records, no columns, or no key column.
    """
    if not source.records or not source.columns:
        problem = phrase("no_columns" if source.records else "no_records")
        raise SourceError("source_empty", place=settings.source, problem=problem)
    if settings.key not in source.columns:
        near = near_miss(settings.key, source.columns)
        columns = ", ".join(source.columns[:50])
        raise SourceError("key_missing_in_source", place=settings.source, key=settings.key, near=near, columns=columns)


def list_objects(client: Any, bucket: str, pattern: str, but: str = "") -> list[SourceObject]:
    """The objects that `source_key` means, in key order, without the key `but`.

    Raises:
        SourceError: there is none.
        AwsError: S3 denied the call or failed.
    """
    place = f"s3://{bucket}/{pattern}"
    try:
        # One key is listed too: unlike HEAD, a list tells a missing object from a denied one to a role that may list
        # no more than this prefix.
        pages = client.get_paginator("list_objects_v2").paginate(
            Bucket=bucket, Prefix=pattern.split("*", maxsplit=1)[0]
        )
        found = [
            SourceObject(bucket, item["Key"], item["Size"], item["ETag"])
            for page in pages
            for item in page.get("Contents", [])
            if is_source_key(item["Key"], pattern) and not item["Key"].endswith("/") and item["Key"] != but
        ]
    except (ClientError, BotoCoreError) as error:
        if error_code(error) in {"404", "NoSuchKey", "NoSuchBucket"}:
            raise SourceError("source_missing", place=place) from error
        raise aws_error(error, "s3:ListBucket", place) from error
    if not found:
        raise SourceError("source_missing", place=place)
    return found


def plan_splits(
    client: Any, objects: Sequence[SourceObject], parallelism: int, *, cut_arrays: bool = True
) -> list[list[Piece]]:
    """The pieces each task reads: big plain objects cut by bytes, small ones together, order kept."""
    total = sum(item.size for item in objects)
    target = min(max(total // (3 * parallelism), MIN_SPLIT_BYTES), MAX_SPLIT_BYTES)
    splits: list[list[Piece]] = []
    room = 0
    for item in (item for item in objects if item.size):
        first = first_byte(client, item) if item.size > target else b""
        if first == b"{" or (first == b"[" and cut_arrays):
            starts = range(0, item.size, target)
            splits += [[Piece(item, start, min(start + target, item.size), first == b"[")] for start in starts]
            room = 0
        elif item.size <= room:
            splits[-1].append(Piece(item, 0, None))
            room -= item.size
        else:
            splits.append([Piece(item, 0, None)])
            room = target - item.size
    return splits


def first_byte(client: Any, item: SourceObject) -> bytes:
    """What an object begins with: `{` (JSON Lines) and `[` (an array) can be cut by byte ranges, gzip cannot."""
    head = read_range(client, item, 0, min(SNIFF_BYTES, item.size))
    return head.removeprefix(codecs.BOM_UTF8).lstrip(BLANKS.encode())[:1]


def read_range(client: Any, item: SourceObject, start: int, end: int) -> bytes:
    """Bytes [start, end) of the listed version of an object.

    boto3 asks again until S3 answers (throttling, 5xx, a lost connection), but not when the answer is torn.

    Raises:
        SourceError: the object is gone or was replaced.
        AwsError: S3 denied the call or failed for good.
    """
    wanted = {"Bucket": item.bucket, "Key": item.key, "Range": f"bytes={start}-{end - 1}", "IfMatch": item.etag}
    for attempt in range(1, READ_ATTEMPTS + 1):
        try:
            body = client.get_object(**wanted)["Body"]
        except (ClientError, BotoCoreError) as error:
            code = error_code(error)
            if code in {"PreconditionFailed", "412"}:
                raise SourceError("source_changed", place=item.url) from error
            if code in {"NoSuchKey", "NoSuchBucket", "404"}:
                raise SourceError("source_missing", place=item.url) from error
            raise aws_error(error, "s3:GetObject", item.url) from error
        try:
            return bytes(body.read())
        except (BotoCoreError, OSError) as error:
            if attempt == READ_ATTEMPTS:
                raise aws_error(error, "s3:GetObject", item.url) from error
            time.sleep(attempt)
    raise AssertionError("unreachable")


class ObjectStream(io.RawIOBase):
    """An S3 object from `start` on as a file, read by ranges."""

    def __init__(self, client: Any, item: SourceObject, start: int) -> None:
        self._client, self._item, self._position = client, item, start

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        end = min(self._position + len(buffer), self._item.size)
        if end <= self._position:
            return 0
        data = read_range(self._client, self._item, self._position, end)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


class Literal(str):
    """A JSON number as it is written; inside a nested value it must not be quoted as strings are."""

    __slots__ = ()


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def json_scanner(number: type[str]) -> Callable[[str, int], tuple[Any, int]]:
    """The C scanner of the standard library: the value that begins at a character, and the character after it.

    Numbers are not converted but kept as they are written. `str` is twice as fast as `Literal`.
    """
    decoder = json.JSONDecoder(parse_int=number, parse_float=number, parse_constant=_refuse_constant)
    return decoder.scan_once  # type: ignore[attr-defined,no-any-return]


class Block(NamedTuple):
    """Records parsed out of one stretch of text, and where each begins in it; or their values, column by column."""

    records: list[dict[str, Any]]
    starts: list[int]  # characters
    text: str
    offset: int  # bytes of the object before the text
    before: int  # records of the piece before the block
    cells: list[pa.Array] | None = None

    @property
    def rows(self) -> int:
        return len(self.records) if self.cells is None else len(self.cells[0])

    def place(self, index: int) -> tuple[int, int]:
        """Number of the record in the piece (from 0) and its byte offset."""
        return self.before + index, self.offset + len(self.text[: self.starts[index]].encode())


class PieceReader:
    """Parses one piece of an object into blocks of records, in bounded memory."""

    def __init__(self, client: Any, piece: Piece) -> None:
        self.client = client
        self.piece = piece
        self.scan = json_scanner(str)
        self.literal_scan = json_scanner(Literal)
        self.count = 0
        self.span: tuple[int | None, int] | None = None  # bytes of the records read, of a piece of an array
        self._shape: pa.Schema | None = None
        self._misses = 0

    def learn(self, block: Block, columns: Iterable[str]) -> None:
        """Takes what the columns hold from the first records of a block, for `parse_alike`."""
        kinds: dict[str, Any] = dict.fromkeys(columns, pa.string())
        self._shape = None
        if self._misses == MAX_MISSES:
            return
        decoder = json.JSONDecoder(parse_int=len)  # `int` refuses thousands of digits
        for start in block.starts[:LEARNT_RECORDS]:
            for name, value in decoder.raw_decode(block.text, start)[0].items():
                if isinstance(value, (float, bool, list, dict)):
                    return
                if isinstance(value, int):
                    kinds[name] = pa.int64()
        self._shape = pa.schema(list(kinds.items()))

    def blocks(self) -> Iterator[Block]:
        """The blocks in order.

        Raises:
            SourceError: malformed JSON, a record that is no object, text that is not UTF-8, a broken gzip file.
        """
        item, start = self.piece.source, self.piece.start
        if start and self.piece.of_array:
            begins = self._first_boundary()
            if begins is None:
                self.span = None, 0
                return
            yield from self._array(io.BufferedReader(ObjectStream(self.client, item, begins), BLOCK_BYTES), begins)
            return
        if start:
            rest = io.BufferedReader(ObjectStream(self.client, item, start - 1), BLOCK_BYTES)
            yield from self._lines(rest, start - 1 + _skip_line(rest))
            return
        raw = io.BufferedReader(ObjectStream(self.client, item, 0), BLOCK_BYTES)
        stream: Any = raw
        if _peek(raw, 2) == GZIP_MAGIC:
            stream = io.BufferedReader(gzip.GzipFile(fileobj=raw), SNIFF_BYTES)
        try:
            offset = len(stream.read(len(codecs.BOM_UTF8))) if _peek(stream, 3) == codecs.BOM_UTF8 else 0
            offset += _skip_blanks(stream)
            first = _peek(stream, 1)
            if first == b"[":
                stream.read(1)
                yield from self._array(stream, offset + 1)
            elif first in {b"{", b""}:
                yield from self._lines(stream, offset)
            else:
                self.malformed(offset, phrase("beginning", beginning=_peek(stream, 16)), 0)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            self.malformed(item.size, phrase("gzip_broken", reason=of_library(str(error))), self.count)

    def _lines(self, stream: io.BufferedIOBase, offset: int) -> Iterator[Block]:
        end = self.piece.end
        data = b""
        size = SNIFF_BYTES  # enough to learn what the rest looks like
        while end is None or offset < end:
            read = stream.read(size)
            size = BLOCK_BYTES
            data += read
            final = not read
            cut = len(data) if final else data.rfind(b"\n") + 1
            if end is not None and (stop := data.find(b"\n", max(end - 1 - offset, 0)) + 1):
                cut, final = stop, True  # the line that begins before `end` is read to its newline
            if cut:
                yield self._parse_lines(data[:cut], offset)
            if final:
                return
            offset += cut
            data = data[cut:]
            self._check_record_size(len(data), offset)

    def _parse_lines(self, data: bytes, offset: int) -> Block:
        cells = parse_alike(data, self._shape) if self._shape else None
        if cells:
            before, self.count = self.count, self.count + len(cells[0])
            return Block([], [], "", offset, before, cells)
        self._misses += self._shape is not None
        text = self._decode(data, offset)
        scan = self.scan
        records: list[dict[str, Any]] = []
        starts: list[int] = []
        block = Block(records, starts, text, offset, self.count)
        pos, size = 0, len(text)
        while pos < size:
            stop = text.find("\n", pos)
            if stop < 0:
                stop = size
            try:
                record, end = scan(text, pos)
            except (StopIteration, ValueError, RecursionError):
                content = _SPACE.match(text, pos).end()  # type: ignore[union-attr]
                if content > pos:  # blank lines, of which a file may hold millions, or blanks before the record
                    pos = content
                    continue
                self._malformed_line(block, pos, stop)
            if end != stop and (end > stop or text[end:stop].strip(BLANKS)):
                self._malformed_line(block, pos, stop)
            starts.append(pos)
            if type(record) is not dict:
                self._not_object(block, record)
            records.append(record)
            pos = stop + 1
        self.count += len(records)
        return block

    def _malformed_line(self, block: Block, pos: int, stop: int) -> None:
        """Raises the error of a line by itself, as what follows in the text depends on how the object is cut."""
        at, problem = pos, phrase("values_on_line")
        try:
            self.scan(block.text[: stop + 1], pos)
        except (StopIteration, ValueError, RecursionError) as error:
            at = min(getattr(error, "pos", getattr(error, "value", pos)), stop)
            ends = isinstance(error, json.JSONDecodeError) and error.pos >= stop
            problem = phrase("line_ends") if ends else _reason(error)
        offset = block.offset + len(block.text[:at].encode())
        self.malformed(offset, problem, block.before + len(block.records))

    def _first_boundary(self) -> int | None:
        """Where in the piece a record seems to begin: the first brace after `}` and a comma."""
        item, start, end = self.piece.source, self.piece.start, self.piece.end or 0
        position = max(start - BOUNDARY_BYTES, 0)
        stream = io.BufferedReader(ObjectStream(self.client, item, position), BLOCK_BYTES)
        data = b""
        while position + len(data) < end:
            data += stream.read(BLOCK_BYTES)
            for found in _BOUNDARY.finditer(data):
                if position + found.end() > start:
                    begins = position + found.end() - 1
                    return begins if begins < end else None
            position += len(data[:-BOUNDARY_BYTES])
            data = data[-BOUNDARY_BYTES:]
        return None

    def _array(self, stream: io.BufferedIOBase, offset: int) -> Iterator[Block]:
        window = Window(stream, offset)
        begins = offset if self.piece.start else 0
        limit: int | None = None
        pos, separated, fresh = 0, True, True
        records: list[dict[str, Any]] = []
        starts: list[int] = []
        while True:
            pos = _SPACE.match(window.text, pos).end()  # type: ignore[union-attr]
            char = window.text[pos : pos + 1]
            # Only a record is left to the next piece: what else may follow a comma is an error that nobody would see.
            over = separated and limit is not None and pos >= limit and char == "{"
            if over or (char == "]" and (fresh or not separated)):
                break
            if char == "," and not separated:
                pos, separated = pos + 1, True
                continue
            if char and not separated:
                self.malformed(window.byte(pos), phrase("after_record"), self.count + len(records))
            error: Exception | None = None
            if char:
                scan = self.scan
                try:
                    record, end = scan(window.text, pos)
                except (StopIteration, ValueError, RecursionError) as failure:
                    error = failure
                else:
                    starts.append(pos)
                    if type(record) is not dict:
                        self._not_object(window.block(records, starts, self.count), record)
                    records.append(record)
                    pos, separated, fresh = end, False, False
                    continue
            if not window.may_grow(error):
                self.malformed(*window.explain(error, pos), self.count + len(records))
            yield window.block(records, starts, self.count)
            self.count += len(records)
            records, starts = [], []
            window.more(pos)
            pos, limit = 0, window.character(self.piece.end)
            self._check_record_size(len(window.text) - BLOCK_BYTES, window.offset)
        yield window.block(records, starts, self.count)
        self.count += len(records)
        self.span = begins, window.byte(pos) if over else self._expect_end(window, pos + 1)

    def _expect_end(self, window: Window, pos: int) -> int:
        while True:
            pos = _SPACE.match(window.text, pos).end()  # type: ignore[union-attr]
            if pos < len(window.text):
                self.malformed(window.byte(pos), phrase("after_array"), self.count)
            if not window.may_grow(None):
                if window.broken:
                    self.malformed(*window.explain(None, pos), self.count)
                return self.piece.source.size
            window.more(pos)
            pos = 0

    def _decode(self, data: bytes, offset: int) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            before = data[: error.start].decode()
            lines = sum(1 for line in before.split("\n")[:-1] if line.strip(BLANKS))
            problem = phrase("not_utf8", reason=of_library(error.reason))
            self.malformed(offset + error.start, problem, self.count + lines)
            raise AssertionError from error

    def _not_object(self, block: Block, found: object) -> None:
        number, offset = block.place(len(block.records))
        kind = {list: "array", bool: "boolean", type(None): "null"}.get(type(found), "string_or_number")
        place = self.piece.source.url
        record = self._record_number(number, offset)
        raise SourceError("source_not_object", place=place, record=record, offset=offset, found=phrase(kind))

    def malformed(self, offset: int, problem: Phrase, before: int) -> None:
        """Raises the SourceError for byte `offset`, `before` records into the piece."""
        record = self._record_number(before, offset)
        raise SourceError(
            "source_malformed", place=self.piece.source.url, record=record, offset=offset, problem=problem
        )

    def _record_number(self, before: int, offset: int) -> int:
        """The number of the record, from 1. A piece inside an object does not know how many came before: count them."""
        if self.piece.start and not self.piece.of_array:  # whose pieces only guess, and are read again as one
            item = self.piece.source
            stream = io.BufferedReader(ObjectStream(self.client, item, 0), BLOCK_BYTES)
            before, position, blank = 0, 0, True
            while (part := stream.readline(BLOCK_BYTES)) and position + len(part) <= offset:
                position += len(part)
                blank = blank and not part.strip()
                if part.endswith(b"\n"):
                    before, blank = before + (not blank), True
        return before + 1

    def _check_record_size(self, size: int, offset: int) -> None:
        if size > MAX_RECORD_BYTES:
            self.malformed(offset, phrase("record_too_large", limit=MAX_RECORD_BYTES // MIB), self.count)


class Window:
    """A sliding stretch of text over a UTF-8 stream, which knows the byte offset of each of its characters."""

    # A scan that fails this close to the end of the text may only have seen half a token (`tru`, `\u00`).
    TOKEN = 16

    def __init__(self, stream: io.BufferedIOBase, offset: int) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._ended = False
        self.broken: Phrase | None = None  # why the stream ends here, where that is not its end
        self.text = ""
        self.offset = offset

    def more(self, keep: int) -> None:
        """Forgets what lies before character `keep` and reads a block."""
        self.offset = self.byte(keep)
        self.text = self.text[keep:]
        read = self._stream.read(BLOCK_BYTES)
        self._ended = not read
        try:
            self.text += self._decoder.decode(read, final=self._ended)
        except UnicodeDecodeError as error:
            # The records before the bad byte are parsed first, so that the error can count them.
            self.text += error.object[: error.start].decode()
            self._ended = True
            self.broken = phrase("not_utf8", reason=of_library(error.reason))

    def byte(self, pos: int) -> int:
        """The byte offset in the object of character `pos`."""
        return self.offset + len(self.text[:pos].encode())

    def character(self, byte: int | None) -> int | None:
        """The place in the text of a byte of the object; None where it lies behind the text, or there is none."""
        data = self.text.encode() if byte is not None else b""
        if byte is None or byte >= self.offset + len(data):
            return None
        return len(data[: max(byte - self.offset, 0)].decode(errors="ignore"))

    def may_grow(self, error: Exception | None) -> bool:
        """Whether a scan that met the end of the text (None) or failed may succeed with more text."""
        at = getattr(error, "pos", getattr(error, "value", len(self.text)))
        unterminated = getattr(error, "msg", "").startswith("Unterminated string")
        return not self._ended and (unterminated or at >= len(self.text) - self.TOKEN)

    def explain(self, error: Exception | None, pos: int) -> tuple[int, Phrase]:
        """The byte offset and the reason of a failure at character `pos` that more text will not mend."""
        if self.broken:
            return self.byte(len(self.text)), self.broken
        at = getattr(error, "pos", getattr(error, "value", pos))
        if error is None or at >= len(self.text):
            return self.byte(len(self.text)), phrase("array_ends")
        return self.byte(at), _reason(error)

    def block(self, records: list[dict[str, Any]], starts: list[int], before: int) -> Block:
        return Block(records, starts, self.text, self.offset, before)


def _reason(error: Exception) -> Phrase:
    if isinstance(error, RecursionError):
        return phrase("nested")
    if isinstance(error, StopIteration):
        return phrase("value_expected")
    if isinstance(error, json.JSONDecodeError):
        return of_library(error.msg)
    return phrase("not_json", text=str(error))  # what `json_scanner` refuses


def _peek(stream: Any, size: int) -> bytes:
    return bytes(stream.peek(size)[:size])


def _skip_line(stream: io.BufferedIOBase) -> int:
    skipped = 0
    while True:
        part = stream.readline(BLOCK_BYTES)
        skipped += len(part)
        if not part or part.endswith(b"\n"):
            return skipped


def _skip_blanks(stream: Any) -> int:
    skipped = 0
    while (head := stream.peek(1)) and not head.lstrip(BLANKS.encode()):
        skipped += len(stream.read(len(head)))
    return skipped + len(stream.read(len(head) - len(head.lstrip(BLANKS.encode()))))


def compact(value: object) -> str:
    """A nested value as compact JSON: keys in source order, numbers as written, non-ASCII as it is."""
    if isinstance(value, Literal):
        return str(value)
    if isinstance(value, str):
        return json.encoder.encode_basestring(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.encoder.encode_basestring(k)}:{compact(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(compact, value)) + "]"
    return {True: "true", False: "false", None: "null"}[value]  # type: ignore[index]


def parse_alike(data: bytes, shape: pa.Schema) -> list[pa.Array] | None:
    """The values of JSON Lines by Arrow's parser, which is faster, where it gives what ours gives; else None.

    So the columns must be those of `shape`, each with texts or 64-bit integers and null alone, and the lines as most
    programs write them. Arrow lets pass records that are not one a line, the integer -0 and bytes that are not UTF-8.
    """
    lines = data.count(b"\n") + (not data.endswith(b"\n"))
    if not data.startswith(b"{") or data.count(b"\n{") + 1 != lines or _MINUS_ZERO.search(data):
        return None
    try:
        table = pa.json.read_json(
            pa.BufferReader(data),
            pa.json.ReadOptions(use_threads=False, block_size=len(data) + 1),
            pa.json.ParseOptions(explicit_schema=shape, unexpected_field_behavior="error"),
        )
        table.validate(full=True)
    except pa.ArrowException:
        return None
    if table.num_rows != lines:
        return None
    return [column.combine_chunks().cast(pa.string()) for column in table.select(shape.names).columns]


def pick_cells(records: Sequence[dict[str, Any]], columns: dict[str, int]) -> list[Sequence[Any]]:
    """The values of all records, column after column in the order of `columns`, which grows by the keys it lacks."""
    if len(columns) > 1 and all(len(record) == len(columns) for record in records):
        try:
            return list(zip(*map(operator.itemgetter(*columns), records), strict=True))
        except KeyError:
            pass
    for record in records:
        if not record.keys() <= columns.keys():
            for name in record:
                columns.setdefault(name, len(columns))
    return [[record.get(name) for record in records] for name in columns]


def block_cells(reader: PieceReader, block: Block, columns: dict[str, int]) -> list[pa.Array]:
    """The values of a block as one Arrow string array a column; `columns` grows by the keys it lacks.

    Raises:
        SourceError: a string holds half a surrogate pair (no encoding can write it), or a value nests too deeply.
    """
    known = len(columns)
    cells = pick_cells(block.records, columns)
    check_names(reader, block, itertools.islice(columns, known, None))
    try:
        return [pa.array(column, pa.string()) for column in cells]
    except (pa.ArrowException, UnicodeEncodeError):
        pass  # some value is no string
    if reader.scan is not reader.literal_scan and any(
        isinstance(value, (dict, list)) for value in itertools.chain(*cells)
    ):
        reader.scan = reader.literal_scan  # nested values are likely to come again
        cells = pick_cells([reader.scan(block.text, start)[0] for start in block.starts], columns)
    return [text_array(reader, block, name, column) for name, column in zip(columns, cells, strict=True)]


def check_names(reader: PieceReader, block: Block, names: Iterable[str]) -> None:
    """Refuses a column that no header can name.

    Raises:
        SourceError: a name holds half a surrogate pair.
    """
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            number, offset = block.place(next(i for i, record in enumerate(block.records) if name in record))
            reader.malformed(offset, phrase("surrogate_in_name", name=name), number)


def text_array(reader: PieceReader, block: Block, name: str, values: Sequence[Any]) -> pa.Array:
    """The values of a column as text."""
    texts: list[str | None] = []
    for value in values:
        try:
            text = value if value is None or isinstance(value, str) else compact(value)
            (text or "").encode()
        except (RecursionError, UnicodeEncodeError) as error:
            number, offset = block.place(len(texts))
            problem = "nested_in" if isinstance(error, RecursionError) else "surrogate_in"
            reader.malformed(offset, phrase(problem, name=name), number)
        texts.append(text)
    return pa.array(texts, pa.string())


def same_integer(text: str) -> str:
    """The shortest spelling of an integer (`007`, `7.0` and `70e-1` are `7`); other text as it is."""
    if not _NUMBER.fullmatch(text):
        return text
    number = Decimal(text)
    if (number and number.adjusted() >= MAX_INTEGER_DIGITS) or number != number.to_integral_value():
        return text
    return str(int(number))


def match_texts(keys: pa.Array, first: int, split: int, nonce: str, *, integer: bool) -> pa.Array:
    """What each key is compared with; missing keys get texts of their own, so that they never meet on one task."""
    if integer and not pc.all(pc.match_substring_regex(keys, _CANONICAL_INTEGER)).as_py():
        keys = pa.array([key if key is None else same_integer(key) for key in keys.to_pylist()], pa.string())
    if keys.null_count:
        own = [f"{nonce}{split}:{row}" for row in range(first, first + len(keys))]
        keys = pc.coalesce(keys, pa.array(own, pa.string()))
    return keys


class SourceTask(NamedTuple):
    """What every task that parses needs to know."""

    splits: Sequence[Sequence[Piece]]
    key: str
    integer: bool
    nonce: str
    targets: int
    region: str | None

    @property
    def most_bits(self) -> int:
        """Records of a split up to which the driver is told their bits."""
        return MAX_FILTER_RECORDS // len(self.splits)


def _split_reader(
    task: SourceTask, summaries: Accumulator[dict[int, Any]]
) -> Callable[[Iterable[int]], Iterator[BlockRow]]:
    """The function that executors run: split numbers in, rows of BLOCK_SCHEMA out, and a summary of each split."""

    def read(splits: Iterable[int]) -> Iterator[BlockRow]:
        client = worker_s3_client(task.region)
        for split in splits:
            with in_worker():
                summary = yield from split_blocks(client, split, task)
            summaries.add({split: summary})

    return read


def split_blocks(client: Any, split: int, task: SourceTask) -> Generator[BlockRow, None, dict[str, Any]]:
    """One split as blocks.

    What is malformed in a piece of an array may only seem so, if the piece did not begin at a record: no span then.

    Returns:
        Its columns, the numbers of its records and of those without a key, the bytes of its blocks, the span of an
        array's piece, and the `key_bits` if they are not too many.
    """
    columns: dict[str, int] = {}
    records = missing = size = 0
    bits = [np.empty(0, np.uint32)]
    readers = [PieceReader(client, piece) for piece in task.splits[split]]
    try:
        for batch in read_split(readers, split, task, columns):
            keys = batch.column(1)
            records += batch.num_rows
            missing += pc.sum(pc.starts_with(keys, task.nonce)).as_py()
            hashes = key_hashes(keys)
            if records <= task.most_bits:
                bits.append(key_bits(hashes))
            blocks = to_targets(batch, hashes, task.targets, (SOURCE_BLOCK, split, batch.num_columns - 2))
            size += sum(len(data) for *_, data in blocks)
            yield from blocks
        span = readers[0].span
    except SourceError as error:
        if not readers[0].piece.of_array or error.code not in {"source_malformed", "source_not_object"}:
            raise
        span = None
    return {
        "columns": list(columns),
        "records": records,
        "missing_ids": missing,
        "bytes": size,
        "span": span,
        "key_bits": np.concatenate(bits) if records <= task.most_bits else None,
    }


def read_split(
    readers: Sequence[PieceReader], split: int, task: SourceTask, columns: dict[str, int]
) -> Iterator[pa.RecordBatch]:
    """The records of the pieces of one split (`source_schema`); `columns` grows by the keys it lacks."""
    count = 0
    for reader in readers:
        for block in reader.blocks():
            rows = block.rows
            if not rows:
                continue
            if block.cells is None:
                cells = block_cells(reader, block, columns)
                reader.learn(block, columns)
            else:
                cells = block.cells
            at = columns.get(task.key)
            keys = pa.nulls(rows, pa.string()) if at is None else cells[at]
            positions = pa.array(np.arange(count, count + rows) + (split << ROW_BITS))
            match = match_texts(keys, count, split, task.nonce, integer=task.integer)
            yield pa.RecordBatch.from_arrays([positions, match, *cells], schema=source_schema(len(cells)))
            count += rows


# ---------------------------------------------------------------------------------------------------------------------
# table: RDS through JDBC -> one row per key, values as the database prints them
# ---------------------------------------------------------------------------------------------------------------------

_NO_DRIVER = re.compile("ClassNotFoundException|did not specify a JDBC driver")
_NOT_ITS_URL = re.compile("No suitable driver|The driver could not open a JDBC connection")
# What MariaDB Connector/J 2 ("Could not") and 3 ("Socket fail"), MySQL Connector/J ("Communications") and pgJDBC say.
_UNREACHABLE = re.compile(
    "Could not connect to|Socket fail to connect to|Communications link failure|[Cc]onnect timed out"
    "|UnknownHostException|Connection to [^ ]+ refused|The connection attempt failed"
)
_TOO_MANY = "Too many connections"
# The classes of JDBC for a lost connection, a deadlock and a lock wait; KILL QUERY. pgJDBC has one class for all.
# Within a result set, MySQL Connector/J gives a lost connection no class of its own either.
_PASSING = re.compile(
    r"java\.sql\.SQL(NonTransientConnection|TransientConnection|Transient|Recoverable|TransactionRollback)Exception"
    r"|CommunicationsException|java\.net\.SocketException|java\.io\.EOFException"
    f"|{_TOO_MANY}|execution was interrupted|Lock wait timeout"
    "|I/O error occurred while sending to the backend|This connection has been closed|terminating connection"
    "|too many clients|connection slots are reserved|the database system is (starting up|shutting down|in recovery)"
    "|deadlock detected|canceling statement due to (lock timeout|user request|conflict with recovery)"
)
# MariaDB Connector/J 2.7 calls this a transient failure too, as it does with all that MySQL has no SQLSTATE for.
_NO_EXPLAIN = "lacking privileges for underlying table"
_WAITED_OUT = re.compile("[Rr]ead timed out|Lock wait timeout|due to lock timeout")
# What MariaDB Connector/J 2.7 makes of a connection that is lost, or timed out, before a result set is there.
_DRIVER_BUG = re.compile(r"NullPointerException[^\n]*\n\tat org\.mariadb\.jdbc\.")
_OF_DATABASE = re.compile(r"java\.sql\.|org\.postgresql\.|com\.mysql\.")
FIRST_WAITS = (1, 4)  # seconds, before a run asks the database again that it never reached: mostly settings are wrong
LATER_WAITS = (5, 30, 90)  # once it did reach it: a failover of RDS takes one to two minutes
PATIENCE_SECONDS = 600  # after the first failure nothing is begun again
# What Java says of a chain that ends at no known CA or has expired, and Connector/J of a certificate for another host.
_CERTIFICATE_REFUSED = re.compile(r"(PKIX path [^\n]+|\w+ host \"[^\"\n]+\" doesn't correspond to certificate [^\n]+)")
MIN_RANGE_ROWS, MAX_RANGE_ROWS = 100_000, 2_000_000  # a range is a connection and a task
CHUNK_BYTES = 16 * MIB  # of the table's rows that are packed at a time
MAX_RANGES = 256
CONNECTION_SHARE = 4  # a quarter of max_connections, as others work on the database too
MAX_HASHED_RANGES = 8  # each reads the whole table inside the database
MAX_ESTIMATES = 1_000  # EXPLAIN statements, of a few milliseconds each
MAX_PIECES = 16  # of a range that is cut: what lies in one heap is found by few questions
MAX_LOOKUP_IDS = 200_000  # the driver holds them while it writes the statements
MIN_LOOKUP_ROWS = 50_000  # a smaller table is read faster than asked
ROWS_PER_LOOKUP = 10  # finding a row by an index costs as much as reading this many in a row
# MariaDB turns a list of 1,000 values (in_predicate_conversion_threshold) into a join, whose plan is anyone's guess.
LOOKUP_BATCH = 900
LOOKUP_BATCH_BYTES = 64 * 1024
LISTS_PER_LOOKUP = 10  # well below any max_allowed_packet and range_optimizer_max_mem_size
NO_ROWS = "1 = 0"
UNMATCHED_IDS = 10
FIRST_IDS = 1_000  # read at first in search of ids that the source lacks


@dataclass(frozen=True)
class Table:
    """What is known of the table before it is read.

    Attributes:
        columns: In table order.
        key: The key column.
        unique: Whether no two rows have the same key text.
        indexed: Whether an index begins with the key.
        ordered: Columns to cut the rows into ranges by, the best first: that which the primary key begins with (the
            rows lie in its order), then the key where an index begins with it.
        rows: The estimate of the optimizer, or their count where it gives none.
        row_bytes: Of a row as it is stored, on average; 0 where the catalogue does not know (views).
        connections: How many executors may open at a time.
    """

    database: Database = field(repr=False)
    columns: tuple[TableColumn, ...]
    key: TableColumn
    unique: bool
    indexed: bool
    ordered: tuple[TableColumn, ...]
    rows: int
    row_bytes: int
    connections: int

    @property
    def has_integer_key(self) -> bool:
        return self.key.is_integer

    @property
    def place(self) -> str:
        """The name of the table in SQL."""
        return self.engine.place(self.database.table)

    @property
    def engine(self) -> Engine:
        return self.database.engine

    @property
    def keys(self) -> TableKeys:
        at = self.index(self.key.name)
        zerofill = "zerofill" in self.key.full_type
        return TableKeys(len(self.columns), at or 0, self.unique, zerofill, self.has_integer_key)

    def rows_within(self, size: int, most: int) -> int:
        """How many rows have so many bytes together, on average, from 1 to `most`."""
        return min(max(size // max(self.row_bytes, 1), 1), most)

    def index(self, name: str) -> int | None:
        """The place of a column in the table, or None."""
        return next((i for i, column in enumerate(self.columns) if column.name == name), None)


class Session:
    """One connection of the driver's own, for questions with small answers: Spark's reader takes a whole job for each.

    Raises:
        TableError: login, network, driver or a statement failed.
    """

    def __init__(self, spark: SparkSession, database: Database) -> None:
        jvm: Any = spark.sparkContext._jvm
        options = {"url": database.url, "dbtable": "-", **database.options}
        self._database = database
        self.engine = database.engine
        with database_errors(database):
            jdbc = jvm.org.apache.spark.sql.execution.datasources.jdbc.JDBCOptions(jvm.PythonUtils.toScalaMap(options))
            connect = jvm.org.apache.spark.sql.jdbc.JdbcDialects.get(database.url).createConnectionFactory(jdbc)
            self._connection = connect.apply(-1)
        self.ask(database.options["sessionInitStatement"])

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        if not Stopped.begun:
            self._connection.close()

    def ask(self, sql: str) -> list[dict[str, str | None]]:
        """The rows of an answer, by the labels of its columns."""
        with database_errors(self._database):
            statement = self._connection.createStatement()
            try:
                if not statement.execute(sql):
                    return []
                answer = statement.getResultSet()
                about = answer.getMetaData()
                labels = [about.getColumnLabel(i + 1) for i in range(about.getColumnCount())]
                rows = []
                while answer.next():
                    rows.append({label: answer.getString(i) for i, label in enumerate(labels, 1)})
                return rows
            finally:
                if not Stopped.begun:
                    statement.close()


@contextmanager
def database_errors(database: Database) -> Iterator[None]:
    """Turns what the database and its driver throw into a TableError; other failures of Spark go on as they are."""
    try:
        yield
    except JobError:
        raise
    except Exception as error:
        failure = received_from_executor(error) or table_error(str(error), database)
        if failure is None:
            raise
        raise failure from error


def table_error(text: str, database: Database) -> TableError | None:
    """The TableError that the text of a Java exception stands for, or None when no database had a part in it."""
    host, user, driver, engine = database.host, database.secret.username, database.driver, database.engine
    known = (
        (_NO_DRIVER, TableError("driver_missing", driver=driver)),
        (_NOT_ITS_URL, TableError("driver_refuses_url", driver=driver, url=database.url.partition("?")[0])),
        (engine.table_refused, TableError("table_missing", table=engine.told(database.table), user=user, near="")),
        (engine.login_refused, TableError("login_refused", host=host, user=user, secret=database.secret.name)),
    )
    for pattern, error in known:
        if pattern.search(text):
            return error
    if refused := _CERTIFICATE_REFUSED.search(text):  # which Connector/J tells as not being able to connect
        return TableError("certificate_refused", host=host, place=database.ca_uri, problem=refused.group()[:300])
    if _UNREACHABLE.search(text) and _TOO_MANY not in text:
        failure = TableError("database_unreachable", host=host)
        failure.passing = "UnknownHostException" not in text
        return failure
    lost = _DRIVER_BUG.search(text)
    if not lost and not _OF_DATABASE.search(text):
        return None
    cause = re.findall(r"(?:Caused by|Exception): ([^\n]+)", text) or [text.strip().split("\n")[0]]
    problem = phrase("connection_lost") if lost else cause[-1][:500]
    failure = TableError("database_failed", host=host, problem=problem)
    # A task that failed for good has waited four times.
    waited_out = "Job aborted" in text and _WAITED_OUT.search(text)
    failure.passing = bool(lost or _PASSING.search(text)) and not waited_out and _NO_EXPLAIN not in text
    return failure


def persistently(do: Callable[[], T], waits: Sequence[float]) -> T:
    """What `do` returns, which is tried again after each of `waits` (seconds) as long as the database may get over it.

    Spark tries a task again too, but at once.

    Raises:
        TableError: the database did not get over it, or never would (a refused login).
    """
    until = math.inf
    for wait in waits:
        try:
            return do()
        except TableError as error:
            if not error.passing or time.monotonic() > until:
                raise
            until = min(until, time.monotonic() + PATIENCE_SECONDS)
            LOG.warning("%s It is tried again in %g s.", error, wait)
        time.sleep(wait)
    return do()


def describe_table(session: Session, database: Database, key: str, max_connections: int = 0) -> Table:
    """Asks the catalogue for columns, indexes and size.

    Raises:
        TableError: the table is missing, has no key column, or the database fails.
    """
    engine, name, user = database.engine, database.table, database.secret.username
    found = {column.name: column for column in engine.columns(session.ask, name, key)}
    if not found:
        near = near_miss(name.table, engine.tables(session.ask, name))
        raise TableError("table_missing", user=user, table=engine.told(name), near=near)
    if key not in found:
        near, listed = near_miss(key, found), ", ".join(list(found)[:50])
        raise TableError("key_missing_in_table", table=engine.told(name), key=key, near=near, columns=listed)
    indexes = engine.indexes(session.ask, name)
    ours = [index for index in indexes if index.first_column == key]
    firsts = [index.first_column for index in indexes if index.primary] + [key] * bool(ours)
    rows = estimate_rows(session, engine.quote_name(key), engine.place(name))
    return Table(
        database=database,
        columns=tuple(found.values()),
        key=found[key],
        unique=any(index.unique and index.alone for index in ours) and found[key].type in engine.exact_types,
        indexed=bool(ours),
        ordered=tuple(found[first] for first in dict.fromkeys(firsts) if first in found),
        rows=rows,
        row_bytes=engine.row_bytes(session.ask, name, rows),
        connections=max_connections or max(engine.max_connections(session.ask) // CONNECTION_SHARE, 1),
    )


def estimate_rows(session: Session, column: str, place: str) -> int:
    """How many rows the optimizer expects in a table, or there are where the user may not ask it (views)."""
    try:
        return session.engine.estimate(session.ask, f"SELECT {column} FROM {place}")
    except TableError as error:
        if error.passing:
            raise
        LOG.info("the rows are counted, as there is no estimate: %s", error)
        [counts] = session.ask(f"SELECT COUNT(*) AS n FROM {place}")
        return int(counts["n"] or 0)


def read_rows(
    spark: SparkSession,
    table: Table,
    ordered: TableColumn,
    predicates: Sequence[str],
    targets: int,
    wanted: Broadcast[np.ndarray[Any, Any]] | None = None,
) -> DataFrame:
    """The rows that meet any of the predicates on column `k`, which is `ordered`; a partition a predicate.

    Returns:
        Blocks of rows (see `table_schema`), and of kind LEFT_OUT what the summary of LeftOut says of the others.

    Raises:
        TableError: the database fails.
    """
    database = table.database
    with database_errors(database):
        frame = spark.read.jdbc(
            database.url,
            rows_statement(table, ordered),
            predicates=list(predicates),
            properties=database.options | {"fetchsize": str(table.rows_within(CHUNK_BYTES, FETCH_ROWS))},
        )
    cells = frame.select(*(F.col(f"c{i}").cast("string") for i in range(len(table.columns))))
    if len(predicates) > table.connections:
        cells = cells.coalesce(table.connections)  # a task then opens its connections one after the other
    return cells.mapInArrow(_row_packer(table.keys, targets, wanted), BLOCK_SCHEMA)


class TableKeys(NamedTuple):
    """How executors find the keys among the columns of the table."""

    width: int
    at: int
    unique: bool
    zerofill: bool
    integer: bool

    def of(self, rows: pa.RecordBatch | pa.Table) -> Any:
        """What the source's keys are compared with."""
        keys = rows.column(self.at)
        return pc.replace_substring_regex(keys, "^0+(.)", r"\1") if self.zerofill else keys


def table_schema(keys: TableKeys) -> pa.Schema:
    """The schema of a block of rows: the columns, and how many rows have the key where that may be several."""
    cells = [(f"c{i}", pa.string()) for i in range(keys.width)]
    return pa.schema([*cells, *([] if keys.unique else [("copies", pa.int64())])])


class LeftOut:
    """The rows that a task reads but does not pass on: those without a key, and those that no record has.

    Attributes:
        without_key, unmatched: Rows.
        ids: The first ids of the unmatched rows.
    """

    def __init__(self) -> None:
        self.without_key = self.unmatched = 0
        self.ids: list[str] = []

    def add(self, ids: pa.Array, match: pa.Array, *, integer: bool) -> None:
        """Takes further unmatched rows."""
        self.unmatched += len(ids)
        self.ids = merged_ids([self.ids, first_ids(ids, match, integer=integer)], integer=integer)

    def summary(self) -> pa.RecordBatch:
        """The counts as a block."""
        return block_batch([(0, LEFT_OUT, 0, 0, json.dumps(vars(self)).encode())])


def first_ids(ids: pa.Array, match: pa.Array, *, integer: bool) -> list[str]:
    """The first ids: integers by value, others by their bytes."""
    order = match
    if integer:
        try:
            order = match.cast(pa.int64())
        except pa.ArrowInvalid:
            order = match.cast(pa.uint64())
    firsts = pc.select_k_unstable(order, k=UNMATCHED_IDS, sort_keys=[("", "ascending")])
    return list(ids.take(firsts).to_pylist())


def merged_ids(lists: Iterable[list[str]], *, integer: bool) -> list[str]:
    """The first of the first ids."""
    return sorted(itertools.chain.from_iterable(lists), key=int if integer else str.encode)[:UNMATCHED_IDS]


def _row_packer(
    keys: TableKeys, targets: int, wanted: Broadcast[np.ndarray[Any, Any]] | None
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The function that executors run: rows of text in, BLOCK_SCHEMA out."""

    def named_rows(batches: Iterable[pa.RecordBatch], left_out: LeftOut) -> Iterator[pa.Table]:
        for held in gathered(batches, CHUNK_BYTES, lambda batch: batch.nbytes):
            rows = pa.Table.from_batches(held)
            named = rows.filter(pc.is_valid(rows.column(keys.at)))
            left_out.without_key += rows.num_rows - named.num_rows
            if wanted:
                match = keys.of(named).combine_chunks()
                met = may_have(wanted.value, key_hashes(match))
                alone = pa.array(~met)
                left_out.add(named.column(keys.at).filter(alone), match.filter(alone), integer=keys.integer)
                named = named.filter(pa.array(met))
            yield named

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with in_worker():
            left_out = LeftOut()
            for held in gathered(named_rows(batches, left_out), CHUNK_BYTES, lambda rows: rows.nbytes):
                named = pa.concat_tables(held)
                if not keys.unique:
                    named = named.append_column("copies", pa.array(np.ones(named.num_rows, np.int64)))
                    named = first_of_each(named, keys)
                for batch in named.combine_chunks().to_batches():
                    yield block_batch(to_targets(batch, key_hashes(keys.of(batch)), targets, (TABLE_BLOCK, 0, 0)))
            yield left_out.summary()

    return run


def first_of_each(rows: pa.Table, keys: TableKeys) -> pa.Table:
    """One row a key, that which sorts first by its own text, with the sum of their `copies`."""
    codes = keys.of(rows).combine_chunks().dictionary_encode().indices.to_numpy()
    seen = np.bincount(codes)
    if not len(codes) or seen.max() == 1:
        return rows
    several = np.flatnonzero(seen[codes] > 1)
    texts = rows.take(pa.array(several)).select(range(keys.width)).append_column("code", pa.array(codes[several]))
    order = [("code", "ascending"), *((f"c{i}", "ascending") for i in range(keys.width))]
    ordered = several[pc.sort_indices(texts, sort_keys=order, null_placement="at_start").to_numpy()]
    firsts = [ordered[start] for _, start, _ in runs(codes[ordered])]
    kept = np.concatenate([np.flatnonzero(seen[codes] == 1), np.array(firsts, np.int64)])
    copies = np.zeros(len(seen), np.int64)
    np.add.at(copies, codes, rows.column(keys.width).to_numpy())
    return rows.take(pa.array(kept)).set_column(keys.width, "copies", pa.array(copies[codes[kept]]))


def rows_statement(table: Table, ordered: TableColumn) -> str:
    """The table as a derived one: its values as text, and `ordered` as `k`, as text too where Spark may not know it."""
    engine = table.engine
    texts = [f"{engine.text_expression(column)} AS c{i}" for i, column in enumerate(table.columns)]
    whole = engine.quote_name(ordered.name) if engine.can_look_up(ordered) else engine.text_expression(ordered)
    return f"(SELECT {', '.join(texts)}, {whole} AS k FROM {table.place}) AS source"


# Of the two plans, the scan: every row, in ranges.


def scan_table(
    spark: SparkSession, session: Session, table: Table, targets: int, wanted: np.ndarray[Any, Any] | None = None
) -> DataFrame:
    """Every row of the table (see `read_rows`), read in parallel.

    Rows that no record can have (`wanted` is a filter of the keys) are only counted: they are most of a large table and
    would all be shuffled. Where keys may repeat, the rows are needed to count that.

    Raises:
        TableError: the database fails.
    """
    cores = spark.sparkContext.defaultParallelism
    ranges = min(max(min(table.rows // MIN_RANGE_ROWS, 2 * cores), table.rows // MAX_RANGE_ROWS), MAX_RANGES)
    known = spark.sparkContext.broadcast(wanted) if wanted is not None and table.unique else None
    if ranges <= 1:
        return read_rows(spark, table, table.key, range_predicates([]), targets, known)
    for column in table.ordered:
        cuts = column_cuts(session, table, column, -(-table.rows // ranges))
        if len(cuts) >= ranges // 4:  # a primary key may begin with a column of few values
            LOG.info("the table is read in %d ranges of column %r", len(cuts) + 1, column.name)
            return read_rows(spark, table, column, range_predicates(cuts), targets, known)
    LOG.info("no index helps to read the table in ranges")
    return read_rows(spark, table, table.key, hash_ranges(table.engine, min(ranges, MAX_HASHED_RANGES)), targets, known)


def range_predicates(cuts: Sequence[str]) -> list[str]:
    """Predicates on the column `k` that cut its values at SQL literals in ascending order.

    The outer ranges are open and the first takes NULL, so that rows added meanwhile are not lost.
    """
    if not cuts:
        return ["1 = 1"]
    inner = [f"k >= {start} AND k < {end}" for start, end in itertools.pairwise(cuts)]
    return [f"k < {cuts[0]} OR k IS NULL", *inner, f"k >= {cuts[-1]}"]


def hash_ranges(engine: Engine, ranges: int) -> list[str]:
    """Predicates that cut a table without a useful index."""
    return [f"{engine.hash_range('k', ranges, i)}{' OR k IS NULL' if i == 0 else ''}" for i in range(ranges)]


def column_cuts(session: Session, table: Table, column: TableColumn, step: int) -> list[str]:
    """Literals that cut an indexed column into ranges of about `step` rows; none for some types."""
    name = table.engine.quote_name(column.name)
    if not column.is_integer:
        return index_cuts(session, table, column, step) if table.engine.can_look_up(column) else []
    [bounds] = session.ask(f"SELECT MIN({name}) AS low, MAX({name}) AS high FROM {table.place}")
    if bounds["low"] is None or bounds["high"] is None:
        return []

    def rows_between(start: int, end: int) -> int:
        where = f"{name} >= {start} AND {name} < {end}"
        return table.engine.estimate(session.ask, f"SELECT {name} FROM {table.place} WHERE {where}")

    return [str(cut) for cut in integer_cuts(int(bounds["low"]), int(bounds["high"]), step, table.rows, rows_between)]


def integer_cuts(low: int, high: int, most: int, rows: int, rows_between: Callable[[int, int], int]) -> list[int]:
    """Where to cut the integers from `low` to `high`, which `rows` rows have, into ranges of about `most` rows.

    Ids may be sparse or skewed (MIN = 1, MAX = 10**15), so the range with the most rows is cut evenly again and again;
    the index tells at once about how many lie in a range (`rows_between`, its end exclusive). What is then too fine is
    joined, by the shares of the ranges in the sum: InnoDB doubles its estimates for more than a few pages.
    """
    heap, done = [(-rows_between(low, high + 1), low, high + 1)], []
    asked = 1
    while heap and asked < MAX_ESTIMATES:
        found, start, end = heapq.heappop(heap)
        if -found <= most or end - start == 1:
            done.append((found, start, end))
            continue
        pieces = min(-(-4 * -found // (3 * most)), MAX_PIECES, end - start)  # of three quarters of `most`, if even
        edges = [start + (end - start) * i // pieces for i in range(pieces + 1)]
        for piece in itertools.pairwise(edges):
            heapq.heappush(heap, (-rows_between(*piece), *piece))
        asked += pieces
    cuts, filled = [], 0
    ranges = sorted([*heap, *done], key=operator.itemgetter(1))
    most = most * -sum(found for found, _, _ in ranges) // max(rows, 1)
    for found, start, _ in ranges:
        if filled and filled - found > most:
            cuts.append(start)
            filled = 0
        filled -= found
    return cuts


def index_cuts(session: Session, table: Table, column: TableColumn, step: int) -> list[str]:
    """Literals that cut an indexed column into ranges of `step` rows, by one pass over the index."""
    name = table.engine.quote_name(column.name)
    cuts: list[str] = []
    where = f"{name} IS NOT NULL"
    while len(cuts) < 2 * MAX_RANGES:  # the table may be larger than estimated, but hardly without end
        order = f"FROM {table.place} WHERE {where} ORDER BY {name} LIMIT 1 OFFSET {step}"
        found = session.ask(f"SELECT {table.engine.text_expression(column)} AS id {order}")
        cut = table.engine.key_literal(column, str(found[0]["id"])) if found else None
        if cut is None:
            break
        cuts.append(cut)
        where = f"{name} > {cut}"
    return cuts


# Of the two plans, the lookup: the rows that the source names, by an index.


def lookup_predicates(table: Table, ids: Iterable[str], parallelism: int) -> list[str]:
    """Lists of ids as predicates on the rows of `rows_statement`, in the order of the ids: neighbours share pages.

    What is equal to the database may differ as text (`a` and `A`, `1.5` and `1.50`) and be asked for by two lists, so
    each list takes only the texts between its first and its last: no row comes twice.
    """
    engine = table.engine
    asked = [(key, literal) for key in ids if (literal := engine.key_literal(table.key, key)) is not None]
    asked.sort(key=lambda pair: int(pair[0]) if table.has_integer_key else pair[0])
    size = min(LOOKUP_BATCH, max(LOOKUP_BATCH_BYTES // max((len(literal) for _, literal in asked), default=1), 1))
    text = engine.by_bytes(f"c{table.index(table.key.name)}")
    lists = []
    # A list that mixes signed and unsigned numbers is compared as decimals, and no index helps (MariaDB).
    halves = itertools.groupby(asked, lambda pair: table.has_integer_key and int(pair[0]) >= 2**63)
    for _, half in halves:
        while batch := list(itertools.islice(half, size)):
            predicate = f"k IN ({', '.join(literal for _, literal in batch)})"
            if not table.has_integer_key:
                first, last = (engine.bytes_literal(key) for key in (batch[0][0], batch[-1][0]))
                predicate += f" AND {text} BETWEEN {first} AND {last}"
            lists.append(predicate)
    together = min(max(-(-len(lists) // (2 * parallelism)), 1), LISTS_PER_LOOKUP)
    predicates = []
    while lists:
        predicates.append(" OR ".join(f"({predicate})" for predicate in lists[:together]))
        del lists[:together]
    return predicates or [NO_ROWS]


def uses_index(session: Session, table: Table, predicate: str) -> bool:
    """Whether the database reads no more than the rows that a lookup's statement asks for."""
    return table.engine.uses_index(session.ask, f"SELECT * FROM {rows_statement(table, table.key)} WHERE {predicate}")


def count_rows(session: Session, table: Table) -> dict[str, int]:
    """The counts of the report that need the whole table: rows, and rows beyond the first of each key."""
    engine, name = table.engine, table.engine.quote_name(table.key.name)
    exact = name if table.has_integer_key else engine.by_bytes(engine.text_expression(table.key))
    repeats = "0" if table.unique else f"COUNT({name}) - COUNT(DISTINCT {exact})"
    [counts] = session.ask(f"SELECT COUNT(*) AS table_rows, {repeats} AS table_duplicates FROM {table.place}")
    return {label: int(count or 0) for label, count in counts.items()}


def first_unmatched(spark: SparkSession, table: Table, ids: set[str], limit: int) -> list[str]:
    """The first ids of the table that are not among `ids`, from the index alone.

    Of the first ids of the table no more than `len(ids)` can be matched, so `limit` more are always enough. Integers
    are in the order of the index, and few are needed; the bytes of texts are not, and each reading takes all of it.
    """
    engine, name = table.engine, table.engine.quote_name(table.key.name)
    whole = name if table.has_integer_key else engine.by_bytes(engine.text_expression(table.key))
    distinct = "" if table.unique else "DISTINCT "
    most = len(ids) + limit
    size = min(FIRST_IDS, most) if table.has_integer_key else most
    options = table.database.options | {"sessionInitStatement": engine.sorts}
    same: Any = same_integer if table.has_integer_key else str
    while True:
        first = f"SELECT {distinct}{whole} AS k FROM {table.place} WHERE {name} IS NOT NULL ORDER BY k LIMIT {size}"
        sql = f"SELECT {engine.text('k')} AS id FROM ({first}) AS first"
        with database_errors(table.database):
            reader = spark.read.format("jdbc").options(url=table.database.url, query=sql, **options)
            found = [row.id for row in reader.load().collect()]
        alone = [key for key in found if same(key) not in ids]
        if len(alone) >= limit or size == most or len(found) < size:
            return sorted(alone, key=int if table.has_integer_key else str.encode)[:limit]
        size = most


# ---------------------------------------------------------------------------------------------------------------------
# csv: cells and lines as Arrow arrays
# ---------------------------------------------------------------------------------------------------------------------


def csv_cells(values: pa.Array, form: CsvFormat) -> pa.Array:
    """Values as CSV cells: RFC 4180, missing as `form.null`, present but empty as `""`."""
    if form.escape_formulas:
        risky = pc.fill_null(pc.match_substring_regex(values, r"^[=+\-@\t\r]"), False)
        values = pc.if_else(risky, pc.binary_join_element_wise("'", values, ""), values)
    if form.quote == "all":
        needs_quotes = pc.is_valid(values)
    else:
        special = f'["\r\n{re.escape(form.delimiter)}]|^$|^{re.escape(form.null)}$'
        needs_quotes = pc.fill_null(pc.match_substring_regex(values, special), False)
    if needs_quotes.true_count:
        quoted = pc.binary_join_element_wise('"', pc.replace_substring(values, '"', '""'), '"', "")
        values = pc.if_else(needs_quotes, quoted, values)
    return pc.fill_null(values, form.null)


def csv_lines(columns: Sequence[pa.Array], form: CsvFormat) -> pa.Array:
    """Columns of values as CSV lines with their line endings."""
    cells = [csv_cells(values, form) for values in columns]
    cells[-1] = pc.binary_join_element_wise(cells[-1], LINE_ENDINGS[form.line_ending], "")
    return pc.binary_join_element_wise(*cells, form.delimiter)


def encode_lines(data: bytes, form: CsvFormat, columns: Sequence[str], first_row: int) -> bytes:
    """UTF-8 CSV lines in the encoding of the output.

    Raises:
        OutputError: a character does not exist there; names the row (1-based, without the header) and the column.
    """
    if form.codec == "utf-8":
        return data
    text = data.decode()
    try:
        return text.encode(form.codec)
    except UnicodeEncodeError as error:
        character = text[error.start]
        rows = csv.reader(io.StringIO(text[: error.start + 1], newline=""), delimiter=form.delimiter)
        csv.field_size_limit(sys.maxsize)
        cells: list[str] = []
        number = first_row
        for number, cells in enumerate(rows, first_row):  # noqa: B007
            pass
        column = columns[len(cells) - 1]
        place = phrase("row", number=number) if number else phrase("header")
        codepoint = f"{ord(character):04X}"
        raise OutputError(
            "not_encodable",
            place=place,
            column=column,
            encoding=form.encoding,
            character=character,
            codepoint=codepoint,
        ) from None


# ---------------------------------------------------------------------------------------------------------------------
# overlay: source value, else table value, else missing
# ---------------------------------------------------------------------------------------------------------------------

MAX_UNITS = 4096  # how finely the size of the output is known before it is cut into tasks
UNIT_BYTES = MIB
MAX_UNIT_BYTES = 64 * MIB  # who uploads a unit holds it, twice while it is sorted
CELL_BYTES = 16  # with its part of a block
GROUP_BYTES = 16 * MIB  # of records, and of their values, that are overlaid at a time
OVERLAY_SCHEMA = "unit int, data binary"
SUMMARY_UNIT = -1
LINES = pa.schema([("ordinal", pa.int64()), ("line", pa.string())])
MANY_LINES = pa.schema([("ordinal", pa.int64()), ("line", pa.large_string())])  # a column of strings ends at 2 GiB
COUNTS = ("matched", "source_duplicates", "table_rows", "matched_rows", "table_duplicates")


@dataclass(frozen=True)
class Overlay:
    """The merged rows, formatted but not yet in source order.

    Attributes:
        frame: Rows (unit int, data binary) in no order: blocks of LINES. Ordinals are zero-based in source order.
        columns: The columns of the output.
        header: The header line.
        units: Of each unit, a run of consecutive rows: how many rows, their UTF-8 bytes.
        counts: What the report says of the rows (the fields of `Result`).
    """

    frame: DataFrame
    columns: tuple[str, ...]
    header: str
    units: tuple[tuple[int, int], ...]
    counts: Mapping[str, Any]


def overlaid_bytes(source_bytes: int, rows: int, table: Table) -> int:
    """About how many bytes the source and so many rows of the table have together."""
    return source_bytes + rows * max(len(table.columns) * CELL_BYTES, table.row_bytes)


def output_columns(source: Source, table: Table) -> tuple[str, ...]:
    """Source columns in the order they first appear, then the table-only columns in table order."""
    return tuple(dict.fromkeys([*source.columns, *(column.name for column in table.columns)]))


@dataclass(frozen=True)
class TableRows:
    """The rows of the table that a plan brings.

    Attributes:
        frame: Blocks as `read_rows` describes them.
        rest: None when `frame` holds the whole table, else what waits for the counts of all of it: `table_rows`,
            `table_duplicates` and `unmatched_ids`.
    """

    frame: DataFrame
    rest: Callable[[], dict[str, Any]] | None = None


class OverlayTask(NamedTuple):
    """What every task that overlays needs to know."""

    columns: tuple[str, ...]
    headers: tuple[tuple[str, ...], ...]
    starts: Sequence[int]  # the ordinal of the first record of each split
    table_columns: tuple[str, ...]
    keys: TableKeys
    form: CsvFormat
    unit_rows: int


class KeyedRows:
    """The rows of the table whose keys a task has, one a key, and what was left out."""

    def __init__(self, blocks: Iterable[Packed], keys: TableKeys) -> None:
        self.left_out: list[dict[str, Any]] = []  # summaries of LeftOut
        batches = []
        for block in blocks:
            if block.kind == LEFT_OUT:
                self.left_out.append(json.loads(block.data.to_pybytes()))
            else:
                batches.append(unpack(block.data, table_schema(keys)))
        rows = pa.Table.from_batches(batches, table_schema(keys))
        self.rows = (rows if keys.unique else first_of_each(rows, keys)).combine_chunks()
        self.ids = self.rows.column(keys.at).combine_chunks()
        self.match = keys.of(self.rows).combine_chunks()
        self.copies = np.ones(len(self.ids), np.int64) if keys.unique else self.rows.column(keys.width).to_numpy()
        self.found = np.zeros(len(self.ids), bool)
        self.bytes = np.zeros(len(self.ids), np.int64)
        for column in self.rows.columns[: keys.width]:
            self.bytes += pc.fill_null(pc.binary_length(column), 0).to_numpy()


class Tally:
    """What a task counts."""

    def __init__(self, columns: int) -> None:
        self.matched = self.records = 0
        self.missing = np.zeros((columns, 2), np.int64)  # of each column: cells the source lacks, and both sides lack
        self.distinct: list[pa.Array] = []
        self.units: dict[int, list[int]] = {}  # rows, bytes

    def summary(self, table: KeyedRows, *, integer: bool) -> bytes:
        """The counts as JSON, with the first ids that no record has."""
        distinct = len(pc.unique(pa.chunked_array(self.distinct, pa.string())))
        alone = pa.array(~table.found)
        ids = [first_ids(table.ids.filter(alone), table.match.filter(alone), integer=integer)]
        left_out = sum(rows["without_key"] + rows["unmatched"] for rows in table.left_out)
        counts = {
            "matched": self.matched,
            "missing": self.missing.tolist(),
            "source_duplicates": self.records - distinct,
            "table_rows": int(table.copies.sum()) + left_out,
            "matched_rows": int(table.copies[table.found].sum()),
            "table_duplicates": int(table.copies.sum()) - len(table.copies),
            "unmatched_ids": merged_ids([*ids, *(rows["ids"] for rows in table.left_out)], integer=integer),
            "units": [(unit, *sums) for unit, sums in self.units.items()],
        }
        return json.dumps(counts).encode()


def _overlayer(task: OverlayTask) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The function that executors run: BLOCK_SCHEMA in, by kind, OVERLAY_SCHEMA out, the last a summary."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with in_worker():
            tally, table = Tally(len(task.columns)), KeyedRows((), task.keys)
            by_side = itertools.groupby(blocks_of(batches), lambda block: block.kind == SOURCE_BLOCK)
            for of_source, blocks in by_side:
                if of_source:
                    for held in gathered(blocks, GROUP_BYTES, lambda block: block.data.size):
                        group = [(block.split, unpack(block.data, source_schema(block.width))) for block in held]
                        yield from overlay_records(group, table, task, tally)
                else:
                    table = KeyedRows(blocks, task.keys)
            yield unit_batch([(SUMMARY_UNIT, tally.summary(table, integer=task.keys.integer))])

    return run


def unit_batch(blocks: Sequence[tuple[int, bytes]]) -> pa.RecordBatch:
    """Rows of OVERLAY_SCHEMA."""
    units, data = zip(*blocks, strict=True)
    return pa.RecordBatch.from_arrays([pa.array(units, pa.int32()), pa.array(data, pa.binary())], ["unit", "data"])


def overlay_records(
    group: Sequence[tuple[int, pa.RecordBatch]], table: KeyedRows, task: OverlayTask, tally: Tally
) -> Iterator[pa.RecordBatch]:
    """Overlays records (split and `source_schema`) on the rows of the table; yields OVERLAY_SCHEMA."""
    batches = [batch for _, batch in group]
    match = pa.concat_arrays([batch.column(1) for batch in batches])
    at = pc.index_in(match, value_set=table.match)
    hit = at.is_valid().to_numpy(zero_copy_only=False)
    place = pc.fill_null(at, 0).to_numpy()
    table.found[place[hit]] = True
    tally.records += len(match)
    tally.matched += int(hit.sum())
    tally.distinct.append(pc.unique(match))
    position = np.concatenate([batch.column(0).to_numpy() for batch in batches])
    ordinal = np.array(task.starts)[position >> ROW_BITS] + (position & ((1 << ROW_BITS) - 1))
    theirs_bytes = np.where(hit, table.bytes[place], 0) if len(table.bytes) else 0
    order = np.argsort(ordinal)
    sizes = np.full(len(match), sum(batch.nbytes for batch in batches) // len(match)) + theirs_bytes
    names = dict.fromkeys(itertools.chain.from_iterable({task.headers[split] for split, _ in group}))
    places = {split: {name: at for at, name in enumerate(task.headers[split], 2)} for split, _ in group}
    ours = {name: source_column(group, name, places) for name in names}
    of_table = {name: at for at, name in enumerate(task.table_columns)}
    for _, start, end in runs(np.cumsum(sizes[order]) // GROUP_BYTES):
        rows = pa.array(order[start:end])
        theirs = table.rows.take(at.take(rows))
        values = []
        for number, name in enumerate(task.columns):
            mine = ours[name].take(rows) if name in ours else pa.nulls(len(rows), pa.string())
            value = mine
            if name in of_table and mine.null_count:
                value = pc.coalesce(mine, theirs.column(of_table[name]).combine_chunks())
            tally.missing[number] += mine.null_count, value.null_count
            values.append(value)
        yield line_blocks(ordinal[order[start:end]], csv_lines(values, task.form), task.unit_rows, tally)


def source_column(
    group: Sequence[tuple[int, pa.RecordBatch]], name: str, places: Mapping[int, Mapping[str, int]]
) -> pa.Array:
    """The values of a column in all batches; `places` has the columns of each split."""
    arrays = []
    for split, batch in group:
        at = places[split].get(name, batch.num_columns)
        arrays.append(batch.column(at) if at < batch.num_columns else pa.nulls(batch.num_rows, pa.string()))
    return pa.concat_arrays(arrays)


def line_blocks(ordinals: np.ndarray[Any, Any], lines: pa.Array, unit_rows: int, tally: Tally) -> pa.RecordBatch:
    """Lines in ascending order as rows of OVERLAY_SCHEMA."""
    batch = pa.RecordBatch.from_arrays([pa.array(ordinals), lines], schema=LINES)
    ends = np.cumsum(pc.binary_length(lines).to_numpy())
    found: list[tuple[int, bytes]] = []
    for unit, start, end in runs(ordinals // unit_rows):
        sums = tally.units.setdefault(unit, [0, 0])
        sums[0] += end - start
        sums[1] += int(ends[end - 1] - (ends[start - 1] if start else 0))
        found += [(unit, data) for data in pack(batch.slice(start, end - start))]
    return unit_batch(found)


def merge(source: Source, table: Table, rows: TableRows, form: CsvFormat, partitions: int) -> Overlay:
    """Overlays the source on the table's rows and formats every output row, in so many partitions.

    Raises:
        TableError: the database failed while its rows were read.
        OutputError: the rows are not as many as the source records.
    """
    unit_bytes = min(max(UNIT_BYTES, partitions * PACKED_BYTES // 4), MAX_UNIT_BYTES)
    size = overlaid_bytes(source.bytes, min(source.records, table.rows), table)
    units = min(max(size // unit_bytes, 1), MAX_UNITS)
    task = OverlayTask(
        columns=output_columns(source, table),
        headers=source.headers,
        starts=[0, *itertools.accumulate(source.counts)],
        table_columns=tuple(column.name for column in table.columns),
        keys=table.keys,
        form=form,
        unit_rows=-(-source.records // units),
    )
    numbers = partition_numbers(partitions)
    place = number_at((numbers[target % partitions] for target in range(source.targets)), "target")
    blocks = block_frame(source.blocks).union(rows.frame)
    lines = (
        blocks.repartition(partitions, place)
        .sortWithinPartitions("kind")
        .mapInArrow(_overlayer(task), OVERLAY_SCHEMA)
        .persist(StorageLevel.DISK_ONLY)
    )
    with database_errors(table.database):
        found = lines.where(f"unit = {SUMMARY_UNIT}").collect()
        counts: dict[str, Any] = dict.fromkeys(COUNTS, 0)
        counts["unmatched_ids"] = []
        missing = np.zeros((len(task.columns), 2), np.int64)
        sums = np.zeros((units, 2), np.int64)
        for row in found:  # parsed, all of them would be many times as large
            summary = json.loads(bytes(row.data))
            counts |= {name: counts[name] + summary[name] for name in COUNTS}
            ids = counts["unmatched_ids"], summary["unmatched_ids"]
            counts["unmatched_ids"] = merged_ids(ids, integer=table.has_integer_key)
            missing += np.array(summary["missing"])
            for unit, *more in summary["units"]:
                sums[unit] += more
        matched_rows = counts.pop("matched_rows")
        counts["coverage"] = [[source.records - lacks, lacks - empty, empty] for lacks, empty in missing.tolist()]
        counts["filled_cells"] = sum(filled for _, filled, _ in counts["coverage"])
        if rows.rest:
            counts |= rows.rest()
    counts["unmatched"] = max(counts["table_rows"] - matched_rows, 0)  # the table may shrink meanwhile
    sizes = tuple((int(count), int(size)) for count, size in sums if count)
    written = int(sums[:, 0].sum())
    if written != source.records:
        raise OutputError("rows_lost", expected=source.records, found=written)
    source.blocks.unpersist()
    header = csv_lines([pa.array([name]) for name in task.columns], form)[0].as_py()
    return Overlay(lines.where(f"unit <> {SUMMARY_UNIT}"), task.columns, header, sizes, counts)


# The list of what only the table has. It reads the keys once more, whatever the plan: the plans are free to leave out
# rows that no record wants, and where there is an index it has the keys alone.

IDS_PER_UNIT = 200_000


def list_unmatched(spark: SparkSession, session: Session, source: Source, table: Table, settings: Settings) -> Overlay:
    """The ids of the table that no record has, once each, as the lines of `unmatched_file`.

    Integers are in the order of their values, others in that of their bytes.

    Raises:
        TableError: the database fails.
    """
    by_key_first = tuple(sorted(table.ordered, key=lambda column: column != table.key))
    alone = replace(table, columns=(table.key,), ordered=by_key_first)
    keys = alone.keys

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for block in blocks_of(batches):
            if block.kind == TABLE_BLOCK:
                rows = unpack(block.data, table_schema(keys))
                yield pa.RecordBatch.from_arrays([keys.of(rows), rows.column(keys.at)], names=["id", "text"])

    units = min(max(table.rows // IDS_PER_UNIT, 1), MAX_UNITS)
    order = F.col("id").cast("decimal(20)") if table.has_integer_key else F.col("id")
    with database_errors(table.database):
        ids = scan_table(spark, session, alone, 1).mapInArrow(read, "id string, text string")
        ids = ids.join(source_matches(source), "id", "left_anti")
        if not table.unique:
            ids = ids.groupBy("id").agg(F.min("text").alias("text"))
        packed = (
            ids.repartitionByRange(units, order)
            .sortWithinPartitions(order)
            .select("text")
            .mapInArrow(_list_packer(settings.csv), OVERLAY_SCHEMA)
            .persist(StorageLevel.DISK_ONLY)
        )
        summaries = [json.loads(bytes(row.data)) for row in packed.where(f"unit = {SUMMARY_UNIT}").collect()]
    sizes = sorted((unit, rows, size) for unit, rows, size in summaries if rows)
    starts = itertools.accumulate((rows for _, rows, _ in sizes), initial=0)
    places = {unit: (number, start) for number, ((unit, _, _), start) in enumerate(zip(sizes, starts, strict=False))}

    def place(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for unit, data in zip(batch.column(0).to_pylist(), batch.column(1), strict=True):
                number, start = places[unit]
                lines = unpack(data.as_buffer(), LINES)
                moved = lines.set_column(0, "ordinal", pc.add(lines.column(0), start))
                yield unit_batch([(number, moved.serialize().to_pybytes())])

    frame = packed.where(f"unit <> {SUMMARY_UNIT}").mapInArrow(place, OVERLAY_SCHEMA)
    header = csv_lines([pa.array([settings.key])], settings.csv)[0].as_py()
    # The name is what an error calls the column that has a character which the encoding lacks.
    name = f"{settings.key} (--unmatched_file)"
    return Overlay(frame, (name,), header, tuple((rows, size) for _, rows, size in sizes), {})


def _list_packer(form: CsvFormat) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The function that executors run: sorted ids in, OVERLAY_SCHEMA out, the last a summary [unit, rows, bytes].

    A partition is a unit, and its ordinals begin at 0.
    """

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        context = TaskContext.get()
        assert context
        unit, rows, size = context.partitionId(), 0, 0
        with in_worker():
            for held in gathered(batches, PACKED_BYTES, lambda batch: batch.nbytes):
                lines = csv_lines([pa.Table.from_batches(held).column(0).combine_chunks()], form)
                batch = pa.RecordBatch.from_arrays([pa.array(range(rows, rows + len(lines))), lines], schema=LINES)
                rows += len(lines)
                size += pc.sum(pc.binary_length(lines)).as_py()
                yield unit_batch([(unit, data) for data in pack(batch)])
            yield unit_batch([(SUMMARY_UNIT, json.dumps([unit, rows, size]).encode())])

    return run


# ---------------------------------------------------------------------------------------------------------------------
# publish: executors upload the parts of one object
# ---------------------------------------------------------------------------------------------------------------------

MIN_PART_BYTES = 5 * MIB  # the minimum of S3, for every part but the last (S3 User Guide, multipart upload limits)
MAX_PARTS = 10_000  # the maximum of S3
PART_BYTES = 8 * MIB
UPLOADS_AT_A_TIME = 2  # per task
# An encoding writes at least a third of the UTF-8 bytes (half-width katakana in cp932), so that every task has a part.
MIN_TASK_BYTES = 3 * MIN_PART_BYTES + MIB
TASK_BYTES = 64 * MIB
MAX_TASKS = 2_000
LINE_BLOCKS_PER_BATCH = 32
PART_SCHEMA = "part int, etag string, bytes bigint, fingerprint string"
# No upload takes longer: the default timeout of a whole Glue 5.0 job.
STALE_UPLOAD_SECONDS = 8 * 60 * 60
# Bytes are the digits of a number, and its remainder tells contents apart, wherever they are cut into parts. ETags do
# not: they depend on the parts, and with KMS they are no digests at all. The prime is the last before 2**128.
FINGERPRINT_PRIME = 2**128 - 159


class UploadTask(NamedTuple):
    """What one task uploads: `rows` consecutive rows, as at most `parts` parts from number `first_part` on."""

    first_row: int  # zero-based
    rows: int
    first_part: int
    parts: int


@dataclass(frozen=True)
class Upload:
    """Where all tasks write."""

    bucket: str
    key: str
    upload_id: str
    part_bytes: int
    form: CsvFormat
    columns: tuple[str, ...]
    header: bytes
    region: str | None
    fingerprint: bool = False  # whether somebody will ask if the contents changed


class Published(NamedTuple):
    """An object that a run wrote; the fingerprint is empty where nobody asked for it."""

    rows: int
    bytes: int
    etag: str
    fingerprint: str


def plan_upload(units: Sequence[tuple[int, int]], parallelism: int) -> tuple[list[UploadTask], int]:
    """Cuts the output into tasks of consecutive rows, each big enough for a part of its own, and sizes the parts.

    The sizes are known before anything is sent. So no task is left with a piece that is too small for a part, and
    part numbers can be dealt out beforehand.

    Args:
        units: (rows, UTF-8 bytes) of consecutive runs of rows.
        parallelism: Tasks that run at a time.

    Returns:
        The tasks in order, and the bytes of a part.
    """
    total = sum(size for _, size in units)
    target = max(min(total // (2 * parallelism), TASK_BYTES), MIN_TASK_BYTES, total // MAX_TASKS)
    runs: list[list[int]] = []
    for rows, size in units:
        if not runs or runs[-1][1] >= target:
            runs.append([0, 0])
        runs[-1][0] += rows
        runs[-1][1] += size
    if len(runs) > 1 and runs[-1][1] < MIN_TASK_BYTES:
        rows, size = runs.pop()
        runs[-1][0] += rows
        runs[-1][1] += size
    part_bytes = max(PART_BYTES, -(-total // (MAX_PARTS // 2)))
    tasks, first_row, first_part = [], 0, 1
    for rows, size in runs:
        parts = size // part_bytes + 2
        tasks.append(UploadTask(first_row, rows, first_part, parts))
        first_row, first_part = first_row + rows, first_part + parts
    return tasks, part_bytes


class MultipartUpload:
    """A multipart upload that is aborted unless its block ends with `complete()` having succeeded."""

    def __init__(self, client: Any, bucket: str, key: str, content_type: str) -> None:
        self._client = client
        self._target = {"Bucket": bucket, "Key": key}
        self._place = f"s3://{bucket}/{key}"
        self._content_type = content_type
        self._completing = self._done = False
        self.upload_id = ""

    def __enter__(self) -> MultipartUpload:
        with output_errors(self._target["Bucket"], self._place, "s3:PutObject"):
            answer = self._client.create_multipart_upload(ContentType=self._content_type, **self._target)
        self.upload_id = answer["UploadId"]
        return self

    def complete(self, parts: Sequence[Mapping[str, Any]]) -> str:
        """Makes the object visible, whole; returns its ETag.

        S3 may have done so although its answer was lost; asked again it answers NoSuchUpload.
        """
        self._completing = True
        with output_errors(self._target["Bucket"], self._place, "s3:PutObject"):
            try:
                etag = self._client.complete_multipart_upload(
                    UploadId=self.upload_id, MultipartUpload={"Parts": list(parts)}, **self._target
                )["ETag"]
            except (ClientError, BotoCoreError) as error:
                etag = whole_etag([part["ETag"] for part in parts])
                if not etag or etag != self._published_etag():
                    raise
                LOG.warning("%s is published, although S3 answered %s", self._place, type(error).__name__)
        self._done = True
        return str(etag)

    def _published_etag(self) -> str:
        # By a list, as a role that may not read the output may list it.
        try:
            answer = self._client.list_objects_v2(Bucket=self._target["Bucket"], Prefix=self._target["Key"], MaxKeys=1)
        except (ClientError, BotoCoreError):
            return ""
        found = {item["Key"]: item["ETag"] for item in answer.get("Contents", [])}
        return str(found.get(self._target["Key"], ""))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._done:
            return
        try:
            self._client.abort_multipart_upload(UploadId=self.upload_id, **self._target)
        except (ClientError, BotoCoreError) as failure:
            if self._completing and error:  # an aborted upload can no longer become the object; this one may have
                raise OutputError("output_unsure", place=self._place, problem=error_code(failure)) from error
            if not self._completing:
                # The first failure is the one to report; the next run and a lifecycle rule remove what stays.
                LOG.warning("Upload %s to %s was not aborted: %s", self.upload_id, self._place, type(failure).__name__)


def whole_etag(etags: Sequence[str]) -> str:
    """The ETag of an object made of parts: MD5 over theirs, and their number.

    Empty where those of the parts are no digests (SSE-C, SSE-KMS).
    """
    digits = [etag.strip('"') for etag in etags]
    if not all(re.fullmatch("[0-9a-f]{32}", text) for text in digits):
        return ""
    digest = hashlib.md5(bytes.fromhex("".join(digits)), usedforsecurity=False).hexdigest()
    return f'"{digest}-{len(digits)}"'


def abort_leftovers(client: Any, bucket: str, key: str) -> None:
    """Aborts what runs that were killed left behind at this key; younger ones may be of a run that is on."""
    old = datetime.now(UTC) - timedelta(seconds=STALE_UPLOAD_SECONDS)
    try:
        pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=key)
        for upload in itertools.chain.from_iterable(page.get("Uploads", []) for page in pages):
            if upload["Key"] == key and upload["Initiated"] < old:
                LOG.info("aborting upload %s of %s, which a killed run left", upload["UploadId"], upload["Initiated"])
                client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload["UploadId"])
    except (ClientError, BotoCoreError) as error:
        LOG.warning(
            "Uploads to s3://%s/%s that killed runs left were not cleaned up: %s", bucket, key, error_code(error)
        )


@contextmanager
def output_errors(bucket: str, place: str, operation: str) -> Iterator[None]:
    """Turns what S3 answers while the output is written into a JobError."""
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        if error_code(error) in {"NoSuchBucket", "404"}:
            raise OutputError("destination_missing", bucket=bucket) from error
        raise aws_error(error, operation, place) from error


def check_destination(client: Any, bucket: str, key: str) -> None:
    """Finds a missing bucket before hours of reading. A role that may not list gets 403, which says nothing.

    Raises:
        OutputError: the bucket does not exist.
    """
    place = f"s3://{bucket}/{key}"
    with output_errors(bucket, place, "s3:ListBucket"):
        try:
            client.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
        except ClientError as error:
            if error_code(error) != "AccessDenied":
                raise


def publish(
    spark: SparkSession, client: Any, overlay: Overlay, settings: Settings, unmatched: Overlay | None = None
) -> tuple[Published, Published | None]:
    """Writes the one CSV object, and the list of unmatched ids where there is one, all or nothing.

    By multipart uploads however small they are: a task that put the whole object would publish it before the run is
    known to be right, and again at each further attempt. Both are complete on the way before either is seen. Then the
    list comes first: should S3 refuse the output after that, the run fails, and the list is newer than the output.

    Raises:
        OutputError: the bucket is missing, a character has no place in the encoding, or rows got lost.
        AwsError: S3 denied a call or failed.
    """
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", LINE_BLOCKS_PER_BATCH)
    with ExitStack() as stack:
        finish = upload_lines(spark, client, overlay, settings, settings.destination_file, stack)
        listed = None
        if unmatched:
            listed = upload_lines(spark, client, unmatched, settings, settings.unmatched_file, stack)()
        return finish(), listed


def upload_lines(
    spark: SparkSession, client: Any, overlay: Overlay, settings: Settings, key: str, stack: ExitStack
) -> Callable[[], Published]:
    """Uploads the parts of one object; returns what makes it visible. The stack aborts it where that was not called."""
    form, bucket = settings.csv, settings.destination_bucket
    header = encode_lines(overlay.header.encode(), form, overlay.columns, 0)
    header = codecs.BOM_UTF8 + header if form.encoding == "utf-8-sig" else header
    charset = {"cp932": "windows-31j"}.get(form.encoding, "utf-8")
    tasks, part_bytes = plan_upload(overlay.units, spark.sparkContext.defaultParallelism)
    abort_leftovers(client, bucket, key)
    multipart = stack.enter_context(MultipartUpload(client, bucket, key, f"text/csv; charset={charset}"))
    region, fingerprint = client.meta.region_name, settings.notify == "on_change"
    upload = Upload(bucket, key, multipart.upload_id, part_bytes, form, overlay.columns, header, region, fingerprint)
    if tasks:
        parts = sorted(to_tasks(overlay, tasks).mapInArrow(_uploader(upload, tasks), PART_SCHEMA).collect())
    else:
        parts = [Row(**send(client, upload, 1, bytearray(header)))]

    def finish() -> Published:
        # By the ETags of the attempts Spark took: had another attempt left other bytes, S3 would refuse to complete.
        etag = multipart.complete([{"PartNumber": part.part, "ETag": part.etag} for part in parts])
        fingerprint = joined_fingerprint(parts) if upload.fingerprint else ""
        rows = sum(rows for rows, _ in overlay.units)
        return Published(rows, sum(part.bytes for part in parts), etag, fingerprint)

    return finish


def fingerprint_of(data: bytes | bytearray) -> str:
    """The remainder of some bytes, in hexadecimal."""
    found = 0
    for start in range(0, len(data), MIB):
        piece = data[start : start + MIB]
        found = (found * pow(256, len(piece), FINGERPRINT_PRIME) + int.from_bytes(piece, "big")) % FINGERPRINT_PRIME
    return f"{found:032x}"


def joined_fingerprint(parts: Iterable[Row]) -> str:
    """The remainder of the bytes of all parts, with their length, as a leading zero changes no number."""
    found = size = 0
    for part in parts:
        found = (found * pow(256, part.bytes, FINGERPRINT_PRIME) + int(part.fingerprint, 16)) % FINGERPRINT_PRIME
        size += part.bytes
    return f"{size}-{found:032x}"


def to_tasks(overlay: Overlay, tasks: Sequence[UploadTask]) -> DataFrame:
    """The units with each task's in a partition of its own, in order.

    `repartitionByRange` would run the plan once more to sample bounds that are known here.
    """
    numbers = partition_numbers(len(tasks))
    first_rows = [task.first_row for task in tasks]
    ends = itertools.accumulate(rows for rows, _ in overlay.units)
    place = number_at((numbers[bisect.bisect_left(first_rows, end) - 1] for end in ends), "unit")
    return overlay.frame.repartition(len(tasks), place).sortWithinPartitions("unit")


def ordered_lines(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The lines (LINES) in blocks that come unit after unit, in order."""
    blocks = ((unit.as_py(), data.as_buffer()) for batch in batches for unit, data in zip(*batch.columns, strict=True))
    for _, unit in itertools.groupby(blocks, operator.itemgetter(0)):
        lines = pa.Table.from_batches([unpack(data, LINES) for _, data in unit]).cast(MANY_LINES).combine_chunks()
        order = np.argsort(lines.column(0).to_numpy())
        sizes = pc.binary_length(lines.column(1)).to_numpy()[order]
        for _, start, end in runs(np.cumsum(sizes) // PART_BYTES):
            yield from lines.take(pa.array(order[start:end])).cast(LINES).combine_chunks().to_batches()


def _uploader(
    upload: Upload, tasks: Sequence[UploadTask]
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The function that executors run: units of a task in order in, the parts they made (PART_SCHEMA) out."""
    first_rows = [task.first_row for task in tasks]

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        lines = ordered_lines(batches)
        for first in lines:
            task = tasks[bisect.bisect_right(first_rows, first.column(0)[0].as_py()) - 1]
            with in_worker():
                parts = list(
                    upload_rows(worker_s3_client(upload.region), upload, task, itertools.chain([first], lines))
                )
            yield pa.RecordBatch.from_pylist(
                parts,
                pa.schema(
                    [("part", pa.int32()), ("etag", pa.string()), ("bytes", pa.int64()), ("fingerprint", pa.string())]
                ),
            )

    return run


def upload_rows(
    client: Any, upload: Upload, task: UploadTask, batches: Iterable[pa.RecordBatch]
) -> Iterator[dict[str, Any]]:
    """Uploads the rows of one task; yields a part as {part, etag, bytes, fingerprint}.

    The next part is made while UPLOADS_AT_A_TIME others are on their way, so a task holds the bytes of one part more
    than that, and what is left over for the part after. Whatever ends a task, it first waits for those: parts that
    arrive after the upload was aborted would stay in the bucket.
    """
    sending: list[Future[dict[str, Any]]] = []
    with ThreadPoolExecutor(UPLOADS_AT_A_TIME) as pool:
        number = task.first_part
        for data in cut_parts(upload, task, batches):  # `enumerate` would hold a part until the next one is whole
            if len(sending) == UPLOADS_AT_A_TIME:
                yield sending.pop(0).result()
            sending.append(pool.submit(send, client, upload, number, data))
            del data
            number += 1
        for future in sending:
            yield future.result()


def cut_parts(upload: Upload, task: UploadTask, batches: Iterable[pa.RecordBatch]) -> Iterator[bytearray]:
    """The bytes of a task's parts, the same at every attempt, whatever the sizes of the batches.

    A part is cut only when a whole smallest part stays behind, so that the last one is never too small.

    Raises:
        OutputError: rows are missing, or need more parts than were dealt out, as they changed since they were counted.
    """
    buffer = bytearray(upload.header if task.first_row == 0 else b"")
    row, parts = task.first_row, 1
    for batch in batches:
        if batch.column(0)[0].as_py() != row:
            raise OutputError("rows_lost", expected=task.rows, found=row - task.first_row)
        buffer += encode_lines(line_bytes(batch.column(1)), upload.form, upload.columns, row + 1)
        row += batch.num_rows
        while len(buffer) >= upload.part_bytes + MIN_PART_BYTES:
            if parts == task.parts:
                raise OutputError("rows_lost", expected=task.rows, found=row - task.first_row)
            yield buffer[: upload.part_bytes]
            del buffer[: upload.part_bytes]
            parts += 1
    if row != task.first_row + task.rows:
        raise OutputError("rows_lost", expected=task.rows, found=row - task.first_row)
    yield buffer


def line_bytes(lines: pa.Array) -> bytes:
    """The concatenated lines: Arrow keeps the strings of an array back to back."""
    _, offsets, data = lines.buffers()
    ends = pa.Array.from_buffers(pa.int32(), len(lines) + 1, [None, offsets], offset=lines.offset)
    return data[ends[0].as_py() : ends[-1].as_py()].to_pybytes() if data else b""


def send(client: Any, upload: Upload, number: int, data: bytearray) -> dict[str, Any]:
    """Sends one part."""
    target = {"Bucket": upload.bucket, "Key": upload.key, "UploadId": upload.upload_id, "PartNumber": number}
    with output_errors(upload.bucket, f"s3://{upload.bucket}/{upload.key}", "s3:PutObject"):
        answer = client.upload_part(Body=data, **target)
    fingerprint = fingerprint_of(data) if upload.fingerprint else ""
    return {"part": number, "etag": answer["ETag"], "bytes": len(data), "fingerprint": fingerprint}


# ---------------------------------------------------------------------------------------------------------------------
# run
# ---------------------------------------------------------------------------------------------------------------------


PROGRESS_SECONDS = 60.0  # between two lines about a stage
PARTITION_BYTES = 64 * MIB
STOP_SECONDS = 6.0  # for the tasks of a run that is stopped, and for its message
MAX_PARTITIONS = 4_000


@dataclass(frozen=True)
class Result:
    """What a run did. All counts are rows or records but for `filled_cells` and `bytes`."""

    source_records: int
    matched: int
    source_only: int
    filled_cells: int
    unmatched: int
    unmatched_ids: list[str]
    source_duplicates: int
    missing_ids: int
    table_rows: int
    table_duplicates: int
    columns: list[str]
    bytes: int
    plan: str
    seconds: float
    output: str
    plan_reason: str = ""  # a name in TEXTS
    coverage: list[list[int]] = field(default_factory=list)  # of each column: cells of source, of table, empty
    source_bytes: int = 0
    etag: str = ""
    fingerprint: str = ""  # of the output, with notify on_change
    unmatched_file: dict[str, Any] | None = None  # url, rows, bytes, fingerprint


class Progress:
    """Times the stages of a run, logs one line each as JSON, and knows the one that is on.

    Attributes:
        stage: The one that is on, or was last.
        stages: Those that ended: name, start and seconds (both since the run began).
        started: In UTC, ISO 8601.
    """

    def __init__(self, spark: SparkSession, run_id: str) -> None:
        self.stage = "settings"
        self.stages: list[dict[str, Any]] = []
        self.started = now()
        self._spark, self._run_id = spark, run_id
        self._began = time.monotonic()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[dict[str, object]]:
        """Around a stage; what it counts goes into the dictionary."""
        self.stage = stage
        known: dict[str, object] = {}
        start, ended = self.seconds, threading.Event()
        beat = threading.Thread(target=self._tell_tasks, args=(stage, start, ended), daemon=True)
        beat.start()
        try:
            yield known
        except BaseException:
            known["failed"] = True
            raise
        finally:
            ended.set()
            beat.join(1)
            seconds = round(self.seconds - start, 3)
            self.stages.append({"stage": stage, "start": round(start, 3), "seconds": seconds})
            line = {"stage": stage, "seconds": seconds, "run_id": self._run_id, **known}
            LOG.info("STAGE %s", json.dumps(line, ensure_ascii=False))

    def _tell_tasks(self, stage: str, start: float, ended: threading.Event) -> None:
        while not ended.wait(PROGRESS_SECONDS):
            try:
                tracker = self._spark.sparkContext.statusTracker()
                found = [tracker.getStageInfo(number) for number in tracker.getActiveStageIds()]
                active = [info for info in found if info]
            except Exception:  # the session may be about to end
                active = []
            done, tasks = (sum(getattr(info, name) for info in active) for name in ("numCompletedTasks", "numTasks"))
            LOG.info("stage %s: %.0f s, %d of %d tasks done", stage, self.seconds - start, done, tasks)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began


def now() -> str:
    """The time in UTC, ISO 8601."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def join_partitions(source_bytes: int, table_rows: int, table: Table, parallelism: int) -> int:
    """Partitions of the join: about PARTITION_BYTES each, by the bytes of the source and the rows of the table."""
    size = overlaid_bytes(source_bytes, table_rows, table)
    return min(max(size // PARTITION_BYTES, min(2 * parallelism, size // MIN_SPLIT_BYTES), 1), MAX_PARTITIONS)


def choose_plan(source: Source, table: Table) -> tuple[str, str]:
    """The plan that costs less and why (a name in TEXTS). The source is parsed, so its records are no guess."""
    if not table.indexed:
        return "scan", "no_index"
    if not table.engine.can_look_up(table.key):
        return "scan", "key_type"
    if table.rows < MIN_LOOKUP_ROWS:
        return "scan", "small_table"
    if source.records > min(MAX_LOOKUP_IDS, table.rows // ROWS_PER_LOOKUP):
        return "scan", "many_ids"
    return "lookup", "few_ids"


def overlay_table(
    spark: SparkSession, session: Session, source: Source, table: Table, settings: Settings
) -> tuple[Overlay, str, str]:
    """Reads the table by the plan that costs less; returns the overlay, the plan and the reason for it."""
    plan, reason = choose_plan(source, table)
    parallelism = spark.sparkContext.defaultParallelism
    if plan == "lookup":
        ids = source_ids(source)
        predicates = lookup_predicates(table, ids, parallelism)
        if predicates != [NO_ROWS] and not uses_index(session, table, predicates[0]):
            plan, reason = "scan", "index_unused"
    LOG.info("plan %s: %s (%d records, about %d rows)", plan, TEXTS["en"][reason], source.records, table.rows)
    few = min(join_partitions(source.bytes, source.records, table, parallelism), source.targets)
    if plan == "scan":
        rows = TableRows(scan_table(spark, session, table, source.targets, source.keys))
        partitions = few if source.keys is not None and table.unique else source.targets
        return merge(source, table, rows, settings.csv, partitions), plan, reason
    pool = ThreadPoolExecutor(2)  # both take as long as the index is, so they run beside the lookup
    try:
        counts: Future[dict[str, Any]] = pool.submit(count_rows, session, table)
        unmatched = pool.submit(first_unmatched, spark, table, ids, UNMATCHED_IDS)
        rows = TableRows(
            read_rows(spark, table, table.key, predicates, source.targets),
            lambda: counts.result() | {"unmatched_ids": unmatched.result()},
        )
        return merge(source, table, rows, settings.csv, few), plan, reason
    finally:
        pool.shutdown(wait=not Stopped.begun)


def plan_ahead(spark: SparkSession, table: Table) -> None:
    """Plans, and does not run, what looks like the overlay to come: the first plan of a session takes seconds.

    The driver has nothing else to do while executors parse the source.
    """
    try:
        cells = spark.range(1).select(*(F.col("id").cast("string").alias(f"c{i}") for i in range(len(table.columns))))
        rows = cells.mapInArrow(_row_packer(table.keys, 1, None), BLOCK_SCHEMA)
        frame = rows.union(rows).repartition(2, number_at([0], "target")).sortWithinPartitions("kind")
        frame.mapInArrow(lambda batches: batches, OVERLAY_SCHEMA)._jdf.queryExecution().executedPlan()
    except Exception as error:  # the run does without
        LOG.info("no plan ahead: %s", type(error).__name__)


def transfer(spark: SparkSession, settings: Settings, secret: Secret, progress: Progress) -> Result:
    """One overlay from source and table to the published object.

    Raises:
        JobError: some stage failed; nothing is published then.
    """
    s3 = s3_client(None)
    with progress("connection"):
        glue = boto3.client("glue", config=AWS_CONFIG)
        database = load_database(glue, s3, settings.connection_name, secret)
        check_destination(s3, settings.destination_bucket, settings.destination_file)
    with progress("source") as known:
        report = settings.report_key if settings.source_bucket == settings.destination_bucket else ""
        objects = list_objects(s3, settings.source_bucket, settings.source_key, but=report)
        known |= {"objects": len(objects), "bytes": sum(item.size for item in objects)}

    def describe() -> Table:
        with Session(spark, database) as session:
            return describe_table(session, database, settings.key, settings.max_connections)

    def overlay_rows() -> tuple[Overlay | None, Overlay, str, str]:
        with Session(spark, database) as session:
            unmatched = list_unmatched(spark, session, source, table, settings) if settings.unmatched_file else None
            return unmatched, *overlay_table(spark, session, source, table, settings)

    with progress("table") as known:
        table = persistently(describe, FIRST_WAITS)
        LOG.info(
            "table has %d columns, about %d rows; at most %d connections",
            len(table.columns),
            table.rows,
            table.connections,
        )
        known |= {"columns": len(table.columns), "rows": table.rows}
        most = table.rows_within(BLOCKS_PER_BATCH * PACKED_BYTES, BLOCKS_PER_BATCH)
        spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", most)
    with progress("source") as known:
        size = sum(item.size for item in objects)
        targets = join_partitions(size, table.rows, table, spark.sparkContext.defaultParallelism)
        threading.Thread(target=plan_ahead, args=(spark, table), daemon=True).start()
        source = read_source(spark, s3, objects, settings, integer_key=table.has_integer_key, targets=targets)
        LOG.info("source has %d records, %d columns, %d bytes", source.records, len(source.columns), source.size)
        known |= {"records": source.records, "columns": len(source.columns)}
    with progress("overlay") as known:
        unmatched, overlay, plan, reason = persistently(overlay_rows, LATER_WAITS)
        known |= {"plan": plan, "matched": overlay.counts["matched"], "unmatched": overlay.counts["unmatched"]}
    with progress("publish") as known, database_errors(database):  # what an executor held is made anew if it is lost
        output, listed = publish(spark, s3, overlay, settings, unmatched)
        known |= {"rows": output.rows, "bytes": output.bytes}
    list_place = f"s3://{settings.destination_bucket}/{settings.unmatched_file}"
    return Result(
        source_records=source.records,
        missing_ids=source.missing_ids,
        source_only=source.records - overlay.counts["matched"],
        columns=list(overlay.columns),
        bytes=output.bytes,
        etag=output.etag.strip('"'),
        fingerprint=output.fingerprint,
        unmatched_file={"url": list_place, **listed._asdict()} if listed else None,
        source_bytes=source.size,
        plan=plan,
        plan_reason=reason,
        seconds=round(progress.seconds, 1),
        output=settings.destination,
        **overlay.counts,
    )


# What is left behind for programs, and for the next run. Nothing here fails a run or holds it for long.

BRIEFLY = Config(retries={"mode": "standard", "total_max_attempts": 1}, connect_timeout=3, read_timeout=5)
REPORT_SECONDS = METRICS_SECONDS = 8.0
MAX_REPORT_BYTES = 16 * MIB
NAMESPACE = "RdsGlueS3Etl"
COUNT_METRICS = {
    "SourceRecords": "source_records",
    "MatchedRecords": "matched",
    "SourceOnlyRecords": "source_only",
    "FilledCells": "filled_cells",
    "UnmatchedRows": "unmatched",
    "SourceDuplicates": "source_duplicates",
    "TableDuplicates": "table_duplicates",
    "TableRows": "table_rows",
    "MissingIds": "missing_ids",
}


def within(seconds: float, what: str, do: Callable[[], Any]) -> Any:
    """What `do` returns; None when it fails or takes longer than `seconds`, which is logged.

    A thread, because no timeout of a client bounds the lookup of a name (a VPC without the endpoint).
    """
    answers: list[Any] = []

    def attempt() -> None:
        try:
            answers.append(do())
        except Exception as error:
            LOG.warning("%s failed: %s; the run goes on without it", what, error_code(error))
            answers.append(None)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    if not answers:
        LOG.warning("%s took longer than %g s; the run goes on without it", what, seconds)
        return None
    return answers[0]


@dataclass(frozen=True)
class LastRun:
    """What the report of the run before says; empty where there is none.

    Attributes:
        failing_since: When the first of a row of failures was, the last of which was that run.
        success: The last run that succeeded: run_id, ended, source_records, news (see `news_of`).
    """

    failing_since: str = ""
    success: Mapping[str, Any] = field(default_factory=dict)

    @property
    def source_records(self) -> int:
        return int(self.success.get("source_records", 0))

    @property
    def news(self) -> Any:
        return self.success.get("news")


def parse_report(data: bytes) -> LastRun:
    """What counts for the next run in a report (schemas/run_report.schema.json).

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is no report.
    """
    report = json.loads(data)
    since, success = report["failing_since"] or "", report["last_success"] or {}
    if since:
        datetime.fromisoformat(since)
    if success and type(success["source_records"]) is not int:
        raise ValueError("last_success.source_records")
    return LastRun(since, success)


class Reporter:
    """The run report beside the output; knows that of the run before.

    Attributes:
        last: What the run before left.
    """

    def __init__(self, settings: Settings, progress: Progress) -> None:
        self._settings, self._progress = settings, progress
        self._client = boto3.client("s3", config=BRIEFLY)
        self._target = {"Bucket": settings.destination_bucket, "Key": settings.report_key}
        self.last: LastRun = within(REPORT_SECONDS, "reading the last run report", self._read) or LastRun()

    def _read(self) -> LastRun:
        try:
            answer = self._client.get_object(**self._target)
        except ClientError as error:
            # A role that may not list gets 403 for what is not there.
            if error_code(error) in {"NoSuchKey", "NoSuchBucket", "AccessDenied"}:
                return LastRun()
            raise
        try:
            return parse_report(answer["Body"].read(MAX_REPORT_BYTES))
        except (ValueError, KeyError, TypeError, AttributeError):
            LOG.warning("s3://%s/%s is no run report; it will be replaced", *self._target.values())
            return LastRun()

    def success(self, result: Result) -> None:
        """Writes the report of a run that published its output."""
        ended = now()
        columns = [
            {"name": name, "source": ours, "table": theirs, "empty": empty}
            for name, (ours, theirs, empty) in zip(result.columns, result.coverage, strict=True)
        ]
        warnings = warnings_of(result, self.last, self._settings.language)
        success = {
            "run_id": self._settings.run_id,
            "ended": ended,
            "source_records": result.source_records,
            "news": news_of(result, self.last),
        }
        self._write(
            ended,
            status="succeeded",
            plan=result.plan,
            plan_reason=result.plan_reason,
            counts={name: getattr(result, name) for name in COUNT_METRICS.values()},
            columns=columns,
            unmatched_ids=result.unmatched_ids,
            unmatched_file=result.unmatched_file,
            warnings=[{"code": code, "text": text} for code, text in warnings.items()],
            source_bytes=result.source_bytes,
            output={
                "bytes": result.bytes,
                "etag": result.etag,
                "fingerprint": result.fingerprint,
            },
            last_success=success,
        )

    def failure(self, failure: JobError) -> None:
        """Writes the report of a run that failed; what the last success left stays in it."""
        ended = now()
        message = failure.message(self._settings.language)
        self._write(
            ended,
            status="failed",
            error={"code": failure.code, "stage": self._progress.stage, **message._asdict()},
            failing_since=self.last.failing_since or ended,
            last_success=dict(self.last.success) or None,
        )

    def _write(self, ended: str, **facts: Any) -> None:
        settings, progress = self._settings, self._progress
        report = {
            "version": 1,
            "job": settings.job_name,
            "run_id": settings.run_id,
            "language": settings.language,
            "started": progress.started,
            "ended": ended,
            "seconds": round(progress.seconds, 3),
            "stages": progress.stages,
            "source": settings.source,
            "destination": settings.destination,
            "error": None,
            "failing_since": None,
            **facts,
        }
        body = json.dumps(report, ensure_ascii=False, indent=1).encode(errors="backslashreplace")

        def put() -> None:
            self._client.put_object(Body=body, ContentType="application/json", **self._target)

        within(REPORT_SECONDS, "writing the run report", put)


def put_metrics(job: str, progress: Progress, result: Result | None) -> None:
    """Sends the metrics of a run to CloudWatch; without a result those of a failed one."""
    values: list[tuple[str, float, str, dict[str, str]]] = [
        ("Succeeded", int(result is not None), "Count", {}),
        ("DurationSeconds", progress.seconds, "Seconds", {}),
    ]
    if result:
        values += [(metric, getattr(result, name), "Count", {}) for metric, name in COUNT_METRICS.items()]
        values.append(("OutputBytes", result.bytes, "Bytes", {}))
    seconds: dict[str, float] = {}
    for stage in progress.stages:
        seconds[stage["stage"]] = seconds.get(stage["stage"], 0) + stage["seconds"]
    values += [("StageSeconds", spent, "Seconds", {"Stage": stage}) for stage, spent in seconds.items()]
    data = [
        {
            "MetricName": metric,
            "Value": value,
            "Unit": unit,
            "Dimensions": [{"Name": name, "Value": text} for name, text in {"Job": job, **more}.items()],
        }
        for metric, value, unit, more in values
    ]

    def put() -> None:
        boto3.client("cloudwatch", config=BRIEFLY).put_metric_data(Namespace=NAMESPACE, MetricData=data)

    within(METRICS_SECONDS, "sending metrics", put)


def run(argv: Sequence[str], spark: SparkSession, commit: Callable[[], None]) -> Result:
    """One run of the job: Slack, the exit status and the output always agree.

    Args:
        argv: Arguments as Glue gives them to a script.
        spark: The session.
        commit: Tells Glue that the run is done; after it nothing can fail.

    Raises:
        JobError: the run failed. It carries no cause, as stack traces of drivers may quote what they were given.
    """
    progress = Progress(spark, dict(itertools.pairwise(argv)).get("--JOB_RUN_ID", ""))
    secret, reporter = None, None
    try:
        settings = make_settings(read_arguments(argv))
        reporter = Reporter(settings, progress)
        with progress("secret"):
            secret = load_secret(boto3.client("secretsmanager", config=AWS_CONFIG), settings)
        result = transfer(spark, settings, secret, progress)
        with progress("commit"):
            commit()
    except (Exception, Stopped) as error:
        failure = explain(error, secret, progress.stage)
        report_failure(failure, argv, secret, progress, reporter)
        raise failure from None
    finally:
        if not Stopped.begun:
            spark.catalog.clearCache()
            for kept in spark.sparkContext._jsc.getPersistentRDDs().values():
                kept.unpersist()
    LOG.info("RESULT %s", json.dumps(asdict(result), ensure_ascii=False))
    reporter.success(result)
    if is_news(settings, result, reporter.last):
        message = success_message(settings, result, reporter.last, boto3.Session().region_name or "")
        post_to_slack(secret.slack_webhook, message)
    put_metrics(settings.job_name, progress, result)
    return result


def is_news(settings: Settings, result: Result, last: LastRun) -> bool:
    """Whether Slack should hear of a success.

    With `on_change` it should when the bytes of the output, what only the table has, or a warning are not those of the
    last success, and when the run before failed.
    """
    if settings.notify == "on_change":
        return bool(last.failing_since) or last.news != news_of(result, last)
    return settings.notify == "always"


def news_of(result: Result, last: LastRun) -> dict[str, Any]:
    """What makes one success differ from another to its readers."""
    return {
        "fingerprint": result.fingerprint,
        "unmatched": result.unmatched,
        "unmatched_ids": result.unmatched_ids,
        "unmatched_file": (result.unmatched_file or {}).get("fingerprint", ""),
        "warnings": list(warnings_of(result, last, "en").values()),
    }


def explain(error: BaseException, secret: Secret | None, stage: str) -> JobError:
    """The JobError behind an exception, with secrets taken out; logs the stack trace."""
    redact = secret.redact if secret else str
    LOG.error("stage %s failed", stage)
    for line in redact(traceback.format_exc()).splitlines():
        LOG.error("    | %s", line)
    failure = error if isinstance(error, JobError) else received_from_executor(error)
    if Stopped.begun and not (failure and failure.code == "output_unsure"):
        failure = JobError("stopped")  # whatever else broke with the JVM
    if failure is None:
        failure = JobError("unexpected", problem=f"{type(error).__name__}: {telling_line(str(error))[:500]}")
    failure.redact(redact)
    LOG.error("%s", failure)
    return failure


def telling_line(text: str) -> str:
    """The line of an exception's text that says most, among frames of Java and Python."""
    frames = ("An error occurred while calling", "Driver stacktrace:")
    lines = [line for line in text.splitlines() if line[:1].strip() and not line.startswith(frames)] or [text]
    # The exception of a Python worker comes as a whole stack trace, whose last line tells.
    return lines[-1 if "Traceback (most recent call last)" in text else 0].lstrip(": ").strip()


def report_failure(
    failure: JobError, argv: Sequence[str], secret: Secret | None, progress: Progress, reporter: Reporter | None
) -> None:
    """Tells Slack of a failure, also of one in the job arguments or the secret where these still name the webhook.

    Slack comes first, as a run that is stopped has little time.
    """
    given = dict(itertools.pairwise(argv))
    webhook = secret.slack_webhook if secret else find_webhook(given)
    job, language = given.get("--JOB_NAME", "?"), given.get("--language", "ja")
    language = language if language in LANGUAGES else "ja"
    bucket, key = given.get("--destination_bucket"), given.get("--destination_file")
    unchanged = bucket and key and progress.stage != "commit" and failure.code != "output_unsure"
    told = Failure(
        job=job,
        run_id=given.get("--JOB_RUN_ID", ""),
        language=language,
        stage=progress.stage,
        message=failure.message(language),
        output=f"s3://{bucket}/{key}" if unchanged else "",
        seconds=progress.seconds,
        since=reporter.last.failing_since if reporter else "",
        # Where Terraform sends it (monitoring.tf, log_prefixes), unless the job says otherwise. Glue puts stderr there.
        log_group=f"{given.get('--custom-logGroup-prefix', f'/aws-glue/jobs/{job}')}/output",
    )
    message = failure_message(told, boto3.Session().region_name or "")
    failure.reported = post_to_slack(webhook, message, STOP_SECONDS if Stopped.begun else SLACK_SECONDS)
    if reporter:
        reporter.failure(failure)
    put_metrics(job, progress, None)


def stop_on_sigterm(spark: SparkSession) -> None:
    """Lets SIGTERM raise Stopped in the main thread. Spark's tasks end first, so no part comes after the abort."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        Stopped.begun = True
        # In a thread of its own, which has its own connection to the JVM; that may be about to end, too.
        thread = threading.Thread(target=end_tasks, args=(spark,), daemon=True)
        thread.start()
        thread.join(STOP_SECONDS)
        # The next call takes a new connection, or it would get the answer that this thread was waiting for.
        spark.sparkContext._gateway._gateway_client.thread_connection.connection = None
        raise Stopped

    signal.signal(signal.SIGTERM, stop)


def end_tasks(spark: SparkSession) -> None:
    """Cancels all jobs and waits until no task runs any more (Spark ends a Python worker after 2 to 4 seconds)."""
    context = spark.sparkContext
    try:
        context.cancelAllJobs()
        while any(executor.numRunningTasks() for executor in context._jsc.sc().statusTracker().getExecutorInfos()):
            time.sleep(0.2)
    except Exception as error:
        LOG.warning("Spark was not told to stop: %s", type(error).__name__)


def find_webhook(given: Mapping[str, str]) -> str:
    """The webhook of a run that did not get as far as its secret; empty where it cannot be had."""
    name = given.get("--slack_secret_name") or given.get("--secret_name")
    if not name:
        return ""
    try:
        webhook = read_secret(boto3.client("secretsmanager", config=AWS_CONFIG), name).get("slack_webhook")
    except JobError:
        return ""
    return webhook if isinstance(webhook, str) and is_webhook(webhook) else ""


# ---------------------------------------------------------------------------------------------------------------------
# main: the only part that knows Glue's runtime
# ---------------------------------------------------------------------------------------------------------------------


class OneLine(logging.Formatter):
    """A record is a line, whatever its values hold: no value forges a record of its own, or moves the cursor."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def main() -> None:
    """Runs the job as Glue starts it."""
    from awsglue.context import GlueContext  # noqa: PLC0415  the Java classes behind it exist on Glue alone
    from awsglue.job import Job  # noqa: PLC0415
    from pyspark.context import SparkContext  # noqa: PLC0415

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler], force=True)
    LOG.setLevel(logging.INFO)
    glue_context = GlueContext(SparkContext.getOrCreate())
    job = Job(glue_context)
    given = dict(itertools.pairwise(sys.argv))
    job.init(given.get("--JOB_NAME", ""), {})
    stop_on_sigterm(glue_context.spark_session)
    try:
        run(sys.argv, glue_context.spark_session, job.commit)
    finally:
        if Stopped.begun:
            os._exit(1)  # Python would wait for threads, and one may wait for the database


if __name__ == "__main__":
    main()
