"""setsockopt and getsockopt of scripts: options that are fields of TcpPolicy, that ask a session, or mean nothing."""

import errno
import socket as stdlib
from typing import TYPE_CHECKING, Final

from umuxstack.conformance import tcpinfo
from umuxstack.conformance.commands import FAST_OPEN_QUEUE
from umuxstack.conformance.notices import ZEROCOPY
from umuxstack.conformance.outcome import Mismatch, UnsupportedConstruct
from umuxstack.conformance.send_queue import LEAST
from umuxstack.conformance.sockets import LEAST_READ, CallError, Socket
from umuxstack.conformance.symbols import ANY, OWN, Value
from umuxstack.core.errors import BadArgument

if TYPE_CHECKING:
    from umuxstack.conformance.calls import Calls

TCP: Final = stdlib.IPPROTO_TCP
SOL: Final = stdlib.SOL_SOCKET
IPV6: Final = stdlib.IPPROTO_IPV6
BSD_FAST_OPEN: Final = 0x80000000  # the flag of its connections (TF_FASTOPEN), which the socket option shows
DEFAULT_MAXSEG: Final = 536  # RFC 9293 3.7.1's for IPv4: what a socket without a connection says

# option -> (field of TcpPolicy, microseconds per unit; 0: a plain number; -1: a truth value)
_POLICY: Final[dict[tuple[int, int], tuple[str, int]]] = {
    (TCP, stdlib.TCP_NODELAY): ("nodelay", -1),
    (TCP, stdlib.TCP_CORK): ("cork", -1),
    (SOL, stdlib.SO_KEEPALIVE): ("keepalive", -1),
    (TCP, stdlib.TCP_KEEPIDLE): ("keepalive_idle", 1_000_000),
    (TCP, stdlib.TCP_KEEPINTVL): ("keepalive_interval", 1_000_000),
    (TCP, stdlib.TCP_KEEPCNT): ("keepalive_count", 0),
    (TCP, OWN["TCP_KEEPINIT"]): ("connect_timeout", 1_000_000),
    (TCP, stdlib.TCP_USER_TIMEOUT): ("user_timeout", 1_000),
    (TCP, stdlib.TCP_SYNCNT): ("syn_retries", 0),
    (TCP, stdlib.TCP_LINGER2): ("fin_wait_2", 1_000_000),
    (SOL, stdlib.SO_OOBINLINE): ("urgent_inline", -1),
    (SOL, stdlib.SO_SNDBUF): ("send_buffer", 0),
    (SOL, stdlib.SO_RCVBUF): ("receive_buffer", 0),
    (IPV6, stdlib.IPV6_TCLASS): ("traffic_class", 0),
    (0, stdlib.IP_TOS): ("traffic_class", 0),
    (IPV6, stdlib.IPV6_UNICAST_HOPS): ("hop_limit", 0),
    (0, stdlib.IP_TTL): ("hop_limit", 0),
}

# Accepted, remembered and read back; they change nothing that a packet shows.
_HARMLESS: Final = {
    (SOL, stdlib.SO_REUSEADDR),
    (SOL, stdlib.SO_REUSEPORT),
    (SOL, stdlib.SO_PRIORITY),
    (SOL, stdlib.SO_BROADCAST),
    (SOL, stdlib.SO_MARK),
    (SOL, OWN["SO_DEBUG"]),
    LEAST_READ,
    (TCP, stdlib.TCP_QUICKACK),
    (TCP, stdlib.TCP_NOTSENT_LOWAT),
    (TCP, OWN["TCP_INQ"]),
    ZEROCOPY,
    (IPV6, stdlib.IPV6_V6ONLY),
    (0, OWN["IP_FREEBIND"]),
    (0, OWN["IP_BIND_ADDRESS_NO_PORT"]),
    (0, OWN["IP_MTU_DISCOVER"]),
    (IPV6, OWN["IPV6_MTU_DISCOVER"]),
}
_CONGESTION: Final = {"reno": "newreno", "newreno": "newreno", "cubic": "cubic", "bbr": "bbr"}


def _first(value: Value) -> Value:
    return value[0] if isinstance(value, list) and value else value


def set_option(calls: "Calls", socket: Socket, level: int, name: int, value: Value) -> None:
    """Raises CallError, UnsupportedConstruct."""
    option = (level, name)
    given = _first(value)
    if value == 0:
        raise CallError(errno.EFAULT)
    if option == (SOL, stdlib.SO_LINGER):
        fields = list(given.values()) if isinstance(given, dict) else [0, 0]
        socket.linger = (fields[0], fields[1])  # type: ignore[assignment]
    elif option == (0, OWN["IP_LOCAL_PORT_RANGE"]) and isinstance(given, int):
        socket.ports = (given & 0xFFFF or 1, given >> 16 or 0xFFFF)
    elif option == (TCP, OWN["TCP_FASTOPEN_CONNECT"]):
        if socket.session is not None or socket.listener is not None:
            raise CallError(errno.EINVAL)
        if given and not calls.target.fast_open:
            raise CallError(errno.EOPNOTSUPP)
        socket.policy["fast_open"] = bool(given)
        socket.remembered[option] = given
    elif option == (TCP, OWN["TCP_FUNCTION_BLK"]) and isinstance(given, dict):
        stack = given.get("function_set_name", b"")
        if stack not in (b"freebsd", b"default"):
            raise UnsupportedConstruct(f"the TCP stack {stack.decode() if isinstance(stack, bytes) else stack!r}")
    elif option == (SOL, OWN["SO_TIMESTAMPING"]) and isinstance(given, int):
        socket.notices.set_stamps(socket.session, given)
    elif option == (TCP, stdlib.TCP_CONGESTION):
        text = given.decode() if isinstance(given, bytes) else ""
        if text not in _CONGESTION:
            raise UnsupportedConstruct(f"congestion control {text}")
        _change(calls, socket, "congestion", _CONGESTION[text])
    elif option == (TCP, stdlib.TCP_MAXSEG) and isinstance(given, int):
        if not 88 <= given <= 32767:
            raise CallError(errno.EINVAL)
        _change(calls, socket, "mss", given)
    elif option == (TCP, OWN["TCP_NOOPT"]) and given == 1:
        for field in ("timestamps", "sack", "window_scaling", "announce_mss"):
            _change(calls, socket, field, False)
    elif option == (TCP, stdlib.TCP_FASTOPEN) and calls.target.policy.bsd_options:
        socket.policy["fast_open"] = bool(given)  # BSD's is for clients as well, Linux's for listeners alone
        socket.policy["fast_open_queue"] = FAST_OPEN_QUEUE if given and calls.target.serves_fast_open else 0
        socket.remembered[option] = given
    elif option == (TCP, stdlib.TCP_FASTOPEN) and isinstance(given, int):
        socket.policy["fast_open_queue"] = max(given, 0) if calls.target.serves_fast_open else 0
    elif option == (TCP, OWN["TCP_FASTOPEN_KEY"]):
        key = given if isinstance(given, bytes) else b""
        if len(key) not in (16, 32):
            raise CallError(errno.EINVAL)
        socket.policy["fast_open_key"] = key[:16].hex()
    elif option in _POLICY and isinstance(given, int):
        _set_policy(calls, socket, option, given)
    elif option in _HARMLESS:
        if option == (TCP, stdlib.TCP_QUICKACK) and given == 0:
            raise UnsupportedConstruct("TCP_QUICKACK 0")
        if option == ZEROCOPY and given not in (0, 1):
            raise CallError(errno.EINVAL)
        socket.remembered[option] = given
    else:
        raise UnsupportedConstruct(f"setsockopt {level}, {option_name(level, name)}")


def _set_policy(calls: "Calls", socket: Socket, option: tuple[int, int], given: int) -> None:
    field, unit = _POLICY[option]
    if field in ("keepalive_idle", "keepalive_interval", "keepalive_count", "connect_timeout") and given < 1:
        raise CallError(errno.EINVAL)
    if field == "receive_buffer":
        # A buffer of the application's choice does not grow by itself (tcp(7)).
        _change(calls, socket, "receive_buffer_max", given)
    if field == "send_buffer" and socket.queue is not None:
        socket.queue.limit, socket.queue.fixed = max(2 * given, LEAST), True
        socket.policy[field] = given
        return
    if field == "send_buffer":
        _change(calls, socket, "send_buffer_max", given)
    _change(calls, socket, field, bool(given) if unit < 0 else given * unit if unit else given)
    socket.remembered[option] = given


def _change(calls: "Calls", socket: Socket, field: str, value: object) -> None:
    if socket.session is not None and not socket.session.ended:
        try:
            socket.session.configure(**{field: value})
        except BadArgument:  # out of range, or settled by the handshake
            raise CallError(errno.EINVAL) from None
    socket.policy[field] = value


def check_option(calls: "Calls", socket: Socket, level: int, name: int, expected: Value) -> None:
    """Compares the option with what the script says it is. Raises Mismatch, UnsupportedConstruct."""
    wanted = _first(expected)
    actual = _get(calls, socket, (level, name))
    if wanted is ANY:
        return
    if isinstance(wanted, dict) and isinstance(actual, dict):
        for field, value in wanted.items():
            if value is ANY:
                continue
            if field not in actual:
                raise UnsupportedConstruct(f"field {field} of {option_name(level, name)}")
            if value != actual[field]:
                raise Mismatch(f"getsockopt: {field} is {actual[field]!r}, expected {value!r}")
        return
    if isinstance(wanted, dict):
        wanted = list(wanted.values())
    if wanted != actual:
        raise Mismatch(f"getsockopt {option_name(level, name)} says {actual!r}, expected {wanted!r}")


def _get(calls: "Calls", socket: Socket, option: tuple[int, int]) -> Value:
    session = socket.session
    policy = calls.target.policy
    if option == (SOL, stdlib.SO_ERROR):
        return socket.take_error()
    if option == (TCP, stdlib.TCP_INFO):
        return dict(tcpinfo.of(calls, socket))
    if option == (TCP, stdlib.TCP_MAXSEG):
        if session is None or not session.established:
            # tcp(7): before a connection what was set; otherwise the default of RFC 9293 3.7.1.
            given = socket.policy.get("mss")
            return given if isinstance(given, int) else DEFAULT_MAXSEG
        return session.statistics().snd_mss
    if option == (TCP, stdlib.TCP_CONGESTION):
        used = policy.congestion if session is None else session.statistics().congestion
        return {"newreno": "reno"}.get(used, used).encode()
    if option == (TCP, stdlib.TCP_FASTOPEN):
        if policy.bsd_options:
            return BSD_FAST_OPEN if socket.remembered.get(option) else 0
        return socket.policy.get("fast_open_queue", 0)  # type: ignore[return-value]
    if option == (SOL, stdlib.SO_TYPE):
        return int(stdlib.SOCK_STREAM if socket.kind == "stream" else stdlib.SOCK_DGRAM)
    if option == (SOL, stdlib.SO_LINGER):
        return [socket.linger[0], socket.linger[1]]
    if option == (SOL, stdlib.SO_ACCEPTCONN):
        return int(socket.listener is not None)
    if option == (SOL, stdlib.SO_SNDBUF) and socket.queue is not None:
        return socket.queue.limit
    if option == (SOL, stdlib.SO_RCVBUF) and session is not None and not socket.remembered.get(option):
        return session.tcb.rcv_limit * (2 if calls.doubles_buffers else 1)
    if option in _POLICY:
        field, unit = _POLICY[option]
        value = socket.policy.get(field)
        if value is None:
            value = getattr(policy if session is None else session.policy, field)
        if unit < 0:
            return int(bool(value))
        doubled = 2 if calls.doubles_buffers and field in ("send_buffer", "receive_buffer") else 1
        return int(value) // (unit or 1) * doubled  # type: ignore[call-overload, no-any-return]
    if option in _HARMLESS or option == (TCP, OWN["TCP_FASTOPEN_CONNECT"]):
        return socket.remembered.get(option, 0)  # type: ignore[return-value]
    raise UnsupportedConstruct(f"getsockopt {option[0]}, {option_name(*option)}")


def option_name(level: int, name: int) -> str:
    """As scripts write it."""
    prefix = {SOL: "SO_", TCP: "TCP_", IPV6: "IPV6_", 0: "IP_", stdlib.IPPROTO_UDP: "UDP_"}.get(level, "?")
    for key in dir(stdlib):
        if key.startswith(prefix) and getattr(stdlib, key) == name:
            return key
    for key, value in OWN.items():
        if key.startswith(prefix) and value == name:
            return key
    return str(name)
