"""Who may talk to the control socket, and that a hostile or broken client hurts nobody but itself."""

import logging
import os
import random
import socket
from array import array
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.control.conftest import RawClient, Scene
from umuxstack.control import server as server_module
from umuxstack.control.layout import ProtocolError
from umuxstack.control.messages import (
    Connect,
    DasRevoke,
    Events,
    GetStatus,
    Hello,
    Listen,
    Ping,
    Pool,
    Request,
    Shutdown,
    Statistics,
)
from umuxstack.control.place import Caller
from umuxstack.control.protocol import (
    MAX_MESSAGE,
    Busy,
    Forbidden,
    NoStack,
    WrongVersion,
    decode_page,
    encode_request,
)
from umuxstack.control.quota import Limits, Quota
from umuxstack.control.server import Access
from umuxstack.control.trio_client import open_client
from umuxstack.core.units import Address

NOBODY = Address(bytes.fromhex("20010db8000200000000000000000bad"))  # at the peer, which answers for shared ones only


async def greeted(raw: RawClient) -> RawClient:
    await raw.send(encode_request(Hello(), 1))
    decode_page(await raw.receive(), Hello(), 1)
    return raw


async def still_well(scene: Scene) -> None:
    """Somebody else is served as if nothing had happened."""
    async with scene.client() as client:
        assert (await client.call(GetStatus())).name == "test"


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_hello_tells_who_answers(scene: Scene) -> None:
    async with scene.client() as client:
        assert client.welcome.pid == os.getpid()
        assert client.welcome.uid == os.geteuid()
        assert client.welcome.name == "test"
        assert client.welcome.version == 1


async def test_a_stack_of_another_version_says_so(scene: Scene) -> None:
    async with scene.raw() as raw:
        hello = Hello(lowest=2, highest=7)
        await raw.send(encode_request(hello, 1))
        with pytest.raises(WrongVersion, match="version 1"):
            decode_page(await raw.receive(), hello, 1)
        assert await raw.receive() == b""


@pytest.mark.parametrize(
    "first",
    [
        b"\0",
        b"GET / HTTP/1.1\r\n\r\n",
        encode_request(Pool(), 1),
        encode_request(Hello(magic=1), 1),
        bytes(MAX_MESSAGE),
        bytes(MAX_MESSAGE + 1),
        bytes(100_000),
    ],
    ids=["a byte", "http", "no hello", "wrong magic", "large", "too large", "huge"],
)
async def test_who_does_not_begin_with_hello_is_told_and_closed(scene: Scene, first: bytes) -> None:
    async with scene.raw() as raw:
        await raw.send(first)
        with pytest.raises(ProtocolError):
            decode_page(await raw.receive(), Hello(), 1)
        assert await raw.receive() == b""
    await still_well(scene)


async def test_an_empty_message_is_the_end(scene: Scene) -> None:
    async with scene.raw() as raw:
        await raw.send(b"")
        assert await raw.receive() == b""


async def test_a_client_that_says_nothing_is_closed(scene: Scene, autojump_clock: MockClock) -> None:
    async with scene.raw() as raw:
        before = trio.current_time()
        assert await raw.receive() == b""
        assert trio.current_time() - before == pytest.approx(5)


async def test_a_greeted_client_may_be_silent(scene: Scene, autojump_clock: MockClock) -> None:
    async with scene.client() as client:
        await trio.sleep(100_000)
        await client.call(Pool())


async def test_a_second_hello_is_refused_and_the_conversation_goes_on(scene: Scene) -> None:
    async with scene.client() as client:
        with pytest.raises(Exception, match="HELLO was said before"):
            await client.call(Hello())
        await client.call(Pool())


async def test_garbage_after_hello_closes_that_client_only(scene: Scene, seed: int) -> None:
    """Random bytes, damaged requests and cut ones, two hundred of them."""
    numbers = random.Random(seed)
    requests = [encode_request(cls(), 1) for cls in (Pool, Statistics, GetStatus)]
    requests.append(encode_request(DasRevoke(what="nobody"), 1))
    async with scene.client() as bystander:
        for _ in range(200):
            async with scene.raw() as raw:
                await greeted(raw)
                message = bytearray(numbers.choice(requests))
                match numbers.randrange(4):
                    case 0:
                        message = bytearray(numbers.randbytes(numbers.randrange(1, 400)))
                    case 1:
                        message[numbers.randrange(len(message))] ^= 1 << numbers.randrange(8)
                    case 2:
                        del message[numbers.randrange(len(message)) :]
                    case _:
                        message += numbers.randbytes(numbers.randrange(1, 40))
                await raw.send(bytes(message))  # an empty one is the end
                if numbers.random() < 0.5:
                    await raw.receive()
            await bystander.call(Pool())
    await still_well(scene)


@pytest.mark.parametrize(
    "request_",
    [
        Events(),
        Ping(peer=NOBODY),
        Connect(peer=NOBODY, port=80),
        Listen(name="abandoned"),
        Statistics(),
    ],
    ids=lambda request: type(request).__name__,
)
async def test_a_client_that_leaves_while_it_is_served_leaves_nothing(scene: Scene, request_: Request[Any]) -> None:
    await still_well(scene)
    await wait_all_tasks_blocked()
    before = open_descriptors()
    leases, listeners = len(list(scene.host.stack.leases())), len(scene.host.stack.listeners())
    for patience in (0, 1):
        async with scene.raw() as raw:
            await greeted(raw)
            await raw.send(encode_request(request_, 1))
            if patience:
                await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert open_descriptors() == before
        assert len(list(scene.host.stack.leases())) == leases
        assert len(scene.host.stack.listeners()) == listeners


async def test_descriptors_that_a_client_sends_are_closed(scene: Scene) -> None:
    async with scene.raw() as raw:
        await greeted(raw)
        before = open_descriptors()
        with Path("/dev/null").open("rb") as null:
            rights = array("i", [null.fileno()] * 50)
            for _ in range(20):
                await raw.socket.sendmsg([encode_request(Pool(), 1)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
                await raw.receive()
        assert open_descriptors() == before


@pytest.mark.parametrize("limits", [Limits(clients=4, clients_per_user=3)])
async def test_more_clients_than_are_taken_are_told_so(scene: Scene) -> None:
    async with scene.client(), scene.client():
        async with scene.client():
            with pytest.raises(Busy):
                async with scene.client():
                    pass
        await wait_all_tasks_blocked()
        await still_well(scene)


async def test_a_flood_of_connections_ends_with_the_flood(scene: Scene, autojump_clock: MockClock) -> None:
    before = open_descriptors()
    async with trio.open_nursery() as nursery:

        async def intrude() -> None:
            async with scene.raw() as raw:
                await raw.receive()

        for _ in range(400):
            nursery.start_soon(intrude)
    await still_well(scene)
    await wait_all_tasks_blocked()
    assert open_descriptors() == before


async def test_who_does_not_read_is_closed_and_holds_up_nobody(scene: Scene, autojump_clock: MockClock) -> None:
    before = trio.current_time()

    async def ask_without_end() -> None:
        async with scene.raw() as raw:
            await greeted(raw)
            while True:
                await raw.send(encode_request(Statistics(), 1))
                if trio.current_time() == before:
                    await still_well(scene)

    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        await ask_without_end()
    assert trio.current_time() - before >= 10


async def test_requests_sent_ahead_are_answered_in_order(scene: Scene) -> None:
    async with scene.raw() as raw:
        await greeted(raw)
        for tag in range(10):
            await raw.send(encode_request(Pool(), tag))
        for tag in range(10):
            decode_page(await raw.receive(), Pool(), tag)


async def test_who_speaks_while_a_request_waits_is_closed(scene: Scene) -> None:
    async with scene.raw() as raw:
        await greeted(raw)
        await raw.send(encode_request(Events(), 2))
        assert decode_page(await raw.receive(), Events(), 2) == ([], False)
        await raw.send(encode_request(Pool(), 3))
        assert await raw.receive() == b""
    await still_well(scene)


async def test_the_server_s_end_closes_its_clients(scene: Scene) -> None:
    async with scene.client() as client:
        scene.server.shutdown_requested.set()  # what follows is the caller's business: here the fixture's end
        await client.call(Shutdown())
    assert scene.server.shutdown_requested.is_set()


async def test_nobody_behind_the_path(tmp_path: Path) -> None:
    with pytest.raises(NoStack, match="there is no control socket"):
        async with open_client(tmp_path / "none.sock"):
            pass
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(tmp_path / "dead.sock"))
    with pytest.raises(NoStack, match="nobody answers"):
        async with open_client(tmp_path / "dead.sock"):
            pass


# who may come (UM-29)


def somebody(uid: int, *groups: int) -> Caller:
    return Caller(pid=1, uid=uid, gid=groups[0] if groups else 77, groups=frozenset(groups or (77,)))


@pytest.mark.rule("UM-29.b")
def test_root_the_own_user_and_the_configured_ones_may_give_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    access = Access(uids=frozenset({5}), gids=frozenset({100}))
    assert access.allows(somebody(0))
    assert access.allows(somebody(1000))
    assert access.allows(somebody(5))
    assert access.allows(somebody(6, 6, 100))
    assert not access.allows(somebody(6, 6, 101))
    assert not Access().allows(somebody(65534))


@pytest.mark.rule("UM-29.b")
async def test_a_stranger_is_told_that_he_may_not_and_it_is_logged(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server_module, "caller", lambda _socket: somebody(4242))
    with pytest.raises(Forbidden, match="uid 4242"):
        async with scene.client():
            pass
    assert "refused: uid 4242 pid 1" in caplog.text
    assert caplog.records[-1].levelno == logging.WARNING


def test_a_quota_counts_together_and_per_user() -> None:
    quota = Quota(3, 2)
    assert quota.take(1)
    assert quota.take(1)
    assert not quota.take(1)
    assert quota.take(2)
    assert not quota.take(2)
    quota.give_back(1)
    assert quota.take(2)
    quota.give_back(2)
    quota.give_back(2)
    quota.give_back(1)
    assert all(quota.take(uid) for uid in (7, 8, 9))
