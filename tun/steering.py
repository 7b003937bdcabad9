"""On which cores the kernel receives what a TUN hands it: receive packet steering (RPS).

A packet that is written to a TUN runs through the kernel's whole receiving side within the `write`, on the writer's
core and at its cost. Steered, it is queued for another core, as a network card would queue it; the writer goes on.
Set before a device is made, because the device's own file in sysfs shows in one namespace alone.
Linux: Documentation/networking/scaling.rst; net.core.rps_default_mask (Linux 6.4).
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final

from tun.netlink import Netlink

DEFAULT_MASK: Final = "core/rps_default_mask"


def cpu_mask(cores: Collection[int]) -> str:
    """`cores` as the kernel writes sets of them: hexadecimal, in groups of 32 bits."""
    bits = sum(1 << core for core in set(cores))
    groups = [f"{bits & 0xFFFFFFFF:x}"]
    while bits := bits >> 32:
        groups.append(f"{bits & 0xFFFFFFFF:x}")
    return ",".join(part if part == groups[-1] else part.zfill(8) for part in reversed(groups))


@contextmanager
def steered_to(cores: Collection[int]) -> Iterator[None]:
    """Devices that are made meanwhile, in this thread's namespace, have the kernel receive on `cores`; () as it is.

    Raises `SysctlFailed` where the kernel has no such setting, `PermissionDenied`.
    """
    if not cores:
        yield
        return
    with Netlink() as netlink:
        before = netlink.sysctl(DEFAULT_MASK)
        netlink.set_sysctl(DEFAULT_MASK, cpu_mask(cores))
        try:
            yield
        finally:
            netlink.set_sysctl(DEFAULT_MASK, before)
