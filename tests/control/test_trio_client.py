"""The trio client: what a cancelled call leaves behind, and two tasks at one client."""

from typing import Any

import pytest
import trio

from tests.control.conftest import PEER_SHARED, PREFIX, Scene
from umuxstack.control.messages import Connect, EventRow, Events, GetStatus, Listeners, Ping, Pool, Request, Verb
from umuxstack.control.protocol import NoStack
from umuxstack.core.errors import AddressMalformed
from umuxstack.core.units import UNSPECIFIED, Address
from umuxstack.core.wire.address import parse

NOBODY = parse("2001:db8:2::bad")


REQUESTS: list[Request[Any]] = [GetStatus(), Pool(), Listeners(), Ping(peer=NOBODY), Connect(peer=NOBODY, port=80)]


@pytest.mark.parametrize("asked", REQUESTS, ids=repr)
@pytest.mark.parametrize("after", [1, 2, 3, 4])
async def test_a_cancelled_call_ends_the_client_and_not_the_next_one_s_answer(
    scene: Scene, asked: Request[Any], after: int
) -> None:
    """Its answer came nevertheless, and was taken for the answer to the next call, which failed: ProtocolError."""
    async with scene.client() as client, trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def ask() -> None:
            with scope:
                await (client.open(asked) if asked.VERB == Verb.CONNECT else client.list(asked))

        nursery.start_soon(ask)
        for _ in range(after):
            await trio.lowlevel.checkpoint()
        scope.cancel()
        await trio.sleep(0.1)
        for _ in range(2):
            try:
                assert (await client.call(GetStatus())).name == "test"  # nothing had been asked, or all was answered
            except trio.ClosedResourceError:
                assert scope.cancelled_caught
    async with scene.client() as client:
        assert (await client.call(GetStatus())).name == "test"
    with trio.fail_after(2):
        while list(scene.host.stack.sessions()):
            await trio.sleep(0.01)


async def test_an_error_as_answer_ends_nothing(scene: Scene) -> None:
    async with scene.client() as client:
        with pytest.raises(AddressMalformed):
            await client.call(Ping(peer=UNSPECIFIED))
        assert (await client.call(GetStatus())).name == "test"


async def test_tasks_at_one_client_take_turns(scene: Scene) -> None:
    names: list[str] = []
    async with scene.client() as client, trio.open_nursery() as nursery:

        async def ask() -> None:
            names.append((await client.call(GetStatus())).name)

        for _ in range(20):
            nursery.start_soon(ask)
    assert names == ["test"] * 20


async def test_while_a_stream_is_read_nothing_else_is_asked(scene: Scene) -> None:
    """The question closed the connection for speaking out of turn, and both tasks got errors that explain nothing."""
    async with scene.client() as client:
        events = client.stream(Events())
        async with trio.open_nursery() as nursery:
            sender, seen = trio.open_memory_channel[EventRow](10)

            async def watch() -> None:
                async for event in events:
                    await sender.send(event)

            nursery.start_soon(watch)
            await trio.sleep(0.1)
            with pytest.raises(trio.BusyResourceError, match="second client"):
                await client.call(GetStatus())
            listener = await scene.host.listen(name="after")
            assert (await seen.receive()).name == "after"
            nursery.cancel_scope.cancel()
        await listener.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await client.call(GetStatus())


async def test_a_stream_that_has_ended_leaves_the_client_as_it_was(scene: Scene) -> None:
    async with scene.client() as client:
        assert len([echo async for echo in client.stream(Ping(peer=Address(parse(PEER_SHARED)), count=2))]) == 2
        assert (await client.call(GetStatus())).prefix == parse(PREFIX.partition("/")[0])


async def test_a_stack_that_is_gone_is_named(scene: Scene) -> None:
    async with scene.client() as client:
        client._socket.shutdown(2)
        for _ in range(2):
            with pytest.raises((NoStack, trio.ClosedResourceError)):
                await client.call(GetStatus())
