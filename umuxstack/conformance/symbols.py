"""What the names in a script are worth, and the evaluation of its expressions.

Most are the running system's own numbers. Those that only another system has get numbers of their own: they are
compared with each other only.
"""

import errno
import fcntl
import os
import select
import socket
import termios
from typing import Final

from umuxstack.conformance.outcome import UnsupportedConstruct
from umuxstack.conformance.value import (
    AnyValue,
    Array,
    Binary,
    Call,
    Cast,
    Expression,
    Float,
    Integer,
    Named,
    String,
    Struct,
    Unary,
    Word,
)

# What Linux's runner calls the Fast Open cookie of its common key, and that of a key of zeros.
TFO_COOKIE: Final = "3021b9d889017eeb"
TFO_KEY: Final = "a1a1a1a1b2b2b2b2c3c3c3c3d4d4d4d4"
TFO_COOKIE_ZERO: Final = "b7c12350a90dc8f5"
# The same of FreeBSD's suite, whose key a program of its own sets: any key will do here, the cookie is but a name.
BSD_COOKIE: Final = "2069a359c930dba9"
BSD_KEY: Final = "b5d5" * 8

_FOREIGN: Final = (
    *("TCP_KEEPINIT", "TCP_NOOPT", "TCP_NOPUSH", "TCP_FUNCTION_BLK", "TCP_MAXUNACKTIME", "TCP_FASTOPEN_KEY"),
    *("TCP_INQ", "TCP_CM_INQ", "SO_ZEROCOPY", "SO_TIMESTAMPING", "SO_MAX_PACING_RATE", "TCP_TX_DELAY"),
    *("IPV6_RECVERR", "IP_RECVERR", "SO_INCOMING_CPU", "IP_FREEBIND", "IP_MTU_DISCOVER", "IPV6_MTU_DISCOVER", "IP_MTU"),
    *("TCP_SAVE_SYN", "TCP_SAVED_SYN", "TCP_FASTOPEN_CONNECT", "TCP_FASTOPEN_NO_COOKIE", "TCP_ULP", "TCP_REPAIR"),
    *("IPV6_MTU", "TCP_MD5SIG", "MSG_ZEROCOPY", "MSG_FASTOPEN", "MSG_EOR", "MSG_MORE", "MSG_EOF", "TCP_TIMESTAMP"),
    *("IP_BIND_ADDRESS_NO_PORT", "IP_LOCAL_PORT_RANGE", "TCP_RTO_MAX_MS", "SCM_TIMESTAMPING", "SCM_TXTIME"),
    *("CMSG_LEVEL_IP", "CMSG_TYPE_RECVERR"),
    *("SO_DEBUG", "SO_USELOOPBACK", "TCP_REMOTE_UDP_ENCAPS_PORT", "TCP_LOG", "TCP_CCALGOOPT", "TCP_DELACK"),
)

# <linux/net_tstamp.h> and <linux/errqueue.h>, by position
_TIMESTAMPING: Final = (
    *("TX_HARDWARE", "TX_SOFTWARE", "RX_HARDWARE", "RX_SOFTWARE", "SOFTWARE", "SYS_HARDWARE", "RAW_HARDWARE"),
    *("OPT_ID", "TX_SCHED", "TX_ACK", "OPT_CMSG", "OPT_TSONLY", "OPT_STATS", "OPT_PKTINFO", "OPT_TX_SWHW"),
)
_ORIGINS: Final = ("NONE", "LOCAL", "ICMP", "ICMP6", "TIMESTAMPING", "ZEROCOPY", "TXTIME")

FIRST_FOREIGN: Final = 0x100000
OWN: Final[dict[str, int]] = {
    **{name: FIRST_FOREIGN + index for index, name in enumerate(_FOREIGN)},
    "MSG_MORE": 0x8000,
    "MSG_EOR": 0x80,
    "MSG_ZEROCOPY": 0x4000000,
    "MSG_FASTOPEN": 0x20000000,
    "NULL": 0,
    "SOL_TCP": socket.IPPROTO_TCP,
    "SOL_UDP": socket.IPPROTO_UDP,
    "SOL_IP": 0,
    "SOL_IPV6": socket.IPPROTO_IPV6,
    "IPPROTO_UDPLITE": 136,
    "SIOCINQ": termios.FIONREAD,
    "FIONREAD": termios.FIONREAD,
    "SIOCOUTQ": 0x5411,
    "FIONWRITE": 0x5411,
    "FIONSPACE": 0x200001,
    "SIOCOUTQNSD": 0x894B,
    "EPOLL_CTL_ADD": 1,
    "EPOLL_CTL_DEL": 2,
    "EPOLL_CTL_MOD": 3,
    **{f"IP_PMTUDISC_{name}": n for n, name in enumerate(("DONT", "WANT", "DO", "PROBE", "INTERFACE", "OMIT"))},
    **{f"IPV6_PMTUDISC_{name}": n for n, name in enumerate(("DONT", "WANT", "DO", "PROBE", "INTERFACE", "OMIT"))},
    **{f"SOF_TIMESTAMPING_{name}": 1 << n for n, name in enumerate(_TIMESTAMPING)},
    **{f"SCM_TSTAMP_{name}": n for n, name in enumerate(("SND", "SCHED", "ACK"))},
    **{f"SO_EE_ORIGIN_{name}": n for n, name in enumerate(_ORIGINS)},
    "SO_EE_CODE_ZEROCOPY_COPIED": 1,
    "MSG_CONFIRM": 0x800,
    "INFTIM": -1,
    "IPTOS_LOWDELAY": 0x10,
    "IPTOS_THROUGHPUT": 0x08,
    "IPTOS_RELIABILITY": 0x04,
    **{f"IPTOS_DSCP_CS{n}": n << 5 for n in range(8)},
    **{f"IPTOS_DSCP_AF{c}{d}": (c * 8 + d * 2) << 2 for c in range(1, 5) for d in range(1, 4)},
    "IPTOS_DSCP_EF": 0xB8,
    "IPTOS_ECN_ECT0": 2,
    "IPTOS_ECN_ECT1": 1,
    "IPTOS_ECN_CE": 3,
}

# <net/tcp_states.h> and FreeBSD's tcp_fsm.h: the scripts of either ask for theirs
LINUX_STATES: Final = {
    "TCP_ESTABLISHED": 1,
    "TCP_SYN_SENT": 2,
    "TCP_SYN_RECV": 3,
    "TCP_FIN_WAIT1": 4,
    "TCP_FIN_WAIT2": 5,
    "TCP_TIME_WAIT": 6,
    "TCP_CLOSE": 7,
    "TCP_CLOSE_WAIT": 8,
    "TCP_LAST_ACK": 9,
    "TCP_LISTEN": 10,
    "TCP_CLOSING": 11,
}
LINUX_OF_NAME: Final = {
    "CLOSED": 7,
    "LISTEN": 10,
    "SYN-SENT": 2,
    "SYN-RECEIVED": 3,
    "ESTABLISHED": 1,
    "CLOSE-WAIT": 8,
    "FIN-WAIT-1": 4,
    "FIN-WAIT-2": 5,
    "CLOSING": 11,
    "LAST-ACK": 9,
    "TIME-WAIT": 6,
}
TCPI_STATES: Final = {
    "TCPI_CLOSED": 7,
    "TCPI_LISTEN": 10,
    "TCPI_SYN_SENT": 2,
    "TCPI_SYN_RECEIVED": 3,
    "TCPI_ESTABLISHED": 1,
    "TCPI_CLOSE_WAIT": 8,
    "TCPI_FIN_WAIT_1": 4,
    "TCPI_FIN_WAIT_2": 5,
    "TCPI_CLOSING": 11,
    "TCPI_LAST_ACK": 9,
    "TCPI_TIME_WAIT": 6,
}


class Anything:
    """`...`: equal to whatever came."""

    def __repr__(self) -> str:
        return "..."


ANY: Final = Anything()

Value = int | bytes | float | str | Anything | list["Value"] | dict[str, "Value"]


def number_of(name: str) -> int:
    """What the symbol `name` is worth. Raises UnsupportedConstruct."""
    own = OWN.get(name, LINUX_STATES.get(name, TCPI_STATES.get(name)))
    if own is not None:
        return own
    for module in (socket, errno, fcntl, select, os, termios):
        value = getattr(module, name, None)
        if isinstance(value, int):
            return int(value)
    raise UnsupportedConstruct(f"symbol {name}")


def errno_of(name: str) -> int:
    value = getattr(errno, name, None)
    if value is None:
        raise UnsupportedConstruct(f"errno {name}")
    return int(value)


def evaluate(expression: Expression) -> Value:
    """Raises UnsupportedConstruct for a symbol or function that is not known."""
    match expression:
        case AnyValue():
            return ANY
        case Integer(value):
            return value
        case Float():
            return expression.value
        case Word(name):
            return number_of(name)
        case String():
            return expression.value
        case Array(items):
            return [evaluate(item) for item in items]
        case Struct(items):
            return {
                (item.name if isinstance(item, Named) else str(index)): evaluate(
                    item.value if isinstance(item, Named) else item
                )
                for index, item in enumerate(items)
            }
        case Binary(operator, left, right):
            return _binary(operator, evaluate(left), evaluate(right))
        case Unary(operator, operand):
            return _unary(operator, evaluate(operand))
        case Cast(_, operand):
            return evaluate(operand)
        case Call(name, arguments):
            return _call(name, [evaluate(argument) for argument in arguments])
    raise UnsupportedConstruct(f"value {type(expression).__name__}")


def _binary(operator: str, left: Value, right: Value) -> Value:
    if not isinstance(left, int) or not isinstance(right, int):
        raise UnsupportedConstruct(f"{operator} of {left!r} and {right!r}")
    match operator:
        case "|":
            return left | right
        case "&":
            return left & right
        case "^":
            return left ^ right
        case "<<":
            return left << right
        case ">>":
            return left >> right
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
    raise UnsupportedConstruct(f"operator {operator}")


def _unary(operator: str, operand: Value) -> Value:
    if operator in "&*":
        return operand
    if not isinstance(operand, int):
        raise UnsupportedConstruct(f"{operator} of {operand!r}")
    return ~operand if operator == "~" else -operand if operator == "-" else int(not operand)


PROC_STATES: Final = {  # as Linux writes them in /proc/net/tcp
    "01": "ESTABLISHED",
    "02": "SYN-SENT",
    "03": "SYN-RECEIVED",
    "04": "FIN-WAIT-1",
    "05": "FIN-WAIT-2",
    "06": "TIME-WAIT",
    "07": "CLOSED",
    "08": "CLOSE-WAIT",
    "09": "LAST-ACK",
    "0A": "LISTEN",
    "0B": "CLOSING",
}

_SIZES: Final = {"int": 4, "char": 1, "short": 2, "long": 8, "uint32_t": 4, "uint8_t": 1, "uint16_t": 2}


def _call(name: str, arguments: list[Value]) -> Value:
    first = arguments[0] if arguments else ANY
    match name:
        case "htons" | "ntohs" | "htonl" | "ntohl":
            return first  # ports and addresses are kept in the host's order here
        case "sizeof":
            return _SIZES.get(str(first), 4) if not isinstance(first, int) else 4
        case "inet_addr" if isinstance(first, bytes):
            return first
        case "inet_pton" if len(arguments) > 1:
            return arguments[1]
    raise UnsupportedConstruct(f"function {name}()")
