"""How long a session waits: the user timeout (RFC 5482), and closing before or long after the handshake."""

from umuxstack.core.tcp import state as st
from umuxstack.core.units import seconds
from umuxstack.core.wire.address import parse
from umuxstack.testing import states
from umuxstack.testing.peer import Peer
from umuxstack.testing.wire import Wire


def test_the_user_timeout_is_kept_between_two_retransmissions() -> None:
    """The next retransmission would come at 12.6 s; the session used to wait for it."""
    wire = Wire()
    session, _ = states.established(wire)
    session.configure(user_timeout=seconds(10))
    session.write(b"x", wire.now)
    wire.advance(seconds(9))
    assert not session.ended
    wire.advance(seconds(1) + 10_000)
    assert session.end_reason.name == "TIMED_OUT"
    wire.take()


def test_the_user_timeout_runs_also_while_the_window_is_shut() -> None:
    """A peer that answers every probe with a shut window could hold a session for ever."""
    wire = Wire()
    session, peer = states.established(wire)
    session.configure(user_timeout=seconds(10))
    peer.send("A", window=0)
    session.write(b"x", wire.now)
    waited = 0
    while waited < 60 and session.end_reason.name == "NONE":
        wire.advance(seconds(1))
        waited += 1
        for _ in wire.take():
            peer.send("A", window=0)
    assert session.end_reason.name == "TIMED_OUT"
    assert 9 <= waited <= 11


def test_a_close_in_the_middle_of_a_simultaneous_open_sends_fin_when_it_is_complete() -> None:
    """RFC 9293 3.10.4, SYN-RECEIVED: the session used to vanish without a word."""
    wire = Wire()
    session = wire.stack.connect(parse("2001:db8:2::1"), 80, wire.now, source=parse("2001:db8:1::7"))
    peer = Peer(wire, session.local, port=80)
    peer.expect("S")
    peer.send("S")
    peer.expect("SA")
    session.close(wire.now)
    peer.send("A")
    peer.expect("FA")
    assert session.state == st.FIN_WAIT_1


def test_data_after_an_orphan_gave_up_waiting_for_fin_gets_rst() -> None:
    """RFC 1122 4.2.2.13: nobody is there to read it, and the peer must know; it met silence."""
    wire = Wire()
    _, peer = states.fin_wait_2(wire)
    wire.advance(seconds(61))
    peer.send("PA", b"late")
    peer.expect("R")
