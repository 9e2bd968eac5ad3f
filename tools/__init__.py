"""Writes the docs and checks dependencies for vulnerabilities; users need none of it."""
