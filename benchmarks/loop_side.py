"""The same programs on the bare core: a TUN, the stack and `poll`, without trio. What the driver's comfort costs.

Also the shortest example of how the stack's inputs and outputs are driven.
"""

import os
import select
import time
from collections.abc import Callable
from typing import Final

from benchmarks.kernel_side import PIECE, PORT, Target
from benchmarks.trio_side import kernel_address, prefix
from benchmarks.workers import Channel, pin
from tun.device import TunDevice
from tun.netlink import Netlink
from umuxstack.core.config import LinkCaps
from umuxstack.core.entropy import Entropy
from umuxstack.core.listen.listen_0 import Listen0
from umuxstack.core.listen.listener import Listener
from umuxstack.core.network.endpoint import Waitable
from umuxstack.core.stack import Stack
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.units import NEVER, Micros
from umuxstack.core.wire.address import parse, to_text
from umuxstack.driver.runtime import settle_garbage_collector
from umuxstack.host import make_config

BATCH: Final = 64
LONGEST_SLEEP: Final = 50  # milliseconds


class Loop:
    """A stack on a TUN device in this namespace. `on_ready` is called with each endpoint whose readiness changed.

    `steered`: on the first core alone, and the kernel receives on the others, as with `umux up --core`.
    """

    def __init__(self, channel: Channel, *, steered: bool = False) -> None:
        self._began = time.monotonic_ns()
        others: set[int] = set()
        if steered:
            first, *rest = sorted(os.sched_getaffinity(0))
            others.update(rest)
            pin((first,))
        self.device = TunDevice(kernel_cores=others)
        name = self.device.name
        with Netlink() as netlink:
            netlink.quiet(name)
            netlink.up(name)
            netlink.add_address(name, f"{kernel_address(0)}/64")
            netlink.add_route(prefix(0), device=name)
        link = LinkCaps(mtu=1500, segmentation=self.device.segmentation, checksum=self.device.checksum)
        self.stack = Stack(make_config(prefix(0), link=link), Entropy(os.urandom(32)), Micros(0))
        settle_garbage_collector()  # as `umux up` does
        self.channel = channel
        self.on_ready: Callable[[Waitable, Micros], None] = lambda endpoint, now: None
        self.done = False

    def now(self) -> Micros:
        return Micros((time.monotonic_ns() - self._began) // 1000)

    def run(self) -> None:
        """Until `done`, or the channel closes."""
        stack, device = self.stack, self.device
        receive = stack.receive
        poll = select.poll()
        poll.register(device.fileno(), select.POLLIN)
        poll.register(self.channel.fileno(), select.POLLIN)
        pending: list[tuple[bytes, bytes | bytearray | memoryview, int, int]] = []
        while not self.done:
            packets = device.read_batch(BATCH)
            now = self.now()
            for buf, base, gso_size, csum_ok in packets:
                receive(buf, base, gso_size, csum_ok, now)
            if stack.is_due(now):
                stack.advance(now)
            for endpoint in stack.take_ready():
                self.on_ready(endpoint, now)
            pending += stack.take_output(now)
            if pending:
                del pending[: device.write_batch(pending)]
            if not packets:
                wait = 0 if stack.pool.filling else min((stack.next_deadline() - now) // 1000, LONGEST_SLEEP)
                if any(fd == self.channel.fileno() for fd, _ in poll.poll(1 if pending else max(wait, 0))):
                    return

    def open_door(self, expected: int) -> Listen0:
        """A LISTEN_0 with a waiting SSA for each expected connection; tells where they are."""
        stack = self.stack
        door = stack.listen(self.now(), port=PORT, backlog=expected)
        assert isinstance(door, Listen0)
        targets = [(to_text(stack.das(door, self.now(), lifetime=NEVER).lease.address), PORT) for _ in range(expected)]
        self.channel.tell(port=PORT, targets=targets)
        return door


def sink(channel: Channel, *, steered: bool = False) -> None:
    loop = Loop(channel, steered=steered)
    door = loop.open_door(1)
    total = 0
    began = 0.0

    def on_ready(endpoint: Waitable, now: Micros) -> None:
        nonlocal total, began
        if endpoint is door:
            door.accept()
        elif isinstance(endpoint, TcpSession):
            while chunk := endpoint.read_chunk(now):
                total += len(chunk)
                began = began or time.perf_counter()
            if endpoint.eof and not endpoint.orphan:
                channel.tell(bytes=total, seconds=time.perf_counter() - began)
                endpoint.close(now)

    loop.on_ready = on_ready
    loop.run()


def source(channel: Channel, target: Target, seconds: float, *, steered: bool = False) -> None:
    loop = Loop(channel, steered=steered)
    data = os.urandom(1 << 16) * (PIECE >> 16)
    session = loop.stack.connect(parse(target[0]), target[1], loop.now())
    until = time.perf_counter() + seconds

    def on_ready(endpoint: Waitable, now: Micros) -> None:
        if session.ended:
            channel.tell(done=True)
            loop.done = True
            return
        while session.established and not session.fin_queued:
            if time.perf_counter() > until:
                session.shutdown(now)
            elif session.write(data, now) < len(data):
                break  # it took what it has room for, and we hear of it when there is more

    loop.on_ready = on_ready
    loop.run()


def answer(channel: Channel, expected: int, cores: tuple[int, ...] = (), *, steered: bool = False) -> None:
    pin(cores)
    loop = Loop(channel, steered=steered)

    def on_ready(endpoint: Waitable, now: Micros) -> None:
        if isinstance(endpoint, Listener):
            while endpoint.accept() is not None:
                pass
        elif isinstance(endpoint, TcpSession):
            if data := endpoint.read(4096, now):
                endpoint.write(data, now)
            if endpoint.eof:
                endpoint.close(now)

    loop.open_door(expected)
    loop.on_ready = on_ready
    loop.run()


def connect(channel: Channel, target: Target, count: int, at_once: int, *, steered: bool = False) -> None:
    loop = Loop(channel, steered=steered)
    peer = parse(target[0])
    begun = finished = 0

    def begin(now: Micros) -> None:
        nonlocal begun
        begun += 1
        session = loop.stack.connect(peer, target[1], now)
        session.owner = "connecting"

    def on_ready(endpoint: Waitable, now: Micros) -> None:
        nonlocal finished
        assert isinstance(endpoint, TcpSession)
        if endpoint.owner == "connecting" and endpoint.established:
            endpoint.owner = "asking"
            endpoint.write(b"?", now)
        elif endpoint.owner == "asking" and endpoint.readable:
            if endpoint.read(1, now) != b"?":
                raise ConnectionError("no answer")
            endpoint.owner = None
            endpoint.close(now)
            finished += 1
            if begun < count:
                begin(now)
            loop.done = finished == count

    loop.on_ready = on_ready
    start = time.perf_counter()
    for _ in range(min(at_once, count)):
        begin(loop.now())
    loop.run()
    channel.tell(count=count, seconds=time.perf_counter() - start)
