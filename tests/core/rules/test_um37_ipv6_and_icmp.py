"""SPEC 7 (UM-37) and 8: IPv6, extension headers, fragments, echo, and ICMPv6 errors."""

from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.core.scene import (
    OTHER,
    PEER,
    ROUTER,
    SERVICE,
    SHARED,
    STRANGER,
    UNHELD,
    address,
    connect,
    das,
    dropped,
    end,
    listen_0,
    lives,
    service,
    udp_das,
)
from umuxstack.core.echo.session import EchoSession
from umuxstack.core.errors import AddressNotOurs, Drop, Reason
from umuxstack.core.tcp import state as tcp_state
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.udp.session import UdpSocket
from umuxstack.core.units import minutes, seconds
from umuxstack.testing import builders, checks, states
from umuxstack.testing.builders import packed
from umuxstack.testing.network import Network
from umuxstack.testing.peer import Peer
from umuxstack.testing.wire import Wire

# UM-37: the header


@pytest.mark.rule("UM-37.a", "RFC 8200 3")
@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"", Drop.TRUNCATED),
        (builders.udp(PEER, SERVICE)[:39], Drop.TRUNCATED),
        (builders.udp(PEER, SERVICE, version=4), Drop.NOT_IPV6),
        (b"\x45" + bytes(60), Drop.NOT_IPV6),
        (builders.ipv6(PEER, SERVICE, 17, bytes(8), length=9), Drop.BAD_LENGTH),
        (builders.udp("::", SERVICE), Drop.BAD_SOURCE),
        (builders.udp("::1", SERVICE), Drop.BAD_SOURCE),
        (builders.udp("ff02::1", SERVICE), Drop.BAD_SOURCE),
    ],
)
def test_packets_with_a_header_that_cannot_be_are_counted_and_dropped(packet: bytes, reason: Drop) -> None:
    wire = Wire()
    socket = wire.stack.udp(wire.now, address=address(SERVICE))
    with dropped(wire, reason):
        wire.send(packet)
    assert not socket.readable
    wire.expect_silence(seconds(1))
    end(wire)


@pytest.mark.rule("UM-37.a")
def test_what_follows_after_the_payload_length_is_no_part_of_the_packet() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    packet = peer.segment("PA", b"data")
    wire.send(packet + b"padding of a short frame")
    assert session.read(99, wire.now) == b"data"
    end(wire)


@pytest.mark.rule("UM-37.a", "RFC 8200 3")
def test_the_hop_limit_is_the_configured_one_and_a_received_one_does_not_matter() -> None:
    wire = Wire(hop_limit=17)
    session, peer = states.established(wire)
    wire.send(peer.segment("PA", b"x", hop_limit=0))
    assert session.read(9, wire.now) == b"x"
    wire.stack.ping(address(PEER), wire.now).send(b"", wire.now)
    wire.stack.udp(wire.now).send(b"x", wire.now, to=(address(PEER), 53))
    wire.advance(seconds(1))
    wire.flush()
    assert {seen.hop_limit for seen in wire.sent} == {17}
    end(wire)


@pytest.mark.rule("UM-37.a")
@settings(max_examples=300)
@given(st.binary(max_size=200))
@example(b"\x60" + bytes(39))
def test_no_bytes_raise_and_each_packet_is_counted_once(data: bytes) -> None:
    wire = Wire(seed=1)
    before = sum(wire.stack.counters.drops)
    wire.send(data)
    assert sum(wire.stack.counters.drops) == before + 1
    assert wire.stack.counters.packets_in == 1


@pytest.mark.rule("UM-37.a")
@settings(max_examples=150)
@given(st.data())
def test_no_damage_to_a_good_packet_raises(data: st.DataObject) -> None:
    wire = Wire(seed=1, shared=(address(SHARED),))
    service(wire)
    wire.stack.listen(wire.now, address=address(SHARED), port=80)
    session, peer = states.established(wire, options=builders.mss(1440) + builders.timestamps(7))
    waiting = das(wire, listen_0(wire))
    good = data.draw(
        st.sampled_from(
            [
                peer.segment("PA", b"hello", options=builders.timestamps(8) + builders.sack((1, 9))),
                builders.tcp(PEER, SERVICE, 5, 80, "S", options=builders.mss(1440) + builders.window_scale(7)),
                builders.tcp(PEER, waiting.address, 5, 80, "S", options=builders.timestamps(1)),
                builders.tcp(PEER, SHARED, 5, 80, "S"),
                builders.packet_too_big(ROUTER, builders.tcp(session.local, PEER, 1, 80), 1300),
                builders.ipv6(PEER, SERVICE, 6, bytes(30), extensions=[builders.hop_by_hop(builders.option(5, b"ab"))]),
                builders.fragments(builders.udp(PEER, SERVICE, payload=bytes(200)), 64)[1],
            ]
        )
    )
    broken = bytearray(good)
    for _ in range(data.draw(st.integers(1, 6))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(broken)))
    for csum_ok in (False, True):
        wire.send(bytes(broken), bytes(broken[:cut]), csum_ok=csum_ok)
    wire.advance(minutes(3))


# Extension headers


@pytest.mark.rule("UM-37.b", "RFC 8200 4")
@pytest.mark.parametrize(
    "extensions",
    [
        [builders.hop_by_hop()],
        [builders.destination_options()],
        [builders.hop_by_hop(builders.option(5, b"\0\0")), builders.destination_options()],
        [builders.routing(0, 0)],
        [builders.routing(4, 0)],
        [builders.destination_options(builders.option(0x1E, b"unknown, skip"))],
        [builders.hop_by_hop(b"\0\0\0\0\0\0")],
        [builders.destination_options()] * 5,
        [builders.fragment_header(0, False, 7)],
    ],
)
def test_extension_headers_are_walked(extensions: list[builders.Extension]) -> None:
    wire = Wire()
    socket = wire.stack.udp(wire.now, address=address(SERVICE), port=53)
    wire.send(builders.udp(PEER, SERVICE, 999, 53, b"hello", extensions=extensions))
    datagram = socket.receive_datagram()
    assert datagram is not None
    assert datagram.data == b"hello"
    end(wire)


@pytest.mark.rule("UM-37.b")
def test_a_segment_of_a_session_may_have_them_as_well() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    wire.send(peer.segment("PA", b"hello", extensions=[builders.hop_by_hop(), builders.destination_options()]))
    assert session.read(9, wire.now) == b"hello"
    end(wire)


REFUSED = [
    # what, (code, offset of what is wrong), None: silence in any case
    ([builders.destination_options(builders.option(0x80, b"??"))], (2, 42)),
    ([builders.hop_by_hop(builders.option(0xC1, b"??"))], (2, 42)),
    ([builders.destination_options(b"\0\0" + builders.option(0x81))], (2, 44)),
    ([builders.destination_options(builders.option(0x40, b"??"))], None),
    ([builders.destination_options(), builders.hop_by_hop()], (1, 40)),
    ([builders.routing(0, 1)], (0, 42)),
]


@pytest.mark.rule("UM-37.b", "UM-37.e", "RFC 8200 4.2", "RFC 4443 3.4")
@pytest.mark.parametrize(("extensions", "problem"), REFUSED)
def test_what_cannot_be_processed_is_refused_at_a_shared_address(
    extensions: list[builders.Extension], problem: tuple[int, int] | None
) -> None:
    """A legacy address said nothing while the addresses beside it were silent: it owes the RFC's answers."""
    wire = Wire(shared=(address(SHARED),))
    packet = builders.udp(PEER, SHARED, 5, 53, b"?", extensions=extensions)
    with dropped(wire, Drop.BAD_EXTENSION):
        wire.send(packet)
    if problem is not None:
        wire.expect(checks.icmp(4, problem[0], problem[1]), checks.quotes(packet), checks.sent_from(SHARED))
    wire.expect_silence()
    end(wire)


@pytest.mark.rule("UM-37.b", "UM-31.a", "UM-31.d")
@pytest.mark.parametrize(("extensions", "problem"), REFUSED)
def test_and_elsewhere_only_where_silence_is_switched_off(
    extensions: list[builders.Extension], problem: tuple[int, int] | None
) -> None:
    for silence in (True, False):
        wire = Wire(silence=silence)
        service(wire)
        packet = builders.tcp(PEER, SERVICE, 5, 53, "S", extensions=extensions)
        with dropped(wire, Drop.BAD_EXTENSION):
            wire.send(packet)
        if problem is not None and not silence:
            wire.expect(checks.icmp(4, problem[0], problem[1]), checks.quotes(packet))
        wire.expect_silence()
        end(wire)


@pytest.mark.rule("UM-37.b")
@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (builders.ipv6(PEER, SERVICE, 0, b"\x11\x00"), Drop.TRUNCATED),
        (builders.ipv6(PEER, SERVICE, 60, b"\x11\x05" + bytes(6)), Drop.TRUNCATED),
        (builders.ipv6(PEER, SERVICE, 60, b"\x11\x00\x1e\x09\0\0\0\0"), Drop.BAD_EXTENSION),
        (builders.ipv6(PEER, SERVICE, 44, b"\x11\0\0"), Drop.TRUNCATED),
    ],
)
def test_headers_that_end_too_early_are_counted(packet: bytes, reason: Drop) -> None:
    wire = Wire()
    service(wire)
    with dropped(wire, reason):
        wire.send(packet)
    wire.expect_silence()
    end(wire)


# Fragments


def udp_service(wire: Wire) -> UdpSocket:
    return wire.stack.udp(wire.now, address=address(SERVICE), port=53)


@pytest.mark.rule("UM-37.d", "RFC 8200 4.5")
def test_fragments_are_put_together_in_any_order() -> None:
    wire = Wire()
    socket = udp_service(wire)
    data = bytes(range(256)) * 20
    pieces = builders.fragments(builders.udp(PEER, SERVICE, 999, 53, data), 1000)
    for order in (pieces, pieces[::-1], pieces[1::2] + pieces[::2], [*pieces[:3], *pieces]):
        wire.send(*order)
        datagram = socket.receive_datagram()
        assert datagram is not None
        assert datagram.data == data
    wire.advance(seconds(60))
    assert wire.stack.memory_used() == 0
    end(wire)


@pytest.mark.rule("UM-37.d", "RFC 5722 4")
def test_an_overlap_discards_the_whole_packet_and_what_follows_of_it() -> None:
    wire = Wire()
    socket = udp_service(wire)
    packet = builders.udp(PEER, SERVICE, 999, 53, bytes(120))
    first, second, third = builders.fragments(packet, 48)
    bad = builders.fragment(packet, b"x" * 16, 40, True)
    wire.send(first)
    with dropped(wire, Drop.FRAGMENT_OVERLAP, 3):
        wire.send(bad, second, third)
    wire.expect_silence(seconds(61))
    assert not socket.readable
    end(wire)


@pytest.mark.rule("UM-37.d", "RFC 8200 4.5")
def test_pieces_that_do_not_all_come_in_60_s_are_forgotten_silently() -> None:
    wire = Wire()
    udp_service(wire)
    first, *_ = builders.fragments(builders.udp(PEER, SERVICE, 999, 53, bytes(120)), 48)
    wire.send(first)
    wire.expect_silence(seconds(60) - 1)
    assert wire.stack.leftovers()["fragments"] == 1
    with dropped(wire, Drop.FRAGMENT_TIMEOUT):
        wire.expect_silence(1)
    assert wire.stack.leftovers()["fragments"] == wire.stack.memory_used() == 0
    end(wire)


@pytest.mark.rule("UM-37.c")
def test_one_pair_cannot_spend_another_s_budget() -> None:
    wire = Wire()
    socket = udp_service(wire)
    for number in range(200):
        packet = builders.udp(PEER, SERVICE, 999, 53, bytes(2000))
        wire.send(builders.fragments(packet, 1200, number)[0])
    assert wire.stack.counters.drops[Drop.FRAGMENT_BUDGET] > 50
    assert wire.stack.memory_used() <= 128 * 1024
    wire.send(*builders.fragments(builders.udp(OTHER, SERVICE, 999, 53, bytes(2000)), 1200))
    assert socket.receive_datagram() is not None
    wire.advance(seconds(60))
    assert wire.stack.memory_used() == 0
    end(wire)


@pytest.mark.rule("UM-37.c", "UM-31.a")
def test_pieces_for_nobody_cost_no_memory() -> None:
    wire = Wire()
    with dropped(wire, Drop.NO_OWNER, 3):
        wire.send(*builders.fragments(builders.udp(PEER, UNHELD, 999, 53, bytes(120)), 48))
    assert wire.stack.leftovers()["fragments"] == 0


@pytest.mark.rule("UM-37.d", "RFC 8200 4.5")
@pytest.mark.parametrize(
    ("piece", "offset", "more"), [(bytes(9), 0, True), (b"", 8, False), (bytes(1400), 65528, False)]
)
def test_pieces_that_cannot_be_are_counted(piece: bytes, offset: int, more: bool) -> None:
    wire = Wire()
    udp_service(wire)
    with dropped(wire, Drop.BAD_EXTENSION):
        wire.send(builders.fragment(builders.udp(PEER, SERVICE), piece, offset, more))
    assert wire.stack.memory_used() == 0
    end(wire)


@pytest.mark.rule("UM-37.d", "RFC 8200 4.5", "RFC 7112 5")
@pytest.mark.parametrize("size", [8, 16, 24])
def test_a_first_fragment_without_all_headers_is_discarded(size: int) -> None:
    wire = Wire()
    socket = udp_service(wire)
    options = [builders.destination_options(builders.option(0x1E, bytes(12)))]
    whole = builders.udp(PEER, SERVICE, 999, 53, bytes(40), extensions=options)
    first = builders.fragment(whole, whole[40 : 40 + size], 0, True)
    with dropped(wire, Drop.BAD_EXTENSION, int(size < 24)):
        wire.send(first, builders.fragment(whole, whole[40 + size :], size, False))
    assert socket.readable == (size == 24)
    wire.advance(seconds(61))
    end(wire)


@pytest.mark.rule("UM-37.d", "RFC 8200 4.5", "RFC 8021")
def test_what_is_larger_than_the_path_leaves_in_fragments_and_what_fits_does_not() -> None:
    wire = Wire()
    socket = wire.stack.udp(wire.now)
    data = bytes(range(256)) * 16
    socket.send(data, wire.now, to=(address(PEER), 53))
    pieces = wire.take()
    assert len(pieces) == 3
    body, at = b"", 0
    for seen in pieces:
        assert seen.fragment is not None
        offset, more, identification = seen.fragment
        assert (offset, more) == (at, seen is not pieces[-1])
        assert identification == (pieces[0].fragment or (0, False, 0))[2]
        body += seen.raw[48:]
        at += len(seen.raw) - 48
    assert body[8:] == data
    socket.send(bytes(1452), wire.now, to=(address(PEER), 53))
    assert wire.expect().fragment is None
    socket.send(bytes(1453), wire.now, to=(address(PEER), 53))
    assert [seen.fragment is None for seen in wire.take()] == [False, False]
    end(wire)


# ICMPv6 out: errors are limited


@pytest.mark.rule("UM-37.e", "RFC 4443 2.4")
def test_icmp_errors_are_rate_limited() -> None:
    wire = Wire(shared=(address(SHARED),))
    for _ in range(500):
        wire.send(builders.udp(PEER, SHARED, 5, 53, b"?"))
    sent = len(wire.take())
    assert 1 <= sent <= 30
    assert wire.stack.counters.drops[Drop.RATE_LIMITED] == 500 - sent
    wire.advance(seconds(1))
    wire.send(builders.udp(PEER, SHARED, 5, 53, b"?"))
    wire.expect(checks.icmp(1, 4))
    end(wire)


@pytest.mark.rule("UM-37.e", "RFC 4443 2.4")
def test_an_icmp_error_quotes_what_fits_into_1280_bytes() -> None:
    wire = Wire(shared=(address(SHARED),))
    packet = builders.udp(PEER, SHARED, 5, 53, bytes(1400))
    wire.send(packet)
    seen = wire.expect(checks.icmp(1, 4), checks.quotes(packet))
    assert len(seen.raw) == 1280
    end(wire)


@pytest.mark.rule("UM-37.e", "RFC 4443 2.4")
def test_no_error_is_caused_by_an_error_or_by_a_source_that_names_no_node() -> None:
    wire = Wire(shared=(address(SHARED),))
    wire.send(builders.unreachable(PEER, builders.udp(SHARED, PEER, payload=b"never sent")))
    wire.send(builders.icmp6(PEER, SHARED, 100, body=builders.udp(SHARED, PEER)))
    wire.send(builders.udp("ff02::1", SHARED, 5, 53, b"?"))
    wire.expect_silence(seconds(1))
    end(wire)


@pytest.mark.rule("UM-37.e", "RFC 4443 3.4")
def test_a_protocol_that_a_shared_address_does_not_know_is_a_parameter_problem() -> None:
    wire = Wire(shared=(address(SHARED),))
    packet = builders.ipv6(PEER, SHARED, 132, bytes(12))
    with dropped(wire, Drop.UNKNOWN_PROTOCOL):
        wire.send(packet)
    wire.expect(checks.icmp(4, 1, 6), checks.quotes(packet))
    packet = builders.ipv6(PEER, SHARED, 132, bytes(12), extensions=[builders.destination_options()])
    wire.send(packet)
    wire.expect(checks.icmp(4, 1, 40), checks.quotes(packet))  # it is this header that names it
    end(wire)


# To ourselves


@pytest.mark.rule("UM-37.g")
def test_a_packet_to_one_of_our_own_addresses_is_delivered_inside() -> None:
    wire = Wire(shared=(address(SHARED),))
    door = listen_0(wire)
    ssa = das(wire, door).address
    session = connect(wire, ssa)
    wire.flush()
    accepted = door.accept()
    assert accepted is not None
    assert session.established
    assert accepted.remote == session.local != accepted.local
    session.write(bytes(100_000), wire.now)
    wire.advance(seconds(1))
    assert len(accepted.read(1 << 20, wire.now)) == 100_000
    socket, server = wire.stack.udp(wire.now), wire.stack.udp(wire.now)
    socket.send(b"datagram", wire.now, to=(udp_das(wire, server).address, 53))
    wire.flush()
    datagram = server.receive_datagram()
    assert datagram is not None
    assert datagram.data == b"datagram"
    ping = wire.stack.ping(address(SHARED), wire.now)
    ping.send(b"self", wire.now)
    wire.flush()
    assert ping.take_reply() is not None
    session.close(wire.now)
    accepted.close(wire.now)
    ping.close(wire.now)
    wire.advance(minutes(2))
    assert wire.sent == []  # nothing of all that ever left
    end(wire)


@pytest.mark.rule("UM-37.g", "UM-31.a")
def test_a_packet_to_an_address_of_ours_that_nobody_holds_does_not_leave_either() -> None:
    wire = Wire()
    session = connect(wire, UNHELD)
    wire.advance(minutes(5))
    assert session.end_reason == Reason.TIMED_OUT
    assert wire.sent == []
    assert wire.stack.counters.drops[Drop.NO_OWNER] == 8
    end(wire)


# UM-38


@pytest.mark.rule("UM-38.a", "UM-15.a")
def test_ping_takes_an_ea_and_the_pair_tells_it_apart() -> None:
    wire = Wire()
    pings = [wire.stack.ping(address(PEER), wire.now) for _ in range(3)]
    for number, ping in enumerate(pings):
        assert ping.send(b"%d" % number, wire.now) == 1
    requests = wire.take()
    assert len({seen.source for seen in requests}) == 3
    wire.advance(seconds(1))
    for seen in reversed(requests):
        wire.send(builders.echo_reply(PEER, seen.source, 1, 1, seen.payload))
    for number, ping in enumerate(pings):
        reply = ping.take_reply()
        assert reply is not None
        assert (reply.data, reply.sequence, reply.rtt, reply.reason) == (b"%d" % number, 1, seconds(1), Reason.NONE)
    local = pings[0].local
    pings[0].close(wire.now)
    assert not lives(wire.stack, local)
    end(wire)


@pytest.mark.rule("UM-38.b")
@pytest.mark.parametrize("fixed", [1, 777])
def test_the_identifier_is_fixed(fixed: int) -> None:
    wire = Wire(fixed_port=fixed)
    for peer in (PEER, OTHER):
        ping = wire.stack.ping(address(peer), wire.now)
        for number in (1, 2):
            ping.send(b"", wire.now)
            wire.expect(checks.echo_request(value=fixed << 16 | number), checks.sent_to(peer))
    end(wire)


@pytest.mark.rule("UM-38.a")
@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda local: builders.echo_reply(PEER, local, 2, 1), Drop.ICMP_UNKNOWN),
        (lambda local: builders.echo_request(PEER, local), Drop.ICMP_UNKNOWN),
        (lambda local: builders.echo_reply(PEER, local, 1, 9), Drop.ICMP_NOT_BELIEVED),
        (lambda local: builders.icmp6(PEER, local, 129, 0, 1 << 16 | 1, checksum=1), Drop.BAD_CHECKSUM),
        (lambda local: builders.icmp6(OTHER, local, 129, 0, 1 << 16 | 1), Drop.NO_OWNER),
        (lambda local: builders.ipv6(PEER, local, 58, b"\x81\0\0\0"), Drop.BAD_HEADER),
    ],
)
def test_only_the_reply_that_was_asked_for_is_taken(build: Callable[[bytes], bytes], reason: Drop) -> None:
    wire = Wire()
    ping = wire.stack.ping(address(PEER), wire.now)
    ping.send(b"", wire.now)
    wire.take()
    with dropped(wire, reason):
        wire.send(build(ping.local))
    assert not ping.readable
    wire.expect_silence()
    wire.send(builders.echo_reply(PEER, ping.local))
    with dropped(wire, Drop.ICMP_NOT_BELIEVED):
        wire.send(builders.echo_reply(PEER, ping.local))  # a second time
    end(wire)


def test_a_shared_address_answers_echo_and_pings_by_identifier() -> None:
    wire = Wire(shared=(address(SHARED),))
    wire.send(builders.echo_request(PEER, SHARED, 77, 5, b"data"))
    wire.expect(checks.sent_from(SHARED), checks.sent_to(PEER), checks.echo_reply(value=77 << 16 | 5, payload=b"data"))
    one = wire.stack.ping(address(PEER), wire.now, source=address(SHARED))
    two = wire.stack.ping(address(PEER), wire.now, source=address(SHARED))
    one.send(b"", wire.now)
    two.send(b"", wire.now)
    for seen in wire.take():
        wire.send(builders.icmp6(PEER, SHARED, 129, 0, seen.icmp_value))
    assert one.take_reply() is not None
    assert two.take_reply() is not None
    with pytest.raises(AddressNotOurs):
        wire.stack.ping(address(PEER), wire.now, source=address(UNHELD))
    end(wire)


@pytest.mark.rule("UM-38.a", "UM-39.a")
def test_ping_between_two_stacks() -> None:
    with Network() as net:
        one, two = net.host("one"), net.host("two", shared=["2001:db8:2::80"])
        ping = one.ping("2001:db8:2::80", b"hello")
        silent = one.ping("2001:db8:2::81", b"hello")
        net.run_for(seconds(5))
        reply = ping.take_reply()
        assert reply is not None
        assert (reply.data, reply.rtt) == (b"hello", 2000)
        assert not silent.readable
        assert two.stack.counters.drops[Drop.NO_OWNER] == 1


# UM-39


def _syn(wire: Wire) -> tuple[bytes, TcpSession]:
    session = connect(wire)
    return wire.expect(checks.tcp("S")).raw, session


@pytest.mark.rule("UM-39.a", "RFC 5461 4.1")
@pytest.mark.parametrize(
    ("code", "reason"),
    [(0, Reason.UNREACHABLE), (1, Reason.PROHIBITED), (3, Reason.UNREACHABLE), (4, Reason.REFUSED)],
)
def test_an_error_belongs_to_the_session_whose_pair_it_quotes_whoever_sent_it(code: int, reason: Reason) -> None:
    wire = Wire()
    _, other = _syn(wire)
    quoted, session = _syn(wire)
    wire.send(builders.unreachable(ROUTER, quoted, code))
    assert (session.end_reason, other.end_reason) == (reason, Reason.NONE)
    assert not lives(wire.stack, session.local)
    end(wire)


@pytest.mark.rule("UM-39.a", "RFC 9293 3.9.2.2")
@pytest.mark.parametrize("code", [0, 1, 3, 4])
def test_an_established_session_survives_it(code: int) -> None:
    wire = Wire()
    session, peer = states.established(wire)
    session.write(b"x", wire.now)
    wire.send(builders.unreachable(ROUTER, peer.expect("PA").raw, code))
    assert session.state == tcp_state.ESTABLISHED
    end(wire)


@pytest.mark.rule("UM-39.b")
def test_its_own_destination_must_be_the_quoted_source() -> None:
    wire = Wire()
    quoted, session = _syn(wire)
    _, other = _syn(wire)
    with dropped(wire, Drop.ICMP_NOT_BELIEVED, 2):
        for target in (other.local, packed(UNHELD)):
            wire.send(builders.icmp6(ROUTER, target, 1, 0, 0, quoted))
    assert not session.ended
    end(wire)


@pytest.mark.rule("UM-39.c", "RFC 5927 4.1")
def test_tcp_believes_it_for_sequence_numbers_in_flight_only() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    session.write(bytes(1000), wire.now)
    segment = peer.expect("PA").raw
    una = int.from_bytes(segment[44:48], "big")

    def quoted(seq: int) -> bytes:
        return segment[:44] + (seq & 0xFFFFFFFF).to_bytes(4, "big") + segment[48:]

    for seq in (una - 1, una + 1000, una + 0x80000000):
        with dropped(wire, Drop.ICMP_NOT_BELIEVED):
            wire.send(builders.packet_too_big(ROUTER, quoted(seq), 1280))
        assert session.statistics().snd_mss == 1440
    with dropped(wire, Drop.ICMP_NOT_BELIEVED, 0):
        wire.send(builders.packet_too_big(ROUTER, quoted(una + 999), 1280))
    assert session.statistics().snd_mss == 1220
    end(wire)


@pytest.mark.rule("UM-39.c", "UM-5.f")
@pytest.mark.parametrize("at", [40, 42])
def test_and_with_its_own_ports(at: int) -> None:
    wire = Wire()
    quoted, session = _syn(wire)
    wrong = quoted[:at] + b"\x12\x34" + quoted[at + 2 :]
    with dropped(wire, Drop.ICMP_NOT_BELIEVED):
        wire.send(builders.unreachable(ROUTER, wrong))
    assert not session.ended
    end(wire)


@pytest.mark.rule("UM-39.d")
def test_udp_believes_it_when_both_ports_fit() -> None:
    wire = Wire()
    socket = wire.stack.udp(wire.now)
    socket.connect(address(PEER), 53, wire.now)
    socket.send(b"?", wire.now)
    quoted = wire.expect().raw
    for at in (40, 42):
        with dropped(wire, Drop.ICMP_NOT_BELIEVED):
            wire.send(builders.unreachable(PEER, quoted[:at] + b"\x12\x34" + quoted[at + 2 :], 4))
    assert socket.take_error() == Reason.NONE
    wire.send(builders.unreachable(PEER, quoted, 4))
    assert socket.readable
    assert [socket.take_error(), socket.take_error()] == [Reason.PORT_UNREACHABLE, Reason.NONE]
    end(wire)


@pytest.mark.rule("UM-39.d")
def test_echo_believes_it_when_the_identifier_fits_and_the_request_is_out() -> None:
    wire = Wire()
    ping = wire.stack.ping(address(PEER), wire.now)
    ping.send(b"data", wire.now)
    quoted = wire.expect().raw
    for at, value in ((44, b"\0\2"), (46, b"\0\7"), (40, b"\x81\0")):
        with dropped(wire, Drop.ICMP_NOT_BELIEVED):
            wire.send(builders.unreachable(ROUTER, quoted[:at] + value + quoted[at + 2 :], 1))
        ping.send(b"", wire.now)
        wire.take()
    again = wire.sent[-1].raw
    wire.send(builders.unreachable(ROUTER, again, 1))
    reply = ping.take_reply()
    assert reply is not None
    assert reply.reason == Reason.PROHIBITED
    end(wire)


@pytest.mark.rule("UM-39.a", "UM-31.a")
@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (builders.unreachable(ROUTER, builders.tcp(UNHELD, PEER, flags="S")), Drop.ICMP_NO_SESSION),
        (builders.icmp6(ROUTER, UNHELD, 1, 0, 0, b"short"), Drop.TRUNCATED),
        (builders.icmp6(ROUTER, UNHELD, 1, 0, 0, b"\x45" + bytes(60)), Drop.TRUNCATED),
        (builders.icmp6(ROUTER, UNHELD, 1, 0, 0, builders.tcp(UNHELD, PEER), checksum=1), Drop.BAD_CHECKSUM),
        (builders.error(ROUTER, builders.tcp(UNHELD, PEER), 100), Drop.ICMP_NO_SESSION),
    ],
)
def test_errors_that_nobody_can_use_are_counted(packet: bytes, reason: Drop) -> None:
    wire = Wire()
    with dropped(wire, reason):
        wire.send(packet)
    wire.expect_silence()


@pytest.mark.rule("UM-39.a")
def test_an_error_about_another_protocol_is_not_believed() -> None:
    wire = Wire()
    session, _ = states.established(wire)
    for inner in (
        builders.ipv6(session.local, PEER, 132, bytes(12)),
        builders.udp(session.local, PEER, 1, 80, b"x"),
        builders.tcp(session.local, PEER, 1, 80)[:47],
    ):
        with dropped(wire, Drop.ICMP_NOT_BELIEVED):
            wire.send(builders.unreachable(ROUTER, inner))
    assert session.established
    end(wire)


@pytest.mark.rule("UM-35.v", "RFC 8201 4")
@pytest.mark.parametrize("mtu", [0, 68, 1279])
def test_a_packet_too_big_below_1280_is_discarded(mtu: int) -> None:
    """RFC 8201 4: such a message must be discarded; UDP and echo took it for 1280."""
    wire = Wire()
    socket = wire.stack.udp(wire.now)
    socket.send(bytes(1400), wire.now, to=(address(PEER), 53))
    datagram = wire.expect().raw
    ping = wire.stack.ping(address(OTHER), wire.now)
    ping.send(bytes(1400), wire.now)
    request = wire.expect().raw
    session, peer = states.established(wire)
    session.write(bytes(1400), wire.now)
    segment = peer.expect("PA").raw
    for quoted in (datagram, request, segment):
        with dropped(wire, Drop.ICMP_NOT_BELIEVED):
            wire.send(builders.packet_too_big(ROUTER, quoted, mtu))
    assert session.statistics().snd_mss == 1440
    socket.send(bytes(1400), wire.now, to=(address(PEER), 53))
    assert wire.expect().fragment is None
    assert isinstance(ping, EchoSession)
    ping.send(bytes(1400), wire.now)
    assert wire.expect().fragment is None
    end(wire)


@pytest.mark.rule("UM-35.v", "RFC 8201 4")
def test_a_believed_one_makes_datagrams_smaller_for_ten_minutes() -> None:
    wire = Wire()
    socket = wire.stack.udp(wire.now)
    socket.connect(address(PEER), 53, wire.now)
    socket.send(bytes(1400), wire.now)
    wire.send(builders.packet_too_big(ROUTER, wire.expect().raw, 1300))
    socket.send(bytes(1400), wire.now)
    assert [len(seen.raw) <= 1300 for seen in wire.take()] == [True, True]
    wire.advance(minutes(10))
    socket.send(bytes(1400), wire.now)
    assert len(wire.take()) == 1
    end(wire)


def test_sources_of_errors_do_not_matter_but_strangers_cannot_guess() -> None:
    wire = Wire()
    session, _ = states.established(wire)
    for number in range(50):
        guess = builders.tcp(session.local, PEER, 1, 80, "A", number * 0x5555555)
        wire.send(builders.packet_too_big(STRANGER, guess, 1280))
    assert session.statistics().snd_mss == 1440
    end(wire)


def test_each_peer_has_its_own_service_session() -> None:
    wire = Wire()
    door = service(wire)
    Peer(wire, SERVICE, address=PEER).connect()
    Peer(wire, SERVICE, address=OTHER).connect()
    assert {s.remote for s in (door.accept(), door.accept()) if s} == {address(PEER), address(OTHER)}
    end(wire)
