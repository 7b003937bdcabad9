"""A verb that refuses its arguments leaves nothing behind, nor does a stack that nobody holds; order is always one."""

import gc

import pytest

from tests.core.scene import OTHER, PEER, SHARED, address, das, end, listen_0
from umuxstack.core.events import EventKind
from umuxstack.core.stack import Stack
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.udp.session import UdpSocket
from umuxstack.core.units import Address, Buffer
from umuxstack.testing import states
from umuxstack.testing.wire import Wire


@pytest.mark.parametrize("early", ["text", 5, object()])
@pytest.mark.parametrize("source", [None, SHARED])
def test_early_data_that_is_no_bytes_opens_nothing(early: Buffer, source: str | None) -> None:
    """The session was there already when its data was looked at: address and lease were left over for good."""
    wire = Wire(shared=(address(SHARED),))
    before = wire.stack.leftovers()
    with pytest.raises(TypeError):
        wire.stack.connect(address(PEER), 80, wire.now, source=None if source is None else address(source), early=early)
    assert wire.stack.leftovers() == before
    assert not wire.take()
    end(wire)


def test_a_udp_socket_ends_its_sessions_in_the_order_of_their_opening() -> None:
    """They were in a set, and ended in the order of their places in memory: two runs alike had other events."""
    wire = Wire()
    socket = wire.stack.udp(wire.now)
    for number in range(50):
        socket.send(b"data", wire.now, to=(Address(address(OTHER)[:14] + number.to_bytes(2, "big")), 53))
    wire.take()
    wire.stack.take_events()
    socket.close(wire.now)
    ended = [event.peer for event in wire.stack.take_events() if event.kind == EventKind.SESSION_ENDED]
    assert ended == sorted(event or b"" for event in ended)
    assert len(ended) == 50
    end(wire)


def test_a_stack_that_nobody_holds_is_collected() -> None:
    """Compiled, it was not, if anything in it led back to it, as every UDP socket does."""

    def live() -> None:
        wire = Wire()
        session, _ = states.established(wire)
        udp = wire.stack.udp(wire.now)
        udp.owner = wire.stack
        udp.send(b"data", wire.now, to=(address(OTHER), 53))
        door = listen_0(wire)
        das(wire, door)
        wire.stack.das(udp, wire.now)
        wire.stack.ping(address(PEER), wire.now)
        session.owner = (wire.stack, session)
        session.write(bytes(100_000), wire.now)
        wire.take()

    def left() -> int:
        gc.collect()
        return sum(isinstance(found, Stack | UdpSocket | TcpSession) for found in gc.get_objects())

    before = left()
    live()
    assert left() <= before
