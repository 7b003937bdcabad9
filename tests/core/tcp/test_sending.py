"""TCP: data out. Windows, Nagle, probes, retransmission, path MTU."""

import itertools

import pytest

from tests.core.scene import ROUTER, address, connect, dropped, end, lives
from umuxstack.core.config import LinkCaps, TcpPolicy
from umuxstack.core.errors import Drop, Reason, SessionClosed
from umuxstack.core.tcp import state as st
from umuxstack.core.units import millis, minutes, seconds
from umuxstack.driver.links.impair import Impairment
from umuxstack.testing import builders, checks, states
from umuxstack.testing.apps import Transfer
from umuxstack.testing.network import Network
from umuxstack.testing.peer import PEER, Peer
from umuxstack.testing.wire import Wire

SACK = builders.mss(1440) + builders.sack_permitted()


# What may be sent


@pytest.mark.rule("UM-35.p", "RFC 6928 2")
@pytest.mark.parametrize("window", [10, 2])
def test_the_initial_window_is_10_segments(window: int) -> None:
    wire = Wire(tcp=TcpPolicy(initial_window=window))
    session, _ = states.established(wire)
    session.write(bytes(100_000), wire.now)
    assert [len(seen.payload) for seen in wire.take()] == [1440] * window
    end(wire)


@pytest.mark.rule("UM-35.p", "RFC 5681 3.1")
def test_slow_start_sends_two_for_each_acknowledged() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    session.write(bytes(400_000), wire.now)
    sent = [*wire.take()]
    peer.send("A", ack=(sent[1].seq + 1440) & 0xFFFFFFFF)
    assert len(wire.take()) == 4
    end(wire)


@pytest.mark.rule("UM-35.k", "RFC 9293 3.8.6")
def test_no_more_than_the_peer_s_window_is_outstanding() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    peer.window = 4000
    peer.send("A")
    session.write(bytes(100_000), wire.now)
    assert sum(len(seen.payload) for seen in wire.take()) <= 4000
    end(wire)


@pytest.mark.rule("UM-35.g", "RFC 7323 2.3")
@pytest.mark.parametrize(("shift", "meant"), [(0, 0), (3, 3), (14, 14), (200, 14)])
def test_the_peer_s_window_is_scaled_as_it_said(shift: int, meant: int) -> None:
    wire = Wire()
    session, peer = states.established(wire, options=builders.mss(1440) + builders.window_scale(shift))
    assert session.statistics().snd_wnd == 65535  # a SYN's window is not scaled
    peer.send("A", window=1000)
    assert session.statistics().snd_wnd == 1000 << meant
    end(wire)


@pytest.mark.rule("UM-35.n", "RFC 9293 3.7.4")
def test_nagle_holds_small_segments_back_while_one_is_out() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    session.write(b"a", wire.now)
    peer.expect("PA", b"a")
    session.write(b"b", wire.now)
    session.write(b"c", wire.now)
    wire.expect_silence(millis(1))
    peer.send("A")
    peer.expect("PA", b"bc")
    session.write(bytes(1440), wire.now)  # a full segment waits for nobody
    assert len(peer.expect("PA").payload) == 1440
    end(wire)


@pytest.mark.rule("UM-35.n")
@pytest.mark.parametrize("how", ["policy", "option", "fin"])
def test_nagle_can_be_switched_off_and_a_fin_does_not_wait(how: str) -> None:
    wire = Wire(tcp=TcpPolicy(nodelay=how == "policy"))
    session, peer = states.established(wire)
    session.write(b"a", wire.now)
    peer.expect("PA", b"a")
    session.write(b"b", wire.now)
    if how == "option":
        session.configure(nodelay=True)
    elif how == "fin":
        session.shutdown(wire.now)
    peer.expect("FPA" if how == "fin" else "PA", b"b")
    end(wire)


@pytest.mark.rule("UM-35.k", "RFC 9293 3.8.6.2.1")
def test_the_sender_makes_no_silly_segments() -> None:
    wire = Wire(tcp=TcpPolicy(nodelay=True))
    session, peer = states.established(wire)
    peer.send("A", window=10_000)
    session.write(bytes(9_900), wire.now)
    first = wire.take()
    session.write(bytes(5000), wire.now)
    peer.send("A", window=200, ack=(first[0].seq + sum(seen.length for seen in first)) & 0xFFFFFFFF)
    wire.expect_silence(millis(100))  # 200 bytes would fit; they are not worth a segment
    peer.send("A", window=5000, ack=(first[0].seq + 9_900) & 0xFFFFFFFF)
    assert len(wire.take()[0].payload) == 1440
    end(wire)


@pytest.mark.rule("UM-35.k", "RFC 9293 3.8.6.2.1")
def test_but_the_override_timer_sends_what_fits_in_the_end() -> None:
    wire = Wire(tcp=TcpPolicy(nodelay=True))
    session, peer = states.established(wire)
    peer.send("A", window=10_000)
    peer.send("A", window=200)
    session.write(bytes(5000), wire.now)
    wire.expect_silence(millis(100))
    assert len(peer.expect(within=seconds(2)).payload) == 200
    end(wire)


# Zero window


@pytest.mark.rule("UM-35.l", "RFC 9293 3.8.6.1")
def test_a_shut_window_is_probed_ever_more_slowly_and_for_ever() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    peer.send("A", window=0)
    session.write(b"waiting", wire.now)
    times = []
    for _ in range(60):
        probe = peer.expect(within=seconds(61))
        assert probe.length == 0 or probe.payload == b"w"
        times.append(wire.now)
        peer.send("A", window=0, ack=peer.rcv_nxt)
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == seconds(60)
    assert session.state == st.ESTABLISHED  # MUST-35: as long as the peer answers
    peer.send("A", window=1000)
    assert wire.take()[0].payload == b"waiting"
    end(wire)


@pytest.mark.rule("UM-35.l", "RFC 9293 3.8.6.1")
def test_a_peer_that_is_gone_is_not_probed_for_ever() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    peer.send("A", window=0)
    session.write(b"waiting", wire.now)
    wire.advance(minutes(30))
    wire.take()
    assert session.end_reason == Reason.TIMED_OUT
    end(wire)


@pytest.mark.rule("UM-35.l")
def test_a_fin_waits_for_the_window_as_well() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    peer.send("A", window=0)
    session.write(b"last", wire.now)
    session.shutdown(wire.now)
    peer.expect(within=seconds(2))
    peer.send("A", window=100)
    assert [(seen.flags, seen.payload) for seen in wire.take()] == [("FPA", b"last")]
    end(wire)


@pytest.mark.rule("UM-35.k", "RFC 9293 3.10.7.4")
def test_an_old_segment_does_not_move_the_window() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    peer.send("PA", b"x")
    peer.send("A", window=5000)
    peer.send("A", b"x", seq=peer.snd_nxt - 1, window=9)
    assert session.statistics().snd_wnd == 5000
    end(wire)


# Retransmission


@pytest.mark.rule("UM-35.f", "RFC 6298 5", "RFC 9293 3.8.3")
def test_the_timeout_doubles_up_to_60_s_and_15_times_are_enough() -> None:
    wire = Wire(tcp=TcpPolicy(tail_loss_probe=False))
    session, peer = states.established(wire)
    session.write(b"x", wire.now)
    rto = session.statistics().rto
    assert rto == millis(200)
    first = peer.expect("PA").time
    wire.advance(minutes(30))
    times = [seen.time for seen in wire.take() if seen.flags == "PA"]
    expected, at = [], first
    for number in range(15):
        at += min(rto << number, seconds(60))
        expected.append(at)
    assert times == expected
    assert session.end_reason == Reason.TIMED_OUT
    assert wire.stack.memory_used() == 0
    assert not lives(wire.stack, session.local)
    end(wire)


@pytest.mark.rule("UM-35.f", "RFC 6298 5.7")
def test_an_ack_of_new_data_restarts_it() -> None:
    wire = Wire(tcp=TcpPolicy(tail_loss_probe=False, nodelay=True))
    session, peer = states.established(wire)
    session.write(b"one", wire.now)
    peer.expect("PA", b"one")
    wire.advance(millis(150))
    session.write(b"two", wire.now)
    peer.expect("PA", b"two")
    peer.send("A", ack=peer.rcv_nxt - 3)
    rto = session.statistics().rto
    wire.expect_silence(rto - 1)
    peer.expect("PA", b"two", within=1)
    end(wire)


@pytest.mark.rule("UM-35.f", "RFC 6298 2")
def test_the_timeout_follows_the_measured_round_trips() -> None:
    wire = Wire()
    session = connect(wire)
    peer = Peer(wire, session.local, port=80)
    peer.expect("S")
    wire.advance(millis(400))
    peer.send("SA")
    peer.expect("A")
    statistics = session.statistics()
    assert (statistics.srtt, statistics.rttvar, statistics.rto) == (millis(400), millis(200), millis(1200))
    session.write(b"x", wire.now)
    peer.expect("PA")
    wire.advance(millis(480))
    peer.send("A")
    statistics = session.statistics()
    assert (statistics.srtt, statistics.rttvar) == (millis(410), millis(170))
    assert statistics.rto == millis(410 + 4 * 170)
    end(wire)


@pytest.mark.rule("UM-35.f", "RFC 6298 3")
def test_karn_a_retransmitted_segment_measures_nothing() -> None:
    wire = Wire(tcp=TcpPolicy(tail_loss_probe=False))
    session, peer = states.established(wire)
    before = session.statistics().srtt
    session.write(b"x", wire.now)
    peer.expect("PA")
    peer.expect("PA", within=seconds(1))
    wire.advance(millis(50))
    peer.send("A")
    assert session.statistics().srtt == before
    end(wire)


@pytest.mark.rule("UM-35.p", "RFC 5681 3.2", "RFC 6582")
def test_three_duplicates_bring_the_lost_segment_at_once() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    session.write(bytes(14_400), wire.now)
    first = wire.take()[0]
    for _ in range(3):
        peer.send("A", ack=first.seq)
    again = [seen for seen in wire.take() if seen.seq == first.seq]
    assert len(again) == 1
    assert again[0].payload == first.payload
    assert wire.stack.counters.fast_retransmits == 1
    end(wire)


@pytest.mark.rule("UM-35.r", "UM-35.s", "RFC 6675 5")
def test_sack_tells_what_to_send_again_and_nothing_else_is() -> None:
    wire = Wire()
    session, peer = states.established(wire, options=SACK)
    session.write(bytes(14_400), wire.now)
    sent = wire.take()
    blocks = ((sent[2].seq, sent[9].seq + 1440),)
    wire.advance(millis(100))
    wire.take()  # a tail loss probe
    peer.send("A", ack=sent[1].seq, options=builders.sack(*blocks))
    again = {seen.seq for seen in wire.take() if seen.length}
    assert again == {sent[1].seq}
    end(wire)


@pytest.mark.rule("UM-35.s", "RFC 8985 7")
def test_a_lost_tail_is_probed_before_the_timeout() -> None:
    wire = Wire()
    session = connect(wire)
    peer = Peer(wire, session.local, port=80)
    peer.expect("S")
    wire.advance(millis(50))
    peer.send("SA", options=SACK)
    peer.expect("A")
    session.write(bytes(2880), wire.now)
    first, last = wire.take()
    seen = peer.expect(within=seconds(1))
    assert seen.seq == last.seq
    assert seen.time - first.time == 2 * millis(50)
    assert wire.stack.counters.tlp_probes == 1
    end(wire)


@pytest.mark.rule("UM-35.u", "RFC 5482", "RFC 9293 3.8.3")
def test_the_user_timeout_ends_a_session_whose_data_nobody_acknowledges() -> None:
    wire = Wire()
    session, _ = states.established(wire)
    session.configure(user_timeout=seconds(10))
    session.write(b"x", wire.now)
    wire.advance(seconds(9))
    assert not session.ended
    wire.advance(seconds(8))
    assert session.end_reason == Reason.TIMED_OUT
    wire.take()
    end(wire)


@pytest.mark.rule("UM-35.u", "RFC 9293 3.8.4")
def test_keep_alives_are_off_by_default() -> None:
    wire = Wire()
    states.established(wire)
    wire.expect_silence(minutes(60 * 48))
    end(wire)


@pytest.mark.rule("UM-35.u", "RFC 9293 3.8.4", "RFC 1122 4.2.3.6")
def test_keep_alives_ask_a_silent_peer_and_give_up_when_it_does_not_answer() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    session.configure(keepalive=True, keepalive_idle=seconds(100), keepalive_interval=seconds(10), keepalive_count=3)
    for _ in range(3):
        wire.expect_silence(seconds(100) - 1)
        peer.expect("A", b"", seq=peer.rcv_nxt - 1, within=1)
        peer.send("A")  # it lives
    wire.advance(seconds(100))
    probes = wire.take()
    wire.advance(seconds(29))
    probes += wire.take()
    assert len(probes) == 3
    assert not session.ended
    wire.advance(seconds(1))
    assert session.end_reason == Reason.TIMED_OUT
    end(wire)


@pytest.mark.rule("UM-35.u")
def test_a_keep_alive_of_the_peer_is_answered() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    peer.send("A", seq=peer.snd_nxt - 1)
    peer.expect("A", ack=peer.snd_nxt)
    peer.send("A", b"\0", seq=peer.snd_nxt - 1)  # with the garbage byte that RFC 1122 allows
    peer.expect("A", ack=peer.snd_nxt)
    assert session.read(9, wire.now) == b""
    end(wire)


# Path MTU


@pytest.mark.rule("UM-35.v", "RFC 8201 4", "RFC 8201 5.4")
def test_packet_too_big_makes_segments_smaller_and_sends_again_at_once() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    session.write(bytes(5760), wire.now)
    sent = wire.take()
    cwnd = session.statistics().snd_cwnd
    wire.send(builders.packet_too_big(ROUTER, sent[0].raw, 1300))
    again = wire.take()
    assert {len(seen.payload) for seen in again} <= {1240, 1440 - 1240, 5760 % 1240}
    assert again[0].seq == sent[0].seq
    assert sum(len(seen.payload) for seen in again) == 5760
    assert session.statistics().snd_cwnd >= cwnd - 1440  # it is no congestion
    peer.send("A", ack=(sent[0].seq + 5760) & 0xFFFFFFFF)
    assert session.unsent == 0
    end(wire)


@pytest.mark.rule("UM-35.v", "RFC 8201 4")
def test_what_one_session_learnt_the_next_to_that_64_knows() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    session.write(bytes(1440), wire.now)
    wire.send(builders.packet_too_big(ROUTER, peer.expect().raw, 1400))
    wire.take()
    peer.send("A")
    second, _ = states.established(wire, address=PEER)
    assert second.statistics().snd_mss == 1340
    wire.advance(minutes(10))
    wire.take()
    third, _ = states.established(wire)
    assert third.statistics().snd_mss == 1440
    end(wire)


@pytest.mark.rule("UM-35.v", "RFC 8201 4")
def test_a_larger_value_is_never_believed() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    session.write(bytes(1440), wire.now)
    quoted = peer.expect().raw
    for mtu in (1500, 9000):
        with dropped(wire, Drop.ICMP_NOT_BELIEVED):
            wire.send(builders.packet_too_big(ROUTER, quoted, mtu))
    assert session.statistics().snd_mss == 1440
    end(wire)


# The application's side


def test_a_full_send_buffer_takes_nothing_and_says_when_there_is_room() -> None:
    wire = Wire(tcp=TcpPolicy(send_buffer=50_000, send_buffer_max=50_000))
    session, peer = states.established(wire)
    total = 0
    while taken := session.write(bytes(20_000), wire.now):
        total += taken
    assert 50_000 <= total <= 120_000
    assert bool(session.writable) is False
    wire.take()
    wire.stack.take_ready()
    while not session.writable:
        peer.send("A", ack=(peer.rcv_nxt + total - session.unsent + 5000) & 0xFFFFFFFF)
        for seen in wire.take():
            assert seen.flags in ("A", "PA")
    assert session in wire.stack.take_ready()
    assert session.write(b"x", wire.now) == 1
    session.abort(wire.now)
    wire.take()
    end(wire)


VIEWS = [
    memoryview(bytes(range(80))).cast("Q"),
    memoryview(bytes(range(80))).cast("B", (8, 10)),
    memoryview(bytearray(range(80))).cast("H"),
    memoryview(bytes(range(80)) * 2)[::2],
    memoryview(b"x" * 96_000).cast("I"),
]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("how", ["write", "write_record", "write_urgent"])
def test_a_view_is_so_many_bytes_and_not_so_many_items(view: memoryview, how: str) -> None:
    """Ten items of eight bytes were taken for ten bytes: all were sent, and memory counted what nobody had taken."""
    wire = Wire(tcp=TcpPolicy(nodelay=True, initial_window=100, send_buffer=9000, send_buffer_max=9000))
    session, peer = states.established(wire)
    data, got = view.tobytes(), b""
    while len(got) < len(data):
        taken = getattr(session, how)(data[len(got) :] if got else view, wire.now)
        assert wire.stack.memory_used() == taken
        for _ in range(9):
            sent = b"".join(seen.payload for seen in wire.take())
            taken -= len(sent)
            got += sent
            peer.rcv_nxt = peer.rcv_nxt + len(sent) & 0xFFFFFFFF
            peer.send("A")
        assert taken == wire.stack.memory_used() == 0
    assert got == data
    end(wire)


def test_writing_after_the_end_is_an_error_of_the_caller() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    peer.send("R")
    with pytest.raises(SessionClosed):
        session.write(b"x", wire.now)
    end(wire)


@pytest.mark.rule("UM-35.p")
def test_super_segments_leave_whole_and_say_the_same() -> None:
    def stream(*, offload: bool) -> bytes:
        wire = Wire(seed=4, link=LinkCaps(segmentation=offload, checksum=offload))
        session, peer = states.established(wire)
        session.write(bytes(range(250)) * 50, wire.now)
        session.shutdown(wire.now)
        got = b"".join(peer.expect(seq=peer.rcv_nxt).payload for _ in range(9))
        assert "F" in wire.sent[-1].flags
        session.abort(wire.now)
        wire.take()
        return got

    assert stream(offload=True) == stream(offload=False) == bytes(range(250)) * 50


@pytest.mark.rule("UM-35.q", "UM-35.p")
@pytest.mark.parametrize("algorithm", ["cubic", "newreno"])
def test_a_transfer_survives_a_bad_path_with_either_algorithm(algorithm: str) -> None:
    with Network(seed=9) as net:
        one, two = net.hosts("one", "two", tcp=TcpPolicy(congestion=algorithm))
        net.impair(two, Impairment(delay=millis(10), loss=0.02))
        door = two.listen()
        received = two.serve(door, Transfer)
        ssa = two.das(door).address
        sender = one.attach(one.connect(ssa), Transfer(bytes(300_000)))
        net.run_until(lambda: bool(received.apps) and received.apps[0].done, limit=minutes(5))  # type: ignore[attr-defined]
        assert one.stack.counters.retransmitted_segments > 0
        assert sender.done
        (app,) = received.apps
        assert isinstance(app, Transfer)
        assert app.count == 300_000


def test_an_answer_from_another_stack_comes_through_a_service() -> None:
    wire = Wire()
    session = connect(wire, address(PEER))
    wire.expect(checks.tcp("S"))
    session.abort(wire.now)
    wire.expect_silence(seconds(1))
    end(wire)
