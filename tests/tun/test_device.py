"""A real TUN in a namespace of its own, with the kernel as the peer."""

import errno
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.tun.conftest import KERNEL, OURS, Site
from tests.tun.packets import (
    ACK,
    ICMPV6,
    PSH,
    SYN,
    checksum_is_complete,
    decode,
    echo_request,
    tcp,
    udp,
)
from tun import openers
from tun.device import Packet, TunDevice
from tun.errors import LinkDown, MtuOutOfRange, NameTaken
from tun.netlink import Netlink
from tun.netns import Namespace

pytestmark = pytest.mark.system

# python-pytun is installed where there are wheels of it, on x86-64
WAYS = (
    [openers.open_with_pytun, openers.open_with_ioctl] if openers.pytun_is_importable() else [openers.open_with_ioctl]
)
BOTH = pytest.mark.parametrize("opener", WAYS)
PATIENCE = 5.0  # seconds until a test gives up on the kernel
SYN_OPTIONS = bytes([2, 4, 1440 >> 8, 1440 & 0xFF, 3, 3, 7, 0])  # MSS 1440, window scale 7


def read(device: TunDevice, wanted: Callable[[Packet], bool] = lambda _: True) -> Packet:
    """The next packet that is wanted; waits for it on the descriptor, as the driver does."""
    poll = select.poll()
    poll.register(device.fileno(), select.POLLIN)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for packet in device.read_batch(1):
            if wanted(packet):
                return packet
        poll.poll(100)
    raise AssertionError("the kernel sent nothing of the kind")


@contextmanager
def kernel_socket(site: Site, kind: int, protocol: int = 0) -> Iterator[socket.socket]:
    with site.namespace.run(socket.socket, socket.AF_INET6, kind, protocol) as made:
        made.settimeout(PATIENCE)
        made.bind((KERNEL, 0))
        yield made


@contextmanager
def handshake(site: Site, ours: tuple[str, int] = (OURS, 80)) -> Iterator[tuple[socket.socket, tuple[str, int], int]]:
    """The kernel's connected socket, its address, and the number of its first byte; our first byte is 1001."""
    with kernel_socket(site, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        assert client.connect_ex(ours) == errno.EINPROGRESS
        syn = decode(read(site.device)).data
        theirs = (KERNEL, syn.sport)
        answer = tcp(ours, theirs, SYN | ACK, 1000, syn.seq + 1, options=SYN_OPTIONS)
        assert site.device.write_batch([answer]) == 1
        assert decode(read(site.device)).data.ack == 1001
        client.settimeout(PATIENCE)
        yield client, theirs, syn.seq + 1


@BOTH
@pytest.mark.rule("8504-4-1")
def test_a_device_opens_with_what_was_asked_for(namespace: Namespace, netlink: Netlink, opener: openers.Opener) -> None:
    with namespace.run(TunDevice, "tun7", mtu=9000, opener=opener) as device:
        link = netlink.link("tun7")
        assert (device.name, device.mtu, device.index) == ("tun7", 9000, link.index)
        assert (device.segmentation, device.checksum) == (True, True)
        assert (link.mtu, link.txqueuelen, link.up) == (9000, 5000, False)
        assert not os.get_inheritable(device.fileno())
        assert not os.get_blocking(device.fileno())
    assert not netlink.exists("tun7")


@BOTH
def test_the_kernel_numbers_a_device_without_a_name(namespace: Namespace, opener: openers.Opener) -> None:
    with (
        namespace.run(TunDevice, opener=opener) as first,
        namespace.run(TunDevice, opener=opener) as second,
        namespace.run(TunDevice, "left%dright", opener=opener) as third,
    ):
        assert (first.name, second.name, third.name) == ("umux0", "umux1", "left0right")


def test_without_offload_none_is_reported(namespace: Namespace) -> None:
    with namespace.run(TunDevice, offload=False) as device:
        assert (device.segmentation, device.checksum) == (False, False)


@BOTH
def test_a_name_in_use_is_refused_and_free_again_after_close(namespace: Namespace, opener: openers.Opener) -> None:
    with namespace.run(TunDevice, "tun0", opener=opener), pytest.raises(NameTaken, match="in use by a running process"):
        namespace.run(TunDevice, "tun0", opener=opener)
    namespace.run(TunDevice, "tun0", opener=opener).close()


@BOTH
def test_a_name_of_another_interface_is_refused(namespace: Namespace, opener: openers.Opener) -> None:
    with pytest.raises(NameTaken, match="'lo' exists"):
        namespace.run(TunDevice, "lo", opener=opener)


@pytest.mark.parametrize("mtu", [1280, 65535])
def test_the_limits_of_the_mtu_are_those_of_the_driver(namespace: Namespace, mtu: int) -> None:
    with namespace.run(TunDevice, mtu=mtu) as device:
        assert device.mtu == mtu


def test_an_mtu_that_the_driver_refuses_is_explained(namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tun.device.MTU_MAX", 1 << 20)
    with pytest.raises(MtuOutOfRange, match="does not take an MTU of 70000"):
        namespace.run(TunDevice, mtu=70000)


def test_a_device_opens_in_a_user_namespace_with_its_long_queue() -> None:
    """There the ioctl that sets the queue length is refused, which once made every opening fail."""
    program = (
        "from tun.device import TunDevice; from tun.netlink import Netlink\n"
        "with TunDevice() as device, Netlink() as netlink: print(netlink.link(device.name).txqueuelen)"
    )
    answer = subprocess.check_output(["unshare", "-Urn", sys.executable, "-c", program], text=True)
    assert answer.strip() == "5000"


def test_a_datagram_of_the_kernel_arrives_whole_and_trusted(site: Site) -> None:
    with kernel_socket(site, socket.SOCK_DGRAM) as client:
        client.sendto(b"hello", (OURS, 9))
        packet = read(site.device)
    buf, base, gso_size, checked = packet
    assert (base, gso_size, checked) == (10, 0, True)
    assert len(buf) == base + 40 + 8 + 5
    assert (decode(packet).data.dport, decode(packet).data.data) == (9, b"hello")


def test_without_offload_checksums_are_complete_and_to_be_verified(plain_site: Site) -> None:
    with kernel_socket(plain_site, socket.SOCK_DGRAM) as client:
        client.sendto(b"hello", (OURS, 9))
        packet = read(plain_site.device)
    assert packet[3] is False
    assert checksum_is_complete(packet)


def test_many_datagrams_come_in_one_batch(site: Site) -> None:
    with kernel_socket(site, socket.SOCK_DGRAM) as client:
        for number in range(100):
            client.sendto(bytes([number]), (OURS, 9))
        batches = [site.device.read_batch(64), site.device.read_batch(64), site.device.read_batch(64)]
    assert [len(batch) for batch in batches] == [64, 36, 0]
    assert [decode(packet).data.data[0] for batch in batches for packet in batch] == list(range(100))


def test_an_echo_request_of_the_kernel_arrives(site: Site) -> None:
    with kernel_socket(site, socket.SOCK_RAW, ICMPV6) as client:
        client.sendto(bytes([128, 0, 0, 0, 0, 1, 0, 1]) + b"ping", (OURS, 0))
        packet = read(site.device)
    assert decode(packet).data.type == 128
    assert checksum_is_complete(packet)


def test_the_kernel_answers_our_echo_request(site: Site) -> None:
    assert site.device.write_batch([echo_request(OURS, KERNEL, b"is anybody there")]) == 1
    packet = read(site.device)
    reply = decode(packet).data
    assert (reply.type, bytes(reply.data)[-16:]) == (129, b"is anybody there")


@pytest.mark.parametrize("offload", ["site", "plain_site"])
def test_our_datagram_reaches_a_kernel_socket(request: pytest.FixtureRequest, offload: str) -> None:
    """Also on a device without offload: the kernel completes a checksum wherever it is asked to."""
    site: Site = request.getfixturevalue(offload)
    with kernel_socket(site, socket.SOCK_DGRAM) as server:
        assert site.device.write_batch([udp((OURS, 9), server.getsockname()[:2], b"hello")]) == 1
        data, source = server.recvfrom(100)
    assert (data, source[:2]) == (b"hello", (OURS, 9))


def test_a_kernel_stream_arrives_in_super_segments(site: Site) -> None:
    data = os.urandom(8000)
    with handshake(site) as (client, _, first_byte):
        client.sendall(data)
        packet = read(site.device, lambda read_one: len(read_one[0]) > 2000)
    _, _, gso_size, checked = packet
    segment = decode(packet).data
    assert (gso_size, checked) == (1440, True)
    assert len(segment.data) > gso_size
    assert segment.seq == first_byte
    assert data.startswith(segment.data)


def test_without_offload_a_kernel_stream_arrives_in_segments(plain_site: Site) -> None:
    with handshake(plain_site) as (client, _, _):
        client.sendall(bytes(8000))
        packet = read(plain_site.device, lambda read_one: len(read_one[0]) > 1000)
    assert packet[2:] == (0, False)
    assert len(decode(packet).data.data) == 1440
    assert checksum_is_complete(packet)


@pytest.mark.parametrize("size", [1, 1440, 1441, 43200, 64800])
def test_our_super_segment_reaches_a_kernel_socket_whole(site: Site, size: int) -> None:
    data = os.urandom(size)
    with handshake(site) as (client, theirs, next_byte):
        segment = tcp((OURS, 80), theirs, ACK | PSH, 1001, next_byte, data, gso_size=1440)
        assert site.device.write_batch([segment]) == 1
        received = b""
        while len(received) < size:
            received += client.recv(65536)
    assert received == data
    assert (site.device.dropped_malformed, site.device.dropped_oversize) == (0, 0)


def test_packets_that_the_kernel_rejects_are_counted_and_do_not_stop_the_batch(site: Site) -> None:
    header, payload, _, _ = udp((OURS, 9), (KERNEL, 9), b"")
    batch = [
        (b"\xff" + header[1:], payload, 0, 0),  # neither IPv4 nor IPv6
        (b"", b"", 0, 0),
        (header, payload, 0, 5000),  # the checksum field lies outside
        echo_request(OURS, KERNEL),
    ]
    assert site.device.write_batch(batch) == 4
    assert site.device.dropped_malformed == 3
    assert decode(read(site.device)).data.type == 129


def test_a_link_that_goes_down_says_so_and_works_again_after_up(site: Site) -> None:
    request = echo_request(OURS, KERNEL)
    site.netlink.down("tun0")
    with pytest.raises(LinkDown, match="tun0 is down: `sudo ip link set tun0 up`") as caught:
        site.device.write_batch([request])
    assert caught.value.errno == errno.ENETDOWN
    assert site.device.read_batch(64) == []
    site.connect()
    assert site.device.write_batch([request]) == 1
    assert decode(read(site.device)).data.type == 129


def test_a_link_that_is_down_is_not_writable_until_it_is_up(site: Site) -> None:
    """So whoever was told LinkDown can wait for the descriptor instead of trying again."""
    poll = select.poll()
    poll.register(site.device.fileno(), select.POLLOUT)
    assert poll.poll(0) == [(site.device.fileno(), select.POLLOUT)]
    site.netlink.down("tun0")
    assert poll.poll(0) == []
    site.connect()
    assert poll.poll(0) == [(site.device.fileno(), select.POLLOUT)]


def test_a_device_that_is_deleted_under_us_says_so_on_both_sides(site: Site) -> None:
    site.netlink.delete_link("tun0")
    with pytest.raises(LinkDown, match="tun0 was deleted"):
        site.device.read_batch(64)
    with pytest.raises(LinkDown, match="tun0 was deleted"):
        site.device.write_batch([echo_request(OURS, KERNEL)])
    site.device.close()
    with site.namespace.run(TunDevice, "tun0") as again:
        site.connect()
        assert again.write_batch([echo_request(OURS, KERNEL)]) == 1
        assert decode(read(again)).data.type == 129
