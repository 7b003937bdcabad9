"""apps/fetch.py, on a wire in memory."""

from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from apps import fetch
from umuxstack import Host, UmuxStream, open_host
from umuxstack.driver.links.memory import MemoryRouter

SERVICE = "2001:db8:1::80"


@pytest.fixture
async def hosts(autojump_clock: MockClock) -> AsyncIterator[tuple[Host, Host]]:
    """A server and a client."""
    network = MemoryRouter()
    async with (
        open_host(prefix=fetch.SERVER, link=network.attach(fetch.SERVER)) as server,
        open_host(prefix=fetch.CLIENT, link=network.attach(fetch.CLIENT)) as client,
    ):
        yield server, client


async def answering(hosts: tuple[Host, Host], answer: bytes, url: str, *, reset: bool = False) -> fetch.Page:
    """What the fetcher makes of a server that says `answer` to anything."""
    server, client = hosts

    async def respond(stream: UmuxStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(answer)
            if reset:
                stream.abort()

    listener = await server.listen(port=8080, address=SERVICE)
    server.start_soon(trio.serve_listeners, respond, [listener])
    return await fetch.fetch(client, url)


async def test_every_page_is_fetched_from_an_address_of_its_own(autojump_clock: MockClock) -> None:
    pages = await fetch.demo(4)
    assert [page.body for page in pages] == [f"/{n}, from {page.ours}\n".encode() for n, page in enumerate(pages)]
    assert len({page.ours for page in pages}) == 4
    assert {page.theirs for page in pages} == {SERVICE}


async def test_status_fields_and_body_come_apart(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\nX-Colour: red\r\n\r\ngone\n"
    page = await answering(hosts, answer, f"http://[{SERVICE}]:8080/it?a=b")
    assert (page.status, page.fields["X-Colour"], page.body) == (404, "red", b"gone\n")


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (b"", "does not answer in HTTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf", "4 bytes of 50 came"),
    ],
)
async def test_what_is_not_a_whole_response_is_told(
    autojump_clock: MockClock, hosts: tuple[Host, Host], answer: bytes, complaint: str
) -> None:
    with pytest.raises(fetch.BadResponse, match=complaint):
        await answering(hosts, answer, f"http://[{SERVICE}]:8080/")


async def test_a_session_that_breaks_is_told(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    with pytest.raises(trio.BrokenResourceError):
        await answering(hosts, b"HTTP/1.1 200 OK\r\n\r\nha", f"http://[{SERVICE}]:8080/", reset=True)


async def test_silence_ends_after_a_while(autojump_clock: MockClock, hosts: tuple[Host, Host]) -> None:
    with pytest.raises(trio.TooSlowError):
        await fetch.fetch(hosts[1], "http://[2001:db8:1::dead]/")
    assert trio.current_time() >= fetch.PATIENCE


@pytest.mark.parametrize("url", ["https://[::1]/", "http:///path", "nonsense"])
async def test_only_http_urls_are_taken(autojump_clock: MockClock, hosts: tuple[Host, Host], url: str) -> None:
    with pytest.raises(ValueError, match="only http"):
        await fetch.fetch(hosts[1], url)
