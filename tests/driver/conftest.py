"""Two hosts in one process, on virtual time; and no test passes while the core has met a bug."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from tests.driver.wires import FakeLink, fake_wire
from umuxstack.core.config import StackConfig
from umuxstack.core.units import Address
from umuxstack.driver.listeners import UmuxListener
from umuxstack.driver.runtime import Host
from umuxstack.driver.streams import UmuxStream
from umuxstack.host import make_config

CLIENT_PREFIX = "2001:db8:1::/64"
SERVER_PREFIX = "2001:db8:2::/64"
SHARED = "2001:db8:2::80"  # the server's legacy address


def run_on_virtual_time(*arguments: Any, **options: Any) -> object:
    """`trio.run`, but time jumps ahead whenever all tasks wait."""
    return trio.run(*arguments, **options | {"clock": MockClock(autojump_threshold=0)})


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All asynchronous tests of this folder run on virtual time, but those that meet a kernel."""
    for item in items:
        here = item.path.parent == Path(__file__).parent
        if here and item.get_closest_marker("trio") and not item.get_closest_marker("system"):
            item.add_marker(pytest.mark.trio(run=run_on_virtual_time), append=False)


def config(prefix: str, *shared: str) -> StackConfig:
    return make_config(prefix, shared=shared)


def text(address: Address) -> str:
    return str(IPv6Address(address))


@attrs.frozen
class Pair:
    """A client's and a server's host at the ends of one wire."""

    client: Host
    server: Host
    client_link: FakeLink
    server_link: FakeLink

    async def listen(self) -> UmuxListener:
        return await self.server.listen(80, name="web")

    async def session(self) -> tuple[UmuxStream, UmuxStream]:
        """A TCP session over EA and SSA: the client's stream, the server's."""
        async with await self.server.listen(80) as listener:
            ssa = self.server.das(listener).lease.address
            ours = await self.client.connect(text(ssa), 80)
            return ours, await listener.accept()


@asynccontextmanager
async def two_hosts(*, offload: bool = True) -> AsyncIterator[Pair]:
    left, right = fake_wire(offload=offload)
    async with (
        Host(left, config(CLIENT_PREFIX), seed=b"client") as client,
        Host(right, config(SERVER_PREFIX, SHARED), seed=b"server") as server,
    ):
        yield Pair(client, server, left, right)


@pytest.fixture(params=["super-segments", "plain packets"])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    async with two_hosts(offload=request.param == "super-segments") as hosts:
        yield hosts


@pytest.fixture(autouse=True)
def no_bug_met(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The pump survives exceptions out of the core and logs them; in a test they are failures."""
    yield
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
