"""PyTCP, another TCP in Python, where it is installed (`pip install PyTCP`): the bulk measurements in the same run.

On a TAP without offloads, as it wants it, over IPv6, with its log and its DHCP switched off.
Written for version 2.7.
"""

import importlib
import os
import select
import time
from importlib.util import find_spec
from typing import Any, Final

import pytun

from benchmarks.kernel_side import PORT, Target
from benchmarks.workers import Channel
from tun.netlink import Netlink

OURS: Final = "2001:db8:4::7"
KERNELS: Final = "2001:db8:4::1"
AMOUNT: Final = 1 << 18  # bytes sent: it queues whatever it is given, so a duration would say nothing


def installed() -> bool:
    return find_spec("pytcp") is not None


def _start() -> Any:
    """The running stack's socket module. Everything in PyTCP is a global of the process."""
    tap = pytun.TunTapDevice(name="tap7", flags=pytun.IFF_TAP | pytun.IFF_NO_PI)
    with Netlink() as netlink:
        netlink.quiet("tap7")
        netlink.set_mtu("tap7", 1500)
        netlink.up("tap7")
        netlink.add_address("tap7", f"{KERNELS}/64")
    config: Any = importlib.import_module("pytcp.config")
    config.LOG_CHANEL = set()
    config.IP4_SUPPORT = False
    config.IP6_GUA_AUTOCONFIG = False
    addresses = importlib.import_module("pytcp.lib.ip6_address")
    stack = importlib.import_module("pytcp.lib.stack")
    fd = os.dup(tap.fileno())
    stack.timer.start()
    stack.arp_cache.start()
    stack.nd_cache.start()
    stack.rx_ring.start(fd)
    stack.tx_ring.start(fd)
    stack.packet_handler.start()
    stack.packet_handler.assign_ip6_address(addresses.Ip6Host(f"{OURS}/64"))
    stack.packet_handler.acquire_ip6_addresses()
    return importlib.import_module("pytcp.lib.socket")


def wait_for_end(channel: Channel) -> None:
    """Its threads do the work that is left, until the parent has what it wants."""
    select.select([channel], [], [])


def sink(channel: Channel) -> None:
    """Accepts once and consumes; tells bytes and seconds, from the first byte to the end."""
    module = _start()
    door = module.socket(module.AF_INET6, module.SOCK_STREAM)
    door.bind((OURS, PORT))
    door.listen()
    channel.tell(port=PORT, targets=[(OURS, PORT)])
    sock, _ = door.accept()
    total = len(sock.recv())
    began = time.perf_counter()
    while data := sock.recv():
        total += len(data)
    channel.tell(bytes=total, seconds=time.perf_counter() - began)
    sock.close()
    wait_for_end(channel)


def source(channel: Channel, target: Target, seconds: float) -> None:
    """Sends AMOUNT, whatever `seconds` says."""
    module = _start()
    sock = module.socket(module.AF_INET6, module.SOCK_STREAM)
    sock.bind((OURS, 0))
    sock.connect(target)
    sock.send(os.urandom(AMOUNT))
    sock.close()
    channel.tell(done=True)
    wait_for_end(channel)
