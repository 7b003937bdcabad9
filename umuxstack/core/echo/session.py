"""Echo is a session like any other (UM-38): `ping` takes an EA, the pair tells it apart, the identifier is fixed."""

# 4443-4.1-2, 4443-4.2-5

from collections import deque
from typing import Final

from umuxstack.core.address.lease import Lease
from umuxstack.core.echo.reply import EchoReply
from umuxstack.core.errors import Drop, MessageTooLong, Reason, SessionClosed
from umuxstack.core.events import EventKind
from umuxstack.core.session.context import Context
from umuxstack.core.session.session import Session
from umuxstack.core.units import ICMPV6, Micros
from umuxstack.core.wire import icmpv6
from umuxstack.core.wire.checksum import checksum_ok

OUTSTANDING: Final = 1024  # requests whose reply is still waited for
LARGEST: Final = 65535 - 8


class EchoSession(Session):
    """Echo requests to one peer. Made by `Stack.ping`; its address ends with `close`."""

    __slots__ = ("_pending", "_replies", "identifier", "sequence")

    def __init__(self, ctx: Context, pair: bytes, lease: Lease, identifier: int, now: Micros) -> None:
        super().__init__(ctx, pair, lease, ICMPV6, 0, 0)
        self.identifier = identifier
        self.sequence = 0
        self._pending: dict[int, Micros] = {}
        self._replies: deque[EchoReply] = deque(maxlen=OUTSTANDING)
        ctx.note(now, EventKind.SESSION_OPENED, lease, pair)
        ctx.note(now, EventKind.SESSION_ESTABLISHED, lease, pair)  # there is no handshake to wait for

    @property
    def readable(self) -> bool:
        return bool(self._replies) or self.ended

    def send(self, data: bytes, now: Micros) -> int:
        """One echo request; returns its sequence number (1 … 65535, then 0)."""
        if self.ended:
            raise SessionClosed("the session is closed")
        if len(data) > LARGEST:
            raise MessageTooLong(f"an echo request carries at most {LARGEST} bytes, not {len(data)}")
        self.sequence = self.sequence + 1 & 0xFFFF
        if len(self._pending) >= OUTSTANDING:
            del self._pending[next(iter(self._pending))]
        self._pending[self.sequence] = now
        ctx = self.ctx
        value = self.identifier << 16 | self.sequence
        pair, flow = self.pair, ctx.entropy.keyed_hash(self.pair) >> 44
        packet = icmpv6.build(
            pair[16:], pair[:16], icmpv6.ECHO_REQUEST, 0, value, data, ctx.config.hop_limit, flow=flow
        )
        ctx.send_packet(packet, self.pair[:16], now)
        return self.sequence

    def take_reply(self) -> EchoReply | None:
        return self._replies.popleft() if self._replies else None

    def receive(
        self, buf: bytes, base: int, offset: int, end: int, protocol: int, gso_size: int, csum_ok: bool, now: Micros
    ) -> None:
        ctx = self.ctx
        if protocol != ICMPV6:
            ctx.drop(Drop.FOREIGN_PROTOCOL)
            return
        if end - offset < 8:
            ctx.drop(Drop.BAD_HEADER)
            return
        if not csum_ok and not checksum_ok(buf, base, offset, end, ICMPV6):
            ctx.drop(Drop.BAD_CHECKSUM)
            return
        identifier = buf[offset + 4] << 8 | buf[offset + 5]
        sequence = buf[offset + 6] << 8 | buf[offset + 7]
        if buf[offset] != icmpv6.ECHO_REPLY or identifier != self.identifier:
            ctx.drop(Drop.ICMP_UNKNOWN)
            return
        sent = self._pending.pop(sequence, None)
        if sent is None:
            ctx.drop(Drop.ICMP_NOT_BELIEVED)  # never asked, or answered before
            return
        self._replies.append(EchoReply(sequence, Micros(now - sent), buf[offset + 8 : end], buf[base + 7]))
        ctx.wake(self)

    def on_icmp_error(
        self, kind: int, code: int, value: int, protocol: int, quoted: bytes, offset: int, now: Micros
    ) -> None:
        ctx = self.ctx
        head = quoted[offset : offset + 8]
        if protocol != ICMPV6 or len(head) < 8 or head[4:6] != self.identifier.to_bytes(2, "big"):
            ctx.drop(Drop.ICMP_NOT_BELIEVED)
            return
        sent = self._pending.pop(head[6] << 8 | head[7], None)
        if sent is None or head[0] != icmpv6.ECHO_REQUEST:
            ctx.drop(Drop.ICMP_NOT_BELIEVED)
            return
        if kind == icmpv6.PACKET_TOO_BIG:
            ctx.path_shrank(self.pair[:16], value, now)
            reason = Reason.PACKET_TOO_BIG
        else:
            reason = Reason.PROHIBITED if code == icmpv6.PROHIBITED else Reason.UNREACHABLE
        self._replies.append(EchoReply(head[6] << 8 | head[7], Micros(now - sent), b"", 0, reason))
        ctx.wake(self)

    def close(self, now: Micros) -> None:
        if self.ended:
            return
        self.end_reason = Reason.CLOSED
        self.unregister()
        ctx = self.ctx
        ctx.note(now, EventKind.SESSION_ENDED, self.lease, self.pair, Reason.CLOSED)
        if self.stage is None:
            ctx.end_lease(self.lease, now, Reason.CLOSED)
        ctx.wake(self)
