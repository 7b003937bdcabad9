"""What all listeners share: a name, an accept queue with a bound, and closing (UM-20, UM-27).

Invariant: `len(queue) + reserved <= backlog`; a completed handshake that was
promised a place always finds it.
"""

from collections import deque

from umuxstack.core.address.lease import Lease
from umuxstack.core.config import TcpPolicy
from umuxstack.core.errors import Drop, Reason
from umuxstack.core.events import EventKind
from umuxstack.core.session.context import Context
from umuxstack.core.session.pair_mux import PairMux
from umuxstack.core.session.session import Door, Session
from umuxstack.core.tcp import state as st
from umuxstack.core.tcp.congestion.registry import find
from umuxstack.core.tcp.connection import Connection
from umuxstack.core.tcp.session import TcpSession, answer_syn
from umuxstack.core.units import TCP, Micros
from umuxstack.core.wire import tcp as wire
from umuxstack.core.wire import tcp_options
from umuxstack.core.wire.checksum import checksum_ok


class Listener(Door):
    """A listening socket. `kind` is what `ss` shows."""

    __slots__ = ("backlog", "closed", "ctx", "id", "name", "policy", "port", "queue", "reserved")

    kind: str = "LISTEN"

    def __init__(self, ctx: Context, number: int, name: str, port: int, backlog: int) -> None:
        super().__init__()
        self.ctx = ctx
        self.id = number
        self.name = name
        self.port = port
        self.backlog = backlog
        self.queue: deque[TcpSession] = deque()
        self.reserved = 0
        self.closed = False
        self.policy = ctx.config.tcp

    @property
    def readable(self) -> bool:
        """`accept` has something to return, or the listener is closed."""
        return bool(self.queue) or self.closed

    @property
    def full(self) -> bool:
        return len(self.queue) + self.reserved >= self.backlog

    def set_policy(self, policy: TcpPolicy) -> None:
        """Sessions that come from now on have this policy, from their SYN on. Raises BadArgument."""
        find(policy.congestion, self.ctx.congestion)
        self.policy = policy

    def accept(self) -> TcpSession | None:
        """The next session whose handshake is complete, or None."""
        return self.queue.popleft() if self.queue else None

    def enqueue(self, session: Connection) -> None:
        if self.port:
            session.port = self.port  # getsockname shows what the application bound (UM-5)
        handle = session.handle
        assert isinstance(handle, TcpSession)
        self.queue.append(handle)
        self.ctx.wake(self)

    def close(self, now: Micros) -> None:
        """No more connections. Queued sessions that nobody accepted are reset; accepted ones live on (UM-27)."""
        if self.closed:
            return
        self.closed = True
        self._retire(now)
        while self.queue:
            self.queue.popleft().abort(now)
        self.ctx.events.append((now, EventKind.LISTENER_CLOSED, (self.name, None, ""), None, Reason.NONE))
        self.ctx.wake(self)

    def _retire(self, now: Micros) -> None:
        """Leaves the tables, and takes back what waits."""
        raise AssertionError

    def forget_child(self, child: Door) -> None:
        """A LISTEN_U is spent."""
        raise AssertionError


Syn = tuple[tuple[int, int], tuple[int, int, int, tcp_options.Options]]
"""(our port, their port), (sequence, flags, window, options)."""


def read_syn(ctx: Context, buf: bytes, base: int, offset: int, end: int, protocol: int, csum_ok: bool) -> Syn | None:
    """A pure SYN. Anything else: None, and counted.

    UM-23: an ACK, FIN, RST, datagram or echo at a waiting address meets silence.
    """
    if protocol != TCP:
        ctx.drop(Drop.FOREIGN_PROTOCOL)
        return None
    size = end - offset
    if size < wire.HEADER or not wire.HEADER <= buf[offset + 12] >> 2 & 0x3C <= size:
        ctx.drop(Drop.BAD_HEADER)
        return None
    if not csum_ok and not checksum_ok(buf, base, offset, end, TCP):
        ctx.drop(Drop.BAD_CHECKSUM)
        return None
    sport, dport, seq, _, bits, window, _, _ = wire.FIELDS.unpack_from(buf, offset)
    flags = bits & 0x1FF
    significant = wire.SYN | wire.ACK | wire.RST | (0 if ctx.config.tcp.syn_fin else wire.FIN)
    if flags & significant != wire.SYN or not sport or not dport:
        ctx.drop(Drop.NOT_A_SYN)
        return None
    options = tcp_options.parse(buf, offset + 20, offset + (bits >> 12) * 4)
    options.ecn = buf[base + 1] >> 4 & 3
    return (dport, sport), (seq, flags, window, options)


def half_open(
    door: Door, ctx: Context, pair: bytes, lease: Lease, syn: Syn, policy: TcpPolicy, now: Micros
) -> Connection:
    """Answers a SYN: a session in SYN-RECEIVED, in the pair table."""
    session = answer_syn(ctx, pair, lease, syn[0], syn[1], policy, now)
    session.door = door
    enter(session)
    return session


def enter(session: Connection) -> None:
    """Into the pair table, or into the second stage that stands there in the pair's place."""
    table, pair = session.table, session.pair
    holder = table.get(pair)
    if isinstance(holder, PairMux):
        holder.add(session)
        return
    assert holder is None or not isinstance(holder, Session | TcpSession), "a live session keeps its place"
    table[pair] = session


def vanish(session: Connection, reason: Reason, now: Micros) -> None:
    """A half-open candidate goes without a word."""
    if session.state == st.SYN_RECEIVED:
        session.finish(reason, now)
