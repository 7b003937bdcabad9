"""The judge of every packet in a test: what it sees, and what it refuses."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umuxstack.testing import builders, checks
from umuxstack.testing.decode import Seen, TcpOptions, UnsoundPacket, verify

A, B = "2001:db8:a::1", "2001:db8:b::1"
WORD = st.integers(0, 2**32 - 1)
PORT = st.integers(1, 65535)


def set_byte(packet: bytes, at: int, value: int) -> bytes:
    return packet[:at] + bytes((value,)) + packet[at + 1 :]


@given(PORT, PORT, st.sampled_from(["A", "PA", "FA", "S", "SA", "R", "RA", "FPUECA"]), WORD, WORD, st.binary())
def test_a_built_segment_is_sound_and_reads_as_it_was_built(
    sport: int, dport: int, flags: str, seq: int, ack: int, payload: bytes
) -> None:
    packet = builders.tcp(A, B, sport, dport, flags, seq, ack, 512, payload=payload, flow=0xABCDE, hop_limit=3)
    verify(packet)
    seen = Seen(packet)
    assert (seen.sport, seen.dport, seen.flags, seen.seq, seen.ack) == (sport, dport, flags, seq, ack)
    assert (seen.window, seen.payload, seen.flow, seen.hop_limit) == (512, payload, 0xABCDE, 3)
    assert seen.length == len(payload) + ("S" in flags) + ("F" in flags)


@given(PORT, PORT, st.binary(max_size=200))
def test_a_built_datagram_is_sound_and_reads_as_it_was_built(sport: int, dport: int, payload: bytes) -> None:
    packet = builders.udp(A, B, sport, dport, payload)
    verify(packet)
    seen = Seen(packet)
    assert (seen.is_udp, seen.sport, seen.dport, seen.payload) == (True, sport, dport, payload)
    assert checks.matches(seen, checks.udp(payload), checks.sent_from(A), checks.sent_to(B))


@given(st.binary(max_size=200), st.integers(1, 100).map(lambda words: words * 8))
def test_built_fragments_are_sound_and_hold_the_packet(payload: bytes, size: int) -> None:
    packet = builders.udp(A, B, payload=payload)
    pieces = [Seen(piece) for piece in builders.fragments(packet, size, 77)]
    for piece in pieces:
        verify(piece.raw)
    shown = [piece.fragment for piece in pieces]
    assert shown == [(n * size, n < len(pieces) - 1, 77) for n in range(len(pieces))]
    assert b"".join(piece.raw[48:] for piece in pieces) == packet[40:]


def test_all_options_are_read() -> None:
    options = builders.mss(1440) + builders.window_scale(7) + builders.sack_permitted() + builders.timestamps(5, 6)
    packet = builders.tcp(A, B, flags="S", options=options)
    verify(packet)
    assert Seen(packet).options == TcpOptions(1440, 7, True, (), (5, 6), None, (2, 3, 4, 8))
    packet = builders.tcp(A, B, options=builders.sack((1, 2), (5, 9)))
    verify(packet)
    assert Seen(packet).options.sack == ((1, 2), (5, 9))


def test_extension_headers_are_walked_to_the_upper_layer() -> None:
    chain = [
        builders.hop_by_hop(builders.option(5, b"\0\0")),
        builders.routing(),
        builders.destination_options(builders.option(1 << 5, b"abc")),
    ]
    packet = builders.tcp(A, B, payload=b"deep", extensions=chain)
    verify(packet)
    seen = Seen(packet)
    assert (seen.is_tcp, seen.protocol, seen.payload) == (True, 6, b"deep")
    assert all(header.length % 8 == 0 for header in seen.ip.all_extension_headers)


def test_icmp_errors_show_what_they_quote() -> None:
    about = builders.tcp(A, B, payload=bytes(2000))
    for packet, kind, code, value in (
        (builders.packet_too_big("2001:db8:f::1", about, 1400), 2, 0, 1400),
        (builders.unreachable("2001:db8:f::1", about, 4), 1, 4, 0),
        (builders.time_exceeded("2001:db8:f::1", about), 3, 0, 0),
        (builders.parameter_problem("2001:db8:f::1", about, 1, 40), 4, 1, 40),
    ):
        verify(packet, mtu=1280)
        checks.require(Seen(packet), checks.icmp(kind, code, value), checks.quotes(about), checks.sent_to(A))
    assert not checks.matches(Seen(packet), checks.quotes(builders.udp(A, B)))
    echo = builders.echo_reply(A, B, 7, 9, b"data")
    verify(echo)
    checks.require(Seen(echo), checks.echo_reply(value=7 << 16 | 9, payload=b"data"))


@pytest.mark.parametrize("last", [builders.routing(0, 0), builders.destination_options(), (51, bytes(11))])
def test_an_error_may_quote_any_header_behind_a_fragment_header(last: builders.Extension) -> None:
    """It was an AttributeError out of dpkt, with which some runs of the fuzzing fell."""
    quoted = builders.ipv6(A, B, 59, b"", extensions=[builders.fragment_header(0, False, 9), last])
    packet = builders.unreachable(B, quoted)
    verify(packet)
    assert Seen(packet).is_icmp


@pytest.mark.parametrize(
    ("packet", "complaint"),
    [
        (b"short", "shorter than"),
        (set_byte(builders.udp(A, B), 0, 0x40), "not version 6"),
        (builders.udp(A, B, payload=bytes(1460)), "bytes on a link of 1500"),
        (builders.udp(A, B) + b"x", "payload length"),
        (builders.udp(A, B, hop_limit=0), "hop limit 0"),
        (builders.udp("ff0e::1", B), "from a multicast"),
        (builders.udp(A, "::"), "unspecified"),
        (builders.udp(A, B, checksum=0), "wrong checksum"),
        (builders.udp(A, B, length=9), "UDP length"),
        (builders.udp(A, B, dport=0), "port 0"),
        (builders.tcp(A, B, checksum=1), "wrong checksum"),
        (builders.tcp(A, B, sport=0), "port 0"),
        (builders.tcp(A, B, flags="SF"), "SYN together"),
        (builders.tcp(A, B, flags="SR"), "SYN together"),
        (builders.tcp(A, B, flags="FR"), "FIN together"),
        (builders.tcp(A, B, flags="P"), "without ACK"),
        (builders.tcp(A, B, offset=4), "TCP header"),
        (builders.tcp(A, B, offset=6), "data offset"),
        (builders.tcp(A, B, reserved=2), "reserved"),
        (builders.tcp(A, B, reserved=4), "reserved"),
        (builders.tcp(A, B, options=b"\x08\x0b" + bytes(10)), "option 8 with length 11"),
        (builders.tcp(A, B, options=b"\x08\x14" + bytes(10)), "longer than the header"),
        (builders.tcp(A, B, options=b"\x01\x01\x01\xfe"), "without its length"),
        (builders.tcp(A, B, options=b"\0\0\0\1"), "padding"),
        (builders.tcp(A, B, options=builders.mss(1440)), "outside of a SYN"),
        (builders.tcp(A, B, flags="S", options=builders.mss(1) + builders.mss(2)), "twice"),
        (builders.icmp6(A, B, 128, checksum=5), "wrong checksum"),
        (builders.ipv6(A, B, 132, b"sctp"), "next header 132"),
        (builders.fragment(builders.udp(A, B), bytes(12), 0, True), "odd length"),
        (builders.ipv6(A, B, 43, b"\x06"), "cannot read"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_unsound_packet_is_refused_with_the_reason(packet: bytes, complaint: str) -> None:
    with pytest.raises(UnsoundPacket, match=complaint):
        verify(packet, mtu=1500)


@given(st.binary(min_size=1, max_size=80), st.data())
def test_no_single_bit_of_a_segment_can_change_unnoticed(payload: bytes, data: st.DataObject) -> None:
    packet = bytearray(builders.tcp(A, B, payload=payload))
    at = data.draw(st.integers(8, len(packet) - 1))  # before the addresses nothing protects the header
    packet[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(UnsoundPacket):
        verify(bytes(packet))


def test_a_built_udp_checksum_of_zero_is_all_ones() -> None:
    plain = builders.udp(A, B, payload=b"\0\0", checksum=0)
    missing = 0xFFFF ^ builders.checksum(A, B, 17, plain[40:])
    packet = builders.udp(A, B, payload=struct.pack(">H", 0xFFFF ^ missing))
    assert packet[46:48] == b"\xff\xff"
    verify(packet)


def test_checks_of_the_wrong_kind_of_packet_say_so() -> None:
    datagram, segment = Seen(builders.udp(A, B)), Seen(builders.tcp(A, B, flags="PA", hop_limit=9))
    with pytest.raises(AssertionError, match="no TCP segment"):
        checks.require(datagram, checks.tcp("A"))
    with pytest.raises(AssertionError, match="no UDP datagram; it is no ICMPv6 message; it is no ICMPv6 error"):
        checks.require(segment, checks.udp(), checks.echo_request(), checks.quotes(b""))
    with pytest.raises(AssertionError, match="hop_limit is 9, not 64"):
        checks.require(segment, checks.network(hop_limit=64, ecn=0, flow=0, protocol=6, fragment=None))
    checks.require(segment, checks.tcp(lambda flags: "P" in flags, seq=1 << 32, ack=lambda ack: ack == 0, urgent=0))


def test_every_kind_of_packet_can_be_shown() -> None:
    assert (
        repr(Seen(builders.udp(A, B, 5, 6, b"xyz"), 1_500_000))
        == "<1.500000 2001:db8:a::1 > 2001:db8:b::1 UDP 5>6 len 3>"
    )
    assert "ICMPv6 128/0 value 0x10002 len 4" in repr(Seen(builders.echo_request(A, B, 1, 2, b"data")))
    assert "protocol 59 len 0" in repr(Seen(builders.ipv6(A, B, 59, b"")))
    assert Seen(builders.udp(A, B)).flags == ""
    verify(builders.ipv6(A, B, 59, b""))
    assert Seen(builders.udp(A, B, traffic_class=3)).ecn == 3
    assert Seen(builders.tcp(A, B, options=bytes((28, 4, 1, 2)))).options.user_timeout == 0x0102
    assert builders.tcp(A, B, flags=0x12) == builders.tcp(A, B, flags="S.")
