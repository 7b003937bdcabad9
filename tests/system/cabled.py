"""A host of ours and a kernel with an imperfect cable between them.

    our stack | TUN tun0, a kernel that forwards, TUN cable-r | patch with faults | TUN cable-k, the peer's kernel

The forwarding kernel changes nothing but the hop limit, so all that happens to packets happens in the patch.
"""

import math
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Final

import attrs
import trio

from tests.system.lab import DEVICE, KERNEL, PATIENCE, PREFIX, REST, SHARED, Lab
from tests.system.wiretap import tapped
from tun import netns
from tun.device import TunDevice
from tun.netlink import Netlink
from umuxstack.cable import CableEnd, open_cable
from umuxstack.core.config import TcpPolicy
from umuxstack.core.units import seconds
from umuxstack.driver.fd_link import FdLink
from umuxstack.driver.link import Link
from umuxstack.driver.links.impair import PERFECT, Impairment
from umuxstack.driver.links.patch import Patch
from umuxstack.host import open_host

OURS: Final = f"ipv6.src == {PREFIX}"  # tshark's filter for what our stack sent
ROUTER: Final = "2001:db8:eeee::1"  # it needs one, to have a source for its errors
ROUTER_CABLE: Final = "cable-r"
KERNEL_CABLE: Final = "cable-k"
TIME: Final = 15.0  # seconds that one test may take

_serial = count(1)


@attrs.frozen
class Cabled(Lab):
    """`namespace` and `netlink` are the peer's. In `patch` a is our side, b the kernel's."""

    patch: Patch
    router: str
    """The name of the namespace between."""


@asynccontextmanager
async def open_cabled(
    *,
    to_kernel: Impairment = PERFECT,
    to_us: Impairment = PERFECT,
    offload: bool = True,
    ecn: bool = False,
    tap: Callable[[Link], Link] | None = None,
) -> AsyncIterator[Cabled]:
    """Ends only when no address, session or timer is left in the stack, and if it met no bug.

    `tap` puts something between the stack and its TUN, instead of what judges the traffic of all tests.
    """
    async with AsyncExitStack() as opened:
        names = [netns.owned_name(f"{end}{next(_serial)}") for end in ("r", "k")]
        router, kernel = (opened.enter_context(netns.create(name)) for name in names)
        patch = await opened.enter_async_context(
            open_cable(
                CableEnd(ROUTER_CABLE, names[0], (f"{ROUTER}/128",), (f"{KERNEL}/128",)),
                CableEnd(KERNEL_CABLE, names[1], (f"{KERNEL}/128",), ("::/0",)),
                a_to_b=to_kernel,
                b_to_a=to_us,
            )
        )
        device = router.run(TunDevice, DEVICE, offload=offload)
        opened.callback(device.close)
        with Netlink(router) as netlink:
            netlink.up("lo")
            netlink.set_forwarding(on=True)
            netlink.quiet(DEVICE)
            netlink.up(DEVICE)
            netlink.add_route(PREFIX, device=DEVICE)
        netlink = opened.enter_context(Netlink(kernel))
        netlink.up("lo")
        netlink.set_sysctl("ipv4/tcp_no_metrics_save", "1")
        if ecn:
            netlink.set_sysctl("ipv4/tcp_ecn", "1")
        # A cable that corrupts delivers errors that are nobody's: then only what we sent is judged.
        link = tap(FdLink(device)) if tap is not None else tapped(FdLink(device), OURS if to_us.corrupt else "")
        rest = seconds(REST)
        policy = TcpPolicy(time_wait=rest, fin_wait_2=rest, ecn=ecn)
        host = await opened.enter_async_context(
            open_host(prefix=PREFIX, shared=[SHARED], link=link, tcp=policy, retiring=rest)
        )
        with trio.fail_after(TIME):
            yield Cabled(host, kernel, netlink, device, patch, names[0])
        with trio.move_on_after(PATIENCE):
            while any(host.stack.leftovers().values()):
                await trio.sleep(0.02)
        assert {what: number for what, number in host.stack.leftovers().items() if number} == {}
        assert host.pump.faults == 0


def plausible(events: int, trials: int, share: float) -> bool:
    """Whether `events` out of `trials` may come from this probability: within 5 standard deviations, and 2 more."""
    return abs(events - trials * share) <= 5 * math.sqrt(trials * share * (1 - share)) + 2
