"""`umux link`: its words, and two kernels joined by it."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from typing import Any

import attrs
import pytest
import trio

from tests.cli.conftest import Umux
from tun import netns
from umuxstack.cable import CableEnd, open_cable
from umuxstack.cli import link, parser
from umuxstack.cli.common import OK, USAGE
from umuxstack.core.units import Micros, millis
from umuxstack.driver.links.impair import Burst, Impairment, PipeStatistics

PROGRAM = (sys.executable, "-W", "error", "-m", "umuxstack")
LEFT, RIGHT = "2001:db8:a::1", "2001:db8:b::1"
CUBIC = b"cubic"

_serial = count(1)


# words


def impairments(*words: str) -> list[Impairment]:
    arguments = parser.parse(["link", *words])
    return [link._impairment(arguments, direction) for direction in (0, 1)]


def test_without_words_the_cable_is_perfect() -> None:
    assert impairments() == [Impairment(), Impairment()]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--loss", "1%"], {"loss": 0.01}),
        (["--loss", "0.25"], {"loss": 0.25}),
        (["--loss", "100%"], {"loss": 1.0}),
        (["--burst", "1%/50%"], {"burst": Burst(enter=0.01, leave=0.5)}),
        (["--delay", "10ms", "--jitter", "500us"], {"delay": millis(10), "jitter": Micros(500)}),
        (["--delay", "1.5s"], {"delay": millis(1500)}),
        (["--reorder", "2%", "--duplicate", "0.1%", "--corrupt", "0.001"],
         {"reorder": 0.02, "duplicate": 0.001, "corrupt": 0.001}),
        (["--mark", "5%"], {"mark": 0.05}),
        (["--rate", "100M", "--queue", "50"], {"rate": 100_000_000, "queue_packets": 50}),
        (["--rate", "64k"], {"rate": 64_000}),
        (["--rate", "2.5g", "--queue", "1k"], {"rate": 2_500_000_000, "queue_packets": 1000}),
        (["--seed", "7", "--loss", "1%"], {"seed": 7, "loss": 0.01}),
    ],
)  # fmt: skip
def test_one_value_is_for_both_directions(words: list[str], expected: dict[str, Any]) -> None:
    assert impairments(*words) == [Impairment(**expected)] * 2


def test_two_values_are_for_a_to_b_and_for_b_to_a() -> None:
    words = ("--rate", "20M,2M", "--queue", "50,10", "--loss", "0,0.5%", "--delay", "1ms,3ms", "--burst", "0/1,1%/50%")
    assert impairments(*words) == [
        Impairment(rate=20_000_000, queue_packets=50, delay=millis(1), burst=Burst(0.0, 1.0)),
        Impairment(rate=2_000_000, queue_packets=10, delay=millis(3), burst=Burst(0.01, 0.5), loss=0.005),
    ]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--loss", "x"], "--loss: 'x' is no share"),
        (["--loss", "101%"], "a probability is between 0 and 1"),
        (["--loss", "-1%"], "expected one argument"),
        (["--loss=-1%"], "a probability is between 0 and 1"),
        (["--loss", "nan"], "a probability is between 0 and 1"),
        (["--loss", "0,0,0"], "--loss takes one value, or two with a comma"),
        (["--burst", "0.1"], "--burst: '0.1' is one share of two"),
        (["--delay", "10"], "--delay: '10' is no time"),
        (["--delay", "10min"], "--delay: '10min' is no time"),
        (["--rate", "fast"], "--rate: 'fast' is no number"),
        (["--queue", "10"], "a queue limit needs a rate"),
        (["--seed", "x"], "invalid int value"),
        (["--mtu", "x"], "invalid int value"),
        (["--for", "nan"], "--for: nan is no time"),
        (["--for=-1"], "--for: -1.0 is no time"),
        (["--a-address", "here"], "--a-address: 'here'"),
        (["--a-address", "192.0.2.1/24"], "--a-address: '192.0.2.1/24'"),
        (["--b-route", "2001:db8::1/64"], "has host bits set"),
    ],
)
def test_wrong_values_are_wrong_usage_and_touch_nothing(umux: Umux, words: list[str], complaint: str) -> None:
    wrong = umux("link", *words)
    assert wrong.code == USAGE
    assert complaint in wrong.err
    assert "Traceback" not in wrong.err


# two kernels


@attrs.frozen
class Ends:
    left: netns.Namespace
    right: netns.Namespace

    @property
    def cable(self) -> tuple[CableEnd, CableEnd]:
        return (
            CableEnd("tun0", self.left.name, (f"{LEFT}/64",), ("2001:db8:b::/64",)),
            CableEnd("tun0", self.right.name, (f"{RIGHT}/64",), ("2001:db8:a::/64",)),
        )

    @property
    def words(self) -> list[str]:
        a, b = self.cable
        return [
            "--a", f"tun0@{self.left.name}", "--a-address", a.addresses[0], "--a-route", a.routes[0],
            "--b", f"tun0@{self.right.name}", "--b-address", b.addresses[0], "--b-route", b.routes[0],
        ]  # fmt: skip

    def links(self) -> set[str]:
        """The devices that are there, in both."""
        return set().union(
            *(end.run(lambda: {name for _, name in socket.if_nameindex()}) for end in attrs.astuple(self))
        )

    def sockets(self, kind: int) -> tuple[socket.socket, socket.socket]:
        """One in each, bound, and given up on after 10 s."""
        pair = (
            self.left.run(socket.socket, socket.AF_INET6, kind),
            self.right.run(socket.socket, socket.AF_INET6, kind),
        )
        for sock, address in zip(pair, (LEFT, RIGHT), strict=True):
            sock.settimeout(10)
            if kind == socket.SOCK_STREAM:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CUBIC)
            sock.bind((address, 5000))
        return pair


@pytest.fixture
def ends() -> Iterator[Ends]:
    with ExitStack() as opened:
        yield Ends(*(opened.enter_context(netns.create(netns.owned_name(f"link{next(_serial)}"))) for _ in range(2)))


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(ends: Ends) -> Iterator[Start]:
    """Starts `umux link` between the namespaces and waits until it carries packets."""
    started: list[subprocess.Popen[str]] = []

    def run(*words: str) -> "subprocess.Popen[str]":
        pipe = subprocess.PIPE
        process = subprocess.Popen([*PROGRAM, "link", *ends.words, *words], stdout=pipe, stderr=pipe, text=True)
        started.append(process)
        assert process.stdout is not None
        assert "carrying packets" in process.stdout.readline()
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def send_and_receive(ends: Ends, total: int) -> list[bytes]:
    """Datagrams from left to right; what arrived, until nothing has for a while."""
    left, right = ends.sockets(socket.SOCK_DGRAM)
    with left, right:
        right.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
        arrived = []
        for number in range(total):
            left.sendto(b"%08d" % number * 20, (RIGHT, 5000))
            if number % 32 == 31:
                right.settimeout(0.02)
                arrived += receive_all(right)
        right.settimeout(0.3)
        return arrived + receive_all(right)


def receive_all(sock: socket.socket) -> list[bytes]:
    datagrams = []
    try:
        while True:
            datagrams.append(sock.recv(65536))
    except TimeoutError:
        return datagrams


@pytest.mark.system
def test_datagrams_and_streams_pass_unchanged(ends: Ends, start: Start) -> None:
    start()
    sent = [b"%08d" % number * 20 for number in range(200)]
    assert send_and_receive(ends, 200) == sent
    client, server = ends.sockets(socket.SOCK_STREAM)
    content = bytes(range(256)) * 8192
    with client, server:
        server.listen()
        client.connect((RIGHT, 5000))
        connection, peer = server.accept()
        with connection:
            assert peer[:2] == (LEFT, 5000)
            connection.settimeout(10)
            client.settimeout(10)
            for source, target in ((client, connection), (connection, client)):
                received = bytearray()
                for start_at in range(0, len(content), 1 << 16):
                    source.sendall(content[start_at : start_at + (1 << 16)])
                    while len(received) < start_at + (1 << 16):
                        received += target.recv(1 << 16)
                assert received == content


@pytest.mark.system
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_leaves_no_device_and_tells_what_happened(ends: Ends, start: Start, number: int) -> None:
    process = start("--duplicate", "100%,0")
    assert "tun0" in ends.links()
    assert len(send_and_receive(ends, 10)) == 20
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (OK, "")
    assert out.splitlines() == ["a to b: 10 sent, 20 delivered, 10 duplicated", "b to a: nothing"]
    assert "tun0" not in ends.links()


@pytest.mark.system
def test_the_statistics_are_json_on_request_and_it_ends_by_itself(ends: Ends, umux: Umux) -> None:
    done = umux("link", *ends.words, "--for", "0.1", "--json", "--loss", "1%")
    assert done.code == OK
    nothing = attrs.asdict(PipeStatistics(0, 0, 0, 0, 0, 0, 0, 0))
    assert json.loads(done.out) == {"a_to_b": nothing, "b_to_a": nothing}
    assert "tun0" not in ends.links()


@pytest.mark.system
def test_the_same_seed_loses_the_same_packets_and_another_others(ends: Ends, start: Start) -> None:
    def survivors(seed: str) -> list[bytes]:
        process = start("--loss", "20%,0", "--seed", seed)
        try:
            return send_and_receive(ends, 300)
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=10)

    first = survivors("3")
    assert 180 < len(first) < 280
    assert survivors("3") == first
    assert survivors("4") != first


@pytest.mark.system
@pytest.mark.parametrize(
    "words",
    [("--a", "tun0@umux-nowhere"), ("--mtu", "100"), ("--a", "has space"), ("--a", "umuxcable", "--b", "umuxcable")],
)
def test_what_cannot_be_had_is_said_and_nothing_is_left(umux: Umux, words: tuple[str, ...]) -> None:
    failed = umux("link", "--a", "umuxcable-a", "--b", "umuxcable-b", *words)
    assert failed.code == USAGE
    assert failed.err.startswith("umux: ")
    assert "Errno" not in failed.err
    assert not {name for _, name in socket.if_nameindex() if name.startswith("umuxcable")}


# from Python


@pytest.mark.system
@pytest.mark.parametrize(
    ("faults", "counted"),
    [
        (Impairment(loss=0.2), "lost"),
        (Impairment(duplicate=0.2), "duplicated"),
        (Impairment(corrupt=0.2), "corrupted"),
        (Impairment(reorder=0.2, displacement=2), "reordered"),
    ],
)
async def test_each_fault_happens_about_as_often_as_asked_and_in_one_direction(
    ends: Ends, faults: Impairment, counted: str
) -> None:
    total = 600
    async with open_cable(*ends.cable, a_to_b=faults) as patch:
        arrived = await trio.to_thread.run_sync(send_and_receive, ends, total)
        there, back = patch.statistics()
    assert there.sent == total
    assert 70 <= getattr(there, counted) <= 170
    others = {"lost", "duplicated", "corrupted", "reordered", "queue_drops", "marked"} - {counted}
    assert [getattr(there, other) for other in others] == [0] * 5
    assert there.delivered == total - there.lost + there.duplicated
    assert back.lost + back.duplicated + back.corrupted + back.reordered == 0
    numbers = [int(datagram[:8]) for datagram in arrived]
    if counted == "corrupted":
        # The kernel notices every bit but those of traffic class, flow label and hop limit, one in 44.
        assert total - there.corrupted <= len(numbers) <= total - 0.85 * there.corrupted
        assert set(arrived) <= {b"%08d" % number * 20 for number in range(total)}
    else:
        assert len(numbers) == there.delivered
    assert (numbers == sorted(numbers)) is (counted != "reordered")


@pytest.mark.system
async def test_it_can_get_worse_while_it_carries(ends: Ends) -> None:
    async with open_cable(*ends.cable) as patch:
        assert len(await trio.to_thread.run_sync(send_and_receive, ends, 20)) == 20
        patch.pipes[0].change(Impairment(loss=1.0))
        assert await trio.to_thread.run_sync(send_and_receive, ends, 20) == []
    assert "tun0" not in ends.links()


@pytest.mark.system
async def test_an_error_inside_the_block_comes_out_and_the_devices_go(ends: Ends) -> None:
    async def fail() -> None:
        async with open_cable(*ends.cable):
            assert "tun0" in ends.links()
            raise KeyError("mine")

    with pytest.raises(ExceptionGroup) as raised:
        await fail()
    assert raised.group_contains(KeyError, match="mine")
    assert "tun0" not in ends.links()
