"""One expected packet against an actual one: which fields differ, and both side by side for whoever reads it."""

from typing import TYPE_CHECKING, Final

import attrs

from umuxstack.conformance import icmp, wire
from umuxstack.conformance.flow import Flow
from umuxstack.conformance.format import format_flags, format_option, format_packet
from umuxstack.conformance.script import (
    AccEcn,
    EndOfOptions,
    IcmpPacket,
    IpFields,
    Nop,
    Packet,
    Sack,
    TcpFlags,
    TcpOption,
    TcpPacket,
    Timestamps,
    UdpPacket,
)

if TYPE_CHECKING:
    from umuxstack.conformance.packets import Wiring

_ECN: Final = ("noecn", "ect1", "ect0", "ce")


@attrs.frozen(slots=True)
class Difference:
    field: str
    expected: str
    actual: str


def compare(
    expected: Packet, actual: wire.Seen, flow: Flow | None, wiring: "Wiring", merged: int = 1
) -> list[Difference]:
    """All fields in which they differ; what the script does not say is not compared."""
    match expected, actual:
        case TcpPacket(), wire.Segment():
            assert flow is not None
            return _segment(expected, actual, flow, wiring, merged) + _ip(expected.ip, actual.ip)
        case UdpPacket(), wire.UdpDatagram():
            differences = _ip(expected.ip, actual.ip)
            if expected.length != len(actual.payload):
                differences.append(Difference("length", str(expected.length), str(len(actual.payload))))
            if expected.ports is not None:
                differences += _ports(expected.ports.source, expected.ports.destination, actual)
            return differences
        case IcmpPacket(), wire.IcmpMessage():
            return [Difference(*d) for d in icmp.differences(expected, actual)] + _ip(expected.ip, actual.ip)
    return [Difference("protocol", _kind(expected), _kind(actual))]


def _kind(packet: Packet | wire.Seen) -> str:
    match packet:
        case TcpPacket() | wire.Segment():
            return "TCP"
        case UdpPacket() | wire.UdpDatagram():
            return "UDP"
        case IcmpPacket() | wire.IcmpMessage():
            return "ICMP"
    return "another"


def _ip(expected: IpFields, actual: wire.Ip) -> list[Difference]:
    out = []
    ecn = _ECN[actual.traffic_class & 3]
    if expected.ecn is not None and ecn != expected.ecn and not (expected.ecn == "ect01" and ecn in ("ect0", "ect1")):
        out.append(Difference("ecn", expected.ecn, ecn))
    for name, wanted, seen in (
        ("tos", expected.tos, actual.traffic_class),
        ("dscp", expected.dscp, actual.traffic_class >> 2),
        ("flow label", expected.flow_label, actual.flow_label),
        ("hop limit", expected.hop_limit, actual.hop_limit),
    ):
        if wanted is not None and wanted != seen:
            out.append(Difference(name, str(wanted), str(seen)))
    return out


def _ports(source: int, destination: int, actual: wire.Segment | wire.UdpDatagram) -> list[Difference]:
    out = []
    if source != actual.source_port:
        out.append(Difference("source port", str(source), str(actual.source_port)))
    if destination != actual.destination_port:
        out.append(Difference("destination port", str(destination), str(actual.destination_port)))
    return out


def _segment(expected: TcpPacket, actual: wire.Segment, flow: Flow, wiring: "Wiring", merged: int) -> list[Difference]:
    out: list[Difference] = []
    if expected.ports is not None:
        out += _ports(expected.ports.source, expected.ports.destination, actual)
    flags, wanted = actual.flags, expected.flags
    if (merged > 1 or (wiring.pushes_bursts and len(actual.payload) > 0)) and not wiring.strict_segments:
        # Where PSH falls inside of a burst depends on how it was cut (RFC 9293 3.9.1.2 leaves it open). Linux sets it
        # on some full segments as well behind which there is more.
        if merged > 1 or not wanted & TcpFlags.PSH or _is_full(actual, flow):
            flags, wanted = flags & ~TcpFlags.PSH, wanted & ~TcpFlags.PSH
    if flags != wanted:
        out.append(Difference("flags", format_flags(expected.flags) or "-", format_flags(actual.flags) or "-"))
    # Where the stack has sent no SYN there is no connection, and nothing that numbers could be relative to.
    syn = bool(actual.flags & TcpFlags.SYN) or flow.live_local is None
    written = expected.sequence
    start = actual.sequence if written.absolute else flow.to_script(actual.sequence, local=True, syn=syn)
    if not written.ignored and start != written.start & 0xFFFFFFFF:
        out.append(Difference("sequence", str(written.start), str(start)))
    if len(actual.payload) != written.length:
        out.append(Difference("length", str(written.length), str(len(actual.payload))))
    if actual.flags & TcpFlags.ACK and wanted & TcpFlags.ACK and expected.ack is not None:
        ack = actual.ack if expected.ack_absolute else flow.to_script(actual.ack, local=False, syn=syn)
        if ack != expected.ack & 0xFFFFFFFF:
            out.append(Difference("ack", str(expected.ack), str(ack)))
    if expected.window is not None and expected.window != actual.window:
        out.append(Difference("win", str(expected.window), str(actual.window)))
    if expected.urgent is not None and expected.urgent != actual.urgent:
        out.append(Difference("urg", str(expected.urgent), str(actual.urgent)))
    if expected.options is not None:
        out += _options(expected.options, flow.options_to_script(actual.options), flow, wiring)
    return out


def _is_full(actual: wire.Segment, flow: Flow) -> bool:
    """With its options it has the size that the peer takes (RFC 6691)."""
    return flow.mss > 0 and len(actual.payload) + len(wire.build_options(actual.options)) >= flow.mss


def _options(
    expected: tuple[TcpOption, ...], actual: tuple[TcpOption, ...], flow: Flow, wiring: "Wiring"
) -> list[Difference]:
    different = len(expected) != len(actual)
    if different and _padded(expected) == actual:
        expected, different = _padded(expected), False
    if not different:
        different = not all(_same_option(w, s, flow, wiring) for w, s in zip(expected, actual, strict=True))
    if not different:
        return []
    return [Difference("options", _list(expected), _list(actual))]


def _padded(options: tuple[TcpOption, ...]) -> tuple[TcpOption, ...]:
    """What the header's padding adds to a list that is not a multiple of four octets."""
    try:
        return wire.read_options(wire.build_options(options))
    except (ValueError, wire.Unsound):
        return options


def _same_option(wanted: TcpOption, seen: TcpOption, flow: Flow, wiring: "Wiring") -> bool:
    if isinstance(wanted, Timestamps) and isinstance(seen, Timestamps):
        if wanted.echo is not None and wanted.echo != seen.echo:
            return False
        return wanted.value is None or seen.value is None or _same_stamp(wanted.value, seen.value, flow, wiring)
    if isinstance(wanted, Sack) and isinstance(seen, Sack):
        return [(a & 0xFFFFFFFF, b & 0xFFFFFFFF) for a, b in wanted.blocks] == list(seen.blocks)
    if isinstance(wanted, AccEcn) and isinstance(seen, AccEcn):
        return (wire.order_of(wanted), wanted.counters) == (wire.order_of(seen), seen.counters)
    if isinstance(wanted, Nop | EndOfOptions):
        return type(wanted) is type(seen)
    return wanted == seen


def _same_stamp(wanted: int, seen: int, flow: Flow, wiring: "Wiring") -> bool:
    """Only with --tcp_ts_tick_usecs are the stack's timestamps looked at: by how much they grew since the first."""
    if not wiring.stamp_tick or flow.stamp_base is None:
        return True
    written, live = flow.stamp_base
    grown = (seen - live) & 0xFFFFFFFF
    # The stack's clock ticks once in a millisecond, whatever the script's tick.
    return abs((wanted - written) * wiring.stamp_tick - grown * 1000) <= wiring.tolerance + 1000


def _list(options: tuple[TcpOption, ...]) -> str:
    return "<" + ",".join(format_option(option) for option in options) + ">"


# --- for the reader --------------------------------------------------------------------------------------------


def describe(expected: Packet, differences: list[Difference], actual: wire.Seen, flow: Flow | None) -> list[str]:
    """Two columns, the fields that differ marked by an arrow."""
    rows = [(d.field, d.expected, d.actual, True) for d in differences]
    if isinstance(expected, TcpPacket) and isinstance(actual, wire.Segment) and flow is not None:
        named = {d.field for d in differences}
        rows = [row for row in _rows(expected, actual, flow) if row[0] not in named] + rows
        order = ("flags", "sequence", "length", "ack", "win", "urg", "options")
        rows.sort(key=lambda row: order.index(row[0]) if row[0] in order else 99)
    width = max(8, *(len(row[1]) for row in rows))
    lines = [f"    {'':10} {'expected':{width}}   actual"]
    for field, wanted, seen, wrong in rows:
        lines.append(f"  {'→' if wrong else ' '} {field:10} {wanted:{width}}   {seen}")
    lines.append(f"    expected: {format_packet(expected)}")
    return lines


def _rows(expected: TcpPacket, actual: wire.Segment, flow: Flow) -> list[tuple[str, str, str, bool]]:
    syn = bool(actual.flags & TcpFlags.SYN)
    options = "<...>" if expected.options is None else _list(expected.options)
    start = flow.to_script(actual.sequence, local=True, syn=syn)
    ack = str(flow.to_script(actual.ack, local=False, syn=syn)) if actual.flags & TcpFlags.ACK else "-"
    return [
        ("flags", format_flags(expected.flags), format_flags(actual.flags), False),
        ("sequence", str(expected.sequence.start), str(start), False),
        ("length", str(expected.sequence.length), str(len(actual.payload)), False),
        ("ack", "-" if expected.ack is None else str(expected.ack), ack, False),
        ("win", "any" if expected.window is None else str(expected.window), str(actual.window), False),
        ("options", options, _list(flow.options_to_script(actual.options)), False),
    ]


def show(actual: wire.Seen, flow: Flow | None) -> str:
    """An actual packet as a script would write it."""
    match actual:
        case wire.Segment():
            flags = format_flags(actual.flags) or "-"
            syn = bool(actual.flags & TcpFlags.SYN)
            start = actual.sequence if flow is None else flow.to_script(actual.sequence, local=True, syn=syn)
            end = start + len(actual.payload)
            text = f"> {flags} {start}:{end}({len(actual.payload)})"
            if actual.flags & TcpFlags.ACK:
                text += f" ack {actual.ack if flow is None else flow.to_script(actual.ack, local=False, syn=syn)}"
            text += f" win {actual.window}"
            if actual.options:
                text += f" {_list(flow.options_to_script(actual.options) if flow else actual.options)}"
            return text
        case wire.UdpDatagram():
            return f"> udp ({len(actual.payload)})"
        case wire.IcmpMessage():
            return f"> icmp type_{actual.type} code_{actual.code}"
    return f"> protocol {actual.protocol} ({len(actual.payload)})"
