"""TCP: data in. Order, windows, acknowledgements; sequence numbers that wrap."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.scene import connect, dropped, end
from umuxstack.core.config import TcpPolicy
from umuxstack.core.errors import Drop
from umuxstack.core.tcp import state as tcp_state
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.units import Micros, millis, seconds
from umuxstack.testing import builders, checks, states
from umuxstack.testing.peer import Peer
from umuxstack.testing.wire import Wire

DATA = bytes(range(256)) * 40
SACK = builders.mss(1440) + builders.sack_permitted()
STAMPS = builders.mss(1440) + builders.timestamps(1)
SCALED = builders.mss(1440) + builders.window_scale(0)


# Order


@pytest.mark.rule("UM-35.j")
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2), (0, 2, 2, 1, 1, 3), (2, 0, 3, 1)])
def test_whatever_the_order_the_bytes_come_out_in_order(order: tuple[int, ...]) -> None:
    wire = Wire()
    session, peer = states.established(wire)
    base = peer.snd_nxt
    for number in order:
        peer.send("A", DATA[number * 1000 : number * 1000 + 1000], seq=base + number * 1000)
    assert session.read(1 << 20, wire.now) == DATA[:4000]
    wire.advance(millis(500))
    assert wire.take()[-1].ack == base + 4000
    assert wire.stack.memory_used() == 0
    end(wire)


@pytest.mark.rule("UM-35.j")
@settings(max_examples=80)
@given(pieces=st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 900)), max_size=25), start=st.integers(0, 2**32))
def test_overlaps_of_every_kind_make_one_stream(pieces: list[tuple[int, int]], start: int) -> None:
    wire = Wire(seed=3)
    session, peer = states.established(wire, iss=start & 0xFFFFFFFF, options=SACK)
    base = peer.snd_nxt
    for at, size in pieces:
        peer.send("A", DATA[at : at + size], seq=base + at)
    covered = 0
    for at, size in sorted(pieces):
        if at <= covered:
            covered = max(covered, at + size)
    assert session.read(1 << 20, wire.now) == DATA[:covered]
    wire.advance(millis(500))
    if pieces:
        assert wire.take()[-1].ack == (base + covered) & 0xFFFFFFFF
    session.abort(wire.now)
    wire.take()
    assert wire.stack.memory_used() == 0


@pytest.mark.rule("UM-35.j", "RFC 9293 3.4")
@pytest.mark.parametrize("before", [1, 2, 700, 1001, 5000])
def test_the_peer_s_sequence_numbers_wrap(before: int) -> None:
    wire = Wire()
    session, peer = states.established(wire, iss=(1 << 32) - before)
    base = peer.snd_nxt
    for number in (1, 0, 2):
        peer.send("PA", DATA[number * 1000 : number * 1000 + 1000], seq=(base + number * 1000) & 0xFFFFFFFF)
    peer.snd_nxt = (base + 3000) & 0xFFFFFFFF
    assert session.read(1 << 20, wire.now) == DATA[:3000]
    peer.send("FA")
    assert wire.take()[-1].ack == peer.snd_nxt == (base + 3001) & 0xFFFFFFFF
    assert session.eof
    end(wire)


def near_wrap(before: int) -> Wire:
    """A wire on which the first connect with this seed begins `before` bytes below 2^32."""
    probe = Wire(seed=11)
    connect(probe)
    first = probe.expect(checks.tcp("S")).seq
    wire = Wire(seed=11)
    wire.now = Micros(wire.now + ((-before - first) % (1 << 32)) * 4)  # RFC 6528: one tick in 4 µs
    return wire


@pytest.mark.rule("UM-35.j", "UM-35.o")
@pytest.mark.parametrize("before", [1, 2, 700, 1441, 5000])
def test_our_own_sequence_numbers_wrap(before: int) -> None:
    wire = near_wrap(before)
    session, peer = states.established(wire)
    assert peer.irs == (1 << 32) - before
    session.write(DATA[:6000], wire.now)
    got = b""
    for _ in range(5):
        seen = peer.expect(seq=peer.rcv_nxt)
        got += seen.payload
    assert got == DATA[:6000]
    peer.send("A", ack=(peer.irs + 1 + 1440) & 0xFFFFFFFF)
    assert session.unsent == 6000 - 1440
    peer.send("A")
    assert session.unsent == 0
    session.close(wire.now)
    fin = peer.expect(lambda flags: "F" in flags)
    assert fin.seq == (peer.irs + 6001) & 0xFFFFFFFF
    peer.send("FA")
    assert session.state == tcp_state.TIME_WAIT
    end(wire)


@pytest.mark.rule("UM-35.j", "UM-35.f")
def test_a_retransmission_across_the_wrap() -> None:
    wire = near_wrap(1000)
    session, peer = states.established(wire)
    session.write(DATA[:2880], wire.now)
    first, second = wire.take()
    wire.advance(millis(900))
    assert {seen.seq for seen in wire.take()} <= {first.seq, second.seq}
    assert second.seq < first.seq
    peer.send("A", ack=(first.seq + 2880) & 0xFFFFFFFF)
    assert session.unsent == 0
    end(wire)


@pytest.mark.rule("UM-35.j", "UM-35.h")
@pytest.mark.parametrize("options", [STAMPS, builders.mss(1440)])
def test_a_fin_that_overtook_the_data_counts_as_soon_as_the_gap_is_filled(options: bytes) -> None:
    """On the short path for ordinary segments the FIN that was waiting was forgotten until it came again."""
    wire = Wire()
    session, peer = states.established(wire, options=options)
    stamp = builders.timestamps(2) if options == STAMPS else b""
    peer.send("FA", seq=peer.snd_nxt + 4, options=stamp)
    assert session.state == tcp_state.ESTABLISHED
    wire.take()
    peer.send("A", b"data", seq=peer.snd_nxt, options=stamp)
    assert session.state == tcp_state.CLOSE_WAIT
    assert wire.take()[-1].ack == peer.snd_nxt + 5
    assert session.read(9, wire.now) == b"data"
    assert session.eof
    end(wire)


# Acknowledgements


@pytest.mark.rule("UM-35.m", "RFC 5681 4.2", "RFC 1122 4.2.3.2")
def test_one_segment_is_acknowledged_after_a_delay_two_at_once() -> None:
    wire = Wire()
    _, peer = states.established(wire)
    peer.send("PA", b"one")
    wire.expect_silence(millis(39))
    peer.expect("A", ack=peer.snd_nxt, within=millis(1))
    peer.send("A", bytes(1440))
    wire.expect_silence()
    peer.send("A", bytes(1440))
    peer.expect("A", ack=peer.snd_nxt)
    wire.expect_silence(seconds(1))
    end(wire)


@pytest.mark.rule("UM-35.m", "RFC 5681 4.2")
def test_a_super_segment_counts_as_what_it_was_merged_from() -> None:
    wire = Wire()
    _, peer = states.established(wire)
    wire.send(peer.segment("PA", bytes(2880)), gso_size=1440)
    peer.expect("A", ack=peer.snd_nxt + 2880)
    end(wire)


@pytest.mark.rule("UM-35.m")
def test_data_that_leaves_carries_the_acknowledgement() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    peer.send("PA", b"question")
    session.write(b"answer", wire.now)
    peer.expect("PA", b"answer", ack=peer.snd_nxt)
    peer.send("A")
    wire.expect_silence(seconds(1))
    end(wire)


@pytest.mark.rule("UM-35.m", "RFC 5681 4.2")
def test_out_of_order_and_gap_filling_segments_are_acknowledged_at_once() -> None:
    wire = Wire()
    _, peer = states.established(wire)
    base = peer.snd_nxt
    for number in (2, 3, 4):
        peer.send("A", bytes(100), seq=base + number * 100)
        peer.expect("A", b"", ack=base)
    peer.send("A", bytes(100), seq=base)
    peer.expect("A", b"", ack=base + 100)
    peer.send("A", bytes(100), seq=base + 100)
    peer.expect("A", b"", ack=base + 500)
    wire.expect_silence(seconds(1))
    end(wire)


@pytest.mark.rule("UM-35.r", "RFC 2018 4")
def test_sack_blocks_tell_what_came_the_newest_first() -> None:
    wire = Wire()
    _, peer = states.established(wire, options=SACK)
    base = peer.snd_nxt
    for at in (1000, 3000, 5000):
        peer.send("A", bytes(1000), seq=base + at)
    assert wire.take()[-1].options.sack == (
        (base + 5000, base + 6000),
        (base + 3000, base + 4000),
        (base + 1000, base + 2000),
    )
    peer.send("A", bytes(1000), seq=base + 2000)
    assert peer.expect("A", ack=base).options.sack == ((base + 1000, base + 4000), (base + 5000, base + 6000))
    peer.send("A", bytes(1000), seq=base)
    assert peer.expect("A", ack=base + 4000).options.sack == ((base + 5000, base + 6000),)
    end(wire)


@pytest.mark.rule("UM-35.r", "RFC 2883 4")
def test_and_what_came_twice() -> None:
    wire = Wire()
    _, peer = states.established(wire, options=SACK)
    base = peer.snd_nxt
    peer.send("A", bytes(2000))
    peer.expect("A", ack=base + 2000, within=millis(100))
    peer.send("A", bytes(1000), seq=base + 500)
    assert peer.expect("A", ack=base + 2000).options.sack == ((base + 500, base + 1500),)
    end(wire)


@pytest.mark.rule("UM-35.r", "RFC 2018 3")
def test_no_sack_without_permission() -> None:
    wire = Wire()
    _, peer = states.established(wire)
    peer.send("A", bytes(1000), seq=peer.snd_nxt + 1000)
    assert peer.expect("A").options.sack == ()
    end(wire)


# Windows


def fill(wire: Wire, session: TcpSession, peer: Peer, shift: int = 0) -> int:
    """The peer sends until our window is shut; returns how many bytes that were."""
    sent = 0
    window = wire.sent[-1].window << shift
    while window > 0:
        size = min(1440, window)
        peer.send("A", bytes(size))
        sent += size
        wire.advance(millis(50))
        answer = wire.take()[-1]
        assert answer.ack == peer.snd_nxt
        window = answer.window << shift
    return sent


@pytest.mark.rule("UM-35.k", "RFC 9293 3.8.6")
def test_a_window_that_nobody_empties_shuts_and_its_edge_never_moves_back() -> None:
    wire = Wire(tcp=TcpPolicy(receive_buffer=20_000, receive_buffer_max=20_000))
    session, peer = states.established(wire)
    sent = fill(wire, session, peer)
    assert 20_000 - 1440 <= sent <= 20_000
    edges = [(seen.ack + seen.window) for seen in wire.sent if seen.flags == "A"]
    assert edges == sorted(edges)
    assert wire.stack.memory_used() == sent
    with dropped(wire, Drop.OUT_OF_WINDOW):
        peer.send("A", b"x", seq=peer.snd_nxt)
    peer.expect("A", window=0)
    session.read(1 << 20, wire.now)
    assert peer.expect("A", b"", window=lambda window: window >= 1440).ack == peer.snd_nxt
    end(wire)


@pytest.mark.rule("UM-35.k", "RFC 9293 3.8.6.2.2")
def test_the_receiver_does_not_offer_silly_windows() -> None:
    wire = Wire(tcp=TcpPolicy(receive_buffer=20_000, receive_buffer_max=20_000))
    session, peer = states.established(wire)
    fill(wire, session, peer)
    for _ in range(14):
        session.read(100, wire.now)  # 1,400 bytes in all: less than a segment
    wire.expect_silence(seconds(1))
    peer.send("A", b"", seq=peer.snd_nxt - 1)
    peer.expect("A", window=0)
    session.read(5000, wire.now)
    wire.expect(checks.tcp("A", window=lambda window: window >= 1440))
    end(wire)


@pytest.mark.rule("UM-35.g", "RFC 7323 2.3")
def test_our_window_is_scaled_but_not_in_the_syn() -> None:
    wire = Wire()
    session, peer = states.established(wire, options=SCALED)
    syn = wire.sent[0]
    shift = syn.options.window_scale
    assert shift is not None
    assert syn.window == 65535
    peer.send("A", bytes(1440))
    peer.send("A", bytes(1440))
    offered = peer.expect("A").window << shift
    assert 65535 < offered <= TcpPolicy().receive_buffer
    session.read(1 << 20, wire.now)
    end(wire)


@pytest.mark.rule("UM-35.g", "RFC 7323 2.2")
def test_without_the_option_no_more_than_65535_is_offered_nor_taken() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    peer.send("A", bytes(1440))
    peer.send("A", bytes(1440))
    assert peer.expect("A").window == 65535
    with dropped(wire, Drop.OUT_OF_WINDOW):
        peer.send("A", b"x", seq=peer.snd_nxt + 65535)
    peer.expect("A")
    with dropped(wire, Drop.OUT_OF_WINDOW, 0):
        peer.send("A", b"x", seq=peer.snd_nxt + 65534)
    for _ in range(100):
        session.read(20, wire.now)
    assert len(wire.take()) <= 1  # reading little by little is no reason to speak
    end(wire)


@pytest.mark.rule("UM-35.k")
def test_data_beyond_the_window_is_cut_there() -> None:
    wire = Wire(tcp=TcpPolicy(receive_buffer=4000, receive_buffer_max=4000))
    session, peer = states.established(wire)
    offered = wire.sent[-1].window
    peer.send("A", DATA[:1440] * 1, seq=peer.snd_nxt + offered - 10)
    wire.take()
    peer.send("A", bytes(1440))
    peer.send("A", bytes(offered - 10 - 1440))
    assert wire.take()[-1].ack == (wire.sent[0].ack or peer.iss + 1 + offered)
    assert len(session.read(1 << 20, wire.now)) == offered
    end(wire)


@pytest.mark.rule("UM-35.k")
def test_the_buffer_grows_with_a_reader_that_keeps_up() -> None:
    wire = Wire()
    session, peer = states.established(wire, options=SCALED)
    before = session.statistics().rcv_space
    for _ in range(40):
        for _ in range(100):
            peer.send("A", bytes(1440))
        session.read(1 << 22, wire.now)
        wire.advance(millis(100))
        wire.take()
    assert before < session.statistics().rcv_space <= TcpPolicy().receive_buffer_max
    end(wire)


# Urgent data


@pytest.mark.rule("UM-35.x", "RFC 9293 3.8.5")
def test_urgent_data_is_announced_and_read_out_of_band() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    peer.send("UPA", b"ordinary!", urgent=9)
    assert bool(session.urgent_pending)
    assert session.read_urgent() == b"!"
    assert session.read(99, wire.now) == b"ordinary"
    peer.send("PA", b" more")
    assert session.read(99, wire.now) == b" more"
    assert not session.urgent_pending
    end(wire)


@pytest.mark.rule("UM-35.x", "RFC 9293 3.8.5")
def test_urgent_data_is_sent_with_a_pointer_behind_it() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    session.write_urgent(b"stop!", wire.now)
    seen = peer.expect(lambda flags: "U" in flags, b"stop!")
    assert seen.urgent == 5  # RFC 6093: the pointer to the byte behind, as every stack has it
    end(wire)


# Memory


@pytest.mark.rule("UM-35.k")
def test_out_of_order_data_goes_first_when_memory_runs_out() -> None:
    wire = Wire(memory=100_000)
    session, peer = states.established(wire)
    other, _ = states.established(wire)
    assert other.write(bytes(80_000), wire.now) == 80_000
    wire.take()
    with dropped(wire, Drop.NO_MEMORY):
        peer.send("A", bytes(1440), seq=peer.snd_nxt + 1440)
    peer.send("A", b"in order")
    assert session.read(99, wire.now) == b"in order"
    other.abort(wire.now)
    wire.take()
    assert wire.stack.memory_used() == 0
    end(wire)


def test_no_more_is_taken_than_the_configured_memory() -> None:
    wire = Wire(memory=50_000)
    session, peer = states.established(wire)
    for _ in range(60):
        peer.send("A", bytes(1440))
    wire.take()
    assert wire.stack.memory_used() <= 50_000 + 1440
    assert wire.stack.counters.drops[Drop.NO_MEMORY] > 0
    session.read(1 << 20, wire.now)
    assert wire.stack.memory_used() == 0
    end(wire)
