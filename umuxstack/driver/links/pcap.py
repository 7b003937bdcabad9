"""A tap around any link: everything that passes goes into a pcapng file as well.

What was received says why it was dropped, if it was; sessions' moments stand as
comments on the packets that caused them, and addresses carry the names of their
leases ("ea.1"). A super-segment is one packet with a right checksum, as it
crossed the link. Invariant: whatever happens to the file, the link works on.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Final, Protocol

import trio

from umuxstack.core.config import LinkCaps
from umuxstack.core.errors import Drop, Reason
from umuxstack.core.events import Event, EventKind
from umuxstack.core.network.offload import finish
from umuxstack.core.session.context import Outgoing
from umuxstack.core.stack import Stack
from umuxstack.core.units import TCP, UDP
from umuxstack.core.wire import ipv6, tcp, udp
from umuxstack.core.wire.checksum import internet_checksum
from umuxstack.driver.link import Link, Packet
from umuxstack.driver.links import pcapng
from umuxstack.driver.links.pcapng import INBOUND, OUTBOUND, Sink

logger = logging.getLogger("umuxstack")

_CHECKSUM_AT: Final = {TCP: ipv6.HEADER + tcp.CHECKSUM, UDP: ipv6.HEADER + udp.CHECKSUM}
_NOTES: Final = 100  # comments that wait for a packet
_EVENTS: Final = 4096


class Followed(Protocol):
    """A host, as far as a capture wants to know it."""

    @property
    def stack(self) -> Stack: ...

    def subscribe_events(self, limit: int) -> "trio.MemoryReceiveChannel[Event]": ...


class _Captured:
    """A packet that is about to be written."""

    __slots__ = ("comments", "data", "direction", "nanos")

    def __init__(self, data: bytes, nanos: int, direction: int) -> None:
        self.data = data
        self.nanos = nanos
        self.direction = direction
        self.comments: list[str] = []

    def concerns(self, address: bytes) -> bool:
        return address in (self.data[8:24], self.data[24:40])


class PcapLink:
    """A `Link` around `link`; what passes is captured into `sink`.

    `clock`: nanoseconds since 1970. After `follow` packets carry comments and names; they are written when the
    stack has dealt with them, before anything else runs. Closing the link closes the capture.
    """

    def __init__(self, link: Link, sink: Sink, *, name: str = "umux", clock: Callable[[], int] = time.time_ns) -> None:
        """Raises OSError if the sink takes nothing."""
        self.captured = 0
        self.left_out = 0  # packets for which a slow reader left no room
        self.error: OSError | None = None  # what ended the capture before the link
        self._link = link
        self._sink = sink
        self._clock = clock
        self._pending: list[_Captured] = []
        self._notes: list[str] = []
        self._unreported = 0  # left out since the last packet in the file
        self._closed = False
        self._token: trio.lowlevel.TrioToken | None = None
        self._events: trio.MemoryReceiveChannel[Event] | None = None
        self._drops: list[int] | None = None
        sink.write(pcapng.header(name, description="a umuxstack link"))
        sink.flush()

    def follow(self, host: Followed) -> None:
        """From now on packets say what `host`, the one on this link, made of them."""
        self._token = trio.lowlevel.current_trio_token()
        self._events = host.subscribe_events(_EVENTS)
        self._drops = host.stack.counters.drops
        self._name({lease.address: lease.name for lease in host.stack.leases()})

    def comment(self, text: str) -> None:
        """A remark of the operator's, on the next packet that passes."""
        if len(self._notes) < _NOTES:
            self._notes.append(text)

    # The link

    @property
    def caps(self) -> LinkCaps:
        return self._link.caps

    def read_batch(self, limit: int) -> list[Packet]:
        packets = self._link.read_batch(limit)
        if not packets or self.error is not None:
            return packets
        nanos = self._clock()
        captured = [self._capture(_received(packet), nanos, INBOUND) for packet in packets]
        self._written_soon()
        return packets if self._drops is None else _Observed(packets, captured, self._drops)

    def write_batch(self, packets: Sequence[Outgoing]) -> int:
        try:
            taken = self._link.write_batch(packets)
        except OSError as error:
            self._sent(packets[: getattr(error, "taken", 0)])
            raise
        self._sent(packets[:taken])
        return taken

    def _sent(self, packets: Sequence[Outgoing]) -> None:
        if packets and self.error is None:
            nanos = self._clock()
            for header, payload, _, csum_offset in packets:
                (whole,) = finish((header, payload, 0, csum_offset))
                self._capture(whole, nanos, OUTBOUND)
            self._written_soon()

    async def wait_readable(self) -> None:
        await self._link.wait_readable()

    async def wait_writable(self) -> None:
        await self._link.wait_writable()

    def close(self) -> None:
        self._link.close()
        if self._closed:
            return
        self._closed = True
        self.flush()
        try:
            if self.error is None:
                self._sink.write(pcapng.statistics(self._clock(), self.captured + self.left_out, self.left_out))
            self._sink.close()
        except OSError as error:
            self._fail(error)

    # The capture

    def _capture(self, data: bytes, nanos: int, direction: int) -> _Captured:
        captured = _Captured(data, nanos, direction)
        if self._notes:
            captured.comments, self._notes = self._notes, []
        self._pending.append(captured)
        return captured

    def _written_soon(self) -> None:
        """At once; or, when packets are to be explained, as soon as the stack's turn is over."""
        if self._token is None:
            self.flush()
        else:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self.flush, idempotent=True)

    def flush(self) -> None:
        """Writes what has passed, with what has become known about it."""
        self._take_events()
        pending, self._pending = self._pending, []
        if self.error is not None:
            return
        sink = self._sink
        for captured in pending:
            if not sink.has_room:
                self.left_out += 1
                self._unreported += 1
                continue
            sink.write(
                pcapng.packet(captured.data, captured.nanos, captured.direction, captured.comments, self._unreported)
            )
            self.captured += 1
            self._unreported = 0
        try:
            sink.flush()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        self.error = error
        logger.warning("umuxstack: the capture ended: %s", error)

    def _take_events(self) -> None:
        if self._events is None:
            return
        try:
            while True:
                self._on_event(self._events.receive_nowait())
        except trio.WouldBlock:
            pass
        except (trio.EndOfChannel, trio.ClosedResourceError):
            self._events = None

    def _on_event(self, event: Event) -> None:
        """Names the address; puts the moment on the packet that caused it, that it caused, or that comes next."""
        if event.kind == EventKind.LEASE_OPENED and event.address is not None:
            self._name({event.address: event.name})
        text = f"{event.name}: {event.kind.value.replace('_', ' ')}"
        if event.reason != Reason.NONE:
            text += f" ({event.reason.name.lower()})"
        if event.address is not None:
            concerned = [captured for captured in self._pending if captured.concerns(event.address)]
            cause = next(
                (c for c in reversed(concerned) if c.direction == INBOUND), concerned[-1] if concerned else None
            )
            if cause is not None:
                cause.comments.append(text)
                return
        if self._pending:
            self._pending[0].comments.append(text)
        else:
            self.comment(text)

    def _name(self, names: dict[bytes, str]) -> None:
        if names and self.error is None and self._sink.has_room:
            self._sink.write(pcapng.names(names))


class _Observed(list[Packet]):
    """A batch that notices, packet by packet, what the stack dropped: exact without a word from the stack."""

    __slots__ = ("_captured", "_drops")

    def __init__(self, packets: list[Packet], captured: list[_Captured], drops: list[int]) -> None:
        super().__init__(packets)
        self._captured = captured
        self._drops = drops

    def __iter__(self) -> Iterator[Packet]:
        drops = self._drops
        before = drops[:]
        for captured, packet in zip(self._captured, super().__iter__(), strict=True):
            yield packet
            if drops != before:
                captured.comments += [
                    f"dropped: {reason.name.lower()}" for reason in Drop if drops[reason] != before[reason]
                ]
                before = drops[:]


def _received(packet: Packet) -> bytes:
    """The packet as it would be on a wire: a checksum that the link vouched for may not be in it yet."""
    buf, base, _, csum_ok = packet
    data = buf[base:] if base else buf
    at = _CHECKSUM_AT.get(data[6]) if csum_ok and len(data) > ipv6.HEADER else None
    if at is None or len(data) < at + 2:
        return data
    message = b"".join((data[ipv6.HEADER : at], b"\0\0", data[at + 2 :]))
    value = internet_checksum(data[ipv6.SOURCE : ipv6.PAIR_END], data[6], message)
    if value == 0 and data[6] == UDP:
        value = 0xFFFF
    return b"".join((data[:at], value.to_bytes(2, "big"), data[at + 2 :]))
