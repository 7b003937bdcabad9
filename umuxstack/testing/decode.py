"""What a packet says, in dpkt's reading, never in ours; and whether it is sound.

Knows nothing of `umuxstack.core.wire`: an error there must not be its own judge.
"""

import struct
from functools import cached_property
from ipaddress import IPv6Address
from typing import Final

import attrs
import dpkt

FLAG_LETTERS: Final = "FSRPAUEC"
"""FIN, SYN, RST, PSH, ACK, URG, ECE, CWR: bit 0 upwards. Texts of flags show them as in "SA", "PA", "FA", "RA"."""
_ORDER: Final = "FSRPUECA"  # how they are written: ACK last

_TCP, _UDP, _ICMPV6 = 6, 17, 58
_OPTION_LENGTHS: Final = {2: (4,), 3: (3,), 4: (2,), 5: (10, 18, 26, 34), 8: (10,), 28: (4,)}
_FRAGMENT: Final = dpkt.ip6.IP6FragmentHeader

# dpkt asks the last header for its offset where the first is a fragment header, and falls if that is another one.
dpkt.ip6.IP6ExtensionHeader.frag_off = 0


class UnsoundPacket(AssertionError):
    """A packet that no stack may send; the message says what is wrong with it, and shows it."""


@attrs.frozen
class TcpOptions:
    """The options of a segment. None or empty: not there."""

    mss: int | None = None
    window_scale: int | None = None
    sack_permitted: bool = False
    sack: tuple[tuple[int, int], ...] = ()  # left and right edges
    timestamps: tuple[int, int] | None = None  # value, echo reply
    user_timeout: int | None = None  # the field as it stands
    kinds: tuple[int, ...] = ()  # all there are, in order, padding left out


class Seen:
    """One packet that went by, at `time` (microseconds). `sender` and `receiver` are names of hosts, or empty."""

    def __init__(self, raw: bytes, time: int = 0, sender: str = "", receiver: str = "") -> None:
        self.raw = raw
        self.time = time
        self.sender = sender
        self.receiver = receiver

    @cached_property
    def ip(self) -> dpkt.ip6.IP6:
        return dpkt.ip6.IP6(self.raw)

    @property
    def source(self) -> bytes:
        return self.raw[8:24]

    @property
    def destination(self) -> bytes:
        return self.raw[24:40]

    @property
    def hop_limit(self) -> int:
        return int(self.ip.hlim)

    @property
    def flow(self) -> int:
        return int(self.ip.flow)

    @property
    def ecn(self) -> int:
        """The two ECN bits: 0 not capable, 1 and 2 capable, 3 "congestion experienced"."""
        return int(self.ip.fc) & 3

    @property
    def protocol(self) -> int:
        """What follows after all extension headers."""
        return int(self.ip.p)

    @property
    def fragment(self) -> tuple[int, bool, int] | None:
        """(offset in bytes, more follow, identification), if it is a fragment."""
        for header in self.ip.all_extension_headers:
            if isinstance(header, _FRAGMENT):
                return header.frag_off * 8, bool(header.m_flag), header.id
        return None

    @property
    def is_tcp(self) -> bool:
        return isinstance(self.ip.data, dpkt.tcp.TCP)

    @property
    def is_udp(self) -> bool:
        return isinstance(self.ip.data, dpkt.udp.UDP)

    @property
    def is_icmp(self) -> bool:
        return isinstance(self.ip.data, dpkt.icmp6.ICMP6)

    @property
    def sport(self) -> int:
        return int(self.ip.data.sport)

    @property
    def dport(self) -> int:
        return int(self.ip.data.dport)

    @property
    def flags(self) -> str:
        """A segment's flags: "S", "SA", "A", "PA", "FA", "FPA", "R", "RA" …; empty if it is none."""
        if not self.is_tcp:
            return ""
        bits = self.ip.data.flags
        return "".join(letter for letter in _ORDER if bits & 1 << FLAG_LETTERS.index(letter))

    @property
    def seq(self) -> int:
        return int(self.ip.data.seq)

    @property
    def ack(self) -> int:
        return int(self.ip.data.ack)

    @property
    def window(self) -> int:
        """The field as it stands, not scaled."""
        return int(self.ip.data.win)

    @property
    def urgent(self) -> int:
        return int(self.ip.data.urp)

    @cached_property
    def options(self) -> TcpOptions:
        found: dict[str, object] = {}
        kinds = []
        for kind, data in dpkt.tcp.parse_opts(self.ip.data.opts):
            if kind == dpkt.tcp.TCP_OPT_EOL:
                break
            if kind == dpkt.tcp.TCP_OPT_NOP:
                continue
            kinds.append(kind)
            if kind == dpkt.tcp.TCP_OPT_MSS:
                found["mss"] = int.from_bytes(data, "big")
            elif kind == dpkt.tcp.TCP_OPT_WSCALE:
                found["window_scale"] = data[0]
            elif kind == dpkt.tcp.TCP_OPT_SACKOK:
                found["sack_permitted"] = True
            elif kind == dpkt.tcp.TCP_OPT_SACK:
                found["sack"] = tuple(struct.iter_unpack(">II", data))
            elif kind == dpkt.tcp.TCP_OPT_TIMESTAMP:
                found["timestamps"] = struct.unpack(">II", data)
            elif kind == 28:  # RFC 5482
                found["user_timeout"] = int.from_bytes(data, "big")
        return TcpOptions(kinds=tuple(kinds), **found)  # type: ignore[arg-type]

    @property
    def payload(self) -> bytes:
        """What the application would get of it; of an ICMPv6 message what follows its first eight bytes."""
        data = self.ip.data
        if self.is_icmp:
            return self.raw[self._upper_offset() + 8 :]
        return bytes(data if isinstance(data, bytes) else data.data)

    @property
    def length(self) -> int:
        """Sequence numbers that a segment takes: its payload, SYN and FIN."""
        flags = self.ip.data.flags
        return len(self.payload) + int(flags & 1) + int(flags >> 1 & 1)

    @property
    def icmp_type(self) -> int:
        return int(self.ip.data.type)

    @property
    def icmp_code(self) -> int:
        return int(self.ip.data.code)

    @property
    def icmp_value(self) -> int:
        """The 32 bits after the checksum: MTU, pointer, or identifier and sequence number."""
        at = self._upper_offset() + 4
        return int.from_bytes(self.raw[at : at + 4], "big")

    @property
    def quoted(self) -> bytes:
        """The packet that an ICMPv6 error is about, as far as it is quoted."""
        return self.payload

    def _upper_offset(self) -> int:
        return 40 + sum(int(header.length) for header in self.ip.all_extension_headers)

    def __repr__(self) -> str:
        who = f"{IPv6Address(self.source)} > {IPv6Address(self.destination)}"
        if self.is_tcp:
            what = f"[{self.flags}] {self.sport}>{self.dport} seq {self.seq} ack {self.ack} win {self.window}"
            what += f" len {len(self.payload)}"
        elif self.is_udp:
            what = f"UDP {self.sport}>{self.dport} len {len(self.payload)}"
        elif self.is_icmp:
            what = f"ICMPv6 {self.icmp_type}/{self.icmp_code} value {self.icmp_value:#x} len {len(self.payload)}"
        else:
            what = f"protocol {self.protocol} len {len(self.raw) - 40}"
        return f"<{self.time / 1e6:.6f} {who} {what}>"


def verify(packet: bytes, *, mtu: int = 65575) -> None:
    """Raises UnsoundPacket unless lengths, checksum and fields are what every receiver may ask for.

    `mtu`: bytes, IPv6 header included.
    """
    try:
        _verify(packet, mtu)
    except UnsoundPacket as error:
        raise UnsoundPacket(f"{error}: {packet.hex()}") from None


def _check(right: bool, complaint: str) -> None:
    if not right:
        raise UnsoundPacket(complaint)


def _verify(packet: bytes, mtu: int) -> None:
    _check(len(packet) >= 40, "shorter than an IPv6 header")
    _check(packet[0] >> 4 == 6, "not version 6")
    _check(len(packet) <= mtu, f"{len(packet)} bytes on a link of {mtu}")
    _check(int.from_bytes(packet[4:6], "big") == len(packet) - 40, "payload length is not the length of the payload")
    _check(packet[7] > 0, "hop limit 0")
    _check(packet[8] != 0xFF, "from a multicast address")
    _check(any(packet[24:40]), "to the unspecified address")
    try:
        ip = dpkt.ip6.IP6(packet)
    except dpkt.UnpackError as error:
        raise UnsoundPacket(f"dpkt cannot read it ({error})") from None
    offset = 40
    for header in ip.all_extension_headers:
        offset += header.length
        if isinstance(header, _FRAGMENT) and (header.frag_off or header.m_flag):
            # RFC 8200 4.5: every fragment but the last is a multiple of 8 octets long.
            _check(not header.m_flag or (len(packet) - offset) % 8 == 0, "a fragment of an odd length")
            return
    upper = packet[offset:]
    _check(ip.p in (_TCP, _UDP, _ICMPV6, 59), f"next header {ip.p}")
    if ip.p == 59:
        return
    pseudo = packet[8:40] + struct.pack(">II", len(upper), ip.p)
    _check(dpkt.dpkt.in_cksum(pseudo + upper) == 0, "wrong checksum")
    if ip.p == _TCP:
        _verify_tcp(ip.data)
    elif ip.p == _UDP:
        _check(isinstance(ip.data, dpkt.udp.UDP), "dpkt cannot read the UDP header")
        _check(ip.data.ulen == len(upper), "UDP length is not the length of the datagram")
        _check(ip.data.sum != 0, "UDP checksum 0, which IPv6 forbids")
        _check(ip.data.sport != 0 and ip.data.dport != 0, "port 0")
    else:
        _check(isinstance(ip.data, dpkt.icmp6.ICMP6) and len(upper) >= 8, "dpkt cannot read the ICMPv6 header")


def _verify_tcp(segment: object) -> None:
    _check(isinstance(segment, dpkt.tcp.TCP), "dpkt cannot read the TCP header")
    assert isinstance(segment, dpkt.tcp.TCP)
    _check(len(segment.opts) == segment.off * 4 - 20, "data offset beyond the segment")
    _check(segment._off_flags & 0x0E00 == 0, "reserved bits set")  # RFC 9293 3.1: "Must be zero"; RFC 9768 took one
    _check(segment.sport != 0 and segment.dport != 0, "port 0")
    syn, fin, rst = segment.flags & 2, segment.flags & 1, segment.flags & 4
    _check(not (syn and (fin or rst)), "SYN together with FIN or RST")
    _check(not (fin and rst), "FIN together with RST")
    _check(bool(syn or rst or segment.flags & 0x10), "without ACK, and neither SYN nor RST")
    _verify_options(bytes(segment.opts), bool(syn))


def _verify_options(options: bytes, syn: bool) -> None:
    """Walked by hand: dpkt reads on where a length is wrong."""
    at, seen = 0, set()
    while at < len(options):
        kind = options[at]
        if kind == 0:
            _check(not any(options[at:]), "padding that is not zero after the end of the option list")
            return
        if kind == 1:
            at += 1
            continue
        _check(at + 1 < len(options), "an option without its length")
        length = options[at + 1]
        _check(length >= 2 and at + length <= len(options), f"option {kind} is longer than the header")
        _check(length in _OPTION_LENGTHS.get(kind, (length,)), f"option {kind} with length {length}")
        _check(kind not in seen, f"option {kind} twice")
        _check(syn or kind not in (2, 3, 4), f"option {kind} outside of a SYN")
        seen.add(kind)
        at += length
