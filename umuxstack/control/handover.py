"""Sessions and listeners in the hands of other processes.

Owns the near end of every pair that was handed out, its bridge, and for a
while the outcome of sessions that are over. A session lives as long as the
descriptor that stands for it, not as long as the control connection.
"""

import array
import contextlib
import logging
import socket
from collections import OrderedDict
from typing import Final

import trio

from umuxstack.control.bridge import Bridge, HangUps
from umuxstack.control.messages import Opened, Outcome, Verb
from umuxstack.control.protocol import encode_pages, printable
from umuxstack.control.quota import OUTCOMES_KEPT, Limits, Quota
from umuxstack.core.errors import NoMemory, NoSuchObject, Reason
from umuxstack.driver.listeners import UmuxListener
from umuxstack.driver.streams import UmuxStream

logger = logging.getLogger("umuxstack.control")

ACCEPT_BUFFER: Final = 4096  # bytes: accepted connections on their way to a process that does not take them


class Handover:
    """All of one server's. `run` is its task."""

    __slots__ = ("_hang_ups", "_limits", "_nursery", "_outcomes", "_quota", "_serial", "_streams")

    def __init__(self, limits: Limits) -> None:
        self._quota = Quota(limits.handed, limits.handed_per_user)
        self._limits = limits
        self._hang_ups = HangUps()
        self._nursery: trio.Nursery | None = None
        self._streams: dict[int, UmuxStream] = {}
        self._outcomes: OrderedDict[int, Reason] = OrderedDict()
        self._serial = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; then every session that was handed out is closed."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await self._hang_ups.run()

    def reserve(self, uid: int) -> None:
        """A place for one more; `NoMemory` if this user or all together have too many. `hand_…` keeps it."""
        if not self._quota.take(uid):
            raise NoMemory(
                f"too many sessions and listeners are in the hands of other processes (limits: {self._limits.handed}, "
                f"{self._limits.handed_per_user} for one user); close some first"
            )

    def release(self, uid: int) -> None:
        """Gives a reserved place back that was not used."""
        self._quota.give_back(uid)

    def hand_stream(self, stream: UmuxStream, uid: int) -> tuple[Opened, socket.socket]:
        """Who the session is, and the far end of its pair: pass it on, then close it here."""
        try:
            near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:
            stream.abort()
            self.release(uid)
            raise NoMemory(f"the stack has no descriptor left for this session: {error.strerror}") from error
        self._serial += 1
        number = self._serial
        session = stream.session
        opened = Opened(
            id=number,
            local=session.local,
            remote=session.remote,
            local_port=session.local_port,
            remote_port=session.remote_port,
            lease=printable(session.lease.name, 96),
        )
        self._streams[number] = stream
        assert self._nursery is not None, "handed out before run"
        self._nursery.start_soon(self._bridge, number, stream, near, uid)
        return opened, far

    async def _bridge(self, number: int, stream: UmuxStream, near: socket.socket, uid: int) -> None:
        try:
            await Bridge(stream, near, self._hang_ups, stream.abort).run()
        except Exception:
            logger.exception("a session in another process's hands met a bug")
        finally:
            del self._streams[number]
            self._outcomes[number] = stream.session.end_reason
            if len(self._outcomes) > OUTCOMES_KEPT:
                self._outcomes.popitem(last=False)
            self._quota.give_back(uid)

    def hand_listener(self, listener: UmuxListener, uid: int) -> socket.socket:
        """The far end of a pair on which connections will arrive: pass it on, then close it here."""
        try:
            near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            listener.close()
            self.release(uid)
            raise NoMemory(f"the stack has no descriptor left for this listener: {error.strerror}") from error
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ACCEPT_BUFFER)
        near.setblocking(False)
        assert self._nursery is not None, "handed out before run"
        self._nursery.start_soon(self._serve_listener, listener, trio.socket.from_stdlib_socket(near), uid)
        return far

    async def _serve_listener(self, listener: UmuxListener, near: trio.socket.SocketType, uid: int) -> None:
        gone = self._hang_ups.watch(near.fileno())
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._deliver, listener, near, uid, nursery.cancel_scope)
                await gone.wait()
                nursery.cancel_scope.cancel()
        except Exception:
            logger.exception("a listener in another process's hands met a bug")
        finally:
            self._hang_ups.forget(near.fileno())
            near.close()
            listener.close()
            self._quota.give_back(uid)

    async def _deliver(
        self, listener: UmuxListener, near: trio.socket.SocketType, uid: int, whole: trio.CancelScope
    ) -> None:
        """Accepts, and hands each connection over; one that cannot be delivered is reset."""
        with contextlib.suppress(trio.ClosedResourceError):
            while True:
                stream = await listener.accept()
                if not self._quota.take(uid):
                    stream.abort()
                    continue
                try:
                    opened, far = self.hand_stream(stream, uid)
                except NoMemory:
                    continue
                with far:
                    (message,) = encode_pages(Verb.CONNECT, 0, [opened])
                    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [far.fileno()]))]
                    try:
                        await near.sendmsg([message], ancillary)
                    except OSError:
                        stream.abort()
                        break
        whole.cancel()

    def outcome(self, number: int) -> Outcome:
        """`NoSuchObject` for what was never handed out, or long ago."""
        stream = self._streams.get(number)
        if stream is not None:
            return Outcome(ended=stream.session.ended, reason=stream.session.end_reason)
        reason = self._outcomes.get(number)
        if reason is None:
            raise NoSuchObject(f"no session with the id {number} was handed out, or it ended long ago")
        return Outcome(ended=True, reason=reason)
