"""The control verbs, on one host. What a client may see of an object is in `rows.py`.

Every DAS, revocation and shutdown is logged with its caller (UM-29), with the
names of leases and never with an address (UM-34). A verb that waits for a peer
is `lengthy`; the others answer at once.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from math import inf
from types import MappingProxyType
from typing import Any, Final

import trio

from umuxstack.control import rows
from umuxstack.control.connection import Reply, beside
from umuxstack.control.handover import Handover
from umuxstack.control.layout import Record
from umuxstack.control.messages import (
    ANY_LENGTH,
    Addresses,
    Connect,
    DasAdd,
    DasList,
    DasRevoke,
    Done,
    Echo,
    Events,
    GetOutcome,
    GetStatus,
    Listen,
    Listeners,
    Ping,
    Pool,
    Request,
    Sessions,
    Shutdown,
    Statistics,
    Status,
    Telescope,
    Unified,
    Waiter,
)
from umuxstack.control.place import Caller
from umuxstack.control.protocol import SessionFailed, printable
from umuxstack.control.watching import EventQueue
from umuxstack.core.errors import BadArgument, LocalError, Reason
from umuxstack.core.units import NEVER, UNSPECIFIED
from umuxstack.core.wire.address import to_text
from umuxstack.driver.addresses import to_address
from umuxstack.driver.errno_map import REASON_ERRNO
from umuxstack.driver.runtime import Host

logger = logging.getLogger("umuxstack.control")

LONGEST_WAIT: Final = 3600  # seconds that a ping may wait or pause
UNIFIED: Final[Mapping[int, bool | None]] = MappingProxyType(
    {Unified.BY_CONFIGURATION: None, Unified.NO: False, Unified.YES: True}
)


class Verbs:
    """All verbs of one host."""

    def __init__(
        self,
        host: Host,
        *,
        name: str,
        link_name: str,
        handover: Handover,
        events: int,
        shutdown: Callable[[], None],
    ) -> None:
        """`events`: how many are kept for a slow client. `shutdown` is called by SHUTDOWN."""
        self._host = host
        self._name = name
        self._link_name = link_name
        self._handover = handover
        self._events_kept = events
        self._shutdown = shutdown
        self._quick: Mapping[type[Request[Any]], Callable[[Any, Caller], Iterable[Record]]] = {
            GetStatus: self._status,
            Listeners: lambda _request, _who: rows.listeners(host.stack),
            Sessions: lambda _request, _who: rows.sessions(host.stack),
            Addresses: lambda request, _who: rows.leases(host.stack, host.now(), reveal=request.reveal),
            Pool: lambda _request, _who: [rows.pool(host.stack)],
            Statistics: lambda _request, _who: rows.figures(host.stack),
            Telescope: lambda _request, _who: rows.knocks(host.stack, host.now()),
            DasList: lambda request, _who: rows.waiters(host.stack, host.now(), reveal=request.reveal),
            DasAdd: self._das_add,
            DasRevoke: self._das_revoke,
            GetOutcome: lambda request, _who: [handover.outcome(request.id)],
            Shutdown: self._on_shutdown,
        }

    def quick(self, request: Request[Any], who: Caller) -> Iterable[Record] | None:
        """The rows of the answer; None for a request that is `lengthy`. Raises `LocalError`."""
        handler = self._quick.get(type(request))
        return None if handler is None else handler(request, who)

    async def lengthy(self, request: Request[Any], reply: Reply, who: Caller) -> None:
        """Answers a request that waits for somebody. May be cancelled, and leaves nothing then."""
        if isinstance(request, Events):
            await self._events(request, reply)
        elif isinstance(request, Ping):
            await self._ping(request, reply)
        elif isinstance(request, Connect):
            await self._connect(request, reply, who)
        elif isinstance(request, Listen):
            await self._listen(request, reply, who)
        else:
            raise BadArgument(f"{request.VERB.name} was said before")

    # the stack itself

    def _status(self, _request: GetStatus, _who: Caller) -> Iterable[Status]:
        return [rows.status(self._host, self._name, self._link_name)]

    def _on_shutdown(self, _request: Shutdown, who: Caller) -> Iterable[Done]:
        logger.info("shutdown: uid %d pid %d", who.uid, who.pid)
        self._shutdown()
        return [Done()]

    # Delayed Address Setting

    def _das_add(self, request: DasAdd, who: Caller) -> Iterable[Waiter]:
        if request.default_lifetime:
            lifetime = None
        else:
            lifetime = inf if request.lifetime >= NEVER else request.lifetime / 1e6
        try:
            waiting = self._host.das(
                request.listener,
                ssa=None if request.ssa == UNSPECIFIED else to_text(request.ssa),
                peer=None if request.peer_length == ANY_LENGTH else f"{to_text(request.peer)}/{request.peer_length}",
                lifetime=lifetime,
                label=request.label,
                grain=request.grain,
                pin=request.pin,
            )
        except LocalError as error:
            logger.warning(
                "das refused: uid %d pid %d listener %r label %r: %s",
                who.uid, who.pid, request.listener, request.label, type(error).__name__,
            )  # fmt: skip
            raise
        logger.info(
            "das: uid %d pid %d lease %s grain %s label %r",
            who.uid, who.pid, waiting.lease.name, request.grain, request.label,
        )  # fmt: skip
        return [rows.waiter(waiting, self._host.now(), reveal=True)]

    def _das_revoke(self, request: DasRevoke, who: Caller) -> Iterable[Done]:
        name = rows.lease_name(self._host.stack, to_address(request.what) if ":" in request.what else request.what)
        try:
            self._host.revoke(request.what)
        except LocalError as error:
            logger.warning("revoke refused: uid %d pid %d lease %s: %s", who.uid, who.pid, name, type(error).__name__)
            raise
        logger.info("revoke: uid %d pid %d lease %s", who.uid, who.pid, name)
        return [Done()]

    # verbs that wait

    async def _events(self, request: Events, reply: Reply) -> None:
        queue = EventQueue(self._host, self._events_kept)

        async def tell() -> None:
            await reply.send([], last=False)  # a client that has this misses nothing any more
            while events := await queue.take():
                told = [rows.event(self._host, event, lost, reveal=request.reveal) for event, lost in events]
                await reply.send(told, last=False)
            await reply.send([])

        await beside(queue.fill, tell)

    async def _ping(self, request: Ping, reply: Reply) -> None:
        interval, timeout = request.interval / 1e6, request.timeout / 1e6
        if not (0 <= interval <= LONGEST_WAIT and 0 < timeout <= LONGEST_WAIT):
            raise BadArgument(
                f"interval and timeout are {interval} and {timeout} s; at most {LONGEST_WAIT} s are allowed"
            )
        async with self._host.open_ping(to_text(request.peer)) as ping:
            lease = printable(ping.session.lease.name, 96)
            for number in range(request.count):
                if number:
                    await trio.sleep(interval)
                answer = await ping.request(bytes(request.size), timeout=timeout)
                echo = Echo(
                    sequence=number + 1,
                    rtt=NEVER if answer is None else answer.rtt,
                    size=request.size if answer is None else len(answer.data),
                    hop_limit=0 if answer is None else answer.hop_limit,
                    reason=Reason.NONE if answer is None else answer.reason,
                    lease=lease,
                )
                await reply.send([echo], last=False)
        await reply.send([])

    async def _connect(self, request: Connect, reply: Reply, who: Caller) -> None:
        if request.unified not in UNIFIED:
            raise BadArgument(f"unified is {request.unified}; it is 0, 1 or 2")
        self._handover.reserve(who.uid)
        try:
            stream = await self._host.connect_packed(
                request.peer,
                request.port,
                source=None if request.source == UNSPECIFIED else request.source,
                unified=UNIFIED[request.unified],
                label=request.label,
            )
        except OSError as error:
            self._handover.release(who.uid)
            reason = next((reason for reason, number in REASON_ERRNO.items() if number == error.errno), Reason.NONE)
            raise SessionFailed(reason, error.strerror or str(error)) from error
        except BaseException:
            self._handover.release(who.uid)
            raise
        opened, far = self._handover.hand_stream(stream, who.uid)
        with far:
            await reply.send([opened], descriptor=far.fileno())

    async def _listen(self, request: Listen, reply: Reply, who: Caller) -> None:
        if not request.port and request.address in self._host.config.shared:
            raise BadArgument("a listener on a shared address needs a port")  # any free one is no use to who asks
        self._handover.reserve(who.uid)
        try:
            listener = await self._host.listen(
                request.port,
                address=None if request.address == UNSPECIFIED else to_text(request.address),
                backlog=request.backlog,
                name=request.name,
            )
        except BaseException:
            self._handover.release(who.uid)
            raise
        row = rows.listener(listener.listener)
        far = self._handover.hand_listener(listener, who.uid)
        with far:
            await reply.send([row], descriptor=far.fileno())
