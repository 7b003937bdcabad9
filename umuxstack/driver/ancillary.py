"""Ancillary data of datagrams: what IPV6_RECVPKTINFO and IPV6_RECVHOPLIMIT ask for, and IPV6_PKTINFO chooses.

RFC 3542 6.1, 6.2, 6.3. The interface's number is always 0: there is one link.
"""

import errno
import socket as stdlib
import struct
from collections.abc import Iterable
from typing import Final, TypeAlias

from umuxstack.core.udp.datagram import Datagram
from umuxstack.core.units import UNSPECIFIED, Address
from umuxstack.driver.errno_map import os_error
from umuxstack.driver.socket_options import SocketOptions

Ancillary: TypeAlias = list[tuple[int, int, bytes]]

_PKTINFO: Final = struct.Struct("=16sI")  # struct in6_pktinfo: address, interface
_INT: Final = struct.Struct("=i")


def told(datagram: Datagram, options: SocketOptions, room: int) -> Ancillary:
    """What the socket's options want to know of `datagram`, as far as `room` bytes reach."""
    items: Ancillary = []
    if options.wants(stdlib.IPPROTO_IPV6, stdlib.IPV6_RECVPKTINFO):
        items.append((stdlib.IPPROTO_IPV6, stdlib.IPV6_PKTINFO, _PKTINFO.pack(datagram.local, 0)))
    if options.wants(stdlib.IPPROTO_IPV6, stdlib.IPV6_RECVHOPLIMIT):
        items.append((stdlib.IPPROTO_IPV6, stdlib.IPV6_HOPLIMIT, _INT.pack(datagram.hop_limit)))
    fitting: Ancillary = []
    for item in items:
        room -= stdlib.CMSG_SPACE(len(item[2]))
        if room >= 0:
            fitting.append(item)
    return fitting


def chosen_source(items: Iterable[tuple[int, int, bytes]]) -> Address | None:
    """The local address that packet info asks for; None if it leaves the choice to us. Raises OSError EINVAL."""
    source: Address | None = None
    for level, kind, value in items:
        if (level, kind) != (stdlib.IPPROTO_IPV6, stdlib.IPV6_PKTINFO) or len(value) != _PKTINFO.size:
            raise os_error(errno.EINVAL, "only IPV6_PKTINFO means something here")
        source = Address(value[:16])
    return None if source == UNSPECIFIED else source
