"""The pcapng file format, as much of it as a capture of IPv6 packets needs; and a sink that never waits.

Little-endian, one section, one interface, nanoseconds since 1970. Blocks and
options are those of draft-ietf-opsawg-pcapng. Knows no link and no stack.
"""

import os
import select
import stat
from collections.abc import Mapping, Sequence
from struct import Struct
from typing import Final

LINKTYPE_RAW: Final = 101  # packets begin with the IP header
SNAPLEN: Final = 262_144

_SECTION_HEADER: Final = 0x0A0D0D0A
_INTERFACE: Final = 1
_NAMES: Final = 4
_STATISTICS: Final = 5
_PACKET: Final = 6

_COMMENT: Final = 1
_APPLICATION: Final = 4
_IF_NAME: Final = 2
_IF_DESCRIPTION: Final = 3
_IF_RESOLUTION: Final = 9
_PACKET_FLAGS: Final = 2
_PACKET_DROPS: Final = 4
_STATISTICS_RECEIVED: Final = 4
_STATISTICS_DROPPED: Final = 7
_NAME_IPV6: Final = 2

INBOUND: Final = 1
OUTBOUND: Final = 2

_TWO: Final = Struct("<II")
_OPTION: Final = Struct("<HH")
_LENGTH: Final = Struct("<I")
_PACKET_HEAD: Final = Struct("<IIIII")
_COUNT: Final = Struct("<Q")


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _option(code: int, data: bytes) -> bytes:
    return _OPTION.pack(code, len(data)) + _pad(data)


def _text(code: int, text: str) -> bytes:
    return _option(code, text.encode()[:65535]) if text else b""


def _block(kind: int, body: bytes, options: bytes = b"") -> bytes:
    if options:
        options += _OPTION.pack(0, 0)
    length = 12 + len(body) + len(options)
    return b"".join((_TWO.pack(kind, length), body, options, _LENGTH.pack(length)))


def header(name: str, *, description: str = "", comment: str = "", application: str = "umuxstack") -> bytes:
    """What a file begins with: the section and the one interface, called `name`."""
    section = Struct("<IHHq").pack(0x1A2B3C4D, 1, 0, -1)
    interface = Struct("<HHI").pack(LINKTYPE_RAW, 0, SNAPLEN)
    options = _text(_IF_NAME, name) + _text(_IF_DESCRIPTION, description) + _option(_IF_RESOLUTION, b"\x09")
    return _block(_SECTION_HEADER, section, _text(_COMMENT, comment) + _text(_APPLICATION, application)) + _block(
        _INTERFACE, interface, options
    )


def packet(data: bytes, nanos: int, direction: int, comments: Sequence[str] = (), dropped: int = 0) -> bytes:
    """One packet with its comments. `direction` is INBOUND or OUTBOUND; `dropped`: packets lost since the last one."""
    options = b"".join(_text(_COMMENT, comment) for comment in comments)
    options += _option(_PACKET_FLAGS, _LENGTH.pack(direction))
    if dropped:
        options += _option(_PACKET_DROPS, _COUNT.pack(dropped))
    size = len(data)
    return _block(_PACKET, _PACKET_HEAD.pack(0, nanos >> 32, nanos & 0xFFFFFFFF, size, size) + _pad(data), options)


def names(by_address: Mapping[bytes, str]) -> bytes:
    """Names for IPv6 addresses (16 bytes), for readers that resolve names."""
    records = b"".join(
        _option(_NAME_IPV6, address + name.encode() + b"\0") for address, name in by_address.items() if name
    )
    return _block(_NAMES, records + _OPTION.pack(0, 0))


def statistics(nanos: int, received: int, dropped: int) -> bytes:
    """The last block: how many packets there were, and how many of them the capture had to leave out."""
    options = _option(_STATISTICS_RECEIVED, _COUNT.pack(received))
    options += _option(_STATISTICS_DROPPED, _COUNT.pack(dropped))
    return _block(_STATISTICS, Struct("<III").pack(0, nanos >> 32, nanos & 0xFFFFFFFF), options)


class Sink:
    """Where the bytes of a capture go: a file, or a pipe whose reader may be slow.

    A full pipe makes nobody wait: up to `limit` bytes are kept, and `has_room` is false beyond that.
    """

    _CHUNK: Final = select.PIPE_BUF  # a pipe that is ready takes this much at once

    def __init__(self, target: str | os.PathLike[str] | int, *, limit: int = 4 << 20) -> None:
        """`target`: a path (a FIFO needs its reader first), or a descriptor, which stays the caller's.

        A new file can be read by its owner only: a capture shows addresses that are secrets (UM-34). Raises OSError.
        """
        self._own = not isinstance(target, int)
        if isinstance(target, int):
            self._fd = target
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
            self._fd = os.open(target, flags, 0o600)
        self._regular = stat.S_ISREG(os.fstat(self._fd).st_mode)
        if self._own and self._regular:
            os.ftruncate(self._fd, 0)
        self._limit = limit
        self._kept = bytearray()

    @property
    def has_room(self) -> bool:
        return len(self._kept) < self._limit

    def write(self, data: bytes) -> None:
        """Keeps `data` for the next `flush`."""
        self._kept += data

    def flush(self) -> None:
        """Passes on what can be passed on without waiting. Raises OSError: the disk is full, the reader is gone."""
        kept = self._kept
        done = 0
        try:
            while done < len(kept) and (self._regular or self._is_ready()):
                end = len(kept) if self._regular else done + self._CHUNK
                done += os.write(self._fd, kept[done:end])
        except BlockingIOError:
            pass
        finally:
            del kept[:done]

    def _is_ready(self) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Passes on what it can, and lets go. Idempotent."""
        if self._fd < 0:
            return
        try:
            self.flush()
        finally:
            descriptor, self._fd = self._fd, -1
            if self._own:
                os.close(descriptor)
