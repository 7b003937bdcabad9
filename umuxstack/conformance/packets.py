"""Packets between script and stack: an injected one becomes bytes, an expected one is matched, field by field.

The flow (numbers, ports, addresses) of each packet is found here. One expected line may stand for several segments.
"""

from ipaddress import AddressValueError, ip_address
from typing import Final

import attrs

from umuxstack.conformance import icmp, wire
from umuxstack.conformance.ends import Ends, Sent
from umuxstack.conformance.flow import MASK, Flow
from umuxstack.conformance.match import Difference, compare, describe
from umuxstack.conformance.octets import check, octets
from umuxstack.conformance.outcome import Mismatch, UnsupportedConstruct
from umuxstack.conformance.script import (
    AccEcn,
    AckRateRequest,
    Direction,
    FastOpen,
    IcmpPacket,
    IpFields,
    Md5,
    Packet,
    TcpFlags,
    TcpOption,
    TcpPacket,
    Timestamps,
    UdpPacket,
    UnknownOption,
    UnsupportedPacket,
)
from umuxstack.core.units import Micros

FIRST_REMOTE_PORT: Final = 40_000
ECHO_REPLIES: Final = (129, 0)  # RFC 4443 4.2, RFC 792; no other message that a stack sends has type 0
_ECN: Final = {"noecn": 0, "ect1": 1, "ect0": 2, "ce": 3}
LEAST_PIECE: Final = 64  # octets: no path is so narrow that a burst is cut into less


@attrs.define(slots=True)
class Wiring:
    """What the option lines say about packets."""

    bind_port: int = 8080
    connect_port: int = 8080
    strict_segments: bool = False
    mss: int = 0  # --mss: how a long injected segment was made up
    stamp_tick: int = 0  # --tcp_ts_tick_usecs; 0: the stack's timestamp values are not checked
    tolerance: int = 4000
    ignores_others: bool = False  # what belongs to another socket, or to none, needs no line of its own
    pushes_bursts: bool = False  # the vendor's stack sets PSH on every burst: a line that covers one shows it


def check_supported(packet: Packet) -> None:
    """Raises UnsupportedConstruct for what cannot be played."""
    if isinstance(packet, UnsupportedPacket):
        raise UnsupportedConstruct(packet.construct)
    if packet.encapsulations:
        raise UnsupportedConstruct(f"encapsulation {packet.encapsulations[0].kind}")
    if isinstance(packet, UdpPacket) and packet.coverage is not None:
        raise UnsupportedConstruct("UDP-Lite")
    if isinstance(packet, IcmpPacket) and packet.quoted is not None and packet.quoted.protocol not in ("tcp", "udp"):
        raise UnsupportedConstruct(f"ICMP quoting {packet.quoted.protocol}")
    if isinstance(packet, TcpPacket):
        if packet.udp_ports is not None:
            raise UnsupportedConstruct("TCP in UDP")
        for option in packet.options or ():
            match option:
                case UnknownOption(name):
                    raise UnsupportedConstruct(f"TCP option {name}")
                case FastOpen(experimental=True) if (
                    packet.direction is Direction.OUT and not packet.flags & TcpFlags.ACK
                ):
                    raise UnsupportedConstruct("TCP Fast Open's experimental option")
                case Md5():
                    raise UnsupportedConstruct("TCP MD5")
                case AccEcn(experimental=True):
                    raise UnsupportedConstruct("AccECN's experimental option")
                case AckRateRequest():
                    raise UnsupportedConstruct("ACK rate request")


class Packets:
    """Injects and expects packets at one target."""

    def __init__(self, target: Ends, wiring: Wiring) -> None:
        self.target = target
        self.wiring = wiring
        self._remote_port = FIRST_REMOTE_PORT

    # Which connection

    def address(self, name: str | None, default: bytes) -> bytes:
        """What `[from NAME]` or `[to NAME]` means. Raises UnsupportedConstruct."""
        if name is None:
            return default
        known = self.target.names.get(name)
        if known is not None:
            return known
        try:
            return self.target.parse(name)
        except AddressValueError:
            raise Mismatch(f"nothing is called {name!r}; there are: {', '.join(sorted(self.target.names))}") from None

    def next_remote_port(self) -> int:
        self._remote_port += 1
        return self._remote_port

    def _inbound_flow(self, packet: TcpPacket | UdpPacket) -> Flow:
        target = self.target
        opens = isinstance(packet, TcpPacket) and packet.flags & 0x17 == TcpFlags.SYN
        named = packet.ip.source is not None or packet.ip.destination is not None
        current = target.flow
        if not named and packet.ports is None:
            if current is not None and not (opens and self._is_over(current)):
                return current
            port = current.remote_port if current is not None and self._is_again(current) else self.next_remote_port()
            flow = target.open_flow(target.here, self.wiring.bind_port, target.peer, port)
        else:
            local = self.address(packet.ip.destination, current.local if current is not None else target.here)
            remote = self.address(packet.ip.source, current.remote if current is not None else target.peer)
            known = self._known(local, remote, packet)
            if known is not None and not (opens and self._is_over(known)):
                return known
            ports = packet.ports
            if ports is not None:
                flow = target.open_flow(local, ports.destination, remote, ports.source)
            else:
                remote_port = known.remote_port if known is not None else self.next_remote_port()
                local_port = known.local_port if known is not None else self.wiring.bind_port
                flow = target.open_flow(local, local_port, remote, remote_port)
        if not named or current is None:
            target.flow = flow
        return flow

    def _known(self, local: bytes, remote: bytes, packet: TcpPacket | UdpPacket) -> Flow | None:
        ports = packet.ports
        if ports is not None:
            return self.target.flows.get((local, ports.destination, remote, ports.source))
        same = [flow for flow in self.target.flows.values() if flow.local == local and flow.remote == remote]
        return same[-1] if same else None

    def _is_over(self, flow: Flow) -> bool:
        """Its connection is gone without a record, so a SYN begins another."""
        return flow.live_remote is not None and not self.target.is_known(flow)

    def _is_again(self, flow: Flow) -> bool:
        return flow.local_port == self.wiring.bind_port

    # Injecting

    def inject(self, packet: Packet) -> bytes:
        """Puts the packet on the wire; returns its bytes. Raises UnsupportedConstruct."""
        check_supported(packet)
        if isinstance(packet, TcpPacket):
            return self._inject_segment(packet)
        if isinstance(packet, UdpPacket):
            return self._inject_datagram(packet)
        assert isinstance(packet, IcmpPacket)
        flow = self.target.flow
        if flow is None:
            raise UnsupportedConstruct("an ICMP error without a connection")
        if packet.ip.source is not None or packet.ip.destination is not None:
            local = self.address(packet.ip.destination, flow.local)
            found = [f for f in self.target.flows.values() if f.local == local]
            flow = found[-1] if found else flow
        ip = attrs.evolve(self._ip(flow, packet.ip), source=self.address(packet.ip.source, flow.remote))
        try:
            raw = icmp.build(packet, flow, ip)
        except ValueError as error:
            raise UnsupportedConstruct(str(error)) from None
        self.target.inject(raw)
        return raw

    def _ip(self, flow: Flow, fields: IpFields) -> wire.Ip:
        traffic_class = fields.tos or 0
        if fields.dscp is not None:
            traffic_class = fields.dscp << 2 | traffic_class & 3
        if fields.ecn is not None:
            if fields.ecn == "ect01":
                raise UnsupportedConstruct("ect01 on an injected packet")
            traffic_class = traffic_class & ~3 | _ECN[fields.ecn]
        if self.target.ipv4 and fields.flow_label:
            raise UnsupportedConstruct("a flow label in IPv4")
        hop_limit = 64 if fields.hop_limit is None else fields.hop_limit
        return wire.Ip(flow.remote, flow.local, traffic_class, fields.flow_label or 0, hop_limit)

    def _inject_segment(self, packet: TcpPacket) -> bytes:
        flow = self._inbound_flow(packet)
        syn = bool(packet.flags & TcpFlags.SYN)
        written = packet.sequence
        if syn and flow.live_remote is None:
            live = int.from_bytes(self.target.entropy.bytes(4), "big")
            flow.live_remote, flow.script_remote = live, written.start
        number = written.start if written.absolute else flow.to_live(written.start, local=False, syn=syn)
        if syn:
            flow.pending_syn = (written.start, number)
            for option in packet.options or ():
                flow.mss = getattr(option, "value", flow.mss) if type(option).__name__ == "Mss" else flow.mss
        ack = packet.ack or 0
        if packet.flags & TcpFlags.ACK and not packet.ack_absolute:
            ack = flow.to_live(ack, local=True, syn=syn)
        segment = wire.Segment(
            self._ip(flow, packet.ip),
            flow.remote_port,
            flow.local_port,
            number,
            ack,
            packet.flags,
            packet.window or 0,
            packet.urgent or 0,
            self._options(packet, flow),
            octets((number + syn - (flow.live_remote or 0) - 1) & MASK, written.length),
        )
        try:
            raw = wire.build_segment(segment)
        except ValueError as error:
            raise UnsupportedConstruct(str(error)) from None
        self.target.segments["in"] += 1
        size = self.wiring.mss or flow.mss or 1440
        if written.length or syn:
            self.target.data_in_at = self.target.now
            self.target.largest_in = max(self.target.largest_in, min(size, written.length))
        self.target.inject(raw, size if written.length > size else 0)
        return raw

    def _options(self, packet: TcpPacket, flow: Flow) -> tuple[TcpOption, ...]:
        options = flow.options_to_live(packet.options or ())
        if packet.flags & (TcpFlags.SYN | TcpFlags.ACK) == TcpFlags.SYN:
            options = tuple(self._cookie(option, flow) for option in options)
        return options

    def _cookie(self, option: TcpOption, flow: Flow) -> TcpOption:
        """A Fast Open cookie that the stack has given, or would give: scripts have names of their own for them."""
        if not isinstance(option, FastOpen) or not option.cookie:
            return option
        return attrs.evolve(option, cookie=self.target.cookie(option.cookie, flow))

    def _inject_datagram(self, packet: UdpPacket) -> bytes:
        flow = self._inbound_flow(packet)
        ports = (flow.remote_port, flow.local_port)
        try:
            raw = wire.build_datagram(wire.UdpDatagram(self._ip(flow, packet.ip), *ports, octets(0, packet.length)))
        except ValueError as error:
            raise UnsupportedConstruct(str(error)) from None
        self.target.inject(raw)
        return raw

    # Expecting

    def skip_others(self, expected: Packet) -> None:
        """A vendor's runner sees only what belongs to the socket that it waits for: not answers to echo requests, nor
        what an older connection still has to say."""
        sent = self.target.sent
        while self.wiring.ignores_others and isinstance(expected, TcpPacket) and sent:
            packet = sent[0].packet
            echo = isinstance(packet, wire.IcmpMessage) and packet.type in ECHO_REPLIES
            if not echo and not (isinstance(packet, wire.Segment) and self._of_another(packet, expected)):
                break
            sent.popleft()

    def _of_another(self, packet: wire.Segment, expected: TcpPacket) -> bool:
        current = self.target.flow
        if current is None or packet.flags & TcpFlags.SYN or expected.ports is not None or expected.ip.source:
            return False
        key = (packet.ip.source, packet.source_port, packet.ip.destination, packet.destination_port)
        return self.target.flows.get(key, current) is not current

    def match(self, expected: Packet, first: Sent, tolerance: int) -> Micros:
        """Compares `expected` with the packet at the head of the queue and takes it, and what belongs to it, off.

        Returns its time. Raises Mismatch showing both side by side.
        """
        sent = self.target.sent
        actual: wire.Seen = first.packet
        sent.popleft()
        merged = 1
        if isinstance(expected, TcpPacket) and isinstance(actual, wire.Segment):
            length = 0 if self.wiring.strict_segments else expected.sequence.length
            last = actual
            while len(actual.payload) < length and sent and self._continues(actual, last, sent[0], first):
                following = sent.popleft().packet
                assert isinstance(following, wire.Segment)
                actual = attrs.evolve(
                    actual, payload=actual.payload + following.payload, flags=actual.flags | following.flags
                )
                last = following
                merged += 1
        flow = self._outbound_flow(actual, expected)
        if isinstance(expected, TcpPacket) and isinstance(actual, wire.Segment) and flow is not None:
            expected = self._granted(expected, actual, flow)
        differences = self._compare(expected, actual, flow, merged)
        if differences:
            raise Mismatch(
                "the packet differs in " + ", ".join(d.field for d in differences),
                describe(expected, differences, actual, flow),
            )
        if self.target.keeps_octets:
            self._check_octets(actual, flow)
        return first.time

    def _check_octets(self, actual: wire.Seen, flow: Flow | None) -> None:
        if isinstance(actual, wire.UdpDatagram):
            check("a datagram was sent", 0, actual.payload)
        elif isinstance(actual, wire.Segment) and flow is not None and flow.live_local is not None:
            first = actual.sequence + bool(actual.flags & TcpFlags.SYN)
            check("data was sent", (first - flow.live_local - 1) & MASK, actual.payload)

    def _granted(self, expected: TcpPacket, actual: wire.Segment, flow: Flow) -> TcpPacket:
        """`expected` with the Fast Open cookie that the stack gives, where the script says that it gives one."""
        if expected.flags & 0x12 != 0x12 or not any(isinstance(option, FastOpen) for option in expected.options or ()):
            return expected
        given = next((option.cookie for option in actual.options if isinstance(option, FastOpen)), b"")
        for option in expected.options or ():
            if isinstance(option, FastOpen) and given:
                self.target.learn_cookie(option.cookie, given, flow)
        return attrs.evolve(expected, options=tuple(self._cookie(option, flow) for option in expected.options or ()))

    def _continues(self, whole: wire.Segment, last: wire.Segment, candidate: Sent, first: Sent) -> bool:
        """Whether `candidate` is the rest of a burst that one expected line describes."""
        packet = candidate.packet
        plain = TcpFlags.PSH | TcpFlags.FIN
        return (
            isinstance(packet, wire.Segment)
            and len(last.payload) >= LEAST_PIECE
            and len(packet.payload) > 0
            and packet.sequence == (whole.sequence + len(whole.payload)) & 0xFFFFFFFF
            and packet.ip.destination == whole.ip.destination
            and packet.destination_port == whole.destination_port
            and packet.ack == whole.ack
            and not last.flags & TcpFlags.FIN
            and (packet.flags | plain) == (whole.flags | plain)
            and candidate.time - first.time <= self.wiring.tolerance
        )

    def _outbound_flow(self, actual: wire.Seen, expected: Packet) -> Flow | None:
        target = self.target
        if not isinstance(actual, wire.Segment | wire.UdpDatagram):
            return target.flow
        key = (actual.ip.source, actual.source_port, actual.ip.destination, actual.destination_port)
        flow = target.flows.get(key)
        if flow is None:
            flow = target.open_flow(*key)
        if isinstance(actual, wire.Segment) and actual.flags & TcpFlags.SYN:
            self._learn_syn(flow, actual, expected)
        return flow

    def _learn_syn(self, flow: Flow, segment: wire.Segment, expected: Packet) -> None:
        if flow.live_local == segment.sequence:
            return
        if flow.pending_syn is not None and segment.flags & TcpFlags.ACK:
            # Of several SYNs the last one counts: a new connection took the old one's place, or none had begun.
            flow.script_remote, flow.live_remote = flow.pending_syn
        flow.live_local, flow.script_local = segment.sequence, 0
        if isinstance(expected, TcpPacket) and expected.flags & TcpFlags.SYN and not expected.sequence.absolute:
            flow.script_local = expected.sequence.start  # as written, like the peer's
        flow.stamps.clear()
        flow.stamp_base = None

    def _compare(self, expected: Packet, actual: wire.Seen, flow: Flow | None, merged: int) -> list[Difference]:
        check_supported(expected)
        differences = self._addresses(expected, actual)
        differences += compare(expected, actual, flow, self.wiring, merged)
        if isinstance(expected, TcpPacket) and isinstance(actual, wire.Segment) and flow is not None:
            self._learn_stamps(expected.options or (), actual, flow)
        return differences

    def _addresses(self, expected: Packet, actual: wire.Seen) -> list[Difference]:
        out = []
        fields: IpFields = expected.ip  # type: ignore[union-attr]
        for what, name, seen in (
            ("source", fields.source, actual.ip.source),
            ("destination", fields.destination, actual.ip.destination),
        ):
            if name is not None and self.address(name, b"") != seen:
                out.append(Difference(what, name, self.name_of(seen)))
        if fields.destination is None and fields.source is None and self.target.flow is not None:
            if actual.ip.destination != self.target.flow.remote:
                out.append(
                    Difference(
                        "destination", self.name_of(self.target.flow.remote), self.name_of(actual.ip.destination)
                    )
                )
        return out

    def name_of(self, address: bytes) -> str:
        for name, known in self.target.names.items():
            if known == address:
                return name
        return str(ip_address(address))

    def _learn_stamps(self, options: tuple[TcpOption, ...], actual: wire.Segment, flow: Flow) -> None:
        written = [o for o in options if isinstance(o, Timestamps)]
        live = [o for o in actual.options if isinstance(o, Timestamps)]
        if written and live and written[0].value is not None and live[0].value is not None:
            flow.learn_stamp(written[0].value, live[0].value)


def is_expected(packet: Packet) -> bool:
    return packet.direction is Direction.OUT


__all__ = ["Packets", "Wiring", "check_supported", "is_expected"]
