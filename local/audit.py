"""Asks the advisory database of PyPI, by pip-audit, about what is installed in the environments beside this folder.

    .venv-scan/bin/python -m local.audit

Fails on what is ours to change. What Glue ships, in its own versions, is Glue's to change: it is told, and SECURITY.md
says what follows. Without the advisory database nothing is known: a laptop is told so, GitHub Actions fails.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def audit(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """What pip-audit says of each package in some folders; nothing where it cannot ask."""
    folders = [token for path in paths for token in ("--path", str(path))]
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", *folders]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)  # noqa: S603
    try:
        return list(json.loads(done.stdout)["dependencies"])
    except ValueError:
        return []


def judge(found: Iterable[dict[str, Any]], glues: Iterable[str]) -> tuple[int, list[str], list[str]]:
    """How many packages were audited, then the vulnerable ones as lines: ours, and Glue's.

    A package that PyPI does not know (`skip_reason`) was not audited, though pip-audit calls that a success.
    """
    audited = [package for package in found if "skip_reason" not in package]
    told: dict[bool, list[str]] = {True: [], False: []}
    for package in audited:
        for vulnerability in package["vulns"]:
            names = ", ".join([vulnerability["id"], *vulnerability.get("aliases", [])])
            fixed = ", ".join(vulnerability["fix_versions"]) or "no version"
            line = f"{package['name']} {package['version']}: {names} (fixed in {fixed})"
            told[f"{package['name']}=={package['version']}".lower() in glues].append(line)
    return len(audited), told[False], told[True]


def main() -> int:
    """Audits; returns the exit status."""
    pins = (ROOT / "requirements" / "glue-5.0.txt").read_text().lower()
    glues = set(re.findall(r"^[\w.-]+==\S+", pins, re.MULTILINE))
    audited, ours, others = judge(audit(sorted(ROOT.glob(".venv*/lib/python*/site-packages"))), glues)
    lines = [f"{audited} packages audited"]
    lines += [f"as Glue 5.0 ships it (SECURITY.md): {line}" for line in others]
    lines += [f"vulnerable: {line}" for line in ours]
    if not audited:
        lines = ["NOT AUDITED: the advisory database cannot be reached from here (GitHub Actions reaches it)"]
    print("\n".join(lines))  # noqa: T201
    return int(bool(ours) or (not audited and os.environ.get("GITHUB_ACTIONS") == "true"))


if __name__ == "__main__":
    sys.exit(main())
