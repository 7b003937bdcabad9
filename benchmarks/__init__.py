"""Benchmarks: this stack beside the kernel's, in one alternating run. `python -m benchmarks.run --help`."""
