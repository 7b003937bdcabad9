"""Programs that everybody has: curl as the client of a server on our stack, Python's http.server as the other way."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trio

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


async def head(stream: UmuxStream) -> tuple[list[str], bytes]:
    """The lines before the empty one, and what came behind it."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = await stream.receive_some()
        assert more, "the head was cut off"
        data += more
    lines, _, rest = data.partition(b"\r\n\r\n")
    return lines.decode().splitlines(), rest


async def serve(stream: UmuxStream, got: list[bytes]) -> None:
    """GET brings the pattern; PUT puts its body into `got`."""
    async with stream:
        lines, body = await head(stream)
        if lines[0].startswith("GET"):
            await stream.send_all(f"HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n".encode())
            for block in pattern(SIZE):
                await stream.send_all(block)
        else:
            fields = dict(line.lower().split(": ", 1) for line in lines[1:])
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
async def test_curl_downloads_from_us_and_uploads_to_us(offload: bool, tmp_path: Path) -> None:
    async with open_lab(offload=offload) as lab, await lab.host.listen(80) as listener:
        got: list[bytes] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, lambda stream: serve(stream, got), [listener])
            page = tmp_path / "page"
            await curl(lab, "-o", str(page), f"http://[{lab.open_door(listener)}]/")
            assert page.read_bytes() == b"".join(pattern(SIZE))
            await curl(lab, "-T", str(page), f"http://[{lab.open_door(listener)}]/page")
            nursery.cancel_scope.cancel()
        assert got == [page.read_bytes()]


@both
async def test_we_download_from_a_kernels_http_server(offload: bool, tmp_path: Path) -> None:
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
        async with await lab.host.connect(KERNEL, port) as stream:
            await stream.send_all(f"GET /page HTTP/1.0\r\nHost: [{KERNEL}]\r\n\r\n".encode())
            lines, body = await head(stream)
            parts = [body]
            while data := await stream.receive_some():
                parts.append(data)
        assert lines[0].split()[1] == "200"
        assert b"".join(parts) == (tmp_path / "page").read_bytes()
