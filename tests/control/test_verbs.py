"""What each verb does to a stack, and what it shows of it."""

import errno
import socket
from contextlib import suppress
from ipaddress import IPv6Address
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.control.conftest import PEER_SHARED, SHARED, Scene
from umuxstack.control import rows
from umuxstack.control.client import accept
from umuxstack.control.messages import (
    Addresses,
    Connect,
    DasAdd,
    DasList,
    DasRevoke,
    EventRow,
    Events,
    GetOutcome,
    GetStatus,
    Listen,
    Listeners,
    Ping,
    Pool,
    Request,
    Sessions,
    Shutdown,
    Statistics,
    Telescope,
    Waiter,
)
from umuxstack.control.protocol import SessionFailed
from umuxstack.control.quota import Limits
from umuxstack.core import errors
from umuxstack.core.errors import LocalError, Reason
from umuxstack.core.units import NEVER, UNSPECIFIED, Address, Micros, seconds
from umuxstack.driver.streams import UmuxStream


def packed(text: str) -> Address:
    return Address(IPv6Address(text).packed)


def text(address: Address) -> str:
    return str(IPv6Address(address))


PEER = packed(PEER_SHARED)


def stream_of(handed: socket.socket) -> trio.SocketStream:
    handed.setblocking(False)
    return trio.SocketStream(trio.socket.from_stdlib_socket(handed))


async def come(scene: Scene, waiter: Waiter) -> UmuxStream:
    """The peer uses the SSA."""
    return await scene.peer.connect(text(waiter.address), 80)


# Delayed Address Setting


@pytest.mark.rule("UM-21.a", "UM-24.a", "UM-24.b", "UM-24.d", "UM-24.e")
async def test_das_from_outside_lets_one_session_in(scene: Scene) -> None:
    async with scene.client() as client, await scene.host.listen(80, name="web") as listener:
        waiter = await client.call(DasAdd(listener="web", label="order 17"))
        assert (waiter.name, waiter.label, waiter.grain, waiter.listener) == ("ssa.web.1", "order 17", "session", "web")
        assert waiter.expires == pytest.approx(seconds(60), abs=1_000_000)
        (listed,) = await client.list(DasList(reveal=True))
        assert attrs.evolve(listed, expires=waiter.expires) == waiter
        async with await come(scene, waiter) as visitor, await listener.accept() as session:
            await visitor.send_all(b"hello")
            assert await session.receive_some() == b"hello"
            assert await client.list(DasList()) == []


@pytest.mark.rule("UM-24.a", "UM-24.b", "UM-24.c", "UM-24.d")
async def test_das_takes_an_address_a_peer_a_lifetime_and_a_grain(scene: Scene) -> None:
    async with scene.client() as client, await scene.host.listen(name="web") as listener:
        request = DasAdd(
            listener=str(listener.id),
            ssa=packed("2001:db8:1::cafe"),
            peer=packed("2001:db8:2::"),
            peer_length=64,
            default_lifetime=False,
            lifetime=NEVER,
            pin=64,
            grain="client",
        )
        waiter = await client.call(request)
        assert text(waiter.address) == "2001:db8:1::cafe"
        assert (text(waiter.peer), waiter.peer_length) == ("2001:db8:2::", 64)
        assert (waiter.expires, waiter.grain) == (NEVER, "client")


@pytest.mark.rule("UM-24")
@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (DasAdd(listener="nobody"), errors.NoSuchObject),
        (DasAdd(listener=""), errors.NoSuchObject),
        (DasAdd(listener="service"), errors.NotListening),
        (DasAdd(listener="web", ssa=packed("2001:db8:9::1")), errors.AddressNotOurs),
        (DasAdd(listener="web", ssa=packed(SHARED)), errors.AddressInUse),
        (DasAdd(listener="web", ssa=packed("2001:db8:1::dead")), errors.AddressUsed),
        (DasAdd(listener="web", ssa=packed("2001:db8:1::1:1")), errors.AddressInUse),
        (DasAdd(listener="web", ssa=packed("ff02::1")), errors.LocalError),
        (DasAdd(listener="web", grain="service"), errors.BadArgument),
        (DasAdd(listener="web", grain="client", pin=63), errors.BadArgument),
        (DasAdd(listener="web", default_lifetime=False, lifetime=Micros(0)), errors.BadArgument),
        (DasAdd(listener="web", default_lifetime=False, lifetime=Micros(-5)), errors.BadArgument),
        (DasAdd(listener="web", peer=packed("2001:db8::1"), peer_length=64), errors.AddressMalformed),
        (DasAdd(listener="web", peer=packed("2001:db8::1"), peer_length=129), errors.AddressMalformed),
        (DasAdd(listener="full"), errors.BacklogFull),
        (DasRevoke(what="ssa.web.99"), errors.NoSuchObject),
        (DasRevoke(what="2001:db8:1::dead"), errors.NoSuchObject),
        (DasRevoke(what="2001:db8:1::zz"), errors.AddressMalformed),
    ],
    ids=str,
)
async def test_a_refused_das_says_why_and_changes_nothing(
    scene: Scene, request_: Request[Any], expected: type[LocalError], caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        scene.client() as client,
        await scene.host.listen(name="web"),
        await scene.host.listen(name="service", address="2001:db8:1::5"),
        await scene.host.listen(name="full", backlog=1),
    ):
        await client.call(DasAdd(listener="full"))
        await client.call(DasAdd(listener="web", ssa=packed("2001:db8:1::1:1")))
        await client.call(DasAdd(listener="web", ssa=packed("2001:db8:1::dead")))
        await client.call(DasRevoke(what="2001:db8:1::dead"))
        before = scene.host.stack.leftovers()
        with pytest.raises(expected) as caught:
            await client.call(request_)
        assert type(caught.value) is expected or expected is LocalError
        assert len(str(caught.value)) > 10
        assert scene.host.stack.leftovers() == before
        assert "refused: uid" in caplog.text or isinstance(request_, DasRevoke)


@pytest.mark.rule("UM-24", "UM-25")
@pytest.mark.parametrize("by", ["address", "name"])
async def test_a_revoked_address_is_gone(scene: Scene, by: str, autojump_clock: MockClock) -> None:
    async with scene.client() as client, await scene.host.listen(name="web"):
        waiter = await client.call(DasAdd(listener="web"))
        await client.call(DasRevoke(what=waiter.name if by == "name" else text(waiter.address)))
        assert await client.list(DasList(reveal=True)) == []
        with pytest.raises(TimeoutError):
            await come(scene, waiter)


@pytest.mark.rule("UM-29.d", "UM-34.a")
async def test_das_and_revocation_are_logged_with_caller_and_lease_but_no_address(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    async with scene.client() as client, await scene.host.listen(name="web"):
        waiter = await client.call(DasAdd(listener="web", label="order 17"))
        await client.call(DasRevoke(what=text(waiter.address)))
        with pytest.raises(errors.AddressUsed):
            await client.call(DasAdd(listener="web", ssa=waiter.address))
        await client.call(Shutdown())
    assert "das: uid 0 pid" in caplog.text.replace(f"uid {client.welcome.uid} ", "uid 0 ")
    assert "lease ssa.web.1" in caplog.text
    assert "'order 17'" in caplog.text
    assert "revoke: uid" in caplog.text
    assert "das refused: uid" in caplog.text
    assert "shutdown: uid" in caplog.text
    assert text(waiter.address) not in caplog.text
    assert waiter.address.hex() not in caplog.text


@pytest.mark.rule("UM-34.b")
async def test_a_waiting_address_is_shown_only_where_it_is_asked_for(scene: Scene) -> None:
    """Also not by a half-open candidate, which has its address in the session list."""
    async with scene.client() as client, await scene.host.listen(name="web") as listener:
        waiter = await client.call(DasAdd(listener="web"))
        async with trio.open_nursery() as nursery:
            (hidden,) = [row for row in await client.list(Addresses()) if row.name == waiter.name]
            assert (hidden.hidden, hidden.address) == (True, UNSPECIFIED)
            (shown,) = [row for row in await client.list(Addresses(reveal=True)) if row.name == waiter.name]
            assert (shown.hidden, shown.address) == (False, waiter.address)
            assert [row.address for row in await client.list(DasList())] == [UNSPECIFIED]
            assert [row.address for row in await client.list(DasList(reveal=True))] == [waiter.address]
            nursery.cancel_scope.cancel()
        async with await come(scene, waiter), await listener.accept():
            (told,) = [row for row in await client.list(Addresses()) if row.name == waiter.name]
            assert (told.hidden, told.address) == (False, waiter.address)


@pytest.mark.rule("UM-34.b")
@pytest.mark.plain
async def test_a_half_open_candidate_does_not_tell_the_waiting_address(scene: Scene) -> None:
    async with scene.client() as client, await scene.host.listen(name="web"):
        waiter = await client.call(DasAdd(listener="web"))
        # A SYN whose answer is lost: the peer's stack takes it for nobody's.
        session = scene.peer.stack.connect(waiter.address, 80, scene.peer.now())
        scene.peer.stack.receive = lambda *_arguments: None  # type: ignore[method-assign]
        scene.peer.kick()
        await wait_all_tasks_blocked()
        (row,) = await client.list(Sessions())
        assert (row.state, row.local, row.lease) == ("SYN-RECEIVED", UNSPECIFIED, waiter.name)
        session.abort(scene.peer.now())


# lists


async def test_a_long_list_arrives_whole(scene: Scene) -> None:
    async with scene.client() as client, await scene.host.listen(name="web", backlog=1000) as listener:
        names = [scene.host.das(listener, label=f"number {n} " + "x" * 60).lease.name for n in range(700)]
        assert [row.name for row in await client.list(DasList(reveal=True))] == names
        assert len(await client.list(Addresses())) == 701  # and the shared one


async def test_listeners_of_every_kind_are_listed(scene: Scene) -> None:
    async with (
        scene.client() as client,
        await scene.host.listen(80, name="web", backlog=7) as web,
        await scene.host.listen(name="service", address="2001:db8:1::5"),
        await scene.host.listen(443, name="legacy", address=SHARED),
        await scene.host.datagram_socket(name="dns", port=53) as dns,
    ):
        scene.host.das(web)
        scene.host.das(dns)
        found = {row.name: row for row in await client.list(Listeners())}
        assert {name: row.kind for name, row in found.items()} == {
            "web": "LISTEN_0",
            "service": "LISTEN_SERVICE",
            "legacy": "LISTEN",
            "dns": "UDP",
        }
        assert (found["web"].port, found["web"].backlog, found["web"].waiting, found["web"].id) == (80, 7, 1, web.id)
        assert found["web"].address == UNSPECIFIED
        assert text(found["service"].address) == "2001:db8:1::5"
        assert text(found["legacy"].address) == SHARED
        assert found["dns"].waiting == 1
        assert {row.listener for row in await client.list(DasList())} == {"web", "dns"}


async def test_sessions_show_pair_role_grain_and_figures(scene: Scene) -> None:
    async with (
        scene.client() as client,
        await scene.host.listen(name="web") as listener,
        await scene.peer.listen(80, address=PEER_SHARED) as far,
    ):
        waiter = await client.call(DasAdd(listener="web", label="order 17"))
        async with (
            await come(scene, waiter),
            await listener.accept() as server,
            await scene.host.connect(PEER_SHARED, 80, label="fetch") as ours,
            await far.accept(),
            await scene.host.datagram_socket(name="ask") as ask,
        ):
            await ours.send_all(bytes(3000))
            await ask.send_to(b"?", (PEER_SHARED, 53))
            await wait_all_tasks_blocked()
            found = {row.lease: row for row in await client.list(Sessions())}
            incoming, outgoing = found["ssa.web.1"], found["ea.1"]
            assert (incoming.local, incoming.remote) == (server.session.local, server.session.remote)
            assert (incoming.state, incoming.protocol, incoming.role) == ("ESTABLISHED", "tcp", "server")
            assert (incoming.kind, incoming.grain, incoming.label) == ("SSA", "session", "order 17")
            assert (outgoing.role, outgoing.kind, outgoing.label) == ("client", "EA", "fetch")
            assert (outgoing.local_port, outgoing.remote_port) == (1, 80)
            assert outgoing.mss > 1000
            assert outgoing.cwnd >= 10 * outgoing.mss
            assert outgoing.congestion == "cubic"
            assert found["ea.2"].protocol == "udp"


async def test_a_session_that_ends_while_a_list_is_sent_is_still_told(scene: Scene) -> None:
    async with await scene.peer.listen(80, address=PEER_SHARED) as far:
        streams = [await scene.host.connect(PEER_SHARED, 80) for _ in range(3)]
        listed, leases = rows.sessions(scene.host.stack), rows.leases(scene.host.stack, scene.host.now(), reveal=False)
        assert next(listed).state == "ESTABLISHED"
        next(leases)
        for stream in streams:
            stream.abort()
        assert [row.state for row in listed] == ["CLOSED", "CLOSED"]
        assert len(list(leases)) >= 2
        for _ in streams:
            await (await far.accept()).aclose()


@pytest.mark.parametrize("window", [-5, 1 << 70, 20_000.5, float("inf"), float("nan")])
async def test_a_window_that_cannot_be_spoils_no_list(scene: Scene, window: float) -> None:
    """A user's congestion control set its window to -5: `umux ss` showed nobody's sessions any more."""
    async with await scene.peer.listen(80, address=PEER_SHARED) as far, scene.client() as client:
        stream = await scene.host.connect(PEER_SHARED, 80)
        control = stream.session.tcb.cc
        assert control is not None
        with suppress(TypeError):  # compiled, the core refuses what is no integer at once
            control.cwnd = control.ssthresh = window  # type: ignore[assignment]
        (row,) = await client.list(Sessions())
        assert 0 <= row.cwnd < NEVER
        stream.abort()
        await (await far.accept()).aclose()


async def test_pool_status_and_statistics(scene: Scene) -> None:
    async with scene.client() as client:
        before = await client.call(Pool())
        with trio.move_on_after(0):
            await scene.host.connect(PEER_SHARED, 80)
        scene.host.stack.connect(PEER, 80, scene.host.now()).abort(scene.host.now())
        after = await client.call(Pool())
        assert (after.issued, after.hits) == (before.issued + 1, before.hits + 1)
        assert (after.low, after.high, after.scheme) == (64, 256, "sealed")
        status = await client.call(GetStatus())
        assert (text(status.prefix), status.prefix_length) == ("2001:db8:1::", 64)
        assert (status.link, status.up, status.mtu, status.fixed_port) == ("wire", True, 1500, 1)
        assert status.leases == 1
        figures = {row.name: row.value for row in await client.list(Statistics())}
        assert figures == scene.host.stack.counters.snapshot()


@pytest.mark.rule("UM-31.c")
async def test_the_telescope_lists_who_knocked(scene: Scene, autojump_clock: MockClock) -> None:
    async with scene.client() as client:
        with trio.move_on_after(5):
            await scene.peer.connect("2001:db8:1::bad", 80)
        (knock,) = await client.list(Telescope())
        assert knock.packets >= 2
        assert seconds(5) >= knock.age > knock.quiet >= 0
        assert text(knock.source).startswith("2001:db8:2:")


# events


async def test_events_tell_the_life_of_an_address(scene: Scene, autojump_clock: MockClock) -> None:
    async with scene.client() as watcher, scene.client() as client, await scene.host.listen(name="web") as listener:
        stream = watcher.stream(Events())
        seen: list[EventRow] = []
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                async for event in stream:
                    seen.append(event)
                    if event.kind == "lease_ended":
                        break

            nursery.start_soon(watch)
            await wait_all_tasks_blocked()
            waiter = await client.call(DasAdd(listener="web", label="order 17"))
            async with await come(scene, waiter) as visitor, await listener.accept() as session:
                session.abort()
                with pytest.raises(trio.BrokenResourceError):
                    await visitor.receive_some()
        await stream.aclose()
        kinds = [event.kind for event in seen]
        assert kinds[:2] == ["lease_opened", "das"]
        assert "listen_u_ended" in kinds
        assert "session_established" in kinds
        assert kinds[-1] == "lease_ended"
        assert {event.name for event in seen} == {"ssa.web.1"}
        assert [event.address for event in seen if event.kind in ("lease_opened", "das")] == [UNSPECIFIED] * 2
        assert next(event for event in seen if event.kind == "session_established").address == waiter.address
        assert all(event.lost == 0 for event in seen)


@pytest.mark.parametrize("limits", [Limits(events=5)])
async def test_a_watcher_too_slow_is_told_how_much_it_missed(scene: Scene) -> None:
    async with scene.client() as watcher, await scene.host.listen(name="web", backlog=4000) as listener:
        stream = watcher.stream(Events())
        seen: list[EventRow] = []
        done = trio.Event()

        async def watch() -> None:
            async for row in stream:
                seen.append(row)
                await done.wait()
                if row.label == "the last":
                    return

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await wait_all_tasks_blocked()
            for _ in range(3000):
                scene.host.das(listener)
                await trio.lowlevel.checkpoint()
            done.set()
            await wait_all_tasks_blocked()
            scene.host.das(listener, label="the last")
        await stream.aclose()
        assert len(seen) < 6000
        assert len(seen) + sum(row.lost for row in seen) in (6001, 6002)  # two for each, and one or both of the last


# sessions in other processes' hands


async def test_a_session_is_handed_over_as_a_descriptor(scene: Scene) -> None:
    async with scene.client() as client, await scene.peer.listen(80, address=PEER_SHARED) as far:
        opened, handed = await client.open(Connect(peer=PEER, port=80, label="nc"))
        ours = stream_of(handed)
        async with await far.accept() as theirs:
            assert theirs.session.remote == opened.local
            assert (opened.lease, opened.remote_port) == ("ea.1", 80)
            await ours.send_all(b"question")
            await ours.send_eof()
            assert await theirs.receive_some() == b"question"
            assert await theirs.receive_some() == b""
            await theirs.send_all(b"answer")
            await theirs.send_eof()
            assert await ours.receive_some() == b"answer"
            assert await ours.receive_some() == b""
            await wait_all_tasks_blocked()
            outcome = await client.call(GetOutcome(id=opened.id))
            assert outcome.reason in (Reason.NONE, Reason.CLOSED)
        await ours.aclose()


async def test_a_session_outlives_the_control_connection(scene: Scene) -> None:
    async with await scene.peer.listen(80, address=PEER_SHARED) as far:
        async with scene.client() as client:
            _, handed = await client.open(Connect(peer=PEER, port=80))
        async with stream_of(handed) as ours, await far.accept() as theirs:
            await ours.send_all(b"still here")
            assert await theirs.receive_some() == b"still here"


@pytest.mark.rule("UM-17")
async def test_the_address_goes_when_the_descriptor_is_closed(scene: Scene) -> None:
    async with scene.client() as client, await scene.peer.listen(80, address=PEER_SHARED) as far:
        _, handed = await client.open(Connect(peer=PEER, port=80))
        async with await far.accept() as theirs:
            handed.close()
            assert await theirs.receive_some() == b""
        await wait_all_tasks_blocked()
        assert [row.state for row in await client.list(Addresses()) if row.kind == "EA"] in ([], ["RETIRING"])


async def test_a_reset_is_told_as_the_outcome(scene: Scene) -> None:
    async with scene.client() as client, await scene.peer.listen(80, address=PEER_SHARED) as far:
        opened, handed = await client.open(Connect(peer=PEER, port=80))
        async with stream_of(handed) as ours:
            (await far.accept()).abort()
            assert await ours.receive_some() == b""
            outcome = await client.call(GetOutcome(id=opened.id))
            assert (outcome.ended, outcome.reason) == (True, Reason.RESET)
        with pytest.raises(errors.NoSuchObject):
            await client.call(GetOutcome(id=999))


async def test_a_refused_connection_says_so_and_leaves_nothing(scene: Scene) -> None:
    async with scene.client() as client:
        with pytest.raises(SessionFailed) as caught:
            await client.open(Connect(peer=PEER, port=81))
        assert caught.value.reason is Reason.REFUSED
        with pytest.raises(errors.BadArgument):
            await client.open(Connect(peer=PEER, port=0))
        with pytest.raises(errors.BadArgument, match="unified"):
            await client.open(Connect(peer=PEER, port=80, unified=3))
        with pytest.raises(errors.AddressMalformed):
            await client.open(Connect(peer=UNSPECIFIED, port=80))
        assert await client.list(Sessions()) == []


@pytest.mark.rule("UM-16.a")
async def test_a_source_may_be_chosen(scene: Scene) -> None:
    async with scene.client() as client, await scene.peer.listen(80, address=PEER_SHARED) as far:
        opened, handed = await client.open(Connect(peer=PEER, port=80, source=packed(SHARED)))
        with handed:
            async with await far.accept() as theirs:
                assert text(theirs.session.remote) == SHARED
                assert opened.lease == "shared.1"


async def test_a_listener_hands_its_connections_over(scene: Scene) -> None:
    async with scene.client() as client:
        row, handed = await client.open(Listen(port=80, name="nc", backlog=4))
        assert (row.kind, row.name, row.port) == ("LISTEN_0", "nc", 80)
        with handed:
            visitors = [await come(scene, await client.call(DasAdd(listener="nc"))) for _ in range(3)]
            for visitor in visitors:
                await wait_all_tasks_blocked()
                accepted = accept(handed)
                assert accepted is not None
                opened, stream = accepted
                async with stream_of(stream) as ours:
                    assert opened.remote == visitor.session.local
                    await visitor.send_all(b"hi")
                    assert await ours.receive_some() == b"hi"
                await visitor.aclose()
            waiter = await client.call(DasAdd(listener="nc"))
        await wait_all_tasks_blocked()
        assert await client.list(Listeners()) == []
        assert waiter.name not in [lease.name for lease in await client.list(Addresses())]


async def test_a_closed_listener_tells_its_holder(scene: Scene) -> None:
    async with scene.client() as client:
        _, handed = await client.open(Listen(name="nc"))
        with handed:
            scene.host.stack.find_listener("nc").close(scene.host.now())
            scene.host.kick()
            await wait_all_tasks_blocked()
            assert accept(handed) is None


@pytest.mark.parametrize("limits", [Limits(handed=3, handed_per_user=2)])
async def test_only_so_many_sessions_are_handed_out(scene: Scene) -> None:
    async with scene.client() as client, await scene.peer.listen(80, address=PEER_SHARED):
        with (await client.open(Connect(peer=PEER, port=80)))[1], (await client.open(Listen()))[1]:
            with pytest.raises(errors.NoMemory, match="close some first"):
                await client.open(Connect(peer=PEER, port=80))
            with pytest.raises(errors.NoMemory):
                await client.open(Listen())
        await wait_all_tasks_blocked()
        (await client.open(Listen()))[1].close()


async def test_a_stack_without_descriptors_says_so_and_leaves_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more(*_arguments: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async with scene.client() as client, await scene.peer.listen(80, address=PEER_SHARED) as far:
        monkeypatch.setattr(socket, "socketpair", no_more)
        with pytest.raises(errors.NoMemory, match="Too many open files"):
            await client.open(Connect(peer=PEER, port=80))
        with pytest.raises(errors.NoMemory, match="Too many open files"):
            await client.open(Listen())
        assert await client.list(Listeners()) == []
        async with await far.accept() as theirs:
            with pytest.raises(trio.BrokenResourceError):
                await theirs.receive_some()


async def test_a_refused_listen_keeps_its_place_free(scene: Scene) -> None:
    async with scene.client() as client, await scene.host.listen(name="web"):
        with pytest.raises(errors.AddressInUse):
            await client.open(Listen(name="web"))
        with pytest.raises(errors.AddressNotOurs):
            await client.open(Listen(address=packed("2001:db8:77::1")))
        with pytest.raises(errors.BadArgument):
            await client.open(Listen(backlog=0))


# echo


@pytest.mark.rule("UM-38.a")
async def test_ping_tells_each_echo_as_it_comes(scene: Scene, autojump_clock: MockClock) -> None:
    async with scene.client() as client:
        stream = client.stream(Ping(peer=PEER, count=3, size=100))
        echoes = [echo async for echo in stream]
        assert [(echo.sequence, echo.size, echo.lease) for echo in echoes] == [(n, 100, "ea.1") for n in (1, 2, 3)]
        assert all(echo.rtt < NEVER for echo in echoes)
        assert await client.list(Sessions()) == []


async def test_ping_tells_what_is_lost(scene: Scene, autojump_clock: MockClock) -> None:
    async with scene.client() as client:
        before = trio.current_time()
        peer = packed("2001:db8:2::bad")
        echoes = [echo async for echo in client.stream(Ping(peer=peer, count=2, timeout=seconds(3)))]
        assert [echo.rtt for echo in echoes] == [NEVER, NEVER]
        assert trio.current_time() - before == pytest.approx(7, abs=0.1)


@pytest.mark.parametrize(
    "request_",
    [
        Ping(peer=PEER, timeout=Micros(0)),
        Ping(peer=PEER, interval=Micros(-1)),
        Ping(peer=PEER, interval=NEVER),
        Ping(peer=UNSPECIFIED),
    ],
    ids=str,
)
async def test_an_impossible_ping_is_refused(scene: Scene, request_: Ping) -> None:
    async with scene.client() as client:
        with pytest.raises(LocalError):
            await client.list(request_)
        assert await client.list(Sessions()) == []
