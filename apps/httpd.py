"""A web server whose addresses are its pages: what an SSA stands for (its label) decides what it shows, once.

    python apps/httpd.py --demo                                    server and browser on a wire in memory
    sudo python apps/httpd.py --prefix 2001:db8:1::/64 --pages DIR DIR/menu.html is the page labelled "menu"
    curl "http://[$(sudo umux das add httpd --label menu)]/"       in another terminal

There is no path to guess and no page to steal: who was told the address of a page sees that page and no other.
A browser opens several connections; `umux das add httpd --grain client` lets the first one to come stay.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from html import escape
from ipaddress import IPv6Address
from pathlib import Path
from typing import Final

import trio

from umuxstack import LocalError, UmuxStream, open_host
from umuxstack.control.place import BoundSocket, PlaceError, default_path
from umuxstack.control.server import ControlServer
from umuxstack.driver.links.memory import MemoryRouter

SERVER, CLIENT = "2001:db8:1::/64", "2001:db8:2::/64"
HEAD_LIMIT: Final = 16384  # bytes of a request's head
PATIENCE: Final = 30.0  # seconds for a client to say what it wants, and to read the answer


def load_pages(directory: Path) -> dict[str, bytes]:
    """The pages of a directory by label; `index.html` is for an SSA without one."""
    return {"" if path.stem == "index" else path.stem: path.read_bytes() for path in sorted(directory.glob("*.html"))}


def hello(stream: UmuxStream) -> bytes:
    """The page of an SSA without a label, where no other is given."""
    ours, theirs = stream.local_address[0], escape(stream.remote_address[0])
    return (
        f"<!doctype html><title>Unified Multiplex</title><h1>Hello, {theirs}</h1>"
        f"<p>You came to {ours}, which is made for this session and dies with it.</p>\n"
    ).encode()


def answer(head: bytes, page: bytes | None) -> bytes:
    """The whole response to a request's head; `page` is None if there is none."""
    method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
    if b" HTTP/1." not in rest or b"\r\n\r\n" not in head:
        status, body = b"400 Bad Request", b"This is not HTTP/1, or too much of it.\n"
    elif method not in (b"GET", b"HEAD"):
        status, body = b"405 Method Not Allowed\r\nAllow: GET, HEAD", b"Only GET and HEAD are answered.\n"
    elif page is None:
        status, body = b"404 Not Found", b"The page that this address stands for does not exist.\n"
    else:
        status, body = b"200 OK", page
    kind = b"text/html" if status == b"200 OK" else b"text/plain"
    fields = b"Content-Type: %s; charset=utf-8\r\nContent-Length: %d\r\nConnection: close" % (kind, len(body))
    return b"HTTP/1.1 %s\r\n%s\r\n\r\n%s" % (status, fields, b"" if method == b"HEAD" else body)


async def respond(pages: Mapping[str, bytes], stream: UmuxStream) -> None:
    """One request, one answer, and the session is over; its address with it."""
    label = stream.session.lease.label
    head = b""
    try:
        async with stream:
            with trio.fail_after(PATIENCE):
                while b"\r\n\r\n" not in head and len(head) < HEAD_LIMIT:
                    data = await stream.receive_some(HEAD_LIMIT)
                    if not data:
                        return
                    head += data
                page = pages.get(label, None if label else hello(stream))
                await stream.send_all(answer(head, page))
                await stream.send_eof()
                print(f"{stream.session.lease.name}: {'the' if page else 'no'} page for {label!r}")
                while await stream.receive_some():  # closing with data unread would reset what we have just sent
                    pass
    except (trio.BrokenResourceError, trio.TooSlowError) as error:
        print(f"{stream.session.lease.name}: {error}")


async def serve(prefix: str, name: str, kernel_address: str | None, pages: Mapping[str, bytes]) -> None:
    """On a TUN device, with a control socket through which `umux das add httpd` opens addresses."""
    with closing(BoundSocket(default_path(name, os.environ, os.geteuid()))) as control:
        async with open_host(prefix=prefix, kernel_address=kernel_address) as host, trio.open_nursery() as nursery:
            await nursery.start(ControlServer(host, control, name=name).run)
            listener = await host.listen(port=80, name="httpd")
            print(f"httpd stands in LISTEN_0 on {prefix}, {len(pages)} pages. umux das add httpd --name {name}")
            await trio.serve_listeners(partial(respond, pages), [listener])


async def demo() -> dict[str, bytes]:
    """Two pages on two addresses, fetched by one client. Returns the answers by label."""
    pages = {"menu": b"<h1>Today: soup</h1>\n", "bill": b"<h1>Table 7 owes 12</h1>\n"}
    network = MemoryRouter()
    answers: dict[str, bytes] = {}
    async with (
        open_host(prefix=SERVER, link=network.attach(SERVER)) as server,
        open_host(prefix=CLIENT, link=network.attach(CLIENT)) as client,
        trio.open_nursery() as nursery,
    ):
        listener = await server.listen(port=80, name="httpd")
        nursery.start_soon(trio.serve_listeners, partial(respond, pages), [listener])
        for label in ("menu", "bill", "secret", ""):
            ssa = IPv6Address(server.das(listener, label=label).lease.address)
            async with await client.connect(ssa, 80) as stream:
                await stream.send_all(b"GET / HTTP/1.1\r\nHost: [%s]\r\n\r\n" % str(ssa).encode())
                answers[label] = b"".join([data async for data in stream])
            print(f"http://[{ssa}]/ says {answers[label].splitlines()[0].decode()}")
        nursery.cancel_scope.cancel()
    return answers


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", action="store_true", help="server and client in this process, without root")
    parser.add_argument("--prefix", default=SERVER, help="whose addresses are ours (default %(default)s)")
    parser.add_argument("--pages", type=Path, metavar="DIR", help="with LABEL.html files; index.html for no label")
    parser.add_argument("--name", default="httpd", help="of the control socket (default %(default)s)")
    parser.add_argument("--kernel-address", help="an address outside the prefix for this machine's kernel to call from")
    options = parser.parse_args(arguments)
    try:
        if options.demo:
            trio.run(demo)
        else:
            pages = load_pages(options.pages) if options.pages else {}
            trio.run(serve, options.prefix, options.name, options.kernel_address, pages)
    except* KeyboardInterrupt:
        pass
    except* (OSError, LocalError, PlaceError) as failed:
        sys.exit(f"httpd: {failed.exceptions[0]}")


if __name__ == "__main__":
    main()
