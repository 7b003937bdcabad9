"""A trio client of the control socket: the blocking client's calls, with `await`.

One request at a time per client, as the protocol has it; a task that wants
events beside other answers opens a second client.
"""

import contextlib
import os
import socket
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import trio

from umuxstack.control.client import (
    ANCILLARY,
    PATIENCE,
    RETRY,
    Conversation,
    descriptors_in,
    only,
    try_to_connect,
)
from umuxstack.control.layout import ProtocolError
from umuxstack.control.messages import Answer, Hello, Request, Welcome
from umuxstack.control.protocol import (
    MAX_MESSAGE,
    Busy,
    Forbidden,
    NoStack,
    SessionFailed,
    StackBug,
    WrongVersion,
)
from umuxstack.core.errors import LocalError


class TrioClient:
    """Made by `open_client`. Raises what the blocking `Client` raises.

    Calls of several tasks take turns; while a `stream` is read there are none (BusyResourceError). A call that is
    cancelled ends the client, for its answer would come nevertheless: from then on ClosedResourceError.
    """

    __slots__ = ("_broken", "_conversation", "_socket", "_streaming", "_turns", "welcome")

    def __init__(self, connection: trio.socket.SocketType, welcome: Welcome, conversation: Conversation) -> None:
        self._socket = connection
        self._conversation = conversation
        self._turns = trio.Lock()
        self._streaming = False
        self._broken = False
        self.welcome = welcome

    async def call(self, request: Request[Answer]) -> Answer:
        """The one row that answers `request`."""
        return only(await self.list(request), request)

    async def list(self, request: Request[Answer]) -> list[Answer]:
        """All rows of the answer."""
        rows: list[Answer] = []
        async with self._turn():
            await _send(self._socket, self._conversation.ask(request))
            last = False
            while not last:
                with trio.move_on_after(PATIENCE) as patience:
                    page, last, descriptor = await _receive(self._socket, self._conversation, request)
                if patience.cancelled_caught:
                    raise NoStack(f"the stack did not answer within {PATIENCE:g} s")
                if descriptor is not None:
                    os.close(descriptor)
                    raise ProtocolError("a descriptor came with an answer that has none")
                rows += page
        return rows

    async def stream(self, request: Request[Answer]) -> AsyncGenerator[Answer, None]:
        """The rows as they come, without a time limit (events, echoes). Left before its end, it ends the client."""
        async with self._turns:  # which it cannot keep: whoever ends a generator may be another task
            self._check()
            self._streaming = True
        try:
            with self._whole_answer():
                await _send(self._socket, self._conversation.ask(request))
                last = False
                while not last:
                    page, last, _ = await _receive(self._socket, self._conversation, request)
                    for row in page:
                        yield row
        finally:
            self._streaming = False

    async def open(self, request: Request[Answer]) -> tuple[Answer, socket.socket]:
        """For `Connect` and `Listen`: the row, and the socket that came with it."""
        async with self._turn():
            await _send(self._socket, self._conversation.ask(request))
            rows, last, descriptor = await _receive(self._socket, self._conversation, request)
        if descriptor is None:
            raise ProtocolError(f"{type(request).__name__} was answered without a descriptor")
        handed = socket.socket(fileno=descriptor)
        if not last or len(rows) != 1:
            handed.close()
            raise ProtocolError(f"{type(request).__name__} was answered by more than one row")
        return rows[0], handed

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncGenerator[None, None]:
        """For one request and its whole answer."""
        self._check()
        async with self._turns:
            self._check()
            with self._whole_answer():
                yield

    def _check(self) -> None:
        if self._streaming:
            raise trio.BusyResourceError("a stream is read from this client; open a second client")
        if self._broken:
            raise trio.ClosedResourceError("a call was cancelled or failed before its answer; open another client")

    @contextlib.contextmanager
    def _whole_answer(self) -> Iterator[None]:
        """Without the answer to one request, or its end, there is no telling what the next message answers."""
        try:
            yield
        except (LocalError, Busy, Forbidden, SessionFailed, StackBug, WrongVersion):
            raise  # that was the answer
        except BaseException:
            self._broken = True
            self._socket.close()
            raise


@contextlib.asynccontextmanager
async def open_client(path: Path | str) -> AsyncGenerator[TrioClient, None]:
    """A connected client. `NoStack` or `Forbidden` when the stack cannot be reached."""
    raw = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with trio.socket.from_stdlib_socket(raw) as connection:
        deadline = trio.current_time() + PATIENCE
        while not try_to_connect(raw, path):
            if trio.current_time() > deadline:
                raise NoStack(f"the stack behind {path} did not answer within {PATIENCE:g} s")
            await trio.sleep(RETRY)
        conversation = Conversation()
        hello = Hello()
        await _send(connection, conversation.ask(hello))
        rows, _, _ = await _receive(connection, conversation, hello)
        yield TrioClient(connection, only(rows, hello), conversation)


async def _send(connection: trio.socket.SocketType, message: bytes) -> None:
    # The server may have said why it closes before we could ask: its last message is worth more than our EPIPE.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        await connection.send(message)


async def _receive(
    connection: trio.socket.SocketType, conversation: Conversation, request: Request[Answer]
) -> tuple[list[Answer], bool, int | None]:
    try:
        try:
            data, ancillary, _, _ = await connection.recvmsg(MAX_MESSAGE + 1, ANCILLARY, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:  # Linux gives what came before only after that
            data, ancillary, _, _ = await connection.recvmsg(MAX_MESSAGE + 1, ANCILLARY, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        raise NoStack("the stack closed the control connection") from None
    found: list[Any] = descriptors_in(ancillary)
    try:
        rows, last = conversation.answer(data, request)
    except BaseException:
        for descriptor in found:
            os.close(descriptor)
        raise
    return rows, last, found[0] if found else None
