"""What fuzzing found, small enough to read."""

import pytest

from tests.fuzz.packets import repaired
from umuxstack.core.errors import Drop
from umuxstack.core.tcp import state as st
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.units import Address, minutes, seconds
from umuxstack.testing import builders, states
from umuxstack.testing.builders import packed
from umuxstack.testing.network import Network
from umuxstack.testing.peer import PEER, Peer
from umuxstack.testing.wire import Wire


@pytest.mark.rule("UM-35.b")
def test_nothing_is_unsent_once_the_fin_is_acknowledged() -> None:
    """SND.UNA then counts the FIN, and `unsent` said -1."""
    wire = Wire()
    session, peer = states.established(wire)
    session.write(b"x", wire.now)
    session.shutdown(wire.now)
    peer.expect(lambda flags: "F" in flags, b"x")
    assert session.unsent == 1
    peer.send("A")
    assert session.state == st.FIN_WAIT_2
    assert session.unsent == 0


@pytest.mark.rule("UM-35.a")
def test_a_segment_that_claims_more_header_than_it_has_is_dropped() -> None:
    """In order, with the flags and the header length of an ordinary segment, but cut off in its options: the path
    that nearly all segments take unpacked the timestamp without looking, and the stack raised."""
    wire = Wire()
    session, peer = states.established(wire, options=builders.mss(1440) + builders.timestamps(1, 0))
    whole = peer.segment("A", b"", options=builders.timestamps(2, 1))
    for size in range(20, 32):
        short = builders.tcp(
            peer.address, peer.remote, peer.port, 1, "A", peer.snd_nxt, peer.rcv_nxt, options=whole[60 : 40 + size],
            offset=8,
        )[: 40 + size]  # fmt: skip
        wire.send(repaired(short[:4] + size.to_bytes(2, "big") + short[6:]))
    wire.expect_silence()
    assert wire.stack.counters.drops[Drop.BAD_HEADER] == 12
    assert session.state == st.ESTABLISHED


@pytest.mark.parametrize("address", ["2001:db8:1::53", "2001:db8:1::80"])
def test_a_cookie_in_a_damaged_segment_makes_no_session(address: str) -> None:
    """The session was made before the segment was looked at, and had no timer: a peer with one good cookie could leave
    as many half-open sessions behind as it had ports, for ever."""
    wire = Wire(shared=(packed("2001:db8:1::80"),))
    wire.stack.listen(wire.now, address=Address(packed(address)), port=80, backlog=8)
    for port in range(1000, 1009):
        wire.send(builders.tcp(PEER, address, port, 80, "S", 7))
    answer = wire.take()[-1]
    assert answer.dport == 1008
    half_open = len(list(wire.stack.sessions()))
    wire.send(builders.tcp(PEER, address, 1008, 80, "A", 8, answer.seq + 1, offset=4))
    assert len(list(wire.stack.sessions())) == half_open
    wire.send(builders.tcp(PEER, address, 1008, 80, "A", 8, answer.seq + 1))
    assert len([s for s in wire.stack.sessions() if isinstance(s, TcpSession) and s.established]) == 1


def test_port_0_is_not_answered() -> None:
    """It is nobody's (RFC 6335 6); RST went there."""
    wire = Wire(shared=(packed("2001:db8:1::80"),))
    wire.send(builders.tcp(PEER, "2001:db8:1::80", 0, 80, "S", 7))
    wire.send(builders.tcp(PEER, "2001:db8:1::80", 40_000, 0, "S", 7))
    _, peer = states.established(wire)
    peer.send("S", remote_port=0)
    peer.send("S", port=0)
    wire.expect_silence(1_000_000)


@pytest.mark.rule("UM-7.b")
def test_a_service_that_closes_over_a_session_that_was_reset_in_its_queue_keeps_no_address() -> None:
    """Such a session counts no more, but stood in the queue: the lease was neither ended nor retired, and stayed."""
    wire = Wire()
    service = wire.stack.listen(wire.now, address=Address(packed("2001:db8:1::53")), port=80)
    peer = Peer(wire, "2001:db8:1::53", remote_port=80)
    peer.connect()
    peer.send("R")
    service.close(wire.now)
    wire.advance(minutes(3))
    assert [lease.name for lease in wire.stack.leases()] == []
    assert not any(wire.stack.leftovers().values())


@pytest.mark.rule("UM-35.v")
def test_each_session_behind_one_narrow_path_hears_of_it() -> None:
    """What one session learns of a path is kept for the peer's /64. An older session to another address there was told
    the same, had it for no news, and went on with segments that cannot pass."""
    with Network() as net:
        client, server = net.hosts("client", "server")
        pairs = [net.established(client, server) for _ in range(3)]
        for ours, _ in pairs:
            client.write(ours, bytes(1000))
        net._flush()
        for ours, _ in pairs:
            quoted = builders.tcp(ours.local, ours.remote, 1, 1, "A", ours.tcb.snd_una, payload=bytes(1000))
            net.inject(builders.packet_too_big("2001:db8:ffff::1", quoted, 1300))
        assert [ours.statistics().snd_mss for ours, _ in pairs] == [1300 - 60 - 12] * 3
        net.run_for(seconds(1))
        for _, theirs in pairs:
            assert server.read(theirs) == bytes(1000)


@pytest.mark.rule("UM-37.e")
def test_an_error_behind_a_header_that_cannot_be_processed_is_not_answered() -> None:
    """RFC 4443 2.4 (e.1): no error about an error. It was looked for in the first header only."""
    wire = Wire(shared=(packed("2001:db8:1::80"),))
    quoted = builders.udp("2001:db8:1::80", PEER, 53, 53, b"?")
    refused = (builders.routing(0, 1), builders.destination_options(builders.option(0x9E)))
    for header in refused:
        for message in (builders.unreachable(PEER, quoted), builders.echo_request(PEER, "2001:db8:1::80")):
            upper = message[40:]
            wire.send(builders.ipv6(PEER, "2001:db8:1::80", 58, upper, extensions=[builders.hop_by_hop(), header]))
    told = wire.take()
    assert [seen.icmp_type for seen in told] == [4, 4], "about the two echo requests alone"
