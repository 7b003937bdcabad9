"""Whole stacks together: what a user of the design sees. Each network checks at its end that nothing is left."""

from collections import Counter

import pytest

from umuxstack.core.config import PoolPolicy, TcpPolicy
from umuxstack.core.errors import Drop, Reason
from umuxstack.core.events import EventKind
from umuxstack.core.listen.listen_u import ListenU
from umuxstack.core.tcp import state as st
from umuxstack.core.units import NEVER, millis, minutes, seconds
from umuxstack.driver.links.impair import Impairment
from umuxstack.testing import builders
from umuxstack.testing.apps import Echo, Transfer
from umuxstack.testing.network import Host, Network


def pages(server: Host, count: int) -> list[ListenU]:
    """So many SSAs of one echoing service."""
    door = server.listen(name="httpd", backlog=count)
    server.serve(door, Echo)
    waiting = [server.das(door, label=f"/page/{number}", lifetime=NEVER) for number in range(count)]
    return [one for one in waiting if isinstance(one, ListenU)]


@pytest.mark.rule("UM-7.a", "UM-7.b", "UM-12.a", "UM-15.a", "UM-22.c")
def test_a_hundred_visits_leave_two_hundred_used_addresses_and_nothing_else() -> None:
    with Network() as net:
        server, client = net.hosts("server", "client")
        waiting = pages(server, 100)
        visits = [client.attach(client.connect(page.address), Transfer(b"GET " * 50)) for page in waiting]
        net.run_until(lambda: all(visit.done for visit in visits))
        assert {bytes(visit.received) for visit in visits} == {b"GET " * 50}
        net.run_for(minutes(3))
        assert list(client.stack.leases()) == list(server.stack.leases()) == []
        for host, kind in ((client, "ea."), (server, "ssa.")):
            opened = [event for event in host.events if event.kind == EventKind.LEASE_OPENED]
            ended = [event for event in host.events if event.kind == EventKind.LEASE_ENDED]
            assert len({event.address for event in opened}) == len(opened) == len(ended) == 100
            assert all(event.name.startswith(kind) for event in opened)
        pairs = {(seen.source, seen.destination) for seen in net.sent}
        assert len(pairs) == 200


@pytest.mark.rule("UM-1.a", "UM-17.a", "UM-35.s")
def test_the_same_over_wires_that_lose_delay_and_reorder() -> None:
    bad = Impairment(delay=millis(20), jitter=millis(10), loss=0.05, duplicate=0.02)
    with Network() as net:
        server, client = net.hosts("server", "client", wire=bad)
        waiting = pages(server, 30)
        data = [bytes([number]) * 20_000 for number in range(30)]
        visits = [
            client.attach(client.connect(page.address), Transfer(sent))
            for page, sent in zip(waiting, data, strict=True)
        ]
        net.run_until(lambda: all(visit.done for visit in visits), limit=minutes(20))
        assert [bytes(visit.received) for visit in visits] == data


@pytest.mark.rule("UM-22.a", "UM-23.e", "UM-32.b")
def test_two_run_for_one_address_and_one_of_them_gets_it() -> None:
    with Network() as net:
        server, quick, slow = net.host("server"), net.host("quick"), net.host("slow", up=Impairment(delay=millis(50)))
        door = server.listen()
        ssa = server.das(door).address
        late, early = slow.connect(ssa), quick.connect(ssa)
        net.run_for(minutes(4))
        session = door.accept()
        assert session is not None
        assert session.remote == early.local
        assert (early.state, late.end_reason) == (st.ESTABLISHED, Reason.TIMED_OUT)
        assert net.sent_by(server, to=slow) == []
        assert server.stack.telescope()[0][0] == late.local
        quick.close(early)


@pytest.mark.rule("UM-23.a", "UM-23.c")
def test_a_flood_of_forged_syns_does_not_keep_the_guest_out_for_long() -> None:
    with Network() as net:
        server, client = net.hosts("server", "client")
        door = server.listen()
        ssa = server.das(door).address
        session = client.connect(ssa)
        for number in range(2000):
            net.inject(builders.tcp(f"2001:db8:666::{number + 1:x}", ssa, flags="S"))
        net.run_for(seconds(10))
        assert session.state == st.ESTABLISHED
        accepted = door.accept()
        assert accepted is not None
        assert accepted.remote == session.local


@pytest.mark.rule("UM-31.a", "UM-31.g")
def test_after_a_crash_of_the_stack_the_peer_waits_for_its_own_timeout() -> None:
    with Network() as net:
        server, client = net.host("server"), net.host("client", tcp=TcpPolicy(retries=5))
        ours, theirs = net.established(client, server)
        lost = net.lose(sender=server)  # what a crashed stack says
        client.write(ours, b"are you there?")
        net.run_for(minutes(5))
        assert ours.end_reason == Reason.TIMED_OUT
        assert all("R" not in seen.flags for seen in net.sent_by(server))
        net.restore(lost)
        server.abort(theirs)


@pytest.mark.rule("UM-31.e")
def test_an_abort_whose_reset_is_lost_is_answered_when_the_peer_speaks_again() -> None:
    with Network() as net:
        server, client = net.hosts("server", "client")
        ours, theirs = net.established(client, server)
        lost = net.lose(sender=server)
        server.abort(theirs)
        net.run_for(seconds(10))
        assert [seen.flags for seen in lost.taken] == ["RA"]
        net.restore()
        client.write(ours, b"hello?")
        net.run_for(seconds(1))
        assert ours.end_reason == Reason.RESET


@pytest.mark.rule("UM-30.a", "UM-31.b", "UM-31.c")
def test_a_scan_of_ten_thousand_addresses_hears_nothing() -> None:
    with Network(record=False) as net:
        server = net.host("server")
        door = server.listen()
        server.das(door)
        before = net.checked
        for number in range(10_000):
            where = (0x20010DB80001 << 80 | number * 0x1F2E3D4C5B6A7).to_bytes(16, "big")
            net.inject(builders.tcp("2001:db8:bad::1", where, 5, 443, "S"), server)
        net.run_for(seconds(10))
        assert net.checked == before
        assert server.stack.counters.drops[Drop.NO_OWNER] == 10_000
        assert [count for _, count in server.stack.telescope()] == [10_000]


@pytest.mark.rule("UM-6.a", "UM-26.a", "UM-26.d")
def test_legacy_service_and_one_time_sessions_share_a_node() -> None:
    with Network() as net:
        server = net.host("server", shared=["2001:db8:1::80"])
        client = net.host("client", shared=["2001:db8:2::80"])
        doors = [
            server.listen(address="2001:db8:1::80", port=80),
            server.listen(address="2001:db8:1::53", port=80),
            server.listen(),
        ]
        for door in doors:
            server.serve(door, Echo)
        targets = ["2001:db8:1::80", "2001:db8:1::53"]
        visits = [client.attach(client.connect(where, 80), Transfer(b"x" * 999)) for where in targets * 3]
        source = client.stack.config.shared[0]
        visits += [client.attach(client.connect(w, 80, source=source), Transfer(b"x" * 999)) for w in targets * 3]
        visits += [
            client.attach(client.connect(server.das(doors[2]).address, 80, source=s), Transfer(b"x" * 999))
            for s in (None, source)
        ]
        net.run_until(lambda: all(visit.done for visit in visits))
        assert {bytes(visit.received) for visit in visits} == {b"x" * 999}
        assert Counter(seen.sport == 1 for seen in net.sent_by(client))[False] > 0


@pytest.mark.rule("UM-9.a", "UM-9.b", "UM-19.a")
def test_a_burst_larger_than_the_pool_is_served_and_the_pool_recovers() -> None:
    with Network() as net:
        client = net.host("client", pool=PoolPolicy(low=8, high=16))
        sessions = [client.connect("2001:db8:9::1", 80) for _ in range(200)]
        assert len({session.local for session in sessions}) == 200
        net.run_for(seconds(10))
        statistics = client.stack.pool_statistics()
        assert (statistics.issued, statistics.level) == (200, 16)
        assert statistics.misses >= 200 - 16
