"""Processes to measure in: forked, placed in a namespace and on a core, heard by lines of JSON.

Owns their lives: whatever happens, `Worker.end` leaves none, and a worker dies
with its parent (PR_SET_PDEATHSIG). The parent must be single-threaded and must not run trio.
"""

import ctypes
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Concatenate, Final, ParamSpec, Self

from tun.netns import Namespace

Parameters = ParamSpec("Parameters")
Message = dict[str, Any]

PR_SET_PDEATHSIG: Final = 1
TIMEOUT: Final = 60.0  # seconds; nothing here takes half as long

_libc: Final = ctypes.CDLL(None, use_errno=True)


class WorkerFailed(Exception):
    """A worker raised, fell silent or went away; the text says which and how."""


class Channel:
    """One end of a pair of sockets; each message is a dictionary in a line of JSON."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._unread = b""

    def fileno(self) -> int:
        """To wait on for what the other side says."""
        return self._sock.fileno()

    def tell(self, **message: Any) -> None:
        self._sock.sendall(json.dumps(message).encode() + b"\n")

    def hear(self, timeout: float | None = None) -> Message:
        """The next message. Raises WorkerFailed when the other side is gone, or silent for `timeout` seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        while b"\n" not in self._unread:
            left = None if until is None else max(0.0, until - time.monotonic())
            if not select.select([self._sock], [], [], left)[0]:
                raise WorkerFailed(f"no word for {timeout} s")
            data = self._sock.recv(1 << 20)
            if not data:
                raise WorkerFailed("it ended without a word")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        message: Message = json.loads(line)
        return message

    def close(self) -> None:
        self._sock.close()


class Worker:
    """A child process that runs `function(channel, …)` in `namespace`, and on `cores` alone if given."""

    def __init__(
        self,
        namespace: Namespace | None,
        function: Callable[Concatenate[Channel, Parameters], None],
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> None:
        self.name = function.__name__
        ours, theirs = socket.socketpair()
        sys.stdout.flush()
        sys.stderr.flush()
        self._pid = os.fork()
        if self._pid == 0:
            ours.close()
            live(namespace, Channel(theirs), lambda channel: function(channel, *args, **kwargs))
        theirs.close()
        self.channel = Channel(ours)

    def tell(self, **message: Any) -> None:
        self.channel.tell(**message)

    def hear(self, timeout: float = TIMEOUT) -> Message:
        """The worker's next message. Raises WorkerFailed, with its traceback if it raised."""
        try:
            message = self.channel.hear(timeout)
        except WorkerFailed as error:
            raise WorkerFailed(f"{self.name}: {error}") from None
        if "failed" in message:
            raise WorkerFailed(f"{self.name}: {message['failed']}")
        return message

    def end(self) -> None:
        """Asks it to stop by closing the channel; kills it after a second. Again: nothing."""
        pid, self._pid = self._pid, 0
        if not pid:
            return
        self.channel.close()
        until = time.monotonic() + 1.0
        while os.waitpid(pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > until:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return
            time.sleep(0.002)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


def live(namespace: Namespace | None, channel: Channel, function: Callable[[Channel], None]) -> None:
    """A child's whole life; never returns."""
    status = 1
    try:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent ends us
        if namespace is not None:
            namespace.enter_for_good()
        function(channel)
        status = 0
    except BaseException:
        try:
            channel.tell(failed=traceback.format_exc())
        except OSError:
            status = 2  # the parent has closed the channel: that is how it says "enough"
    finally:
        os._exit(status)


def pin(cores: Sequence[int]) -> None:
    """This process runs on these cores alone; none: wherever it likes."""
    if cores:
        os.sched_setaffinity(0, cores)
