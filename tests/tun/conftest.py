"""A namespace and a link of its own for each system test; anonymous, so that nothing can be left over."""

from collections.abc import Iterator

import attrs
import pytest

from tun import netns
from tun.device import TunDevice
from tun.netlink import Netlink
from tun.netns import Namespace

KERNEL = "2001:db8::1"
PREFIX = "2001:db8:1::/64"
OURS = "2001:db8:1::7"


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with netns.create() as made:
        yield made


@pytest.fixture
def netlink(namespace: Namespace) -> Iterator[Netlink]:
    with Netlink(namespace) as made:
        made.up("lo")
        yield made


@attrs.frozen
class Site:
    """The kernel at KERNEL; PREFIX is routed to the device."""

    namespace: Namespace
    netlink: Netlink
    device: TunDevice

    def connect(self) -> None:
        self.netlink.quiet(self.device.name)
        self.netlink.up(self.device.name)
        self.netlink.add_route(PREFIX, device=self.device.name)


def build(namespace: Namespace, netlink: Netlink, *, offload: bool) -> Iterator[Site]:
    with namespace.run(TunDevice, "tun0", offload=offload) as device:
        site = Site(namespace, netlink, device)
        netlink.add_address("lo", KERNEL)
        site.connect()
        yield site


@pytest.fixture
def site(namespace: Namespace, netlink: Netlink) -> Iterator[Site]:
    yield from build(namespace, netlink, offload=True)


@pytest.fixture
def plain_site(namespace: Namespace, netlink: Netlink) -> Iterator[Site]:
    """Without offload."""
    yield from build(namespace, netlink, offload=False)
