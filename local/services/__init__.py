"""The servers a pipeline needs, on loopback, each ended with its `with` block and with the process that made it."""
