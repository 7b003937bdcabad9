"""SPEC section 2: what a session is, and how a packet finds it."""

from typing import Any

import pytest

from tests.core.scene import (
    OTHER,
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
    service,
)
from umuxstack.core.config import StackConfig
from umuxstack.core.errors import BadArgument, Drop, LocalError
from umuxstack.core.legacy.ports import PortMux
from umuxstack.core.network.demux import Demux
from umuxstack.core.network.endpoint import Receiver
from umuxstack.core.tcp import state as st
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.units import millis, seconds
from umuxstack.testing import builders, checks, states
from umuxstack.testing.builders import packed
from umuxstack.testing.network import Network
from umuxstack.testing.peer import PEER, Peer
from umuxstack.testing.wire import Wire


def accept_from(wire: Wire, door: Any, peer: Peer) -> TcpSession:
    peer.connect()
    session = door.accept()
    assert isinstance(session, TcpSession)
    assert session.remote == peer.address
    return session


# UM-1


@pytest.mark.rule("UM-1.a")
def test_sessions_of_one_local_address_are_told_apart_by_the_remote_one() -> None:
    wire = Wire()
    door = service(wire)
    one, other = Peer(wire, SERVICE, address=PEER), Peer(wire, SERVICE, address=OTHER)  # same ports, both of them
    first, second = accept_from(wire, door, one), accept_from(wire, door, other)
    one.send("PA", b"from one")
    other.send("PA", b"from other")
    assert first.read(99, wire.now) == b"from one"
    assert second.read(99, wire.now) == b"from other"
    first.close(wire.now)
    second.close(wire.now)
    end(wire)


@pytest.mark.rule("UM-1.a")
def test_sessions_of_one_remote_address_are_told_apart_by_the_local_one() -> None:
    wire = Wire()
    (first, one), (second, other) = states.established(wire), states.established(wire)
    assert (one.address, one.port) == (other.address, other.port)
    other.send("PA", b"second")
    one.send("PA", b"first")
    assert first.read(99, wire.now) == b"first"
    assert second.read(99, wire.now) == b"second"
    end(wire)


@pytest.mark.rule("UM-1.b", "UM-5.f")
def test_other_ports_on_a_pair_reach_no_other_session() -> None:
    wire = Wire(fixed_port=7)
    first, one = states.established(wire, remote_port=7)
    second, _other = states.established(wire, remote_port=7)
    with dropped(wire, Drop.OTHER_PORTS, 3):
        wire.send(one.segment("PA", b"to nobody", port=81))
        wire.send(one.segment("PA", b"to nobody", remote_port=8))
        wire.send(one.segment("PA", b"to nobody", port=7, remote_port=80))
    assert not first.readable
    assert not second.readable
    wire.expect_silence(seconds(1))
    one.send("PA", b"right")
    assert first.read(99, wire.now) == b"right"
    end(wire)


@pytest.mark.rule("UM-1.c")
def test_a_datagram_on_a_tcp_session_s_pair_is_that_session_s_to_drop() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    with dropped(wire, Drop.FOREIGN_PROTOCOL, 2):
        wire.send(builders.udp(peer.address, peer.remote, peer.port, 1, b"?"))
        wire.send(builders.echo_request(peer.address, peer.remote))
    wire.expect_silence(seconds(1))
    assert session.state == st.ESTABLISHED
    end(wire)


@pytest.mark.rule("UM-1.c")
def test_a_segment_on_a_udp_session_s_pair_is_dropped_even_where_the_ports_fit() -> None:
    wire = Wire()
    socket = wire.stack.udp(wire.now)
    socket.connect(address(PEER), 53, wire.now)
    socket.send(b"question", wire.now)
    local = wire.expect(checks.udp(b"question")).source
    with dropped(wire, Drop.FOREIGN_PROTOCOL, 2):
        wire.send(builders.tcp(PEER, local, 53, 1, "S"))
        wire.send(builders.echo_request(PEER, local))
    wire.expect_silence(seconds(1))
    assert not socket.readable
    end(wire)


@pytest.mark.rule("UM-1.c")
def test_tcp_and_udp_are_foreign_to_an_echo_session() -> None:
    wire = Wire()
    ping = wire.stack.ping(address(PEER), wire.now)
    with dropped(wire, Drop.FOREIGN_PROTOCOL, 2):
        wire.send(builders.tcp(PEER, ping.local, 1, 1, "S"))
        wire.send(builders.udp(PEER, ping.local, payload=b"x"))
    wire.expect_silence()
    end(wire)


# UM-2


@pytest.mark.rule("UM-2.a")
def test_the_key_is_the_header_s_own_32_bytes() -> None:
    demux, owner = Demux(), Receiver()
    packet = builders.tcp(PEER, SERVICE)
    demux.pairs[packed(PEER) + packed(SERVICE)] = owner
    assert demux.owner(packet[8:40]) is owner
    assert demux.owner(builders.tcp(SERVICE, PEER)[8:40]) is None
    assert demux.owner(builders.tcp(OTHER, SERVICE)[8:40]) is None


@pytest.mark.rule("UM-2.b", "UM-3.a")
def test_the_pair_goes_before_the_local_entry() -> None:
    demux, session, door = Demux(), Receiver(), Receiver()
    pair = packed(PEER) + packed(SERVICE)
    demux.locals[packed(SERVICE)] = door
    assert demux.owner(pair) is door
    demux.pairs[pair] = session
    assert demux.owner(pair) is session
    assert demux.owner(packed(OTHER) + packed(SERVICE)) is door


@pytest.mark.rule("UM-2.b")
def test_the_destination_alone_finds_a_listen_u_a_service_and_a_shared_address() -> None:
    wire = Wire(shared=(address(SHARED),))
    service(wire)
    wire.stack.listen(wire.now, address=address(SHARED), port=80)
    ssa = das(wire, listen_0(wire)).address
    for where, port in ((SERVICE, 5), (SHARED, 80), (ssa, 9)):
        wire.send(builders.tcp(STRANGER, where, 1234, port, "S", 77))
        wire.expect(checks.sent_from(where), checks.sent_to(STRANGER), checks.tcp("SA", ack=78))
    with dropped(wire, Drop.NO_OWNER):
        wire.send(builders.tcp(STRANGER, UNHELD, 1234, 80, "S", 77))
    end(wire)


@pytest.mark.rule("UM-3.a", "UM-23.b")
def test_a_candidate_takes_what_its_peer_sends_although_the_listen_u_waits_on() -> None:
    wire = Wire()
    door = listen_0(wire)
    session, peer = states.syn_received(wire, das(wire, door).address)
    wire.send(peer.segment("S", seq=peer.iss))  # again: the same answer, no second candidate
    peer.expect("SA", seq=peer.irs)
    assert len(wire.stack.doors()) == 1
    peer.send("A")
    assert door.accept() is session
    end(wire)


@pytest.mark.rule("UM-2.d")
@pytest.mark.parametrize("kind", ["service", "listen_u", "ea", "udp door", "nobody"])
def test_a_packet_from_an_address_to_itself_is_dropped(kind: str) -> None:
    wire = Wire()
    if kind == "service":
        service(wire)
        where = packed(SERVICE)
    elif kind == "listen_u":
        where = das(wire, listen_0(wire)).address
    elif kind == "ea":
        where = states.established(wire)[0].local
    elif kind == "udp door":
        where = wire.stack.das(wire.stack.udp(wire.now), wire.now).address
    else:
        where = packed(UNHELD)
    with dropped(wire, Drop.SOURCE_IS_DESTINATION, 2):
        wire.send(builders.tcp(where, where, 1, 1, "S"))
        wire.send(builders.udp(where, where, 1, 1, b"x"))
    wire.expect_silence(seconds(1))
    end(wire)


@pytest.mark.rule("UM-2.d")
def test_no_unified_session_is_opened_from_an_address_to_itself() -> None:
    wire = Wire()
    with pytest.raises(LocalError):
        connect(wire, UNHELD, source=address(UNHELD))
    assert list(wire.stack.sessions()) == []
    end(wire)


@pytest.mark.rule("UM-2.d", "UM-6.a")
def test_a_shared_address_may_talk_to_itself() -> None:
    wire = Wire(shared=(address(SHARED),))
    door = wire.stack.listen(wire.now, address=address(SHARED), port=80)
    session = connect(wire, SHARED, source=address(SHARED))
    wire.flush()
    assert session.established
    accepted = door.accept()
    assert accepted is not None
    session.write(b"to myself", wire.now)
    wire.flush()
    assert accepted.read(99, wire.now) == b"to myself"
    assert wire.take() == []
    session.close(wire.now)
    accepted.close(wire.now)
    end(wire)


# UM-4, UM-5


@pytest.mark.rule("UM-4.a", "UM-5.a")
def test_an_ea_to_a_legacy_server_says_1_and_the_port_that_was_dialled() -> None:
    wire = Wire()
    session = connect(wire, port=443)
    peer = Peer(wire, session.local, port=443)
    peer.accept()
    session.write(b"x", wire.now)
    peer.expect("PA", b"x")
    assert all((seen.sport, seen.dport) == (1, 443) for seen in wire.sent)
    assert (session.local_port, session.remote_port) == (1, 443)
    end(wire)


@pytest.mark.rule("UM-4.b", "UM-5.b")
def test_the_fixed_value_can_be_configured() -> None:
    wire = Wire(fixed_port=4242)
    connect(wire, port=443)
    wire.expect(checks.tcp("S", sport=4242, dport=443))
    connect(wire, port=443, unified=True)
    wire.expect(checks.tcp("S", sport=4242, dport=4242))
    end(wire)


@pytest.mark.rule("UM-4.c")
def test_the_fixed_value_is_never_0() -> None:
    for wrong in (0, -1, 65536):
        with pytest.raises(BadArgument, match="fixed_port"):
            StackConfig(prefix=address("2001:db8::"), fixed_port=wrong)


@pytest.mark.rule("UM-5.b", "UM-5.d")
def test_a_call_may_say_that_the_peer_is_unified() -> None:
    wire = Wire()
    session = connect(wire, port=443, unified=True)
    peer = Peer(wire, session.local, port=1)
    peer.accept()
    session.write(b"x", wire.now)
    peer.expect("PA", b"x")
    assert all((seen.sport, seen.dport) == (1, 1) for seen in wire.sent)
    end(wire)


@pytest.mark.rule("UM-5.d")
def test_a_configured_prefix_says_it_too_and_a_call_may_deny_it() -> None:
    wire = Wire(unified_peers=((address("2001:db8:2::"), 48),))
    for options, peer, port in (({}, PEER, 1), ({}, STRANGER, 443), ({"unified": False}, PEER, 443)):
        connect(wire, peer, 443, **options)
        wire.expect(checks.sent_to(peer), checks.tcp("S", sport=1, dport=port))
    socket = wire.stack.udp(wire.now)
    socket.send(b"x", wire.now, to=(address(PEER), 53))
    wire.expect(checks.udp(b"x", sport=1, dport=1))
    end(wire)


@pytest.mark.rule("UM-5.d")
def test_nothing_on_the_wire_makes_a_peer_unified() -> None:
    wire = Wire()
    first, peer = states.established_server(wire, port=1, remote_port=1)  # it dialled us as a unified client does
    connect(wire, port=443)
    wire.expect(checks.sent_to(peer.address), checks.tcp("S", sport=1, dport=443))
    assert first.established
    end(wire)


@pytest.mark.rule("UM-5.c", "UM-5.e", "UM-5.g")
@pytest.mark.parametrize(("ours", "theirs"), [(80, 51234), (1, 1), (65535, 1), (22, 65535)])
def test_a_listen_u_accepts_whatever_port_was_dialled_and_echoes_both(ours: int, theirs: int) -> None:
    wire = Wire()
    session, peer = states.established_server(wire, port=theirs, remote_port=ours)
    session.write(b"hello", wire.now)
    assert (peer.expect("PA", b"hello").sport, wire.sent[0].dport) == (ours, theirs)
    assert session.port == ours  # bound to none: getsockname shows what was dialled
    assert session.remote_port == theirs
    end(wire)


@pytest.mark.rule("UM-5.g")
def test_getsockname_shows_the_bound_port_though_another_was_dialled() -> None:
    wire = Wire()
    door = listen_0(wire, port=8080)
    peer = Peer(wire, das(wire, door).address, port=5555, remote_port=443)
    session = accept_from(wire, door, peer)
    assert (session.port, session.local_port, session.remote_port) == (8080, 443, 5555)
    end(wire)


@pytest.mark.rule("UM-5.g")
def test_getsockname_of_a_client_shows_the_port_that_it_dialled_to() -> None:
    wire = Wire()
    legacy, unified = connect(wire, port=443), connect(wire, port=443, unified=True)
    assert (legacy.port, legacy.remote_port) == (443, 443)
    assert (unified.port, unified.remote_port) == (443, 1)
    end(wire)


# UM-6


@pytest.mark.rule("UM-6.a")
def test_on_a_shared_address_ports_choose_the_session() -> None:
    wire = Wire(shared=(address(SHARED),))
    web = wire.stack.listen(wire.now, address=address(SHARED), port=80)
    mail = wire.stack.listen(wire.now, address=address(SHARED), port=25)
    peers = [Peer(wire, SHARED, port=port, remote_port=to) for port, to in ((5001, 80), (5002, 80), (5001, 25))]
    sessions = [accept_from(wire, door, peer) for door, peer in zip((web, web, mail), peers, strict=True)]
    for number, peer in enumerate(peers):
        peer.send("PA", b"%d" % number)
    assert [session.read(9, wire.now) for session in sessions] == [b"0", b"1", b"2"]
    assert [session.port for session in sessions] == [80, 80, 25]
    for session in sessions:
        session.close(wire.now)
    end(wire)


@pytest.mark.rule("UM-6.a", "RFC 9293 3.10.7.1")
def test_a_port_of_a_shared_address_that_nobody_bound_is_refused_as_ever() -> None:
    wire = Wire(shared=(address(SHARED),))
    with dropped(wire, Drop.NO_PORT_OWNER, 4):
        wire.send(builders.tcp(PEER, SHARED, 5000, 81, "S", 7))
        wire.expect(checks.tcp("RA", seq=0, ack=8, sport=81, dport=5000))
        wire.send(builders.tcp(PEER, SHARED, 5000, 81, "A", 7, 1234))
        wire.expect(checks.tcp("R", seq=1234))
        wire.send(builders.tcp(PEER, SHARED, 5000, 81, "R", 7))
        wire.expect_silence()
        datagram = builders.udp(PEER, SHARED, 5000, 53, b"?")
        wire.send(datagram)
        wire.expect(checks.icmp(1, 4), checks.quotes(datagram))
    end(wire)


@pytest.mark.rule("UM-6.b", "RFC 6056 3.2", "RFC 6056 3.3")
def test_a_client_on_a_shared_address_takes_an_ephemeral_port() -> None:
    wire = Wire(shared=(address(SHARED),))
    sessions = [connect(wire, source=address(SHARED)) for _ in range(50)]
    ports = [seen.sport for seen in wire.take()]
    assert len(set(ports)) == 50
    assert all(1024 <= port <= 65535 for port in ports)
    assert ports != sorted(ports)
    assert [session.port for session in sessions] == ports
    assert {session.local for session in sessions} == {address(SHARED)}
    end(wire)


@pytest.mark.plain
@pytest.mark.rule("UM-6.c")
def test_unified_sessions_never_see_the_second_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("a unified session's packet went through the legacy stage")

    monkeypatch.setattr(PortMux, "receive", never)
    monkeypatch.setattr(PortMux, "on_icmp_error", never)
    wire = Wire(shared=(address(SHARED),))
    client, one = states.established(wire)
    server, other = states.established_server(wire)
    for session, peer in ((client, one), (server, other)):
        peer.send("PA", b"hello")
        assert session.read(9, wire.now) == b"hello"
        session.write(b"x", wire.now)
        quoted = peer.expect("PA", b"x").raw
        wire.send(builders.unreachable(STRANGER, quoted))
        session.abort(wire.now)
        peer.expect("RA")
    end(wire)


@pytest.mark.rule("UM-6.d")
def test_pair_and_ports_carry_the_same_transfer_by_the_same_code() -> None:
    def carry(*, legacy: bool) -> list[tuple[str, int]]:
        with Network(seed=3) as net:
            client, server = net.host("client", shared=[SHARED]), net.host("server", shared=["2001:db8:2::80"])
            if legacy:
                door = server.listen(address="2001:db8:2::80", port=80)
                session = client.connect("2001:db8:2::80", 80, source=address(SHARED))
            else:
                door = server.listen()
                session = client.connect(server.das(door).lease.address)
            net.run_until(lambda: door.readable)
            accepted = door.accept()
            assert accepted is not None
            assert type(accepted) is type(session) is TcpSession
            client.write(session, bytes(20_000))
            net.run_for(millis(500))
            assert len(server.read(accepted)) == 20_000
            client.close(session)
            server.close(accepted)
            net.run_for(millis(500))
            return [(seen.flags, len(seen.payload)) for seen in net.sent]

    assert carry(legacy=True) == carry(legacy=False)
