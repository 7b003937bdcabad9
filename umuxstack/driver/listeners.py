"""A listener of the core as a trio listener. What `trio.serve_listeners` takes."""

import warnings

import trio
from trio import ClosedResourceError
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from umuxstack.core.listen.listener import Listener
from umuxstack.core.network.endpoint import Waitable
from umuxstack.driver.pump import Pump
from umuxstack.driver.readiness import OneTask, Waiters
from umuxstack.driver.streams import UmuxStream


class _ListenerWaiters(Waiters):
    """Also remembers that the listener is closed, whoever closed it."""

    __slots__ = ("closed",)

    def __init__(self) -> None:
        super().__init__()
        self.closed = trio.Event()

    def on_ready(self, endpoint: Waitable) -> None:
        super().on_ready(endpoint)
        if isinstance(endpoint, Listener) and endpoint.closed:
            self.closed.set()


class UmuxListener(trio.abc.Listener[UmuxStream]):
    """A LISTEN_0, a service address or a legacy port, as `listener.kind` says."""

    def __init__(self, listener: Listener, pump: Pump) -> None:
        self.listener = listener
        self._pump = pump
        self._waiters = _ListenerWaiters()
        self._accepting = OneTask("accepting from this listener")
        self._closed = False
        listener.owner = self._waiters

    def __repr__(self) -> str:
        return f"<UmuxListener {self.name} ({self.listener.kind}), port {self.port}>"

    @property
    def id(self) -> int:
        return self.listener.id

    @property
    def name(self) -> str:
        return self.listener.name

    @property
    def port(self) -> int:
        return self.listener.port

    def readable(self) -> bool:
        """Whether `accept` would return or raise at once."""
        return self._closed or self.listener.readable

    async def accept(self) -> UmuxStream:
        """The next completed connection. Raises ClosedResourceError once the listener is closed, by us or by others."""
        with self._accepting:
            await checkpoint_if_cancelled()
            stream = self._take()
            if stream is not None:
                await cancel_shielded_checkpoint()
                return stream
            while stream is None:
                await self._waiters.reader.wait()
                stream = self._take()
            return stream

    def _take(self) -> UmuxStream | None:
        if self._closed:
            raise ClosedResourceError("this listener was closed")
        session = self.listener.accept()
        if session is not None:
            return UmuxStream(session, self._pump)
        if self.listener.closed:
            raise ClosedResourceError("this listener is closed")
        return None

    async def wait_closed(self) -> None:
        """Until the listener is closed: by `aclose`, by the control plane or with the stack."""
        await self._waiters.closed.wait()

    async def aclose(self) -> None:
        """Waiting SSAs retire, unaccepted connections are reset, accepted ones live on (UM-27). Idempotent."""
        self.close()
        await checkpoint()

    def close(self) -> None:
        """What `aclose` does; it never waits."""
        if not self._closed:
            if not self._pump.stopped:
                self.listener.close(self._pump.now())
            self._closed = True
            self.listener.owner = None
            self._waiters.reader.wake()
            self._waiters.closed.set()
            self._pump.kick()

    def __del__(self) -> None:
        if not self._closed and not self._pump.stopped and not self.listener.closed:
            self._pump.close_later(self.listener)
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=1, source=self)
