"""Tests of the job on real parts; conftest.py starts them."""
