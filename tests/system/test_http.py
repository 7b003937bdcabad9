"""Programs that everybody has: curl as the client of our httpd, http.server as the server of our fetcher."""

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trio

from apps.fetch import fetch_all
from apps.httpd import respond
from tests.system.lab import KERNEL, Lab, both, open_lab
from tests.system.peer import pattern
from umuxstack.driver.streams import UmuxStream

pytestmark = pytest.mark.system

SIZE = 8 << 20  # bytes

A_SERVER = """
import functools, http.server, socket, sys
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])
server = Server(("::", 0), handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


async def take_upload(stream: UmuxStream, got: list[bytes]) -> None:
    """A PUT: its body goes into `got`."""
    async with stream:
        data = b""
        while b"\r\n\r\n" not in data:
            data += await stream.receive_some()
        head, _, body = data.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(": ", 1) for line in head.decode().splitlines()[1:])
        if "expect" in fields:
            await stream.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")
        parts = [body]
        while sum(map(len, parts)) < int(fields["content-length"]):
            parts.append(await stream.receive_some())
        got.append(b"".join(parts))
        await stream.send_all(b"HTTP/1.1 204 No Content\r\n\r\n")
        while await stream.receive_some():
            pass


async def curl(lab: Lab, *arguments: str) -> None:
    program = shutil.which("curl")
    if program is None:
        pytest.skip("no curl")
    process = lab.namespace.spawn(
        [program, "-sS", "-f", "-g", "--noproxy", "*", "--max-time", "15", *arguments], stderr=subprocess.PIPE
    )
    _, errors = await trio.to_thread.run_sync(process.communicate)
    assert (process.returncode, errors) == (0, b"")


@both
async def test_curl_downloads_from_our_httpd_a_page_for_each_address(offload: bool, tmp_path: Path) -> None:
    pages = {"large": b"".join(pattern(SIZE)), "small": b"<h1>Hello</h1>"}
    async with (
        open_lab(offload=offload) as lab,
        await lab.host.listen(80, name="httpd") as listener,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(trio.serve_listeners, partial(respond, pages), [listener])
        for label, page in pages.items():
            await curl(lab, "-o", str(tmp_path / label), f"http://[{lab.open_door(listener, label=label)}]/")
            assert (tmp_path / label).read_bytes() == page
        nursery.cancel_scope.cancel()


@both
async def test_curl_uploads_to_us(offload: bool, tmp_path: Path) -> None:
    (tmp_path / "page").write_bytes(b"".join(pattern(SIZE)))
    got: list[bytes] = []
    async with (
        open_lab(offload=offload) as lab,
        await lab.host.listen(80) as listener,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(trio.serve_listeners, lambda stream: take_upload(stream, got), [listener])
        await curl(lab, "-T", str(tmp_path / "page"), f"http://[{lab.open_door(listener)}]/page")
        nursery.cancel_scope.cancel()
    assert got == [(tmp_path / "page").read_bytes()]


@both
async def test_our_fetcher_downloads_from_a_kernels_http_server(offload: bool, tmp_path: Path) -> None:
    (tmp_path / "page").write_bytes(b"".join(pattern(SIZE)))
    async with open_lab(offload=offload) as lab:
        server = lab.namespace.spawn(
            [sys.executable, "-I", "-c", A_SERVER, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert server.stdout is not None
        port = int(await trio.to_thread.run_sync(server.stdout.readline, abandon_on_cancel=True))
        with lab.host.as_trio_network():
            found, missing = await fetch_all(lab.host, [f"http://[{KERNEL}]:{port}/{name}" for name in ("page", "no")])
        assert (found.status, missing.status) == (200, 404)
        assert found.body == (tmp_path / "page").read_bytes()
        assert found.ours != missing.ours  # each request had an address of its own
