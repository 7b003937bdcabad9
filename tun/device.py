"""A TUN device: batches of IPv6 packets, read and written with their offload marks.

Owns the descriptor. Does not wait (the caller does, on `fileno()`), does not
route or bring the link up (its user does, by `tun.netlink`), does not look into packets.
Invariant: no packet from either side raises; what the kernel rejects is counted.
Numbers and recipe: one system call and one tuple per packet, super-segments whole.
"""

# 8504-4-1

import errno
import os
import re
import struct
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Final, Self, TypeAlias

from tun import vnet
from tun.errors import LinkDown, MtuOutOfRange, NameInvalid, TunError
from tun.netlink import Netlink
from tun.openers import Opener, default_opener
from tun.steering import steered_to

Packet: TypeAlias = tuple[bytes, int, int, bool]  # buffer, where the packet starts in it, gso_size, checksum is good
Outgoing: TypeAlias = tuple[bytes, "bytes | bytearray | memoryview", int, int]  # header, payload, gso_size, csum_offset

READ_SIZE: Final = 65600  # vnet header, IPv6 header and 65,535 bytes after it are 65,585
BATCH_BYTES: Final = 1 << 20  # of super-segments: 64 of them are 4 MB, too much for a cache
REUSED: Final = 24 << 20  # bytes of heap that glibc may keep at hand, see `_keep_heap`
PACKET_LIMIT: Final = 65575  # the kernel takes more and sends nonsense: IPv6's length field has 16 bits
MTU_MIN: Final = 1280  # RFC 8200 section 5
MTU_MAX: Final = 65535  # the TUN driver's own limit
MTU_DEFAULT: Final = 1500
QUEUE_LENGTH: Final = 5000  # packets; at the default of 500 the kernel drops while Python is busy
DEFAULT_NAME: Final = "umux%d"
NAME_MAX: Final = 15  # bytes: IFNAMSIZ without the terminating zero
VNET_CACHE_LIMIT: Final = 4096  # entries; a stack uses a few dozen

GSO_SIZE: Final = struct.Struct("=H")
NAME_SHAPE: Final = re.compile(r"[^\s\0/:%]+(%d)?[^\s\0/:%]*|%d[^\s\0/:%]*")

DOWN: Final = frozenset({errno.EIO, errno.EBADFD, errno.ENETDOWN, errno.EBADF, errno.ENODEV, errno.ENXIO, errno.EFAULT})
LATER: Final = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM})


class TunDevice:
    """One TUN device, which lives as long as this object is open.

    `name`: up to 15 bytes, `%d` in it is numbered by the kernel; None: umux0, umux1, ...
    `mtu`: bytes, 1280 to 65535. `offload`: super-segments and partial checksums, as far as the kernel grants them:
    see `segmentation` and `checksum`. Without offload only complete single packets may be written (csum_offset 0).
    `kernel_cores`: on which cores the kernel receives what is written; (): within the write (tun/steering.py).
    It is made in the network namespace of the calling thread, down; to make it elsewhere: `namespace.run(TunDevice)`.
    Raises `PermissionDenied`, `DeviceMissing`, `NameTaken`, `NameInvalid`, `MtuOutOfRange`.
    """

    __slots__ = (
        "_fd", "_vnet_headers", "checksum", "dropped_malformed", "dropped_oversize",
        "index", "mtu", "name", "segmentation",
    )  # fmt: skip

    def __init__(
        self,
        name: str | None = None,
        *,
        mtu: int = MTU_DEFAULT,
        offload: bool = True,
        kernel_cores: Collection[int] = (),
        opener: Opener | None = None,
    ) -> None:
        self._fd = -1
        self._vnet_headers: dict[tuple[int, int, int], bytes] = {}
        self.dropped_malformed = 0  # packets that the kernel rejected
        self.dropped_oversize = 0  # packets that IPv6's length field cannot describe
        if not MTU_MIN <= mtu <= MTU_MAX:
            raise MtuOutOfRange(
                errno.EINVAL, f"MTU {mtu}: choose {MTU_MIN} (IPv6's minimum) to {MTU_MAX}; usual is 1500"
            )
        wanted = DEFAULT_NAME if name is None else name
        check_name(wanted)
        if opener is None:
            opener = default_opener()
        with steered_to(kernel_cores):
            self._fd, self.name = opener(wanted)
        try:
            os.set_blocking(self._fd, False)
            vnet.set_header_size(self._fd)
            self.segmentation, self.checksum = vnet.set_offload(self._fd, wanted=offload)
            if self.segmentation:
                _keep_heap()
            self.index, self.mtu = _configure(self.name, mtu)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """The descriptor to wait on; -1 when closed. A link that is down is never writable, and becomes so on `up`."""
        return self._fd

    def close(self) -> None:
        """The device disappears, with its addresses and routes. Again: nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # Without this a forgotten device keeps its name until the process ends.
        if getattr(self, "_fd", -1) >= 0:
            self.close()

    def read_batch(self, limit: int) -> list[Packet]:
        """What is there now, at most `limit` packets or about a megabyte; [] when nothing, or while the link is down.

        Does not wait.

        gso_size > 0: a TCP super-segment, cut from segments of that many payload bytes. The checksum flag: verified,
        or never computed because the packet came from this machine. `LinkDown` when the device is gone.
        """
        fd = self._fd
        read = os.read
        gso_size = GSO_SIZE.unpack_from
        packets: list[Packet] = []
        append = packets.append
        room = BATCH_BYTES
        try:
            for _ in range(limit):
                buf = read(fd, 65600)  # READ_SIZE; a constant in place saves a look-up per packet
                if buf[1] & 0x7F == 4:  # GSO_TCPV6, with or without ECN
                    append((buf, 10, gso_size(buf, 4)[0], buf[0] & 3 != 0))
                    room -= len(buf)
                    if room < 0:
                        break
                else:
                    append((buf, 10, 0, buf[0] & 3 != 0))  # NEEDS_CHECKSUM | DATA_VALID
        except BlockingIOError:
            pass
        except OSError as error:
            if not packets:
                raise self._failed(error, 0) from error
        return packets

    def write_batch(self, packets: Sequence[Outgoing]) -> int:
        """How many were taken, rejected ones included; fewer than given: the rest when it is writable. Does not wait.

        Each is (header, payload, gso_size, csum_offset); `header` is the IPv6 header and the upper header behind it.
        gso_size > 0: a TCP super-segment, cut by the kernel. csum_offset > 0: the field there, in the upper header,
        holds the folded pseudo-header sum, to be completed by the kernel. 0: the packet is complete.
        A malformed or oversize packet is counted and passed over. `LinkDown` when the link is down or gone.
        """
        fd = self._fd
        write = os.write
        writev = os.writev
        headers = self._vnet_headers
        taken = 0
        for header, payload, gso_size, csum_offset in packets:
            size = len(header)
            if size + len(payload) > 65575:  # PACKET_LIMIT
                self.dropped_oversize += 1
                taken += 1
                continue
            try:
                prefix = headers[size, gso_size, csum_offset]
            except KeyError:
                prefix = self._vnet_header(size, gso_size, csum_offset)
            try:
                if len(payload) > 2048:
                    writev(fd, (prefix + header, payload))
                elif payload:
                    write(fd, prefix + header + payload)  # a copy of so little costs less than a second piece
                else:
                    write(fd, prefix + header)
            except OSError as error:
                if error.errno in LATER:
                    return taken
                if error.errno in DOWN:
                    raise self._failed(error, taken) from error
                self.dropped_malformed += 1
            taken += 1
        return taken

    def _vnet_header(self, hdr_len: int, gso_size: int, csum_offset: int) -> bytes:
        if len(self._vnet_headers) >= VNET_CACHE_LIMIT:
            self._vnet_headers.clear()
        header = vnet.build(hdr_len, gso_size, csum_offset)
        self._vnet_headers[hdr_len, gso_size, csum_offset] = header
        return header

    def _failed(self, error: OSError, taken: int) -> TunError:
        if error.errno == errno.EIO:
            return LinkDown(f"{self.name} is down: `sudo ip link set {self.name} up`, then add its routes again", taken)
        if self._fd < 0:
            return LinkDown(f"{self.name} was closed by this program: open it again", taken)
        if error.errno in DOWN:
            return LinkDown(f"{self.name} was deleted: start the program again, or open the device again", taken)
        return TunError(error.errno or errno.EIO, f"reading {self.name}: {error.strerror}")


def check_name(name: str) -> None:
    """`NameInvalid` unless the kernel would take this as an interface's name (`%d` allowed once)."""
    if not NAME_SHAPE.fullmatch(name) or name in (".", "..", "all", "default"):
        raise NameInvalid(
            errno.EINVAL,
            f"interface name {name!r}: use letters, digits, '-', '_' or '.', without spaces, '/' or ':'; "
            "`%d` may stand once for a number that the kernel chooses",
        )
    if len(name.encode()) > NAME_MAX:
        raise NameInvalid(
            errno.ENAMETOOLONG, f"interface name {name!r} has {len(name.encode())} bytes: use at most {NAME_MAX}"
        )


def _keep_heap() -> None:
    """Lets glibc reuse the buffers of one batch for the next, instead of returning their pages each time.

    The page faults cost as much as everything else together: 1.6 to 2 times the processor time per byte received
    (`benchmarks.run --only bulk_in`). Freeing a block that was mapped raises both of malloc's thresholds, the one
    for mapping to its size, the one for trimming to twice that (mallopt(3), M_MMAP_THRESHOLD); it is never touched,
    so it costs nothing. With another allocator it does nothing.
    """
    bytes(REUSED)


def _configure(name: str, mtu: int) -> tuple[int, int]:
    """Sets MTU and queue length; (index, MTU). Must run in the device's namespace.

    By netlink: the ioctl for the queue length is refused in a user namespace (`unshare -Urn`).
    """
    with Netlink() as netlink:
        netlink.set_mtu(name, mtu)
        netlink.set_txqueuelen(name, QUEUE_LENGTH)
        link = netlink.link(name)
    return link.index, link.mtu
