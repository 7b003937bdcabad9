"""Captures: read back by dpkt and by a reader of blocks of our own; the link must not notice them."""

import errno
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import dpkt
import pytest
import trio
from trio.testing import MockClock

from umuxstack.core.config import LinkCaps, StackConfig
from umuxstack.core.network.offload import finish
from umuxstack.core.session.context import Outgoing
from umuxstack.core.units import Address
from umuxstack.driver.link import Packet
from umuxstack.driver.links import pcapng
from umuxstack.driver.links.memory import MemoryRouter, memory_link_pair
from umuxstack.driver.links.pcap import PcapLink
from umuxstack.driver.links.pcapng import INBOUND, OUTBOUND, Sink
from umuxstack.driver.runtime import Host
from umuxstack.testing import builders
from umuxstack.testing.decode import Seen, verify

A, B = "2001:db8:a::1", "2001:db8:b::1"
ALL_ONES = builders.checksum(A, B, 17, builders.udp(A, B, payload=b"\0\0", checksum=0)[40:])
"""A payload that brings the sum to zero."""

NANOS = 1_700_000_000_123_456_789


@attrs.frozen
class Block:
    kind: int
    body: bytes


@attrs.frozen
class Entry:
    """One packet of a capture."""

    data: bytes
    nanos: int
    direction: int
    comments: list[str]
    dropped: int


def blocks(raw: bytes) -> Iterator[Block]:
    """By the draft's general block structure, checking both lengths."""
    while raw:
        kind, length = struct.unpack_from("<II", raw)
        assert length % 4 == 0
        assert struct.unpack_from("<I", raw, length - 4) == (length,)
        yield Block(kind, raw[8 : length - 4])
        raw = raw[length:]


def options(raw: bytes) -> Iterator[tuple[int, bytes]]:
    while raw:
        code, length = struct.unpack_from("<HH", raw)
        if code == 0:
            assert len(raw) == 4
            return
        yield code, raw[4 : 4 + length]
        raw = raw[4 + length + -length % 4 :]


def entries(raw: bytes) -> list[Entry]:
    found = []
    for block in blocks(raw):
        if block.kind == 6:
            interface, high, low, size, original = struct.unpack_from("<IIIII", block.body)
            assert (interface, size) == (0, original)
            rest = list(options(block.body[20 + size + -size % 4 :]))
            said = [text.decode() for code, text in rest if code == 1]
            by_code = dict(rest)
            dropped = struct.unpack("<Q", by_code[4])[0] if 4 in by_code else 0
            direction = struct.unpack("<I", by_code[2])[0]
            found.append(Entry(block.body[20 : 20 + size], high << 32 | low, direction, said, dropped))
    return found


def names(raw: bytes) -> dict[bytes, str]:
    found = {}
    for block in blocks(raw):
        if block.kind == 4:
            found.update({data[:16]: data[16:-1].decode() for code, data in options(block.body) if code == 2})
    return found


class StubLink:
    """A link whose packets a test decides."""

    def __init__(self) -> None:
        self.caps = LinkCaps()
        self.inbox: list[Packet] = []
        self.written: list[Outgoing] = []
        self.room = 100
        self.closed = False

    def read_batch(self, limit: int) -> list[Packet]:
        packets, self.inbox = self.inbox[:limit], self.inbox[limit:]
        return packets

    def write_batch(self, packets: Any) -> int:
        taken = min(len(packets), self.room)
        self.written += packets[:taken]
        self.room -= taken
        if taken < len(packets) and self.room < 0:
            raise AssertionError
        return taken

    async def wait_readable(self) -> None:
        await trio.lowlevel.checkpoint()

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        self.closed = True


def tap(path: Path) -> tuple[PcapLink, StubLink]:
    link = StubLink()
    return PcapLink(link, Sink(path), name="test0", clock=lambda: NANOS), link


def partial(packet: bytes, at: int) -> bytes:
    """`packet` as offload has it: the field at `at` holds the pseudo-header's sum only."""
    pseudo = packet[8:40] + struct.pack(">II", len(packet) - 40, packet[6])
    return packet[:at] + struct.pack(">H", 0xFFFF ^ dpkt.dpkt.in_cksum(pseudo)) + packet[at + 2 :]


def test_dpkt_reads_packets_times_and_linktype(tmp_path: Path) -> None:
    link, stub = tap(tmp_path / "a.pcapng")
    packet = builders.udp(A, B, payload=b"x")
    stub.inbox = [(packet, 0, 0, False)]
    assert link.read_batch(10) == [(packet, 0, 0, False)]
    link.write_batch([(packet[:40], packet[40:], 0, 0)])
    link.close()
    with open(tmp_path / "a.pcapng", "rb") as file:
        reader = dpkt.pcapng.Reader(file)
        read = list(reader)
    assert [data for _, data in read] == [packet, packet]
    assert float(read[0][0]) == pytest.approx(NANOS / 1e9)
    assert reader.idb.linktype == 101


def test_direction_and_time_stand_in_every_packet(tmp_path: Path) -> None:
    link, stub = tap(tmp_path / "a")
    packet = builders.udp(A, B)
    stub.inbox = [(b"vnetheader" + packet, 10, 0, False)]
    link.read_batch(10)
    link.write_batch([(packet, b"", 0, 0)])
    link.close()
    assert entries((tmp_path / "a").read_bytes()) == [
        Entry(packet, NANOS, INBOUND, [], 0),
        Entry(packet, NANOS, OUTBOUND, [], 0),
    ]


@pytest.mark.parametrize(
    ("packet", "at"),
    [
        (builders.tcp(A, B, payload=bytes(range(200))), 56),
        (builders.udp(A, B, payload=b"odd"), 46),
        (builders.udp(A, B, payload=struct.pack(">H", ALL_ONES)), 46),
    ],
    ids=["tcp", "udp", "udp with a checksum of zero"],
)
def test_unfinished_checksums_are_finished_in_the_capture_only(tmp_path: Path, packet: bytes, at: int) -> None:
    link, stub = tap(tmp_path / "a")
    unfinished = partial(packet, at)
    assert unfinished != packet
    stub.inbox = [(unfinished, 0, 0, True), (packet, 0, 0, True)]
    assert [buf for buf, _, _, _ in link.read_batch(10)] == [unfinished, packet]
    link.write_batch([(unfinished, b"", 0, at - 40)])
    assert stub.written == [(unfinished, b"", 0, at - 40)]
    link.close()
    assert [entry.data for entry in entries((tmp_path / "a").read_bytes())] == [packet] * 3


def test_a_super_segment_is_one_sound_packet_both_ways(tmp_path: Path) -> None:
    link, stub = tap(tmp_path / "a")
    whole = partial(builders.tcp(A, B, payload=bytes(5000)), 56)
    stub.inbox = [(whole, 0, 1000, True)]
    link.read_batch(10)
    link.write_batch([(whole[:60], whole[60:], 1000, 16)])
    link.close()
    read = entries((tmp_path / "a").read_bytes())
    assert [len(entry.data) for entry in read] == [5060, 5060]
    for entry in read:
        verify(entry.data)
    assert len(finish(stub.written[0])) == 5


def test_a_wrong_checksum_stays_wrong_in_the_capture(tmp_path: Path) -> None:
    link, stub = tap(tmp_path / "a")
    wrong = builders.tcp(A, B, checksum=1)
    stub.inbox = [(wrong, 0, 0, False), (b"rubbish", 0, 0, True), (builders.echo_request(A, B), 0, 0, True)]
    link.read_batch(10)
    link.close()
    assert [e.data for e in entries((tmp_path / "a").read_bytes())] == [wrong, b"rubbish", builders.echo_request(A, B)]


def test_only_what_the_link_took_is_captured(tmp_path: Path) -> None:
    link, stub = tap(tmp_path / "a")
    stub.room = 2
    packets = [(builders.udp(A, B, payload=bytes((n,))), b"", 0, 0) for n in range(3)]
    assert link.write_batch(packets) == 2
    link.close()
    assert [e.data for e in entries((tmp_path / "a").read_bytes())] == [packets[0][0], packets[1][0]]


def test_what_was_sent_before_a_write_failed_is_captured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link, stub = tap(tmp_path / "a")

    def fails(packets: object) -> int:
        error = OSError(errno.EIO, "down")
        error.taken = 1  # type: ignore[attr-defined]
        raise error

    monkeypatch.setattr(stub, "write_batch", fails)
    packets = [(builders.udp(A, B, payload=bytes((n,))), b"", 0, 0) for n in range(3)]
    with pytest.raises(OSError, match="down"):
        link.write_batch(packets)
    link.close()
    assert [e.data for e in entries((tmp_path / "a").read_bytes())] == [packets[0][0]]


def test_a_remark_stands_on_the_next_packet(tmp_path: Path) -> None:
    link, stub = tap(tmp_path / "a")
    link.comment("here it begins – ¡mira!")
    link.comment("twice")
    stub.inbox = [(builders.udp(A, B), 0, 0, False)] * 2
    link.read_batch(10)
    link.close()
    assert [e.comments for e in entries((tmp_path / "a").read_bytes())] == [["here it begins – ¡mira!", "twice"], []]


def test_the_file_ends_with_the_count_of_packets(tmp_path: Path) -> None:
    link, stub = tap(tmp_path / "a")
    stub.inbox = [(builders.udp(A, B), 0, 0, False)] * 3
    link.read_batch(10)
    link.close()
    link.close()
    *_, last = blocks((tmp_path / "a").read_bytes())
    assert last.kind == 5
    assert dict(options(last.body[12:])) == {4: struct.pack("<Q", 3), 7: bytes(8)}


def test_a_capture_is_for_its_owner_s_eyes_and_replaces_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "a"
    old = os.umask(0)
    try:
        tap(path)[0].close()
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    size = path.stat().st_size
    path.write_bytes(bytes(10_000))
    tap(path)[0].close()
    assert path.stat().st_size == size


def test_a_full_disk_ends_the_capture_and_not_the_link(caplog: pytest.LogCaptureFixture) -> None:
    reader, writer = os.pipe()
    link = PcapLink(stub := StubLink(), Sink(writer), clock=lambda: NANOS)
    os.close(reader)  # as with a full disk, writing fails; EPIPE is easier to have
    stub.inbox = [(builders.udp(A, B), 0, 0, False)]
    assert len(link.read_batch(10)) == 1
    assert isinstance(link.error, BrokenPipeError)
    assert "the capture ended" in caplog.text
    stub.inbox = [(builders.udp(A, B), 0, 0, False)]
    assert len(link.read_batch(10)) == 1
    assert link.write_batch([(builders.udp(A, B), b"", 0, 0)]) == 1
    link.close()
    assert stub.closed
    os.close(writer)


def test_a_reader_that_does_not_read_delays_nobody_and_learns_what_it_missed() -> None:
    reader, writer = os.pipe()
    link = PcapLink(stub := StubLink(), Sink(writer, limit=200_000), clock=lambda: NANOS)
    packet = builders.udp(A, B, payload=bytes(1000))
    stub.room = 10_000
    link.write_batch([(packet, b"", 0, 0)] * 1000)  # more than the pipe and the limit hold
    assert link.captured + link.left_out == 1000
    assert link.left_out > 0
    os.set_blocking(reader, False)
    got = bytearray()

    def read_all() -> None:
        try:
            while chunk := os.read(reader, 1 << 20):
                got.extend(chunk)
        except BlockingIOError:
            pass

    for _ in range(20):  # the reader wakes up
        read_all()
        link.flush()
    link.write_batch([(packet, b"", 0, 0)])
    link.close()
    read_all()
    os.close(writer)
    read = entries(bytes(got))
    assert len(read) == link.captured
    assert [entry.dropped for entry in read if entry.dropped] == [link.left_out]
    assert read[-1].dropped == link.left_out
    os.close(reader)


def test_a_fifo_without_a_reader_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="No such device"):
        Sink(tmp_path / "fifo")


def test_long_names_and_comments_do_not_break_a_block() -> None:
    raw = pcapng.packet(b"data", 1, INBOUND, ["x" * 70_000])
    (entry,) = entries(raw)
    assert len(entry.comments[0]) == 65_535
    assert names(pcapng.names({bytes(16): "n" * 300})) == {bytes(16): "n" * 300}


def config(prefix: str) -> StackConfig:
    return StackConfig(prefix=Address(builders.packed(prefix)), link=LinkCaps())


async def test_a_session_s_moments_drops_and_names_stand_in_the_capture(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    network = MemoryRouter()
    near = network.attach("2001:db8:a::/64")
    far = PcapLink(network.attach("2001:db8:b::/64"), Sink(tmp_path / "a"))
    async with (
        Host(near, config("2001:db8:a::"), bytes(32)) as client,
        Host(far, config("2001:db8:b::"), bytes(32)) as server,
    ):
        far.follow(server)
        listener = await server.listen(name="httpd")
        ssa = server.das(listener).address
        near.write_batch([(builders.udp("2001:db8:a::9", ssa), b"", 0, 0)])
        near.write_batch([(builders.udp("2001:db8:a::9", "2001:db8:b::9"), b"", 0, 0)])
        await trio.sleep(0.1)
        async with await client.connect(str(trio.socket.inet_ntop(trio.socket.AF_INET6, ssa))) as stream:
            async with await listener.accept():
                await stream.send_all(b"hello")
            await trio.sleep(1)
    raw = (tmp_path / "a").read_bytes()
    assert names(raw)[ssa] == "ssa.httpd.1"
    read = entries(raw)
    said = {(Seen(e.data).flags, e.direction): e.comments for e in read if e.comments and Seen(e.data).is_tcp}
    assert (
        "ssa.httpd.1: session established" in said["A", INBOUND]
        or "ssa.httpd.1: session established" in said["PA", INBOUND]
    )
    knocks = [entry.comments for entry in read if Seen(entry.data).is_udp]
    assert "dropped: foreign_protocol" in knocks[0]  # an SSA's door takes a SYN only
    assert any("httpd: listen" in entry.comments for entry in read[:1])
    assert knocks[1] == ["dropped: no_owner"]
    assert all(ssa.hex() not in comment for entry in read for comment in entry.comments)
    order = [block.kind for block in blocks(raw)]
    assert order.index(4) < order.index(6)
    for entry in read:
        verify(entry.data)


async def test_a_pair_of_links_may_both_be_captured(tmp_path: Path) -> None:
    a, b = memory_link_pair()
    taps = [PcapLink(link, Sink(tmp_path / name)) for link, name in ((a, "a"), (b, "b"))]
    taps[0].write_batch([(builders.udp(A, B), b"", 0, 0)])
    await taps[1].wait_readable()
    await taps[1].wait_writable()
    taps[1].read_batch(9)
    for link in taps:
        link.close()
    directions = [entries((tmp_path / name).read_bytes())[0].direction for name in "ab"]
    assert directions == [OUTBOUND, INBOUND]
    with pytest.raises(trio.ClosedResourceError):
        a.read_batch(1)
