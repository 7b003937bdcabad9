"""A session handed to another process behaves like the process's own socket.

On virtual time: a deadlock fails at once.
"""

import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from umuxstack.control import bridge
from umuxstack.control.bridge import Bridge, HangUps

Stream = trio.abc.HalfCloseableStream


class Handed:
    """What a test sees: the session's far end, the process's socket, how often the session was reset."""

    def __init__(self, peer: Stream, process: socket.socket) -> None:
        self.peer = peer
        self.process = trio.SocketStream(trio.socket.from_stdlib_socket(process))
        self.resets = 0
        self.done = trio.Event()


class OneWay:
    """A bounded pipe of bytes with an end, as a TCP's direction is."""

    def __init__(self, limit: int) -> None:
        self.send, self.receive = trio.open_memory_channel[bytes](limit)


class Half(trio.abc.HalfCloseableStream):
    """One end of two bounded pipes. `broken` makes every operation fail, as after a reset."""

    def __init__(self, out: OneWay, into: OneWay) -> None:
        self._out = out.send
        self._in = into.receive
        self.broken = trio.Event()
        self.closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.broken.is_set():
            raise trio.BrokenResourceError
        await self._out.send(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        result = b""
        async with trio.open_nursery() as nursery:

            async def watch(scope: trio.CancelScope) -> None:
                await self.broken.wait()
                scope.cancel()

            nursery.start_soon(watch, nursery.cancel_scope)
            try:
                result = await self._in.receive()
            except trio.EndOfChannel:
                result = b""
            nursery.cancel_scope.cancel()
        if self.broken.is_set() and not result:
            raise trio.BrokenResourceError
        return result

    async def send_eof(self) -> None:
        await self._out.aclose()

    async def aclose(self) -> None:
        self.closed = True
        await self._out.aclose()
        await self._in.aclose()


@asynccontextmanager
async def handed(ours: Stream, peer: Stream) -> AsyncGenerator[Handed, None]:
    near, far = socket.socketpair()
    with far:
        state = Handed(peer, far)
        hang_ups = HangUps()

        def reset() -> None:
            state.resets += 1

        async def run() -> None:
            await Bridge(ours, near, hang_ups, reset).run()
            state.done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hang_ups.run)
            nursery.start_soon(run)
            yield state
            nursery.cancel_scope.cancel()


def pipes(limit: int = 4) -> tuple[Half, Half]:
    there, back = OneWay(limit), OneWay(limit)
    return Half(there, back), Half(back, there)


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    data = b""
    while chunk := await stream.receive_some(65536):
        data += chunk
    return data


async def test_bytes_and_both_half_closes_travel(autojump_clock: MockClock) -> None:
    ours, peer = pipes()
    with trio.fail_after(5):
        async with handed(ours, peer) as it:
            await it.process.send_all(b"question")
            await it.process.send_eof()
            assert await read_all(peer) == b"question"
            await peer.send_all(b"late answer")
            await peer.send_eof()
            assert await read_all(it.process) == b"late answer"
            await it.done.wait()
            assert ours.closed
            assert it.resets == 0


async def test_the_peer_may_finish_first(autojump_clock: MockClock) -> None:
    ours, peer = pipes()
    with trio.fail_after(5):
        async with handed(ours, peer) as it:
            await peer.send_eof()
            assert await read_all(it.process) == b""
            await it.process.send_all(b"still talking")
            assert await peer.receive_some() == b"still talking"
            assert not ours.closed
            await it.process.aclose()
            await it.done.wait()


@pytest.mark.parametrize("toward_peer", [True, False])
async def test_a_side_that_does_not_read_stops_the_other(autojump_clock: MockClock, toward_peer: bool) -> None:
    """No more than the pipes and the pair hold is taken from the sender."""
    ours, peer = pipes(limit=2)
    with trio.fail_after(5):
        async with handed(ours, peer) as it:
            sent = 0
            source: Stream = it.process if toward_peer else peer
            with trio.move_on_after(0.3):
                while True:
                    await source.send_all(bytes(65536))
                    sent += 65536
            assert 0 < sent < 4 << 20


async def test_a_process_that_goes_away_closes_the_session_after_what_it_wrote(autojump_clock: MockClock) -> None:
    ours, peer = pipes()
    with trio.fail_after(5):
        async with handed(ours, peer) as it:
            await it.process.send_all(b"last words")
            await it.process.aclose()
            assert await read_all(peer) == b"last words"
            await it.done.wait()
            assert ours.closed
            assert it.resets == 0


async def test_a_full_close_after_a_half_close_is_noticed_while_nothing_flows(autojump_clock: MockClock) -> None:
    ours, peer = pipes()
    with trio.fail_after(5):
        async with handed(ours, peer) as it:
            await it.process.send_eof()
            assert await read_all(peer) == b""
            assert not it.done.is_set()
            await it.process.aclose()
            await it.done.wait()
            assert ours.closed


async def test_a_process_that_leaves_data_unread_resets_the_session(autojump_clock: MockClock) -> None:
    ours, peer = pipes()
    with trio.fail_after(5):
        async with handed(ours, peer) as it:
            await peer.send_all(b"unread")
            await trio.lowlevel.wait_readable(it.process.socket)
            await it.process.aclose()
            await it.done.wait()
            assert it.resets == 1


async def test_a_session_that_breaks_ends_the_process_s_stream_after_its_data(autojump_clock: MockClock) -> None:
    ours, peer = pipes()
    with trio.fail_after(5):
        async with handed(ours, peer) as it:
            await peer.send_all(b"so far")
            await trio.lowlevel.wait_readable(it.process.socket)
            ours.broken.set()
            assert await read_all(it.process) == b"so far"
            await it.done.wait()


async def test_what_a_vanished_process_wrote_does_not_stay_stuck_for_ever(autojump_clock: MockClock) -> None:
    """The peer never reads: after the patience for orphans the session is reset."""
    ours, peer = pipes(limit=0)
    async with handed(ours, peer) as it:
        await it.process.send_all(bytes(1000))
        await it.process.aclose()
        before = trio.current_time()
        await it.done.wait()
        assert it.resets == 1
        assert trio.current_time() - before == pytest.approx(bridge.ORPHAN_PATIENCE, abs=1)


async def test_a_cancelled_bridge_closes_both_sides(autojump_clock: MockClock) -> None:
    ours, peer = pipes()
    with trio.fail_after(5):
        async with handed(ours, peer) as it:
            other = trio.socket.fromfd(it.process.socket.fileno(), socket.AF_UNIX, socket.SOCK_STREAM)
            await wait_all_tasks_blocked()
        assert ours.closed
        with other:
            assert await other.recv(1) == b""
