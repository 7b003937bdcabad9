"""What crosses the link of a script for IPv4: read by the runner, and in captures by dpkt and tshark."""

import io
from pathlib import Path

import dpkt
import pytest

from tests.system import judge
from umuxstack.conformance import wire
from umuxstack.conformance.ends import IPV4
from umuxstack.conformance.outcome import Outcome, Status
from umuxstack.conformance.runner import Settings, run_file, run_text
from umuxstack.conformance.script import TcpFlags
from umuxstack.conformance.suite import DLT_RAW, write_captures

SCRIPTS = sorted((Path(__file__).parent / "ipv4").glob("*.pkt"))
IP = wire.Ip(IPV4["here"], IPV4["peer"])
SEGMENT = wire.build_segment(wire.Segment(IP, 1, 2, 3, 0, TcpFlags.SYN, 5, 0, (), b"data"))

# Everything that a script may put there, and that the stack answers.
EVERYTHING = """\
--umux=legacy
--ip_version=ipv4
    0 `umux set ecn=1`
   +0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
   +0 bind(3, ..., ...) = 0
   +0 listen(3, 5) = 0
   +0 < (tos 0x40, ttl 9) SEW 0:0(0) win 65535 <mss 1460,sackOK,TS val 9 ecr 0>
   +0 > SE. 0:0(0) ack 1 <...>
 +.01 < . 1:1(0) ack 1 win 65535 <nop,nop,TS val 9 ecr 10>
   +0 accept(3, ..., ...) = 4
   +0 write(4, ..., 3000) = 3000
   +0 > P. 1:3001(3000) ack 1 <...>
   +0 < icmp unreachable frag_needed mtu 1000 [1:1449(1448)]
    * > . 1:1897(1896) ack 1 <...>
    * > P. 1897:3001(1104) ack 1 <...>
   +0 < icmp time_exceeded exceeded_ttl [1:949(948)]
   +0 < icmp source_quench [1:949(948)]
   +0 < icmp timestamp_request
   +0 < icmp echo_request id 7
   +0 > icmp echo_reply
   +0 socket(..., SOCK_DGRAM, IPPROTO_UDP) = 5
   +0 < udp (101)
   +0 > icmp unreachable port_unreachable [udp (101)]
"""


def play(text: str, directory: Path) -> tuple[Outcome, Path]:
    outcome = run_text(text, "a/script.pkt", Settings(capture=True))
    assert write_captures([outcome], directory) == 1
    (capture,) = directory.iterdir()
    return outcome, capture


def is_sound(raw: bytes) -> bool:
    """dpkt, told that checksums are missing, fills in the same ones."""
    packet = dpkt.ip.IP(raw)
    packet.sum = 0
    if packet.p != wire.ICMP:
        packet.data.sum = 0
    return bytes(packet) == raw and (packet.p != wire.ICMP or dpkt.in_cksum(raw[20:]) == 0)


@pytest.mark.parametrize("path", SCRIPTS, ids=[path.stem for path in SCRIPTS])
def test_only_sound_ipv4_packets_cross_the_link(path: Path) -> None:
    outcome = run_file(path, Settings(capture=True))
    assert outcome.packets
    for _, raw in outcome.packets:
        packet = dpkt.ip.IP(raw)
        assert (packet.v, packet.hl, packet.len, packet.df, packet.rf) == (4, 5, len(raw), 1, 0)
        assert is_sound(raw)


def test_a_capture_is_one_of_ipv4(tmp_path: Path) -> None:
    outcome, capture = play(EVERYTHING, tmp_path)
    assert outcome.status is Status.PASSED, (outcome.message, outcome.details)
    reader = dpkt.pcap.Reader(io.BytesIO(capture.read_bytes()))
    assert reader.datalink() == DLT_RAW
    packets = [dpkt.ip.IP(raw) for _, raw in reader]
    assert {(packet.src, packet.dst) for packet in packets} == {
        (IPV4["peer"], IPV4["here"]),
        (IPV4["here"], IPV4["peer"]),
    }
    assert (packets[0].tos, packets[0].ttl) == (0x40, 9)
    assert max(packet.len for packet in packets) == 1500
    errors = [(packet.data.type, packet.data.code) for packet in packets if packet.p == dpkt.ip.IP_PROTO_ICMP]
    assert errors == [(3, 4), (11, 0), (4, 0), (13, 0), (8, 0), (0, 0), (3, 3)]
    too_big = next(packet for packet in packets if packet.p == dpkt.ip.IP_PROTO_ICMP)
    assert too_big.data.data.mtu == 1000
    assert too_big.len == 576  # RFC 1812 4.3.2.3
    quoted = dpkt.ip.IP(bytes(too_big)[28:])
    assert (quoted.src, quoted.dst, quoted.len) == (IPV4["here"], IPV4["peer"], 1488)
    # What went out after it fits into the path.
    after = packets[packets.index(too_big) + 1 :]
    assert {packet.len for packet in after if packet.src == IPV4["here"] and packet.p == 6} == {1000, 156 + 52 + 0}


def test_scripts_for_ipv6_still_have_ipv6(tmp_path: Path) -> None:
    _, capture = play(EVERYTHING.replace("--ip_version=ipv4\n", "").partition("   +0 < icmp")[0], tmp_path)
    reader = dpkt.pcap.Reader(io.BytesIO(capture.read_bytes()))
    assert {raw[0] >> 4 for _, raw in reader} == {6}


@pytest.mark.skipif(not judge.is_here(), reason="tshark is not installed")
def test_tshark_finds_nothing_wrong(tmp_path: Path) -> None:
    outcome, capture = play(EVERYTHING, tmp_path)
    verdict = judge.judge(capture)
    assert verdict.packets == len(outcome.packets)
    assert verdict.errors == {}
    assert set(verdict.checksums) == {judge.GOOD}
    fields = ("-o", "ip.check_checksum:TRUE", "-T", "fields", "-e", "ip.checksum.status", "-e", "icmp.checksum.status")
    for line in judge.tshark(capture, *fields).splitlines():
        ip, icmp = line.split("\t")
        assert ip.split(",")[0] == judge.GOOD
        assert icmp in ("", judge.GOOD)


@pytest.mark.parametrize("version", ["ipv4", "ipv4-mapped-ipv6"])
def test_either_name_of_the_version_means_it(version: str) -> None:
    script = EVERYTHING.replace("=ipv4", f"={version}").partition("   +0 < icmp")[0]
    assert run_text(script).status is Status.PASSED


def test_there_is_no_other_version() -> None:
    outcome = run_text("--ip_version=ipv5\n0 `true`")
    assert (outcome.status, "--ip_version=ipv5" in outcome.message) == (Status.ERROR, True)


@pytest.mark.parametrize(
    ("script", "status", "message"),
    [
        ("--umux=unified --ip_version=ipv4\n0 `true`", Status.UNSUPPORTED, "unified sessions over IPv4"),
        (
            "--ip_version=ipv4 --mtu=67\n0 `true`",
            Status.UNSUPPORTED,
            "--mtu=67: an IPv4 link carries 68 octets at least",
        ),
        ("--ip_version=ipv4\n0 < [flowlabel 5] S 0:0(0) win 9", Status.UNSUPPORTED, "a flow label in IPv4"),
        (
            "--ip_version=ipv4\n0 < S 0:0(0) win 9\n+0 < icmp packet_too_big mtu 1400",
            Status.UNSUPPORTED,
            "ICMP packet_too_big",
        ),
        (
            "--ip_version=ipv4\n0 < S 0:65496(65496) win 9",
            Status.UNSUPPORTED,
            "65536 octets: longer than an IPv4 packet",
        ),
        (
            "--ip_version=ipv4\n0 < S 0:0(0) win 9\n+0 < icmp unreachable frag_needed mtu 65536",
            Status.UNSUPPORTED,
            "an MTU of 65536",
        ),
        ("--ip_version=ipv4 --local_ip=fd00::1\n0 `true`", Status.ERROR, "Expected 4 octets in 'fd00::1'"),
    ],
)
def test_what_ipv4_does_not_have(script: str, status: Status, message: str) -> None:
    outcome = run_text(script)
    assert (outcome.status, outcome.message) == (status, message)


def with_header(**fields: int) -> bytes:
    """The segment with other fields in its header, and the header checksum that they have."""
    packet = dpkt.ip.IP(SEGMENT)
    for name, value in fields.items():
        setattr(packet, name, value)
    packet.sum = 0
    return bytes(packet)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (SEGMENT[:19], "shorter than an IPv4 header"),
        (SEGMENT[:10] + b"\0\0" + SEGMENT[12:], "wrong header checksum"),
        (SEGMENT + b"\0", "total length says 44, there are 45 octets"),
        (with_header(hl=6), "IPv4 options, or an impossible header length"),
        (with_header(hl=4), "IPv4 options, or an impossible header length"),
        (with_header(rf=1), "the reserved flag is set"),
        (with_header(ttl=0), "TTL 0"),
        (SEGMENT[:-1] + b"!", "wrong checksum"),
        (wire.build_ip(IP, wire.UDP, b"\xff\xff"), "wrong checksum"),
        (wire.build_ip(IP, wire.ICMP, b"\xff\xff"), "shorter than its header"),
        (wire.build_ip(IP, wire.ICMP, bytes(8)), "wrong checksum"),
    ],
)
def test_an_unsound_packet_is_none(raw: bytes, message: str) -> None:
    with pytest.raises(wire.Unsound) as caught:
        wire.read(raw)
    assert str(caught.value) == message
