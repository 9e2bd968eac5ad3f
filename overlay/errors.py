"""What a run can fail with, said in the language of its readers.

A code and details go in (`SourceError("source_missing", url=Verbatim("s3://lake/in.json"))`); out comes a cause and a
hint in English or Japanese, or plain data, which is how an error that a Spark worker meets reaches the driver.
"""

import difflib
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any, NamedTuple, NewType, TypeAlias

from overlay import messages_en, messages_ja

REPORTED = "[reported]"
_LISTED = 50  # names in an error
_NEAR = 0.75  # of difflib: `customers` is near `customer`, not near `orders`

# Somebody's own words, a name or a value: the same in every language. A type of its own, so that the type checker finds
# an English sentence among the details, which would stay English in a Japanese message.
Verbatim = NewType("Verbatim", str)
Detail: TypeAlias = "Phrase | Verbatim | int"


@dataclass(frozen=True)
class Phrase:
    """An entry of `PHRASES` with its own details, or of `LIBRARY_WORDS`; a text only when the language is known."""

    code: str
    details: Mapping[str, Detail]

    def text(self, language: str) -> str:
        """Says the phrase in `language` (`ja` or `en`)."""
        if self.code in messages_ja.LIBRARY_WORDS:
            return str(catalogue(language).LIBRARY_WORDS.get(self.code, self.code))
        return str(catalogue(language).PHRASES[self.code].format(**_in_language(self.details, language)))


class Message(NamedTuple):
    """The cause of a failure and the next thing to check, in one language."""

    cause: str
    hint: str


def phrase(code: str, /, **details: Detail) -> Phrase:
    """Words for a detail of a JobError: an entry of `PHRASES`, whose own details may be phrases, too."""
    return Phrase(code, details)


def joined(phrases: Iterable[Phrase]) -> Phrase:
    """Several phrases as one; there is at least one."""
    return functools.reduce(lambda first, second: phrase("and", first=first, second=second), phrases)


def library_words(english: str) -> Detail:
    """What a library says in English: in Japanese where `LIBRARY_WORDS` knows it, else as the library does."""
    return phrase(english) if english in messages_ja.LIBRARY_WORDS else Verbatim(english)


def near_miss(name: str, present: Iterable[str]) -> Detail:
    """The phrase ` (did you mean 'ID'?)` for the present name closest to a missing one; empty where none is close."""
    by_fold = {other.strip().casefold(): other for other in present}
    close = difflib.get_close_matches(name.strip().casefold(), by_fold, n=1, cutoff=_NEAR)
    return phrase("near", name=Verbatim(by_fold[close[0]])) if close else Verbatim("")


def listed_names(names: Iterable[str]) -> Verbatim:
    """The first of some names, as a list in an error."""
    return Verbatim(", ".join(itertools.islice(names, _LISTED)))


class JobError(Exception):
    """A run that cannot go on: an entry of `MESSAGES`, and what fills its templates (never a secret)."""

    # Whether a webhook took it. The text then ends with REPORTED, by which the rule on Glue's own events
    # (monitoring.tf) knows that nobody need be told again.
    reported = False

    def __init__(self, code: str, **details: Detail) -> None:
        super().__init__(code)
        self.code = code
        self.details: dict[str, Detail] = details

    def message(self, language: str) -> Message:
        """The cause and the hint in `language` (`ja` or `en`)."""
        details = _in_language(self.details, language)
        cause, hint = catalogue(language).MESSAGES[self.code]
        return Message(cause.format(**details), hint.format(**details))

    def redact(self, hide: Callable[[str], str]) -> None:
        """Takes secrets out of the details, also in phrases: `hide` gets each text and gives what may be seen of it."""
        self.details = {name: _redacted(detail, hide) for name, detail in self.details.items()}

    def to_data(self) -> dict[str, Any]:
        """The error, but for `reported`, as data that JSON can hold, for `error_from_data`.

        Spark hands the driver only the text of a worker's exception, and pickles would tie both ends to one version.
        """
        return {"error": type(self).__name__, **asdict(Phrase(self.code, self.details))}

    def __str__(self) -> str:
        return " ".join([*self.message("en"), *([REPORTED] if self.reported else [])])


class SettingsError(JobError):
    """The job arguments, the secret or the connection are wrong."""


class AwsError(JobError):
    """An AWS call failed for good."""


class SourceError(JobError):
    """The source objects are missing or wrong."""


class TableError(JobError):
    """The database or the table is missing, refuses or is wrong."""


class TransientTableError(TableError):
    """The database may get over it: it restarts, has no connection left, ended the statement. Worth another try."""


class OutputError(JobError):
    """The CSV cannot be made or published."""


class Stopped(BaseException):
    """The run has to end (SIGTERM). No `Exception`: py4j, inside of which it is mostly raised, would wrap one."""


ERROR_CLASSES: dict[str, type[JobError]] = {
    cls.__name__: cls
    for cls in (JobError, SettingsError, AwsError, SourceError, TableError, TransientTableError, OutputError)
}


def error_from_data(data: Mapping[str, Any]) -> JobError:
    """The JobError, of the same class, that `JobError.to_data` made the data of."""
    details = {name: _detail_from_data(detail) for name, detail in data["details"].items()}
    return ERROR_CLASSES[data["error"]](data["code"], **details)


def catalogue(language: str) -> ModuleType:
    """The texts in a language (`ja` or `en`)."""
    return {"en": messages_en, "ja": messages_ja}[language]


def _in_language(details: Mapping[str, Detail], language: str) -> dict[str, str | int]:
    return {name: detail.text(language) if isinstance(detail, Phrase) else detail for name, detail in details.items()}


def _redacted(detail: Detail, hide: Callable[[str], str]) -> Detail:
    match detail:
        case Phrase(code, details):
            return Phrase(code, {name: _redacted(inner, hide) for name, inner in details.items()})
        case str():
            return Verbatim(hide(detail))
    return detail


def _detail_from_data(data: Any) -> Detail:
    match data:
        case {"code": code, "details": details}:
            return Phrase(code, {name: _detail_from_data(inner) for name, inner in details.items()})
        case int():
            return data
    return Verbatim(str(data))
