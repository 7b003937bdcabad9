"""Reason, LocalError and trio's error triple as OSError: the only such table of the driver.

A `Reason` is what the peer or the path did; the numbers are those that Linux
gives for the same misfortune. A `LocalError` is what the caller did.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio

from umuxstack.core import errors
from umuxstack.core.errors import LocalError, Reason

REASON_ERRNO: Final[dict[Reason, int]] = {
    Reason.NONE: 0,
    Reason.CLOSED: errno.EPIPE,
    Reason.REFUSED: errno.ECONNREFUSED,
    Reason.RESET: errno.ECONNRESET,
    Reason.TIMED_OUT: errno.ETIMEDOUT,
    Reason.UNREACHABLE: errno.EHOSTUNREACH,
    Reason.PROHIBITED: errno.EACCES,
    Reason.PORT_UNREACHABLE: errno.ECONNREFUSED,
    Reason.ABORTED: errno.ECONNABORTED,
    Reason.REVOKED: errno.ECONNABORTED,
    Reason.EXPIRED: errno.ETIMEDOUT,
    Reason.PARENT_CLOSED: errno.ECONNABORTED,
    Reason.LOST_RACE: errno.ECONNABORTED,
    Reason.REPLACED: errno.ECONNRESET,
    Reason.STACK_CLOSED: errno.ENETDOWN,
    Reason.NO_MEMORY: errno.ENOBUFS,
    Reason.PACKET_TOO_BIG: errno.EMSGSIZE,
}

LOCAL_ERRNO: Final[dict[type[LocalError], int]] = {
    LocalError: errno.EINVAL,
    errors.AddressMalformed: errno.EINVAL,
    errors.AddressNotOurs: errno.EADDRNOTAVAIL,
    errors.AddressInUse: errno.EADDRINUSE,
    errors.AddressUsed: errno.EADDRNOTAVAIL,
    errors.PoolExhausted: errno.EADDRNOTAVAIL,
    errors.BacklogFull: errno.ENOBUFS,
    errors.NotListening: errno.EINVAL,
    errors.NoSuchObject: errno.ENOENT,
    errors.NotConnected: errno.ENOTCONN,
    errors.SessionClosed: errno.EPIPE,
    errors.WouldBlock: errno.EAGAIN,
    errors.MessageTooLong: errno.EMSGSIZE,
    errors.BadArgument: errno.EINVAL,
    errors.NoMemory: errno.ENOBUFS,
}


def os_error(number: int, detail: str = "") -> OSError:
    """The OSError of that number (Python picks the subclass: ConnectionResetError, TimeoutError, …)."""
    text = os.strerror(number)
    return OSError(number, f"{text} ({detail})" if detail else text)


def reason_error(reason: Reason) -> OSError:
    """What an operation raises on a session that ended for `reason`; the text names the reason."""
    return os_error(REASON_ERRNO[reason], reason.name.lower().replace("_", " "))


def local_error(error: LocalError) -> OSError:
    """`error` as the OSError that a socket call would raise."""
    for kind in type(error).__mro__:
        number = LOCAL_ERRNO.get(kind)
        if number is not None:
            return os_error(number, str(error))
    raise AssertionError(f"{type(error).__name__} is no LocalError")


@contextmanager
def os_errors() -> Iterator[None]:
    """What streams, listeners and datagram sockets raise, as a socket would.

    ClosedResourceError stays: so trio's own sockets tell whoever waits that they were closed meanwhile.
    """
    try:
        yield
    except LocalError as error:
        raise local_error(error) from error
    except trio.BrokenResourceError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        raise error.__cause__ from None
