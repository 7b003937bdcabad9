"""ICMP of scripts: names to numbers of the link's own ICMP, v6 or v4, and errors with the packet that they quote."""

from typing import Final

from umuxstack.conformance import wire
from umuxstack.conformance.flow import Flow
from umuxstack.conformance.outcome import UnsupportedConstruct
from umuxstack.conformance.script import IcmpPacket, Quoted, Sequence, TcpFlags
from umuxstack.conformance.siit_icmp import LONGEST4, LONGEST6

_TYPES: Final = {
    "unreachable": 1,
    "packet_too_big": 2,
    "time_exceeded": 3,
    "parameter_problem": 4,
    "echo_request": 128,
    "echo_reply": 129,
}
_CODES: Final[dict[str, dict[str, int]]] = {
    "unreachable": {
        "no_route": 0,
        "admin_prohibited": 1,
        "not_neighbour": 2,
        "beyond_scope": 2,
        "address_unreachable": 3,
        "port_unreachable": 4,
        "policy_fail": 5,
        "reject_route": 6,
    },
    "time_exceeded": {"exceeded_hop_limit": 0, "exceeded_frag_time": 1},
    "parameter_problem": {"header_field": 0, "unknown_next_header": 1, "unknown_option": 2},
}
# RFC 792, 950, 1256
_TYPES4: Final = {
    "echo_reply": 0,
    "unreachable": 3,
    "source_quench": 4,
    "redirect": 5,
    "echo_request": 8,
    "router_advertisement": 9,
    "router_solicitation": 10,
    "time_exceeded": 11,
    "parameter_problem": 12,
    "timestamp_request": 13,
    "timestamp_reply": 14,
    "information_request": 15,
    "information_reply": 16,
    "address_mask_request": 17,
    "address_mask_reply": 18,
}
# RFC 792, 1122 3.2.2.1, 1812 5.2.7.1
_CODES4: Final[dict[str, dict[str, int]]] = {
    "unreachable": {
        name: code
        for code, name in enumerate(
            (
                *("net_unreachable", "host_unreachable", "protocol_unreachable", "port_unreachable", "frag_needed"),
                *("source_route_failed", "net_unknown", "host_unknown", "source_host_isolated", "net_prohibited"),
                *("host_prohibited", "net_unreachable_for_tos", "host_unreachable_for_tos", "packet_filtered"),
                *("precedence_violation", "precedence_cutoff"),
            )
        )
    },
    "time_exceeded": {
        **dict.fromkeys(("exceeded_ttl", "ttl", "ttl_exceeded_in_transit"), 0),
        **dict.fromkeys(("exceeded_frag_time", "exceeded_fragment_reassembly", "frag_reass_exceeded"), 1),
    },
}
_ERRORS4: Final = frozenset((3, 4, 5, 11, 12))
_BODIES4: Final = {**dict.fromkeys((13, 14), bytes(12)), **dict.fromkeys((17, 18), bytes(4))}  # timestamps, a mask
_FIRST_NO_ERROR: Final = 128  # of ICMPv6


def numbers(packet: IcmpPacket, *, ipv4: bool) -> tuple[int, int]:
    """(type, code) of RFC 4443, or of RFC 792. Raises UnsupportedConstruct."""
    name, code = packet.type_name, packet.code
    types, codes = (_TYPES4, _CODES4) if ipv4 else (_TYPES, _CODES)
    kind = int(name[5:]) if name.startswith("type_") else types.get(name)
    if kind is None or kind > 0xFF:
        raise UnsupportedConstruct(f"ICMP {name}")
    if code is None:
        return kind, 0
    known = codes.get(name, {}).get(code)
    if known is None and code.startswith("code_"):
        known = int(code[5:])
    if known is None or known > 0xFF:
        raise UnsupportedConstruct(f"ICMP {name} {code}")
    return kind, known


def _is_error(kind: int, *, ipv4: bool) -> bool:
    """Whether it quotes a packet."""
    return kind in _ERRORS4 if ipv4 else kind < _FIRST_NO_ERROR


def build(packet: IcmpPacket, flow: Flow, ip: wire.Ip) -> bytes:
    """The message as it stands on the wire, quoting a packet of `flow` that the stack has sent.

    Raises UnsupportedConstruct; ValueError for what has no room in it.
    """
    ipv4 = len(ip.source) == wire.IPV4
    kind, code = numbers(packet, ipv4=ipv4)
    value, body = 0, b""
    if _is_error(kind, ipv4=ipv4):
        value, body = packet.mtu or 0, _quote(packet, flow)[: LONGEST4 if ipv4 else LONGEST6]
        if not ipv4 and kind == 4:
            value = {0: 4, 1: 6}.get(code, 40)
        if value > (0xFFFF if ipv4 else 0xFFFFFFFF):
            raise ValueError(f"an MTU of {value}")
    else:
        value = (packet.identifier or 0) << 16
        body = _BODIES4.get(kind, b"") if ipv4 else b""
    return wire.build_icmp(wire.IcmpMessage(ip, kind, code, value, body))


def _quote(packet: IcmpPacket, flow: Flow) -> bytes:
    """The packet that it is about, whole."""
    quoted = packet.quoted
    if quoted is None:  # a segment of number 0: the SYN
        quoted = Quoted("tcp", 0, Sequence(0, 0))
    ip, payload = wire.Ip(flow.local, flow.remote), bytes(quoted.length)
    if quoted.protocol != "tcp":
        return wire.build_datagram(wire.UdpDatagram(ip, flow.local_port, flow.remote_port, payload))
    number = 0
    if quoted.sequence is not None:
        number = quoted.sequence.start
        if not quoted.sequence.absolute:
            number = flow.to_live(number, local=True, syn=False)
    ports = (flow.local_port, flow.remote_port)
    return wire.build_segment(wire.Segment(ip, *ports, number, 0, TcpFlags.ACK, 0, 0, (), payload))


def differences(expected: IcmpPacket, actual: wire.IcmpMessage) -> list[tuple[str, str, str]]:
    """(field, expected, actual) of each that differs."""
    ipv4 = len(actual.ip.source) == wire.IPV4
    kind, code = numbers(expected, ipv4=ipv4)
    out = []
    if (kind, code) != (actual.type, actual.code):
        out.append(("type, code", f"{kind}, {code}", f"{actual.type}, {actual.code}"))
    if expected.mtu is not None and expected.mtu != actual.value:
        out.append(("mtu", str(expected.mtu), str(actual.value)))
    if expected.quoted is not None and _is_error(actual.type, ipv4=ipv4):
        at = 9 if ipv4 else 6  # where an IP header names what it carries
        protocol = actual.body[at] if len(actual.body) > at else 0
        wanted = wire.TCP if expected.quoted.protocol == "tcp" else wire.UDP
        if protocol != wanted:
            out.append(("quoted protocol", str(wanted), str(protocol)))
    return out
