"""The promises of the merge, on both engines, against the oracle."""
