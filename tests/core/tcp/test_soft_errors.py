"""What is told to the application while its session lives on: R1, and what ICMPv6 errors say (RFC 9293 3.9.1.8)."""

import pytest

from tests.core.scene import ROUTER, connect, end
from umuxstack.core.config import TcpPolicy
from umuxstack.core.errors import Reason
from umuxstack.core.events import EventKind
from umuxstack.core.tcp import state as st
from umuxstack.core.units import minutes, seconds
from umuxstack.testing import builders, states
from umuxstack.testing.peer import Peer
from umuxstack.testing.wire import Wire

RFC = TcpPolicy(rto_min=seconds(1), tail_loss_probe=False)


def told(wire: Wire) -> list[Reason]:
    """The reasons of the troubles that became events since the last look."""
    return [event.reason for event in wire.stack.take_events() if event.kind == EventKind.SESSION_TROUBLED]


@pytest.mark.rule("RFC 9293 SHLD-9", "RFC 9293 SHLD-10", "RFC 9293 MUST-20", "RFC 9293 MUST-47")
def test_the_third_retransmission_is_told_and_nothing_ends() -> None:
    wire = Wire(tcp=RFC)
    session, peer = states.established(wire)
    session.write(b"anybody?", wire.now)
    wire.advance(seconds(3))  # after 1 s and 3 s; the third comes after 7 s
    assert len(wire.take()) == 3
    assert session.statistics().retransmits == 2
    assert (session.soft_error, told(wire)) == (Reason.NONE, [])
    wire.stack.take_ready()
    wire.advance(seconds(4) + 10_000)
    assert session.statistics().retransmits == 3
    assert (session.soft_error, told(wire)) == (Reason.TIMED_OUT, [Reason.TIMED_OUT])
    assert session in wire.stack.take_ready()  # whoever waits for it may look
    assert session.state == st.ESTABLISHED
    wire.advance(seconds(60))
    assert told(wire) == []  # once for one trouble
    wire.take()
    peer.send("A", ack=peer.rcv_nxt + 8)
    assert session.soft_error == Reason.NONE
    end(wire)


@pytest.mark.rule("RFC 9293 SHLD-9")
@pytest.mark.parametrize(("after", "told_after"), [(0, 0), (1, 1), (5, 5)])
def test_r1_is_the_application_s_to_choose_and_0_disables_the_report(after: int, told_after: int) -> None:
    wire = Wire(tcp=RFC)
    session, _ = states.established(wire)
    session.configure(report_after=after)
    session.write(b"x", wire.now)
    while session.soft_error == Reason.NONE and not session.ended:
        wire.advance(seconds(1))
    assert session.ended == (after == 0)
    assert after == 0 or session.statistics().retransmits == told_after
    wire.take()


@pytest.mark.rule("RFC 9293 SHLD-9", "RFC 9293 MUST-22")
def test_syns_are_told_of_in_the_same_way() -> None:
    wire = Wire()
    session = connect(wire)
    wire.advance(seconds(7) + 10_000)
    assert (session.soft_error, told(wire)) == (Reason.TIMED_OUT, [Reason.TIMED_OUT])
    wire.take()
    Peer(wire, session.local, port=80).send("S")  # it is there after all, and opens itself
    assert session.state == st.SYN_RECEIVED
    end(wire)


@pytest.mark.rule("RFC 9293 MUST-47", "RFC 9293 SHLD-25", "RFC 9293 MUST-56", "RFC 4443 3.1")
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (0, Reason.UNREACHABLE),
        (1, Reason.PROHIBITED),
        (3, Reason.UNREACHABLE),
        (4, Reason.REFUSED),
        (5, Reason.UNREACHABLE),
    ],
)
def test_what_an_error_says_of_the_path_is_told(code: int, reason: Reason) -> None:
    wire = Wire()
    session, peer = states.established(wire)
    session.write(b"x", wire.now)
    quoted = peer.expect("PA").raw
    for _ in range(3):
        wire.send(builders.unreachable(ROUTER, quoted, code))
    assert (session.soft_error, told(wire)) == (reason, [reason])
    assert session.state == st.ESTABLISHED
    peer.send("A")
    assert session.soft_error == Reason.NONE
    end(wire)


@pytest.mark.rule("RFC 9293 MUST-47", "RFC 4443 3.3", "RFC 4443 3.4")
@pytest.mark.parametrize(
    "build", [lambda quoted: builders.error(ROUTER, quoted, 3), lambda quoted: builders.error(ROUTER, quoted, 4)]
)
def test_so_are_time_exceeded_and_parameter_problem(build: object) -> None:
    wire = Wire()
    session, peer = states.established(wire)
    session.write(b"x", wire.now)
    wire.send(build(peer.expect("PA").raw))  # type: ignore[operator]
    assert session.soft_error == Reason.UNREACHABLE
    assert session.state == st.ESTABLISHED
    end(wire)


def test_a_candidate_has_nobody_to_tell() -> None:
    wire = Wire(das_lifetime=minutes(10))
    session, peer = states.syn_received(wire)
    wire.send(
        builders.unreachable(
            ROUTER, builders.tcp(session.local, peer.address, session.local_port, peer.port, "SA", seq=peer.rcv_nxt - 1)
        )
    )
    assert session.soft_error == Reason.NONE
    assert told(wire) == []
    end(wire)


def test_a_session_that_sleeps_is_not_in_trouble() -> None:
    wire = Wire()
    session, peer = states.established(wire, options=builders.timestamps(1))
    session.write(b"x", wire.now)
    wire.send(builders.unreachable(ROUTER, peer.expect("PA").raw))
    peer.send("A", options=builders.timestamps(2))
    wire.advance(seconds(10))
    assert session.asleep
    assert session.soft_error == Reason.NONE
    assert session.asleep
    end(wire)
