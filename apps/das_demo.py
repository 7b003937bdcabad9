"""The procedure of the Unified Multiplex design, step by step: how a server waits for one session at a time.

    python apps/das_demo.py                                        two hosts on a wire in memory
    sudo python apps/das_demo.py --tun                             a TUN device; the client is this machine's kernel

The design's deck has it on its page "サーバでの一重専用接続待ち受けを実現する典型的手順 DAS処理" (the typical
procedure by which a server waits singly and exclusively); its three steps are quoted below, in English.
"""

import argparse
import secrets
import sys
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import trio

from umuxstack import Event, Host, LocalError, UmuxStream, open_host
from umuxstack.control.messages import DasAdd
from umuxstack.control.place import BoundSocket
from umuxstack.control.server import ControlServer
from umuxstack.control.trio_client import open_client
from umuxstack.core.units import Address
from umuxstack.driver.links.memory import MemoryRouter

SERVER, CLIENT = "2001:db8:1::/64", "2001:db8:2::/64"
KERNEL: Final = "fd00:75::1"  # with --tun: the address that the kernel calls from
PORT: Final = 80  # what a client dials; it selects nothing
PATIENCE: Final = 1.0  # seconds that a client waits where silence is expected
SETTLE: Final = 0.1  # seconds for the last packets of a session

Call = Callable[[str], Awaitable[trio.abc.HalfCloseableStream]]


async def application(stream: UmuxStream) -> None:
    """The server program. It has called listen() and accept(), and knows nothing of what happens below."""
    async with stream:
        name = await stream.receive_some()
        await stream.send_all(b"Hello " + name)
        await stream.receive_some()  # until the client closes


async def knock(call: Call, address: str) -> bool:
    """Whether anybody answers there, be it with a refusal."""
    with trio.move_on_after(PATIENCE):
        try:
            await (await call(address)).aclose()
        except OSError as error:
            reasons = error.__cause__.exceptions if isinstance(error.__cause__, ExceptionGroup) else [error]
            print(f"          a client tries {address}: {reasons[0]}")
        else:
            print(f"          a client tries {address}: connected")
        return True
    print(f"          a client tries {address}: silence")
    return False


async def print_events(events: trio.MemoryReceiveChannel[Event], history: list[Event]) -> None:
    """What the stack itself reports, with its own time."""
    async for event in events:
        history.append(event)
        print(f"{event.time / 1e6:8.3f}  {event.kind:<20} {event.name} {event.label}".rstrip())


async def das_from_outside(control: Path, ssa: IPv6Address, label: str) -> str:
    """What `umux das add shop --ssa ... --label ...` does. Returns the name of the lease."""
    async with open_client(control) as client:
        waiting = await client.call(DasAdd(listener="shop", ssa=Address(ssa.packed), label=label))
    return waiting.name


async def procedure(host: Host, call: Call, control: Path) -> tuple[list[Event], list[bool]]:
    """The three steps, with three clients. Returns the stack's events, and whether each knock was answered."""
    history: list[Event] = []
    knocks: list[bool] = []
    prefix = IPv6Network((bytes(host.config.prefix), host.config.prefix_length))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(print_events, host.subscribe_events(), history)
        await nursery.start(ControlServer(host, BoundSocket(control), name="das-demo").run)

        print('\n1. "The server application calls listen(). The socket goes into the state LISTEN_0.')
        print('    In fact it accepts no connection from anywhere."')
        listener = await host.listen(port=PORT, name="shop")
        nursery.start_soon(trio.serve_listeners, application, [listener])
        await trio.sleep(SETTLE)
        knocks.append(await knock(call, str(prefix[1])))

        for client in ("Hanako", "Taro", "Jiro"):
            print('\n2. "The client that will connect is decided, and with it the details of the service')
            print(f'    and the SSA to use": {client} will come.')
            ssa = prefix[secrets.randbelow(prefix.num_addresses)]

            print('\n3. "From outside of the application, DAS is performed with the SSA as argument.')
            print('    A LISTEN_U is born as a child of the LISTEN_0; it waits on the SSA alone."')
            name = await das_from_outside(control, ssa, f"for {client}")
            print(f"          {name} is {ssa}, and {client} is told so")

            async with await call(str(ssa)) as stream:
                await stream.send_all(client.encode())
                print(f"          {client} hears: {(await stream.receive_some()).decode()}")
                knocks.append(await knock(call, str(ssa)))  # somebody who has overheard the address
            await trio.sleep(SETTLE)
            knocks.append(await knock(call, str(ssa)))  # and who comes back when it is over
        nursery.cancel_scope.cancel()
    print(
        "\nThe LISTEN_0 would wait on, for the next DAS. Each address lived from its DAS to the close of its session."
    )
    return history, knocks


async def in_memory() -> tuple[list[Event], list[bool]]:
    network = MemoryRouter()
    with TemporaryDirectory(prefix="umux-") as directory:
        async with (
            open_host(prefix=SERVER, link=network.attach(SERVER)) as server,
            open_host(prefix=CLIENT, link=network.attach(CLIENT)) as client,
        ):
            return await procedure(server, lambda address: client.connect(address, PORT), Path(directory, "control"))


async def on_a_tun(prefix: str) -> tuple[list[Event], list[bool]]:
    with TemporaryDirectory(prefix="umux-") as directory:
        async with open_host(prefix=prefix, kernel_address=KERNEL) as server:
            return await procedure(
                server, lambda address: trio.open_tcp_stream(address, PORT), Path(directory, "control")
            )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tun", action="store_true", help="on a TUN device, with the kernel as client (root)")
    parser.add_argument("--prefix", default=SERVER, help="the server's addresses, with --tun (default %(default)s)")
    options = parser.parse_args(arguments)
    try:
        trio.run(on_a_tun, options.prefix) if options.tun else trio.run(in_memory)
    except* KeyboardInterrupt:
        sys.exit(130)
    except* (OSError, LocalError) as failed:
        sys.exit(f"das_demo: {failed.exceptions[0]}")


if __name__ == "__main__":
    main()
