"""An imperfect wire: loss, delay, jitter, reordering, duplication, corruption, a bottleneck and its queue.

Sans-IO: time is an argument, randomness comes from the seed, so the same
packets at the same times suffer the same fate. One `Pipe` is one direction.
Invariant: without reordering, packets come out in the order they went in.
"""

from collections import deque
from random import Random
from typing import Final, TypeVar

import attrs

from umuxstack.core.errors import BadArgument
from umuxstack.core.network.offload import finish
from umuxstack.core.session.context import Outgoing
from umuxstack.core.units import NEVER, Micros, millis
from umuxstack.driver.link import Packet

_Int = TypeVar("_Int", bound=int)  # int or Micros

_ECN_MASK: Final = 0x30  # the two ECN bits in the second byte of an IPv6 header (RFC 3168 5, RFC 8200 7)


def _probability(instance: object, attribute: "attrs.Attribute[float]", value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise BadArgument(f"{attribute.name} is {value}; a probability is between 0 and 1")


def _not_negative(instance: object, attribute: "attrs.Attribute[_Int]", value: _Int) -> None:
    if value < 0:
        raise BadArgument(f"{attribute.name} is {value}; it cannot be negative")


@attrs.frozen(slots=True)
class Burst:
    """Loss in bursts (Gilbert-Elliott): two states, one change of state tried per packet.

    The mean length of a bad stretch is 1/leave packets; the share of bad packets enter/(enter + leave). A bad stretch
    ends by packets, not by time: who only sends a retransmission now and then stays in it for long.
    """

    enter: float = attrs.field(validator=_probability)  # from good to bad
    leave: float = attrs.field(validator=_probability)  # from bad to good
    loss: float = attrs.field(default=1.0, validator=_probability)  # while bad; while good, `Impairment.loss` holds


@attrs.frozen(slots=True, kw_only=True)
class Impairment:
    """What a wire does to packets. Probabilities are per packet, times microseconds. The default is a perfect wire."""

    loss: float = attrs.field(default=0.0, validator=_probability)
    burst: Burst | None = None
    delay: Micros = attrs.field(default=Micros(0), validator=_not_negative)
    jitter: Micros = attrs.field(default=Micros(0), validator=_not_negative)  # adds 0 … jitter; the order is kept
    reorder: float = attrs.field(default=0.0, validator=_probability)  # the packet is overtaken …
    displacement: int = attrs.field(default=3, validator=_not_negative)  # … by this many later ones …
    reorder_wait: Micros = attrs.field(default=millis(10), validator=_not_negative)  # … but waits no longer than this
    duplicate: float = attrs.field(default=0.0, validator=_probability)
    corrupt: float = attrs.field(default=0.0, validator=_probability)  # one bit, anywhere in the packet
    mark: float = attrs.field(default=0.0, validator=_probability)  # ECN-capable packets become "CE" (RFC 3168)
    rate: int = attrs.field(default=0, validator=_not_negative)  # bits per second of IPv6 packets; 0: no bottleneck
    queue_packets: int = attrs.field(default=0, validator=_not_negative)  # before the bottleneck; 0: no limit
    queue_bytes: int = attrs.field(default=0, validator=_not_negative)
    seed: int = 0

    def __attrs_post_init__(self) -> None:
        if (self.queue_packets or self.queue_bytes) and not self.rate:
            raise BadArgument("a queue limit needs a rate: without one nothing ever waits")

    @property
    def touches_packets(self) -> bool:
        """Whether single packets have a fate of their own, so that super-segments must be cut."""
        return bool(
            self.loss
            or self.burst
            or self.reorder
            or self.duplicate
            or self.corrupt
            or self.mark
            or self.rate
            or self.jitter
        )


PERFECT: Final = Impairment()


@attrs.frozen(slots=True)
class PipeStatistics:
    """What happened to the packets of one direction. `sent` counts what went in, `delivered` what came out."""

    sent: int
    delivered: int
    lost: int
    queue_drops: int
    corrupted: int
    duplicated: int
    reordered: int
    marked: int


class Pipe:
    """One direction of a wire.

    `name` is mixed into the seed, so that two directions with one `Impairment` do not lose the same packets.
    `whole`: whoever reads takes super-segments and unfinished checksums; they pass uncut while the wire touches no
    single packets.
    """

    __slots__ = (
        "_bad",
        "_busy_until",
        "_corrupted",
        "_delivered",
        "_departures",
        "_duplicated",
        "_held",
        "_impairment",
        "_last_due",
        "_lost",
        "_marked",
        "_passed",
        "_queue",
        "_queue_drops",
        "_queued_bytes",
        "_random",
        "_reordered",
        "_sent",
        "_touching",
        "_whole",
    )

    def __init__(self, impairment: Impairment = PERFECT, *, name: str = "", whole: bool = False) -> None:
        self._random = Random(f"{impairment.seed} {name}").random  # noqa: S311  a simulation, not a secret
        self._whole = whole
        self._queue: deque[tuple[Micros, Packet]] = deque()  # (due, packet), due never falls
        self._held: list[tuple[int, Micros, Packet]] = []  # overtaken: (`_passed` that frees it, at latest, packet)
        self._departures: deque[tuple[int, int]] = (
            deque()
        )  # (nanosecond its last bit leaves, bytes), bottleneck's queue
        self._queued_bytes = 0
        self._busy_until = 0  # nanoseconds; rates need a finer unit than the packets' times
        self._bad = False  # Gilbert-Elliott state
        self._last_due = Micros(0)
        self._sent = self._passed = self._delivered = self._lost = self._queue_drops = 0
        self._corrupted = self._duplicated = self._reordered = self._marked = 0
        self.change(impairment)

    def change(self, impairment: Impairment) -> None:
        """The wire gets better or worse from now on; packets under way keep their times. The seed is not used again."""
        self._impairment = impairment
        self._touching = impairment.touches_packets

    @property
    def impairment(self) -> Impairment:
        return self._impairment

    def send(self, packet: bytes, now: Micros) -> None:
        """A finished packet goes in."""
        self._put((packet, 0, 0, False), len(packet), now)

    def send_outgoing(self, outgoing: Outgoing, now: Micros) -> None:
        """What a stack gave out goes in: whole if that is allowed and makes no difference, else as finished packets."""
        if self._whole and not self._touching:
            header, payload, gso_size, csum_offset = outgoing
            packet = b"".join((header, payload)) if payload else header
            self._put((packet, 0, gso_size, csum_offset != 0), len(packet), now)
        else:
            for packet in finish(outgoing):
                self._put((packet, 0, 0, False), len(packet), now)

    def _put(self, item: Packet, size: int, now: Micros) -> None:
        self._sent += 1
        if self._touching:
            self._touch(item, size, now)
        else:
            self._deliver_at(Micros(now + self._impairment.delay), item)

    def _touch(self, item: Packet, size: int, now: Micros) -> None:
        """Bottleneck, then the wire behind it."""
        fate, random = self._impairment, self._random
        departs = now
        if fate.rate:
            left = self._enqueue(size, now)
            if left is None:
                self._queue_drops += 1
                return
            departs = left
        if self._is_lost():
            self._lost += 1
            return
        if fate.corrupt and random() < fate.corrupt:
            item = self._corrupt(item)
        if fate.mark and random() < fate.mark:
            item = self._mark(item)
        due = Micros(departs + fate.delay)
        if fate.jitter:
            due = Micros(due + int(random() * (fate.jitter + 1)))
        if fate.reorder and random() < fate.reorder:
            self._reordered += 1
            self._held.append((self._passed + fate.displacement, Micros(due + fate.reorder_wait), item))
            return
        self._deliver_at(due, item)
        if fate.duplicate and random() < fate.duplicate:
            self._duplicated += 1
            self._deliver_at(due, item)

    def _deliver_at(self, due: Micros, item: Packet) -> None:
        if due < self._last_due:
            due = self._last_due
        self._last_due = due
        self._passed += 1
        self._queue.append((due, item))
        if self._held:
            self._free_overtaken()

    def _enqueue(self, size: int, now: Micros) -> Micros | None:
        """When the packet has left the bottleneck, or None if its queue was full."""
        fate, departures = self._impairment, self._departures
        now_nanos = now * 1000
        while departures and departures[0][0] <= now_nanos:
            self._queued_bytes -= departures.popleft()[1]
        if fate.queue_packets and len(departures) >= fate.queue_packets:
            return None
        if fate.queue_bytes and self._queued_bytes + size > fate.queue_bytes:
            return None
        start = max(self._busy_until, now_nanos)
        self._busy_until = start + size * 8_000_000_000 // fate.rate
        departures.append((self._busy_until, size))
        self._queued_bytes += size
        return Micros(-(-self._busy_until // 1000))

    def _is_lost(self) -> bool:
        fate, random = self._impairment, self._random
        burst = fate.burst
        if burst is not None:
            if random() < (burst.leave if self._bad else burst.enter):
                self._bad = not self._bad
            if self._bad:
                return random() < burst.loss
        return fate.loss > 0.0 and random() < fate.loss

    def _corrupt(self, item: Packet) -> Packet:
        self._corrupted += 1
        damaged = bytearray(item[0])
        bit = int(self._random() * len(damaged) * 8)
        damaged[bit >> 3] ^= 1 << (bit & 7)
        return bytes(damaged), 0, 0, False

    def _mark(self, item: Packet) -> Packet:
        packet = item[0]
        if not packet[1] & _ECN_MASK:  # RFC 3168 5: a not ECN-capable packet must not be marked
            return item
        self._marked += 1
        return packet[:1] + bytes((packet[1] | _ECN_MASK,)) + packet[2:], 0, 0, False

    def _free_overtaken(self) -> None:
        """Packets that have been overtaken by enough others follow the last of those."""
        free = [entry for entry in self._held if entry[0] <= self._passed]
        if free:
            self._held = [entry for entry in self._held if entry[0] > self._passed]
            self._queue.extend((self._last_due, item) for _, _, item in free)

    def receive_due(self, now: Micros, limit: int = 1 << 30) -> list[Packet]:
        """What has arrived by `now`, in order of arrival, at most `limit` packets."""
        if self._held:
            self._release_waiting(now)
        queue = self._queue
        if not queue or queue[0][0] > now:
            return []
        arrived: list[Packet] = []
        while queue and queue[0][0] <= now and len(arrived) < limit:
            arrived.append(queue.popleft()[1])
        self._delivered += len(arrived)
        return arrived

    def _release_waiting(self, now: Micros) -> None:
        """Nobody overtook them in time: they arrive after all, behind what arrived before their time was up."""
        late = [entry for entry in self._held if entry[1] <= now]
        if late:
            self._held = [entry for entry in self._held if entry[1] > now]
            merged = list(self._queue) + [(at_latest, item) for _, at_latest, item in late]
            self._queue = deque(sorted(merged, key=lambda entry: entry[0]))
            self._last_due = max(self._last_due, self._queue[-1][0])

    def next_due(self) -> Micros:
        """When `receive_due` has something; NEVER if nothing is under way."""
        due = self._queue[0][0] if self._queue else NEVER
        return Micros(min(due, *(entry[1] for entry in self._held))) if self._held else due

    def __len__(self) -> int:
        """Packets under way."""
        return len(self._queue) + len(self._held)

    def statistics(self) -> PipeStatistics:
        return PipeStatistics(
            sent=self._sent,
            delivered=self._delivered,
            lost=self._lost,
            queue_drops=self._queue_drops,
            corrupted=self._corrupted,
            duplicated=self._duplicated,
            reordered=self._reordered,
            marked=self._marked,
        )
