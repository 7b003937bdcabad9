"""The legacy second stage: on a shared address, ports choose the session (UM-6).

One endpoint in the local table per shared address; behind it the classic
four-tuple. Unified sessions never come here. RFC 9293, 768, 4443, 6056.
"""

# RFC 9293 appendix B: MUST-41, MUST-42; 4443-3.1-5, 4443-4.1-1, 4443-4.2-1, 4443-4.2-4

from collections.abc import Container
from typing import ClassVar, Final

from umuxstack.core.address.lease import Lease
from umuxstack.core.echo.session import EchoSession
from umuxstack.core.errors import AddressInUse, Drop, PoolExhausted, Reason
from umuxstack.core.legacy.answers import ErrorLimit, refuse_headers, refuse_late_fragments, refuse_segment, send_error
from umuxstack.core.listen.cookies import CookieJar
from umuxstack.core.listen.listener import Listener, read_syn, vanish
from umuxstack.core.network.endpoint import Receiver
from umuxstack.core.session.context import Context
from umuxstack.core.session.fast_open import ROTATION, is_ours, mint
from umuxstack.core.session.session import Session, Stage
from umuxstack.core.tcp.connection import Connection
from umuxstack.core.tcp.opening import NO_FAST_OPEN, FastOpen
from umuxstack.core.tcp.quiet import Quiet
from umuxstack.core.tcp.session import answer_syn
from umuxstack.core.udp.session import Binding, UdpSocket
from umuxstack.core.units import ICMPV6, TCP, UDP, Address, Micros
from umuxstack.core.wire import extension, icmpv6
from umuxstack.core.wire import tcp as wire
from umuxstack.core.wire.checksum import checksum_ok
from umuxstack.core.wire.tcp_options import Options

# RFC 6056 3.2: 1024 … 65535, as many as possible
FIRST_PORT: Final = 1024
PORTS: Final = 65536 - FIRST_PORT


class PortMux(Stage):
    """Owner of one shared address."""

    __slots__ = ("address", "bindings", "echoes", "lease", "limit", "listeners", "sessions")

    shared: ClassVar[bool] = True

    def __init__(self, ctx: Context, address: Address, lease: Lease, limit: ErrorLimit) -> None:
        super().__init__()
        self.ctx = ctx
        self.address = address
        self.lease = lease
        self.limit = limit
        self.sessions: dict[bytes, Receiver] = {}  # remote address, remote port, local port: 20 bytes
        self.listeners: dict[int, PortListener] = {}
        self.bindings: dict[int, Binding] = {}  # UDP
        self.echoes: dict[bytes, EchoSession] = {}  # remote address, identifier

    # Packets

    def receive(
        self, buf: bytes, base: int, offset: int, end: int, protocol: int, gso_size: int, csum_ok: bool, now: Micros
    ) -> None:
        ctx = self.ctx
        if protocol == TCP:
            if end - offset < wire.HEADER:
                ctx.drop(Drop.BAD_HEADER)
                return
            owner = self.sessions.get(buf[base + 8 : base + 24] + buf[offset : offset + 4])
            if owner is not None:
                owner.receive(buf, base, offset, end, protocol, gso_size, csum_ok, now)
                return
            listener = self.listeners.get(buf[offset + 2] << 8 | buf[offset + 3])
            if listener is not None:
                listener.receive(buf, base, offset, end, protocol, gso_size, csum_ok, now)
                return
            ctx.drop(Drop.NO_PORT_OWNER)
            refuse_segment(ctx, buf, base, offset, end, csum_ok)
        elif protocol == UDP:
            binding = None if end - offset < 8 else self.bindings.get(buf[offset + 2] << 8 | buf[offset + 3])
            if binding is not None:
                binding.receive(buf, base, offset, end, protocol, gso_size, csum_ok, now)
                return
            ctx.drop(Drop.NO_PORT_OWNER)
            if end - offset >= 8 and (csum_ok or checksum_ok(buf, base, offset, end, UDP)):
                send_error(ctx, self.limit, buf, base, end, icmpv6.UNREACHABLE, icmpv6.PORT_UNREACHABLE, 0, now)
        elif protocol == ICMPV6:
            self._echo(buf, base, offset, end, csum_ok, now)
        else:
            # RFC 4443 3.4 code 1, RFC 8200 4: an unrecognized next header
            ctx.drop(Drop.UNKNOWN_PROTOCOL)
            if protocol != extension.NO_NEXT_HEADER:  # 8200-4.7-1: then there is nothing, and nothing to answer
                where = extension.walk(buf, base, end)[3]
                refuse_headers(ctx, self.limit, buf, base, end, extension.BAD_NEXT_HEADER, where, now)

    def on_bad_packet(self, buf: bytes, base: int, end: int, status: int, where: int, now: Micros) -> None:
        refuse_headers(self.ctx, self.limit, buf, base, end, status, where, now)

    def on_late_fragments(self, first: bytes, now: Micros) -> None:
        refuse_late_fragments(self.ctx, self.limit, first, now)

    def _echo(self, buf: bytes, base: int, offset: int, end: int, csum_ok: bool, now: Micros) -> None:
        ctx = self.ctx
        if end - offset < 8:
            ctx.drop(Drop.BAD_HEADER)
            return
        if not csum_ok and not checksum_ok(buf, base, offset, end, ICMPV6):
            ctx.drop(Drop.BAD_CHECKSUM)
            return
        remote = buf[base + 8 : base + 24]
        if buf[offset] == icmpv6.ECHO_REQUEST:
            value = int.from_bytes(buf[offset + 4 : offset + 8], "big")
            packet = icmpv6.build(
                self.address, remote, icmpv6.ECHO_REPLY, 0, value, buf[offset + 8 : end], ctx.config.hop_limit
            )
            ctx.send_packet(packet, remote, now)
            return
        session = self.echoes.get(remote + buf[offset + 4 : offset + 6])
        if session is None:
            ctx.drop(Drop.ICMP_UNKNOWN)
            return
        session.receive(buf, base, offset, end, ICMPV6, 0, True, now)

    def on_icmp_error(
        self, kind: int, code: int, value: int, protocol: int, quoted: bytes, offset: int, now: Micros
    ) -> None:
        remote = quoted[24:40]
        ports = quoted[offset + 2 : offset + 4] + quoted[offset : offset + 2]
        owner: Receiver | None = None
        if protocol == TCP:
            owner = self.sessions.get(remote + ports)
        elif protocol == UDP:
            owner = self.bindings.get(int.from_bytes(ports[2:], "big"))
        else:
            owner = self.echoes.get(remote + quoted[offset + 4 : offset + 6])
        if owner is None:
            self.ctx.drop(Drop.ICMP_NO_SESSION)
        else:
            owner.on_icmp_error(kind, code, value, protocol, quoted, offset, now)

    # The inner table

    @staticmethod
    def key(session: Session | Quiet) -> bytes:
        """Four-tuple less our address."""
        if isinstance(session, Quiet):
            local, remote = session.ports
        else:
            local, remote = session.local_port, session.remote_port
        return session.pair[:16] + remote.to_bytes(2, "big") + local.to_bytes(2, "big")

    def add(self, session: Connection) -> None:
        session.stage = self
        self.sessions[self.key(session)] = session

    def remove(self, session: Session, successor: Receiver | None) -> None:
        if isinstance(session, EchoSession):
            self.echoes.pop(session.pair[:16] + session.identifier.to_bytes(2, "big"), None)
            return
        key = self.key(session)
        if self.sessions.get(key) is session:
            if successor is None:
                del self.sessions[key]
            else:
                self.sessions[key] = successor

    def forget_record(self, record: Receiver) -> None:
        assert isinstance(record, Quiet)
        key = self.key(record)
        if self.sessions.get(key) is record:
            del self.sessions[key]

    def choose_port(self, remote: Address, remote_port: int) -> int:
        """A local port for a connection to there: RFC 6056 3.3.1, a random start and the first free one."""
        start = self.ctx.entropy.below(PORTS)
        tail = remote_port.to_bytes(2, "big")
        for step in range(PORTS):
            port = FIRST_PORT + (start + step) % PORTS
            if remote + tail + port.to_bytes(2, "big") not in self.sessions and port not in self.listeners:
                return port
        raise PoolExhausted("all 64,512 ports to this peer are in use: the ceiling that an EA does not have (UM-19)")

    def free_udp_port(self, port: int) -> int:
        return self._free_port(port, self.bindings, "UDP")

    def free_tcp_port(self, port: int) -> int:
        return self._free_port(port, self.listeners, "TCP")

    def _free_port(self, port: int, taken: Container[int], kind: str) -> int:
        """`port` itself, or for 0 one that nobody listens on."""
        if port:
            if port in taken:
                raise AddressInUse(f"{kind} port {port} of this address is in use")
            return port
        start = self.ctx.entropy.below(PORTS)
        for step in range(PORTS):
            candidate = FIRST_PORT + (start + step) % PORTS
            if candidate not in taken:
                return candidate
        raise PoolExhausted(f"all {kind} ports of this address are in use")


class PortListener(Listener):
    """An ordinary listening socket on a shared address and port; 0: any that is free."""

    __slots__ = ("early", "half_open", "jar", "mux")

    def __init__(self, ctx: Context, number: int, name: str, port: int, backlog: int, mux: PortMux) -> None:
        port = mux.free_tcp_port(port)
        super().__init__(ctx, number, name, port, backlog)
        self.mux = mux
        self.half_open: list[Connection] = []
        self.early: list[Connection] = []  # accepted before their handshake was complete (RFC 7413)
        self.jar: CookieJar | None = None  # since the first flood
        mux.listeners[port] = self

    def receive(
        self, buf: bytes, base: int, offset: int, end: int, protocol: int, gso_size: int, csum_ok: bool, now: Micros
    ) -> None:
        ctx = self.ctx
        bits = buf[offset + 13]
        jar = self.jar
        if jar is not None and not self.full:
            session = jar.redeem(buf, base, offset, end, csum_ok, self.mux.lease, self, self.mux, self.policy, now)
            if session is not None:
                self._hold(session)
                session.receive(buf, base, offset, end, protocol, gso_size, True, now)
                return
        if bits & wire.ACK and not bits & wire.RST:
            # RFC 9293 3.10.7.2: "Any acknowledgment is bad if it arrives on a connection still in the LISTEN state."
            ctx.drop(Drop.BAD_ACK)
            refuse_segment(ctx, buf, base, offset, end, csum_ok)
            return
        syn = read_syn(ctx, buf, base, offset, end, protocol, csum_ok)
        if syn is None:
            return
        if self.full:
            ctx.drop(Drop.BACKLOG)
            return
        if ctx.memory * 8 > ctx.config.memory * 7:
            ctx.drop(Drop.NO_MEMORY)
            return
        pair = buf[base + 8 : base + 40]
        if len(self.half_open) >= max(self.backlog, 8):
            if jar is None:
                jar = self.jar = CookieJar(ctx)
            jar.answer(pair, syn, self.policy.hop_limit, now)
            return
        fast_open = NO_FAST_OPEN
        if self.policy.fast_open_queue:
            fast_open = self._fast_open(pair, syn[1][3], buf[offset + (buf[offset + 12] >> 2 & 0x3C) : end], now)
        session = answer_syn(ctx, pair, self.mux.lease, syn[0], syn[1], self.policy, now, fast_open)
        session.door = self
        if fast_open.data is None:
            self._hold(session)
        else:
            self.mux.add(session)
            self.early.append(session)
            self.enqueue(session)

    def _fast_open(self, pair: bytes, options: Options, data: bytes, now: Micros) -> FastOpen:
        """RFC 7413 4.2.2. With too many handshakes outstanding the SYN is answered as if it had come without."""
        policy, cookie = self.policy, options.cookie
        if len(self.early) >= policy.fast_open_queue or (cookie is None and (policy.fast_open_cookies or not data)):
            return NO_FAST_OPEN
        entropy, key = self.ctx.entropy, policy.fast_open_key
        if not policy.fast_open_cookies or (cookie and is_ours(entropy, key, pair, cookie, now)):
            return FastOpen(data, None, experimental=False)
        return FastOpen(None, mint(entropy, key, pair, now // ROTATION), experimental=options.experimental)

    def _hold(self, session: Connection) -> None:
        self.mux.add(session)
        self.half_open.append(session)

    def on_established(self, session: Session, now: Micros) -> bool:
        assert isinstance(session, Connection)
        if session in self.early:
            self.early.remove(session)
            session.door = None
            return True
        if self.closed or self.full:
            return False
        self.half_open.remove(session)
        session.door = None
        self.enqueue(session)
        return True

    def on_ended(self, session: Session, now: Micros) -> None:
        for sessions in (self.half_open, self.early):
            if session in sessions:
                sessions.remove(session)

    def _retire(self, now: Micros) -> None:
        if self.mux.listeners.get(self.port) is self:
            del self.mux.listeners[self.port]
        for session in list(self.half_open):
            vanish(session, Reason.PARENT_CLOSED, now)


class SharedBinding(Binding):
    """A UDP socket on a shared address and port."""

    __slots__ = ("mux",)

    def __init__(self, socket: UdpSocket, mux: PortMux, port: int) -> None:
        super().__init__(socket, mux.address, mux.free_udp_port(port))
        self.mux = mux
        mux.bindings[self.port] = self

    def close(self, now: Micros) -> None:
        if self.mux.bindings.get(self.port) is self:
            del self.mux.bindings[self.port]
