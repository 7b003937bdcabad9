"""Stack: the seam between the core and whatever drives it; composition of all below.

Three inputs (packet, passing time, a verb), three outputs (packets, endpoints
whose readiness changed, events). After inputs, drain the outputs and ask for
`next_deadline`. The stack never asks for the time, never blocks, calls nobody.
"""

# RFC 9293 appendix B: MUST-43, MUST-44, MUST-45, MUST-46; 8504-6.1-1, 8504-6.4-1, 8504-6.4-2

from collections import deque
from collections.abc import Mapping
from contextlib import suppress

from umuxstack.core.address.lease import EA, SERVICE, SHARED, VALID, ChosenLease, Lease
from umuxstack.core.address.pool import AddressPool
from umuxstack.core.address.prefix import Prefix
from umuxstack.core.address.scheme import Scheme, scheme_for
from umuxstack.core.address.selection import choose_source
from umuxstack.core.census import AnySession, Census
from umuxstack.core.config import StackConfig, TcpPolicy
from umuxstack.core.counters import Counters
from umuxstack.core.echo.session import EchoSession
from umuxstack.core.entropy import Entropy
from umuxstack.core.errors import (
    AddressInUse,
    AddressMalformed,
    AddressNotOurs,
    AddressUsed,
    BadArgument,
    NoMemory,
    NoSuchObject,
    Reason,
)
from umuxstack.core.events import Event, EventKind
from umuxstack.core.legacy.answers import Answers, ErrorLimit, Telescope
from umuxstack.core.legacy.ports import PortListener, PortMux, SharedBinding
from umuxstack.core.listen.das import UdpDoor, check_arguments, open_door
from umuxstack.core.listen.listen_0 import Listen0
from umuxstack.core.listen.listen_u import ListenU, within
from umuxstack.core.listen.listener import Listener
from umuxstack.core.listen.service import ServiceListener
from umuxstack.core.names import check_label, check_name, check_number
from umuxstack.core.network.endpoint import Receiver, Waitable
from umuxstack.core.network.fragments import Reassembly
from umuxstack.core.network.ingress import Ingress
from umuxstack.core.session.context import Context, Outgoing, TraceLine
from umuxstack.core.session.pair_mux import PairMux
from umuxstack.core.tcp.congestion.registry import find, register
from umuxstack.core.tcp.connection import Connection
from umuxstack.core.tcp.session import SleepyConnection, TcpSession, open_session
from umuxstack.core.timers import BATCH
from umuxstack.core.udp.session import ServiceBinding, UdpSession, UdpSocket
from umuxstack.core.units import Address, Buffer, Micros


class Stack(Census):
    """One host's TCP/IPv6. Any number of them live in one process."""

    def __init__(
        self,
        config: StackConfig,
        entropy: Entropy,
        now: Micros,
        *,
        scheme: Scheme | None = None,
        congestion: Mapping[str, type] | None = None,
    ) -> None:
        """`scheme`: in the place of the one that `config` names, when the host keeps a key file (UM-13).

        `congestion`: algorithms of this stack's own, by name (docs/congestion.md).
        """
        self.config = config
        self._ctx = ctx = Context(config, entropy)
        for name, algorithm in (congestion or {}).items():
            register(name, algorithm, ctx.congestion)
        find(config.tcp.congestion, ctx.congestion)  # an unknown name is an error now, not when a packet comes
        self.counters: Counters = ctx.counters
        prefix = Prefix(config.prefix, config.prefix_length)
        self._reassembly = Reassembly(ctx.counters)
        limit = ErrorLimit(config.icmp_rate, config.icmp_burst)
        self._nobody = Telescope(ctx) if config.silence else Answers(ctx, limit)
        self._ingress = Ingress(
            ctx.demux,
            ctx.counters,
            self._nobody,
            self._reassembly,
            ctx.is_ours,
            headers=config.extension_headers,
            options=config.header_options,
        )
        self._loopback = Ingress(ctx.inner, ctx.counters, self._nobody, self._reassembly)
        with suppress(AttributeError):  # compiled, a method cannot be replaced, and costs nothing
            self.receive = self._ingress.receive  # type: ignore[method-assign]  # the hot path has no call to spare
        self.pool = AddressPool(
            prefix, scheme or scheme_for(config.scheme, prefix, entropy), config.pool, ctx.leases.holds
        )
        self._listeners = {}  # declared by Census; again here, and a compiled Stack would never be collected
        self._serial = 0
        self._ending: list[Receiver] = []  # what `end_some` has still to end
        self._shared = {}
        for address in config.shared:
            if prefix.contains(address):
                self.pool.set_aside(address)
            lease = ctx.leases.open(address, SHARED, now, grain="shared")
            mux = PortMux(ctx, address, lease, limit)
            self._shared[address] = ctx.demux.locals[address] = mux
            ctx.note(now, EventKind.LEASE_OPENED, lease)
        self.pool.refill()

    # Inputs

    def receive(self, buf: bytes, base: int, gso_size: int, csum_ok: bool, now: Micros) -> None:
        """Takes the packet in `buf[base:]`. Never raises, whatever the bytes.

        `gso_size`: payload bytes of each segment it was merged from, 0 for a single one. `csum_ok`: the
        link vouches for the transport checksum.
        """
        self._ingress.receive(buf, base, gso_size, csum_ok, now)

    def advance(self, now: Micros) -> None:
        """Time has come to `now`: fires what is due, forgets what is over, refills the pool a little.

        A bounded amount of each, so that no packet waits long for it: while `next_deadline` is not after `now`, call
        again, after receiving what has come meanwhile.
        """
        ctx = self._ctx
        ctx.clock = now
        ctx.timers.expire(now)
        for queue in ctx.quiet.values():
            for _ in range(BATCH):
                if not queue or queue[0].expires() > now:
                    break
                queue.popleft().forget(now)
        if len(self._reassembly):
            self._ingress.expire(now)
        if self.pool.filling:
            self.pool.refill()
        if ctx.sweep_at <= now:
            ctx.sweep(now)

    # Outputs

    def take_output(self, now: Micros) -> list[Outgoing]:
        """Gives every session with something to send its turn; returns the packets for the link, in order."""
        ctx = self._ctx
        ctx.clock = now
        receive = self._loopback.receive
        while ctx.touched or ctx.loop:
            touched, ctx.touched = ctx.touched, []
            turn = iter(touched)
            try:
                for session in turn:
                    session.touched = False
                    session.output(now)
            finally:
                ctx.touched += turn  # a fault in one session's turn costs the others nothing
            if ctx.loop:  # packets to ourselves are delivered inside (UM-37)
                loop = ctx.loop[:]
                ctx.loop.clear()
                for header, payload, gso_size, csum_offset in loop:
                    receive(header + payload if payload else header, 0, gso_size, csum_offset > 0, now)
        out = ctx.outbox
        if not out:
            return []
        batch = out[:]
        out.clear()
        counters = ctx.counters
        counters.packets_out += len(batch)
        for header, payload, _, _ in batch:
            counters.bytes_out += len(header) + len(payload)
        return batch

    def take_ready(self) -> list[Waitable]:
        """Sessions, listeners and sockets whose readiness changed, each once; look at what they offer now."""
        ctx = self._ctx
        ready = ctx.ready
        if ready:
            ctx.ready = []
            for endpoint in ready:
                endpoint.ready = False
        return ready

    def take_events(self) -> list[Event]:
        """What happened to leases, listeners and sessions since the last call, in order."""
        events = self._ctx.events
        taken = []
        for time, kind, whose, pair, reason in events:
            name, address, label = (whose.name, whose.address, whose.label) if isinstance(whose, Lease) else whose
            peer = None if pair is None else Address(pair[:16])
            taken.append(Event(time, kind, name, address, peer, reason, label))
        events.clear()
        return taken

    def keep_events(self, count: int) -> None:
        """How many events wait for `take_events` at most, the youngest; 65,536 at first. 0: nobody wants any."""
        ctx = self._ctx
        ctx.events = deque(ctx.events, maxlen=count)

    def is_due(self, now: Micros) -> bool:
        """Whether `advance` has something to do now. Cheaper than `next_deadline`, for who does not sleep anyway."""
        ctx = self._ctx
        if ctx.timers.is_due(now) or ctx.sweep_at <= now or self.pool.filling:
            return True
        for queue in ctx.quiet.values():
            if queue and queue[0].expires() <= now:
                return True
        return len(self._reassembly) > 0 and self._reassembly.next_deadline() <= now

    def next_deadline(self) -> Micros:
        """When `advance` must be called next, at the latest; NEVER if nothing waits."""
        ctx = self._ctx
        at = min(ctx.timers.next_deadline(), ctx.sweep_at)
        for queue in ctx.quiet.values():
            if queue:
                at = min(at, queue[0].expires())
        if len(self._reassembly):
            at = min(at, self._reassembly.next_deadline())
        return Micros(at)

    def watch(self, sink: list[TraceLine] | None) -> None:
        """From now on every TCP session writes what it does into `sink` (docs/tracing.md); None: no longer."""
        self._ctx.trace = sink

    # Verbs: TCP

    def connect(
        self,
        peer: Address,
        port: int,
        now: Micros,
        *,
        source: Address | None = None,
        unified: bool | None = None,
        label: str = "",
        policy: TcpPolicy | None = None,
        early: Buffer = b"",
    ) -> TcpSession:
        """Opens a session. Without `source` it takes an EA (UM-15); with one it is from there (UM-16).

        `unified`: whether the peer is known to be, so that both port fields carry the fixed value (UM-5); None
        asks `config.unified_peers`. `policy`: this session's own, from its SYN on. `early`: written before the SYN
        goes out, so that it goes with it where `policy.fast_open` can (RFC 7413). A chosen source lives as long as any
        session that was opened from it, and is not used again after (UM-12). Raises LocalError; nothing was changed
        then.
        """
        self._check_peer(peer, port)
        if label != "":
            check_label(label)
        if type(early) is not bytes:
            early = bytes(memoryview(early))  # what cannot be sent is refused now, not when there is a session
        ctx = self._ctx
        if ctx.memory * 8 > ctx.config.memory * 7:
            raise NoMemory("buffers hold nearly all the memory that is configured; close some sessions")
        dialled = self.config.fixed_port if self._is_unified(peer, unified) else port
        if policy is None:
            policy = self.config.tcp
        else:
            find(policy.congestion, ctx.congestion)
        if source is None:
            lease = self._take_ea(now, label)
            pair = peer + lease.address
            session = open_session(ctx, pair, lease, (self.config.fixed_port, dialled), policy, now, early)
            return self._own(session, port)
        mux = self._shared.get(source)
        if mux is not None:
            local_port = mux.choose_port(peer, port)
            session = open_session(ctx, peer + source, mux.lease, (local_port, port), policy, now, early)
            mux.add(session)
            return self._opened(session, local_port)
        # A concrete address of the prefix: the application's own choice, alive for its sessions (UM-16).
        if source == peer:
            raise BadArgument("source and peer are one address: only a shared address may talk to itself (UM-2)")
        if ctx.table_for(peer + source).get(peer + source) is not None:
            raise AddressInUse("a session has these two addresses now, or had them a minute ago; choose another source")
        chosen = self._choose(source, label, now)
        session = open_session(ctx, peer + source, chosen, (self.config.fixed_port, dialled), policy, now, early)
        chosen.join(session.pair)
        return self._own(session, port)

    def listen(
        self, now: Micros, *, address: Address | None = None, port: int = 0, backlog: int = 128, name: str = ""
    ) -> Listener:
        """Listens. On no address: LISTEN_0, which accepts nothing until DAS (UM-20). On one of the prefix: a
        service (UM-26). On a shared one: as ever, by port (UM-6). `name` is for DAS and logs: letters, digits, `.`, `_`
        and `-`; made up if empty. Raises LocalError; nothing was changed then.
        """
        check_number(port, "port", 0, 65535)
        check_number(backlog, "backlog", 1, 1 << 31)
        number, name = self._new_name(name, "tcp")
        ctx = self._ctx
        listener: Listener
        if address is None:
            listener = Listen0(ctx, number, name, port, backlog)
        elif address in self._shared:
            listener = PortListener(ctx, number, name, port, backlog, self._shared[address])
        else:
            lease = self._open_service(address, name, now)
            listener = ServiceListener(ctx, number, name, port, backlog, lease)
            ctx.demux.locals[address] = listener
        self._listeners[number] = listener
        ctx.events.append((now, EventKind.LISTEN, (name, address, listener.kind), None, Reason.NONE))
        return listener

    def das(
        self,
        door: Listener | UdpSocket,
        now: Micros,
        *,
        ssa: Address | None = None,
        peer: tuple[Address, int] | None = None,
        lifetime: Micros | None = None,
        label: str = "",
        grain: str = "session",
        pin: int = 128,
    ) -> ListenU | UdpDoor:
        """Delayed Address Setting (UM-21, UM-24): `door` accepts one session on `ssa`, or on an address minted now.

        `peer`: who alone may come, an address (length 128) or prefix. `lifetime` of the waiting: None takes the
        configured one, NEVER is unlimited. `grain`: "session", or "client" pinned to the first client's address or
        /64 (`pin` 128 or 64). Raises LocalError; nothing was changed then.
        """
        lifetime = self.config.das_lifetime if lifetime is None else lifetime
        check_label(label)
        listener = check_arguments(door, peer, lifetime, grain, pin)
        if ssa is None:
            ssa = self.pool.take()
        else:
            if ssa in self._shared:
                raise AddressInUse("this is a shared address of the stack; an SSA is for one session alone")
            self._reserve(ssa)
        return open_door(self._ctx, listener, ssa, peer, lifetime, label, grain, pin, now)

    def revoke(self, which: Address | str, now: Micros) -> None:
        """Takes a DAS back: by SSA, or by its name ("ssa.httpd.2"). Nobody may come any more; a session lives on."""
        for door in self.doors():
            if which in (door.lease.address, door.lease.name):
                door.revoke(now)
                return
        raise NoSuchObject("no SSA waits by that address or name: it was taken, has expired, or never was")

    def shared_source(self, peer: Address) -> Address:
        """The shared address to reach `peer` from, by RFC 6724's rules (UM-37): a `source` for the verbs.

        Raises AddressNotOurs when there is none.
        """
        found = choose_source(self.config.shared, peer)
        if found is None:
            raise AddressNotOurs("the stack has no shared address; without a source, a session takes an EA")
        return found

    # Verbs: UDP, echo

    def udp(self, now: Micros, *, address: Address | None = None, port: int = 0, name: str = "") -> UdpSocket:
        """A UDP socket. On no address it sends from EAs, and waits for DAS like a LISTEN_0 (UM-18, UM-28)."""
        check_number(port, "port", 0, 65535)
        number, name = self._new_name(name, "udp")
        ctx = self._ctx
        socket = UdpSocket(ctx, number, name, self, address, port)
        if address is not None and address in self._shared:
            socket.binding = SharedBinding(socket, self._shared[address], port)
            socket.port = socket.binding.port
        elif address is not None:
            lease = self._open_service(address, name, now)
            socket.binding = ctx.demux.locals[address] = ServiceBinding(
                ctx, socket, lease, port or self.config.fixed_port
            )
        self._listeners[number] = socket
        return socket

    def open_udp(self, socket: UdpSocket, peer: Address, port: int, now: Micros) -> UdpSession:
        """A session of `socket` with a new destination, from an EA of its own (UM-18)."""
        self._check_peer(peer, port, group=True)
        dialled = self.config.fixed_port if self._is_unified(peer, None) else port
        lease = self._take_ea(now, socket.name)
        session = UdpSession(self._ctx, socket, peer + lease.address, lease, (self.config.fixed_port, dialled), now)
        session.destination = (peer, port)
        socket.adopt(session)
        return session

    def ping(self, peer: Address, now: Micros, *, source: Address | None = None) -> EchoSession:
        """An echo session with `peer`, from an EA of its own or from a shared address (UM-38)."""
        self._check_peer(peer, 1)
        ctx = self._ctx
        mux = None if source is None else self._shared.get(source)
        if source is not None and mux is None:
            raise AddressNotOurs("echo leaves from an EA, or from a shared address of the stack")
        if mux is None:
            lease = self._take_ea(now, "ping")
            session = EchoSession(ctx, peer + lease.address, lease, self.config.fixed_port, now)
            session.register()
        else:
            identifier = next(
                (i for i in range(1, 65536) if peer + i.to_bytes(2, "big") not in mux.echoes), self.config.fixed_port
            )
            session = EchoSession(ctx, peer + mux.address, mux.lease, identifier, now)
            session.stage = mux
            mux.echoes[peer + identifier.to_bytes(2, "big")] = session
        return session

    def close(self, now: Micros) -> None:
        """Ends everything: peers of live sessions get RST. Drain `take_output` once more.

        A session that the application has closed, and whose peer has acknowledged all, goes without a word: RST
        would take from the peer what it has not read yet.
        """
        while self.end_some(now, 1 << 30):
            pass
        for listener in list(self._listeners.values()):
            listener.close(now)

    def end_some(self, now: Micros, limit: int) -> bool:
        """A part of `close`: an end to `limit` sessions. True: call it again, after draining what this has caused.

        A hundred thousand at once would be a second in which nobody else has a turn.
        """
        ending = self._ending or self._holders()
        for _ in range(min(limit, len(ending))):
            owner = ending.pop()
            if isinstance(owner, Connection | TcpSession):
                owner.end_with_stack(now)
            elif isinstance(owner, EchoSession):
                owner.close(now)
            elif isinstance(owner, PairMux):
                ending += owner.members.values()
        self._ending = ending
        return bool(ending)

    # Inside

    def _check_peer(self, peer: Address, port: int, *, group: bool = False) -> None:
        if len(peer) != 16:
            raise AddressMalformed(f"an IPv6 address has 16 bytes, not {len(peer)}")
        # RFC 4291 2.5.3: a packet to the loopback address "must never be sent outside of a single node".
        if not any(peer[:15]) and peer[15] < 2:
            raise AddressMalformed("the peer's address is unspecified or loopback; nobody can be reached there")
        if peer[0] == 0xFF and not group:
            raise AddressMalformed("the peer's address is a multicast one; a session needs a unicast address")
        check_number(port, "port", 1, 65535)

    def _is_unified(self, peer: Address, unified: bool | None) -> bool:
        if unified is not None:
            return unified
        peers = self.config.unified_peers
        return bool(peers) and any(within(peer, prefix) for prefix in peers)

    def _reserve(self, address: Address) -> None:
        try:
            self.pool.reserve(address)
        except AddressUsed:
            self._refuse_if_held(address)
            raise

    def _refuse_if_held(self, address: Address) -> None:
        """A lease that its session holds is not in the lease table (`LeaseTable.hand_over`)."""
        if any(lease.address == address for lease in self.leases()):
            raise AddressInUse("a session has this address now; choose another, or let the stack mint one")

    def _own(self, connection: SleepyConnection, port: int) -> TcpSession:
        """A session with an address of its own enters the pair table."""
        connection.owns_lease = True
        connection.register()
        if not isinstance(connection.lease, ChosenLease):
            self._ctx.leases.hand_over(connection.lease, connection.pair)
        return self._opened(connection, port)

    @staticmethod
    def _opened(connection: SleepyConnection, port: int) -> TcpSession:
        connection.port = port
        assert isinstance(connection.handle, TcpSession)
        return connection.handle

    def joins(self, source: Address) -> bool:
        """Whether an application has chosen this source for a session that it has open still: there may be others."""
        lease = self._ctx.leases.get(source)
        return isinstance(lease, ChosenLease) and lease.state == VALID

    def _choose(self, source: Address, label: str, now: Micros) -> ChosenLease:
        """The lease of a source that an application names (UM-16)."""
        ctx = self._ctx
        lease = ctx.leases.get(source)
        if isinstance(lease, ChosenLease) and lease.state == VALID:
            return lease
        if ctx.demux.locals.get(source) is not None:
            raise AddressInUse("somebody waits at this address; connect without a source, and the stack takes an EA")
        self._reserve(source)
        lease = ctx.leases.open_chosen(source, now, label)
        ctx.note(now, EventKind.LEASE_OPENED, lease)
        return lease

    def _take_ea(self, now: Micros, label: str) -> Lease:
        ctx = self._ctx
        lease = ctx.leases.open(self.pool.take(), EA, now, label=label)
        ctx.note(now, EventKind.LEASE_OPENED, lease)
        return lease

    def _open_service(self, address: Address, name: str, now: Micros) -> Lease:
        ctx = self._ctx
        held = ctx.leases.get(address)
        if held is not None and held.kind == SERVICE and held.state == VALID:
            raise AddressInUse(f"{held.group!r} is at this address now; close it first, or choose another")
        if not ctx.leases.may_serve_again(address):
            self._refuse_if_held(address)
            self.pool.set_aside(address)
        lease = ctx.leases.open(address, SERVICE, now, group=name, grain="service")
        ctx.note(now, EventKind.LEASE_OPENED, lease)
        return lease

    def _new_name(self, name: str, kind: str) -> tuple[int, str]:
        if name != "":
            check_name(name)
            if any(listener.name == name for listener in self.listeners()):
                raise AddressInUse(f"a listener is called {name!r} already")
        self._serial += 1
        return self._serial, name or f"{kind}{self._serial}"


__all__ = ["AnySession", "Outgoing", "Stack"]
