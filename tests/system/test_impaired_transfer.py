"""Bytes between our TCP and the kernel's through an imperfect cable: what arrives is what was sent."""

import socket
import struct

import pytest
import trio

from tests.system.cabled import open_cabled, plausible
from tests.system.lab import KERNEL, both, until
from tests.system.peer import Tally, expected, pattern
from tests.system.test_transfer import check, exchange, with_kernel_client, with_kernel_server
from umuxstack.core.units import Micros, millis
from umuxstack.driver.links.impair import Burst, Impairment
from umuxstack.driver.streams import UmuxStream

pytestmark = pytest.mark.system

KILO = 1 << 10
MEGA = 1 << 20

# name: (the cable, in both directions; bytes that each side sends)
CABLES: dict[str, tuple[Impairment, int]] = {
    "long and fast": (Impairment(delay=millis(25)), 6 * MEGA),
    "slow with a short queue": (Impairment(rate=10_000_000, delay=millis(5), queue_packets=20), MEGA),
    "slow with a long queue": (Impairment(rate=4_000_000, delay=millis(2), queue_packets=1000), 700 * KILO),
    "fast bottleneck": (Impairment(rate=80_000_000, delay=millis(10), queue_packets=100), 5 * MEGA),
    "1 % lost": (Impairment(loss=0.01, delay=millis(10)), 2 * MEGA),
    "5 % lost": (Impairment(loss=0.05, delay=millis(2)), 600 * KILO),
    "20 % lost": (Impairment(loss=0.2, delay=millis(1)), 40 * KILO),
    "lost in bursts": (Impairment(burst=Burst(enter=0.005, leave=0.4), delay=millis(3)), 700 * KILO),
    "reordered": (Impairment(reorder=0.05, displacement=5, delay=millis(5)), 2 * MEGA),
    "reordered and lost": (Impairment(reorder=0.02, displacement=8, loss=0.01, delay=millis(5)), MEGA),
    "doubled": (Impairment(duplicate=0.1, delay=millis(3)), 2 * MEGA),
    "corrupted": (Impairment(corrupt=0.01, delay=millis(3)), MEGA),
    "jitter": (Impairment(delay=millis(4), jitter=millis(6)), 2 * MEGA),
    "everything": (
        Impairment(
            loss=0.01, burst=Burst(enter=0.001, leave=0.5), delay=millis(4), jitter=millis(2), reorder=0.01,
            duplicate=0.01, corrupt=0.005, rate=30_000_000, queue_packets=60,
        ),
        600 * KILO,
    ),
}  # fmt: skip

cables = pytest.mark.parametrize(("cable", "size"), CABLES.values(), ids=CABLES.keys())


@cables
async def test_the_kernel_connects_through(cable: Impairment, size: int) -> None:
    async with open_cabled(to_kernel=cable, to_us=cable) as lab:
        ours, theirs = await with_kernel_client(lab, size, size // 2)
        check(ours, theirs)
        assert ours["sent"] == expected(size)
        assert ours["received"] == expected(size // 2)


@cables
async def test_we_connect_through(cable: Impairment, size: int) -> None:
    async with open_cabled(to_kernel=cable, to_us=cable, offload=False) as lab:
        ours, theirs = await with_kernel_server(lab, size // 2, size)
        check(ours, theirs)
        assert ours["sent"] == expected(size // 2)
        assert ours["received"] == expected(size)


@both
@pytest.mark.parametrize("outwards", [True, False], ids=["out", "in"])
async def test_one_direction_through_one_percent_loss(offload: bool, outwards: bool) -> None:
    size = 2 * MEGA
    faults = Impairment(loss=0.01, delay=millis(5), seed=3)
    async with open_cabled(to_kernel=faults, to_us=faults, offload=offload) as lab:
        ours, theirs = await with_kernel_server(lab, size if outwards else 0, 0 if outwards else size)
        check(ours, theirs)
        there, back = lab.patch.statistics()
        data = there if outwards else back
        assert data.sent > size // 1428
        assert plausible(data.lost, data.sent, 0.01)
        if outwards:
            assert lab.host.stack.counters.fast_retransmits > 0


async def test_a_congestion_mark_slows_down_and_nothing_is_sent_twice() -> None:
    """RFC 3168: both sides agreed on ECN, the cable marks instead of losing."""
    size = 2 * MEGA
    faults = Impairment(mark=0.005, delay=millis(5))
    async with open_cabled(to_kernel=faults, to_us=Impairment(delay=millis(5)), ecn=True) as lab:
        server = lab.peer("listen", 5000, 0)
        await server.ready()
        async with await lab.host.connect(KERNEL, 5000) as stream:
            ours, theirs = await exchange(stream, size), await server.result()
            check(ours, theirs)
            statistics = stream.statistics()
        assert lab.patch.statistics()[0].marked > 0
        assert statistics.snd_ssthresh < 1 << 30  # it heard a mark
        assert statistics.total_retrans == 0


async def test_a_super_segment_crosses_a_cable_that_only_delays_whole() -> None:
    size = 20 * MEGA
    faults = Impairment(delay=millis(2))
    async with open_cabled(to_kernel=faults, to_us=faults) as lab:
        ours, theirs = await with_kernel_server(lab, size, 0)
        check(ours, theirs)
        there, _ = lab.patch.statistics()
        assert there.sent < size // 1428 // 4
        ours, theirs = await with_kernel_client(lab, 0, size)
        check(ours, theirs)
        _, back = lab.patch.statistics()
        assert back.sent < size // 1428 // 2


async def test_the_cable_is_cut_for_a_while_and_the_transfer_goes_on() -> None:
    """A second of silence: timeouts back off, and slow start brings the rest."""
    size = 2 * MEGA
    good, cut = Impairment(rate=20_000_000, delay=millis(5), queue_packets=100), Impairment(loss=1.0)
    async with open_cabled(to_kernel=good, to_us=good) as lab, lab.kernel_server() as (server, stream):
        tally = Tally()
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                for block in pattern(size):
                    await stream.send_all(block)
                await stream.send_eof()

            async def interrupt() -> None:
                await until(lambda: tally.size > size // 4)
                for pipe in lab.patch.pipes:
                    pipe.change(cut)
                await trio.sleep(1.0)
                for pipe in lab.patch.pipes:
                    pipe.change(good)

            nursery.start_soon(send)
            nursery.start_soon(interrupt)
            while data := await server.recv(1 << 16):
                tally.add(data)
        assert tally.report() == expected(size)
        assert lab.host.stack.counters.rto_expirations > 0


async def test_small_requests_and_answers_survive_heavy_loss() -> None:
    """Nothing follows a lost request that could tell of it: probes and timeouts repair."""
    faults = Impairment(loss=0.1, delay=millis(1), seed=5)
    async with open_cabled(to_kernel=faults, to_us=faults) as lab, lab.kernel_client() as (client, stream):
        for number in range(30):
            await client.send(b"%08d" % number)
            question = b""
            while len(question) < 8:
                question += await stream.receive_some(8 - len(question))
            await stream.send_all(question)
            assert await client.recv(8, socket.MSG_WAITALL) == b"%08d" % number


async def test_many_sessions_at_once_share_a_lossy_bottleneck() -> None:
    faults = Impairment(rate=30_000_000, loss=0.005, delay=millis(3), queue_packets=60)
    count, size = 12, 150 * KILO
    async with open_cabled(to_kernel=faults, to_us=faults) as lab, await lab.host.listen(80, backlog=count) as listener:
        clients = [lab.peer("connect", lab.open_door(listener), 80, size) for _ in range(count)]
        async with trio.open_nursery() as nursery:

            async def serve(stream: UmuxStream) -> None:
                async with stream:
                    ours = await exchange(stream, size)
                    assert ours["sent"] == ours["received"] == expected(size)

            for _ in range(count):
                nursery.start_soon(serve, await listener.accept())
            for client in clients:
                report = await client.result()
                assert report["failures"] == []
                assert report["received"] == report["sent"] == expected(size)


async def test_a_reset_behind_lost_packets_is_still_a_reset() -> None:
    faults = Impairment(delay=Micros(5000))
    async with open_cabled(to_kernel=faults, to_us=faults) as lab, lab.kernel_client() as (client, stream):
        await client.send(b"first")
        assert await stream.receive_some() == b"first"
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        lab.patch.pipes[1].change(Impairment(loss=1.0))
        client.close()
        await until(lambda: lab.patch.statistics()[1].lost > 0)
        lab.patch.pipes[1].change(faults)
        # The kernel has forgotten the session: it answers our next segment with a reset.
        await stream.send_all(b"are you there?")
        with pytest.raises(trio.BrokenResourceError) as raised:
            await stream.receive_some()
        assert isinstance(raised.value.__cause__, ConnectionResetError)
