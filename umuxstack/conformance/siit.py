"""Between a link that speaks IPv4 and a stack that speaks IPv6: packets one way and the other, without state.

In the spirit of RFC 7915, with addresses by a table (RFC 7757) or in a prefix (RFC 6052). It differs where the stack is
to behave as one that speaks IPv4 itself:

- it is part of the wire and no hop, so TTLs stay as they are;
- a path may be narrower than 1280 octets, as IPv4's may;
- "precedence cutoff" is no prohibition (`siit_icmp`);
- a SYN that says nothing of its MSS means 536 in IPv4 and 1220 in IPv6 (RFC 9293 MUST-15, MUST-16): here it says so;
- no packet of the stack's may be fragmented on its way, however small: it discovers every path's MTU.

Nothing raises, whatever the octets are. What cannot be translated is lost, and counted by its reason.
"""

import struct
from collections import Counter
from collections.abc import Mapping
from typing import Final

from umuxstack.conformance import siit_icmp, wire
from umuxstack.conformance.script import TcpFlags
from umuxstack.conformance.siit_icmp import Lost
from umuxstack.core.units import Address

PREFIX: Final = bytes.fromhex("0064ff9b0001") + bytes(6)  # 64:ff9b:1::/96 (RFC 8215), for who is in no table
GROUPS: Final = b"\xff\x0e" + bytes(10)  # multicast and broadcast, so that the stack knows them for what they are
BROADCAST: Final = b"\xff\xff\xff\xff"
MSS_536: Final = bytes((2, 4, 536 >> 8, 536 & 0xFF))
SOURCE_ROUTES: Final = (131, 137)  # IPv4's options, loose and strict

_IP4: Final = struct.Struct(">BBHHHBBH4s4s")
_IP6: Final = struct.Struct(">IHBB16s16s")
_FRAGMENT: Final = struct.Struct(">BBHI")
_CHECKSUM_AT: Final = {wire.TCP: 16, wire.UDP: 6}
# Numbers of extension headers and of ICMPv6: an IPv4 packet that has one of them would become something else, and an
# IPv6 packet with them is nothing for IPv4.
_ONLY_IPV6: Final = frozenset((0, 43, 44, 50, 51, 58, 60, 135, 139, 140, 253, 254))


class Translator:
    """`pairs`: who is who, IPv4's address and IPv6's."""

    def __init__(self, pairs: Mapping[bytes, bytes]) -> None:
        self._to6 = dict(pairs)
        self._to4 = {six: four for four, six in pairs.items()}
        self.lost: Counter[str] = Counter()
        self.last_lost = ""  # the reason of the last loss

    # Addresses

    def address6(self, four: bytes) -> Address:
        """The stack's idea of an address on the link."""
        known = self._to6.get(four)
        if known is None:
            known = (GROUPS if 224 <= four[0] < 240 or four == BROADCAST else PREFIX) + four
        return Address(known)

    def address4(self, six: bytes) -> bytes | None:
        """The link's idea of an address of the stack's. None: no IPv4 address means it."""
        known = self._to4.get(six)
        if known is None and six[:12] in (PREFIX, GROUPS):
            return six[12:]
        return known

    def _addresses4(self, source: bytes, destination: bytes) -> tuple[bytes, bytes]:
        pair = (self.address4(source), self.address4(destination))
        if pair[0] is None or pair[1] is None:
            raise Lost("address")
        return pair[0], pair[1]

    def _count(self, loss: Lost) -> None:
        self.last_lost = str(loss)
        self.lost[self.last_lost] += 1

    # From the link

    def to_ipv6(self, raw: bytes) -> bytes | None:
        """The packet for the stack; None if it is lost."""
        try:
            return self._to_ipv6(raw)
        except Lost as loss:
            self._count(loss)
            return None

    def _to_ipv6(self, raw: bytes) -> bytes:
        if len(raw) < 20 or raw[0] >> 4 != 4:
            raise Lost("not an IPv4 packet")
        first, tos, total, identification, fragment, ttl, protocol, _, source, destination = _IP4.unpack_from(raw)
        header = (first & 15) * 4
        if not 20 <= header <= total <= len(raw):
            raise Lost("length")
        if wire.fold(sum(struct.unpack_from(f">{header // 2}H", raw))) != 0xFFFF:
            raise Lost("header checksum")
        if source[0] in (0, 127) or source[0] >= 224:  # RFC 1812 5.3.7
            raise Lost("source address")
        if header > 20:
            _check_options(raw[20:header])
        if protocol in _ONLY_IPV6:
            raise Lost("protocol")
        upper = raw[header:total]
        piece = fragment & 0x3FFF
        ip = wire.Ip(self.address6(source), self.address6(destination), tos, 0, ttl)
        if protocol == wire.ICMP:
            if piece:
                raise Lost("fragmented ICMP")
            return wire.build_icmp(wire.IcmpMessage(ip, *siit_icmp.to_ipv6(upper, self._quoted_to_ipv6)))
        if not piece:
            return wire.build_ip(ip, protocol, _whole_to_ipv6(protocol, upper, source + destination, ip))
        offset = fragment & 0x1FFF
        if not offset:
            if protocol == wire.UDP and upper[6:8] == b"\0\0":
                raise Lost("a fragment without a UDP checksum")
            upper = _adjusted(protocol, upper, source + destination, ip.source + ip.destination)
        field = offset << 3 | bool(fragment & wire.MORE_FRAGMENTS)
        return wire.build_ip(ip, wire.FRAGMENT, _FRAGMENT.pack(protocol, 0, field, identification) + upper)

    def _quoted_to_ipv6(self, raw: bytes) -> bytes:
        """The packet that an error quotes: cut short, and its header as routers left it."""
        if len(raw) < 20 or raw[0] >> 4 != 4 or not 20 <= (raw[0] & 15) * 4 <= len(raw):
            raise Lost("the quoted packet")
        first, tos, total, identification, fragment, ttl, protocol, _, source, destination = _IP4.unpack_from(raw)
        header = (first & 15) * 4
        upper, length = raw[header:], max(total - header, 0)
        six = (self.address6(source), self.address6(destination))
        if protocol in _ONLY_IPV6:
            raise Lost("protocol")
        if fragment & 0x1FFF == 0:
            if protocol == wire.ICMP:
                upper, protocol = siit_icmp.quoted_echo_to_ipv6(upper), wire.ICMPV6
            upper = _adjusted(protocol, upper, source + destination, six[0] + six[1])
        if fragment & 0x3FFF:
            field = (fragment & 0x1FFF) << 3 | bool(fragment & wire.MORE_FRAGMENTS)
            upper, length = _FRAGMENT.pack(protocol, 0, field, identification) + upper, length + _FRAGMENT.size
            protocol = wire.FRAGMENT
        return _IP6.pack(6 << 28 | tos << 20, min(length, 0xFFFF), protocol, ttl, *six) + upper

    # From the stack

    def to_ipv4(self, raw: bytes) -> bytes | None:
        """The packet for the link; None if it is lost."""
        try:
            return self._to_ipv4(raw)
        except Lost as loss:
            self._count(loss)
            return None

    def _to_ipv4(self, raw: bytes) -> bytes:
        if len(raw) < 40 or raw[0] >> 4 != 6:
            raise Lost("not an IPv6 packet")
        first, length, protocol, hop_limit, source, destination = _IP6.unpack_from(raw)
        upper = raw[40:]
        if length != len(upper) or length > 0xFFFF - 20:
            raise Lost("length")
        if not hop_limit:
            raise Lost("hop limit 0")
        four = self._addresses4(source, destination)
        protocol, upper, identification, fragment = _without_fragment_header(protocol, upper)
        ip = wire.Ip(*four, first >> 20 & 0xFF, 0, hop_limit)
        if protocol == wire.ICMPV6:
            if fragment & 0x3FFF:
                raise Lost("fragmented ICMP")
            if wire.checksum(source, destination, wire.ICMPV6, upper):
                raise Lost("ICMP checksum")
            return wire.build_icmp(wire.IcmpMessage(ip, *siit_icmp.to_ipv4(upper, self._quoted_to_ipv4)))
        if protocol in _ONLY_IPV6 or protocol == wire.ICMP:
            raise Lost("protocol")
        if not fragment & 0x1FFF:
            if protocol == wire.UDP and upper[6:8] == b"\0\0":
                raise Lost("no UDP checksum")
            upper = _adjusted(protocol, upper, source + destination, four[0] + four[1])
        return wire.build_ipv4(ip, protocol, upper, identification, fragment)

    def _quoted_to_ipv4(self, raw: bytes) -> bytes:
        if len(raw) < 40 or raw[0] >> 4 != 6:
            raise Lost("the quoted packet")
        first, length, protocol, hop_limit, source, destination = _IP6.unpack_from(raw)
        four = self._addresses4(source, destination)
        before = protocol
        protocol, upper, identification, fragment = _without_fragment_header(protocol, raw[40:])
        if before == wire.FRAGMENT:
            length = max(length - _FRAGMENT.size, 0)
        if (protocol in _ONLY_IPV6 and protocol != wire.ICMPV6) or protocol == wire.ICMP:
            raise Lost("protocol")
        if not fragment & 0x1FFF:
            if protocol == wire.ICMPV6:
                upper = siit_icmp.quoted_echo_to_ipv4(upper)
            upper = _adjusted(protocol, upper, source + destination, four[0] + four[1])
        protocol = wire.ICMP if protocol == wire.ICMPV6 else protocol
        ip = wire.Ip(*four, first >> 20 & 0xFF, 0, hop_limit)
        return wire.ipv4_header(ip, protocol, min(20 + length, 0xFFFF), identification, fragment) + upper


def _check_options(options: bytes) -> None:
    """RFC 7915 4.1: options are left out, but a source route that is not at its end cannot be."""
    at = 0
    while at < len(options) and options[at]:
        if options[at] == 1:
            at += 1
            continue
        length = options[at + 1] if at + 1 < len(options) else 0
        if length < 2 or at + length > len(options):
            raise Lost("options")
        if options[at] in SOURCE_ROUTES and length > 2 and options[at + 2] <= length:
            raise Lost("source route")
        at += length


def _without_fragment_header(protocol: int, upper: bytes) -> tuple[int, bytes, int, int]:
    """(protocol, what follows, identification, flags and offset) as IPv4 says it."""
    if protocol != wire.FRAGMENT:
        return protocol, upper, 0, wire.DONT_FRAGMENT
    if len(upper) < _FRAGMENT.size:
        raise Lost("length")
    inner, _, field, identification = _FRAGMENT.unpack_from(upper)
    more = wire.MORE_FRAGMENTS if field & 1 else 0
    return inner, upper[_FRAGMENT.size :], identification & 0xFFFF, field >> 3 | more


# --- checksums of what is carried ------------------------------------------------------------------------------


def _whole_to_ipv6(protocol: int, upper: bytes, four: bytes, ip: wire.Ip) -> bytes:
    if protocol == wire.UDP and upper[6:8] == b"\0\0":  # RFC 768: none was made. In IPv6 there must be one.
        value = wire.checksum(ip.source, ip.destination, wire.UDP, upper) or 0xFFFF
        return upper[:6] + value.to_bytes(2, "big") + upper[8:]
    more = 0
    if protocol == wire.TCP and len(upper) >= 20 and upper[13] & TcpFlags.SYN and _lacks_mss(upper):
        upper = upper[:12] + bytes((upper[12] + 0x10,)) + upper[13:20] + MSS_536 + upper[20:]
        more = 0x1000 + sum(struct.unpack(">HH", MSS_536)) + len(MSS_536)  # the data offset, the option, the length
    return _adjusted(protocol, upper, four, ip.source + ip.destination, more)


def _lacks_mss(upper: bytes) -> bool:
    """Whether there is no MSS option in this header, and room for one. False if it is none that can be read."""
    header = (upper[12] >> 4) * 4
    if not 20 <= header <= min(56, len(upper)):
        return False
    at = 20
    while at < header and upper[at]:
        if upper[at] == 1:
            at += 1
            continue
        if upper[at] == 2 or at + 1 == header or upper[at + 1] < 2:
            return False
        at += upper[at + 1]
    return at <= header


def _adjusted(protocol: int, upper: bytes, before: bytes, after: bytes, more: int = 0) -> bytes:
    """`upper` with the checksum of another pseudo-header (RFC 1624): what was wrong stays wrong."""
    at = _CHECKSUM_AT.get(protocol)
    if at is None or len(upper) < at + 2:
        return upper
    old = upper[at] << 8 | upper[at + 1]
    if protocol == wire.UDP and not old:  # quoted, and sent without one
        return upper
    gone = wire.fold(sum(struct.unpack(f">{len(before) // 2}H", before)))
    come = sum(struct.unpack(f">{len(after) // 2}H", after)) + more
    value = ~wire.fold((~old & 0xFFFF) + (~gone & 0xFFFF) + come) & 0xFFFF
    if protocol == wire.UDP and not value:
        value = 0xFFFF
    return upper[:at] + value.to_bytes(2, "big") + upper[at + 2 :]
