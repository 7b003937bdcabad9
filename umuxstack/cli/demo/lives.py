"""Which address lived when: from the events of the stacks, as a table and as a timeline."""

from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv6Address
from math import ceil
from typing import Any, Final

import attrs
import trio

from umuxstack.core.events import Event, EventKind
from umuxstack.driver.runtime import Host

_COLUMNS: Final = 64
_STEPS: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # seconds between marks of the scale
WAITING, SESSION, RETIRING = ".", "#", "~"


@attrs.define
class Life:
    """One address, from event to event; seconds since the story began, None for what did not happen."""

    name: str
    host: str
    address: str
    label: str
    opened: float
    established: float | None = None
    retiring: float | None = None
    ended: float | None = None
    peer: str = ""
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            key: round(value, 4) if isinstance(value, float) else value for key, value in attrs.asdict(self).items()
        }


class Watcher:
    """Collects the events of one host from now on. `began`: trio's time at which the story's begins."""

    def __init__(self, name: str, host: Host, began: float) -> None:
        self._name = name
        self._shift = trio.current_time() - host.now() / 1e6 - began
        self._events = host.subscribe_events(10_000)
        self.lives: dict[str, Life] = {}

    def look(self) -> list[Life]:
        """The lives so far, in order of birth."""
        while True:
            try:
                event = self._events.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                return list(self.lives.values())
            self._on(event)

    def close(self) -> None:
        self._events.close()

    def _on(self, event: Event) -> None:
        at = event.time / 1e6 + self._shift
        if event.kind == EventKind.LEASE_OPENED and event.address is not None:
            self.lives[event.name] = Life(event.name, self._name, str(IPv6Address(event.address)), event.label, at)
        life = self.lives.get(event.name)
        if life is None:
            return
        if event.kind == EventKind.SESSION_ESTABLISHED:
            life.established = at
        elif event.kind == EventKind.LEASE_RETIRING:
            life.retiring = at
        elif event.kind == EventKind.SESSION_ENDED:
            life.reason = event.reason.name.lower()
        elif event.kind == EventKind.LEASE_ENDED:
            life.ended = at
            if life.retiring is None and life.established is None:
                life.reason = life.reason or event.reason.name.lower()
        if event.peer is not None:
            life.peer = str(IPv6Address(event.peer))


def table(lives: Sequence[Life], others: Mapping[str, str]) -> list[str]:
    """Aligned lines: who, from when to when, with whom. `others`: names of addresses that are nobody's lease here."""
    names = {**others, **{life.address: life.name for life in lives}}
    rows = [("ADDRESS OF", "LEASE", "LIVED", "", "WITH", "ENDED BY", "ADDRESS")]
    for life in lives:
        ended = "now" if life.ended is None else f"{life.ended:.2f} s"
        span = "" if life.ended is None else f"{life.ended - life.opened:6.2f} s"
        who = f"{life.host}, {life.label}" if life.label else life.host
        rows.append(
            (
                who,
                life.name,
                f"{life.opened:5.2f} - {ended}",
                span,
                names.get(life.peer, life.peer) or "nobody",
                life.reason,
                life.address,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def timeline(lives: Sequence[Life], until: float) -> list[str]:
    """A line for each address over the story's `until` seconds."""
    step = next((step for step in _STEPS if until / step <= 10), _STEPS[-1])
    span = max(ceil(until / step), 1) * step
    width = max((len(life.name) for life in lives), default=0)

    def column(at: float) -> int:
        return min(int(at / span * _COLUMNS), _COLUMNS - 1)

    lines = [f"{life.name:{width}}  {_bar(life, until, column)}".rstrip() for life in lives]
    marks = [round(index * step, 1) for index in range(round(span / step) + 1)]
    scale = [" "] * (_COLUMNS + 8)
    ruler = ["-"] * (_COLUMNS + 1)
    for mark in marks:
        at = round(mark / span * _COLUMNS)
        ruler[at] = "+"
        scale[at : at + 4] = f"{mark:g}".ljust(4)
    return [*lines, f"{'':{width}}  {''.join(ruler)}", f"{'':{width}}  {''.join(scale).rstrip()} s"]


def _bar(life: Life, until: float, column: Callable[[float], int]) -> str:
    cells = [" "] * _COLUMNS
    ended = until if life.ended is None else life.ended
    established = ended if life.established is None else life.established
    retiring = ended if life.retiring is None else life.retiring
    for mark, start, stop in (
        (WAITING, life.opened, min(established, retiring)),
        (SESSION, established, retiring),
        (RETIRING, retiring, ended),
    ):
        if stop > start:
            for index in range(column(start), column(stop) + 1):
                cells[index] = mark
    if life.established is not None:
        # A session can be shorter than a column: it is seen all the same.
        cells[column(life.established)] = SESSION
    return "".join(cells)
