"""Tests of single modules: no servers, no Spark, milliseconds."""
