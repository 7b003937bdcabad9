"""Host: the verbs of a running stack, its beginning and its end."""

import errno
import socket as stdlib
from collections.abc import Awaitable, Callable
from functools import partial
from math import inf, nan
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.driver.conftest import CLIENT_PREFIX, SERVER_PREFIX, SHARED, Pair, config, text
from tests.driver.wires import fake_wire
from umuxstack.core.errors import (
    AddressMalformed,
    AddressNotOurs,
    BadArgument,
    Drop,
    NoSuchObject,
    NotConnected,
    NotListening,
    Reason,
)
from umuxstack.core.events import EventKind
from umuxstack.core.units import NEVER, seconds
from umuxstack.driver.addresses import to_address
from umuxstack.driver.links.memory import memory_link_pair
from umuxstack.driver.pump import END_BATCH
from umuxstack.driver.runtime import Host
from umuxstack.driver.streams import UmuxStream
from umuxstack.host import make_config

CLIENT_SHARED = "2001:db8:1::80"

# connecting and listening


@pytest.mark.rule("UM-15.a")
async def test_every_connection_leaves_from_an_address_of_its_own(pair: Pair) -> None:
    async with await pair.server.listen(80, address="2001:db8:2::5") as listener:
        streams = []
        for _ in range(5):
            streams.append(await pair.client.connect("2001:db8:2::5", 80))
            streams.append(await listener.accept())
        assert len({stream.local_address[0] for stream in streams[::2]}) == 5
        for stream in streams:
            await stream.aclose()


@pytest.mark.rule("UM-16.a")
async def test_a_chosen_source_is_used(pair: Pair) -> None:
    async with (
        await pair.server.listen(80, address=SHARED) as listener,
        await pair.client.connect(SHARED, 80, source="2001:db8:1::77") as stream,
        await listener.accept() as accepted,
    ):
        assert stream.local_address[0] == "2001:db8:1::77"
        assert accepted.remote_address[0] == "2001:db8:1::77"


@pytest.mark.parametrize("size", [5, 3_000_000])
async def test_early_data_is_the_first_that_the_peer_reads(pair: Pair, size: int) -> None:
    """Also where none of it could go with the SYN, and where it is more than a buffer holds."""
    early = bytes(range(250)) * (size // 250) + b"early"[: size % 250 or 5]
    received = bytearray()

    async with await pair.server.listen(80, address="2001:db8:2::5") as listener, trio.open_nursery() as nursery:

        async def serve() -> None:
            async with await listener.accept() as accepted:
                async for data in accepted:
                    received.extend(data)

        nursery.start_soon(serve)
        async with await pair.client.connect("2001:db8:2::5", 80, early=early) as stream:
            await stream.send_all(b", then more")
    assert bytes(received) == early + b", then more"


async def test_nobody_there_is_a_timeout(pair: Pair) -> None:
    with pytest.raises(TimeoutError):
        await pair.client.connect("2001:db8:2::404", 80)


async def test_a_legacy_port_without_a_listener_refuses(pair: Pair) -> None:
    with pytest.raises(ConnectionRefusedError):
        await pair.client.connect(SHARED, 81)


async def test_a_cancelled_connect_leaves_nothing(pair: Pair) -> None:
    with trio.move_on_after(1) as scope:
        await pair.client.connect("2001:db8:2::404", 80)
    assert scope.cancelled_caught
    assert list(pair.client.stack.sessions()) == []
    assert [lease for lease in pair.client.stack.leases() if lease.kind == "EA"] == []


async def test_wrong_arguments_raise_before_anything_happens(pair: Pair) -> None:
    with pytest.raises(AddressMalformed):
        await pair.client.connect("example.org", 80)
    with pytest.raises(AddressMalformed):
        await pair.client.connect("::", 80)
    with pytest.raises(BadArgument):
        await pair.client.connect("2001:db8:2::1", 70_000)
    with pytest.raises(AddressNotOurs):
        await pair.client.listen(80, address="2001:db8:2::1")
    assert list(pair.client.stack.sessions()) == []


WRONG = (BadArgument, TypeError)  # what is no number at all is a TypeError of a compiled core


async def test_what_is_no_number_and_no_bytes_is_refused_before_anything_happens(pair: Pair) -> None:
    """A port of 80.0 passed for one and failed when the EA was taken already, which nobody ever gave back; listeners
    took any. `bytes(3)` are three zeros, which is what `send_to(3, …)` sent."""
    client: Any = pair.client
    taken: Any = await pair.client.datagram_socket()
    before = pair.client.stack.leftovers(), pair.client.stack.pool_statistics().issued
    for port in (80.0, "80", None, 1 << 16, -1):
        if port is not None:
            with pytest.raises(WRONG, match=r"port|int"):
                await client.connect(SHARED, port)
        for address in (None, "2001:db8:1::5"):
            with pytest.raises(WRONG, match=r"port|int"):
                await client.listen(port, address=address)
            with pytest.raises(WRONG, match=r"port|int"):
                await client.datagram_socket(address=address, port=port)
        with pytest.raises(WRONG, match=r"port|int"):
            await taken.send_to(b"x", (SHARED, port))
    for backlog in (0, 1.5, "5", None):
        with pytest.raises(WRONG, match=r"backlog|int"):
            await client.listen(80, backlog=backlog)
    for early in ("abc", 3, [1], None):
        with pytest.raises(TypeError):
            await client.connect(SHARED, 80, early=early)
    for data in ("abc", 3, [1], None):
        with pytest.raises(TypeError):
            await taken.send_to(data, (SHARED, 53))
    assert (pair.client.stack.leftovers(), pair.client.stack.pool_statistics().issued) == before
    assert pair.client_link.headers == []
    await taken.aclose()


@pytest.mark.parametrize("lifetime", [-inf, nan, -1, 0])
async def test_a_lifetime_is_more_than_nothing(pair: Pair, lifetime: float) -> None:
    """Minus infinity was taken for "unlimited"."""
    async with await pair.server.listen() as listener:
        with pytest.raises(BadArgument, match="lifetime"):
            pair.server.das(listener, lifetime=lifetime)


async def test_a_forgotten_ping_is_closed_with_a_warning(pair: Pair) -> None:
    """Its address stayed for ever."""
    ping = pair.client.open_ping(SHARED)
    await ping.request(b"x", timeout=1)
    with pytest.warns(ResourceWarning, match="UmuxPing"):
        del ping
    await wait_all_tasks_blocked()
    assert list(pair.client.stack.sessions()) == []


async def test_without_a_port_the_fixed_one_is_dialled(pair: Pair) -> None:
    async with await pair.server.listen(name="any") as listener:
        ssa = pair.server.das("any").lease.address
        async with await pair.client.connect(text(ssa)) as stream, await listener.accept():
            assert stream.remote_address == (text(ssa), 1)


@pytest.mark.rule("UM-20.b", "UM-22.b")
async def test_a_listener_serves_trios_serve_listeners_once_per_das(pair: Pair) -> None:
    async def echo(stream: UmuxStream) -> None:
        async with stream:
            async for data in stream:
                await stream.send_all(data)

    listener = await pair.server.listen(7, name="echo")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, echo, [listener])
        for number in range(3):
            ssa = pair.server.das("echo").lease.address
            async with await pair.client.connect(text(ssa), 7) as stream:
                await stream.send_all(str(number).encode())
                assert await stream.receive_some() == str(number).encode()
        nursery.cancel_scope.cancel()


async def test_a_listener_that_is_closed_ends_accept_and_wait_closed(pair: Pair) -> None:
    listener = await pair.server.listen(80)
    ended = []

    async def accept() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()
        ended.append("accept")

    async def wait() -> None:
        await listener.wait_closed()
        ended.append("wait_closed")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        await listener.aclose()
    assert sorted(ended) == ["accept", "wait_closed"]
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()


async def test_a_listener_closed_through_the_core_ends_accept_as_well(pair: Pair) -> None:
    listener = await pair.server.listen(80)
    async with trio.open_nursery() as nursery:

        async def accept() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await listener.accept()

        nursery.start_soon(accept)
        nursery.start_soon(listener.wait_closed)
        await wait_all_tasks_blocked()
        listener.listener.close(pair.server.now())
        pair.server.kick()


async def test_two_tasks_accepting_at_once_are_refused(pair: Pair) -> None:
    async with await pair.server.listen(80) as listener:
        with pytest.RaisesGroup(trio.BusyResourceError):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listener.accept)
                nursery.start_soon(listener.accept)


# DAS


@pytest.mark.rule("UM-24.a", "UM-24.d", "UM-24.e")
async def test_das_takes_text_and_seconds(pair: Pair) -> None:
    host = pair.server
    async with await host.listen(80, name="web") as listener:
        waiting = host.das(
            listener,
            ssa="2001:db8:2::abc",
            peer="2001:db8:1::/64",
            lifetime=5.0,
            label="ticket 7",
            grain="client",
            pin=64,
        )
        assert text(waiting.lease.address) == "2001:db8:2::abc"
        assert waiting.lease.label == "ticket 7"
        assert waiting.expires == host.now() + seconds(5)
        assert host.das("web", lifetime=inf).expires == NEVER
        assert host.das(listener.id).expires == host.now() + host.config.das_lifetime
        assert host.das(listener.listener, peer="2001:db8:1::9").peer is not None
        with pytest.raises(NoSuchObject):
            host.das("nobody")
        with pytest.raises(AddressNotOurs):
            host.das(listener, ssa="2001:db8:1::1")


@pytest.mark.rule("UM-21")
async def test_das_needs_a_listener_on_no_address(pair: Pair) -> None:
    async with await pair.server.listen(80, address=SHARED) as legacy:
        with pytest.raises(NotListening):
            pair.server.das(legacy)


@pytest.mark.rule("UM-24.f")
async def test_a_revoked_ssa_is_gone_by_address_and_by_name(pair: Pair) -> None:
    host = pair.server
    async with await host.listen(80, name="web") as listener:
        first, second = host.das(listener), host.das(listener)
        host.revoke(text(first.lease.address))
        host.revoke(second.lease.name)
        with pytest.raises(NoSuchObject):
            host.revoke(second.lease.name)
        with pytest.raises(TimeoutError):
            await pair.client.connect(text(first.lease.address), 80)


async def test_verbs_on_the_core_take_effect_with_a_kick(pair: Pair) -> None:
    host = pair.server
    async with await host.listen(80) as listener:
        waiting = host.stack.das(listener.listener, host.now())
        host.kick()
        async with await pair.client.connect(text(waiting.lease.address), 80):
            await (await listener.accept()).aclose()


# echo


@pytest.mark.rule("UM-38.a")
async def test_ping_gives_a_reply_for_each_request(pair: Pair) -> None:
    replies = await pair.client.ping(SHARED, count=3, interval=0.5, size=1000)
    assert [reply is not None and len(reply.data) for reply in replies] == [1000] * 3
    assert [lease for lease in pair.client.stack.leases() if lease.kind == "EA"] == []


async def test_ping_into_silence_gives_none(pair: Pair) -> None:
    assert await pair.client.ping("2001:db8:2::404", count=2, timeout=0.5) == [None, None]


@pytest.mark.parametrize("data", [bytearray(b"ask"), memoryview(b"ask")])
async def test_an_open_ping_takes_any_buffer(pair: Pair, data: bytearray | memoryview) -> None:
    """A compiled core takes bytes alone."""
    async with pair.client.open_ping(SHARED) as ping:
        reply = await ping.request(data)
        assert reply is not None
        assert reply.data == b"ask"


async def test_an_open_ping_sends_and_receives_as_it_likes(pair: Pair) -> None:
    async with pair.client.open_ping(SHARED) as ping:
        sequences = [await ping.send(b"a"), await ping.send(b"b")]
        replies = [await ping.receive(), await ping.receive()]
        assert [reply.sequence for reply in replies] == sequences
    with pytest.raises(trio.ClosedResourceError):
        await ping.send()


# events


async def test_events_tell_of_leases_and_sessions(pair: Pair) -> None:
    async with pair.client.subscribe_events() as events:
        ours, theirs = await pair.session()
        await ours.aclose()
        await theirs.aclose()
        await trio.sleep(120)
        kinds = [events.receive_nowait().kind for _ in range(events.statistics().current_buffer_used)]
    assert kinds[0] == EventKind.LEASE_OPENED
    assert EventKind.SESSION_ESTABLISHED in kinds
    assert kinds[-1] == EventKind.LEASE_ENDED


async def test_a_subscriber_hears_nothing_of_the_past_and_a_slow_one_loses(pair: Pair) -> None:
    first, _ = await pair.session()
    async with pair.client.subscribe_events(limit=1) as events:
        await first.aclose()
        _.abort()
        second, theirs = await pair.session()
        await second.aclose()
        await theirs.aclose()
        assert events.statistics().current_buffer_used == 1
    async with await pair.client.listen(81):
        assert pair.client.pump.faults == 0


async def test_nothing_is_kept_for_nobody(pair: Pair) -> None:
    """A host that nobody watched kept its last 65,536 events, with their leases: some 15 MB after 20,000 sessions."""
    stack = pair.client.stack
    for _ in range(2):
        for stream in await pair.session():
            stream.abort()
        assert stack.take_events() == []
        async with pair.client.subscribe_events() as events:
            for stream in await pair.session():
                stream.abort()
            assert events.statistics().current_buffer_used > 2
        for stream in await pair.session():  # shows that the last subscriber has gone
            stream.abort()


# its own beginning and end


async def test_two_hosts_on_the_memory_link_exchange_a_megabyte() -> None:
    left, right = memory_link_pair()
    async with (
        Host(left, config(CLIENT_PREFIX)) as client,
        Host(right, config(SERVER_PREFIX)) as server,
        await server.listen(80) as listener,
        trio.open_nursery() as nursery,
    ):
        stream = await client.connect(text(server.das(listener).lease.address), 80)
        accepted = await listener.accept()

        async def send() -> None:
            async with stream:
                await stream.send_all(bytes(1 << 20))

        nursery.start_soon(send)
        async with accepted:
            count = 0
            async for data in accepted:
                count += len(data)
        assert count == 1 << 20


async def test_the_same_seed_gives_the_same_addresses() -> None:
    def address_of(host: Host) -> bytes:
        return host.stack.pool.take()

    addresses = []
    for seed in (b"one", b"one", b"two", None):
        async with Host(fake_wire()[0], config(CLIENT_PREFIX), seed) as host:
            addresses.append(address_of(host))
    assert addresses[0] == addresses[1]
    assert len(set(addresses)) == 3


async def test_what_the_body_raises_comes_out_as_it_is() -> None:
    with pytest.raises(ValueError, match="the body's own"):
        async with Host(fake_wire()[0], config(CLIENT_PREFIX)):
            raise ValueError("the body's own")


async def test_a_cancelled_body_ends_the_host_and_closes_the_link() -> None:
    link = fake_wire()[0]
    with trio.move_on_after(1) as scope:
        async with Host(link, config(CLIENT_PREFIX)):
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert link.closed


async def test_a_task_beside_the_pump_that_fails_takes_the_host_with_it() -> None:
    async def fail() -> None:
        raise ValueError("beside")

    link = fake_wire()[0]
    with pytest.RaisesGroup(ValueError):
        async with Host(link, config(CLIENT_PREFIX)) as host:
            host.start_soon(fail)
            await trio.sleep_forever()
    assert link.closed


async def test_a_host_runs_once() -> None:
    host = Host(fake_wire()[0], config(CLIENT_PREFIX))
    async with host:
        pass
    with pytest.raises(RuntimeError, match="once"):
        async with host:
            pass


async def test_nothing_begins_on_a_host_that_has_ended() -> None:
    """`connect` and a reader of events waited for ever, `listen` gave a listener to which nobody can come."""
    link, _ = memory_link_pair()
    async with Host(link, config(CLIENT_PREFIX, CLIENT_SHARED)) as host:
        listener = await host.listen(name="door")
    begin: Callable[[], Awaitable[object]]
    verb: Callable[[], object]
    with trio.fail_after(1):
        for begin in (
            partial(host.connect, SHARED, 80),
            host.listen,
            host.datagram_socket,
            partial(host.ping, SHARED),
        ):
            with pytest.raises(OSError, match="stack closed") as caught:
                await begin()
            assert caught.value.errno == errno.ENETDOWN
        for verb in (partial(host.das, listener), partial(host.revoke, "door"), partial(host.open_ping, SHARED)):
            with pytest.raises(OSError, match="stack closed"):
                verb()
        assert [event async for event in host.subscribe_events()] == []
        make = partial(host.socket_factory.socket, stdlib.AF_INET6)
        with make(stdlib.SOCK_STREAM, 0) as stream, make(stdlib.SOCK_DGRAM, 0) as datagrams:
            for begin in (
                partial(stream.connect, (SHARED, 80)),
                partial(datagrams.bind, (CLIENT_SHARED, 53)),
                partial(datagrams.sendto, b"", (SHARED, 53)),
            ):
                with pytest.raises(OSError, match="stack closed"):
                    await begin()
            with pytest.raises(OSError, match="stack closed"):
                stream.listen()
    assert host.stack.listeners() == []


async def test_a_host_that_does_not_run_yet_says_so() -> None:
    host = Host(memory_link_pair()[0], config(CLIENT_PREFIX))
    with pytest.raises(AttributeError, match="async with"):
        await host.connect(SHARED, 80)
    with pytest.raises(AttributeError, match="has no attribute 'conect'"):
        host.conect(SHARED)  # type: ignore[attr-defined]


async def test_the_end_of_a_host_resets_what_is_open(pair: Pair) -> None:
    left, right = fake_wire()
    async with Host(right, config(SERVER_PREFIX)) as server:
        async with Host(left, config(CLIENT_PREFIX)) as client:
            ours, theirs = await Pair(client, server, left, right).session()
        with pytest.raises(trio.BrokenResourceError):
            await theirs.receive_some()
        assert theirs.session.end_reason == Reason.RESET
        await theirs.aclose()
    assert ours.session.ended
    await ours.aclose()


async def test_the_end_of_a_host_waits_for_what_was_written_before_close() -> None:
    left, right = memory_link_pair()
    async with Host(right, config(SERVER_PREFIX)) as server, await server.listen(80) as listener:
        data = bytes(200_000)
        async with Host(left, config(CLIENT_PREFIX)) as client:
            stream = await client.connect(text(server.das(listener).lease.address), 80)
            await stream.send_all(data)
            await stream.aclose()
        async with await listener.accept() as accepted:
            count = 0
            async for part in accepted:
                count += len(part)
        assert count == len(data)


async def test_the_end_of_a_host_does_not_wait_for_a_silent_peer() -> None:
    left, right = fake_wire()
    started = trio.current_time()
    async with Host(right, config(SERVER_PREFIX)) as server:
        async with Host(left, config(CLIENT_PREFIX), linger=0.5) as client:
            ours, theirs = await Pair(client, server, left, right).session()
            left.loses = True
            await ours.send_all(b"into the void")
            await ours.aclose()
        assert trio.current_time() - started == pytest.approx(0.5, abs=0.1)
        await theirs.aclose()


# UDP


@pytest.mark.rule("UM-18.a", "UM-18.f")
async def test_datagrams_leave_from_an_ea_per_destination_and_come_back(pair: Pair) -> None:
    async with (
        await pair.client.datagram_socket() as ours,
        await pair.server.datagram_socket(address=SHARED, port=53) as theirs,
    ):
        await ours.send_to(b"question", (SHARED, 53))
        datagram = await theirs.receive()
        assert datagram.data == b"question"
        assert text(datagram.peer).startswith("2001:db8:1:")
        assert text(datagram.local) == SHARED
        await theirs.send_to(b"answer", (text(datagram.peer), datagram.peer_port))
        assert await ours.receive_from() == (b"answer", (SHARED, 53))


@pytest.mark.rule("UM-28")
async def test_das_opens_an_address_for_a_udp_socket(pair: Pair) -> None:
    async with await pair.client.datagram_socket() as ours, await pair.server.datagram_socket(name="dns") as theirs:
        ssa = text(pair.server.das(theirs).lease.address)
        await ours.connect(ssa, 53)
        await ours.send(b"question")
        data, peer = await theirs.receive_from()
        await theirs.send_to(data.upper(), peer)
        assert await ours.receive_from() == (b"QUESTION", (ssa, 53))
        await ours.disconnect()
        with pytest.raises(NotConnected):
            await ours.send(b"to whom?")


async def test_what_is_no_buffer_is_not_sent(pair: Pair) -> None:
    """`send(3)` sent three zeros."""
    async with await pair.client.datagram_socket() as ours, await pair.server.datagram_socket() as theirs:
        await ours.connect(text(pair.server.das(theirs).lease.address), 53)
        for data in (3, "text", [1, 2]):
            with pytest.raises(TypeError):
                await ours.send(data)  # type: ignore[arg-type]
        await ours.send(memoryview(bytearray(b"bytes")))
        assert (await theirs.receive()).data == b"bytes"


async def test_an_icmp_error_is_raised_once_by_the_next_call() -> None:
    left, right = memory_link_pair()
    answering = make_config(SERVER_PREFIX, shared=[SHARED], silence=False)
    async with (
        Host(left, config(CLIENT_PREFIX)) as client,
        Host(right, answering),
        await client.datagram_socket() as ours,
    ):
        await ours.connect(SHARED, 9)
        await ours.send(b"nobody listens there")
        with pytest.raises(ConnectionRefusedError):
            await ours.receive()
        await ours.send(b"again")


async def test_a_closed_datagram_socket_says_so_and_wakes_its_reader(pair: Pair) -> None:
    ours = await pair.client.datagram_socket()
    async with trio.open_nursery() as nursery:

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await ours.receive()

        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        await ours.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await ours.send_to(b"x", (SHARED, 53))
    await ours.aclose()


async def test_a_forgotten_datagram_socket_is_closed_with_a_warning(pair: Pair) -> None:
    socket = await pair.client.datagram_socket(name="forgotten")
    core = socket.socket
    with pytest.warns(ResourceWarning, match="forgotten"):
        del socket
    await wait_all_tasks_blocked()
    assert core.closed


async def test_the_end_of_a_host_with_many_sessions_leaves_others_their_turns() -> None:
    """It was one call, in which nobody had a turn, and whose resets did not all fit into the link's queue."""
    left, right = fake_wire()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery, Host(right, config(SERVER_PREFIX, SHARED)) as server:
        async with await server.listen(80, address=SHARED, backlog=2000), Host(left, config(CLIENT_PREFIX)) as client:
            sessions = [client.stack.connect(to_address(SHARED), 80, client.now()) for _ in range(1500)]
            client.kick()
            await trio.sleep(1)
            assert all(session.established for session in sessions)
            resets = client.stack.counters.segments_out
            nursery.start_soon(count)
            turns = 0
        assert turns >= 1500 // END_BATCH
        assert client.stack.counters.segments_out - resets == 1500
        assert client.stack.counters.drops[Drop.QUEUE_FULL] == 0
        assert all(session.ended for session in sessions)
        nursery.cancel_scope.cancel()


async def test_sessions_are_ended_before_the_tasks_that_wait_for_them(pair: Pair) -> None:
    """For a program with a task for each of very many sessions, which would all be cancelled at one moment."""
    ours, theirs = await pair.session()
    heard: list[str] = []

    async def receive() -> None:
        with pytest.raises(trio.BrokenResourceError):
            await theirs.receive_some()
        heard.append("end")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        await pair.server.end_sessions()
    assert heard == ["end"]
    assert not pair.server.pump.stopped
    with pytest.raises(trio.BrokenResourceError):
        await ours.receive_some()
    await pair.server.end_sessions()
    await ours.aclose()
    await theirs.aclose()
