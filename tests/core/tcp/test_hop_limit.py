"""The hop limit of a session's packets is the application's to choose, from the SYN to the last ACK (MUST-49)."""

import pytest

from tests.core.scene import address, connect, end, is_fin, listen_0
from umuxstack.core.config import TcpPolicy
from umuxstack.core.errors import BadArgument
from umuxstack.core.listen.listen_u import ListenU
from umuxstack.core.units import seconds
from umuxstack.testing import builders, states
from umuxstack.testing.peer import PEER, Peer
from umuxstack.testing.wire import Wire


@pytest.mark.rule("RFC 9293 MUST-49")
@pytest.mark.parametrize("timestamps", [True, False])
def test_every_segment_of_a_session_has_its_hop_limit(timestamps: bool) -> None:
    """It could be chosen for the whole stack alone."""
    wire = Wire()
    options = builders.timestamps(5) if timestamps else b""
    session = connect(wire, policy=TcpPolicy(hop_limit=255))
    peer = Peer(wire, session.local, port=80)
    peer.accept(options)
    session.write(b"data", wire.now)
    wire.take()
    peer.send("A", options=builders.timestamps(6) if timestamps else b"")
    session.close(wire.now)
    peer.expect(is_fin)
    fin = builders.timestamps(7) if timestamps else b""
    peer.send("FA", options=fin)
    wire.advance(seconds(1))
    peer.send("FA", seq=peer.snd_nxt - 1, options=fin)  # the record answers that
    assert {seen.hop_limit for seen in wire.sent} == {255}
    assert len(wire.sent) >= 6
    wire.take()
    end(wire)


@pytest.mark.rule("RFC 9293 MUST-49")
def test_it_can_be_changed_while_the_session_lives_and_0_is_the_stack_s_again() -> None:
    wire = Wire(hop_limit=17)
    session, peer = states.established(wire)
    for chosen, seen in ((3, 3), (255, 255), (0, 17)):
        session.configure(hop_limit=chosen)
        session.write(b"x", wire.now)
        assert peer.expect("PA").hop_limit == seen
        peer.send("A")
    other, _ = states.established(wire)
    assert {s.hop_limit for s in wire.sent if s.source == other.local} == {17}
    end(wire)


@pytest.mark.rule("RFC 9293 MUST-49")
def test_a_reset_has_it_too() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    session.configure(hop_limit=9)
    session.abort(wire.now)
    assert peer.expect("RA").hop_limit == 9
    peer.send("A")
    assert peer.expect("R").hop_limit == 9  # the record's
    end(wire)


@pytest.mark.rule("RFC 9293 MUST-49")
def test_a_listener_s_policy_holds_from_the_syn_ack_on() -> None:
    wire = Wire()
    door = listen_0(wire)
    door.policy = TcpPolicy(hop_limit=2)
    waiting = wire.stack.das(door, wire.now)
    assert isinstance(waiting, ListenU)
    peer = Peer(wire, waiting.address)
    peer.send("S")
    assert peer.expect("SA").hop_limit == 2
    end(wire)


def test_datagrams_have_their_socket_s() -> None:
    wire = Wire(hop_limit=17)
    socket = wire.stack.udp(wire.now)
    service = wire.stack.udp(wire.now, address=address("2001:db8:1::53"), port=53)
    for chosen, seen in ((0, 17), (5, 5), (255, 255), (0, 17)):
        for each in (socket, service):
            each.set_hop_limit(chosen)
            each.send(b"x", wire.now, to=(address(PEER), 53))
            assert wire.expect().hop_limit == seen
            each.send(bytes(3000), wire.now, to=(address(PEER), 53))
            assert {piece.hop_limit for piece in wire.take()} == {seen}
    with pytest.raises(BadArgument):
        socket.set_hop_limit(256)
    end(wire)


def test_there_are_no_others() -> None:
    for wrong in (-1, 256):
        with pytest.raises(BadArgument):
            TcpPolicy(hop_limit=wrong)
