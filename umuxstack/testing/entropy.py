"""Randomness for tests: from one printed number, which `UMUX_SEED` gives back."""

import os
from random import SystemRandom


def seed_of_run() -> int:
    """The number in the environment variable UMUX_SEED, or else a fresh one."""
    text = os.environ.get("UMUX_SEED", "")
    return int(text) if text else SystemRandom().randrange(1 << 32)


def seed_of(seed: int, name: str = "") -> bytes:
    """What the randomness of the stack called `name` is made of in a test with that seed: the same in every run."""
    return f"umux test {seed} {name}".encode()
