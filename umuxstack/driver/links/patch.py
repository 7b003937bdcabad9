"""A patch cable between two links, with the faults one asks for.

Two TUN devices joined this way are a network on which kernels can be impaired
where the kernel has no netem. Sans stack: packets pass, none is understood
further than its checksum offload needs. Invariant: what `Pipe` does to them is
all that happens to them.
"""

import errno
from collections.abc import Callable
from typing import Final

import trio

from umuxstack.core.session.context import Outgoing
from umuxstack.core.units import NEVER, TCP, UDP, Micros
from umuxstack.driver.link import Link, Packet
from umuxstack.driver.links.impair import PERFECT, Impairment, Pipe, PipeStatistics

_BATCH: Final = 64
_NEEDS_CHECKSUM: Final = 1  # flag in the virtio-net header that precedes the packet
_TCP: Final = bytes((TCP,))  # as a next header
_UDP: Final = bytes((UDP,))
_DOWN_PAUSE: Final = 0.05  # seconds, before a link that is down is tried again


class Patch:
    """Joins `a` and `b`; `run` carries packets until cancelled."""

    def __init__(
        self,
        a: Link,
        b: Link,
        *,
        a_to_b: Impairment = PERFECT,
        b_to_a: Impairment = PERFECT,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        """`clock` in seconds. Super-segments pass whole while nothing is done to single packets."""
        self._ends = (a, b)
        whole = all(link.caps.segmentation and link.caps.checksum for link in self._ends)
        self.pipes = (Pipe(a_to_b, name="a-b", whole=whole), Pipe(b_to_a, name="b-a", whole=whole))
        self._clock = clock
        self.dropped_link_down = 0

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._carry, self._ends[0], self._ends[1], self.pipes[0])
            nursery.start_soon(self._carry, self._ends[1], self._ends[0], self.pipes[1])

    def statistics(self) -> tuple[PipeStatistics, PipeStatistics]:
        """From a to b, from b to a."""
        return self.pipes[0].statistics(), self.pipes[1].statistics()

    async def _carry(self, source: Link, target: Link, pipe: Pipe) -> None:
        while True:
            try:
                batch = source.read_batch(_BATCH)
            except OSError as error:
                if error.errno not in (errno.ENETDOWN, errno.EIO, errno.EBADFD):
                    raise
                await trio.sleep(_DOWN_PAUSE)
                continue
            now = Micros(int(self._clock() * 1_000_000))
            for packet in batch:
                pipe.send_outgoing(as_outgoing(packet), now)
            arrived = pipe.receive_due(now)
            if arrived:
                await self._deliver(target, [_for_link(packet) for packet in arrived])
            if batch:
                await trio.lowlevel.checkpoint()
                continue
            due = pipe.next_due()
            if due >= NEVER:
                await source.wait_readable()
            else:
                with trio.move_on_after(max(due / 1_000_000 - self._clock(), 0)):
                    await source.wait_readable()

    async def _deliver(self, target: Link, packets: list[Outgoing]) -> None:
        while packets:
            try:
                taken = target.write_batch(packets)
            except OSError:
                self.dropped_link_down += len(packets)
                return
            packets = packets[taken:]
            if packets:
                await target.wait_writable()


def as_outgoing(packet: Packet) -> Outgoing:
    """A packet as a link gave it, in the form that links take.

    A packet whose sender left the checksum to the device holds the pseudo-header's sum in its place.
    """
    buf, base, gso_size, csum_ok = packet
    partial = bool(gso_size) or (csum_ok and (base == 0 or bool(buf[0] & _NEEDS_CHECKSUM)))
    return _split(buf[base:] if base else buf, gso_size, partial)


def _for_link(packet: Packet) -> Outgoing:
    """What a pipe delivers; there `csum_ok` means that the checksum is still to be completed."""
    buf, base, gso_size, partial = packet
    return _split(buf[base:] if base else buf, gso_size, partial)


def _split(data: bytes, gso_size: int, partial: bool) -> Outgoing:
    if partial:
        if data[6:7] == _TCP and len(data) >= 60:
            header = 40 + (data[52] >> 4) * 4
            return data[:header], memoryview(data)[header:], gso_size, 16
        if data[6:7] == _UDP and len(data) >= 48:
            return data, b"", 0, 6
    return data, b"", 0, 0
