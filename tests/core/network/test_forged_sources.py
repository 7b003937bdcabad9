"""A packet from the link cannot have a source of ours: on a routed link nobody else has our addresses (RFC 2827)."""

import pytest

from tests.core.scene import (
    ROUTER,
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
from umuxstack.core.errors import Drop
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.units import seconds
from umuxstack.testing import builders, states
from umuxstack.testing.wire import Wire

OUTSIDE_SHARED = "2001:db8:99::80"  # a shared address need not lie in the prefix


def inside(wire: Wire, *, sleepy: bool = False) -> tuple[TcpSession, TcpSession]:
    """A session between two addresses of ours: both of its ends."""
    door = service(wire)
    client = connect(wire, SERVICE, door.port or 80)
    wire.flush()
    server = door.accept()
    assert server is not None
    assert client.established
    if sleepy:
        wire.advance(seconds(5))
        assert client.asleep
        assert server.asleep
    return client, server


@pytest.mark.rule("UM-37.g", "UM-32.b", "RFC 2827")
@pytest.mark.parametrize("silence", [True, False])
@pytest.mark.parametrize("source", [UNHELD, "2001:db8:1::77", SHARED, OUTSIDE_SHARED])
def test_a_forged_source_of_ours_reaches_nobody(source: str, silence: bool) -> None:
    """It was taken for a program of our own: a SYN from there came into a service, a datagram to a socket."""
    wire = Wire(shared=(address(SHARED), address(OUTSIDE_SHARED)), silence=silence)
    door = service(wire)
    ssa = das(wire, listen_0(wire)).address
    legacy = wire.stack.listen(wire.now, address=address(SHARED), port=80)
    socket = wire.stack.udp(wire.now, address=address("2001:db8:1::53:53"), port=53)
    session, _ = states.established(wire)
    legacy_target = OUTSIDE_SHARED if source == SHARED else SHARED
    for target in (SERVICE, ssa, legacy_target, session.local, "2001:db8:1::d00d"):
        with dropped(wire, Drop.SOURCE_IS_OURS, 4):
            wire.send(builders.tcp(source, target, 5, 80, "S"))
            wire.send(builders.udp(source, target, 5, 53, b"x"))
            wire.send(builders.echo_request(source, target))
            wire.send(builders.ipv6(source, target, builders.TCP, bytes(20), extensions=[builders.hop_by_hop()]))
    with dropped(wire, Drop.SOURCE_IS_OURS):
        wire.send(builders.udp(source, "2001:db8:1::53:53", 5, 53, b"x"))
    wire.expect_silence(seconds(2))
    assert not socket.readable
    assert door.accept() is legacy.accept() is None
    assert wire.stack.telescope() == []
    end(wire)


@pytest.mark.rule("UM-37.g", "UM-32.b", "RFC 2827")
@pytest.mark.parametrize("sleepy", [False, True])
def test_a_session_with_ourselves_cannot_be_hit_from_outside(sleepy: bool) -> None:
    """A forged segment of its pair, with the right numbers, was its peer's: a RST ended it."""
    wire = Wire()
    client, server = inside(wire, sleepy=sleepy)
    for one, other in ((client, server), (server, client)):
        seq = other._look().snd_nxt
        ports = other.local_port, other.remote_port
        with dropped(wire, Drop.SOURCE_IS_OURS, 3):
            wire.send(builders.tcp(other.local, one.local, *ports, "R", seq))
            wire.send(builders.tcp(other.local, one.local, *ports, "PA", seq, one._look().snd_nxt, payload=b"forged"))
            wire.send(builders.udp(other.local, one.local, *ports, b"x"))
    with dropped(wire, Drop.ICMP_NO_SESSION):
        quoted = builders.tcp(client.local, SERVICE, client.local_port, client.remote_port, "A", client._look().snd_nxt)
        wire.send(builders.packet_too_big(ROUTER, quoted, 1280))
    assert (client.asleep, server.asleep) == (sleepy, sleepy)
    client.write(b"still here", wire.now)
    wire.flush()
    assert server.read(99, wire.now) == b"still here"
    assert wire.take() == []
    client.close(wire.now)
    server.close(wire.now)
    wire.flush()
    with dropped(wire, Drop.SOURCE_IS_OURS, 2):  # the records of its TIME-WAIT are as safe
        wire.send(builders.tcp(client.local, server.local, client.local_port, client.remote_port, "FA", 1, 1))
        wire.send(builders.tcp(server.local, client.local, client.remote_port, client.local_port, "FA", 1, 1))
    end(wire)


@pytest.mark.rule("UM-37.g", "RFC 2827")
def test_a_shared_address_that_talks_to_itself_is_not_hit_from_outside() -> None:
    wire = Wire(shared=(address(SHARED),))
    door = wire.stack.listen(wire.now, address=address(SHARED), port=80)
    client = connect(wire, SHARED, source=address(SHARED))
    wire.flush()
    assert door.accept() is not None
    with dropped(wire, Drop.SOURCE_IS_DESTINATION):
        wire.send(builders.tcp(SHARED, SHARED, 80, client.local_port, "R", client.tcb.rcv_nxt))
    assert client.established
    end(wire)


@pytest.mark.rule("RFC 2827")
def test_packets_of_sessions_are_not_asked_where_they_come_from() -> None:
    """What protects sessions with ourselves costs those with others nothing: they stand in another table."""
    wire = Wire()
    session, peer = states.established(wire)
    asked: list[bytes] = []

    def forged(source: bytes) -> bool:
        asked.append(source)
        return False

    wire.stack._ingress.forged = forged
    peer.send("PA", b"data")
    assert session.read(9, wire.now) == b"data"
    assert asked == []
    wire.send(builders.tcp(STRANGER, session.local, 80, 1, "A"))
    assert asked == [address(STRANGER)]
    end(wire)
