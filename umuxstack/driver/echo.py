"""Ping for trio programs: an echo session of the core (UM-38), awaited."""

import warnings
from math import inf

import trio
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from umuxstack.core.echo.reply import EchoReply
from umuxstack.core.echo.session import EchoSession
from umuxstack.core.wire.address import to_text
from umuxstack.driver.pump import Pump
from umuxstack.driver.readiness import OneTask, Waiters


class UmuxPing(trio.abc.AsyncResource):
    """Echo requests to one peer from an address of their own. Made by `Host.open_ping`."""

    def __init__(self, session: EchoSession, pump: Pump) -> None:
        self.session = session
        self._pump = pump
        self._waiters = Waiters()
        self._receiving = OneTask("receiving from this ping")
        self._closed = False
        session.owner = self._waiters

    def __repr__(self) -> str:
        return f"<UmuxPing {to_text(self.session.local)} to {to_text(self.session.remote)}>"

    async def send(self, data: bytes | bytearray | memoryview = b"") -> int:
        """Sends one request; returns its sequence number."""
        await checkpoint_if_cancelled()
        self._check_open()
        if type(data) is not bytes:
            data = bytes(memoryview(data))
        sequence = self.session.send(data, self._pump.now())
        self._pump.kick()
        await cancel_shielded_checkpoint()
        return sequence

    async def receive(self) -> EchoReply:
        """The next reply, whichever request it answers; its `rtt` is in microseconds."""
        with self._receiving:
            await checkpoint_if_cancelled()
            reply = self._take()
            if reply is not None:
                await cancel_shielded_checkpoint()
                return reply
            while reply is None:
                await self._waiters.reader.wait()
                reply = self._take()
            return reply

    async def request(self, data: bytes | bytearray | memoryview = b"", *, timeout: float = inf) -> EchoReply | None:
        """Sends a request and waits for its reply, at most `timeout` seconds; None if none came."""
        sequence = await self.send(data)
        with trio.move_on_after(timeout):
            while True:
                reply = await self.receive()
                if reply.sequence == sequence:
                    return reply
        return None

    def _take(self) -> EchoReply | None:
        self._check_open()
        return self.session.take_reply()

    def _check_open(self) -> None:
        if self._closed or self._pump.stopped:
            raise trio.ClosedResourceError("this ping was closed")

    def close(self) -> None:
        """Ends the session and its address. Idempotent."""
        if not self._closed:
            if not self._pump.stopped:
                self.session.close(self._pump.now())
            self._closed = True
            self.session.owner = None
            self._waiters.reader.wake()
            self._pump.kick()

    async def aclose(self) -> None:
        self.close()
        await checkpoint()

    def __del__(self) -> None:
        if not self._closed and not self._pump.stopped:
            self._pump.close_later(self.session)
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=1, source=self)
