"""The audit of dependencies: what is ours fails, what Glue ships is told, and not knowing is no success."""

from __future__ import annotations

import pytest

from tools import audit

GLUES = {"urllib3==1.25.10"}


def package(name: str, version: str, *ids: str) -> dict:
    """A package as pip-audit tells it."""
    return {
        "name": name,
        "version": version,
        "vulns": [{"id": i, "aliases": ["CVE-1"], "fix_versions": ["9"]} for i in ids],
    }


UNKNOWN = {"name": "boto3", "skip_reason": "Dependency not found on PyPI and could not be audited: boto3 (1.34.131)"}


def test_only_what_glue_pins_is_glues():
    packages = [
        package("urllib3", "1.25.10", "PYSEC-1"),
        package("urllib3", "2.0.0", "PYSEC-2"),
        package("ruff", "1"),
        UNKNOWN,
    ]
    assert audit.judge(packages, GLUES) == (
        3,
        ["urllib3 2.0.0: PYSEC-2, CVE-1 (fixed in 9)"],
        ["urllib3 1.25.10: PYSEC-1, CVE-1 (fixed in 9)"],
    )


@pytest.mark.parametrize(
    ("packages", "on_github", "status", "text"),
    [
        ([package("ruff", "1")], "true", 0, "1 packages audited"),
        ([package("ruff", "1", "PYSEC-3")], "", 1, "vulnerable: ruff 1: PYSEC-3"),
        ([package("urllib3", "1.25.10", "PYSEC-1")], "true", 0, "as Glue ships it (SECURITY.md): urllib3 1.25.10"),
        ([UNKNOWN], "", 0, "NOT AUDITED"),
        ([UNKNOWN], "true", 1, "NOT AUDITED"),
        ([], "true", 1, "NOT AUDITED"),
    ],
)
def test_outcomes(monkeypatch, capsys, packages, on_github, status, text):
    monkeypatch.setattr(audit, "audit", lambda _paths: packages)
    monkeypatch.setenv("GITHUB_ACTIONS", on_github)
    assert audit.main() == status
    assert text in capsys.readouterr().out
