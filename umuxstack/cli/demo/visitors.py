"""Who asks the server for its page: the unified client, and the legacy host that knows nothing of all this.

Each tells what an outsider can tell: a page came, the address refused, or
nothing at all came back. Patience is in seconds.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from enum import StrEnum
from typing import Final, Protocol

import attrs
import trio

from tun.netns import Namespace
from umuxstack.driver.runtime import Host
from umuxstack.driver.streams import UmuxStream

PORT: Final = 80
PAGE_LIMIT: Final = 8.0  # seconds for a page, once connected
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_POLL: Final = 0.01  # seconds between looks at a process

# What curl would do, where there is none; the exit codes are curl's.
_URLLIB: Final = """
import socket, sys, urllib.error, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    sys.stdout.buffer.write(opener.open(sys.argv[1], timeout=float(sys.argv[2])).read())
except Exception as error:
    cause = getattr(error, "reason", error)
    print(cause, file=sys.stderr)
    sys.exit(28 if isinstance(cause, TimeoutError) else 7 if isinstance(cause, ConnectionRefusedError) else 1)
"""
_libc: Final = ctypes.CDLL(None)
_REFUSED: Final = 7
_TIMED_OUT: Final = 28


class Outcome(StrEnum):
    PAGE = "page"
    REFUSED = "refused"
    SILENCE = "silence"
    FAILED = "failed"


@attrs.frozen
class Visit:
    """What came of one try. `local`: the visitor's address, if it knows."""

    outcome: Outcome
    page: str = ""
    words: str = ""
    seconds: float = 0.0
    local: str = ""


class Visitor(Protocol):
    """Fetches the page at an address."""

    address: str  # its only one

    def command(self, target: str) -> str:
        """What a person would type."""

    async def fetch(self, target: str, patience: float) -> Visit:
        """`patience`: how long to wait for the connection."""


class KernelVisitor:
    """A legacy host: curl, or Python's urllib, over the kernel's TCP in a namespace of its own."""

    def __init__(self, namespace: Namespace, address: str) -> None:
        self.address = address
        self._namespace = namespace
        self._curl = shutil.which("curl")

    def command(self, target: str) -> str:
        return f"curl http://[{target}]/" if self._curl else f"urllib.request.urlopen('http://[{target}]/')"

    async def fetch(self, target: str, patience: float) -> Visit:
        url = f"http://[{target}]:{PORT}/"
        if self._curl:
            limits = ["--connect-timeout", f"{patience:g}", "--max-time", f"{patience + PAGE_LIMIT:g}"]
            command = [self._curl, "--disable", "-sS", "-g", "--noproxy", "*", *limits, url]
        else:
            # Its one limit is for every wait; a page that comes in two parts needs the longer one.
            command = [sys.executable, "-I", "-S", "-c", _URLLIB, url, f"{patience:g}"]
        began = trio.current_time()
        with self._namespace.enter():  # a child is in the namespace of the thread that made it
            process = subprocess.Popen(  # noqa: S603, the command is ours
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, "LC_ALL": "C"},  # what it says of an error is shown
                preexec_fn=_die_with_parent,  # noqa: PLW1509, one system call
            )
        with process:
            try:
                while process.poll() is None:
                    await trio.sleep(_POLL)
            finally:
                process.kill()  # nothing, unless we are cancelled
            page, words = process.communicate()
        outcome = {0: Outcome.PAGE, _REFUSED: Outcome.REFUSED, _TIMED_OUT: Outcome.SILENCE}.get(
            process.returncode, Outcome.FAILED
        )
        return Visit(
            outcome,
            page.decode(errors="replace"),
            words.decode(errors="replace").strip(),
            trio.current_time() - began,
            self.address,
        )


def _die_with_parent() -> None:
    """In a child: if we are killed it must not go on by itself, and keep the namespace."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class StackVisitor:
    """One of our stacks: by EA, to a peer known to be unified; or, with `source`, the legacy way (UM-6)."""

    def __init__(self, host: Host, address: str, *, source: str | None = None) -> None:
        self.address = address
        self._host = host
        self._source = source

    def command(self, target: str) -> str:
        return f"GET http://[{target}]/" if self._source else f"connect({target!r})"

    async def fetch(self, target: str, patience: float) -> Visit:
        began = trio.current_time()
        local = ""

        def visit(outcome: Outcome, page: str = "", words: str = "") -> Visit:
            return Visit(outcome, page, words, trio.current_time() - began, local)

        try:
            stream: UmuxStream | None = None
            with trio.move_on_after(patience):
                stream = await self._host.connect(target, PORT, source=self._source, unified=self._source is None)
            if stream is None:
                return visit(Outcome.SILENCE, words="nothing came back")
            local = stream.local_address[0]
            page = None
            async with stream:
                with trio.move_on_after(PAGE_LIMIT):
                    page = await _get(stream, target)
            if page is None:
                return visit(Outcome.FAILED, words="the page did not come in time")
            return visit(Outcome.PAGE, page)
        except ConnectionRefusedError as error:
            return visit(Outcome.REFUSED, words=str(error))
        except (OSError, trio.BrokenResourceError, ValueError) as error:
            return visit(Outcome.FAILED, words=str(error))


async def _get(stream: UmuxStream, target: str) -> str:
    """The page, by its Content-Length: the connection stays open, and we are the ones who close it."""
    await stream.send_all(f"GET / HTTP/1.1\r\nHost: [{target}]\r\n\r\n".encode())
    received = b""
    while True:
        head, end, body = received.partition(b"\r\n\r\n")
        if end:
            fields = dict(line.lower().split(": ", 1) for line in head.decode().splitlines()[1:])
            if len(body) >= int(fields["content-length"]):
                return body.decode()
        more = await stream.receive_some()
        if not more:
            raise ValueError("the page was cut off")
        received += more
