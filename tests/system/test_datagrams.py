"""UDP and echo between our stack and the kernel's, both ways; and a path narrower than the link."""

import socket
import struct

import pytest
import trio

from tests.system.lab import DEVICE, KERNEL, PREFIX, REST, SHARED, Process, both, open_lab, text
from tests.system.peer import expected, pattern
from tun import netns
from tun.netlink import Netlink
from umuxstack.core.wire.address import in_prefix, parse, parse_prefix

pytestmark = pytest.mark.system

SIZES = [1, 100, 1232, 1452]  # bytes; the last fills the link
FAR = "2001:db8:fa::2"
NARROW = 1300  # bytes: the MTU behind the router


async def finish(server: Process, sender: trio.socket.SocketType) -> list[list[object]]:
    """Ends an `echo_datagrams`; where its datagrams came from."""
    await sender.sendto(b"", (KERNEL, 5000))
    sources: list[list[object]] = (await server.result())["sources"]
    return sources


@pytest.mark.rule("UM-18")
@both
async def test_our_datagrams_reach_the_kernel_and_its_answers_come_back(offload: bool) -> None:
    async with open_lab(offload=offload) as lab:
        server = lab.peer("echo_datagrams", 5000)
        await server.ready()
        async with await lab.host.datagram_socket() as ours:
            for size in SIZES:
                await ours.send_to(bytes(size), (KERNEL, 5000))
                assert await ours.receive_from() == (bytes(size), (KERNEL, 5000))
        with lab.socket(socket.SOCK_DGRAM) as last:
            sources = await finish(server, last)
        assert len(sources) == len(SIZES)
        assert len({tuple(source) for source in sources}) == 1  # one destination, one session, one EA
        assert in_prefix(parse(str(sources[0][0])), *parse_prefix(PREFIX))


@pytest.mark.rule("UM-28")
@both
async def test_the_kernels_datagrams_reach_a_waiting_ssa_and_are_answered(offload: bool) -> None:
    async with open_lab(offload=offload) as lab, await lab.host.datagram_socket(port=5000) as ours:
        ssa = text(lab.host.das(ours).lease.address)
        with lab.socket(socket.SOCK_DGRAM) as client:
            await client.connect((ssa, 5000))
            for size in SIZES:
                await client.send(bytes(size))
                datagram = await ours.receive()
                assert (bytes(datagram.data), text(datagram.local)) == (bytes(size), ssa)
                await ours.send_to(b"to you", (text(datagram.peer), datagram.peer_port))
                assert await client.recv(100) == b"to you"


async def test_a_closed_port_of_the_kernel_is_told_to_a_connected_socket() -> None:
    """UM-39: port unreachable, quoted with our pair."""
    async with open_lab() as lab, await lab.host.datagram_socket() as ours:
        await ours.connect(KERNEL, 9)
        await ours.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            await ours.receive()


@pytest.mark.rule("UM-38")
@both
async def test_the_kernel_answers_our_ping(offload: bool) -> None:
    async with open_lab(offload=offload) as lab:
        replies = await lab.host.ping(KERNEL, count=3, interval=0.01, size=1000)
        assert [len(reply.data) for reply in replies if reply is not None] == [1000, 1000, 1000]


@both
async def test_the_kernel_pings_a_shared_address_and_is_answered(offload: bool) -> None:
    async with open_lab(offload=offload) as lab:
        with lab.socket(socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as icmp:
            await icmp.connect((SHARED, 0))
            await icmp.send(struct.pack("!BBHHH", 128, 0, 0, 4711, 1) + b"anybody?")
            answer = await icmp.recv(1000)
            assert (answer[0], answer[4:]) == (129, struct.pack("!HH", 4711, 1) + b"anybody?")


async def test_a_packet_too_big_makes_our_segments_smaller() -> None:
    """RFC 8201: the router between says what fits; the transfer goes on with that."""
    size = 3 << 20
    async with open_lab() as lab:
        with netns.create() as far, Netlink(far) as there:
            lab.netlink.set_forwarding(on=True)
            lab.netlink.add_veth("far", "near", far)
            ends = (lab.netlink, "far", "2001:db8:fa::1", NARROW), (there, "near", FAR, 1500)
            for netlink, name, _, mtu in ends:
                netlink.quiet(name)
                netlink.set_mtu(name, mtu)
                netlink.up(name)
            for number, (netlink, name, address, _) in enumerate(ends, 1):
                netlink.add_address(name, f"{address}/64")
                netlink.add_address(name, f"fe80::{number}/64")  # a router asks for neighbours from a link-local one
            there.add_route("::/0", gateway="2001:db8:fa::1")
            server = lab.peer("listen", 5000, 0, namespace=far)
            await server.ready()
            async with await lab.host.connect(FAR, 5000) as stream:
                before = stream.statistics().snd_mss
                for block in pattern(size):
                    await stream.send_all(block)
                await stream.send_eof()
                assert await stream.receive_some() == b""
                report = await server.result()
                assert report["received"] == expected(size)
                assert before > NARROW - 60 - 12 >= stream.statistics().snd_mss > 1000
            # A second session knows it from the start.
            server = lab.peer("listen", 5000, 0, namespace=far)
            await server.ready()
            async with await lab.host.connect(FAR, 5000) as stream:
                assert stream.statistics().snd_mss == NARROW - 60 - 12
                await stream.send_eof()
                await server.result()
            await trio.sleep(REST)
            assert lab.netlink.exists(DEVICE)
