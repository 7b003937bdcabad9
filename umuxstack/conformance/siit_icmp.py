"""What ICMP messages of IPv4 mean in IPv6, and the other way round (RFC 7915 4.2, 5.2, 4.3, 5.3).

Pure functions over the message behind the IP header. What means nothing on the other side raises Lost.
"""

import struct
from collections.abc import Callable
from typing import Final

from umuxstack.conformance import wire

LONGER_HEADER: Final = 20  # IPv6's 40 octets, IPv4's 20
LEAST_MTU: Final = 68  # of an IPv4 link (RFC 791)
LONGEST6: Final = 1280 - 48  # of a quoted packet (RFC 4443 2.4 (c))
LONGEST4: Final = 576 - 28  # likewise (RFC 1812 4.3.2.3)

UNREACHABLE4: Final = 3
FRAG_NEEDED: Final = 4
EXPIRED4: Final = 11
PARAMETER4: Final = 12
UNREACHABLE6: Final = 1
TOO_BIG: Final = 2
EXPIRED6: Final = 3
PARAMETER6: Final = 4
NEXT_HEADER_AT: Final = 6  # in an IPv6 header

_ICMP: Final = struct.Struct(">BBHI")
_ECHO_TO_6: Final = {8: 128, 0: 129}
_ECHO_TO_4: Final = {six: four for four, six in _ECHO_TO_6.items()}

# Codes of "destination unreachable". 2 (protocol) and 4 (too big) are other messages in IPv6; 14 (precedence violation)
# and what is not here means nothing there. RFC 7915 makes 15 (precedence cutoff) a prohibition, which ends an opening;
# BSD, which knows the code itself, does not give up on it: "reject route" is as soft.
_UNREACHABLE_TO_6: Final = {
    **dict.fromkeys((0, 1, 5, 6, 7, 8, 11, 12), 0),
    **dict.fromkeys((9, 10, 13), 1),
    3: 4,
    15: 6,
}
_UNREACHABLE_TO_4: Final = {0: 1, 1: 10, 2: 1, 3: 1, 4: 3}
# Where the field lies that a parameter problem points at (RFC 7915 figures 3 and 6).
_POINTER_TO_6: Final = {
    **dict(zip((0, 1, 2, 3, 8, 9), (0, 1, 4, 4, 7, 6), strict=True)),
    **dict.fromkeys(range(12, 16), 8),
    **dict.fromkeys(range(16, 20), 24),
}
_POINTER_TO_4: Final = {
    **dict(zip((0, 1, 4, 5, 6, 7), (0, 1, 2, 2, 9, 8), strict=True)),
    **dict.fromkeys(range(8, 24), 12),
    **dict.fromkeys(range(24, 40), 16),
}
_PLATEAUS: Final = (32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296)  # RFC 1191 7

Message = tuple[int, int, int, bytes]  # type, code, the word behind the checksum, what follows


class Lost(Exception):
    """This packet does not get through; the message is the reason, for a counter."""


def to_ipv6(message: bytes, quoted: Callable[[bytes], bytes]) -> Message:
    """`quoted` translates the packet that an error quotes; it may raise Lost as well."""
    kind, code, value, body = _split(message)
    if wire.checksum(b"", b"", wire.ICMP, message):
        raise Lost("ICMP checksum")
    if kind in _ECHO_TO_6 and not code:
        return _ECHO_TO_6[kind], 0, value, body
    meaning = _to_ipv6(kind, code, value, body)
    if meaning is None:
        raise Lost(f"ICMP type {kind}, code {code}")
    return *meaning, quoted(body)[:LONGEST6]


def _to_ipv6(kind: int, code: int, value: int, body: bytes) -> tuple[int, int, int] | None:
    if kind == UNREACHABLE4:
        if code == 2:
            return PARAMETER6, 1, NEXT_HEADER_AT
        if code == FRAG_NEEDED:
            return TOO_BIG, 0, (value & 0xFFFF or _plateau(body)) + LONGER_HEADER
        return (UNREACHABLE6, _UNREACHABLE_TO_6[code], 0) if code in _UNREACHABLE_TO_6 else None
    if kind == EXPIRED4 and code in (0, 1):
        return EXPIRED6, code, 0
    if kind == PARAMETER4 and code in (0, 2) and value >> 24 in _POINTER_TO_6:
        return PARAMETER6, 0, _POINTER_TO_6[value >> 24]
    return None


def _plateau(body: bytes) -> int:
    """What a router from before RFC 1191 means: the next smaller MTU that there is."""
    length = int.from_bytes(body[2:4], "big")
    return next((plateau for plateau in _PLATEAUS if plateau < length), LEAST_MTU)


def to_ipv4(message: bytes, quoted: Callable[[bytes], bytes]) -> Message:
    """The checksum is the caller's to verify: it covers addresses."""
    kind, code, value, body = _split(message)
    if kind in _ECHO_TO_4 and not code:
        return _ECHO_TO_4[kind], 0, value, body
    meaning = _to_ipv4(kind, code, value)
    if meaning is None:
        raise Lost(f"ICMPv6 type {kind}, code {code}")
    return *meaning, quoted(body)[:LONGEST4]


def _to_ipv4(kind: int, code: int, value: int) -> tuple[int, int, int] | None:
    if kind == UNREACHABLE6 and code in _UNREACHABLE_TO_4:
        return UNREACHABLE4, _UNREACHABLE_TO_4[code], 0
    if kind == TOO_BIG and value > LONGER_HEADER:
        return UNREACHABLE4, FRAG_NEEDED, min(value - LONGER_HEADER, 0xFFFF)
    if kind == EXPIRED6 and code in (0, 1):
        return EXPIRED4, code, 0
    if kind == PARAMETER6 and code == 0 and value in _POINTER_TO_4:
        return PARAMETER4, 0, _POINTER_TO_4[value] << 24
    if kind == PARAMETER6 and code == 1:
        return UNREACHABLE4, 2, 0
    return None


def quoted_echo(upper: bytes, kinds: dict[int, int]) -> bytes:
    """The beginning of an echo that an error quotes. Its checksum stays: the rest of what it covers may be missing."""
    if not upper or upper[0] not in kinds:
        raise Lost("an error about an error")
    return bytes((kinds[upper[0]],)) + upper[1:]


def quoted_echo_to_ipv6(upper: bytes) -> bytes:
    return quoted_echo(upper, _ECHO_TO_6)


def quoted_echo_to_ipv4(upper: bytes) -> bytes:
    return quoted_echo(upper, _ECHO_TO_4)


def _split(message: bytes) -> Message:
    if len(message) < 8:
        raise Lost("length")
    kind, code, _, value = _ICMP.unpack_from(message)
    return kind, code, value, message[8:]
