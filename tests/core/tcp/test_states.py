"""RFC 9293 3.10.7: every segment in every state."""

from collections.abc import Callable
from functools import partial
from typing import Final

import pytest

from tests.core.scene import dropped, end
from umuxstack.core.errors import Drop, Reason
from umuxstack.core.tcp import state as st
from umuxstack.core.units import millis, seconds
from umuxstack.testing import builders, states
from umuxstack.testing.wire import Wire

BUILDERS: Final[dict[str, Callable[[Wire], states.Built]]] = {
    "SYN-RECEIVED": states.syn_received,
    "ESTABLISHED": states.established,
    "FIN-WAIT-1": partial(states.fin_wait_1, half=True),
    "FIN-WAIT-2": partial(states.fin_wait_2, half=True),
    "CLOSE-WAIT": states.close_wait,
    "CLOSING": partial(states.closing, half=True),
    "LAST-ACK": states.last_ack,
}
SYNCHRONIZED: Final = [name for name in BUILDERS if name != "SYN-RECEIVED"]
READING: Final = ["ESTABLISHED", "FIN-WAIT-1", "FIN-WAIT-2"]
ALL: Final = pytest.mark.parametrize("state", BUILDERS)
EACH_SYNCHRONIZED: Final = pytest.mark.parametrize("state", SYNCHRONIZED)

pytestmark = pytest.mark.rule("UM-35.a")


@ALL
@pytest.mark.rule("UM-35.e", "RFC 9293 3.5.3", "RFC 5961 3.2")
def test_a_reset_with_the_very_next_number_ends_the_session(state: str) -> None:
    wire = Wire()
    session, peer = BUILDERS[state](wire)
    peer.send("R")
    assert (session.end_reason, session.state) == (Reason.RESET, st.CLOSED)
    wire.expect_silence(seconds(1))
    end(wire)


@ALL
@pytest.mark.rule("UM-35.t", "RFC 5961 3.2")
def test_a_reset_elsewhere_in_the_window_is_challenged(state: str) -> None:
    wire = Wire()
    session, peer = BUILDERS[state](wire)
    for ahead in (1, 30_000):
        with dropped(wire, Drop.OUT_OF_WINDOW):
            peer.send("R", seq=peer.snd_nxt + ahead)
        peer.expect("A", b"", ack=peer.snd_nxt)
        assert session.state_name == state
    end(wire)


@ALL
@pytest.mark.rule("UM-35.t", "RFC 9293 3.5.3")
def test_a_reset_outside_the_window_is_nothing(state: str) -> None:
    wire = Wire()
    session, peer = BUILDERS[state](wire)
    for ahead in (-1, -70_000, 1 << 31):
        with dropped(wire, Drop.OUT_OF_WINDOW):
            peer.send("R", seq=peer.snd_nxt + ahead)
    wire.expect_silence()
    assert session.state_name == state
    end(wire)


@EACH_SYNCHRONIZED
@pytest.mark.rule("UM-35.t", "RFC 5961 4.2")
@pytest.mark.parametrize(("flags", "ahead"), [("S", 0), ("S", -500), ("S", 90_000), ("SA", 0), ("SF", 10)])
def test_a_syn_is_answered_with_a_challenge_whatever_its_number(state: str, flags: str, ahead: int) -> None:
    wire = Wire()
    session, peer = BUILDERS[state](wire)
    peer.send(flags, seq=peer.snd_nxt + ahead)
    peer.expect("A", b"", ack=peer.snd_nxt, seq=peer.rcv_nxt)
    assert session.state_name == state
    wire.expect_silence()
    end(wire)


@EACH_SYNCHRONIZED
@pytest.mark.rule("RFC 9293 3.10.7.4")
def test_without_ack_a_segment_is_dropped(state: str) -> None:
    wire = Wire()
    session, peer = BUILDERS[state](wire)
    for flags, payload in (("P", b"data"), ("F", b""), ("", b"data"), ("U", b"x")):
        with dropped(wire, Drop.BAD_FLAGS):
            peer.send(flags, payload, seq=peer.snd_nxt)
    wire.expect_silence()
    assert (session.state_name, session.readable) == (state, state in ("CLOSE-WAIT", "CLOSING", "LAST-ACK"))
    end(wire)


@EACH_SYNCHRONIZED
@pytest.mark.rule("UM-35.t", "RFC 5961 5.2")
@pytest.mark.parametrize("ahead", [1, 100_000, -(1 << 30)])
def test_an_ack_of_what_was_never_sent_is_challenged(state: str, ahead: int) -> None:
    wire = Wire()
    session, peer = BUILDERS[state](wire)
    with dropped(wire, Drop.BAD_ACK):
        peer.send("PA", b"data", seq=peer.snd_nxt, ack=(peer.rcv_nxt + ahead) & 0xFFFFFFFF)
    peer.expect("A", b"", seq=peer.rcv_nxt, ack=peer.snd_nxt)
    assert session.state_name == state
    assert session.read(9, wire.now) == b""
    end(wire)


@pytest.mark.rule("UM-35.e", "RFC 9293 3.10.7.4")
@pytest.mark.parametrize("ahead", [-1, 1, 5000])
def test_in_syn_received_such_an_ack_gets_a_reset(ahead: int) -> None:
    wire = Wire()
    session, peer = states.syn_received(wire)
    with dropped(wire, Drop.BAD_ACK):
        peer.send("A", ack=(peer.rcv_nxt + ahead) & 0xFFFFFFFF)
    peer.expect("R", seq=peer.rcv_nxt + ahead)
    assert session.state == st.SYN_RECEIVED
    peer.send("A")
    assert session.state == st.ESTABLISHED
    end(wire)


@ALL
@pytest.mark.rule("RFC 9293 3.10.7.4")
@pytest.mark.parametrize("ahead", [-10, 70_000, 1 << 30])
def test_data_outside_the_window_is_answered_with_an_ack(state: str, ahead: int) -> None:
    wire = Wire()
    session, peer = BUILDERS[state](wire)
    with dropped(wire, Drop.OUT_OF_WINDOW):
        peer.send("PA", b"0123456789"[: 9 if ahead < 0 else 10], seq=peer.snd_nxt + ahead)
    peer.expect("A", b"", seq=peer.rcv_nxt, ack=peer.snd_nxt)
    assert session.state_name == state
    assert session.read(9, wire.now) == b""
    end(wire)


@EACH_SYNCHRONIZED
@pytest.mark.rule("UM-35.j", "RFC 9293 3.10.7.4")
def test_data_is_taken_until_the_peer_s_fin(state: str) -> None:
    wire = Wire()
    session, peer = BUILDERS[state](wire)
    ours = peer.rcv_nxt if state == "FIN-WAIT-2" else peer.rcv_nxt - (state in ("FIN-WAIT-1", "CLOSING", "LAST-ACK"))
    with dropped(wire, Drop.AFTER_CLOSE, int(state not in READING)):
        peer.send("PA", b"data", seq=peer.snd_nxt, ack=ours)
    assert session.read(9, wire.now) == (b"data" if state in READING else b"")
    assert session.state_name == state
    wire.take()
    end(wire)


@pytest.mark.rule("RFC 9293 3.10.7.4")
@pytest.mark.parametrize(
    ("state", "after"),
    [
        ("SYN-RECEIVED", "CLOSE-WAIT"),
        ("ESTABLISHED", "CLOSE-WAIT"),
        ("FIN-WAIT-1", "CLOSING"),
        ("FIN-WAIT-2", "TIME-WAIT"),
        ("CLOSE-WAIT", "CLOSE-WAIT"),
        ("CLOSING", "CLOSING"),
        ("LAST-ACK", "LAST-ACK"),
    ],
)
def test_what_a_fin_does(state: str, after: str) -> None:
    wire = Wire()
    session, peer = BUILDERS[state](wire)
    again = state in ("CLOSE-WAIT", "CLOSING", "LAST-ACK")
    unacknowledged = state in ("FIN-WAIT-1", "CLOSING", "LAST-ACK")
    peer.send("FA", seq=peer.snd_nxt - again, ack=peer.rcv_nxt - unacknowledged)
    peer.expect("A", b"", ack=peer.snd_nxt + (not again), within=millis(500))
    assert session.state_name == after
    end(wire)


@pytest.mark.rule("RFC 9293 3.10.7.4")
@pytest.mark.parametrize(
    ("state", "after", "reason"),
    [
        ("SYN-RECEIVED", "ESTABLISHED", Reason.NONE),
        ("ESTABLISHED", "ESTABLISHED", Reason.NONE),
        ("FIN-WAIT-1", "FIN-WAIT-2", Reason.NONE),
        ("FIN-WAIT-2", "FIN-WAIT-2", Reason.NONE),
        ("CLOSE-WAIT", "CLOSE-WAIT", Reason.NONE),
        ("CLOSING", "TIME-WAIT", Reason.CLOSED),
        ("LAST-ACK", "CLOSED", Reason.CLOSED),
    ],
)
def test_what_an_ack_of_everything_does(state: str, after: str, reason: Reason) -> None:
    wire = Wire()
    session, peer = BUILDERS[state](wire)
    peer.send("A")
    assert (session.state_name, session.end_reason) == (after, reason)
    wire.take()
    end(wire)


@pytest.mark.rule("RFC 9293 3.10.7.4")
def test_fin_and_ack_of_ours_in_one_segment() -> None:
    wire = Wire()
    session, peer = states.fin_wait_1(wire)
    peer.send("FA")
    peer.expect("A", ack=peer.snd_nxt)
    assert (session.state, session.end_reason) == (st.TIME_WAIT, Reason.CLOSED)
    end(wire)


@pytest.mark.rule("RFC 9293 3.10.7.4")
def test_data_and_fin_with_the_ack_of_the_handshake() -> None:
    wire = Wire()
    session, peer = states.syn_received(wire)
    peer.send("FPA", b"all at once")
    peer.expect("A", ack=peer.snd_nxt, within=millis(500))
    assert session.state == st.CLOSE_WAIT
    assert session.read(99, wire.now) == b"all at once"
    assert session.eof
    end(wire)


# SYN-SENT (3.10.7.3)


@pytest.mark.rule("RFC 9293 3.10.7.3", "UM-35.e")
@pytest.mark.parametrize("flags", ["A", "SA", "PA", "RA", "FA"])
@pytest.mark.parametrize("ahead", [-1, 1, 9999])
def test_syn_sent_an_ack_that_cannot_be_gets_a_reset_unless_it_is_one(flags: str, ahead: int) -> None:
    wire = Wire()
    session, peer = states.syn_sent(wire)
    with dropped(wire, Drop.BAD_ACK):
        peer.send(flags, ack=(peer.rcv_nxt + ahead) & 0xFFFFFFFF, seq=peer.iss)
    if "R" not in flags:
        peer.expect("R", seq=peer.rcv_nxt + ahead)
    wire.expect_silence()
    assert session.state == st.SYN_SENT
    end(wire)


@pytest.mark.rule("RFC 9293 3.10.7.3", "UM-35.e")
@pytest.mark.parametrize(
    ("flags", "ack", "reason"), [("R", 0, Drop.OUT_OF_WINDOW), ("A", None, Drop.BAD_FLAGS), ("F", 0, Drop.BAD_FLAGS)]
)
def test_syn_sent_ignores_what_neither_accepts_nor_refuses(flags: str, ack: int | None, reason: Drop) -> None:
    wire = Wire()
    session, peer = states.syn_sent(wire)
    with dropped(wire, reason):
        peer.send(flags, seq=peer.iss, ack=ack)
    wire.expect_silence()
    assert session.state == st.SYN_SENT
    end(wire)


@pytest.mark.rule("RFC 9293 3.10.7.3", "UM-35.e")
def test_syn_sent_is_refused_by_a_reset_that_acknowledges_the_syn() -> None:
    wire = Wire()
    session, peer = states.syn_sent(wire)
    peer.send("RA", seq=0)
    assert session.end_reason == Reason.REFUSED
    assert session.readable
    assert session.writable
    wire.expect_silence(seconds(1))
    end(wire)


# Malformed


@ALL
@pytest.mark.rule("UM-37.a")
def test_malformed_segments_are_counted_in_every_state(state: str) -> None:
    wire = Wire()
    session, peer = BUILDERS[state](wire)
    for reason, packet in (
        (Drop.BAD_CHECKSUM, peer.segment("R", checksum=1)),
        (Drop.BAD_HEADER, peer.segment("R", offset=4)),
        (Drop.BAD_HEADER, peer.segment("R", offset=6)),
        (Drop.BAD_HEADER, builders.ipv6(peer.address, peer.remote, 6, bytes(19))),
    ):
        with dropped(wire, reason):
            wire.send(packet)
    wire.expect_silence()
    assert session.state_name == state
    wire.send(peer.segment("R", checksum=1), csum_ok=True)  # the link vouches for it
    assert session.ended
    end(wire)
