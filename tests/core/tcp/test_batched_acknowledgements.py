"""TCP: acknowledgements that are worked off in one batch say the same as one by one."""

import pytest

from tests.core.scene import end
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.units import millis
from umuxstack.testing import builders, states
from umuxstack.testing.wire import Wire

SACK = builders.mss(1440) + builders.sack_permitted()
MSS = 1440


def one_loss(*, batch: bool) -> tuple[TcpSession, int]:
    """20 segments are out, the 15th is lost; the peer acknowledges each. How many bytes were sent in answer."""
    wire = Wire()
    session, peer = states.established(wire, options=SACK)
    session.write(bytes(400_000), wire.now)
    last = wire.take()[-1]
    wire.advance(millis(20))
    peer.send("A", ack=(last.seq + MSS) & 0xFFFFFFFF)
    outstanding = wire.take()
    assert len(outstanding) == 20
    wire.advance(millis(20))
    hole = outstanding[14].seq
    packets = [peer.segment("A", ack=(segment.seq + MSS) & 0xFFFFFFFF) for segment in outstanding[:14]]
    packets += [
        peer.segment("A", ack=hole, options=builders.sack((hole + MSS, segment.seq + MSS)))
        for segment in outstanding[15:]
    ]
    for together in [packets] if batch else [[packet] for packet in packets]:
        wire.send(*together)
    sent = sum(len(seen.payload) for seen in wire.take())
    statistics = session.statistics()
    assert statistics.total_retrans == 1
    assert statistics.snd_cwnd == statistics.snd_ssthresh
    end(wire)
    return session, sent


@pytest.mark.rule("UM-35.p", "RFC 5681 3.1", "RFC 6937 3.1")
def test_a_batch_that_tells_of_a_loss_leaves_a_window_as_large_as_was_in_use() -> None:
    """The flight was measured after the batch had been taken off it: a window of 20 segments fell to 4, not to 14.

    That cost a quarter of the goodput at 1 % loss and 20 ms.
    """
    session, sent = one_loss(batch=True)
    assert 13 * MSS <= session.statistics().snd_ssthresh <= 15 * MSS
    assert sent >= 13 * MSS  # the lost one, and new ones in the place of what has arrived


@pytest.mark.rule("UM-35.p", "RFC 6937 3.1")
def test_a_batch_of_acknowledgements_lets_no_more_out_than_one_by_one() -> None:
    _, apart = one_loss(batch=False)
    _, together = one_loss(batch=True)
    assert MSS < together <= apart
