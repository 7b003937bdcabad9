"""The packet lines of a script: IP fields, encapsulation, TCP, UDP and ICMP.

What packetdrill's forks know and we do not model (SCTP, fuzzing, MPTCP's addresses) is stepped over whole and
becomes an `UnsupportedPacket` that names it.
"""

import re
from functools import lru_cache
from typing import Final

from umuxstack.conformance.cursor import Cursor, UndefinedSymbol
from umuxstack.conformance.lexer import ELLIPSIS, END, HEX, INTEGER, IPV4, IPV6, STRING, WORD
from umuxstack.conformance.script import (
    Direction,
    Encapsulation,
    IcmpPacket,
    IpFields,
    Packet,
    Ports,
    Position,
    Quoted,
    Sequence,
    TcpFlags,
    TcpOption,
    TcpPacket,
    UdpPacket,
    UnsupportedPacket,
)
from umuxstack.conformance.tcp_option import tcp_options

_NO_FIELDS: Final = IpFields()
_ECN: Final = frozenset(("noecn", "ect0", "ect1", "ect01", "ce"))
# RFC 2474, 2597, 3246, 5865, 8622
_DSCP: Final = {
    **{f"CS{n}": n << 3 for n in range(8)},
    **{f"AF{c}{p}": c << 3 | p << 1 for c in range(1, 5) for p in range(1, 4)},
    "EF": 46,
    "VOICE_ADMIT": 44,
    "LE": 1,
}
_FLAG_BITS: Final = {
    "F": TcpFlags.FIN,
    "S": TcpFlags.SYN,
    "R": TcpFlags.RST,
    "P": TcpFlags.PSH,
    ".": TcpFlags.ACK,
    "U": TcpFlags.URG,
    "E": TcpFlags.ECE,
    "W": TcpFlags.CWR,
    "A": TcpFlags.AE,
}
_ECN_FLAGS: Final = TcpFlags.ECE | TcpFlags.CWR | TcpFlags.AE
_FLAGS = re.compile(r"-|[A-Za-z0-9]*(?:[ \t]*\.)?[0-9]?")
_NAME = re.compile(r"[A-Za-z_][\w.-]*")


class _Unsupported(Exception):
    def __init__(self, construct: str) -> None:
        super().__init__(construct)
        self.construct = construct


def packet(cursor: Cursor) -> Packet:
    """A packet line; stands on `<` or `>`."""
    start = cursor.index
    position = cursor.position()
    direction = Direction(cursor.take())
    try:
        found = _packet(cursor, direction, position)
    except _Unsupported as reason:
        construct = reason.construct
    except UndefinedSymbol as reason:
        construct = f"undefined symbol {reason.name}"
    else:
        if not cursor.is_other("{"):
            return found
        construct = "packet fuzzing"
    cursor.index = start
    cursor.skip_event()
    return UnsupportedPacket(direction, construct, cursor.text_since(start), position=position)


def _packet(cursor: Cursor, direction: Direction, position: Position) -> Packet:
    encapsulations: list[Encapsulation] = []
    while cursor.kind == WORD and cursor.word in _ENCAPSULATIONS:
        encapsulations.append(_encapsulation(cursor))
    if cursor.is_other("[") and cursor.next_kind() in (INTEGER, HEX, ELLIPSIS):
        # The FreeBSD suite's older scripts put the quoted packet in front: [1:1(0)] icmp unreachable
        quoted = _quoted(cursor)
        if cursor.word not in ("icmp", "icmpv6"):
            cursor.fail("expected icmp behind a quoted packet")
        return _icmp(cursor, direction, _NO_FIELDS, tuple(encapsulations), position, quoted)
    ip = _ip_fields(cursor) if cursor.is_other("[") or cursor.is_other("(") else _NO_FIELDS
    if cursor.kind in (IPV4, IPV6):
        ip, ports = _endpoints(cursor, ip)
    else:
        ports = _ports(cursor)
    outer = tuple(encapsulations)
    if cursor.kind == WORD:
        word = cursor.word
        if word in ("udp", "udplite"):
            return _udp(cursor, direction, ip, ports, outer, position)
        if word in ("icmp", "icmpv6"):
            return _icmp(cursor, direction, ip, outer, position)
        if word == "sctp":
            raise _Unsupported("SCTP")
        if word == "addr" and cursor.next_is_other("["):
            raise _Unsupported("MPTCP address")
    elif cursor.is_other("<") or cursor.is_other(">"):
        raise _Unsupported("MPTCP address")
    return _tcp(cursor, direction, ip, ports, outer, position)


# --- IP --------------------------------------------------------------------------------------------------------


def _ip_fields(cursor: Cursor) -> IpFields:
    """`[ect0]`, `[tos 0x2, flowlabel 0x12345]`, `(ttl 64)`, ..."""
    closing = "]" if cursor.take() == "[" else ")"
    words: dict[str, str] = {}
    numbers: dict[str, int] = {}
    while True:
        at = cursor.index
        name = cursor.expect_word("an IP field")
        given = len(words) + len(numbers)
        if name in _ECN:
            words["ecn"] = name
        elif name == "ecn":
            if cursor.word not in _ECN:
                cursor.fail(f"expected one of {', '.join(sorted(_ECN))}")
            words["ecn"] = cursor.take()
        elif name in ("from", "to"):
            words[name] = _endpoint_name(cursor)
        else:
            key, number = _number_field(cursor, name)
            numbers[key] = number
        if len(words) + len(numbers) == given:
            cursor.fail(f"{name} is given twice", at)
        if cursor.accept(closing):
            break
        if not cursor.accept(","):
            cursor.fail(f"expected ',' or '{closing}'")
    return IpFields(
        words.get("ecn"),
        numbers.get("tos"),
        numbers.get("dscp"),
        numbers.get("flow_label"),
        numbers.get("hop_limit"),
        words.get("from"),
        words.get("to"),
    )


def _number_field(cursor: Cursor, name: str) -> tuple[str, int]:
    if name in ("tos", "class"):
        return "tos", cursor.integer("the traffic class", 0, 0xFF)
    if name in ("ttl", "hlim", "hoplimit", "hop_limit"):
        return "hop_limit", cursor.integer("the hop limit", 0, 0xFF)
    if name == "flowlabel":
        return "flow_label", cursor.integer("the flow label", 0, 0xFFFFF)
    if name == "dscp":
        if cursor.kind == WORD and cursor.word in _DSCP:
            return "dscp", _DSCP[cursor.take()]
        return "dscp", cursor.integer("the DSCP", 0, 0x3F)
    raise _Unsupported(f"IP field {name}")


def _endpoint_name(cursor: Cursor) -> str:
    """An address, or a name that the runner knows: `ssa.httpd.2`."""
    if cursor.kind in (IPV4, IPV6):
        return cursor.take()
    if cursor.kind == STRING:
        return cursor.take()[1:-1]
    match = _NAME.match(cursor.text, cursor.starts[cursor.index])
    if match is None:
        cursor.fail("expected an address or a name")
    cursor.seek(match.end())
    return match[0]


def _endpoints(cursor: Cursor, ip: IpFields) -> tuple[IpFields, Ports | None]:
    """`192.0.2.7:4000 > 192.168.0.1:80`, our short form of `[from ..., to ...] 4000 > 80`."""
    ends: list[tuple[str, int | None]] = []
    for _ in range(2):
        address = cursor.address()
        port = cursor.integer("a port", 0, 0xFFFF) if cursor.accept(":") else None
        ends.append((address, port))
        if len(ends) == 1:
            cursor.expect(">")
    (source, source_port), (destination, destination_port) = ends
    if (source_port is None) != (destination_port is None):
        cursor.fail("give a port at both ends or at neither")
    fields = IpFields(ip.ecn, ip.tos, ip.dscp, ip.flow_label, ip.hop_limit, source, destination)
    if source_port is None or destination_port is None:
        return fields, _ports(cursor)
    return fields, Ports(source_port, destination_port)


def _ports(cursor: Cursor) -> Ports | None:
    if cursor.kind not in (INTEGER, HEX) or not cursor.next_is_other(">"):
        return None
    source = cursor.integer("the source port", 0, 0xFFFF)
    cursor.expect(">")
    return Ports(source, cursor.integer("the destination port", 0, 0xFFFF))


_ENCAPSULATIONS: Final = frozenset(("ipv4", "ipv6", "gre", "GREv0", "mpls", "psp", "encap"))


def _encapsulation(cursor: Cursor) -> Encapsulation:
    start = cursor.index
    kind = cursor.take()
    if kind in ("ipv4", "ipv6"):
        ip = _ip_fields(cursor) if cursor.is_other("[") or cursor.is_other("(") else _NO_FIELDS
        source = cursor.address()
        cursor.expect(">")
        destination = cursor.address()
        text = cursor.text_since(start)
        cursor.expect(":")
        return Encapsulation(kind, text, source, destination, ip)
    if kind == "encap":  # PSP in transport mode has no colon behind it
        if not cursor.accept_word("psp"):
            raise _Unsupported(f"encapsulation {cursor.word}")
        kind = "psp"
        for name in ("spi", "vc"):
            if cursor.accept_word(name):
                cursor.integer(name, 0, 0xFFFFFFFFFFFFFFFF)
                if cursor.is_other(",") and cursor.next_kind() == WORD:
                    cursor.index += 1
        return Encapsulation(kind, cursor.text_since(start))
    if not (cursor.kind == WORD or cursor.is_other(":") or cursor.is_other(",") or cursor.is_other("(")):
        cursor.fail(f"expected ':' behind the {kind} header")
    while not cursor.is_other(":"):
        if cursor.kind == END or cursor.is_other("<") or cursor.is_other(">"):
            cursor.fail(f"expected ':' behind the {kind} header")
        if cursor.is_other("(") or cursor.is_other("["):
            cursor.skip_balanced()
        else:
            cursor.index += 1
    text = cursor.text_since(start)
    cursor.index += 1
    return Encapsulation("gre" if kind == "GREv0" else kind, text)


# --- TCP -------------------------------------------------------------------------------------------------------


def _tcp(
    cursor: Cursor,
    direction: Direction,
    ip: IpFields,
    ports: Ports | None,
    outer: tuple[Encapsulation, ...],
    position: Position,
) -> TcpPacket:
    flags, ace = _flags(cursor)
    sequence = _sequence(cursor)
    ack = window = urgent = None
    ack_absolute = False
    while cursor.kind == WORD:
        word = cursor.word
        at = cursor.index
        if word == "ack" and ack is None:
            cursor.index += 1
            ack = cursor.integer("the acknowledgement number")
            ack_absolute = cursor.accept("!")
        elif word == "win" and window is None:
            cursor.index += 1
            window = cursor.integer("the window", 0, 0xFFFF)
        elif word == "urg" and urgent is None:
            cursor.index += 1
            urgent = cursor.integer("the urgent pointer", 0, 0xFFFF)
        else:
            cursor.fail(f"{word} is given twice" if word in ("ack", "win", "urg") else "expected ack, win or urg", at)
    options: tuple[TcpOption, ...] | None = ()
    if cursor.is_other("<"):
        at = cursor.index
        options = tcp_options(cursor)
        if options is None and direction is Direction.IN:
            cursor.fail("<...> fits an expected packet only", at)
    return TcpPacket(
        direction,
        flags,
        sequence,
        ack,
        ack_absolute,
        window,
        urgent,
        options,
        ip,
        ports,
        _udp_carrier(cursor),
        outer,
        ace,
        position=position,
    )


def _flags(cursor: Cursor) -> tuple[TcpFlags, bool]:
    """The flags, and whether a number (RFC 9768's ACE field) was among them."""
    start = cursor.starts[cursor.index]
    match = _FLAGS.match(cursor.text, start)
    text = match[0] if match else ""
    if not text:
        cursor.fail("expected a packet: TCP flags, udp or icmp")
    flags, ace, trouble = _read_flags(text)
    if trouble:
        cursor.fail(trouble)
    cursor.seek(start + len(text))
    if cursor.ends[cursor.index - 1] != start + len(text):
        cursor.fail("expected a blank behind the TCP flags", cursor.index - 1)
    return flags, ace


@lru_cache(maxsize=1024)  # a pure function of few different texts
def _read_flags(text: str) -> tuple[TcpFlags, bool, str]:
    """The flags, whether a number was among them, and what is wrong with the text ("" if nothing)."""
    flags = TcpFlags.NONE
    numbers = [int(character) for character in text if character in "01234567"]
    for character in text:
        if character in " \t01234567" or text == "-":
            continue
        flag = _FLAG_BITS.get(character)
        if flag is None:
            return flags, False, f"expected TCP flags (of F S R P . U E W A 0-7); there is no '{character}'"
        flags |= flag
    if len(numbers) > 1 or (numbers and flags & _ECN_FLAGS):
        return flags, False, "one number, or the flags E, W and A, but not both"
    for number in numbers:
        for bit, flag in ((1, TcpFlags.ECE), (2, TcpFlags.CWR), (4, TcpFlags.AE)):
            if number & bit:
                flags |= flag
    return flags, bool(numbers), ""


def _sequence(cursor: Cursor) -> Sequence:
    if cursor.kind == ELLIPSIS:
        cursor.index += 1
        return Sequence(0, _length(cursor), ignored=True)
    at = cursor.index
    start = cursor.integer("a sequence range like 1:1001(1000)")
    cursor.expect(":")
    end = cursor.integer("the end of the sequence range")
    length = _length(cursor)
    if (start + length) & 0xFFFFFFFF != end:
        cursor.fail(f"{start} to {end} is not {length} octets", at)
    return Sequence(start, length, absolute=cursor.accept("!"))


def _length(cursor: Cursor) -> int:
    cursor.expect("(")
    length = cursor.integer("the payload length")
    cursor.expect(")")
    return length


def _udp_carrier(cursor: Cursor) -> Ports | None:
    """`/udp(9899 > 1234)`: the packet is carried in UDP."""
    if not cursor.is_other("/") or cursor.next_kind() != WORD:
        return None
    cursor.index += 1
    if not cursor.accept_word("udp"):
        cursor.fail("expected udp")
    cursor.expect("(")
    ports = _ports(cursor)
    if ports is None:
        cursor.fail("expected two UDP ports")
    cursor.expect(")")
    return ports


# --- UDP and ICMP ----------------------------------------------------------------------------------------------


def _udp(
    cursor: Cursor,
    direction: Direction,
    ip: IpFields,
    ports: Ports | None,
    outer: tuple[Encapsulation, ...],
    position: Position,
) -> UdpPacket:
    lite = cursor.take() == "udplite"
    ports = _ports(cursor) or ports
    cursor.expect("(")
    length = cursor.integer("the UDP payload length", 0, 0xFFFF)
    coverage = None
    if lite:
        cursor.expect(",")
        coverage = cursor.integer("the checksum coverage", 0, 0xFFFF)
    cursor.expect(")")
    return UdpPacket(direction, length, coverage, ip, ports, outer, position=position)


def _icmp(
    cursor: Cursor,
    direction: Direction,
    ip: IpFields,
    outer: tuple[Encapsulation, ...],
    position: Position,
    quoted: Quoted | None = None,
) -> IcmpPacket:
    cursor.index += 1
    type_name = cursor.expect_word("an ICMP type")
    code = mtu = identifier = None
    if cursor.kind == WORD and cursor.word not in ("mtu", "id"):
        code = cursor.take()
    if cursor.accept_word("mtu"):
        mtu = cursor.integer("the MTU")
    if cursor.accept_word("id"):
        identifier = cursor.integer("the echo identifier", 0, 0xFFFF)
    if quoted is None and cursor.is_other("["):
        quoted = _quoted(cursor)
    return IcmpPacket(direction, type_name, code, mtu, identifier, quoted, ip, outer, position=position)


def _quoted(cursor: Cursor) -> Quoted:
    cursor.expect("[")
    if cursor.kind == WORD:
        at = cursor.index
        protocol = cursor.take()
        if protocol not in ("udp", "udplite", "sctp", "raw"):
            cursor.fail("expected a quoted packet: a sequence range, udp, udplite, sctp or raw", at)
        cursor.expect("(")
        number = cursor.integer("a length")
        coverage = None
        if protocol == "udplite":
            cursor.expect(",")
            coverage = cursor.integer("the checksum coverage", 0, 0xFFFF)
        cursor.expect(")")
        if protocol == "sctp":
            found = Quoted(protocol, 0, tag=number, udp_ports=_udp_carrier(cursor))
        else:
            found = Quoted(protocol, number, coverage=coverage)
    else:
        sequence = _sequence(cursor)
        found = Quoted("tcp", sequence.length, sequence, udp_ports=_udp_carrier(cursor))
    cursor.expect("]")
    return found
