"""A verb that refuses its arguments leaves nothing behind, and what it does to many it does in one order."""

import pytest

from tests.core.scene import OTHER, PEER, SHARED, address, end
from umuxstack.core.events import EventKind
from umuxstack.core.units import Address, Buffer
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
