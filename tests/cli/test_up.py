"""`umux up` as a process in a namespace of its own, with the kernel as the other side."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Umux
from tun import netns
from umuxstack.cli import main
from umuxstack.cli.common import FAILED, INTERRUPTED, OK, REFUSED, USAGE
from umuxstack.control.place import answers

pytestmark = pytest.mark.system

PREFIX = "2001:db8:1::/64"
KERNEL = "fd00:75::1"
PROGRAM = (sys.executable, "-W", "error", "-m", "umuxstack")


@pytest.fixture
def namespace() -> Iterator[netns.Namespace]:
    with netns.create() as made:
        yield made


class Up:
    """A running `umux up` and what it said."""

    def __init__(self, process: "subprocess.Popen[str]", path: Path) -> None:
        self.process = process
        self.path = path
        assert process.stdout is not None
        self.said: dict[str, Any] = json.loads(process.stdout.readline())

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(10)


@pytest.fixture
def start(namespace: netns.Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Up]]:
    """Starts `umux up --json` with these words in the namespace."""
    started: list[subprocess.Popen[str]] = []
    monkeypatch.setenv("UMUX_SOCKET", str(tmp_path / "umux.sock"))

    def run(*words: str, program: tuple[str, ...] = PROGRAM) -> Up:
        command = [*program, "up", "--json", "--prefix", PREFIX, "--kernel-address", KERNEL, "--tun", "umux0", *words]
        log = (tmp_path / "log").open("a")
        with log:
            process = namespace.spawn(command, stdout=subprocess.PIPE, stderr=log, text=True)
        started.append(process)
        return Up(process, tmp_path / "umux.sock")

    yield run
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    assert "Traceback" not in (tmp_path / "log").read_text()


def fetch(namespace: netns.Namespace, address: str, timeout: float = 5) -> bytes:
    """What a kernel client gets for a GET."""

    def talk() -> bytes:
        with socket.create_connection((address, 80), timeout=timeout) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while data := connection.recv(65536):
                answer += data
            return answer

    return namespace.run(talk)


def links(namespace: netns.Namespace) -> set[str]:
    return namespace.run(lambda: {name for _, name in socket.if_nameindex()})


@pytest.mark.rule("UM-21", "UM-22")
def test_a_kernel_client_reaches_an_address_that_das_made(
    namespace: netns.Namespace, start: Callable[..., Up], umux: Umux
) -> None:
    up = start("--serve", "hello")
    assert up.said["listeners"] == ["hello"]
    assert up.said["segmentation"] is True
    address = umux("das", "add", "hello", "--label", "order 17").out.strip()
    page = fetch(namespace, address)
    assert page.startswith(b"HTTP/1.1 200 OK")
    assert f"the pair of the addresses {address} and {KERNEL}".encode() in page
    with pytest.raises(OSError, match=r"timed out|refused|unreachable"):
        fetch(namespace, address, timeout=0.5)
    figures = umux("stats", "--json").json
    assert figures["packets_in"] > 0
    assert figures["drop.bad_checksum"] == 0


def test_what_it_records_repeats_whichever_core_is_installed(
    namespace: netns.Namespace, start: Callable[..., Up], umux: Umux, tmp_path: Path
) -> None:
    """With a compiled core it refused, and told the user what to put into the environment."""
    up = start("--serve", "hello", "--record", str(tmp_path / "run"))
    address = umux("das", "add", "hello").out.strip()
    assert fetch(namespace, address).startswith(b"HTTP/1.1 200 OK")
    assert up.end(signal.SIGTERM) == OK
    shown = umux("replay", str(tmp_path / "run"), "--json")
    assert shown.json["difference"] is None
    assert shown.json["packets_in"] > 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, INTERRUPTED), (signal.SIGTERM, OK), (signal.SIGHUP, OK)])
def test_a_signal_ends_it_and_nothing_is_left(
    namespace: netns.Namespace, start: Callable[..., Up], number: int, code: int
) -> None:
    up = start()
    assert "umux0" in links(namespace)
    assert up.end(number) == code
    assert "umux0" not in links(namespace)
    assert not up.path.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "words",
    [
        ("nc", "-l", "--das"),
        ("nc", "-l", "80", "--listener", "web"),
        ("nc", "2001:db8:9::1", "80"),
        ("ping", "-c", "1000", "2001:db8:9::1"),
        ("events",),
        ("stats", "--watch", "10ms"),
        ("stats", "--prometheus", "--port", "0"),
        ("link", "--a", "umuxend-a", "--b", "umuxend-b"),
    ],
    ids=" ".join,
)
def test_a_signal_ends_a_command_and_leaves_nothing(
    namespace: netns.Namespace,
    start: Callable[..., Up],
    umux: Umux,
    tmp_path: Path,
    words: tuple[str, ...],
    number: int,
) -> None:
    start()
    namespace.run(lambda: subprocess.run(("ip", "route", "add", "blackhole", "2001:db8:9::/64"), check=False))

    def left() -> tuple[object, ...]:
        shown = umux("ss", "--json").json
        files = sorted(path.name for path in tmp_path.iterdir())
        return shown["sessions"], shown["listeners"], umux("das", "list", "--json").json, links(namespace), files

    before = left()
    with (tmp_path / "log").open("a") as log:
        process = namespace.spawn([*PROGRAM, *words], stdin=subprocess.PIPE, stdout=log, stderr=log, text=True)
    deadline = time.monotonic() + 10
    while words[0] in ("nc", "link") and left() == before:  # until it has made something
        assert time.monotonic() < deadline
    time.sleep(0.5)
    process.send_signal(number)
    expected = (INTERRUPTED, OK, FAILED) if number == signal.SIGINT else (-number, OK)
    assert process.wait(5) in expected
    assert process.stdin is not None
    process.stdin.close()
    while left() != before:
        assert time.monotonic() < deadline, (before, left())
        time.sleep(0.05)


def test_down_ends_it_while_sessions_live(namespace: netns.Namespace, start: Callable[..., Up], umux: Umux) -> None:
    up = start("--serve", "echo")
    address = umux("das", "add", "echo").out.strip()
    connection = namespace.run(socket.create_connection, (address, 7), 5)
    with connection:
        connection.sendall(b"hello")
        assert connection.recv(5) == b"hello"
        (session,) = umux("ss", "--json").json["sessions"]
        assert (session["local"], session["remote"], session["state"]) == (address, KERNEL, "ESTABLISHED")
        assert (session["role"], session["grain"], session["lease"]) == ("server", "session", "ssa.echo.1")
        assert umux("down").code == OK
        assert up.process.wait(5) == OK
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""


@pytest.mark.parametrize("way", ["signal", "down"])
def test_with_very_many_sessions_these_end_before_the_tasks_that_serve_them(
    namespace: netns.Namespace, start: Callable[..., Up], umux: Umux, way: str
) -> None:
    """Their tasks were all cancelled at one moment, which with 20,000 of them was a pause of two seconds."""
    few = "import sys; from umuxstack.cli import main, running; running._MANY = 3; sys.exit(main())"
    up = start("--serve", "echo", program=(sys.executable, "-W", "error", "-c", few))
    with contextlib.ExitStack() as opened:
        addresses = [umux("das", "add", "echo").out.strip() for _ in range(5)]
        made = [namespace.run(socket.create_connection, (address, 7), 5) for address in addresses]
        connections = [opened.enter_context(connection) for connection in made]
        for connection in connections:
            connection.sendall(b"hello")
            assert connection.recv(5) == b"hello"
        if way == "signal":
            assert up.end(signal.SIGINT) == INTERRUPTED
        else:
            assert umux("down").code == OK
            assert up.process.wait(5) == OK
        for connection in connections:
            with pytest.raises(ConnectionResetError):
                connection.recv(1)
    assert "umux0" not in links(namespace)
    assert not up.path.exists()


def test_after_a_kill_the_next_one_takes_the_place(start: Callable[..., Up], umux: Umux) -> None:
    first = start()
    assert first.end(signal.SIGKILL) == -9
    assert first.path.exists()
    assert not answers(first.path)
    start()
    assert umux("status").code == OK


def test_nc_carries_data_between_a_kernel_client_and_pipes(
    namespace: netns.Namespace, start: Callable[..., Up]
) -> None:
    start()
    data = os.urandom(3_000_000)
    with subprocess.Popen(
        [*PROGRAM, "nc", "-l", "--das"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as nc:
        assert nc.stderr is not None
        address = nc.stderr.readline().decode().strip()
        received = bytearray()

        def visit() -> None:
            with socket.create_connection((address, 1), timeout=10) as connection:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                while chunk := connection.recv(65536):
                    received.extend(chunk)

        visitor = threading.Thread(target=namespace.run, args=(visit,))
        visitor.start()
        out, _ = nc.communicate(data[::-1], timeout=20)
        visitor.join(10)
    assert nc.returncode == OK
    assert out == data
    assert received == data[::-1]


@pytest.mark.rule("UM-15")
def test_nc_reaches_a_kernel_server_from_an_address_of_its_own(
    namespace: netns.Namespace, start: Callable[..., Up], umux: Umux
) -> None:
    start()
    server = namespace.run(lambda: socket.create_server((KERNEL, 8080), family=socket.AF_INET6))
    with server:
        server.settimeout(10)
        with subprocess.Popen(
            [*PROGRAM, "nc", "-q", KERNEL, "8080"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as nc:
            connection, peer = server.accept()
            with connection:
                assert peer[0].startswith("2001:db8:1:")
                assert [lease["kind"] for lease in umux("addr", "--json").json] == ["EA"]
                connection.sendall(b"good morning")
                connection.shutdown(socket.SHUT_WR)
                out, _ = nc.communicate(b"good night", timeout=10)
                assert connection.recv(100) == b"good night"
        assert (nc.returncode, out) == (OK, b"good morning")


@pytest.mark.rule("UM-38")
def test_the_kernel_answers_our_ping(start: Callable[..., Up], umux: Umux) -> None:
    start()
    assert umux("ping", "-c", "2", "-i", "10ms", KERNEL).code == OK


def test_options_reach_the_device(namespace: netns.Namespace, start: Callable[..., Up], umux: Umux) -> None:
    up = start("--no-offload", "--mtu", "1400", "--answer", "--shared", "2001:db8:1::80", "--name", "lab")
    status = umux("status", "--json").json
    assert (status["mtu"], status["segmentation"], status["checksum"]) == (1400, False, False)
    assert (status["silence"], status["name"], status["link"]) == (False, "lab", "umux0")
    assert up.said["shared"] == ["2001:db8:1::80"]
    with pytest.raises(ConnectionRefusedError):
        fetch(namespace, "2001:db8:1::80")


def test_a_place_or_a_device_that_is_taken_is_named(
    namespace: netns.Namespace, start: Callable[..., Up], tmp_path: Path
) -> None:
    start()

    def again(*words: str) -> tuple[int, str]:
        process = namespace.spawn(
            [*PROGRAM, "up", "--prefix", "2001:db8:2::/64", *words], stderr=subprocess.PIPE, text=True
        )
        _, err = process.communicate(timeout=10)
        return process.returncode, err

    code, err = again("--tun", "umux1")
    assert code == FAILED
    assert "already running" in err
    code, err = again("--tun", "umux0", "--socket", str(tmp_path / "other.sock"))
    assert code == FAILED
    assert "umux0" in err
    assert "Traceback" not in err
    assert not (tmp_path / "other.sock").exists()


def test_wrong_settings_touch_nothing(namespace: netns.Namespace, umux: Umux, tmp_path: Path) -> None:
    for words in (
        ("--prefix", "nonsense"),
        ("--prefix", PREFIX, "--name", "a/b"),
        ("--prefix", PREFIX, "--user", "x y"),
    ):
        wrong = umux("up", "--socket", str(tmp_path / "umux.sock"), *words)
        assert wrong.code == USAGE
        assert wrong.err.startswith("umux: ")
    assert list(tmp_path.iterdir()) == []


# other users; a forked child, because another user may not be allowed to read this interpreter's files


@contextmanager
def quiet_fork() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork while threads live: the child does not mind
        yield


def as_user(uid: int, *words: str) -> tuple[int, str]:
    """(exit code, standard error) of `umux` as another user."""
    reader, writer = os.pipe()
    with quiet_fork():
        child = os.fork()
    if child == 0:
        code = 99
        try:
            os.dup2(writer, 2)
            sys.stderr = os.fdopen(2, "w", closefd=False)
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            code = main(words)
            sys.stderr.flush()
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as said:
        text = said.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """Where other users may look; the test's own directory is private."""
    place = Path(f"/tmp/umux-test-{os.getpid()}")
    place.mkdir(mode=0o755)
    yield place
    for path in place.iterdir():
        path.unlink()
    place.rmdir()


@pytest.mark.rule("UM-29")
def test_only_whom_the_operator_names_may_give_orders(start: Callable[..., Up], public_directory: Path) -> None:
    path = str(public_directory / "umux.sock")
    up = start("--socket", path)
    code, err = as_user(65534, "pool", "--socket", path)
    assert code == REFUSED
    assert "no permission" in err
    up.end(signal.SIGTERM)
    start("--socket", path, "--user", "65534")
    assert as_user(65534, "pool", "--socket", path) == (OK, "")
    code, err = as_user(65533, "pool", "--socket", path)
    assert code == REFUSED
    assert "uid 65533 may not give orders" in err


@pytest.mark.rule("UM-29")
def test_a_group_may_be_let_in(start: Callable[..., Up], public_directory: Path) -> None:
    path = str(public_directory / "umux.sock")
    start("--socket", path, "--group", "65533")
    assert as_user(65533, "pool", "--socket", path) == (OK, "")
    assert as_user(65534, "pool", "--socket", path)[0] == REFUSED


def test_without_the_right_to_make_devices_it_says_what_helps(public_directory: Path) -> None:
    public_directory.chmod(0o1777)
    path = str(public_directory / "umux.sock")
    code, err = as_user(65534, "up", "--prefix", PREFIX, "--socket", path)
    assert code == FAILED
    assert "the stack cannot start" in err
    assert "root" in err
    assert "Traceback" not in err
    assert list(public_directory.iterdir()) == []


def test_it_is_up_within_two_seconds(start: Callable[..., Up]) -> None:
    before = time.monotonic()
    start()
    assert time.monotonic() - before < 2
