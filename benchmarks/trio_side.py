"""The same trio programs over the kernel's sockets and over this stack: what a user's program gets.

The programs know trio's abstract streams only; `KernelNet` and `UmuxNet` say where these come from.
"""

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol

import trio
from trio.abc import HalfCloseableStream

from benchmarks.kernel_side import CONGESTION, PIECE, PORT, Target
from benchmarks.workers import Channel, pin
from umuxstack.core.listen.listen_0 import Listen0
from umuxstack.core.units import NEVER
from umuxstack.core.wire.address import to_text
from umuxstack.driver.runtime import Host
from umuxstack.host import open_host

Accept = Callable[[], Awaitable[HalfCloseableStream]]


def prefix(worker: int) -> str:
    """What is routed to the stack of that number."""
    return f"2001:db8:1:{worker}::/64"


def kernel_address(worker: int) -> str:
    """The kernel's own, on that stack's TUN."""
    return f"2001:db8:2:{worker}::1"


class Net(Protocol):
    """What a program runs on."""

    async def listen(self, expected: int) -> tuple[Accept, list[Target]]:
        """Ready for `expected` connections: how to accept one, and where they go (empty: to this machine's address)."""

    async def connect(self, target: Target) -> HalfCloseableStream: ...


class KernelNet:
    """trio over the kernel's sockets."""

    @staticmethod
    def _socket() -> trio.socket.SocketType:
        sock = trio.socket.socket(trio.socket.AF_INET6, trio.socket.SOCK_STREAM)
        sock.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_CONGESTION, CONGESTION)
        return sock

    async def listen(self, expected: int) -> tuple[Accept, list[Target]]:
        sock = self._socket()
        await sock.bind(("::", PORT))
        sock.listen(4096)
        return trio.SocketListener(sock).accept, []

    async def connect(self, target: Target) -> trio.SocketStream:
        sock = self._socket()
        await sock.connect(target)
        return trio.SocketStream(sock)


class UmuxNet:
    """trio over this stack: a one-time address for each connection that is expected, an EA for each that is made."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def listen(self, expected: int) -> tuple[Accept, list[Target]]:
        host = self._host
        listener = await host.listen(PORT, backlog=expected)
        door = listener.listener
        assert isinstance(door, Listen0)
        das = host.stack.das
        targets = [(to_text(das(door, host.now(), lifetime=NEVER).lease.address), PORT) for _ in range(expected)]
        host.kick()
        return listener.accept, targets

    async def connect(self, target: Target) -> HalfCloseableStream:
        return await self._host.connect(*target)


@asynccontextmanager
async def kernel_net(worker: int) -> AsyncIterator[Net]:
    yield KernelNet()


@asynccontextmanager
async def umux_net(worker: int) -> AsyncIterator[Net]:
    """A host on a TUN device in this namespace."""
    async with open_host(prefix=prefix(worker), kernel_address=f"{kernel_address(worker)}/64", linger=0.0) as host:
        yield UmuxNet(host)


# The programs


async def sink(net: Net, channel: Channel) -> None:
    """Accepts once and consumes; tells bytes and seconds, from the first byte to the end."""
    accept, targets = await net.listen(1)
    channel.tell(port=PORT, targets=targets)
    async with await accept() as stream:
        total = len(await stream.receive_some())
        began = time.perf_counter()
        while data := await stream.receive_some():
            total += len(data)
        channel.tell(bytes=total, seconds=time.perf_counter() - began)


async def source(net: Net, channel: Channel, target: Target, seconds: float) -> None:
    """Sends for that long."""
    async with await net.connect(target) as stream:
        data = os.urandom(1 << 16) * (PIECE >> 16)
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            await stream.send_all(data)
        await stream.send_eof()
        await stream.receive_some(1)
    channel.tell(done=True)


async def answer(net: Net, channel: Channel, expected: int, cores: tuple[int, ...] = ()) -> None:
    """Sends back what comes, on any number of connections, until the channel closes."""
    pin(cores)

    async def serve(stream: HalfCloseableStream) -> None:
        async with stream:
            while data := await stream.receive_some(4096):
                await stream.send_all(data)

    async def accept_all() -> None:
        while True:
            nursery.start_soon(serve, await accept())

    accept, targets = await net.listen(expected)
    channel.tell(port=PORT, targets=targets)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept_all)
        await trio.lowlevel.wait_readable(channel.fileno())
        nursery.cancel_scope.cancel()


async def connect(net: Net, channel: Channel, target: Target, count: int, at_once: int) -> None:
    """`count` times: connect, a byte there and back, close; `at_once` at a time."""
    left = count

    async def client() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            stream = await net.connect(target)
            await stream.send_all(b"?")
            if await stream.receive_some(1) != b"?":
                raise ConnectionError("no answer")
            await stream.aclose()

    start = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(client)
    channel.tell(count=count, seconds=time.perf_counter() - start)
