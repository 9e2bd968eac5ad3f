"""`python -m local report RUN.json`: a run report (schemas/run_report.schema.json) as one page, without any network."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import jsonschema
from botocore.exceptions import BotoCoreError, ClientError

from local.services.processes import ServiceError
from overlay.report.page import render

ROOT = Path(__file__).resolve().parents[2]


def read_report(location: str) -> dict[str, Any]:
    """The report at a location: a file or an s3:// URL.

    Raises:
        ServiceError: it cannot be read, or is no run report.
    """
    try:
        if location.startswith("s3://"):
            url = urlsplit(location)
            client = boto3.client("s3", endpoint_url=os.environ.get("AWS_ENDPOINT_URL"))
            data = client.get_object(Bucket=url.netloc, Key=location.split("/", 3)[3])["Body"].read()
        else:
            data = Path(location).read_bytes()
    except (OSError, IndexError, ClientError, BotoCoreError) as error:
        message = f"{location} cannot be read: {error}"
        raise ServiceError(message) from None
    schema = json.loads((ROOT / "schemas" / "run_report.schema.json").read_text())
    try:
        report: dict[str, Any] = json.loads(data)
        jsonschema.Draft7Validator(schema).validate(report)
    except (ValueError, RecursionError) as error:
        message = f"{location} is not JSON: {error}"
        raise ServiceError(message) from None
    except jsonschema.ValidationError as error:
        message = f"{location} is no run report: {error.json_path}: {error.message[:200]}"
        raise ServiceError(message) from None
    return report


def write(location: str, page: Path) -> Path:
    """Writes the page of a report; returns its path."""
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(render(read_report(location)), encoding="utf-8", errors="backslashreplace")
    return page
