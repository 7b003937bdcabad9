"""What random conversations and random segments have found: each test says what went wrong."""

import attrs
import pytest

from tests.core.scene import ROUTER, end
from umuxstack.core.config import TcpPolicy
from umuxstack.core.errors import Reason
from umuxstack.core.personality import FREEBSD
from umuxstack.core.tcp import state as st
from umuxstack.core.units import Address, millis, seconds
from umuxstack.testing import builders, states
from umuxstack.testing.builders import packed
from umuxstack.testing.network import Network
from umuxstack.testing.peer import PEER, Peer
from umuxstack.testing.wire import Wire

OURS = "2001:db8:1::7"


def test_text_of_a_simultaneous_open_is_cut_to_the_window() -> None:
    """All of it was taken, RCV.NXT passed the window's edge, and the next segment had a window of less than nothing:
    `struct.error`."""
    wire = Wire(tcp=TcpPolicy(receive_buffer=256, receive_buffer_max=256))
    session = wire.stack.connect(Address(packed(PEER)), 80, wire.now, source=Address(packed(OURS)))
    peer = Peer(wire, OURS, port=80)
    peer.expect("S")
    peer.send("S", bytes(1000))
    peer.expect("SA")
    peer.send("A", seq=peer.iss + 1)
    peer.expect("A", b"", ack=peer.iss + 257, window=0, within=millis(50))
    assert session.read(1000, wire.now) == bytes(256)
    session.abort(wire.now)
    wire.take()
    end(wire)


def test_a_keep_alive_is_no_business_of_a_session_that_has_ended() -> None:
    """A timer was armed that nobody wanted any more, and stayed for two hours."""
    wire = Wire()
    session, peer = states.established(wire)
    peer.send("R")
    assert session.ended
    session.configure(keepalive=True, nodelay=True)
    end(wire)


def test_less_than_a_segment_that_was_kept_back_is_no_unanswered_probe() -> None:
    """With a user timeout not above the RTO the session ended in TIMED_OUT, though its peer had been sent nothing."""
    wire = Wire()
    session, peer = states.established(wire)
    session.configure(user_timeout=millis(100), cork=True)
    session.write(b"corked", wire.now)
    peer.expect("PA", b"corked", within=millis(200))
    peer.send("A")
    wire.advance(seconds(10))
    assert session.end_reason == Reason.NONE
    session.abort(wire.now)
    wire.take()
    end(wire)


def test_fast_open_that_is_switched_off_while_its_syn_is_on_its_way() -> None:
    """What the SYN-ACK did not acknowledge of the early data was taken for sent, and never went out: the session hung
    without any timer."""
    policy = TcpPolicy(fast_open=True)
    wire = Wire(shared=(Address(packed(OURS)),))
    wire.stack._ctx.cookies.learn(packed(PEER) + packed(OURS), b"cookies!", 1400, wire.now)
    session = wire.stack.connect(
        Address(packed(PEER)), 80, wire.now, source=Address(packed(OURS)), policy=policy, early=b"early"
    )
    wire.flush()
    peer = Peer(wire, OURS, remote_port=session.local_port, port=80)
    syn = peer.expect("S", b"early")
    session.configure(fast_open=False)
    peer.rcv_nxt = syn.seq + 1
    peer.send("SA", options=builders.mss(1000))
    peer.expect("PA", b"early", ack=peer.snd_nxt)
    session.abort(wire.now)
    wire.take()
    end(wire)


def test_a_tail_loss_probe_ends_where_the_record_ends() -> None:
    """RFC 8985 7.3 sends new data if there is some: it took all that a segment holds, out of two records."""
    wire = Wire(tcp=TcpPolicy(initial_window=1))
    session, peer = states.established(wire, options=builders.mss(1440) + builders.sack_permitted())
    session.write_record(bytes(1440), wire.now)
    session.write_record(b"one", wire.now)
    session.write_record(b"two", wire.now)
    peer.expect("PA", bytes(1440))
    peer.expect("PA", b"one", within=seconds(1))
    session.abort(wire.now)
    wire.take()
    end(wire)


def test_a_tail_loss_probe_repeats_what_the_path_was_too_narrow_for() -> None:
    """What was marked lost, waited for the congestion window and then went out as a probe was counted as lost for
    good: the session never took the short way again."""
    wire = Wire(tcp=TcpPolicy(counts_segments=True))
    session, peer = states.established(wire, options=builders.mss(1440) + builders.sack_permitted())
    session.write(bytes(14400), wire.now)
    sent = wire.take()
    wire.send(builders.packet_too_big(ROUTER, sent[0].raw, 1280))
    assert sum(len(seen.payload) for seen in wire.take()) == 12200
    assert session.statistics().lost == 2200
    wire.advance(millis(20))
    (probe,) = wire.take()
    assert len(probe.payload) == 1220
    assert session.statistics().lost == 980
    peer.send("A", ack=sent[-1].seq + len(sent[-1].payload))
    assert session.tcb.loss is None or not session.tcb.loss.lost
    session.abort(wire.now)
    wire.take()
    end(wire)


def test_a_silence_reduces_the_congestion_window_once() -> None:
    """RFC 5681 4.1: as long as the peer's window was shut, each of its ACKs reduced ours again, down to the least."""
    wire = Wire(tcp=TcpPolicy(initial_window=1, congestion="newreno"))
    session, peer = states.established(wire)
    session.write(bytes(1440 * 20), wire.now)
    while sent := wire.take():
        peer.send("A", ack=sent[-1].seq + len(sent[-1].payload))
    before = session.statistics().snd_cwnd
    session.write(bytes(1), wire.now)
    (last,) = wire.take()
    peer.send("A", ack=last.seq + 1, window=0)
    session.write(bytes(50_000), wire.now)
    wire.advance(session.statistics().rto * 3 // 2)
    for _ in range(9):
        peer.send("A", ack=last.seq + 1, window=0)
    wire.take()
    assert session.statistics().snd_cwnd >= before
    peer.send("A", ack=last.seq + 1, window=65535)
    assert before // 2 - 1440 < sum(len(seen.payload) for seen in wire.take()) <= before // 2 + 1440
    session.abort(wire.now)
    wire.take()
    end(wire)


@pytest.mark.parametrize("timestamps", [False, True])
def test_a_simultaneous_close_of_two_that_repeat_their_fins_comes_to_an_end(timestamps: bool) -> None:
    """Each ACK carried the FIN again, lay before the window with it, and was answered in the same way: thousands of
    packets a second, until the retransmission timer had been patient enough."""
    with Network(seed=1) as net:
        one, two = net.hosts("one", "two", tcp=attrs.evolve(FREEBSD, timestamps=timestamps))
        ours, theirs = net.established(one, two)
        net.run_for(seconds(1))
        net.sent.clear()
        one.close(ours)
        two.close(theirs)
        net.run_for(seconds(30))
        assert ours.end_reason == theirs.end_reason == Reason.CLOSED
        assert len(net.sent) == 6  # two FINs, two ACKs that repeat them, two that do not


@pytest.mark.parametrize("timestamps", [False, True])
def test_what_waits_for_more_goes_out_when_the_peer_says_something(timestamps: bool) -> None:
    """The short way through a session with timestamps left it waiting for its timer."""
    with Network(seed=1) as net:
        one, two = net.hosts("one", "two", tcp=TcpPolicy(timestamps=timestamps))
        ours, theirs = net.established(one, two)
        for _ in range(2):
            two.write(theirs, b"something")
            net.run_for(seconds(1))
            assert one.read(ours) == b"something"
        ours.write_more(b"a beginning", net.now)
        two.write(theirs, b"something")
        net.run_for(millis(3))
        assert two.read(theirs) == b"a beginning"
        assert ours.state == st.ESTABLISHED
