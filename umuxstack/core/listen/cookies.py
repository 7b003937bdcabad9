"""SYN cookies (RFC 4987 3.6): a flood of SYNs at an address that many know costs no memory.

For service and shared addresses only: an SSA lets its oldest candidate make room
instead (UM-23). The SYN-ACK's sequence number says all there is to remember; of
the options only the MSS survives. Used while half-open sessions are at their bound.
"""

from typing import Final

from umuxstack.core.address.lease import Lease
from umuxstack.core.config import TcpPolicy
from umuxstack.core.errors import Drop
from umuxstack.core.listen.listener import Syn
from umuxstack.core.session.context import Context
from umuxstack.core.session.session import Door, Stage
from umuxstack.core.tcp.isn import flow_label, session_secret
from umuxstack.core.tcp.seq import MASK
from umuxstack.core.tcp.session import SleepyConnection, TcpSession
from umuxstack.core.tcp.tcb import DEFAULT_MSS, HEADERS
from umuxstack.core.units import TCP, Micros, seconds
from umuxstack.core.wire import tcp as wire
from umuxstack.core.wire import tcp_options
from umuxstack.core.wire.checksum import checksum_ok, pseudo_sum

_PERIOD: Final = seconds(64)  # one step of the cookie's clock; a cookie is good for this and the next
LONGEST: Final = Micros(2 * _PERIOD)  # nobody can redeem a cookie after this
_SIZES: Final = (536, 1220, 1360, 1420, 1428, 1440, 4036, 8940)  # three bits of MSS: the next smaller is taken


class CookieJar:
    """Makes and redeems the cookies of one listener."""

    __slots__ = ("_ctx", "_until")

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._until = Micros(0)  # nobody can hold a cookie after this

    def answer(self, pair: bytes, syn: Syn, hop_limit: int, now: Micros) -> None:
        """A SYN-ACK that is not remembered."""
        (local_port, remote_port), (seq, _, _, options) = syn
        ctx = self._ctx
        ctx.drop(Drop.BACKLOG)
        self._until = Micros(now + LONGEST)
        index = max((i for i, size in enumerate(_SIZES) if size <= (options.mss or DEFAULT_MSS)), default=0)
        cookie = self._cookie(pair, local_port, remote_port, seq, now // _PERIOD, index)
        tail = tcp_options.syn(ctx.config.link.mtu - HEADERS, window_scale=-1, sack_permitted=False, timestamps=None)
        length = 20 + len(tail)
        flow = flow_label(session_secret(ctx.entropy, pair, local_port << 16 | remote_port))
        hop_limit = hop_limit or ctx.config.hop_limit
        header = wire.build(
            0x60000000 | flow, length, TCP, hop_limit, pair[16:], pair[:16], local_port, remote_port,
            cookie, seq + 1 & MASK, (5 + len(tail) // 4) << 12 | wire.SYN | wire.ACK, 65535,
            pseudo_sum(pair, length, TCP), 0,
        )  # fmt: skip
        ctx.queue_for(pair[:16]).append((header + tail, b"", 0, wire.CHECKSUM))

    def redeem(
        self,
        buf: bytes,
        base: int,
        offset: int,
        end: int,
        csum_ok: bool,
        lease: Lease,
        door: Door,
        stage: Stage | None,
        policy: TcpPolicy,
        now: Micros,
    ) -> SleepyConnection | None:
        """The session that an ACK with a valid cookie completes, in SYN-RECEIVED and in no table yet; or None."""
        if now > self._until or end - offset < wire.HEADER:
            return None
        sport, dport, seq, ack, bits, window, _, _ = wire.FIELDS.unpack_from(buf, offset)
        if bits & (wire.SYN | wire.ACK | wire.RST) != wire.ACK or not 20 <= (bits >> 12) * 4 <= end - offset:
            return None
        pair = buf[base + 8 : base + 40]
        cookie, first = ack - 1 & MASK, seq - 1 & MASK
        index, step = cookie >> 24 & 7, now // _PERIOD
        if not any(cookie == self._cookie(pair, dport, sport, first, step - age, index) for age in (0, 1)):
            return None
        if not csum_ok and not checksum_ok(buf, base, offset, end, TCP):
            return None
        options = tcp_options.Options()
        options.mss = _SIZES[index]
        session = SleepyConnection(self._ctx, pair, lease, dport, sport, now, policy)
        session.handle = TcpSession(session)
        session.door = door
        session.stage = stage
        session.revive(cookie, first, window, options, now)
        return session

    def _cookie(self, pair: bytes, local_port: int, remote_port: int, seq: int, step: int, index: int) -> int:
        ports = (local_port << 16 | remote_port).to_bytes(4, "big")
        said = pair + ports + seq.to_bytes(4, "big") + step.to_bytes(8, "big") + bytes((index,))
        return (step & 31) << 27 | index << 24 | self._ctx.entropy.keyed_hash(said, 3)
