"""The AWS APIs on loopback: moto in a process of its own (`moto_process`)."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import boto3

from local.services.processes import LOOPBACK, ServiceError, start_process, stop_process

REGION = "ap-northeast-1"


class Aws:
    """Moto's server in a process of its own: S3, Secrets Manager, Glue and the rest of the AWS APIs."""

    endpoint = ""

    def __enter__(self) -> Aws:
        command = [sys.executable, "-m", "local.services.moto_process"]
        root = Path(__file__).resolve().parents[2]
        self._home = tempfile.TemporaryDirectory(prefix="moto-")
        variables = {**os.environ, "MOTO_RECORDER_FILEPATH": str(Path(self._home.name) / "recording")}
        self._process = start_process(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=root, env=variables
        )
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            stop_process(self._process)
            message = "moto's server did not start. Try: python -m local.services.moto_process"
            raise ServiceError(message)
        self.endpoint = f"http://{LOOPBACK}:{int(line)}"
        return self

    def __exit__(self, *_: object) -> None:
        stop_process(self._process)
        self._home.cleanup()

    def environment(self) -> dict[str, str]:
        """The variables that point boto3, and so the runner and the job, at this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": REGION,
        }

    @cache  # noqa: B019  a server lives as long as its process; to make a client takes 20 ms
    def client(self, service: str) -> Any:
        """A boto3 client of this server."""
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",  # noqa: S106
        )
