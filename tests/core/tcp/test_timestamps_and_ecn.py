"""RFC 7323 timestamps and PAWS, RFC 3168 ECN, RFC 5961's limits."""

from typing import Any

import pytest

from tests.core.scene import connect, dropped, end
from umuxstack.core.config import TcpPolicy
from umuxstack.core.errors import BadArgument, Drop
from umuxstack.core.tcp import state as st
from umuxstack.core.units import millis, minutes, seconds
from umuxstack.testing import builders, checks, states
from umuxstack.testing.peer import Peer
from umuxstack.testing.wire import Wire

OFFER = builders.mss(1440) + builders.timestamps(1000)


def stamped(value: int, echo: int = 0) -> dict[str, Any]:
    return {"options": builders.timestamps(value, echo)}


@pytest.mark.rule("UM-35.h", "RFC 7323 3.2")
def test_every_segment_carries_a_timestamp_that_ticks_in_milliseconds() -> None:
    wire = Wire()
    session, peer = states.established(wire, options=OFFER)
    session.write(b"one", wire.now)
    first = peer.expect("PA").options.timestamps
    peer.send("A", **stamped(1001))
    wire.advance(seconds(2))
    session.write(b"two", wire.now)
    second = peer.expect("PA").options.timestamps
    assert first is not None
    assert second is not None
    assert second[0] - first[0] & 0xFFFFFFFF == 2000
    assert (first[1], second[1]) == (1000, 1001)
    end(wire)


@pytest.mark.rule("UM-35.h", "RFC 7323 5.4")
def test_its_clock_starts_anywhere_for_each_session() -> None:
    wire = Wire()
    values = []
    for _ in range(5):
        connect(wire)
        stamp = wire.expect(checks.tcp("S")).options.timestamps
        assert stamp is not None
        values.append(stamp[0])
    assert len({value >> 12 for value in values}) == 5
    end(wire)


@pytest.mark.rule("UM-35.h", "RFC 7323 4.3")
def test_the_echo_is_of_the_segment_that_advanced_the_window() -> None:
    wire = Wire()
    _, peer = states.established(wire, options=OFFER)
    base = peer.snd_nxt
    peer.send("A", bytes(100), seq=base + 100, **stamped(2000))  # out of order: it does not count
    answer = peer.expect("A").options.timestamps
    assert answer is not None
    assert answer[1] == 1000
    peer.send("A", bytes(100), seq=base, **stamped(2001))
    answer = peer.expect("A", ack=base + 200).options.timestamps
    assert answer is not None
    assert answer[1] == 2001
    end(wire)


@pytest.mark.rule("UM-35.h", "RFC 7323 5.3")
@pytest.mark.parametrize("behind", [1, 1000, (1 << 31) - 1])
def test_paws_refuses_an_old_duplicate_with_an_ack(behind: int) -> None:
    wire = Wire()
    session, peer = states.established(wire, options=OFFER)
    with dropped(wire, Drop.PAWS):
        peer.send("PA", b"old", seq=peer.snd_nxt, **stamped(1000 - behind))
    peer.expect("A", b"", ack=peer.snd_nxt)
    assert session.read(9, wire.now) == b""
    peer.send("PA", b"new", seq=peer.snd_nxt, **stamped(1000))  # an equal one is not old
    assert session.read(9, wire.now) == b"new"
    end(wire)


@pytest.mark.rule("UM-35.h", "RFC 7323 5.3")
def test_timestamps_wrap_as_well() -> None:
    wire = Wire()
    session, peer = states.established(wire, options=builders.mss(1440) + builders.timestamps(0xFFFFFFF0))
    peer.send("PA", b"after the wrap", **stamped(5))
    assert session.read(99, wire.now) == b"after the wrap"
    with dropped(wire, Drop.PAWS):
        peer.send("PA", b"before", seq=peer.snd_nxt, **stamped(0xFFFFFFF0))
    wire.take()
    end(wire)


@pytest.mark.rule("UM-35.h", "RFC 7323 5.3")
def test_a_reset_is_not_subject_to_paws() -> None:
    wire = Wire()
    session, peer = states.established(wire, options=OFFER)
    peer.send("R", **stamped(1))
    assert session.ended
    end(wire)


@pytest.mark.rule("UM-35.h", "RFC 7323 5.5")
def test_after_24_days_the_old_timestamp_is_no_guide() -> None:
    wire = Wire()
    session, peer = states.established(wire, options=OFFER)
    wire.advance(minutes(60 * 24 * 25))
    peer.send("PA", b"hello again", **stamped(1000 - 5))
    assert session.read(99, wire.now) == b"hello again"
    end(wire)


@pytest.mark.rule("UM-35.h", "RFC 7323 3.2")
def test_a_segment_without_the_agreed_timestamp_is_dropped_silently() -> None:
    wire = Wire()
    session, peer = states.established(wire, options=OFFER)
    with dropped(wire, Drop.PAWS):
        peer.send("PA", b"?", seq=peer.snd_nxt)
    wire.expect_silence()
    assert not session.readable
    peer.send("R")  # but a reset needs none
    assert session.ended
    end(wire)


@pytest.mark.rule("UM-35.h", "UM-35.f", "RFC 7323 4.1")
def test_an_echo_measures_even_a_retransmission() -> None:
    wire = Wire(tcp=TcpPolicy(tail_loss_probe=False))
    session, peer = states.established(wire, options=OFFER)
    session.write(b"x", wire.now)
    peer.expect("PA")
    stamp = peer.expect("PA", within=seconds(2)).options.timestamps
    assert stamp is not None
    before = session.statistics().srtt
    wire.advance(millis(80))
    peer.send("A", **stamped(1001, stamp[0]))
    assert session.statistics().srtt == before + (80_000 - before) // 8
    end(wire)


@pytest.mark.rule("UM-35.w", "RFC 3168 6.1.1")
def test_ecn_is_off_by_default_and_neither_asked_for_nor_granted() -> None:
    wire = Wire()
    connect(wire)
    wire.expect(checks.tcp("S"))
    wire.send(builders.tcp("2001:db8:2::1", wire.minted(), 5, 80, "SEC"))
    wire.expect(checks.tcp("SA"))
    end(wire)


@pytest.mark.rule("UM-35.w", "RFC 3168 6.1")
def test_ecn_where_both_want_it() -> None:
    wire = Wire(tcp=TcpPolicy(ecn=True, nodelay=True))
    session = connect(wire)
    peer = Peer(wire, session.local, port=80)
    assert peer.expect("SEC").ecn == 0  # RFC 3168 6.1.1: no ECT in a SYN
    peer.send("SAE", options=builders.mss(1440))
    assert peer.expect("A").ecn == 0
    session.write(b"data", wire.now)
    assert peer.expect("PA").ecn == 2
    peer.send("A")
    peer.send("PA", b"marked", traffic_class=3)
    peer.expect("EA", ack=peer.snd_nxt, within=millis(100))  # until CWR comes
    peer.send("PA", b"still", traffic_class=2)
    peer.expect("EA", within=millis(100))
    peer.send("PAC", b"heard", traffic_class=2)
    peer.expect("A", within=millis(100))
    before = session.statistics().snd_cwnd
    session.write(b"more", wire.now)
    peer.expect("PA")
    peer.send("AE")
    assert session.statistics().snd_cwnd < before
    session.write(b"last", wire.now)
    assert "C" in peer.expect().flags
    end(wire)


@pytest.mark.rule("UM-35.t", "RFC 5961 7")
def test_challenges_are_limited_per_session_never_globally() -> None:
    wire = Wire()
    built = [states.established(wire) for _ in range(3)]
    for _, peer in built:
        for _ in range(40):
            peer.send("S", seq=peer.snd_nxt)
    counts = [sum(seen.source == session.local for seen in wire.sent[-30:]) for session, _ in built]
    assert counts == [10, 10, 10]
    assert wire.stack.counters.drops[Drop.RATE_LIMITED] == 90
    wire.take()
    wire.advance(seconds(1))
    session, peer = built[0]
    peer.send("S", seq=peer.snd_nxt)
    peer.expect("A", ack=peer.snd_nxt)
    assert session.state == st.ESTABLISHED
    end(wire)


@pytest.mark.rule("UM-35.t")
@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_of_nothing_is_refused_when_it_is_configured(limit: int) -> None:
    """It was taken, and divided by when the first blind segment came in."""
    with pytest.raises(BadArgument, match="challenge_acks"):
        TcpPolicy(challenge_acks_per_second=limit)
