"""Programs that are cancelled at any of their steps leave nothing behind, in neither stack."""

import gc
import socket as stdlib
import warnings
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock

from tests.driver.conftest import CLIENT_PREFIX, SERVER_PREFIX, SHARED, config, text
from umuxstack.driver.links.memory import memory_link_pair
from umuxstack.driver.runtime import Host
from umuxstack.driver.streams import UmuxStream

Program = Callable[[Host, Host], Awaitable[None]]


async def echo(stream: UmuxStream) -> None:
    with suppress(trio.BrokenResourceError):  # a peer that was cancelled has not read all, and resets
        async with stream:
            async for data in stream:
                await stream.send_all(data)


async def streams(client: Host, server: Host) -> None:
    async with await client.connect(SHARED, 80, early=b"early") as stream:
        await stream.send_all(bytes(50_000))
        await stream.send_eof()
        assert len(b"".join([data async for data in stream])) == 50_005


async def an_address_for_one(client: Host, server: Host) -> None:
    async with await server.listen(name="door") as listener, trio.open_nursery() as nursery:
        ssa = text(server.das(listener).address)

        async def visit() -> None:
            async with await client.connect(ssa) as stream:
                await stream.send_all(b"hello")
                assert await stream.receive_some() == b"hello"

        nursery.start_soon(visit)
        await echo(await listener.accept())


async def sockets(client: Host, server: Host) -> None:
    with (
        server.socket_factory.socket(stdlib.AF_INET6, stdlib.SOCK_STREAM, 0) as listening,
        client.socket_factory.socket(stdlib.AF_INET6, stdlib.SOCK_STREAM, 0) as socket,
    ):
        await listening.bind(("2001:db8:2::7", 80))
        listening.listen()
        await socket.connect(("2001:db8:2::7", 80))
        accepted, _ = await listening.accept()
        with accepted:
            await socket.send(b"hello")
            assert await accepted.recv(100) == b"hello"
            socket.shutdown(stdlib.SHUT_WR)
            assert await accepted.recv(100) == b""


async def datagrams(client: Host, server: Host) -> None:
    async with await server.datagram_socket(address=SHARED, port=53) as theirs, await client.datagram_socket() as ours:
        await ours.send_to(b"question", (SHARED, 53))
        _, peer = await theirs.receive_from()
        await theirs.send_to(b"answer", peer)
        assert (await ours.receive()).data == b"answer"


async def pings(client: Host, server: Host) -> None:
    assert None not in await client.ping(SHARED, count=2, interval=0.01)


class AtStep(trio.abc.Instrument):
    """Cancels `scope` at a step of the task `root`, or of one below it: as the step begins, or when it has led to the
    next wait.
    """

    def __init__(self, root: trio.lowlevel.Task, scope: trio.CancelScope, moment: int) -> None:
        self._root = root
        self._scope = scope
        self._left = moment

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._count(task)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._count(task)

    def _count(self, task: trio.lowlevel.Task) -> None:
        found: trio.lowlevel.Task | None = task
        while found is not None and found is not self._root:
            found = None if found.parent_nursery is None else found.parent_nursery.parent_task
        if found is not None:
            self._left -= 1
            if self._left == 0:
                self._scope.cancel()


async def cancelled_at(program: Program, moment: int) -> bool:
    """Whether the program was cancelled before it came to its end."""
    left, right = memory_link_pair()
    async with Host(left, config(CLIENT_PREFIX)) as client, Host(right, config(SERVER_PREFIX, SHARED)) as server:
        scope = trio.CancelScope()

        async def body() -> None:
            instrument = AtStep(trio.lowlevel.current_task(), scope, moment)
            trio.lowlevel.add_instrument(instrument)
            with scope:
                await program(client, server)
            trio.lowlevel.remove_instrument(instrument)

        async with await server.listen(80, address=SHARED) as listener, trio.open_nursery() as serving:
            serving.start_soon(trio.serve_listeners, echo, [listener])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(body)
            serving.cancel_scope.cancel()
        await trio.sleep(400)  # the last record is forgotten
        for host in (client, server):
            assert list(host.stack.sessions()) == []
            assert host.stack.listeners() == []
            left_behind = {name: count for name, count in host.stack.leftovers().items() if count}
            assert left_behind in ({}, {"locals": 1, "leases": 1}), left_behind  # the shared address
            assert host.pump.faults == 0
    return scope.cancelled_caught


@pytest.mark.parametrize("program", [streams, an_address_for_one, sockets, datagrams, pings])
def test_a_program_that_is_cancelled_at_any_step_leaves_nothing(program: Program) -> None:
    with warnings.catch_warnings(record=True) as forgotten:
        warnings.simplefilter("always", ResourceWarning)
        cancelled = [
            trio.run(cancelled_at, program, moment, clock=MockClock(autojump_threshold=0)) for moment in range(1, 80)
        ]
        gc.collect()
    assert [str(warning.message) for warning in forgotten] == []
    assert cancelled[0]
    assert not cancelled[-1], "it has more steps than that"
