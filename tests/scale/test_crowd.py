"""A hundred thousand established sessions in one process. Times and bytes are printed by `tests.scale.measure`; here
stands what must hold on any machine."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from benchmarks.core_alone import PEER
from tests.scale.crowd import STEP, Crowd
from umuxstack.core.network.endpoint import Endpoint
from umuxstack.core.timers import BATCH, Timers
from umuxstack.core.units import NEVER, Micros, millis, minutes, seconds

ROOT = Path(__file__).parents[2]
SESSIONS = 100_000
BYTES = 500  # for an idle session, half of them clients, half servers


def test_a_hundred_thousand_idle_sessions_take_at_most_500_bytes_each_and_no_time() -> None:
    """In a process of their own, so that nobody else's memory is counted. A million: `tests.scale.measure 1000000`."""
    done = subprocess.run(
        (sys.executable, "-m", "tests.scale.measure", str(SESSIONS)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    said = done.stdout
    assert f"{SESSIONS + 2 * STEP} sessions" in said
    each = int(said.split(" bytes each (resident)")[0].split()[-1])
    assert each <= BYTES, said
    assert "next deadline: never; 0 wakes in a day" in said
    assert "left behind: nothing" in said


def test_what_python_itself_counts_for_an_idle_session() -> None:
    """Of Python's own allocations; the same bound, with fewer sessions, as counting is slow."""
    crowd = Crowd()
    crowd.grow(2 * STEP)
    crowd.sleep()
    tracemalloc.start()
    try:
        crowd.grow(6 * STEP)
        crowd.sleep()
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used / (6 * STEP) <= BYTES
    assert all(session.asleep for session in crowd.held)
    assert crowd.stack.leftovers()["timers"] == 0


def test_sessions_that_were_all_busy_at_one_moment_do_not_all_have_their_turn_at_one_moment() -> None:
    """Ten thousand delayed ACKs were due at once, and one call of `advance` sent them all: 76 ms in which no packet was
    received. The same with the records of sessions that were closed together."""
    crowd = Crowd()
    crowd.grow(4 * STEP)
    crowd.sleep()
    assert crowd.ask(1) == 4 * STEP
    crowd.now += millis(500)  # type: ignore[assignment]  # the time at which all of their timers are due
    stack = crowd.stack
    calls = 0
    while stack.next_deadline() <= crowd.now:
        before = stack.counters.segments_out
        stack.advance(crowd.now)
        stack.take_output(crowd.now)
        assert stack.counters.segments_out - before <= 2 * BATCH
        calls += 1
    assert calls >= 4 * STEP // BATCH
    crowd.sleep()
    for session in crowd.held:
        session.abort(crowd.now)
    stack.take_output(crowd.now)
    crowd.now += minutes(2)  # type: ignore[assignment]
    records = stack.leftovers()["records"]
    assert records == 4 * STEP
    while records:
        stack.advance(crowd.now)
        left = stack.leftovers()["records"]
        assert 0 < records - left <= BATCH
        records = left
    crowd.sleep()
    assert stack.next_deadline() == NEVER


@pytest.mark.plain
def test_timers_that_nobody_wants_any_more_are_cleared_away_little_by_little() -> None:
    """A timer that is moved leaves its entry in the heap until it surfaces. Those of a hundred thousand sessions that
    had been answered at one moment all surfaced in one look for the next deadline: 276 ms."""

    class Sleeper(Endpoint):
        fired = 0

        def on_deadline(self, now: Micros) -> None:
            Sleeper.fired += 1

    timers = Timers()
    sleepers = [Sleeper() for _ in range(10 * BATCH)]
    for number, sleeper in enumerate(sleepers):
        timers.arm(sleeper, Micros(1000 + number))
        timers.arm(sleeper, NEVER)
    last = Sleeper()
    timers.arm(last, Micros(1_000_000))
    looks, at = 0, Micros(0)
    while (due := timers.next_deadline()) < 1_000_000:
        assert due >= at
        timers.expire(due)
        looks, at = looks + 1, due
    assert looks >= 5
    assert Sleeper.fired == 0
    timers.expire(Micros(999_999))
    assert Sleeper.fired == 0
    timers.expire(Micros(1_000_000))
    assert Sleeper.fired == 1
    assert timers.next_deadline() == NEVER


@pytest.mark.parametrize("awake", [1, 3000])
def test_sessions_are_packed_a_bounded_number_at_a_time(awake: int) -> None:
    crowd = Crowd()
    crowd.grow(4 * STEP)
    crowd.sleep()
    for session in crowd.held[:awake]:
        assert session.tcb.state_name == "ESTABLISHED"  # looking at it wakes it
    stack = crowd.stack
    asleep = sum(session.asleep for session in crowd.held)
    assert asleep == len(crowd.held) - awake
    crowd.now += seconds(10)  # type: ignore[assignment]
    for _ in range(1000):
        if stack.next_deadline() == NEVER:
            break
        crowd.now = max(crowd.now, stack.next_deadline())
        stack.advance(crowd.now)
        now_asleep = sum(session.asleep for session in crowd.held)
        assert now_asleep - asleep <= 256
        asleep = now_asleep
    assert asleep == len(crowd.held)


def test_the_end_of_the_stack_comes_in_steps() -> None:
    """All sessions were ended by one call: with a hundred thousand, two seconds in which nobody else had a turn."""
    crowd = Crowd()
    crowd.grow(2 * STEP)
    crowd.sleep()
    extra = [crowd.stack.connect(PEER, 80, crowd.now) for _ in range(10)]  # awake, and half-open
    crowd.stack.take_output(crowd.now)
    steps = resets = 0
    more = True
    while more:
        more = crowd.stack.end_some(crowd.now, 100)
        said = crowd.stack.take_output(crowd.now)
        assert len(said) <= 100
        assert len(crowd.stack.take_ready()) <= 100
        resets += len(said)
        steps += 1
    assert steps >= 20
    assert resets == 2 * STEP  # to a peer that has not answered yet nothing is said
    assert all(session.ended for session in crowd.held + extra)
    crowd.stack.close(crowd.now)
    assert crowd.stack.take_output(crowd.now) == []
    assert not any(count for name, count in crowd.stack.leftovers().items() if name != "timers")
