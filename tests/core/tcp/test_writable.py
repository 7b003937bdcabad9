"""Whoever waits for room to write is woken when there is some."""

from umuxstack.core.config import TcpPolicy
from umuxstack.core.tcp.session import TcpSession
from umuxstack.testing.peer import Peer
from umuxstack.testing.states import established
from umuxstack.testing.wire import Wire

BUFFER = 30_000  # bytes; with a large congestion window it grows
WINDOW = 60_000


def acknowledge(wire: Wire, remote: Peer, size: int) -> None:
    """The peer takes what is under way, and acknowledges `size` bytes more."""
    wire.take()
    remote.rcv_nxt += size
    remote.send("A")


def congestion_window(session: TcpSession, size: int) -> None:
    assert session.tcb.cc is not None
    session.tcb.cc.cwnd = size


def test_a_writer_that_finds_the_room_gone_again_is_woken_once_more() -> None:
    """The buffer's limit follows the congestion window. A loss between the wake-up and the writer's look took the room
    away again, and nobody ever woke it: met when a link went down in the middle of a transfer."""
    wire = Wire(tcp=TcpPolicy(send_buffer=BUFFER, send_buffer_max=10 * BUFFER))
    session, remote = established(wire)
    congestion_window(session, WINDOW)
    taken = session.write(bytes(4 * WINDOW), wire.now)
    assert BUFFER < taken < 4 * WINDOW
    acknowledge(wire, remote, WINDOW // 2)
    assert session in wire.stack.take_ready()
    congestion_window(session, 2000)  # what a loss in the same batch does
    assert not session.writable
    assert session not in wire.stack.take_ready()
    while session.unsent:
        wire.take()
        acknowledge(wire, remote, min(session.tcb.snd_nxt - session.tcb.snd_una, session.unsent))
    assert session in wire.stack.take_ready()
    assert session.writable
