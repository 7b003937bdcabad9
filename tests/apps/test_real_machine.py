"""The programs of apps/ as a user runs them: processes of their own, a TUN device, the kernel's TCP as the peer."""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from tun import netns
from tun.netlink import Netlink
from tun.netns import Namespace
from umuxstack.control.place import default_path

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
KERNEL = "fd00:75::1"
PREFIX = "2001:db8:1::/64"
PATIENCE = 20  # seconds for what takes a fraction of one


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with netns.create() as made:
        with Netlink(made) as netlink:
            netlink.up("lo")
        yield made


def command(app: str, *arguments: str) -> list[str]:
    return [sys.executable, "-u", "-W", "error", str(ROOT / "apps" / f"{app}.py"), *arguments]


def first_line(process: "subprocess.Popen[str]") -> str:
    """What it says when it is ready."""
    assert process.stdout is not None
    return process.stdout.readline()


@contextmanager
def running(namespace: Namespace, app: str, *arguments: str) -> Iterator[str]:
    """A server, until it is interrupted; then it must have ended well. Gives the name of its control socket."""
    name = f"umux-test-{os.getpid()}-{app}"
    process = namespace.spawn(
        command(app, "--prefix", PREFIX, "--kernel-address", KERNEL, "--name", name, *arguments),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert "LISTEN_0" in first_line(process)
        yield name
    finally:
        process.send_signal(signal.SIGINT)
        status = process.wait(PATIENCE)
    assert status == 0
    assert not default_path(name, os.environ, os.geteuid()).exists()


def das(name: str, listener: str, *arguments: str) -> str:
    """`umux das add` in another process: an address."""
    done = subprocess.run(
        [sys.executable, "-m", "umuxstack", "das", "add", listener, "--name", name, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return str(IPv6Address(done.stdout.strip()))


def call(namespace: Namespace, address: str, port: int) -> socket.socket:
    """The kernel's TCP."""
    return namespace.run(socket.create_connection, (address, port), PATIENCE)


@pytest.mark.rule("UM-21.a", "UM-22.a", "UM-5.c")
def test_curl_gets_the_page_of_an_address_once(namespace: Namespace, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    (tmp_path / "menu.html").write_text("soup\n")
    with running(namespace, "httpd", "--pages", str(tmp_path)) as name:
        url = f"http://[{das(name, 'httpd', '--label', 'menu')}]/"
        curl = ["curl", "--silent", "--show-error", "--max-time", "2", url]
        first = namespace.spawn(curl, stdout=subprocess.PIPE, text=True)
        assert first.communicate(timeout=PATIENCE)[0] == "soup\n"
        again = namespace.spawn(curl, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert again.communicate(timeout=PATIENCE)[0] == ""
        assert again.returncode in (7, 28)  # refused, or no answer in time


def test_the_fetcher_reads_from_a_kernel_server(namespace: Namespace, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "data").write_bytes(data)
    server = namespace.spawn(
        [sys.executable, "-u", "-m", "http.server", "--bind", "::", "--directory", str(tmp_path), "80"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert "Serving HTTP" in first_line(server)
    fetcher = namespace.spawn(
        command("fetch", "--prefix", PREFIX, "--kernel-address", KERNEL, f"http://[{KERNEL}]/data"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    body, said = fetcher.communicate(timeout=PATIENCE)
    assert fetcher.returncode == 0, said
    assert hashlib.sha256(body).digest() == hashlib.sha256(data).digest()
    assert said.startswith(b"200, 3000000 bytes, from fd00:75::1 to 2001:db8:1:")


def test_a_kernel_client_is_echoed_after_its_half_close(namespace: Namespace) -> None:
    sentence = os.urandom(200_000)
    with running(namespace, "echo") as name, call(namespace, das(name, "echo"), 7) as client:
        heard = bytearray()
        with client.makefile("rwb") as stream:
            stream.write(sentence)
            stream.flush()
            client.shutdown(socket.SHUT_WR)
            heard += stream.read()
    assert bytes(heard) == sentence


def test_a_kernel_client_talks_to_telnetd(namespace: Namespace) -> None:
    with running(namespace, "telnetd") as name:
        address = das(name, "telnetd", "--label", "bob", "--peer", KERNEL)
        with call(namespace, address, 23) as client, client.makefile("rw", newline="") as stream:
            stream.write("who\r\nquit\r\n")
            stream.flush()
            screen = stream.read()
    assert screen.startswith("Welcome, bob. ")
    assert f"> the pair {address} {KERNEL}: ssa.telnetd.1\r\n" in screen


def test_the_design_s_procedure_runs_with_the_kernel_as_client(namespace: Namespace) -> None:
    process = namespace.spawn(command("das_demo", "--tun"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    told, complaints = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, complaints
    assert told.count(": silence") == 4  # LISTEN_0, and each SSA after its session
    assert told.count("refused") == 3  # each SSA while it serves: the kernel has one address, so it is the same pair
    assert told.count("lease_ended") == 3
    assert "Jiro hears: Hello Jiro" in told
