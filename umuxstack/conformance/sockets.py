"""Sockets of a script: what a file descriptor stands for, and what the calls read from it.

An error of a session (`Reason`) is told once, as SO_ERROR is. Numbers are the lowest free ones, from 3 on.
"""

import errno
import select
import socket as stdlib
from collections.abc import Iterator
from typing import Final

import attrs

from umuxstack.conformance.notices import Notices
from umuxstack.conformance.send_queue import SendQueue
from umuxstack.core.errors import Reason
from umuxstack.core.listen.listener import Listener
from umuxstack.core.tcp import state as st
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.udp.session import UdpSocket
from umuxstack.core.units import Address
from umuxstack.driver.errno_map import REASON_ERRNO

FIRST_DESCRIPTOR: Final = 3
LEAST_READ: Final = (stdlib.SOL_SOCKET, stdlib.SO_RCVLOWAT)
POLLRDHUP: Final = 0x2000
# BSD's, where they are others than Linux's
BSD_ERRNOS: Final = {Reason.RESET: errno.ECONNRESET, Reason.PROHIBITED: errno.ECONNREFUSED}
_SILENT_ENDS: Final = (Reason.NONE, Reason.CLOSED, Reason.ABORTED)


class CallError(Exception):
    """The system call fails with this errno."""

    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode.get(number, str(number)))
        self.number = number


@attrs.define(slots=True, eq=False)
class Socket:
    """One descriptor: a TCP or UDP socket, an epoll instance, or a file of a given size."""

    descriptor: int
    kind: str  # "stream", "datagram", "epoll", "file", "pipe" (where it is read), "sink" (where it is written)
    blocking: bool = True
    bound: tuple[Address | None, int] | None = None
    session: TcpSession | None = None
    listener: Listener | None = None
    udp: UdpSocket | None = None
    connecting: bool = False
    deferred: tuple[Address, int] | None = None  # connect() waits for data to go with the SYN (TCP_FASTOPEN_CONNECT)
    told: bool = False  # the session's end was reported
    read_shut: bool = False
    linger: tuple[int, int] = (0, 0)
    queue: SendQueue | None = None
    notices: Notices = attrs.field(factory=Notices)
    ports: tuple[int, int] | None = None  # IP_LOCAL_PORT_RANGE: the first and the last that connect() may choose
    policy: dict[str, object] = attrs.field(factory=dict)  # changes of TcpPolicy by setsockopt
    remembered: dict[tuple[int, int], object] = attrs.field(factory=dict)
    watched: dict[int, "Watch"] = attrs.field(factory=dict)  # of an epoll instance
    size: int = 0  # of a file
    pipe: list[int] | None = None  # how much is in it, for both its ends
    errnos: dict[Reason, int] = attrs.field(factory=dict)  # where the vendor's differ from ours (which are Linux's)

    @property
    def error(self) -> int:
        """The errno that the session's end means and that nobody was told yet; 0: none."""
        session = self.session
        if session is None or self.told or session.end_reason in _SILENT_ENDS:
            return 0
        if session.end_reason is Reason.RESET and session.eof and session.tcb.state == st.CLOSED:
            # After the peer's FIN a reset says that our data went nowhere (as Linux has it: EPIPE).
            if session.tcb.peer_fin >= 0 and session.tcb.rcv_nxt > session.tcb.peer_fin:
                return self.errnos.get(Reason.RESET, errno.EPIPE)
        return self.errnos.get(session.end_reason, REASON_ERRNO[session.end_reason])

    def take_error(self) -> int:
        number = self.error
        if number:
            self.told = True
        return number

    @property
    def established(self) -> bool:
        return self.session is not None and self.session.established

    def events(self) -> int:
        """poll's view: what holds now."""
        if self.listener is not None:
            return int(select.POLLIN) if self.listener.readable else 0
        if self.udp is not None:
            return int(select.POLLOUT) | (int(select.POLLIN) if self.udp.readable else 0)
        session = self.session
        if self.deferred is not None:
            return int(select.POLLOUT)
        if session is None:
            return int(select.POLLOUT | select.POLLHUP) if self.kind == "stream" else 0
        if not session.established and not session.ended:
            return 0
        mask = 0
        if (session.readable and self._enough(session)) or self.read_shut:
            mask |= select.POLLIN
        finished = not session.asleep and 0 <= session.tcb.peer_fin < session.tcb.rcv_nxt
        if session.eof or finished or self.read_shut:
            mask |= POLLRDHUP
        if session.ended or (session.writable if self.queue is None else self.queue.writable(session.tcb)):
            mask |= select.POLLOUT
        if self.error or self.notices.queue:
            mask |= select.POLLERR
        if session.ended or (session.eof and session.fin_queued):
            mask |= select.POLLHUP
        if session.urgent_pending:
            mask |= select.POLLPRI
        return int(mask)

    def least(self, size: int) -> int:
        """How much a read of `size` waits for (SO_RCVLOWAT)."""
        mark = self.remembered.get(LEAST_READ)
        return max(min(mark, size), 1) if isinstance(mark, int) else 1

    def _enough(self, session: TcpSession) -> bool:
        rx = session.tcb.rx
        return session.eof or rx is None or rx.size >= self.least(1 << 31)

    def progress(self) -> tuple[int, ...]:
        """Changes whenever something new has happened (for edge-triggered epoll)."""
        if self.listener is not None:
            return len(self.listener.queue), 0, 0
        session = self.session
        if session is None or session.asleep:
            return 0, 0, 0
        room = session.tcb.snd_una if self.queue is None else self.queue.opened
        return session.tcb.rcv_nxt, room, session.state, self.notices.told


@attrs.define(slots=True)
class Watch:
    """What an epoll instance wants to know of one descriptor."""

    events: int
    data: int
    reported: tuple[int, tuple[int, ...]] | None = None  # mask and progress at the last report
    disabled: bool = False  # EPOLLONESHOT has fired


class Table:
    """Descriptors."""

    def __init__(self, errnos: dict[Reason, int]) -> None:
        self._sockets: dict[int, Socket] = {}
        self._errnos = errnos

    def open(self, kind: str) -> Socket:
        number = FIRST_DESCRIPTOR
        while number in self._sockets:
            number += 1
        socket = self._sockets[number] = Socket(number, kind, errnos=self._errnos)
        return socket

    def get(self, descriptor: object) -> Socket:
        """Raises CallError(EBADF)."""
        socket = self._sockets.get(descriptor) if isinstance(descriptor, int) else None
        if socket is None:
            raise CallError(errno.EBADF)
        return socket

    def rename(self, descriptor: int, name: int) -> None:
        """Scripts choose the number by which they call a descriptor."""
        socket = self._sockets.pop(descriptor)
        socket.descriptor = name
        self._sockets[name] = socket

    def close(self, socket: Socket) -> None:
        del self._sockets[socket.descriptor]

    def __iter__(self) -> Iterator[Socket]:
        return iter(self._sockets.values())
