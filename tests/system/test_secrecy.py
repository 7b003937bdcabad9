"""What an outsider with a kernel can find out: nothing, where nobody is expected."""

import os
import socket
import struct

import pytest
import trio

from tests.system.lab import KERNEL, Lab, both, open_lab, sniffer, until
from umuxstack.core.errors import Drop
from umuxstack.core.wire.address import parse

pytestmark = [pytest.mark.system, pytest.mark.rule("UM-30", "UM-31")]

ADDRESSES = 10_000
PAUSE_EVERY = 250  # packets; the device's queue holds 5,000
IPV6_CHECKSUM = 7  # ipv6(7): where the kernel puts the checksum
SYN = struct.pack("!HHIIBBHHH", 40000, 80, 7, 0, 5 << 4, 0x02, 65535, 0, 0)
ECHO = struct.pack("!BBHHH", 128, 0, 0, 7, 1)


def random_address(lab: Lab) -> tuple[str, int]:
    return socket.inet_ntop(socket.AF_INET6, lab.host.config.prefix[:8] + os.urandom(8)), 0


@both
async def test_a_scan_of_10000_unassigned_addresses_brings_no_answer(offload: bool) -> None:
    async with open_lab(offload=offload) as lab:
        listener = await lab.host.listen(80)
        lab.open_door(listener)  # somebody is expected, elsewhere
        with (
            sniffer(lab) as sent_by_us,
            lab.socket(socket.SOCK_RAW, socket.IPPROTO_TCP) as tcp,
            lab.socket(socket.SOCK_DGRAM) as udp,
            lab.socket(socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as icmp,
        ):
            tcp.setsockopt(socket.IPPROTO_IPV6, IPV6_CHECKSUM, 16)
            before = lab.host.stack.counters.drops[Drop.NO_OWNER]
            for number in range(ADDRESSES):
                target, port = random_address(lab)
                await tcp.sendto(SYN, (target, port))
                await udp.sendto(b"anybody?", (target, 7))
                await icmp.sendto(ECHO, (target, port))
                if number % PAUSE_EVERY == 0:
                    await trio.sleep(0.001)
            counters = lab.host.stack.counters
            await until(lambda: counters.drops[Drop.NO_OWNER] - before >= 3 * ADDRESSES)
            await trio.sleep(0.1)
            assert sent_by_us() == []
            assert counters.packets_out == 0
            assert counters.drops[Drop.NO_OWNER] - before == 3 * ADDRESSES
            assert lab.host.stack.telescope() == [(parse(KERNEL), 3 * ADDRESSES)]
        await listener.aclose()


@both
async def test_a_kernel_that_connects_to_nobody_hears_nothing_until_it_gives_up(offload: bool) -> None:
    async with open_lab(offload=offload) as lab:
        with sniffer(lab) as sent_by_us, lab.socket() as client:
            with trio.move_on_after(1.3) as patience:
                await client.connect((random_address(lab)[0], 80))
            assert patience.cancelled_caught
            assert sent_by_us() == []
        assert lab.host.stack.counters.drops[Drop.NO_OWNER] >= 2  # it tried more than once


@pytest.mark.rule("UM-22", "UM-32", "UM-33")
@both
async def test_a_used_ssa_refuses_its_own_peer_and_is_silent_to_others(offload: bool) -> None:
    async with open_lab(offload=offload) as lab, await lab.host.listen(80) as listener:
        ssa = lab.open_door(listener)
        lab.netlink.add_address("lo", "2001:db8:ffff::2")
        with lab.socket() as first, lab.socket() as again, lab.socket() as other:
            await first.bind((KERNEL, 0))
            await first.connect((ssa, 80))
            async with await listener.accept() as stream:
                await again.bind((KERNEL, 0))
                with pytest.raises(ConnectionRefusedError):
                    await again.connect((ssa, 80))
                await other.bind(("2001:db8:ffff::2", 0))
                with sniffer(lab) as sent_by_us:
                    with trio.move_on_after(0.7) as patience:
                        await other.connect((ssa, 80))
                    assert patience.cancelled_caught
                    assert sent_by_us() == []
                await first.send(b"still here")
                assert await stream.receive_some() == b"still here"


@pytest.mark.rule("UM-24", "UM-32")
async def test_an_ssa_for_one_peer_is_silent_to_others() -> None:
    async with open_lab() as lab, await lab.host.listen(80) as listener:
        ssa = lab.open_door(listener, peer="2001:db8:ffff::2")
        lab.netlink.add_address("lo", "2001:db8:ffff::2")
        with lab.socket() as other, lab.socket() as expected:
            await other.bind((KERNEL, 0))
            with sniffer(lab) as sent_by_us:
                with trio.move_on_after(0.5) as patience:
                    await other.connect((ssa, 80))
                assert patience.cancelled_caught
                assert sent_by_us() == []
            await expected.bind(("2001:db8:ffff::2", 0))
            await expected.connect((ssa, 80))
            async with await listener.accept() as stream:
                assert stream.remote_address[0] == "2001:db8:ffff::2"
