"""The composition root of `umux link`: two TUN devices and a patch cable with faults between them.

What lies behind each device is the kernel's: its routing decides what enters the
cable. So any two kernels (namespaces) can be impaired where there is no netem.
Everything is removed at the end, whatever happens.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import ExitStack, asynccontextmanager

import attrs
import trio

from tun import netns
from tun.device import TunDevice
from tun.netlink import Netlink
from umuxstack.driver.fd_link import FdLink
from umuxstack.driver.links.impair import PERFECT, Impairment
from umuxstack.driver.links.patch import Patch


@attrs.frozen
class CableEnd:
    """One end: a TUN device's name, the namespace it appears in (None: this one), what the kernel there gets.

    `addresses` as "2001:db8:a::1/64", given to the device; `routes` are the prefixes that lead into the cable.
    """

    name: str
    namespace: str | None = None
    addresses: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()


@asynccontextmanager
async def open_cable(
    a: CableEnd,
    b: CableEnd,
    *,
    a_to_b: Impairment = PERFECT,
    b_to_a: Impairment = PERFECT,
    mtu: int = 1500,
) -> AsyncIterator[Patch]:
    """A cable between two new TUN devices, carrying packets until the block ends.

    Raises TunError (the message says the way out) if a device, namespace, address or route cannot be had.
    """
    with ExitStack() as opened:
        links = [FdLink(_open_end(end, mtu, opened)) for end in (a, b)]
        patch = Patch(*links, a_to_b=a_to_b, b_to_a=b_to_a)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(patch.run)
            try:
                yield patch
            finally:
                nursery.cancel_scope.cancel()


def _open_end(end: CableEnd, mtu: int, opened: ExitStack) -> TunDevice:
    namespace = None if end.namespace is None else opened.enter_context(netns.open_named(end.namespace))
    if namespace is None:
        device = opened.enter_context(TunDevice(end.name, mtu=mtu))
    else:
        device = opened.enter_context(namespace.run(TunDevice, end.name, mtu=mtu))
    with Netlink(namespace) as netlink:
        netlink.quiet(device.name)
        netlink.up(device.name)
        for address in end.addresses:
            netlink.add_address(device.name, address)
        _add_routes(netlink, end.routes, device.name)
    return device


def _add_routes(netlink: Netlink, routes: Iterable[str], name: str) -> None:
    for prefix in routes:
        netlink.add_route(prefix, device=name)
