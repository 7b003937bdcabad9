"""Packet lines: flags, sequence numbers, IP fields, ports, encapsulation, UDP, ICMP, and what is recognized only."""

import pytest

from umuxstack.conformance.parser import parse
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
    TcpPacket,
    UdpPacket,
    UnsupportedPacket,
)

F, S, R, P, A, U = TcpFlags.FIN, TcpFlags.SYN, TcpFlags.RST, TcpFlags.PSH, TcpFlags.ACK, TcpFlags.URG
E, W, AE = TcpFlags.ECE, TcpFlags.CWR, TcpFlags.AE


def _packet(line: str) -> Packet:
    (event,) = parse(f"+0 {line}\n").events
    assert isinstance(event.action, TcpPacket | UdpPacket | IcmpPacket | UnsupportedPacket)
    return event.action


def _tcp(line: str) -> TcpPacket:
    packet = _packet(line)
    assert isinstance(packet, TcpPacket)
    return packet


def test_a_full_tcp_line() -> None:
    packet = _tcp("< FPU. 11:21(10) ack 31 win 512 urg 4 <nop>")
    assert packet.direction is Direction.IN
    assert packet.flags == F | P | U | A
    assert packet.sequence == Sequence(11, 10)
    assert packet.sequence.end == 21
    assert (packet.ack, packet.window, packet.urgent) == (31, 512, 4)
    assert packet.position == Position(1, 4)


def test_what_a_line_does_not_say_is_none() -> None:
    packet = _tcp("> . 1:1(0)")
    assert packet.direction is Direction.OUT
    assert (packet.ack, packet.window, packet.urgent, packet.ports, packet.ip) == (None, None, None, None, IpFields())
    assert packet.options == ()


@pytest.mark.parametrize(
    ("text", "flags", "ace"),
    [
        ("S", S, False),
        ("S.", S | A, False),
        ("S .", S | A, False),
        (".", A, False),
        ("R.", R | A, False),
        ("F.", F | A, False),
        ("-", TcpFlags.NONE, False),
        ("SEW", S | E | W, False),
        ("SEWA", S | E | W | AE, False),
        ("SW.", S | W | A, False),
        ("EAP.", E | AE | P | A, False),
        (".5", A | E | AE, True),
        ("P.3", P | A | E | W, True),
        ("5.", A | E | AE, True),
        ("P6.", P | A | W | AE, True),
        ("F0.", F | A, True),
        ("SR", S | R, False),
    ],
)
def test_flags(text: str, flags: TcpFlags, ace: bool) -> None:
    packet = _tcp(f"< {text} 5:5(0) win 9")
    assert (packet.flags, packet.ace) == (flags, ace)
    assert packet.sequence.start == 5


def test_no_blank_is_needed_behind_the_direction_or_the_ip_fields() -> None:
    assert _tcp("<[ect0]. 5:5(0) win 9") == _tcp("< [ect0] . 5:5(0) win 9")


def test_sequence_numbers_absolute_ignored_and_wrapping() -> None:
    assert _tcp("> R. 77:77(0)! ack 3!").sequence == Sequence(77, 0, absolute=True)
    assert _tcp("> R. 77:77(0)! ack 3!").ack_absolute
    assert not _tcp("> R. 77:77(0) ack 3").ack_absolute
    assert _tcp("> . ...(1000) ack 3").sequence == Sequence(0, 1000, ignored=True)
    assert _tcp("< . 4294967290:4(10) ack 3 win 1").sequence.end == 4


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("[noecn]", IpFields(ecn="noecn")),
        ("[ect0]", IpFields(ecn="ect0")),
        ("[ect1]", IpFields(ecn="ect1")),
        ("[ect01]", IpFields(ecn="ect01")),
        ("[ce]", IpFields(ecn="ce")),
        ("(ce)", IpFields(ecn="ce")),
        ("[ecn ect0]", IpFields(ecn="ect0")),
        ("[tos 0x2a]", IpFields(tos=0x2A)),
        ("(class 0x28)", IpFields(tos=0x28)),
        ("[flowlabel 0xabcde]", IpFields(flow_label=0xABCDE)),
        ("[ttl 7]", IpFields(hop_limit=7)),
        ("[hlim 9]", IpFields(hop_limit=9)),
        ("[hoplimit 9]", IpFields(hop_limit=9)),
        ("[ect1, flowlabel 0x1]", IpFields(ecn="ect1", flow_label=1)),
        ("[dscp CS1]", IpFields(dscp=8)),
        ("[dscp AF42, ecn ce, flowlabel 0x2, hlim 3]", IpFields(ecn="ce", dscp=36, flow_label=2, hop_limit=3)),
        ("[dscp 0x3f, ttl 1]", IpFields(dscp=63, hop_limit=1)),
        ("[dscp EF]", IpFields(dscp=46)),
        ("[from second]", IpFields(source="second")),
        (
            "[from 2001:db8::9, to ssa.httpd.2, ect0]",
            IpFields(ecn="ect0", source="2001:db8::9", destination="ssa.httpd.2"),
        ),
    ],
)
def test_ip_fields(text: str, fields: IpFields) -> None:
    assert _packet(f"> {text} . 1:1(0)").ip == fields  # type: ignore[union-attr]


def test_ports_and_addresses_override_the_connection() -> None:
    assert _tcp("< 4000 > 80 S 0:0(0) win 1").ports == Ports(4000, 80)
    packet = _tcp("< 192.0.2.9:4000 > 192.168.0.1:80 S 0:0(0) win 1")
    assert packet.ports == Ports(4000, 80)
    assert (packet.ip.source, packet.ip.destination) == ("192.0.2.9", "192.168.0.1")
    packet = _tcp("< 2001:db8::9 > fd00::1 5 > 6 S 0:0(0) win 1")
    assert (packet.ip.source, packet.ports) == ("2001:db8::9", Ports(5, 6))


def test_tcp_in_udp() -> None:
    assert _tcp("> . 1:1(0) ack 1 <nop,nop>/udp(9899 > 1234)").udp_ports == Ports(9899, 1234)
    assert _tcp("> . 1:1(0) ack 1 win 3/udp(9899 > 1234)").udp_ports == Ports(9899, 1234)


def test_outer_headers_are_kept_from_the_outside_in() -> None:
    packet = _tcp(
        "< ipv4 [ttl 3] 10.1.1.1 > 10.2.2.2: gre:\n    mpls (label 16, tc 1, ttl 9) (label 17, tc 0, [S], ttl 8): "
        "ipv6 2001:db8::1 > 2001:db8::2 : . 1:11(10) ack 1 win 5"
    )
    assert packet.encapsulations == (
        Encapsulation("ipv4", "ipv4 [ttl 3] 10.1.1.1 > 10.2.2.2", "10.1.1.1", "10.2.2.2", IpFields(hop_limit=3)),
        Encapsulation("gre", "gre"),
        Encapsulation("mpls", "mpls (label 16, tc 1, ttl 9) (label 17, tc 0, [S], ttl 8)"),
        Encapsulation("ipv6", "ipv6 2001:db8::1 > 2001:db8::2", "2001:db8::1", "2001:db8::2"),
    )
    assert packet.sequence == Sequence(1, 10)


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        ("gre flags 0x2000, sum 1, off 2, key 0x77, seq 3:", "gre"),
        ("gre flags [key present, sequence# present], sum 0, off 0, key=5, seq 6:", "gre"),
        ("GREv0:", "gre"),
        ("psp spi 12, vc 0x1234567890:", "psp"),
        ("encap psp spi 0x44, vc 9", "psp"),
        ("encap psp spi 44", "psp"),
    ],
)
def test_other_outer_headers(header: str, kind: str) -> None:
    packet = _tcp(f"> {header} P. 3:4(1) ack 2")
    assert [outer.kind for outer in packet.encapsulations] == [kind]
    assert packet.sequence == Sequence(3, 1)


def test_udp_and_udp_lite() -> None:
    assert _packet("> udp (1000)") == UdpPacket(Direction.OUT, 1000)
    assert _packet("< [ttl 2] udp 53 > 4000 (12)") == UdpPacket(
        Direction.IN, 12, ip=IpFields(hop_limit=2), ports=Ports(53, 4000)
    )
    assert _packet("< udplite (100, 8)") == UdpPacket(Direction.IN, 100, 8)


@pytest.mark.parametrize(
    ("line", "packet"),
    [
        ("icmp unreachable", IcmpPacket(Direction.IN, "unreachable")),
        (
            "icmp unreachable frag_needed mtu 1200 [1:1441(1440)]",
            IcmpPacket(Direction.IN, "unreachable", "frag_needed", 1200, quoted=Quoted("tcp", 1440, Sequence(1, 1440))),
        ),
        (
            "icmp packet_too_big mtu 1280 [5:6(1)!]",
            IcmpPacket(
                Direction.IN,
                "packet_too_big",
                mtu=1280,
                quoted=Quoted("tcp", 1, Sequence(5, 1, absolute=True)),
            ),
        ),
        ("icmp echo_request id 77", IcmpPacket(Direction.IN, "echo_request", identifier=77)),
        ("icmp type_3 code_13", IcmpPacket(Direction.IN, "type_3", "code_13")),
        ("icmp redirect [udp (64)]", IcmpPacket(Direction.IN, "redirect", quoted=Quoted("udp", 64))),
        ("icmp redirect [raw (64)]", IcmpPacket(Direction.IN, "redirect", quoted=Quoted("raw", 64))),
        (
            "icmp redirect [udplite (64, 8)]",
            IcmpPacket(Direction.IN, "redirect", quoted=Quoted("udplite", 64, coverage=8)),
        ),
        (
            "icmp redirect [sctp (99)/udp(1 > 2)]",
            IcmpPacket(Direction.IN, "redirect", quoted=Quoted("sctp", 0, tag=99, udp_ports=Ports(1, 2))),
        ),
        (
            "[9:9(0)] icmp time_exceeded exceeded_hop_limit",
            IcmpPacket(Direction.IN, "time_exceeded", "exceeded_hop_limit", quoted=Quoted("tcp", 0, Sequence(9, 0))),
        ),
        (
            "[ect0] icmp unreachable port_unreachable",
            IcmpPacket(Direction.IN, "unreachable", "port_unreachable", ip=IpFields(ecn="ect0")),
        ),
    ],
)
def test_icmp(line: str, packet: IcmpPacket) -> None:
    assert _packet(f"< {line}") == packet


@pytest.mark.parametrize(
    ("line", "construct"),
    [
        ("> sctp: INIT[flgs=0, tag=1, a_rwnd=..., os=..., is=..., tsn=7,\n  ECN_CAPABLE[], X[val=[1, 2]]]", "SCTP"),
        ("< sctp(tag=3)/udp(1 > 2): ABORT[flgs=T]; ERROR[flgs=0]", "SCTP"),
        ("< [ttl 3] 1 > 2 sctp: [0x1, 0x2]", "SCTP"),
        ("< . 1:1(0) win 9 {mut tcp mss; trun ipv4 3-4}", "packet fuzzing"),
        ("> addr[caddr0] S 0:0(0)", "MPTCP address"),
        ("> > addr[caddr0] S 0:0(0)", "MPTCP address"),
        ("> S 0:0(0) <mss CLIENT_MSS>", "undefined symbol CLIENT_MSS"),
        ("> S 0:0(0) <FO COOKIE_ONE,nop>", "undefined symbol COOKIE_ONE"),
        ("> [id 5] . 1:1(0)", "IP field id"),
        ("> encap tls . 1:1(0)", "encapsulation tls"),
    ],
)
def test_what_is_recognized_only_is_stepped_over_and_named(line: str, construct: str) -> None:
    script = parse(f"+0 close(3) = 0\n+.1 {line}\n+0 close(4) = 0\n")
    assert len(script.events) == 3
    packet = script.events[1].action
    assert isinstance(packet, UnsupportedPacket)
    assert packet.construct == construct
    assert packet.text == " ".join(line.split())
    assert packet.direction is Direction(line[0])
    assert script.unsupported() == [(Position(2, 5), construct)]


def test_a_packet_may_be_followed_by_an_event_on_the_same_line() -> None:
    script = parse("+0 > . 1:1(0) ack 5 +0 < . 1:1(0) ack 1 win 7")
    assert len(script.events) == 2
