"""`make docs`: writes what the pages have from elsewhere, and the picture of the architecture."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from bench.report import LANGUAGES
from tools.docs import architecture, comparison, settings, troubleshooting

ROOT = Path(__file__).resolve().parents[2]
END = "<!-- end -->"


def begin(name: str) -> str:
    """The mark before a block."""
    return f"<!-- made by make docs: {name} -->"


def with_block(text: str, name: str, lines: Iterable[str]) -> str:
    """Replaces the lines in one block of a page.

    Raises:
        ValueError: the page has no such block.
    """
    before, mark, behind = text.partition(begin(name))
    _, end, after = behind.partition(END)
    if not (mark and end):
        message = f"no block {begin(name)} ... {END}"
        raise ValueError(message)
    return "\n".join([before + mark, "", *lines, "", END + after])


def pages() -> Mapping[Path, str]:
    """Makes the pictures, and the pages with their blocks as they must be, by path."""
    texts: dict[Path, str] = {}
    for language, suffix in LANGUAGES.items():
        tables_of_pages = {
            ROOT / f"README{suffix}.md": comparison.tables(language),
            ROOT / "docs" / f"configuration{suffix}.md": settings.tables(language),
            ROOT / "docs" / f"troubleshooting{suffix}.md": troubleshooting.tables(language),
        }
        for path, tables in tables_of_pages.items():
            text = path.read_text(encoding="utf-8")
            for name, lines in tables:
                text = with_block(text, name, lines)
            texts[path] = text
        texts[ROOT / "docs" / f"architecture{suffix}.svg"] = architecture.svg(language)
    return texts


def main() -> None:
    """Writes what changed and says so."""
    for path, text in pages().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"{path.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
