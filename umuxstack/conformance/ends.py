"""Both ends of the wire, as a script sees them: the clock, the packets of the stack under test, flows and names.

`Ends` is what a stack under test must offer, whatever it is. Packets that it sends are verified and kept with their
time until the script asks for them. Invariant: for the script, time moves only in `run_until`.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

import attrs

from umuxstack.conformance import wire
from umuxstack.conformance.flow import Flow
from umuxstack.conformance.outcome import Mismatch
from umuxstack.core.entropy import Entropy
from umuxstack.core.units import NEVER, Address, Micros

# Names for `[from NAME, to NAME]`; the interface identifiers are arbitrary, the prefixes for documentation.
HERE: Final = Address(IPv6Address("fd3d:fa7b:d17d::1").packed)
PREFIX: Final = Address(IPv6Address("fd00:db8:5::").packed)
PEERS: Final = {
    "peer": Address(IPv6Address("2001:db8::1").packed),
    "other": Address(IPv6Address("2001:db8:0:7::2").packed),
    "third": Address(IPv6Address("2001:db8:0:9::3").packed),
    "neighbour": Address(IPv6Address("2001:db8::2").packed),  # in the /64 of `peer`
}
IPV6: Final = {"here": HERE} | PEERS
# The same on a link that speaks IPv4, where packetdrill's defaults and the documentation's networks have them.
IPV4: Final = {
    name: IPv4Address(text).packed
    for name, text in (
        *(("here", "192.168.0.1"), ("peer", "192.0.2.1"), ("other", "198.51.100.2"), ("third", "203.0.113.3")),
        ("neighbour", "192.0.2.2"),
    )
}


@attrs.frozen(slots=True)
class Sent:
    """A packet of the stack's, not yet matched."""

    time: Micros
    packet: wire.Seen
    raw: bytes


class Ends(ABC):
    """A stack under test on one link, which speaks IPv6, or IPv4 if its `names` do.

    `burst`: how far in time the segments of one burst may lie apart. `call_time`: what a call may take that does not
    wait. Both in microseconds.
    """

    burst: int = 0
    call_time: int = 0
    wakes: int = -1  # how often somebody who waits was told that there is something for him; -1: not known
    keeps_octets: bool = False  # what is written is what `octets.py` says

    def cookie(self, name: bytes, flow: Flow) -> bytes:
        """A Fast Open cookie as the subject would write it for this client."""
        return self.cookies.get(name, name)

    def learn_cookie(self, name: bytes, cookie: bytes, flow: Flow) -> None:
        """The subject gave `cookie`, and the script calls it `name`."""
        self.cookies.setdefault(name, cookie)

    def __init__(self, *, mtu: int, seed: str, now: Micros, names: Mapping[str, bytes] = IPV6) -> None:
        self.mtu = mtu
        self.now = now
        self.entropy = Entropy(f"umux drill {seed}".encode())
        self.sent: deque[Sent] = deque()
        self.capture: list[tuple[Micros, bytes]] = []
        self.cookies: dict[bytes, bytes] = {}  # those that the subject gave, by what the script calls them
        self.link_up = True
        self.queue_up = True  # what is sent gets as far as the link
        self.names: dict[str, bytes] = dict(names)  # addresses on the link
        self.here = self.names["here"]
        self.peer = self.names["peer"]
        self.flows: dict[tuple[bytes, int, bytes, int], Flow] = {}
        self.flow: Flow | None = None  # the one that packets without addresses belong to
        self.waiting: Callable[[], bool] | None = None  # a blocking call: does it return now?
        self.eager = False  # it has data for whatever is sent at the moment of its return
        self.waits_until: Micros = NEVER
        self.segments = {"out": 0, "in": 0, "data_out": 0, "data_in": 0, "bytes_out": 0}
        self.data_in_at: Micros = now  # when data, or the SYN, last came from the script
        self.largest_in = 0  # the longest segment of the script's

    @property
    def ipv4(self) -> bool:
        """What the link speaks."""
        return len(self.here) == wire.IPV4

    def parse(self, text: str) -> bytes:
        """An address on the link. Raises AddressValueError."""
        return IPv4Address(text).packed if self.ipv4 else IPv6Address(text).packed

    def meaning(self, text: str) -> bytes | None:
        """Whom a socket call means: a name, an address on this link, or a group.

        None: an address of the vendor's test network. IPv4's stand as they are, since the link has them. Raises
        ValueError for what is no address.
        """
        if text in self.names:
            return self.names[text]
        address = ip_address(text)
        if address.packed in self.names.values() or (self.ipv4 and address.version == 4):
            return address.packed
        if address.is_multicast or str(address) == "255.255.255.255":
            return self.parse("224.0.0.1" if self.ipv4 else "ff0e::1")
        return None

    @abstractmethod
    def run_until(self, until: Micros, *, stop: Callable[[], bool] | None = None) -> bool:
        """Lets time pass. True as soon as `stop` says so; False when `until` is reached without."""

    @abstractmethod
    def patience(self) -> Micros:
        """How long is waited for what has no time of its own. Raises UnsupportedConstruct when none is left."""

    @abstractmethod
    def inject(self, raw: bytes, gso_size: int = 0) -> None:
        """A packet comes to the stack."""

    @abstractmethod
    def is_known(self, flow: Flow) -> bool:
        """Whether somebody answers for this four-tuple now: a connection, or a record of one."""

    def open_flow(self, local: bytes, local_port: int, remote: bytes, remote_port: int) -> Flow:
        """A new connection begins: its numbers are not known yet."""
        flow = Flow(local, local_port, remote, remote_port)
        self.flows[flow.key] = flow
        return flow

    def _take(self, raw: bytes) -> None:
        """The stack has sent this packet, now. Raises Mismatch for one that no stack may send."""
        self.capture.append((self.now, raw))
        if len(raw) > self.mtu:
            raise Mismatch(f"a packet of {len(raw)} octets on a link of {self.mtu}")
        try:
            packet = wire.read(raw)
        except wire.Unsound as error:
            raise Mismatch(f"an unsound packet: {error}", [raw.hex()]) from None
        if isinstance(packet, wire.Segment):
            self.segments["out"] += 1
            if packet.payload:
                self.segments["data_out"] += 1
                self.segments["bytes_out"] += len(packet.payload)
        self.sent.append(Sent(self.now, packet, raw))

    def _settle_call(self, collect: Callable[[], None]) -> None:
        """Everything that happens at this instant: what was sent, and the call that waits may return."""
        if self.eager and self.waiting is not None and self.waiting():
            self.waiting = None
        for _ in range(100):
            collect()
            if self.waiting is None or not self.waiting():
                break
            self.waiting = None
        collect()
