"""Changing a session's policy under way: what a SYN has said to the peer holds (RFC 7323 1.3, 2.2, 3.2)."""

from collections.abc import Callable

import pytest

from tests.core.scene import end
from umuxstack.core.config import TcpPolicy
from umuxstack.core.errors import BadArgument
from umuxstack.core.units import seconds
from umuxstack.testing import builders, states
from umuxstack.testing.wire import Wire

ALL = builders.mss(1400) + builders.sack_permitted() + builders.timestamps(500) + builders.window_scale(5)
BUILD = [states.syn_sent, states.syn_received, states.established, states.time_wait]


@pytest.mark.parametrize("field", ["timestamps", "sack", "window_scaling", "ecn", "ecn_asks", "announce_mss"])
@pytest.mark.parametrize("build", BUILD)
def test_what_the_syn_offered_cannot_be_taken_back(build: Callable[..., states.Built], field: str) -> None:
    """In SYN-SENT, `timestamps=False` made a session leave out what its peer then missed in every segment, and without
    `window_scaling` it offered windows that the peer read 128 times too large. Later such a change was accepted, kept
    the session from sleeping, and did nothing."""
    wire = Wire()
    session, _ = build(wire)
    before = session.policy
    with pytest.raises(BadArgument, match=f"{field} .* before its SYN"):
        session.configure(nodelay=True, **{field: not getattr(before, field)})
    assert session.policy == before
    session.configure(nodelay=True, **{field: getattr(before, field)})  # nothing that would be another
    assert session.policy.nodelay
    session.abort(wire.now)
    wire.take()
    end(wire)


@pytest.mark.parametrize("policy", [TcpPolicy(), TcpPolicy(timestamps=False, sack=False, window_scaling=False)])
@pytest.mark.parametrize("build", [states.syn_sent, states.syn_received])
def test_the_syn_that_is_sent_again_says_the_same(build: Callable[..., states.Built], policy: TcpPolicy) -> None:
    """After `receive_buffer_max` the next SYN offered another window scale than the one in force, and after
    `receive_buffer` a smaller window than the first had promised."""
    wire = Wire(tcp=policy)
    session, _ = build(wire)
    session.configure(receive_buffer=4096, receive_buffer_max=1 << 30)
    first = wire.sent[-1]
    wire.advance(seconds(1))
    (second,) = wire.take()
    assert second.flags == first.flags
    assert second.options.kinds == first.options.kinds
    assert second.options.window_scale == first.options.window_scale
    assert second.window == first.window == 65535
    session.abort(wire.now)
    wire.take()
    end(wire)


@pytest.mark.parametrize("options", [builders.mss(1400), ALL])
def test_the_window_that_the_syn_offered_stays_open(options: bytes) -> None:
    """A smaller receive buffer, chosen in SYN-SENT, moved the window's right edge back (RFC 9293 SHLD-14): data that
    the SYN had invited was cut off."""
    wire = Wire()
    session, peer = states.syn_sent(wire)
    session.configure(receive_buffer=4096)
    peer.send("SA", bytes(1000), options=options)
    answer = peer.expect("A", ack=peer.iss + 1001)
    assert answer.window << (answer.options.window_scale or 0) < 65535
    stamp = {"options": builders.timestamps(501)} if options == ALL else {}
    peer.send("PA", bytes(20_000), **stamp)
    assert len(session.read(1 << 20, wire.now)) == 21_000
    session.abort(wire.now)
    wire.take()
    end(wire)
