"""What becomes of the links of one network namespace, as the kernel tells it: rtnetlink(7), RTMGRP_LINK.

A TUN's own descriptor does not tell that its device was set down or up.
"""

import errno
import socket
import struct
from types import TracebackType
from typing import Final, NamedTuple, Self

from tun.netlink import IFF_UP
from tun.netns import Namespace

_RTMGRP_LINK: Final = 1
_RTM_NEWLINK: Final = 16
_IFLA_IFNAME: Final = 3
_MESSAGE: Final = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_LINK: Final = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, change
_ATTRIBUTE: Final = struct.Struct("=HH")  # rtattr: length, type
_DATAGRAM: Final = 65536


class LinkChange(NamedTuple):
    """Something about a link is new; `up`: set up by the administrator, as it is now."""

    name: str
    up: bool


class LinkWatch:
    """Tells changes of links. Wait until it is readable (it has a `fileno`), then call `changes`.

    None: the namespace of the calling thread when this is made. Close it, or use it in a `with`. Raises OSError.
    """

    __slots__ = ("_socket",)

    def __init__(self, namespace: Namespace | None = None) -> None:
        self._socket: socket.socket = _open() if namespace is None else namespace.run(_open)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def changes(self) -> list[LinkChange]:
        """What has happened since the last call, in order. What came too fast for the kernel's queue is lost."""
        found: list[LinkChange] = []
        while True:
            try:
                data = self._socket.recv(_DATAGRAM)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
            else:
                found += _parse(data)


def _open() -> socket.socket:
    watching = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    try:
        watching.bind((0, _RTMGRP_LINK))
    except OSError:
        watching.close()
        raise
    return watching


def _parse(data: bytes) -> list[LinkChange]:
    """The links that were made or changed, of a datagram from the kernel: messages one behind another."""
    found: list[LinkChange] = []
    at = 0
    while at + _MESSAGE.size + _LINK.size <= len(data):
        length, kind, *_ = _MESSAGE.unpack_from(data, at)
        if kind == _RTM_NEWLINK:
            flags = _LINK.unpack_from(data, at + _MESSAGE.size)[3]
            found.append(LinkChange(_name(data[at + _MESSAGE.size + _LINK.size : at + length]), bool(flags & IFF_UP)))
        at += max(_aligned(length), _MESSAGE.size)
    return found


def _name(attributes: bytes) -> str:
    at = 0
    while at + _ATTRIBUTE.size <= len(attributes):
        length, kind = _ATTRIBUTE.unpack_from(attributes, at)
        if kind == _IFLA_IFNAME:
            return attributes[at + _ATTRIBUTE.size : at + length].split(b"\0")[0].decode(errors="replace")
        at += max(_aligned(length), _ATTRIBUTE.size)
    return ""


def _aligned(length: int) -> int:
    return length + 3 & ~3
