"""Measurements over a wire: bulk, connections, requests, latency, workers. Each function takes one sample."""

from typing import Final

from benchmarks import kernel_side
from benchmarks.harness import Arena
from benchmarks.workers import Worker, WorkerFailed

AT_ONCE: Final = 32
CLIENTS: Final = 16
CORE: Final = (0,)
PING_SHARE: Final = 0.5  # of the seconds: latency settles sooner


def bulk_in(arena: Arena, variant: str) -> float:
    """Gbit/s from a kernel sender, consumed in the subject's process."""
    with arena.subject(variant, "sink") as subject:
        target = arena.targets(subject.hear())[0]
        with arena.peer(kernel_side.bulk_source, target=target, seconds=arena.size.seconds) as peer:
            result = subject.hear()
            peer.hear()
    return float(result["bytes"] * 8 / result["seconds"] / 1e9)


def bulk_out(arena: Arena, variant: str) -> float:
    """Gbit/s produced in the subject's process, consumed by a kernel receiver."""
    with arena.peer(kernel_side.bulk_sink) as peer:
        peer.hear()
        target = arena.peer_target(variant)
        with arena.subject(variant, "source", target=target, seconds=arena.size.seconds) as subject:
            result = peer.hear()
            subject.hear()
    return float(result["bytes"] * 8 / result["seconds"] / 1e9)


def connect_in(arena: Arena, variant: str) -> float:
    """Connections per second to the subject: connect, a byte there and back, close; 32 at a time."""
    count = arena.size.connections
    with arena.subject(variant, "answer", expected=count) as subject:
        targets = arena.targets(subject.hear())
        with arena.peer(kernel_side.connect_many, targets=targets, count=count, at_once=AT_ONCE) as peer:
            return float(count / peer.hear()["seconds"])


def connect_out(arena: Arena, variant: str) -> float:
    """The same from the subject to a kernel server."""
    count = arena.size.connections
    with arena.peer(kernel_side.answer) as peer:
        peer.hear()
        target = arena.peer_target(variant)
        with arena.subject(variant, "connect", target=target, count=count, at_once=AT_ONCE) as subject:
            return float(count / subject.hear()["seconds"])


def request_response(arena: Arena, variant: str) -> float:
    """One-byte requests answered per second, 16 clients with one under way each."""
    return _requests(arena, [variant])


def workers(arena: Arena, variant: str) -> float:
    """The same with as many stacks as `variant` says, each with 16 clients, a TUN and a sub-prefix of its own."""
    count, _, of = variant.partition(" × ")
    return _requests(arena, [of] * int(count))


def _requests(arena: Arena, variants: list[str]) -> float:
    subjects = []
    peers: list[Worker] = []
    try:
        for number, variant in enumerate(variants):
            subjects.append(arena.subject(variant, "answer", worker=number, expected=CLIENTS))
        targets = [arena.targets(subject.hear()) for subject in subjects]
        peers.extend(
            arena.peer(kernel_side.ask, targets=some, clients=CLIENTS, seconds=arena.size.seconds) for some in targets
        )
        results = [peer.hear() for peer in peers]
        return float(sum(result["count"] / result["seconds"] for result in results))
    finally:
        for worker in (*peers, *subjects):
            worker.end()


def ping_pong(arena: Arena, variant: str) -> float:
    """The median round trip of one byte in microseconds, both ends on one core."""
    with arena.subject(variant, "answer one", expected=1, cores=CORE) as subject:
        targets = arena.targets(subject.hear())
        seconds = arena.size.seconds * PING_SHARE
        with arena.peer(kernel_side.ping_pong, targets=targets, seconds=seconds, cores=CORE) as peer:
            result = peer.hear()
    if not result["count"]:
        raise WorkerFailed("ping_pong: no answer")
    return float(result["p50"])
