"""The job arguments as Glue gives them: `sys.argv` goes in, what is ours comes out by name."""

import logging
import re
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime

from overlay.errors import SettingsError, Verbatim, near_miss
from overlay.limits import LIMITS, Limits
from overlay.settings import CHOICES, OPTIONAL_ARGUMENTS, REQUIRED_ARGUMENTS, Settings, make_settings

LOG = logging.getLogger(__name__)

_OURS = (*REQUIRED_ARGUMENTS, *OPTIONAL_ARGUMENTS)
_KEPT = (*_OURS, "JOB_RUN_ID", "custom-logGroup-prefix")
_SNAKE_CASE = re.compile(r"[a-z]+(_[a-z]+)*")
# In snake_case, though "internal to AWS Glue" (AWS Glue guide, job parameters), or seen to be passed by it.
_GLUES_OWN = {"conf", "debug", "mode", "endpoint", "class", "continuous_log"}


def read_settings(argv: Sequence[str], limits: Limits = LIMITS, started: datetime | None = None) -> Settings:
    """The checked settings of a run from `sys.argv`; raises what `check_unknown` and `make_settings` do."""
    check_unknown(argv)
    return make_settings(parse_arguments(argv), limits, started)


def parse_arguments(argv: Sequence[str]) -> dict[str, str]:
    """The job's own arguments out of `sys.argv` by name, and Glue's run id (as `run_id`) and prefix of the log groups.

    Never raises and never exits: a run that fails on its arguments still has to find its webhook among them. AWS's own
    getResolvedOptions does raise, requires every option it is asked for, and takes abbreviations.
    """
    arguments, _ = _parsed(argv)
    return arguments | {"run_id": arguments.get("JOB_RUN_ID", "")}


def language_of(arguments: Mapping[str, str]) -> str:
    """The language of messages by unchecked arguments."""
    return language if (language := arguments.get("language", "")) in CHOICES["language"] else "ja"


def check_unknown(argv: Sequence[str]) -> None:
    """Refuses an argument that is one of ours misspelt (SettingsError); logs the other ones that nobody knows.

    Glue adds arguments of its own, in hyphens or capitals, and Airflow adds `--airflow_task_uuid`: a name that is like
    none of ours is no reason to fail.
    """
    _, others = _parsed(argv)
    for name in (token[2:] for token in others if token.startswith("--")):
        is_ours = _SNAKE_CASE.fullmatch(name) or name.replace("-", "_") in _OURS
        if name in _GLUES_OWN or not is_ours:
            continue
        if near := near_miss(name, _OURS):
            listed = Verbatim(", ".join(_OURS[1:]))
            raise SettingsError("argument_unknown", name=Verbatim(name), near=near, arguments=listed)
        LOG.info("argument --%s is not known to this job", name)


def _parsed(argv: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The arguments in `_KEPT` that are there, and all other tokens, without what follows a `=` in them.

    Not argparse: a value may begin with dashes, be empty or be left out.
    """
    arguments, others, queue = {}, [], deque(argv[1:])
    names = {f"--{name}": name for name in _KEPT}
    while queue:
        token, equals, value = queue.popleft().partition("=")
        if token not in names:
            others.append(token)
            continue
        if not equals and queue and queue[0].partition("=")[0] not in names:
            value = queue.popleft()
        arguments[names[token]] = value
    return arguments, others
