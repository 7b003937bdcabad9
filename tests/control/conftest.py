"""A stack with a control server on one end of a wire, and a peer's stack on the other, on virtual time."""

import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock

from umuxstack.control.client import ANCILLARY, try_to_connect
from umuxstack.control.place import BoundSocket
from umuxstack.control.protocol import MAX_MESSAGE
from umuxstack.control.quota import Limits
from umuxstack.control.server import Access, ControlServer
from umuxstack.control.trio_client import TrioClient, open_client
from umuxstack.driver.links.memory import memory_link_pair
from umuxstack.driver.runtime import Host
from umuxstack.host import make_config

PREFIX = "2001:db8:1::/64"
SHARED = "2001:db8:1::80"
PEER_PREFIX = "2001:db8:2::/64"
PEER_SHARED = "2001:db8:2::80"


class RawClient:
    """A client that may send anything. One packet each way at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._raw = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket = trio.socket.from_stdlib_socket(self._raw)

    async def connect(self) -> None:
        while not try_to_connect(self._raw, self._path):
            await trio.sleep(0.01)

    async def send(self, data: bytes) -> None:
        await self.socket.send(data)

    async def receive(self) -> bytes:
        """b"" when the server has closed the connection."""
        try:
            data, _, _, _ = await self.socket.recvmsg(MAX_MESSAGE + 1, ANCILLARY)
        except ConnectionResetError:
            return b""
        return data


@attrs.frozen
class Scene:
    """`host` is the stack that `server` controls, `peer` somebody else's."""

    host: Host
    peer: Host
    server: ControlServer
    path: Path

    def client(self) -> contextlib.AbstractAsyncContextManager[TrioClient]:
        return open_client(self.path)

    @contextlib.asynccontextmanager
    async def raw(self) -> AsyncIterator[RawClient]:
        client = RawClient(self.path)
        with client.socket:
            await client.connect()
            yield client


@pytest.fixture
def limits() -> Limits:
    """A module or test that wants others overrides this fixture."""
    return Limits()


@pytest.fixture
def access() -> Access:
    return Access()


@pytest.fixture
async def scene(tmp_path: Path, autojump_clock: MockClock, limits: Limits, access: Access) -> AsyncIterator[Scene]:
    ours, theirs = memory_link_pair()
    async with (
        Host(ours, make_config(PREFIX, shared=[SHARED]), seed=b"host") as host,
        Host(theirs, make_config(PEER_PREFIX, shared=[PEER_SHARED]), seed=b"peer") as peer,
        trio.open_nursery() as nursery,
    ):
        path = tmp_path / "control.sock"
        server = ControlServer(host, BoundSocket(path), name="test", link_name="wire", access=access, limits=limits)
        await nursery.start(server.run)
        yield Scene(host, peer, server, path)
        nursery.cancel_scope.cancel()
    assert not path.exists()


@pytest.fixture(autouse=True)
def no_bug_met(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Server and pump survive bugs and log them; in a test they are failures."""
    caplog.set_level("INFO", logger="umuxstack.control")
    yield
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
