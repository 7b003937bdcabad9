"""How long a session waits: the user timeout (RFC 5482), and closing before or long after the handshake, and what
counts as a sign of life."""

from typing import Any

import pytest

from tests.core.scene import end
from umuxstack.core.errors import Reason
from umuxstack.core.tcp import state as st
from umuxstack.core.units import seconds
from umuxstack.core.wire.address import parse
from umuxstack.testing import builders, states
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


OUTSIDE: dict[str, Any] = {
    "text beyond the window": {"flags": "PA", "payload": b"?", "seq": 1 << 30},
    "a bare acknowledgement beyond it": {"flags": "A", "seq": 1 << 30},
    "a reset outside of it": {"flags": "R", "seq": 1 << 30},
    "an acknowledgement of what was never sent": {"flags": "A", "ack": 1 << 30},
    "an old timestamp": {"flags": "A", "options": builders.timestamps(1)},
    "a SYN": {"flags": "SA"},
}


@pytest.mark.rule("RFC 9293 3.8.4", "RFC 1122 4.2.3.6", "UM-35.u")
@pytest.mark.parametrize("forged", OUTSIDE.values(), ids=OUTSIDE.keys())
def test_what_the_peer_cannot_have_sent_does_not_put_off_a_keep_alive(forged: dict[str, Any]) -> None:
    """Whoever knew addresses and ports, and no number, could keep a dead peer's session alive for ever: any segment
    at all counted as a sign of life."""
    wire = Wire()
    session, peer = states.established(wire, options=builders.mss(1440) + builders.timestamps(500))
    session.configure(keepalive=True, keepalive_idle=seconds(10), keepalive_interval=seconds(1), keepalive_count=3)
    for _ in range(4):
        wire.advance(seconds(3))
        fields: dict[str, Any] = {"seq": peer.snd_nxt, "options": builders.timestamps(501), **forged}
        peer.send(**fields)
    wire.advance(seconds(1))
    assert session.end_reason == Reason.TIMED_OUT
    assert [seen.seq for seen in wire.take() if seen.seq == peer.rcv_nxt - 1] == [peer.rcv_nxt - 1] * 3
    end(wire)


@pytest.mark.rule("RFC 9293 3.8.4", "UM-35.u")
@pytest.mark.parametrize("options", [b"", builders.timestamps(500)])
@pytest.mark.parametrize(
    "sign",
    [{"flags": "A"}, {"flags": "PA", "payload": b"x"}, {"flags": "PA", "payload": b"x", "ahead": 5}],
)
def test_what_lies_in_the_window_does(options: bytes, sign: dict[str, Any]) -> None:
    """In order and behind a gap, by the short way and by the long one."""
    wire = Wire()
    session, peer = states.established(wire, options=builders.mss(1440) + options)
    session.configure(keepalive=True, keepalive_idle=seconds(10))
    wire.advance(seconds(9))
    seq = peer.snd_nxt + sign.get("ahead", 0)
    stamp: dict[str, Any] = {"options": builders.timestamps(501)} if options else {}
    peer.send(seq=seq, **{key: sign[key] for key in sign if key != "ahead"}, **stamp)
    wire.advance(seconds(1))
    wire.take()  # its acknowledgement
    wire.expect_silence(seconds(8))
    peer.expect("A", b"", seq=peer.rcv_nxt - 1, within=seconds(1))
    session.abort(wire.now)
    wire.take()
    end(wire)
