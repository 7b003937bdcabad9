"""An idle session packs itself; nobody can tell (tcp/session.py)."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.core.scene import OTHER, ROUTER, STRANGER, connect, das, dropped, end, listen_0, service, state_of
from umuxstack.core.config import TcpPolicy
from umuxstack.core.errors import Drop, Reason, SessionClosed
from umuxstack.core.tcp import state as st
from umuxstack.core.units import millis, seconds
from umuxstack.testing import builders, checks, states
from umuxstack.testing.peer import PEER, Peer
from umuxstack.testing.wire import Wire

ALL = builders.mss(1400) + builders.sack_permitted() + builders.timestamps(500) + builders.window_scale(5)


def asleep(
    wire: Wire, build: Callable[..., states.Built] = states.established, options: bytes = ALL, **peer: Any
) -> states.Built:
    session, remote = build(wire, options=options, **peer)
    wire.advance(seconds(5))
    assert session.asleep
    assert wire.take() == []
    return session, remote


@pytest.mark.parametrize("build", [states.established, states.established_server])
@pytest.mark.parametrize("options", [b"", ALL])
def test_it_costs_no_timer_and_shows_what_it_showed(build: Callable[..., states.Built], options: bytes) -> None:
    wire = Wire()
    session, _ = build(wire, options=options)
    before = (session.state, session.local, session.remote, session.writable, session.readable, session.eof)
    wire.advance(seconds(5))
    assert session.asleep
    assert (session.state, session.local, session.remote, session.writable, session.readable, session.eof) == before
    assert wire.stack.leftovers()["timers"] == 0
    assert list(wire.stack.sessions()) == [session]
    assert session.asleep
    end(wire)


@pytest.mark.parametrize("options", [b"", ALL])
@pytest.mark.parametrize("iss", [1000, 0xFFFFFFFE])
def test_a_segment_wakes_it_and_finds_everything_as_it_was(options: bytes, iss: int) -> None:
    wire = Wire()
    session, peer = states.established(wire, options=options, iss=iss)
    stamp: dict[str, Any] = {"options": builders.timestamps(501)} if options else {}
    peer.send("PA", b"before", **stamp)
    assert session.read(99, wire.now) == b"before"
    session.write(b"ours", wire.now)
    peer.expect("PA", b"ours")
    peer.send("A", **stamp)
    statistics = session.statistics()
    wire.advance(seconds(5))
    assert bool(session.asleep)
    peer.send("PA", b"after", **stamp)
    assert not session.asleep
    assert session.read(99, wire.now) == b"after"
    answer = peer.expect("A", ack=peer.snd_nxt, seq=peer.rcv_nxt, within=millis(100))
    assert (answer.options.timestamps is not None) == bool(options)
    woken = session.statistics()
    for field in ("srtt", "rto", "snd_mss", "snd_wscale", "rcv_wscale", "timestamps", "sack", "rcv_space", "snd_wnd"):
        assert getattr(woken, field) == getattr(statistics, field), field
    end(wire)


def test_writing_wakes_it() -> None:
    wire = Wire()
    session, peer = asleep(wire)
    session.write(b"hello", wire.now)
    seen = peer.expect("PA", b"hello")
    assert seen.options.timestamps is not None
    assert seen.options.timestamps[1] == 500
    end(wire)


def test_the_flow_label_and_the_timestamp_clock_survive() -> None:
    wire = Wire()
    session, peer = states.established(wire, options=ALL)
    session.write(b"x", wire.now)
    first = peer.expect("PA")
    peer.send("A", options=builders.timestamps(501))
    wire.advance(seconds(5))
    assert session.asleep
    session.write(b"y", wire.now)
    second = peer.expect("PA")
    assert first.flow == second.flow != 0
    assert first.options.timestamps is not None
    assert second.options.timestamps is not None
    assert second.options.timestamps[0] - first.options.timestamps[0] & 0xFFFFFFFF == 5000
    end(wire)


def test_the_largest_advertised_window_stays_open() -> None:
    wire = Wire()
    session, peer = asleep(wire)
    shift = wire.sent[0].options.window_scale or 0
    edge = wire.sent[-1].window << shift
    peer.send("A", b"x", seq=peer.snd_nxt + edge - 1, options=builders.timestamps(501))
    assert peer.expect("A").options.sack != ()
    session.abort(wire.now)
    wire.take()
    end(wire)


@pytest.mark.rule("UM-17.b", "UM-7.b")
def test_a_reset_ends_it_and_its_address() -> None:
    wire = Wire()
    session, peer = asleep(wire)
    peer.send("R")
    assert session.end_reason == Reason.RESET
    assert state_of(wire.stack, session.local) == "INVALID"
    end(wire)


@pytest.mark.parametrize("verb", ["close", "abort", "shutdown"])
def test_every_verb_wakes_it(verb: str) -> None:
    wire = Wire()
    session, peer = asleep(wire)
    getattr(session, verb)(wire.now)
    assert peer.expect().flags in (("RA",) if verb == "abort" else ("FA", "FPA"))
    end(wire)


@pytest.mark.rule("UM-33.b", "UM-1.c", "UM-32.b", "UM-39.c")
def test_asleep_it_refuses_what_it_refuses_awake() -> None:
    wire = Wire()
    session, peer = asleep(wire)
    with dropped(wire, Drop.NO_OWNER):
        wire.send(builders.tcp(OTHER, session.local, 80, 1, "A"))
    assert session.asleep
    with dropped(wire, Drop.FOREIGN_PROTOCOL):
        wire.send(builders.udp(PEER, session.local, 80, 1, b"?"))
    with dropped(wire, Drop.OTHER_PORTS):
        wire.send(peer.segment("S", port=81))
    peer.wire.expect(checks.tcp("RA", dport=81))
    with dropped(wire, Drop.ICMP_NOT_BELIEVED):
        wire.send(builders.packet_too_big(ROUTER, builders.tcp(session.local, PEER, 1, 80, seq=peer.rcv_nxt), 1280))
    assert session.state == st.ESTABLISHED
    end(wire)


@pytest.mark.rule("UM-26.e")
def test_a_second_connection_of_the_peer_of_a_sleeping_service_session() -> None:
    wire = Wire()
    door = service(wire)
    one, two = Peer(wire, door.lease.address, port=5001), Peer(wire, door.lease.address, port=5002)
    one.connect()
    first = door.accept()
    assert first is not None
    wire.advance(seconds(5))
    assert first.asleep
    two.connect()
    second = door.accept()
    assert second is not None
    for session, peer in ((first, one), (second, two)):
        peer.send("PA", b"x")
        assert session.read(9, wire.now) == b"x"
    end(wire)


def test_it_falls_asleep_again_and_again() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    for number in range(5):
        wire.advance(seconds(5))
        assert session.asleep
        peer.send("PA", b"%d" % number)
        assert session.read(9, wire.now) == b"%d" % number
        peer.expect("A", within=millis(100))
    end(wire)


@pytest.mark.parametrize("busy", ["unread", "unacknowledged", "half-closed", "keep-alive", "gap"])
def test_who_has_something_to_do_does_not_sleep(busy: str) -> None:
    wire = Wire()
    session, peer = states.established(wire)
    if busy == "unread":
        peer.send("PA", b"unread")
    elif busy == "unacknowledged":
        session.write(b"x", wire.now)
    elif busy == "half-closed":
        peer.send("FA")
    elif busy == "gap":
        peer.send("A", b"x", seq=peer.snd_nxt + 5)
    else:
        session.configure(keepalive=True, keepalive_idle=seconds(1000))
    wire.advance(seconds(20))
    assert not session.asleep
    wire.take()
    session.abort(wire.now)
    end(wire)


def test_a_stranger_s_packets_do_not_keep_it_awake() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    for _ in range(10):
        wire.send(builders.tcp(STRANGER, session.local, 80, 1, "A"), peer.segment("A", port=4))
        wire.advance(seconds(1))
    assert session.asleep
    end(wire)


@pytest.mark.parametrize("build", [states.established, states.established_server])
@pytest.mark.parametrize("options", [b"", ALL])
def test_the_end_of_the_stack_does_not_wake_it_and_looks_as_if(
    build: Callable[..., states.Built], options: bytes
) -> None:
    """A hundred thousand sleeping sessions were woken only to be aborted, which took three seconds."""
    told: list[object] = []
    for woken in (False, True):
        wire = Wire(seed=5)
        session, _ = build(wire, options=options)
        wire.advance(seconds(5))
        if woken:
            session.statistics()
            assert session.tcb.state == st.ESTABLISHED
        wire.stack.close(wire.now)
        assert session.asleep is not woken
        (seen,) = wire.take()
        assert seen.flags == "RA"
        assert session.readable
        assert session.writable
        assert session.eof
        assert session.orphan
        assert session.read(9, wire.now) == b""
        with pytest.raises(SessionClosed):
            session.write(b"x", wire.now)
        session.close(wire.now)
        session.abort(wire.now)
        told.append((seen.raw, session.state_name, session.end_reason, session.statistics().total_retrans))
        assert session in wire.stack.take_ready()
        kinds = [(event.kind, event.name, event.reason) for event in wire.stack.take_events()]
        told.append(kinds[-3:])
        assert not any(wire.stack.leftovers().values())
        assert wire.take() == []
    assert told[:2] == told[2:]


@pytest.mark.rule("UM-26.e")
def test_sleeping_sessions_of_a_service_end_with_the_stack_too() -> None:
    wire = Wire()
    door = service(wire)
    for number in range(3):
        Peer(wire, door.lease.address, port=5000 + number, address=f"2001:db8:2::{number + 1:x}").connect()
    wire.advance(seconds(5))
    assert all(session.asleep for session in wire.stack.sessions())  # type: ignore[union-attr]
    wire.stack.close(wire.now)
    assert [seen.flags for seen in wire.take()] == ["RA"] * 3
    assert not any(wire.stack.leftovers().values())


def test_it_marks_its_acknowledgements_as_before() -> None:
    """With `ecn_plus=2` all segments carry ECT(0), pure ACKs too; after the first sleep only data did."""
    wire = Wire(tcp=TcpPolicy(ecn=True, ecn_plus=2))
    door = listen_0(wire)
    peer = Peer(wire, das(wire, door).address)
    peer.send("SEC", options=ALL)
    peer.expect("SEA")
    peer.send("A", options=builders.timestamps(501))
    session = door.accept()
    assert session is not None
    wire.advance(seconds(5))
    assert session.asleep
    peer.send("PA", b"data", options=builders.timestamps(501))
    assert peer.expect("A", within=seconds(1)).ecn == 2
    session.abort(wire.now)
    wire.take()
    end(wire)


@pytest.mark.parametrize(
    ("options", "windows", "largest"),
    [
        (builders.mss(1400), [100, 60_001, 500], 60_001),
        (ALL, [100, 3001, 40], 3001 << 5),
        (ALL, [100, 65535, 0], 65535 << 5),
        (ALL, [100, 65535], 65535 << 5),
        (ALL, [65_521, 7], 65_521),  # the SYN-ACK's, which is not scaled
    ],
)
def test_it_knows_the_largest_window_that_the_peer_ever_offered(
    options: bytes, windows: list[int], largest: int
) -> None:
    """Awake again it took the window of now for the largest ever: less than half of what the peer can take went out as
    a small segment (RFC 9293 3.8.6.2.1), and an old ACK was answered with a challenge (RFC 5961 5.2)."""
    wire = Wire()
    session = connect(wire)
    peer = Peer(wire, session.local, port=80)
    peer.expect("S")
    peer.send("SA", options=options, window=windows[0])
    peer.expect("A")
    stamp = builders.timestamps(501) if options == ALL else b""
    for window in windows[1:]:
        peer.send("PA", b"x", options=stamp, window=window)
    session.read(9, wire.now)
    assert session.tcb.max_window == largest
    wire.advance(seconds(5))
    wire.take()
    assert session.asleep
    assert session.tcb.max_window == largest
    session.abort(wire.now)
    wire.take()
    end(wire)


def test_segments_that_are_to_be_acknowledged_at_once_are_not_forgotten() -> None:
    """Of a connection's first segments (`quick_acks`), those after the first sleep waited for the delayed ACK."""
    wire = Wire(tcp=TcpPolicy(quick_acks=3))
    session, peer = states.established(wire)
    for left in (2, 1, 0):
        peer.send("PA", b"x")
        peer.expect("A", ack=peer.snd_nxt)
        assert session.read(9, wire.now) == b"x"
        wire.advance(seconds(5))
        assert session.asleep
        assert session.tcb.quick_acks == left
    peer.send("PA", b"x")
    wire.expect_silence(millis(39))
    peer.expect("A", ack=peer.snd_nxt, within=millis(1))
    session.abort(wire.now)
    wire.take()
    end(wire)


def test_who_was_told_of_congestion_says_so_after_a_sleep_too() -> None:
    """RFC 3168 6.1.2: CWR goes out with the next new data. Over a sleep it was forgotten, and the peer told of the same
    mark again and again."""
    wire = Wire(tcp=TcpPolicy(ecn=True))
    session = connect(wire)
    peer = Peer(wire, session.local, port=80)
    peer.expect("SEC")
    peer.send("SAE", options=builders.mss(1440))
    peer.expect("A")
    session.write(b"marked on its way", wire.now)
    peer.expect("PA")
    peer.send("AE")
    wire.advance(seconds(5))
    assert session.asleep
    session.write(b"more", wire.now)
    assert "C" in peer.expect().flags
    session.abort(wire.now)
    wire.take()
    end(wire)
