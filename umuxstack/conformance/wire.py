"""Packets as bytes, for the runner: IPv6 or IPv4 with TCP, UDP or ICMP, read and built with struct alone.

Knows nothing of `umuxstack.core.wire`: an error there must not be its own judge. Every packet that is read is
verified (lengths, checksums, reserved bits); what is unsound raises `Unsound`, whatever the script expects.
RFC 8200, 791, 9293 3.1, 7323, 2018, 4443, 792.
"""

import struct
from typing import Final

import attrs

from umuxstack.conformance.script import (
    AccEcn,
    EndOfOptions,
    FastOpen,
    Mss,
    Nop,
    Sack,
    SackPermitted,
    TcpFlags,
    TcpOption,
    Timestamps,
    UnknownOption,
    WindowScale,
)

ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
ICMPV6: Final = 58
FRAGMENT: Final = 44  # IPv6's extension header; also how a fragment of IPv4 is called here
DONT_FRAGMENT: Final = 0x4000
MORE_FRAGMENTS: Final = 0x2000
IPV4: Final = 4  # octets of an address

_IP: Final = struct.Struct(">IHBB16s16s")
_IP4: Final = struct.Struct(">BBHHHBBH4s4s")
_WORDS: Final = struct.Struct(">10H")  # an IPv4 header without options
_TCP: Final = struct.Struct(">HHIIHHHH")
_UDP: Final = struct.Struct(">HHHH")
_ICMP: Final = struct.Struct(">BBHI")
_ACC_ECN: Final = (("e0b", "ceb", "e1b"), ("e1b", "ceb", "e0b"))  # RFC 9768 3.2.3, by order
FAST_OPEN_ID: Final = b"\xf9\x89"  # RFC 7413 4.1.1, RFC 6994: in an option of the kind 254


class Unsound(Exception):
    """A packet that no stack may send; the message says why."""


@attrs.frozen(slots=True)
class Ip:
    """The header's fields as IPv6 calls them; of IPv4 when the addresses have four octets, and then without a label."""

    source: bytes
    destination: bytes
    traffic_class: int = 0
    flow_label: int = 0
    hop_limit: int = 64


@attrs.frozen(slots=True)
class Segment:
    """A TCP segment. Numbers are those on the wire; `payload` is its octets."""

    ip: Ip
    source_port: int
    destination_port: int
    sequence: int
    ack: int
    flags: TcpFlags
    window: int
    urgent: int
    options: tuple[TcpOption, ...]
    payload: bytes

    @property
    def span(self) -> int:
        """Sequence numbers that it takes: payload, SYN and FIN."""
        return len(self.payload) + bool(self.flags & TcpFlags.SYN) + bool(self.flags & TcpFlags.FIN)


@attrs.frozen(slots=True)
class UdpDatagram:
    ip: Ip
    source_port: int
    destination_port: int
    payload: bytes


@attrs.frozen(slots=True)
class IcmpMessage:
    """An ICMP message, of v6 or v4 as its addresses; `value` is the 32-bit field behind the checksum."""

    ip: Ip
    type: int
    code: int
    value: int
    body: bytes


@attrs.frozen(slots=True)
class Other:
    """A packet of another kind: a fragment, say."""

    ip: Ip
    protocol: int
    payload: bytes


Seen = Segment | UdpDatagram | IcmpMessage | Other


def checksum(source: bytes, destination: bytes, protocol: int, upper: bytes) -> int:
    """Over the pseudo-header and `upper`; 0 when `upper` holds its right checksum already. RFC 8200 8.1, 9293 3.1."""
    if protocol == ICMP:  # RFC 792: no pseudo-header
        data = upper
    elif len(source) == IPV4:
        data = source + destination + struct.pack(">HH", protocol, len(upper)) + upper
    else:
        data = source + destination + struct.pack(">II", len(upper), protocol) + upper
    if len(data) % 2:
        data += b"\0"
    return ~fold(sum(struct.unpack(f">{len(data) // 2}H", data))) & 0xFFFF


def fold(total: int) -> int:
    """A sum of 16-bit words in one's complement (RFC 1071)."""
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


# --- reading ---------------------------------------------------------------------------------------------------


def read(packet: bytes) -> Seen:
    """Decodes and verifies a packet that the stack sent. Raises Unsound."""
    ip, protocol, upper = _read_ipv4(packet) if packet[:1] and packet[0] >> 4 == 4 else _read_ipv6(packet)
    if protocol not in (TCP, UDP, ICMP if len(ip.source) == IPV4 else ICMPV6):
        return Other(ip, protocol, upper)
    if checksum(ip.source, ip.destination, protocol, upper):
        raise Unsound("wrong checksum")
    if protocol == TCP:
        return _read_segment(ip, upper)
    if len(upper) < 8:
        raise Unsound("shorter than its header")
    if protocol == UDP:
        sport, dport, size, field = _UDP.unpack_from(upper)
        if size != len(upper) or not field:
            raise Unsound("UDP length or checksum field")
        return UdpDatagram(ip, sport, dport, upper[8:])
    kind, code, _, value = _ICMP.unpack_from(upper)
    if kind < 128 and protocol == ICMPV6 and len(packet) > 1280:  # RFC 4443 2.4 (c)
        raise Unsound(f"an ICMPv6 error of {len(packet)} octets; 1280 are the most")
    return IcmpMessage(ip, kind, code, value, upper[8:])


def _read_ipv6(packet: bytes) -> tuple[Ip, int, bytes]:
    if len(packet) < 40 or packet[0] >> 4 != 6:
        raise Unsound("not an IP packet")
    first, length, protocol, hop_limit, source, destination = _IP.unpack_from(packet)
    if length != len(packet) - 40:
        raise Unsound(f"payload length says {length}, there are {len(packet) - 40} octets")
    if not hop_limit:
        raise Unsound("hop limit 0")
    return Ip(source, destination, first >> 20 & 0xFF, first & 0xFFFFF, hop_limit), protocol, packet[40:]


def _read_ipv4(packet: bytes) -> tuple[Ip, int, bytes]:
    """A fragment comes as what IPv6 would call it, whatever it is a piece of."""
    if len(packet) < 20:
        raise Unsound("shorter than an IPv4 header")
    first, tos, length, _, fragment, ttl, protocol, _, source, destination = _IP4.unpack_from(packet)
    if first != 0x45:
        raise Unsound("IPv4 options, or an impossible header length")
    if length != len(packet):
        raise Unsound(f"total length says {length}, there are {len(packet)} octets")
    if fold(sum(_WORDS.unpack_from(packet))) != 0xFFFF:
        raise Unsound("wrong header checksum")
    if fragment & 0x8000:
        raise Unsound("the reserved flag is set")
    if not ttl:
        raise Unsound("TTL 0")
    return Ip(source, destination, tos, 0, ttl), FRAGMENT if fragment & 0x3FFF else protocol, packet[20:]


def _read_segment(ip: Ip, upper: bytes) -> Segment:
    if len(upper) < 20:
        raise Unsound("shorter than a TCP header")
    sport, dport, sequence, ack, bits, window, _, urgent = _TCP.unpack_from(upper)
    header = (bits >> 12) * 4
    if not 20 <= header <= len(upper):
        raise Unsound(f"data offset {header}")
    if bits & 0x0E00:  # RFC 9293 3.1: reserved bits "must be zero in generated segments"
        raise Unsound("reserved bits set")
    if not sport or not dport:
        raise Unsound("port 0")
    flags = TcpFlags(bits & 0x1FF)
    if not flags & TcpFlags.ACK and ack:
        raise Unsound("an acknowledgment number without ACK")
    return Segment(
        ip, sport, dport, sequence, ack, flags, window, urgent, read_options(upper[20:header]), upper[header:]
    )


def read_options(raw: bytes) -> tuple[TcpOption, ...]:
    """Every option as it stands, padding included. Raises Unsound for what RFC 9293 MUST-68, MUST-69 forbid."""
    found: list[TcpOption] = []
    at = 0
    while at < len(raw):
        kind = raw[at]
        if kind == 0:
            if any(raw[at:]):
                raise Unsound("padding behind the end of the options is not zero")
            found += [EndOfOptions()] * (len(raw) - at)
            break
        if kind == 1:
            found.append(Nop())
            at += 1
            continue
        if at + 1 >= len(raw) or not 2 <= raw[at + 1] <= len(raw) - at:
            raise Unsound(f"option {kind} has an impossible length")
        found.append(_read_option(kind, raw[at + 2 : at + raw[at + 1]]))
        at += raw[at + 1]
    return tuple(found)


def order_of(option: AccEcn) -> int:
    """RFC 9768 3.2.3: which ECT counter comes first, if the script does not say it: the one that it names first."""
    if option.order is not None:
        return option.order
    return int(bool(option.counters) and option.counters[0][0] == "e1b")


def _read_option(kind: int, data: bytes) -> TcpOption:
    if kind == 2 and len(data) == 2:
        return Mss(int.from_bytes(data, "big"))
    if kind == 3 and len(data) == 1:
        return WindowScale(data[0])
    if kind == 4 and not data:
        return SackPermitted()
    if kind == 5 and data and len(data) % 8 == 0:
        return Sack(tuple(struct.iter_unpack(">II", data)))
    if kind == 8 and len(data) == 8:
        return Timestamps(*struct.unpack(">II", data))
    if kind == 34:
        return FastOpen(data)
    if kind in (172, 174) and len(data) in (0, 3, 6, 9):
        names = _ACC_ECN[kind == 174]
        counters = (int.from_bytes(data[at : at + 3], "big") for at in range(0, len(data), 3))
        return AccEcn(int(kind == 174), tuple(zip(names, counters, strict=False)))
    if kind == 254 and data[:2] == FAST_OPEN_ID:
        return FastOpen(data[2:], experimental=True)
    return UnknownOption(f"kind {kind}", data.hex())


# --- building --------------------------------------------------------------------------------------------------


def build_ip(ip: Ip, protocol: int, upper: bytes) -> bytes:
    """A whole packet; `upper` has its checksum. Raises ValueError for one that is too long."""
    if len(ip.source) == IPV4:
        return build_ipv4(ip, protocol, upper)
    first = 6 << 28 | ip.traffic_class << 20 | ip.flow_label
    return _IP.pack(first, len(upper), protocol, ip.hop_limit, ip.source, ip.destination) + upper


def build_ipv4(ip: Ip, protocol: int, upper: bytes, identification: int = 0, fragment: int = DONT_FRAGMENT) -> bytes:
    """A whole packet, by default one that nobody may fragment, so that its identification says nothing (RFC 6864 4.1).

    Raises ValueError for one that is too long.
    """
    return ipv4_header(ip, protocol, 20 + len(upper), identification, fragment) + upper


def ipv4_header(ip: Ip, protocol: int, length: int, identification: int, fragment: int) -> bytes:
    """`fragment`: the word of flags and offset. Raises ValueError for an impossible length."""
    if length > 0xFFFF:
        raise ValueError(f"{length} octets: longer than an IPv4 packet")
    fields = (0x45, ip.traffic_class, length, identification, fragment, ip.hop_limit, protocol)
    value = ~fold(sum(_WORDS.unpack(_IP4.pack(*fields, 0, ip.source, ip.destination)))) & 0xFFFF
    return _IP4.pack(*fields, value, ip.source, ip.destination)


def build_segment(segment: Segment) -> bytes:
    """The packet of `segment`; options are padded with zeros to a multiple of four octets."""
    options = build_options(segment.options)
    offset = 5 + len(options) // 4
    head = _TCP.pack(
        segment.source_port,
        segment.destination_port,
        segment.sequence & 0xFFFFFFFF,
        segment.ack & 0xFFFFFFFF,
        offset << 12 | int(segment.flags),
        segment.window,
        0,
        segment.urgent,
    )
    return _finish(segment.ip, TCP, head + options + segment.payload, 16)


def build_options(options: tuple[TcpOption, ...]) -> bytes:
    """Raises ValueError for an option that has no bytes here."""
    raw = b""
    for option in options:
        match option:
            case Nop():
                raw += b"\1"
            case EndOfOptions():
                raw += b"\0"
            case Mss(value):
                raw += struct.pack(">BBH", 2, 4, value)
            case WindowScale(shift):
                raw += bytes((3, 3, shift))
            case SackPermitted():
                raw += bytes((4, 2))
            case Sack(blocks):
                raw += bytes((5, 2 + 8 * len(blocks)))
                raw += b"".join(struct.pack(">II", a & 0xFFFFFFFF, b & 0xFFFFFFFF) for a, b in blocks)
            case Timestamps(value, echo):
                raw += struct.pack(">BBII", 8, 10, (value or 0) & 0xFFFFFFFF, (echo or 0) & 0xFFFFFFFF)
            case FastOpen(cookie, False):
                raw += bytes((34, 2 + len(cookie))) + cookie
            case AccEcn(order, counters, False):
                order = order_of(option)
                given = b"".join((value & 0xFFFFFF).to_bytes(3, "big") for _, value in counters)
                raw += bytes((174 if order else 172, 2 + len(given))) + given
            case FastOpen(cookie, True):
                raw += bytes((254, 4 + len(cookie))) + FAST_OPEN_ID + cookie
            case _:
                raise ValueError(f"TCP option {type(option).__name__}")
    raw += bytes(-len(raw) % 4)
    if len(raw) > 40:
        raise ValueError(f"{len(raw)} octets of TCP options")
    return raw


def build_datagram(datagram: UdpDatagram) -> bytes:
    head = _UDP.pack(datagram.source_port, datagram.destination_port, 8 + len(datagram.payload), 0)
    return _finish(datagram.ip, UDP, head + datagram.payload, 6)


def build_icmp(message: IcmpMessage) -> bytes:
    head = _ICMP.pack(message.type, message.code, 0, message.value)
    return _finish(message.ip, ICMP if len(message.ip.source) == IPV4 else ICMPV6, head + message.body, 2)


def _finish(ip: Ip, protocol: int, upper: bytes, at: int) -> bytes:
    if len(upper) > 0xFFFF:
        raise ValueError(f"{len(upper)} octets: longer than an IP packet")
    value = checksum(ip.source, ip.destination, protocol, upper)
    if protocol == UDP and not value:
        value = 0xFFFF
    return build_ip(ip, protocol, upper[:at] + value.to_bytes(2, "big") + upper[at + 2 :])
