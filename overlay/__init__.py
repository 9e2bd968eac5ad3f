"""The job: a JSON file in S3 overlaid on a table in RDS by key, published as one CSV.

Modules are deployed side by side in one folder (`--extra-py-files`), this one as `overlay.py`; hence the path below.
"""

import os

# Not `Path.resolve`: where files are links into a cache (YARN), each points into a folder of its own.
__path__ = [os.path.dirname(os.path.abspath(__file__))]  # noqa: PTH100, PTH120
