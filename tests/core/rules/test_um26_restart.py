"""A service that starts again at its address, while sessions of its former life still have it (UM-26, UM-33, UM-36).

As a kernel's server with SO_REUSEADDR: at once, whatever has become of the old connections, which go on undisturbed.
It was refused, for as long as an old session was open, and for a minute in FIN-WAIT.
"""

from collections.abc import Callable

import pytest

from tests.core.scene import (
    OTHER,
    SERVICE,
    SHARED,
    address,
    connect,
    das,
    end,
    everything,
    is_fin,
    listen_0,
    lives,
    service,
)
from umuxstack.core.errors import AddressInUse, LocalError
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.units import seconds
from umuxstack.testing.peer import Peer
from umuxstack.testing.wire import Wire

Deed = Callable[[Wire, TcpSession, Peer], None]


def nothing(wire: Wire, session: TcpSession, peer: Peer) -> None:
    pass


def closed_by_us(wire: Wire, session: TcpSession, peer: Peer) -> None:
    session.close(wire.now)
    peer.expect(is_fin)


def closed_by_us_and_acknowledged(wire: Wire, session: TcpSession, peer: Peer) -> None:
    closed_by_us(wire, session, peer)
    peer.send("A")


def closed_by_them(wire: Wire, session: TcpSession, peer: Peer) -> None:
    peer.send("FA")
    peer.expect("A")


def closed_by_both(wire: Wire, session: TcpSession, peer: Peer) -> None:
    closed_by_us(wire, session, peer)
    peer.send("FA")
    peer.expect("A")


def aborted(wire: Wire, session: TcpSession, peer: Peer) -> None:
    session.abort(wire.now)
    peer.expect("RA")


def asleep(wire: Wire, session: TcpSession, peer: Peer) -> None:
    wire.advance(seconds(60))
    assert session.asleep


DEEDS = (
    nothing,
    closed_by_us,
    closed_by_us_and_acknowledged,
    closed_by_them,
    closed_by_both,
    aborted,
    asleep,
)


@pytest.mark.rule("UM-26.a")
@pytest.mark.parametrize("scheme", ["sealed", "random"])
@pytest.mark.parametrize("deed", DEEDS)
def test_a_service_starts_again_at_once(deed: Deed, scheme: str) -> None:
    wire = Wire(scheme=scheme)
    former = service(wire, port=80, name="web")
    peer = Peer(wire, address(SERVICE), port=5001, remote_port=80)
    peer.connect()
    session = former.accept()
    assert session is not None
    deed(wire, session, peer)
    former.close(wire.now)
    door = service(wire, port=80, name="web")
    assert door.lease is not former.lease
    assert door.lease.state_name == "VALID"
    other = Peer(wire, address(SERVICE), address=OTHER, port=5001, remote_port=80)
    again = Peer(wire, address(SERVICE), port=5002, remote_port=80)
    for newcomer in (other, again):
        newcomer.connect()
        accepted = door.accept()
        assert accepted is not None
        assert accepted.lease is door.lease
        newcomer.send("PA", b"hello")
        assert accepted.read(99, wire.now) == b"hello"
    end(wire)


@pytest.mark.rule("UM-26.a", "UM-26.e")
@pytest.mark.parametrize("connections", [1, 2])
def test_sessions_of_its_former_life_go_on(connections: int) -> None:
    wire = Wire()
    former = service(wire)
    peers = [Peer(wire, address(SERVICE), port=5001 + n) for n in range(connections)]
    for peer in peers:
        peer.connect()
    sessions = [former.accept() for _ in peers]
    former.close(wire.now)
    door = service(wire)
    more = Peer(wire, address(SERVICE), port=5009)
    more.connect()
    newest = door.accept()
    for peer, session in zip([*peers, more], [*sessions, newest], strict=True):
        assert session is not None
        peer.send("PA", b"%d" % peer.port)
        assert session.read(99, wire.now) == b"%d" % peer.port
        wire.take()
        closed_by_both(wire, session, peer)
    assert former.accept() is None
    assert [lease.name for lease in wire.stack.leases() if lease.kind == "SERVICE"] == [door.lease.name]
    end(wire)


@pytest.mark.rule("UM-33.d", "UM-36.b")
def test_records_of_its_former_life_answer_as_before() -> None:
    wire = Wire()
    former = service(wire)
    peer = Peer(wire, address(SERVICE), port=5001)
    peer.connect()
    session = former.accept()
    assert session is not None
    closed_by_both(wire, session, peer)
    former.close(wire.now)
    service(wire)
    wire.send(peer.segment("FA", seq=peer.snd_nxt - 1))
    peer.expect("A")
    wire.send(peer.segment("PA", seq=peer.snd_nxt - 20, payload=b"old duplicate"))
    peer.expect("A")
    end(wire)


@pytest.mark.rule("UM-7.a", "UM-8.b")
def test_each_life_has_a_lease_of_its_own_and_the_last_one_frees_the_address() -> None:
    wire = Wire(scheme="random")
    lives_of_it = []
    for n in range(3):
        door = service(wire)
        peer = Peer(wire, address(SERVICE), port=5001 + n, address=f"2001:db8:2::{n + 1}")
        peer.connect()
        session = door.accept()
        assert session is not None
        lives_of_it.append((door, peer))
        door.close(wire.now)
    assert {door.lease.state_name for door, _ in lives_of_it} == {"RETIRING"}
    assert wire.stack.leftovers()["leases"] == 3
    for n in (1, 2, 0):
        door, peer = lives_of_it[n]
        assert door.lease in list(wire.stack.leases())
        for refused in (
            lambda: das(wire, listen_0(wire), ssa=address(SERVICE)),
            lambda: connect(wire, source=address(SERVICE)),
        ):
            with pytest.raises(AddressInUse):
                refused()
        peer.send("R")
        assert door.lease.state_name == "INVALID"
    assert not lives(wire.stack, address(SERVICE))
    end(wire)


@pytest.mark.rule("UM-26.a")
def test_one_that_listens_still_is_named_and_keeps_its_address() -> None:
    wire = Wire()
    door = service(wire, name="web")
    before = everything(wire.stack)
    for attempt in (
        lambda: wire.stack.listen(wire.now, address=address(SERVICE), name="other"),
        lambda: wire.stack.udp(wire.now, address=address(SERVICE), name="other"),
    ):
        with pytest.raises(AddressInUse, match="web"):
            attempt()
        assert everything(wire.stack) == before
    Peer(wire, address(SERVICE)).connect()
    assert door.accept() is not None
    end(wire)


@pytest.mark.rule("UM-31.a")
def test_without_a_successor_a_closed_service_takes_nobody() -> None:
    wire = Wire()
    former = service(wire)
    peer = Peer(wire, address(SERVICE), port=5001)
    peer.connect()
    assert former.accept() is not None
    former.close(wire.now)
    socket = wire.stack.udp(wire.now, address=address(SERVICE), port=53)
    for where in (peer.address, OTHER):
        stranger = Peer(wire, address(SERVICE), address=where, port=5002)
        stranger.send("S")
        assert "SA" not in [seen.flags for seen in wire.take()]
    socket.close(wire.now)
    end(wire)


@pytest.mark.rule("UM-6.a")
def test_a_shared_port_starts_again_as_well() -> None:
    wire = Wire(shared=(address(SHARED),))
    former = wire.stack.listen(wire.now, address=address(SHARED), port=80)
    peer = Peer(wire, SHARED, port=5001, remote_port=80)
    peer.connect()
    session = former.accept()
    assert session is not None
    former.close(wire.now)
    door = wire.stack.listen(wire.now, address=address(SHARED), port=80)
    Peer(wire, SHARED, port=5002, remote_port=80).connect()
    assert door.accept() is not None
    peer.send("PA", b"still")
    assert session.read(99, wire.now) == b"still"
    end(wire)


def test_a_name_that_is_taken_changes_nothing() -> None:
    wire = Wire()
    listen_0(wire, name="other")
    former = service(wire)
    peer = Peer(wire, address(SERVICE))
    peer.connect()
    assert former.accept() is not None
    former.close(wire.now)
    before = everything(wire.stack)
    with pytest.raises(LocalError):
        service(wire, name="other")
    assert everything(wire.stack) == before
    end(wire)
