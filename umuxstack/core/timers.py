"""One heap of deadlines for the whole stack, repaired lazily.

An endpoint carries its wanted `deadline` and the time for which it stands in
the heap, `armed`. Moving a deadline later touches only the attribute; the
stale heap entry re-queues itself when it surfaces. Invariant: an endpoint with
a deadline stands in the heap at that time or earlier.
"""

from heapq import heappop, heappush
from typing import Final

from umuxstack.core.network.endpoint import Endpoint
from umuxstack.core.units import NEVER, Micros

BATCH: Final = 512  # entries looked at in one go: packets do not wait long for sessions that were busy at one moment


class Timers:
    """The stack's only source of "call me later"."""

    __slots__ = ("_heap", "_serial")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Endpoint]] = []
        self._serial = 0

    def arm(self, endpoint: Endpoint, deadline: Micros) -> None:
        """Wants `endpoint.on_deadline` at `deadline` (NEVER: not at all)."""
        endpoint.deadline = deadline
        if deadline < endpoint.armed:
            endpoint.armed = deadline
            self._serial += 1
            heappush(self._heap, (deadline, self._serial, endpoint))

    def is_due(self, now: Micros) -> bool:
        """Whether `expire` has something to do at `now`, be it only to repair the heap."""
        heap = self._heap
        return bool(heap) and heap[0][0] <= now

    def next_deadline(self) -> Micros:
        """When `expire` has something to do next. May be early, for entries that are stale; never late."""
        heap = self._heap
        for _ in range(BATCH):
            if not heap:
                return NEVER
            when, _, endpoint = heap[0]
            if when != endpoint.armed:  # superseded by an earlier entry, or already served
                heappop(heap)
            elif endpoint.deadline > when:
                self._requeue()
            else:
                return Micros(when)
        return Micros(heap[0][0]) if heap else NEVER

    def _requeue(self) -> None:
        endpoint = heappop(self._heap)[2]
        endpoint.armed = NEVER
        if endpoint.deadline < NEVER:
            self.arm(endpoint, endpoint.deadline)

    def expire(self, now: Micros) -> None:
        """Calls `on_deadline` of the endpoints that are due at `now`; at most `BATCH` of them, the rest stays due."""
        heap = self._heap
        for _ in range(BATCH):
            if not heap or heap[0][0] > now:
                return
            when, _, endpoint = heap[0]
            if when == endpoint.armed and endpoint.deadline <= when:
                heappop(heap)
                endpoint.armed = endpoint.deadline = NEVER
                endpoint.on_deadline(now)
            elif when == endpoint.armed:
                self._requeue()
            else:
                heappop(heap)

    def __len__(self) -> int:
        """Endpoints that still want to be called (stale entries are not counted)."""
        return sum(1 for when, _, e in self._heap if when == e.armed and e.deadline < NEVER)
