"""ICMP of scripts: names to numbers, errors with the packet that they quote.

A script for IPv4 is played over IPv6: its errors become those of RFC 4443 that mean the same, and its MTUs grow by
the 20 octets that the header is longer.
"""

import struct
from typing import Final

from umuxstack.conformance import wire
from umuxstack.conformance.flow import Flow
from umuxstack.conformance.outcome import UnsupportedConstruct
from umuxstack.conformance.script import IcmpPacket, Quoted, Sequence

LONGER_HEADER: Final = 20  # IPv6's 40 octets, IPv4's 20

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
    "packet_too_big": {},
    "time_exceeded": {"exceeded_hop_limit": 0, "exceeded_frag_time": 1},
    "parameter_problem": {"header_field": 0, "unknown_next_header": 1, "unknown_option": 2},
    "echo_request": {},
    "echo_reply": {},
}
# IPv4's codes of "unreachable", by what they mean in IPv6 (RFC 7915 4.2); frag_needed is "packet too big".
_V4_UNREACHABLE: Final = {
    "net_unreachable": (1, 0),
    "host_unreachable": (1, 0),
    "protocol_unreachable": (4, 1),
    "port_unreachable": (1, 4),
    "frag_needed": (2, 0),
    "source_route_failed": (1, 0),
    "net_unknown": (1, 0),
    "host_unknown": (1, 0),
    "source_host_isolated": (1, 0),
    "net_prohibited": (1, 1),
    "host_prohibited": (1, 1),
    "net_unreachable_for_tos": (1, 0),
    "host_unreachable_for_tos": (1, 0),
    "packet_filtered": (1, 1),
    "precedence_cutoff": (1, 6),
}
_V4_TIME: Final = {
    "exceeded_ttl": 0,
    "ttl": 0,
    "ttl_exceeded_in_transit": 0,
    "exceeded_frag_time": 1,
    "exceeded_fragment_reassembly": 1,
    "frag_reass_exceeded": 1,
}
_V4_TYPES: Final = {0: "echo_reply", 3: "unreachable", 8: "echo_request", 11: "time_exceeded", 12: "parameter_problem"}
_V4_OBSOLETE: Final = (
    *("timestamp_request", "timestamp_reply", "information_request", "information_reply"),
    *("address_mask_request", "address_mask_reply", "router_advertisement", "router_solicitation"),
)
_V4_PARAMETER: Final = {None: 0, "code_0": 0, "code_2": 0}


def is_lost(packet: IcmpPacket) -> bool:
    """Whether an IPv4 message means nothing in IPv6: on its way there it is dropped without a word (RFC 7915 4.2)."""
    match packet.type_name, packet.code:
        case ("redirect" | "source_quench", _) | ("unreachable", "precedence_violation"):
            return True
        case name, _ if name in _V4_OBSOLETE or (name.startswith("type_") and int(name[5:]) not in _V4_TYPES):
            return True
        case "parameter_problem", code:
            return code not in _V4_PARAMETER
    return False


def numbers(packet: IcmpPacket, *, ipv4: bool) -> tuple[int, int]:
    """(type, code) of RFC 4443. Raises UnsupportedConstruct."""
    name, code = packet.type_name, packet.code
    if ipv4 and name.startswith("type_"):
        name = _V4_TYPES.get(int(name[5:]), name)
    if ipv4 and name == "unreachable" and code in _V4_UNREACHABLE:
        return _V4_UNREACHABLE[code]
    if ipv4 and name == "time_exceeded" and code in _V4_TIME:
        return 3, _V4_TIME[code]
    if ipv4 and name == "parameter_problem" and code in _V4_PARAMETER:
        return 4, _V4_PARAMETER[code]
    kind = _TYPES.get(name)
    if kind is None and name.startswith("type_") and not ipv4:
        kind = int(name[5:])
    if kind is None:
        raise UnsupportedConstruct(f"ICMP {name}")
    if code is None:
        return kind, 0
    known = _CODES.get(name, {})
    if code in known:
        return kind, known[code]
    if code.startswith("code_"):
        return kind, int(code[5:])
    raise UnsupportedConstruct(f"ICMP {name} {code}")


def build(packet: IcmpPacket, flow: Flow, source: bytes, *, ipv4: bool) -> bytes:
    """The message as it stands on the wire, quoting a packet of `flow` that the stack has sent."""
    kind, code = numbers(packet, ipv4=ipv4)
    value = packet.mtu or 0
    if ipv4 and kind == 2:
        value += LONGER_HEADER
    if kind >= 128:
        value = (packet.identifier or 0) << 16
        return wire.build_icmp(wire.IcmpMessage(wire.Ip(source, flow.local), kind, code, value, b""))
    if kind == 4:
        value = {0: 4, 1: 6}.get(code, 40)
    return wire.build_icmp(wire.IcmpMessage(wire.Ip(source, flow.local), kind, code, value, _quote(packet, flow)))


def _quote(packet: IcmpPacket, flow: Flow) -> bytes:
    """As much of the packet as RFC 4443 2.4 (c) asks for."""
    quoted = packet.quoted
    if quoted is None:  # a segment of number 0: the SYN
        quoted = Quoted("tcp", 0, Sequence(0, 0))
    ports = struct.pack(">HH", flow.local_port, flow.remote_port)
    if quoted.protocol == "tcp":
        number = 0
        if quoted.sequence is not None:
            number = quoted.sequence.start
            if not quoted.sequence.absolute:
                number = flow.to_live(number, local=True, syn=False)
        upper = ports + struct.pack(">IIHHHH", number, 0, 0x5010, 0, 0, 0)
        protocol = wire.TCP
    else:
        upper = ports + struct.pack(">HH", 8 + quoted.length, 0)
        protocol = wire.UDP
    whole = wire.build_ip(wire.Ip(flow.local, flow.remote), protocol, upper + bytes(quoted.length))
    return whole[: 1280 - 48]


def differences(expected: IcmpPacket, actual: wire.IcmpMessage, *, ipv4: bool) -> list[tuple[str, str, str]]:
    """(field, expected, actual) of each that differs."""
    kind, code = numbers(expected, ipv4=ipv4)
    out = []
    if (kind, code) != (actual.type, actual.code):
        out.append(("type, code", f"{kind}, {code}", f"{actual.type}, {actual.code}"))
    if expected.mtu is not None:
        mtu = expected.mtu + (LONGER_HEADER if ipv4 else 0)
        if mtu != actual.value:
            out.append(("mtu", str(mtu), str(actual.value)))
    if expected.quoted is not None and actual.type < 128:
        protocol = actual.body[6] if len(actual.body) > 6 else 0
        wanted = wire.TCP if expected.quoted.protocol == "tcp" else wire.UDP
        if protocol != wanted:
            out.append(("quoted protocol", str(wanted), str(protocol)))
    return out
