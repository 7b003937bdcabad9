"""RFC 8201 line by line, as docs/requirements/rfc8201.csv has it."""

import pytest

from tests.core.scene import PEER, ROUTER, SHARED, address, dropped, end
from umuxstack.core.errors import BadArgument, Drop
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.units import NEVER, minutes, seconds
from umuxstack.host import make_config
from umuxstack.testing import builders, checks, states
from umuxstack.testing.peer import Peer
from umuxstack.testing.wire import Wire

NEIGHBOUR = "2001:db8:2::99"  # in PEER's /64
FAR = "2001:db8:3::1"


def mss(session: TcpSession) -> int:
    return session.statistics().snd_mss


def too_big(wire: Wire, session: TcpSession, peer: Peer, mtu: int) -> None:
    """A router says so of a full segment that is under way; all is acknowledged afterwards."""
    session.write(bytes(mss(session)), wire.now)
    first = wire.take()[0]
    wire.send(builders.packet_too_big(ROUTER, first.raw, mtu))
    wire.take()
    peer.send("A", ack=peer.rcv_nxt + len(first.payload))
    peer.rcv_nxt = peer.rcv_nxt + len(first.payload) & 0xFFFFFFFF


@pytest.mark.rule(
    "8201-1-1",
    "8201-4-4",
    "8201-4-5",
    "8201-4-6",
    "8201-4-7",
    "8201-5.4-1",
    "8201-5.4-2",
    "8201-5.4-6",
    "8201-5.2-7",
    "8201-5.2-9",
)
def test_what_was_too_big_is_sent_again_at_once_and_smaller_and_so_is_all_after_it() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    session.write(bytes(1440), wire.now)
    quoted = peer.expect().raw
    wire.send(builders.packet_too_big(ROUTER, quoted, 1300))
    again = wire.take()
    assert {seen.time for seen in again} == {wire.now}
    assert [len(seen.raw) for seen in again] == [1300, 260]
    peer.send("A", ack=peer.rcv_nxt)
    session.write(bytes(6000), wire.now)
    assert max(len(seen.raw) for seen in wire.take()) == 1300
    end(wire)


@pytest.mark.rule("8201-3-2")
def test_it_is_done_for_peers_beside_us_as_well() -> None:
    wire = Wire(prefix="2001:db8:1::/72")
    beside = "2001:db8:1:0:ff00::5"  # the same /64, another prefix
    session = wire.stack.connect(address(beside), 80, wire.now)
    peer = Peer(wire, session.local, address=beside, port=80)
    peer.accept()
    too_big(wire, session, peer, 1300)
    assert mss(session) == 1240
    end(wire)


@pytest.mark.rule("8201-4-1")
def test_it_must_be_about_a_packet_that_was_sent() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    session.write(b"x", wire.now)
    una = peer.expect("PA").seq
    for seq in (una - 1, una + 1, una + 1_000_000):
        with dropped(wire, Drop.ICMP_NOT_BELIEVED):
            wire.send(
                builders.packet_too_big(ROUTER, builders.tcp(session.local, PEER, 1, 80, "A", seq & 0xFFFFFFFF), 1280)
            )
    assert mss(session) == 1440
    end(wire)


@pytest.mark.rule("8201-4-2", "8201-4-3", "8201-6-1", "8201-4-11", "8201-6-2")
@pytest.mark.parametrize("mtu", [0, 68, 1279, 1501, 9000, 0xFFFFFFFF])
def test_neither_too_little_nor_more_than_known_is_believed(mtu: int) -> None:
    wire = Wire()
    session, peer = states.established(wire)
    too_big(wire, session, peer, mtu)
    assert mss(session) == 1440
    too_big(wire, session, peer, 1300)
    too_big(wire, session, peer, 1400)
    assert mss(session) == 1240
    socket = wire.stack.udp(wire.now)
    socket.send(bytes(1400), wire.now, to=(address(FAR), 53))
    packet = wire.expect().raw
    wire.send(builders.packet_too_big(ROUTER, packet, mtu))
    socket.send(bytes(1400), wire.now, to=(address(FAR), 53))
    assert wire.expect().fragment is None
    end(wire)


@pytest.mark.rule("8201-3-1", "8201-4-8", "8201-4-9", "8201-4-10", "8201-5.3-1", "8201-5.3-2")
def test_a_larger_one_is_tried_after_ten_minutes_and_not_before() -> None:
    """A session that never slept stayed with the small one for ever."""
    wire = Wire()
    session, peer = states.established(wire)
    session.configure(keepalive=True)  # it never sleeps
    too_big(wire, session, peer, 1300)
    wire.advance(minutes(10) - seconds(2))
    assert mss(session) == 1240
    wire.advance(seconds(70))
    assert mss(session) == 1440
    session.write(bytes(1440), wire.now)
    assert len(wire.take()[0].payload) == 1440
    end(wire)


@pytest.mark.rule("8201-5.3-3", "8201-5.6-1", "8201-4-9")
@pytest.mark.parametrize("lifetime", [minutes(5), minutes(30), NEVER])
def test_that_time_can_be_changed(lifetime: int) -> None:
    wire = Wire(path_mtu_lifetime=lifetime)
    socket = wire.stack.udp(wire.now)
    socket.connect(address(PEER), 53, wire.now)
    socket.send(bytes(1400), wire.now)
    wire.send(builders.packet_too_big(ROUTER, wire.expect().raw, 1300))
    for until in (minutes(4), minutes(6), minutes(31), minutes(600)):
        wire.advance(until - (wire.now - seconds(1000)))
        socket.send(bytes(1400), wire.now)
        assert (len(wire.take()) == 2) == (until < lifetime)
    end(wire)
    for wrong in (0, minutes(5) - 1):
        with pytest.raises(BadArgument):
            make_config("2001:db8:1::/64", path_mtu_lifetime=wrong)


@pytest.mark.rule("8201-5.2-1")
def test_a_path_is_a_peer_and_the_64_bits_before_it() -> None:
    """Each SSA is an address of its own; what is behind one router is reached by one path."""
    wire = Wire()
    session, peer = states.established(wire)
    too_big(wire, session, peer, 1300)
    neighbour = wire.stack.connect(address(NEIGHBOUR), 80, wire.now)
    beside = Peer(wire, neighbour.local, address=NEIGHBOUR, port=80)
    beside.accept()
    assert mss(neighbour) == 1240
    far = wire.stack.connect(address(FAR), 80, wire.now)
    elsewhere = Peer(wire, far.local, address=FAR, port=80)
    elsewhere.accept()
    assert mss(far) == 1440
    end(wire)


@pytest.mark.rule("8201-5.2-3")
def test_of_a_group_s_paths_the_smallest_counts() -> None:
    """An error about a fragment was not believed: what was fragmented once never learnt of less."""
    wire = Wire()
    socket = wire.stack.udp(wire.now)
    group = address("ff0e::7")
    for mtu in (1400, 1300, 1350):
        socket.send(bytes(1440), wire.now, to=(group, 53))
        sent = wire.take()
        wire.send(builders.packet_too_big(ROUTER, sent[0].raw, mtu))
    socket.send(bytes(1440), wire.now, to=(group, 53))
    assert max(len(seen.raw) for seen in wire.take()) <= 1300
    end(wire)


@pytest.mark.rule("8201-5.2-5", "8201-5.2-6", "8201-5.4-1")
@pytest.mark.parametrize("by", ["tcp", "udp", "echo"])
def test_every_session_of_the_path_hears_of_it_whatever_it_was_about(by: str) -> None:
    """They learnt of it each by a packet of their own that was too big."""
    wire = Wire(shared=(address(SHARED),))
    awake = [states.established(wire)[0] for _ in range(3)]
    if by == "tcp":
        too_big(wire, *states.established(wire), 1300)
    elif by == "udp":
        socket = wire.stack.udp(wire.now)
        socket.send(bytes(1400), wire.now, to=(address(NEIGHBOUR), 53))
        wire.send(builders.packet_too_big(ROUTER, wire.expect(checks.udp()).raw, 1300))
    else:
        ping = wire.stack.ping(address(PEER), wire.now)
        ping.send(bytes(1400), wire.now)
        wire.send(builders.packet_too_big(ROUTER, wire.expect(checks.echo_request()).raw, 1300))
    wire.advance(1_500_000)
    assert [mss(session) for session in awake] == [1240] * 3
    for session in awake:
        session.write(bytes(1400), wire.now)
    assert max(len(seen.raw) for seen in wire.take()) == 1300
    end(wire)


@pytest.mark.rule("8201-5.2-5")
def test_a_session_that_slept_meanwhile_wakes_with_it() -> None:
    wire = Wire()
    sleeper, peer = states.established(wire, options=builders.mss(1440) + builders.timestamps(1))
    wire.advance(seconds(10))
    assert sleeper.asleep
    other, beside = states.established(wire)
    too_big(wire, other, beside, 1300)
    sleeper.write(bytes(1400), wire.now)
    assert max(len(seen.raw) for seen in wire.take()) == 1300
    assert peer
    end(wire)


@pytest.mark.rule("8201-5.2-7")
def test_who_lost_a_packet_sends_it_again_also_when_the_path_was_known_to_be_small() -> None:
    wire = Wire()
    first, peer = states.established(wire)
    second, beside = states.established(wire)
    second.write(bytes(1440), wire.now)
    lost = beside.expect().raw
    too_big(wire, first, peer, 1300)
    assert mss(second) == 1440
    wire.send(builders.packet_too_big(ROUTER, lost, 1300))
    assert [len(seen.raw) for seen in wire.take()] == [1300, 260]
    end(wire)


@pytest.mark.rule("8201-5.4-4", "8201-5.4-5")
@pytest.mark.parametrize("announced", [536, 1000, 1220, 1400, 9000])
def test_no_segment_is_larger_than_the_peer_s_mss_whatever_the_path(announced: int) -> None:
    wire = Wire()
    session, peer = states.established(wire, options=builders.mss(announced))
    session.write(bytes(5000), wire.now)
    assert max(len(seen.payload) for seen in wire.take()) == min(announced, 1440)
    if announced > 1400:
        peer.send("A", ack=peer.rcv_nxt + 5000)
        peer.rcv_nxt += 5000
        too_big(wire, session, peer, 1300)
        assert mss(session) == 1240
    end(wire)


@pytest.mark.rule("8201-5.4-7")
def test_that_loss_is_no_congestion() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    session.write(bytes(2880), wire.now)
    before = session.statistics()
    quoted = wire.take()[0].raw
    wire.send(builders.packet_too_big(ROUTER, quoted, 1300))
    after = session.statistics()
    assert (after.snd_cwnd, after.snd_ssthresh) == (before.snd_cwnd, before.snd_ssthresh)
    assert peer
    end(wire)


@pytest.mark.rule("8201-5.5-1")
def test_a_datagram_that_is_new_is_cut_to_the_path() -> None:
    wire = Wire()
    socket = wire.stack.udp(wire.now)
    socket.send(bytes(1400), wire.now, to=(address(PEER), 53))
    wire.send(builders.packet_too_big(ROUTER, wire.expect().raw, 1280))
    socket.send(bytes(1400), wire.now, to=(address(PEER), 53))
    pieces = wire.take()
    assert [len(seen.raw) <= 1280 for seen in pieces] == [True, True]
    end(wire)


@pytest.mark.rule("8201-5.3-2")
def test_who_met_a_black_hole_does_not_fall_into_it_again_every_ten_minutes() -> None:
    """No "packet too big" comes there to say so: each try of a larger one would cost three timeouts."""
    wire = Wire()
    session, peer = states.established(wire, options=builders.mss(1440))
    session.configure(keepalive=True)
    session.write(bytes(1440), wire.now)
    wire.advance(seconds(20))
    assert len(wire.take()[-1].payload) == 1220
    peer.send("A", ack=peer.rcv_nxt + 1440)
    neighbour = wire.stack.connect(address(NEIGHBOUR), 80, wire.now)
    Peer(wire, neighbour.local, address=NEIGHBOUR, port=80).accept(builders.mss(1440))
    assert mss(neighbour) == 1440  # it was a guess about one peer
    wire.advance(minutes(11))
    assert mss(session) == 1220
    other, _ = states.established(wire, options=builders.mss(1440))
    assert mss(other) == 1440
    wire.take()
    end(wire)
