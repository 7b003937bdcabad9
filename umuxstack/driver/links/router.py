"""A router between several networks: longest prefix match, path MTU, imperfect wires.

Sans-IO. Each port has a wire to the router (`up`) and one from it (`down`).
Knows nothing of sessions. It does not count hops down: it is one router, and
nothing can loop. Invariant: a packet never leaves by the port it came in at.
"""

from typing import Final

import attrs

from umuxstack.core.config import LinkCaps
from umuxstack.core.errors import BadArgument
from umuxstack.core.network.offload import finish
from umuxstack.core.session.context import Outgoing
from umuxstack.core.units import ICMPV6, NEVER, Address, Micros
from umuxstack.core.wire import icmpv6, ipv6
from umuxstack.core.wire.address import LENGTH, first_of, in_prefix, is_multicast, is_unspecified, parse
from umuxstack.driver.links.impair import Impairment, Pipe

ROUTER_ADDRESS: Final = parse("2001:db8:ffff::1")  # where its ICMPv6 errors come from, unless told otherwise
QUEUE_LIMIT: Final = 10_000  # packets under way to one port; a reader that does not read loses the rest


class Port:
    """Where one network is connected."""

    __slots__ = ("caps", "down", "name", "prefixes", "touched", "up")

    def __init__(
        self, name: str, caps: LinkCaps, prefixes: tuple[tuple[Address, int], ...], up: Pipe | None, down: Pipe
    ) -> None:
        self.name = name
        self.caps = caps
        self.prefixes = prefixes
        self.up = up  # None: a perfect wire without delay
        self.down = down
        self.touched = False  # stands in the router's list of ports that got something


@attrs.frozen(slots=True)
class RouterStatistics:
    """What the router itself did not deliver, and the errors it sent."""

    forwarded: int
    no_route: int
    too_big: int
    overflow: int


class Router:
    """Moves packets between its ports. `point_to_point`: there are two, and everything goes to the other one."""

    def __init__(self, *, address: Address = ROUTER_ADDRESS, point_to_point: bool = False) -> None:
        self.address = address
        self.ports: list[Port] = []
        self._point_to_point = point_to_point
        self._routes: list[tuple[Address, int, Port]] = []  # longest first
        self._uplinks: list[Port] = []  # ports whose wire to us takes time
        self._touched: list[Port] = []
        self._forwarded = self._no_route = self._too_big = self._overflow = 0

    def attach(
        self,
        name: str,
        prefixes: tuple[tuple[Address, int], ...],
        caps: LinkCaps,
        *,
        up: Impairment | None = None,
        down: Impairment | None = None,
    ) -> Port:
        """A new port, to which `prefixes` are routed. `up` is the wire from the network to the router."""
        for prefix, length in prefixes:
            if first_of(prefix, length) != prefix:
                raise BadArgument(f"a prefix routed to {name} has bits set beyond its length of {length}")
            if any((prefix, length) == (other, at) for other, at, _ in self._routes):
                raise BadArgument(f"a prefix routed to {name} is routed to another port already")
        whole = caps.segmentation and caps.checksum
        port = Port(
            name,
            caps,
            prefixes,
            None if up is None else Pipe(up, name=f"{name} up"),
            Pipe(down or Impairment(), name=f"{name} down", whole=whole),
        )
        self.ports.append(port)
        if port.up is not None:
            self._uplinks.append(port)
        self._routes += [(prefix, length, port) for prefix, length in prefixes]
        self._routes.sort(key=lambda route: -route[1])
        return port

    def detach(self, port: Port) -> None:
        """The port is gone, with what was under way to and from it. Idempotent."""
        if port in self.ports:
            self.ports.remove(port)
            self._routes = [route for route in self._routes if route[2] is not port]
            self._uplinks = [uplink for uplink in self._uplinks if uplink is not port]

    def impair(self, port: Port, *, up: Impairment | None = None, down: Impairment | None = None) -> None:
        """Changes the wires of a port from now on; None leaves a direction as it is."""
        if down is not None:
            port.down.change(down)
        if up is not None and port.up is not None:
            port.up.change(up)
        elif up is not None:
            port.up = Pipe(up, name=f"{port.name} up")
            self._uplinks.append(port)

    def send(self, port: Port, outgoing: Outgoing, now: Micros) -> None:
        """The network at `port` sends."""
        if port.up is None:
            self._forward(port, outgoing, now)
        else:
            port.up.send_outgoing(outgoing, now)

    def forward(self, now: Micros) -> None:
        """Moves on what has come up to the router by `now`, in order of arrival."""
        while (due := self.next_forward()) <= now:
            for port in self._uplinks:
                if port.up is not None:
                    for packet, _, _, _ in port.up.receive_due(due):
                        self._forward(port, (packet, b"", 0, 0), due)

    def next_forward(self) -> Micros:
        """When `forward` has something to do next; NEVER if nothing is on its way up."""
        return min((port.up.next_due() for port in self._uplinks if port.up is not None), default=NEVER)

    def take_touched(self) -> list[Port]:
        """Ports that got packets under way to them since the last call, each once."""
        touched = self._touched
        if touched:
            self._touched = []
            for port in touched:
                port.touched = False
        return touched

    def statistics(self) -> RouterStatistics:
        return RouterStatistics(self._forwarded, self._no_route, self._too_big, self._overflow)

    def _forward(self, source: Port, outgoing: Outgoing, now: Micros) -> None:
        header, payload, gso_size, _ = outgoing
        targets = self._targets(source, header[ipv6.DESTINATION : ipv6.PAIR_END])
        if not targets:
            self._no_route += 1
            return
        size = len(header) + (gso_size if 0 < gso_size < len(payload) else len(payload))
        for target in targets:
            if size > target.caps.mtu:
                self._refuse(source, outgoing, target.caps.mtu, now)
            elif len(target.down) >= QUEUE_LIMIT:
                self._overflow += 1
            else:
                self._forwarded += 1
                target.down.send_outgoing(outgoing, now)
                self._touch(target)

    def _targets(self, source: Port, destination: bytes) -> list[Port]:
        if self._point_to_point:
            return [port for port in self.ports if port is not source]
        if len(destination) < LENGTH:
            return []  # damaged on the way; a router drops what it cannot read
        if is_multicast(destination):
            return [port for port in self.ports if port is not source]
        for prefix, length, port in self._routes:
            if in_prefix(destination, prefix, length):
                return [] if port is source else [port]
        return []

    def _touch(self, port: Port) -> None:
        if not port.touched:
            port.touched = True
            self._touched.append(port)

    def _refuse(self, source: Port, outgoing: Outgoing, mtu: int, now: Micros) -> None:
        """RFC 4443 3.2: "A Packet Too Big MUST be sent by a router in response to a packet that it cannot forward"."""
        self._too_big += 1
        packet = finish(outgoing)[0]
        sender = packet[ipv6.SOURCE : ipv6.DESTINATION]
        # RFC 4443 2.4 (e): never about an ICMPv6 error, and never to an address that names no single node.
        is_error = packet[6] == ICMPV6 and len(packet) > ipv6.HEADER and packet[ipv6.HEADER] < icmpv6.ECHO_REQUEST
        if self._point_to_point or is_error or is_multicast(sender) or is_unspecified(sender):
            return
        error = icmpv6.build(self.address, sender, icmpv6.PACKET_TOO_BIG, 0, mtu, icmpv6.quote(packet), 64)
        source.down.send(error, now)
        self._touch(source)
