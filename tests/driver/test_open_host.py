"""open_host: from text to a running host; against a kernel in a network namespace of its own."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio

from tests.driver.conftest import text
from tests.driver.wires import fake_wire
from tun import netns
from tun.netlink import Netlink
from tun.netns import Namespace
from umuxstack.core.errors import AddressMalformed, BadArgument, LocalError
from umuxstack.driver.links.memory import memory_link_pair
from umuxstack.host import make_config, open_host
from umuxstack.keyfile import KeyFileInUse

PREFIX = "2001:db8:1::/64"
SERVICE = "2001:db8:1::80"
KERNEL = "2001:db8:ffff::1"
MEGABYTE = 1 << 20

Result = TypeVar("Result")


async def until(condition: Callable[[], bool]) -> None:
    """Looks again and again: virtual time passes at once, but a thread that writes a file needs real time."""
    while not condition():
        await trio.sleep(1)


# arguments


def test_a_configuration_is_made_of_text() -> None:
    config = make_config(PREFIX, shared=[SERVICE], unified_peers=["2001:db8:2::/48"], silence=False)
    assert (config.prefix_length, len(config.shared), config.silence) == (64, 1, False)
    assert config.unified_peers[0][1] == 48


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"prefix": "2001:db8:1::1/64"}, AddressMalformed),
        ({"prefix": ""}, AddressMalformed),
        ({"prefix": PREFIX, "shared": ["nonsense"]}, AddressMalformed),
        ({"prefix": PREFIX, "scheme": "sequential"}, BadArgument),
        ({"prefix": PREFIX, "no_such_setting": 1}, BadArgument),
        ({"prefix": PREFIX, "scheme": "random", "key_file": "/nowhere"}, BadArgument),
        ({"prefix": PREFIX, "config": make_config(PREFIX)}, BadArgument),
        ({"config": make_config(PREFIX), "silence": False}, BadArgument),
    ],
)
async def test_wrong_arguments_are_refused_before_anything_is_opened(
    arguments: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        async with open_host(link=fake_wire()[0], **arguments):
            raise AssertionError("not reached")


@pytest.mark.parametrize(
    ("argument", "value", "words"),
    [
        ("tun_name", 5, "tun_name is 5"),
        ("namespace", 5, "namespace is 5"),
        ("mtu", "1500", "mtu is '1500'"),
        ("mtu", True, "mtu is True"),
        ("offload", 1, "offload is 1"),
        ("route", "no", "route is 'no'"),
        ("kernel_cores", 3, "kernel_cores is 3"),
        ("kernel_cores", ["1"], "core '1'"),
        ("kernel_cores", [100_000], "core 100000; this machine has 0 to"),
        ("kernel_cores", [-1], "core -1"),
        ("kernel_address", 5, "not an IPv6 address"),
        ("kernel_address", "fd00::1/200", "not an IPv6 address"),
        ("kernel_address", "192.0.2.1", "not an IPv6 address"),
        ("kernel_address", "2001:db8:1::9", "one of the stack's own addresses"),
        ("kernel_address", "2001:db8:7::80", "one of the stack's own addresses"),
    ],
)
async def test_what_a_device_cannot_be_is_refused_before_it_is_made(argument: str, value: Any, words: str) -> None:
    """They came out as TypeError and ValueError from within; 5 became the address ::5, and the kernel took ours."""
    with pytest.raises(LocalError, match=re.escape(words)):
        async with open_host(prefix=PREFIX, shared=["2001:db8:7::80"], **{argument: value}):
            raise AssertionError("not reached")


# a link of one's own, and a key file


async def test_a_host_opens_on_any_link() -> None:
    left, right = memory_link_pair()
    async with (
        open_host(prefix="2001:db8:1::/64", link=left) as client,
        open_host(config=make_config("2001:db8:2::/64"), link=right) as server,
        await server.listen(80) as listener,
        await client.connect(text(server.das(listener).lease.address), 80),
    ):
        await (await listener.accept()).aclose()


@pytest.mark.rule("UM-13.j")
async def test_with_a_key_file_no_address_comes_twice_over_restarts(tmp_path: Path) -> None:
    issued: list[bytes] = []
    for _ in range(3):
        async with open_host(prefix=PREFIX, link=fake_wire()[0], key_file=tmp_path / "key", seed=b"the same") as host:
            issued += [host.stack.pool.take() for _ in range(100)]
    assert len(set(issued)) == 300


@pytest.mark.rule("UM-13.j")
async def test_counters_are_granted_before_they_run_out(tmp_path: Path) -> None:
    async with open_host(prefix=PREFIX, link=fake_wire()[0], key_file=tmp_path / "key") as host:
        first = host.stack.pool_statistics().granted
        assert first is not None
        for _ in range(20):
            for _ in range(first // 16):
                host.stack.pool.take()
            host.kick()
            await until(lambda: not host.stack.pool.scheme.wants_grant)
        after = host.stack.pool_statistics()
        assert after.issued > first
        assert after.granted is not None
        assert after.granted > 0


async def test_a_key_file_that_cannot_be_written_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_host(prefix=PREFIX, link=fake_wire()[0], key_file=tmp_path / "key") as host:
        rename = Path.rename

        def fail(*_: object) -> None:
            raise OSError("the disk is full")

        monkeypatch.setattr(Path, "rename", fail)
        for _ in range(62_000):
            host.stack.pool.take()
        host.kick()
        await until(lambda: "the disk is full" in caplog.text)
        assert host.stack.pool.scheme.wants_grant
        monkeypatch.setattr(Path, "rename", rename)
        await until(lambda: not host.stack.pool.scheme.wants_grant)


@pytest.mark.rule("UM-13.g", "UM-16.a")
async def test_with_a_key_file_a_chosen_source_is_recorded_once_and_used_for_several_peers(tmp_path: Path) -> None:
    left, right = fake_wire()
    async with (
        open_host(prefix="2001:db8:2::/64", link=right) as server,
        open_host(prefix=PREFIX, link=left, key_file=tmp_path / "key") as host,
    ):
        wheres = ("2001:db8:2::80", "2001:db8:2::81")
        # They stay open: closing one resets what waits in its queue, and with its session a source is used up.
        listeners = [await server.listen(80, address=where) for where in wheres]
        streams = [await host.connect(where, 80, source="2001:db8:1::50") for where in wheres]
        assert {text(stream.session.local) for stream in streams} == {"2001:db8:1::50"}
        for listener in listeners:
            await listener.aclose()
        for stream in streams:
            await stream.aclose()
    async with open_host(prefix=PREFIX, link=fake_wire()[0], key_file=tmp_path / "key") as host:
        with pytest.raises(Exception, match="not used again"):
            await host.connect("2001:db8:2::82", 80, source="2001:db8:1::50")


@pytest.mark.rule("UM-13.g", "UM-24.i")
async def test_an_ssa_that_a_user_chose_is_not_chosen_again_after_a_restart(tmp_path: Path) -> None:
    for attempt in range(2):
        async with (
            open_host(prefix=PREFIX, link=fake_wire()[0], key_file=tmp_path / "key") as host,
            await host.listen(80) as listener,
        ):
            if attempt:
                with pytest.raises(Exception, match="not used again"):
                    host.das(listener, ssa="2001:db8:1::abcd")
            else:
                host.das(listener, ssa="2001:db8:1::abcd")


@pytest.mark.rule("UM-13.i")
async def test_a_key_file_is_used_by_one_host_at_a_time(tmp_path: Path) -> None:
    async with open_host(prefix=PREFIX, link=fake_wire()[0], key_file=tmp_path / "key"):
        with pytest.raises(KeyFileInUse):
            async with open_host(prefix=PREFIX, link=fake_wire()[0], key_file=tmp_path / "key"):
                raise AssertionError("not reached")


# a kernel


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with netns.create(netns.owned_name("open")) as made:
        with Netlink(made) as netlink:
            netlink.up("lo")
        yield made


def in_namespace(namespace: Namespace, function: Callable[[Netlink], Result]) -> Result:
    with Netlink(namespace) as netlink:
        return function(netlink)


def kernel_socket(namespace: Namespace) -> trio.socket.SocketType:
    made = namespace.run(socket.socket, socket.AF_INET6, socket.SOCK_STREAM)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
    return trio.socket.from_stdlib_socket(made)


async def send_and_count(sender: trio.abc.HalfCloseableStream, receiver: trio.abc.HalfCloseableStream) -> int:
    """Sends a megabyte and the end; how much arrived."""
    count = 0
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                await sender.send_all(bytes(MEGABYTE))
                await sender.send_eof()

            nursery.start_soon(send)
            while data := await receiver.receive_some():
                count += len(data)
    return count


@pytest.mark.system
@pytest.mark.parametrize("offload", [True, False], ids=["offload", "plain"])
async def test_a_host_and_a_kernel_exchange_a_megabyte_both_ways(namespace: Namespace, *, offload: bool) -> None:
    name = namespace.name
    async with (
        open_host(prefix=PREFIX, namespace=name, kernel_address=KERNEL, offload=offload) as host,
        await host.listen(80, address=SERVICE) as listener,
    ):
        kernel = kernel_socket(namespace)
        with trio.fail_after(5):
            await kernel.connect((SERVICE, 80))
            ours = await listener.accept()
        theirs = trio.SocketStream(kernel)
        async with ours, theirs:
            assert await send_and_count(ours, theirs) == MEGABYTE
            assert await send_and_count(theirs, ours) == MEGABYTE
        assert host.pump.faults == 0


@pytest.mark.system
async def test_a_host_reaches_a_kernels_server_from_an_ea(namespace: Namespace) -> None:
    async with open_host(prefix=PREFIX, namespace=namespace.name, kernel_address=KERNEL) as host:
        with kernel_socket(namespace) as listening:
            await listening.bind((KERNEL, 8080))
            listening.listen()
            with trio.fail_after(5):
                ours = await host.connect(KERNEL, 8080)
                accepted, peer = await listening.accept()
            assert peer[:2] == (ours.local_address[0], 1)
            async with ours, trio.SocketStream(accepted) as theirs:
                assert await send_and_count(ours, theirs) == MEGABYTE
        replies = await host.ping(KERNEL)
        assert replies[0] is not None
        with pytest.raises(ConnectionRefusedError):
            await host.connect(KERNEL, 8081)


@pytest.mark.system
async def test_a_session_lives_on_over_a_link_that_was_down(namespace: Namespace) -> None:
    """With the link the kernel drops its routes and addresses; nobody put them back, and the host stayed deaf."""
    async with (
        open_host(prefix=PREFIX, namespace=namespace.name, kernel_address=KERNEL, tun_name="umuxdown") as host,
        await host.listen(80, address=SERVICE) as listener,
    ):
        kernel = kernel_socket(namespace)
        await kernel.connect((SERVICE, 80))
        async with await listener.accept() as ours, trio.SocketStream(kernel) as theirs:
            in_namespace(namespace, lambda netlink: netlink.down("umuxdown"))
            await ours.send_all(b"sent while down")
            with trio.fail_after(5):
                while host.link_state.up:
                    await trio.sleep(0.01)
            in_namespace(namespace, lambda netlink: netlink.up("umuxdown"))
            with trio.fail_after(10):
                assert await theirs.receive_some() == b"sent while down"
                await theirs.send_all(b"heard")
                assert await ours.receive_some() == b"heard"
            assert host.link_state.up


@pytest.mark.system
async def test_a_host_that_sends_nothing_is_found_behind_a_link_that_was_down(namespace: Namespace) -> None:
    """Only who sent something noticed that the link had been down; a server that waits stayed deaf."""
    async with (
        open_host(prefix=PREFIX, namespace=namespace.name, kernel_address=KERNEL, tun_name="umuxdown") as host,
        await host.listen(80, address=SERVICE) as listener,
    ):
        for _ in range(2):
            in_namespace(namespace, lambda netlink: netlink.down("umuxdown"))
            in_namespace(namespace, lambda netlink: netlink.up("umuxdown"))
            await until_led_to(namespace, "umuxdown")
            with kernel_socket(namespace) as kernel, trio.fail_after(5):
                await kernel.connect((SERVICE, 80))
                async with await listener.accept() as ours:
                    assert ours.remote_address[0] == KERNEL


async def until_led_to(namespace: Namespace, device: str) -> None:
    """At most 5 s: the routes come by a task of the host's."""

    def led_to() -> bool:
        with Netlink(namespace) as netlink:
            routes = {route.prefix for route in netlink.routes() if route.device == device}
            return PREFIX in routes and any(KERNEL in address for address in netlink.addresses(device))

    with trio.fail_after(5):
        while not led_to():
            await trio.sleep(0.01)


@pytest.mark.system
async def test_a_session_lives_on_over_a_device_that_was_deleted(namespace: Namespace) -> None:
    async with (
        open_host(prefix=PREFIX, namespace=namespace.name, kernel_address=KERNEL, tun_name="umuxgone") as host,
        await host.listen(80, address=SERVICE) as listener,
    ):
        kernel = kernel_socket(namespace)
        await kernel.connect((SERVICE, 80))
        async with await listener.accept() as ours, trio.SocketStream(kernel) as theirs:
            in_namespace(namespace, lambda netlink: netlink.delete_link("umuxgone"))
            await trio.sleep(0.01)
            await ours.send_all(b"sent while gone")
            with trio.fail_after(10):
                assert await theirs.receive_some() == b"sent while gone"
            assert host.link_state.outages == 1


PROGRAM = """
import sys, trio
from umuxstack import open_host

async def main():
    async with open_host(prefix="2001:db8:1::/64", namespace=sys.argv[1], tun_name="umuxctrlc"):
        print("up", flush=True)
        await trio.sleep_forever()

try:
    trio.run(main)
except KeyboardInterrupt:
    sys.exit(3)
"""


@pytest.mark.system
def test_ctrl_c_leaves_no_device_and_no_route(namespace: Namespace) -> None:
    assert namespace.name is not None
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, namespace.name], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        assert in_namespace(namespace, lambda netlink: netlink.exists("umuxctrlc"))
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 3
    assert not in_namespace(namespace, lambda netlink: netlink.exists("umuxctrlc"))
    assert PREFIX not in in_namespace(namespace, lambda netlink: [route.prefix for route in netlink.routes()])


@pytest.mark.system
async def test_a_route_that_leads_elsewhere_is_not_taken_over(namespace: Namespace) -> None:
    def occupy(netlink: Netlink) -> None:
        netlink.add_route(PREFIX, device="lo")

    in_namespace(namespace, occupy)
    with pytest.raises(OSError, match="route"):
        async with open_host(prefix=PREFIX, namespace=namespace.name, tun_name="umuxroute"):
            raise AssertionError("not reached")
    assert not in_namespace(namespace, lambda netlink: netlink.exists("umuxroute"))


async def test_a_namespace_that_is_not_there_is_named_in_the_error() -> None:
    with pytest.raises(OSError, match="umux-nowhere"):
        async with open_host(prefix=PREFIX, namespace="umux-nowhere"):
            raise AssertionError("not reached")
