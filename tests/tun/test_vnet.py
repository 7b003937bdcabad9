"""The ten bytes before a packet, against the layout of <linux/virtio_net.h>."""

import errno
import fcntl
import struct

import pytest

from tun import vnet
from tun.vnet import VnetHeader


def test_a_super_segment_is_marked_for_cutting_and_for_its_checksum() -> None:
    built = vnet.build(72, 1428, 16)
    assert built == struct.pack("=BBHHHH", 1, 4, 72, 1428, 40, 16)
    assert vnet.parse(built) == VnetHeader(1, vnet.GSO_TCPV6, 72, 1428, 40, 16)


def test_a_single_packet_asks_for_its_checksum_only() -> None:
    assert vnet.build(48, 0, 6) == struct.pack("=BBHHHH", 1, 0, 0, 0, 40, 6)


def test_a_complete_packet_has_an_empty_header() -> None:
    assert vnet.build(48, 0, 0) == bytes(10)
    assert vnet.parse(bytes(10) + b"packet") == VnetHeader()


def test_a_short_header_is_refused() -> None:
    with pytest.raises(struct.error):
        vnet.parse(bytes(9))


class Kernel:
    """Stands for `fcntl.ioctl` of a kernel that grants some of the offloads."""

    def __init__(self, granted: int, code: int = errno.EINVAL) -> None:
        self.granted = granted
        self.code = code
        self.asked: list[int] = []

    def __call__(self, fd: int, request: int, flags: int) -> int:
        assert request == vnet.TUNSETOFFLOAD
        self.asked.append(flags)
        if flags & ~self.granted:
            raise OSError(self.code, "no")
        return 0


@pytest.mark.parametrize(
    ("granted", "wanted", "result", "asked"),
    [
        (7, True, (True, True), [7]),
        (1, True, (False, True), [7, 1]),
        (0, True, (False, False), [7, 1, 0]),
        (7, False, (False, False), [0]),
    ],
)
def test_offload_is_what_the_kernel_grants(
    monkeypatch: pytest.MonkeyPatch, granted: int, wanted: bool, result: tuple[bool, bool], asked: list[int]
) -> None:
    kernel = Kernel(granted)
    monkeypatch.setattr(fcntl, "ioctl", kernel)
    assert vnet.set_offload(3, wanted=wanted) == result
    assert kernel.asked == asked


def test_another_failure_of_offload_is_not_taken_for_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "ioctl", Kernel(0, errno.EBADFD))
    with pytest.raises(OSError, match="no"):
        vnet.set_offload(3, wanted=True)
