"""The stack under test, in virtual time: packets in, packets out, sockets by file descriptor.

Owns the clock. What the stack sends is read at once and kept with its time until the script asks for it.
Invariant: time moves only in `run_until`, from deadline to deadline.
"""

from collections import deque
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Final

import attrs

from umuxstack.conformance import wire
from umuxstack.conformance.flow import Flow
from umuxstack.conformance.outcome import Mismatch
from umuxstack.core.config import LinkCaps, PoolPolicy, StackConfig, TcpPolicy
from umuxstack.core.entropy import Entropy
from umuxstack.core.errors import AddressInUse
from umuxstack.core.legacy.ports import PortMux
from umuxstack.core.network.offload import finish
from umuxstack.core.stack import Stack
from umuxstack.core.tcp.connection import Connection
from umuxstack.core.tcp.session import TcpSession, open_session
from umuxstack.core.units import NEVER, Address, Micros

START: Final = Micros(1_000_000_000)  # the clock when a script begins: far from 0, where a lazy check would pass
LIVELOCK: Final = 200_000  # steps in which no time passes
CONNECT_PORT: Final = 8080

# Names for `[from NAME, to NAME]`; the interface identifiers are arbitrary, the prefixes for documentation.
HERE: Final = Address(IPv6Address("fd3d:fa7b:d17d::1").packed)
PREFIX: Final = Address(IPv6Address("fd00:db8:5::").packed)
NAMES: Final = {"here": HERE}
PEERS: Final = {
    "peer": Address(IPv6Address("2001:db8::1").packed),
    "other": Address(IPv6Address("2001:db8:0:7::2").packed),
    "third": Address(IPv6Address("2001:db8:0:9::3").packed),
    "neighbour": Address(IPv6Address("2001:db8::2").packed),  # in the /64 of `peer`
}


@attrs.frozen(slots=True)
class Sent:
    """A packet of the stack's, not yet matched."""

    time: Micros
    packet: wire.Seen
    raw: bytes


class Target:
    """One stack with one link. `unified`: sessions on addresses of their own; else ports on one shared address."""

    def __init__(self, policy: TcpPolicy, *, mtu: int, seed: str, unified: bool, silence: bool) -> None:
        self.policy = policy
        self.unified = unified
        self.mtu = mtu
        self.now: Micros = START
        self.entropy = Entropy(f"umux drill {seed}".encode())
        config = StackConfig(
            prefix=PREFIX,
            tcp=policy,
            shared=(HERE,),
            silence=silence,
            link=LinkCaps(mtu=mtu),
            pool=PoolPolicy(4, 16),
        )
        self.stack = Stack(config, self.entropy, self.now)
        self.sent: deque[Sent] = deque()
        self.capture: list[tuple[Micros, bytes]] = []
        self.link_up = True
        self.names: dict[str, Address] = NAMES | PEERS
        self.flows: dict[tuple[bytes, int, bytes, int], Flow] = {}
        self.flow: Flow | None = None  # the one that packets without addresses belong to
        self.remote_port = 0  # the script's end of the next connection that it opens
        self.waiting: Callable[[], bool] | None = None  # a blocking call: does it return now?
        self.waits_until: Micros = NEVER
        self.segments = {"out": 0, "in": 0, "data_out": 0, "data_in": 0, "bytes_out": 0}
        self._steps = 0

    # Configuration

    def change_policy(self, changes: dict[str, object]) -> None:
        """For sessions to come, as a sysctl. Raises BadArgument."""
        self.policy = attrs.evolve(self.policy, **changes)  # type: ignore[arg-type]
        config = attrs.evolve(self.stack.config, tcp=self.policy)
        self.stack.config = config
        self.stack._ctx.config = config

    @property
    def mux(self) -> PortMux:
        return self.stack._shared[HERE]

    # Time

    def run_until(self, until: Micros, *, stop: Callable[[], bool] | None = None) -> bool:
        """Lets time pass. True as soon as `stop` says so; False when `until` is reached without."""
        while True:
            self._settle()
            if stop is not None and stop():
                return True
            at = min(self.stack.next_deadline(), self.waits_until if self.waiting is not None else NEVER)
            if at > until:
                self.now = max(self.now, until)
                self.stack.advance(self.now)
                self._settle()
                return stop is not None and stop()
            self._steps = self._steps + 1 if at <= self.now else 0
            if self._steps > LIVELOCK:
                raise Mismatch("the stack's next deadline does not move: it would spin forever")
            self.now = max(self.now, at)
            self.stack.advance(self.now)

    def _settle(self) -> None:
        """Everything that happens at this instant."""
        for _ in range(100):
            self._collect()
            if self.waiting is None or not self.waiting():
                break
            self.waiting = None
        self._collect()

    def _collect(self) -> None:
        for outgoing in self.stack.take_output(self.now):
            if not self.link_up:
                continue
            for raw in finish(outgoing):
                self.capture.append((self.now, raw))
                if len(raw) > self.mtu:
                    raise Mismatch(f"a packet of {len(raw)} octets on a link of {self.mtu}")
                try:
                    packet = wire.read(raw)
                except wire.Unsound as error:
                    raise Mismatch(f"an unsound packet: {error}", [raw.hex()]) from None
                self._count(packet)
                self.sent.append(Sent(self.now, packet, raw))
        self.stack.take_ready()
        self.stack.take_events()

    def _count(self, packet: wire.Seen) -> None:
        if isinstance(packet, wire.Segment):
            self.segments["out"] += 1
            if packet.payload:
                self.segments["data_out"] += 1
                self.segments["bytes_out"] += len(packet.payload)

    # Packets

    def inject(self, raw: bytes, gso_size: int = 0) -> None:
        self.capture.append((self.now, raw))
        if self.link_up:
            self.stack.receive(raw, 0, gso_size, False, self.now)
        self._settle()

    # Sessions

    def session_of(self, flow: Flow) -> object | None:
        """Who answers for this four-tuple now: a connection, a record of one, or nobody."""
        if flow.local == HERE:
            key = flow.remote + flow.remote_port.to_bytes(2, "big") + flow.local_port.to_bytes(2, "big")
            return self.mux.sessions.get(key)
        return self.stack._ctx.demux.pairs.get(flow.remote + flow.local)

    def connect(self, peer: Address, port: int, source: Address, local_port: int, policy: TcpPolicy) -> TcpSession:
        """An active open from a port of the caller's choice (0: any), with a policy of its own. Raises LocalError."""
        self.stack._check_peer(peer, port)
        mux = self.stack._shared[source]
        if not local_port:
            local_port = mux.choose_port(peer, port)
        key = peer + port.to_bytes(2, "big") + local_port.to_bytes(2, "big")
        holder = mux.sessions.get(key)
        if isinstance(holder, Connection):
            raise AddressInUse("this four-tuple is in use")
        if holder is not None:
            holder.forget(self.now)  # type: ignore[attr-defined]  # a TIME-WAIT record gives way (RFC 6191)
        connection = open_session(self.stack._ctx, peer + source, mux.lease, (local_port, port), policy, self.now)
        mux.add(connection)
        connection.port = local_port
        assert isinstance(connection.handle, TcpSession)
        return connection.handle

    def connect_from_ea(self, peer: Address, port: int) -> TcpSession:
        return self.stack.connect(peer, port, self.now)

    def open_flow(self, local: bytes, local_port: int, remote: bytes, remote_port: int) -> Flow:
        """A new connection begins: its numbers are not known yet."""
        flow = Flow(local, local_port, remote, remote_port)
        self.flows[flow.key] = flow
        return flow
