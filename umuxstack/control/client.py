"""A blocking client of the control socket, on a plain socket (the trio one is `trio_client.py`).

It only moves messages; what they say is `messages.py`. The class of a request
decides what comes back: `client.call(Pool())` is a `PoolRow`.
"""

import array
import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from umuxstack.control.layout import ProtocolError
from umuxstack.control.messages import Answer, Connect, Hello, Opened, Request, Welcome
from umuxstack.control.protocol import MAX_MESSAGE, Forbidden, NoStack, decode_page, encode_request
from umuxstack.core.units import UNSPECIFIED

PATIENCE: Final = 10.0  # seconds for an answer that needs no peer
RETRY: Final = 0.02  # seconds
_INT: Final = struct.calcsize("i")
ANCILLARY: Final = socket.CMSG_SPACE(_INT)  # room for one descriptor; the kernel closes further ones
_ACCEPTED: Final = Connect(peer=UNSPECIFIED, port=0)  # accepted connections arrive like answers to this one


class Conversation:
    """What both clients share: tags, and one answer's pages out of messages."""

    __slots__ = ("_tag",)

    def __init__(self) -> None:
        self._tag = 0

    def ask(self, request: Request[Any]) -> bytes:
        message = encode_request(request, (self._tag + 1) & 0xFFFFFFFF)
        self._tag = (self._tag + 1) & 0xFFFFFFFF
        return message

    def answer(self, data: bytes, request: Request[Answer]) -> tuple[list[Answer], bool]:
        if not data:
            raise NoStack("the stack closed the control connection")
        return decode_page(data, request, self._tag)


def only(rows: list[Answer], request: Request[Answer]) -> Answer:
    if len(rows) != 1:
        raise ProtocolError(f"{type(request).__name__} was answered by {len(rows)} rows instead of one")
    return rows[0]


def descriptors_in(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % _INT])
    return list(found)


def try_to_connect(unconnected: socket.socket, path: Path | str) -> bool:
    """Connects a non-blocking socket. False: the server has too many in its queue; try again in `RETRY` seconds.

    Neither Python's sockets with a timeout nor trio's may do this: for a UNIX socket EAGAIN is no "in progress".
    """
    try:
        unconnected.connect(str(path))
    except BlockingIOError:
        return False
    except OSError as error:
        raise _unreachable(Path(path), error) from error
    return True


def _connect(unconnected: socket.socket, path: Path | str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not try_to_connect(unconnected, path):
        if time.monotonic() > deadline:
            raise NoStack(f"the stack behind {path} did not answer within {timeout:g} s")
        time.sleep(RETRY)


def _unreachable(path: Path, error: OSError) -> NoStack | Forbidden:
    if isinstance(error, PermissionError):
        return Forbidden(f"no permission for the control socket {path}; run as its owner or as root")
    if isinstance(error, FileNotFoundError):
        return NoStack(f"no stack is running: there is no control socket {path}")
    if isinstance(error, ConnectionRefusedError) and not path.is_socket():
        return NoStack(f"no stack is running behind {path}: it is no socket")
    if isinstance(error, ConnectionRefusedError):
        return NoStack(f"no stack is running: nobody answers behind {path}, a left-over of one that is gone")
    return NoStack(f"cannot reach a stack behind {path}: {error.strerror or error}")


class Client:
    """A blocking client. One request at a time; a context manager.

    Raises `NoStack` or `Forbidden` when the stack cannot be reached, and from then on whatever the stack's answer
    stands for: a `LocalError`, a `ControlError`, or `ProtocolError`.
    """

    __slots__ = ("_conversation", "_socket", "welcome")

    welcome: Welcome

    def __init__(self, path: Path | str, timeout: float = PATIENCE) -> None:
        """`timeout` in seconds bounds connecting and every answer, unless a call says otherwise."""
        self._conversation = Conversation()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        try:
            _connect(self._socket, path, timeout)
            self._socket.settimeout(timeout)
            self.welcome = self.call(Hello())
        except BaseException:
            self._socket.close()
            raise

    def call(self, request: Request[Answer]) -> Answer:
        """The one row that answers `request`."""
        return only(list(self.rows(request)), request)

    def rows(self, request: Request[Answer], *, patient: bool = False) -> Iterator[Answer]:
        """The rows as they come, page by page. `patient`: wait for them without a limit (events, echoes)."""
        self._send(request)
        last = False
        while not last:
            rows, last, descriptor = self._receive(request, patient)
            if descriptor is not None:
                os.close(descriptor)
                raise ProtocolError("a descriptor came with an answer that has none")
            yield from rows

    def open(self, request: Request[Answer]) -> tuple[Answer, socket.socket]:
        """For `Connect` and `Listen`: the row, and the socket that came with it. Waits without a limit."""
        self._send(request)
        rows, last, descriptor = self._receive(request, patient=True)
        if descriptor is None:
            raise ProtocolError(f"{type(request).__name__} was answered without a descriptor")
        handed = socket.socket(fileno=descriptor)
        if not last or len(rows) != 1:
            handed.close()
            raise ProtocolError(f"{type(request).__name__} was answered by more than one row")
        return rows[0], handed

    def wait_closed(self) -> None:
        """Until the server has closed the connection (after `Shutdown`: until the stack is gone)."""
        with contextlib.suppress(TimeoutError, ConnectionError):
            while self._socket.recv(MAX_MESSAGE):
                pass

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, request: Request[Any]) -> None:
        message = self._conversation.ask(request)
        # The server may have said why it closes before we could ask: its last message is worth more than our EPIPE.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.send(message)

    def _receive(self, request: Request[Answer], patient: bool) -> tuple[list[Answer], bool, int | None]:
        timeout = self._socket.gettimeout()
        if patient:
            self._socket.settimeout(None)
        try:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(MAX_MESSAGE + 1, ANCILLARY, socket.MSG_CMSG_CLOEXEC)
            except ConnectionResetError:
                # Closed before it had read all of ours. Linux says so first and gives what it sent, perhaps the
                # reason, after that.
                data, ancillary, _, _ = self._socket.recvmsg(MAX_MESSAGE + 1, ANCILLARY, socket.MSG_CMSG_CLOEXEC)
        except TimeoutError:
            raise NoStack(f"the stack did not answer within {timeout:g} s") from None
        except ConnectionError:
            raise NoStack("the stack closed the control connection") from None
        finally:
            self._socket.settimeout(timeout)
        descriptors = descriptors_in(ancillary)
        try:
            rows, last = self._conversation.answer(data, request)
        except BaseException:
            for descriptor in descriptors:
                os.close(descriptor)
            raise
        return rows, last, descriptors[0] if descriptors else None


def accept(listener: socket.socket) -> tuple[Opened, socket.socket] | None:
    """The next connection from the socket that came with `Listen`: who it is, and its stream. None: it is closed."""
    data, ancillary, _, _ = listener.recvmsg(MAX_MESSAGE + 1, ANCILLARY, socket.MSG_CMSG_CLOEXEC)
    descriptors = descriptors_in(ancillary)
    if not data and not descriptors:
        return None
    try:
        rows, last = decode_page(data, _ACCEPTED, 0)
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    if len(rows) != 1 or not last or len(descriptors) != 1:
        for descriptor in descriptors:
            os.close(descriptor)
        raise ProtocolError("a connection arrived without its stream")
    return rows[0], socket.socket(fileno=descriptors[0])
