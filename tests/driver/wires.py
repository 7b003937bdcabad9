"""A link whose troubles a test decides: it can go down, refuse output, lose packets, lie about being readable."""

from collections import deque
from collections.abc import Sequence
from errno import ENETDOWN

import trio

from umuxstack.core.config import LinkCaps
from umuxstack.core.network.offload import finish
from umuxstack.core.session.context import Outgoing
from umuxstack.driver.link import Packet


class FakeLink:
    """One end of a wire. What is written here is read at `other`: whole, or as plain packets, as `caps` says."""

    def __init__(self, caps: LinkCaps) -> None:
        self.caps = caps
        self.other: FakeLink | None = None
        self.inbox: deque[Packet] = deque()
        self.changed = trio.Event()
        self.down = False
        self.room = 1 << 30  # packets that it still takes
        self.loses = False
        self.always_readable = False
        self.closed = False
        self.reads = 0
        self.writes = 0
        self.headers: list[bytes] = []  # of everything that was written

    def change(self) -> None:
        """Something a waiter may want to look at."""
        self.changed.set()
        self.changed = trio.Event()

    def read_batch(self, limit: int) -> list[Packet]:
        self.reads += 1
        self._check()
        return [self.inbox.popleft() for _ in range(min(limit, len(self.inbox)))]

    def write_batch(self, packets: Sequence[Outgoing]) -> int:
        self.writes += 1
        self._check()
        taken = min(self.room, len(packets))
        self.room -= taken
        self.headers += [header for header, *_ in packets[:taken]]
        if self.other is not None and not self.loses:
            for outgoing in packets[:taken]:
                self.other.inbox.extend(self._carry(outgoing))
            self.other.change()
        return taken

    def _carry(self, outgoing: Outgoing) -> list[Packet]:
        header, payload, gso_size, csum_offset = outgoing
        if self.caps.segmentation:
            return [(header + bytes(payload), 0, gso_size, csum_offset > 0)]
        assert csum_offset == 0, "the pump gave an unfinished packet to a link without offload"
        return [(plain, 0, 0, False) for plain in finish(outgoing)]

    def _check(self) -> None:
        if self.down:
            raise OSError(ENETDOWN, "the test took the link down")

    async def wait_readable(self) -> None:
        while not (self.inbox or self.always_readable or self.down or self.closed):
            await self.changed.wait()
        await trio.lowlevel.checkpoint()

    async def wait_writable(self) -> None:
        while not (self.room or self.down or self.closed):
            await self.changed.wait()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        self.closed = True
        self.change()


def fake_wire(*, offload: bool = True) -> tuple[FakeLink, FakeLink]:
    """Two joined ends."""
    caps = LinkCaps(segmentation=offload, checksum=offload)
    left, right = FakeLink(caps), FakeLink(caps)
    left.other, right.other = right, left
    return left, right
