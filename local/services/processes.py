"""Starts programs and ends them: no child outlives the process that started it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

LOOPBACK = "127.0.0.1"
STOP_SECONDS = 20
PR_SET_PDEATHSIG = 1  # prctl(2)


class ServiceError(RuntimeError):
    """A server is missing or does not start; the text says what to do."""


def exit_on_sigterm() -> None:
    """Lets SIGTERM end the process as Ctrl-C does, so that `with` blocks stop what they started."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)


def _end_with_parent() -> None:
    # The kernel ends the child even when this process is killed by SIGKILL. Linux only; elsewhere `with` must do.
    with contextlib.suppress(OSError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def run_process(
    command: Sequence[str | Path], folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Runs a command without input to its end, both streams in `stdout`; its status is the caller's to judge."""
    return subprocess.run(  # noqa: S603
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def start_process(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Starts a child in a session of its own, so that Ctrl-C reaches it only through us."""
    return subprocess.Popen(command, start_new_session=True, preexec_fn=_end_with_parent, **options)  # noqa: PLW1509, S603


def stop_process(process: subprocess.Popen[bytes], seconds: float = STOP_SECONDS) -> None:
    """Ends a child and what it started: SIGTERM, and SIGKILL after `seconds`."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
        break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def program(name: str, package: str) -> str:
    """The path of a server program.

    Raises:
        ServiceError: it is not installed.
    """
    # Debian keeps servers out of a normal user's PATH.
    path = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
    if not path:
        message = f"{name} is not installed. Run: apt-get install {package}"
        raise ServiceError(message)
    return path


def free_port() -> int:
    """A TCP port nobody listens on now."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        return int(listener.getsockname()[1])
