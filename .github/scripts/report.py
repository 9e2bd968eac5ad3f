"""A plan's text (stdin) as Markdown for a comment (stdout): in a code block that it cannot leave, cut to the limit."""

from __future__ import annotations

import os
import re
import sys

from mask import secrets

# The first line, by which the comment is found again.
MARKER = "<!-- terraform-plan -->"
# GitHub takes 65,536 characters; some count two.
LIMIT = 32_000
# Each change of the code is a new object for every module, and the end of every old one: their names tell enough.
CODE = re.compile(r"^(  # aws_s3_object\.code\[.+\n)(?:  # .+\n)*  [-+] .+\{\n(?:      .*\n)+    \}\n\n?", re.MULTILINE)
# A job names every module in one line, and a plan shows that line as it was and as it will be.
LONG_LINE = re.compile(r"^(.{400}).+$", re.MULTILINE)
TITLES = {"true": "Terraform plan", "false": "Terraform plan: no changes", "error": "Terraform plan failed"}


def report(text: str, changes: str, credentials: str, url: str) -> str:
    """The Markdown.

    Args:
        text: What Terraform printed.
        changes: `true`, `false` or `error`.
        credentials: TF_VAR_credentials. No plan holds any of it; should one ever, nobody reads it here.
        url: Where the whole plan can be read.
    """
    for secret in secrets(credentials):
        text = text.replace(secret, "***")
    text = LONG_LINE.sub(r"\1 [...]", CODE.sub(r"\1", text.strip()))
    counts = re.findall(r"^Plan: .+$", text, re.MULTILINE)
    notice = ""
    if len(text) > LIMIT:
        # The end holds the errors.
        first, last = text[: LIMIT // 2], text[-LIMIT // 2 :]
        text = f"{first.rpartition(chr(10))[0] or first}\n\n[...]\n\n{last.partition(chr(10))[2] or last}"
        whole = f"The whole plan is in the artifact of [this run]({url}): `terraform show tfplan`."
        notice = f"\nCut to {LIMIT:,} characters. {whole}\n"
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    head = f"{MARKER}\n### {TITLES[changes]}\n"
    return f"{head}\n{counts[-1] if counts else ''}\n\n{fence}text\n{text}\n{fence}\n{notice}"


def main() -> None:
    """Reads, writes."""
    run = "{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}/actions/runs/{GITHUB_RUN_ID}"
    credentials = os.environ.get("TF_VAR_credentials", "")  # noqa: SIM112
    sys.stdout.write(report(sys.stdin.read(), sys.argv[1], credentials, run.format_map(os.environ)))


if __name__ == "__main__":
    main()
