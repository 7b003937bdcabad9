"""The bare wire and the peer played by hand, on a real stack."""

import pytest

from umuxstack.core.tcp import state as st
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.units import Address, seconds
from umuxstack.testing import builders, checks, states
from umuxstack.testing.builders import packed
from umuxstack.testing.peer import PEER, Peer
from umuxstack.testing.wire import Wire


@pytest.mark.parametrize(
    "build",
    [
        states.syn_sent,
        states.syn_received,
        states.established,
        states.established_server,
        states.close_wait,
        states.last_ack,
        states.fin_wait_1,
        states.fin_wait_2,
        states.closing,
        states.time_wait,
    ],
)
def test_each_builder_leaves_nothing_unseen(build) -> None:  # type: ignore[no-untyped-def]
    wire = Wire()
    build(wire)
    assert wire.take() == []


def test_half_closed_states_keep_the_reading_side_open() -> None:
    for build in (states.fin_wait_1, states.fin_wait_2):
        wire = Wire()
        session, peer = build(wire, half=True)
        peer.send("PA", b"still here")
        assert session.read(100, wire.now) == b"still here"


def test_the_peer_keeps_count_of_both_directions() -> None:
    wire = Wire()
    session, peer = states.established(wire, iss=0xFFFFFFF0)
    peer.send("PA", bytes(100))
    assert peer.snd_nxt == 85  # 2^32 - 16, the SYN, 100 bytes
    peer.expect("A", ack=85, within=seconds(1))
    session.write(b"hello", wire.now)
    peer.expect("PA", b"hello")
    assert peer.rcv_nxt == peer.irs + 6


def test_expectations_fail_with_the_packet_and_every_complaint() -> None:
    wire = Wire()
    wire.stack.connect(Address(packed(PEER)), 443, wire.now)
    with pytest.raises(AssertionError, match=r"\[S\] 1>443.*flags is 'S', not 'SA'; ack is 0, not 5"):
        wire.expect(checks.tcp("SA", ack=5))


def test_silence_is_broken_by_a_retransmission_in_its_time() -> None:
    wire = Wire()
    _, peer = states.syn_sent(wire)
    wire.expect_silence(999_999)
    before = wire.now
    peer.expect("S", within=seconds(5))
    assert wire.now - before == 1
    with pytest.raises(AssertionError, match="expected silence"):
        wire.expect_silence(seconds(30))


def test_waiting_in_vain_fails_after_exactly_that_time() -> None:
    wire = Wire()
    with pytest.raises(AssertionError, match="nothing was sent within 500"):
        wire.expect(within=500)
    assert wire.now == seconds(1000) + 500


def test_a_minted_address_takes_one_connection() -> None:
    wire = Wire()
    peer = Peer(wire, wire.minted())
    peer.connect()
    (session,) = wire.stack.sessions()
    assert isinstance(session, TcpSession)
    assert session.state == st.ESTABLISHED


def test_a_seed_decides_every_byte() -> None:
    def run(seed: int) -> list[bytes]:
        wire = Wire(seed=seed)
        states.close_wait(wire)
        return [seen.raw for seen in wire.sent]

    assert run(5) == run(5)
    assert run(5) != run(6)


@pytest.mark.plain
def test_an_unsound_packet_from_a_stack_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire()
    good = builders.udp(PEER, "2001:db8:1::1", payload=b"x")
    monkeypatch.setattr(wire.stack, "take_output", lambda now: [(good[:-1] + b"y", b"", 0, 0)])
    with pytest.raises(AssertionError, match="wrong checksum"):
        wire.flush()
