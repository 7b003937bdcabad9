"""A host of ours on a real TUN, with the kernel as its peer; and, behind a router, a second kernel."""

import errno
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from tests.system import peer
from tests.system.wiretap import tapped
from tun import netns
from tun.device import TunDevice
from tun.netlink import Netlink
from tun.netns import Namespace
from umuxstack.core.config import TcpPolicy
from umuxstack.core.units import Address, seconds
from umuxstack.driver.fd_link import FdLink
from umuxstack.driver.listeners import UmuxListener
from umuxstack.driver.runtime import Host
from umuxstack.driver.streams import UmuxStream
from umuxstack.host import open_host

KERNEL = "2001:db8:ffff::1"
PREFIX = "2001:db8:1::/64"
SHARED = "2001:db8:1::80"  # our legacy address
DEVICE = "tun0"
PATIENCE = 15.0  # seconds
REST = 0.3  # seconds of TIME-WAIT: a test waits for the end of every address


class Process:
    """A `tests/system/peer.py` in a namespace."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    async def line(self) -> str:
        assert self._process.stdout is not None
        return str(await trio.to_thread.run_sync(self._process.stdout.readline, abandon_on_cancel=True)).strip()

    async def ready(self) -> None:
        assert await self.line() == "ready"

    def say(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{text}\n")
        self._process.stdin.flush()

    async def result(self) -> dict[str, Any]:
        """What it found out."""
        result: dict[str, Any] = json.loads(await self.line())
        return result


@attrs.frozen
class Lab:
    """`host` is ours; the kernel of `namespace` has the address KERNEL, and routes PREFIX to the TUN."""

    host: Host
    namespace: Namespace
    netlink: Netlink
    device: TunDevice

    def peer(self, *arguments: object, namespace: Namespace | None = None) -> Process:
        command = [sys.executable, "-I", str(Path(peer.__file__)), *map(str, arguments)]
        pipe = subprocess.PIPE
        return Process((namespace or self.namespace).spawn(command, stdin=pipe, stdout=pipe, text=True))

    def socket(self, kind: int = socket.SOCK_STREAM, protocol: int = 0) -> trio.socket.SocketType:
        """A socket of the kernel, in its namespace."""
        return trio.socket.from_stdlib_socket(self.namespace.run(socket.socket, socket.AF_INET6, kind, protocol))

    @asynccontextmanager
    async def kernel_client(self) -> AsyncIterator[tuple[trio.socket.SocketType, UmuxStream]]:
        """A session that the kernel opened, to an SSA: its socket, our stream."""
        async with await self.host.listen(80) as listener:
            with self.socket() as client:
                await client.connect((self.open_door(listener), 80))
                async with await listener.accept() as stream:
                    yield client, stream

    @asynccontextmanager
    async def kernel_server(self, receive_buffer: int = 0) -> AsyncIterator[tuple[trio.socket.SocketType, UmuxStream]]:
        """A session that we opened, from an EA: the kernel's socket, our stream."""
        with self.socket() as server:
            if receive_buffer:
                server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            await server.bind((KERNEL, 0))
            server.listen(1)
            async with await self.host.connect(KERNEL, server.getsockname()[1]) as stream:
                connection, _ = await server.accept()
                with connection:
                    yield connection, stream

    def open_door(self, listener: UmuxListener, **options: Any) -> str:
        """DAS: a minted SSA."""
        return text(self.host.das(listener, **options).lease.address)

    async def reconnect(self) -> None:
        """The link is up again; the kernel has forgotten its routes."""
        self.netlink.up(DEVICE)
        self.netlink.add_route(PREFIX, device=DEVICE)


def text(address: Address) -> str:
    return str(IPv6Address(address))


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what the kernel or the network is about to do; there is nothing to be woken by."""
    with trio.fail_after(PATIENCE):
        while not condition():
            await trio.sleep(0.005)


@asynccontextmanager
async def open_lab(*, offload: bool = True, mtu: int = 1500) -> AsyncIterator[Lab]:
    """Ends only when no address, session or timer is left in the stack, and if it met no bug."""
    async with AsyncExitStack() as opened:
        namespace = opened.enter_context(netns.create())
        netlink = opened.enter_context(Netlink(namespace))
        device = namespace.run(TunDevice, DEVICE, offload=offload, mtu=mtu)
        opened.callback(device.close)
        netlink.up("lo")
        netlink.add_address("lo", KERNEL)
        netlink.quiet(DEVICE)
        netlink.up(DEVICE)
        netlink.add_route(PREFIX, device=DEVICE)
        rest = seconds(REST)
        policy = TcpPolicy(time_wait=rest, fin_wait_2=rest)
        host = await opened.enter_async_context(
            open_host(prefix=PREFIX, shared=[SHARED], link=tapped(FdLink(device)), tcp=policy, retiring=rest)
        )
        with trio.fail_after(PATIENCE + 5):
            yield Lab(host, namespace, netlink, device)
        with trio.move_on_after(PATIENCE):
            while any(host.stack.leftovers().values()):
                await trio.sleep(0.02)
        assert {what: count for what, count in host.stack.leftovers().items() if count} == {}
        assert host.pump.faults == 0


# With super-segments and partial checksums, and without.
both = pytest.mark.parametrize("offload", [True, False], ids=["offload", "plain"])


@contextmanager
def sniffer(lab: Lab) -> Iterator[Callable[[], list[bytes]]]:
    """What the stack sends, recorded by the kernel: call it for the packets so far."""
    everything = 0x0003  # ETH_P_ALL
    with lab.namespace.run(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(everything)) as recorder:
        recorder.setblocking(False)
        recorder.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        recorder.bind((DEVICE, everything))
        packets: list[bytes] = []

        def take() -> list[bytes]:
            while True:
                try:
                    packet, _, _, address = recorder.recvmsg(65600)
                except OSError as error:
                    if error.errno in (errno.EAGAIN, errno.ENETDOWN):
                        return packets
                    raise
                if address[2] != socket.PACKET_OUTGOING:  # outgoing is what the kernel sends to us
                    packets.append(packet)

        yield take
