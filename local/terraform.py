"""Terraform on a copy of this repository, against the AWS APIs of `AWS_ENDPOINT_URL`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local.services.processes import ServiceError, run_process, start_process

ROOT = Path(__file__).resolve().parent.parent
COPIED = (
    "*.tf",
    "*.json",
    "schemas/*.json",
    "glue_job.py",
    "overlay/**/*.py",
    ".terraform.lock.hcl",
    "tests/terraform/**/*.*",
)
PROVIDER = "*.*/hashicorp/aws"  # below the name of a registry
UNPACKED = f"{PROVIDER}/*/*/terraform-provider-aws_*"  # version, platform
# Where providers lie without a download: Terraform's implied mirrors, then the usual software roots.
MIRRORS = ("~/.terraform.d/plugins", "~/.local/share/terraform/plugins", "/usr/local/share/terraform/plugins")
SOFTWARE_ROOTS = ("/opt", "/usr/local", "/usr/share", "/usr/lib", "/srv")
# Moto serves buckets by path, and what is only tried needs no state bucket.
LOCAL_PROVIDER = 'provider "aws" {\n  s3_use_path_style = true\n}\n'
LOCAL_BACKEND = 'terraform {\n  backend "local" {}\n}\n'


def plugin_dir() -> Path | None:
    """A folder of unpacked providers that holds the AWS provider, or None where `init` must download it."""
    cache = os.environ.get("TF_PLUGIN_CACHE_DIR")
    for folder in filter(None, (cache, *MIRRORS)):
        if any(Path(folder).expanduser().glob(UNPACKED)):
            return Path(folder).expanduser()
    for root in SOFTWARE_ROOTS:
        for depth in ("*", "*/*", "*/*/*"):
            if provider := next(Path(root).glob(f"{depth}/{PROVIDER}"), None):
                return provider.parents[2]
    return None


def plugin_flags() -> list[str]:
    """What makes `init` take the provider from this machine, where it is here."""
    mirror = plugin_dir()
    return [f"-plugin-dir={mirror}"] if mirror else []


class Terraform:
    """A working directory of its own with this repository's configuration.

    Args:
        folder: An empty folder.
        environment: Variables for Terraform and its provider (`Aws.environment()`, `TF_VAR_...`).
        backend: The `-backend-config` values of the S3 backend; a local state where it is empty.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], backend: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self._backend = dict(backend or {})
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
        # The provider is started anew for each command, and spends a quarter of its time on collecting garbage.
        defaults = {"TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1", "GOGC": "400"}
        self.environment = inherited | defaults | dict(environment)
        for pattern in COPIED:
            for file in ROOT.glob(pattern):
                target = folder / file.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
        (folder / "local_override.tf").write_text(LOCAL_PROVIDER + ("" if self._backend else LOCAL_BACKEND))

    def command(self, *arguments: str) -> list[str]:
        """The command line.

        Raises:
            ServiceError: Terraform is not installed.
        """
        program = shutil.which("terraform")
        if not program:
            message = "terraform is not installed. Install Terraform 1.11 or newer: developer.hashicorp.com/terraform"
            raise ServiceError(message)
        return [program, *arguments]

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Terraform with pipes for its input and output."""
        pipe = subprocess.PIPE
        return start_process(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            stdin=pipe,
            stdout=pipe,
            stderr=subprocess.STDOUT,
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs Terraform to its end; both streams are in `stdout`."""
        return run_process(self.command(*arguments), self.folder, self.environment)

    def do(self, *arguments: str) -> str:
        """Runs Terraform and returns what it printed.

        Raises:
            ServiceError: it failed.
        """
        done = self.run(*arguments)
        if done.returncode:
            message = f"terraform {' '.join(arguments)} failed:\n{done.stdout}"
            raise ServiceError(message)
        return done.stdout

    def init(self) -> str:
        """Prepares the folder; the provider must be the one that the lock file names."""
        return self.do(
            "init",
            "-no-color",
            "-input=false",
            "-lockfile=readonly",
            *plugin_flags(),
            *(f"-backend-config={name}={value}" for name, value in self._backend.items()),
        )

    def plan(self, file: str = "tfplan") -> dict[str, Any]:
        """A saved plan as `terraform show -json` tells it."""
        self.do("plan", "-no-color", "-input=false", f"-out={file}")
        return dict(json.loads(self.do("show", "-json", file)))
