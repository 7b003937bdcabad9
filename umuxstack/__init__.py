"""Unified Multiplex in Python: a session is a pair of addresses, and nothing else."""
