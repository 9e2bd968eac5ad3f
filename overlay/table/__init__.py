"""The table: asked, described, read in ranges or by lookup."""

import os

# Not `Path.resolve`: where files are links into a cache (YARN), each points into a folder of its own.
__path__ = [os.path.dirname(os.path.abspath(__file__))]  # noqa: PTH100, PTH120
