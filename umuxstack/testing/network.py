"""Hosts around one router, in virtual time: whole stacks, no trio, no root, no waiting.

Every packet that a host sends is decoded by dpkt and checked, and kept. One
seed decides everything: it is printed, and UMUX_SEED gives it back. Six weeks
pass at once if nothing happens in them.
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self, TypeVar

import attrs

from umuxstack.core.config import LinkCaps, StackConfig
from umuxstack.core.echo.session import EchoSession
from umuxstack.core.events import Event
from umuxstack.core.listen.das import UdpDoor
from umuxstack.core.listen.listen_0 import Listen0
from umuxstack.core.listen.listen_u import ListenU
from umuxstack.core.listen.listener import Listener
from umuxstack.core.network.endpoint import Waitable
from umuxstack.core.network.offload import finish
from umuxstack.core.session.context import Outgoing
from umuxstack.core.stack import AnySession, Stack
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.udp.session import UdpSocket
from umuxstack.core.units import FIXED_PORT, NEVER, Address, Micros, millis, minutes, seconds
from umuxstack.core.wire.address import in_prefix
from umuxstack.driver.addresses import to_prefix
from umuxstack.driver.links.impair import Impairment
from umuxstack.driver.links.router import Port, Router
from umuxstack.testing.apps import Acceptor, App
from umuxstack.testing.builders import AnyAddress, packed
from umuxstack.testing.checks import Check, matches
from umuxstack.testing.decode import Seen, UnsoundPacket, verify
from umuxstack.testing.entropy import seed_of, seed_of_run
from umuxstack.testing.recording import make_stack

DELAY: Final = Impairment(delay=millis(1))  # of each wire, unless told otherwise: a round trip is 2 ms
QUIET: Final = seconds(5)  # timers further off than this do not keep a network from being idle
LIVELOCK: Final = 1_000_000  # steps without time passing

Application = TypeVar("Application", bound=App)


class Host:
    """One stack of a network, with the verbs of `Stack` at the network's time. Made by `Network.host`."""

    def __init__(self, network: "Network", name: str, stack: Stack, port: Port) -> None:
        self.network = network
        self.name = name
        self.stack = stack
        self.port = port
        self.events: list[Event] = []  # everything the stack reported

    def __repr__(self) -> str:
        return f"<Host {self.name}>"

    @property
    def now(self) -> Micros:
        return self.network.now

    def connect(self, peer: AnyAddress, port: int = FIXED_PORT, **options: Any) -> TcpSession:
        """`Stack.connect`. The peer may be written in any way."""
        return self.stack.connect(Address(packed(peer)), port, self.now, **options)

    def listen(self, *, address: AnyAddress | None = None, **options: Any) -> Listener:
        """`Stack.listen`; without an address a LISTEN_0."""
        where = None if address is None else Address(packed(address))
        return self.stack.listen(self.now, address=where, **options)

    def das(self, listener: Listener | UdpSocket, *, peer: str | None = None, **options: Any) -> ListenU | UdpDoor:
        """`Stack.das`; `peer` is an address or a prefix, as text."""
        assert isinstance(listener, Listen0 | UdpSocket)
        who = None if peer is None else to_prefix(peer)
        return self.stack.das(listener, self.now, peer=who, **options)

    def revoke(self, what: Address | str) -> None:
        self.stack.revoke(what, self.now)

    def udp(self, *, address: AnyAddress | None = None, **options: Any) -> UdpSocket:
        where = None if address is None else Address(packed(address))
        return self.stack.udp(self.now, address=where, **options)

    def ping(self, peer: AnyAddress, data: bytes = b"", **options: Any) -> EchoSession:
        """An echo session whose first request is sent."""
        session = self.stack.ping(Address(packed(peer)), self.now, **options)
        session.send(data, self.now)
        return session

    def write(self, session: TcpSession, data: bytes) -> int:
        return session.write(data, self.now)

    def read(self, session: TcpSession, limit: int = 1 << 30) -> bytes:
        return session.read(limit, self.now)

    def shutdown(self, session: TcpSession) -> None:
        session.shutdown(self.now)

    def close(self, what: TcpSession | Listener | UdpSocket | EchoSession) -> None:
        what.close(self.now)

    def abort(self, session: TcpSession) -> None:
        session.abort(self.now)

    def send_to(self, socket: UdpSocket, data: bytes, peer: AnyAddress, port: int = FIXED_PORT) -> None:
        socket.send(data, self.now, to=(Address(packed(peer)), port))

    def attach(self, endpoint: Waitable, app: Application) -> Application:
        """`app` acts for the endpoint from now on."""
        endpoint.owner = app
        app.step(endpoint, self.now)
        return app

    def serve(self, listener: Listener, make: Callable[[], App]) -> Acceptor:
        """Accepts whatever comes, and gives each session an application."""
        return self.attach(listener, Acceptor(make))

    def sessions(self) -> list[AnySession]:
        return list(self.stack.sessions())

    def holds(self, address: bytes) -> bool:
        """Whether packets from this address may come from here."""
        config = self.stack.config
        return in_prefix(address, config.prefix, config.prefix_length) or address in config.shared


@attrs.frozen
class Filter:
    """What a test lets vanish on its way to the router. `taken` are the packets it took."""

    takes: Callable[[Seen], bool]
    taken: list[Seen] = attrs.field(factory=list)


class Network:
    """Hosts, their wires to one router, and their common time.

    `offload`: the stacks' links segment and finish checksums, and super-segments pass whole where a wire is
    perfect but for its delay. `record`: keep every packet (as plain packets); without, they are only checked.
    Used as a context manager it closes everything at the end and makes sure that nothing is left.
    """

    def __init__(self, *, seed: int | None = None, offload: bool = False, mtu: int = 1500, record: bool = True) -> None:
        self.seed = seed_of_run() if seed is None else seed
        print(f"UMUX_SEED={self.seed}")
        self.now: Micros = seconds(1000)
        self.router = Router()
        self.members: dict[str, Host] = {}
        self.sent: list[Seen] = []  # every packet of every host, in order
        self.checked = 0  # packets that were decoded and found sound
        self._offload = offload
        self._mtu = mtu
        self._record = record
        self._filters: list[Filter] = []
        self._by_port: dict[Port, Host] = {}

    # Building

    def host(
        self,
        name: str,
        *,
        prefix: str = "",
        wire: Impairment = DELAY,
        up: Impairment | None = None,
        mtu: int = 0,
        congestion: Mapping[str, type] = MappingProxyType({}),
        **config: Any,
    ) -> Host:
        """A new host. `wire` is what comes down from the router, `up` what goes up to it (None: at once, undamaged).

        Prefixes are 2001:db8:1::/64, 2001:db8:2::/64 … unless given. `config`: fields of `StackConfig`; `shared`
        addresses may be written in any way, and are routed to the host as well. `congestion`: algorithms of its own,
        by name (docs/congestion.md).
        """
        assert name not in self.members, f"there is a host {name} already"
        network, length = to_prefix(prefix or f"2001:db8:{len(self.members) + 1:x}::/64")
        shared = tuple(Address(packed(address)) for address in config.pop("shared", ()))
        caps = LinkCaps(mtu=mtu or self._mtu, segmentation=self._offload, checksum=self._offload)
        config.setdefault("link", caps)
        settings = StackConfig(prefix=network, prefix_length=length, shared=shared, **config)
        outside = [(address, 128) for address in shared if not in_prefix(address, network, length)]
        port = self.router.attach(
            name, ((network, length), *outside), settings.link, up=self._seeded(up), down=self._seeded(wire)
        )
        stack = make_stack(self, settings, seed_of(self.seed, name), self.now, congestion)
        host = Host(self, name, stack, port)
        self.members[name] = self._by_port[port] = host
        return host

    def hosts(self, *names: str, **config: Any) -> tuple[Host, ...]:
        """Several hosts alike; `config` as `host` takes it."""
        return tuple(self.host(name, **config) for name in names)

    def impair(self, host: Host, wire: Impairment | None = None, *, up: Impairment | None = None) -> None:
        """Changes a host's wires from now on; packets under way keep their times. None leaves a wire as it is."""
        self.router.impair(host.port, up=self._seeded(up), down=self._seeded(wire))

    def lose(self, *checks: Check, sender: Host | None = None, limit: int = 1 << 60) -> Filter:
        """From now on packets that satisfy `checks` vanish, the first `limit` of them. See `restore`."""

        def takes(seen: Seen) -> bool:
            wanted = sender is None or seen.sender == sender.name
            return wanted and len(filtered.taken) < limit and matches(seen, *checks)

        filtered = Filter(takes)
        self._filters.append(filtered)
        return filtered

    def restore(self, *filters: Filter) -> None:
        """Those filters end; without arguments all do."""
        self._filters = [kept for kept in self._filters if filters and kept not in filters]

    def _seeded(self, impairment: Impairment | None) -> Impairment | None:
        if impairment is None:
            return None
        return attrs.evolve(impairment, seed=self.seed if impairment.seed == 0 else impairment.seed)

    # Time

    def run_for(self, duration: int) -> None:
        """Lets `duration` microseconds pass."""
        self._run(Micros(self.now + duration), lambda: False)

    def run_until(self, predicate: Callable[[], bool], limit: int = minutes(10)) -> None:
        """Until `predicate()` holds, asked after every step. Raises AssertionError if it does not within `limit`."""
        start = self.now
        assert self._run(Micros(start + limit), predicate), f"still not so after {limit / 1e6:g} s"

    def run_until_idle(self, limit: int = minutes(10), quiet: int = QUIET) -> None:
        """Until no packet is under way, and no timer comes within `quiet` microseconds.

        Time stands where the last thing happened. Raises AssertionError if that takes longer than `limit`.
        """
        start = self.now
        assert self._run(Micros(start + limit), lambda: self._next() > self.now + quiet), (
            f"still busy after {limit / 1e6:g} s"
        )

    def _run(self, target: Micros, predicate: Callable[[], bool]) -> bool:
        """True as soon as the predicate holds; False when time has come to `target`."""
        steps = 0
        self._flush()
        while not predicate():
            due = self._next()
            if due > target:
                self.now = target
                return False
            steps = steps + 1 if due <= self.now else 0
            assert steps < LIVELOCK, "something happens again and again, and no time passes"
            self.now = max(self.now, due)
            self._step()
        return True

    def _next(self) -> Micros:
        """When something happens next. All hosts are flushed."""
        due = self.router.next_forward()
        for host in self.members.values():
            due = Micros(min(due, host.port.down.next_due(), host.stack.next_deadline()))
        return due

    def _step(self) -> None:
        """Everything that is due now."""
        now = self.now
        self.router.forward(now)
        for host in self.members.values():
            for buf, base, gso_size, csum_ok in host.port.down.receive_due(now):
                host.stack.receive(buf, base, gso_size, csum_ok, now)
            if host.stack.next_deadline() <= now:
                host.stack.advance(now)
        self._flush()

    def _flush(self) -> None:
        """Output and readiness of every host, until there is none."""
        for host in self.members.values():
            while True:
                for outgoing in host.stack.take_output(self.now):
                    self._send(host, outgoing)
                ready = host.stack.take_ready()
                for endpoint in ready:
                    if isinstance(endpoint.owner, App):
                        endpoint.owner.step(endpoint, self.now)
                if not ready:
                    break
            host.events += host.stack.take_events()

    # Packets

    def _send(self, host: Host, outgoing: Outgoing) -> None:
        packets = [self._judge(host, packet) for packet in finish(outgoing)]
        if self._record:
            self.sent += packets
        if not self._filters:
            self.router.send(host.port, outgoing, self.now)
            return
        for seen in packets:
            taker = next((f for f in self._filters if f.takes(seen)), None)
            if taker is None:
                self.router.send(host.port, (seen.raw, b"", 0, 0), self.now)
            else:
                taker.taken.append(seen)

    def _judge(self, host: Host, packet: bytes) -> Seen:
        """The packet, decoded and found sound. Raises UnsoundPacket with the seed otherwise."""
        seen = Seen(packet, self.now, host.name, self._receiver(packet[24:40]))
        try:
            verify(packet, mtu=host.stack.config.link.mtu)
        except UnsoundPacket as error:
            error.add_note(f"UMUX_SEED={self.seed}, at {self.now / 1e6:.6f} s, sent by {host.name}")
            raise
        assert host.holds(seen.source), f"{host.name} sent from an address that is not its own: {seen!r}"
        self.checked += 1
        return seen

    def _receiver(self, destination: bytes) -> str:
        for host in self.members.values():
            if host.holds(destination):
                return host.name
        return ""

    def inject(self, packet: bytes, to: Host | None = None) -> None:
        """A packet of the test's own making arrives at `to`, or at the host its destination belongs to, at once."""
        host = to or self.members[self._receiver(packet[24:40])]
        host.stack.receive(packet, 0, 0, False, self.now)

    def sent_by(self, host: Host, *checks: Check, to: Host | None = None, since: int = 0) -> list[Seen]:
        """What `host` sent (to the host `to`, from the time `since` on) that satisfies `checks`."""
        return [
            seen
            for seen in self.sent
            if seen.sender == host.name
            and (to is None or seen.receiver == to.name)
            and seen.time >= since
            and matches(seen, *checks)
        ]

    def write_pcap(self, path: str | Path) -> None:
        """Everything that was sent, as a capture for other tools (classic pcap, raw IPv6, microseconds)."""
        with open(path, "wb") as file:
            file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65575, 101))
            for seen in self.sent:
                size = len(seen.raw)
                file.write(struct.pack("<IIII", seen.time // 1_000_000, seen.time % 1_000_000, size, size) + seen.raw)

    # Helpers

    def established(self, client: Host, server: Host, **das: Any) -> tuple[TcpSession, TcpSession]:
        """A session of `client` with an SSA of `server`: both ends. The listener is closed again."""
        door = server.listen()
        session = client.connect(server.das(door, **das).lease.address)
        self.run_until(lambda: door.readable and session.established)
        accepted = door.accept()
        assert accepted is not None
        server.close(door)
        return session, accepted

    # The end

    def close_all(self) -> None:
        """Every application closes what it has."""
        for host in self.members.values():
            for listener in host.stack.listeners():
                listener.close(self.now)
            for session in host.sessions():
                if isinstance(session, TcpSession | EchoSession):
                    session.close(self.now)
        self._flush()

    def leftovers(self) -> dict[str, dict[str, int]]:
        """Table entries that are not empty, by host."""
        found = {name: host.stack.leftovers() for name, host in self.members.items()}
        return {name: {k: n for k, n in counts.items() if n} for name, counts in found.items() if any(counts.values())}

    def check_no_leaks(self, rest: int = minutes(5)) -> None:
        """Lets `rest` pass, then no session, lease, timer, record or byte may be left, in any stack.

        Close everything first. Raises AssertionError with what is left.
        """
        self.run_for(rest)
        left = self.leftovers()
        assert not left, f"left behind (UMUX_SEED={self.seed}): {left}; {list(self._names_left())}"

    def _names_left(self) -> Iterator[str]:
        for host in self.members.values():
            yield from (f"{host.name}: {session!r}" for session in host.sessions())
            yield from (f"{host.name}: {lease!r}" for lease in host.stack.leases() if lease.kind != "SHARED")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(f"UMUX_SEED={self.seed}, at {self.now / 1e6:.6f} s")
            return
        self.restore()
        self.close_all()
        self.check_no_leaks()


__all__ = ["DELAY", "NEVER", "Filter", "Host", "Network"]
