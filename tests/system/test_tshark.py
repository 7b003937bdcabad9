"""An independent judge: tshark finds no error and no bad checksum in what our stack says on a wire.

Each scene is captured twice: between the stack and its TUN by our own tap, and at the kernel's end of the cable by
dumpcap. There the kernel's own packets have no checksum yet (it leaves that to the device), so only ours are judged.
What tshark merely wonders about (retransmissions, windows that fill) is listed in the output. The traffic of all other
system tests is judged, too: see wiretap.py.
"""

import signal
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.system.cabled import KERNEL_CABLE, OURS, ROUTER_CABLE, Cabled, open_cabled
from tests.system.judge import GOOD, is_here, judge
from tests.system.lab import KERNEL, PREFIX, SHARED, text, until
from tests.system.peer import Tally, expected, pattern
from tests.system.test_transfer import check, exchange, with_kernel_client, with_kernel_server
from tun import netns
from tun.netlink import Netlink
from umuxstack.core.units import Micros, millis
from umuxstack.driver.link import Link
from umuxstack.driver.links.impair import Impairment
from umuxstack.driver.links.pcap import PcapLink
from umuxstack.driver.links.pcapng import Sink
from umuxstack.host import open_host

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not is_here(), reason="tshark is not installed"),
]


@asynccontextmanager
async def dumpcap(lab: Cabled, capture: Path) -> AsyncIterator[None]:
    """Captures at the kernel's end of the cable."""
    command = ["dumpcap", "-q", "-i", KERNEL_CABLE, "-B", "32", "-w", str(capture)]
    process = lab.namespace.spawn(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "File: " not in process.stderr.readline():  # "Capturing on" comes before it captures
        assert process.poll() is None
    await trio.sleep(0.1)
    try:
        yield
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(0.4)  # what is under way, and what it has not read from its ring yet
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)


Scene = Callable[[Cabled], Awaitable[None]]


async def transfers(lab: Cabled) -> None:
    size = 400_000
    for talk in (with_kernel_client, with_kernel_server):
        ours, theirs = await talk(lab, size, size)
        check(ours, theirs)
        assert ours["received"] == expected(size)


async def half_close(lab: Cabled) -> None:
    async with lab.kernel_client() as (client, stream):
        await client.send(b"question")
        client.shutdown(socket.SHUT_WR)
        assert await stream.receive_some() == b"question"
        assert await stream.receive_some() == b""
        await stream.send_all(bytes(20_000))
        await stream.send_eof()
        while await client.recv(65536):
            pass
    async with lab.kernel_server() as (server, stream):
        await stream.send_eof()
        assert await server.recv(1) == b""
        await server.send(bytes(20_000))
        server.shutdown(socket.SHUT_WR)
        while await stream.receive_some():
            pass


async def resets(lab: Cabled) -> None:
    async with lab.kernel_server() as (server, stream):
        stream.abort()
        with pytest.raises(ConnectionResetError):
            await server.recv(10, socket.MSG_WAITALL)
    async with lab.kernel_client() as (client, stream):
        await client.send(b"unread")
        await until(lambda: stream.session.readable)
        await stream.aclose()
        with pytest.raises(ConnectionResetError):
            await client.recv(1)
    async with lab.kernel_client() as (client, stream):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
    with pytest.raises(ConnectionRefusedError):
        await lab.host.connect(KERNEL, 9)
    with lab.socket() as client, pytest.raises(ConnectionRefusedError):
        await client.connect((SHARED, 9))


async def zero_windows(lab: Cabled) -> None:
    size = 500_000
    async with lab.kernel_server(receive_buffer=30_000) as (server, stream):
        tally = Tally()
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                for block in pattern(size):
                    await stream.send_all(block)
                await stream.send_eof()

            nursery.start_soon(send)
            await until(lambda: stream.statistics().snd_wnd < 1428)
            await trio.sleep(0.7)  # our probes
            while data := await server.recv(1 << 16):
                tally.add(data)
        assert tally.report() == expected(size)
    async with lab.kernel_client() as (client, stream):
        async with trio.open_nursery() as nursery:

            async def push() -> None:
                content = memoryview(bytes(12 << 20))
                while content:
                    content = content[await client.send(content) :]
                client.shutdown(socket.SHUT_WR)

            nursery.start_soon(push)
            await until(lambda: stream.statistics().rcv_wnd < stream.statistics().snd_mss)
            await trio.sleep(0.5)  # the kernel's probes
            total = 0
            while data := await stream.receive_some():
                total += len(data)
        assert total == 12 << 20


async def urgent_data(lab: Cabled) -> None:
    async with lab.kernel_server() as (server, stream):
        server.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        await stream.send_all(b"calm ")
        stream.session.write_urgent(b"urgent!", lab.host.now())
        lab.host.kick()
        await stream.send_all(b" calm again")
        await stream.send_eof()
        received = b""
        while data := await server.recv(100):
            received += data
        assert received == b"calm urgent! calm again"
    async with lab.kernel_client() as (client, stream):
        await client.send(b"calm ")
        await client.send(b"!", socket.MSG_OOB)
        await client.send(b"again")
        client.shutdown(socket.SHUT_WR)
        while await stream.receive_some():
            pass


async def datagrams(lab: Cabled) -> None:
    async with await lab.host.datagram_socket(port=5000) as ours:
        with lab.socket(socket.SOCK_DGRAM) as client:
            await client.connect((text(lab.host.das(ours).lease.address), 5000))
            for size in (0, 1, 999, 1452, 4000):  # the last in fragments
                await client.send(bytes(size))
                datagram = await ours.receive()
                assert len(datagram.data) == size
                await ours.send_to(bytes(size), (text(datagram.peer), datagram.peer_port))
                assert await client.recv(65536) == bytes(size)
    replies = await lab.host.ping(KERNEL, count=3, interval=0.01, size=1000)
    assert all(reply is not None for reply in replies)


async def unified(lab: Cabled) -> None:
    """A second stack, beside the kernel: both sides know no ports."""
    far = "2001:db8:2::/64"
    lab.netlink.set_forwarding(on=True)
    with netns.open_named(lab.router) as router, Netlink(router) as netlink:
        netlink.add_route(far, device=ROUTER_CABLE)
    async with (
        open_host(prefix=far, namespace=lab.namespace.name, tun_name="tun1", unified_peers=[PREFIX]) as other,
        await other.listen() as listener,
    ):
        door = text(other.das(listener).lease.address)
        async with await lab.host.connect(door, unified=True) as ours, await listener.accept() as theirs:
            assert ours.session.local_port == ours.session.remote_port == 1
            async with trio.open_nursery() as nursery:
                nursery.start_soon(exchange, ours, 100_000)
                nursery.start_soon(exchange, theirs, 100_000)


# A cable that touches packets cuts super-segments and completes checksums: what arrives can be judged.
CLEAN = Impairment(jitter=Micros(1))
LOSSY = Impairment(loss=0.02, delay=millis(2))
SCENES: dict[str, tuple[Scene, Impairment]] = {
    "transfers": (transfers, CLEAN),
    "transfers with loss": (transfers, LOSSY),
    "transfers with reordering": (transfers, Impairment(reorder=0.03, duplicate=0.01, delay=millis(2))),
    "half-close": (half_close, Impairment(delay=millis(1), jitter=Micros(1))),
    "resets": (resets, CLEAN),
    "zero windows": (zero_windows, CLEAN),
    "urgent data": (urgent_data, CLEAN),
    "datagrams and echo": (datagrams, CLEAN),
    "unified sessions": (unified, LOSSY),
}


@pytest.mark.parametrize("offload", [True, False], ids=["offload", "plain"])
@pytest.mark.parametrize(("scene", "faults"), SCENES.values(), ids=SCENES.keys())
async def test_tshark_finds_no_error(
    scene: Scene, faults: Impairment, offload: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    near, far = tmp_path / "near.pcapng", tmp_path / "far.pcapng"
    ecn = scene is transfers
    tap: Callable[[Link], Link] = lambda link: PcapLink(link, Sink(near))  # noqa: E731
    async with (
        open_cabled(to_kernel=faults, to_us=faults, offload=offload, ecn=ecn, tap=tap) as lab,
        dumpcap(lab, far),
    ):
        await scene(lab)
    for where, capture, only in (("stack", near, ""), ("far end", far, OURS)):
        verdict = await trio.to_thread.run_sync(judge, capture, only)
        with capsys.disabled():
            for message, number in verdict.warnings.most_common():
                print(f"\n  tshark, {where}: {number} × {message}", end="")
        assert verdict.errors == {}
        assert verdict.packets > 5
        assert set(verdict.checksums) == {GOOD}
        assert verdict.checksums[GOOD] >= verdict.packets * 0.7  # fragments have none each


def test_the_judge_sees_a_wrong_checksum_and_a_broken_header(tmp_path: Path) -> None:
    """What cannot fail proves nothing."""
    from umuxstack.driver.links import pcapng
    from umuxstack.testing import builders

    right = builders.tcp(KERNEL, SHARED, flags="A", ack=1, payload=b"data")
    wrong = right[:-1] + bytes((right[-1] ^ 1,))
    broken = builders.tcp(KERNEL, SHARED, flags="S", offset=4)
    for packet, checksums, errors in ((right, {GOOD: 1}, False), (wrong, {"0": 1}, True), (broken, {}, True)):
        capture = tmp_path / "one.pcapng"
        capture.write_bytes(pcapng.header("test") + pcapng.packet(packet, 0, pcapng.INBOUND))
        verdict = judge(capture)
        assert verdict.checksums == checksums
        assert bool(verdict.errors) is errors


def test_the_judge_takes_the_other_zero_from_a_kernel_alone(tmp_path: Path) -> None:
    """0xffff for a TCP checksum of 0 is Linux's way where a device does not compute; it is none of ours."""
    from umuxstack.driver.links import pcapng
    from umuxstack.testing import builders

    at = slice(56, 58)  # of the checksum
    packets = (builders.tcp(KERNEL, SHARED, flags="A", ack=1, payload=n.to_bytes(4, "big")) for n in range(1 << 20))
    right = next(packet for packet in packets if packet[at] == b"\0\0")
    other = right[: at.start] + b"\xff\xff" + right[at.stop :]
    for direction, status in ((pcapng.INBOUND, GOOD), (pcapng.OUTBOUND, "0")):
        capture = tmp_path / "one.pcapng"
        capture.write_bytes(pcapng.header("test") + pcapng.packet(other, 0, direction))
        assert judge(capture).checksums == {status: 1}


async def test_the_first_megabytes_of_a_link_are_judged_and_the_rest_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.system import wiretap
    from umuxstack.driver.links.memory import memory_link_pair
    from umuxstack.testing import builders

    monkeypatch.setattr(wiretap, "BOUND", 200)
    ours, theirs = memory_link_pair()
    link = wiretap.Taps(tmp_path).tap(ours, "")
    packet = builders.tcp(SHARED, KERNEL, flags="A", ack=1, payload=b"x" * 60)
    for _ in range(5):
        assert link.write_batch([(packet, b"", 0, 0)]) == 1
    link.close()
    theirs.close()
    verdict = judge(link.capture)
    assert (verdict.packets, link.beyond, verdict.checksums) == (2, 3, {GOOD: 2})
