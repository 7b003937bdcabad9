"""Transfers over a grid of bad wires, in virtual time, and the stored table of what came of them.

    python -m tests.sim.grid            the whole grid, and how it differs from the table
    python -m tests.sim.grid --update   writes the table anew
    python -m tests.sim.grid cubic/5M   only cells whose name begins so, with no comparison

One seed decides everything, so a run is repeated to the microsecond; a change of the table is a change of the stack.
Every packet is decoded and checked on its way, and the bytes are compared at the end of it.
"""

import argparse
import difflib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from umuxstack.core.config import TcpPolicy
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.units import Micros, millis, minutes
from umuxstack.driver.links.impair import PERFECT, Burst, Impairment
from umuxstack.testing.apps import Transfer
from umuxstack.testing.network import Network

TABLE: Final = Path(__file__).with_name("goodput.txt")
SEED: Final = 1
PACKET: Final = 1500
BLOCK: Final = bytes(range(256)) * 256  # 64 KB, sent again and again
LIMIT: Final = minutes(30)  # for one transfer; far more than the slowest needs
HEADING: Final = """\
# Goodput of one transfer over each wire (tests/sim/grid.py), seed {seed}; by `python -m tests.sim.grid --update`.
# cell: algorithm / rate of the bottleneck, bit/s / round trip / loss on the way of the data / what else.
# kbit/s: payload over the time from SYN to FIN. again: segments sent again. needless: of those, what had arrived.
# rto: timeouts. queue: packets that the bottleneck's queue had no room for.
"""
COLUMNS: Final = f"{'cell':<44}{'bytes':>9}{'ms':>8}{'kbit/s':>9}{'again':>7}{'needless':>9}{'rto':>5}{'queue':>7}\n"


@attrs.frozen
class Cell:
    """One transfer. `rate` is the bottleneck's, bits per second, 0 for none; `queue` its room, in products of rate and
    round trip."""

    algorithm: str
    rate: int
    round_trip: Micros
    loss: str = "0"
    also: str = ""
    queue: float = 1.0
    wire: Impairment = PERFECT  # what else the way of the data does
    back: Impairment = PERFECT  # and the way of the acknowledgments
    policy: TcpPolicy = TcpPolicy()

    @property
    def name(self) -> str:
        rate = f"{self.rate // 1_000_000}M" if self.rate else "free"
        return "/".join(filter(None, (self.algorithm, rate, f"{self.round_trip // 1000}ms", self.loss, self.also)))

    @property
    def product(self) -> int:
        """Bytes that fill the path."""
        return self.rate * self.round_trip // 8_000_000

    def forth(self) -> Impairment:
        loss = {"burst": 0.0}.get(self.loss)
        fate = attrs.evolve(
            self.wire,
            delay=Micros(self.round_trip // 2),
            loss=float(self.loss.rstrip("%")) / 100 if loss is None else loss,
            burst=Burst(enter=0.002, leave=0.25) if self.loss == "burst" else None,
        )
        if self.rate:
            fate = attrs.evolve(fate, rate=self.rate, queue_packets=max(int(self.product * self.queue) // PACKET, 4))
        return fate

    def size(self) -> int:
        """Bytes to send: some seconds' worth, whole blocks, at most 4 MB."""
        wanted = min(max(self.rate // 8 * 3, 20 * self.product), 4 << 20) if self.rate else 4 << 20
        if self.lossy:
            wanted = min(wanted, 2 << 20)
        return max(wanted // len(BLOCK), 4) * len(BLOCK)

    @property
    def lossy(self) -> bool:
        return self.loss not in ("0", "0.1%")


@attrs.frozen
class Outcome:
    """What came of a transfer."""

    bytes: int
    time: Micros  # from the SYN to the FIN at the receiver
    again: int
    needless: int
    timeouts: int
    queue_drops: int

    @property
    def rate(self) -> float:
        """Goodput, bits per second."""
        return self.bytes * 8e6 / self.time

    def row(self, name: str) -> str:
        return (
            f"{name:<44}{self.bytes:>9}{self.time // 1000:>8}{self.rate / 1000:>9.0f}{self.again:>7}"
            f"{self.needless:>9}{self.timeouts:>5}{self.queue_drops:>7}\n"
        )


def cells() -> Iterator[Cell]:
    """The grid; CUBIC everywhere, the others where they differ."""
    trips = (millis(2), millis(20), millis(100), millis(300))
    for rate in (5_000_000, 50_000_000):
        for trip in trips:
            for loss in ("0", "0.1%", "1%", "3%", "burst"):
                yield Cell("cubic", rate, trip, loss)
    for rate in (5_000_000, 50_000_000):
        for trip in (millis(20), millis(100)):
            for loss in ("0", "1%"):
                yield Cell("cubic", rate, trip, loss, "queue ×0.25", queue=0.25)
                yield Cell("cubic", rate, trip, loss, "queue ×4", queue=4)
                yield Cell("cubic", rate, trip, loss, "reorder 2%", wire=Impairment(reorder=0.02))
    for trip in (millis(20), millis(100)):
        far = Impairment(reorder=0.01, displacement=30, reorder_wait=millis(30))
        yield Cell("cubic", 20_000_000, trip, "0", "reorder 1% by 30", wire=far)
        yield Cell("cubic", 20_000_000, trip, "0", "jitter 5 ms", wire=Impairment(jitter=millis(5)))
        yield Cell("cubic", 20_000_000, trip, "0", "duplicate 2%", wire=Impairment(duplicate=0.02))
        yield Cell("cubic", 20_000_000, trip, "0", "corrupt 1%", wire=Impairment(corrupt=0.01))
        yield Cell("cubic", 20_000_000, trip, "0", "ACKs lost 20%", back=Impairment(loss=0.2))
        yield Cell("cubic", 20_000_000, trip, "1%", "no SACK", policy=TcpPolicy(sack=False))
        yield Cell("cubic", 20_000_000, trip, "1%", "no timestamps", policy=TcpPolicy(timestamps=False))
        marks = Impairment(mark=0.01)
        yield Cell("cubic", 20_000_000, trip, "0", "ECN, 1% marked", wire=marks, policy=TcpPolicy(ecn=True))
        for size in (16, 64, 256):
            small = TcpPolicy(receive_buffer=size << 10, receive_buffer_max=size << 10)
            yield Cell("cubic", 50_000_000, trip, "0", f"receive buffer {size}K", policy=small)
            small = TcpPolicy(send_buffer=size << 10, send_buffer_max=size << 10)
            yield Cell("cubic", 50_000_000, trip, "0", f"send buffer {size}K", policy=small)
    for trip in trips[:3]:
        for loss in ("0", "1%"):
            yield Cell("cubic", 0, trip, loss)
    for algorithm in ("newreno", "bbr"):
        for rate in (5_000_000, 50_000_000):
            for trip in (millis(20), millis(100)):
                for loss in ("0", "1%", "burst"):
                    yield Cell(algorithm, rate, trip, loss)


def measure(cell: Cell, seed: int = SEED) -> Outcome:
    """One transfer over the cell's wire. Raises AssertionError if a byte is wrong, or anything is left behind."""
    policy = attrs.evolve(cell.policy, congestion=cell.algorithm)
    with Network(seed=seed, record=False) as net:
        server = net.host("server", wire=cell.forth(), tcp=policy)
        back = attrs.evolve(cell.back, delay=Micros(cell.round_trip // 2))
        client = net.host("client", wire=back, tcp=policy)
        door = server.listen()
        accepted = server.serve(door, Transfer)
        began = net.now
        session = client.connect(server.das(door).lease.address)
        client.attach(session, Transfer(BLOCK, repeat=cell.size() // len(BLOCK)))
        net.run_until(lambda: bool(accepted.apps) and _received(accepted.apps[0]).done, limit=LIMIT)
        received = _received(accepted.apps[0])
        assert received.received == BLOCK * (cell.size() // len(BLOCK)), "what arrived is not what was sent"
        return Outcome(
            bytes=received.count,
            time=Micros(received.finished_at - began),
            again=_again(session),
            needless=client.stack.counters.spurious_retransmits,
            timeouts=client.stack.counters.rto_expirations,
            queue_drops=server.port.down.statistics().queue_drops,
        )


def _received(app: object) -> Transfer:
    assert isinstance(app, Transfer)
    return app


def _again(session: TcpSession) -> int:
    return session.statistics().total_retrans


def table(rows: dict[str, str], seed: int = SEED) -> str:
    return HEADING.format(seed=seed) + COLUMNS + "".join(rows.values())


def stored() -> dict[str, str]:
    """Rows of the table by cell."""
    lines = TABLE.read_text(encoding="utf-8").splitlines(keepends=True) if TABLE.exists() else []
    return {line[:44].rstrip(): line for line in lines if "/" in line[:44] and not line.startswith("#")}


def difference(before: dict[str, str], after: dict[str, str]) -> str:
    """What changed, to be read; empty if nothing did."""
    lines = list(difflib.unified_diff(list(before.values()), list(after.values()), "stored", "now", n=0))
    changed = [line for line in lines if not line.startswith("@@")]
    return "  " + COLUMNS + "".join(changed) if changed else ""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.grid", description="Transfers over a grid of bad wires.")
    parser.add_argument("--update", action="store_true", help="write the table anew")
    parser.add_argument("--seed", type=int, default=SEED, help="another seed: other fates, no comparison")
    parser.add_argument("only", nargs="?", default="", help="cells whose name begins so")
    options = parser.parse_args(arguments)
    rows: dict[str, str] = {}
    print(COLUMNS, end="")
    for cell in cells():
        if cell.name.startswith(options.only):
            rows[cell.name] = measure(cell, options.seed).row(cell.name)
            print(rows[cell.name], end="", flush=True)
    if options.only or options.seed != SEED:
        return 0
    changed = difference(stored(), rows)
    print("\n" + (changed or f"as stored in {TABLE.name}"))
    if options.update:
        TABLE.write_text(table(rows), encoding="utf-8")
        return 0
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
