"""UM-16: a source that an application chose may have several peers, as long as it lives (UM-1, UM-7, UM-12)."""

from collections.abc import Callable

import pytest

from tests.core.scene import OTHER, SERVICE, address, connect, das, end, everything, listen_0, service, state_of
from umuxstack.core.errors import AddressInUse, AddressUsed, LocalError, Reason
from umuxstack.core.events import EventKind
from umuxstack.core.tcp import state as st
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.units import seconds
from umuxstack.testing import states
from umuxstack.testing.peer import PEER, Peer
from umuxstack.testing.wire import Wire

CHOSEN = "2001:db8:1::c405:e4"
THIRD = "2001:db8:2::3"


def opened(wire: Wire, peer: str) -> tuple[TcpSession, Peer]:
    session = connect(wire, peer, source=address(CHOSEN))
    other = Peer(wire, session.local, address=peer, port=80)
    other.accept()
    assert session.established
    return session, other


def close_in_order(session: TcpSession, peer: Peer) -> None:
    session.close(peer.wire.now)
    peer.expect("FA")
    peer.send("FA")
    assert session.end_reason == Reason.CLOSED
    peer.wire.take()


@pytest.mark.rule("UM-16.a", "UM-1.a", "UM-19.a")
def test_sessions_with_different_peers_share_a_source() -> None:
    """The second one was refused as if the address belonged to somebody else."""
    wire = Wire()
    before = wire.stack.pool_statistics().issued
    pairs = [opened(wire, peer) for peer in (PEER, OTHER, THIRD)]
    assert len({session.lease.name for session, _ in pairs}) == 1
    assert wire.stack.leftovers()["leases"] == 1
    assert wire.stack.pool_statistics().issued == before
    for number, (session, peer) in enumerate(pairs):
        peer.send("PA", b"to %d" % number)
        session.write(b"from %d" % number, wire.now)
    assert [session.read(99, wire.now) for session, _ in pairs] == [b"to 0", b"to 1", b"to 2"]
    for _, peer in pairs:
        peer.wire.take()
    kinds = [event.kind for event in wire.stack.take_events()]
    assert kinds.count(EventKind.LEASE_OPENED) == 1
    end(wire)


@pytest.mark.rule("UM-7.a", "UM-7.b", "UM-8.a", "UM-12.a")
@pytest.mark.parametrize("scheme", ["sealed", "random"])
def test_the_address_goes_with_the_last_of_them(scheme: str) -> None:
    wire = Wire(scheme=scheme)
    where = address(CHOSEN)
    (one, first), (two, second) = opened(wire, PEER), opened(wire, OTHER)
    one.close(wire.now)
    first.expect("FA")
    assert state_of(wire.stack, where) == "VALID", "the other session is open"
    three, third = opened(wire, THIRD)
    third.send("R")
    assert three.end_reason == Reason.RESET
    assert state_of(wire.stack, where) == "VALID"
    two.close(wire.now)
    second.expect("FA")
    assert state_of(wire.stack, where) == "RETIRING", "the application has closed all of them"
    with pytest.raises(AddressInUse):
        connect(wire, THIRD, source=where)
    first.send("FA")
    second.send("FA")
    wire.take()
    wire.advance(seconds(61))
    assert state_of(wire.stack, where) == "INVALID"
    assert wire.stack.leftovers()["leases"] == 0
    if scheme == "sealed":
        with pytest.raises(AddressUsed):
            connect(wire, THIRD, source=where)
    end(wire)


@pytest.mark.rule("UM-7.a", "UM-12.a")
@pytest.mark.parametrize("last", ["closed", "reset", "aborted", "refused", "timed out"])
def test_however_the_last_one_ends(last: str) -> None:
    wire = Wire()
    one, first = opened(wire, PEER)
    two = connect(wire, OTHER, source=address(CHOSEN))
    second = Peer(wire, two.local, address=OTHER, port=80)
    if last in ("refused", "timed out"):
        second.expect("S")
    else:
        second.accept()
    close_in_order(one, first)
    wire.advance(seconds(61))  # its record is forgotten too
    wire.take()
    if last == "closed":
        close_in_order(two, second)
    elif last == "reset":
        second.send("R")
    elif last == "refused":
        second.send("RA", seq=0)
    elif last == "aborted":
        two.abort(wire.now)
    assert state_of(wire.stack, address(CHOSEN)) == {
        "closed": "RETIRING", "aborted": "RETIRING", "timed out": "VALID"
    }.get(last, "INVALID")  # fmt: skip
    wire.advance(seconds(200))
    wire.take()
    assert two.ended
    assert state_of(wire.stack, address(CHOSEN)) == "INVALID"
    end(wire)


@pytest.mark.rule("UM-3.a", "UM-7.a")
def test_asleep_they_share_it_as_well() -> None:
    wire = Wire()
    (one, first), (two, second) = opened(wire, PEER), opened(wire, OTHER)
    wire.advance(seconds(5))
    assert one.asleep
    assert two.asleep
    assert [lease.address for lease in wire.stack.leases()] == [address(CHOSEN)]
    three, third = opened(wire, THIRD)
    for session, peer in ((one, first), (two, second), (three, third)):
        peer.send("PA", b"x")
        assert session.read(9, wire.now) == b"x"
        close_in_order(session, peer)
    wire.advance(seconds(61))
    assert state_of(wire.stack, address(CHOSEN)) == "INVALID"
    end(wire)


@pytest.mark.rule("UM-1.a", "UM-3.a")
@pytest.mark.parametrize("state", ["alive", "time-wait", "aborted"])
def test_one_session_for_one_pair(state: str) -> None:
    """Without ports there is nothing else to tell two of them apart by; nor a new one from an old one's record."""
    wire = Wire()
    (one, first), (two, _) = opened(wire, PEER), opened(wire, OTHER)
    if state == "time-wait":
        close_in_order(one, first)
    elif state == "aborted":
        one.abort(wire.now)
        wire.take()
    before = everything(wire.stack)
    with pytest.raises(AddressInUse, match="these two addresses"):
        connect(wire, PEER, source=address(CHOSEN))
    assert everything(wire.stack) == before
    wire.advance(seconds(61))
    if state != "alive":  # the other session has kept the address, and the record is forgotten
        again, _ = opened(wire, PEER)
        assert again.state == st.ESTABLISHED
        again.abort(wire.now)
    assert two.established
    wire.take()
    end(wire)


@pytest.mark.rule("UM-7.c", "UM-12.a", "UM-17.a")
@pytest.mark.parametrize("scheme", ["sealed", "random"])
def test_an_address_that_was_not_chosen_as_a_source_is_nobody_s_to_join(scheme: str) -> None:
    wire = Wire(scheme=scheme)
    ea, _ = states.established(wire)
    accepted, _ = states.established_server(wire)
    door = listen_0(wire)
    waiting = das(wire, door)
    service(wire)
    before = everything(wire.stack)
    for where in (ea.local, accepted.local, waiting.address, address(SERVICE)):
        with pytest.raises(AddressInUse):
            connect(wire, THIRD, source=where)
    assert everything(wire.stack) == before
    end(wire)


@pytest.mark.rule("UM-24.d", "UM-12.a")
def test_nobody_else_gets_a_chosen_source_while_it_lives() -> None:
    wire = Wire()
    opened(wire, PEER)
    door = listen_0(wire)
    before = everything(wire.stack)
    attempts: list[Callable[[], object]] = [
        lambda: das(wire, door, ssa=address(CHOSEN)),
        lambda: service(wire, CHOSEN),
        lambda: wire.stack.udp(wire.now, address=address(CHOSEN), port=53),
    ]
    for attempt in attempts:
        with pytest.raises(LocalError):
            attempt()
    assert everything(wire.stack) == before
    end(wire)


def test_a_thousand_sessions_of_one_source_end_without_a_trace() -> None:
    wire = Wire()
    sessions = [connect(wire, f"2001:db8:77::{number:x}", source=address(CHOSEN)) for number in range(1, 1001)]
    wire.take()
    for session in sessions[::2]:
        session.abort(wire.now)
    assert state_of(wire.stack, address(CHOSEN)) == "VALID"
    for session in sessions[1::2]:
        session.close(wire.now)
    assert state_of(wire.stack, address(CHOSEN)) == "INVALID"
    assert not any(count for name, count in wire.stack.leftovers().items() if name != "timers")
    end(wire)
