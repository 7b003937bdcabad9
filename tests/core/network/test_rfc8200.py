"""RFC 8200 line by line, as docs/requirements/rfc8200.csv has it. What a legacy address answers is tried on one."""

from itertools import pairwise
from typing import Any

import pytest

from tests.core.scene import OTHER, PEER, ROUTER, SERVICE, SHARED, UNHELD, address, connect, dropped, end, service
from umuxstack.core.config import LinkCaps
from umuxstack.core.errors import BadArgument, Drop
from umuxstack.core.udp.session import UdpSocket
from umuxstack.core.units import seconds
from umuxstack.testing import builders, checks, states
from umuxstack.testing.peer import Peer
from umuxstack.testing.wire import Wire

UNKNOWN_SKIP = 0x1E  # options that nobody knows, by what their two high bits ask for
UNKNOWN_DISCARD = 0x5E
UNKNOWN_REPORT = 0x9E
UNKNOWN_REPORT_UNICAST = 0xDE


def legacy(**config: Any) -> Wire:
    return Wire(shared=(address(SHARED),), **config)


def datagrams(wire: Wire) -> UdpSocket:
    return wire.stack.udp(wire.now, address=address(SHARED), port=53)


def ask(payload: bytes = b"?", *extensions: builders.Extension, to: str = SHARED) -> bytes:
    return builders.udp(PEER, to, 999, 53, payload, extensions=extensions)


def taken(socket: UdpSocket) -> bytes | None:
    datagram = socket.receive_datagram()
    return None if datagram is None else datagram.data


@pytest.mark.rule("8200-2-1", "4443-3.1-4")
@pytest.mark.parametrize("silence", [True, False])
def test_nothing_that_is_not_ours_goes_on(silence: bool) -> None:
    wire = legacy(silence=silence)
    with dropped(wire, Drop.NO_OWNER, 2):
        wire.send(builders.tcp(PEER, "2001:db8:77::1", flags="S"), builders.udp(PEER, "2001:db8:77::1"))
    wire.expect_silence(seconds(1))
    end(wire)


@pytest.mark.rule("8200-3-1")
def test_a_hop_limit_of_0_does_not_matter_to_the_destination() -> None:
    wire = legacy()
    socket = datagrams(wire)
    wire.send(builders.udp(PEER, SHARED, 999, 53, b"last hop", hop_limit=0))
    assert taken(socket) == b"last hop"
    end(wire)


# 4: extension headers


@pytest.mark.rule("8200-4-1", "8200-4-5", "8200-4.1-3", "8504-5.2-1")
def test_a_hop_by_hop_header_elsewhere_is_an_unrecognized_next_header() -> None:
    wire = legacy()
    socket = datagrams(wire)
    packet = ask(b"?", builders.destination_options(), builders.hop_by_hop())
    with dropped(wire, Drop.BAD_EXTENSION):
        wire.send(packet)
    wire.expect(checks.icmp(4, 1, 40), checks.quotes(packet))
    wire.send(ask(b"!", builders.hop_by_hop(), builders.destination_options()))
    assert taken(socket) == b"!"
    end(wire)


@pytest.mark.rule("8200-4-2", "8200-4-3")
def test_headers_are_processed_in_their_order() -> None:
    wire = legacy()
    bad_option = builders.destination_options(builders.option(UNKNOWN_REPORT))
    bad_routing = builders.routing(77, 1)
    wire.send(ask(b"?", bad_option, bad_routing))
    wire.expect(checks.icmp(4, 2, 42))
    wire.send(ask(b"?", bad_routing, bad_option))
    wire.expect(checks.icmp(4, 0, 42))
    wire.send(ask(b"?", builders.destination_options(builders.option(UNKNOWN_DISCARD)), bad_routing))
    wire.expect_silence()
    end(wire)


@pytest.mark.rule("8200-4-4", "8504-5.2-1", "4443-3.4-1", "4443-3.4-2")
@pytest.mark.parametrize("protocol", [50, 51, 132, 253])
def test_an_unrecognized_next_header_is_pointed_at(protocol: int) -> None:
    wire = legacy()
    packet = builders.ipv6(PEER, SHARED, protocol, bytes(24))
    with dropped(wire, Drop.UNKNOWN_PROTOCOL):
        wire.send(packet)
    wire.expect(checks.icmp(4, 1, 6), checks.quotes(packet))
    packet = builders.ipv6(PEER, SHARED, protocol, bytes(24), extensions=[builders.routing(4, 0)])
    wire.send(packet)
    wire.expect(checks.icmp(4, 1, 40), checks.quotes(packet))
    end(wire)


@pytest.mark.rule("8200-4.1-3", "8504-5.2-2", "8504-5.1-4")
@pytest.mark.parametrize(
    "extensions",
    [
        [builders.destination_options(), builders.routing(4, 0), builders.destination_options()],
        [builders.routing(4, 0), builders.routing(5, 0), builders.destination_options()],
        [builders.hop_by_hop(), *[builders.destination_options()] * 15],
        [builders.fragment_header(0, False, 1), builders.destination_options()],
        [builders.destination_options(), builders.fragment_header(0, False, 1), builders.routing(4, 0)],
    ],
)
def test_they_are_taken_in_any_order_and_number(extensions: list[builders.Extension]) -> None:
    wire = legacy()
    socket = datagrams(wire)
    wire.send(ask(b"all the same", *extensions))
    assert taken(socket) == b"all the same"
    end(wire)


@pytest.mark.rule("8200-4.1-1", "8200-4.1-2", "8200-4.5-2", "8504-5.2-7", "8200-8.4-1")
def test_we_send_no_extension_header_but_fragments_whatever_came() -> None:
    wire = legacy()
    wire.stack.listen(wire.now, address=address(SHARED), port=80)
    headers = [builders.hop_by_hop(), builders.routing(0, 0), builders.destination_options()]
    wire.send(builders.tcp(PEER, SHARED, 5, 80, "S", extensions=headers))
    assert wire.expect(checks.tcp("SA")).raw[6] == 6
    wire.send(builders.udp(PEER, SHARED, 5, 53, extensions=headers))
    assert wire.expect(checks.icmp(1, 4)).raw[6] == 58
    socket = datagrams(wire)
    socket.send(bytes(3000), wire.now, to=(address(PEER), 5))
    for piece in wire.take():
        assert (piece.raw[6], piece.raw[40]) == (44, 17)
    end(wire)


# 4.2: options


@pytest.mark.rule("8200-4.2-1", "8200-4.2-2")
def test_options_are_processed_in_their_order() -> None:
    wire = legacy()
    report, discard = builders.option(UNKNOWN_REPORT), builders.option(UNKNOWN_DISCARD)
    wire.send(ask(b"?", builders.destination_options(report + discard)))
    wire.expect(checks.icmp(4, 2, 42))
    wire.send(ask(b"?", builders.destination_options(discard + report)))
    wire.expect_silence()
    end(wire)


@pytest.mark.rule("8200-4.2-3", "8200-4.2-4", "8200-4.2-5", "8200-4.2-6", "8504-5.2-1")
@pytest.mark.parametrize("header", [builders.hop_by_hop, builders.destination_options])
@pytest.mark.parametrize(
    ("kind", "delivered", "reported"),
    [
        (UNKNOWN_SKIP, True, False),
        (UNKNOWN_DISCARD, False, False),
        (UNKNOWN_REPORT, False, True),
        (UNKNOWN_REPORT_UNICAST, False, True),
    ],
)
def test_the_two_high_bits_of_an_unknown_option_decide(
    header: object, kind: int, delivered: bool, reported: bool
) -> None:
    wire = legacy()
    socket = datagrams(wire)
    wire.send(ask(b"x", header(builders.option(kind, b"abc"))))  # type: ignore[operator]
    assert (taken(socket) == b"x") == delivered
    if reported:
        wire.expect(checks.icmp(4, 2, 42))
    wire.expect_silence()
    end(wire)


@pytest.mark.rule("8200-4.2-6")
def test_nothing_is_said_about_options_of_packets_to_a_group() -> None:
    wire = legacy(silence=False)
    for kind in (UNKNOWN_SKIP, UNKNOWN_DISCARD, UNKNOWN_REPORT_UNICAST):
        wire.send(ask(b"x", builders.destination_options(builders.option(kind)), to="ff02::1"))
    wire.expect_silence()
    end(wire)


@pytest.mark.rule("8200-4.2-8")
def test_an_option_is_known_by_all_eight_bits() -> None:
    wire = legacy()
    socket = datagrams(wire)
    for known in (1, 5):  # PadN, router alert: the same with other high bits is another option
        wire.send(ask(b"x", builders.destination_options(builders.option(known, b"\0\0"))))
        assert taken(socket) == b"x"
        wire.send(ask(b"x", builders.destination_options(builders.option(known | 0x80, b"\0\0"))))
        assert taken(socket) is None
        wire.expect(checks.icmp(4, 2, 42))
    end(wire)


@pytest.mark.rule("8200-4.2-9")
@pytest.mark.parametrize("padding", [b"\0" * 6, b"\1\4\0\0\0\0", b"\0\1\3\0\0\0", b"\1\0\0\0\1\0", b"\5\2\0\0\1\0"])
def test_both_paddings_are_known(padding: bytes) -> None:
    wire = legacy()
    socket = datagrams(wire)
    wire.send(ask(b"x", builders.hop_by_hop(padding), builders.destination_options(padding)))
    assert taken(socket) == b"x"
    end(wire)


# 4.4: routing headers


@pytest.mark.rule("8200-4.4-1", "8200-4.4-2", "8504-5.2-4")
@pytest.mark.parametrize("kind", [0, 2, 3, 4, 77, 253])
def test_of_a_routing_header_only_segments_left_counts(kind: int) -> None:
    wire = legacy()
    socket = datagrams(wire)
    wire.send(ask(b"arrived", builders.routing(kind, 0, bytes(20))))
    assert taken(socket) == b"arrived"
    packet = ask(b"and on", builders.routing(kind, 1, bytes(4) + address(OTHER)))
    with dropped(wire, Drop.BAD_EXTENSION):
        wire.send(packet)
    wire.expect(checks.icmp(4, 0, 42), checks.quotes(packet), checks.sent_from(SHARED))
    wire.expect_silence()
    end(wire)


# 4.5: fragments out


@pytest.mark.rule("8200-4.5-1", "8504-5.1-9")
def test_identifications_of_one_pair_neither_repeat_nor_can_be_told_beforehand() -> None:
    wire = legacy(seed=11)
    socket = datagrams(wire)
    for _ in range(500):
        socket.send(bytes(1600), wire.now, to=(address(PEER), 5))
    numbers = [seen.fragment[2] for seen in wire.take()[::2] if seen.fragment is not None]
    assert len(set(numbers)) == 500
    steps = {(later - earlier) & 0xFFFFFFFF for earlier, later in pairwise(numbers)}
    assert len(steps) == 499
    other = legacy(seed=12)
    socket = datagrams(other)
    socket.send(bytes(1600), other.now, to=(address(PEER), 5))
    assert (other.take()[0].fragment or (0, False, 0))[2] != numbers[0]


@pytest.mark.rule("8200-4.5-3", "8200-4.5-4", "8200-4.5-5", "8200-4.5-6", "8504-5.1-5", "8504-5.1-7", "8504-5.2-6")
@pytest.mark.parametrize("mtu", [1280, 1281, 1287, 1500, 9000])
@pytest.mark.parametrize("size", [1300, 1500, 4000, 65000])
def test_fragments_fit_the_path_and_meet_without_overlap(mtu: int, size: int) -> None:
    wire = legacy(link=LinkCaps(mtu=mtu, segmentation=False, checksum=False))
    socket = datagrams(wire)
    socket.send(bytes(size), wire.now, to=(address(PEER), 5))
    pieces = wire.take()
    if 48 + size <= mtu:
        assert [piece.fragment for piece in pieces] == [None]
        return
    at = 0
    for piece in pieces:
        assert len(piece.raw) <= mtu
        assert piece.fragment is not None
        offset, more, _ = piece.fragment
        assert (offset, more) == (at, piece is not pieces[-1])
        at += len(piece.raw) - 48
        assert not more or at % 8 == 0
    assert at == 8 + size
    assert len(pieces) > 1
    assert len(pieces[0].raw) >= 48 + 8  # the UDP header is in the first


# 4.5: fragments in


@pytest.mark.rule("8200-4.5-7")
def test_only_fragments_of_one_source_destination_and_identification_belong_together() -> None:
    wire = legacy()
    socket = datagrams(wire)
    service_socket = wire.stack.udp(wire.now, address=address(SERVICE), port=53)
    one = builders.fragments(ask(bytes(100)), 56, 1)
    other_number = builders.fragments(ask(bytes(100)), 56, 2)
    other_source = builders.fragments(builders.udp(OTHER, SHARED, 999, 53, bytes(100)), 56, 1)
    other_destination = builders.fragments(ask(bytes(100), to=SERVICE), 56, 1)
    for strange in (other_number, other_source, other_destination):
        wire.send(one[0], strange[1])
        assert taken(socket) is None
        assert taken(service_socket) is None
        wire.send(one[1])
        assert taken(socket) == bytes(100)
    wire.advance(seconds(61))
    end(wire)


@pytest.mark.rule("8200-4.5-8", "8200-4.5-9", "8504-5.1-8")
def test_a_fragment_that_is_the_whole_packet_stands_for_itself() -> None:
    wire = legacy()
    socket = datagrams(wire)
    first, last = builders.fragments(ask(bytes(100)), 56, 7)
    wire.send(first, ask(b"whole", builders.fragment_header(0, False, 7)))
    assert taken(socket) == b"whole"
    wire.send(last)
    assert taken(socket) == bytes(100)
    end(wire)


@pytest.mark.rule("8200-4.5-10", "8200-4.5-11")
def test_after_60_s_the_source_of_the_first_fragment_is_told() -> None:
    """A legacy address said nothing."""
    wire = legacy()
    datagrams(wire)
    first, last = builders.fragments(ask(bytes(100)), 56)
    wire.send(first)
    wire.expect_silence(seconds(60) - 1)
    with dropped(wire, Drop.FRAGMENT_TIMEOUT):
        wire.advance(1)
    wire.expect(checks.icmp(3, 1, 0), checks.quotes(first), checks.sent_from(SHARED), checks.sent_to(PEER))
    wire.send(last)  # too late
    with dropped(wire, Drop.FRAGMENT_TIMEOUT):
        wire.advance(seconds(61))
    wire.expect_silence()  # and of this one the first fragment never came
    assert wire.stack.memory_used() == 0
    end(wire)


@pytest.mark.rule("8200-4.5-11", "UM-31.a")
@pytest.mark.parametrize("silence", [True, False])
def test_a_unified_address_tells_only_where_silence_is_off(silence: bool) -> None:
    wire = legacy(silence=silence)
    wire.stack.udp(wire.now, address=address(SERVICE), port=53)
    first, _ = builders.fragments(ask(bytes(100), to=SERVICE), 56)
    wire.send(first, builders.fragment(ask(to=SERVICE), bytes(9), 8, True))
    assert [seen.icmp_code for seen in wire.take()] == ([] if silence else [0])
    wire.advance(seconds(61))
    assert [seen.icmp_code for seen in wire.take()] == ([] if silence else [1])
    end(wire)


@pytest.mark.rule("8200-4.5-12", "8200-4.5-13", "8200-4.5-14", "8200-4.5-15")
@pytest.mark.parametrize(
    ("piece", "offset", "more", "pointer"),
    [
        (bytes(9), 0, True, 4),
        (bytes(1399), 800, True, 4),
        (bytes(1400), 65528, False, 42),
        (bytes(16), 65528, True, 42),
    ],
)
def test_fragments_that_cannot_be_are_discarded_and_pointed_at(
    piece: bytes, offset: int, more: bool, pointer: int
) -> None:
    """They were counted and nothing else."""
    wire = legacy()
    datagrams(wire)
    packet = builders.fragment(ask(), piece, offset, more)
    with dropped(wire, Drop.BAD_EXTENSION):
        wire.send(packet)
    wire.expect(checks.icmp(4, 0, pointer), checks.quotes(packet))
    wire.expect_silence(seconds(61))
    end(wire)


@pytest.mark.rule("8200-4.5-16", "8200-4.5-17", "8504-5.2-8", "8504-5.2-9")
@pytest.mark.parametrize("size", [8, 16])
def test_a_first_fragment_without_all_headers_is_answered_with_code_3(size: int) -> None:
    wire = legacy()
    wire.stack.listen(wire.now, address=address(SHARED), port=80)
    whole = builders.tcp(PEER, SHARED, 5, 80, "S", options=builders.mss(1440))
    first = builders.fragment(whole, whole[40 : 40 + size], 0, True)
    with dropped(wire, Drop.BAD_EXTENSION):
        wire.send(first)
    wire.expect(checks.icmp(4, 3, 0), checks.quotes(first))
    wire.send(builders.fragment(whole, whole[40 + size :], size, False))
    wire.expect_silence(seconds(61))
    wire.send(builders.fragment(whole, whole[40:], 0, False))  # and so it is taken
    wire.expect(checks.tcp("SA"))
    end(wire)


@pytest.mark.rule("8200-4.5-18", "8200-4.5-19", "8504-5.1-6")
@pytest.mark.parametrize(("offset", "length"), [(8, 48), (48, 48), (0, 96), (40, 8), (0, 8)])
def test_an_overlap_discards_all_and_nothing_is_said(offset: int, length: int) -> None:
    wire = legacy()
    socket = datagrams(wire)
    packet = ask(bytes(120))
    first, second, third = builders.fragments(packet, 48)
    wire.send(first, builders.fragment(packet, b"x" * length, offset, True), second, third)
    assert taken(socket) is None
    wire.expect_silence(seconds(61))
    assert wire.stack.counters.drops[Drop.FRAGMENT_OVERLAP] >= 2
    end(wire)


@pytest.mark.rule("8200-4.5-20", "8200-4.5-21")
def test_headers_of_the_first_fragment_count_and_those_of_others_do_not() -> None:
    wire = legacy()
    socket = datagrams(wire)
    packet = ask(b"first fragment's")
    first = builders.ipv6(
        PEER, SHARED, 17, packet[40:56], extensions=[builders.hop_by_hop(), builders.fragment_header(0, True, 5)]
    )
    last = builders.ipv6(
        PEER, SHARED, 132, packet[56:], extensions=[builders.routing(4, 0), builders.fragment_header(16, False, 5)]
    )
    for order in ((first, last), (last, first)):
        wire.send(*order)
        assert taken(socket) == b"first fragment's"
    end(wire)


# 4.7 to 8


@pytest.mark.rule("8200-4.7-1")
def test_what_follows_no_next_header_is_ignored() -> None:
    """A legacy address took "no next header" for a protocol that it does not know, and said so."""
    wire = legacy()
    for packet in (
        builders.ipv6(PEER, SHARED, 59, b"whatever is here"),
        builders.ipv6(PEER, SHARED, 59, builders.udp(PEER, SHARED)[40:], extensions=[builders.destination_options()]),
    ):
        with dropped(wire, Drop.UNKNOWN_PROTOCOL):
            wire.send(packet)
    wire.expect_silence()
    end(wire)


@pytest.mark.rule("8200-5-1", "8200-5-2")
def test_no_link_has_an_mtu_below_1280_and_the_default_is_1500() -> None:
    with pytest.raises(BadArgument):
        LinkCaps(mtu=1279)
    assert LinkCaps(mtu=1280).mtu == 1280
    assert LinkCaps().mtu == 1500


@pytest.mark.rule("8200-5-3", "8504-5.1-3")
@pytest.mark.parametrize("mtu", [1280, 1500, 9000, 65535])
def test_packets_as_large_as_the_link_s_mtu_are_taken(mtu: int) -> None:
    wire = legacy(link=LinkCaps(mtu=mtu, segmentation=False, checksum=False))
    socket = datagrams(wire)
    wire.send(ask(bytes(mtu - 48)))
    assert taken(socket) == bytes(mtu - 48)
    end(wire)


@pytest.mark.rule("8200-5-5", "8200-5-4", "8504-5.7.1-1")
def test_tcp_fits_its_segments_to_the_path_and_never_fragments() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    session.write(bytes(1440), wire.now)
    wire.send(builders.packet_too_big(ROUTER, peer.expect().raw, 1280))
    session.write(bytes(5000), wire.now)
    wire.advance(seconds(1))
    sent = wire.take()
    assert len(sent) > 1
    assert {seen.fragment for seen in sent} == {None}
    assert max(len(seen.raw) for seen in sent) == 1280
    end(wire)


@pytest.mark.rule("8200-5-6")
@pytest.mark.parametrize("size", [1452, 1460, 9000, 65507])
def test_reassembled_packets_of_1500_octets_and_far_more_are_taken(size: int) -> None:
    wire = legacy()
    socket = datagrams(wire)
    wire.send(*builders.fragments(ask(bytes(size)), 1232))
    assert taken(socket) == bytes(size)
    end(wire)


@pytest.mark.rule("8200-8.1-1", "8200-8.1-3", "8200-8.1-4", "4443-2.3-1")
def test_checksums_cover_the_addresses_and_udp_s_is_never_0() -> None:
    wire = legacy()  # every packet that leaves is verified by an independent decoder
    socket = datagrams(wire)
    sums: set[int] = set()
    for number in range(0x10000):
        if len(sums) > 3 and 0xFFFF in sums:
            break
        socket.send(number.to_bytes(2, "big"), wire.now, to=(address(PEER), 5))
        sums.add(int.from_bytes(wire.expect(checks.udp()).raw[46:48], "big"))
    assert 0xFFFF in sums
    assert 0 not in sums
    elsewhere = wire.stack.udp(wire.now, address=address(SERVICE), port=53)
    packet = ask()
    with dropped(wire, Drop.BAD_CHECKSUM, 2):
        wire.send(packet[:8] + address(OTHER) + packet[24:], packet[:24] + address(SERVICE) + packet[40:])
    assert (taken(socket), taken(elsewhere)) == (None, None)
    end(wire)


@pytest.mark.rule("8200-8.1-2")
def test_the_pseudo_header_has_the_upper_layer_s_number_and_length() -> None:
    wire = legacy()
    socket = datagrams(wire)
    headers = [builders.hop_by_hop(), builders.routing(4, 0), builders.destination_options()]
    wire.send(ask(b"right", *headers))
    assert taken(socket) == b"right"
    right = ask(b"right", *headers)
    wrong = builders.checksum(PEER, SHARED, 0, right[-13:])  # the sum that the first next header would make
    with dropped(wire, Drop.BAD_CHECKSUM):
        wire.send(builders.udp(PEER, SHARED, 999, 53, b"right", extensions=headers, checksum=wrong))
    end(wire)


@pytest.mark.rule("8200-8.1-5", "8200-8.1-6")
def test_udp_without_a_checksum_is_discarded_and_counted() -> None:
    wire = legacy()
    socket = datagrams(wire)
    with dropped(wire, Drop.BAD_CHECKSUM):
        wire.send(builders.udp(PEER, SHARED, 999, 53, b"x", checksum=0))
    for offloaded in (True, False):
        wire.send(builders.udp(PEER, SHARED, 999, 53, b"x", checksum=0), csum_ok=offloaded)
    assert taken(socket) is None
    wire.expect_silence()
    end(wire)


@pytest.mark.rule("8200-8.3-1", "8200-8.3-2", "8201-5.4-4")
@pytest.mark.parametrize("mtu", [1280, 1500, 9000])
def test_the_mss_is_the_largest_packet_less_60(mtu: int) -> None:
    wire = Wire(link=LinkCaps(mtu=mtu, segmentation=False, checksum=False))
    connect(wire)
    assert wire.expect(checks.tcp("S")).options.mss == mtu - 60
    peer = Peer(wire, wire.minted())
    peer.send("S")
    assert peer.expect("SA").options.mss == mtu - 60
    end(wire)


@pytest.mark.rule("UM-31.a")
def test_where_nobody_is_all_of_this_meets_silence() -> None:
    wire = Wire()
    service(wire)
    for packet in (
        ask(b"?", builders.destination_options(builders.option(UNKNOWN_REPORT)), to=UNHELD),
        builders.ipv6(PEER, UNHELD, 132, bytes(8)),
        builders.fragment(ask(to=UNHELD), bytes(9), 0, True),
        builders.ipv6(PEER, UNHELD, 59, b""),
    ):
        wire.send(packet)
    wire.expect_silence(seconds(61))
    end(wire)
