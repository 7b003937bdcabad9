"""Where the kernel receives: the mask, and a device that has it."""

import pytest

from tests.tun.conftest import Site
from tun import netns
from tun.device import TunDevice
from tun.netlink import Netlink
from tun.steering import DEFAULT_MASK, cpu_mask, steered_to


@pytest.mark.parametrize(
    ("cores", "mask"),
    [((0,), "1"), ((1,), "2"), ((0, 1, 3), "b"), ((31,), "80000000"), ((32,), "1,00000000"), ((33, 2), "2,00000004")],
)
def test_a_mask_is_written_as_the_kernel_reads_it(cores: tuple[int, ...], mask: str) -> None:
    assert cpu_mask(cores) == mask


@pytest.mark.system
def test_only_devices_made_meanwhile_are_steered(site: Site) -> None:
    def masks() -> tuple[str, str]:
        with Netlink() as netlink:
            before = netlink.sysctl(DEFAULT_MASK)
            with steered_to((1,)):
                during = netlink.sysctl(DEFAULT_MASK)
            assert netlink.sysctl(DEFAULT_MASK) == before
            return before, during

    assert site.namespace.run(masks) == ("0", "2")


@pytest.mark.system
def test_a_steered_device_works_and_the_setting_is_as_before() -> None:
    with (
        netns.create() as namespace,
        namespace.run(TunDevice, kernel_cores=(0,)) as device,
        Netlink(namespace) as netlink,
    ):
        netlink.up(device.name)
        assert netlink.sysctl(DEFAULT_MASK) == "0"
        assert device.write_batch([(b"\x60" + bytes(39), b"", 0, 0)]) == 1
