"""Trio's time as the stack's: integer microseconds since the host started.

Works with any trio clock, MockClock included. Invariant: when trio says that a
deadline made by `to_trio` has come, `now` is at that deadline or later (both
round to the nearest microsecond; a truncated `now` would spin under MockClock).
"""

from math import inf

import trio

from umuxstack.core.units import NEVER, Micros


class Clock:
    """Converts between trio's seconds and microseconds whose zero is this object's birth."""

    __slots__ = ("_origin",)

    def __init__(self) -> None:
        self._origin = trio.current_time()

    def now(self) -> Micros:
        return Micros(int((trio.current_time() - self._origin) * 1e6 + 0.5))

    def to_trio(self, deadline: Micros) -> float:
        """`deadline` in trio's seconds; infinity for NEVER."""
        return inf if deadline >= NEVER else self._origin + deadline / 1e6
