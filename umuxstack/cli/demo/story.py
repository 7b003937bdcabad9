"""What the demo tells, step by step. Whatever it says was looked at: by the visitors, on the wire, in the stack."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import attrs
import dpkt
import trio

from umuxstack.cli.common import REFUSED
from umuxstack.cli.demo.capture import Seen
from umuxstack.cli.demo.lives import Life, Watcher
from umuxstack.cli.demo.sites import Site
from umuxstack.cli.demo.telling import Teller
from umuxstack.cli.demo.visitors import PORT, Outcome, Visit
from umuxstack.core.units import FIXED_PORT, Address
from umuxstack.core.wire.address import parse, to_text
from umuxstack.driver.listeners import UmuxListener
from umuxstack.driver.streams import UmuxStream

LISTENER: Final = "web"
FIRST, SECOND = "order 17", "order 18"  # what the two SSAs stand for: the label chooses the page
PAGES: Final[Mapping[str, str]] = MappingProxyType(
    {FIRST: "Order 17: one lamp, on its way.\n", SECOND: "Order 18: two chairs, in the workshop.\n"}
)
STEP_LIMIT: Final = 15.0  # seconds; a step that hangs has failed
CONNECT_PATIENCE: Final = 5.0  # seconds, where an answer is due
_LOOK: Final = 0.02  # seconds between looks at what must come to pass


@attrs.frozen
class Pace:
    """Seconds. `patience`: how long visitors wait where silence is due; `rest`: TIME-WAIT, which holds an address."""

    patience: float = 1.2
    rest: float = 2.0


class StoryOver(Exception):
    """A step did not show what the next ones need."""


class Story:
    """One performance on one site. `control` is the path of the server's control socket."""

    def __init__(self, site: Site, teller: Teller, pace: Pace, control: Path) -> None:
        self._site = site
        self._tell = teller
        self._pace = pace
        self._control = control
        self._began = trio.current_time()
        self._watchers = (Watcher("server", site.server, self._began), Watcher("client", site.client, self._began))
        self._listener: UmuxListener | None = None
        self._accepted: list[tuple[str, str]] = []  # (local, remote) of what the server's accept returned
        self._half_sent = trio.Event()  # the second page's first half
        self._may_finish = trio.Event()

    @property
    def seconds(self) -> float:
        return trio.current_time() - self._began

    def lives(self) -> list[Life]:
        """Every address of the server and the client so far, in order of birth."""
        return sorted((life for watcher in self._watchers for life in watcher.look()), key=lambda life: life.opened)

    async def run(self) -> None:
        """All steps; stops at the first that does not show what it should."""
        async with trio.open_nursery() as nursery:
            with suppress(StoryOver):
                await self._step("The server calls listen(), on no address", self._listens, nursery)
                await self._step("A stranger knocks, at one of the server's 2^64 addresses", self._knock)
                first = await self._step(
                    "DAS from outside: a process asks for one address, for one session", self._das, FIRST
                )
                await self._step("The unified client comes, from an address of its own", self._by_ea, first)
                second = await self._step("Another address, for a host that knows nothing of this", self._das, SECOND)
                await self._step("The legacy host comes; and others try the same address", self._legacy, second)
                await self._step("The addresses die with their sessions", self._die, second)
            nursery.cancel_scope.cancel()
        self._tell.end()

    async def _step(self, title: str, act: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        self._tell.begin(title)
        result = None
        with trio.move_on_after(STEP_LIMIT) as scope:
            result = await act(*arguments)
        if scope.cancelled_caught:
            self._tell.check(False, "the step came to its end", f"not within {STEP_LIMIT:g} s")
        if not self._tell.steps[-1].ok:
            raise StoryOver
        return result

    # the server's application: an ordinary one

    async def _serve(self, stream: UmuxStream) -> None:
        """One connection: a page, by the label of the address that it came to. The client closes."""
        async with stream:
            self._accepted.append((stream.local_address[0], stream.remote_address[0]))
            with suppress(trio.BrokenResourceError):
                label = stream.session.lease.label
                page = PAGES[label].encode()
                request = b""
                while b"\r\n\r\n" not in request:
                    more = await stream.receive_some()
                    if not more:
                        return
                    request += more
                half = len(page) // 2
                head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(page)}\r\n\r\n"
                await stream.send_all(head.encode() + page[:half])
                if label == SECOND:
                    self._half_sent.set()
                    await self._may_finish.wait()
                await stream.send_all(page[half:])
                while await stream.receive_some():
                    pass

    # the steps

    async def _listens(self, nursery: trio.Nursery) -> None:
        tell, server = self._tell, self._site.server
        self._listener = await server.listen(PORT, name=LISTENER)
        nursery.start_soon(trio.serve_listeners, self._serve, [self._listener])
        kind = self._listener.listener.kind
        tell.check(kind == "LISTEN_0", f"the listener {LISTENER!r} is in LISTEN_0", f"it is in {kind}")
        leases = [lease.name for lease in server.stack.leases()]
        tell.check(not leases, "the server has no address: nothing of it can be reached", f"it has {', '.join(leases)}")

    async def _knock(self) -> None:
        tell, site = self._tell, self._site
        capture, stack = site.capture, site.server.stack
        target = Address(site.server.config.prefix[:8] + os.urandom(8))
        mark = capture.mark()
        tell.command(site.legacy.command(to_text(target)))
        visit = await site.legacy.fetch(to_text(target), self._pace.patience)
        self._check_silence(visit, "the client")
        arrived = capture.arrived(mark, target)
        counted = dict(stack.telescope()).get(parse(site.legacy.address), 0)
        syns = [seen for seen in arrived if _flags(seen) == "SYN"]
        tell.check(
            bool(syns), f"the capture shows its {_count(len(syns), 'SYN')} on the server's link", "it shows none"
        )
        self._check_nothing_left(mark, "and nothing that left it: no RST, no ICMPv6 error")
        tell.check(
            counted == len(arrived) > 0,
            f"the server noted who it was: {site.legacy.address}, {_count(counted, 'packet')} to nobody",
            f"it counted {counted} of {len(arrived)}; telescope: {[to_text(who) for who, _ in stack.telescope()]}",
        )

    async def _das(self, label: str) -> Address:
        tell, site = self._tell, self._site
        mark = site.capture.mark()
        done = await self._umux("das", "add", LISTENER, "--label", label)
        if not tell.check(not done.returncode, "the stack agreed", done.stderr.strip()):
            raise StoryOver
        answer = json.loads(done.stdout)
        ssa = parse(answer["address"])
        tell.detail("ssa", to_text(ssa), f"SSA {to_text(ssa)}  ({answer['name']})")
        waiting = {door.lease.address: door for door in site.server.stack.doors()}
        door = waiting.get(ssa)
        tell.check(
            door is not None and door.state_name == "WAITING" and door.parent.name == LISTENER,
            f"LISTEN_U: {LISTENER!r} waits on this address, for one connection; the application was not involved",
            f"waiting: {[waiter.lease.name for waiter in waiting.values()]}",
        )
        naming = [seen for seen in site.capture.packets[mark:] if ssa in (seen.source, seen.destination)]
        tell.check(
            not naming,
            "no packet names it: from the network nobody learns of it",
            str([_flags(seen) for seen in naming]),
        )
        return ssa

    async def _by_ea(self, ssa: Address) -> None:
        tell, site = self._tell, self._site
        tell.command(f"client: {site.unified.command(to_text(ssa))}")
        visit = await site.unified.fetch(to_text(ssa), CONNECT_PATIENCE)
        self._check_page(visit, FIRST, "the page came")
        tell.detail("ea", visit.local, f"EA  {visit.local}")
        pair = (to_text(ssa), visit.local)
        names = [life.name for life in self.lives() if life.address in pair and life.established is not None]
        tell.check(
            self._accepted[-1:] == [pair] and len(names) == 2,
            f"accept() returned the session of this pair of addresses ({' and '.join(sorted(names))}), made for it",
            f"accept() returned {self._accepted}; addresses with a session: {names}",
        )
        packets = site.capture.between(ssa, parse(visit.local)) if visit.local else []
        ports = {port for seen in packets if seen.segment for port in (seen.segment.sport, seen.segment.dport)}
        tell.check(
            ports == {FIXED_PORT},
            f"the port fields of all {len(packets)} packets say {FIXED_PORT} and {FIXED_PORT}: "
            "the two addresses alone tell the session apart",
            f"ports {sorted(ports)}",
        )

    async def _legacy(self, ssa: Address) -> None:
        tell, site = self._tell, self._site
        target = to_text(ssa)
        visits: list[Visit] = []

        async def visit() -> None:
            visits.append(await site.legacy.fetch(target, CONNECT_PATIENCE))

        async with trio.open_nursery() as nursery:
            tell.command(site.legacy.command(target))
            nursery.start_soon(visit)
            with trio.move_on_after(CONNECT_PATIENCE):
                await self._half_sent.wait()
            pair = (target, site.legacy.address)
            tell.check(
                self._half_sent.is_set() and self._accepted[-1:] == [pair],
                "it is connected, and has half of its page",
                visits[0].words if visits else f"accept() returned {self._accepted}",
            )
            await self._second_tries(ssa)
            self._may_finish.set()
        self._check_page(visits[0], SECOND, "the first connection noticed nothing; its page came whole")
        tell.check(visits[0].page != PAGES[FIRST], "one program, one listen(), two pages: each address had its label")

    async def _second_tries(self, ssa: Address) -> None:
        """UM-33 for the peer of the live session, UM-32 for everybody else."""
        tell, site = self._tell, self._site
        legacy, capture = parse(site.legacy.address), site.capture
        mark = capture.mark()
        tell.command(f"{site.legacy.command(to_text(ssa))}   # meanwhile, the same host")
        again = await site.legacy.fetch(to_text(ssa), self._pace.patience)
        resets = [seen for seen in capture.left(mark, legacy) if "RST" in _flags(seen) and seen.source == ssa]
        tell.check(
            again.outcome is Outcome.REFUSED and len(resets) == 1,
            f"a second connection of the same pair is refused: RST after {again.seconds * 1000:.0f} ms",
            f"{again.outcome} ({again.words}), {_count(len(resets), 'RST')} sent",
        )
        mark = capture.mark()
        tell.command(f"client: {site.unified.command(to_text(ssa))}   # meanwhile, another host")
        other = await site.unified.fetch(to_text(ssa), self._pace.patience)
        self._check_silence(other, "another host, at the same address,")
        came = [seen for seen in capture.arrived(mark, ssa) if seen.source != legacy]
        answers = [seen for seen in capture.left(mark) if seen.destination != legacy]
        tell.check(
            bool(came) and not answers,
            f"the capture shows its {_count(len(came), 'SYN')}, and no packet for it",
            f"{len(came)} came, answered by {[_flags(seen) for seen in answers]}",
        )

    async def _die(self, ssa: Address) -> None:
        tell, site = self._tell, self._site
        target = to_text(ssa)
        gone = await self._comes_true(lambda: all(lease.address != ssa for lease in site.server.stack.leases()))
        life = next(life for life in self.lives() if life.address == target)
        lived = "" if life.ended is None else f", after {life.ended - life.opened:.2f} s"
        tell.check(gone, f"{life.name} ended with its session{lived}", "it is still alive")
        mark = site.capture.mark()
        tell.command(site.legacy.command(target))
        visit = await site.legacy.fetch(target, self._pace.patience)
        self._check_silence(visit, "even its visitor of before")
        self._check_nothing_left(mark, "as if it had never been: nothing left the server")
        done = await self._umux("das", "add", LISTENER, "--ssa", target)
        tell.check(
            done.returncode == REFUSED,
            "and nobody can give it out again: " + done.stderr.partition("\n")[0].removeprefix("umux: "),
            f"exit code {done.returncode}: {done.stdout.strip()}",
        )
        if self._listener is not None:
            await self._listener.aclose()
        stacks = {"server": site.server.stack, "client": site.client.stack}
        await self._comes_true(lambda: not any(any(stack.leftovers().values()) for stack in stacks.values()))
        left = {
            f"{name}: {what}": count
            for name, stack in stacks.items()
            for what, count in stack.leftovers().items()
            if count
        }
        tell.check(
            not left,
            f"after {self._pace.rest:g} s of TIME-WAIT (60 s unless configured) the EAs are gone as well: "
            "no address, session or timer is left in either stack",
            str(left),
        )

    # what several steps look at

    def _check_silence(self, visit: Visit, who: str) -> None:
        self._tell.check(
            visit.outcome is Outcome.SILENCE,
            f"{who} heard nothing for {visit.seconds:.1f} s: {visit.words}",
            f"{visit.outcome}: {visit.words or visit.page.strip()}",
        )

    def _check_nothing_left(self, mark: int, claim: str) -> None:
        left = self._site.capture.left(mark)
        self._tell.check(not left, claim, f"{_count(len(left), 'packet')}: {[_flags(seen) for seen in left]}")

    def _check_page(self, visit: Visit, label: str, claim: str) -> None:
        right = visit.outcome is Outcome.PAGE and visit.page == PAGES[label]
        words = visit.words or repr(visit.page)
        self._tell.check(right, f"{claim}: {visit.page.strip()!r}", f"{visit.outcome}: {words}")

    async def _comes_true(self, condition: Callable[[], bool]) -> bool:
        """Whether it does, within the rest that finished sessions take and a second more."""
        with trio.move_on_after(self._pace.rest + 1):
            while not condition():
                await trio.sleep(_LOOK)
        return condition()

    async def _umux(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """The command line, in a process of its own, through the control socket."""
        self._tell.command("umux " + " ".join(shlex.quote(argument) for argument in arguments))
        command = [sys.executable, "-m", "umuxstack", *arguments, "--json", "--socket", str(self._control)]
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
        return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


def _flags(seen: Seen) -> str:
    """ "SYN", "RST+ACK" and so on; for what is not TCP, the next header's number."""
    segment = seen.segment
    if segment is None:
        return f"next header {seen.packet[6]}"
    names = ("FIN", dpkt.tcp.TH_FIN), ("SYN", dpkt.tcp.TH_SYN), ("RST", dpkt.tcp.TH_RST), ("ACK", dpkt.tcp.TH_ACK)
    return "+".join(name for name, bit in names if segment.flags & bit) or "none"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
