"""SPEC section 4: the client side. EA, the ephemeral address, for TCP and UDP."""

from collections.abc import Callable

import pytest

from tests.core.scene import (
    OTHER,
    PEER,
    SERVICE,
    SHARED,
    STRANGER,
    address,
    connect,
    dropped,
    end,
    lives,
    state_of,
    udp_das,
)
from umuxstack.core.errors import (
    AddressInUse,
    AddressMalformed,
    BadArgument,
    Drop,
    LocalError,
    NotConnected,
    Reason,
    SessionClosed,
)
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.udp.session import UdpSocket
from umuxstack.core.units import Address, minutes, seconds
from umuxstack.core.wire.address import in_prefix
from umuxstack.testing import builders, checks, states
from umuxstack.testing.builders import packed
from umuxstack.testing.network import Network
from umuxstack.testing.peer import Peer
from umuxstack.testing.wire import Wire

# UM-15, UM-16


@pytest.mark.rule("UM-15.a")
def test_every_connect_has_a_source_of_its_own() -> None:
    wire = Wire()
    sessions = [connect(wire) for _ in range(500)]
    sources = [seen.source for seen in wire.take()]
    assert len(set(sources)) == 500
    assert all(in_prefix(source, wire.stack.config.prefix, 64) for source in sources)
    assert sources == [session.local for session in sessions]
    end(wire)


@pytest.mark.rule("UM-15.a", "UM-12.a")
def test_the_next_connect_to_the_same_server_comes_from_elsewhere() -> None:
    wire = Wire()
    first, peer = states.established(wire)
    peer.send("R")
    assert first.ended
    second, _ = states.established(wire)
    assert second.local != first.local
    end(wire)


@pytest.mark.rule("UM-15.b")
def test_a_destination_is_all_that_a_connect_needs() -> None:
    wire = Wire()
    session = wire.stack.connect(address(PEER), 443, wire.now)
    assert session.lease.kind == "EA"
    end(wire)


@pytest.mark.rule("UM-16.a")
def test_a_concrete_address_of_the_prefix_opts_out() -> None:
    wire = Wire()
    before = wire.stack.pool_statistics()
    session = connect(wire, source=address(SERVICE))
    assert session.local == address(SERVICE)
    wire.expect(checks.sent_from(SERVICE), checks.tcp("S"))
    assert wire.stack.pool_statistics().issued == before.issued
    end(wire)


@pytest.mark.rule("UM-16.a")
def test_so_does_a_shared_address_and_it_outlives_the_session() -> None:
    wire = Wire(shared=(address(SHARED),))
    before = wire.stack.pool_statistics()
    session = connect(wire, source=address(SHARED))
    wire.expect(checks.sent_from(SHARED), checks.tcp("S"))
    assert wire.stack.pool_statistics() == before
    session.abort(wire.now)
    assert state_of(wire.stack, address(SHARED)) == "VALID"
    end(wire)


@pytest.mark.rule("UM-16.a")
@pytest.mark.parametrize("source", [STRANGER, "2001:db8:1::", "ff02::1", "2001:db8:1:0:fdff:ffff:ffff:ff80"])
def test_a_source_that_cannot_be_ours_is_refused_and_nothing_changes(source: str) -> None:
    wire = Wire()
    before = wire.stack.leftovers()
    with pytest.raises(LocalError):
        connect(wire, source=address(source))
    assert wire.stack.leftovers() == before
    assert wire.take() == []


@pytest.mark.parametrize("peer", ["::", "ff02::1", "ff05::77"])
def test_a_peer_that_cannot_be_a_session_s_is_refused(peer: str) -> None:
    wire = Wire()
    with pytest.raises(AddressMalformed):
        connect(wire, peer)
    with pytest.raises(BadArgument):
        connect(wire, PEER, 0)
    with pytest.raises(AddressMalformed):
        wire.stack.connect(Address(b"short"), 1, wire.now)
    assert not any(wire.stack.leftovers().values())
    assert wire.stack.pool_statistics().issued == 0


# UM-17


def closed(wire: Wire, session: TcpSession, peer: Peer) -> None:
    session.close(wire.now)
    peer.expect(lambda flags: "F" in flags)
    peer.send("FA")
    peer.expect("A")
    assert state_of(wire.stack, session.local) == "RETIRING"
    wire.advance(seconds(60))


def reset(wire: Wire, session: TcpSession, peer: Peer) -> None:
    peer.send("R")
    assert session.end_reason == Reason.RESET


def timed_out(wire: Wire, session: TcpSession, peer: Peer) -> None:
    session.write(b"x", wire.now)
    wire.advance(minutes(20))
    assert session.end_reason == Reason.TIMED_OUT


def aborted(wire: Wire, session: TcpSession, peer: Peer) -> None:
    session.abort(wire.now)
    peer.expect("RA")
    assert state_of(wire.stack, session.local) == "RETIRING"
    wire.advance(seconds(60))
    assert session.end_reason == Reason.ABORTED


@pytest.mark.parametrize(
    "finish",
    [
        pytest.param(closed, marks=pytest.mark.rule("UM-17.a")),
        pytest.param(reset, marks=pytest.mark.rule("UM-17.b")),
        pytest.param(timed_out, marks=pytest.mark.rule("UM-17.c")),
        pytest.param(aborted, marks=pytest.mark.rule("UM-17.d")),
    ],
)
def test_the_ea_goes_with_its_session(finish: Callable[[Wire, TcpSession, Peer], None]) -> None:
    wire = Wire()
    session, peer = states.established(wire)
    finish(wire, session, peer)
    assert not lives(wire.stack, session.local)
    wire.take()
    with dropped(wire, Drop.NO_OWNER):
        wire.send(peer.segment("A"))
    wire.expect_silence(seconds(1))
    end(wire)


# UM-18


def udp_sent(wire: Wire, socket: UdpSocket, peer: str = PEER, port: int = 53, data: bytes = b"x") -> bytes:
    """The address that a datagram of `socket` left from."""
    socket.send(data, wire.now, to=(address(peer), port))
    return wire.expect(checks.sent_to(peer), checks.udp(data, sport=1, dport=port)).source


@pytest.mark.rule("UM-18.a")
def test_each_destination_of_a_socket_has_an_ea_of_its_own() -> None:
    wire = Wire()
    one, two = wire.stack.udp(wire.now), wire.stack.udp(wire.now)
    where = [
        udp_sent(wire, one, PEER, 53),
        udp_sent(wire, one, OTHER, 53),
        udp_sent(wire, one, PEER, 123),
        udp_sent(wire, two, PEER, 53),
    ]
    assert len(set(where)) == 4
    assert udp_sent(wire, one, PEER, 53) == where[0]  # the session goes on
    assert all(state_of(wire.stack, source) == "VALID" for source in where)
    wire.send(builders.udp(OTHER, where[1], 53, 1, b"to one"), builders.udp(PEER, where[3], 53, 1, b"to two"))
    for socket, data, source in ((one, b"to one", where[1]), (two, b"to two", where[3])):
        datagram = socket.receive_datagram()
        assert datagram is not None
        assert (datagram.data, datagram.local) == (data, source)
        assert socket.receive_datagram() is None
    end(wire)


@pytest.mark.rule("UM-18.b")
def test_a_connected_socket_s_session_ends_at_close() -> None:
    wire = Wire()
    socket = wire.stack.udp(wire.now)
    session = socket.connect(address(PEER), 53, wire.now)
    assert session is not None
    wire.advance(minutes(60))  # no silence ends it
    assert lives(wire.stack, session.local)
    socket.close(wire.now)
    assert not lives(wire.stack, session.local)
    with pytest.raises(SessionClosed):
        socket.send(b"x", wire.now)
    end(wire)


@pytest.mark.rule("UM-18.b")
def test_and_at_disconnect_and_at_the_next_connect() -> None:
    wire = Wire()
    socket = wire.stack.udp(wire.now)
    first = socket.connect(address(PEER), 53, wire.now)
    second = socket.connect(address(OTHER), 53, wire.now)
    assert first is not None
    assert second is not None
    assert [lives(wire.stack, session.local) for session in (first, second)] == [False, True]
    socket.disconnect(wire.now)
    assert not lives(wire.stack, second.local)
    with pytest.raises(NotConnected):
        socket.send(b"x", wire.now)
    end(wire)


def test_a_connect_that_is_refused_leaves_the_socket_connected_as_it_was() -> None:
    """`disconnect` came before the checks: a wrong port cost the session."""
    wire = Wire()
    socket = wire.stack.udp(wire.now)
    session = socket.connect(address(PEER), 53, wire.now)
    assert session is not None
    with pytest.raises(BadArgument):
        socket.connect(address(PEER), 0, wire.now)
    assert socket.connected is session
    assert lives(wire.stack, session.local)
    end(wire)


@pytest.mark.rule("UM-18.c")
def test_an_unconnected_socket_s_session_ends_after_120_s_without_traffic() -> None:
    wire = Wire()
    socket = wire.stack.udp(wire.now)
    source = udp_sent(wire, socket)
    wire.advance(seconds(119))
    assert udp_sent(wire, socket) == source  # sending counts as traffic
    wire.advance(seconds(119))
    wire.send(builders.udp(PEER, source, 53, 1, b"so does receiving"))
    wire.advance(seconds(120) - 1)
    assert lives(wire.stack, source)
    wire.advance(1)
    assert not lives(wire.stack, source)
    assert udp_sent(wire, socket) != source
    end(wire)


@pytest.mark.rule("UM-18.c")
def test_a_das_d_session_ends_likewise() -> None:
    wire = Wire()
    socket = wire.stack.udp(wire.now)
    ssa = udp_das(wire, socket).address
    wire.send(builders.udp(PEER, ssa, 999, 53, b"x"))
    wire.advance(seconds(120) - 1)
    assert lives(wire.stack, ssa)
    wire.advance(1)
    assert not lives(wire.stack, ssa)
    with dropped(wire, Drop.NO_OWNER):
        wire.send(builders.udp(PEER, ssa, 999, 53, b"x"))
    end(wire)


@pytest.mark.rule("UM-18.c")
def test_sending_to_thousands_leaks_nothing() -> None:
    wire = Wire()
    socket = wire.stack.udp(wire.now)
    for number in range(3000):
        socket.send(b"x", wire.now, to=(address(f"2001:db8:2::{number:x}"), 53))
        wire.stack.advance(wire.now)
    assert wire.stack.leftovers()["leases"] == 3000
    wire.advance(seconds(121))
    assert wire.stack.leftovers()["leases"] == len(socket.sessions) == len(socket.routes) == 0
    end(wire)


@pytest.mark.rule("UM-18.d")
def test_ports_are_checked_on_a_connected_socket() -> None:
    wire = Wire()
    socket = wire.stack.udp(wire.now)
    session = socket.connect(address(PEER), 53, wire.now)
    assert session is not None
    with dropped(wire, Drop.OTHER_PORTS, 2):
        wire.send(builders.udp(PEER, session.local, 54, 1, b"from another port"))
        wire.send(builders.udp(PEER, session.local, 53, 2, b"to another port"))
    assert not socket.readable
    wire.send(builders.udp(PEER, session.local, 53, 1, b"right"))
    datagram = socket.receive_datagram()
    assert datagram is not None
    assert (datagram.data, datagram.peer, datagram.peer_port) == (b"right", address(PEER), 53)
    wire.expect_silence()
    end(wire)


@pytest.mark.rule("UM-18.d", "UM-18.f")
def test_and_not_on_others_tftp_answers_from_another_port() -> None:
    wire = Wire()
    socket = wire.stack.udp(wire.now)
    source = udp_sent(wire, socket, PEER, 69)
    wire.send(builders.udp(PEER, source, 40001, 1, b"block 1"))
    datagram = socket.receive_datagram()
    assert datagram is not None
    assert (datagram.data, datagram.peer_port) == (b"block 1", 40001)
    assert udp_sent(wire, socket, PEER, 40001, b"ack 1") == source
    end(wire)


@pytest.mark.rule("UM-18.e")
def test_an_ea_that_sent_to_a_group_receives_from_any_source() -> None:
    wire = Wire()
    socket = wire.stack.udp(wire.now)
    source = udp_sent(wire, socket, "ff05::77", 53)
    for peer in (PEER, STRANGER):
        wire.send(builders.udp(peer, source, 53, 1, b"here"))
        datagram = socket.receive_datagram()
        assert datagram is not None
        assert (datagram.peer, datagram.local) == (packed(peer), source)
    wire.advance(seconds(120))
    assert not lives(wire.stack, source)
    end(wire)


@pytest.mark.rule("UM-18.e", "UM-18.f")
def test_senders_that_are_remembered_have_a_bound() -> None:
    """An EA that sent to a group remembered every source that ever answered; forged ones cost memory without end."""
    wire = Wire()
    socket = wire.stack.udp(wire.now)
    source = udp_sent(wire, socket, "ff05::77", 53)
    for number in range(6000):
        wire.send(builders.udp(f"2001:db8:2::{number:x}", source, 5, 1))
    assert len(socket.routes) <= 4097
    assert udp_sent(wire, socket, OTHER, 5) == source
    assert len(socket.queue) == 6000
    end(wire)


@pytest.mark.rule("UM-18.f")
def test_a_reply_leaves_from_the_address_that_the_datagram_was_sent_to() -> None:
    wire = Wire()
    socket = wire.stack.udp(wire.now)
    ssa = udp_das(wire, socket).address
    wire.send(builders.udp(PEER, ssa, 999, 53, b"question"))
    socket.send(b"answer", wire.now, to=(address(PEER), 999))
    wire.expect(checks.sent_from(ssa), checks.sent_to(PEER), checks.udp(b"answer", sport=53, dport=999))
    end(wire)


@pytest.mark.rule("UM-18.f")
def test_the_latest_address_counts_for_a_peer_that_uses_several() -> None:
    """Only the first datagram from a port was remembered: replies kept leaving from the address opened last."""
    wire = Wire()
    socket = wire.stack.udp(wire.now)
    one, two = udp_das(wire, socket).address, udp_das(wire, socket).address
    for ssa in (one, two, one, two, two, one):
        wire.send(builders.udp(PEER, ssa, 999, 53, b"question"))
        socket.send(b"answer", wire.now, to=(address(PEER), 999))
        wire.expect(checks.sent_from(ssa), checks.udp(b"answer", sport=53, dport=999))
    end(wire)


@pytest.mark.rule("UM-18.g")
def test_or_from_the_address_that_packet_info_names() -> None:
    wire = Wire()
    socket = wire.stack.udp(wire.now)
    one, two = udp_das(wire, socket).address, udp_das(wire, socket).address
    for ssa in (one, two):
        wire.send(builders.udp(PEER, ssa, 999, 53, b"question"))
    for ssa in (one, two, one):
        socket.send(b"answer", wire.now, to=(address(PEER), 999), source=ssa)
        wire.expect(checks.sent_from(ssa), checks.udp(b"answer", dport=999))
    end(wire)


def test_udp_queues_have_a_bound_and_give_their_memory_back() -> None:
    wire = Wire()
    socket = wire.stack.udp(wire.now)
    source = udp_sent(wire, socket)
    packet = builders.udp(PEER, source, 53, 1, bytes(60_000))
    with dropped(wire, Drop.QUEUE_FULL, 6):
        for _ in range(10):
            wire.send(packet)
    assert wire.stack.memory_used() == 240_000
    for _ in range(4):
        assert socket.receive_datagram() is not None
    assert wire.stack.memory_used() == 0
    end(wire)


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (dict[str, int](checksum=0), Drop.BAD_CHECKSUM),  # RFC 8200 8.1
        ({"checksum": 0x1234}, Drop.BAD_CHECKSUM),
        ({"length": 7}, Drop.BAD_HEADER),
        ({"length": 10}, Drop.BAD_HEADER),
    ],
)
@pytest.mark.rule("UM-37.a", "RFC 8200 8.1")
def test_malformed_datagrams_are_counted_and_dropped(packet: dict[str, int], reason: Drop) -> None:
    wire = Wire()
    socket = wire.stack.udp(wire.now)
    source = udp_sent(wire, socket)
    with dropped(wire, reason):
        wire.send(builders.udp(PEER, source, 53, 1, b"x", **packet))
    with dropped(wire, Drop.BAD_HEADER):
        wire.send(builders.ipv6(PEER, source, 17, b"short"))
    assert not socket.readable
    end(wire)


def test_a_udp_service_serves_every_peer_from_its_one_address() -> None:
    wire = Wire()
    socket = wire.stack.udp(wire.now, address=address(SERVICE), port=53)
    for peer in (PEER, OTHER, STRANGER):
        wire.send(builders.udp(peer, SERVICE, 999, 53, b"?"))
        datagram = socket.receive_datagram()
        assert datagram is not None
        socket.send(b"!", wire.now, to=(datagram.peer, datagram.peer_port))
        wire.expect(checks.sent_from(SERVICE), checks.sent_to(peer), checks.udp(b"!", sport=53, dport=999))
    socket.connect(address(PEER), 999, wire.now)
    with dropped(wire, Drop.PEER_NOT_ALLOWED, 2):
        wire.send(builders.udp(OTHER, SERVICE, 999, 53, b"?"))
        wire.send(builders.udp(PEER, SERVICE, 998, 53, b"?"))
    with pytest.raises(AddressInUse):
        wire.stack.udp(wire.now, address=address(SERVICE), port=54)
    end(wire)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_no_datagram_goes_to_a_port_that_is_none(port: int) -> None:
    """A bound socket sent to port 0."""
    wire = Wire(shared=(address(SHARED),))
    for where in (None, address(SERVICE), address(SHARED)):
        socket = wire.stack.udp(wire.now, address=where)
        with pytest.raises(BadArgument):
            socket.send(b"x", wire.now, to=(address(PEER), port))
        with pytest.raises(BadArgument):
            socket.connect(address(PEER), port, wire.now)
    assert wire.take() == []
    end(wire)


def test_udp_on_a_shared_address_goes_by_ports() -> None:
    wire = Wire(shared=(address(SHARED),))
    one = wire.stack.udp(wire.now, address=address(SHARED), port=53)
    two = wire.stack.udp(wire.now, address=address(SHARED))
    assert two.port >= 1024
    wire.send(builders.udp(PEER, SHARED, 999, 53, b"one"), builders.udp(PEER, SHARED, 999, two.port, b"two"))
    received = [socket.receive_datagram() for socket in (one, two)]
    assert [datagram.data if datagram else b"" for datagram in received] == [b"one", b"two"]
    with pytest.raises(AddressInUse):
        wire.stack.udp(wire.now, address=address(SHARED), port=53)
    one.close(wire.now)
    with dropped(wire, Drop.NO_PORT_OWNER):
        wire.send(builders.udp(PEER, SHARED, 999, 53, b"one"))
    wire.expect(checks.icmp(1, 4))
    end(wire)


# UM-19


@pytest.mark.rule("UM-19.a")
def test_more_sessions_to_one_server_than_there_are_ports() -> None:
    wire = Wire()
    peer = address(PEER)
    stack = wire.stack
    sources = set()
    for number in range(66_000):
        sources.add(stack.connect(peer, 80, wire.now).local)
        if number % 256 == 0:
            stack.take_output(wire.now)
    assert len(sources) == stack.leftovers()["pairs"] == 66_000
    assert {seen.sport for seen in wire.take()} == {1}
    end(wire)


def test_a_shared_address_does_have_that_ceiling() -> None:
    with Network() as net:
        client = net.host("client", shared=[SHARED])
        sessions = [client.connect(PEER, 80, source=address(SHARED)) for _ in range(100)]
        assert len({session.local_port for session in sessions}) == 100
