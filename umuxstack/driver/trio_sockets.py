"""Trio's own sockets on a host: what makes unchanged trio programs run over it.

There is no IPv4 here: EAFNOSUPPORT, which trio's own helpers take as "try the
next address". Families that are not the network's (AF_UNIX, …) are the kernel's.
"""

import errno
import socket as stdlib
from socket import SocketKind
from typing import TYPE_CHECKING, Any, Final

import trio

from umuxstack.core.address.selection import order_destinations
from umuxstack.core.units import Address
from umuxstack.driver.addresses import to_address
from umuxstack.driver.errno_map import os_error
from umuxstack.driver.socket_options import SocketOptions
from umuxstack.driver.socket_type import UmuxSocket
from umuxstack.driver.streams import UmuxStream

if TYPE_CHECKING:
    from umuxstack.driver.runtime import Host

_TYPE_MASK: Final = ~(stdlib.SOCK_NONBLOCK | stdlib.SOCK_CLOEXEC)


class UmuxSocketFactory(trio.abc.SocketFactory):
    """For `trio.socket.set_custom_socket_factory`: sockets that live on one host."""

    def __init__(self, host: "Host") -> None:
        self._host = host
        self._count = 0

    def socket(  # type: ignore[override]  # trio never leaves one out
        self,
        family: int,
        type: int,  # noqa: A002 - trio's names
        proto: int,
    ) -> trio.socket.SocketType:
        """Raises OSError: EAFNOSUPPORT for IPv4, EPROTONOSUPPORT for anything but TCP and UDP over IPv6."""
        if family not in (stdlib.AF_INET, stdlib.AF_INET6):
            return trio.socket.from_stdlib_socket(stdlib.socket(family, type, proto))
        if family == stdlib.AF_INET:
            raise os_error(errno.EAFNOSUPPORT, "this stack speaks IPv6")
        kind = type & _TYPE_MASK
        if (kind, proto) not in (
            (stdlib.SOCK_STREAM, 0),
            (stdlib.SOCK_STREAM, stdlib.IPPROTO_TCP),
            (stdlib.SOCK_DGRAM, 0),
            (stdlib.SOCK_DGRAM, stdlib.IPPROTO_UDP),
        ):
            raise os_error(errno.EPROTONOSUPPORT)
        return self._make(SocketKind(kind), proto)

    def wrap(self, stream: UmuxStream, inherited: SocketOptions | None = None) -> UmuxSocket:
        """A connected socket over `stream`, which it owns from now on."""
        socket = self._make(stdlib.SOCK_STREAM, stdlib.IPPROTO_TCP)
        socket.attach(stream, inherited)
        return socket

    def _make(self, kind: SocketKind, proto: int) -> UmuxSocket:
        self._count = (self._count + 1) & 0xFFFFFF
        return UmuxSocket(self._host, kind, proto, self._count)


class UmuxHostnameResolver(trio.abc.HostnameResolver):
    """Names by the system's resolver, but only those that lead to IPv6 addresses; ours is the only network there is.

    The resolver orders them as is good for the kernel's addresses; RFC 6724's rules are applied anew for ours.
    """

    def __init__(self, prefix: Address) -> None:
        """`prefix`: where our sources are."""
        self._source = prefix

    async def getaddrinfo(
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,  # noqa: A002 - trio's names
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        """Raises socket.gaierror. AI_ADDRCONFIG asks about the kernel's addresses, so it is ignored."""
        if family not in (0, stdlib.AF_INET6):
            raise stdlib.gaierror(stdlib.EAI_FAMILY, "this stack speaks IPv6")
        flags &= ~(stdlib.AI_ADDRCONFIG | stdlib.AI_V4MAPPED | stdlib.AI_ALL)

        def ask() -> list[Any]:
            found = stdlib.getaddrinfo(host, port, stdlib.AF_INET6, type, proto, flags)
            addresses = [to_address(str(entry[4][0]).partition("%")[0]) for entry in found]
            order = order_destinations(addresses, lambda destination: self._source)
            ranked = sorted(zip(addresses, found, strict=True), key=lambda pair: order.index(pair[0]))
            return [entry for _, entry in ranked]

        return await trio.to_thread.run_sync(ask, abandon_on_cancel=True)

    async def getnameinfo(self, sockaddr: tuple[str, int] | tuple[str, int, int, int], flags: int) -> tuple[str, str]:
        return await trio.to_thread.run_sync(stdlib.getnameinfo, sockaddr, flags, abandon_on_cancel=True)
