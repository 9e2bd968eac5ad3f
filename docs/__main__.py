"""`make docs`: writes what the pages have from elsewhere, and the picture of the architecture."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from docs import architecture, settings, troubleshooting

ROOT = Path(__file__).resolve().parent.parent
LANGUAGES = {"ja": "", "en": ".en"}  # with what stands before the suffix of a page
END = "<!-- end -->"


def begin(name: str) -> str:
    """The mark before a block."""
    return f"<!-- made by make docs: {name} -->"


def put(text: str, name: str, lines: Iterable[str]) -> str:
    """A page with other lines in one of its blocks.

    Raises:
        ValueError: the page has no such block.
    """
    before, found, rest = text.partition(begin(name))
    _, ended, after = rest.partition(END)
    if not (found and ended):
        message = f"no block {begin(name)} ... {END}"
        raise ValueError(message)
    return "\n".join([before + found, "", *lines, "", END + after])


def pages() -> Mapping[Path, str]:
    """The pictures, and the pages with their blocks as they must be."""
    found: dict[Path, str] = {}
    for language, suffix in LANGUAGES.items():
        made = {
            ROOT / f"README{suffix}.md": settings.tables(language),
            ROOT / "docs" / f"troubleshooting{suffix}.md": troubleshooting.tables(language),
        }
        for path, tables in made.items():
            text = path.read_text(encoding="utf-8")
            for name, lines in tables:
                text = put(text, name, lines)
            found[path] = text
        found[ROOT / "docs" / f"architecture{suffix}.svg"] = architecture.svg(language)
    return found


def main() -> None:
    """Writes what changed and says so."""
    for path, text in pages().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"{path.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
