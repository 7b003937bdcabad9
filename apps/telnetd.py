"""A telnet server (RFC 854) in line mode: a few commands, one session per address.

    python apps/telnetd.py --demo                                  server and client on a wire in memory
    sudo python apps/telnetd.py --prefix 2001:db8:1::/64           a TUN device, until Ctrl-C
    telnet $(sudo umux das add telnetd --label alice) 23           in another terminal

There is no login: who was told the address is let in, once. The label says whom it was told (and it travels in
clear text, as all of telnet does: whoever sees the packets sees the address).
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from contextlib import closing
from ipaddress import IPv6Address
from typing import Final

import trio

from umuxstack import LocalError, UmuxStream, open_host
from umuxstack.control.place import BoundSocket, PlaceError, default_path
from umuxstack.control.server import ControlServer
from umuxstack.driver.links.memory import MemoryRouter

SERVER, CLIENT = "2001:db8:1::/64", "2001:db8:2::/64"
IAC, WILL, DO = 255, 251, 253  # RFC 854; WONT is WILL + 1, DONT is DO + 1
TOKEN: Final = re.compile(
    rb"[^\xff]+|\xff(?:[\xfb-\xfe](.)|\xfa.*?\xff\xf0|[^\xfa-\xfe])", re.DOTALL
)  # text or command
LINE_LIMIT: Final = 1024
HELP: Final = "who: who you are; time: since when; rtt: how far; help; quit"


class Lines:
    """Bytes in, lines and refusals out: whatever option the peer offers or asks for, we refuse (RFC 854's NVT)."""

    def __init__(self) -> None:
        self._raw = b""  # a command whose rest is still under way
        self._text = b""  # a line whose rest is still under way

    def feed(self, data: bytes) -> tuple[list[str], bytes]:
        """The complete lines, and what to send back. Raises ValueError for a line that does not end."""
        data = self._raw + data
        refusals = bytearray()
        at = 0
        while token := TOKEN.match(data, at):
            at = token.end()
            if data[token.start()] != IAC:
                self._text += token[0]
            elif token[0] == b"\xff\xff":
                self._text += b"\xff"
            elif token[0][1] == WILL:
                refusals += bytes((IAC, DO + 1)) + token[1]
            elif token[0][1] == DO:
                refusals += bytes((IAC, WILL + 1)) + token[1]
        self._raw = data[at:]
        *lines, self._text = self._text.split(b"\n")
        if len(self._raw) + len(self._text) > LINE_LIMIT:
            raise ValueError("a line that does not end")
        return [line.strip(b"\r\0 ").decode(errors="replace") for line in lines], bytes(refusals)


def reply(line: str, stream: UmuxStream, began: float) -> str:
    """What to say to a line."""
    match line:
        case "who":
            return f"the pair {stream.local_address[0]} {stream.remote_address[0]}: {stream.session.lease.name}\r\n"
        case "time":
            return f"{trio.current_time() - began:.1f} s\r\n"
        case "rtt":
            return f"{stream.statistics().srtt / 1000:.3f} ms\r\n"
        case "" | "help":
            return f"{HELP}\r\n" if line else ""
    return f"{line.split()[0]}: unknown; {HELP}\r\n"


async def shell(stream: UmuxStream) -> None:
    """Asks and answers, until `quit` or the end of the peer's direction."""
    lease, began, lines = stream.session.lease, trio.current_time(), Lines()
    print(f"{lease.name}: {lease.label or 'somebody'} is here")
    try:
        async with stream:
            await stream.send_all(f"Welcome, {lease.label or 'stranger'}. {HELP}\r\n> ".encode())
            while data := await stream.receive_some():
                complete, refusals = lines.feed(data)
                await stream.send_all(refusals)
                for line in complete:
                    if line == "quit":
                        await stream.send_all(b"This address is gone now.\r\n")
                        return
                    await stream.send_all(f"{reply(line, stream, began)}> ".encode())
    except (trio.BrokenResourceError, ValueError) as error:
        print(f"{lease.name}: {error}")
    finally:
        print(f"{lease.name}: {lease.label or 'somebody'} has left")


async def serve(prefix: str, name: str, kernel_address: str | None) -> None:
    """On a TUN device, with a control socket through which `umux das add telnetd` opens addresses."""
    with closing(BoundSocket(default_path(name, os.environ, os.geteuid()))) as control:
        async with open_host(prefix=prefix, kernel_address=kernel_address) as host, trio.open_nursery() as nursery:
            await nursery.start(ControlServer(host, control, name=name).run)
            listener = await host.listen(port=23, name="telnetd")
            print(f"telnetd stands in LISTEN_0 on {prefix}. umux das add telnetd --name {name}")
            await trio.serve_listeners(shell, [listener])


async def demo(typed: Sequence[str] = ("who", "fly", "quit")) -> str:
    """Two hosts in this process. Returns what the client saw."""
    network = MemoryRouter()
    async with (
        open_host(prefix=SERVER, link=network.attach(SERVER)) as server,
        open_host(prefix=CLIENT, link=network.attach(CLIENT)) as client,
        trio.open_nursery() as nursery,
    ):
        listener = await server.listen(port=23, name="telnetd")
        nursery.start_soon(trio.serve_listeners, shell, [listener])
        ssa = IPv6Address(server.das(listener, label="alice").lease.address)
        async with await client.connect(ssa, 23) as stream:
            await stream.send_all("".join(f"{line}\r\n" for line in typed).encode())
            await stream.send_eof()
            screen = b"".join([data async for data in stream]).decode()
        print(screen)
        nursery.cancel_scope.cancel()
    return screen


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", action="store_true", help="server and client in this process, without root")
    parser.add_argument("--prefix", default=SERVER, help="whose addresses are ours (default %(default)s)")
    parser.add_argument("--name", default="telnetd", help="of the control socket (default %(default)s)")
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
        sys.exit(f"telnetd: {failed.exceptions[0]}")


if __name__ == "__main__":
    main()
