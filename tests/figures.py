"""What tests saw, for docs/reliability.md."""

from __future__ import annotations

import json
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "build" / "figures"


def record(section: str, name: str, **facts: object) -> None:
    """Keeps one row of a table: `section` is the table, `name` what was tried, `facts` its further columns."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{section}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"name": name, **facts}, ensure_ascii=False) + "\n")
