"""One client of the control socket: whole messages, bounded waiting.

Every failure of the client's side is `ClientGone`, raised wherever we happen to wait for it.
"""

import array
import socket
from collections.abc import Awaitable, Callable, Iterable

import trio

from umuxstack.control.layout import Record
from umuxstack.control.protocol import MAX_MESSAGE, ErrorCode, SessionFailed, encode_error, encode_pages


class ClientGone(Exception):
    """The client is to be forgotten: it closed, does not read, or broke a rule."""


class Connection:
    """One client's socket: whole messages, bounded waiting."""

    __slots__ = ("_patience", "_socket")

    def __init__(self, connection: trio.socket.SocketType, patience: float) -> None:
        self._socket = connection
        self._patience = patience

    async def receive(self) -> bytes:
        """The next message; raises `ClientGone` at the end. Descriptors that come with it, the kernel closes."""
        try:
            data, _, _, _ = await self._socket.recvmsg(MAX_MESSAGE + 1)
        except OSError as error:
            raise ClientGone from error
        if not data:
            raise ClientGone
        return data

    async def send(self, message: bytes, descriptor: int | None = None) -> None:
        """Raises `ClientGone` if the client does not read within the patience for it."""
        ancillary = []
        if descriptor is not None:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
        with trio.move_on_after(self._patience) as scope:
            try:
                await self._socket.sendmsg([message], ancillary)
            except OSError as error:
                raise ClientGone from error
        if scope.cancelled_caught:
            raise ClientGone

    async def while_there(self, work: Callable[[], Awaitable[None]]) -> None:
        """Runs `work`, but drops it when the client closes, or speaks out of turn. Raises what `work` raises."""
        finished = False

        async def watch(scope: trio.CancelScope) -> None:
            await trio.lowlevel.wait_readable(self._socket)
            scope.cancel()

        async def work_to_the_end() -> None:
            nonlocal finished
            await work()
            finished = True

        await beside(watch, work_to_the_end)
        if not finished:
            raise ClientGone


async def beside(
    background: Callable[[trio.CancelScope], Awaitable[None]], work: Callable[[], Awaitable[None]]
) -> None:
    """Runs `work`, and `background` as long as that lasts. What `work` raises leaves as it is, in no group.

    `background` gets the scope of both.
    """
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(background, nursery.cancel_scope)
        try:
            await work()
        except Exception as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


class Reply:
    """Where the answer to one request goes."""

    __slots__ = ("_connection", "tag", "verb")

    def __init__(self, connection: Connection, verb: int, tag: int) -> None:
        self._connection = connection
        self.verb = verb
        self.tag = tag

    async def send(self, rows: Iterable[Record], *, last: bool = True, descriptor: int | None = None) -> None:
        """Pages of rows; the last one ends the answer if `last`. The descriptor goes with the first page."""
        for message in encode_pages(self.verb, self.tag, rows, last=last):
            await self._connection.send(message, descriptor)
            descriptor = None

    async def fail(self, code: ErrorCode, error: Exception) -> None:
        message = str(error) or type(error).__name__
        if isinstance(error, SessionFailed):
            await self._connection.send(encode_error(self.verb, self.tag, code, message, error.reason))
        else:
            await self._connection.send(encode_error(self.verb, self.tag, code, message))
