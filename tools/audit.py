"""Asks the advisory database of PyPI, by pip-audit, about what is installed in the environments beside this folder.

    .venv-scan/bin/python -m tools.audit

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
    """Runs pip-audit on some folders; returns its entry for each package, none where it got no answer."""
    folders = [token for path in paths for token in ("--path", str(path))]
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", *folders]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)  # noqa: S603
    try:
        return list(json.loads(done.stdout)["dependencies"])
    except ValueError:
        return []


def judge(packages: Iterable[dict[str, Any]], pins: Iterable[str]) -> tuple[int, list[str], list[str]]:
    """Counts the packages that were audited, and lists the vulnerable ones as lines: ours, and those that Glue pins.

    A package that PyPI does not know (`skip_reason`) was not audited, though pip-audit calls that a success.
    """
    audited = [package for package in packages if "skip_reason" not in package]
    lines: dict[bool, list[str]] = {True: [], False: []}
    for package in audited:
        for vulnerability in package["vulns"]:
            names = ", ".join([vulnerability["id"], *vulnerability.get("aliases", [])])
            fixed = ", ".join(vulnerability["fix_versions"]) or "no version"
            line = f"{package['name']} {package['version']}: {names} (fixed in {fixed})"
            lines[f"{package['name']}=={package['version']}".lower() in pins].append(line)
    return len(audited), lines[False], lines[True]


def main() -> int:
    """Audits; returns the exit status."""
    requirements = "".join(file.read_text().lower() for file in sorted(ROOT.glob("requirements/glue-*.txt")))
    pins = set(re.findall(r"^[\w.-]+==\S+", requirements, re.MULTILINE))
    audited, ours, of_glue = judge(audit(sorted(ROOT.glob(".venv*/lib/python*/site-packages"))), pins)
    lines = [f"{audited} packages audited"]
    lines += [f"as Glue ships it (SECURITY.md): {line}" for line in of_glue]
    lines += [f"vulnerable: {line}" for line in ours]
    if not audited:
        lines = ["NOT AUDITED: the advisory database cannot be reached from here (GitHub Actions reaches it)"]
    print("\n".join(lines))  # noqa: T201
    return int(bool(ours) or (not audited and os.environ.get("GITHUB_ACTIONS") == "true"))


if __name__ == "__main__":
    sys.exit(main())
