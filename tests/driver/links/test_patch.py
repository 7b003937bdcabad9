"""The patch cable: packets between two links, with and without offload, and what it does when a link fails."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tests.driver.wires import FakeLink, fake_wire
from umuxstack.core.config import LinkCaps
from umuxstack.core.network.offload import finish
from umuxstack.core.units import millis
from umuxstack.core.wire.checksum import pseudo_sum
from umuxstack.driver.link import Packet
from umuxstack.driver.links.impair import PERFECT, Impairment
from umuxstack.driver.links.patch import Patch, as_outgoing
from umuxstack.testing import builders
from umuxstack.testing.decode import verify

LEFT, RIGHT = "2001:db8:a::1", "2001:db8:b::1"
NEEDS_CHECKSUM = b"\1" + bytes(9)
COMPLETE = bytes(10)
TRUSTED = b"\2" + bytes(9)  # DATA_VALID: verified already


def unfinished(packet: bytes) -> bytes:
    """`packet` as a kernel that leaves the checksum to the device gives it: the pseudo-header's sum in its place."""
    at = 40 + (16 if packet[6] == 6 else 6)
    partial = pseudo_sum(packet[8:40], len(packet) - 40, packet[6])
    return packet[:at] + partial.to_bytes(2, "big") + packet[at + 2 :]


def plain_packets() -> list[bytes]:
    """Of every kind and of awkward sizes."""
    sizes = [0, 1, 3, 11, 12, 13, 1000, 1001]
    return [
        *(builders.udp(LEFT, RIGHT, payload=b"u" * n) for n in sizes),
        *(builders.tcp(LEFT, RIGHT, ack=1, payload=b"t" * n) for n in sizes),
        builders.tcp(LEFT, RIGHT, flags="S", options=builders.mss(1440) + builders.sack_permitted()),
        builders.echo_request(LEFT, RIGHT),
    ]


@pytest.mark.parametrize("packet", plain_packets(), ids=lambda packet: f"{packet[6]}-{len(packet)}")
def test_an_unfinished_checksum_is_completed_and_a_complete_one_left_alone(packet: bytes) -> None:
    """Small datagrams were once passed on unfinished, and lost at the other end."""
    for header in (COMPLETE, TRUSTED):
        assert finish(as_outgoing((header + packet, 10, 0, header is TRUSTED))) == [packet]
    assert finish(as_outgoing((packet, 0, 0, False))) == [packet]
    if packet[6] != 58:  # nobody leaves ICMPv6's to a device
        (finished,) = finish(as_outgoing((NEEDS_CHECKSUM + unfinished(packet), 10, 0, True)))
        assert finished == packet


@pytest.mark.parametrize("size", range(0, 60, 7))
def test_what_is_too_short_to_be_what_it_says_passes_as_it_is(size: int) -> None:
    for next_header in (6, 17, 58):
        data = (b"\x60" + bytes(5) + bytes((next_header,)) + bytes(53))[:size]
        if next_header == 17 and size >= 48:
            continue
        assert as_outgoing((NEEDS_CHECKSUM + data, 10, 0, True)) == (data, b"", 0, 0)


@asynccontextmanager
async def cable(
    *, offload: bool = True, a_to_b: Impairment = PERFECT, b_to_a: Impairment = PERFECT
) -> AsyncIterator[tuple[FakeLink, FakeLink, Patch]]:
    """What lies behind the two ends, and the patch between these."""
    left, a = fake_wire(offload=offload)
    b, right = fake_wire(offload=offload)
    patch = Patch(a, b, a_to_b=a_to_b, b_to_a=b_to_a)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(patch.run)
        yield left, right, patch
        nursery.cancel_scope.cancel()


def super_segment() -> tuple[bytes, bytes, int, int]:
    packet = unfinished(builders.tcp(LEFT, RIGHT, flags="PA", ack=1, payload=bytes(range(250)) * 20))
    return packet[:60], packet[60:], 1000, 16


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def test_packets_pass_both_ways_in_order() -> None:
    packets = plain_packets()
    async with cable() as (left, right, patch):
        left.write_batch([(packet, b"", 0, 0) for packet in packets])
        right.write_batch([(packet, b"", 0, 0) for packet in reversed(packets)])
        await settle()
        assert [packet[0] for packet in right.inbox] == packets
        assert [packet[0] for packet in left.inbox] == packets[::-1]
        assert [one.delivered for one in patch.statistics()] == [len(packets)] * 2


async def test_a_super_segment_passes_whole_and_unfinished_where_nothing_is_done_to_packets() -> None:
    header, payload, gso_size, csum_offset = super_segment()
    async with cable() as (left, right, patch):
        left.write_batch([(header, payload, gso_size, csum_offset)])
        await settle()
        assert list(right.inbox) == [(header + payload, 0, 1000, True)]
        assert patch.statistics()[0].sent == 1


@pytest.mark.parametrize("faults", [Impairment(loss=1e-9), Impairment(rate=1_000_000_000)])
async def test_it_is_cut_and_finished_where_something_is(faults: Impairment, autojump_clock: object) -> None:
    async with cable(a_to_b=faults) as (left, right, patch):
        left.write_batch([super_segment()])
        await trio.sleep(1)
        arrived: list[Packet] = list(right.inbox)
        assert len(arrived) == patch.statistics()[0].sent == 5
        for data, base, gso_size, vouched in arrived:
            verify(data)
            assert (base, gso_size, vouched) == (0, 0, False)
        assert b"".join(data[60:] for data, *_ in arrived) == super_segment()[1]


async def test_a_link_without_offload_gets_complete_packets() -> None:
    left, a = fake_wire(offload=True)
    b, right = fake_wire(offload=False)
    patch = Patch(a, b)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(patch.run)
        left.write_batch([super_segment(), (unfinished(builders.udp(LEFT, RIGHT, payload=b"x")), b"", 0, 6)])
        await settle()
        assert right.caps == LinkCaps(segmentation=False, checksum=False)
        assert len(right.inbox) == 6
        for data, *_ in right.inbox:
            verify(data)
        nursery.cancel_scope.cancel()


async def test_a_packet_arrives_after_the_delay_and_not_before(autojump_clock: object) -> None:
    packet = builders.udp(LEFT, RIGHT, payload=b"late")
    async with cable(a_to_b=Impairment(delay=millis(250))) as (left, right, _):
        left.write_batch([(packet, b"", 0, 0)])
        await trio.sleep(0.249)
        assert not right.inbox
        await trio.sleep(0.002)
        assert [data for data, *_ in right.inbox] == [packet]


async def test_an_end_that_takes_no_more_is_waited_for() -> None:
    packets = plain_packets()
    async with cable() as (left, right, patch):
        b = right.other
        assert b is not None
        b.room = 3
        left.write_batch([(packet, b"", 0, 0) for packet in packets])
        await settle()
        assert len(right.inbox) == 3
        b.room = 100
        b.change()
        await settle()
        assert [data for data, *_ in right.inbox] == packets
        assert patch.dropped_link_down == 0


async def test_an_end_that_is_down_loses_packets_and_carries_again_when_it_is_up(autojump_clock: object) -> None:
    packet = builders.udp(LEFT, RIGHT, payload=b"x")
    async with cable() as (left, right, patch):
        b = right.other
        assert b is not None
        b.down = True
        b.change()
        left.write_batch([(packet, b"", 0, 0)] * 2)
        await trio.sleep(1)
        assert patch.dropped_link_down == 2
        b.down = False
        left.write_batch([(packet, b"", 0, 0)])
        right.write_batch([(packet, b"", 0, 0)])
        await trio.sleep(1)
        assert len(right.inbox) == len(left.inbox) == 1
