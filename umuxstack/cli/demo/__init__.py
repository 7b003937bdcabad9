"""`umux demo`: a session lives and dies with its address, shown in less than 15 seconds.

With the right to make TUN devices and namespaces it runs on real ones, with the
kernel's TCP as the legacy host; otherwise in memory, and says so. It leaves
nothing behind but the capture: what is named (one directory for the control
socket) is removed, and if we were killed, by the next start.
"""

import argparse
import logging
import os
import re
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import trio

from tun.errors import TunError
from umuxstack.cli import output
from umuxstack.cli.common import FAILED, INTERRUPTED, OK, USAGE, Failure
from umuxstack.cli.demo import lives
from umuxstack.cli.demo.capture import FILE_NAME, keep
from umuxstack.cli.demo.lives import Life
from umuxstack.cli.demo.sites import CLIENT_PREFIX, LEGACY_ADDRESS, SERVER_PREFIX, Site, memory_site, tun_site
from umuxstack.cli.demo.story import Pace, Story
from umuxstack.cli.demo.telling import Teller
from umuxstack.control.place import BoundSocket
from umuxstack.control.server import ControlServer

FAST: Final = Pace(patience=0.4, rest=0.5)
_DIRECTORY: Final = "umux-demo-"
_OWNED: Final = re.compile(rf"{_DIRECTORY}(\d+)-\w+")
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_PICTURE: Final = f"""
   unified client ------- router ------- unified server
   {CLIENT_PREFIX}          |          {SERVER_PREFIX}, 2^64 addresses
                            |
                       legacy host
                       {LEGACY_ADDRESS}, one address for everything
"""
_ON_TUN: Final = (
    "On real devices: client and server are stacks of ours, each on a TUN; the router and the legacy host",
    "are this kernel's, in network namespaces of their own. All that is claimed is looked at, most of it",
    "in the kernel's capture of the server's link.",
)
_IN_MEMORY: Final = (
    "In memory, without root: all three hosts are stacks of ours in this process, the legacy one going by ports.",
    "All that is claimed is looked at, most of it in a capture of the server's link.",
)


def main(argv: Sequence[str]) -> int:
    """Exit code 0 if every step showed what it should, 1 if not, 130 or 143 after Ctrl-C or SIGTERM."""
    arguments = _parser().parse_args(argv)
    pcap = arguments.pcap
    if pcap is not None and (pcap.is_dir() or not pcap.absolute().parent.is_dir()):
        raise Failure(f"--pcap {pcap}: there is no such folder, or it is a folder itself", "name a file", USAGE)
    _sweep()
    logging.getLogger("umuxstack").addHandler(logging.NullHandler())  # the story tells itself what is refused
    performance = _Performance(arguments)
    try:
        trio.run(performance.run)
    except BaseExceptionGroup as group:
        raise _only(group) from group
    return performance.code


def _only(error: BaseException) -> BaseException:
    """What nurseries have wrapped, if it is one thing: the command line explains it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="umux demo",
        description="See a session live and die with its address: three hosts, one router, seven steps, all checked.",
        epilog="exit codes: 0 every step showed what it should, 1 one did not, 130 interrupted by Ctrl-C",
    )
    parser.add_argument("--no-root", action="store_true", help="in memory, also where a TUN could be had")
    parser.add_argument("--fast", action="store_true", help="listen to silence for a shorter time")
    parser.add_argument("--json", action="store_true", help="the result of each step as JSON, in the place of the text")
    parser.add_argument("--pcap", metavar="FILE", type=Path, help=f"where the capture goes (default: ./{FILE_NAME})")
    return parser


class _Performance:
    """One run; `code` is the exit code."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.code = FAILED
        self._arguments = arguments
        self._pace = FAST if arguments.fast else Pace()
        self._tell = Teller(silent=arguments.json)

    async def run(self) -> None:
        """Until the story is over, or a signal ends it; either way everything is closed in order."""
        with trio.open_signal_receiver(*_SIGNALS) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._on_signal, signals, nursery.cancel_scope)
                await self._perform()
                nursery.cancel_scope.cancel()

    async def _on_signal(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        async for number in signals:
            self.code = INTERRUPTED if number == signal.SIGINT else 128 + number
            scope.cancel()
            return

    async def _perform(self) -> None:
        with _private_directory() as directory:
            async with AsyncExitStack() as opened:
                site, why_memory = await self._open(opened, directory / FILE_NAME)
                self._introduce(site, why_memory)
                control = BoundSocket(directory / "control.sock")
                async with trio.open_nursery() as nursery:
                    await nursery.start(ControlServer(site.server, control, name="demo").run)
                    story = Story(site, self._tell, self._pace, control.path)
                    await story.run()
                    nursery.cancel_scope.cancel()
                born, seconds = story.lives(), story.seconds
            self.code = OK if self._tell.ok else FAILED
            packets = site.file.captured
            path = keep(directory / FILE_NAME, self._arguments.pcap)
        if self._arguments.json:
            self._finish_json(born, site, why_memory, packets, path)
        else:
            self._finish(born, seconds, packets, path)

    async def _open(self, opened: AsyncExitStack, pcap: Path) -> tuple[Site, str]:
        """The site, and why it is in memory if it is."""
        why = "--no-root"
        if not self._arguments.no_root:
            try:
                return await opened.enter_async_context(tun_site(pcap, self._pace.rest)), ""
            except TunError as error:
                why = error.strerror or str(error)
        return await opened.enter_async_context(memory_site(pcap, self._pace.rest)), why

    def _introduce(self, site: Site, why_memory: str) -> None:
        tell = self._tell
        tell.heading("Unified Multiplex: every session has an address of its own, which lives as long as the session")
        tell.say(*_PICTURE.splitlines(), "", *(_IN_MEMORY if site.kind == "memory" else _ON_TUN))
        if why_memory and not self._arguments.no_root:
            tell.say(output.wrapped(f"(No TUN here: {why_memory})".split(), indent="", separator=" "))

    def _finish(self, born: Sequence[Life], seconds: float, packets: int, path: Path) -> None:
        """Which address lived when, where the capture is, and whether all was as it should be."""
        tell = self._tell
        tell.say("")
        tell.heading("Which address lived when")
        tell.say("", *(f"   {line}" for line in lives.table(born, {LEGACY_ADDRESS: "legacy host"})))
        tell.say("", *(f"   {line}" for line in lives.timeline(born, seconds)))
        tell.say(f"   {lives.WAITING} waiting or calling   {lives.SESSION} session   {lives.RETIRING} TIME-WAIT")
        tell.say("", f"{packets} packets of the server's link, for Wireshark: {path}")
        failed = [claim["claim"] for step in tell.steps for claim in step.claims if not claim["ok"]]
        checked = sum(len(step.claims) for step in tell.steps)
        tell.heading(
            f"{checked} claims, all of them checked, in {tell.seconds:.1f} s."
            if not failed
            else f"{len(failed)} of {checked} claims did not hold: {'; '.join(failed)}"
        )

    def _finish_json(self, born: Sequence[Life], site: Site, why_memory: str, packets: int, path: Path) -> None:
        tell = self._tell
        steps = [
            {"title": step.title, "ok": step.ok, "seconds": step.seconds, "claims": step.claims, **step.facts}
            for step in tell.steps
        ]
        output.say_json(
            {
                "ok": tell.ok,
                "site": site.kind,
                "why_memory": why_memory or None,
                "seconds": tell.seconds,
                "steps": steps,
                "addresses": [life.as_json() for life in born],
                "packets": packets,
                "pcap": str(path),
            }
        )


@contextmanager
def _private_directory() -> Iterator[Path]:
    """For the control socket; its name says whose it is."""
    path = Path(tempfile.mkdtemp(prefix=f"{_DIRECTORY}{os.getpid()}-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _sweep() -> None:
    """Removes what killed demos of this user left: namespaces had no names, so it is their directories alone."""
    with suppress(OSError):
        for entry in os.scandir(tempfile.gettempdir()):
            match = _OWNED.fullmatch(entry.name)
            if (
                match
                and entry.is_dir(follow_symlinks=False)
                and entry.stat(follow_symlinks=False).st_uid == os.geteuid()
            ):
                if not _is_alive(int(match[1])):
                    shutil.rmtree(entry.path, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
