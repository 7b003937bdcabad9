"""The three hosts and the network between them: on TUN devices in namespaces of our own, or in memory.

    unified client --- router --- unified server
                         |
                    legacy host

The namespaces have no names: they are gone with this process, however it ends.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs

from tun import netns
from tun.device import TunDevice
from tun.netlink import Netlink
from umuxstack.cli.demo.capture import Capture, KernelCapture, TappedLink
from umuxstack.cli.demo.visitors import KernelVisitor, StackVisitor, Visitor
from umuxstack.core.config import LinkCaps, StackConfig, TcpPolicy
from umuxstack.core.units import Micros, millis, seconds
from umuxstack.core.wire.address import in_prefix
from umuxstack.driver.fd_link import FdLink
from umuxstack.driver.links.impair import Impairment
from umuxstack.driver.links.memory import MemoryRouter
from umuxstack.driver.links.pcap import PcapLink
from umuxstack.driver.links.pcapng import Sink
from umuxstack.driver.runtime import Host
from umuxstack.host import make_config, open_host

SERVER_PREFIX: Final = "2001:db8:1::/64"
CLIENT_PREFIX: Final = "2001:db8:2::/64"
LEGACY_PREFIX: Final = "2001:db8:3::/64"
LEGACY_ADDRESS: Final = "2001:db8:3::2"
ROUTER_ADDRESS: Final = "2001:db8:3::1"
_WIRE_DELAY: Final = millis(1)  # in memory, each way
_PLAIN: Final = LinkCaps(segmentation=False, checksum=False)  # packets as on a wire, so that the capture shows them so


@attrs.frozen
class Site:
    """Everything the story needs. `kind` is "tun" or "memory"."""

    kind: str
    server: Host
    client: Host
    unified: Visitor
    legacy: Visitor
    capture: Capture
    file: PcapLink


def server_config(rest: float, **settings: Any) -> StackConfig:
    """`rest`: seconds for TIME-WAIT; the default of a minute is too long for a story."""
    return make_config(SERVER_PREFIX, **_resting(rest), **settings)


def _resting(rest: float) -> dict[str, Any]:
    time: Micros = seconds(rest)
    return {"tcp": TcpPolicy(time_wait=time, fin_wait_2=time), "retiring": time}


def _owned_by(config: StackConfig) -> Any:
    return lambda address: in_prefix(address, config.prefix, config.prefix_length)


@asynccontextmanager
async def tun_site(pcap: Path, rest: float, **settings: Any) -> AsyncIterator[Site]:
    """On real devices; `pcap` is the file for Wireshark.

    Raises TunError where this machine or user cannot; nothing is left then.
    """
    config = server_config(rest, **settings)
    async with AsyncExitStack() as opened:
        router = opened.enter_context(netns.create())
        legacy = opened.enter_context(netns.create())
        links = []
        with Netlink(router) as netlink, Netlink(legacy) as far:
            netlink.set_forwarding(on=True)
            for name, prefix in (("server", SERVER_PREFIX), ("client", CLIENT_PREFIX)):
                device = router.run(TunDevice, name, offload=False)
                opened.callback(device.close)
                netlink.quiet(name)
                netlink.up(name)
                netlink.add_route(prefix, device=name)
                links.append(FdLink(device))
            netlink.add_veth("legacy", "eth0", legacy)
            ends = (netlink, "legacy", ROUTER_ADDRESS), (far, "eth0", LEGACY_ADDRESS)
            for side, name, _ in ends:
                side.quiet(name)
                side.up(name)
            for number, (side, name, address) in enumerate(ends, 1):  # the kernel puts addresses off without a carrier
                side.add_address(name, f"{address}/64")
                side.add_address(name, f"fe80::{number}/64")  # a router asks for neighbours from a link-local one only
            far.add_route("::/0", gateway=ROUTER_ADDRESS)
        capture = KernelCapture(_owned_by(config), router, "server")
        opened.callback(capture.close)
        link = PcapLink(links[0], Sink(pcap), name="server")
        server = await opened.enter_async_context(open_host(config=config, link=link))
        link.follow(server)
        client = await opened.enter_async_context(open_host(link=links[1], prefix=CLIENT_PREFIX, **_resting(rest)))
        yield Site(
            "tun",
            server,
            client,
            StackVisitor(client, CLIENT_PREFIX),
            KernelVisitor(legacy, LEGACY_ADDRESS),
            capture,
            link,
        )


@asynccontextmanager
async def memory_site(pcap: Path, rest: float, **settings: Any) -> AsyncIterator[Site]:
    """In this process alone: the legacy host is a stack of ours that goes by ports, with one shared address."""
    config = server_config(rest, **settings)
    network = MemoryRouter()
    wire = Impairment(delay=_WIRE_DELAY)
    ends = [
        network.attach(prefix, caps=_PLAIN, from_host=wire, to_host=wire)
        for prefix in (SERVER_PREFIX, CLIENT_PREFIX, LEGACY_PREFIX)
    ]
    capture = Capture(_owned_by(config))
    link = PcapLink(TappedLink(ends[0], capture), Sink(pcap), name="server")
    async with (
        open_host(config=config, link=link) as server,
        open_host(prefix=CLIENT_PREFIX, link=ends[1], **_resting(rest)) as client,
        open_host(prefix=LEGACY_PREFIX, link=ends[2], shared=[LEGACY_ADDRESS], **_resting(rest)) as legacy,
    ):
        link.follow(server)
        yield Site(
            "memory",
            server,
            client,
            StackVisitor(client, CLIENT_PREFIX),
            StackVisitor(legacy, LEGACY_ADDRESS, source=LEGACY_ADDRESS),
            capture,
            link,
        )
