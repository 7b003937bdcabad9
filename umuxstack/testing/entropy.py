"""Randomness for tests: from one printed number, which `UMUX_SEED` gives back."""

import os
from random import SystemRandom

from umuxstack.core.entropy import Entropy


def seed_of_run() -> int:
    """The number in the environment variable UMUX_SEED, or else a fresh one."""
    text = os.environ.get("UMUX_SEED", "")
    return int(text) if text else SystemRandom().randrange(1 << 32)


def seeded(seed: int, name: str = "") -> Entropy:
    """The entropy of the stack called `name` in a test with that seed: the same in every run."""
    return Entropy(f"umux test {seed} {name}".encode())
