"""What a run tells: Slack, the run report, metrics."""

import os

# Not `Path.resolve`: where files are links into a cache (YARN), each points into a folder of its own.
__path__ = [os.path.dirname(os.path.abspath(__file__))]  # noqa: PTH100, PTH120
