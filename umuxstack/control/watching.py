"""Events for one client: kept up to a bound while it is slow, and what it missed is counted."""

from collections import deque
from typing import Final

import trio

from umuxstack.core.events import Event
from umuxstack.driver.runtime import Host

SUBSCRIPTION: Final = 4096  # events that one batch of packets may cause before any is lost uncounted
BATCH: Final = 64  # events told in one message


class EventQueue:
    """Between the pump, which never waits, and a client that may."""

    __slots__ = ("_channel", "_closed", "_events", "_limit", "_lost", "_news")

    def __init__(self, host: Host, limit: int) -> None:
        self._channel = host.subscribe_events(SUBSCRIPTION)
        self._limit = limit
        self._events: deque[tuple[Event, int]] = deque()
        self._lost = 0
        self._closed = False
        self._news = trio.Event()

    async def fill(self, _scope: trio.CancelScope) -> None:
        """Takes events, those since construction included, until the host ends."""
        async with self._channel:
            async for event in self._channel:
                self.put(event)
        self._closed = True
        self._news.set()

    def put(self, event: Event) -> None:
        if len(self._events) >= self._limit:
            self._lost += 1
            return
        self._events.append((event, self._lost))
        self._lost = 0
        self._news.set()

    async def take(self) -> list[tuple[Event, int]]:
        """At least one event, each with the number of those lost before it; empty when there will be no more."""
        while not self._events and not self._closed:
            self._news = trio.Event()
            await self._news.wait()
        return [self._events.popleft() for _ in range(min(BATCH, len(self._events)))]
