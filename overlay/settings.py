"""One run as its job arguments describe it: these go in by name; a frozen `Settings` comes out, or a SettingsError."""

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from datetime import UTC, datetime
from typing import Any

from overlay.dates import DEFAULT_ZONE, fill_keys, undated
from overlay.errors import Detail, SettingsError, Verbatim, phrase
from overlay.limits import LIMITS, Limits
from overlay.output_columns import OutputColumn, output_columns

LINE_ENDINGS = {"lf": "\n", "crlf": "\r\n"}
CHOICES: Mapping[str, Sequence[str]] = {
    "language": ("ja", "en"),
    "notify": ("always", "on_change", "on_failure"),
    "engine": ("auto", "driver", "spark"),
    "csv_encoding": ("utf-8", "utf-8-sig", "cp932"),
    "csv_line_ending": tuple(LINE_ENDINGS),
    "csv_quote": ("minimal", "all"),
    "csv_escape_formulas": ("true", "false"),
    "guard": ("on", "off"),
    "guard_same_columns": ("true", "false"),
    "dry_run": ("true", "false"),
    "count_overridden": ("true", "false"),
}


@dataclass(frozen=True)
class CsvFormat:
    """How a cell and a row are written."""

    encoding: str = "utf-8"  # one of CHOICES, as are the next ones but for the delimiter and null
    delimiter: str = ","  # one character
    line_ending: str = "lf"
    quote: str = "minimal"  # RFC 4180: only where needed; or `all`: every value that is present
    null: str = ""  # the text of a missing value; a present value with the same text is quoted
    escape_formulas: bool = False  # cells that a spreadsheet would take as a formula get a leading `'`

    @property
    def codec(self) -> str:
        """Of the rows; the byte order mark of `utf-8-sig` belongs to the header alone."""
        return "utf-8" if self.encoding == "utf-8-sig" else self.encoding


@dataclass(frozen=True)
class Guard:
    """What keeps an output from being replaced that is implausible beside that of the last success."""

    enabled: bool = True  # a run may be let pass by `--guard off`
    max_drop_percent: int | None = None  # records fewer than in the last success; None: not compared, as the next ones
    min_match_percent: int | None = None  # of the records, those whose id the table has
    max_unmatched_percent: int | None = None  # of the rows, those whose id no record has
    same_columns: bool = False  # of the output, in the same order

    @property
    def is_set(self) -> bool:
        """Whether the entry asks for anything."""
        return self != Guard(self.enabled)


@dataclass(frozen=True)
class Settings:
    """One run, as its job arguments describe it; of keys with dates, as they are on its day."""

    job_name: str
    secret_name: str
    connection_name: str
    source_bucket: str
    source_key: str  # the key of one object, a folder (`in/`) or a pattern with `*` (see `is_source_key`)
    destination_bucket: str
    destination_file: str  # the key of the output
    run_id: str = ""  # Glue's; empty elsewhere
    key: str = "id"  # the column by which records and rows are matched
    table_key: str = ""  # the table's own name of it; empty: the same
    table_where: str = ""  # a condition in SQL: rows that do not meet it count as not there; empty: all do
    columns: tuple[OutputColumn, ...] = ()  # of the output; empty: the source's, then those that only the table has
    language: str = "ja"  # of the messages, one of CHOICES
    # These three where the secret has none: one that RDS manages holds the login alone.
    db_name: str = ""
    schema_name: str = ""
    table_name: str = ""
    slack_secret_name: str = ""  # the secret of the webhook, where it is not `secret_name`
    max_connections: int = 0  # at a time; 0: what `Limits.connection_share` leaves of those the server takes
    notify: str = "always"  # when Slack hears of a success, one of CHOICES; of a failure it always does
    unmatched_file: str = ""  # the key, beside the output, of the list of all ids that only the table has; or none
    differences_file: str = ""  # the key, beside the output, of the list of cells that the source overrides; or none
    count_overridden: bool = False  # whether those cells are counted; they are where there is the list
    records_at: str = ""  # names joined by dots that lead to the array of records in an object; empty: they are all
    engine: str = "auto"  # what carries the data, one of CHOICES
    dry_run: bool = False  # all of a run, but nothing is written beside a run report of its own
    timezone: str = DEFAULT_ZONE  # of the dates in keys
    date: str = ""  # what is filled into keys in the place of the start of the run: `2026-11-01`, `2026-11-01T05`
    undated_file: str = ""  # `destination_file` with the bare names of its placeholders; the run report lies beside it
    csv: CsvFormat = CsvFormat()
    guard: Guard = Guard()
    limits: Limits = LIMITS

    @property
    def source(self) -> str:
        """The source as a URL for people."""
        return f"s3://{self.source_bucket}/{self.source_key}"

    @property
    def destination(self) -> str:
        """The output as a URL for people."""
        return f"s3://{self.destination_bucket}/{self.destination_file}"

    @property
    def listed_differences(self) -> int | None:
        """How many of the cells that the source overrides are listed; None where they are not looked for."""
        if self.differences_file:
            return self.limits.differences_max
        return 0 if self.count_overridden else None

    @property
    def row_key(self) -> str:
        """The key column of the table."""
        return self.table_key or self.key

    def needed(self, names: Iterable[str], key: str) -> tuple[str, ...]:
        """Those of the columns of one side that a run needs: its key, and what goes into the output."""
        output = {key, *(column.name for column in self.columns)}
        return tuple(name for name in names if not self.columns or name in output)

    @property
    def report_key(self) -> str:
        """The key of the run report, beside the output."""
        return self.report_keys[0]

    @property
    def report_keys(self) -> tuple[str, str, str, str]:
        """The keys of the run report, of its page, and of those of a dry run beside them; the same on every day."""
        report, dry = f"{self.undated_file}.report", f"{self.undated_file}.dry-run.report"
        return f"{report}.json", f"{report}.html", f"{dry}.json", f"{dry}.html"

    @property
    def own_report_keys(self) -> tuple[str, str]:
        """The keys that this run writes its report and its page to."""
        return self.report_keys[2:] if self.dry_run else self.report_keys[:2]


_OTHERS = {"job_name", "run_id", "undated_file", "csv", "guard", "limits"}
_ARGUMENTS = [item for item in fields(Settings) if item.name not in _OTHERS]
OUTPUT_KEYS = ("destination_file", "unmatched_file", "differences_file")
_PERCENTS = ("max_drop_percent", "min_match_percent", "max_unmatched_percent")
REQUIRED_ARGUMENTS = ("JOB_NAME", *(item.name for item in _ARGUMENTS if item.default is MISSING))
OPTIONAL_ARGUMENTS = (
    *(item.name for item in _ARGUMENTS if item.default is not MISSING),
    *(f"csv_{option.name}" for option in fields(CsvFormat)),
    *("guard", "guard_same_columns", *(f"guard_{name}" for name in _PERCENTS)),
)
_KEYS = ("source_key", *OUTPUT_KEYS)  # that may have dates
# Taken as they are.
_TEXTS = {item.name for item in _ARGUMENTS if item.type in {str, "str"}} | {"run_id"}


def make_settings(arguments: Mapping[str, str], limits: Limits = LIMITS, started: datetime | None = None) -> Settings:
    """The checked settings of a run from its job arguments by name (see `arguments`), and its start (else: now).

    Raises:
        SettingsError: an argument is missing, a value is empty or not allowed, or two contradict each other.
    """
    _check_values(arguments)
    keys = {name: arguments[name] for name in _KEYS if name in arguments}
    date, timezone = arguments.get("date", ""), arguments.get("timezone", "")
    keys = fill_keys(keys, date, timezone, started or datetime.now(UTC))
    settings = Settings(
        job_name=arguments["JOB_NAME"],
        csv=csv_format(arguments),
        guard=_guard(arguments),
        columns=output_columns(arguments.get("columns", "")),
        max_connections=int(arguments.get("max_connections", "0")),
        dry_run=arguments.get("dry_run") == "true",
        count_overridden=arguments.get("count_overridden") == "true",
        limits=limits,
        undated_file=undated(arguments["destination_file"]),
        **{name: value for name, value in {**arguments, **keys}.items() if name in _TEXTS},
    )
    _check_outputs(settings)
    return settings


def _check_values(arguments: Mapping[str, str]) -> None:
    """Refuses missing arguments, empty ones that may not be, keys that are folders, and what is none of CHOICES."""
    for name in REQUIRED_ARGUMENTS:
        if name not in arguments:
            raise SettingsError("argument_missing", name=Verbatim(name))
    for name in (*REQUIRED_ARGUMENTS, "key", "timezone"):
        if arguments.get(name) == "":
            raise _invalid(name, "", phrase("value"))
    if (path := arguments.get("records_at")) and not all(path.split(".")):
        raise _invalid("records_at", path, phrase("path"))
    if {";", "?"} & set(condition := arguments.get("table_where", "")):
        raise _invalid("table_where", condition, phrase("condition"))
    for name in OUTPUT_KEYS:
        if (key := arguments.get(name, "")).endswith("/"):
            raise _invalid(name, key, phrase("object_key"))
    for name, choices in CHOICES.items():
        if (value := arguments.get(name, choices[0])) not in choices:
            raise _invalid(name, value, Verbatim(" / ".join(choices)))
    if not re.fullmatch("[1-9][0-9]{0,4}", count := arguments.get("max_connections", "1")):
        raise _invalid("max_connections", count, phrase("count"))


def _guard(arguments: Mapping[str, str]) -> Guard:
    percents = {name: arguments[f"guard_{name}"] for name in _PERCENTS if f"guard_{name}" in arguments}
    for name, percent in percents.items():
        if not re.fullmatch("[0-9]{1,2}|100", percent):
            raise _invalid(f"guard_{name}", percent, phrase("percent"))
    numbers = {name: int(percent) for name, percent in percents.items()}
    return Guard(arguments.get("guard") != "off", **numbers, same_columns=arguments.get("guard_same_columns") == "true")


def csv_format(arguments: Mapping[str, str]) -> CsvFormat:
    """The CSV options among job arguments whose CHOICES are checked; raises SettingsError as `make_settings` does."""
    names = [option.name for option in fields(CsvFormat) if f"csv_{option.name}" in arguments]
    options: dict[str, Any] = {name: arguments[f"csv_{name}"] for name in names}
    if options.get("delimiter") in {"tab", "\\t"}:
        options["delimiter"] = "\t"
    form = CsvFormat(**options | {"escape_formulas": options.get("escape_formulas") == "true"})
    if len(form.delimiter) != 1 or form.delimiter in '"\r\n\x00':
        raise _invalid("csv_delimiter", form.delimiter, phrase("one_character"))
    if set(form.null) & {form.delimiter, '"', "\r", "\n"}:
        raise _conflict(phrase("null_is_special", null=Verbatim(form.null)))
    for name, value in (("delimiter", form.delimiter), ("null", form.null)):
        try:
            value.encode(form.encoding)
        except UnicodeEncodeError:
            details = {"name": Verbatim(name), "value": Verbatim(value), "encoding": Verbatim(form.encoding)}
            raise _conflict(phrase("option_not_encodable", **details)) from None
    return form


def _check_outputs(settings: Settings) -> None:
    """Refuses outputs that would overwrite each other or the source, or be read as a source by the next run.

    The run report alone may lie among the sources, as nobody chose its name: `list_objects` leaves it out.
    """
    bucket, source = settings.destination_bucket, Verbatim(settings.source)
    if settings.source_bucket == bucket:
        for name in OUTPUT_KEYS:
            key = getattr(settings, name)
            if key and is_source_key(key, settings.source_key):
                output = Verbatim(f"s3://{bucket}/{key}")
                raise _conflict(phrase("output_is_source", name=Verbatim(name), output=output, source=source))
        if settings.source_key in settings.report_keys:
            raise _conflict(phrase("report_is_source", report=source))
    taken = {settings.destination_file, *settings.report_keys}
    for name in OUTPUT_KEYS[1:]:
        if (key := getattr(settings, name)) in taken:
            raise _conflict(phrase("list_is_output", name=Verbatim(name), key=Verbatim(key)))
        taken |= {key} - {""}


def _invalid(name: str, value: str, expected: Detail) -> SettingsError:
    return SettingsError("argument_invalid", name=Verbatim(name), value=Verbatim(value), expected=expected)


def _conflict(conflict: Detail) -> SettingsError:
    return SettingsError("arguments_conflict", conflict=conflict)


def is_source_key(key: str, pattern: str) -> bool:
    """Whether an S3 key is meant by `source_key`: itself, below a folder `.../`, or matching `*` (within a folder)."""
    if pattern.endswith("/") and "*" not in pattern:
        return key.startswith(pattern)
    glob = pattern.replace("[", "[[]").replace("?", "[?]")  # of the special characters of fnmatch only `*` is ours
    return key.count("/") == pattern.count("/") and fnmatch.fnmatchcase(key, glob)
