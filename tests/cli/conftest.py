"""A stack with a control socket in a thread, on a wire to a peer's stack; and `umux` called as a function.

In real time: the command line's client blocks.
"""

import contextlib
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import attrs
import pytest
import trio

from umuxstack.cli import main
from umuxstack.control.place import BoundSocket
from umuxstack.control.server import ControlServer
from umuxstack.driver.links.memory import memory_link_pair
from umuxstack.driver.runtime import Host
from umuxstack.host import make_config

PREFIX = "2001:db8:1::/64"
SHARED = "2001:db8:1::80"
PEER_SHARED = "2001:db8:2::80"

Value = TypeVar("Value")


@attrs.frozen
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


class Umux(Protocol):
    def __call__(self, *words: str) -> Result: ...


@pytest.fixture
def umux(capfd: pytest.CaptureFixture[str]) -> Umux:
    """Runs `umux` with these words."""

    def run(*words: str) -> Result:
        capfd.readouterr()
        try:
            code = main(words)
        except SystemExit as leaving:  # argparse's own way out
            code = int(leaving.code or 0)
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return run


class RunningStack:
    """What a test does to the hosts, from its own thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.host: Host
        self.peer: Host
        self._ready = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._main,))

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(10)

    def stop(self) -> None:
        """Idempotent."""
        if not self._thread.is_alive():
            return
        trio.from_thread.run_sync(self._end.set, trio_token=self._token)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def call(self, function: Callable[[], Value]) -> Value:
        """Runs `function` in the trio thread."""
        return trio.from_thread.run_sync(function, trio_token=self._token)

    def wait(self, function: Callable[[], Awaitable[Value]]) -> Value:
        """Runs the async `function` in the trio thread, at most 10 s."""

        async def bounded() -> Value:
            with trio.fail_after(10):
                return await function()

        return trio.from_thread.run(bounded, trio_token=self._token)

    def enter(self, manager: AbstractAsyncContextManager[Value]) -> Value:
        """Opens something that stays open until the stack ends."""
        return self.wait(lambda: self._stack.enter_async_context(manager))

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._end = trio.Event()
        ours, theirs = memory_link_pair()
        async with (
            Host(ours, make_config(PREFIX, shared=[SHARED])) as self.host,
            Host(theirs, make_config("2001:db8:2::/64", shared=[PEER_SHARED])) as self.peer,
            contextlib.AsyncExitStack() as self._stack,
            trio.open_nursery() as nursery,
        ):
            self.server = ControlServer(self.host, BoundSocket(self.path), name="test", link_name="wire")
            await nursery.start(self.server.run)
            self._ready.set()
            await self._end.wait()
            nursery.cancel_scope.cancel()


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningStack]:
    """The running stack, at the place where `umux` looks for it."""
    monkeypatch.setenv("UMUX_SOCKET", str(tmp_path / "test.sock"))
    running = RunningStack(tmp_path / "test.sock")
    running.start()
    try:
        yield running
    finally:
        running.stop()
