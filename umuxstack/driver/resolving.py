"""A socket's address, a tuple of host and port, as the packed address and the number that are used inside."""

import socket as stdlib
from typing import Any

import trio

from umuxstack.core.errors import LocalError
from umuxstack.core.units import Address
from umuxstack.driver.addresses import to_address


async def resolve(address: Any, kind: stdlib.SocketKind, proto: int, *, local: bool) -> tuple[Address, int]:
    """(host, port[, flow, scope]) as packed address and number; names go through trio's resolver.

    `local`: "" is any address, and not this host's. Raises ValueError, OverflowError, OSError, as the standard library.
    """
    if not isinstance(address, tuple) or not 2 <= len(address) <= 4:
        raise ValueError("address should be a (host, port, [flowinfo, [scopeid]]) tuple")
    host, port, *_ = address
    if isinstance(port, int) and not 0 <= port <= 0xFFFF:
        raise OverflowError("port must be 0-65535")
    if isinstance(port, int) and isinstance(host, str):
        try:
            return to_address(host), port
        except LocalError:
            pass  # a name, or ""
    flags = stdlib.AI_PASSIVE if local else 0
    found = await trio.socket.getaddrinfo(host or None, port, stdlib.AF_INET6, kind, proto, flags)
    name, number = found[0][4][:2]
    assert isinstance(name, str), "numeric addresses of AF_INET6 are text"
    return to_address(name), int(number)
