"""What RFC 9293 and 4443 answer to a packet that nobody expects.

Used for shared (legacy) addresses, and for all of the prefix when the silence
of UM-31 is switched off. ICMPv6 errors are rate-limited (RFC 4443 2.4 (f)).
"""

# UM-30; 4443-3.1-3, 4443-3.1-4, 4443-3.1-6, 8504-5.2-9

from collections import OrderedDict
from typing import Final

from umuxstack.core.errors import Drop
from umuxstack.core.legacy.knocks import Knocks
from umuxstack.core.network.ingress import Nobody
from umuxstack.core.session.context import Context
from umuxstack.core.tcp.seq import MASK
from umuxstack.core.units import ICMPV6, TCP, UDP, Address, Micros
from umuxstack.core.wire import extension, icmpv6
from umuxstack.core.wire import tcp as wire
from umuxstack.core.wire.checksum import checksum_ok, pseudo_sum

_REDIRECT: Final = 137


class ErrorLimit:
    """A token bucket for ICMPv6 errors, for the whole stack (4443-2.4-12 to 4443-2.4-14)."""

    __slots__ = ("_at", "_depth", "_interval")

    def __init__(self, rate: int, burst: int) -> None:
        """`rate` errors a second on average, 0: none at all; `burst` at once."""
        self._interval = 1_000_000 // rate if rate else 0
        self._depth = burst * self._interval
        self._at = -self._depth  # full from the start, whatever the clock's zero

    def allows(self, now: Micros) -> bool:
        at = max(self._at, now - self._depth) + self._interval
        if at > now or not self._interval:
            return False
        self._at = at
        return True


def refuse_segment(ctx: Context, buf: bytes, base: int, offset: int, end: int, csum_ok: bool) -> None:
    """RFC 9293 3.10.7.1: "An incoming segment not containing a RST causes a RST to be sent in response"."""
    if end - offset < wire.HEADER or (not csum_ok and not checksum_ok(buf, base, offset, end, TCP)):
        ctx.drop(Drop.BAD_CHECKSUM)
        return
    sport, dport, seq, ack, bits, _, _, _ = wire.FIELDS.unpack_from(buf, offset)
    if bits & wire.RST:
        return
    header = (bits >> 12) * 4
    if not 20 <= header <= end - offset or not sport or not dport:  # port 0 is nobody's (RFC 6335 6)
        ctx.drop(Drop.BAD_HEADER)
        return
    remote, local = buf[base + 8 : base + 24], buf[base + 24 : base + 40]
    if bits & wire.ACK:
        number, answer, flags = ack, 0, wire.RST
    else:
        length = end - offset - header + bool(bits & wire.SYN) + bool(bits & wire.FIN)
        number, answer, flags = 0, (seq + length) & MASK, wire.RST | wire.ACK
    reset = wire.build(
        0x60000000, 20, TCP, ctx.config.hop_limit, local, remote, dport, sport, number, answer,
        0x5000 | flags, 0, pseudo_sum(local + remote, 20, TCP), 0,
    )  # fmt: skip
    ctx.queue_for(remote).append((reset, b"", 0, wire.CHECKSUM))


def send_error(
    ctx: Context, limit: ErrorLimit, buf: bytes, base: int, end: int, kind: int, code: int, value: int, now: Micros
) -> None:
    """An ICMPv6 error about the packet at `base`, from the address it was sent to (RFC 4443 2.2, 2.4)."""
    remote, local = buf[base + 8 : base + 24], buf[base + 24 : base + 40]
    # RFC 4443 2.4 (e), 4443-2.4-6 to 4443-2.4-11: never about an ICMPv6 error or redirect, to a multicast destination,
    # or to a source that names no node
    protocol, offset = extension.last(buf, base, end)
    about_error = protocol == ICMPV6 and offset < end and (buf[offset] < 128 or buf[offset] == _REDIRECT)
    if about_error or local[0] == 0xFF or remote[0] == 0xFF or not any(remote):
        return
    if not limit.allows(now):
        ctx.drop(Drop.RATE_LIMITED)
        return
    packet = icmpv6.build(local, remote, kind, code, value, icmpv6.quote(buf[base:end]), ctx.config.hop_limit)
    ctx.queue_for(remote).append((packet, b"", 0, 0))


def refuse_headers(
    ctx: Context, limit: ErrorLimit, buf: bytes, base: int, end: int, status: int, where: int, now: Micros
) -> None:
    """RFC 8200 4: a parameter problem that points at what of the extension headers cannot be processed."""
    if status != extension.TRUNCATED:
        codes = {extension.BAD_NEXT_HEADER: 1, extension.BAD_OPTION: 2, extension.INCOMPLETE: 3}
        code = codes.get(status, 0)
        send_error(ctx, limit, buf, base, end, icmpv6.PARAMETER_PROBLEM, code, where - base, now)


def refuse_late_fragments(ctx: Context, limit: ErrorLimit, first: bytes, now: Micros) -> None:
    """8200-4.5-11, RFC 4443 3.3: the reassembly time is exceeded."""
    code = icmpv6.REASSEMBLY_TIME
    send_error(ctx, limit, first, 0, len(first), icmpv6.TIME_EXCEEDED, code, 0, now)


class Telescope(Nobody):
    """Silence (UM-31): counts who knocks where nobody is, and answers nothing."""

    __slots__ = ("ctx", "sources")

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        # Who knocked: how often, first and last time. Those that are quiet for the longest time go first.
        self.sources: OrderedDict[bytes, tuple[int, Micros, Micros]] = OrderedDict()

    def receive(
        self, buf: bytes, base: int, offset: int, end: int, protocol: int, gso_size: int, csum_ok: bool, now: Micros
    ) -> None:
        self.ctx.counters.drops[Drop.NO_OWNER] += 1
        source = buf[base + 8 : base + 24]
        sources = self.sources
        packets, first, _ = sources.get(source, (0, now, now))
        sources[source] = packets + 1, first, now
        sources.move_to_end(source)
        if len(sources) > self.ctx.config.telescope:
            sources.popitem(last=False)

    def seen(self) -> list[Knocks]:
        """The busiest first."""
        known = [Knocks(Address(source), *times) for source, times in self.sources.items()]
        return sorted(known, key=lambda one: -one.packets)


class Answers(Telescope):
    """The answers of RFC 9293 and 4443 in the place of silence."""

    __slots__ = ("limit",)

    def __init__(self, ctx: Context, limit: ErrorLimit) -> None:
        super().__init__(ctx)
        self.limit = limit

    def receive(
        self, buf: bytes, base: int, offset: int, end: int, protocol: int, gso_size: int, csum_ok: bool, now: Micros
    ) -> None:
        super().receive(buf, base, offset, end, protocol, gso_size, csum_ok, now)
        ctx = self.ctx
        local = buf[base + 24 : base + 40]
        if ctx.queue_for(local) is not ctx.loop:
            return  # not an address of ours at all
        if protocol == TCP:
            refuse_segment(ctx, buf, base, offset, end, csum_ok)
        elif protocol == UDP or (protocol == ICMPV6 and buf[offset : offset + 1] == b"\x80"):
            send_error(ctx, self.limit, buf, base, end, icmpv6.UNREACHABLE, icmpv6.ADDRESS_UNREACHABLE, 0, now)

    def on_bad_packet(self, buf: bytes, base: int, end: int, status: int, where: int, now: Micros) -> None:
        refuse_headers(self.ctx, self.limit, buf, base, end, status, where, now)

    def on_late_fragments(self, first: bytes, now: Micros) -> None:
        refuse_late_fragments(self.ctx, self.limit, first, now)
