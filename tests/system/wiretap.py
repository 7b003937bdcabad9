"""The traffic of every system test, captured between stack and TUN, and judged by tshark when the test is over.

Whole packets, super-segments as they cross the link, each with its checksum completed (docs/tracing.md): the first
`BOUND` bytes of each link. What a test moves beyond that is counted and not judged.
"""

from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Final

from umuxstack.core.config import LinkCaps
from umuxstack.core.session.context import Outgoing
from umuxstack.driver.link import Link, Packet
from umuxstack.driver.links.pcap import PcapLink
from umuxstack.driver.links.pcapng import Sink

BOUND: Final = 8 << 20  # bytes: tshark takes a second for them


class Taps:
    """All links that one test opened."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.all: list[Tap] = []

    def tap(self, link: Link, only: str) -> "Tap":
        made = Tap(link, self._directory / f"link-{len(self.all)}.pcapng", only)
        self.all.append(made)
        return made


# Of the test that runs; None: nothing is captured.
TAPS: Final[ContextVar[Taps | None]] = ContextVar("TAPS", default=None)


def tapped(link: Link, only: str = "") -> Link:
    """`link`, captured if the test's traffic is to be judged. `only`: tshark's filter for the packets that count."""
    taps = TAPS.get()
    return link if taps is None else taps.tap(link, only)


class Tap:
    """A link whose first `BOUND` bytes are captured into `capture`."""

    def __init__(self, link: Link, capture: Path, only: str) -> None:
        self.capture = capture
        self.only = only
        self.beyond = 0  # packets that nobody judges
        self._room = BOUND
        self._plain = link
        self._captured = PcapLink(link, Sink(capture))

    @property
    def caps(self) -> LinkCaps:
        return self._plain.caps

    def read_batch(self, limit: int) -> list[Packet]:
        if self._room <= 0:
            packets = self._plain.read_batch(limit)
            self.beyond += len(packets)
            return packets
        packets = self._captured.read_batch(limit)
        self._room -= sum(len(packet[0]) for packet in packets)
        return packets

    def write_batch(self, packets: Sequence[Outgoing]) -> int:
        if self._room <= 0:
            taken = self._plain.write_batch(packets)
            self.beyond += taken
            return taken
        taken = self._captured.write_batch(packets)
        self._room -= sum(len(header) + len(payload) for header, payload, _, _ in packets[:taken])
        return taken

    async def wait_readable(self) -> None:
        await self._plain.wait_readable()

    async def wait_writable(self) -> None:
        await self._plain.wait_writable()

    def close(self) -> None:
        self._captured.close()
