"""Unchanged trio programs run on a host: `trio.socket` and what trio builds on it."""

import errno
import os
import socket as stdlib
import struct
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import check_half_closeable_stream, wait_all_tasks_blocked

from tests.driver.conftest import SHARED, Pair, text
from umuxstack.core.errors import AddressMalformed
from umuxstack.driver.runtime import Host

SERVICE = "2001:db8:2::5"
TCP_INFO_STATE_ESTABLISHED = 1


class Errno:
    """Equal to an OSError of that number, for `pytest.raises(check=…)`."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, error: OSError) -> bool:
        return error.errno == self.number


def udp(host: Host) -> trio.socket.SocketType:
    return host.socket_factory.socket(stdlib.AF_INET6, stdlib.SOCK_DGRAM, 0)


def tcp(host: Host) -> trio.socket.SocketType:
    return host.socket_factory.socket(stdlib.AF_INET6, stdlib.SOCK_STREAM, 0)


async def connected(pair: Pair) -> tuple[trio.socket.SocketType, trio.socket.SocketType]:
    """A client's and a server's socket over a service address."""
    with tcp(pair.server) as listening:
        await listening.bind((SERVICE, 80))
        listening.listen()
        client = tcp(pair.client)
        await client.connect((SERVICE, 80))
        server, _ = await listening.accept()
        return client, server


# Programs as trio's own documentation shows them.


async def echo_server(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)


async def echo_client(address: str, port: int) -> bytes:
    stream = await trio.open_tcp_stream(address, port)
    async with stream:
        await stream.send_all(b"async can sometimes be confusing, but I believe in you!")
        await stream.send_eof()
        return b"".join([data async for data in stream])


@pytest.mark.rule("UM-15.b", "UM-20.b", "UM-21", "UM-37.g")
async def test_the_echo_programs_of_trios_tutorial_meet_over_an_ssa(pair: Pair) -> None:
    with pair.server.as_trio_network():
        async with trio.open_nursery() as nursery:
            listeners: list[trio.SocketListener] = await nursery.start(trio.serve_tcp, echo_server, 12345)
            assert [listener.socket.getsockname() for listener in listeners] == [("::", 12345, 0, 0)]
            for _ in range(2):
                ssa = pair.server.das(pair.server.stack.listeners()[0].id).lease.address
                assert (await echo_client(text(ssa), 12345)).startswith(b"async can")
            nursery.cancel_scope.cancel()


async def test_server_and_client_may_live_on_two_hosts_of_one_run(pair: Pair) -> None:
    async with trio.open_nursery() as nursery:
        with pair.server.as_trio_network():
            await nursery.start(trio.serve_tcp, echo_server, 12345)
        ssa = pair.server.das(pair.server.stack.listeners()[0].id).lease.address
        with pair.client.as_trio_network():
            assert (await echo_client(text(ssa), 12345)).startswith(b"async can")
        nursery.cancel_scope.cancel()


async def test_trios_socket_stream_over_our_sockets_passes_trios_check(pair: Pair) -> None:
    async def streams() -> tuple[trio.SocketStream, trio.SocketStream]:
        client, server = await connected_elsewhere()
        return trio.SocketStream(client), trio.SocketStream(server)

    number = 0

    async def connected_elsewhere() -> tuple[trio.socket.SocketType, trio.socket.SocketType]:
        nonlocal number
        number += 1
        with tcp(pair.server) as listening:
            await listening.bind((f"2001:db8:2::1:{number:x}", 80))
            listening.listen()
            client = tcp(pair.client)
            await client.connect(listening.getsockname()[:2])
            server, _ = await listening.accept()
            return client, server

    await check_half_closeable_stream(streams, None)


async def test_as_trio_network_puts_back_what_was_there(pair: Pair) -> None:
    with pair.client.as_trio_network():
        with pair.server.as_trio_network():
            pass
        assert trio.socket.set_custom_socket_factory(pair.client.socket_factory) is pair.client.socket_factory
    assert trio.socket.set_custom_socket_factory(None) is None
    assert trio.socket.set_custom_hostname_resolver(None) is None


# making


async def test_there_is_no_ipv4_and_only_tcp_and_udp(pair: Pair) -> None:
    factory = pair.client.socket_factory
    with pytest.raises(OSError, check=Errno(errno.EAFNOSUPPORT)):
        factory.socket(stdlib.AF_INET, stdlib.SOCK_STREAM, 0)
    for kind, proto in ((stdlib.SOCK_RAW, 58), (stdlib.SOCK_STREAM, stdlib.IPPROTO_UDP)):
        with pytest.raises(OSError, check=Errno(errno.EPROTONOSUPPORT)):
            factory.socket(stdlib.AF_INET6, kind, proto)
    with factory.socket(stdlib.AF_INET6, stdlib.SOCK_STREAM | stdlib.SOCK_CLOEXEC, stdlib.IPPROTO_TCP) as socket:
        assert (socket.family, socket.type, socket.proto) == (stdlib.AF_INET6, stdlib.SOCK_STREAM, stdlib.IPPROTO_TCP)


async def test_other_families_are_the_kernels(pair: Pair) -> None:
    with pair.client.socket_factory.socket(stdlib.AF_UNIX, stdlib.SOCK_STREAM, 0) as socket:
        assert socket.family == stdlib.AF_UNIX
        assert os.fstat(socket.fileno())


async def test_a_socket_says_what_it_is(pair: Pair) -> None:
    with tcp(pair.client) as socket:
        assert "unbound" in repr(socket)
        assert socket.getsockname() == ("::", 0, 0, 0)
        assert not socket.get_inheritable()
        with pytest.raises(OSError, check=Errno(errno.ENOTCONN)):
            socket.getpeername()
        for operation in (socket.detach, socket.dup, lambda: socket.set_inheritable(True)):
            with pytest.raises(OSError, check=Errno(errno.EOPNOTSUPP)):
                operation()
        socket.set_inheritable(False)
        number = socket.fileno()
        with pytest.raises(OSError, check=Errno(errno.EBADF)):
            stdlib.socket(fileno=number)
    assert socket.fileno() == -1
    assert "closed" in repr(socket)
    with pytest.raises(OSError, check=Errno(errno.EBADF)):
        socket.getsockname()


# bind, listen, connect


@pytest.mark.rule("UM-5.g")
async def test_names_show_the_bound_or_dialled_port(pair: Pair) -> None:
    client, server = await connected(pair)
    with client, server:
        assert client.getsockname()[0].startswith("2001:db8:1:")
        assert client.getsockname()[1] == 80
        assert client.getpeername() == (SERVICE, 80, 0, 0) == server.getsockname()
        assert server.getpeername() == (client.getsockname()[0], 1, 0, 0)


async def test_a_port_that_was_bound_before_connect_is_shown(pair: Pair) -> None:
    async with await pair.server.listen(80, address=SERVICE):
        with tcp(pair.client) as socket:
            await socket.bind(("::", 4000))
            assert socket.getsockname() == ("::", 4000, 0, 0)
            await socket.connect((SERVICE, 80))
            assert socket.getsockname()[0].startswith("2001:db8:1:")
            assert socket.getsockname()[1] == 4000


async def test_a_port_that_is_left_to_us_is_shown_as_the_fixed_one(pair: Pair) -> None:
    for make in (tcp, udp):
        with make(pair.server) as socket:
            await socket.bind(("::", 0))
            assert socket.getsockname() == ("::", 1, 0, 0)
    with pair.server.as_trio_network():
        for listener in await trio.open_tcp_listeners(0, host="::"):
            assert listener.socket.getsockname() == ("::", 1, 0, 0)
            await listener.aclose()


async def test_bind_refuses_what_is_not_ours_or_taken(pair: Pair) -> None:
    with tcp(pair.server) as first, tcp(pair.server) as second, tcp(pair.server) as third:
        with pytest.raises(OSError, check=Errno(errno.EADDRNOTAVAIL)):
            await first.bind(("2001:db8:1::1", 80))
        await first.bind((SERVICE, 80))
        with pytest.raises(OSError, check=Errno(errno.EINVAL)):
            await first.bind((SERVICE, 80))
        first.listen()
        first.listen()
        await second.bind((SERVICE, 80))
        with pytest.raises(OSError, check=Errno(errno.EADDRINUSE)):
            second.listen()
        with pytest.raises(OSError, check=Errno(errno.EINVAL)):
            await third.accept()
        with pytest.raises(ValueError, match="address should be"):
            await third.bind("::")
        with pytest.raises(OverflowError):
            await third.bind(("::", 70_000))


@pytest.mark.rule("UM-16.a", "UM-1.a")
async def test_sockets_bound_to_one_address_reach_different_peers(pair: Pair) -> None:
    source = "2001:db8:1::50"
    with tcp(pair.server) as one, tcp(pair.server) as two, tcp(pair.client) as first, tcp(pair.client) as second:
        for listening, where in ((one, SERVICE), (two, "2001:db8:2::6")):
            await listening.bind((where, 80))
            listening.listen()
        for client, where in ((first, SERVICE), (second, "2001:db8:2::6")):
            await client.bind((source, 0))
            await client.connect((where, 80))
            assert client.getsockname()[0] == source
        with tcp(pair.client) as third:
            await third.bind((source, 0))
            with pytest.raises(OSError, check=Errno(errno.EADDRINUSE)):
                await third.connect((SERVICE, 80))
        first.close()
        server, peer = await two.accept()
        assert peer[0] == source
        with server:
            await second.send(b"still from there")
            assert await server.recv(99) == b"still from there"


async def test_connect_raises_what_a_kernel_would(pair: Pair) -> None:
    with tcp(pair.client) as socket:
        with pytest.raises(ConnectionRefusedError):
            await socket.connect((SHARED, 81))
        with pytest.raises(ConnectionRefusedError):
            await socket.connect(("::", 80))
        with pytest.raises(TimeoutError):
            await socket.connect(("2001:db8:2::404", 80))
        with pytest.raises(OSError, check=Errno(errno.ENOTCONN)):
            await socket.recv(1)
        with pytest.raises(OSError, check=Errno(errno.EPIPE)):
            await socket.send(b"x")
        with pytest.raises(OSError, check=Errno(errno.ENOTCONN)):
            socket.shutdown(stdlib.SHUT_RDWR)
    client, server = await connected(pair)
    with client, server:
        with pytest.raises(OSError, check=Errno(errno.EISCONN)):
            await client.connect((SERVICE, 80))
        with pytest.raises(OSError, check=Errno(errno.EINVAL)):
            client.listen()


async def test_a_server_starts_again_at_its_address_while_its_clients_stay(pair: Pair) -> None:
    """EADDRINUSE, until the last of the old connections was gone."""
    client, server = await connected(pair)
    with client, server:
        again, anew = await connected(pair)
        with again, anew:
            for left, right in ((client, server), (anew, again)):
                await left.send(b"x")
                assert await right.recv(9) == b"x"
            with tcp(pair.server) as listening, tcp(pair.server) as other:
                for socket in (listening, other):
                    await socket.bind((SERVICE, 80))
                listening.listen()
                with pytest.raises(OSError, check=Errno(errno.EADDRINUSE)):
                    other.listen()


async def test_a_second_connect_while_the_first_goes_on_is_refused(pair: Pair) -> None:
    with tcp(pair.client) as socket:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(socket.connect, ("2001:db8:2::404", 80))
            await wait_all_tasks_blocked()
            with pytest.raises(OSError, check=Errno(errno.EALREADY)):
                await socket.connect(("2001:db8:2::404", 80))
            nursery.cancel_scope.cancel()
        assert socket.fileno() == -1


async def test_a_socket_closed_while_it_connects_leaves_no_session(pair: Pair) -> None:
    socket = tcp(pair.client)
    async with trio.open_nursery() as nursery:

        async def connect() -> None:
            with pytest.raises((trio.ClosedResourceError, OSError)):  # begun already, or not
                await socket.connect((SERVICE, 80))

        listener = await pair.server.listen(80, address=SERVICE)
        nursery.start_soon(connect)
        await trio.lowlevel.checkpoint()
        socket.close()
    await listener.aclose()
    await trio.sleep(120)
    assert list(pair.client.stack.sessions()) == []


async def test_accept_ends_when_the_listening_socket_is_closed_or_shut(pair: Pair) -> None:
    for shut in (False, True):
        listening = tcp(pair.server)
        listening.listen()
        async with trio.open_nursery() as nursery:

            async def accept(socket: trio.socket.SocketType = listening, shut: bool = shut) -> None:
                with pytest.raises(OSError if shut else trio.ClosedResourceError) as caught:
                    await socket.accept()
                assert not isinstance(caught.value, OSError) or caught.value.errno == errno.EINVAL

            nursery.start_soon(accept)
            await wait_all_tasks_blocked()
            if shut:
                listening.shutdown(stdlib.SHUT_RD)
            else:
                listening.close()
        listening.close()


async def again_and_again(call: Callable[..., Awaitable[object]], *arguments: object) -> None:
    while True:
        await call(*arguments)


@pytest.mark.parametrize("what", ["recv", "send", "wait_writable", "connect", "accept", "recvfrom"])
async def test_who_waits_while_the_socket_is_closed_is_told_as_by_trio(pair: Pair, what: str) -> None:
    """It was OSError EBADF, which programs that catch trio's ClosedResourceError do not expect; and a connect went on
    until its handshake was over."""
    client, server = await connected(pair)
    waiting, call = client, getattr(client, what)
    arguments: tuple[object, ...] = ()
    if what in ("send", "wait_writable"):
        client.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_SNDBUF, 10_000)
        with trio.move_on_after(1):
            await again_and_again(client.send, bytes(1 << 16))
        arguments = (b"x",) if what == "send" else ()
    elif what == "recv":
        arguments = (1,)
    else:
        client.close()
        waiting = udp(pair.client) if what == "recvfrom" else tcp(pair.client)
        if what == "accept":
            waiting.listen()
        elif what == "recvfrom":
            await waiting.bind(("::", 0))
        arguments = {"accept": (), "recvfrom": (1,), "connect": (("2001:db8:2::404", 80),)}[what]
        call = getattr(waiting, what)
    with server, client:
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await again_and_again(call, *arguments)

            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            before = trio.current_time()
            waiting.close()
        assert trio.current_time() == before
        with pytest.raises(OSError, check=Errno(errno.EBADF)):
            await call(*arguments)


async def test_shut_while_it_waits_to_send_is_a_broken_pipe(pair: Pair) -> None:
    client, server = await connected(pair)
    with server, client:
        client.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_SNDBUF, 10_000)
        with trio.move_on_after(1):
            await again_and_again(client.send, bytes(1 << 16))
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                with pytest.raises(BrokenPipeError):
                    await again_and_again(client.send, b"x")

            nursery.start_soon(send)
            await wait_all_tasks_blocked()
            client.shutdown(stdlib.SHUT_WR)
            while await server.recv(1 << 20):
                pass
    with tcp(pair.client) as listening:
        listening.listen()
        with pytest.raises(BrokenPipeError):
            await listening.send(b"x")


async def test_peeking_for_more_sees_more(pair: Pair) -> None:
    """A look at the first byte hid what stood behind it: who looked for five bytes, until he had them, never did."""
    client, server = await connected(pair)
    with client, server:
        await client.send(b"hello")
        assert await server.recv(1, stdlib.MSG_PEEK) == b"h"
        assert await server.recv(5, stdlib.MSG_PEEK) == b"hello"
        await client.send(b", world")
        await trio.sleep(1)
        assert await server.recv(7, stdlib.MSG_PEEK) == b"hello, "
        assert await server.recv(3) == b"hel"
        assert await server.recv(100) == b"lo, world"
        await client.send(b"!")
        client.close()
        await trio.sleep(1)
        assert await server.recv(100, stdlib.MSG_PEEK) == b"!"
        assert await server.recv(100) == b"!"
        assert await server.recv(100, stdlib.MSG_PEEK) == b""


async def test_a_listener_on_a_shared_address_may_leave_the_port_to_us(pair: Pair) -> None:
    """`bind((address, 0))` and `listen()` were refused, which is what every test server does."""
    with tcp(pair.server) as one, tcp(pair.server) as two:
        for listening in (one, two):
            await listening.bind((SHARED, 0))
            listening.listen()
        address, port = one.getsockname()[:2]
        assert address == SHARED
        assert 1024 <= port != two.getsockname()[1]
        with tcp(pair.client) as client:
            await client.connect((address, port))
            accepted, _ = await one.accept()
            accepted.close()


async def test_nobody_is_reached_on_the_loopback_address(pair: Pair) -> None:
    """RFC 4291 2.5.3. SYNs to ::1 went out to the link, and the program waited for minutes."""
    with tcp(pair.client) as socket, udp(pair.client) as datagrams:
        for host in ("::1", None):
            with pytest.raises(ConnectionRefusedError):
                await socket.connect((host, 80))
        with pytest.raises(OSError, check=Errno(errno.EINVAL)):
            await datagrams.sendto(b"x", ("::1", 53))
        with pytest.raises(AddressMalformed):
            await pair.client.connect("::1", 80)
    assert pair.client_link.headers == []


# bytes


async def test_all_ways_to_receive(pair: Pair) -> None:
    client, server = await connected(pair)
    with client, server:
        assert not server.is_readable()
        assert await client.send(b"0123456789") == 10
        assert await server.recv(4, stdlib.MSG_PEEK) == b"0123"
        assert server.is_readable()
        assert await server.recv(2) == b"01"
        assert await server.recv(0) == b""
        buffer = bytearray(5)
        assert await server.recv_into(buffer, 2) == 2
        assert buffer == b"23\0\0\0"
        with pytest.raises(ValueError, match="nbytes"):
            await server.recv_into(buffer, 6)
        assert await server.recvfrom(1) == (b"4", None)
        assert await server.recvfrom_into(buffer, 1) == (1, None)
        assert await server.recvmsg(1) == (b"6", [], 0, None)
        first, second = bytearray(2), bytearray(9)
        assert await server.recvmsg_into([first, second]) == (3, [], 0, None)
        assert bytes(first + second[:1]) == b"789"
        with pytest.raises(OSError, check=Errno(errno.EOPNOTSUPP)):
            await server.recv(1, 0x4000000)
        with pytest.raises(ValueError, match="negative"):
            await server.recv(-1)


async def test_all_ways_to_send(pair: Pair) -> None:
    client, server = await connected(pair)
    with client, server:
        assert await client.send(bytearray(b"a")) == 1
        assert await client.sendto(b"b", (SERVICE, 80)) == 1
        assert await client.sendmsg([b"c", memoryview(b"d")]) == 2
        assert await client.send(b"") == 0
        await client.wait_writable()
        await trio.sleep(1)
        assert await server.recv(10) == b"abcd"


async def test_send_takes_what_fits_and_waits_only_when_nothing_does(pair: Pair) -> None:
    client, server = await connected(pair)
    data = bytes(3 << 20)
    with client, server:
        assert 0 < await client.send(data) < len(data)
        with trio.move_on_after(1) as scope:
            while True:
                await client.send(data)
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.wait_writable)
            while nursery.child_tasks:
                await server.recv(1 << 20)
                await wait_all_tasks_blocked()


async def test_shutdown_ends_one_direction(pair: Pair) -> None:
    client, server = await connected(pair)
    with client, server:
        await client.send(b"last")
        client.shutdown(stdlib.SHUT_WR)
        assert client.did_shutdown_SHUT_WR
        with pytest.raises(BrokenPipeError):
            await client.send(b"x")
        assert await server.recv(10) == b"last"
        assert await server.recv(10) == b""
        await server.send(b"answer")
        assert await client.recv(10) == b"answer"
        async with trio.open_nursery() as nursery:

            async def receive() -> None:
                assert await client.recv(10) == b""

            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            client.shutdown(stdlib.SHUT_RD)
        with pytest.raises(OSError, check=Errno(errno.EINVAL)):
            client.shutdown(7)


@pytest.mark.rule("UM-35.x")
async def test_urgent_data_goes_out_of_band_both_ways(pair: Pair) -> None:
    """`send` and `recv` refused MSG_OOB; only the core and its scripts had urgent data."""
    client, server = await connected(pair)
    with client, server:
        for sender, receiver in (client, server), (server, client):
            await sender.send(b"before")
            assert await sender.send(b"it!", stdlib.MSG_OOB) == 3
            await sender.send(b"after")
            await trio.sleep(1)
            assert await receiver.recv(1, stdlib.MSG_OOB | stdlib.MSG_PEEK) == b"!"
            assert await receiver.recv(1, stdlib.MSG_OOB) == b"!"
            with pytest.raises(OSError, check=Errno(errno.EINVAL)):
                await receiver.recv(1, stdlib.MSG_OOB)  # it was read
            assert await receiver.recv(100) == b"beforeit"  # reading stops at the mark
            assert await receiver.recv(100) == b"after"
            with pytest.raises(OSError, check=Errno(errno.EINVAL)):
                await receiver.recv(1, stdlib.MSG_OOB)  # there is none


@pytest.mark.rule("UM-35.x")
async def test_urgent_data_stays_in_the_stream_where_the_application_wants_it(pair: Pair) -> None:
    """SO_OOBINLINE was unknown, and nothing in the core could set what it stands for."""
    client, server = await connected(pair)
    with client, server:
        assert server.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_OOBINLINE) == 0
        server.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_OOBINLINE, 1)
        assert server.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_OOBINLINE) == 1
        await client.send(b"before!", stdlib.MSG_OOB)
        await client.send(b"after")
        await trio.sleep(1)
        with pytest.raises(OSError, check=Errno(errno.EINVAL)):
            await server.recv(1, stdlib.MSG_OOB)
        assert await server.recv(100) == b"before"
        assert await server.recv(100) == b"!after"


@pytest.mark.rule("UM-35.x")
async def test_an_announced_urgent_byte_is_waited_for(pair: Pair) -> None:
    client, server = await connected(pair)
    with client, server:
        await client.send(bytes(600_000))  # more than fits: the mark is announced long before its byte
        got: list[bytes] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, b"!", stdlib.MSG_OOB)
            await trio.sleep(1)
            while not got:
                with trio.move_on_after(0.2):
                    got.append(await server.recv(1, stdlib.MSG_OOB))
                if not got:
                    assert await server.recv(100_000)
        assert got == [b"!"]


async def test_tails_and_records_by_flag(pair: Pair) -> None:
    """MSG_MORE was taken and changed nothing, MSG_EOR was refused."""
    client, server = await connected(pair)
    with client, server:
        client.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_NODELAY, 1)
        await client.send(b"one", stdlib.MSG_MORE)
        await trio.sleep(0.1)
        await client.send(b" and two", stdlib.MSG_EOR)
        assert await server.recv(100) == b"one and two"
        with udp(pair.client) as socket:
            for flag in stdlib.MSG_OOB, stdlib.MSG_DONTROUTE:
                with pytest.raises(OSError, check=Errno(errno.EOPNOTSUPP)):
                    await socket.sendto(b"x", flag, (SERVICE, 80))


@pytest.mark.parametrize(
    ("hold", "let_go"), [((stdlib.TCP_CORK, 1), (stdlib.TCP_CORK, 0)), ((stdlib.TCP_CORK, 1), (stdlib.TCP_NODELAY, 1))]
)
async def test_what_an_option_lets_go_leaves_at_once(
    pair: Pair, hold: tuple[int, int], let_go: tuple[int, int]
) -> None:
    """The end of TCP_CORK waited for the pump's next turn: for the 200 ms at which a tail goes anyway."""
    client, server = await connected(pair)
    with client, server:
        client.setsockopt(stdlib.IPPROTO_TCP, *hold)
        await client.send(b"tail")
        await trio.sleep(0.01)  # the pump sleeps again
        start = trio.current_time()
        client.setsockopt(stdlib.IPPROTO_TCP, *let_go)
        assert await server.recv(100) == b"tail"
        assert trio.current_time() - start < 0.001


async def test_keepalive_switched_on_in_an_idle_session_begins_in_time(pair: Pair) -> None:
    client, server = await connected(pair)
    with client, server:
        await trio.sleep(10)
        before = pair.server.stack.counters.segments_in
        client.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_KEEPIDLE, 11)
        client.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_KEEPALIVE, 1)
        await trio.sleep(2)
        assert pair.server.stack.counters.segments_in > before


async def test_close_with_linger_of_0_resets(pair: Pair) -> None:
    client, server = await connected(pair)
    with server:
        client.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        client.close()
        with pytest.raises(ConnectionResetError):
            await server.recv(1)
        assert server.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_ERROR) == errno.ECONNRESET


async def test_close_delivers_what_was_sent(pair: Pair) -> None:
    client, server = await connected(pair)
    with server:
        await client.send(b"the last words")
        client.close()
        with pytest.raises(OSError, check=Errno(errno.EBADF)):
            await client.send(b"x")
        assert await server.recv(100) == b"the last words"
        assert await server.recv(100) == b""


# options


async def test_options_of_a_session_take_effect_before_and_after_connect(pair: Pair) -> None:
    with tcp(pair.client) as socket:
        socket.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_NODELAY, True)
        socket.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_CONGESTION, b"newreno\0")
        async with await pair.server.listen(80, address=SERVICE) as listener:
            await socket.connect((SERVICE, 80))
            accepted = await listener.accept()
        policy = next(iter(pair.client.stack.sessions())).policy  # type: ignore[union-attr]
        assert (policy.nodelay, policy.congestion) == (True, "newreno")
        socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_KEEPALIVE, 1)
        socket.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_KEEPIDLE, 30)
        socket.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_USER_TIMEOUT, 1500)
        policy = next(iter(pair.client.stack.sessions())).policy  # type: ignore[union-attr]
        assert (policy.keepalive, policy.keepalive_idle, policy.user_timeout) == (True, 30_000_000, 1_500_000)
        assert socket.getsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_KEEPIDLE) == 30
        assert socket.getsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_USER_TIMEOUT) == 1500
        assert socket.getsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_NODELAY) == 1
        assert socket.getsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_CONGESTION, 16).rstrip(b"\0") == b"newreno"
        assert socket.getsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_MAXSEG) > 1000
        info = socket.getsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_INFO, 104)
        assert len(info) == 104
        assert info[0] == TCP_INFO_STATE_ESTABLISHED
        await accepted.aclose()


@pytest.mark.rule("RFC 9293 MUST-49", "RFC 9293 MUST-48")
async def test_the_hop_limit_and_the_traffic_class_hold_from_the_syn_on(pair: Pair) -> None:
    """Options that were set before connect() came after the SYN."""
    with tcp(pair.client) as socket:
        assert socket.getsockopt(stdlib.IPPROTO_IPV6, stdlib.IPV6_UNICAST_HOPS) == 64
        socket.setsockopt(stdlib.IPPROTO_IPV6, stdlib.IPV6_UNICAST_HOPS, 255)
        socket.setsockopt(stdlib.IPPROTO_IPV6, stdlib.IPV6_TCLASS, 0xB8)
        async with await pair.server.listen(80, address=SERVICE) as listener:
            await socket.connect((SERVICE, 80))
            accepted = await listener.accept()
        assert {(sent[7], (sent[0] & 15) << 4 | sent[1] >> 4) for sent in pair.client_link.headers} == {(255, 0xB8)}
        assert socket.getsockopt(stdlib.IPPROTO_IPV6, stdlib.IPV6_UNICAST_HOPS) == 255
        for wrong in (-2, 0, 256):
            with pytest.raises(OSError, check=Errno(errno.EINVAL)):
                socket.setsockopt(stdlib.IPPROTO_IPV6, stdlib.IPV6_UNICAST_HOPS, wrong)
        socket.setsockopt(stdlib.IPPROTO_IPV6, stdlib.IPV6_UNICAST_HOPS, -1)
        assert socket.getsockopt(stdlib.IPPROTO_IPV6, stdlib.IPV6_UNICAST_HOPS) == 64
        await accepted.aclose()


async def test_a_datagram_socket_has_a_hop_limit_as_well(pair: Pair) -> None:
    with udp(pair.client) as before, udp(pair.client) as after:
        before.setsockopt(stdlib.IPPROTO_IPV6, stdlib.IPV6_UNICAST_HOPS, 3)
        await before.sendto(b"x", (SERVICE, 53))
        await after.sendto(b"x", (SERVICE, 53))
        after.setsockopt(stdlib.IPPROTO_IPV6, stdlib.IPV6_UNICAST_HOPS, 4)
        await after.sendto(b"x", (SERVICE, 53))
        assert [sent[7] for sent in pair.client_link.headers] == [3, 64, 4]


async def test_what_is_set_on_a_listening_socket_holds_for_accepted_ones(pair: Pair) -> None:
    with tcp(pair.server) as listening:
        listening.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_KEEPALIVE, 1)
        await listening.bind((SERVICE, 80))
        listening.listen()
        async with await pair.client.connect(SERVICE, 80):
            accepted, _ = await listening.accept()
            with accepted:
                assert accepted.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_KEEPALIVE) == 1


async def test_it_holds_from_the_handshake_on(pair: Pair) -> None:
    """It came into force with `accept`: the SYN-ACK offered a window and a scale that the program had not allowed, and
    what a client sent before anybody accepted was acknowledged by the stack's rules, without keep-alive."""
    with tcp(pair.server) as listening:
        listening.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_RCVBUF, 8192)
        await listening.bind((SERVICE, 80))
        listening.listen()
        listening.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_CONGESTION, b"newreno")
        listening.setsockopt(stdlib.IPPROTO_IPV6, stdlib.IPV6_TCLASS, 0xB8)
        listening.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_KEEPIDLE, 30)
        async with await pair.client.connect(SERVICE, 80) as client:
            syn_ack = pair.server_link.headers[0]
            assert (syn_ack[0] & 15) << 4 | syn_ack[1] >> 4 == 0xB8
            assert int.from_bytes(syn_ack[54:56], "big") == 8192
            policy = next(iter(pair.server.stack.sessions())).policy  # type: ignore[union-attr]
            assert (policy.congestion, policy.keepalive_idle, policy.receive_buffer) == ("newreno", 30_000_000, 8192)
            assert policy.receive_buffer_max == 8192  # of the application's choice: it does not grow by itself
            assert client.session.statistics().snd_wscale == 0
            listening.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_KEEPIDLE, 60)  # for those to come
            accepted, _ = await listening.accept()
            with accepted:
                assert accepted.getsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_KEEPIDLE) == 30
                assert accepted.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_RCVBUF) == 8192
                accepted.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_NODELAY, 1)
        assert listening.getsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_NODELAY) == 0


async def test_retries_and_the_largest_segment_can_be_chosen(pair: Pair) -> None:
    """TCP_SYNCNT, TCP_LINGER2 and TCP_MAXSEG were unknown, though a policy has all three."""
    with tcp(pair.client) as socket:
        socket.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_MAXSEG, 1000)
        socket.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_LINGER2, 7)
        assert socket.getsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_MAXSEG) == 1000
        async with await pair.server.listen(80, address=SERVICE) as listener:
            await socket.connect((SERVICE, 80))
            async with await listener.accept() as accepted:
                assert accepted.statistics().snd_mss == 1000 - 12
        assert socket.getsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_MAXSEG) == 1000 - 12
        session = next(iter(pair.client.stack.sessions()))
        assert session.policy.fin_wait_2 == 7_000_000  # type: ignore[union-attr]
    with tcp(pair.client) as socket:
        socket.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_SYNCNT, 1)
        before = trio.current_time()
        with pytest.raises(TimeoutError):
            await socket.connect(("2001:db8:2::404", 80))
        assert trio.current_time() - before == pytest.approx(3, abs=0.1)


async def test_anyio_finds_the_names_of_both_ends(pair: Pair) -> None:
    """It asks trio's socket for the standard library's inside, by a name that ours did not have."""
    client, server = await connected(pair)
    with client, server:
        inside = client._sock  # type: ignore[attr-defined]
        assert inside.getpeername()[:2] == (SERVICE, 80)
        assert inside.getsockname() == client.getsockname()
        assert inside.family == stdlib.AF_INET6


async def test_it_holds_for_what_comes_by_das_as_well(pair: Pair) -> None:
    with tcp(pair.server) as listening:
        listening.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_CONGESTION, b"bbr")
        listening.listen()
        ssa = pair.server.das(pair.server.stack.listeners()[0]).lease.address  # type: ignore[arg-type]
        async with await pair.client.connect(text(ssa)):
            policy = next(iter(pair.server.stack.sessions())).policy  # type: ignore[union-attr]
            assert policy.congestion == "bbr"


@pytest.mark.parametrize("state", ["new", "listening", "connected"])
async def test_a_value_that_cannot_be_is_refused_when_it_is_set(pair: Pair, state: str) -> None:
    """Before there was a session anything was taken: `connect` failed later, and `accept` raised BadArgument, which no
    program that knows sockets expects."""
    socket = tcp(pair.client)
    peer = None
    if state == "listening":
        socket.listen()
    elif state == "connected":
        socket.close()
        socket, peer = await connected(pair)
    with socket:
        with pytest.raises(FileNotFoundError):  # as Linux
            socket.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_CONGESTION, b"nonsense")
        for level, name in (
            (stdlib.IPPROTO_TCP, stdlib.TCP_KEEPIDLE),
            (stdlib.IPPROTO_TCP, stdlib.TCP_KEEPCNT),
        ):
            before = socket.getsockopt(level, name)
            with pytest.raises(OSError, check=Errno(errno.EINVAL)):
                socket.setsockopt(level, name, 0)
            assert socket.getsockopt(level, name) == before
        with pytest.raises(OSError, check=Errno(errno.EINVAL)):
            socket.setsockopt(stdlib.IPPROTO_IPV6, stdlib.IPV6_TCLASS, 256)
        assert socket.getsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_CONGESTION, 16).rstrip(b"\0") == b"cubic"
        socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_RCVBUF, 1)  # as small as can be
        assert 1 < socket.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_RCVBUF) < 4096
        socket.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_CORK, 1)
        assert socket.getsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_CORK) == 1
    if peer is not None:
        peer.close()


async def test_options_that_change_nothing_are_remembered_and_unknown_ones_refused(pair: Pair) -> None:
    with tcp(pair.client) as socket, udp(pair.client) as datagrams:
        assert socket.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_REUSEADDR) == 0
        socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_REUSEADDR, struct.pack("i", 1))
        assert socket.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_REUSEADDR) == 1
        assert socket.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_REUSEADDR, 4) == struct.pack("i", 1)
        assert socket.getsockopt(stdlib.IPPROTO_IPV6, stdlib.IPV6_V6ONLY) == 1
        assert socket.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_TYPE) == stdlib.SOCK_STREAM
        assert datagrams.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_PROTOCOL) == stdlib.IPPROTO_UDP
        assert socket.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_ERROR) == 0
        assert socket.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_ACCEPTCONN) == 0
        socket.listen()
        assert socket.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_ACCEPTCONN) == 1
        for refused in (
            lambda: socket.getsockopt(stdlib.IPPROTO_TCP, 9999),
            lambda: socket.setsockopt(stdlib.IPPROTO_TCP, 9999, 1),
            lambda: datagrams.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_NODELAY, 1),
            lambda: socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_TYPE, 1),
        ):
            with pytest.raises(OSError, check=Errno(errno.ENOPROTOOPT)):
                refused()
        for value in (b"1", -1):
            with pytest.raises(OSError, check=Errno(errno.EINVAL)):
                socket.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_KEEPIDLE, value)
        with pytest.raises(OSError, check=Errno(errno.EINVAL)):
            socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_LINGER, 1)
        with pytest.raises(TypeError):
            socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_LINGER, None)  # type: ignore[call-overload]


# UDP


@pytest.mark.rule("UM-18.a")
async def test_datagrams_go_there_and_back(pair: Pair) -> None:
    with udp(pair.client) as ours, udp(pair.server) as theirs:
        await theirs.bind((SHARED, 53))
        assert theirs.getsockname() == (SHARED, 53, 0, 0)
        assert await ours.sendto(b"question", (SHARED, 53)) == 8
        data, peer = await theirs.recvfrom(100)
        assert data == b"question"
        assert peer[0].startswith("2001:db8:1:")
        await theirs.sendto(b"answer", peer)
        assert await ours.recvfrom(3) == (b"ans", (SHARED, 53, 0, 0))


async def test_a_connected_datagram_socket_has_a_peer(pair: Pair) -> None:
    with udp(pair.client) as ours, udp(pair.server) as theirs:
        with pytest.raises(OSError, check=Errno(errno.EDESTADDRREQ)):
            await ours.send(b"to whom?")
        with pytest.raises(OSError, check=Errno(errno.ENOTCONN)):
            await ours.recv(1)
        with pytest.raises(OSError, check=Errno(errno.EOPNOTSUPP)):
            ours.listen()
        await theirs.bind((SHARED, 53))
        await ours.connect((SHARED, 53))
        assert ours.getpeername() == (SHARED, 53, 0, 0)
        ours.shutdown(stdlib.SHUT_RD)
        await ours.send(b"question")
        assert (await theirs.recvmsg(4, 0, stdlib.MSG_PEEK))[2] == stdlib.MSG_TRUNC
        _, peer = await theirs.recvfrom(4)
        await theirs.sendto(b"answer", peer)
        assert await ours.recv(100, stdlib.MSG_PEEK) == b"answer"
        assert ours.is_readable()
        assert await ours.recv(100) == b"answer"
        await ours.connect(("::", 0))
        with pytest.raises(OSError, check=Errno(errno.ENOTCONN)):
            ours.getpeername()


@pytest.mark.rule("UM-18.f")
async def test_packet_info_tells_and_chooses_the_local_address(pair: Pair) -> None:
    pktinfo = (stdlib.IPPROTO_IPV6, stdlib.IPV6_PKTINFO)
    with udp(pair.client) as ours, udp(pair.server) as theirs:
        await theirs.bind(("::", 53))
        theirs.setsockopt(stdlib.IPPROTO_IPV6, stdlib.IPV6_RECVPKTINFO, 1)
        theirs.setsockopt(stdlib.IPPROTO_IPV6, stdlib.IPV6_RECVHOPLIMIT, 1)
        ssa = pair.server.das(pair.server.stack.listeners()[0].id).lease.address
        await ours.sendto(b"question", (text(ssa), 53))
        _, ancillary, _, peer = await theirs.recvmsg(100, 200)
        assert ancillary == [
            (*pktinfo, ssa + bytes(4)),
            (stdlib.IPPROTO_IPV6, stdlib.IPV6_HOPLIMIT, struct.pack("i", 64)),
        ]
        await theirs.sendmsg([b"ans", b"wer"], [ancillary[0]], 0, peer)
        assert await ours.recvfrom(100) == (b"answer", (text(ssa), 53, 0, 0))
        await ours.sendto(b"question", (text(ssa), 53))
        assert (await theirs.recvmsg(100, stdlib.CMSG_SPACE(20)))[1] == ancillary[:1]
        with pytest.raises(OSError, check=Errno(errno.EINVAL)):
            await theirs.sendmsg([b"x"], [(stdlib.SOL_SOCKET, 1, b"")], 0, peer)


# names


@pytest.mark.rule("8504-6.6-2", "UM-37.f")
async def test_the_resolver_puts_first_what_our_addresses_reach_best(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order was that of the kernel's addresses, which are not in use here."""
    names = ["fe80::1%3", "fd00::1", "2002:a00::1", "2001:db8:9::1", "2001:db8:1:7::1", "fe80::2"]
    found = [(stdlib.AF_INET6, stdlib.SOCK_STREAM, 6, "", (name, 80, 0, 0)) for name in names]
    monkeypatch.setattr(stdlib, "getaddrinfo", lambda *arguments: found)
    answers = await pair.client.hostname_resolver.getaddrinfo(b"name", 80)
    assert [answer[4][0] for answer in answers] == [
        *("2001:db8:1:7::1", "2001:db8:9::1", "2002:a00::1", "fd00::1", "fe80::1%3", "fe80::2")
    ]


@pytest.mark.rule("8504-6.6-1", "UM-37.f")
async def test_a_shared_source_can_be_asked_for_and_used(pair: Pair) -> None:
    assert pair.server.shared_source("2001:db8:77::1") == SHARED
    async with await pair.client.listen(80, address="2001:db8:1::80") as listener:
        source = pair.server.shared_source("2001:db8:1::80")
        async with await pair.server.connect("2001:db8:1::80", 80, source=source) as stream:
            assert stream.local_address[0] == SHARED
            await (await listener.accept()).aclose()


async def test_the_resolver_gives_ipv6_only(pair: Pair) -> None:
    resolver = pair.client.hostname_resolver
    found = await resolver.getaddrinfo(b"::1", 80, flags=stdlib.AI_NUMERICHOST | stdlib.AI_ADDRCONFIG)
    assert {entry[0] for entry in found} == {stdlib.AF_INET6}
    with pytest.raises(stdlib.gaierror):
        await resolver.getaddrinfo(b"127.0.0.1", 80, flags=stdlib.AI_NUMERICHOST)
    with pytest.raises(stdlib.gaierror):
        await resolver.getaddrinfo(b"::1", 80, family=stdlib.AF_INET)
    numeric = stdlib.NI_NUMERICHOST | stdlib.NI_NUMERICSERV
    assert await resolver.getnameinfo(("2001:db8::1", 80, 0, 0), numeric) == ("2001:db8::1", "80")


async def test_names_and_services_are_resolved_where_a_socket_takes_an_address(pair: Pair) -> None:
    class Names(trio.abc.HostnameResolver):
        async def getaddrinfo(self, host: bytes | None, *_: object, **__: object) -> list[object]:  # type: ignore[override]
            assert host == b"service.example"
            return [(stdlib.AF_INET6, stdlib.SOCK_STREAM, 6, "", (SERVICE, 80, 0, 0))]

        async def getnameinfo(self, sockaddr: object, flags: int) -> tuple[str, str]:
            raise AssertionError("nobody asks")

    trio.socket.set_custom_hostname_resolver(Names())
    async with await pair.server.listen(80, address=SERVICE):
        with tcp(pair.client) as socket:
            await socket.connect(("service.example", "80"))
            assert socket.getpeername() == (SERVICE, 80, 0, 0)
    with tcp(pair.client) as socket:
        await socket.bind(("", 9))
        assert socket.getsockname() == ("::", 9, 0, 0)
