"""What a socket says of its peer, and of `shutdown`, when a connection has ended: ours as the kernel's.

The same tests run on both. Ours named the peer for ever, and took every `shutdown`.
"""

import errno
import socket as stdlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from typing import TypeAlias

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.driver.conftest import SHARED, Pair, two_hosts
from umuxstack.driver.runtime import Host

Socket: TypeAlias = trio.socket.SocketType
Deed: TypeAlias = Callable[[Socket, Socket], Awaitable[None]]

PATIENCE = 5  # seconds, until a FIN or a RST has come over; virtual ones for our hosts
WAYS = (stdlib.SHUT_RD, stdlib.SHUT_WR, stdlib.SHUT_RDWR)


class Place:
    """Two hosts of ours; or, without them, this machine's kernel by its loopback address."""

    def __init__(self, pair: Pair | None) -> None:
        self.pair = pair
        self.address = "::1" if pair is None else SHARED

    def socket(self, host: Host | None, kind: int = stdlib.SOCK_STREAM) -> Socket:
        if host is None:
            return trio.socket.socket(stdlib.AF_INET6, kind)
        return host.socket_factory.socket(stdlib.AF_INET6, kind, 0)

    def client(self, kind: int = stdlib.SOCK_STREAM) -> Socket:
        return self.socket(None if self.pair is None else self.pair.client, kind)

    def server(self, kind: int = stdlib.SOCK_STREAM) -> Socket:
        return self.socket(None if self.pair is None else self.pair.server, kind)

    async def listening(self, port: int = 0) -> Socket:
        socket = self.server()
        await socket.bind((self.address, port))
        socket.listen()
        return socket

    async def connection(self) -> tuple[Socket, Socket]:
        """The client's socket and the server's."""
        with await self.listening() as listening:
            client = self.client()
            await client.connect(listening.getsockname())
            server, _ = await listening.accept()
            return client, server


@pytest.fixture(params=["ours", pytest.param("the kernel's", marks=pytest.mark.system)])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    if request.param != "ours":
        yield Place(None)
        return
    async with two_hosts() as pair:
        yield Place(pair)


def said(call: Callable[..., object], *arguments: object) -> str:
    """The errno's name; "fine" if there is none."""
    try:
        call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "fine"


async def until_it_says(expected: str, call: Callable[[], object]) -> None:
    with trio.fail_after(PATIENCE):
        while said(call) != expected:
            await trio.sleep(0.01)


async def read_to_the_end(socket: Socket) -> None:
    while await socket.recv(100):
        pass


async def reset(socket: Socket) -> None:
    socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_LINGER, struct.pack("ii", 1, 0))
    socket.close()


async def nothing(_us: Socket, _them: Socket) -> None:
    pass


async def we_shut(us: Socket, _them: Socket) -> None:
    us.shutdown(stdlib.SHUT_RDWR)


async def they_shut(us: Socket, them: Socket) -> None:
    them.shutdown(stdlib.SHUT_WR)
    await read_to_the_end(us)


async def they_close(us: Socket, them: Socket) -> None:
    them.close()
    await read_to_the_end(us)


async def we_shut_then_they(us: Socket, them: Socket) -> None:
    us.shutdown(stdlib.SHUT_WR)
    await read_to_the_end(them)
    them.shutdown(stdlib.SHUT_WR)
    await read_to_the_end(us)


async def they_shut_then_we(us: Socket, them: Socket) -> None:
    await they_shut(us, them)
    us.shutdown(stdlib.SHUT_WR)


async def they_close_then_we_shut(us: Socket, them: Socket) -> None:
    await they_close(us, them)
    us.shutdown(stdlib.SHUT_RDWR)


async def the_end_is_not_read(us: Socket, them: Socket) -> None:
    us.shutdown(stdlib.SHUT_WR)
    await read_to_the_end(them)
    await them.send(b"last words")
    them.close()


async def they_reset(_us: Socket, them: Socket) -> None:
    await reset(them)


@pytest.mark.parametrize("deed", [nothing, we_shut, they_shut, they_close])
async def test_as_long_as_one_side_is_open_there_is_a_peer(place: Place, deed: Deed) -> None:
    for way in WAYS:
        us, them = await place.connection()
        with us, them:
            await deed(us, them)
            assert us.getpeername()[0] == place.address
            assert said(us.shutdown, way) == "fine"


@pytest.mark.parametrize(
    "deed", [we_shut_then_they, they_shut_then_we, they_close_then_we_shut, the_end_is_not_read, they_reset]
)
async def test_behind_the_end_there_is_none_and_nothing_to_shut(place: Place, deed: Deed) -> None:
    us, them = await place.connection()
    with us, them:
        await deed(us, them)
        await until_it_says("ENOTCONN", us.getpeername)
        assert us.getsockname()[1]
        for way in WAYS:
            assert said(us.shutdown, way) == "ENOTCONN"
        if deed is the_end_is_not_read:
            assert await us.recv(100) == b"last words"
        assert said(us.shutdown, 7) == "EINVAL"


async def test_who_is_accepted_behind_the_end_is_named_by_accept_alone(place: Place) -> None:
    with await place.listening() as listening:
        client = place.client()
        await client.connect(listening.getsockname())
        name = client.getsockname()[0]
        await reset(client)
        server, peer = await listening.accept()
        with server:
            assert peer[0] == name
            await until_it_says("ENOTCONN", server.getpeername)


async def test_a_listener_is_shut_by_shutting_its_reading_side(place: Place) -> None:
    """SHUT_WR closed our listener, which has nothing to write. One that was shut may listen again."""
    for way in WAYS:
        with await place.listening() as listening:
            assert said(listening.getpeername) == "ENOTCONN"
            assert said(listening.shutdown, way) == "fine"
            if way != stdlib.SHUT_WR:
                assert said(listening.shutdown, way) == "ENOTCONN"
                assert not listening.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_ACCEPTCONN)
                with pytest.raises(OSError, check=lambda error: error.errno == errno.EINVAL):
                    await listening.accept()
                listening.listen()
            with place.client() as client:
                await client.connect(listening.getsockname())
                (await listening.accept())[0].close()


async def test_shutdown_ends_an_attempt_to_connect(place: Place) -> None:
    """It said that the socket is not connected, and the attempt went on."""
    with await place.listening() as full, ExitStack() as crowd:
        if place.pair is None:
            full.listen(0)
            await crowd.enter_context(place.client()).connect(full.getsockname())  # the only place there is
        else:
            place.pair.client_link.loses = True
        for way in WAYS:
            async with trio.open_nursery() as nursery:
                socket = place.client()

                async def connect(socket: Socket = socket, full: Socket = full) -> None:
                    with pytest.raises(ConnectionResetError):
                        await socket.connect(full.getsockname())

                nursery.start_soon(connect)
                await wait_all_tasks_blocked()
                assert said(socket.getpeername) == "ENOTCONN"
                socket.shutdown(way)
                await wait_all_tasks_blocked()
                assert said(socket.shutdown, way) == "ENOTCONN"
                socket.close()


async def test_a_datagram_socket_sends_no_more_once_it_is_shut(place: Place) -> None:
    """It sent on. Received is as ever, by the kernel as well."""
    with place.client(stdlib.SOCK_DGRAM) as us, place.server(stdlib.SOCK_DGRAM) as them:
        await them.bind((place.address, 0))
        for way in WAYS:
            assert said(us.shutdown, way) == "ENOTCONN"
        assert said(us.shutdown, 7) == "EINVAL"
    with place.client(stdlib.SOCK_DGRAM) as us, place.server(stdlib.SOCK_DGRAM) as them:
        await them.bind((place.address, 0))
        await us.connect(them.getsockname())
        await us.send(b"question")
        _, name = await them.recvfrom(100)
        assert said(us.shutdown, stdlib.SHUT_RD) == "fine"
        await us.send(b"another")
        assert said(us.shutdown, stdlib.SHUT_WR) == "fine"
        with pytest.raises(BrokenPipeError):
            await us.send(b"x")
        with pytest.raises(BrokenPipeError):
            await us.sendto(b"x", them.getsockname())
        await them.sendto(b"answer", name)
        assert await us.recv(100) == b"answer"
        assert us.getpeername()[0] == place.address
