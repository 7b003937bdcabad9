"""Echo (RFC 862) where nobody can knock: every client gets an address of its own.

    python apps/echo.py --demo                                     server and client on a wire in memory
    sudo python apps/echo.py --prefix 2001:db8:1::/64              a TUN device, until Ctrl-C
    sudo umux das add echo                                         in another terminal: an address for one client
    nc ADDRESS 7

`echo` is ordinary trio code: it knows nothing of addresses.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from ipaddress import IPv6Address

import trio

from umuxstack import LocalError, open_host
from umuxstack.control.place import BoundSocket, PlaceError, default_path
from umuxstack.control.server import ControlServer
from umuxstack.driver.links.memory import MemoryRouter

SERVER, CLIENT = "2001:db8:1::/64", "2001:db8:2::/64"


async def echo(stream: trio.abc.HalfCloseableStream) -> None:
    """Sends back what comes, until the peer has ended its direction; then ends ours."""
    async with stream:
        try:
            async for data in stream:
                await stream.send_all(data)
            await stream.send_eof()
        except trio.BrokenResourceError as error:
            print(f"a client is gone: {error}")


async def serve(prefix: str, name: str, kernel_address: str | None) -> None:
    """On a TUN device, with a control socket through which `umux das add echo` opens addresses."""
    with closing(BoundSocket(default_path(name, os.environ, os.geteuid()))) as control:
        async with open_host(prefix=prefix, kernel_address=kernel_address) as host, trio.open_nursery() as nursery:
            await nursery.start(ControlServer(host, control, name=name).run)
            listener = await host.listen(port=7, name="echo")
            print(f"echo stands in LISTEN_0 on {prefix}: nobody can reach it yet. umux das add echo --name {name}")
            await trio.serve_listeners(echo, [listener])


async def demo(sentence: bytes = b"Is there anybody?") -> bytes:
    """Two hosts in this process. Returns what came back."""
    network = MemoryRouter()
    async with (
        open_host(prefix=SERVER, link=network.attach(SERVER)) as server,
        open_host(prefix=CLIENT, link=network.attach(CLIENT)) as client,
        trio.open_nursery() as nursery,
    ):
        listener = await server.listen(port=7, name="echo")
        nursery.start_soon(trio.serve_listeners, echo, [listener])

        waiting = server.das(listener, label="for one client")  # from outside of `echo`, which goes on waiting
        ssa = IPv6Address(waiting.lease.address)
        print(f"DAS: {waiting.lease.name} waits on {ssa} for one connection")

        answer = b""
        async with await client.connect(ssa, 7) as stream:
            print(f"a client comes from {stream.local_address[0]}, an address that it takes for this session alone")
            await stream.send_all(sentence)
            await stream.send_eof()
            async for data in stream:
                answer += data
        print(f"it said {sentence!r} and heard {answer!r}")
        nursery.cancel_scope.cancel()
    return answer


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", action="store_true", help="server and client in this process, without root")
    parser.add_argument("--prefix", default=SERVER, help="whose addresses are ours (default %(default)s)")
    parser.add_argument("--name", default="echo", help="of the control socket (default %(default)s)")
    parser.add_argument("--kernel-address", help="an address outside the prefix for this machine's kernel to call from")
    options = parser.parse_args(arguments)
    try:
        if options.demo:
            trio.run(demo)
        else:
            trio.run(serve, options.prefix, options.name, options.kernel_address)
    except* KeyboardInterrupt:
        pass
    except* (OSError, LocalError, PlaceError) as failed:
        sys.exit(f"echo: {failed.exceptions[0]}")


if __name__ == "__main__":
    main()
