"""Documents, pictures, local pages, and the benchmark's own tests."""
