"""Links in memory: joined ends, routed networks, in trio's virtual time."""

import struct
from ipaddress import IPv6Address

import dpkt
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from umuxstack.core.config import LinkCaps, StackConfig
from umuxstack.core.errors import BadArgument, LocalError
from umuxstack.core.units import Address, Micros, millis
from umuxstack.driver.links.impair import Impairment
from umuxstack.driver.links.memory import MemoryLink, MemoryRouter, memory_link_pair
from umuxstack.driver.links.router import QUEUE_LIMIT, ROUTER_ADDRESS, Router
from umuxstack.driver.runtime import Host

PLAIN = LinkCaps(segmentation=False, checksum=False)


def address(text: str) -> bytes:
    return trio.socket.inet_pton(trio.socket.AF_INET6, text)


def packet(source: str, destination: str, payload: bytes = b"payload") -> bytes:
    fixed = struct.pack(">IHBB", 6 << 28, 8 + len(payload), 17, 64)
    return fixed + address(source) + address(destination) + struct.pack(">HHHH", 1, 1, 8 + len(payload), 1) + payload


A_TO_B = packet("2001:db8:a::1", "2001:db8:b::1")


def write(link: MemoryLink, *packets: bytes) -> None:
    assert link.write_batch([(data, b"", 0, 0) for data in packets]) == len(packets)


async def read(link: MemoryLink) -> list[bytes]:
    """The next batch, waited for."""
    await link.wait_readable()
    batch = link.read_batch(64)
    assert all((base, gso_size, csum_ok) == (0, 0, False) for _, base, gso_size, csum_ok in batch)
    return [data for data, _, _, _ in batch]


async def test_what_one_end_writes_the_other_reads() -> None:
    a, b = memory_link_pair()
    assert b.read_batch(10) == []
    write(a, b"one", b"two")
    assert await read(b) == [b"one", b"two"]
    assert b.read_batch(10) == []
    assert a.read_batch(10) == []
    write(b, b"three")
    assert await read(a) == [b"three"]


async def test_a_sleeping_reader_wakes_when_the_packet_is_due_not_before(autojump_clock: MockClock) -> None:
    a, b = memory_link_pair(Impairment(delay=millis(30)))
    start = trio.current_time()
    arrived: list[object] = []

    async def reader() -> None:
        arrived.extend(await read(b))
        arrived.append(round(trio.current_time() - start, 6))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader)
        await trio.sleep(1)
        write(a, b"late")
        assert b.read_batch(10) == []
    assert arrived == [b"late", 1.03]


async def test_an_earlier_packet_cuts_a_reader_s_sleep_short(autojump_clock: MockClock) -> None:
    network = MemoryRouter()
    slow = network.attach("2001:db8:a::/64", from_host=Impairment(delay=millis(100)))
    fast = network.attach("2001:db8:c::/64")
    reader = network.attach("2001:db8:b::/64")
    start = trio.current_time()
    write(slow, A_TO_B)
    times = []

    async def read_two() -> None:
        for _ in range(2):
            await read(reader)
            times.append(round(trio.current_time() - start, 6))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_two)
        await wait_all_tasks_blocked()
        write(fast, packet("2001:db8:c::1", "2001:db8:b::1"))
    assert times == [0.0, 0.1]


async def test_both_wires_of_a_route_take_their_time(autojump_clock: MockClock) -> None:
    network = MemoryRouter()
    a = network.attach("2001:db8:a::/64", from_host=Impairment(delay=millis(10)))
    b = network.attach("2001:db8:b::/64", to_host=Impairment(delay=millis(5)))
    start = trio.current_time()
    write(a, A_TO_B)
    assert await read(b) == [A_TO_B]
    assert trio.current_time() - start == pytest.approx(0.015)


async def test_super_segments_pass_whole_between_ends_that_can_and_are_cut_for_those_that_cannot() -> None:
    header = packet("2001:db8:a::1", "2001:db8:b::1")[:40].replace(b"\x11\x40", b"\x06\x40", 1)
    header += struct.pack(">HHIIHHHH", 1, 1, 100, 0, 0x5010, 100, 0, 0)
    outgoing = (header, bytes(2000), 1000, 16)
    a, b = memory_link_pair()
    assert a.write_batch([outgoing]) == 1
    assert b.read_batch(9) == [(header + bytes(2000), 0, 1000, True)]
    a, b = memory_link_pair(caps=PLAIN)
    assert a.write_batch([outgoing]) == 1
    assert [len(item[0]) for item in b.read_batch(9)] == [1060, 1060]


async def test_a_closed_link_wakes_its_waiter_and_refuses_everything() -> None:
    a, b = memory_link_pair()

    async def waits() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await a.wait_readable()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(waits)
        await wait_all_tasks_blocked()
        a.close()
        a.close()
    with pytest.raises(trio.ClosedResourceError):
        a.read_batch(1)
    with pytest.raises(trio.ClosedResourceError):
        a.write_batch([])
    with pytest.raises(trio.ClosedResourceError):
        await a.wait_writable()
    write(b, b"into the void")


async def test_waiting_is_always_a_checkpoint() -> None:
    a, b = memory_link_pair()
    write(a, b"ready")
    for wait in (b.wait_readable, b.wait_writable):
        with trio.testing.assert_checkpoints():
            await wait()


async def test_the_longest_matching_prefix_gets_the_packet() -> None:
    network = MemoryRouter()
    a = network.attach("2001:db8:a::/64")
    wide = network.attach("2001:db8::/32")
    narrow = network.attach("2001:db8:b::/64", "2001:db8:c::5")
    for destination in ("2001:db8:b::1", "2001:db8:c::5"):
        write(a, packet("2001:db8:a::1", destination))
        assert len(await read(narrow)) == 1
    write(a, packet("2001:db8:a::1", "2001:db8:c::6"))
    assert len(await read(wide)) == 1
    assert narrow.read_batch(9) == []


async def test_packets_without_a_route_and_packets_to_where_they_came_from_end_in_the_router() -> None:
    network = MemoryRouter()
    a = network.attach("2001:db8:a::/64")
    write(a, packet("2001:db8:a::1", "2001:db8:f::1"), packet("2001:db8:a::1", "2001:db8:a::2"), b"short")
    assert a.read_batch(9) == []
    assert network.router.statistics().no_route == 3


async def test_a_group_s_packets_go_to_all_others() -> None:
    network = MemoryRouter()
    a, b, c = (network.attach(f"2001:db8:{name}::/64") for name in "abc")
    data = packet("2001:db8:a::1", "ff0e::1")
    write(a, data)
    assert a.read_batch(9) == []
    assert await read(b) == await read(c) == [data]


async def test_too_big_a_packet_is_answered_with_the_mtu_of_the_next_wire() -> None:
    network = MemoryRouter()
    a = network.attach("2001:db8:a::/64", caps=PLAIN)
    b = network.attach("2001:db8:b::/64", caps=LinkCaps(mtu=1280, segmentation=False, checksum=False))
    fits, big = (packet("2001:db8:a::1", "2001:db8:b::1", bytes(size - 48)) for size in (1280, 1281))
    write(a, fits, big)
    assert await read(b) == [fits]
    (error,) = await read(a)
    ip = dpkt.ip6.IP6(error)
    assert (ip.src, ip.dst) == (ROUTER_ADDRESS, address("2001:db8:a::1"))
    assert (ip.data.type, ip.data.data.mtu) == (2, 1280)
    assert error[48:] == big[: len(error) - 48]
    assert len(error) == 1280
    assert dpkt.dpkt.in_cksum(error[8:40] + struct.pack(">II", ip.plen, 58) + error[40:]) == 0


async def test_an_icmp_error_that_is_too_big_is_not_answered() -> None:
    network = MemoryRouter()
    a = network.attach("2001:db8:a::/64", caps=PLAIN)
    network.attach("2001:db8:b::/64", caps=LinkCaps(mtu=1280))
    error = bytearray(packet("2001:db8:a::1", "2001:db8:b::1", bytes(1300)))
    error[6], error[40] = 58, 1
    write(a, bytes(error))
    assert a.read_batch(9) == []
    assert network.router.statistics().too_big == 1


async def test_what_nobody_reads_is_lost_beyond_a_limit() -> None:
    a, b = memory_link_pair()
    write(a, *[b"packet"] * (QUEUE_LIMIT + 5))
    assert len(b.read_batch(QUEUE_LIMIT + 100)) == QUEUE_LIMIT


async def test_one_prefix_cannot_be_routed_twice_and_a_malformed_one_not_at_all() -> None:
    network = MemoryRouter()
    network.attach("2001:db8:a::/64")
    with pytest.raises(BadArgument):
        network.attach("2001:db8:a::/64")
    with pytest.raises(LocalError):
        network.attach("2001:db8:a::1/64")
    with pytest.raises(BadArgument):
        network.router.attach("x", ((Address(address("2001:db8:a::1")), 64),), PLAIN)


async def test_the_wire_may_change_while_packets_are_under_way(autojump_clock: MockClock) -> None:
    router = Router(point_to_point=True)
    left, right = (router.attach(name, (), PLAIN) for name in ("left", "right"))
    router.impair(left, up=Impairment(delay=Micros(50)))
    router.send(left, (b"first", b"", 0, 0), Micros(0))
    router.impair(left, up=Impairment(delay=Micros(70)))
    router.impair(right, down=Impairment(loss=1.0))
    router.send(left, (b"second", b"", 0, 0), Micros(0))
    router.forward(Micros(60))
    router.impair(right, down=Impairment(delay=Micros(5)))
    assert right.down.statistics().lost == 1
    router.forward(Micros(70))
    assert right.down.next_due() == 75


async def test_whole_hosts_talk_over_a_bad_wire_in_no_time(autojump_clock: MockClock) -> None:
    bad = Impairment(delay=millis(50), loss=0.02, seed=5)
    a, b = memory_link_pair(bad, bad)
    start = trio.current_time()
    async with (
        Host(a, StackConfig(prefix=Address(address("2001:db8:a::"))), bytes(32), linger=60) as client,
        Host(b, StackConfig(prefix=Address(address("2001:db8:b::"))), bytes(31) + b"1", linger=60) as server,
    ):
        listener = await server.listen()
        stream = await client.connect(IPv6Address(server.das(listener).address))
        accepted = await listener.accept()
        data = bytes(range(256)) * 1000
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, data)
            got = bytearray()
            while len(got) < len(data):
                got += await accepted.receive_some(1 << 16)
        assert got == data
        await stream.aclose()
        await accepted.aclose()
    assert trio.current_time() - start > 0.3
