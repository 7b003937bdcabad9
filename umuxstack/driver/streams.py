"""A TCP session as a trio stream.

Closing is the kernel's: `aclose` returns at once, and TCP delivers what was
written and finishes by itself. What the peer or the path did to the session is
a `BrokenResourceError` whose cause is the OSError that a socket would have raised.
"""

import warnings
from collections.abc import Iterator
from operator import index
from typing import Final

import trio
from trio import BrokenResourceError, ClosedResourceError
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from umuxstack.core.errors import Reason
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.tcp.statistics import TcpStatistics
from umuxstack.core.units import Buffer
from umuxstack.core.wire.address import to_text
from umuxstack.driver.errno_map import reason_error
from umuxstack.driver.message_flags import writer
from umuxstack.driver.pump import Pump
from umuxstack.driver.readiness import OneTask, Waiters

RECEIVE_SIZE: Final = 1 << 20  # bytes handed out at most when the caller names no limit: what one batch brings
MEMORY_PAUSE: Final = 0.01  # seconds
COPY_SIZE: Final = 256 * 1024  # bytes copied at a time out of a buffer that the caller may change later


def broken(reason: Reason) -> BrokenResourceError:
    """What an operation on a session that ended for `reason` raises; its cause is a socket's OSError."""
    cause = reason_error(reason)
    error = BrokenResourceError(f"the session is over: {cause.strerror}")
    error.__cause__ = cause
    return error


def _lasting(data: Buffer) -> Iterator[Buffer]:
    """`data` in pieces that stay as they are: the stack keeps them until the peer has acknowledged them."""
    if isinstance(data, bytes):
        yield data
        return
    with memoryview(data) as view, view.cast("B") as octets:
        for start in range(0, max(len(octets), 1), COPY_SIZE):  # of nothing one empty piece
            yield bytes(octets[start : start + COPY_SIZE])


class UmuxStream(trio.abc.HalfCloseableStream):
    """One TCP session. Made by `Host.connect` and `UmuxListener.accept`.

    Any method may raise ClosedResourceError (closed by us), BrokenResourceError (ended by the peer, the path or
    the stack) or BusyResourceError (two tasks in the same direction).
    """

    def __init__(self, session: TcpSession, pump: Pump) -> None:
        self.session = session
        self._pump = pump
        self._waiters = Waiters()
        self._sending = OneTask("sending on this stream")
        self._receiving = OneTask("receiving from this stream")
        self._closed = False
        self._eof_sent = False
        self._reading_ended = False
        session.owner = self._waiters

    def __repr__(self) -> str:
        state = "closed" if self._closed else self.session.state_name
        return f"<UmuxStream {self.local_address} to {self.remote_address}, {state}>"

    # names and numbers

    @property
    def local_address(self) -> tuple[str, int]:
        """Our address, and the port that the application bound or dialled to (UM-5)."""
        return to_text(self.session.local), self.session.port

    @property
    def remote_address(self) -> tuple[str, int]:
        """The peer's address and its port on the wire."""
        return to_text(self.session.remote), self.session.remote_port

    @property
    def closed(self) -> bool:
        """Whether `aclose` or `abort` was called."""
        return self._closed

    @property
    def eof_sent(self) -> bool:
        """Whether `send_eof` was called."""
        return self._eof_sent

    def statistics(self) -> TcpStatistics:
        return self.session.statistics()

    @property
    def soft_error(self) -> Reason:
        """Why the peer does not acknowledge just now, as far as is known; the stream lives on."""
        return self.session.soft_error

    def configure(self, **changes: object) -> None:
        """Changes this session's policy: names of `TcpPolicy`. What was held back may go then, a timer come sooner.

        Raises BadArgument for what cannot be, and for what the handshake has settled; nothing is changed then.
        """
        self._check_open()
        self.session.configure(**changes)
        self._pump.kick()

    def readable(self) -> bool:
        """Whether `receive_some` would return or raise at once."""
        return self._closed or self._reading_ended or self.session.readable

    # connecting

    async def wait_connected(self) -> None:
        """Until the handshake is done. Raises OSError (ConnectionRefusedError, TimeoutError, …) if it failed."""
        with self._sending:
            await checkpoint_if_cancelled()
            session = self.session
            while not session.established:
                self._check_open()
                if session.ended:
                    raise reason_error(session.end_reason)
                await self._waiters.writer.wait()
            await cancel_shielded_checkpoint()

    # out

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Hands all of `data` to TCP, waiting for room. A `bytes` object is not copied.

        If cancelled, an unknown part was sent.
        """
        with self._sending:
            self._check_sendable()
            await checkpoint_if_cancelled()
            slept = False
            for piece in _lasting(data):
                rest: Buffer = piece
                while True:
                    self._check_sendable()
                    taken = self._write(rest)
                    if taken == len(rest):
                        break
                    rest = memoryview(rest)[taken:]
                    await self._wait_for_room(taken)
                    slept = True
            if not slept:
                await cancel_shielded_checkpoint()

    async def send_some(self, data: bytes | bytearray | memoryview, flags: int = 0) -> int:
        """Hands to TCP what there is room for, waiting only if there is none. Returns how many bytes were taken.

        `flags`: MSG_OOB (the last byte taken is urgent), MSG_MORE, MSG_EOR.
        """
        with self._sending:
            self._check_sendable()
            await checkpoint_if_cancelled()
            piece = next(_lasting(data), b"")
            taken = self._write(piece, flags)
            if taken or not piece:
                await cancel_shielded_checkpoint()
                return taken
            while not taken:
                await self._wait_for_room(taken)
                self._check_sendable()
                taken = self._write(piece, flags)
            return taken

    async def wait_send_all_might_not_block(self) -> None:
        with self._sending:
            self._check_open()
            await checkpoint_if_cancelled()
            if self.session.writable:
                await cancel_shielded_checkpoint()
            else:
                await self._wait_for_room(0)
                self._check_open()

    async def send_eof(self) -> None:
        """Ends our direction after what was written (FIN). The other one stays open. Idempotent."""
        with self._sending:
            self._check_open()
            await checkpoint()
            self._check_open()
            self.send_eof_nowait()

    def send_eof_nowait(self) -> None:
        """What `send_eof` does, at once and whoever is sending."""
        self._check_alive()
        if not self._eof_sent:
            self._eof_sent = True
            self.session.shutdown(self._pump.now())
            self._pump.kick()

    def _check_alive(self) -> None:
        """Raises BrokenResourceError if the session is over, other than by both sides' finishing."""
        if self._pump.stopped:
            raise broken(Reason.STACK_CLOSED)
        if self.session.ended and self.session.end_reason != Reason.CLOSED:
            raise broken(self.session.end_reason)

    def _write(self, data: Buffer, flags: int = 0) -> int:
        session = self.session
        self._check_alive()
        if session.ended:
            raise broken(session.end_reason)
        if not data:
            return 0
        taken = (writer(session, flags) if flags else session.write)(data, self._pump.now())
        self._pump.kick()
        return taken

    async def _wait_for_room(self, taken: int) -> None:
        """Until writing makes sense again after the session took `taken` bytes, less than it was given."""
        session = self.session
        if session.writable and not taken:
            # Refused although its buffer has room: the stack's memory is used up. Nobody tells us when that ends.
            await trio.sleep(MEMORY_PAUSE)
        while not (self._closed or session.writable):
            await self._waiters.writer.wait()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedResourceError("this stream was closed")

    def _check_sendable(self) -> None:
        self._check_open()
        if self._eof_sent:
            raise ClosedResourceError("send_eof was called on this stream")

    # in

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What has arrived, at most `max_bytes` (default 1 MB); b"" when the peer has ended its direction."""
        limit = RECEIVE_SIZE if max_bytes is None else index(max_bytes)
        if limit < 1:
            raise ValueError(f"max_bytes is {max_bytes}; it must be at least 1")
        with self._receiving:
            self._check_open()
            await checkpoint_if_cancelled()
            data = self._read(limit)
            if data is not None:
                await cancel_shielded_checkpoint()
                return data
            while data is None:
                await self._waiters.reader.wait()
                self._check_open()
                data = self._read(limit)
            return data

    async def receive_urgent(self) -> bytes:
        """The byte that the peer has marked as urgent, waiting if it is still on its way; b"" if none is marked.

        What is read otherwise stops before that byte once, and leaves it out (`TcpPolicy.urgent_inline`: only stops).
        """
        self._check_open()
        await checkpoint_if_cancelled()
        session = self.session
        found = session.read_urgent()
        if not found and session.urgent_pending:
            with self._receiving:
                while not found and session.urgent_pending and not (session.ended or session.eof):
                    await self._waiters.reader.wait()
                    self._check_open()
                    found = session.read_urgent()
        await cancel_shielded_checkpoint()
        return found

    def receive_nowait(self, limit: int) -> bytes:
        """What has arrived, at most `limit` bytes; b"" if there is nothing now, whatever the reason."""
        data = b"" if self._pump.stopped else self.session.read(limit, self._pump.now())
        if data and self.session.touched:
            self._pump.kick()
        return data

    def _read(self, limit: int) -> bytes | None:
        """Data, b"" at the end, None if there is nothing yet."""
        session = self.session
        data = session.read(limit, self._pump.now())
        if data:
            if session.touched:
                self._pump.kick()  # reading has opened the window
            return data
        self._check_alive()
        if session.eof or self._reading_ended:
            return b""
        return None

    def end_reading(self) -> None:
        """From now on what has arrived is followed by an end (a socket's `shutdown(SHUT_RD)`)."""
        self._reading_ended = True
        self._waiters.reader.wake()

    # the end

    async def aclose(self) -> None:
        """Closes both directions; what was written is still delivered, in the background. Idempotent."""
        self.close()
        await checkpoint()

    def close(self) -> None:
        """What `aclose` does; it never waits."""
        if not self._closed:
            if not self._pump.stopped:
                self.session.close(self._pump.now())
            self._let_go()

    def abort(self) -> None:
        """Ends the session at once with RST; what was not delivered yet is lost. Idempotent."""
        if not self._closed:
            if not self._pump.stopped:
                self.session.abort(self._pump.now())
            self._let_go()

    def _let_go(self) -> None:
        self._closed = True
        self.session.owner = None
        self._waiters.reader.wake()
        self._waiters.writer.wake()
        self._pump.kick()

    def __del__(self) -> None:
        if not self._closed and not self._pump.stopped:
            # Perhaps in the middle of the core's work, perhaps in another thread: only ask the pump to do it.
            self._pump.close_later(self.session)
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=1, source=self)
