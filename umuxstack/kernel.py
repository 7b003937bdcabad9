"""The composition root of `umux drill --live`: the kernel as a stack under test, alone in a namespace of its own.

One TUN device leads out of the namespace; everything that the kernel sends comes to whoever reads it, and what is
written there is all that the kernel receives. Nothing is named, so nothing can be left behind.
"""

import contextlib
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import attrs

from tun import netns
from tun.device import TunDevice
from tun.errors import PermissionDenied, SysctlFailed
from tun.netlink import Netlink
from tun.netns import Namespace

DEVICE: Final = "tun0"
# Not /proc/net: that is of the process's first thread.
_TABLES: Final[dict[int, Path]] = {
    socket.AF_INET6: Path("/proc/thread-self/net/tcp6"),
    socket.AF_INET: Path("/proc/thread-self/net/tcp"),
}


@attrs.frozen
class Kernel:
    """`device` is the far end of its only link. Satisfies what `umuxstack.conformance.live` asks for."""

    namespace: Namespace
    device: TunDevice
    netlink: Netlink

    def enter(self) -> None:
        """The calling thread lives in the namespace from now on."""
        self.namespace.enter_for_good()

    def set_sysctl(self, path: str, value: str) -> bool:
        """A setting under /proc/sys, of this namespace ("net/ipv4/tcp_sack"). False: it has none such, or refuses."""
        if not path.startswith("net/"):
            return False
        try:
            self.netlink.set_sysctl(path.removeprefix("net/"), value)
        except (SysctlFailed, PermissionDenied):  # a restricted congestion control, say: not for namespaces
            return False
        return True

    def sockets(self, family: int) -> str:
        """The kernel's table of TCP sockets of this family, as text. It takes milliseconds to make."""
        return self.namespace.run(_TABLES[family].read_text)


@contextlib.contextmanager
def open_kernel(address: str, *, mtu: int) -> Iterator[Kernel]:
    """A kernel with one address, of IPv6 or IPv4, and a route for everything else into its device. Raises TunError."""
    with contextlib.ExitStack() as opened:
        namespace = opened.enter_context(netns.create())
        # Without offload every packet is one that could be on a wire, its checksum complete.
        device = opened.enter_context(namespace.run(TunDevice, DEVICE, mtu=mtu, offload=False))
        netlink = opened.enter_context(Netlink(namespace))
        netlink.up("lo")
        netlink.quiet(DEVICE)
        netlink.add_address("lo", address)
        netlink.up(DEVICE)
        netlink.add_route("::/0" if ip_address(address).version == 6 else "0.0.0.0/0", device=DEVICE)
        yield Kernel(namespace, device, netlink)
