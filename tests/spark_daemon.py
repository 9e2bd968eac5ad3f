"""Spark's daemon of Python workers: a task does not read the directories of pyspark.zip and a jar anew.

A worker invalidates the caches of imports for each task (Spark 3.5, `worker.py`). CPython 3.11 then reads those of zips
13 times over, which is most of the time of a task of a few rows: 0.10 to 0.17 s of 0.3. From 3.13 on it waits until
something is imported.
"""

import zipimport

from pyspark import daemon

zipimport.zipimporter.invalidate_caches = lambda _self: None
daemon.manager()
