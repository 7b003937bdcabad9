"""Links, addresses and routes, as the kernel has them afterwards."""

import errno
import select
import socket
import threading
from pathlib import Path

import pytest
import trio
from pyroute2 import NetlinkError

from tests.tun.conftest import KERNEL, OURS, PREFIX
from tun import netns
from tun.device import TunDevice
from tun.errors import (
    AlreadyExists,
    LinkMissing,
    MtuOutOfRange,
    NetlinkRefused,
    NotThere,
    PermissionDenied,
    SysctlFailed,
)
from tun.netlink import Netlink, Route
from tun.netns import Namespace

pytestmark = pytest.mark.system


def test_a_new_namespace_has_the_loopback_link_and_nothing_else(namespace: Namespace) -> None:
    with Netlink(namespace) as netlink:
        assert [link.name for link in netlink.links()] == ["lo"]
        assert not netlink.link("lo").up
        netlink.up("lo")
        assert netlink.link("lo").up
        assert netlink.exists("lo")
        assert not netlink.exists("tun0")
        assert netlink.index("lo") == 1


def test_without_a_namespace_it_works_where_its_maker_is(namespace: Namespace) -> None:
    with namespace.enter():
        netlink = Netlink()
    with netlink:
        assert [link.name for link in netlink.links()] == ["lo"]


def test_link_settings_are_set(namespace: Namespace, netlink: Netlink) -> None:
    with namespace.run(TunDevice, "tun0"):
        netlink.set_mtu("tun0", 1400)
        netlink.set_txqueuelen("tun0", 700)
        netlink.up("tun0")
        link = netlink.link("tun0")
        assert (link.mtu, link.txqueuelen, link.up) == (1400, 700, True)
        netlink.down("tun0")
        assert not netlink.link("tun0").up
        with pytest.raises(MtuOutOfRange, match="at least 1280"):
            netlink.set_mtu("tun0", 1279)
        with pytest.raises(MtuOutOfRange, match="does not take an MTU of 70000"):
            netlink.set_mtu("tun0", 70000)


def test_a_quiet_link_has_no_address_and_sends_nothing_when_it_comes_up(namespace: Namespace, netlink: Netlink) -> None:
    with namespace.run(TunDevice, "tun0") as device:
        netlink.set_sysctl("ipv6/conf/tun0/disable_ipv6", "1")
        netlink.quiet("tun0")
        assert netlink.sysctl("ipv6/conf/tun0/disable_ipv6") == "0"
        netlink.up("tun0")
        assert netlink.addresses("tun0") == []
        assert device.read_batch(64) == []
        settings = [netlink.sysctl(f"ipv6/conf/tun0/{name}") for name in ("accept_ra", "accept_dad", "addr_gen_mode")]
        assert settings == ["0", "0", "1"]


def test_an_address_can_be_used_at_once(namespace: Namespace, netlink: Netlink) -> None:
    with namespace.run(TunDevice, "tun0"):
        netlink.up("tun0")
        netlink.add_address("tun0", "2001:db8:5::1/64")
        netlink.add_address("tun0", "2001:db8:6::1")
        with namespace.run(socket.socket, socket.AF_INET6, socket.SOCK_DGRAM) as bound:
            bound.bind(("2001:db8:5::1", 0))  # fails while detection of duplicates runs
        assert {"2001:db8:5::1/64", "2001:db8:6::1/128"} <= set(netlink.addresses("tun0"))
        with pytest.raises(AlreadyExists, match="adding 2001:db8:5::1/64 to tun0"):
            netlink.add_address("tun0", "2001:db8:5::1/64")
        netlink.remove_address("tun0", "2001:db8:5::1/64")
        assert "2001:db8:5::1/64" not in netlink.addresses("tun0")
        with pytest.raises(NotThere):
            netlink.remove_address("tun0", "2001:db8:5::1/64")


def test_a_new_address_is_the_kernels_own_when_the_call_returns() -> None:
    """The kernel made its route in the background: one packet in four that came at once was told "no route"."""
    for _ in range(20):
        with netns.create() as namespace, Netlink(namespace) as netlink:
            netlink.up("lo")
            netlink.add_address("lo", "2001:db8:5::1")
            assert ("2001:db8:5::1/128", "local") in [(route.prefix, route.kind) for route in netlink.routes()]


def test_routes_lead_to_devices_and_gateways(namespace: Namespace, netlink: Netlink) -> None:
    with namespace.run(TunDevice, "tun0"):
        netlink.quiet("tun0")
        netlink.up("tun0")
        netlink.add_address("tun0", "2001:db8:5::1/64")
        netlink.add_route(PREFIX, device="tun0", mtu=1400)
        netlink.add_route("::/0", gateway="2001:db8:5::2")
        netlink.add_route("2001:db8:9::/48", device="tun0", gateway="2001:db8:5::3")
        routes = netlink.routes()
        assert Route(PREFIX, "tun0", None, "unicast", 254, 1024) in routes
        assert Route("::/0", "tun0", "2001:db8:5::2", "unicast", 254, 1024) in routes
        assert Route("2001:db8:9::/48", "tun0", "2001:db8:5::3", "unicast", 254, 1024) in routes
        with pytest.raises(AlreadyExists, match=f"adding the route to {PREFIX}"):
            netlink.add_route(PREFIX, device="tun0")
        netlink.remove_route(PREFIX, device="tun0")
        assert PREFIX not in [route.prefix for route in netlink.routes()]
        with pytest.raises(NotThere):
            netlink.remove_route(PREFIX, device="tun0")


def test_ipv4_is_there_for_who_says_it(namespace: Namespace, netlink: Netlink) -> None:
    """The kernel leads its packets into the device, and none of IPv6's."""
    with namespace.run(TunDevice, "tun0", offload=False) as device:
        netlink.up("lo")
        netlink.quiet("tun0")
        netlink.add_address("lo", "192.168.0.1")
        netlink.up("tun0")
        netlink.add_route("0.0.0.0/0", device="tun0")
        with namespace.run(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind(("192.168.0.1", 0))
            sender.sendto(b"hello", ("192.0.2.1", 7))
        assert select.select([device.fileno()], [], [], 5)[0]
        ((buffer, start, _, _),) = device.read_batch(8)
        packet = bytes(buffer[start:])
        assert (packet[0], packet[12:20], packet[28:]) == (0x45, bytes((192, 168, 0, 1, 192, 0, 2, 1)), b"hello")
        assert [route for route in netlink.routes() if route.prefix == "::/0"] == []


def test_a_route_without_a_way_is_refused(netlink: Netlink) -> None:
    with pytest.raises(NetlinkRefused, match="needs a device or a gateway"):
        netlink.add_route(PREFIX)
    with pytest.raises(NetlinkRefused, match="gateway"):
        netlink.add_route(PREFIX, gateway="2001:db8:77::1")


def test_a_local_route_makes_every_address_of_a_prefix_the_kernels_own(namespace: Namespace, netlink: Netlink) -> None:
    netlink.add_local_route(PREFIX)
    assert Route(PREFIX, "lo", None, "local", 255, 1024) in netlink.routes()
    with (
        namespace.run(socket.socket, socket.AF_INET6, socket.SOCK_DGRAM) as server,
        namespace.run(socket.socket, socket.AF_INET6, socket.SOCK_DGRAM) as client,
    ):
        server.settimeout(5)
        server.bind(("::", 0))
        client.sendto(b"to any of them", (OURS, server.getsockname()[1]))
        assert server.recv(100) == b"to any of them"


def test_a_veth_pair_joins_two_namespaces(namespace: Namespace, netlink: Netlink) -> None:
    with netns.create() as other, Netlink(other) as far:
        netlink.add_veth("left", "right", other)
        for side, name, address in ((netlink, "left", f"{KERNEL}/64"), (far, "right", "2001:db8::2/64")):
            side.quiet(name)
            side.up(name)
            side.add_address(name, address)
        assert netlink.link("left").operstate == "UP"
        with (
            other.run(socket.socket, socket.AF_INET6, socket.SOCK_DGRAM) as server,
            namespace.run(socket.socket, socket.AF_INET6, socket.SOCK_DGRAM) as client,
        ):
            server.settimeout(5)
            server.bind(("2001:db8::2", 0))
            client.sendto(b"across", server.getsockname())
            assert server.recv(100) == b"across"
        with pytest.raises(AlreadyExists, match="veth pair left and other"):
            netlink.add_veth("left", "other")
        netlink.delete_link("left")
        assert not far.exists("right")


def test_forwarding_is_the_namespaces_own(namespace: Namespace, netlink: Netlink) -> None:
    outside = Path("/proc/sys/net/ipv6/conf/all/forwarding").read_text()
    for on, value in ((True, "1"), (False, "0")):
        netlink.set_forwarding(on=on)
        assert netlink.sysctl("ipv6/conf/all/forwarding") == value
        assert Path("/proc/sys/net/ipv6/conf/all/forwarding").read_text() == outside


def test_a_link_that_is_not_there_is_named(netlink: Netlink) -> None:
    for request in (netlink.index, netlink.link, netlink.up, netlink.addresses, netlink.delete_link):
        with pytest.raises(LinkMissing, match="no interface 'nowhere'"):
            request("nowhere")
    with pytest.raises(SysctlFailed, match="conf/nowhere/accept_ra: No such file"):
        netlink.set_sysctl("ipv6/conf/nowhere/accept_ra", "0")


@pytest.mark.parametrize(
    ("code", "kind", "fix"),
    [
        (errno.EPERM, PermissionDenied, "needs CAP_NET_ADMIN.*sudo"),
        (errno.ENODEV, LinkMissing, "ip link"),
        (errno.ENETDOWN, NetlinkRefused, "bring the link up"),
        (errno.EBUSY, NetlinkRefused, "setting lo: .*busy"),
    ],
)
def test_a_refusal_of_the_kernel_is_explained(
    netlink: Netlink, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception], fix: str
) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise NetlinkError(code, "no")

    monkeypatch.setattr(netlink._ipr, "link", refuse)
    with pytest.raises(kind, match=fix):
        netlink.up("lo")


@pytest.mark.parametrize(
    ("code", "kind", "fix"),
    [
        (errno.EROFS, SysctlFailed, "remount,rw /proc/sys"),
        (errno.EACCES, PermissionDenied, "may not be changed: .*sudo"),
        (errno.ENOENT, SysctlFailed, "ipv6.disable=1"),
    ],
)
def test_a_setting_that_cannot_be_written_is_explained(
    netlink: Netlink, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception], fix: str
) -> None:
    def refuse(*_args: object) -> None:
        raise OSError(code, "no")

    monkeypatch.setattr(Path, "write_text", refuse)
    monkeypatch.setattr(Path, "exists", lambda _: False)
    with pytest.raises(kind, match=fix):
        netlink.set_sysctl("ipv6/conf/lo/accept_ra", "0")


def test_it_works_inside_a_running_trio_program(namespace: Namespace) -> None:
    async def program() -> list[str]:
        with Netlink(namespace) as netlink:
            await trio.lowlevel.checkpoint()
            netlink.up("lo")
            return [link.name for link in netlink.links() if link.up]

    assert trio.run(program) == ["lo"]


def test_closing_ends_the_thread_and_the_socket(namespace: Namespace) -> None:
    before = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    netlink = Netlink(namespace)
    netlink.links()
    netlink.close()
    netlink.close()
    assert (threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))) == before
    with pytest.raises(NetlinkRefused, match="closed"):
        netlink.up("lo")


def test_a_namespace_that_was_closed_gives_no_netlink_and_leaves_no_thread() -> None:
    namespace = netns.create()
    namespace.close()
    before = threading.active_count()
    with pytest.raises(OSError, match="was closed"):
        Netlink(namespace)
    assert threading.active_count() == before
