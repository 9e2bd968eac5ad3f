"""What an engine is: what each takes and gives, and the checks that all share.

An engine carries Arrow batches from source and table through the functions of `merge` and `csv_text` to `upload`. Every
engine gives the same bytes and counts: tests/engines runs the promises of the merge on each, against the oracle.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from overlay.errors import SettingsError, SourceError, Verbatim, listed_names, near_miss, phrase
from overlay.merge import Counts, merged_columns
from overlay.output_columns import OutputColumn
from overlay.settings import Settings
from overlay.source.objects import SourceObject
from overlay.table.describe import Table
from overlay.texts_en import TEXTS
from overlay.upload import Published

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inputs:
    """What an engine works on: the settings, the listed objects, the described table."""

    settings: Settings
    objects: Sequence[SourceObject]
    table: Table

    @property
    def source_bytes(self) -> int:
        """Bytes of the objects, as they lie in S3."""
        return sum(item.size for item in self.objects)


class SourceFacts(NamedTuple):
    """What is known of the source once it is read: its records, and its columns in the order they first appear."""

    records: int
    columns: tuple[str, ...]


class Output(NamedTuple):
    """What an engine published: counts, columns, the CSV, and the lists that there are.

    These are of table-only ids, and of cells that the source overrides.
    """

    counts: Counts
    columns: tuple[str, ...]
    csv: Published
    unmatched: Published | None = None
    differences: Published | None = None


class Plan(NamedTuple):
    """How the table is read: `lookup` or `scan`, and why, as a name of TEXTS."""

    name: str
    reason: str

    def log(self, records: int, rows: int) -> None:
        """Logs it, with the sizes that it was made for."""
        LOG.info("plan %s: %s (%d records, about %d rows)", self.name, TEXTS[self.reason], records, rows)


class Engine(Protocol):
    """One way to carry batches. The methods are called in this order, once each.

    Attributes:
        plan: Once the table is read.
        columns: Of the output, once the source is read.
    """

    plan: Plan
    columns: tuple[str, ...]

    def read_source(self) -> SourceFacts:
        """Reads and parses the source.

        Raises:
            SourceError: objects are missing, empty or malformed, or no record has the key column.
            SettingsError: neither source nor table has a column that the output is to have.
            AwsError: S3 denied a call or failed.
        """

    def overlay(self) -> Counts:
        """Reads the table and matches both sides; the counts lack the coverage, which is known once cells are.

        Raises:
            TableError: the database fails.
        """

    def publish(self) -> Output:
        """Writes the CSV, and the lists that the entry asks for, all or nothing.

        All are complete on S3 before any is seen. Then the lists come first: should S3 refuse the output after that,
        the run fails, and a list is newer than the output.

        Raises:
            OutputError: the bucket is missing, or a character has no place in the encoding.
            AwsError: S3 denied a call or failed.
        """

    def close(self) -> None:
        """Gives back what the engine holds."""


def check_source(facts: SourceFacts, settings: Settings, table: Table) -> None:
    """Refuses a source that would erase the output, that nothing can be matched with or that lacks a column.

    Raises:
        SourceError: no records, no columns, or no key column.
        SettingsError: a column of the output is in neither source nor table.
    """
    url, columns = Verbatim(settings.source), facts.columns
    if not facts.records or not columns:
        raise SourceError("source_empty", url=url, problem=phrase("no_columns" if facts.records else "no_records"))
    if settings.key not in columns:
        near, listed = near_miss(settings.key, columns), listed_names(columns)
        raise SourceError("key_missing_in_source", url=url, key=Verbatim(settings.key), near=near, columns=listed)
    names = merged_columns(columns, table.all_names)
    for name, _ in settings.columns:
        if name not in names:
            near, listed = near_miss(name, names), listed_names(names)
            raise SettingsError("column_missing", name=Verbatim(name), near=near, columns=listed)


def columns_of_output(settings: Settings, source: Iterable[str], table: Table) -> tuple[OutputColumn, ...]:
    """The columns that `columns` names; without it the source's, then what only the table has, but for its key."""
    theirs = (name for name in table.names if name != table.key.name)
    return settings.columns or tuple(OutputColumn(name, name) for name in merged_columns(source, theirs))


def compared_columns(settings: Settings, columns: Iterable[OutputColumn]) -> list[str]:
    """The names of columns of the output in which both sides may differ: not the keys, which match."""
    return list(dict.fromkeys(column.name for column in columns if column.name not in {settings.key, settings.row_key}))


def unmatched_columns(settings: Settings) -> tuple[str, ...]:
    """What an error calls the column of the list of table-only ids, where the encoding lacks a character of it."""
    return (f"{settings.key} (--unmatched_file)",)
