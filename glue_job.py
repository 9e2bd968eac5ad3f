"""Overlay a JSON file in S3 on a table in RDS by key and publish one CSV: one AWS Glue 5.0 job.

The file reads from top to bottom in the order of a run:

    settings -> secret -> slack -> source -> table -> overlay -> csv -> run() -> main()

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
import heapq
import io
import itertools
import json
import logging
import operator
import re
import secrets
import ssl
import sys
import threading
import time
import traceback
import zipimport
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from decimal import Decimal
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
import requests
from awsglue.utils import getResolvedOptions
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError
from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

LOG = logging.getLogger("glue_job")

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
            "{place} のレコード {record} (バイト位置 {offset}) はオブジェクトではなく {found} です。",
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
            "Check db_name and table_name in the secret, and the grants of the user.",
        ),
        "ja": Message(
            "テーブル {table} がないか、ユーザー {user!r} に読み取り権限がありません{near}。",
            "シークレットの db_name と table_name、ユーザーの権限を確認してください。",
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
            "For MariaDB Connector/J 3 add permitMysqlScheme to the URL, or use Connector/J 2.7.",
        ),
        "ja": Message(
            "JDBC ドライバー {driver!r} は URL {url} を受け付けません。",
            "MariaDB Connector/J 3 では URL に permitMysqlScheme を付けるか、2.7 を使ってください。",
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
    "unexpected": {
        "en": Message("{problem}", "Look at the log of the run; the stack trace is there."),
        "ja": Message("{problem}", "実行ログのスタックトレースを確認してください。"),
    },
}


class JobError(Exception):
    """A run that cannot go on.

    Attributes:
        code: The entry of `MESSAGES`.
        details: What fills its templates (never a secret).
    """

    def __init__(self, code: str, **details: object) -> None:
        super().__init__(code)
        self.code = code
        self.details = details

    def message(self, language: str) -> Message:
        """The cause and the hint in `language` (`ja` or `en`)."""
        cause, hint = MESSAGES[self.code][language]
        return Message(cause.format(**self.details), hint.format(**self.details))

    def __str__(self) -> str:
        return " ".join(self.message("en"))


class SettingsError(JobError):
    """The job arguments, the secret or the connection are wrong."""


class AwsError(JobError):
    """An AWS call failed for good."""


class SourceError(JobError):
    """The source objects are missing or wrong."""


class TableError(JobError):
    """The database or the table is missing, refuses or is wrong."""


class OutputError(JobError):
    """The CSV cannot be made or published."""


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


def near_miss(name: str, present: Iterable[str]) -> str:
    """` (did you mean 'ID'?)` for the present name closest to a missing one, else an empty string."""
    by_fold = {other.strip().casefold(): other for other in present}
    close = difflib.get_close_matches(name.strip().casefold(), by_fold, n=1, cutoff=0.75)
    return f" (did you mean {by_fold[close[0]]!r}?)" if close else ""


def aws_error(error: Exception, operation: str, place: str) -> AwsError:
    """The JobError for a boto3 exception that no caller expects."""
    if isinstance(error, ClientError):
        code = error.response.get("Error", {}).get("Code", "")
        if code in {"AccessDenied", "AccessDeniedException", "403", "Forbidden", "InvalidAccessKeyId"}:
            return AwsError("access_denied", operation=operation, place=place)
        return AwsError("aws_failed", operation=operation, place=place, problem=code)
    return AwsError("aws_failed", operation=operation, place=place, problem=type(error).__name__)


def error_code(error: ClientError) -> str:
    """The code of the service, or the HTTP status of an answer without a body (HEAD)."""
    return str(error.response.get("Error", {}).get("Code", ""))


# ---------------------------------------------------------------------------------------------------------------------
# settings: the job arguments
# ---------------------------------------------------------------------------------------------------------------------

ENCODINGS = ("utf-8", "utf-8-sig", "cp932")
LANGUAGES = ("ja", "en")
LINE_ENDINGS = {"lf": "\n", "crlf": "\r\n"}
QUOTES = ("minimal", "all")
SWITCH = {"true": True, "false": False}


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
        db_name, table_name: Where the secret has none (one that RDS manages holds the login alone).
        slack_secret_name: The secret of the webhook, where it is not `secret_name`.
        max_connections: To the database that executors open at a time; 0: CONNECTION_SHARE of what the server takes.
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
    table_name: str = ""
    slack_secret_name: str = ""
    max_connections: int = 0
    csv: CsvFormat = field(default_factory=CsvFormat)

    @property
    def source(self) -> str:
        """The source as a URL for people."""
        return f"s3://{self.source_bucket}/{self.source_key}"

    @property
    def destination(self) -> str:
        """The output as a URL for people."""
        return f"s3://{self.destination_bucket}/{self.destination_file}"


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
    "table_name",
    "slack_secret_name",
    "max_connections",
    *CSV_ARGUMENTS,
)
_OURS = re.compile(r"[a-z]+(_[a-z]+)*")
_GLUES_OWN = {"conf", "class", "continuous_log"}


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
        expected = "one character, not a quote or a line break (tab: \\t)"
        raise SettingsError("argument_invalid", name="csv_delimiter", value=delimiter, expected=expected)
    null = arguments.get("csv_null", "")
    if set(null) & {delimiter, '"', "\r", "\n"}:
        conflict = f"--csv_null {null!r} holds the delimiter, a quote or a line break"
        raise SettingsError("arguments_conflict", conflict=conflict)
    encoding = _choice(arguments, "csv_encoding", ENCODINGS, "utf-8")
    for name, value in (("csv_delimiter", delimiter), ("csv_null", null)):
        try:
            value.encode(encoding)
        except UnicodeEncodeError:
            conflict = f"--{name} {value!r} does not exist in --csv_encoding {encoding}"
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
        raise SettingsError("argument_invalid", name=name, value=value, expected="a whole number from 1 to 99999")
    return int(value)


def make_settings(arguments: Mapping[str, str]) -> Settings:
    """The checked settings of a run from its job arguments.

    Raises:
        SettingsError: a value is empty or not allowed, or two contradict each other.
    """
    for name in (*REQUIRED_ARGUMENTS, "key"):
        if not arguments.get(name, "id" if name == "key" else ""):
            raise SettingsError("argument_invalid", name=name, value="", expected="a value")
    if arguments["destination_file"].endswith("/"):
        value = arguments["destination_file"]
        raise SettingsError("argument_invalid", name="destination_file", value=value, expected="the key of one object")
    settings = Settings(
        job_name=arguments["JOB_NAME"],
        run_id=arguments.get("run_id", ""),
        language=_choice(arguments, "language", LANGUAGES, "ja"),
        csv=csv_format(arguments),
        key=arguments.get("key", "id"),
        db_name=arguments.get("db_name", ""),
        table_name=arguments.get("table_name", ""),
        slack_secret_name=arguments.get("slack_secret_name", ""),
        max_connections=_count(arguments, "max_connections"),
        **{name: arguments[name] for name in REQUIRED_ARGUMENTS[1:]},
    )
    same_bucket = settings.source_bucket == settings.destination_bucket
    if same_bucket and is_source_key(settings.destination_file, settings.source_key):
        conflict = f"--destination_file {settings.destination} would overwrite or join the source {settings.source}"
        raise SettingsError("arguments_conflict", conflict=conflict)
    return settings


def is_source_key(key: str, pattern: str) -> bool:
    """Whether an S3 key is meant by `source_key`: itself, below a folder `.../`, or matching `*` (within a folder)."""
    if pattern.endswith("/") and "*" not in pattern:
        return key.startswith(pattern)
    return key.count("/") == pattern.count("/") and fnmatch.fnmatchcase(key, glob_pattern(pattern))


def glob_pattern(pattern: str) -> str:
    """`source_key` as an fnmatch pattern in which `*` is the only special character."""
    return pattern.replace("[", "[[]").replace("?", "[?]")


# ---------------------------------------------------------------------------------------------------------------------
# secret: who logs in where
# ---------------------------------------------------------------------------------------------------------------------

SECRET_FIELDS = ("username", "password", "db_name", "table_name")
SECRET_EXPECTS = ", ".join((*SECRET_FIELDS, "slack_webhook"))
DEFAULT_DRIVER = "com.mysql.cj.jdbc.Driver"  # the one Glue brings for MySQL
CONNECT_TIMEOUT_MS = 10_000
SOCKET_TIMEOUT_MS = 900_000
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
    place = {"db_name": settings.db_name, "table_name": settings.table_name}
    values |= {name: value for name, value in place.items() if value}
    if settings.slack_secret_name:
        values["slack_webhook"] = read_secret(client, settings.slack_secret_name).get("slack_webhook")
    return make_secret(settings.secret_name, values)


def read_secret(client: Any, name: str) -> dict[str, Any]:
    """The JSON object that a secret holds."""
    try:
        text = client.get_secret_value(SecretId=name).get("SecretString")
    except (ClientError, BotoCoreError) as error:
        if isinstance(error, ClientError) and error_code(error) == "ResourceNotFoundException":
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
        raise SettingsError("secret_invalid", secret=name, problem="is not a JSON object", fields=SECRET_EXPECTS)
    return values


def make_secret(name: str, values: Mapping[str, Any]) -> Secret:
    """The checked secret."""
    missing = [key for key in SECRET_FIELDS if not isinstance(values.get(key), str) or not values[key]]
    if missing:
        problem = f"lacks {', '.join(missing)}"
        raise SettingsError("secret_invalid", secret=name, problem=problem, fields=SECRET_EXPECTS)
    webhook = values.get("slack_webhook") or ""
    if not is_webhook(webhook):
        problem = "has a slack_webhook that is not a URL"
        raise SettingsError("secret_invalid", secret=name, problem=problem, fields=SECRET_EXPECTS)
    return Secret(name=name, slack_webhook=webhook, **{key: values[key] for key in SECRET_FIELDS})


def is_webhook(value: object) -> bool:
    """Whether a value can be posted to, or is empty."""
    return isinstance(value, str) and (not value or urlsplit(value).scheme in {"https", "http"})


@dataclass(frozen=True)
class Database:
    """Where the table is and how Spark's JDBC reader logs in.

    Attributes:
        ca_uri: The S3 object of the CA bundle; empty where the certificate of the server is not verified.
        ca: The certificates in it, as PEM.
    """

    host: str
    url: str
    driver: str
    secret: Secret = field(repr=False)
    ca_uri: str = ""
    ca: str = field(repr=False, default="")

    @property
    def options(self) -> dict[str, str]:
        """Options of Spark's JDBC source. `password` is one of those Spark itself redacts (spark.redaction.regex)."""
        return {
            "driver": self.driver,
            "user": self.secret.username,
            "password": self.secret.password,
            "fetchsize": "10000",
            "sessionInitStatement": "SET SESSION TRANSACTION READ ONLY",
            "allowLocalInfile": "false",  # by the default of Connector/J 2.7 a server may ask for any file of a worker
            # The certificates themselves, as executors have no file of them.
            **({"serverSslCert": self.ca} if self.ca else {}),
        }


def load_database(client: Any, s3: Any, connection: str, secret: Secret) -> Database:
    """Reads host and driver from the Glue connection with a Glue client, and the CA bundle with an S3 client.

    Raises:
        SettingsError: the connection is missing, or is not a MySQL/MariaDB JDBC connection, or has no CA bundle.
        AwsError: a call was denied or failed.
    """
    try:
        answer = client.get_connection(Name=connection, HidePassword=True)
    except (ClientError, BotoCoreError) as error:
        if isinstance(error, ClientError) and error_code(error) == "EntityNotFoundException":
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
        if isinstance(error, ClientError) and error_code(error) in {"NoSuchKey", "NoSuchBucket", "404"}:
            raise SettingsError("ca_invalid", place=place, problem="does not exist") from error
        raise aws_error(error, "s3:GetObject", place) from error
    bundle = "\n".join(_CERTIFICATE.findall(text))
    try:
        ssl.create_default_context(cadata=bundle or "-")
    except (ssl.SSLError, ValueError):
        raise SettingsError("ca_invalid", place=place, problem="holds no certificates in PEM form") from None
    return bundle


def make_database(connection: str, properties: Mapping[str, str], secret: Secret) -> Database:
    """The checked JDBC target from the properties of a Glue connection.

    Only `jdbc:mysql:` is taken, for MariaDB too: Spark's MySQL dialect answers to nothing else, and its generic one
    quotes columns with `"`, which MySQL reads as string literals.
    """
    url = properties.get("JDBC_CONNECTION_URL", "")
    host = urlsplit(url.removeprefix("jdbc:")).netloc
    if not url.startswith("jdbc:mysql://") or not host:
        problem = f"JDBC_CONNECTION_URL is {url.split('?')[0]!r}, expected jdbc:mysql://host:port/database"
        raise SettingsError("connection_invalid", connection=connection, problem=problem)
    driver = properties.get("JDBC_DRIVER_CLASS_NAME") or DEFAULT_DRIVER
    mysql = driver.startswith("com.mysql.")
    base, _, query = url.partition("?")
    present = {item.partition("=")[0] for item in query.split("&")}
    encrypted = properties.get("JDBC_ENFORCE_SSL", "false").lower() == "true"
    ca_uri = properties.get("CUSTOM_JDBC_CERT", "")
    if ca_uri:
        check_ca_uri(connection, ca_uri, encrypted=encrypted, mysql=mysql, present=present)
    parameters = {
        "connectTimeout": str(CONNECT_TIMEOUT_MS),
        "socketTimeout": str(SOCKET_TIMEOUT_MS),
        # The server hangs up on a client that reads slower than this, as a busy executor does.
        "sessionVariables": "net_write_timeout=3600",
    }
    if mysql:
        parameters["useCursorFetch"] = "true"  # without it Connector/J loads the whole result set
    if encrypted and mysql:
        parameters["sslMode"] = "REQUIRED"
    elif encrypted:
        # With a CA, Connector/J verifies the chain and the host name.
        parameters |= {"useSSL": "true"} | ({} if ca_uri else {"trustServerCertificate": "true"})
    added = [f"{name}={value}" for name, value in parameters.items() if name not in present]
    return Database(host, f"{base}?{'&'.join([query, *added] if query else added)}", driver, secret, ca_uri)


def check_ca_uri(connection: str, ca_uri: str, *, encrypted: bool, mysql: bool, present: Iterable[str]) -> None:
    """Refuses a CA bundle that would not be used, so that nobody believes in a verification that is none.

    Raises:
        SettingsError: the bundle is no S3 object, TLS is off, the driver cannot be given it, or the URL says otherwise.
    """
    doubted = sorted(name for name in present if name.lower() in _UNVERIFIED)
    url = urlsplit(ca_uri)
    if url.scheme != "s3" or not url.netloc or not url.path.strip("/"):
        problem = f"CUSTOM_JDBC_CERT is {ca_uri!r}, expected s3://bucket/bundle.pem"
    elif not encrypted:
        problem = "CUSTOM_JDBC_CERT is set, but JDBC_ENFORCE_SSL is not true"
    elif mysql:
        # It reads a key store file that would have to lie on every worker.
        problem = "CUSTOM_JDBC_CERT needs the driver org.mariadb.jdbc.Driver"
    elif doubted:
        problem = f"CUSTOM_JDBC_CERT is set, and {', '.join(doubted)} in JDBC_CONNECTION_URL says how to verify"
    else:
        return
    raise SettingsError("connection_invalid", connection=connection, problem=problem)


# ---------------------------------------------------------------------------------------------------------------------
# slack: one message a run, never in the way
# ---------------------------------------------------------------------------------------------------------------------

SLACK_ATTEMPTS = 4
SLACK_SECONDS = 45.0  # all attempts and waits together
SLACK_TIMEOUT = (5.0, 10.0)  # connect, read
SLACK_TEXT_LIMIT = 2_900  # a section takes 3,000 characters

TEXTS = {
    "ja": {
        "success": "✅ {job}: 出力しました",
        "failure": "❌ {job}: 失敗しました ({stage})",
        "unmatched": "⚠️ 入力にない id がテーブルに {count} 件あります: {ids}",
        "more": " 他 {count} 件",
        "duplicates": "⚠️ id の重複: 入力 {source} 件 (すべて出力)、テーブル {table} 件 (1 行だけ使用)",
        "missing_ids": "⚠️ id のないレコード: {count} 件 (補完せずに出力)",
        "cause": "*原因*",
        "hint": "*次に確認すること*",
        "unchanged": "出力ファイル {output} は前回のままです。",
        "source_records": "入力レコード",
        "matched": "一致",
        "source_only": "入力のみ",
        "filled_cells": "補完したセル",
        "unmatched_rows": "テーブルのみ",
        "output": "出力",
        "seconds": "所要時間",
        "plan": "読み取り方式",
        "few_ids": "id が少なく、キーに索引がある",
        "small_table": "小さなテーブル",
        "many_ids": "テーブルに対して id が多い",
        "no_index": "キーで始まる索引がない",
        "key_type": "この型のキーは索引で引けない",
        "index_unused": "データベースが索引を使わない",
        "run": "実行 ID",
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
        "cause": "*Cause*",
        "hint": "*Check next*",
        "unchanged": "The output {output} is unchanged.",
        "source_records": "Source records",
        "matched": "Matched",
        "source_only": "Source only",
        "filled_cells": "Cells filled",
        "unmatched_rows": "Table only",
        "output": "Output",
        "seconds": "Duration",
        "plan": "Read plan",
        "few_ids": "few ids, and an index on the key",
        "small_table": "a small table",
        "many_ids": "many ids for the size of the table",
        "no_index": "no index begins with the key",
        "key_type": "keys of this type cannot be looked up",
        "index_unused": "the database would not use the index",
        "run": "Run id",
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


def slack_escape(text: object) -> str:
    """Text with Slack's three control characters escaped (https://api.slack.com/reference/surfaces/formatting)."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def slack_message(title: str, facts: Mapping[str, object], paragraphs: Sequence[str]) -> dict[str, Any]:
    """A Block Kit payload: header, facts in two columns, paragraphs; `text` is the fallback for notifications.

    `facts` are escaped here; `paragraphs` are mrkdwn whose values the caller has escaped.
    """
    # Slack counts what it receives: 10 fields of 2,000 characters a section, 150 in a header.
    lines = [f"*{slack_escape(name)}*\n{slack_escape(value)[:1900]}" for name, value in facts.items()]
    blocks: list[dict[str, Any]] = [{"type": "header", "text": {"type": "plain_text", "text": title[:150]}}]
    if lines:
        blocks.append({"type": "section", "fields": [{"type": "mrkdwn", "text": line} for line in lines[:10]]})
    blocks += [
        {"type": "section", "text": {"type": "mrkdwn", "text": text[:SLACK_TEXT_LIMIT]}} for text in paragraphs if text
    ]
    return {"text": slack_escape(title), "blocks": blocks}


def success_message(settings: Settings, result: Result) -> dict[str, Any]:
    """The message of a run that published its output."""
    texts = TEXTS[settings.language]
    facts = {
        texts["source_records"]: f"{result.source_records:,}",
        texts["matched"]: f"{result.matched:,}",
        texts["source_only"]: f"{result.source_only:,}",
        texts["filled_cells"]: f"{result.filled_cells:,}",
        texts["unmatched_rows"]: f"{result.unmatched:,}",
        texts["seconds"]: f"{result.seconds:.1f} s",
        texts["plan"]: f"{result.plan} ({texts[result.plan_reason]})" if result.plan_reason else result.plan,
        texts["run"]: settings.run_id or "-",
        texts["output"]: f"{result.output} ({result.bytes:,} bytes)",
    }
    paragraphs = []
    if result.unmatched:
        ids = ", ".join(slack_escape(key[:100]) for key in result.unmatched_ids)
        rest = result.unmatched - len(result.unmatched_ids)
        more = texts["more"].format(count=f"{rest:,}") if rest > 0 else ""
        paragraphs.append(texts["unmatched"].format(count=f"{result.unmatched:,}", ids=ids) + more)
    if result.source_duplicates or result.table_duplicates:
        counts = {"source": f"{result.source_duplicates:,}", "table": f"{result.table_duplicates:,}"}
        paragraphs.append(texts["duplicates"].format(**counts))
    if result.missing_ids:
        paragraphs.append(texts["missing_ids"].format(count=f"{result.missing_ids:,}"))
    return slack_message(texts["success"].format(job=settings.job_name), facts, paragraphs)


def failure_message(job: str, run_id: str, language: str, stage: str, message: Message, output: str) -> dict[str, Any]:
    """The message of a run that failed in `stage` and left the output as it was."""
    texts = TEXTS[language]
    paragraphs = [
        f"{texts['cause']}\n{slack_escape(message.cause)}",
        f"{texts['hint']}\n{slack_escape(message.hint)}",
        texts["unchanged"].format(output=slack_escape(output)) if output else "",
    ]
    title = texts["failure"].format(job=job, stage=texts[stage])
    return slack_message(title, {texts["run"]: run_id or "-"}, paragraphs)


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
TABLE_BLOCK, NULL_KEYS, SOURCE_BLOCK, SUMMARY = range(4)  # kinds, in the order in which a join takes them
PACKED_BYTES = 256 * 1024  # of a block
BLOCKS_PER_BATCH = 500  # blocks, or rows of the table, that Spark hands to Python at a time
_NUMBER_KEY = "^-?[0-9]{1,18}$"


def target_of(keys: pa.Array, targets: int) -> np.ndarray[Any, Any]:
    """The target, from 0 to `targets` - 1, where all rows with the same key meet: a hash of its text."""
    is_number = pc.match_substring_regex(keys, _NUMBER_KEY)
    numbers = pc.if_else(is_number, keys, "0").cast(pa.int64()).to_numpy().astype(np.uint64)
    if not pc.all(is_number).as_py():
        others = np.flatnonzero(~is_number.to_numpy(zero_copy_only=False))
        numbers[others] = [zlib.crc32(key.encode()) for key in keys.take(pa.array(others)).to_pylist()]
    spread = numbers * np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing: ids may all be multiples of `targets`
    found: np.ndarray[Any, Any] = (spread >> np.uint64(32)) % np.uint64(targets)
    return found.astype(np.int64)


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


def block_batch(blocks: Sequence[tuple[int, int, int, int, bytes]]) -> pa.RecordBatch:
    """Blocks as rows of BLOCK_SCHEMA."""
    types = (pa.int32(), pa.int32(), pa.int32(), pa.int32(), pa.binary())
    arrays = [pa.array(column, kind) for column, kind in zip(zip(*blocks, strict=True), types, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, names=["target", "kind", "split", "width", "data"])


def to_targets(batch: pa.RecordBatch, keys: pa.Array, targets: int, label: tuple[int, int, int]) -> pa.RecordBatch:
    """The rows of a batch as blocks for the targets of their keys; `label` is kind, split and width."""
    target = target_of(keys, targets)
    order = np.argsort(target, kind="stable")
    batch = batch.take(pa.array(order))
    return block_batch(
        [
            (number, *label, data)
            for number, start, end in runs(target[order])
            for data in pack(batch.slice(start, end - start))
        ]
    )


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
        frame: Blocks of records (see `source_schema`): position, what the table's key is compared with, and the values
            in the column order of the split. One target has all records of a key.
        columns: Column names in the order they first appear.
        headers: The columns of each split, in its own order.
        counts: Records of each split.
        missing_ids: Records whose key is missing or null.
        size: Bytes of the objects.
        targets: How many there are.
        nonce: What the match of a record without a key begins with.
    """

    frame: DataFrame
    columns: tuple[str, ...]
    headers: tuple[tuple[str, ...], ...]
    counts: tuple[int, ...]
    missing_ids: int
    size: int
    targets: int = 1
    nonce: str = ""

    @property
    def records(self) -> int:
        return sum(self.counts)


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
    frame, summaries = parse_splits(spark, task)
    if not follow_each_other(splits, summaries):
        LOG.info("the cuts of an array are not where records begin, or it is malformed; it is read in one piece")
        frame.unpersist()
        whole = plan_splits(client, objects, parallelism, cut_arrays=False)
        frame, summaries = parse_splits(spark, task._replace(splits=whole))
    headers = (tuple(summary["columns"]) for summary in summaries)
    known: dict[tuple[str, ...], tuple[str, ...]] = {}
    source = Source(
        frame=frame,
        columns=tuple(dict.fromkeys(itertools.chain.from_iterable(summary["columns"] for summary in summaries))),
        headers=tuple(known.setdefault(header, header) for header in headers),  # they travel with every task
        counts=tuple(summary["records"] for summary in summaries),
        missing_ids=sum(summary["missing_ids"] for summary in summaries),
        size=sum(item.size for item in objects),
        targets=targets,
        nonce=nonce,
    )
    check_source(source, settings)
    return source


def parse_splits(spark: SparkSession, task: SourceTask) -> tuple[DataFrame, list[dict[str, Any]]]:
    """The blocks of all splits, kept, and their summaries in order."""
    splits = len(task.splits)
    frame = spark.range(0, splits, 1, max(splits, 1)).mapInArrow(_split_reader(task), BLOCK_SCHEMA)
    # Parsing is the dear part, and columns must be known before the rest of the plan can be written down. On disk, as
    # the heap would grow with the source, and blocks are read as fast from the page cache.
    frame = frame.persist(StorageLevel.DISK_ONLY)
    rows = frame.where(f"kind = {SUMMARY}").select("data").collect()
    return frame, sorted((json.loads(bytes(row.data)) for row in rows), key=operator.itemgetter("split"))


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


def source_ids(source: Source) -> set[str]:
    """The ids of a source, which must be few."""

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for block in blocks_of(batches):
            match = unpack(block.data, source_schema(block.width)).column(1)
            yield pa.RecordBatch.from_arrays([pc.unique(match)], names=["id"])

    rows = source.frame.where(f"kind = {SOURCE_BLOCK}").mapInArrow(read, "id string").collect()
    return {row.id for row in rows if not row.id.startswith(source.nonce)}


def check_source(source: Source, settings: Settings) -> None:
    """Refuses a source that would erase the output or that nothing can be matched with.

    Raises:
        SourceError: no records, no columns, or no key column.
    """
    if not source.records or not source.columns:
        problem = "no columns" if source.records else "no records"
        raise SourceError("source_empty", place=settings.source, problem=problem)
    if settings.key not in source.columns:
        near = near_miss(settings.key, source.columns)
        columns = ", ".join(source.columns[:50])
        raise SourceError("key_missing_in_source", place=settings.source, key=settings.key, near=near, columns=columns)


def list_objects(client: Any, bucket: str, pattern: str) -> list[SourceObject]:
    """The objects that `source_key` means, in key order.

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
            if is_source_key(item["Key"], pattern) and not item["Key"].endswith("/")
        ]
    except (ClientError, BotoCoreError) as error:
        if isinstance(error, ClientError) and error_code(error) in {"404", "NoSuchKey", "NoSuchBucket"}:
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
    """Bytes [start, end) of the listed version of an object; a torn connection is tried again.

    Raises:
        SourceError: the object is gone or was replaced.
        AwsError: S3 denied the call or failed for good.
    """
    wanted = {"Bucket": item.bucket, "Key": item.key, "Range": f"bytes={start}-{end - 1}", "IfMatch": item.etag}
    for attempt in range(1, READ_ATTEMPTS + 1):
        try:
            return bytes(client.get_object(**wanted)["Body"].read())
        except ClientError as error:
            code = error_code(error)
            if code in {"PreconditionFailed", "412"}:
                raise SourceError("source_changed", place=item.url) from error
            if code in {"NoSuchKey", "NoSuchBucket", "404"}:
                raise SourceError("source_missing", place=item.url) from error
            raise aws_error(error, "s3:GetObject", item.url) from error
        except (HTTPClientError, IncompleteReadError, BotoCoreError) as error:
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
    raise ValueError(f"{name} is not JSON")


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
                beginning = _peek(stream, 16)
                self.malformed(offset, f"it begins with {beginning!r}, expected '[' or '{{'", 0)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            self.malformed(item.size, f"broken gzip file ({error})", self.count)

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
        at, problem = pos, "more than one value on the line"
        try:
            self.scan(block.text[: stop + 1], pos)
        except (StopIteration, ValueError, RecursionError) as error:
            at = min(getattr(error, "pos", getattr(error, "value", pos)), stop)
            ends = isinstance(error, json.JSONDecodeError) and error.pos >= stop
            problem = "the line ends inside the record" if ends else _reason(error)
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
                self.malformed(window.byte(pos), "expected ',' or ']' after a record", self.count + len(records))
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
                self.malformed(window.byte(pos), "something follows the end of the array", self.count)
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
            self.malformed(offset + error.start, f"not UTF-8 ({error.reason})", self.count + lines)
            raise AssertionError from error

    def _not_object(self, block: Block, found: object) -> None:
        number, offset = block.place(len(block.records))
        kind = {list: "an array", bool: "a boolean", type(None): "null"}.get(type(found), "a string or number")
        place = self.piece.source.url
        record = self._record_number(number, offset)
        raise SourceError("source_not_object", place=place, record=record, offset=offset, found=kind)

    def malformed(self, offset: int, problem: str, before: int) -> None:
        """Raises the SourceError for byte `offset`, `before` records into the piece."""
        record = self._record_number(before, offset)
        raise SourceError(
            "source_malformed", place=self.piece.source.url, record=record, offset=offset, problem=problem
        )

    def _record_number(self, before: int, offset: int) -> int:
        """The number of the record, from 1. A piece inside an object does not know how many came before: count them."""
        if self.piece.start:
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
            self.malformed(offset, f"a record is larger than {MAX_RECORD_BYTES // MIB} MiB", self.count)


class Window:
    """A sliding stretch of text over a UTF-8 stream, which knows the byte offset of each of its characters."""

    # A scan that fails this close to the end of the text may only have seen half a token (`tru`, `\u00`).
    TOKEN = 16

    def __init__(self, stream: io.BufferedIOBase, offset: int) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._ended = False
        self.broken = ""  # why the stream ends here, where that is not its end
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
            self.broken = f"not UTF-8 ({error.reason})"

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

    def explain(self, error: Exception | None, pos: int) -> tuple[int, str]:
        """The byte offset and the reason of a failure at character `pos` that more text will not mend."""
        if self.broken:
            return self.byte(len(self.text)), self.broken
        at = getattr(error, "pos", getattr(error, "value", pos))
        if error is None or at >= len(self.text):
            return self.byte(len(self.text)), "the file ends inside the array"
        return self.byte(at), _reason(error)

    def block(self, records: list[dict[str, Any]], starts: list[int], before: int) -> Block:
        return Block(records, starts, self.text, self.offset, before)


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, StopIteration):
        return "expected a value"
    return getattr(error, "msg", str(error))


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
            reader.malformed(offset, f"half a surrogate pair in the name {name!r}", number)


def text_array(reader: PieceReader, block: Block, name: str, values: Sequence[Any]) -> pa.Array:
    """The values of a column as text."""
    texts: list[str | None] = []
    for value in values:
        try:
            text = value if value is None or isinstance(value, str) else compact(value)
            (text or "").encode()
        except (RecursionError, UnicodeEncodeError) as error:
            number, offset = block.place(len(texts))
            problem = "nested too deeply" if isinstance(error, RecursionError) else "half a surrogate pair"
            reader.malformed(offset, f"{problem} in {name!r}", number)
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


def _split_reader(task: SourceTask) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The function that executors run: split numbers in, BLOCK_SCHEMA out, the last a summary of the split."""

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        client = worker_s3_client(task.region)
        for split in itertools.chain.from_iterable(batch.column(0).to_pylist() for batch in batches):
            with in_worker():
                yield from split_blocks(client, split, task)

    return read


def split_blocks(client: Any, split: int, task: SourceTask) -> Iterator[pa.RecordBatch]:
    """One split as blocks, then its summary: columns, records, records without a key, and the span of an array's piece.

    What is malformed in a piece of an array may only seem so, if the piece did not begin at a record: no span then.
    """
    columns: dict[str, int] = {}
    records = missing = 0
    readers = [PieceReader(client, piece) for piece in task.splits[split]]
    try:
        for batch in read_split(readers, split, task, columns):
            keys = batch.column(1)
            records += batch.num_rows
            missing += pc.sum(pc.starts_with(keys, task.nonce)).as_py()
            yield to_targets(batch, keys, task.targets, (SOURCE_BLOCK, split, batch.num_columns - 2))
        span = readers[0].span
    except SourceError as error:
        if not readers[0].piece.of_array or error.code not in {"source_malformed", "source_not_object"}:
            raise
        span = None
    summary = {"split": split, "columns": list(columns), "records": records, "missing_ids": missing, "span": span}
    yield block_batch([(-1, SUMMARY, split, 0, json.dumps(summary).encode())])


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

INTEGER_BITS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}
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
# Types whose texts differ when their values do, so that a unique index proves the texts unique.
EXACT_TYPES = INTEGER_TYPES | {"char", "varchar", "tinytext", "text", "mediumtext", "longtext", "binary", "varbinary"}
# What MariaDB Connector/J ("Could not connect") and MySQL Connector/J ("Communications link") say.
_UNREACHABLE = re.compile("Could not connect to|Communications link failure|[Cc]onnect timed out|UnknownHostException")
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
FIRST_IDS = 1_000  # read at first in search of ids that the source lacks


@dataclass(frozen=True)
class TableColumn:
    """A column as information_schema describes it; `full_type` is what DDL says (`int(5) unsigned zerofill`)."""

    name: str
    type: str
    full_type: str
    charset: str | None = None

    @property
    def is_integer(self) -> bool:
        return self.type in INTEGER_TYPES


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
        rows: The estimate of the optimizer; 0 where there is none.
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
        return f"{quote_name(self.database.secret.db_name)}.{quote_name(self.database.secret.table_name)}"

    @property
    def keys(self) -> TableKeys:
        at = self.index(self.key.name)
        return TableKeys(len(self.columns), at or 0, self.unique, "zerofill" in self.key.full_type)

    def index(self, name: str) -> int | None:
        """The place of a column in the table, or None."""
        return next((i for i, column in enumerate(self.columns) if column.name == name), None)


def quote_name(name: str) -> str:
    """A MySQL identifier, quoted (https://dev.mysql.com/doc/refman/8.0/en/identifiers.html)."""
    return "`" + name.replace("`", "``") + "`"


def text_literal(text: str) -> str:
    """A MySQL string that no sql_mode can misread: hexadecimal digits."""
    return f"_utf8mb4 x'{text.encode().hex()}'"


def text_expression(column: TableColumn) -> str:
    """SQL for a value as the database prints it (DESIGN section 2)."""
    name = quote_name(column.name)
    if column.type in BINARY_TYPES:
        return f"LOWER(HEX({name}))"
    if column.type in SPATIAL_TYPES:
        return f"ST_AsText({name})"
    if column.type == "bit":
        name = f"{name} + 0"
    return f"CAST({name} AS CHAR CHARACTER SET utf8mb4)"


class Session:
    """One connection of the driver's own, for questions with small answers: Spark's reader takes a whole job for each.

    Raises:
        TableError: login, network, driver or a statement failed.
    """

    def __init__(self, spark: SparkSession, database: Database) -> None:
        jvm: Any = spark.sparkContext._jvm
        options = {"url": database.url, "dbtable": "-", **database.options}
        self._database = database
        with database_errors(database):
            jdbc = jvm.org.apache.spark.sql.execution.datasources.jdbc.JDBCOptions(jvm.PythonUtils.toScalaMap(options))
            connect = jvm.org.apache.spark.sql.jdbc.JdbcDialects.get(database.url).createConnectionFactory(jdbc)
            self._connection = connect.apply(-1)
        self.ask(database.options["sessionInitStatement"])

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
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
    host, user, driver = database.host, database.secret.username, database.driver
    if "ClassNotFoundException" in text or "did not specify a JDBC driver" in text:
        return TableError("driver_missing", driver=driver)
    if "No suitable driver" in text or "The driver could not open a JDBC connection" in text:
        return TableError("driver_refuses_url", driver=driver, url=database.url.partition("?")[0])
    if "Access denied for user" in text:
        return TableError("login_refused", host=host, user=user, secret=database.secret.name)
    refused = _CERTIFICATE_REFUSED.search(text)  # which Connector/J tells as not being able to connect
    if refused or _UNREACHABLE.search(text):
        told = {"place": database.ca_uri, "problem": refused.group()[:300]} if refused else {}
        return TableError("certificate_refused" if refused else "database_unreachable", host=host, **told)
    if "java.sql." not in text:
        return None
    cause = re.findall(r"(?:Caused by|Exception): ([^\n]+)", text) or [text.strip().split("\n")[0]]
    return TableError("database_failed", host=host, problem=cause[-1][:500])


def describe_table(session: Session, database: Database, key: str, max_connections: int = 0) -> Table:
    """Asks the catalogue for columns, indexes and size.

    Raises:
        TableError: the table is missing, has no key column, or the database fails.
    """
    secret = database.secret
    schema, name = text_literal(secret.db_name), text_literal(secret.table_name)
    where = f"table_schema = {schema} AND table_name = {name}"
    columns = session.ask(
        "SELECT column_name AS name, LOWER(data_type) AS type, LOWER(column_type) AS full_type, "
        f"character_set_name AS charset FROM information_schema.columns WHERE {where} "
        # As `SELECT *` shows the table; a key may be invisible (sql_generate_invisible_primary_key of MySQL).
        f"AND (extra NOT LIKE '%INVISIBLE%' OR column_name = {text_literal(key)}) ORDER BY ordinal_position"
    )
    if not columns:
        raise TableError("table_missing", user=secret.username, **_missing_table(session, database))
    found = {row["name"]: TableColumn(**row) for row in columns}  # type: ignore[arg-type]
    if key not in found:
        names = [str(column) for column in found]
        place = f"{secret.db_name}.{secret.table_name}"
        listed = ", ".join(names[:50])
        raise TableError("key_missing_in_table", table=place, key=key, near=near_miss(key, names), columns=listed)
    indexes = session.ask(
        "SELECT index_name AS name, MAX(non_unique) AS repeats, COUNT(*) AS width, COUNT(sub_part) AS prefixes, "
        "MAX(IF(seq_in_index = 1 AND sub_part IS NULL, column_name, NULL)) AS first_column "
        f"FROM information_schema.statistics WHERE {where} AND index_type = 'BTREE' GROUP BY index_name"
    )
    [limit] = session.ask("SELECT @@max_connections AS most")
    [size] = session.ask(f"SELECT avg_row_length AS bytes FROM information_schema.tables WHERE {where}")
    ours = [row for row in indexes if row["first_column"] == key]
    primary = next((row["first_column"] for row in indexes if row["name"] == "PRIMARY"), None)
    unique = any((row["width"], row["repeats"], row["prefixes"]) == ("1", "0", "0") for row in ours)
    table = Table(
        database=database,
        columns=tuple(found.values()),
        key=found[key],
        unique=unique and found[key].type in EXACT_TYPES,
        indexed=bool(ours),
        ordered=tuple(
            dict.fromkeys([*([found[primary]] if primary in found else []), *([found[key]] if ours else [])])
        ),
        rows=0,
        row_bytes=int(size["bytes"] or 0),
        connections=max_connections or max(int(limit["most"] or 0) // CONNECTION_SHARE, 1),
    )
    return replace(table, rows=estimate_rows(session, f"SELECT {quote_name(key)} FROM {table.place}"))


def _missing_table(session: Session, database: Database) -> dict[str, str]:
    secret = database.secret
    schema = text_literal(secret.db_name)
    rows = session.ask(f"SELECT table_name AS name FROM information_schema.tables WHERE table_schema = {schema}")
    near = near_miss(secret.table_name, [str(row["name"]) for row in rows])
    return {"table": f"{secret.db_name}.{secret.table_name}", "near": near}


def estimate_rows(session: Session, sql: str) -> int:
    """How many rows the optimizer expects a statement to read; 0 where the user may not ask (views).

    The catalogue's own number is up to a day old on MySQL 8 (information_schema_stats_expiry).
    """
    try:
        return max(int(row["rows"] or 0) for row in session.ask(f"EXPLAIN {sql}"))
    except TableError as error:
        LOG.info("no estimate: %s", error)
        return 0


def read_rows(
    spark: SparkSession, table: Table, ordered: TableColumn, predicates: Sequence[str], targets: int
) -> DataFrame:
    """The rows that meet any of the predicates on column `k`, which is `ordered`; a partition a predicate.

    Returns:
        Blocks of rows (see `table_schema`), and of kind NULL_KEYS the number of rows without a key as the width.

    Raises:
        TableError: the database fails.
    """
    database = table.database
    with database_errors(database):
        frame = spark.read.jdbc(
            database.url, rows_statement(table, ordered), predicates=list(predicates), properties=database.options
        )
    cells = frame.select(*(F.col(f"c{i}").cast("string") for i in range(len(table.columns))))
    if len(predicates) > table.connections:
        cells = cells.coalesce(table.connections)  # a task then opens its connections one after the other
    return cells.mapInArrow(_row_packer(table.keys, targets), BLOCK_SCHEMA)


class TableKeys(NamedTuple):
    """How executors find the keys among the columns of the table."""

    width: int
    at: int
    unique: bool
    zerofill: bool

    def of(self, rows: pa.RecordBatch | pa.Table) -> Any:
        """What the source's keys are compared with."""
        keys = rows.column(self.at)
        return pc.replace_substring_regex(keys, "^0+(.)", r"\1") if self.zerofill else keys


def table_schema(keys: TableKeys) -> pa.Schema:
    """The schema of a block of rows: the columns, and how many rows have the key where that may be several."""
    cells = [(f"c{i}", pa.string()) for i in range(keys.width)]
    return pa.schema([*cells, *([] if keys.unique else [("copies", pa.int64())])])


def _row_packer(keys: TableKeys, targets: int) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The function that executors run: rows of text in, BLOCK_SCHEMA out."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with in_worker():
            without_key = 0
            for held in gathered(batches, CHUNK_BYTES, lambda batch: batch.nbytes):
                rows = pa.Table.from_batches(held)
                named = rows.filter(pc.is_valid(rows.column(keys.at)))
                without_key += rows.num_rows - named.num_rows
                if not keys.unique:
                    named = named.append_column("copies", pa.array(np.ones(named.num_rows, np.int64)))
                    named = first_of_each(named, keys)
                for batch in named.combine_chunks().to_batches():
                    yield to_targets(batch, keys.of(batch), targets, (TABLE_BLOCK, 0, 0))
            if without_key:
                yield block_batch([(0, NULL_KEYS, 0, without_key, b"")])

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
    """The table as a derived one: its values as text, and `ordered` as `k`."""
    texts = [f"{text_expression(column)} AS c{i}" for i, column in enumerate(table.columns)]
    return f"(SELECT {', '.join(texts)}, {quote_name(ordered.name)} AS k FROM {table.place}) AS source"


# Of the two plans, the scan: every row, in ranges.


def scan_table(spark: SparkSession, session: Session, table: Table, targets: int) -> DataFrame:
    """Every row of the table (see `read_rows`), read in parallel.

    Raises:
        TableError: the database fails.
    """
    cores = spark.sparkContext.defaultParallelism
    wanted = min(max(min(table.rows // MIN_RANGE_ROWS, 2 * cores), table.rows // MAX_RANGE_ROWS), MAX_RANGES)
    if wanted <= 1:
        return read_rows(spark, table, table.key, range_predicates([]), targets)
    for column in table.ordered:
        cuts = column_cuts(session, table, column, -(-table.rows // wanted))
        if len(cuts) >= wanted // 4:  # a primary key may begin with a column of few values
            LOG.info("the table is read in %d ranges of column %r", len(cuts) + 1, column.name)
            return read_rows(spark, table, column, range_predicates(cuts), targets)
    LOG.info("no index helps to read the table in ranges")
    return read_rows(spark, table, table.key, hash_ranges(min(wanted, MAX_HASHED_RANGES)), targets)


def range_predicates(cuts: Sequence[str]) -> list[str]:
    """Predicates on the column `k` that cut its values at SQL literals in ascending order.

    The outer ranges are open and the first takes NULL, so that rows added meanwhile are not lost.
    """
    if not cuts:
        return ["1 = 1"]
    inner = [f"k >= {start} AND k < {end}" for start, end in itertools.pairwise(cuts)]
    return [f"k < {cuts[0]} OR k IS NULL", *inner, f"k >= {cuts[-1]}"]


def hash_ranges(ranges: int) -> list[str]:
    """Predicates that cut a table without a useful index: CRC32 takes the text of any type."""
    return [f"CRC32(k) % {ranges} = {i}{' OR k IS NULL' if i == 0 else ''}" for i in range(ranges)]


def column_cuts(session: Session, table: Table, column: TableColumn, step: int) -> list[str]:
    """Literals that cut an indexed column into ranges of about `step` rows; none for some types."""
    name = quote_name(column.name)
    if not column.is_integer:
        return index_cuts(session, table, column, step) if can_look_up(column) else []
    [bounds] = session.ask(f"SELECT MIN({name}) AS low, MAX({name}) AS high FROM {table.place}")
    if bounds["low"] is None or bounds["high"] is None:
        return []

    def rows_between(start: int, end: int) -> int:
        where = f"{name} >= {start} AND {name} < {end}"
        return estimate_rows(session, f"SELECT {name} FROM {table.place} WHERE {where}")

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
    name = quote_name(column.name)
    cuts: list[str] = []
    where = f"{name} IS NOT NULL"
    while len(cuts) < 2 * MAX_RANGES:  # the table may be larger than estimated, but hardly without end
        order = f"FROM {table.place} WHERE {where} ORDER BY {name} LIMIT 1 OFFSET {step}"
        found = session.ask(f"SELECT {text_expression(column)} AS id {order}")
        cut = key_literal(column, str(found[0]["id"])) if found else None
        if cut is None:
            break
        cuts.append(cut)
        where = f"{name} > {cut}"
    return cuts


# Of the two plans, the lookup: the rows that the source names, by an index.


def can_look_up(column: TableColumn) -> bool:
    """Whether `key_literal` can write the values of a column."""
    if column.type in {"char", "varchar"}:
        return column.charset in KEY_CHARSETS
    return column.is_integer or column.type in {"decimal", "binary", "varbinary"}


def key_literal(column: TableColumn, text: str) -> str | None:
    """The SQL literal that equals every value of a column that prints as `text`; None when no value can.

    It may equal more values than that (a collation takes `A` for `a`), never fewer: equality of SQL is reflexive. The
    literal converts to the character set of the column without loss, so that the index of the column can be used.
    """
    if column.is_integer:
        bits = INTEGER_BITS[column.type]
        low, high = (0, 2**bits) if "unsigned" in column.full_type else (-(2 ** (bits - 1)), 2 ** (bits - 1))
        return text if re.fullmatch("0|-?[1-9][0-9]{0,19}", text) and low <= int(text) < high else None
    if column.type == "decimal":
        return text if re.fullmatch(r"-?[0-9]{1,65}(\.[0-9]{1,38})?", text) else None
    if column.type in {"binary", "varbinary"}:
        return f"x'{text}'" if re.fullmatch("([0-9a-f]{2})*", text) else None
    return text_literal(text) if KEY_CHARSETS[column.charset or ""](text) else None


def lookup_predicates(table: Table, ids: Iterable[str], parallelism: int) -> list[str]:
    """Lists of ids as predicates on the rows of `rows_statement`, in the order of the ids: neighbours share pages.

    What is equal to the database may differ as text (`a` and `A`, `1.5` and `1.50`) and be asked for by two lists, so
    each list takes only the texts between its first and its last: no row comes twice.
    """
    asked = [(key, literal) for key in ids if (literal := key_literal(table.key, key)) is not None]
    asked.sort(key=lambda pair: int(pair[0]) if table.has_integer_key else pair[0])
    size = min(LOOKUP_BATCH, max(LOOKUP_BATCH_BYTES // max((len(literal) for _, literal in asked), default=1), 1))
    text = f"CAST(c{table.index(table.key.name)} AS BINARY)"
    lists = []
    # A list that mixes signed and unsigned numbers is compared as decimals, and no index helps (MariaDB).
    halves = itertools.groupby(asked, lambda pair: table.has_integer_key and int(pair[0]) >= 2**63)
    for _, half in halves:
        while batch := list(itertools.islice(half, size)):
            predicate = f"k IN ({', '.join(literal for _, literal in batch)})"
            if not table.has_integer_key:
                first, last = (key.encode().hex() for key in (batch[0][0], batch[-1][0]))
                predicate += f" AND {text} BETWEEN x'{first}' AND x'{last}'"
            lists.append(predicate)
    together = min(max(-(-len(lists) // (2 * parallelism)), 1), LISTS_PER_LOOKUP)
    predicates = []
    while lists:
        predicates.append(" OR ".join(f"({predicate})" for predicate in lists[:together]))
        del lists[:together]
    return predicates or [NO_ROWS]


def uses_index(session: Session, table: Table, predicate: str) -> bool:
    """Whether the database reads no more than the rows that a lookup's statement asks for."""
    sql = f"EXPLAIN SELECT * FROM {rows_statement(table, table.key)} WHERE {predicate}"
    return all(row["type"] not in {"ALL", "index"} for row in session.ask(sql))


def count_rows(session: Session, table: Table) -> dict[str, int]:
    """The counts of the report that need the whole table: rows, and rows beyond the first of each key."""
    name = quote_name(table.key.name)
    exact = name if table.has_integer_key else f"CAST({text_expression(table.key)} AS BINARY)"
    repeats = "0" if table.unique else f"COUNT({name}) - COUNT(DISTINCT {exact})"
    [counts] = session.ask(f"SELECT COUNT(*) AS table_rows, {repeats} AS table_duplicates FROM {table.place}")
    return {label: int(count or 0) for label, count in counts.items()}


def first_unmatched(spark: SparkSession, table: Table, ids: set[str], limit: int) -> list[str]:
    """The first ids of the table that are not among `ids`, from the index alone.

    Of the first ids of the table no more than `len(ids)` can be matched, so `limit` more are always enough. Integers
    are in the order of the index, and few are needed; the bytes of texts are not, and each reading takes all of it.
    """
    text, name = text_expression(table.key), quote_name(table.key.name)
    whole, shown = (
        (name, "CAST(k AS CHAR)") if table.has_integer_key else (f"CAST({text} AS BINARY)", "CONVERT(k USING utf8mb4)")
    )
    distinct = "" if table.unique else "DISTINCT "
    most = len(ids) + limit
    size = min(FIRST_IDS, most) if table.has_integer_key else most
    # Only so many bytes of a text take part in a sort.
    options = table.database.options | {"sessionInitStatement": "SET SESSION max_sort_length = 8192"}
    same: Any = same_integer if table.has_integer_key else str
    while True:
        first = f"SELECT {distinct}{whole} AS k FROM {table.place} WHERE {name} IS NOT NULL ORDER BY k LIMIT {size}"
        sql = f"SELECT {shown} AS id FROM ({first}) AS first"
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
        place = f"row {number}" if number else "header"
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
GROUP_BYTES = 16 * MIB  # of records, and of their values, that are overlaid at a time
UNMATCHED_IDS = 10
OVERLAY_SCHEMA = "unit int, data binary"
SUMMARY_UNIT = -1
LINES = pa.schema([("ordinal", pa.int64()), ("line", pa.string())])
COUNTS = ("matched", "filled_cells", "source_duplicates", "table_rows", "matched_rows", "table_duplicates")


@dataclass(frozen=True)
class Overlay:
    """The merged rows, formatted but not yet in source order.

    Attributes:
        frame: Rows (unit int, data binary) in no order: blocks of LINES. Ordinals are zero-based in source order.
        columns: The columns of the output.
        header: The header line.
        units: Of each run of `unit_rows` consecutive rows: how many rows, their UTF-8 bytes.
        unit_rows: Rows a unit, but for the last.
        counts: What the report says of the rows (the fields of `Result`).
    """

    frame: DataFrame
    columns: tuple[str, ...]
    header: str
    units: tuple[tuple[int, int], ...]
    unit_rows: int
    counts: Mapping[str, Any]


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
    integer: bool
    form: CsvFormat
    unit_rows: int


class KeyedRows:
    """The rows of the table whose keys a task has, one a key, and how many have none."""

    def __init__(self, blocks: Iterable[Packed], keys: TableKeys) -> None:
        self.without_key = 0
        batches = []
        for block in blocks:
            if block.kind == NULL_KEYS:
                self.without_key += block.width
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

    def __init__(self) -> None:
        self.matched = self.filled_cells = self.records = 0
        self.distinct: list[pa.Array] = []
        self.units: dict[int, list[int]] = {}  # rows, bytes

    def summary(self, table: KeyedRows, *, integer: bool) -> bytes:
        """The counts as JSON, with the first ids that no record has."""
        distinct = len(pc.unique(pa.chunked_array(self.distinct, pa.string())))
        alone = pa.array(~table.found)
        counts = {
            "matched": self.matched,
            "filled_cells": self.filled_cells,
            "source_duplicates": self.records - distinct,
            "table_rows": int(table.copies.sum()) + table.without_key,
            "matched_rows": int(table.copies[table.found].sum()),
            "table_duplicates": int(table.copies.sum()) - len(table.copies),
            "unmatched_ids": first_ids(table.ids.filter(alone), table.match.filter(alone), integer=integer),
            "units": [(unit, *sums) for unit, sums in self.units.items()],
        }
        return json.dumps(counts).encode()


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


def _overlayer(task: OverlayTask) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The function that executors run: BLOCK_SCHEMA in, by kind, OVERLAY_SCHEMA out, the last a summary."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with in_worker():
            tally, table = Tally(), KeyedRows((), task.keys)
            by_side = itertools.groupby(blocks_of(batches), lambda block: block.kind == SOURCE_BLOCK)
            for of_source, blocks in by_side:
                if of_source:
                    for held in gathered(blocks, GROUP_BYTES, lambda block: block.data.size):
                        group = [(block.split, unpack(block.data, source_schema(block.width))) for block in held]
                        yield from overlay_records(group, table, task, tally)
                else:
                    table = KeyedRows(blocks, task.keys)
            yield unit_batch([(SUMMARY_UNIT, tally.summary(table, integer=task.integer))])

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
    ours = {name: source_column(group, name, task.headers) for name in names}
    for _, start, end in runs(np.cumsum(sizes[order]) // GROUP_BYTES):
        rows = pa.array(order[start:end])
        theirs = table.rows.take(at.take(rows))
        values = []
        for name in task.columns:
            mine = ours[name].take(rows) if name in ours else pa.nulls(len(rows), pa.string())
            value = mine
            if name in task.table_columns and mine.null_count:
                value = pc.coalesce(mine, theirs.column(task.table_columns.index(name)).combine_chunks())
            tally.filled_cells += mine.null_count - value.null_count
            values.append(value)
        yield line_blocks(ordinal[order[start:end]], csv_lines(values, task.form), task.unit_rows, tally)


def source_column(group: Sequence[tuple[int, pa.RecordBatch]], name: str, headers: Sequence[Sequence[str]]) -> pa.Array:
    """The values of a column in all batches."""
    arrays = []
    for split, batch in group:
        at = headers[split].index(name) + 2 if name in headers[split] else batch.num_columns
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
    units = min(max(source.size // max(UNIT_BYTES, partitions * PACKED_BYTES // 4), 1), MAX_UNITS)
    task = OverlayTask(
        columns=output_columns(source, table),
        headers=source.headers,
        starts=[0, *itertools.accumulate(source.counts)],
        table_columns=tuple(column.name for column in table.columns),
        keys=table.keys,
        integer=table.has_integer_key,
        form=form,
        unit_rows=-(-source.records // units),
    )
    numbers = partition_numbers(partitions)
    place = number_at((numbers[target % partitions] for target in range(source.targets)), "target")
    blocks = source.frame.where(f"kind = {SOURCE_BLOCK}").union(rows.frame)
    lines = (
        blocks.repartition(partitions, place)
        .sortWithinPartitions("kind")
        .mapInArrow(_overlayer(task), OVERLAY_SCHEMA)
        .persist(StorageLevel.DISK_ONLY)
    )
    with database_errors(table.database):
        found = lines.where(f"unit = {SUMMARY_UNIT}").collect()
        summaries = [json.loads(bytes(row.data)) for row in found]
        counts: dict[str, Any] = {name: sum(summary[name] for summary in summaries) for name in COUNTS}
        ids = itertools.chain.from_iterable(summary["unmatched_ids"] for summary in summaries)
        counts["unmatched_ids"] = sorted(ids, key=int if table.has_integer_key else str.encode)[:UNMATCHED_IDS]
        matched_rows = counts.pop("matched_rows")
        if rows.rest:
            counts |= rows.rest()
    counts["unmatched"] = max(counts["table_rows"] - matched_rows, 0)  # the table may shrink meanwhile
    sums = np.zeros((units, 2), np.int64)
    for unit, *more in itertools.chain.from_iterable(summary["units"] for summary in summaries):
        sums[unit] += more
    sizes = tuple((int(count), int(size)) for count, size in sums if count)
    written = int(sums[:, 0].sum())
    if written != source.records:
        raise OutputError("rows_lost", expected=source.records, found=written)
    source.frame.unpersist()
    header = csv_lines([pa.array([name]) for name in task.columns], form)[0].as_py()
    return Overlay(lines.where(f"unit <> {SUMMARY_UNIT}"), task.columns, header, sizes, task.unit_rows, counts)


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
PART_SCHEMA = "part int, etag string, bytes bigint"


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
        self._done = False
        self.upload_id = ""

    def __enter__(self) -> MultipartUpload:
        with output_errors(self._target["Bucket"], self._place, "s3:PutObject"):
            answer = self._client.create_multipart_upload(ContentType=self._content_type, **self._target)
        self.upload_id = answer["UploadId"]
        return self

    def complete(self, parts: Sequence[Mapping[str, Any]]) -> None:
        """Makes the object visible, whole."""
        with output_errors(self._target["Bucket"], self._place, "s3:PutObject"):
            self._client.complete_multipart_upload(
                UploadId=self.upload_id, MultipartUpload={"Parts": list(parts)}, **self._target
            )
        self._done = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._done:
            return
        try:
            self._client.abort_multipart_upload(UploadId=self.upload_id, **self._target)
        except (ClientError, BotoCoreError) as failure:
            # The first failure is the one to report; a lifecycle rule removes what stays.
            LOG.warning("Upload %s to %s was not aborted: %s", self.upload_id, self._place, type(failure).__name__)


@contextmanager
def output_errors(bucket: str, place: str, operation: str) -> Iterator[None]:
    """Turns what S3 answers while the output is written into a JobError."""
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        if isinstance(error, ClientError) and error_code(error) in {"NoSuchBucket", "404"}:
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


def publish(spark: SparkSession, client: Any, overlay: Overlay, settings: Settings) -> int:
    """Writes the one CSV object, all or nothing.

    By a multipart upload however small it is: a task that put the whole object would publish it before the run is known
    to be right, and again at each further attempt.

    Returns:
        The bytes of the object.

    Raises:
        OutputError: the bucket is missing, a character has no place in the encoding, or rows got lost.
        AwsError: S3 denied a call or failed.
    """
    form, bucket, key = settings.csv, settings.destination_bucket, settings.destination_file
    tasks, part_bytes = plan_upload(overlay.units, spark.sparkContext.defaultParallelism)
    header = encode_lines(overlay.header.encode(), form, overlay.columns, 0)
    header = codecs.BOM_UTF8 + header if form.encoding == "utf-8-sig" else header
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", LINE_BLOCKS_PER_BATCH)
    rows = to_tasks(overlay, tasks)
    charset = {"cp932": "windows-31j"}.get(form.encoding, "utf-8")
    with MultipartUpload(client, bucket, key, f"text/csv; charset={charset}") as multipart:
        region = client.meta.region_name
        upload = Upload(bucket, key, multipart.upload_id, part_bytes, form, overlay.columns, header, region)
        found = sorted(rows.mapInArrow(_uploader(upload, tasks), PART_SCHEMA).collect())
        # By the ETags of the attempts Spark took: had another attempt left other bytes, S3 would refuse to complete.
        multipart.complete([{"PartNumber": part.part, "ETag": part.etag} for part in found])
    return sum(part.bytes for part in found)


def to_tasks(overlay: Overlay, tasks: Sequence[UploadTask]) -> DataFrame:
    """The units with each task's in a partition of its own, in order.

    `repartitionByRange` would run the plan once more to sample bounds that are known here.
    """
    numbers = partition_numbers(len(tasks))
    first_rows = [task.first_row for task in tasks]
    starts = range(0, len(overlay.units) * overlay.unit_rows, overlay.unit_rows)
    place = number_at((numbers[bisect.bisect(first_rows, start) - 1] for start in starts), "unit")
    return overlay.frame.repartition(len(tasks), place).sortWithinPartitions("unit")


def ordered_lines(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The lines (LINES) in blocks that come unit after unit, in order."""
    blocks = ((unit.as_py(), data.as_buffer()) for batch in batches for unit, data in zip(*batch.columns, strict=True))
    for _, unit in itertools.groupby(blocks, operator.itemgetter(0)):
        lines = pa.Table.from_batches([unpack(data, LINES) for _, data in unit])
        yield from lines.sort_by("ordinal").combine_chunks().to_batches()


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
                parts, pa.schema([("part", pa.int32()), ("etag", pa.string()), ("bytes", pa.int64())])
            )

    return run


def upload_rows(
    client: Any, upload: Upload, task: UploadTask, batches: Iterable[pa.RecordBatch]
) -> Iterator[dict[str, Any]]:
    """Uploads the rows of one task; yields a part as {part, etag, bytes}.

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
    return {"part": number, "etag": answer["ETag"], "bytes": len(data)}


# ---------------------------------------------------------------------------------------------------------------------
# run
# ---------------------------------------------------------------------------------------------------------------------


PARTITION_BYTES = 64 * MIB
CELL_BYTES = 16  # with its part of a block
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


class Progress:
    """Logs the stages of a run and remembers the one that is on."""

    def __init__(self) -> None:
        self.stage = "settings"
        self._began = time.monotonic()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        self.stage = stage
        start = time.monotonic()
        LOG.info("stage %s begins", stage)
        yield
        LOG.info("stage %s took %.1f s", stage, time.monotonic() - start)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began


def join_partitions(source_bytes: int, table_rows: int, table: Table, parallelism: int) -> int:
    """Partitions of the join: about PARTITION_BYTES each, by the bytes of the source and the rows of the table."""
    size = source_bytes + table_rows * max(len(table.columns) * CELL_BYTES, table.row_bytes)
    return min(max(size // PARTITION_BYTES, min(2 * parallelism, size // MIN_SPLIT_BYTES), 1), MAX_PARTITIONS)


def choose_plan(source: Source, table: Table) -> tuple[str, str]:
    """The plan that costs less and why (a name in TEXTS). The source is parsed, so its records are no guess."""
    if not table.indexed:
        return "scan", "no_index"
    if not can_look_up(table.key):
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
    if plan == "scan":
        rows = TableRows(scan_table(spark, session, table, source.targets))
        return merge(source, table, rows, settings.csv, source.targets), plan, reason
    partitions = min(join_partitions(source.size, source.records, table, parallelism), source.targets)
    with ThreadPoolExecutor(2) as pool:  # both take as long as the index is, so they run beside the lookup
        counts: Future[dict[str, Any]] = pool.submit(count_rows, session, table)
        unmatched = pool.submit(first_unmatched, spark, table, ids, UNMATCHED_IDS)
        rows = TableRows(
            read_rows(spark, table, table.key, predicates, source.targets),
            lambda: counts.result() | {"unmatched_ids": unmatched.result()},
        )
        return merge(source, table, rows, settings.csv, partitions), plan, reason


def transfer(spark: SparkSession, settings: Settings, secret: Secret, progress: Progress) -> Result:
    """One overlay from source and table to the published object.

    Raises:
        JobError: some stage failed; nothing is published then.
    """
    s3 = s3_client(None)
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", BLOCKS_PER_BATCH)
    with progress("connection"):
        glue = boto3.client("glue", config=AWS_CONFIG)
        database = load_database(glue, s3, settings.connection_name, secret)
        check_destination(s3, settings.destination_bucket, settings.destination_file)
    with progress("source"):
        objects = list_objects(s3, settings.source_bucket, settings.source_key)
    with progress("table"), Session(spark, database) as session:
        table = describe_table(session, database, settings.key, settings.max_connections)
        LOG.info(
            "table has %d columns, about %d rows; at most %d connections",
            len(table.columns),
            table.rows,
            table.connections,
        )
    with progress("source"):
        size = sum(item.size for item in objects)
        targets = join_partitions(size, table.rows, table, spark.sparkContext.defaultParallelism)
        source = read_source(spark, s3, objects, settings, integer_key=table.has_integer_key, targets=targets)
        LOG.info("source has %d records, %d columns, %d bytes", source.records, len(source.columns), source.size)
    with progress("overlay"), Session(spark, database) as session:
        overlay, plan, reason = overlay_table(spark, session, source, table, settings)
    with progress("publish"):
        size = publish(spark, s3, overlay, settings)
    return Result(
        source_records=source.records,
        missing_ids=source.missing_ids,
        source_only=source.records - overlay.counts["matched"],
        columns=list(overlay.columns),
        bytes=size,
        plan=plan,
        plan_reason=reason,
        seconds=round(progress.seconds, 1),
        output=settings.destination,
        **overlay.counts,
    )


def run(argv: Sequence[str], spark: SparkSession, commit: Callable[[], None]) -> Result:
    """One run of the job: Slack, the exit status and the output always agree.

    Args:
        argv: Arguments as Glue gives them to a script.
        spark: The session.
        commit: Tells Glue that the run is done; after it nothing can fail.

    Raises:
        JobError: the run failed. It carries no cause, as stack traces of drivers may quote what they were given.
    """
    progress = Progress()
    secret = None
    try:
        settings = make_settings(read_arguments(argv))
        with progress("secret"):
            secret = load_secret(boto3.client("secretsmanager", config=AWS_CONFIG), settings)
        result = transfer(spark, settings, secret, progress)
        with progress("commit"):
            commit()
    except Exception as error:
        failure = explain(error, secret, progress.stage)
        report_failure(failure, argv, secret, progress.stage)
        raise failure from None
    finally:
        spark.catalog.clearCache()
    LOG.info("RESULT %s", json.dumps(asdict(result), ensure_ascii=False))
    post_to_slack(secret.slack_webhook, success_message(settings, result))
    return result


def explain(error: Exception, secret: Secret | None, stage: str) -> JobError:
    """The JobError behind an exception, with secrets taken out; logs the stack trace."""
    redact = secret.redact if secret else str
    LOG.error("stage %s failed\n%s", stage, redact(traceback.format_exc()))
    failure = error if isinstance(error, JobError) else received_from_executor(error)
    if failure is None:
        lines = [line for line in str(error).splitlines() if line.strip()] or [""]
        # The exception of a Python worker comes as a whole stack trace, whose last line tells.
        told = lines[-1 if "Traceback (most recent call last)" in str(error) else 0][:500]
        failure = JobError("unexpected", problem=f"{type(error).__name__}: {told.strip()}")
    failure.details = {
        name: redact(value) if isinstance(value, str) else value for name, value in failure.details.items()
    }
    LOG.error("%s", failure)
    return failure


def report_failure(failure: JobError, argv: Sequence[str], secret: Secret | None, stage: str) -> None:
    """Tells Slack of a failure, also of one in the job arguments or the secret where these still name the webhook."""
    given = dict(itertools.pairwise(argv))
    webhook = secret.slack_webhook if secret else find_webhook(given)
    language = given.get("--language", "ja")
    language = language if language in LANGUAGES else "ja"
    bucket, key = given.get("--destination_bucket"), given.get("--destination_file")
    payload = failure_message(
        given.get("--JOB_NAME", "?"),
        given.get("--JOB_RUN_ID", ""),
        language,
        stage,
        failure.message(language),
        f"s3://{bucket}/{key}" if bucket and key else "",
    )
    post_to_slack(webhook, payload)


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


def main() -> None:
    """Runs the job as Glue starts it."""
    from awsglue.context import GlueContext  # noqa: PLC0415  the Java classes behind it exist on Glue alone
    from awsglue.job import Job  # noqa: PLC0415
    from pyspark.context import SparkContext  # noqa: PLC0415

    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s", force=True)
    LOG.setLevel(logging.INFO)
    glue_context = GlueContext(SparkContext.getOrCreate())
    job = Job(glue_context)
    given = dict(itertools.pairwise(sys.argv))
    job.init(given.get("--JOB_NAME", ""), {})
    run(sys.argv, glue_context.spark_session, job.commit)


if __name__ == "__main__":
    main()
