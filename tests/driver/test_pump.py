"""The pump: link troubles cost packets and nothing else, and it never spins."""

import logging

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.driver.conftest import CLIENT_PREFIX, Pair, config
from tests.driver.wires import FakeLink, fake_wire
from umuxstack.core.config import LinkCaps
from umuxstack.core.errors import Drop
from umuxstack.driver import pump as pumps
from umuxstack.driver.runtime import Host


async def exchange(pair: Pair) -> None:
    """Proves that the two hosts reach each other."""
    ours, theirs = await pair.session()
    async with ours, theirs:
        await ours.send_all(b"question")
        assert await theirs.receive_some() == b"question"


async def test_a_link_that_is_down_costs_time_but_no_session(pair: Pair) -> None:
    ours, theirs = await pair.session()
    async with ours, theirs:
        pair.client_link.down = True
        pair.client_link.change()
        await ours.send_all(b"sent while down")
        await wait_all_tasks_blocked()
        outage = pair.client.link_state
        assert not outage.up
        assert "took the link down" in outage.error
        await trio.sleep(10)
        pair.client_link.down = False
        assert await theirs.receive_some() == b"sent while down"
        assert attrs.evolve(outage, up=True, since=pair.client.link_state.since) == pair.client.link_state
        assert outage.outages == 1
        assert pair.client.stack.counters.drops[Drop.LINK_DOWN] > 0


async def test_an_outage_is_logged_once_and_so_is_its_end(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="umuxstack"):
        pair.client_link.down = True
        pair.client_link.change()
        await trio.sleep(60)
        pair.client_link.down = False
        await trio.sleep(60)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert "link down" in messages[0]
    assert "up again" in messages[1]


async def test_a_link_that_is_down_is_asked_seldom(pair: Pair) -> None:
    await wait_all_tasks_blocked()
    pair.client_link.down = True
    pair.client_link.change()
    before = pair.client_link.reads
    await trio.sleep(60)
    assert pair.client_link.reads - before < 50
    pair.client_link.down = False
    await trio.sleep(3)
    await exchange(pair)


async def test_a_failed_write_alone_takes_the_link_down_and_one_packet_tells_when_it_is_back(pair: Pair) -> None:
    """A TUN that is down reads as empty; only writing fails."""
    link = pair.client_link
    ours, theirs = await pair.session()

    def refuse(packets: object) -> int:
        link.writes += 1
        raise OSError("only writing fails")

    async with ours, theirs:
        original = link.write_batch
        link.write_batch = refuse  # type: ignore[method-assign]
        await ours.send_all(b"lost")
        await trio.sleep(5)
        assert link.writes < 30
        outage = pair.client.link_state
        link.write_batch = original  # type: ignore[method-assign]
        await trio.sleep(2.5)
        assert (outage.up, pair.client.link_state.up) == (False, True)
        assert await theirs.receive_some() == b"lost"


async def test_a_link_that_takes_only_a_part_gets_the_rest_later_and_in_order(pair: Pair) -> None:
    ours, theirs = await pair.session()
    data = bytes(range(256)) * 800
    async with ours, theirs, trio.open_nursery() as nursery:
        pair.client_link.room = 0
        nursery.start_soon(ours.send_all, data)
        received = bytearray()

        async def open_slowly() -> None:
            while len(received) < len(data):
                pair.client_link.room = 1
                pair.client_link.change()
                await wait_all_tasks_blocked()
            pair.client_link.room = 1 << 30
            pair.client_link.change()

        nursery.start_soon(open_slowly)
        while len(received) < len(data):
            received += await theirs.receive_some()
        assert received == data
    assert ours.session.statistics().total_retrans == 0


async def test_what_a_stuck_link_cannot_take_is_bounded(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pumps, "PENDING_LIMIT", 8)
    pair.client_link.room = 0
    async with await pair.client.datagram_socket() as socket:
        for _ in range(20):
            await socket.send_to(b"x", ("2001:db8:2::1", 7))
    assert pair.client.stack.counters.drops[Drop.QUEUE_FULL] == 12


async def test_a_link_that_lies_about_being_readable_is_not_believed_for_long(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    pair.client_link.always_readable = True
    pair.client_link.change()
    before = pair.client_link.reads
    await trio.sleep(10)
    assert pair.client_link.reads - before < 300
    assert [record.getMessage() for record in caplog.records if "nothing to read" in record.getMessage()] != []
    await exchange(pair)
    pair.client_link.always_readable = False
    await exchange(pair)


@pytest.mark.plain
async def test_bytes_that_make_the_core_fail_end_nothing(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pair.server.stack, "receive", fail)
        assert await pair.client.ping("2001:db8:2::80", timeout=1) == [None]
    assert pair.server.pump.faults == 1
    assert "a received packet met a bug" in caplog.text
    caplog.clear()
    assert await pair.client.ping("2001:db8:2::80") != [None]


@pytest.mark.plain
async def test_a_bug_that_is_met_again_and_again_is_logged_less_and_less(
    pair: Pair, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(pair.server.stack, "receive", fail)
    async with pair.client.open_ping("2001:db8:2::80") as ping:
        for _ in range(100):
            await ping.send()
        await trio.sleep(1)
    assert pair.server.pump.faults == 100
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 7
    caplog.clear()


@pytest.mark.plain
async def test_a_host_whose_core_fails_at_the_end_still_closes_its_link(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    link, _ = fake_wire()
    async with Host(link, config(CLIENT_PREFIX)) as host:
        monkeypatch.setattr(host.stack, "close", fail)
    assert link.closed
    assert "the end met a bug" in caplog.text
    caplog.clear()


async def test_any_bytes_at_all_leave_the_host_running(pair: Pair) -> None:
    for size in range(100):
        pair.server_link.inbox.append((bytes([0x60] + [size] * size), 0, 0, False))
    pair.server_link.change()
    await wait_all_tasks_blocked()
    assert pair.server.pump.faults == 0
    await exchange(pair)


async def test_an_application_runs_between_full_batches() -> None:
    class Endless(FakeLink):
        def read_batch(self, limit: int) -> list[tuple[bytes, int, int, bool]]:
            return [(b"junk", 0, 0, False)] * limit

    async with Host(Endless(LinkCaps()), config(CLIENT_PREFIX)) as host:
        for _ in range(10):
            await trio.lowlevel.checkpoint()
        assert host.stack.counters.drops[Drop.TRUNCATED] > pumps.BATCH


async def test_the_pump_sleeps_when_nothing_is_to_do() -> None:
    left, _ = fake_wire()
    async with Host(left, config(CLIENT_PREFIX)):
        await trio.sleep(1)
        before = left.reads
        await trio.sleep(3600)
        assert left.reads == before


@pytest.mark.rule("UM-9.a")
async def test_the_address_pool_fills_in_the_background() -> None:
    left, _ = fake_wire()
    async with Host(left, config(CLIENT_PREFIX)) as host:
        await trio.sleep(1)
        statistics = host.stack.pool_statistics()
        assert statistics.level == statistics.high
