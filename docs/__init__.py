"""What is drawn and tabled of the documentation: `make docs` writes it, tests/test_docs.py compares it."""
