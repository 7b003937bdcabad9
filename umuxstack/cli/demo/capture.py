"""What passes on the server's link, as evidence: recorded by somebody else than the server, decoded by dpkt.

On a TUN the kernel records (a packet socket in the router's namespace, on the
server's device); in memory a tap around the link does. Invariant: whatever the
server sends or is sent is in `packets`, in order. (The file for Wireshark is
the driver's own capture, which knows the names of leases and why a packet was dropped.)
"""

import errno
import os
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import dpkt

from tun.netns import Namespace
from umuxstack.cli.common import cannot_use
from umuxstack.core.network.offload import finish
from umuxstack.core.session.context import Outgoing
from umuxstack.driver.link import Link, Packet

_ALL: Final = 0x0003  # ETH_P_ALL: with it, a packet socket sees what leaves, too
_SO_TIMESTAMPNS: Final = 35  # not in Python's socket module
_TIMESPEC: Final = struct.Struct("qq")  # seconds, nanoseconds
_LARGEST: Final = 65_600
FILE_NAME: Final = "umux-demo.pcapng"


@attrs.frozen
class Seen:
    """One packet on the server's link. `time` in seconds since 1970."""

    time: float
    packet: bytes

    @property
    def source(self) -> bytes:
        return self.packet[8:24]

    @property
    def destination(self) -> bytes:
        return self.packet[24:40]

    def decode(self) -> Any:
        """dpkt's IPv6 packet."""
        return dpkt.ip6.IP6(self.packet)

    @property
    def segment(self) -> Any:
        """dpkt's TCP segment, or None."""
        upper = self.decode().data
        return upper if isinstance(upper, dpkt.tcp.TCP) else None


class Capture:
    """All packets so far. `server` tells whether an address is the server's."""

    def __init__(self, server: Callable[[bytes], bool]) -> None:
        self._server = server
        self._packets: list[Seen] = []

    def drain(self) -> None:
        """Takes what was recorded elsewhere in the meantime."""

    def close(self) -> None:
        """Records no more; what there is stays."""

    def add(self, packet: bytes, at: float) -> None:
        if len(packet) >= 40 and packet[0] >> 4 == 6:
            self._packets.append(Seen(at, packet))

    @property
    def packets(self) -> list[Seen]:
        self.drain()
        return self._packets

    def mark(self) -> int:
        """Where we are now; for `arrived` and `left`."""
        return len(self.packets)

    def arrived(self, mark: int, address: bytes | None = None) -> list[Seen]:
        """What came for the server since `mark`: for this address of it, or for any."""
        return [
            seen
            for seen in self.packets[mark:]
            if self._server(seen.destination) and address in (None, seen.destination)
        ]

    def left(self, mark: int, to: bytes | None = None) -> list[Seen]:
        """What the server sent since `mark`: to this peer, or to any."""
        return [seen for seen in self.packets[mark:] if self._server(seen.source) and to in (None, seen.destination)]

    def between(self, one: bytes, other: bytes) -> list[Seen]:
        """All packets of a pair."""
        return [seen for seen in self.packets if {seen.source, seen.destination} == {one, other}]


class KernelCapture(Capture):
    """The kernel's record of one device."""

    def __init__(self, server: Callable[[bytes], bool], namespace: Namespace, device: str) -> None:
        super().__init__(server)
        self._socket = namespace.run(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
        try:
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self._socket.bind((device, _ALL))
        except BaseException:
            self._socket.close()
            raise

    def drain(self) -> None:
        while self._socket.fileno() >= 0:
            try:
                packet, ancillary, _, _ = self._socket.recvmsg(_LARGEST, socket.CMSG_SPACE(_TIMESPEC.size))
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ENETDOWN:  # told once, when the device goes; what was recorded comes after it
                    continue
                raise
            seconds, nanoseconds = _TIMESPEC.unpack(ancillary[0][2]) if ancillary else (time.time(), 0)
            self.add(packet, seconds + nanoseconds / 1e9)

    def close(self) -> None:
        self.drain()
        self._socket.close()


class TappedLink:
    """A `Link` that records all it carries, as the plain packets that a wire would carry."""

    def __init__(self, link: Link, capture: Capture) -> None:
        self.caps = link.caps
        self._link = link
        self._capture = capture

    def read_batch(self, limit: int) -> list[Packet]:
        packets = self._link.read_batch(limit)
        for buf, base, _, _ in packets:
            self._capture.add(buf[base:], time.time())
        return packets

    def write_batch(self, packets: Sequence[Outgoing]) -> int:
        taken = self._link.write_batch(packets)
        for outgoing in packets[:taken]:
            for packet in finish(outgoing):
                self._capture.add(packet, time.time())
        return taken

    async def wait_readable(self) -> None:
        await self._link.wait_readable()

    async def wait_writable(self) -> None:
        await self._link.wait_writable()

    def close(self) -> None:
        self._link.close()


def keep(capture: Path, wanted: Path | None) -> Path:
    """Copies the file to where it stays: `wanted`, by default here, or in $TMPDIR where here may not be written."""
    if wanted is not None:
        path = wanted.absolute()
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        except OSError as error:
            raise cannot_use(path, error) from error
    else:
        path = Path.cwd() / FILE_NAME
        try:
            # Not through a link that somebody has laid out in a directory that all may write to.
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
        except OSError:
            descriptor, name = tempfile.mkstemp(prefix="umux-demo-", suffix=".pcapng")
            path = Path(name)
    with open(descriptor, "wb") as file:
        file.write(capture.read_bytes())
    return path
