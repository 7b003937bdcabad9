"""Links without a kernel: hosts of one process joined by wires in memory.

For tests, and for demonstrations without root. Runs by any trio clock, so under
`MockClock` a slow wire takes no time. Invariant: a waiting reader wakes when a
packet is due, not when it is sent.
"""

from collections.abc import Callable, Sequence

import trio

from umuxstack.core.config import LinkCaps
from umuxstack.core.session.context import Outgoing
from umuxstack.core.units import NEVER, Micros
from umuxstack.driver.addresses import to_prefix
from umuxstack.driver.link import Packet
from umuxstack.driver.links.impair import Impairment
from umuxstack.driver.links.router import Port, Router


class MemoryLink:
    """One end. A `Link`; made by `memory_link_pair` and `MemoryRouter.attach`."""

    def __init__(self, network: "MemoryRouter", port: Port) -> None:
        self.caps = port.caps
        self.port = port
        self._network = network
        self._closed = False
        self._waiting = trio.lowlevel.ParkingLot()
        self._armed: Micros = NEVER  # until when the reader sleeps at most

    def read_batch(self, limit: int) -> list[Packet]:
        self._check()
        now = self._network.now()
        self._network.forward(now)
        return self.port.down.receive_due(now, limit)

    def write_batch(self, packets: Sequence[Outgoing]) -> int:
        """Takes all: like a real wire, it loses what nobody reads in time."""
        self._check()
        now = self._network.now()
        self._network.forward(now)
        router = self._network.router
        for outgoing in packets:
            router.send(self.port, outgoing, now)
        self._network.wake()
        return len(packets)

    async def wait_readable(self) -> None:
        waited = False
        while True:
            self._check()
            now = self._network.now()
            self._network.forward(now)
            due = self.port.down.next_due()
            if due <= now:
                break
            waited = True
            await self._sleep(Micros(min(due, self._network.router.next_forward())), now)
        if not waited:
            await trio.lowlevel.checkpoint()

    async def _sleep(self, until: Micros, now: Micros) -> None:
        """Until then, or until something earlier is under way."""
        self._armed = until
        try:
            if until >= NEVER:
                await self._waiting.park()
            else:
                with trio.move_on_after((until - now) / 1e6):
                    await self._waiting.park()
        finally:
            self._armed = NEVER

    async def wait_writable(self) -> None:
        self._check()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Packets for it go nowhere from now on; the other ends do not notice, as with a real wire. Idempotent."""
        self._closed = True
        self._network.detach(self)
        self._waiting.unpark_all()

    def wake_by(self, due: Micros) -> None:
        """Something is under way that comes at `due`."""
        if due < self._armed:
            self._waiting.unpark_all()

    def _check(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("the link is closed")


class MemoryRouter:
    """A routed network of any number of ends, by longest prefix match. `clock`: the time in seconds."""

    def __init__(self, *, clock: Callable[[], float] = trio.current_time, router: Router | None = None) -> None:
        self.router = router or Router()
        self._clock = clock
        self._links: dict[Port, MemoryLink] = {}

    def attach(
        self,
        *prefixes: str,
        caps: LinkCaps | None = None,
        from_host: Impairment | None = None,
        to_host: Impairment | None = None,
        name: str = "",
    ) -> MemoryLink:
        """A new end, to which `prefixes` ("2001:db8:1::/64", or single addresses) are routed.

        Raises LocalError for a prefix that is malformed, or routed to another end already.
        """
        packed = tuple(to_prefix(prefix) for prefix in prefixes)
        port = self.router.attach(
            name or f"link{len(self._links) + 1}", packed, caps or LinkCaps(), up=from_host, down=to_host
        )
        link = self._links[port] = MemoryLink(self, port)
        return link

    def detach(self, link: MemoryLink) -> None:
        """The end is gone."""
        self.router.detach(link.port)
        self._links.pop(link.port, None)

    def now(self) -> Micros:
        """Rounded to the nearest: a sleep until a packet is due must not end one microsecond early."""
        return Micros(int(self._clock() * 1e6 + 0.5))

    def forward(self, now: Micros) -> None:
        """Moves on what came up to the router by `now`, and wakes those it is for."""
        if self.router.next_forward() <= now:
            self.router.forward(now)
            self.wake()

    def wake(self) -> None:
        """Wakes readers that sleep longer than until their next packet."""
        for port in self.router.take_touched():
            link = self._links.get(port)
            if link is not None:
                link.wake_by(port.down.next_due())
        on_its_way_up = self.router.next_forward()
        if on_its_way_up < NEVER:
            for link in self._links.values():
                link.wake_by(on_its_way_up)


def memory_link_pair(
    impairment_a_to_b: Impairment | None = None,
    impairment_b_to_a: Impairment | None = None,
    caps: LinkCaps | None = None,
    clock: Callable[[], float] = trio.current_time,
) -> tuple[MemoryLink, MemoryLink]:
    """Two ends, `a` and `b`, of one wire: whatever is written at one is read at the other."""
    network = MemoryRouter(clock=clock, router=Router(point_to_point=True))
    a = network.attach(caps=caps, to_host=impairment_b_to_a, name="a")
    b = network.attach(caps=caps, to_host=impairment_a_to_b, name="b")
    return a, b
