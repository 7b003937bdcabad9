"""TCP: acknowledgements that are worked off in one batch say the same as one by one."""

import pytest

from tests.core.scene import end
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.units import millis
from umuxstack.testing import builders, states
from umuxstack.testing.peer import Peer
from umuxstack.testing.wire import Wire

SACK = builders.mss(1440) + builders.sack_permitted()
MSS = 1440


def one_loss(*, batch: bool) -> tuple[Wire, TcpSession, int]:
    """20 segments are out, the 15th is lost; the peer acknowledges each. How many bytes were sent in answer."""
    wire = Wire()
    session, peer = states.established(wire, options=SACK)
    session.write(bytes(400_000), wire.now)
    ends = [seen.seq + len(seen.payload) for seen in wire.take()]
    wire.advance(millis(20))
    peer.send("A", ack=ends[-1])
    outstanding = wire.take()
    assert len(outstanding) == 20
    wire.advance(millis(20))
    hole = outstanding[14].seq
    sent = 0
    for number, segment in enumerate(outstanding):
        if number < 14:
            acknowledge(wire, peer, segment.seq + MSS, b"")
        elif number > 14:
            acknowledge(wire, peer, hole, builders.sack((hole + MSS, segment.seq + MSS)))
        if not batch:
            sent += sum(len(seen.payload) for seen in wire.take())
    sent += sum(len(seen.payload) for seen in wire.take())
    return wire, session, sent


def acknowledge(wire: Wire, peer: Peer, ack: int, options: bytes) -> None:
    peer.send("A", ack=ack & 0xFFFFFFFF, options=options)


@pytest.mark.rule("UM-35.p", "RFC 5681 3.1", "RFC 6937 3.1")
def test_a_batch_that_tells_of_a_loss_costs_no_more_than_its_segments_one_by_one() -> None:
    """The flight was measured after the batch had been taken off it: a window of 20 fell to 4 segments, not to 14.

    A quarter of the goodput at 1 % loss and 20 ms.
    """
    wire, session, sent = one_loss(batch=True)
    statistics = session.statistics()
    assert 13 * MSS <= statistics.snd_ssthresh <= 15 * MSS
    assert sent >= 13 * MSS  # the lost one, and new ones in the place of what has arrived
    assert session.retransmits == 1
    end(wire)


@pytest.mark.rule("RFC 6937 3.1")
def test_and_it_lets_no_more_out_than_they_would() -> None:
    ones, session, apart = one_loss(batch=False)
    all_at_once, _, together = one_loss(batch=True)
    assert session.retransmits == 1
    assert together <= apart
    end(ones)
    end(all_at_once)
