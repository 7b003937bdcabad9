"""`python -m benchmarks.impaired`: goodput through a cable that loses packets, this stack beside the kernel.

CUBIC against CUBIC: our sender and the kernel's send to the same kernel program through the same `umux link`, with
the same seed in each round. Small windows, so the processor does not matter: what counts is how losses are found,
repaired and answered. Our packets come from a TUN and are forwarded into the cable; the kernel's enter it directly.
Needs root; leaves nothing behind.
"""

import argparse
import selectors
import socket
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Final

import attrs
import trio

from benchmarks import kernel_side
from benchmarks.harness import KERNEL, UMUX, Arena
from benchmarks.kernel_side import PIECE, PORT
from benchmarks.workers import Channel, Worker, WorkerFailed
from tun import netns
from tun.errors import TunError
from tun.netlink import Netlink
from umuxstack.cable import CableEnd, open_cable
from umuxstack.core.units import Micros
from umuxstack.driver.links.impair import Impairment
from umuxstack.driver.qlog import QlogWriter
from umuxstack.host import open_host

PREFIX: Final = "2001:db8:1::/64"
NEAR: Final = "2001:db8:2::1"  # the senders' kernel
FAR: Final = "2001:db8:3::1"  # the receiver's
NEAR_CABLE: Final = "cable-near"
FAR_CABLE: Final = "cable-far"
GOAL: Final = 0.95

_serial = count(1)


@attrs.frozen
class Route:
    """What the cable does. `round_trip` in milliseconds, `rate` in bits per second (0: no bottleneck)."""

    loss: float = 0.01
    round_trip: float = 20.0
    rate: int = 0
    queue: int = 0
    reorder: float = 0.0

    def impairments(self, seed: int) -> tuple[Impairment, Impairment]:
        """Out and back; only the way out, the data's, has faults."""
        delay = Micros(int(self.round_trip * 500))
        out = Impairment(
            loss=self.loss, delay=delay, rate=self.rate, queue_packets=self.queue, reorder=self.reorder, seed=seed
        )
        return out, Impairment(delay=delay)


@attrs.frozen
class Result:
    """One sample: what arrived per second, and what it took."""

    goodput: float  # megabits per second, of all flows together
    retransmitted: int  # segments
    timeouts: int  # of the retransmission timer; -1: not told


@contextmanager
def _namespaces() -> Iterator[tuple[netns.Namespace, netns.Namespace]]:
    with ExitStack() as opened:
        near, far = (
            opened.enter_context(netns.create(netns.owned_name(f"{end}{next(_serial)}"))) for end in ("near", "far")
        )
        for namespace in (near, far):
            with Netlink(namespace) as netlink:
                netlink.up("lo")
                netlink.set_sysctl("ipv4/tcp_no_metrics_save", "1")
        with Netlink(near) as netlink:
            netlink.set_forwarding(on=True)
        yield near, far


def _cable(channel: Channel, near: str, far: str, path: Route, seed: int) -> None:
    async def carry() -> None:
        out, back = path.impairments(seed)
        async with open_cable(
            CableEnd(NEAR_CABLE, near, (f"{NEAR}/128",), (f"{FAR}/128",)),
            CableEnd(FAR_CABLE, far, (f"{FAR}/128",), ("::/0",)),
            a_to_b=out,
            b_to_a=back,
        ):
            channel.tell(ready=True)
            await trio.lowlevel.wait_readable(channel.fileno())

    trio.run(carry)


def _sink(channel: Channel, flows: int) -> None:
    """Accepts and consumes `flows` connections; tells bytes and seconds, from the first byte to the last."""
    door = kernel_side.listening()
    channel.tell(port=PORT)
    poll = selectors.DefaultSelector()
    for _ in range(flows):
        poll.register(door.accept()[0], selectors.EVENT_READ)
    buffer = bytearray(PIECE)
    total, began, last = 0, 0.0, 0.0
    while poll.get_map():
        for key, _ in poll.select():
            assert isinstance(key.fileobj, socket.socket)
            got = key.fileobj.recv_into(buffer)
            last = time.perf_counter()
            began = began or last
            total += got
            if not got:
                poll.unregister(key.fileobj)
                key.fileobj.close()
    channel.tell(bytes=total, seconds=last - began)


def _kernel_sender(channel: Channel, flows: int, size: int, qlog: str) -> None:
    poll = selectors.DefaultSelector()
    rest: dict[socket.socket, int] = {}
    for _ in range(flows):
        sock = kernel_side.new_socket()
        sock.connect((FAR, PORT))
        sock.setblocking(False)
        poll.register(sock, selectors.EVENT_WRITE)
        rest[sock] = size
    data = memoryview(bytes(PIECE))
    while poll.get_map():
        for key, _ in poll.select():
            sock = key.fileobj  # type: ignore[assignment]
            rest[sock] -= sock.send(data[: rest[sock]])
            if not rest[sock]:
                poll.unregister(sock)
                sock.shutdown(socket.SHUT_WR)
    retransmitted = 0
    for sock in rest:
        sock.setblocking(True)
        sock.recv(1)
        # struct tcp_info: tcpi_total_retrans
        information = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        retransmitted += int.from_bytes(information[100:104], sys.byteorder)
        sock.close()
    channel.tell(retransmitted=retransmitted, timeouts=-1)


def _umux_sender(channel: Channel, flows: int, size: int, qlog: str) -> None:
    async def main() -> None:
        async with open_host(prefix=PREFIX) as host:
            log = None
            if qlog:
                log = QlogWriter(host.stack, qlog)
                host.pump.after_flush = log.drain
            retransmitted = 0

            async def send() -> None:
                nonlocal retransmitted
                async with await host.connect(FAR, PORT) as stream:
                    data, rest = bytes(PIECE), size
                    while rest:
                        await stream.send_all(data[:rest])
                        rest -= min(rest, len(data))
                    await stream.send_eof()
                    await stream.receive_some(1)
                    retransmitted += stream.statistics().total_retrans

            async with trio.open_nursery() as nursery:
                for _ in range(flows):
                    nursery.start_soon(send)
            channel.tell(retransmitted=retransmitted, timeouts=host.stack.counters.rto_expirations)
            if log is not None:
                log.close()

    trio.run(main)


def sample(variant: str, path: Route, *, seed: int, flows: int = 4, size: int = 2 << 20, qlog: str = "") -> Result:
    """`size` bytes in each of `flows` connections at once, through a new cable.

    `variant` is KERNEL or UMUX; `qlog` a folder for our logs. Call it without threads or trio: it forks.
    Raises WorkerFailed and TunError.
    """
    with _namespaces() as (near, far), ExitStack() as workers:
        assert near.name is not None
        assert far.name is not None
        cable = workers.enter_context(Worker(None, _cable, near.name, far.name, path, seed))
        cable.hear()
        sink = workers.enter_context(Worker(far, _sink, flows))
        sink.hear()
        sender = _kernel_sender if variant == KERNEL else _umux_sender
        at_work = workers.enter_context(Worker(near, sender, flows, size, qlog))
        sent = at_work.hear()
        got = sink.hear()
    if got["bytes"] != flows * size:
        raise WorkerFailed(f"{got['bytes']} of {flows * size} bytes arrived")
    return Result(got["bytes"] * 8 / got["seconds"] / 1e6, sent["retransmitted"], sent["timeouts"])


def goodput(arena: Arena, variant: str) -> float:
    """A row of the main table: 1 % loss and 20 ms, in each round with the same seed for both."""
    size = int(arena.size.seconds * (2 << 20))
    return sample(variant, Route(), seed=1 + arena.turn("impaired", variant), size=size).goodput


def compare(
    path: Route, *, rounds: int, flows: int, size: int, first_seed: int = 1, say: bool = False
) -> tuple[float, list[Result], list[Result]]:
    """The median over alternating rounds of our goodput divided by the kernel's; both lists of samples."""
    ours: list[Result] = []
    kernels: list[Result] = []
    for number in range(rounds):
        seed = first_seed + number
        kernels.append(sample(KERNEL, path, seed=seed, flows=flows, size=size))
        ours.append(sample(UMUX, path, seed=seed, flows=flows, size=size))
        if say:
            us, them = ours[-1], kernels[-1]
            print(
                f"seed {seed}: umux {us.goodput:.2f} Mbit/s ({us.retransmitted} segments sent again, {us.timeouts} "
                f"timeouts), kernel {them.goodput:.2f} Mbit/s ({them.retransmitted} sent again): "
                f"{us.goodput / them.goodput:.3f}",
                flush=True,
            )
    return statistics.median(a.goodput / b.goodput for a, b in zip(ours, kernels, strict=True)), ours, kernels


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.impaired", description=__doc__)
    parser.add_argument("--loss", type=float, default=0.01, help="share of data packets lost (default 0.01)")
    parser.add_argument("--reorder", type=float, default=0.0, help="share of data packets overtaken")
    parser.add_argument("--round-trip", type=float, default=20.0, metavar="MS", help="default 20")
    parser.add_argument("--rate", type=float, default=0.0, metavar="MBIT", help="a bottleneck; 0: none")
    parser.add_argument("--queue", type=int, default=0, metavar="PACKETS", help="that wait at the bottleneck")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--flows", type=int, default=4, help="connections at once")
    parser.add_argument("--size", type=float, default=2.0, metavar="MB", help="in each of them")
    parser.add_argument("--seed", type=int, default=1, help="of the first round")
    parser.add_argument("--qlog", type=Path, metavar="DIR", help="one sample of ours only, with logs for `umux plot`")
    options = parser.parse_args(argv)
    path = Route(options.loss, options.round_trip, int(options.rate * 1e6), options.queue, options.reorder)
    size = int(options.size * (1 << 20))
    try:
        if options.qlog is not None:
            print(sample(UMUX, path, seed=options.seed, flows=options.flows, size=size, qlog=str(options.qlog)))
            return 0
        ratio, ours, kernels = compare(
            path, rounds=options.rounds, flows=options.flows, size=size, first_seed=options.seed, say=True
        )
    except (TunError, WorkerFailed) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    total = sum(r.goodput for r in ours) / sum(r.goodput for r in kernels)
    print(f"median ratio {ratio:.3f} (goal {GOAL}); of the means {total:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
