"""SYN cookies (RFC 4987 3.6): a flood at a service or a shared address costs no memory, and guests still come in."""

from typing import Any

import pytest

from tests.core.scene import OTHER, SERVICE, SHARED, address, das, dropped, end, listen_0, service
from umuxstack.core.errors import Drop
from umuxstack.core.units import minutes, seconds
from umuxstack.testing import builders
from umuxstack.testing.peer import Peer
from umuxstack.testing.wire import Wire

BOUND = 8  # half-open sessions of a listener with a small backlog


def flooded(kind: str) -> tuple[Wire, Any, str]:
    """A listener with as many half-open sessions as it keeps."""
    wire = Wire(shared=(address(SHARED),))
    where = SERVICE if kind == "service" else SHARED
    if kind == "service":
        door: Any = service(wire, port=80, backlog=5)
    else:
        door = wire.stack.listen(wire.now, address=address(SHARED), port=80, backlog=5)
    for number in range(BOUND):
        wire.send(builders.tcp(f"2001:db8:666::{number:x}", where, 5, 80, "S"))
    assert len(wire.take()) == BOUND
    return wire, door, where


both = pytest.mark.parametrize("kind", ["service", "shared"])


@both
@pytest.mark.rule("UM-26.a", "RFC 4987 3.6")
def test_beyond_the_bound_a_syn_is_answered_and_forgotten(kind: str) -> None:
    wire, door, where = flooded(kind)
    before = wire.stack.leftovers()
    with dropped(wire, Drop.BACKLOG, 500):
        for number in range(500):
            wire.send(builders.tcp(f"2001:db8:667::{number:x}", where, 5, 80, "S"))
    answers = wire.take()
    assert {seen.flags for seen in answers} == {"SA"}
    assert len({seen.seq for seen in answers}) > 490
    assert wire.stack.leftovers() == before
    door.close(wire.now)
    end(wire)


@both
@pytest.mark.rule("UM-26.a", "RFC 4987 3.6")
@pytest.mark.parametrize(("mss", "size"), [(1440, 1440), (1300, 1220), (536, 536), (0, 1220)])
def test_who_completes_the_handshake_comes_in(kind: str, mss: int, size: int) -> None:
    wire, door, where = flooded(kind)
    peer = Peer(wire, where, address=OTHER, port=7, remote_port=80)
    peer.connect(builders.mss(mss) if mss else builders.window_scale(2))
    session = door.accept()
    assert session is not None
    assert (session.remote, session.remote_port, session.local_port) == (address(OTHER), 7, 80)
    peer.send("PA", b"hello")
    assert session.read(9, wire.now) == b"hello"
    session.write(bytes(3000), wire.now)
    assert max(len(seen.payload) for seen in wire.take()) == size
    session.abort(wire.now)
    door.close(wire.now)
    wire.take()
    end(wire)


@both
@pytest.mark.rule("RFC 4987 3.6")
def test_data_with_the_completing_ack_is_taken(kind: str) -> None:
    wire, door, where = flooded(kind)
    peer = Peer(wire, where, address=OTHER, remote_port=80)
    peer.send("S", options=builders.mss(1440))
    peer.expect("SA")
    peer.send("PA", b"GET /")
    session = door.accept()
    assert session is not None
    assert session.read(99, wire.now) == b"GET /"
    session.close(wire.now)
    wire.take()
    door.close(wire.now)
    end(wire)


@both
@pytest.mark.rule("RFC 4987 3.6")
@pytest.mark.parametrize("wrong", ["ack", "seq", "port", "address", "late", "checksum"])
def test_a_forged_or_stale_cookie_is_worth_nothing(kind: str, wrong: str) -> None:
    wire, door, where = flooded(kind)
    peer = Peer(wire, where, address=OTHER, port=7, remote_port=80)
    peer.send("S", options=builders.mss(1440))
    peer.expect("SA")
    fields: dict[str, Any] = {}
    if wrong == "ack":
        fields["ack"] = peer.rcv_nxt ^ 0x100
    elif wrong == "seq":
        fields["seq"] = peer.snd_nxt + 1
    elif wrong == "port":
        fields["port"] = 8
    elif wrong == "address":
        fields["address"] = address("2001:db8:2::77")
    elif wrong == "checksum":
        fields["checksum"] = 1
    else:
        wire.advance(seconds(200))
        wire.take()
    peer.send("A", **fields)
    assert door.accept() is None
    assert all("R" in seen.flags for seen in wire.take())
    door.close(wire.now)
    end(wire)


@pytest.mark.rule("UM-23.c", "UM-23.g")
def test_an_ssa_uses_no_cookies() -> None:
    wire = Wire()
    door = listen_0(wire)
    ssa = das(wire, door).address
    for number in range(20):
        wire.send(builders.tcp(f"2001:db8:667::{number:x}", ssa, 5, 80, "S"))
    answers = wire.take()
    assert len(answers) == 20
    forgotten = answers[0]
    with dropped(wire, Drop.NOT_A_SYN):
        wire.send(builders.tcp(forgotten.destination, ssa, 5, 80, "A", 1, forgotten.seq + 1))
    wire.expect_silence()
    assert door.accept() is None
    wire.advance(minutes(2))
    wire.take()
    end(wire)


@both
def test_a_full_queue_accepts_nobody(kind: str) -> None:
    wire, door, where = flooded(kind)
    for number in range(5):
        Peer(wire, where, address=f"2001:db8:2::{number:x}", remote_port=80).connect()
    with dropped(wire, Drop.BACKLOG):
        wire.send(builders.tcp(OTHER, where, 9, 80, "S"))
    wire.expect_silence()
    while door.accept() is not None:
        pass
    door.close(wire.now)
    end(wire)


def test_a_session_that_a_cookie_s_answer_never_joined_falls_asleep() -> None:
    """It stood alone in its pair's second stage for the rest of its life, and who stands there stays awake."""
    wire = Wire()
    door = service(wire, port=80, backlog=5)
    peer = Peer(wire, SERVICE, address=OTHER, port=7, remote_port=80)
    peer.connect()
    session = door.accept()
    assert session is not None
    for number in range(BOUND):
        wire.send(builders.tcp(f"2001:db8:666::{number:x}", SERVICE, 5, 80, "S"))
    wire.send(builders.tcp(OTHER, SERVICE, 8, 80, "S"))
    assert wire.take()[-1].flags == "SA"
    wire.advance(seconds(60))
    wire.take()
    assert not bool(session.asleep), "an answer to the cookie may still come, and must find the door"
    wire.advance(minutes(5))
    wire.take()
    assert session.asleep
    peer.send("PA", b"hello")
    assert session.read(9, wire.now) == b"hello"
    wire.send(builders.tcp(OTHER, SERVICE, 10, 80, "S"))
    assert wire.take()[-1].flags == "SA", "further connections of the same peer come in as before"
    session.abort(wire.now)
    door.close(wire.now)
    wire.take()
    end(wire)
