"""SPEC section 3: an address lives exactly as long as its session."""

import sys
from collections.abc import Callable
from itertools import product

import pytest

from tests.core.scene import (
    SERVICE,
    SHARED,
    address,
    connect,
    das,
    end,
    is_fin,
    listen_0,
    lives,
    service,
    state_of,
)
from umuxstack.core.address import lease
from umuxstack.core.address.lease import EVENT_NAMES, STATE_NAMES, TRANSITIONS, Lease
from umuxstack.core.config import PoolPolicy
from umuxstack.core.errors import AddressInUse, AddressUsed, PoolExhausted
from umuxstack.core.events import EventKind
from umuxstack.core.tcp import state as st
from umuxstack.core.tcp.quiet import Quiet
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.units import Address, Micros, minutes, seconds
from umuxstack.testing import builders, states
from umuxstack.testing.peer import PEER, Peer
from umuxstack.testing.wire import Wire

# UM-7


@pytest.mark.rule("UM-7.a", "UM-15.a")
def test_an_address_becomes_valid_when_its_session_opens() -> None:
    wire = Wire()
    assert list(wire.stack.leases()) == []
    session = connect(wire)
    (held,) = wire.stack.leases()
    assert (held.address, held.kind, held.state_name, held.opened) == (session.local, "EA", "VALID", wire.now)
    end(wire)
    assert not lives(wire.stack, session.local)


def by_close(wire: Wire) -> Address:
    session, peer = states.last_ack(wire)
    assert lives(wire.stack, session.local)
    peer.send("A", ack=peer.rcv_nxt)
    return session.local


def by_reset(wire: Wire) -> Address:
    session, peer = states.established(wire)
    peer.send("R")
    return session.local


def by_refusal(wire: Wire) -> Address:
    session, peer = states.syn_sent(wire)
    peer.send("RA", seq=0, ack=peer.rcv_nxt)
    return session.local


def by_silence(wire: Wire) -> Address:
    session, _ = states.syn_sent(wire)
    wire.advance(minutes(5))
    wire.take()
    return session.local


def by_timeout(wire: Wire) -> Address:
    session, _peer = states.established(wire)
    session.write(b"x", wire.now)
    wire.advance(minutes(20))
    wire.take()
    return session.local


def by_abort_of_a_connect(wire: Wire) -> Address:
    session, _ = states.syn_sent(wire)
    session.abort(wire.now)
    wire.take()
    return session.local


def by_time_wait(wire: Wire) -> Address:
    session, _ = states.time_wait(wire)
    wire.advance(seconds(60))
    return session.local


def by_udp_close(wire: Wire) -> Address:
    socket = wire.stack.udp(wire.now)
    held = socket.connect(address(PEER), 53, wire.now)
    assert held is not None
    socket.close(wire.now)
    return held.local


def by_ping_close(wire: Wire) -> Address:
    ping = wire.stack.ping(address(PEER), wire.now)
    assert lives(wire.stack, ping.local)
    ping.close(wire.now)
    return ping.local


@pytest.mark.rule("UM-7.b", "UM-12.a")
@pytest.mark.parametrize(
    "finish",
    [
        by_close,
        by_reset,
        by_refusal,
        by_silence,
        by_timeout,
        by_abort_of_a_connect,
        by_time_wait,
        by_udp_close,
        by_ping_close,
    ],
)
def test_an_address_is_invalid_when_its_session_is_gone(finish: Callable[[Wire], Address]) -> None:
    wire = Wire()
    used = finish(wire)
    wire.flush()
    assert not lives(wire.stack, used)
    with pytest.raises(AddressUsed):
        wire.stack.das(listen_0(wire), wire.now, ssa=used)
    with pytest.raises(AddressUsed):
        connect(wire, source=used)
    end(wire)


@pytest.mark.rule("UM-7.c")
@pytest.mark.parametrize("build", [states.established, states.established_server, states.close_wait])
def test_no_timer_ends_the_address_of_a_live_session(build: Callable[[Wire], states.Built]) -> None:
    wire = Wire()
    session, peer = build(wire)
    wire.advance(minutes(24 * 60 * 365 if session.state == st.ESTABLISHED else 60))
    assert wire.take() == []
    assert state_of(wire.stack, session.local) == "VALID"
    session.write(b"after a year", wire.now)
    peer.expect("PA", b"after a year")
    end(wire)


@pytest.mark.rule("UM-7.c")
def test_a_half_closed_session_keeps_its_address_for_as_long_as_the_application_reads() -> None:
    wire = Wire()
    session, peer = states.fin_wait_2(wire, half=True)
    wire.advance(minutes(60))
    assert session.state == st.FIN_WAIT_2
    assert state_of(wire.stack, session.local) == "VALID"
    peer.send("PA", b"late")
    assert session.read(9, wire.now) == b"late"
    end(wire)


# UM-8


@pytest.mark.rule("UM-8.a")
@pytest.mark.parametrize(
    ("state", "event"),
    list(product(range(len(STATE_NAMES)), range(len(EVENT_NAMES)))),
    ids=[f"{s}-{e}" for s, e in product(STATE_NAMES, EVENT_NAMES)],
)
def test_every_state_of_an_address_under_every_event(state: int, event: int) -> None:
    wanted = {
        # draft-kitamura-ipv6-uncertain-address-state-01, and UM-8's chain, written down a second time
        "INVALID": {"CHOSEN": "TENTATIVE", "CHOSEN_ROUTED": "UNCERTAIN"},
        "TENTATIVE": {"UNIQUE": "UNCERTAIN", "DUPLICATE": "INVALID", "DISCARDED": "INVALID"},
        "UNCERTAIN": {"TAKEN": "VALID", "DUPLICATE": "INVALID", "DISCARDED": "INVALID"},
        "VALID": {"CLOSED": "RETIRING", "FINISHED": "INVALID"},
        "RETIRING": {"FINISHED": "INVALID"},
    }
    held = Lease(address(SERVICE), (lease.EA, "", "session", ""), 1, Micros(0))
    held.state = state
    held.on(event)
    before, name = STATE_NAMES[state], EVENT_NAMES[event]
    assert held.state_name == wanted[before].get(name, before)
    assert ((state, event) in TRANSITIONS) == (name in wanted[before])


@pytest.mark.rule("UM-8.a", "UM-12.a")
def test_no_event_brings_an_address_back_that_was_valid() -> None:
    reached, before = {lease.VALID}, set[int]()
    while reached != before:
        before = set(reached)
        reached |= {after for (state, event), after in TRANSITIONS.items() if state in reached and event > lease.UNIQUE}
    assert reached == {lease.VALID, lease.RETIRING, lease.INVALID}


@pytest.mark.rule("UM-8.b")
def test_an_address_goes_from_the_pool_to_valid_to_retiring_to_invalid() -> None:
    wire = Wire()
    level = wire.stack.pool_statistics().level
    session, peer = states.established(wire)
    where = session.local
    assert wire.stack.pool_statistics().level == level - 1  # it came from there
    assert state_of(wire.stack, where) == "VALID"
    session.close(wire.now)
    assert state_of(wire.stack, where) == "RETIRING"
    peer.expect(is_fin)
    peer.send("FA")
    peer.expect("A")
    assert session.ended
    wire.advance(seconds(60) - 1)
    assert state_of(wire.stack, where) == "RETIRING"
    wire.advance(1)
    assert state_of(wire.stack, where) == "INVALID"
    kinds = [event.kind for event in wire.stack.take_events() if event.address == where]
    assert kinds == [
        EventKind.LEASE_OPENED,
        EventKind.SESSION_OPENED,
        EventKind.SESSION_ESTABLISHED,
        EventKind.LEASE_RETIRING,
        EventKind.SESSION_ENDED,
        EventKind.LEASE_ENDED,
    ]
    end(wire)


@pytest.mark.rule("UM-8.b", "UM-25.a")
def test_so_does_an_ssa() -> None:
    wire = Wire()
    door = listen_0(wire)
    ssa = das(wire, door).address
    assert state_of(wire.stack, ssa) == "VALID"  # somebody is expected there
    peer = Peer(wire, ssa)
    peer.connect()
    session = door.accept()
    assert session is not None
    session.close(wire.now)
    assert state_of(wire.stack, ssa) == "RETIRING"
    peer.expect(is_fin)
    peer.send("FA")
    peer.expect("A")
    wire.advance(seconds(60))
    assert state_of(wire.stack, ssa) == "INVALID"
    end(wire)


@pytest.mark.rule("UM-8.b")
def test_a_half_close_does_not_retire_the_address() -> None:
    wire = Wire()
    session, _ = states.fin_wait_2(wire, half=True)
    assert state_of(wire.stack, session.local) == "VALID"
    session.close(wire.now)
    assert state_of(wire.stack, session.local) == "RETIRING"
    end(wire)


# UM-9, UM-11


@pytest.mark.rule("UM-9.b", "UM-9.d", "UM-11.a")
def test_connect_takes_a_ready_address_at_once_and_sends_nothing_for_it() -> None:
    wire = Wire(pool=PoolPolicy(low=2, high=4))
    before = wire.stack.pool_statistics()
    assert before.level == 4
    connect(wire)
    after = wire.stack.pool_statistics()
    assert (after.level, after.hits - before.hits, after.misses) == (3, 1, 0)
    assert [seen.flags for seen in wire.take()] == ["S"]  # no probe, no solicitation
    end(wire)


@pytest.mark.rule("UM-9.c", "UM-9.d")
def test_without_a_pool_an_address_is_made_on_the_spot() -> None:
    wire = Wire(pool=PoolPolicy(low=0, high=0))
    sessions = [connect(wire) for _ in range(3)]
    assert len({session.local for session in sessions}) == 3
    statistics = wire.stack.pool_statistics()
    assert (statistics.level, statistics.hits, statistics.misses) == (0, 0, 3)
    end(wire)


@pytest.mark.rule("UM-9.a")
def test_time_passing_refills_the_pool() -> None:
    wire = Wire(pool=PoolPolicy(low=8, high=16))
    sessions = [connect(wire) for _ in range(12)]
    assert wire.stack.pool_statistics().level == 4
    wire.stack.advance(wire.now)
    assert wire.stack.pool_statistics().level == 16
    assert wire.stack.pool_statistics().misses == 0
    assert len({session.local for session in sessions}) == 12
    end(wire)


@pytest.mark.rule("UM-9.c", "UM-12.a")
def test_a_prefix_that_is_used_up_says_so_and_nothing_changes() -> None:
    wire = Wire("2001:db8:1::/120", pool=PoolPolicy(low=0, high=0))
    sessions: list[TcpSession] = []

    def use_up() -> None:
        while True:
            sessions.append(connect(wire))

    with pytest.raises(PoolExhausted):
        use_up()
    assert len(sessions) == len({session.local for session in sessions}) > 100
    left = wire.stack.leftovers()
    sessions.pop().abort(wire.now)
    with pytest.raises(PoolExhausted):  # the one that was given back does not return
        connect(wire)
    assert wire.stack.leftovers()["pairs"] == left["pairs"] - 1
    end(wire)


@pytest.mark.rule("UM-11.a")
def test_no_routed_stack_answers_or_sends_neighbour_discovery() -> None:
    wire = Wire()
    session, _ = states.established(wire)
    solicitation = builders.icmp6(PEER, session.local, 135, body=session.local, hop_limit=255)
    wire.send(solicitation, builders.icmp6("2001:db8:9::9", session.local, 135, body=session.local, hop_limit=255))
    wire.expect_silence(minutes(1))
    end(wire)


# UM-12


@pytest.mark.rule("UM-12.a")
def test_no_address_comes_twice_whatever_it_was_used_for() -> None:
    wire = Wire()
    door, used = listen_0(wire), list[Address]()
    for _ in range(100):
        session = connect(wire)
        session.abort(wire.now)
        used.append(session.local)
        waiting = das(wire, door)
        wire.stack.revoke(waiting.address, wire.now)
        used.append(waiting.address)
        ping = wire.stack.ping(address(PEER), wire.now)
        ping.close(wire.now)
        used.append(ping.local)
        wire.advance(1)
    assert len(set(used)) == 300
    end(wire)


@pytest.mark.rule("UM-12.a")
@pytest.mark.parametrize("scheme", ["sealed", "random"])
def test_an_address_that_lives_is_not_given_to_anybody_else(scheme: str) -> None:
    wire = Wire(scheme=scheme, shared=(address(SHARED),))
    session, _ = states.established(wire)
    accepted, _ = states.established_server(wire)
    socket = wire.stack.udp(wire.now)
    datagrams = socket.connect(address(PEER), 53, wire.now)
    assert datagrams is not None
    ping = wire.stack.ping(address(PEER), wire.now)
    service(wire)
    waiting = das(wire, listen_0(wire))
    taken = [session.local, accepted.local, datagrams.local, ping.local, waiting.address, address(SERVICE)]
    for where in taken:
        for attempt in (
            lambda where=where: das(wire, listen_0(wire), ssa=where),
            lambda where=where: connect(wire, "2001:db8:2::9", source=where),
            lambda where=where: service(wire, where),
            lambda where=where: wire.stack.udp(wire.now, address=where, port=53),
        ):
            with pytest.raises(AddressInUse):
                attempt()
    with pytest.raises(AddressInUse):
        das(wire, listen_0(wire), ssa=address(SHARED))
    assert session.established
    assert accepted.established
    end(wire)


# UM-36: records


@pytest.mark.rule("UM-36.a")
def test_a_time_wait_record_takes_under_200_bytes() -> None:
    wire = Wire()
    session, _ = states.time_wait(wire)
    record = wire.stack._ctx.demux.pairs[session.pair]
    assert isinstance(record, Quiet)
    size = sys.getsizeof(record) + sys.getsizeof(record._packed)
    size += sys.getsizeof(session.pair)
    assert size < 200
    assert wire.stack.leftovers()["timers"] == 0  # it needs no timer of its own
    end(wire)
