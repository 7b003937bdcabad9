"""What ports used to give, without them: docs/ports.md names these tests."""

from itertools import pairwise
from zlib import crc32

import pytest

from tests.core.scene import OTHER, PEER, SERVICE, UNHELD, address, connect, das, dropped, end, listen_0, lives, service
from umuxstack.core.config import TcpPolicy
from umuxstack.core.errors import AddressInUse, Drop
from umuxstack.core.tcp import state as st
from umuxstack.core.units import FIXED_PORT, seconds
from umuxstack.testing import builders, checks, states
from umuxstack.testing.peer import Peer
from umuxstack.testing.wire import Wire

MASK = 0xFFFFFFFF


# MUST-41, MUST-42: passive OPEN


@pytest.mark.rule("RFC 9293 MUST-41", "UM-20.a", "UM-27.a")
def test_a_further_listen_on_the_same_port_touches_nothing_that_was_there() -> None:
    wire = Wire()
    first = listen_0(wire, port=80)
    waiting, used = das(wire, first), das(wire, first)
    early = Peer(wire, used.address, port=5)
    early.connect()
    session = first.accept()
    assert session is not None
    second = listen_0(wire, port=80)
    other = das(wire, second)
    late = Peer(wire, waiting.address, port=6)
    late.connect()
    assert first.accept() is not None
    assert second.accept() is None
    second.close(wire.now)
    assert not lives(wire.stack, other.address)
    early.send("PA", b"still here")
    assert session.read(99, wire.now) == b"still here"
    end(wire)


@pytest.mark.rule("RFC 9293 MUST-41")
def test_or_it_is_an_error_and_nothing_changes() -> None:
    wire = Wire()
    door = service(wire)
    with pytest.raises(AddressInUse):
        service(wire)
    Peer(wire, address(SERVICE)).connect()
    assert door.accept() is not None
    end(wire)


@pytest.mark.rule("RFC 9293 MUST-42", "UM-22.c", "UM-23.b")
def test_listening_goes_on_beside_sessions_of_that_port_that_are_being_opened() -> None:
    wire = Wire()
    door = listen_0(wire, port=80)
    one = das(wire, door)
    coming = Peer(wire, one.address, port=5)
    coming.send("S")
    coming.expect("SA")
    going = connect(wire, PEER, 80)
    wire.take()
    assert {s.state for s in wire.stack.sessions()} == {st.SYN_RECEIVED, st.SYN_SENT}  # type: ignore[union-attr]
    listen_0(wire, port=80)
    two = das(wire, door)
    Peer(wire, two.address, port=6).connect()
    Peer(wire, one.address, address=OTHER, port=7).connect()  # another candidate for the very same SSA
    assert [door.accept() is not None for _ in range(3)] == [True, True, False]
    assert going.state == st.SYN_SENT
    end(wire)


# Initial sequence numbers (RFC 6528)


def number(wire: Wire) -> int:
    connect(wire)
    return wire.expect(checks.tcp("S")).seq


@pytest.mark.rule("UM-35.o", "RFC 6528 3")
def test_the_number_of_one_ea_tells_nothing_of_the_next() -> None:
    wire = Wire(seed=5)
    numbers = [number(wire) for _ in range(1000)]
    steps = [later - earlier & MASK for earlier, later in pairwise(numbers)]
    assert len(set(numbers)) == 1000
    assert len(set(steps)) == 999
    assert 400 < sum(step < 1 << 31 for step in steps) < 600  # they go up as often as down


@pytest.mark.rule("UM-35.o", "RFC 6528 3")
def test_on_a_pair_that_comes_back_they_go_up_with_the_clock() -> None:
    """Service and shared addresses: M + F(pair, ports), and F is the same again."""
    wire = Wire(shared=(address("2001:db8:1::80"),))
    door = service(wire)
    seen: list[tuple[int, int]] = []
    for _ in range(5):
        peer = Peer(wire, address(SERVICE), port=4000, iss=len(seen) * 1_000_000)
        peer.send("S")
        seen.append((wire.now, wire.expect(checks.tcp("SA")).seq))
        peer.send("R", seq=peer.snd_nxt)
        wire.advance(seconds(10))
    assert door.accept() is None
    for (before, low), (after, high) in pairwise(seen):
        assert high - low & MASK == (after - before) // 4
    end(wire)


# TIME-WAIT


@pytest.mark.rule("UM-19.a", "UM-36.a", "UM-12.a")
def test_time_wait_takes_nothing_from_whom_comes_next() -> None:
    """One address has 64,512 ports to one server, and each rests for a minute: 1,075 connections a second."""
    wire = Wire()
    used = set()
    for _ in range(300):  # all within one instant
        session, peer = states.time_wait(wire)
        assert session.local not in used
        used.add(session.local)
    assert wire.stack.leftovers()["records"] == 300
    assert peer.port == 80
    wire.advance(seconds(60))
    assert wire.stack.leftovers()["records"] == 0
    end(wire)


# Blind attacks


@pytest.mark.rule("UM-30.a", "UM-33.f")
@pytest.mark.parametrize("known", [True, False])
def test_a_forged_datagram_must_hit_the_address_and_once_it_does_the_fixed_port_keeps_nobody_out(known: bool) -> None:
    """The loss: with ports it would have to guess one of 64,512 as well."""
    wire = Wire()
    socket = wire.stack.udp(wire.now)
    socket.connect(address(PEER), 53, wire.now)
    socket.send(b"question", wire.now)
    ours = wire.expect(checks.udp(sport=FIXED_PORT)).source
    target = ours if known else address(UNHELD)
    with dropped(wire, Drop.NO_OWNER, 0 if known else 1):
        wire.send(builders.udp(PEER, target, 53, FIXED_PORT, b"a lie"))
    assert socket.readable == known
    end(wire)


@pytest.mark.rule("UM-35.t", "RFC 5961 3.2", "RFC 5961 4.2", "RFC 5961 5.2")
@pytest.mark.parametrize(
    ("flags", "ahead", "ack", "ended"),
    [
        ("R", 0, 0, True),
        ("R", 1, 0, False),
        ("S", 0, 0, False),
        ("PA", 1, -(1 << 30), False),
        ("PA", 1, 1 << 30, False),
    ],
)
def test_who_knows_the_addresses_must_still_hit_the_numbers(flags: str, ahead: int, ack: int, ended: bool) -> None:
    wire = Wire()
    session, peer = states.established(wire)
    peer.send(flags, b"lie" if "P" in flags else b"", seq=peer.snd_nxt + ahead & MASK, ack=peer.rcv_nxt + ack & MASK)
    assert session.ended == ended
    assert session.read(9, wire.now) == b""
    wire.take()
    end(wire)


@pytest.mark.rule("UM-39.c", "RFC 5927 4.1")
def test_a_forged_error_must_hit_the_address_and_the_numbers_in_flight() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    session.write(bytes(1440), wire.now)
    segment = peer.expect().raw
    una = int.from_bytes(segment[44:48], "big")
    for local, seq, believed in (
        (address(UNHELD), una, False),
        (session.local, una + 1440, False),
        (session.local, una - 1, False),
        (session.local, una + 1439, True),
    ):
        quoted = builders.tcp(local, PEER, FIXED_PORT, 80, "A", seq & MASK)
        wire.send(builders.packet_too_big("2001:db8:bad::1", quoted, 1280))
        assert (session.statistics().snd_mss == 1220) == believed
    end(wire)


# Middleboxes


@pytest.mark.rule("UM-4.b")
def test_the_fixed_port_can_be_another_where_a_firewall_dislikes_1() -> None:
    wire = Wire(fixed_port=40_000)
    connect(wire)
    assert wire.expect(checks.tcp("S")).sport == 40_000
    end(wire)


@pytest.mark.rule("UM-26.e")
def test_clients_whom_a_nat_makes_one_are_told_apart_by_ports_where_several_may_come() -> None:
    wire = Wire()
    door = service(wire)
    ssa = das(wire, listen_0(wire))
    for port in (1024, 1025, 1026):  # what the NAT made of three clients that all came from port 1
        Peer(wire, address(SERVICE), port=port).connect()
    assert [door.accept() is not None for _ in range(4)] == [True, True, True, False]
    Peer(wire, ssa.address, port=1024).connect()
    second = Peer(wire, ssa.address, port=1025)
    second.send("S")
    assert wire.expect().flags == "RA"  # and an SSA takes one of them
    end(wire)


@pytest.mark.rule("8504-5.1-12")
def test_sessions_spread_over_the_paths_of_a_hash_without_ports() -> None:
    """ECMP by addresses and flow label: 256 sessions to one server, 8 paths."""
    wire = Wire(seed=3, tcp=TcpPolicy())
    paths = [0] * 8
    for _ in range(256):
        connect(wire)
        seen = wire.expect(checks.tcp("S"))
        paths[crc32(seen.raw[1:4] + seen.raw[8:44]) % 8] += 1
    assert min(paths) >= 12
    end(wire)
