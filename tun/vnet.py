"""The virtio-net header before every packet of the device, and the ioctls that switch offload on.

Owns the layout and the numbers of <linux/virtio_net.h> and <linux/if_tun.h>.
Only what a TUN with IPv6 needs: UDP segmentation is not asked for. The ioctl
numbers are those of x86, ARM and RISC-V (asm-generic/ioctl.h).
"""

import errno
import fcntl
import struct
from typing import Final, NamedTuple

HEADER: Final = struct.Struct("=BBHHHH")  # flags, gso_type, hdr_len, gso_size, csum_start, csum_offset; host order
HEADER_SIZE: Final = HEADER.size  # 10

NEEDS_CHECKSUM: Final = 1  # the checksum field holds the pseudo-header sum; the data never left this machine
DATA_VALID: Final = 2  # somebody has verified the checksum already

GSO_NONE: Final = 0
GSO_TCPV4: Final = 1
GSO_TCPV6: Final = 4
GSO_UDP_L4: Final = 5
GSO_ECN: Final = 0x80  # ORed to a TCP type: the first segment carries CWR

IPV6_HEADER: Final = 40  # where the checksum starts: we never send extension headers

IFF_TUN: Final = 0x0001
IFF_NO_PI: Final = 0x1000
IFF_VNET_HDR: Final = 0x4000

TUNSETIFF: Final = 0x400454CA
TUNSETOFFLOAD: Final = 0x400454D0
TUNSETVNETHDRSZ: Final = 0x400454D8

OFFLOAD_CHECKSUM: Final = 1
OFFLOAD_TSO4: Final = 2
OFFLOAD_TSO6: Final = 4


class VnetHeader(NamedTuple):
    """The six fields, lengths and offsets in bytes. For tests and tools; the packet path reads single fields."""

    flags: int = 0
    gso_type: int = GSO_NONE
    hdr_len: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0


def build(hdr_len: int, gso_size: int, csum_offset: int) -> bytes:
    """The header (10 bytes) of a packet to be written.

    `gso_size` > 0: a TCP super-segment of `hdr_len` bytes of headers, to be cut into pieces of `gso_size` bytes.
    `csum_offset` > 0: where in the upper header the kernel puts the checksum. 0: it is complete already.
    """
    if gso_size:
        return HEADER.pack(NEEDS_CHECKSUM, GSO_TCPV6, hdr_len, gso_size, IPV6_HEADER, csum_offset)
    if csum_offset:
        return HEADER.pack(NEEDS_CHECKSUM, GSO_NONE, 0, 0, IPV6_HEADER, csum_offset)
    return bytes(HEADER_SIZE)


def parse(buf: bytes) -> VnetHeader:
    """The header at the start of what was read. `struct.error` when fewer than 10 bytes are given."""
    return VnetHeader(*HEADER.unpack_from(buf))


def set_header_size(fd: int) -> None:
    """Fixes the header at 10 bytes (the kernel's default, but nothing promises it). `OSError` from the kernel."""
    fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", HEADER_SIZE))


def set_offload(fd: int, *, wanted: bool) -> tuple[bool, bool]:
    """Asks for super-segments and partial checksums in what we read; (segmentation, checksum) as granted.

    A kernel that cannot do one answers EINVAL; then less is asked for. Not wanting them always succeeds.
    """
    attempts = (OFFLOAD_CHECKSUM | OFFLOAD_TSO4 | OFFLOAD_TSO6, OFFLOAD_CHECKSUM) if wanted else ()
    for flags in attempts:
        try:
            fcntl.ioctl(fd, TUNSETOFFLOAD, flags)  # the flags are the argument itself, not a pointer to it
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        else:
            return bool(flags & OFFLOAD_TSO6), True
    fcntl.ioctl(fd, TUNSETOFFLOAD, 0)
    return False, False
