"""Throws packets at stacks until one falls, or until Ctrl-C.

python -m tests.fuzz.endless [--seed N] [--packets N]          round after round
python -m tests.fuzz.endless --seed N --round K [--packets N]  one round again
"""

import argparse
import itertools
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.fuzz.scene import play
from umuxstack.testing.entropy import seed_of_run
from umuxstack.testing.recording import keeping


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.endless", description="Throws packets at stacks.")
    parser.add_argument("--seed", type=int, default=seed_of_run(), help="default: UMUX_SEED, or chance")
    parser.add_argument("--round", type=int, default=None, help="this one alone")
    parser.add_argument("--packets", type=int, default=2000, help="per round")
    options = parser.parse_args(arguments)
    print(f"UMUX_SEED={options.seed}")
    if options.round is not None:
        scene = play(options.seed, options.round, options.packets)
        print(f"{scene.inputs} packets in, {scene.outputs} out: nothing wrong")
        return 0
    began, packets = time.monotonic(), 0
    with suppress(KeyboardInterrupt):
        for number in itertools.count():
            packets += _round(options.seed, number, options.packets)
            if number % 10 == 9:
                elapsed = time.monotonic() - began
                print(f"{packets} packets in {number + 1} rounds, {packets / elapsed:.0f} a second", flush=True)
    return 0


def _round(seed: int, number: int, packets: int) -> int:
    """One round; if a stack falls, once more with a recording of what it took in."""
    try:
        return play(seed, number, packets).inputs
    except Exception:
        with keeping(Path(".recordings"), f"endless-{seed}-{number}") as keeper, suppress(Exception):
            play(seed, number, packets)
        print("\n".join(f"umux replay {path}" for path in keeper.paths), file=sys.stderr)
        raise


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
