"""poll and epoll over a script's sockets."""

import errno
import select
from collections.abc import Generator
from typing import TYPE_CHECKING, Final

from umuxstack.conformance.outcome import Mismatch, UnsupportedConstruct
from umuxstack.conformance.sockets import CallError, Socket, Watch
from umuxstack.conformance.symbols import ANY, Value
from umuxstack.core.units import NEVER, Micros

if TYPE_CHECKING:
    from umuxstack.conformance.calls import Calls

_ALWAYS: Final = select.POLLERR | select.POLLHUP


def poll(calls: "Calls", entries: Value, timeout: int) -> Generator[Micros, None, int]:
    """`timeout` in milliseconds, negative: for ever."""
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UnsupportedConstruct("poll without an array of structs")
    until = NEVER if timeout < 0 else Micros(calls.started + timeout * 1000)
    while True:
        found = 0
        masks = []
        for entry in entries:
            assert isinstance(entry, dict)
            wanted = entry.get("events", 0)
            socket = calls.table.get(entry.get("fd"))
            mask = socket.events() & ((wanted if isinstance(wanted, int) else 0) | _ALWAYS)
            masks.append(mask)
            found += mask != 0
        if found or calls.target.now >= until:
            break
        yield until
    for entry, mask in zip(entries, masks, strict=True):
        assert isinstance(entry, dict)
        revents = entry.get("revents", ANY)
        if revents is not ANY and revents != mask:
            raise Mismatch(f"poll: revents of {entry.get('fd')!r} are {mask:#x}, expected {revents!r}")
    return found


def control(calls: "Calls", epoll: Socket, operation: int, socket: Socket, event: Value) -> None:
    """EPOLL_CTL_ADD is 1, DEL 2, MOD 3."""
    known = socket.descriptor in epoll.watched
    if operation == 1 and known:
        raise CallError(errno.EEXIST)
    if operation != 1 and not known:
        raise CallError(errno.ENOENT)
    if operation == 2:
        del epoll.watched[socket.descriptor]
        return
    fields = event if isinstance(event, dict) else {}
    events = fields.get("events", 0)
    data = next((value for name, value in fields.items() if name != "events"), socket.descriptor)
    epoll.watched[socket.descriptor] = Watch(
        events if isinstance(events, int) else 0, data if isinstance(data, int) else socket.descriptor
    )


def _ready(calls: "Calls", epoll: Socket) -> list[tuple[int, int, Watch, tuple[int, ...]]]:
    out = []
    for descriptor, watch in epoll.watched.items():
        if watch.disabled:
            continue
        try:
            socket = calls.table.get(descriptor)
        except CallError:
            continue  # closed
        mask = socket.events() & (watch.events | _ALWAYS) & 0xFFFF
        if not mask:
            watch.reported = None
            continue
        progress = socket.progress()
        if watch.events & select.EPOLLET and watch.reported == (mask, progress):
            continue
        out.append((mask, watch.data, watch, progress))
    return out


def wait(calls: "Calls", epoll: Socket, events: Value, most: int, timeout: int) -> Generator[Micros, None, int]:
    """`timeout` in milliseconds, negative: for ever. `events`: one struct, or an array of them, or `...`."""
    until = NEVER if timeout < 0 else Micros(calls.started + timeout * 1000)
    while not (found := _ready(calls, epoll)) and calls.target.now < until:
        yield until
    expected = events if isinstance(events, list) else [events]
    del found[most:]
    for at, (mask, data, watch, progress) in enumerate(found):
        watch.reported = (mask, progress)
        if watch.events & select.EPOLLONESHOT:
            watch.disabled = True
        entry = expected[at] if at < len(expected) else ANY
        if not isinstance(entry, dict):
            continue
        wanted = entry.get("events", ANY)
        if wanted is not ANY and wanted != mask:
            raise Mismatch(f"epoll: events of {data} are {mask:#x}, expected {wanted!r}")
        stored = next((value for name, value in entry.items() if name != "events"), ANY)
        if isinstance(stored, int) and stored != data:
            raise Mismatch(f"epoll: {data} is ready, expected {stored}")
    return len(found)
