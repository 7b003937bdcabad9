"""What flags of `send` and `recv` change: MSG_OOB (urgent data), MSG_MORE, MSG_EOR; others: harmless, or refused."""

import errno
import socket as stdlib
from collections.abc import Callable
from typing import Final

from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.units import Buffer, Micros
from umuxstack.driver.errno_map import os_error

MSG_OOB: Final = int(stdlib.MSG_OOB)
MSG_MORE: Final = int(stdlib.MSG_MORE)
MSG_EOR: Final = int(stdlib.MSG_EOR)

# Trio's sockets are non-blocking below and wait above: these change nothing there either, but MSG_PEEK does.
_WAITING: Final = stdlib.MSG_DONTWAIT | stdlib.MSG_WAITALL | stdlib.MSG_NOSIGNAL | MSG_MORE
_RECEIVING: Final = _WAITING | stdlib.MSG_PEEK
_SENDING: Final = _RECEIVING | MSG_EOR


def check_receiving(flags: int, *, stream: bool) -> None:
    """Raises OSError EOPNOTSUPP for a flag of `recv` that would be a lie."""
    _check(flags, _RECEIVING | MSG_OOB if stream else _RECEIVING)


def check_sending(flags: int, *, stream: bool) -> None:
    """Raises OSError EOPNOTSUPP for a flag of `send` that would be a lie."""
    _check(flags, _SENDING | MSG_OOB if stream else _SENDING)


def _check(flags: int, known: int) -> None:
    if flags & ~known:
        raise os_error(errno.EOPNOTSUPP, f"flags {flags:#x}")


def writer(session: TcpSession, flags: int) -> Callable[[Buffer, Micros], int]:
    """The verb of `session` that writes as `flags` say."""
    if flags & MSG_OOB:
        return session.write_urgent  # UM-35: the last byte taken is urgent
    if flags & MSG_EOR:
        return session.write_record
    return session.write_more if flags & MSG_MORE else session.write
