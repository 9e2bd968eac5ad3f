"""Judges the job. The folder is not named `oracle` for its one module, as that would pass for a database."""
