"""Packets to throw at a stack, from their fields; wrong ones too.

Made by struct and dpkt, independent of `umuxstack.core.wire`. Addresses are
text, `ipaddress` objects or 16 bytes. Every field may be set to nonsense;
what is not given is right.
"""

import struct
from collections.abc import Sequence
from ipaddress import IPv6Address
from typing import Final

import dpkt

from umuxstack.testing.decode import FLAG_LETTERS

AnyAddress = str | bytes | IPv6Address
Extension = tuple[int, bytes]
"""(protocol number, the header's bytes after its next-header field)."""

TCP: Final = 6
UDP: Final = 17
FRAGMENT: Final = 44
ICMPV6: Final = 58
NO_NEXT_HEADER: Final = 59


def packed(address: AnyAddress) -> bytes:
    """16 bytes of any way to write an address."""
    return address if isinstance(address, bytes) else IPv6Address(address).packed


def flag_bits(flags: str | int) -> int:
    """The flag byte for "SA", "PA" …; `.` is ACK as well, `W` is CWR as well (packetdrill's letters)."""
    if isinstance(flags, int):
        return flags
    letters = flags.replace(".", "A").replace("W", "C")
    return sum(1 << FLAG_LETTERS.index(letter) for letter in set(letters))


def ipv6(
    source: AnyAddress,
    destination: AnyAddress,
    protocol: int,
    upper: bytes,
    *,
    extensions: Sequence[Extension] = (),
    hop_limit: int = 64,
    traffic_class: int = 0,
    flow: int = 0,
    length: int | None = None,
    version: int = 6,
) -> bytes:
    """A packet with `upper` behind its `extensions`. `length`: what the payload length field claims."""
    chain = [kind for kind, _ in extensions] + [protocol]
    body = b"".join(bytes((after,)) + data for after, (_, data) in zip(chain[1:], extensions, strict=True)) + upper
    fixed = struct.pack(
        ">IHBB",
        version << 28 | traffic_class << 20 | flow,
        len(body) & 0xFFFF if length is None else length,
        chain[0],
        hop_limit,
    )
    return fixed + packed(source) + packed(destination) + body


def checksum(source: AnyAddress, destination: AnyAddress, protocol: int, upper: bytes) -> int:
    """The upper-layer checksum over `upper`, whose checksum field is zero; by dpkt."""
    pseudo = packed(source) + packed(destination) + struct.pack(">II", len(upper), protocol)
    return int(dpkt.dpkt.in_cksum(pseudo + upper))


def _with_checksum(
    source: AnyAddress, destination: AnyAddress, protocol: int, upper: bytes, at: int, given: int | None
) -> bytes:
    value = checksum(source, destination, protocol, upper) if given is None else given
    if value == 0 and protocol == UDP and given is None:
        value = 0xFFFF
    return upper[:at] + struct.pack(">H", value) + upper[at + 2 :]


def tcp(
    source: AnyAddress,
    destination: AnyAddress,
    sport: int = 1,
    dport: int = 1,
    flags: str | int = "A",
    seq: int = 0,
    ack: int = 0,
    window: int = 65535,
    options: bytes = b"",
    payload: bytes = b"",
    *,
    urgent: int = 0,
    offset: int | None = None,
    reserved: int = 0,
    checksum: int | None = None,
    **network: object,
) -> bytes:
    """A segment. `options` are padded to 32 bits with end-of-list; `network` goes to `ipv6`."""
    options += b"\0" * (-len(options) % 4)
    words = 5 + len(options) // 4 if offset is None else offset
    header = struct.pack(
        ">HHIIBBHHH",
        sport,
        dport,
        seq & 0xFFFFFFFF,
        ack & 0xFFFFFFFF,
        words << 4 | reserved,
        flag_bits(flags),
        window,
        0,
        urgent,
    )
    upper = _with_checksum(source, destination, TCP, header + options + payload, 16, checksum)
    return ipv6(source, destination, TCP, upper, **network)  # type: ignore[arg-type]


def mss(value: int) -> bytes:
    return struct.pack(">BBH", 2, 4, value)


def window_scale(shift: int) -> bytes:
    return struct.pack(">BBB", 3, 3, shift)


def sack_permitted() -> bytes:
    return b"\x04\x02"


def sack(*blocks: tuple[int, int]) -> bytes:
    """SACK blocks: (left edge, right edge)."""
    edges = b"".join(struct.pack(">II", left & 0xFFFFFFFF, right & 0xFFFFFFFF) for left, right in blocks)
    return bytes((5, 2 + len(edges))) + edges


def timestamps(value: int, echo: int = 0) -> bytes:
    """As every stack sends them: two NOPs before, so that a plain header is 32 bytes."""
    return b"\x01\x01" + struct.pack(">BBII", 8, 10, value & 0xFFFFFFFF, echo & 0xFFFFFFFF)


def udp(
    source: AnyAddress,
    destination: AnyAddress,
    sport: int = 1,
    dport: int = 1,
    payload: bytes = b"",
    *,
    length: int | None = None,
    checksum: int | None = None,
    **network: object,
) -> bytes:
    """A datagram. `length`: what the UDP length field claims; `checksum=0` sends none."""
    claimed = 8 + len(payload) if length is None else length
    upper = struct.pack(">HHHH", sport, dport, claimed, 0) + payload
    upper = _with_checksum(source, destination, UDP, upper, 6, checksum)
    return ipv6(source, destination, UDP, upper, **network)  # type: ignore[arg-type]


def icmp6(
    source: AnyAddress,
    destination: AnyAddress,
    kind: int,
    code: int = 0,
    value: int = 0,
    body: bytes = b"",
    *,
    checksum: int | None = None,
    **network: object,
) -> bytes:
    """An ICMPv6 message; `value` is the 32-bit field after the checksum."""
    upper = _with_checksum(source, destination, ICMPV6, struct.pack(">BBHI", kind, code, 0, value) + body, 2, checksum)
    return ipv6(source, destination, ICMPV6, upper, **network)  # type: ignore[arg-type]


def echo_request(
    source: AnyAddress, destination: AnyAddress, identifier: int = 1, number: int = 1, data: bytes = b""
) -> bytes:
    return icmp6(source, destination, 128, 0, identifier << 16 | number, data)


def echo_reply(
    source: AnyAddress, destination: AnyAddress, identifier: int = 1, number: int = 1, data: bytes = b""
) -> bytes:
    return icmp6(source, destination, 129, 0, identifier << 16 | number, data)


def error(router: AnyAddress, quoted: bytes, kind: int, code: int = 0, value: int = 0) -> bytes:
    """An ICMPv6 error of `router` to the sender of `quoted`, of which it shows what RFC 4443 2.4 (c) allows."""
    return icmp6(router, quoted[8:24], kind, code, value, quoted[: 1280 - 48])


def unreachable(router: AnyAddress, quoted: bytes, code: int = 0) -> bytes:
    """Codes: 0 no route, 1 prohibited, 3 address, 4 port."""
    return error(router, quoted, 1, code)


def packet_too_big(router: AnyAddress, quoted: bytes, mtu: int) -> bytes:
    return error(router, quoted, 2, 0, mtu)


def time_exceeded(router: AnyAddress, quoted: bytes, code: int = 0) -> bytes:
    return error(router, quoted, 3, code)


def parameter_problem(router: AnyAddress, quoted: bytes, code: int, pointer: int) -> bytes:
    return error(router, quoted, 4, code, pointer)


def _padded(kind: int, start: bytes) -> Extension:
    """An extension header, padded to a multiple of 8 bytes with PadN; its length counts 8 bytes less the first."""
    missing = -(len(start) + 2) % 8
    padding = b"" if missing == 0 else b"\0" if missing == 1 else bytes((1, missing - 2)) + bytes(missing - 2)
    body = start + padding
    return kind, bytes(((len(body) + 2) // 8 - 1,)) + body


def hop_by_hop(options: bytes = b"") -> Extension:
    return _padded(0, options)


def destination_options(options: bytes = b"") -> Extension:
    return _padded(60, options)


def option(kind: int, data: bytes = b"") -> bytes:
    """One option for the two headers above; its two high bits say what a receiver does that does not know it."""
    return bytes((kind, len(data))) + data


def routing(kind: int = 0, segments_left: int = 0, data: bytes = b"\0\0\0\0") -> Extension:
    """A routing header; `data` follows after "segments left", 4 bytes more than a multiple of 8."""
    return 43, bytes(((len(data) + 4) // 8 - 1, kind, segments_left)) + data


def fragment_header(offset: int, more: bool, identification: int) -> Extension:
    """`offset` in bytes, a multiple of 8."""
    return FRAGMENT, struct.pack(">BHI", 0, offset | more, identification)


def fragments(packet: bytes, size: int, identification: int = 1) -> list[bytes]:
    """`packet`, which has no extension headers, in pieces of `size` payload bytes (a multiple of 8)."""
    upper = packet[40:]
    return [
        fragment(packet, upper[at : at + size], at, at + size < len(upper), identification)
        for at in range(0, max(len(upper), 1), size)
    ]


def fragment(packet: bytes, piece: bytes, offset: int, more: bool, identification: int = 1) -> bytes:
    """One fragment with the addresses and next header of `packet`: any piece, at any offset."""
    return ipv6(
        packet[8:24],
        packet[24:40],
        packet[6],
        piece,
        extensions=[fragment_header(offset, more, identification)],
        hop_limit=packet[7],
    )
