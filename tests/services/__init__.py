"""Tests against real servers (moto, databases, the Slack receiver), without whole runs."""
