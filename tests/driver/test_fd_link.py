"""FdLink: a device with a descriptor as a link, and one that can be made again."""

import os
import socket
from collections.abc import Sequence
from typing import Self

import pytest
import trio

from tests.driver.conftest import CLIENT_PREFIX, config
from umuxstack.core.session.context import Outgoing
from umuxstack.core.wire import icmpv6
from umuxstack.driver.addresses import to_address
from umuxstack.driver.fd_link import FdLink
from umuxstack.driver.link import Packet
from umuxstack.driver.runtime import Host

US = to_address("2001:db8:1::1")
THEM = to_address("2001:db8:2::1")
ECHO_REQUEST = icmpv6.build(THEM, US, icmpv6.ECHO_REQUEST, 0, 1, b"ping", 64)


class SocketDevice:
    """One end of a kernel's datagram pair in the place of a TUN: a descriptor that can be waited for."""

    mtu = 1400
    segmentation = False
    checksum = False

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self.end = end
        self.gone = False

    @classmethod
    def pair(cls) -> tuple[Self, socket.socket]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        theirs.setblocking(False)
        return cls(ours), theirs

    def fileno(self) -> int:
        return self.end.fileno()

    def read_batch(self, limit: int) -> list[Packet]:
        if self.gone:
            raise OSError("the device was deleted")
        try:
            return [(self.end.recv(65536), 0, 0, False)]
        except BlockingIOError:
            return []

    def write_batch(self, packets: Sequence[Outgoing]) -> int:
        for taken, (header, payload, _, _) in enumerate(packets):
            try:
                self.end.send(header + bytes(payload))
            except BlockingIOError:
                return taken
        return len(packets)

    def close(self) -> None:
        self.end.close()


async def expect_echo_reply(wire: socket.socket) -> None:
    wire.send(ECHO_REQUEST)
    with trio.fail_after(5):
        await trio.lowlevel.wait_readable(wire)
    assert wire.recv(65536)[40] == icmpv6.ECHO_REPLY


def host_on(link: FdLink) -> Host:
    return Host(link, config(CLIENT_PREFIX, "2001:db8:1::1"))


async def test_a_host_reads_and_writes_through_a_descriptor() -> None:
    device, wire = SocketDevice.pair()
    with wire:
        async with host_on(FdLink(device)) as host:
            assert host.config.link.mtu == 1400
            await expect_echo_reply(wire)
        assert device.end.fileno() == -1


async def test_the_rest_is_written_when_the_descriptor_takes_more() -> None:
    device, wire = SocketDevice.pair()
    with wire:
        async with host_on(FdLink(device)) as host, await host.datagram_socket() as sender:
            for number in range(1000):
                await sender.send_to(str(number).encode(), ("2001:db8:2::1", 9))
            received = 0
            while received < 1000:
                await trio.lowlevel.wait_readable(wire)
                assert wire.recv(65536)[48:] == str(received).encode()
                received += 1


async def test_a_device_that_vanished_is_made_again() -> None:
    first, first_wire = SocketDevice.pair()
    second, second_wire = SocketDevice.pair()
    attempts = 0

    def reopen() -> SocketDevice:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise OSError("not yet")
        return second

    with first_wire, second_wire:
        async with host_on(FdLink(first, reopen=reopen)) as host:
            await expect_echo_reply(first_wire)
            first.gone = True
            first_wire.send(b"wakes the reader")
            await trio.sleep(1)
            assert first.end.fileno() == -1
            assert attempts == 3
            assert host.link_state.up
            await expect_echo_reply(second_wire)
    assert second.end.fileno() == -1


async def test_a_device_that_cannot_be_made_again_fails_as_often_as_it_is_asked() -> None:
    device, wire = SocketDevice.pair()
    with wire:
        link = FdLink(device)
        device.gone = True
        for _ in range(2):
            with pytest.raises(OSError, match="deleted"):
                link.read_batch(1)
        link.close()
        link.close()
        with pytest.raises(trio.ClosedResourceError):
            link.read_batch(1)
        with pytest.raises(trio.ClosedResourceError):
            await link.wait_writable()


async def test_closing_wakes_who_waits() -> None:
    device, wire = SocketDevice.pair()
    link = FdLink(device)
    with wire:
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await link.wait_readable()

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            link.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(device.end.fileno())
