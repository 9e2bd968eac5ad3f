"""Measurements; `make` targets run them."""
