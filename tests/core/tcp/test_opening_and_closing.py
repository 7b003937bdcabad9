"""TCP's beginning and end: handshakes, options, retransmitted SYNs and FINs, half-close, resets."""

import pytest

from tests.core.scene import address, connect, das, dropped, end, is_fin, listen_0, lives, state_of
from umuxstack.core.config import LinkCaps, TcpPolicy
from umuxstack.core.errors import Drop, NoMemory, Reason, SessionClosed
from umuxstack.core.tcp import state as st
from umuxstack.core.tcp.quiet import Quiet
from umuxstack.core.tcp.state import NAMES
from umuxstack.core.units import minutes, seconds
from umuxstack.testing import builders, checks, states
from umuxstack.testing.network import Network
from umuxstack.testing.peer import PEER, Peer
from umuxstack.testing.wire import Wire

ALL_OPTIONS = builders.mss(1400) + builders.sack_permitted() + builders.timestamps(500) + builders.window_scale(3)


@pytest.mark.rule("UM-35.y", "UM-35.i", "RFC 6691", "RFC 7323 2.2", "RFC 2018 2")
def test_a_syn_offers_mss_sack_timestamps_and_window_scale() -> None:
    wire = Wire()
    connect(wire)
    options = wire.expect(checks.tcp("S", ack=0)).options
    assert (options.mss, options.sack_permitted) == (1440, True)  # RFC 6691: less the fixed headers, not the options
    assert options.timestamps is not None
    assert options.timestamps[1] == 0
    assert options.window_scale is not None
    assert 65535 << options.window_scale >= TcpPolicy().receive_buffer_max
    end(wire)


@pytest.mark.rule("UM-35.y", "UM-35.g", "UM-35.h", "UM-35.r")
def test_a_syn_ack_grants_what_the_syn_offered() -> None:
    wire = Wire()
    peer = Peer(wire, wire.minted())
    peer.send("S", options=ALL_OPTIONS)
    options = peer.expect("SA", ack=peer.snd_nxt).options
    assert (options.mss, options.sack_permitted) == (1440, True)
    assert options.timestamps is not None
    assert options.timestamps[1] == 500
    assert options.window_scale is not None
    end(wire)


@pytest.mark.rule("UM-35.g", "UM-35.h", "UM-35.r", "RFC 7323 2.2", "RFC 7323 3.2")
@pytest.mark.parametrize("offered", [b"", builders.mss(1400), builders.window_scale(3), builders.timestamps(9)])
def test_and_nothing_else(offered: bytes) -> None:
    wire = Wire()
    peer = Peer(wire, wire.minted())
    peer.send("S", options=offered)
    options = peer.expect("SA").options
    assert options.mss == 1440
    assert not options.sack_permitted
    assert (options.window_scale is not None) == (offered[:1] == b"\x03")
    assert (options.timestamps is not None) == (offered[:2] == b"\x01\x01")
    end(wire)


@pytest.mark.rule("UM-35.y")
def test_each_of_them_can_be_switched_off() -> None:
    wire = Wire(tcp=TcpPolicy(sack=False, timestamps=False, window_scaling=False))
    connect(wire)
    assert wire.expect(checks.tcp("S")).options.kinds == (2,)
    peer = Peer(wire, wire.minted())
    peer.send("S", options=ALL_OPTIONS)
    assert peer.expect("SA").options.kinds == (2,)
    end(wire)


@pytest.mark.rule("UM-35.i", "RFC 9293 3.7.1")
@pytest.mark.parametrize(
    ("options", "size"),
    [
        (builders.window_scale(0), 1220),  # MUST-16: without the option the default holds
        (builders.mss(536), 536),
        (builders.mss(1400), 1400),
        (builders.mss(9000), 1440),  # our own link carries no more
        (builders.mss(1400) + builders.timestamps(1), 1388),
    ],
)
def test_no_segment_is_larger_than_the_peer_takes(options: bytes, size: int) -> None:
    wire = Wire()
    session, _ = states.established(wire, options=options)
    session.write(bytes(4000), wire.now)
    assert max(len(seen.payload) for seen in wire.take()) == size
    end(wire)


@pytest.mark.rule("UM-35.i")
def test_the_mss_follows_the_link() -> None:
    wire = Wire(link=LinkCaps(mtu=9000, segmentation=False, checksum=False))
    connect(wire)
    assert wire.expect(checks.tcp("S")).options.mss == 8940
    end(wire)


@pytest.mark.rule("UM-35.f", "RFC 6298 2.1", "RFC 9293 3.8.3")
def test_a_syn_is_repeated_ever_more_slowly_then_given_up() -> None:
    wire = Wire()
    begin = wire.now
    session = connect(wire)
    wire.advance(minutes(6))
    syns = wire.take()
    assert [(seen.time - begin) // seconds(1) for seen in syns] == [0, 1, 3, 7, 15, 31, 63, 123]  # MUST-23: 3 minutes
    assert len({(seen.seq, seen.raw[:44]) for seen in syns}) == 1
    assert session.end_reason == Reason.TIMED_OUT
    assert not lives(wire.stack, session.local)
    end(wire)


@pytest.mark.rule("UM-35.f", "RFC 9293 3.8.3")
def test_so_is_a_syn_ack() -> None:
    wire = Wire(das_lifetime=minutes(10))
    session, _ = states.syn_received(wire)
    begin = wire.now
    wire.advance(minutes(5))
    assert [(seen.time - begin) // seconds(1) for seen in wire.take()] == [1, 3, 7, 15, 31]
    assert session.end_reason == Reason.TIMED_OUT
    end(wire)


@pytest.mark.rule("RFC 6298 5.7", "UM-35.f")
def test_after_a_repeated_syn_the_timer_starts_at_3_s() -> None:
    wire = Wire()
    session = connect(wire)
    peer = Peer(wire, session.local, port=80)
    peer.expect("S")
    peer.expect("S", within=seconds(2))
    peer.send("SA")
    peer.expect("A")
    assert session.statistics().rto == seconds(3)
    end(wire)


@pytest.mark.rule("UM-35.d", "RFC 9293 3.5")
def test_simultaneous_open_as_in_figure_7() -> None:
    wire = Wire()
    session = connect(wire, source=address("2001:db8:1::7"))
    peer = Peer(wire, session.local, port=80)
    syn = peer.expect("S")
    peer.send("S")
    assert session.state == st.SYN_RECEIVED
    peer.expect("SA", seq=syn.seq, ack=peer.snd_nxt)
    peer.rcv_nxt = syn.seq + 1 & 0xFFFFFFFF
    peer.send("SA", seq=peer.iss)
    assert session.state == st.ESTABLISHED
    session.write(b"hello", wire.now)
    assert wire.take()[-1].payload == b"hello"
    end(wire)


@pytest.mark.rule("UM-35.d")
def test_simultaneous_open_of_two_stacks() -> None:
    with Network() as net:
        one, two = net.hosts("one", "two")
        a = one.connect("2001:db8:2::7", 1, source=address("2001:db8:1::7"))
        b = two.connect("2001:db8:1::7", 1, source=address("2001:db8:2::7"))
        net.run_for(seconds(1))
        assert (a.state, b.state) == (st.ESTABLISHED, st.ESTABLISHED)
        one.write(a, b"from one")
        two.write(b, b"from two")
        net.run_for(seconds(1))
        assert (one.read(a), two.read(b)) == (b"from two", b"from one")


@pytest.mark.rule("UM-35.o", "RFC 6528 3")
def test_initial_numbers_are_over_the_pair_and_the_clock() -> None:
    def number(seed: int, later: int, source: str) -> int:
        wire = Wire(seed=seed)
        wire.advance(later)
        connect(wire, source=address(source))
        return wire.expect(checks.tcp("S")).seq

    one, other = "2001:db8:1::7", "2001:db8:1::8"
    base = number(1, 0, one)
    assert number(1, seconds(4), one) - base & 0xFFFFFFFF == 1_000_000  # one tick in 4 µs
    assert number(1, 0, other) != base
    assert number(2, 0, one) != base


# Closing


@pytest.mark.rule("UM-35.b", "RFC 9293 3.6")
def test_half_close_goes_on_reading() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    session.write(b"request", wire.now)
    session.shutdown(wire.now)
    assert peer.expect(is_fin, b"request").length == 8
    with pytest.raises(SessionClosed):
        session.write(b"more", wire.now)
    peer.send("A")
    assert session.state == st.FIN_WAIT_2
    for number in range(3):
        wire.advance(minutes(3))
        peer.send("PA", b"%d" % number)
        assert session.read(9, wire.now) == b"%d" % number
        assert not session.eof
    wire.take()
    peer.send("FA")
    assert session.eof
    assert session.state == st.TIME_WAIT
    end(wire)


@pytest.mark.rule("UM-35.b")
def test_the_other_half_goes_on_writing() -> None:
    wire = Wire()
    session, peer = states.close_wait(wire)
    assert session.eof
    assert session.writable
    session.write(b"answer", wire.now)
    peer.expect("PA", b"answer")
    peer.send("A")
    assert state_of(wire.stack, session.local) == "VALID"
    session.close(wire.now)
    peer.expect(is_fin)
    peer.send("A")
    assert session.end_reason == Reason.CLOSED
    end(wire)


@pytest.mark.rule("UM-35.c", "RFC 9293 3.6")
def test_simultaneous_close() -> None:
    wire = Wire()
    session, peer = states.closing(wire)
    peer.send("A")
    assert (session.state, session.end_reason) == (st.TIME_WAIT, Reason.CLOSED)
    end(wire)


@pytest.mark.rule("UM-35.c")
def test_simultaneous_close_of_two_stacks() -> None:
    with Network() as net:
        one, two = net.hosts("one", "two")
        a, b = net.established(one, two)
        one.close(a)
        two.close(b)
        net.run_for(seconds(1))
        assert (a.end_reason, b.end_reason) == (Reason.CLOSED, Reason.CLOSED)
        assert [seen.flags for seen in net.sent if "R" in seen.flags] == []


@pytest.mark.rule("UM-35.f", "RFC 9293 3.8.3")
def test_a_fin_is_repeated_and_an_orphan_gives_up_sooner() -> None:
    wire = Wire()
    session, _ = states.fin_wait_1(wire)
    wire.advance(minutes(30))
    assert all(is_fin(seen.flags) for seen in wire.take())
    assert session.end_reason == Reason.TIMED_OUT
    assert not lives(wire.stack, session.local)
    end(wire)


@pytest.mark.rule("UM-35.a", "RFC 9293 3.6")
def test_an_orphan_does_not_wait_for_a_fin_for_ever() -> None:
    wire = Wire()
    session, _ = states.fin_wait_2(wire)
    wire.advance(seconds(60))
    assert session.ended
    assert state_of(wire.stack, session.local) == "RETIRING"
    wire.advance(seconds(60))
    assert not lives(wire.stack, session.local)
    end(wire)


@pytest.mark.rule("UM-35.e", "RFC 9293 3.6.1", "RFC 2525 2.17")
@pytest.mark.parametrize("order", ["in order", "out of order"])
def test_closing_with_unread_data_resets(order: str) -> None:
    wire = Wire()
    session, peer = states.established(wire)
    peer.send("PA", b"unread", seq=peer.snd_nxt + (7 if order == "out of order" else 0))
    wire.advance(seconds(1))
    wire.take()
    session.close(wire.now)
    peer.expect("RA", seq=peer.rcv_nxt)
    assert session.end_reason == Reason.ABORTED
    end(wire)


@pytest.mark.rule("UM-35.e", "RFC 9293 3.6.1")
@pytest.mark.parametrize("build", [states.fin_wait_1, states.fin_wait_2])
def test_data_for_an_application_that_closed_is_reset(build: object) -> None:
    wire = Wire()
    session, peer = build(wire)  # type: ignore[operator]
    with dropped(wire, Drop.AFTER_CLOSE):
        peer.send("PA", b"nobody reads this")
    peer.expect("RA")
    assert session.ended
    end(wire)


@pytest.mark.rule("UM-35.e", "RFC 9293 3.10.5")
def test_abort_sends_a_reset_and_drops_everything() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    session.write(bytes(200_000), wire.now)
    peer.send("PA", b"unread", seq=peer.snd_nxt)
    nxt = max(wire.take(), key=lambda seen: seen.seq - peer.rcv_nxt & 0xFFFFFFFF)
    session.abort(wire.now)
    peer.expect("RA", seq=nxt.seq + nxt.length)
    assert (session.end_reason, wire.stack.memory_used(), session.state) == (Reason.ABORTED, 0, st.CLOSED)
    with pytest.raises(SessionClosed):
        session.write(b"x", wire.now)
    end(wire)


@pytest.mark.rule("UM-35.e")
def test_a_reset_leaves_what_was_received_readable() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    peer.send("PA", b"last words")
    peer.send("R")
    assert (session.ended, session.eof, session.readable) == (True, False, True)
    assert session.read(99, wire.now) == b"last words"
    assert session.eof
    session.close(wire.now)
    end(wire)


def test_closing_twice_and_after_the_end_does_nothing() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    session.shutdown(wire.now)
    session.shutdown(wire.now)
    session.close(wire.now)
    session.close(wire.now)
    peer.expect(is_fin)
    assert wire.take() == []
    peer.send("FA")
    peer.expect("A")
    session.close(wire.now)
    session.abort(wire.now)
    assert wire.take() == []
    assert session.end_reason == Reason.CLOSED
    end(wire)


@pytest.mark.rule("RFC 9293 3.10.4")
def test_what_was_written_before_the_handshake_goes_out_after_it_with_the_fin() -> None:
    wire = Wire()
    session, peer = states.syn_sent(wire)
    session.write(b"early", wire.now)
    session.shutdown(wire.now)
    wire.expect_silence()
    peer.send("SA")
    sent = wire.take()
    assert [(seen.flags, seen.payload) for seen in sent if seen.length] == [("FPA", b"early")]
    assert sent[-1].ack == peer.snd_nxt
    end(wire)


@pytest.mark.rule("UM-36.b")
@pytest.mark.parametrize("duration", [1, 30, 120])
def test_the_length_of_time_wait_is_configured(duration: int) -> None:
    wire = Wire(tcp=TcpPolicy(time_wait=seconds(duration)))
    session, _ = states.time_wait(wire)
    assert isinstance(wire.stack._ctx.demux.pairs[session.pair], Quiet)
    wire.advance(seconds(duration) - 1)
    assert wire.stack.leftovers()["records"] == 1
    wire.advance(1)
    assert not any(wire.stack.leftovers().values())


def test_no_session_is_opened_when_memory_runs_out() -> None:
    wire = Wire(memory=100_000)
    session, _ = states.established(wire)
    door = listen_0(wire)
    ssa = das(wire, door).address
    assert session.write(bytes(90_000), wire.now) == 90_000
    wire.take()
    with pytest.raises(NoMemory):
        connect(wire)
    with dropped(wire, Drop.NO_MEMORY):
        wire.send(builders.tcp(PEER, ssa, flags="S"))
    wire.expect_silence(1)
    session.abort(wire.now)
    wire.take()
    Peer(wire, ssa).connect()
    assert door.accept() is not None
    end(wire)


def test_every_state_has_a_name() -> None:
    assert NAMES[st.SYN_SENT] == "SYN-SENT"
    assert NAMES[st.TIME_WAIT] == "TIME-WAIT"
    assert len(set(NAMES)) == st.TIME_WAIT + 1
