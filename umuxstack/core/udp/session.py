"""UDP: a pair is a session, even without a handshake (UM-18, UM-28).

Each (socket, destination) has an EA of its own, alive as long as the session. A
connected socket's session ends at close or disconnect; any other also after a
time without traffic. Ports choose nothing; a connected socket checks them.
"""

# 8201-5.5-1, 8504-5.7.2-1

from collections import deque
from typing import Final

from umuxstack.core.address.lease import Lease
from umuxstack.core.errors import AddressNotOurs, BadArgument, Drop, MessageTooLong, NotConnected, Reason, SessionClosed
from umuxstack.core.events import EventKind
from umuxstack.core.names import check_number
from umuxstack.core.network.endpoint import Endpoint, Receiver
from umuxstack.core.session.context import Context
from umuxstack.core.session.session import Session
from umuxstack.core.udp.datagram import Datagram
from umuxstack.core.units import NEVER, UDP, Address, Micros
from umuxstack.core.wire import icmpv6
from umuxstack.core.wire import udp as wire
from umuxstack.core.wire.checksum import checksum_ok, complement, pseudo_sum, sum16

LARGEST: Final = 65535 - 8
MAX_ROUTES: Final = 4096  # senders that a socket remembers beside those it spoke to first: forged ones are free
RECENT: Final = 256  # destinations of a bound socket that errors are believed about
QUEUE_BYTES: Final = 256 * 1024  # received and not read, per socket


def send_datagram(
    ctx: Context,
    local: bytes,
    remote: bytes,
    ports: tuple[int, int],
    data: bytes,
    hop_limit: int,
    flow: int,
    now: Micros,
) -> None:
    """One datagram from `local` to `remote`, in fragments if the path cannot carry it whole.

    `flow` is the header's flow label, the same for all of a session (RFC 6437 3, 8504-5.1-12).
    """
    length = wire.HEADER + len(data)
    if length > 65535:
        raise MessageTooLong(f"a datagram carries at most {LARGEST} bytes, not {len(data)}")
    partial = pseudo_sum(local + remote, length, UDP)
    out = ctx.queue_for(remote)
    if 40 + length <= ctx.pmtu.get(remote, now) or out is ctx.loop:
        header = wire.build(0x60000000 | flow, length, UDP, hop_limit, local, remote, *ports, length, partial)
        out.append((header, data, 0, wire.CHECKSUM))
        return
    header = wire.build(0x60000000 | flow, length, UDP, hop_limit, local, remote, *ports, length, 0)
    checksum = complement(partial + sum16(header[40:] + data)) or 0xFFFF
    ctx.send_packet(header[:46] + checksum.to_bytes(2, "big") + data, remote, now)


def parse_datagram(
    ctx: Context, buf: bytes, base: int, offset: int, end: int, protocol: int, csum_ok: bool
) -> tuple[int, int, bytes] | None:
    """(source port, destination port, data), or None and counted."""
    if protocol != UDP:
        ctx.drop(Drop.FOREIGN_PROTOCOL)
        return None
    if end - offset < wire.HEADER:
        ctx.drop(Drop.BAD_HEADER)
        return None
    sport, dport, length, checksum = wire.FIELDS.unpack_from(buf, offset)
    if not wire.HEADER <= length <= end - offset:
        ctx.drop(Drop.BAD_HEADER)
        return None
    end = offset + length
    # RFC 8200 8.1: IPv6 receivers "must discard UDP packets containing a zero checksum"
    if (not csum_ok and not checksum_ok(buf, base, offset, end, UDP)) or not checksum:
        ctx.drop(Drop.BAD_CHECKSUM)
        return None
    return sport, dport, buf[offset + wire.HEADER : end]


class UdpSession(Session):
    """One peer of one socket, over one pair of addresses."""

    __slots__ = ("destination", "flow", "group", "senders", "socket", "used_at")

    def __init__(
        self, ctx: Context, socket: "UdpSocket", pair: bytes, lease: Lease, ports: tuple[int, int], now: Micros
    ) -> None:
        super().__init__(ctx, pair, lease, UDP, ports[0], ports[1])
        self.socket = socket
        self.senders: list[tuple[bytes, int]] = []  # its keys in the socket's routes
        self.destination = (pair[:16], ports[1])
        self.flow = ctx.entropy.keyed_hash(pair) >> 44
        self.group = pair[0] == 0xFF
        self.used_at = now
        if self.group:
            ctx.demux.locals[pair[16:]] = self  # an EA that sent to a group receives from any source
        else:
            self.register()
        ctx.timers.arm(self, Micros(now + ctx.config.udp_idle))
        ctx.note(now, EventKind.SESSION_OPENED, lease, pair)
        ctx.note(now, EventKind.SESSION_ESTABLISHED, lease, pair)  # there is no handshake to wait for

    def send(self, data: bytes, now: Micros) -> None:
        self.used_at = now
        ports, hop_limit = (self.local_port, self.remote_port), self.socket.hop_limit
        send_datagram(self.ctx, self.pair[16:], self.pair[:16], ports, data, hop_limit, self.flow, now)

    def receive(
        self, buf: bytes, base: int, offset: int, end: int, protocol: int, gso_size: int, csum_ok: bool, now: Micros
    ) -> None:
        parsed = parse_datagram(self.ctx, buf, base, offset, end, protocol, csum_ok)
        if parsed is None:
            return
        sport, dport, data = parsed
        if self.socket.connected is self and (sport != self.remote_port or dport != self.local_port):
            self.ctx.drop(Drop.OTHER_PORTS)
            return
        self.used_at = now
        routes, sender = self.socket.routes, (buf[base + 8 : base + 24], sport)
        if routes.get(sender) is not self and (
            sender in routes or len(routes) < MAX_ROUTES + len(self.socket.sessions)
        ):
            routes[sender] = self  # a reply to it leaves from here (UM-18)
            self.senders.append(sender)
        self.socket.deliver(buf, base, sport, dport, data)

    def on_icmp_error(
        self, kind: int, code: int, value: int, protocol: int, quoted: bytes, offset: int, now: Micros
    ) -> None:
        ports = self.local_port.to_bytes(2, "big") + self.remote_port.to_bytes(2, "big")
        if protocol != UDP or quoted[offset : offset + 4] != ports:
            self.ctx.drop(Drop.ICMP_NOT_BELIEVED)
            return
        self.socket.failed(kind, code, value, self.pair[:16], now)

    def on_deadline(self, now: Micros) -> None:
        ctx = self.ctx
        idle = ctx.config.udp_idle
        if self.socket.connected is self or now - self.used_at < idle:
            ctx.timers.arm(self, Micros((now if self.socket.connected is self else self.used_at) + idle))
            return
        self.end(Reason.EXPIRED, now)

    def end(self, reason: Reason, now: Micros) -> None:
        """The session is over, and its address with it."""
        if self.ended:
            return
        ctx = self.ctx
        self.end_reason = reason
        ctx.timers.arm(self, NEVER)
        if self.group:
            if ctx.demux.locals.get(self.pair[16:]) is self:
                del ctx.demux.locals[self.pair[16:]]
        else:
            self.unregister()
        ctx.note(now, EventKind.SESSION_ENDED, self.lease, self.pair, reason)
        ctx.end_lease(self.lease, now, reason)
        self.socket.forget(self)


class UdpSocket(Endpoint):
    """A UDP socket: any number of sessions, one queue. Made by `Stack.udp`."""

    __slots__ = (
        "_error",
        "_opener",
        "address",
        "binding",
        "closed",
        "connected",
        "ctx",
        "doors",
        "hop_limit",
        "id",
        "name",
        "port",
        "queue",
        "queued",
        "routes",
        "sessions",
    )

    def __init__(
        self, ctx: Context, number: int, name: str, opener: "Opener", address: Address | None, port: int
    ) -> None:
        super().__init__()
        self.ctx = ctx
        self.id = number
        self.name = name
        self.address = address  # bound to this concrete address, or None
        self.port = port
        self.binding: Binding | None = None
        self.doors: dict[bytes, Door] = {}  # DAS for UDP: waiting SSAs
        self.connected: UdpSession | None = None
        self.sessions: dict[UdpSession, None] = {}  # a set would end them in any order, another one each time
        self.routes: dict[tuple[bytes, int], UdpSession] = {}  # (peer, its port) -> the session that replies use
        self.queue: deque[Datagram] = deque()
        self.queued = 0
        self.closed = False
        self.hop_limit = ctx.config.hop_limit
        self._error = Reason.NONE
        self._opener = opener

    @property
    def readable(self) -> bool:
        return bool(self.queue) or self.closed or self._error != Reason.NONE

    def connect(self, peer: Address, port: int, now: Micros) -> UdpSession | None:
        """One peer from now on. A session with it that exists already is kept, whatever its address (UM-18)."""
        self._check_open()
        check_number(port, "port", 1, 65535)
        if self.binding is not None:
            self.binding.connect(peer, port)
            return None
        session = self.routes.get((peer, port))
        if session is None or session is self.connected or session.remote != peer:
            session = self._opener.open_udp(self, peer, port, now)  # may raise; the old one is still there then
        elif session.destination != (peer, port):  # the peer answered from another port: that is its port now
            session.remote_port, session.destination = port, (peer, port)
        self.disconnect(now)
        self.connected = session
        return session

    def disconnect(self, now: Micros) -> None:
        if self.binding is not None:
            self.binding.disconnect()
        session, self.connected = self.connected, None
        if session is not None:
            session.end(Reason.CLOSED, now)

    def send(
        self, data: bytes, now: Micros, *, to: tuple[Address, int] | None = None, source: Address | None = None
    ) -> None:
        """Sends one datagram: to the connected peer, or `to`. `source` picks among the socket's own addresses."""
        self._check_open()
        if to is not None:
            check_number(to[1], "port", 1, 65535)
        if len(data) > LARGEST:
            raise MessageTooLong(f"a datagram carries at most {LARGEST} bytes, not {len(data)}")
        if to is None:
            if self.connected is not None:
                self.connected.send(data, now)
            elif self.binding is not None and self.binding.peer is not None:
                self.binding.send(data, self.binding.peer, now)
            else:
                raise NotConnected("the socket is not connected: say where the datagram is to go")
            return
        session = None
        if source is not None:
            session = next((s for s in self.sessions if s.pair[16:] == source and s.pair[:16] == to[0]), None)
            bound = self.binding is not None and self.binding.address == source
            if session is None and not bound:
                # Not from another address in its place: the peer would take it for somebody else's (UM-18).
                raise AddressNotOurs("this socket has no session with that peer at the given source any more")
        if session is None:
            session = self.routes.get(to)
        if session is None and self.binding is not None:
            self.binding.send(data, to, now)
            return
        if session is None:
            session = self._opener.open_udp(self, to[0], to[1], now)
        session.used_at = now
        if session.remote_port == to[1] or session.destination == to:
            session.send(data, now)
        else:  # the peer answered from another port, and this is the reply to that
            ports = (session.local_port, to[1])
            send_datagram(self.ctx, session.pair[16:], to[0], ports, data, self.hop_limit, session.flow, now)

    def set_hop_limit(self, hop_limit: int) -> None:
        """Of every datagram from now on; 0: the stack's."""
        if not 0 <= hop_limit <= 255:
            raise BadArgument(f"hop_limit is {hop_limit}; it is 0 to 255")
        self.hop_limit = hop_limit or self.ctx.config.hop_limit

    def receive_datagram(self) -> Datagram | None:
        """The next datagram, or None."""
        if not self.queue:
            return None
        datagram = self.queue.popleft()
        self.queued -= len(datagram.data)
        self.ctx.memory -= len(datagram.data)
        return datagram

    def take_error(self) -> Reason:
        """The last ICMPv6 error that concerned this socket, once."""
        error, self._error = self._error, Reason.NONE
        return error

    def close(self, now: Micros) -> None:
        if self.closed:
            return
        self.closed = True
        for session in list(self.sessions):
            session.end(Reason.CLOSED, now)
        for door in list(self.doors.values()):
            door.orphan(now)
        if self.binding is not None:
            self.binding.close(now)
        self.connected = None
        while self.receive_datagram() is not None:
            pass
        self.ctx.wake(self)

    # For sessions and bindings

    def adopt(self, session: UdpSession) -> None:
        self.sessions[session] = None
        self.routes[session.destination] = session
        session.senders.append(session.destination)

    def forget(self, session: UdpSession) -> None:
        self.sessions.pop(session, None)
        for key in session.senders:
            if self.routes.get(key) is session:
                del self.routes[key]
        if self.connected is session:
            self.connected = None

    def deliver(self, buf: bytes, base: int, sport: int, dport: int, data: bytes) -> None:
        ctx = self.ctx
        if self.queued + len(data) > QUEUE_BYTES or ctx.memory + len(data) > ctx.config.memory:
            ctx.drop(Drop.QUEUE_FULL)
            return
        self.queue.append(
            Datagram(
                data,
                Address(buf[base + 8 : base + 24]),
                sport,
                Address(buf[base + 24 : base + 40]),
                dport,
                buf[base + 7],
                (buf[base] & 15) << 4 | buf[base + 1] >> 4,
            )
        )
        self.queued += len(data)
        ctx.memory += len(data)
        ctx.wake(self)

    def failed(self, kind: int, code: int, value: int, peer: bytes, now: Micros) -> None:
        """A believed ICMPv6 error."""
        if kind == icmpv6.PACKET_TOO_BIG:
            self.ctx.path_shrank(peer, value, now)
            return
        # 4443-3.1-7, 4443-3.3-3, 4443-3.4-3, 4443-2.4-1: whatever else it is, the application hears of it
        self._error = {
            (icmpv6.UNREACHABLE, icmpv6.PROHIBITED): Reason.PROHIBITED,
            (icmpv6.UNREACHABLE, icmpv6.PORT_UNREACHABLE): Reason.PORT_UNREACHABLE,
        }.get((kind, code), Reason.UNREACHABLE)
        self.ctx.wake(self)

    def _check_open(self) -> None:
        if self.closed:
            raise SessionClosed("the socket is closed")


class Binding(Receiver):
    """A socket at a concrete address: all peers, one source address."""

    __slots__ = ("address", "peer", "port", "recent", "socket")

    def __init__(self, socket: UdpSocket, address: Address, port: int) -> None:
        self.socket = socket
        self.address = address
        self.port = port
        self.peer: tuple[Address, int] | None = None
        self.recent: dict[
            bytes, int
        ] = {}  # the last destinations (address and port): of these errors are believed; flows

    def connect(self, peer: Address, port: int) -> None:
        self.peer = (peer, port)

    def disconnect(self) -> None:
        self.peer = None

    def send(self, data: bytes, to: tuple[Address, int], now: Micros) -> None:
        socket = self.socket
        key = to[0] + to[1].to_bytes(2, "big")
        flow = self.recent.get(key)
        if flow is None:
            if len(self.recent) >= RECENT:
                del self.recent[next(iter(self.recent))]
            flow = self.recent[key] = socket.ctx.entropy.keyed_hash(to[0] + self.address) >> 44
        send_datagram(socket.ctx, self.address, to[0], (self.port, to[1]), data, socket.hop_limit, flow, now)

    def receive(
        self, buf: bytes, base: int, offset: int, end: int, protocol: int, gso_size: int, csum_ok: bool, now: Micros
    ) -> None:
        ctx = self.socket.ctx
        parsed = parse_datagram(ctx, buf, base, offset, end, protocol, csum_ok)
        if parsed is None:
            return
        sport, dport, data = parsed
        if self.peer is not None and (buf[base + 8 : base + 24] != self.peer[0] or sport != self.peer[1]):
            ctx.drop(Drop.PEER_NOT_ALLOWED)
            return
        self.socket.deliver(buf, base, sport, dport, data)

    def on_icmp_error(
        self, kind: int, code: int, value: int, protocol: int, quoted: bytes, offset: int, now: Micros
    ) -> None:
        ours = quoted[offset : offset + 2] == self.port.to_bytes(2, "big")
        # UM-39: only about what we have sent; anybody can quote a packet that never was.
        if protocol != UDP or not ours or quoted[24:40] + quoted[offset + 2 : offset + 4] not in self.recent:
            self.socket.ctx.drop(Drop.ICMP_NOT_BELIEVED)
            return
        self.socket.failed(kind, code, value, quoted[24:40], now)

    def close(self, now: Micros) -> None:
        """Leaves its table; the subclass ends the lease if it holds one."""
        raise AssertionError


class ServiceBinding(Binding):
    """A UDP socket at a service address of the prefix."""

    __slots__ = ("_ctx", "_lease")

    def __init__(self, ctx: Context, socket: UdpSocket, lease: Lease, port: int) -> None:
        super().__init__(socket, lease.address, port)
        self._ctx = ctx
        self._lease = lease

    def close(self, now: Micros) -> None:
        if self._ctx.demux.locals.get(self.address) is self:
            del self._ctx.demux.locals[self.address]
        self._ctx.end_lease(self._lease, now)


class Opener:
    """Who opens sessions with an EA: the stack."""

    __slots__ = ()

    def open_udp(self, socket: UdpSocket, peer: Address, port: int, now: Micros) -> UdpSession:
        raise AssertionError


class Door(Endpoint):
    """A waiting SSA of a UDP socket; see listen/das.py."""

    __slots__ = ()

    def orphan(self, now: Micros) -> None:
        raise AssertionError
