"""SPEC section 5: LISTEN_0, DAS, LISTEN_U, and the one connection that it takes."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.core.scene import (
    OTHER,
    PEER,
    SHARED,
    STRANGER,
    UNHELD,
    address,
    connect,
    das,
    dropped,
    end,
    everything,
    is_fin,
    listen_0,
    lives,
    service,
    state_of,
    udp_das,
)
from umuxstack.core.errors import (
    AddressInUse,
    AddressMalformed,
    AddressNotOurs,
    AddressUsed,
    BacklogFull,
    BadArgument,
    Drop,
    LocalError,
    NoSuchObject,
    NotListening,
    Reason,
)
from umuxstack.core.events import EventKind
from umuxstack.core.tcp import state as st
from umuxstack.core.units import NEVER, Address, Micros, millis, minutes, seconds
from umuxstack.testing import builders, checks, states
from umuxstack.testing.builders import packed
from umuxstack.testing.network import Network
from umuxstack.testing.peer import Peer
from umuxstack.testing.wire import Wire

# UM-20


@pytest.mark.rule("UM-20.a")
def test_listen_0_accepts_no_connection_from_anywhere() -> None:
    wire = Wire()
    door = listen_0(wire, port=80)
    somewhere = [int.from_bytes(address("2001:db8:1::"), "big") + n for n in (1, 80, 0xDEAD, 1 << 63)]
    with dropped(wire, Drop.NO_OWNER, 4):
        for where in somewhere:
            wire.send(builders.tcp(PEER, where.to_bytes(16, "big"), 5000, 80, "S"))
    wire.expect_silence(minutes(1))
    assert not door.readable
    assert door.accept() is None
    end(wire)


@pytest.mark.rule("UM-20.b")
def test_to_the_application_it_looks_like_listen() -> None:
    wire = Wire(shared=(address(SHARED),))
    unified, legacy = listen_0(wire, port=80), wire.stack.listen(wire.now, address=address(SHARED), port=80)
    for door in (unified, legacy):
        assert (door.port, door.backlog, door.closed, door.readable, door.accept()) == (80, 128, False, False, None)
    assert unified.kind == "LISTEN_0"
    assert list(wire.stack.leases()) == [legacy.mux.lease]  # type: ignore[attr-defined]  # it holds no address
    end(wire)


# UM-21, UM-22


@pytest.mark.rule("UM-21.a", "UM-21.b", "UM-29.c")
def test_das_from_outside_makes_a_child_that_waits_on_that_ssa_alone() -> None:
    wire = Wire()
    door = listen_0(wire, port=80)
    wire.advance(minutes(60))  # any time after listen()
    ssa = address("2001:db8:1::5:5a")
    waiting = das(wire, door, ssa=ssa)
    assert door.children == {ssa: waiting}
    assert (waiting.parent, waiting.address, waiting.state_name) == (door, ssa, "WAITING")
    with dropped(wire, Drop.NO_OWNER):
        wire.send(builders.tcp(PEER, "2001:db8:1::5:5b", 5000, 80, "S"))
    wire.expect_silence()
    peer = Peer(wire, ssa)
    peer.connect()
    assert door.accept() is not None
    end(wire)


@pytest.mark.rule("UM-22.a")
def test_a_second_connection_to_an_ssa_meets_silence() -> None:
    wire = Wire()
    session, peer = states.established_server(wire)
    with dropped(wire, Drop.NO_OWNER, 2):
        for _ in range(2):
            wire.send(builders.tcp(OTHER, session.local, 5000, peer.remote_port, "S"))
    wire.expect_silence(minutes(1))
    assert session.established
    end(wire)


@pytest.mark.rule("UM-22.b")
def test_it_comes_through_accept_and_its_local_address_is_the_ssa() -> None:
    wire = Wire()
    door = listen_0(wire)
    ssa = das(wire, door).address
    peer = Peer(wire, ssa)
    wire.stack.take_ready()
    peer.connect()
    assert door in wire.stack.take_ready()
    session = door.accept()
    assert session is not None
    assert (session.local, session.remote, session.lease.address) == (ssa, address(PEER), ssa)
    assert door.accept() is None
    end(wire)


@pytest.mark.rule("UM-22.c")
def test_many_listen_u_exist_beside_each_other() -> None:
    wire = Wire()
    door = listen_0(wire)
    ssas = [das(wire, door).address for _ in range(20)]
    assert len(set(ssas)) == len(door.children) == 20
    for number in (7, 3, 19):
        Peer(wire, ssas[number]).connect()
        session = door.accept()
        assert session is not None
        assert session.local == ssas[number]
    assert len(door.children) == 17
    end(wire)


# UM-23


@pytest.mark.rule("UM-23.a")
def test_a_forged_syn_burns_nothing() -> None:
    wire = Wire()
    door = listen_0(wire)
    ssa = das(wire, door).address
    wire.send(builders.tcp(STRANGER, ssa, 1, 1, "S"))
    wire.expect(checks.sent_to(STRANGER), checks.tcp("SA"))
    wire.send(builders.tcp(OTHER, ssa, 1, 1, "S"))
    wire.expect(checks.sent_to(OTHER), checks.tcp("SA"))
    wire.send(builders.tcp(OTHER, ssa, 1, 1, "R", 1))  # the forged one's owner says that it sent nothing
    peer = Peer(wire, ssa)
    peer.connect()
    session = door.accept()
    assert session is not None
    assert session.remote == address(PEER)
    end(wire)


@pytest.mark.rule("UM-23.a")
def test_an_abandoned_handshake_burns_nothing() -> None:
    wire = Wire(das_lifetime=minutes(10))
    door = listen_0(wire)
    ssa = das(wire, door).address
    states.syn_received(wire, ssa, address=OTHER)
    wire.advance(seconds(64))  # all its SYN-ACKs went unanswered
    assert len([seen for seen in wire.take() if seen.flags == "SA"]) == 5
    assert list(wire.stack.sessions()) == []
    assert lives(wire.stack, ssa)
    Peer(wire, ssa).connect()
    assert door.accept() is not None
    end(wire)


@pytest.mark.rule("UM-23.b")
def test_candidates_borrow_the_lease_and_the_listen_u_waits_on() -> None:
    wire = Wire()
    waiting = das(wire, listen_0(wire))
    for number in range(3):
        session, _ = states.syn_received(wire, waiting.address, address=f"2001:db8:2::{number:x}")
        assert session.lease is waiting.lease
        assert session.state == st.SYN_RECEIVED
        assert waiting.state_name == "WAITING"
        assert wire.stack.doors() == [waiting]
    assert wire.stack.leftovers()["pairs"] == 3
    assert wire.stack.leftovers()["leases"] == 1
    end(wire)


@pytest.mark.rule("UM-23.c")
@pytest.mark.parametrize("limit", [8, 3])
def test_at_most_8_candidates_and_the_oldest_makes_room(limit: int) -> None:
    wire = Wire() if limit == 8 else Wire(candidates=limit)
    door = listen_0(wire)
    ssa = das(wire, door).address
    built = [states.syn_received(wire, ssa, address=f"2001:db8:2::{number + 1:x}") for number in range(limit)]
    assert wire.stack.leftovers()["pairs"] == limit
    _, newest = states.syn_received(wire, ssa, address="2001:db8:2::ffff")
    assert wire.stack.leftovers()["pairs"] == limit
    assert [session.end_reason for session, _ in built] == [Reason.REPLACED] + [Reason.NONE] * (limit - 1)
    with dropped(wire, Drop.NOT_A_SYN):
        built[0][1].send("A")  # it has gone: its ACK meets the LISTEN_U, silently
    wire.expect_silence()
    built[1][1].send("A")
    session = door.accept()
    assert session is not None
    assert session.remote == built[1][1].address
    assert newest.address != session.remote
    end(wire)


@pytest.mark.rule("UM-23.d", "UM-25.a")
def test_the_winner_takes_the_lease_and_the_listen_u_is_spent() -> None:
    wire = Wire()
    door = listen_0(wire)
    waiting = das(wire, door)
    session, peer = states.syn_received(wire, waiting.address)
    peer.send("A")
    assert waiting.state_name == "SPENT"
    assert session.lease is waiting.lease
    assert wire.stack.doors() == []
    assert door.children == {}
    wire.advance(minutes(10))  # the lifetime of the waiting has no hold on the session
    assert state_of(wire.stack, waiting.address) == "VALID"
    session.abort(wire.now)
    wire.take()
    wire.advance(minutes(1))
    assert not lives(wire.stack, waiting.address)
    end(wire)


@pytest.mark.rule("UM-23.e")
def test_the_losers_vanish_silently_when_somebody_wins() -> None:
    wire = Wire()
    door = listen_0(wire)
    ssa = das(wire, door).address
    losers = [states.syn_received(wire, ssa, address=f"2001:db8:2::{number + 9:x}") for number in range(4)]
    Peer(wire, ssa).connect()
    assert [session.end_reason for session, _ in losers] == [Reason.LOST_RACE] * 4
    with dropped(wire, Drop.NO_OWNER, 4):
        for _, peer in losers:
            peer.send("A")
    wire.expect_silence(minutes(2))
    assert len(list(wire.stack.sessions())) == 1
    end(wire)


def expire(wire: Wire, door: Any, ssa: Address) -> None:
    wire.advance(seconds(60) - wire.now % seconds(60) + seconds(1000) % seconds(60))
    wire.take()


def revoke(wire: Wire, door: Any, ssa: Address) -> None:
    wire.stack.revoke(ssa, wire.now)


def close_parent(wire: Wire, door: Any, ssa: Address) -> None:
    door.close(wire.now)


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        pytest.param(expire, Reason.EXPIRED, marks=pytest.mark.rule("UM-25.b")),
        pytest.param(revoke, Reason.REVOKED, marks=pytest.mark.rule("UM-24.f", "UM-25.c")),
        pytest.param(close_parent, Reason.PARENT_CLOSED, marks=pytest.mark.rule("UM-27.a")),
    ],
)
@pytest.mark.rule("UM-23.f")
def test_candidates_and_ssa_vanish_silently_when_the_waiting_ends(
    finish: Callable[[Wire, Any, Address], None], reason: Reason
) -> None:
    wire = Wire()
    door = listen_0(wire)
    waiting = das(wire, door)
    session, peer = states.syn_received(wire, waiting.address)
    finish(wire, door, waiting.address)
    assert session.end_reason == reason
    assert waiting.state_name == "SPENT"
    assert not lives(wire.stack, waiting.address)
    with dropped(wire, Drop.NO_OWNER, 2):
        peer.send("A")
        wire.send(builders.tcp(OTHER, waiting.address, 1, 1, "S"))
    wire.expect_silence(minutes(2))
    ended = [event for event in wire.stack.take_events() if event.kind == EventKind.LISTEN_U_ENDED]
    assert [event.reason for event in ended] == [reason]
    with pytest.raises(AddressUsed):
        das(wire, listen_0(wire), ssa=waiting.address)
    end(wire)


ANYTHING_ELSE: dict[str, tuple[Callable[[Address], bytes], Drop]] = {
    **{
        flags: (lambda ssa, flags=flags: builders.tcp(PEER, ssa, 5, 80, flags, 7, 9), Drop.NOT_A_SYN)  # type: ignore[misc]
        for flags in ("A", "F", "R", "RA", "FA", "SA", "SF", "SR", "SFA", "PA", "FPUA", "", "U", "FPU")
    },
    "data": (lambda ssa: builders.tcp(PEER, ssa, 5, 80, "PA", 7, 9, payload=b"hello"), Drop.NOT_A_SYN),
    "port 0": (lambda ssa: builders.tcp(PEER, ssa, 0, 80, "S"), Drop.NOT_A_SYN),
    "to port 0": (lambda ssa: builders.tcp(PEER, ssa, 5, 0, "S"), Drop.NOT_A_SYN),
    "udp": (lambda ssa: builders.udp(PEER, ssa, 5, 80, b"?"), Drop.FOREIGN_PROTOCOL),
    "echo": (lambda ssa: builders.echo_request(PEER, ssa), Drop.FOREIGN_PROTOCOL),
    "echo reply": (lambda ssa: builders.echo_reply(PEER, ssa), Drop.FOREIGN_PROTOCOL),
    "solicitation": (lambda ssa: builders.icmp6(PEER, ssa, 135, body=ssa), Drop.FOREIGN_PROTOCOL),
    "sctp": (lambda ssa: builders.ipv6(PEER, ssa, 132, bytes(12)), Drop.FOREIGN_PROTOCOL),
    "no next header": (lambda ssa: builders.ipv6(PEER, ssa, 59, b""), Drop.FOREIGN_PROTOCOL),
    "bad checksum": (lambda ssa: builders.tcp(PEER, ssa, 5, 80, "S", checksum=1), Drop.BAD_CHECKSUM),
    "short": (lambda ssa: builders.ipv6(PEER, ssa, 6, bytes(19)), Drop.BAD_HEADER),
    "bad offset": (lambda ssa: builders.tcp(PEER, ssa, 5, 80, "S", offset=4), Drop.BAD_HEADER),
    "offset beyond": (lambda ssa: builders.tcp(PEER, ssa, 5, 80, "S", offset=15), Drop.BAD_HEADER),
    "bad option": (
        lambda ssa: builders.ipv6(
            PEER, ssa, 6, bytes(20), extensions=[builders.destination_options(builders.option(0x80))]
        ),
        Drop.BAD_EXTENSION,
    ),
    "routing": (
        lambda ssa: builders.ipv6(PEER, ssa, 6, bytes(20), extensions=[builders.routing(0, 1)]),
        Drop.BAD_EXTENSION,
    ),
}


@pytest.mark.rule("UM-23.g", "UM-30.a", "UM-31.a")
@pytest.mark.parametrize("name", ANYTHING_ELSE)
def test_anything_but_a_pure_syn_meets_silence_at_a_listen_u(name: str) -> None:
    wire = Wire()
    waiting = das(wire, listen_0(wire))
    build, reason = ANYTHING_ELSE[name]
    with dropped(wire, reason):
        wire.send(build(waiting.address))
    wire.expect_silence(seconds(30))
    assert (waiting.state_name, waiting.candidates) == ("WAITING", [])
    end(wire)


@pytest.mark.rule("UM-23.g")
@pytest.mark.parametrize("flags", ["S", "SP", "SU", "SEC", "SPU"])
def test_a_syn_with_flags_that_change_nothing_is_a_syn(flags: str) -> None:
    wire = Wire()
    wire.send(builders.tcp(PEER, wire.minted(), 5, 80, flags, 7))
    wire.expect(checks.tcp(lambda answer: answer.startswith("S") and answer.endswith("A"), ack=8))
    end(wire)


# UM-24


@pytest.mark.rule("UM-24.a")
def test_a_listener_is_found_by_id_and_by_name() -> None:
    wire = Wire()
    door, other = listen_0(wire, name="httpd"), listen_0(wire)
    assert wire.stack.find_listener("httpd") is door
    assert wire.stack.find_listener(door.id) is door
    assert wire.stack.find_listener(str(other.id)) is other
    assert other.name not in ("", "httpd")
    with pytest.raises(NoSuchObject, match="httpd"):
        wire.stack.find_listener("telnetd")
    with pytest.raises(AddressInUse):
        listen_0(wire, name="httpd")
    door.close(wire.now)
    with pytest.raises(NoSuchObject):
        wire.stack.find_listener("httpd")
    end(wire)


@pytest.mark.rule("UM-24.b")
def test_das_returns_the_ssa_given_or_minted() -> None:
    wire = Wire()
    door = listen_0(wire)
    assert das(wire, door, ssa=address(UNHELD)).lease.address == address(UNHELD)
    before = wire.stack.pool_statistics()
    minted = das(wire, door)
    assert wire.stack.pool_statistics().issued == before.issued + 1
    assert lives(wire.stack, minted.address)
    end(wire)


@pytest.mark.rule("UM-24.c", "UM-32.a")
@pytest.mark.parametrize(
    ("allowed", "length", "welcome"),
    [(PEER, 128, [PEER]), ("2001:db8:2::", 64, [PEER, OTHER]), ("::", 0, [PEER, OTHER, STRANGER])],
)
def test_a_peer_or_prefix_that_alone_may_come(allowed: str, length: int, welcome: list[str]) -> None:
    wire = Wire()
    waiting = das(wire, listen_0(wire), peer=(address(allowed), length))
    for where in (PEER, OTHER, STRANGER):
        with dropped(wire, Drop.PEER_NOT_ALLOWED, int(where not in welcome)):
            wire.send(builders.tcp(where, waiting.address, 5, 80, "S"))
        if where in welcome:
            wire.expect(checks.sent_to(where), checks.tcp("SA"))
        assert wire.take() == []
    end(wire)


@pytest.mark.rule("UM-24.d", "UM-25.b")
def test_a_lifetime_for_the_waiting_60_s_by_default() -> None:
    wire = Wire()
    door = listen_0(wire)
    default, short, ever = das(wire, door), das(wire, door, lifetime=seconds(1)), das(wire, door, lifetime=NEVER)
    for duration, living in (
        (seconds(1) - 1, [True, True, True]),
        (1, [True, False, True]),
        (seconds(59) - 1, [True, False, True]),
        (1, [False, False, True]),
        (minutes(60 * 24 * 400), [False, False, True]),
    ):
        wire.advance(duration)
        assert [lives(wire.stack, waiting.address) for waiting in (default, short, ever)] == living
    assert wire.take() == []
    Peer(wire, ever.address).connect()
    assert door.accept() is not None
    end(wire)


@pytest.mark.rule("UM-24.d")
def test_the_default_lifetime_is_configured() -> None:
    wire = Wire(das_lifetime=seconds(5))
    waiting = das(wire, listen_0(wire))
    assert waiting.expires == wire.now + seconds(5)
    end(wire)


@pytest.mark.rule("UM-24.e")
def test_a_label_goes_with_the_lease_and_its_events() -> None:
    wire = Wire()
    door = listen_0(wire, name="httpd")
    waiting = das(wire, door, label="/index.html")
    assert waiting.lease.label == "/index.html"
    assert waiting.lease.name == "ssa.httpd.1"
    assert {event.label for event in wire.stack.take_events() if event.name == waiting.lease.name} == {"/index.html"}
    end(wire)


@pytest.mark.rule("UM-24.f")
def test_what_waits_can_be_listed_and_revoked_by_address_or_name() -> None:
    wire = Wire()
    door, socket = listen_0(wire, name="httpd"), wire.stack.udp(wire.now, name="dns")
    one, two, three = das(wire, door), das(wire, door), udp_das(wire, socket)
    assert wire.stack.doors() == [one, two, three]
    wire.stack.revoke("ssa.httpd.1", wire.now)
    wire.stack.revoke(three.address, wire.now)
    assert wire.stack.doors() == [two]
    for gone in ("ssa.httpd.1", three.address, "nothing"):
        with pytest.raises(NoSuchObject):
            wire.stack.revoke(gone, wire.now)
    end(wire)


def _refused(wire: Wire, error: type[LocalError], door: Any, **options: Any) -> None:
    before = everything(wire.stack)
    with pytest.raises(error) as caught:
        wire.stack.das(door, wire.now, **options)
    assert str(caught.value)
    assert everything(wire.stack) == before
    assert wire.take() == []


@pytest.mark.rule("UM-24.g")
@pytest.mark.parametrize(
    "where", [STRANGER, "2001:db8:0:ffff:ffff:ffff:ffff:ffff", "2001:db8:1:1::1", "::1", "fe80::1"]
)
def test_an_ssa_that_is_not_ours_is_refused(where: str) -> None:
    wire = Wire()
    _refused(wire, AddressNotOurs, listen_0(wire), ssa=address(where))
    end(wire)


@pytest.mark.rule("UM-24.h")
def test_an_ssa_in_use_is_refused() -> None:
    wire = Wire(shared=(address(SHARED),))
    door = listen_0(wire)
    client, _ = states.established(wire)
    server, _ = states.established_server(wire)
    held = [client.local, server.local, das(wire, door).address, service(wire).lease.address, address(SHARED)]
    for where in held:
        _refused(wire, AddressInUse, door, ssa=where)
    wire.take()
    end(wire)


@pytest.mark.rule("UM-24.i", "UM-12.a")
def test_an_ssa_used_before_is_refused() -> None:
    wire = Wire()
    door = listen_0(wire)
    for used in (das(wire, door, ssa=address(UNHELD)), das(wire, door)):
        wire.stack.revoke(used.address, wire.now)
        _refused(wire, AddressUsed, door, ssa=used.address)
    end(wire)


@pytest.mark.rule("UM-24.j")
@pytest.mark.parametrize("where", [b"", b"short", bytes(17), packed("2001:db8:1::")])
def test_a_malformed_ssa_is_refused(where: bytes) -> None:
    wire = Wire()
    _refused(wire, AddressMalformed, listen_0(wire), ssa=Address(where))
    end(wire)


@pytest.mark.rule("UM-24.g", "UM-24.j")
def test_other_arguments_that_cannot_be_are_refused_as_well() -> None:
    wire = Wire(shared=(address(SHARED),))
    door, socket = listen_0(wire), wire.stack.udp(wire.now)
    closed, shut = listen_0(wire), wire.stack.udp(wire.now)
    closed.close(wire.now)
    shut.close(wire.now)
    bound = wire.stack.udp(wire.now, address=address(UNHELD), port=53)
    legacy = wire.stack.listen(wire.now, address=address(SHARED), port=80)
    for error, where, options in (
        (BadArgument, door, {"grain": "service"}),
        (BadArgument, door, {"grain": "client", "pin": 96}),
        (BadArgument, door, {"lifetime": Micros(0)}),
        (BadArgument, door, {"lifetime": Micros(-1)}),
        (AddressMalformed, door, {"peer": (Address(b"short"), 128)}),
        (AddressMalformed, door, {"peer": (address(PEER), 129)}),
        (AddressMalformed, door, {"peer": (address("ff02::1"), 128)}),
        (BadArgument, socket, {"grain": "client"}),
        (NotListening, closed, {}),
        (NotListening, shut, {}),
        (NotListening, bound, {}),
        (NotListening, legacy, {}),
        (NotListening, service(wire), {}),
    ):
        _refused(wire, error, where, **options)
    end(wire)


# UM-26


@pytest.mark.rule("UM-26.a")
def test_a_service_has_one_address_and_many_peers() -> None:
    wire = Wire()
    door = service(wire, port=80)
    built = []
    for number in range(20):
        peer = Peer(wire, door.lease.address, address=f"2001:db8:2::{number + 1:x}", remote_port=80)
        peer.connect()
        session = door.accept()
        assert session is not None
        built.append((session, peer))
    for session, peer in built:
        peer.send("PA", peer.address)
        assert session.read(99, wire.now) == peer.address == session.remote
        assert session.lease is door.lease
    wire.advance(seconds(1))
    wire.take()
    session, peer = built[0]
    session.close(wire.now)
    peer.expect(is_fin)
    peer.send("FA")
    peer.expect("A")
    wire.advance(minutes(2))
    assert state_of(wire.stack, door.lease.address) == "VALID"  # the address is the service's, not its sessions'
    end(wire)


@pytest.mark.rule("UM-26.a")
def test_a_service_s_address_ends_with_the_last_of_listener_and_sessions() -> None:
    wire = Wire()
    door = service(wire)
    peer = Peer(wire, door.lease.address)
    peer.connect()
    session = door.accept()
    assert session is not None
    door.close(wire.now)
    assert state_of(wire.stack, door.lease.address) == "RETIRING"
    with dropped(wire, Drop.NO_OWNER):
        wire.send(builders.tcp(OTHER, door.lease.address, 1, 1, "S"))
    peer.send("PA", b"still")
    assert session.read(9, wire.now) == b"still"
    peer.send("R")
    assert not lives(wire.stack, door.lease.address)
    end(wire)


@pytest.mark.rule("UM-26.b")
def test_client_grain_is_pinned_to_the_first_that_completes_a_handshake() -> None:
    wire = Wire()
    door = listen_0(wire)
    waiting = das(wire, door, grain="client")
    loser, _ = states.syn_received(wire, waiting.address, address=OTHER)
    first, second = Peer(wire, waiting.address, port=5001), Peer(wire, waiting.address, port=5002)
    first.connect()
    assert waiting.state_name == "PINNED"
    assert loser.end_reason == Reason.LOST_RACE
    with dropped(wire, Drop.PEER_NOT_ALLOWED):
        wire.send(builders.tcp(OTHER, waiting.address, 1, 1, "S"))
    wire.expect_silence(seconds(1))
    second.connect()
    sessions = [door.accept(), door.accept()]
    for number, peer in enumerate((first, second)):
        peer.send("PA", b"%d" % number)
    assert [session.read(9, wire.now) for session in sessions if session] == [b"0", b"1"]
    assert {session.local for session in sessions if session} == {waiting.address}
    end(wire)


@pytest.mark.rule("UM-26.b", "UM-26.e")
def test_a_browser_s_connections_may_begin_all_at_once() -> None:
    """The second SYN took the first one's place, whose client then hung: it had its SYN-ACK already."""
    wire = Wire()
    door = listen_0(wire)
    waiting = das(wire, door, grain="client")
    peers = [Peer(wire, waiting.address, port=5000 + n) for n in range(4)]
    for peer in peers:
        peer.send("S")
        peer.expect("SA")
    for peer in reversed(peers):
        peer.send("PA", b"%d" % peer.port)
    sessions = [door.accept() for _ in peers]
    assert [session.read(9, wire.now) for session in sessions if session] == [b"5003", b"5002", b"5001", b"5000"]
    end(wire)


@pytest.mark.rule("UM-26.b")
def test_or_to_its_64() -> None:
    wire = Wire()
    door = listen_0(wire)
    waiting = das(wire, door, grain="client", pin=64)
    Peer(wire, waiting.address, address=PEER).connect()
    Peer(wire, waiting.address, address=OTHER).connect()  # of the same /64
    assert [session.remote for session in (door.accept(), door.accept()) if session] == [address(PEER), address(OTHER)]
    with dropped(wire, Drop.PEER_NOT_ALLOWED):
        wire.send(builders.tcp(STRANGER, waiting.address, 1, 1, "S"))
    wire.expect_silence(seconds(1))
    end(wire)


@pytest.mark.rule("UM-24.c", "UM-26.b")
def test_pinning_to_a_64_never_admits_whom_das_did_not_allow() -> None:
    """The /64 of the first client replaced the one address that alone might come."""
    wire = Wire()
    door = listen_0(wire)
    waiting = das(wire, door, grain="client", pin=64, peer=(address(PEER), 128))
    Peer(wire, waiting.address, address=PEER).connect()
    with dropped(wire, Drop.PEER_NOT_ALLOWED):
        wire.send(builders.tcp(OTHER, waiting.address, 1, 1, "S"))
    wire.expect_silence(seconds(1))
    end(wire)


@pytest.mark.rule("UM-26.c")
def test_client_grain_ends_60_s_after_the_last_connection() -> None:
    wire = Wire()
    door = listen_0(wire)
    waiting = das(wire, door, grain="client", lifetime=seconds(10))
    first, second = Peer(wire, waiting.address, port=5001), Peer(wire, waiting.address, port=5002)
    first.connect()
    second.connect()
    wire.advance(minutes(10))  # as long as a connection lives
    first.send("R")
    wire.advance(minutes(10))
    assert waiting.state_name == "PINNED"
    second.send("R")
    assert waiting.state_name == "LINGERING"
    wire.advance(seconds(59))
    third = Peer(wire, waiting.address, port=5003)
    third.connect()  # it may come again
    assert waiting.state_name == "PINNED"
    third.send("R")
    wire.advance(seconds(60) - 1)
    assert state_of(wire.stack, waiting.address) == "VALID"
    wire.advance(1)
    assert not lives(wire.stack, waiting.address)
    with dropped(wire, Drop.NO_OWNER):
        wire.send(first.segment("S"))
    end(wire)


@pytest.mark.rule("UM-26.d")
def test_session_is_the_default_grain() -> None:
    wire = Wire()
    waiting = das(wire, listen_0(wire))
    assert (waiting.grain, waiting.lease.grain) == ("session", "session")
    end(wire)


@pytest.mark.rule("UM-26.e")
def test_connections_of_one_peer_to_a_service_are_told_apart_inside_that_pair_only() -> None:
    wire = Wire()
    door = service(wire, port=80)
    peers = [Peer(wire, door.lease.address, port=5000 + n, remote_port=80) for n in range(4)]
    lone = Peer(wire, door.lease.address, address=OTHER, port=5000, remote_port=80)
    for peer in (*peers, lone):
        peer.connect()
    sessions = [door.accept() for _ in range(5)]
    for number, peer in enumerate((*peers, lone)):
        peer.send("PA", b"%d" % number)
    assert [session.read(9, wire.now) for session in sessions if session] == [b"0", b"1", b"2", b"3", b"4"]
    pairs = wire.stack._ctx.demux.pairs
    assert len(pairs) == 2
    assert {type(owner).__name__ for owner in pairs.values()} == {"PairMux", "SleepyConnection"}
    for peer in peers[:3]:
        peer.send("R")
    assert {type(owner).__name__ for owner in pairs.values()} == {"SleepyConnection"}  # the last takes the place back
    peers[3].send("PA", b"last")
    last = sessions[3]
    assert last is not None
    assert last.read(9, wire.now) == b"last"
    end(wire)


@pytest.mark.rule("UM-26.e", "UM-39.d")
def test_an_icmp_error_finds_its_connection_inside_the_pair() -> None:
    wire = Wire()
    door = service(wire)
    peers = [Peer(wire, door.lease.address, port=5000 + n) for n in range(2)]
    for peer in peers:
        peer.connect()
    sessions = [door.accept() for _ in peers]
    for session in sessions:
        assert session is not None
        session.write(bytes(1400), wire.now)
    quoted = [seen.raw for seen in wire.take() if len(seen.payload) > 1000]
    wire.send(builders.packet_too_big(STRANGER, quoted[1], 1300))
    assert [s.statistics().snd_mss for s in sessions if s] == [1440, 1240]
    forged = quoted[1][:40] + b"\x99\x99" + quoted[1][42:]
    with dropped(wire, Drop.ICMP_NOT_BELIEVED):
        wire.send(builders.packet_too_big(STRANGER, forged, 1290))
    wire.take()
    end(wire)


@pytest.mark.rule("UM-24.f", "UM-26.e", "UM-31.a")
@pytest.mark.parametrize("finish", [revoke, close_parent])
def test_a_client_grain_that_is_over_takes_no_more_from_a_client_with_several_connections(
    finish: Callable[[Wire, Any, Address], None],
) -> None:
    """The second stage inside the pair went on handing SYNs to the spent LISTEN_U, which answered SYN-ACK."""
    wire = Wire()
    door = listen_0(wire)
    waiting = das(wire, door, grain="client")
    peers = [Peer(wire, waiting.address, port=5000 + n) for n in range(2)]
    for peer in peers:
        peer.connect()
    sessions = [door.accept() for _ in peers]
    finish(wire, door, waiting.address)
    assert waiting.state_name == "SPENT"
    wire.send(builders.tcp(PEER, waiting.address, 5003, 1, "S", 7))
    wire.expect(checks.tcp("RA", sport=1, dport=5003, ack=8))  # UM-33: synchronized, a pure SYN gets RST
    for number, peer in enumerate(peers):
        peer.send("PA", b"%d" % number)
    assert [session.read(9, wire.now) for session in sessions if session] == [b"0", b"1"]
    for peer in peers:
        peer.send("R")
    assert not lives(wire.stack, waiting.address)
    end(wire)


@pytest.mark.rule("UM-26.a", "UM-26.e")
def test_nor_does_a_service_that_was_closed() -> None:
    """Likewise: a closed service still answered SYN-ACK to a peer that had two connections."""
    wire = Wire()
    door = service(wire)
    peers = [Peer(wire, door.lease.address, port=5000 + n) for n in range(2)]
    for peer in peers:
        peer.connect()
    sessions = [door.accept() for _ in peers]
    door.close(wire.now)
    wire.send(builders.tcp(PEER, door.lease.address, 5003, 1, "S", 7))
    wire.expect(checks.tcp("RA", sport=1, dport=5003, ack=8))
    for number, peer in enumerate(peers):
        peer.send("PA", b"%d" % number)
    assert [session.read(9, wire.now) for session in sessions if session] == [b"0", b"1"]
    end(wire)


# UM-27


@pytest.mark.rule("UM-27.a", "UM-27.b", "UM-27.c")
def test_closing_the_listen_0() -> None:
    wire = Wire()
    door = listen_0(wire)
    waiting, queued, taken = das(wire, door), das(wire, door), das(wire, door)
    first, second = Peer(wire, taken.address), Peer(wire, queued.address, address=OTHER)
    first.connect()
    accepted = door.accept()
    second.connect()
    assert accepted is not None
    door.close(wire.now)
    assert door.readable  # a waiting accept() hears of it
    second.expect("RA", seq=second.rcv_nxt)
    assert wire.take() == []
    assert [state_of(wire.stack, w.address) for w in (waiting, queued, taken)] == ["INVALID", "RETIRING", "VALID"]
    first.send("PA", b"lives on")
    assert accepted.read(99, wire.now) == b"lives on"
    with dropped(wire, Drop.NO_OWNER):
        wire.send(builders.tcp(PEER, waiting.address, 1, 1, "S"))
    door.close(wire.now)  # again changes nothing
    assert wire.stack.listeners() == []
    end(wire)


@pytest.mark.rule("UM-27.d", "UM-27.e")
def test_das_reserves_its_place_and_is_refused_when_the_backlog_is_used_up() -> None:
    wire = Wire()
    door = listen_0(wire, backlog=3)
    doors = [das(wire, door) for _ in range(3)]
    _refused(wire, BacklogFull, door)
    for waiting in doors:  # every one of them finds its place
        Peer(wire, waiting.address).connect()
    _refused(wire, BacklogFull, door)
    assert [door.accept() is not None for _ in range(4)] == [True, True, True, False]
    again = das(wire, door)
    wire.stack.revoke(again.address, wire.now)  # what is revoked or expires gives its place back
    das(wire, door)
    das(wire, door)
    das(wire, door)
    wire.advance(seconds(61))
    assert door.reserved == 0
    wire.take()
    end(wire)


@pytest.mark.rule("UM-27.e")
def test_further_connections_of_a_client_need_room_of_their_own() -> None:
    wire = Wire()
    door = listen_0(wire, backlog=1)
    waiting = das(wire, door, grain="client")
    Peer(wire, waiting.address, port=5001).connect()
    with dropped(wire, Drop.BACKLOG):
        wire.send(builders.tcp(PEER, waiting.address, 5002, 1, "S"))
    wire.expect_silence()
    assert door.accept() is not None
    Peer(wire, waiting.address, port=5002).connect()
    assert door.accept() is not None
    end(wire)


# UM-28


@pytest.mark.rule("UM-28.a")
def test_a_bound_udp_socket_waits_like_a_listen_0() -> None:
    wire = Wire()
    socket = wire.stack.udp(wire.now, port=53)
    with dropped(wire, Drop.NO_OWNER):
        wire.send(builders.udp(PEER, UNHELD, 999, 53, b"?"))
    wire.expect_silence()
    assert not socket.readable
    assert list(wire.stack.leases()) == []
    end(wire)


@pytest.mark.rule("UM-28.b", "UM-32.b")
def test_das_opens_one_address_for_one_peer_s_session() -> None:
    wire = Wire()
    socket = wire.stack.udp(wire.now, port=53)
    waiting = udp_das(wire, socket)
    wire.send(builders.udp(PEER, waiting.address, 999, 53, b"first"))
    assert waiting.state_name == "SPENT"
    with dropped(wire, Drop.NO_OWNER):
        wire.send(builders.udp(OTHER, waiting.address, 999, 53, b"too late"))
    wire.send(builders.udp(PEER, waiting.address, 999, 53, b"second"))
    received = [socket.receive_datagram(), socket.receive_datagram(), socket.receive_datagram()]
    assert [(d.data, d.local) if d else None for d in received] == [
        (b"first", waiting.address),
        (b"second", waiting.address),
        None,
    ]
    wire.expect_silence()
    end(wire)


@pytest.mark.rule("UM-28.b", "UM-24.c", "UM-23.g")
def test_a_udp_ssa_takes_only_a_sound_datagram_of_a_peer_that_may_come() -> None:
    wire = Wire()
    socket = wire.stack.udp(wire.now)
    waiting = udp_das(wire, socket, peer=(address(PEER), 128))
    for reason, packet in (
        (Drop.PEER_NOT_ALLOWED, builders.udp(OTHER, waiting.address, payload=b"?")),
        (Drop.BAD_CHECKSUM, builders.udp(PEER, waiting.address, payload=b"?", checksum=7)),
        (Drop.FOREIGN_PROTOCOL, builders.tcp(PEER, waiting.address, flags="S")),
        (Drop.FOREIGN_PROTOCOL, builders.echo_request(PEER, waiting.address)),
    ):
        with dropped(wire, reason):
            wire.send(packet)
    wire.expect_silence()
    assert waiting.state_name == "WAITING"
    wire.send(builders.udp(PEER, waiting.address, payload=b"!"))
    assert waiting.state_name == "SPENT"
    end(wire)


@pytest.mark.rule("UM-28.b", "UM-25.b", "UM-25.c", "UM-27.a")
def test_a_udp_ssa_ends_by_time_by_revocation_and_with_its_socket() -> None:
    wire = Wire()
    socket = wire.stack.udp(wire.now)
    one, two, three = udp_das(wire, socket, lifetime=seconds(1)), udp_das(wire, socket), udp_das(wire, socket)
    wire.advance(seconds(1))
    wire.stack.revoke(two.address, wire.now)
    assert [lives(wire.stack, door.address) for door in (one, two, three)] == [False, False, True]
    socket.close(wire.now)
    assert not lives(wire.stack, three.address)
    with dropped(wire, Drop.NO_OWNER, 3):
        for door in (one, two, three):
            wire.send(builders.udp(PEER, door.address, payload=b"?"))
    reasons = [e.reason for e in wire.stack.take_events() if e.kind == EventKind.LISTEN_U_ENDED]
    assert reasons == [Reason.EXPIRED, Reason.REVOKED, Reason.PARENT_CLOSED]
    end(wire)


# The whole, between stacks


@pytest.mark.rule("UM-20.a", "UM-21.a", "UM-22.a", "UM-22.b")
def test_the_deck_s_procedure_between_two_stacks() -> None:
    with Network() as net:
        server, client, late = net.hosts("server", "client", "late")
        door = server.listen(port=80)
        waiting = server.das(door)
        session = client.connect(waiting.lease.address, 80)
        net.run_until(lambda: door.readable)
        accepted = door.accept()
        assert accepted is not None
        second = late.connect(waiting.lease.address, 80)
        net.run_for(minutes(5))
        assert session.established
        assert second.end_reason == Reason.TIMED_OUT
        assert net.sent_by(server, to=late) == []
        client.close(session)
        net.run_for(millis(10))
        assert accepted.eof


def test_everything_ends_although_the_application_never_accepts() -> None:
    wire = Wire()
    door = listen_0(wire)
    peer = Peer(wire, das(wire, door).address)
    peer.connect()
    peer.send("PA", b"hello?")
    session = connect(wire)
    assert session.state == st.SYN_SENT
    end(wire)
