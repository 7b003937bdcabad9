"""Bytes between our TCP and the kernel's: connecting both ways, a gigabyte, what ends a session, and zero windows."""

import errno
import socket
import struct
from typing import Any

import pytest
import trio

from tests.system.lab import DEVICE, KERNEL, PREFIX, Lab, both, open_lab, until
from tests.system.peer import Tally, expected, pattern
from umuxstack.core.wire.address import in_prefix, parse, parse_prefix
from umuxstack.driver.streams import UmuxStream

pytestmark = pytest.mark.system

GIGABYTE = 1 << 30
PLAIN_SIZE = 30 << 20  # without offload every packet costs
NOTHING: dict[str, Any] = {"size": 0, "crc": 0}


async def exchange(stream: UmuxStream, total: int) -> dict[str, Any]:
    """What `peer.exchange` does, on our side: sends `total` bytes and FIN, receives until FIN."""
    sent, received = Tally(), Tally()

    async def send() -> None:
        for block in pattern(total):
            await stream.send_all(block)
            sent.add(block)
        await stream.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        while data := await stream.receive_some():
            received.add(data)
    return {"sent": sent.report(), "received": received.report()}


async def with_kernel_client(lab: Lab, ours: int, theirs: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The kernel connects to an SSA; both send so many bytes. What we saw, what it saw."""
    async with await lab.host.listen(80) as listener:
        client = lab.peer("connect", lab.open_door(listener), 80, theirs)
        async with await listener.accept() as stream:
            return await exchange(stream, ours), await client.result()


async def with_kernel_server(lab: Lab, ours: int, theirs: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """We connect to the kernel, from an EA; both send so many bytes. What we saw, what it saw."""
    server = lab.peer("listen", 5000, theirs)
    await server.ready()
    async with await lab.host.connect(KERNEL, 5000) as stream:
        return await exchange(stream, ours), await server.result()


def check(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert theirs["failures"] == []
    assert ours["sent"] == theirs["received"]
    assert theirs["sent"] == ours["received"]


@both
async def test_kernel_connects_and_both_talk_at_once(offload: bool) -> None:
    async with open_lab(offload=offload) as lab:
        ours, theirs = await with_kernel_client(lab, 3 << 20, 5 << 20)
        check(ours, theirs)
        assert ours["sent"] == expected(3 << 20)
        assert ours["received"] == expected(5 << 20)
        assert in_prefix(parse(theirs["peer"][0]), *parse_prefix(PREFIX))
        assert theirs["peer"][1] == 80


@both
async def test_we_connect_and_both_talk_at_once(offload: bool) -> None:
    async with open_lab(offload=offload) as lab:
        ours, theirs = await with_kernel_server(lab, 5 << 20, 3 << 20)
        check(ours, theirs)
        assert ours["sent"] == expected(5 << 20)
        assert theirs["peer"][1] == 1  # the fixed port, from an EA (UM-4)


@both
async def test_a_gigabyte_in_arrives_as_it_was_sent(offload: bool) -> None:
    size = GIGABYTE if offload else PLAIN_SIZE
    async with open_lab(offload=offload) as lab:
        ours, theirs = await with_kernel_client(lab, 0, size)
        check(ours, theirs)
        assert ours["received"] == expected(size)


@both
async def test_a_gigabyte_out_arrives_as_it_was_sent(offload: bool) -> None:
    size = GIGABYTE if offload else PLAIN_SIZE
    async with open_lab(offload=offload) as lab:
        ours, theirs = await with_kernel_server(lab, size, 0)
        check(ours, theirs)
        assert theirs["received"] == expected(size)


@both
async def test_the_kernel_ends_its_direction_and_ours_goes_on(offload: bool) -> None:
    async with open_lab(offload=offload) as lab, lab.kernel_client() as (client, stream):
        await client.send(b"question")
        client.shutdown(socket.SHUT_WR)
        assert await stream.receive_some() == b"question"
        assert await stream.receive_some() == b""
        assert stream.session.state_name == "CLOSE-WAIT"
        for number in range(100):
            await stream.send_all(b"%08d" % number)
        await stream.send_eof()
        answer = b""
        while data := await client.recv(65536):
            answer += data
        assert answer == b"".join(b"%08d" % number for number in range(100))


@both
async def test_we_end_our_direction_and_the_kernels_goes_on(offload: bool) -> None:
    async with open_lab(offload=offload) as lab, lab.kernel_server() as (server, stream):
        await stream.send_all(b"question")
        await stream.send_eof()
        assert await server.recv(100) == b"question"
        assert await server.recv(100) == b""
        await until(lambda: stream.session.state_name == "FIN-WAIT-2")
        await server.send(b"answer, " * 1000)
        server.shutdown(socket.SHUT_WR)
        answer = b""
        while data := await stream.receive_some():
            answer += data
        assert answer == b"answer, " * 1000


@both
async def test_a_reset_by_the_kernel_is_a_reset_here(offload: bool) -> None:
    async with open_lab(offload=offload) as lab, lab.kernel_client() as (client, stream):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        with pytest.raises(trio.BrokenResourceError) as raised:
            await stream.receive_some()
        assert isinstance(raised.value.__cause__, ConnectionResetError)


@both
async def test_an_abort_here_is_a_reset_in_the_kernel(offload: bool) -> None:
    async with open_lab(offload=offload) as lab, lab.kernel_server() as (server, stream):
        stream.abort()
        with pytest.raises(ConnectionResetError):
            await server.recv(1)


@both
async def test_a_close_with_unread_data_is_a_reset_in_the_kernel(offload: bool) -> None:
    """RFC 2525 2.17: data that nobody will read is not swallowed."""
    async with open_lab(offload=offload) as lab, lab.kernel_client() as (client, stream):
        await client.send(b"unread")
        await until(lambda: stream.session.readable)
        await stream.aclose()
        with pytest.raises(ConnectionResetError):
            await client.recv(1)


async def test_a_closed_port_of_the_kernel_refuses() -> None:
    async with open_lab() as lab:
        with pytest.raises(ConnectionRefusedError):
            await lab.host.connect(KERNEL, 9)


async def test_an_unreachable_network_is_told_by_icmp() -> None:
    """UM-39: the error names the pair of our SYN, whoever sent it."""
    async with open_lab() as lab:
        lab.netlink.set_forwarding(on=True)
        with pytest.raises(OSError, match="unreachable") as raised:
            await lab.host.connect("2001:db8:dead::1", 80)
        assert raised.value.errno == errno.EHOSTUNREACH


@both
async def test_a_slow_reader_here_stops_the_kernel_and_loses_nothing(offload: bool) -> None:
    size = 16 << 20  # more than our largest receive buffer
    async with open_lab(offload=offload) as lab, await lab.host.listen(80) as listener:
        client = lab.peer("connect", lab.open_door(listener), 80, size)
        async with await listener.accept() as stream:
            await until(lambda: stream.statistics().rcv_wnd < stream.statistics().snd_mss)
            await trio.sleep(0.5)  # the kernel probes the window now
            assert stream.statistics().rcv_wnd < stream.statistics().snd_mss
            ours = await exchange(stream, 0)
            check(ours, await client.result())
            assert ours["received"] == expected(size)


@both
async def test_a_slow_reader_in_the_kernel_stops_us_and_loses_nothing(offload: bool) -> None:
    size = 2 << 20
    async with open_lab(offload=offload) as lab, lab.kernel_server(receive_buffer=65536) as (server, stream):
        tally = Tally()
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                for block in pattern(size):
                    await stream.send_all(block)
                await stream.send_eof()

            nursery.start_soon(send)
            await until(lambda: stream.statistics().snd_wnd == 0)
            await trio.sleep(0.7)  # now we probe the window
            assert stream.statistics().snd_wnd == 0
            while data := await server.recv(1 << 20):
                tally.add(data)
        assert tally.report() == expected(size)


@both
async def test_the_link_goes_down_and_up_in_the_middle_of_sending(offload: bool) -> None:
    size = 400 << 20 if offload else PLAIN_SIZE
    async with open_lab(offload=offload) as lab:
        server = lab.peer("listen", 5000, 0)
        await server.ready()
        async with await lab.host.connect(KERNEL, 5000) as stream, trio.open_nursery() as nursery:
            sent = Tally()

            async def send() -> None:
                for block in pattern(size):
                    await stream.send_all(block)
                    sent.add(block)
                await stream.send_eof()

            nursery.start_soon(send)
            await until(lambda: sent.size > size // 4)
            await interrupt(lab)
            assert not stream.session.ended
            assert await stream.receive_some() == b""
            report = await server.result()
        assert report["received"] == sent.report() == expected(size)
        assert report["failures"] == []
        assert lab.host.link_state.outages == 1


@both
async def test_the_link_goes_down_and_up_in_the_middle_of_receiving(offload: bool) -> None:
    size = 400 << 20 if offload else PLAIN_SIZE
    async with open_lab(offload=offload) as lab, await lab.host.listen(80) as listener:
        client = lab.peer("connect", lab.open_door(listener), 80, size)
        async with await listener.accept() as stream, trio.open_nursery() as nursery:
            received = Tally()

            async def receive() -> None:
                while data := await stream.receive_some():
                    received.add(data)
                await stream.send_eof()

            nursery.start_soon(receive)
            await until(lambda: received.size > size // 4)
            await interrupt(lab)
            report = await client.result()
        assert received.report() == expected(size)
        assert report["failures"] == []


async def interrupt(lab: Lab) -> None:
    """The link is down for a while; then it works again."""
    lab.netlink.down(DEVICE)
    await trio.sleep(0.3)
    await lab.reconnect()
    await until(lambda: lab.host.link_state.up)
