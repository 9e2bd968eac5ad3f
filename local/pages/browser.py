"""Headless Chromium: a page as people see it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from local.services.processes import ServiceError

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
SECONDS = 60


def run(page: Path, *options: str) -> str:
    """Opens a page; returns what the browser prints.

    Raises:
        ServiceError: there is no browser, or it failed.
    """
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if not program:
        message = "Chromium is not installed. Run: apt-get install chromium-headless-shell"
        raise ServiceError(message)
    with tempfile.TemporaryDirectory(prefix="chromium-") as home:
        # No sandbox: root may not have one, and the page is our own.
        common = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={home}"]
        done = subprocess.run(  # noqa: S603
            [program, *common, *options, page.resolve().as_uri()],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    if done.returncode:
        message = f"{program} failed:\n{done.stderr[-2000:]}"
        raise ServiceError(message)
    return done.stdout


def document(page: Path) -> str:
    """The document after its scripts ran, if it had any that may."""
    return run(page, "--dump-dom")


def picture(page: Path, target: Path, width: int, height: int, *, dark: bool = False) -> None:
    """A PNG of the page."""
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    run(page, f"--screenshot={target.resolve()}", f"--window-size={width},{height}", *scheme)
