"""Socket options: what `setsockopt` does here, and what `getsockopt` answers.

Three kinds: those that change a TCP session's policy, those that ask the session,
and those that change nothing here but are harmless (SO_REUSEADDR, say: what it
asks for holds anyway) and are remembered, so that they can be read back.
Anything else is ENOPROTOOPT: no option is accepted that would be a lie.
"""

import errno
import socket as stdlib
import struct
from collections.abc import Mapping
from typing import Any, Final

import attrs

from umuxstack.core.config import TcpPolicy
from umuxstack.core.errors import BadArgument
from umuxstack.core.listen.listener import Listener
from umuxstack.core.tcp.congestion.registry import find
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.units import Micros
from umuxstack.driver.errno_map import os_error
from umuxstack.driver.tcp_info import tcp_info

Option = tuple[int, int]

_INT: Final = struct.Struct("=i")
_LINGER: Final = struct.Struct("=ii")
_TCP: Final = stdlib.IPPROTO_TCP
_IPV6: Final = stdlib.IPPROTO_IPV6
_SOCKET: Final = stdlib.SOL_SOCKET
LINGER: Final[Option] = (_SOCKET, stdlib.SO_LINGER)
CONGESTION: Final[Option] = (_TCP, stdlib.TCP_CONGESTION)
HOPS: Final[Option] = (_IPV6, stdlib.IPV6_UNICAST_HOPS)

# Option -> (field of TcpPolicy, microseconds per unit of the option; 0: a plain number; -1: a truth value)
POLICY: Final[dict[Option, tuple[str, int]]] = {
    (_TCP, stdlib.TCP_NODELAY): ("nodelay", -1),
    (_TCP, stdlib.TCP_CORK): ("cork", -1),
    (_SOCKET, stdlib.SO_KEEPALIVE): ("keepalive", -1),
    (_TCP, stdlib.TCP_KEEPIDLE): ("keepalive_idle", 1_000_000),
    (_TCP, stdlib.TCP_KEEPINTVL): ("keepalive_interval", 1_000_000),
    (_TCP, stdlib.TCP_KEEPCNT): ("keepalive_count", 0),
    (_TCP, stdlib.TCP_USER_TIMEOUT): ("user_timeout", 1_000),
    (_TCP, stdlib.TCP_SYNCNT): ("syn_retries", 0),
    (_TCP, stdlib.TCP_LINGER2): ("fin_wait_2", 1_000_000),
    (_TCP, stdlib.TCP_MAXSEG): ("mss", 0),
    (_TCP, stdlib.TCP_FASTOPEN): ("fast_open_queue", 0),  # of a listening socket (RFC 7413 A.2)
    (_SOCKET, stdlib.SO_OOBINLINE): ("urgent_inline", -1),
    (_SOCKET, stdlib.SO_SNDBUF): ("send_buffer", 0),
    (_SOCKET, stdlib.SO_RCVBUF): ("receive_buffer", 0),
    (_IPV6, stdlib.IPV6_TCLASS): ("traffic_class", 0),
}

# A buffer of the application's choice does not grow by itself; one that is too small is made as large as need be.
_BUFFERS: Final = {"send_buffer": "send_buffer_max", "receive_buffer": "receive_buffer_max"}
_LEAST_BUFFER: Final = 2304  # bytes; Linux's

# Remembered, with what they are at first.
HARMLESS: Final[dict[Option, int]] = {
    (_SOCKET, stdlib.SO_REUSEADDR): 0,
    (_SOCKET, stdlib.SO_REUSEPORT): 0,
    (_SOCKET, stdlib.SO_BROADCAST): 0,
    (_SOCKET, stdlib.SO_PRIORITY): 0,
    (_TCP, stdlib.TCP_NOTSENT_LOWAT): 0,
    (_TCP, stdlib.TCP_QUICKACK): 1,
    (_TCP, stdlib.TCP_DEFER_ACCEPT): 0,
    (_IPV6, stdlib.IPV6_V6ONLY): 1,
    (_IPV6, stdlib.IPV6_RECVPKTINFO): 0,
    (_IPV6, stdlib.IPV6_RECVHOPLIMIT): 0,
}


class SocketOptions:
    """The options of one socket, before and after it has a session, or listens."""

    __slots__ = (
        "_algorithms",
        "_changes",
        "_hop_limit",
        "_kind",
        "_linger",
        "_listener",
        "_policy",
        "_remembered",
        "_session",
        "_unchanging",
    )

    def __init__(
        self, kind: stdlib.SocketKind, policy: TcpPolicy, hop_limit: int, algorithms: Mapping[str, type]
    ) -> None:
        """`policy` and `hop_limit` are the stack's, until something is set; `algorithms` are its own, by name."""
        self._kind = kind
        self._policy = policy
        self._hop_limit = hop_limit
        self._algorithms = algorithms
        self._changes: dict[str, Any] = {}
        self._listener: Listener | None = None
        self._linger = (0, 0)
        self._remembered: dict[Option, int] = {}
        self._session: TcpSession | None = None
        self._unchanging: dict[Option, int] = {
            (_SOCKET, stdlib.SO_TYPE): int(kind),
            (_SOCKET, stdlib.SO_DOMAIN): int(stdlib.AF_INET6),
            (_SOCKET, stdlib.SO_PROTOCOL): int(_TCP if kind == stdlib.SOCK_STREAM else stdlib.IPPROTO_UDP),
        }

    @property
    def hop_limit(self) -> int:
        """Of every packet of this socket; 0: the stack's."""
        return int(self._value("hop_limit"))

    @property
    def policy(self) -> TcpPolicy | None:
        """What a session opened now is to have from its SYN on; None: the stack's own."""
        return attrs.evolve(self._policy, **self._changes) if self._changes else None

    def attach(self, session: TcpSession) -> None:
        """There is a session now; what was set before, or while it was connecting, holds for it."""
        self._session = session
        if self._changes and session.policy != self.policy:
            session.configure(**self._changes)

    def listen(self, listener: Listener) -> None:
        """What is set, now or later, holds for the sessions that come to `listener` from then on, from their SYN on."""
        self._listener = listener
        if self.policy is not None:
            listener.set_policy(self.policy)

    def inherit(self, listener: "SocketOptions") -> None:
        """This is the socket of a session that came to `listener`'s, and brings its policy along."""
        self._remembered.update(listener._remembered)
        self._linger = listener._linger

    @property
    def aborts_on_close(self) -> bool:
        """SO_LINGER with 0 seconds: `close` resets."""
        return self._linger[0] != 0 and self._linger[1] == 0

    def wants(self, level: int, name: int) -> bool:
        return bool(self._remembered.get((level, name)))

    def get(self, level: int, name: int) -> int | bytes:
        """Raises OSError ENOPROTOOPT."""
        option = (level, name)
        if option in self._unchanging:
            return self._unchanging[option]
        if option == HOPS:
            return self.hop_limit or self._hop_limit
        if option == LINGER:
            return _LINGER.pack(*self._linger)
        if option == (_TCP, stdlib.TCP_MAXSEG) and self._session is not None:
            return self._session.statistics().snd_mss
        if option in POLICY:
            field, unit = POLICY[option]
            return int(self._value(field)) // max(unit, 1)
        if option in HARMLESS:
            return self._remembered.get(option, HARMLESS[option])
        if option == CONGESTION:
            return str(self._value("congestion")).encode().ljust(16, b"\0")
        if self._session is not None and option == (_TCP, stdlib.TCP_INFO):
            return tcp_info(self._session)
        raise os_error(errno.ENOPROTOOPT)

    def set(self, level: int, name: int, value: int | bytes) -> None:
        """Raises OSError (ENOPROTOOPT, EINVAL) and BadArgument (a value out of range)."""
        option = (level, name)
        if option == LINGER:
            if not isinstance(value, bytes) or len(value) < _LINGER.size:
                raise os_error(errno.EINVAL, "SO_LINGER takes struct linger")
            self._linger = _LINGER.unpack_from(value)
            return
        if option == CONGESTION:
            if not isinstance(value, bytes):
                raise os_error(errno.EINVAL, "TCP_CONGESTION takes a name")
            congestion = value.rstrip(b"\0").decode("ascii", "replace")
            try:
                find(congestion, self._algorithms)
            except BadArgument as error:
                raise os_error(errno.ENOENT, str(error)) from None
            self._change("congestion", congestion)
            return
        if isinstance(value, bytes):
            if len(value) < _INT.size:
                raise os_error(errno.EINVAL, "four bytes at least")
            number: int = _INT.unpack_from(value)[0]
        else:
            number = value
        if option == HOPS:
            # RFC 3493 5.1: -1 is the default again. A hop limit of 0 would not leave this host.
            if not (number == -1 or 1 <= number <= 255):
                raise os_error(errno.EINVAL, "a hop limit is 1 to 255, or -1")
            self._change("hop_limit", max(number, 0))
        elif option in POLICY:
            field, unit = POLICY[option]
            if number < 0:
                raise os_error(errno.EINVAL, "negative")
            if field in _BUFFERS:
                number = max(number, _LEAST_BUFFER)
            self._change(field, bool(number) if unit < 0 else Micros(number * unit) if unit else number)
        elif option in HARMLESS:
            self._remembered[option] = number
        else:
            raise os_error(errno.ENOPROTOOPT)

    def _value(self, field: str) -> Any:
        policy = self._policy if self._session is None else self._session.policy
        return self._changes.get(field, getattr(policy, field))

    def _change(self, field: str, value: Any) -> None:
        if self._kind != stdlib.SOCK_STREAM:
            if field not in ("send_buffer", "receive_buffer", "keepalive", "hop_limit"):
                raise os_error(errno.ENOPROTOOPT)
            self._changes[field] = value
            return
        changes = {field: value}
        if field in _BUFFERS:
            changes[_BUFFERS[field]] = value
        attrs.evolve(self._policy, **changes)  # a value that cannot be is refused now, not when somebody connects
        if self._session is not None:
            self._session.configure(**changes)
        self._changes |= changes
        if self._listener is not None:
            self.listen(self._listener)
