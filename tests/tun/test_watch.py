"""Changes of links, as the kernel tells them."""

import select
import time

import pytest

from tests.tun.conftest import Site
from tun.device import TunDevice
from tun.netlink import Netlink
from tun.watch import LinkChange, LinkWatch


def until_told(watch: LinkWatch, wanted: LinkChange) -> None:
    """At most 5 s."""
    deadline = time.monotonic() + 5
    while wanted not in watch.changes():
        assert select.select([watch], [], [], max(0, deadline - time.monotonic()))[0], "nothing was told"


@pytest.mark.system
def test_down_and_up_are_told(site: Site) -> None:
    with (
        LinkWatch(site.namespace) as watch,
        site.namespace.run(TunDevice, "umuxwatch") as device,
        Netlink(site.namespace) as netlink,
    ):
        until_told(watch, LinkChange(device.name, up=False))
        netlink.up(device.name)
        until_told(watch, LinkChange(device.name, up=True))
        netlink.down(device.name)
        until_told(watch, LinkChange(device.name, up=False))


@pytest.mark.system
def test_other_namespaces_are_not_told_of(site: Site) -> None:
    with LinkWatch() as watch, site.namespace.run(TunDevice, "umuxwatch"), Netlink(site.namespace) as netlink:
        netlink.up("umuxwatch")
        assert "umuxwatch" not in [name for name, _ in watch.changes()]


@pytest.mark.system
def test_more_changes_than_the_kernel_queues_are_no_error(site: Site) -> None:
    with LinkWatch(site.namespace) as watch, Netlink(site.namespace) as netlink:
        for _ in range(400):
            netlink.up("lo")
            netlink.down("lo")
        assert 0 < len(watch.changes()) < 800, "the queue was not full"
        netlink.up("lo")
        until_told(watch, LinkChange("lo", up=True))
