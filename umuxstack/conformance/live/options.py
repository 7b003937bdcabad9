"""setsockopt and getsockopt at a kernel: values as structs, and Linux's numbers of what Python has no name for."""

import socket
import struct
import sys
from typing import TYPE_CHECKING, Final

from umuxstack.conformance.live import info
from umuxstack.conformance.outcome import Mismatch, UnsupportedConstruct
from umuxstack.conformance.sockopt import option_name
from umuxstack.conformance.symbols import ANY, FIRST_FOREIGN, OWN, Value

if TYPE_CHECKING:
    from typing import Literal

ORDER: "Final[Literal['little', 'big']]" = sys.byteorder
SOL: Final = socket.SOL_SOCKET
TCP: Final = socket.IPPROTO_TCP
IPV6: Final = socket.IPPROTO_IPV6

# Numbers of <linux/tcp.h>, <linux/in.h>, <linux/in6.h> and <asm-generic/socket.h>.
_LINUX: Final = {
    "TCP_INQ": 36,
    "TCP_TX_DELAY": 37,
    "TCP_SAVE_SYN": 27,
    "SO_MAX_PACING_RATE": 47,
    "SO_DEBUG": 1,
    "IP_FREEBIND": 15,
    "IP_MTU_DISCOVER": 10,
    "IP_RECVERR": 11,
    "IP_MTU": 14,
    "IPV6_MTU_DISCOVER": 23,
    "IPV6_RECVERR": 25,
    "IPV6_MTU": 24,
}
_NUMBERS: Final = {OWN[name]: number for name, number in _LINUX.items()}
# What a script calls by IPv4's names although its link speaks IPv6.
_OF_IPV6: Final = {
    (0, socket.IP_TOS): (IPV6, socket.IPV6_TCLASS),
    (0, OWN["IP_MTU_DISCOVER"]): (IPV6, OWN["IPV6_MTU_DISCOVER"]),
    (0, OWN["IP_FREEBIND"]): (IPV6, 78),
    (0, OWN["IP_RECVERR"]): (IPV6, OWN["IPV6_RECVERR"]),
}
_LINGER: Final = struct.Struct("ii")
_INT: Final = struct.Struct("=I")
_TEXT: Final = 16  # octets of a congestion control's name
_FOREIGN_FLAGS: Final = OWN["MSG_ZEROCOPY"] | OWN["MSG_FASTOPEN"] | socket.MSG_ERRQUEUE


def place(level: int, name: int, *, ipv4: bool) -> tuple[int, int]:
    """The option's numbers in Linux; `ipv4`: what the link speaks. Raises UnsupportedConstruct for another system's."""
    if not ipv4:
        level, name = _OF_IPV6.get((level, name), (level, name))
    name = _NUMBERS.get(name, name)
    if name >= FIRST_FOREIGN:
        raise UnsupportedConstruct(f"socket option {option_name(level, name)}")
    return level, name


def flags(value: int) -> int:
    """Flags of send and recv. Raises UnsupportedConstruct for what needs more than a flag."""
    if value & _FOREIGN_FLAGS or value >= FIRST_FOREIGN:
        raise UnsupportedConstruct("MSG_ZEROCOPY, MSG_FASTOPEN or MSG_ERRQUEUE")
    return value


def set_option(made: socket.socket, level: int, name: int, value: Value, *, ipv4: bool) -> None:
    given = value[0] if isinstance(value, list) and value else value
    level, name = place(level, name, ipv4=ipv4)
    if isinstance(given, dict) and (level, name) == (SOL, socket.SO_LINGER):
        made.setsockopt(level, name, _LINGER.pack(*given.values()))
    elif isinstance(given, bytes):
        made.setsockopt(level, name, given)
    elif isinstance(given, int) and value != 0:
        made.setsockopt(level, name, _INT.pack(given & 0xFFFFFFFF))  # as C has it: 0xffffffff is -1
    else:
        raise UnsupportedConstruct(f"setsockopt {option_name(level, name)}")


def check_option(made: socket.socket, level: int, name: int, expected: Value, *, ipv4: bool) -> None:
    """Compares the option with what the script says it is."""
    wanted = expected[0] if isinstance(expected, list) and expected else expected
    shown = option_name(level, name)
    level, name = place(level, name, ipv4=ipv4)
    actual: Value
    if (level, name) == (TCP, socket.TCP_INFO):
        fields = info.read(made.getsockopt(level, name, info.SIZE))
        for field, value in wanted.items() if isinstance(wanted, dict) else ():
            if field not in fields:
                raise UnsupportedConstruct(field)
            if value is not ANY and value != fields[field]:
                raise Mismatch(f"getsockopt: {field} is {fields[field]!r}, expected {value!r}")
        return
    if (level, name) == (SOL, socket.SO_LINGER):
        actual = list(_LINGER.unpack(made.getsockopt(level, name, _LINGER.size)))
        wanted = list(wanted.values()) if isinstance(wanted, dict) else wanted
    elif (level, name) == (TCP, socket.TCP_CONGESTION):
        actual = made.getsockopt(level, name, _TEXT).rstrip(b"\0")
    else:
        actual = made.getsockopt(level, name)
    if wanted is not ANY and wanted != actual:
        raise Mismatch(f"getsockopt {shown} says {actual!r}, expected {wanted!r}")


def abort_on_close(made: socket.socket) -> None:
    """A close will not leave the connection to the kernel."""
    try:
        made.setsockopt(SOL, socket.SO_LINGER, _LINGER.pack(1, 0))
    except OSError:
        return  # closed meanwhile
