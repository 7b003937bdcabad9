"""A link over a device with a file descriptor (a TUN, say), waited for by trio.

Knows nothing of what the device is: it is taken by its shape.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import trio

from umuxstack.core.config import LinkCaps
from umuxstack.core.session.context import Outgoing
from umuxstack.driver.link import Packet


class Device(Protocol):
    """A non-blocking packet device. `mtu` in bytes."""

    mtu: int
    segmentation: bool
    checksum: bool

    def fileno(self) -> int: ...
    def read_batch(self, limit: int) -> list[Packet]: ...
    def write_batch(self, packets: Sequence[Outgoing]) -> int: ...
    def close(self) -> None: ...


class FdLink:
    """A `Link` over `device`.

    With `reopen`, a device that failed to read is thrown away, and the next read (the pump paces
    them) tries to make another: so a deleted TUN can come back. `reopen` raises OSError if it cannot yet.
    """

    def __init__(self, device: Device, *, reopen: Callable[[], Device] | None = None) -> None:
        self.caps = LinkCaps(mtu=device.mtu, segmentation=device.segmentation, checksum=device.checksum)
        self._device: Device | None = device
        self._reopen = reopen
        self._closed = False

    def _current(self) -> Device:
        if self._device is None:
            if self._closed or self._reopen is None:
                raise trio.ClosedResourceError("the link is closed")
            self._device = self._reopen()
        return self._device

    def read_batch(self, limit: int) -> list[Packet]:
        device = self._current()
        try:
            return device.read_batch(limit)
        except OSError:
            if self._reopen is not None:
                self._drop_device()
            raise

    def write_batch(self, packets: Sequence[Outgoing]) -> int:
        return self._current().write_batch(packets)

    async def wait_readable(self) -> None:
        await trio.lowlevel.wait_readable(self._current().fileno())

    async def wait_writable(self) -> None:
        await trio.lowlevel.wait_writable(self._current().fileno())

    def close(self) -> None:
        self._closed = True
        self._drop_device()

    def _drop_device(self) -> None:
        device, self._device = self._device, None
        if device is not None:
            trio.lowlevel.notify_closing(device.fileno())
            device.close()
