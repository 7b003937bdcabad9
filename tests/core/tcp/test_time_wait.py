"""TIME-WAIT begins anew with the peer's FIN (RFC 9293 3.10.7.4), within bounds, and with nothing else."""

import pytest

from tests.core.scene import SERVICE, SHARED, address, end, lives, service
from umuxstack.core.config import TcpPolicy
from umuxstack.core.tcp.quiet import LONGEST
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.units import minutes, seconds
from umuxstack.testing import builders, states
from umuxstack.testing.peer import Peer
from umuxstack.testing.wire import Wire

MINUTE = minutes(1)


def repeat_fin(peer: Peer, **fields: object) -> None:
    peer.send("FA", seq=peer.snd_nxt - 1, **fields)  # type: ignore[arg-type]


def held(wire: Wire, session: TcpSession) -> bool:
    return lives(wire.stack, session.local)


@pytest.mark.rule("RFC 9293 3.10.7.4", "UM-36.b")
def test_a_repeated_fin_begins_it_anew() -> None:
    """The timer ran on: a peer that lost the ACK late met silence, and had to wait for its own timeout."""
    wire = Wire()
    session, peer = states.time_wait(wire)
    wire.advance(seconds(59))
    repeat_fin(peer)
    peer.expect("A", ack=peer.snd_nxt)
    wire.advance(MINUTE - 1)
    repeat_fin(peer)
    peer.expect("A", ack=peer.snd_nxt)
    wire.advance(MINUTE - 1)
    assert held(wire, session)
    wire.advance(1)
    assert not held(wire, session)
    wire.expect_silence()
    end(wire)


@pytest.mark.rule("RFC 9293 3.10.7.4")
def test_without_one_it_ends_in_its_time_also_among_others_that_began_anew() -> None:
    wire = Wire()
    first, peer = states.time_wait(wire)
    second, _ = states.time_wait(wire)
    wire.advance(seconds(30))
    repeat_fin(peer)
    wire.take()
    third, _ = states.time_wait(wire)
    wire.advance(seconds(30))
    assert [held(wire, s) for s in (first, second, third)] == [True, False, True]
    wire.advance(seconds(30))
    assert [held(wire, s) for s in (first, second, third)] == [False, False, False]
    end(wire)


def test_a_peer_cannot_hold_a_record_for_ever() -> None:
    wire = Wire()
    session, peer = states.time_wait(wire)
    begin = wire.now
    while held(wire, session):
        repeat_fin(peer)
        wire.take()
        wire.advance(seconds(20))
    assert wire.now - begin == LONGEST * MINUTE
    wire.take()
    end(wire)


def test_however_often_it_is_repeated_there_is_one_timer() -> None:
    wire = Wire()
    _, peer = states.time_wait(wire)
    for _ in range(200):
        repeat_fin(peer)
        wire.advance(1000)
    wire.take()
    assert wire.stack.leftovers()["timers"] == 1
    assert len(wire.stack._ctx.timers._heap) == 1
    assert len(wire.stack._ctx.restarted) == 1
    end(wire)
    assert not wire.stack._ctx.restarted


@pytest.mark.rule("RFC 9293 3.10.7.4", "RFC 5961 5.2")
@pytest.mark.parametrize(
    ("flags", "ahead", "payload"),
    [
        ("FA", -2, b""),
        ("FA", 0, b""),
        ("FA", -100_000, b""),
        ("F", -1, b""),
        ("FA", -1, b"x"),
        ("A", -1, b""),
        ("SF", -2, b""),
    ],
)
def test_nothing_else_begins_it_anew(flags: str, ahead: int, payload: bytes) -> None:
    wire = Wire()
    session, peer = states.time_wait(wire)
    wire.advance(seconds(30))
    peer.send(flags, payload, seq=peer.snd_nxt + ahead)
    wire.advance(seconds(30))
    assert not held(wire, session)
    wire.take()
    end(wire)


@pytest.mark.rule("RFC 7323 5.3")
@pytest.mark.parametrize(("tsval", "longer"), [(99, False), (100, True), (101, True), (None, False)])
def test_a_fin_older_than_the_fin_does_not(tsval: int | None, longer: bool) -> None:
    wire = Wire()
    session, peer = states.established(wire, options=builders.timestamps(100))
    session.close(wire.now)
    wire.take()
    peer.rcv_nxt = peer.rcv_nxt + 1 & 0xFFFFFFFF
    peer.send("FA", options=builders.timestamps(100))
    wire.take()
    wire.advance(seconds(30))
    repeat_fin(peer, options=b"" if tsval is None else builders.timestamps(tsval))
    wire.advance(seconds(30))
    assert held(wire, session) == longer
    wire.take()
    end(wire)


@pytest.mark.rule("UM-33.d", "RFC 6191 2")
def test_a_record_that_began_anew_gives_way_to_a_new_connection() -> None:
    wire = Wire()
    door = service(wire)
    peer = Peer(wire, SERVICE)
    peer.connect()
    session = door.accept()
    assert session is not None
    session.close(wire.now)
    wire.take()
    peer.rcv_nxt = peer.rcv_nxt + 1 & 0xFFFFFFFF
    peer.send("FA")
    wire.take()
    repeat_fin(peer)
    wire.take()
    assert wire.stack.leftovers()["timers"] == 1
    again = Peer(wire, SERVICE, iss=peer.snd_nxt + 1)
    again.connect()
    assert wire.stack.leftovers()["timers"] == 0
    newer = door.accept()
    assert newer is not None
    wire.advance(minutes(20))
    assert newer.established
    again.send("PA", b"still here")
    assert newer.read(99, wire.now) == b"still here"
    end(wire)


def test_after_an_abort_a_fin_changes_nothing() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    session.abort(wire.now)
    wire.take()
    wire.advance(seconds(30))
    peer.send("FA")
    peer.expect("R")
    wire.advance(seconds(30))
    assert not held(wire, session)
    end(wire)


def test_a_session_s_own_duration_counts() -> None:
    wire = Wire(tcp=TcpPolicy(time_wait=seconds(60)))
    session, peer = states.established(wire)
    session.configure(time_wait=seconds(5))
    session.close(wire.now)
    wire.take()
    peer.rcv_nxt = peer.rcv_nxt + 1 & 0xFFFFFFFF
    peer.send("FA")
    wire.take()
    wire.advance(seconds(4))
    repeat_fin(peer)
    wire.take()
    wire.advance(seconds(5) - 1)
    assert held(wire, session)
    wire.advance(1)
    assert not held(wire, session)
    end(wire)


@pytest.mark.parametrize("shared", [True, False])
def test_a_record_in_a_second_stage_begins_anew_and_leaves_it(shared: bool) -> None:
    wire = Wire(shared=(address(SHARED),))
    where = address(SHARED if shared else SERVICE)
    door = wire.stack.listen(wire.now, address=where, port=1)
    peers = [Peer(wire, where, port=port) for port in (5, 6)]
    sessions = []
    for peer in peers:
        peer.connect()
        sessions.append(door.accept())
    first, other = sessions
    assert first is not None
    assert other is not None
    first.close(wire.now)
    wire.take()
    peers[0].rcv_nxt = peers[0].rcv_nxt + 1 & 0xFFFFFFFF
    peers[0].send("FA")
    wire.take()
    wire.advance(seconds(40))
    repeat_fin(peers[0])
    peers[0].expect("A")
    wire.advance(seconds(40))
    repeat_fin(peers[0])
    peers[0].expect("A")
    wire.advance(MINUTE)
    assert not wire.stack._ctx.restarted
    repeat_fin(peers[0])
    wire.take()
    peers[1].send("PA", b"still here")
    assert other.read(99, wire.now) == b"still here"
    end(wire)
