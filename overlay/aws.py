"""Calls of AWS: clients by the name of a service, boto3's exceptions as errors of the job, calls bounded in time."""

import functools
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from overlay.errors import AwsError, JobError, Verbatim
from overlay.limits import AwsTimeouts

LOG = logging.getLogger(__name__)
T = TypeVar("T")

_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "403", "Forbidden", "InvalidAccessKeyId"})
_ONE_AT_A_TIME = threading.Lock()


@functools.cache
def client(service: str, timeouts: AwsTimeouts, region_name: str = "") -> Any:
    """The boto3 client of a service (`s3`, `glue`, ...), kept for the next call.

    Threads may share a client, which keeps its connections open, but boto3 cannot make two of them at the same time.
    Spark's workers are given the region of the driver, as nothing promises that their environment names it.
    """
    config = Config(
        # `max_attempts` would not count the first one.
        retries={"mode": "standard", "total_max_attempts": timeouts.attempts},
        connect_timeout=timeouts.connect_seconds,
        read_timeout=timeouts.read_seconds,
    )
    with _ONE_AT_A_TIME:
        return boto3.client(service, region_name=region_name or None, config=config)


def region() -> str:
    """The region of the job (`ap-northeast-1`); empty where nothing names one."""
    return boto3.Session().region_name or ""


def error_code(error: BaseException) -> str:
    """The code of the service; the HTTP status where an answer has no body (HEAD); else the name of the class."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return type(error).__name__


def aws_error(error: Exception, operation: str, resource: str) -> AwsError:
    """The AwsError for an exception of boto3 that its caller has no better words for.

    `operation` is the action of IAM that was tried (`s3:GetObject`), so that it can be copied into a policy. The text
    of the exception is left out: it may quote what was sent.
    """
    code, tried, on = error_code(error), Verbatim(operation), Verbatim(resource)
    if code in _DENIED:
        return AwsError("access_denied", operation=tried, resource=on)
    return AwsError("aws_failed", operation=tried, resource=on, problem=Verbatim(code))


@contextmanager
def aws_errors(operation: str, resource: str, meanings: Mapping[str, JobError]) -> Iterator[None]:
    """Turns what boto3 raises in the block into what its code means here, else into an AwsError (see `aws_error`)."""
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise meanings.get(error_code(error)) or aws_error(error, operation, resource) from error


def within(seconds: float, what: str, do: Callable[[], T]) -> T | None:
    """What `do` returns, or None when it fails or takes longer than `seconds`. Logs either as `what`; never raises.

    In a thread, because no timeout of a client bounds the lookup of a name (a VPC without the endpoint), or a server
    that sends a byte now and then. A late call goes on in its thread, which does not keep the process from ending.
    """
    answers: list[T | None] = []

    def attempt() -> None:
        try:
            answers.append(do())
        except Exception as error:
            # The kind alone: the text of an exception of `requests` holds the webhook.
            LOG.warning("%s failed: %s; the run goes on without it", what, error_code(error))
            answers.append(None)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    if answers:
        return answers[0]
    LOG.warning("%s took longer than %g s; the run goes on without it", what, seconds)
    return None
