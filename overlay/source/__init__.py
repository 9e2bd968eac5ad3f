"""The source: S3 objects -> records -> Arrow columns of text."""

import os

# Not `Path.resolve`: where files are links into a cache (YARN), each points into a folder of its own.
__path__ = [os.path.dirname(os.path.abspath(__file__))]  # noqa: PTH100, PTH120
