"""Makes tables and pictures of the documentation: `make docs` writes them, tests/pages/test_docs.py compares them."""
