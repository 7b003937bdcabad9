"""Software segmentation, against dpkt's decoding and dpkt's checksum."""

import struct

import dpkt
from hypothesis import given
from hypothesis import strategies as st

from umuxstack.core.network.offload import finish
from umuxstack.core.units import TCP, UDP, Buffer
from umuxstack.core.wire.checksum import pseudo_sum

SOURCE = bytes.fromhex("20010db8000000010000000000000001")
DESTINATION = bytes.fromhex("20010db8000000020000000000000002")
TIMESTAMP = bytes.fromhex("0101080a0102030405060708")

FIN, PSH, ACK, ECE, CWR = 0x01, 0x08, 0x10, 0x40, 0x80


def partial_tcp(payload_length: int, *, seq: int = 1000, flags: int = ACK, options: bytes = b"") -> bytes:
    """IPv6 and TCP header as the stack makes them: the checksum field holds the pseudo-header's sum."""
    length = 20 + len(options) + payload_length
    partial = pseudo_sum(SOURCE + DESTINATION, length, TCP)
    fixed = struct.pack(">IHBB16s16s", 0x6ABCDEF1, length, TCP, 64, SOURCE, DESTINATION)
    offset = (20 + len(options)) << 10
    return fixed + struct.pack(">HHIIHHHH", 1, 443, seq, 77, offset | flags, 501, partial, 0) + options


def dpkt_sums_up(packet: bytes) -> bool:
    pseudo = packet[8:40] + struct.pack(">II", len(packet) - 40, packet[6])
    return bool(dpkt.dpkt.in_cksum(pseudo + packet[40:]) == 0)


def cut(payload: Buffer, gso_size: int, **fields: int | bytes) -> list[dpkt.ip6.IP6]:
    pieces = finish((partial_tcp(len(payload), **fields), payload, gso_size, 16))  # type: ignore[arg-type]
    assert all(dpkt_sums_up(piece) for piece in pieces)
    decoded = [dpkt.ip6.IP6(piece) for piece in pieces]
    assert all(ip.plen == len(piece) - 40 for ip, piece in zip(decoded, pieces, strict=True))
    return decoded


@given(
    st.binary(min_size=1, max_size=9000),
    st.integers(1, 3000),
    st.integers(0, 2**32 - 1),
    st.sampled_from([b"", TIMESTAMP]),
)
def test_pieces_carry_the_payload_in_order_and_sum_up(payload: bytes, gso_size: int, seq: int, options: bytes) -> None:
    pieces = cut(payload, gso_size, seq=seq, options=options)
    assert b"".join(ip.data.data for ip in pieces) == payload
    assert [ip.data.seq for ip in pieces] == [(seq + n * gso_size) % 2**32 for n in range(len(pieces))]
    assert all(len(ip.data.data) == gso_size for ip in pieces[:-1])
    assert all(ip.data.opts == options for ip in pieces)


def test_push_and_fin_stand_on_the_last_piece_only_and_cwr_on_the_first() -> None:
    pieces = cut(bytes(3000), 1000, flags=ACK | PSH | FIN | ECE | CWR)
    assert [ip.data.flags for ip in pieces] == [ACK | ECE | CWR, ACK | ECE, ACK | ECE | PSH | FIN]


def test_a_payload_no_longer_than_a_piece_keeps_all_its_flags() -> None:
    (ip,) = cut(bytes(1000), 1000, flags=ACK | PSH | FIN | CWR)
    assert ip.data.flags == ACK | PSH | FIN | CWR


def test_the_rest_of_the_headers_is_the_same_in_every_piece() -> None:
    first, second = cut(bytes(1500), 1000)
    for name in ("fc", "flow", "hlim", "src", "dst"):
        assert getattr(first, name) == getattr(second, name)
    for name in ("sport", "dport", "ack", "win", "urp"):
        assert getattr(first.data, name) == getattr(second.data, name)


def test_the_payload_may_be_a_view_of_anything() -> None:
    data = bytes(range(256)) * 10
    for payload in (bytearray(data), memoryview(data), memoryview(bytearray(b"x" + data))[1:]):
        assert b"".join(ip.data.data for ip in cut(payload, 700)) == data


@given(st.binary(max_size=2000))
def test_a_udp_datagram_sums_up(payload: bytes) -> None:
    length = 8 + len(payload)
    partial = pseudo_sum(SOURCE + DESTINATION, length, UDP)
    header = struct.pack(">IHBB16s16s", 6 << 28, length, UDP, 64, SOURCE, DESTINATION)
    (packet,) = finish((header + struct.pack(">HHHH", 1, 53, length, partial), payload, 0, 6))
    assert dpkt_sums_up(packet)
    assert packet[46:48] != b"\0\0"


def test_a_udp_checksum_of_zero_is_sent_as_all_ones() -> None:
    # A payload word that brings the sum to 0xFFFF, whose complement is 0.
    length = 10
    header = struct.pack(">IHBB16s16s", 6 << 28, length, UDP, 64, SOURCE, DESTINATION)
    partial = pseudo_sum(SOURCE + DESTINATION, length, UDP)
    missing = (65535 - (partial + 1 + 53 + length)) % 65535
    udp = struct.pack(">HHHH", 1, 53, length, partial)
    (packet,) = finish((header + udp, missing.to_bytes(2, "big"), 0, 6))
    assert packet[46:48] == b"\xff\xff"
    assert dpkt_sums_up(packet)


def test_a_tcp_checksum_of_zero_stays_zero() -> None:
    header = partial_tcp(2)
    missing = (65535 - sum(struct.unpack(">10H", header[40:])) % 65535) % 65535
    (packet,) = finish((header, missing.to_bytes(2, "big"), 0, 16))
    assert packet[56:58] == b"\0\0"
    assert dpkt_sums_up(packet)


def test_a_complete_packet_is_left_as_it_is() -> None:
    assert finish((b"header", memoryview(b"payload"), 0, 0)) == [b"headerpayload"]
