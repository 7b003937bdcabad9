"""A session in the hands of another process: bytes moved between its stream and one end of a socket pair.

Back-pressure both ways: neither side is read before the other has taken what
was read last. A half-close travels both ways, and a full close by the other
process is noticed even while nothing flows. Knows no messages and no verbs.
"""

import contextlib
import select
import socket
from collections.abc import Callable
from typing import Final

import trio

CHUNK: Final = 65536  # bytes moved at a time
ORPHAN_PATIENCE: Final = 60.0  # seconds to deliver what a process wrote before it went away


class HangUps:
    """Tells when the process at the other end of a pair has closed it for good.

    One epoll for all pairs, asked for no event: it then reports hang-ups only. It is itself waited for by trio.
    """

    __slots__ = ("_epoll", "_waiting")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._waiting: dict[int, trio.Event] = {}

    def watch(self, descriptor: int) -> trio.Event:
        """The event is set once the other end is closed. Call `forget` before closing the descriptor."""
        event = trio.Event()
        if not self._epoll.closed:  # else we are being shut down, and the caller is about to be cancelled
            self._waiting[descriptor] = event
            self._epoll.register(descriptor, 0)
        return event

    def forget(self, descriptor: int) -> None:
        """Idempotent."""
        if self._waiting.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    async def run(self) -> None:
        """Until cancelled; closes the epoll then."""
        try:
            while True:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                for descriptor, _ in self._epoll.poll(0):
                    self._waiting[descriptor].set()
                    self.forget(descriptor)
        finally:
            self._epoll.close()
            self._waiting.clear()


class Bridge:
    """One session and one end of a pair. `run` owns both and closes them."""

    __slots__ = ("_abort", "_hang_ups", "_inbound_scope", "_pair", "_stream")

    def __init__(
        self, stream: trio.abc.HalfCloseableStream, pair: socket.socket, hang_ups: HangUps, abort: Callable[[], None]
    ) -> None:
        """`abort` resets the session; it is called when the process left data unread, or what it wrote stays stuck."""
        pair.setblocking(False)
        self._stream = stream
        self._pair = trio.socket.from_stdlib_socket(pair)
        self._hang_ups = hang_ups
        self._abort = abort
        self._inbound_scope = trio.CancelScope()

    async def run(self) -> None:
        """Until both directions are over. What a peer or process does never raises here."""
        gone = self._hang_ups.watch(self._pair.fileno())
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._give_up_after, gone, nursery.cancel_scope)
                async with trio.open_nursery() as directions:
                    directions.start_soon(self._inbound)
                    directions.start_soon(self._outbound)
                nursery.cancel_scope.cancel()
        finally:
            self._close_pair()
            with trio.CancelScope(shield=True):
                await self._stream.aclose()

    async def _give_up_after(self, gone: trio.Event, whole: trio.CancelScope) -> None:
        await gone.wait()
        self._inbound_scope.cancel()
        await trio.sleep(ORPHAN_PATIENCE)
        self._abort()
        whole.cancel()

    async def _inbound(self) -> None:
        """Session to process."""
        with self._inbound_scope:
            try:
                while data := await self._stream.receive_some(CHUNK):
                    await self._give(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._close_pair()  # the process reads what it was given, then the end; the outbound task ends as well
            except OSError:
                return  # the process reads no more; what it wrote still goes out
            else:
                with contextlib.suppress(OSError):
                    self._pair.shutdown(socket.SHUT_WR)

    def _close_pair(self) -> None:
        if self._pair.fileno() != -1:
            self._hang_ups.forget(self._pair.fileno())
            self._pair.close()

    async def _give(self, data: bytes | bytearray) -> None:
        view = memoryview(data)
        while view:
            view = view[await self._pair.send(view) :]

    async def _outbound(self) -> None:
        """Process to session."""
        try:
            while data := await self._pair.recv(CHUNK):
                await self._stream.send_all(data)
            await self._stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the session is over, or our other half closed the pair
        except OSError:
            self._abort()  # ECONNRESET: the process closed with data unread, which TCP answers with a reset
