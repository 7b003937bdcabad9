"""Two small services for `umux up --serve`: something to reach before one's own programs are there."""

from typing import Final

import trio

from umuxstack.core.wire.address import to_text
from umuxstack.driver.runtime import Host
from umuxstack.driver.streams import UmuxStream

_REQUEST_LIMIT: Final = 16384  # bytes of a request's head
_PATIENCE: Final = 60.0  # seconds for a client of either service to say something


async def serve(host: Host, name: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Listens in LISTEN_0 under the service's name, until cancelled."""
    listener = await host.listen(port=80 if name == "hello" else 7, name=name)
    task_status.started()
    await trio.serve_listeners(_hello if name == "hello" else _echo, [listener])


async def _echo(stream: UmuxStream) -> None:
    """RFC 862."""
    async with stream:
        try:
            while True:
                with trio.fail_after(_PATIENCE):
                    data = await stream.receive_some()
                    if not data:
                        return
                    await stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            return


async def _hello(stream: UmuxStream) -> None:
    """One request, one page: what the session is."""
    async with stream:
        head = b""
        try:
            with trio.fail_after(_PATIENCE):
                while b"\r\n\r\n" not in head and len(head) < _REQUEST_LIMIT:
                    data = await stream.receive_some()
                    if not data:
                        return
                    head += data
                body = _page(stream)
                await stream.send_all(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n"
                    b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
                )
                await stream.send_eof()
                while await stream.receive_some():  # until the client has read it all
                    pass
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            return


def _page(stream: UmuxStream) -> bytes:
    session = stream.session
    return (
        "Hello from Unified Multiplex.\n\n"
        f"This session is the pair of the addresses {to_text(session.local)} and {to_text(session.remote)}.\n"
        f"The first one is {session.lease.name}; it was made for this session and dies with it.\n"
    ).encode()
