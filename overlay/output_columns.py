"""The columns chosen for the output. In: the JSON of `--columns`. Out: each, and what the header calls it."""

import json
from collections import Counter
from typing import NamedTuple

from overlay.errors import SettingsError, Verbatim, phrase


class OutputColumn(NamedTuple):
    """A column of the output: that of source and table whose values it has, and what the header calls it."""

    name: str
    title: str


def output_columns(text: str) -> tuple[OutputColumn, ...]:
    """The columns of the output from the JSON of `--columns`; empty text asks for none.

    Raises:
        SettingsError: it is no list of columns, or two of them would have the same name.
    """
    if not text:
        return ()
    try:
        items = json.loads(text)
        columns = tuple(map(_output_column, items)) if isinstance(items, list) else ()
        "".join(map("".join, columns)).encode()  # refuses half a surrogate pair
    except ValueError:
        columns = ()
    twice = [title for title, count in Counter(column.title for column in columns).items() if count > 1]
    if twice or not columns:
        expected = phrase("columns_once", name=Verbatim(twice[0])) if twice else phrase("columns")
        raise SettingsError("argument_invalid", name=Verbatim("columns"), value=Verbatim(text), expected=expected)
    return columns


def _output_column(item: object) -> OutputColumn:
    match item:
        case str(name) if name:
            return OutputColumn(name, name)
        case {"from": str(name), "as": str(title), **more} if name and title and not more:
            return OutputColumn(name, title)
    raise ValueError
