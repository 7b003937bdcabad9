"""The translator alone, between IPv4 and IPv6: dpkt makes what it is given and reads what it makes."""

import struct
from typing import Any

import dpkt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umuxstack.conformance import wire
from umuxstack.conformance.ends import HERE, IPV4, IPV6, PEERS
from umuxstack.conformance.siit import GROUPS, PREFIX, Translator

PEER4, HERE4 = IPV4["peer"], IPV4["here"]
PEER6 = PEERS["peer"]
SYN = dpkt.tcp.TH_SYN
MSS = bytes((2, 4, 5, 0xB4))

octets = st.binary(max_size=300)
word = st.integers(0, 0xFFFF)
senders = st.one_of(
    st.sampled_from([IPV4[name] for name in ("peer", "other", "third", "neighbour")]),
    st.binary(min_size=4, max_size=4).filter(lambda a: a[0] not in (0, 127) and a[0] < 224),
)


def translator() -> Translator:
    return Translator({four: IPV6[name] for name, four in IPV4.items()})


def ipv4(protocol: int, data: Any, **fields: Any) -> bytes:
    """A packet from `peer` to `here`, by dpkt; its checksums are dpkt's, too."""
    fields = {"src": PEER4, "dst": HERE4, "ttl": 64, "df": 1, **fields}
    opts = fields.pop("opts", b"")
    packet = dpkt.ip.IP(p=protocol, data=data, **fields)
    packet.opts = opts
    packet.hl = 5 + len(opts) // 4
    packet.len = len(packet)
    return bytes(packet)


def ipv6(protocol: int, data: Any, **fields: Any) -> bytes:
    """A packet from `here` to `peer`."""
    fields = {"src": HERE, "dst": PEER6, "hlim": 64, **fields}
    packet = dpkt.ip6.IP6(nxt=protocol, data=data, **fields)
    packet.plen = len(data)
    return bytes(packet)


def tcp(**fields: Any) -> Any:
    opts = fields.pop("opts", b"")
    segment = dpkt.tcp.TCP(**{"sport": 1, "dport": 2, **fields})
    segment.opts = opts
    segment.off = 5 + len(opts) // 4
    return segment


def udp(payload: bytes, **fields: Any) -> Any:
    return dpkt.udp.UDP(**{"sport": 1, "dport": 2, "ulen": 8 + len(payload), "data": payload, **fields})


def icmp4(kind: int, code: int, value: int, body: bytes) -> bytes:
    """With the checksum of RFC 792, by dpkt."""
    message = struct.pack(">BBHI", kind, code, 0, value) + body
    return message[:2] + struct.pack(">H", dpkt.in_cksum(message)) + message[4:]


def has_right_checksums(raw: bytes) -> bool:
    """dpkt, told that a checksum is missing, fills in its own."""
    packet = dpkt.ip6.IP6(raw) if raw[0] >> 4 == 6 else dpkt.ip.IP(raw)
    packet.data.sum = 0
    if raw[0] >> 4 == 4:
        packet.sum = 0
    elif packet.nxt == wire.UDP and not bytes(packet)[46:48].strip(b"\0"):
        return raw[46:48] == b"\xff\xff"
    return bytes(packet) == raw


def reason(raw: bytes) -> str:
    """Why this packet from the link does not get through."""
    one = translator()
    assert one.to_ipv6(raw) is None
    assert dict(one.lost) == {one.last_lost: 1}
    return one.last_lost


# --- headers and what they carry -------------------------------------------------------------------------------


@given(senders, octets, word, word, st.integers(0, 255), st.integers(0, 255), st.integers(0, 0xFFFFFFFF))
def test_a_segment_keeps_everything_but_its_header(
    source: bytes, payload: bytes, sport: int, dport: int, tos: int, ttl: int, number: int
) -> None:
    segment = tcp(sport=sport, dport=dport, seq=number, flags=dpkt.tcp.TH_ACK, data=payload)
    raw = ipv4(wire.TCP, segment, src=source, tos=tos, ttl=ttl)
    one = translator()
    six = one.to_ipv6(raw)
    assert six is not None
    seen = dpkt.ip6.IP6(six)
    assert (seen.fc, seen.flow, seen.hlim, seen.plen) == (tos, 0, ttl, 20 + len(payload))
    assert (seen.src, seen.dst) == (one.address6(source), HERE)
    assert (seen.data.sport, seen.data.dport, seen.data.seq, bytes(seen.data.data)) == (sport, dport, number, payload)
    assert has_right_checksums(six)
    if ttl:
        assert one.to_ipv4(six) == raw
    assert not one.lost or (not ttl and one.to_ipv4(six) is None)


@given(st.sampled_from(list(PEERS.values())), octets, word, st.integers(0, 255), st.integers(1, 255))
def test_what_the_stack_sends_is_an_ipv4_packet(
    to: bytes, payload: bytes, port: int, traffic_class: int, hop_limit: int
) -> None:
    one = translator()
    for protocol, data in (
        (wire.TCP, tcp(sport=port, flags=dpkt.tcp.TH_PUSH, data=payload)),
        (wire.UDP, udp(payload, dport=port)),
    ):
        six = ipv6(protocol, data, dst=to, hlim=hop_limit, fc=traffic_class, flow=0x12345)
        four = one.to_ipv4(six)
        assert four is not None
        seen = dpkt.ip.IP(four)
        assert (seen.v, seen.hl, seen.len) == (4, 5, len(four))
        assert (seen.tos, seen.ttl, seen.id, seen.df, seen.mf, seen.offset) == (traffic_class, hop_limit, 0, 1, 0, 0)
        assert (seen.src, seen.dst) == (HERE4, one.address4(to))
        assert bytes(seen.data.data) == payload
        assert has_right_checksums(four)
        back = one.to_ipv6(four)
        assert back == six[:1] + bytes((six[1] & 0xF0, 0, 0)) + six[4:]  # but for the flow label


@given(octets.filter(len), st.data())
def test_what_was_wrong_stays_wrong(payload: bytes, data: st.DataObject) -> None:
    """The checksum is adjusted, not made anew: the stack's own verification would be none."""
    at = data.draw(st.integers(40, 39 + len(payload)))
    good = ipv4(wire.TCP, tcp(data=payload))
    bad = good[:at] + bytes((good[at] ^ 0x40,)) + good[at + 1 :]
    six = translator().to_ipv6(bad)
    assert six is not None
    assert not has_right_checksums(six)
    with pytest.raises(wire.Unsound, match="wrong checksum"):
        wire.read(six)


def test_a_datagram_without_a_checksum_gets_one() -> None:
    """RFC 768 allows it, RFC 8200 8.1 does not; and a sum of zero is written as its complement."""
    raw = bytearray(ipv4(wire.UDP, udp(b"data")))
    raw[26:28] = b"\0\0"
    six = translator().to_ipv6(bytes(raw))
    assert six is not None
    assert has_right_checksums(six)
    for filler in range(0x10000):
        whole = wire.build_datagram(wire.UdpDatagram(wire.Ip(PEER4, HERE4), 1, 2, filler.to_bytes(2, "big")))
        six = translator().to_ipv6(whole)
        assert six is not None
        assert six[46:48] != b"\0\0"
        if six[46:48] == b"\xff\xff":
            assert has_right_checksums(six)
            assert translator().to_ipv6(whole[:26] + b"\0\0" + whole[28:]) == six
            return
    raise AssertionError("no sum was zero")


@pytest.mark.rule("RFC 9293 MUST-15")
@pytest.mark.parametrize("options", [b"", bytes((1, 1, 4, 2)), bytes((3, 3, 7, 0)), bytes((8, 10, *range(8), 1, 1))])
def test_a_syn_that_says_no_mss_says_536(options: bytes) -> None:
    six = translator().to_ipv6(ipv4(wire.TCP, tcp(flags=SYN, opts=options, data=b"early")))
    assert six is not None
    assert has_right_checksums(six)
    seen = dpkt.ip6.IP6(six)
    assert (seen.plen, seen.data.off) == (29 + len(options), 6 + len(options) // 4)
    assert seen.data.opts == bytes((2, 4, 2, 24)) + options
    assert bytes(seen.data.data) == b"early"


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        (dpkt.tcp.TH_ACK, b""),
        (SYN, MSS),
        (SYN | dpkt.tcp.TH_ACK, bytes((4, 2, 1, 1)) + MSS),
        (SYN, bytes((1,) * 37) + bytes((4, 2, 1))),  # no room
        (SYN, bytes((4, 0, 1, 1))),  # nothing that can be read
        (SYN, bytes((1, 1, 4, 9))),
        (SYN, bytes((1, 1, 1, 4))),
    ],
)
def test_no_other_segment_gets_an_option(flags: int, options: bytes) -> None:
    raw = ipv4(wire.TCP, tcp(flags=flags, opts=options))
    six = translator().to_ipv6(raw)
    assert six is not None
    assert len(six) == len(raw) + 20
    assert has_right_checksums(six)


def test_a_header_longer_or_shorter_than_the_segment_is_left_to_the_stack() -> None:
    for offset in (4, 15):
        segment = tcp(flags=SYN)
        segment.off = offset
        six = translator().to_ipv6(ipv4(wire.TCP, segment))
        assert six is not None
        assert six[40:56] == bytes(segment)[:16]


# --- addresses -------------------------------------------------------------------------------------------------


@given(st.binary(min_size=4, max_size=4))
def test_every_ipv4_address_has_a_place_and_comes_back(four: bytes) -> None:
    one = translator()
    assert one.address4(one.address6(four)) == four
    assert one.address6(four)[:12] in (PREFIX, GROUPS) or four in IPV4.values()
    assert (one.address6(four)[0] == 0xFF) == (224 <= four[0] < 240 or four == b"\xff" * 4)


@given(st.binary(min_size=16, max_size=16))
def test_an_address_of_ipv6_alone_means_nothing_on_the_link(six: bytes) -> None:
    one = translator()
    if one.address4(six) is None:
        assert one.to_ipv4(ipv6(wire.UDP, udp(b""), dst=six)) is None
        assert one.last_lost == "address"


# --- fragments -------------------------------------------------------------------------------------------------


def test_fragments_of_ipv4_have_a_fragment_header_in_ipv6() -> None:
    whole = ipv4(wire.UDP, udp(bytes(range(200))))
    one = translator()
    pieces = []
    for start, stop in ((0, 96), (96, 208)):
        raw = ipv4(wire.UDP, whole[20 + start : 20 + stop], id=0xBEEF, df=0, mf=stop < 208, offset=start // 8)
        six = one.to_ipv6(raw)
        assert six is not None
        seen = dpkt.ip6.IP6(six)
        header = seen.extension_hdrs[wire.FRAGMENT]
        assert (header.nxt, header.frag_off, header.m_flag, header.id) == (wire.UDP, start // 8, stop < 208, 0xBEEF)
        pieces.append(six[48:])
        assert one.to_ipv4(six) == raw
    assert has_right_checksums(ipv6(wire.UDP, b"".join(pieces), src=PEER6, dst=HERE))


def test_a_fragment_of_the_stacks_may_be_fragmented_and_keeps_its_number() -> None:
    raw = ipv6(wire.FRAGMENT, struct.pack(">BBHI", wire.UDP, 0, 1480 | 1, 0x1234ABCD) + bytes(16))
    four = translator().to_ipv4(raw)
    assert four is not None
    seen = dpkt.ip.IP(four)
    assert (seen.id, seen.df, seen.mf, seen.offset, seen.p) == (0xABCD, 0, 1, 1480 // 8, wire.UDP)
    assert isinstance(wire.read(four), wire.Other)


# --- ICMP ------------------------------------------------------------------------------------------------------

QUOTED = ipv4(wire.TCP, tcp(sport=8080, dport=4000, seq=77, flags=dpkt.tcp.TH_ACK, data=b"data"), src=HERE4, dst=PEER4)


@pytest.mark.rule("RFC 7915 4.2")
@pytest.mark.parametrize(
    ("kind", "code", "value", "expected"),
    [
        *[(3, code, 0, (1, 0, 0)) for code in (0, 1, 5, 6, 7, 8, 11, 12)],
        *[(3, code, 0, (1, 1, 0)) for code in (9, 10, 13)],
        (3, 15, 0, (1, 6, 0)),
        (3, 2, 0, (4, 1, 6)),
        (3, 3, 0, (1, 4, 0)),
        (3, 4, 1400, (2, 0, 1420)),
        (3, 4, 0xFFFF0044, (2, 0, 88)),  # the upper half of the word is unused
        (11, 0, 0, (3, 0, 0)),
        (11, 1, 0, (3, 1, 0)),
        *[
            (12, code, four << 24, (4, 0, six))
            for code in (0, 2)
            for four, six in ((0, 0), (1, 1), (2, 4), (3, 4), (8, 7), (9, 6), (12, 8), (15, 8), (16, 24), (19, 24))
        ],
    ],
)
def test_an_error_of_ipv4_is_the_one_of_ipv6_that_means_the_same(
    kind: int, code: int, value: int, expected: tuple[int, int, int]
) -> None:
    six = translator().to_ipv6(ipv4(wire.ICMP, icmp4(kind, code, value, QUOTED)))
    assert six is not None
    assert has_right_checksums(six)
    seen = wire.read(six)
    assert isinstance(seen, wire.IcmpMessage)
    assert (seen.type, seen.code, seen.value) == expected
    quoted = dpkt.ip6.IP6(seen.body)
    assert (quoted.src, quoted.dst, quoted.plen) == (HERE, PEER6, 24)
    assert (quoted.data.sport, quoted.data.dport, quoted.data.seq) == (8080, 4000, 77)
    assert has_right_checksums(seen.body)


@pytest.mark.rule("RFC 7915 4.2")
@pytest.mark.parametrize(
    ("kind", "code", "value"),
    [
        *[(kind, 0, 0) for kind in (1, 2, 4, 5, 6, 9, 10, 13, 14, 15, 16, 17, 18, 40, 255)],
        *[(3, 14, 0), (3, 16, 0), (3, 255, 0), (11, 2, 0), (12, 1, 0), (12, 3, 0), (8, 1, 0)],
        *[(12, 0, pointer << 24) for pointer in (4, 5, 6, 7, 10, 11, 20, 255)],
    ],
)
def test_what_means_nothing_in_ipv6_is_lost(kind: int, code: int, value: int) -> None:
    assert reason(ipv4(wire.ICMP, icmp4(kind, code, value, QUOTED))) == f"ICMP type {kind}, code {code}"


@pytest.mark.rule("RFC 1191 5")
@pytest.mark.parametrize(
    ("length", "mtu"), [(1500, 1492), (1492, 1006), (297, 296), (296, 68), (68, 68), (40000, 32000)]
)
def test_a_router_that_says_no_mtu_means_the_next_plateau(length: int, mtu: int) -> None:
    quoted = QUOTED[:2] + length.to_bytes(2, "big") + QUOTED[4:]
    six = translator().to_ipv6(ipv4(wire.ICMP, icmp4(3, 4, 0, quoted)))
    assert six is not None
    assert int.from_bytes(six[44:48], "big") == mtu + 20


@pytest.mark.rule("RFC 7915 5.2")
@pytest.mark.parametrize(
    ("kind", "code", "value", "expected"),
    [
        *[(1, six, 0, (3, four, 0)) for six, four in ((0, 1), (1, 10), (2, 1), (3, 1), (4, 3))],
        (2, 0, 1420, (3, 4, 1400)),
        (2, 0, 1 << 20, (3, 4, 0xFFFF)),
        (3, 0, 0, (11, 0, 0)),
        (3, 1, 0, (11, 1, 0)),
        *[
            (4, 0, six, (12, 0, four << 24))
            for six, four in ((0, 0), (1, 1), (4, 2), (5, 2), (6, 9), (7, 8), (8, 12), (23, 12), (24, 16), (39, 16))
        ],
        (4, 1, 6, (3, 2, 0)),
    ],
)
def test_an_error_of_the_stacks_is_one_of_ipv4(
    kind: int, code: int, value: int, expected: tuple[int, int, int]
) -> None:
    about = ipv6(wire.UDP, udp(b"x" * 900, sport=4000, dport=8080), src=PEER6, dst=HERE)
    raw = wire.build_icmp(wire.IcmpMessage(wire.Ip(HERE, PEER6), kind, code, value, about))
    four = translator().to_ipv4(raw)
    assert four is not None
    assert has_right_checksums(four)
    assert len(four) == 576  # RFC 1812 4.3.2.3
    seen = wire.read(four)
    assert isinstance(seen, wire.IcmpMessage)
    assert (seen.type, seen.code, seen.value) == expected
    quoted = dpkt.ip.IP(seen.body)
    assert (quoted.src, quoted.dst, quoted.p, quoted.len) == (PEER4, HERE4, wire.UDP, 928)
    assert dpkt.in_cksum(seen.body[:20]) == 0
    assert seen.body[20:] == ipv4(wire.UDP, udp(b"x" * 900, sport=4000, dport=8080))[20:][: len(seen.body) - 20]


@pytest.mark.parametrize(
    ("kind", "code", "value"), [(1, 5, 0), (1, 6, 0), (2, 0, 20), (3, 2, 0), (4, 0, 2), (4, 2, 40)]
)
def test_what_means_nothing_in_ipv4_is_lost(kind: int, code: int, value: int) -> None:
    about = ipv6(wire.UDP, udp(b"x"), src=PEER6, dst=HERE)
    one = translator()
    assert one.to_ipv4(wire.build_icmp(wire.IcmpMessage(wire.Ip(HERE, PEER6), kind, code, value, about))) is None
    assert one.last_lost == f"ICMPv6 type {kind}, code {code}"


@given(octets, st.integers(0, 0xFFFFFFFF))
def test_an_echo_goes_there_and_back(payload: bytes, number: int) -> None:
    one = translator()
    for kind in (8, 0):
        raw = ipv4(wire.ICMP, icmp4(kind, 0, number, payload))
        six = one.to_ipv6(raw)
        assert six is not None
        assert has_right_checksums(six)
        seen = wire.read(six)
        assert isinstance(seen, wire.IcmpMessage)
        assert (seen.type, seen.value, seen.body) == ({8: 128, 0: 129}[kind], number, payload)
        assert one.to_ipv4(six) == raw


def test_an_error_about_an_echo_quotes_it_and_none_is_about_an_error() -> None:
    request = ipv4(wire.ICMP, icmp4(8, 0, 7, b"ping"), src=HERE4, dst=PEER4)
    six = translator().to_ipv6(ipv4(wire.ICMP, icmp4(3, 1, 0, request)))
    assert six is not None
    assert (six[48 + 6], six[48 + 40]) == (wire.ICMPV6, 128)
    error = ipv4(wire.ICMP, icmp4(3, 1, 0, QUOTED), src=HERE4, dst=PEER4)
    assert reason(ipv4(wire.ICMP, icmp4(3, 1, 0, error))) == "an error about an error"
    assert reason(ipv4(wire.ICMP, icmp4(3, 1, 0, error[:20]))) == "an error about an error"


def test_an_error_of_ipv6_is_no_longer_than_every_link_carries() -> None:
    six = translator().to_ipv6(ipv4(wire.ICMP, icmp4(3, 1, 0, QUOTED + bytes(2000))))
    assert six is not None
    assert len(six) == 1280


def test_a_quoted_datagram_without_a_checksum_still_has_none() -> None:
    quoted = bytearray(ipv4(wire.UDP, udp(b"data"), src=HERE4, dst=PEER4))
    quoted[26:28] = b"\0\0"
    six = translator().to_ipv6(ipv4(wire.ICMP, icmp4(3, 3, 0, bytes(quoted))))
    assert six is not None
    assert six[48 + 46 : 48 + 48] == b"\0\0"


# --- what does not get through ---------------------------------------------------------------------------------


def rewritten(raw: bytes, at: int, new: bytes) -> bytes:
    """With other octets in its header, and the header checksum that they have."""
    changed = bytearray(raw)
    changed[at : at + len(new)] = new
    changed[10:12] = b"\0\0"
    changed[10:12] = struct.pack(">H", dpkt.in_cksum(bytes(changed[: (changed[0] & 15) * 4])))
    return bytes(changed)


PLAIN = ipv4(wire.TCP, tcp(data=b"data"))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", "not an IPv4 packet"),
        (PLAIN[:19], "not an IPv4 packet"),
        (ipv6(wire.TCP, tcp()), "not an IPv4 packet"),
        (rewritten(PLAIN, 0, b"\x44"), "length"),
        (rewritten(PLAIN, 2, b"\x00\x13"), "length"),
        (PLAIN[:-1], "length"),
        (PLAIN[:8] + b"\1" + PLAIN[9:], "header checksum"),
        (rewritten(PLAIN, 12, bytes((127, 0, 0, 1))), "source address"),
        (rewritten(PLAIN, 12, bytes((0, 1, 2, 3))), "source address"),
        (rewritten(PLAIN, 12, bytes((224, 0, 0, 1))), "source address"),
        (rewritten(PLAIN, 12, b"\xff\xff\xff\xff"), "source address"),
        *[(rewritten(PLAIN, 9, bytes((number,))), "protocol") for number in (0, 43, 44, 58, 60)],
        (ipv4(wire.ICMP, icmp4(8, 0, 0, bytes(16)), df=0, mf=1), "fragmented ICMP"),
        (ipv4(wire.ICMP, bytes(7)), "length"),
        (ipv4(wire.ICMP, icmp4(8, 0, 1, b"") + b"\0\1"), "ICMP checksum"),
        (ipv4(wire.ICMP, icmp4(3, 0, 0, QUOTED[:19])), "the quoted packet"),
        (ipv4(wire.ICMP, icmp4(3, 0, 0, ipv6(wire.TCP, tcp()))), "the quoted packet"),
        (ipv4(wire.UDP, struct.pack(">HHHH", 1, 2, 16, 0) + bytes(8), df=0, mf=1), "a fragment without a UDP checksum"),
        (ipv4(wire.TCP, tcp(), opts=bytes((131, 7, 4, 192, 0, 2, 9, 0))), "source route"),
        (ipv4(wire.TCP, tcp(), opts=bytes((1, 137, 7, 4, 192, 0, 2, 9))), "source route"),
        (ipv4(wire.TCP, tcp(), opts=bytes((7, 9, 4, 0))), "options"),
        (ipv4(wire.TCP, tcp(), opts=bytes((7, 1, 0, 0))), "options"),
        (ipv4(wire.TCP, tcp(), opts=bytes((1, 1, 1, 7))), "options"),
    ],
)
def test_what_is_malformed_is_lost_for_a_reason(raw: bytes, expected: str) -> None:
    assert reason(raw) == expected


@pytest.mark.parametrize(
    "options", [bytes(4), bytes((1, 1, 1, 0)), bytes((148, 4, 0, 0)), bytes((131, 7, 8, 0, 0, 0, 0, 0))]
)
def test_other_options_are_left_out(options: bytes) -> None:
    """Also a source route that is at its end."""
    six = translator().to_ipv6(ipv4(wire.TCP, tcp(data=b"data"), opts=options))
    assert six == translator().to_ipv6(PLAIN)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", "not an IPv6 packet"),
        (PLAIN, "not an IPv6 packet"),
        (ipv6(wire.TCP, tcp()) + b"\0", "length"),
        (ipv6(wire.TCP, tcp())[:-1], "length"),
        (ipv6(wire.TCP, tcp(), hlim=0), "hop limit 0"),
        (ipv6(wire.TCP, tcp(), src=bytes(16)), "address"),
        (ipv6(wire.ICMPV6, bytes((128, 0, 0, 1, 0, 0, 0, 0))), "ICMP checksum"),
        (ipv6(wire.FRAGMENT, bytes(7)), "length"),
        (ipv6(wire.FRAGMENT, bytes((58, 0, 0, 1)) + bytes(12)), "fragmented ICMP"),
        (ipv6(wire.UDP, struct.pack(">HHHH", 1, 2, 8, 0)), "no UDP checksum"),
        *[(ipv6(number, bytes(8)), "protocol") for number in (0, 1, 43, 60)],
        (wire.build_ip(wire.Ip(HERE, PEER6), 99, bytes(65516)), "length"),
    ],
)
def test_an_unsound_packet_of_the_stacks_is_lost_for_a_reason(raw: bytes, expected: str) -> None:
    one = translator()
    assert one.to_ipv4(raw) is None
    assert dict(one.lost) == {expected: 1}


def check_survives(raw: bytes) -> None:
    one = translator()
    lost = [one.to_ipv6(raw), one.to_ipv4(raw)].count(None)
    assert sum(one.lost.values()) == lost >= 1  # nothing is a packet of both


@given(st.binary(max_size=120))
def test_hostile_octets_never_raise(raw: bytes) -> None:
    check_survives(raw)
    check_survives(b"\x45" + raw)
    check_survives(b"\x60" + raw)


SEEDS = (
    PLAIN,
    ipv4(wire.TCP, tcp(flags=SYN, opts=MSS + bytes((8, 10, *range(8), 1, 1)))),
    ipv4(wire.UDP, udp(b"data"), opts=bytes((7, 7, 4, 0, 0, 0, 0, 0))),
    ipv4(wire.ICMP, icmp4(3, 4, 0, QUOTED)),
    ipv4(wire.ICMP, icmp4(11, 0, 0, ipv4(wire.ICMP, icmp4(8, 0, 0, b""), df=0, mf=1))),
    ipv6(wire.TCP, tcp(flags=SYN)),
    ipv6(wire.FRAGMENT, struct.pack(">BBHI", wire.UDP, 0, 1, 5) + bytes(udp(b"data"))),
    wire.build_icmp(wire.IcmpMessage(wire.Ip(HERE, PEER6), 1, 4, 0, ipv6(wire.UDP, udp(b"x"), src=PEER6, dst=HERE))),
)


@given(
    st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 90), st.integers(0, 255)), max_size=4), st.integers(0, 8)
)
def test_packets_with_octets_changed_never_raise(raw: bytes, changes: list[tuple[int, int]], cut: int) -> None:
    """The IPv4 header gets its checksum after that, so that the change is looked at."""
    changed = bytearray(raw[: len(raw) - cut])
    for at, value in changes:
        changed[at % len(changed)] = value
    if changed[0] >> 4 == 4:
        changed = bytearray(rewritten(bytes(changed), 0, bytes(changed[:1])))
    check_survives(bytes(changed))
