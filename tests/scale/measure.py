"""Memory and pauses with very many sessions, by hand.

    python -m tests.scale.measure              100,000 sessions
    python -m tests.scale.measure 1000000      as many as you like; some 500 MB for a million

A pause is one call of the stack that took long: everything else waits for it. Closing the stack, which ends all at
once, does not count: nothing is left that could wait.
"""

import argparse
import sys
import time

from tests.scale.crowd import STEP, Crowd, host_collector, peak, resident
from umuxstack.core.units import NEVER, minutes


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.scale.measure", description="Memory and pauses at scale.")
    parser.add_argument("sessions", type=int, nargs="?", default=100_000)
    options = parser.parse_args(arguments)
    host_collector()
    crowd = Crowd()
    crowd.grow(2 * STEP)  # what is made once is made now
    crowd.sleep()
    host_collector()
    before, began = resident(), time.perf_counter()
    crowd.grow(options.sessions)
    crowd.sleep()
    took = time.perf_counter() - began
    used = resident() - before
    print(f"{len(crowd.held)} sessions, opened at {options.sessions / took:.0f} a second")
    print(f"{used / options.sessions:.0f} bytes each (resident); {peak() >> 20} MB was the most this process had")
    idle = crowd.rest(minutes(24 * 60))
    print(
        f"next deadline: {'never' if crowd.stack.next_deadline() == NEVER else 'there is one'}; {idle} wakes in a day"
    )
    asked = crowd.ask(10)
    crowd.sleep()
    each = (resident() - before) / options.sessions
    print(f"{asked} of them asked at one moment, and slept again: {each:.0f} bytes each")
    print("pauses:\n" + crowd.report())
    print(f"the longest: {max(crowd.slowest.values()):.1f} ms")
    crowd.close()
    left = {name: count for name, count in crowd.stack.leftovers().items() if count}
    print(f"closed; left behind: {left or 'nothing'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
