"""Sessions that last for weeks in which nothing happens: virtual time passes at once.

An address lives as long as its session (UM-7), so a session that is idle for a month has held its address for it.
"""

import pytest

from umuxstack.core.config import TcpPolicy
from umuxstack.core.errors import Drop, Reason
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.units import NEVER, Micros, minutes, seconds
from umuxstack.driver.links.impair import Impairment
from umuxstack.testing import checks
from umuxstack.testing.network import Host, Network

DAY = seconds(24 * 3600)
HALF_CLOCK = Micros((1 << 31) * 1000)  # in which a timestamp of milliseconds becomes an old one: 24.9 days


def exchange(net: Network, here: Host, ours: TcpSession, there: Host, theirs: TcpSession, data: bytes) -> None:
    """`data` there and back."""
    for sender, session, receiver, other in ((here, ours, there, theirs), (there, theirs, here, ours)):
        assert sender.write(session, data) == len(data)
        net.run_until(lambda other=other: other.readable, limit=minutes(5))  # type: ignore[misc]
        net.run_for(seconds(1))
        assert receiver.read(other) == data


@pytest.mark.rule("UM-7.c")
@pytest.mark.parametrize("days", [21, 24, 25, 26, 49, 50, 75, 365])
@pytest.mark.parametrize("timestamps", [True, False])
def test_a_session_carries_data_after_any_time_of_silence(days: int, timestamps: bool) -> None:
    """The timestamp clock passes half its range in 24.9 days and all of it in 49.7; PAWS must not take the peer for a
    ghost of its own past (RFC 7323 5.5)."""
    with Network(record=False) as net:
        here, there = net.hosts("here", "there", tcp=TcpPolicy(timestamps=timestamps))
        ours, theirs = net.established(here, there)
        exchange(net, here, ours, there, theirs, b"before")
        net.run_for(minutes(1))
        assert here.stack.next_deadline() == there.stack.next_deadline() == NEVER, "an idle session wants no time"
        net.run_for(days * DAY)
        address = ours.local
        exchange(net, here, ours, there, theirs, b"after" * 10_000)
        assert ours.local == address
        assert here.stack.counters.drops[Drop.PAWS] == there.stack.counters.drops[Drop.PAWS] == 0


@pytest.mark.rule("UM-35.h")
def test_paws_still_refuses_yesterdays_segment_after_a_month_of_use() -> None:
    """A session that speaks once a day keeps a fresh timestamp, so that a segment of three weeks ago stays old."""
    with Network() as net:
        here, there = net.hosts("here", "there")
        ours, theirs = net.established(here, there)
        exchange(net, here, ours, there, theirs, b"?")
        old = net.sent_by(here, checks.tcp(payload=b"?"))[0].raw
        for _ in range(21):
            net.run_for(DAY)
            exchange(net, here, ours, there, theirs, b"?")
        before = there.stack.counters.drops[Drop.PAWS]
        net.inject(old, there)
        net.run_for(seconds(1))
        assert there.stack.counters.drops[Drop.PAWS] == before + 1
        assert not theirs.readable


@pytest.mark.rule("UM-35.u")
def test_keep_alive_keeps_a_session_for_weeks_and_asks_every_two_hours() -> None:
    with Network() as net:
        here = net.host("here", tcp=TcpPolicy(keepalive=True))
        there = net.host("there")
        ours, theirs = net.established(here, there)
        net.run_for(minutes(1))
        since = net.now
        net.run_for(28 * DAY)
        probes = net.sent_by(here, checks.tcp(flags="A"), since=since)
        assert 28 * 12 - 2 <= len(probes) <= 28 * 12
        assert len(net.sent_by(there, since=since)) == len(probes)
        exchange(net, here, ours, there, theirs, b"still here")


def test_sessions_that_only_wait_for_their_keep_alive_are_let_alone() -> None:
    """The sweep that packs idle sessions went round once a second for as long as one was awake, and one with a
    keep-alive always is: 2,400,000 rounds in these four weeks, and half a processor for 100,000 such sessions."""
    with Network(record=False) as net:
        here, there = net.hosts("here", "there", tcp=TcpPolicy(keepalive=True))
        net.established(here, there)
        net.run_for(minutes(10))
        wakes = 0
        until = net.now + seconds(3600)
        while (due := here.stack.next_deadline()) < until:
            here.stack.advance(due)
            wakes += 1
        assert wakes < 64


@pytest.mark.rule("UM-35.u", "UM-7.b")
def test_keep_alive_finds_out_about_a_peer_that_is_gone() -> None:
    policy = TcpPolicy(keepalive=True)
    with Network() as net:
        here = net.host("here", tcp=policy)
        there = net.host("there")
        ours, theirs = net.established(here, there)
        net.run_for(7 * DAY)
        net.impair(there, Impairment(loss=1.0))
        cut = net.now
        net.run_until(lambda: ours.ended, limit=2 * DAY)
        assert ours.end_reason == Reason.TIMED_OUT
        waited = policy.keepalive_idle + policy.keepalive_count * policy.keepalive_interval
        assert net.now - cut <= waited + policy.keepalive_idle
        assert not theirs.ended, "it keeps no timer, so it cannot know"
        assert [lease.address for lease in here.stack.leases()] == []


def test_a_cut_wire_ends_only_the_sessions_that_had_something_to_say() -> None:
    with Network() as net:
        here, there = net.hosts("here", "there")
        silent, silents_peer = net.established(here, there)
        talking, _ = net.established(here, there)
        net.run_for(DAY)
        net.impair(there, Impairment(loss=1.0))
        net.impair(here, Impairment(loss=1.0))
        here.write(talking, b"hello?")
        net.run_for(DAY)
        assert talking.end_reason == Reason.TIMED_OUT
        net.impair(there, Impairment())
        net.impair(here, Impairment())
        net.run_for(20 * DAY)
        exchange(net, here, silent, there, silents_peer, b"nothing happened")


def test_a_closed_window_is_asked_about_for_days() -> None:
    """RFC 9293 3.8.6.1: "MUST allow the connection to stay open" as long as the probes are acknowledged."""
    size = 64 << 10
    policy = TcpPolicy(receive_buffer=size, receive_buffer_max=size)
    with Network(record=False) as net:
        here, there = net.hosts("here", "there", tcp=policy)
        ours, theirs = net.established(here, there)
        data = bytes(range(256)) * 1024
        taken = here.write(ours, data)
        assert taken == len(data)
        net.run_for(2 * DAY)  # the application does not read
        assert not ours.ended
        received = b""
        while len(received) < len(data):
            net.run_for(minutes(2))
            chunk = there.read(theirs)
            assert chunk, "nothing comes any more"
            received += chunk
        assert received == data
