"""Fetches pages by HTTP, each from an address that was made for it and dies with it.

    python apps/fetch.py --demo                                    client and server on a wire in memory
    sudo python apps/fetch.py --prefix 2001:db8:1::/64 'http://[fd00:75::1]/' 'http://[fd00:75::1]/other'

Whoever keeps the log of the server sees as many visitors as there were requests. The server may be anything that
speaks HTTP over IPv6; only the prefix must be routed to this machine.
"""

import argparse
import sys
from collections.abc import Sequence
from http.client import HTTPMessage, parse_headers
from io import BytesIO
from ipaddress import IPv6Address
from typing import Final
from urllib.parse import urlsplit

import attrs
import trio

from umuxstack import Host, LocalError, UmuxStream, open_host
from umuxstack.driver.links.memory import MemoryRouter

SERVER, CLIENT = "2001:db8:1::/64", "2001:db8:2::/64"
PATIENCE: Final = 30.0  # seconds for a whole request


class BadResponse(ValueError):
    """What came is not an HTTP response, or not all of one."""


@attrs.frozen
class Page:
    """What was fetched, and the two addresses that were the session."""

    status: int
    fields: HTTPMessage
    body: bytes
    ours: str
    theirs: str


async def fetch(host: Host, url: str) -> Page:
    """One GET over a session of its own. Raises OSError, BadResponse, trio.TooSlowError, ValueError for a bad URL."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"{url}: only http://host/path can be fetched")
    port = parts.port or 80
    found = await trio.socket.getaddrinfo(parts.hostname, port, trio.socket.AF_INET6, trio.socket.SOCK_STREAM)
    target = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
    with trio.fail_after(PATIENCE):
        async with await host.connect(str(found[0][4][0]), port) as stream:
            # HTTP/1.0 (RFC 1945): the answer is neither cut into chunks nor followed by another one.
            await stream.send_all(f"GET {target} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n".encode())
            raw = b"".join([data async for data in stream])
            return parse(raw, stream)


def parse(raw: bytes, stream: UmuxStream) -> Page:
    """Raises BadResponse."""
    reader = BytesIO(raw)
    words = reader.readline().split()
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise BadResponse(f"{stream.remote_address[0]} does not answer in HTTP")
    fields = parse_headers(reader)
    body = reader.read()
    if len(body) < int(fields.get("Content-Length", 0)):
        raise BadResponse(f"{len(body)} bytes of {fields['Content-Length']} came")
    return Page(int(words[1]), fields, body, stream.local_address[0], stream.remote_address[0])


async def fetch_all(host: Host, urls: Sequence[str]) -> list[Page]:
    """All at once, in the order of `urls`."""
    pages: dict[str, Page] = {}

    async def one(url: str) -> None:
        pages[url] = await fetch(host, url)

    async with trio.open_nursery() as nursery:
        for url in dict.fromkeys(urls):
            nursery.start_soon(one, url)
    return [pages[url] for url in urls]


async def on_a_tun(prefix: str, kernel_address: str | None, urls: Sequence[str]) -> list[Page]:
    async with open_host(prefix=prefix, kernel_address=kernel_address) as host:
        return await fetch_all(host, urls)


async def demo(count: int = 3) -> list[Page]:
    """Several pages from one server: as many visitors. Returns the pages."""

    async def tell_who_came(stream: UmuxStream) -> None:
        async with stream:
            request = await stream.receive_some()
            body = b"%s, from %s\n" % (request.split()[1], stream.remote_address[0].encode())
            await stream.send_all(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    network = MemoryRouter()
    async with (
        open_host(prefix=SERVER, link=network.attach(SERVER)) as server,
        open_host(prefix=CLIENT, link=network.attach(CLIENT)) as client,
        trio.open_nursery() as nursery,
    ):
        service = IPv6Address("2001:db8:1::80")  # an address of the service grain: for many, and not secret
        listener = await server.listen(port=80, address=service, name="log")
        nursery.start_soon(trio.serve_listeners, tell_who_came, [listener])
        pages = await fetch_all(client, [f"http://[{service}]/{number}" for number in range(count)])
        nursery.cancel_scope.cancel()
    return pages


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("urls", nargs="*", metavar="URL", help="http://[address]/path or http://name/path")
    parser.add_argument("--demo", action="store_true", help="server and client in this process, without root")
    parser.add_argument("--prefix", default=CLIENT, help="whose addresses are ours (default %(default)s)")
    parser.add_argument("--kernel-address", help="an address outside the prefix for this machine's kernel to answer to")
    options = parser.parse_args(arguments)
    if not options.demo and not options.urls:
        parser.error("which URL?")
    try:
        if options.demo:
            pages = trio.run(demo)
        else:
            pages = trio.run(on_a_tun, options.prefix, options.kernel_address, options.urls)
    except* KeyboardInterrupt:
        sys.exit(130)
    except* (OSError, LocalError, ValueError, trio.TooSlowError, trio.BrokenResourceError) as failed:
        first: BaseException = failed
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        sys.exit(f"fetch: {first}")
    for page in pages:
        print(f"{page.status}, {len(page.body)} bytes, from {page.theirs} to {page.ours}", file=sys.stderr)
        sys.stdout.buffer.write(page.body)
    sys.exit(any(page.status >= 400 for page in pages))


if __name__ == "__main__":
    main()
