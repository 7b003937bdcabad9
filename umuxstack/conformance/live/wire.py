"""The wire to a kernel: packets of a TUN device, real time, and the kernel's housekeeping left aside.

Knows no sockets. The clock is the monotonic one, read where time may have passed.
"""

import os
import select
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from umuxstack.conformance import wire
from umuxstack.conformance.ends import Ends
from umuxstack.conformance.flow import Flow
from umuxstack.conformance.outcome import UnsupportedConstruct
from umuxstack.conformance.script import TcpFlags
from umuxstack.conformance.symbols import PROC_STATES
from umuxstack.core.units import Micros

BURST: Final = 1000  # microseconds: the kernel hands the segments of one write to the device in one go
CALL_TIME: Final = 500_000  # microseconds: the machine may be busy with something else
BATCH: Final = 64
HOUSEKEEPING: Final = frozenset((130, 131, 132, 133, 134, 135, 136, 137, 143))  # ICMPv6 of MLD and neighbour discovery
HOP_BY_HOP: Final = 0  # MLD's reports
IGMP: Final = 2
MAPPED: Final = bytes(10) + b"\xff\xff"  # ::ffff:0:0/96


class Device(Protocol):
    """The far end of the kernel's link: a `tun.device.TunDevice` without offload."""

    def fileno(self) -> int: ...
    def read_batch(self, limit: int) -> list[tuple[bytes, int, int, bool]]: ...
    def write_batch(self, packets: Sequence[tuple[bytes, bytes, int, int]]) -> int: ...


class Kernel(Protocol):
    """A kernel in a namespace of its own: `umuxstack.kernel.Kernel`."""

    @property
    def device(self) -> Device: ...
    def enter(self) -> None: ...
    def set_sysctl(self, path: str, value: str) -> bool: ...
    def sockets(self, family: int) -> str: ...


def too_long(limit: Micros) -> UnsupportedConstruct:
    """The script is not for now: `--live-limit`."""
    return UnsupportedConstruct(f"longer than {limit / 1e6:g} s")


class KernelEnds(Ends):
    """The kernel at one end, the script at the other. `family` is its sockets'."""

    burst = BURST
    call_time = CALL_TIME

    def __init__(
        self, kernel: Kernel, *, mtu: int, seed: str, limit: Micros, names: Mapping[str, bytes], family: int
    ) -> None:
        self._zero = time.monotonic_ns() // 1000
        super().__init__(mtu=mtu, seed=seed, now=Micros(0), names=names)
        self.kernel = kernel
        self._limit = limit
        self._family = family
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._last: dict[tuple[bytes, int, bytes, int], wire.Segment] = {}  # of the kernel's, by flow

    def close(self) -> None:
        os.close(self._wake)

    def wake(self) -> None:
        """From any thread: something has happened that is no packet."""
        os.eventfd_write(self._wake, 1)

    # Time

    def _tick(self) -> None:
        self.now = Micros(time.monotonic_ns() // 1000 - self._zero)

    def run_until(self, until: Micros, *, stop: Callable[[], bool] | None = None) -> bool:
        files = [self.kernel.device.fileno(), self._wake]
        while True:
            self._settle_call(self._collect)
            if stop is not None and stop():
                return True
            if self.now >= until:
                return False
            ready, _, _ = select.select(files, (), (), (min(until, self.waits_until) - self.now) / 1e6)
            if self._wake in ready:
                os.eventfd_read(self._wake)

    def _collect(self) -> None:
        while batch := self.kernel.device.read_batch(BATCH):
            self._tick()
            for buffer, start, _, _ in batch:
                raw = bytes(buffer[start:])
                if self.link_up and self.queue_up and not self._is_housekeeping(raw):
                    self._take(raw)
                    packet = self.sent[-1].packet
                    if isinstance(packet, wire.Segment):
                        self._last[_key(packet)] = packet
        self._tick()

    def _is_housekeeping(self, raw: bytes) -> bool:
        """What a kernel sends of its own accord, and multicasts: neither is any script's."""
        if self.ipv4:
            return len(raw) < 20 or raw[0] >> 4 != 4 or raw[9] == IGMP
        if len(raw) < 41 or raw[0] >> 4 != 6:
            return True
        return raw[6] == HOP_BY_HOP or (raw[6] == wire.ICMPV6 and raw[40] in HOUSEKEEPING)

    def patience(self) -> Micros:
        left = self._limit - self.now
        if left <= 0:
            raise too_long(self._limit)
        return Micros(left)

    # Packets

    def inject(self, raw: bytes, gso_size: int = 0) -> None:
        self._tick()
        self.capture.append((self.now, raw))
        if self.link_up:
            self.kernel.device.write_batch([(raw, b"", 0, 0)])
        self._settle_call(self._collect)

    def is_known(self, flow: Flow) -> bool:
        return self.state_of(flow.local, flow.local_port, flow.remote, flow.remote_port) != "CLOSED"

    def end_all(self) -> None:
        """Resets every connection: one that lived on without its socket would keep the namespace for minutes."""
        for last in self._last.values():
            ip = wire.Ip(last.ip.destination, last.ip.source)
            ports = (last.destination_port, last.source_port)
            reset = wire.Segment(ip, *ports, last.ack, 0, TcpFlags.RST, 0, 0, (), b"")
            self.kernel.device.write_batch([(wire.build_segment(reset), b"", 0, 0)])

    # States

    def states(self) -> list[tuple[str, tuple[bytes, int], tuple[bytes, int]]]:
        """(state, local end, remote end) of every TCP socket that the kernel has."""
        out = []
        for line in self.kernel.sockets(self._family).splitlines():
            words = line.split()
            if len(words) > 3 and words[3] in PROC_STATES:
                out.append((PROC_STATES[words[3]], _end(words[1]), _end(words[2])))
        return out

    def state_of(self, local: bytes, local_port: int, remote: bytes, remote_port: int) -> str:
        """The connection's state, by RFC 9293's names."""
        for state, near, far in self.states():
            if near == (local, local_port) and far == (remote, remote_port):
                return state
        return "CLOSED"


def _end(text: str) -> tuple[bytes, int]:
    """ "HEX:PORT", the address as words in the machine's order."""
    address, _, port = text.partition(":")
    words = [int(address[at : at + 8], 16).to_bytes(4, _ORDER) for at in range(0, len(address), 8)]
    return unmapped(b"".join(words)), int(port, 16)


def unmapped(address: bytes) -> bytes:
    """What an IPv4-mapped address means."""
    return address.removeprefix(MAPPED) if len(address) == 16 else address


_ORDER: Final = "little" if memoryview(b"\1\0\0\0").cast("I")[0] == 1 else "big"


def _key(segment: wire.Segment) -> tuple[bytes, int, bytes, int]:
    return segment.ip.source, segment.source_port, segment.ip.destination, segment.destination_port
