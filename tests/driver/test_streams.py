"""UmuxStream keeps trio's contract of a half-closeable stream, and says why a session broke."""

from array import array

import pytest
import trio
from trio.testing import assert_checkpoints, check_half_closeable_stream, wait_all_tasks_blocked

from tests.driver.conftest import Pair
from umuxstack.core.errors import BadArgument, Reason
from umuxstack.core.events import EventKind
from umuxstack.driver.runtime import Host
from umuxstack.driver.streams import UmuxStream

MEGABYTE = 1 << 20


async def test_a_session_is_configured_under_way_and_what_waited_goes(pair: Pair) -> None:
    async with (
        await pair.server.listen(80, address="2001:db8:2::5") as listener,
        await pair.client.connect("2001:db8:2::5", 80) as client,
        await listener.accept() as server,
    ):
        client.configure(cork=True, congestion="newreno")
        assert client.statistics().congestion == "newreno"
        await client.send_all(b"tail")
        await trio.sleep(0.01)
        start = trio.current_time()
        client.configure(cork=False)
        assert await server.receive_some() == b"tail"
        assert trio.current_time() - start < 0.001
        with pytest.raises(BadArgument):
            client.configure(cork=7)


async def fill(host: Host, stream: UmuxStream) -> None:
    """Sends until neither our buffer nor the peer's takes one byte more."""
    with trio.move_on_after(1):
        while True:
            await stream.send_all(bytes(65536))
    while stream.session.write(bytes(65536), host.now()):
        host.kick()


async def receive_all(stream: UmuxStream, *, at_most: int | None = None) -> bytes:
    parts = []
    while data := await stream.receive_some(at_most):
        parts.append(data)
    return b"".join(parts)


async def test_it_passes_trios_own_check_of_half_closeable_streams(pair: Pair) -> None:
    async def clogged() -> tuple[UmuxStream, UmuxStream]:
        ours, theirs = await pair.session()
        await fill(pair.client, ours)
        await fill(pair.server, theirs)
        return ours, theirs

    await check_half_closeable_stream(pair.session, clogged)


@pytest.mark.parametrize("at_most", [None, 1, 1000, 70_000])
async def test_a_megabyte_arrives_whole_and_in_order(pair: Pair, at_most: int | None) -> None:
    size = MEGABYTE if at_most != 1 else 5000
    sent = bytes(range(256)) * (size // 256)
    ours, theirs = await pair.session()
    async with ours, theirs, trio.open_nursery() as nursery:

        async def send() -> None:
            await ours.send_all(sent)
            await ours.send_eof()

        nursery.start_soon(send)
        assert await receive_all(theirs, at_most=at_most) == sent


async def test_what_the_caller_changes_after_send_all_is_not_what_arrives(pair: Pair) -> None:
    ours, theirs = await pair.session()
    async with ours, theirs:
        buffer = bytearray(b"as it was" * 1000)
        with memoryview(buffer) as view:
            await ours.send_all(view[:9])
        await ours.send_all(buffer)
        buffer[:] = bytes(len(buffer))
        await ours.send_eof()
        assert await receive_all(theirs) == b"as it was" * 1001


async def test_a_memoryview_of_wide_items_is_sent_as_its_bytes(pair: Pair) -> None:
    ours, theirs = await pair.session()
    async with ours, theirs:
        await ours.send_all(memoryview(b"12345678").cast("I"))
        assert await theirs.receive_some() == b"12345678"


@pytest.mark.parametrize("nothing", [b"", bytearray(), memoryview(b""), array("i")], ids=type)
async def test_sending_nothing_tells_of_the_end_as_sending_does(
    pair: Pair, nothing: bytes | bytearray | memoryview
) -> None:
    """An empty bytearray passed over a broken session, where empty bytes were refused."""
    ours, theirs = await pair.session()
    for send in (ours.send_all, ours.send_some):
        with assert_checkpoints():
            assert not await send(nothing)
    theirs.abort()
    await trio.sleep(1)
    for send in (ours.send_all, ours.send_some):
        with pytest.raises(trio.BrokenResourceError):
            await send(nothing)
    await ours.aclose()
    for send in (ours.send_all, ours.send_some):
        with pytest.raises(trio.ClosedResourceError):
            await send(nothing)


async def test_what_was_written_before_aclose_is_delivered_after_it(pair: Pair) -> None:
    ours, theirs = await pair.session()
    data = bytes(300_000)
    async with theirs:
        await ours.send_all(data)
        await ours.aclose()
        assert await receive_all(theirs) == data


async def test_aclose_with_unread_data_tells_the_peer_by_reset(pair: Pair) -> None:
    ours, theirs = await pair.session()
    async with ours:
        await ours.send_all(b"nobody reads this")
        await wait_all_tasks_blocked()
        await theirs.aclose()
        with pytest.raises(trio.BrokenResourceError) as caught:
            await ours.receive_some()
    assert isinstance(caught.value.__cause__, ConnectionResetError)


async def test_abort_breaks_the_peers_stream_and_names_the_reason(pair: Pair) -> None:
    ours, theirs = await pair.session()
    async with theirs:
        ours.abort()
        with pytest.raises(trio.BrokenResourceError, match="reset") as caught:
            await theirs.receive_some()
        assert isinstance(caught.value.__cause__, ConnectionResetError)
        assert theirs.session.end_reason == Reason.RESET
        with pytest.raises(trio.BrokenResourceError):
            await theirs.send_all(b"x")
        with pytest.raises(trio.BrokenResourceError):
            await theirs.send_eof()
    with pytest.raises(trio.ClosedResourceError):
        await ours.receive_some()


async def test_a_peer_that_is_gone_breaks_a_blocked_sender_with_a_timeout(pair: Pair) -> None:
    ours, theirs = await pair.session()
    async with ours, theirs:
        pair.client_link.loses = True
        with pytest.raises(trio.BrokenResourceError) as caught:
            await ours.send_all(bytes(10 * MEGABYTE))
    assert isinstance(caught.value.__cause__, TimeoutError)


async def test_a_cancelled_send_leaves_a_stream_that_still_works(pair: Pair) -> None:
    ours, theirs = await pair.session()
    async with ours, theirs, trio.open_nursery() as nursery:
        with trio.move_on_after(1) as scope:
            await ours.send_all(bytes(20 * MEGABYTE))
        assert scope.cancelled_caught
        received: list[bytes] = []

        async def read() -> None:
            received.append(await receive_all(theirs))

        nursery.start_soon(read)
        await ours.send_all(b"the end")
        await ours.send_eof()
    assert received[0].endswith(b"the end")
    assert not any(received[0][:-7])


async def test_a_cancelled_receive_takes_nothing(pair: Pair) -> None:
    ours, theirs = await pair.session()
    async with ours, theirs:
        with trio.move_on_after(1) as scope:
            await theirs.receive_some()
        assert scope.cancelled_caught
        await ours.send_all(b"later")
        assert await theirs.receive_some() == b"later"


async def test_eof_one_way_leaves_the_other_way_open(pair: Pair) -> None:
    ours, theirs = await pair.session()
    async with ours, theirs:
        await ours.send_eof()
        assert await theirs.receive_some() == b""
        await theirs.send_all(b"answer")
        assert await ours.receive_some() == b"answer"


async def test_a_full_direction_does_not_stop_the_other(pair: Pair) -> None:
    """The window field was rounded up, but what the rounding promised was dropped: then the sender's bare ACKs came
    from beyond the window, so none of them was taken, and the other direction starved until the session timed out."""
    ours, theirs = await pair.session()
    async with ours, theirs, trio.open_nursery() as nursery:
        await fill(pair.client, ours)
        assert ours.statistics().in_flight == 0
        data = bytes(MEGABYTE)
        nursery.start_soon(theirs.send_all, data)
        count = 0
        started = trio.current_time()
        while count < len(data):
            count += len(await ours.receive_some())
        assert trio.current_time() - started < 1


async def test_waiting_for_room_ends_when_the_peer_has_read(pair: Pair) -> None:
    ours, theirs = await pair.session()
    async with ours, theirs, trio.open_nursery() as nursery:
        await fill(pair.client, ours)
        woken = trio.Event()

        async def wait() -> None:
            await ours.wait_send_all_might_not_block()
            woken.set()

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert not woken.is_set()
        while not woken.is_set():
            await theirs.receive_some()
            await wait_all_tasks_blocked()


@pytest.mark.rule("UM-5.g")
async def test_names_show_our_address_with_the_dialled_port(pair: Pair) -> None:
    ours, theirs = await pair.session()
    async with ours, theirs:
        assert ours.local_address[0].startswith("2001:db8:1:")
        assert ours.local_address[1] == 80
        assert ours.remote_address == theirs.local_address
        assert theirs.remote_address == (ours.local_address[0], 1)
        assert "ESTABLISHED" in repr(ours)


async def test_statistics_are_the_sessions(pair: Pair) -> None:
    ours, theirs = await pair.session()
    async with ours, theirs:
        assert ours.statistics().state == "ESTABLISHED"
        assert ours.statistics().snd_mss > 1000


@pytest.mark.rule("RFC 9293 SHLD-9", "RFC 9293 MUST-47")
async def test_a_program_can_learn_that_the_peer_does_not_answer_while_the_stream_lives_on(pair: Pair) -> None:
    ours, theirs = await pair.session()
    events = pair.client.subscribe_events()
    pair.client_link.loses = True
    await ours.send_all(b"anybody?")
    with trio.fail_after(60):
        async for event in events:
            if event.kind == EventKind.SESSION_TROUBLED:
                break
    assert (event.reason, ours.soft_error.name) == (Reason.TIMED_OUT, "TIMED_OUT")
    pair.client_link.loses = False
    assert await theirs.receive_some() == b"anybody?"
    await trio.sleep(1)
    assert ours.soft_error == Reason.NONE
    for stream in (ours, theirs):
        await stream.aclose()
    events.close()


async def test_a_forgotten_stream_is_closed_with_a_warning(pair: Pair) -> None:
    ours, theirs = await pair.session()
    async with theirs:
        session = ours.session
        with pytest.warns(ResourceWarning, match="unclosed"):
            del ours
        assert await theirs.receive_some() == b""
    assert session.orphan


async def test_a_stream_outlives_its_host_as_a_broken_one(pair: Pair) -> None:
    ours, theirs = await pair.session()
    pair.client.pump.stop()
    with pytest.raises(trio.BrokenResourceError, match="stack closed"):
        await ours.send_all(b"x")
    with pytest.raises(trio.BrokenResourceError, match="stack closed"):
        await ours.receive_some()
    with pytest.raises(trio.BrokenResourceError, match="reset"):
        await theirs.receive_some()
    await ours.aclose()
    await theirs.aclose()
