"""RFC 4443 line by line, as docs/requirements/rfc4443.csv has it."""

import struct
from typing import Any

import pytest

from tests.core.scene import OTHER, PEER, ROUTER, SERVICE, SHARED, address, connect, dropped, end, listen_0
from umuxstack.core.errors import BadArgument, Drop, Reason
from umuxstack.core.units import seconds
from umuxstack.host import make_config
from umuxstack.testing import builders, checks, states
from umuxstack.testing.decode import Seen
from umuxstack.testing.wire import Wire

NODE_LESS = ("::", "ff02::1", "ff05::2", "::1")


def legacy(**config: Any) -> Wire:
    return Wire(shared=(address(SHARED),), **config)


def some_error(wire: Wire) -> Seen:
    wire.send(builders.udp(PEER, SHARED, 5, 53, b"?"))
    return wire.expect(checks.icmp(1, 4))


@pytest.mark.rule("4443-2.2-1", "4443-4.2-1", "4443-4.2-4", "4443-4.1-1", "4443-2.3-1")
@pytest.mark.parametrize("size", [0, 1, 56, 1452, 1453, 30_000])
def test_an_echo_is_answered_from_where_it_was_asked_with_all_its_data(size: int) -> None:
    other = "2001:db8:1::81"
    wire = Wire(shared=(address(SHARED), address(other)))
    data = bytes(number & 255 for number in range(size))
    for asked in (SHARED, other):
        request = builders.echo_request(PEER, asked, 77, 5, data)
        pieces = builders.fragments(request, 1232) if size > 1452 else [request]
        wire.send(*pieces)
        replies = wire.take()
        assert {(seen.source, seen.destination) for seen in replies} == {(address(asked), address(PEER))}
        if len(replies) == 1:
            assert (replies[0].icmp_type, replies[0].icmp_code) == (129, 0)
            assert replies[0].icmp_value == 77 << 16 | 5
            body = replies[0].payload
        else:
            body = b"".join(seen.raw[48:] for seen in replies)[8:]
        assert body == data
    end(wire)


@pytest.mark.rule("4443-2.2-1")
def test_errors_come_from_the_address_that_was_meant() -> None:
    wire = legacy(silence=False)
    assert some_error(wire).source == address(SHARED)
    wire.send(builders.udp(PEER, SERVICE))
    assert wire.expect(checks.icmp(1, 3)).source == address(SERVICE)
    end(wire)


# 2.4: processing


@pytest.mark.rule("4443-2.4-1")
@pytest.mark.parametrize("kind", [0, 5, 99, 100, 127])
def test_an_error_of_unknown_type_reaches_who_caused_it(kind: int) -> None:
    """It was counted, and nobody heard of it."""
    wire = Wire()
    session, peer = states.established(wire)
    session.write(b"x", wire.now)
    wire.send(builders.error(ROUTER, peer.expect("PA").raw, kind))
    assert (session.soft_error, session.established) == (Reason.UNREACHABLE, True)
    opening = connect(wire)
    wire.send(builders.error(ROUTER, wire.expect(checks.tcp("S")).raw, kind))
    assert (opening.soft_error, opening.ended) == (Reason.UNREACHABLE, False)
    socket = wire.stack.udp(wire.now)
    socket.send(b"x", wire.now, to=(address(PEER), 53))
    wire.send(builders.error(ROUTER, wire.expect(checks.udp()).raw, kind))
    assert socket.take_error() == Reason.UNREACHABLE
    ping = wire.stack.ping(address(PEER), wire.now)
    ping.send(b"", wire.now)
    wire.send(builders.error(ROUTER, wire.expect(checks.echo_request()).raw, kind))
    reply = ping.take_reply()
    assert reply is not None
    assert reply.reason == Reason.UNREACHABLE
    end(wire)


@pytest.mark.rule("4443-2.4-2")
@pytest.mark.parametrize("kind", [130, 133, 134, 135, 136, 138, 200, 255])
def test_an_unknown_informational_message_is_silently_discarded(kind: int) -> None:
    wire = legacy(silence=False)
    with dropped(wire, Drop.ICMP_UNKNOWN):
        wire.send(builders.icmp6(PEER, SHARED, kind, 0, 0, bytes(16)))
    wire.expect_silence()
    end(wire)


@pytest.mark.rule("4443-2.4-3")
@pytest.mark.parametrize("size", [0, 1183, 1184, 1185, 1400])
def test_an_error_quotes_all_that_1280_octets_leave_room_for(size: int) -> None:
    wire = legacy()
    packet = builders.udp(PEER, SHARED, 5, 53, bytes(size))
    wire.send(packet)
    seen = wire.expect(checks.icmp(1, 4), checks.quotes(packet))
    assert len(seen.raw) == min(48 + len(packet), 1280)
    end(wire)


@pytest.mark.rule("4443-2.4-4")
def test_the_quoted_protocol_selects_whose_error_it_is() -> None:
    wire = legacy()
    tcp, peer = states.established(wire)
    tcp.write(b"x", wire.now)
    segment = peer.expect("PA").raw
    for other in (17, 58):
        with dropped(wire, Drop.ICMP_NOT_BELIEVED):
            wire.send(builders.unreachable(ROUTER, segment[:6] + bytes((other,)) + segment[7:]))
    assert tcp.soft_error.name == "NONE"
    with_header = segment[:6] + b"\0" + segment[7:40] + b"\x06\0\1\4\0\0\0\0" + segment[40:]
    wire.send(builders.unreachable(ROUTER, with_header))
    assert tcp.soft_error.name == "UNREACHABLE"
    end(wire)


@pytest.mark.rule("4443-2.4-5")
def test_where_the_protocol_cannot_be_told_the_error_is_dropped() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    session.write(b"x", wire.now)
    segment = peer.expect("PA").raw
    cut = segment[:6] + b"\0" + segment[7:40] + b"\x06\x40\1\4\0\0\0\0"  # its extension header goes on behind the cut
    sealed = segment[:6] + b"\x32" + segment[7:40] + bytes(16)
    for quoted in (cut, sealed, segment[:40]):
        with dropped(wire, Drop.ICMP_NOT_BELIEVED):
            wire.send(builders.unreachable(ROUTER, quoted))
    wire.expect_silence()
    assert session.soft_error == Reason.NONE
    end(wire)


BAD = builders.destination_options(builders.option(0x9E))  # what any other packet would be refused for


@pytest.mark.rule("4443-2.4-6", "4443-2.4-7")
@pytest.mark.parametrize("kind", [1, 2, 3, 4, 100, 127, 137])
def test_no_error_is_about_an_error_or_a_redirect(kind: int) -> None:
    """About a redirect with a bad option, one was."""
    wire = legacy(silence=False)
    quoted = builders.udp(SHARED, PEER)
    wire.send(builders.icmp6(PEER, SHARED, kind, 0, 0, quoted, extensions=[BAD]))
    wire.send(builders.icmp6(PEER, SHARED, kind, 0, 0, quoted))
    wire.expect_silence()
    wire.send(builders.icmp6(PEER, SHARED, 128, 0, 0, quoted, extensions=[BAD]))
    wire.expect(checks.icmp(4, 2))
    end(wire)


@pytest.mark.rule("4443-2.4-8")
@pytest.mark.parametrize("group", ["ff02::1", "ff0e::101", "ff05::2"])
def test_no_error_is_about_a_packet_to_a_group(group: str) -> None:
    wire = legacy(silence=False)
    wire.send(
        builders.udp(PEER, group, 5, 53, b"?"),
        builders.udp(PEER, group, 5, 53, b"?", extensions=[builders.routing(3, 1)]),
        builders.ipv6(PEER, group, 132, bytes(8)),
        builders.tcp(PEER, group, flags="S"),
        builders.fragment(builders.udp(PEER, group), bytes(9), 0, True),
    )
    wire.expect_silence(seconds(61))
    end(wire)


@pytest.mark.rule("4443-2.4-11")
@pytest.mark.parametrize("source", NODE_LESS)
def test_no_error_goes_to_a_source_that_names_no_node(source: str) -> None:
    wire = legacy(silence=False)
    with dropped(wire, Drop.BAD_SOURCE, 3):
        wire.send(
            builders.udp(source, SHARED, 5, 53, b"?"),
            builders.udp(source, SHARED, 5, 53, b"?", extensions=[BAD]),
            builders.ipv6(source, SHARED, 132, bytes(8)),
        )
    wire.expect_silence()
    end(wire)


@pytest.mark.rule("4443-2.4-12", "4443-2.4-13", "4443-2.4-14")
@pytest.mark.parametrize(("rate", "burst"), [(100, 20), (10, 10), (1, 1), (1000, 3)])
def test_errors_are_let_out_of_a_bucket_of_a_size_to_choose(rate: int, burst: int) -> None:
    wire = legacy(icmp_rate=rate, icmp_burst=burst)

    def flood(count: int) -> int:
        for _ in range(count):
            wire.send(builders.udp(PEER, SHARED, 5, 53, b"?"))
        return len(wire.take())

    assert flood(burst + 50) == burst
    wire.advance(seconds(1) // rate)
    assert flood(5) == 1
    sent = 0
    for _ in range(100):
        wire.advance(seconds(10) // 100)
        sent += flood(burst + 5)
    assert sent <= 10 * rate + burst
    assert sent >= min(10 * rate, 100 * burst) - 1
    end(wire)


@pytest.mark.rule("4443-2.4-14", "4443-3.1-6")
def test_they_can_be_switched_off() -> None:
    wire = legacy(icmp_rate=0, silence=False)
    for _ in range(3):
        wire.send(builders.udp(PEER, SHARED, 5, 53, b"?"), builders.ipv6(PEER, SHARED, 132, bytes(8)))
        wire.expect_silence(seconds(10))
    assert wire.stack.counters.drops[Drop.RATE_LIMITED] == 6
    wire.send(builders.echo_request(PEER, SHARED))  # an answer is no error
    wire.expect(checks.echo_reply())
    end(wire)
    with pytest.raises(BadArgument):
        make_config("2001:db8:1::/64", icmp_rate=-1)
    with pytest.raises(BadArgument):
        make_config("2001:db8:1::/64", icmp_burst=0)


# 3: errors


@pytest.mark.rule("4443-3.1-1", "4443-3.3-1", "4443-3.4-2")
def test_unused_fields_are_0_and_ignored() -> None:
    wire = legacy()
    assert some_error(wire).icmp_value == 0
    first, _ = builders.fragments(builders.udp(PEER, SHARED, 5, 53, bytes(99)), 56)
    wire.stack.udp(wire.now, address=address(SHARED), port=53)
    wire.send(first)
    assert wire.expect(checks.icmp(3, 1), within=seconds(60)).icmp_value == 0
    session, peer = states.established(wire)
    for kind in (1, 3):
        session.write(b"x", wire.now)
        quoted = peer.expect("PA").raw
        wire.send(builders.error(ROUTER, quoted, kind, 0, 0xFFFFFFFF))
        assert session.soft_error == Reason.UNREACHABLE
        peer.send("A")
    end(wire)


@pytest.mark.rule("4443-3.1-3")
def test_no_error_is_about_what_was_dropped_for_want_of_room() -> None:
    wire = legacy(silence=False)
    socket = wire.stack.udp(wire.now, address=address(SHARED), port=53)
    for _ in range(300):
        wire.send(builders.udp(PEER, SHARED, 5, 53, bytes(1400)))
    assert wire.stack.counters.drops[Drop.QUEUE_FULL] > 50
    wire.stack.listen(wire.now, address=address(SHARED), port=80, backlog=1)
    for port in range(1000, 1003):
        wire.send(builders.tcp(PEER, SHARED, port, 80, "S", seq=9))
        reply = wire.take()
        if reply:
            wire.send(builders.tcp(PEER, SHARED, port, 80, "A", 10, reply[0].seq + 1))
    assert wire.stack.counters.drops[Drop.BACKLOG] == 2
    assert not any(seen.is_icmp for seen in wire.sent)
    socket.close(wire.now)
    wire.take()
    end(wire)


@pytest.mark.rule("4443-3.1-5")
def test_a_datagram_to_a_port_without_a_listener_is_told_and_a_segment_gets_its_own_answer() -> None:
    wire = legacy()
    packet = builders.udp(PEER, SHARED, 5, 53, b"?")
    wire.send(packet)
    wire.expect(checks.icmp(1, 4), checks.quotes(packet), checks.sent_to(PEER))
    wire.send(builders.tcp(PEER, SHARED, 5, 53, "S"))
    wire.expect(checks.tcp("RA"))
    wire.expect_silence()
    end(wire)


@pytest.mark.rule("4443-3.1-7", "4443-3.3-3", "4443-3.4-3")
@pytest.mark.parametrize(
    ("kind", "code", "reason"),
    [
        (1, 0, Reason.UNREACHABLE),
        (1, 1, Reason.PROHIBITED),
        (1, 4, Reason.PORT_UNREACHABLE),
        (3, 0, Reason.UNREACHABLE),
        (3, 1, Reason.UNREACHABLE),
        (4, 0, Reason.UNREACHABLE),
        (4, 1, Reason.UNREACHABLE),
        (4, 2, Reason.UNREACHABLE),
    ],
)
def test_every_kind_of_error_is_told_to_the_upper_layer(kind: int, code: int, reason: Reason) -> None:
    """UDP told its application of "destination unreachable" alone."""
    wire = legacy()
    socket = wire.stack.udp(wire.now)
    socket.send(b"x", wire.now, to=(address(PEER), 53))
    wire.send(builders.error(ROUTER, wire.expect(checks.udp()).raw, kind, code))
    assert socket.take_error() == reason
    bound = wire.stack.udp(wire.now, address=address(SHARED), port=53)
    bound.send(b"x", wire.now, to=(address(PEER), 53))
    wire.send(builders.error(ROUTER, wire.expect(checks.udp()).raw, kind, code))
    assert bound.take_error() == reason
    session, peer = states.established(wire)
    session.write(b"x", wire.now)
    wire.send(builders.error(ROUTER, peer.expect("PA").raw, kind, code))
    assert session.soft_error != Reason.NONE
    ping = wire.stack.ping(address(PEER), wire.now)
    ping.send(b"", wire.now)
    wire.send(builders.error(ROUTER, wire.expect(checks.echo_request()).raw, kind, code))
    reply = ping.take_reply()
    assert reply is not None
    assert reply.reason != Reason.NONE
    end(wire)


@pytest.mark.rule("4443-3.2-1", "4443-3.2-3")
@pytest.mark.parametrize("code", [0, 1, 255])
def test_packet_too_big_is_passed_on_whatever_its_code(code: int) -> None:
    wire = Wire()
    session, peer = states.established(wire)
    session.write(bytes(1440), wire.now)
    wire.send(builders.error(ROUTER, peer.expect().raw, 2, code, 1300))
    assert session.statistics().snd_mss == 1240
    end(wire)


# 4: echo


@pytest.mark.rule("4443-4.1-2", "4443-4.2-5")
def test_replies_reach_who_asked_and_nobody_else() -> None:
    wire = legacy()
    asked = [wire.stack.ping(address(PEER), wire.now) for _ in range(2)]
    shared = [wire.stack.ping(address(PEER), wire.now, source=address(SHARED)) for _ in range(2)]
    for number, ping in enumerate([*asked, *shared]):
        ping.send(b"%d" % number, wire.now)
    requests = wire.take()
    for seen in requests:
        wire.send(builders.icmp6(PEER, seen.source, 129, 0, seen.icmp_value, seen.payload))
    for number, ping in enumerate([*asked, *shared]):
        reply = ping.take_reply()
        assert reply is not None
        assert reply.data == b"%d" % number
        assert ping.take_reply() is None
    with dropped(wire, Drop.ICMP_UNKNOWN):
        wire.send(builders.echo_reply(OTHER, SHARED, 4711, 1, b"never asked"))
    end(wire)


@pytest.mark.rule("4443-5.2-1")
def test_errors_about_what_was_never_sent_are_not_believed() -> None:
    wire = legacy()
    session, _ = states.established(wire)
    socket = wire.stack.udp(wire.now, address=address(SHARED), port=53)
    listen_0(wire)
    forged = [
        builders.tcp(session.local, PEER, 1, 80, "A", 12345),
        builders.udp(SHARED, PEER, 53, 99, b"x"),
        builders.echo_request(SHARED, PEER),
    ]
    for quoted in forged:
        for kind, value in ((1, 0), (2, 1280), (3, 0), (4, 0), (99, 0)):
            wire.send(builders.error(ROUTER, quoted, kind, 0, value))
    drops = wire.stack.counters.drops
    assert drops[Drop.ICMP_NOT_BELIEVED] + drops[Drop.ICMP_NO_SESSION] == 15
    assert (session.soft_error, session.statistics().snd_mss) == (Reason.NONE, 1440)
    assert socket.take_error() == Reason.NONE
    end(wire)


@pytest.mark.rule("4443-2.3-1")
def test_the_sum_covers_the_pseudo_header_with_58() -> None:
    wire = legacy()
    request = builders.echo_request(PEER, SHARED)
    wire.send(request)
    wire.expect(checks.echo_reply())
    body = request[40:42] + b"\0\0" + request[44:]
    for protocol in (0, 17):
        wrong = builders.checksum(PEER, SHARED, protocol, body)
        with dropped(wire, Drop.BAD_CHECKSUM):
            wire.send(request[:42] + struct.pack(">H", wrong) + request[44:])
    end(wire)
