"""One sample: a subject in one variant, a kernel program as its peer, a number.

Owns the namespaces of a run (anonymous: gone with us). Kernel subjects sit behind a veth pair, in a namespace of
their own; stacks sit on a TUN in the peers' namespace. The peer is the same program in every variant.
"""

import cProfile
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import attrs
import trio

from benchmarks import compiled, kernel_side, loop_side, pytcp_side, trio_side
from benchmarks.kernel_side import PORT, Target
from benchmarks.trio_side import kernel_address
from benchmarks.workers import Channel, Message, Worker
from tun import netns
from tun.netlink import Netlink

VETH_PEER: Final = "2001:db8:a::1"
VETH_SUBJECT: Final = "2001:db8:a::2"

KERNEL: Final = "kernel"
KERNEL_TRIO: Final = "kernel, trio"
UMUX: Final = "umux"
UMUX_LOOP: Final = "umux, bare loop"
UMUX_STEERED: Final = "umux, steered"
UMUX_COMPILED: Final = "umux, compiled"
UMUX_LOOP_COMPILED: Final = "umux, bare loop, compiled"
UMUX_STEERED_COMPILED: Final = "umux, steered, compiled"
PYTCP: Final = "PyTCP"
VARIANTS: Final = {
    KERNEL: "plain Python with epoll on the kernel's sockets, over veth: the base line",
    KERNEL_TRIO: "a trio program on the kernel's sockets, over veth",
    UMUX: "the same trio program on this stack's Host, on a TUN: what users get",
    UMUX_LOOP: "a bare loop around this stack's core, on a TUN: without the driver",
    UMUX_STEERED: "the same loop on a core of its own, the kernel receiving on the others (`umux up --core`)",
    UMUX_COMPILED: "as `umux`, with the core compiled (`make fast`)",
    UMUX_LOOP_COMPILED: "as `umux, bare loop`, with the core compiled",
    UMUX_STEERED_COMPILED: "as `umux, steered`, with the core compiled",
    PYTCP: "another TCP in Python, on a TAP; if it is installed",
}

COMPILED: Final = {UMUX_COMPILED: UMUX, UMUX_LOOP_COMPILED: UMUX_LOOP, UMUX_STEERED_COMPILED: UMUX_STEERED}
"""What is the same but for the core."""

_PLAIN: Final[dict[str, dict[str, Callable[..., None]]]] = {
    KERNEL: {
        "sink": kernel_side.bulk_sink,
        "source": kernel_side.bulk_source,
        "answer": kernel_side.answer,
        "answer one": kernel_side.answer_blocking,
        "connect": kernel_side.connect,
    },
    UMUX_LOOP: {
        "sink": loop_side.sink,
        "source": loop_side.source,
        "answer": loop_side.answer,
        "answer one": loop_side.answer,
        "connect": loop_side.connect,
    },
    UMUX_STEERED: {
        "sink": partial(loop_side.sink, steered=True),
        "source": partial(loop_side.source, steered=True),
        "answer": partial(loop_side.answer, steered=True),
        "connect": partial(loop_side.connect, steered=True),
    },
    PYTCP: {"sink": pytcp_side.sink, "source": pytcp_side.source},
}
_TRIO: Final[dict[str, Callable[..., Awaitable[None]]]] = {
    "sink": trio_side.sink,
    "source": trio_side.source,
    "answer": trio_side.answer,
    "answer one": trio_side.answer,
    "connect": trio_side.connect,
}
_NETS: Final = {KERNEL_TRIO: trio_side.kernel_net, UMUX: trio_side.umux_net}


@attrs.frozen
class Size:
    """How much of everything."""

    seconds: float  # of each bulk, request/response and ping-pong sample
    connections: int  # of each connect sample
    sessions: int  # in the memory sample
    packets: int  # in each sample of the core alone


class Arena:
    """Where the samples of one run are taken. `profiles`: a directory for cProfile's files, one per sample."""

    def __init__(self, size: Size, profiles: Path | None = None) -> None:
        self.size = size
        self._profiles = profiles
        self._serial = 0
        self._turns: Counter[tuple[str, str]] = Counter()
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._peers = stack.enter_context(netns.create())
            self._subjects = stack.enter_context(netns.create())
            with Netlink(self._peers) as peers, Netlink(self._subjects) as subjects:
                peers.add_veth("veth0", "veth1", self._subjects)
                for netlink, name, address in ((peers, "veth0", VETH_PEER), (subjects, "veth1", VETH_SUBJECT)):
                    netlink.quiet(name)
                    netlink.up("lo")
                    netlink.up(name)
                    netlink.add_address(name, f"{address}/64")
                    # Thousands of connections, closed by the client: its ports must last for a run.
                    netlink.set_sysctl("ipv4/ip_local_port_range", "1024 65535")
                    netlink.set_sysctl("ipv4/tcp_tw_reuse", "1")
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def turn(self, name: str, variant: str) -> int:
        """How often this variant of a measurement has been taken before: the same for all within a round."""
        self._turns[name, variant] += 1
        return self._turns[name, variant] - 1

    def subject(self, variant: str, role: str, *, worker: int = 0, **parameters: Any) -> Worker:
        """The side that is measured, running. `worker` tells several stacks apart."""
        kernel = variant in (KERNEL, KERNEL_TRIO)
        self._serial += 1
        profile = None
        if self._profiles is not None and variant in (UMUX, UMUX_LOOP, UMUX_STEERED, *COMPILED):
            profile = self._profiles / f"{self._serial:03}-{variant.replace(', ', '-').replace(' ', '-')}-{role}.prof"
        namespace = self._subjects if kernel else self._peers
        if variant == KERNEL:
            parameters.pop("expected", None)
        path = "" if profile is None else str(profile)
        if variant in COMPILED:
            return Worker(namespace, compiled.run, _run, COMPILED[variant], role, worker, path, parameters)
        return Worker(namespace, _run, variant, role, worker, path, parameters)

    def peer(self, function: Callable[..., None], **parameters: Any) -> Worker:
        """The kernel program at the other end."""
        return Worker(self._peers, function, **parameters)

    @staticmethod
    def targets(hello: Message) -> list[Target]:
        """Where a peer reaches the subject that said `hello`."""
        return [(address, port) for address, port in hello.get("targets", ())] or [(VETH_SUBJECT, PORT)]

    @staticmethod
    def peer_target(variant: str) -> Target:
        """Where a subject reaches its peer."""
        if variant in (KERNEL, KERNEL_TRIO):
            return (VETH_PEER, PORT)
        return (pytcp_side.KERNELS if variant == PYTCP else kernel_address(0), PORT)


def _run(channel: Channel, variant: str, role: str, worker: int, profile: str, parameters: dict[str, Any]) -> None:
    """In the subject's process."""

    async def in_trio() -> None:
        async with _NETS[variant](worker) as net:
            await _TRIO[role](net, channel, **parameters)

    def run() -> None:
        if variant in _NETS:
            trio.run(in_trio)
        else:
            _PLAIN[variant][role](channel, **parameters)

    if not profile:
        run()
        return
    profiler = cProfile.Profile()
    try:
        profiler.runcall(run)
    finally:
        profiler.dump_stats(profile)
