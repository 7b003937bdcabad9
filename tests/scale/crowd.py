"""A stack with very many established sessions, and a peer for all of them that remembers nothing.

The times of single calls are kept, so that a pause can be seen: of the processor, for another process's turn is no
pause of ours. Garbage is collected as a host does it (`umuxstack.driver.runtime`).
"""

import gc
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from benchmarks.core_alone import PEER, PORT, PREFIX, SEED, STEP, reply, resident, syn
from umuxstack.core.config import StackConfig
from umuxstack.core.entropy import Entropy
from umuxstack.core.listen.listen_0 import Listen0
from umuxstack.core.stack import Stack
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.units import NEVER, Micros, minutes, seconds

P = ParamSpec("P")
R = TypeVar("R")

PAUSE: Final = seconds(5)  # of the stack's clock, between a thousand sessions and the next
LONG: Final = 10.0  # milliseconds: pauses from here on are kept one by one
__all__ = ["PAUSE", "STEP", "Crowd", "host_collector", "peak", "resident"]


def host_collector() -> None:
    """Garbage is collected as a running host does it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 1_000)


def peak() -> int:
    """The most bytes that this process ever had in memory."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


class Crowd:
    """Opens sessions a thousand at a time, half as client from EAs, half as server on one-time SSAs."""

    def __init__(self) -> None:
        self.now = Micros(1)
        self.stack = Stack(StackConfig(prefix=PREFIX), Entropy(SEED), self.now)
        door = self.stack.listen(self.now, backlog=STEP)
        assert isinstance(door, Listen0)
        self.door = door
        self.held: list[TcpSession] = []  # what the application has
        self.calls: Counter[str] = Counter()
        self.slowest: dict[str, float] = {}  # milliseconds, by call
        self.long: list[tuple[str, int, float]] = []  # (call, sessions then, milliseconds)

    def timed(self, name: str, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        began = time.thread_time_ns()
        result = call(*args, **kwargs)
        elapsed = (time.thread_time_ns() - began) / 1e6
        self.calls[name] += 1
        if elapsed > self.slowest.get(name, 0.0):
            self.slowest[name] = elapsed
        if elapsed >= LONG:
            self.long.append((name, len(self.held), elapsed))
        return result

    def grow(self, count: int) -> None:
        """`count` more sessions, and the time in which the newest fall asleep."""
        for batch in range(count // STEP):
            if batch % 2:
                self._accept(STEP)
            else:
                self._connect(STEP)
            self.rest(PAUSE)

    def _connect(self, count: int) -> None:
        for _ in range(count):
            self.held.append(self.timed("connect", self.stack.connect, PEER, PORT, self.now))
            self._settle()

    def _accept(self, count: int) -> None:
        for _ in range(count):
            address = self.timed("das", self.stack.das, self.door, self.now, lifetime=NEVER).lease.address
            self.timed("receive", self.stack.receive, syn(address, PEER), 0, 0, True, self.now)
            self._settle()

    def _settle(self) -> None:
        stack, now = self.stack, self.now
        while output := self.timed("take_output", stack.take_output, now):
            for packet in filter(None, map(reply, output)):
                self.timed("receive", stack.receive, packet, 0, 0, True, now)
            for endpoint in stack.take_ready():
                if isinstance(endpoint, Listen0):
                    while (session := endpoint.accept()) is not None:
                        self.held.append(session)
                elif isinstance(endpoint, TcpSession):
                    endpoint.read(4096, now)
            stack.take_events()

    def rest(self, duration: int) -> int:
        """Time passes; how often the stack wanted to be called in it."""
        stack, until, wakes = self.stack, self.now + duration, 0
        while (due := stack.next_deadline()) <= until:
            self.now = Micros(max(due, self.now))
            self.timed("advance", stack.advance, self.now)
            self._settle()
            wakes += 1
        self.now = Micros(until)
        return wakes

    def sleep(self) -> None:
        """Until nothing is left to do."""
        self.rest(minutes(15))

    def ask(self, every: int) -> int:
        """One session in `every` asks, is answered, and falls asleep again; how many did."""
        asking = self.held[::every]
        for session in asking:
            session.write(b"?", self.now)
            self._settle()
        return len(asking)

    def close(self) -> None:
        """The stack closes everything; an hour later nothing is left."""
        self.timed("close", self.stack.close, self.now)
        self.held.clear()
        self._settle()
        self.rest(minutes(60))

    def report(self) -> str:
        lines = [
            f"  {name:<12} {self.calls[name]:>10} calls, the slowest {self.slowest[name]:7.2f} ms"
            for name in self.slowest
        ]
        lines += [f"  long: {name} with {sessions} sessions: {took:.1f} ms" for name, sessions, took in self.long[:40]]
        return "\n".join(lines)
