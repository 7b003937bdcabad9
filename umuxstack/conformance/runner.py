"""Runs one script in virtual time, and says where it and the stack part.

Events are taken in order. A call or an injected packet happens at its time; an expected packet is the next one that
the stack sends, which must be in time. Every `*`, range and tolerance is about when, never about what.
"""

import re
import time
import traceback
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

import attrs

from umuxstack.conformance import commands, tcpinfo
from umuxstack.conformance.ends import IPV4, IPV6
from umuxstack.conformance.match import show
from umuxstack.conformance.ours import OurStack
from umuxstack.conformance.outcome import Mismatch, Outcome, Status, UnsupportedConstruct
from umuxstack.conformance.packets import Packets, Wiring, check_supported
from umuxstack.conformance.parser import parse
from umuxstack.conformance.script import (
    Code,
    Command,
    Direction,
    Event,
    Packet,
    Script,
    ScriptError,
    SystemCall,
    TimeKind,
)
from umuxstack.conformance.siit_icmp import LEAST_MTU
from umuxstack.conformance.sockets import CallError
from umuxstack.conformance.subject import MakeSubject, Setup, Steps
from umuxstack.conformance.symbols import ANY, TFO_COOKIE, TFO_COOKIE_ZERO, errno_of, evaluate
from umuxstack.core.errors import BadArgument
from umuxstack.core.network import pmtu
from umuxstack.core.personality import personality
from umuxstack.core.units import NEVER, Micros, seconds

MAKES_DESCRIPTOR: Final = ("socket", "accept", "accept4", "open", "epoll_create", "epoll_create1")
WOKEN: Final = ("read", "readv", "recv", "recvfrom", "recvmsg", "accept", "accept4", "connect")
FINISH: Final = seconds(3600)  # for a blocking call without an end
VERSIONS: Final = ("ipv4", "ipv4-mapped-ipv6", "ipv6")  # of --ip_version

# Whose `#ifdef` blocks count. The vendors' scripts say under their own names what their stacks do, and what the
# RFCs ask for under STANDARD.
PLATFORMS: Final = {"linux": "linux", "freebsd": "freebsd"}

# What the public suites' runners define on their command lines.
DEFINES: Final = {
    "CMSG_LEVEL_IP": "SOL_IP",
    "CMSG_TYPE_RECVERR": "IP_RECVERR",
    "TFO_COOKIE": TFO_COOKIE,
    "TFO_COOKIE_ZERO": TFO_COOKIE_ZERO,
}


@attrs.frozen(slots=True)
class Settings:
    """How scripts are run. `personality` empty: guessed from the script."""

    personality: str = ""
    seed: str = "1"
    defines: dict[str, str] = attrs.field(factory=dict)
    capture: bool = False
    tolerance: int = 0  # microseconds; at least what the script says
    tolerance_percent: float = 0.0  # of a delay; likewise


@attrs.define(slots=True)
class Pending:
    """A system call that has not returned."""

    event: Event
    call: SystemCall
    steps: Steps
    started: Micros
    ends: Micros | None  # when it should return
    wakes: int  # until it began
    waits: bool = False  # without an end of its own
    result: int | None = None
    error: CallError | None = None
    finished: Micros | None = None


def run_file(path: str | Path, settings: Settings = Settings(), make: MakeSubject = OurStack) -> Outcome:
    """Parses and runs the script in `path`. Never raises."""
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        return Outcome(str(path), Status.ERROR, str(error))
    return run_text(text, str(path), settings, make)


def run_text(
    text: str, path: str = "<script>", settings: Settings = Settings(), make: MakeSubject = OurStack
) -> Outcome:
    """Parses and runs a script. Never raises."""
    started = time.perf_counter()
    name = settings.personality or guess_personality(text)
    platform = PLATFORMS.get(name, "standard")
    try:
        script = parse(text, path, defines=DEFINES | settings.defines, platform=platform)
    except ScriptError as error:
        return Outcome(path, Status.ERROR, str(error), error.line, error.source, personality=name)
    try:
        runner = Runner(setup_of(script, text, name, settings), text, settings, make)
    except UnsupportedConstruct as unsupported:
        return Outcome(path, Status.UNSUPPORTED, unsupported.construct, personality=name)
    except (BadArgument, ValueError) as error:  # an option whose value is of another kind
        return Outcome(path, Status.ERROR, str(error), personality=name)
    outcome = runner.run()
    return attrs.evolve(outcome, seconds=time.perf_counter() - started)


def guess_personality(text: str) -> str:
    """Whose behaviour the script states: our own say it in an option, the vendors' by what they configure."""
    if "--umux" in text:
        for word in text.split():
            if word.startswith("--personality="):
                return word.partition("=")[2]
        return "rfc"
    if re.search(
        r"net\.inet6?\.|kern\.ipc|TCP_FUNCTION_BLK|TCPI_(?!OPT_)[A-Z]|wscale 6,\s*sackOK|sackOK,\s*eol|sockstat", text
    ):
        return "freebsd"
    return "linux"


def _presumed(text: str) -> dict[str, object]:
    """What a script that configures no buffers presumes of its author's machine: the window scale says how large."""
    scale = re.search(r"(?m)^[^<\n]*>\s*S[^<\n]*<[^>\n]*\bwscale (\d+)", text)
    if scale is None or re.search(r"defaults\.sh|tcp_rmem|SO_RCVBUF", text):
        return {}
    return {"receive_buffer_max": 65535 << min(int(scale[1]), 14)}


def setup_of(script: Script, text: str, name: str, settings: Settings) -> Setup:
    """What the script's options and the settings say together; `name` is the personality. Raises BadArgument."""
    option = script.option
    ours = option("umux") is not None
    by_name = Path(script.path).stem.endswith("v6")  # the suites' own runners go by it
    version = option("ip_version") or ("ipv6" if ours or by_name else "ipv4")
    if version not in VERSIONS:
        raise ValueError(f"--ip_version={version}: there are {', '.join(VERSIONS)}")
    ipv4 = version != "ipv6"
    # The kernel's own runner passes --mtu=1520 for IPv6, so that segments have 1460 octets in both versions.
    kernel = name == "linux" and not ipv4 and re.search(r">[^<\n]*<mss 1460", text) is not None
    mtu = int(option("mtu") or (1520 if kernel else 1500))
    least = LEAST_MTU if ipv4 else pmtu.MINIMUM
    if mtu < least:
        raise UnsupportedConstruct(f"--mtu={mtu}: an {'IPv4' if ipv4 else 'IPv6'} link carries {least} octets at least")
    tolerance = max(int(option("tolerance_usecs") or (1000 if ours else 4000)), settings.tolerance)
    percent = 0.0 if ours or name == "freebsd" else float(option("tolerance_percent") or 12.5)
    policy = personality(name)
    if name == "linux" and not ours:
        policy = attrs.evolve(policy, **commands.DEFAULTS)  # type: ignore[arg-type]  # the suites presume them
        policy = attrs.evolve(policy, **_presumed(text))  # type: ignore[arg-type]
    if ipv4:
        policy = attrs.evolve(policy, announce_path_mtu=False)  # BSD does so for IPv6 alone
    wiring = Wiring(
        bind_port=int(option("bind_port") or 8080),
        connect_port=int(option("connect_port") or 8080),
        strict_segments=option("strict_segments") is not None,
        mss=int(option("mss") or 0),
        stamp_tick=int(option("tcp_ts_tick_usecs") or 0),
        tolerance=tolerance,
        ignores_others=not ours,
        pushes_bursts=name == "linux" and not ours,
    )
    return Setup(
        script,
        name,
        f"{settings.seed} {Path(script.path).name}",
        ours,
        option("umux") == "unified",
        mtu,
        policy,
        wiring,
        tolerance,
        max(percent, settings.tolerance_percent),
        _ends(option("local_ip"), option("remote_ip")) if ipv4 else IPV6,
        mapped=version == "ipv4-mapped-ipv6",
    )


def _ends(local: str | None, remote: str | None) -> dict[str, bytes]:
    """Who is on a link that speaks IPv4: the script's own addresses, if it says any. Raises ValueError."""
    names = dict(IPV4)
    for name, text in (("here", local), ("peer", remote)):
        if text is not None:
            names[name] = IPv4Address(text.strip('"').partition("/")[0]).packed
    return names


class Runner:
    """One run of one script."""

    def __init__(self, setup: Setup, text: str, settings: Settings, make: MakeSubject = OurStack) -> None:
        self.setup = setup
        self.script = setup.script
        self.lines = text.splitlines()
        self.settings = settings
        self.tolerance = setup.tolerance
        self.subject = make(setup)
        self.target = self.subject.ends
        self.packets = Packets(self.target, setup.wiring)
        self.started = self.target.now
        self.anchor = self.target.now  # when the event before happened
        self.scheduled: Micros = self.target.now  # for the report
        self.pending: Pending | None = None
        self.names: dict[str, object] = dict(tcpinfo.CONSTANTS)  # of the Python blocks
        self.names["print"] = _quiet
        self.event: Event | None = None
        self.line = 0
        self.silent_until: Micros | None = None

    # The whole

    def run(self) -> Outcome:
        try:
            self._refuse_unsupported()
            for command in self.script.init:
                self.line = command.position.line
                self.subject.command(command.text)
            for event in self.script.events:
                self.event = event
                self.line = event.position.line
                self._perform(event)
            if self.pending is not None:
                self._finish_pending()
            if self.setup.ours:
                self._nothing_left()
            for command in self.script.cleanup:
                self.line = command.position.line
                self.subject.command(command.text)
        except UnsupportedConstruct as unsupported:
            return self._outcome(Status.UNSUPPORTED, unsupported.construct)
        except Mismatch as mismatch:
            return self._outcome(Status.FAILED, str(mismatch), mismatch.details)
        except BadArgument as error:
            return self._outcome(Status.ERROR, str(error))
        except Exception as error:  # a bug of the stack or of the runner: the report must say where
            trace = traceback.format_exc().splitlines()
            status = Status.FAILED if self.subject.in_process else Status.ERROR
            return self._outcome(status, f"{type(error).__name__}: {error}", trace[-12:])
        finally:
            self.subject.close()
        return self._outcome(Status.PASSED, "")

    def _outcome(self, status: Status, message: str, details: list[str] | None = None) -> Outcome:
        line = 0 if status is Status.PASSED else self.line
        return Outcome(
            self.script.path,
            status,
            message,
            line,
            self.lines[line - 1].strip() if 0 < line <= len(self.lines) else "",
            Micros(self.target.now - self.started),
            tuple(details or ()),
            self.setup.personality,
            packets=tuple(self.target.capture) if self.settings.capture else (),
        )

    def _refuse_unsupported(self) -> None:
        """Before anything is run: what is known to be beyond us."""
        option = self.script.option
        for name in ("udp_encapsulation", "udp_encaps", "tcp_md5_secret", "psp_udp_port", "so_filename"):
            if option(name) is not None:
                raise UnsupportedConstruct(f"--{name}")
        for unknown in self.script.unknown_options:
            if unknown.name not in ("umux", "personality"):
                raise UnsupportedConstruct(f"--{unknown.name}")
        for event in self.script.events:
            if not isinstance(event.action, SystemCall | Command | Code):
                self.line = event.position.line
                check_supported(event.action)

    # One event

    def _perform(self, event: Event) -> None:
        action = event.action
        start, end = self._when(event)
        self.scheduled = start
        if not isinstance(action, SystemCall | Command | Code) and action.direction is Direction.OUT:
            self._expect(event, action, start, end)
            return
        if isinstance(action, SystemCall) and self.pending is not None:
            self._finish_pending()
        self._let_pass(start)
        self.anchor = max(start, self.target.now)
        if isinstance(action, SystemCall):
            self._call(event, action)
        elif isinstance(action, Command):
            self.subject.command(action.text)
        elif isinstance(action, Code):
            self._code(action)
        else:
            self.packets.inject(action)

    def _when(self, event: Event) -> tuple[Micros, Micros]:
        moment = event.time
        if moment.kind is TimeKind.ANY:
            return self.anchor, Micros(self.target.now + self.target.patience())
        base = self.started if moment.kind in (TimeKind.ABSOLUTE, TimeKind.ABSOLUTE_RANGE) else self.anchor
        return Micros(base + moment.start), Micros(base + moment.end)

    def _let_pass(self, until: Micros) -> None:
        self.target.run_until(until)
        self._check_silence()

    def _slack(self, start: Micros) -> int:
        return max(self.tolerance, int((start - self.anchor) * self.setup.tolerance_percent / 100))

    def _check_silence(self) -> None:
        if self.silent_until is not None and self.target.sent:
            sent = self.target.sent[0]
            if sent.time <= self.silent_until:
                raise Mismatch("there is no silence", self._unexpected())

    # Expected packets

    def _expect(self, event: Event, expected: Packet, start: Micros, end: Micros) -> None:
        target = self.target
        slack = self._slack(start)
        latest = Micros(end + slack)
        if not target.sent and not target.run_until(latest, stop=lambda: bool(target.sent)):
            if event.time.kind is TimeKind.ANY:
                target.patience()  # perhaps it is only ours that has ended
            raise Mismatch(
                "no packet came" if event.time.kind is not TimeKind.ANY else "no packet ever came",
                [f"  waited until {self._clock(latest)}", *self.subject.state_lines()],
            )
        self.packets.skip_others(expected)
        if not target.sent:
            self._expect(event, expected, start, end)
            return
        length = getattr(getattr(expected, "sequence", None), "length", 0)
        first = target.sent[0]
        if length > 0 and event.time.kind is not TimeKind.ANY:
            target.run_until(Micros(max(target.now, first.time + target.burst)))
        at = Micros(self.packets.match(expected, first, slack))
        anchor_before = self.anchor
        self.anchor = at if event.time.kind is TimeKind.ANY else Micros(max(at, self.anchor))
        if event.time.kind is TimeKind.ANY:
            return
        if not start - slack <= at <= latest:
            early = at < start
            raise Mismatch(
                f"the packet came {abs(at - (start if early else end)) / 1e6:.6f} s too {'early' if early else 'late'}",
                [
                    f"  expected {self._clock(start)}" + (f" to {self._clock(end)}" if end != start else ""),
                    f"  actual   {self._clock(at)}, +{(at - anchor_before) / 1e6:.6f} after the event before",
                ],
            )

    def _clock(self, at: int) -> str:
        return f"{(at - self.started) / 1e6:.6f} s"

    def _unexpected(self) -> list[str]:
        out = []
        for sent in list(self.target.sent)[:5]:
            flow = self.target.flow
            out.append(f"  {self._clock(sent.time)} {show(sent.packet, flow)}")
        return out

    def _nothing_left(self) -> None:
        self.target.run_until(Micros(self.target.now + self.target.burst))
        if self.target.sent:
            raise Mismatch("the stack sent what the script does not say", self._unexpected())

    # Calls

    def _call(self, event: Event, call: SystemCall) -> None:
        ends = None if call.end is None else Micros(self.anchor - event.time.start + call.end)
        pending = Pending(event, call, self.subject.start(call), self.target.now, ends, self.target.wakes)
        self.pending = pending
        if call.name == "silence":
            if ends is None:
                raise UnsupportedConstruct("silence() without an end")
            self.silent_until = ends
            self.target.run_until(ends)
            self._check_silence()
            self.silent_until = None
            self.pending = None
            self.anchor = self.target.now
            return
        self.target.waiting = self._step
        self.target.run_until(self.target.now)
        if pending.finished is not None:
            self._judge(pending)
        elif ends is None:
            limit = Micros(self.target.now + max(self._slack(self.anchor), self.target.call_time))
            if not self.target.run_until(limit, stop=lambda: pending.finished is not None):
                raise Mismatch(f"{call.name}() blocks", self.subject.state_lines())
            self._judge(pending)

    def _step(self) -> bool:
        """Gives the pending call a chance to return. True when it has."""
        pending = self.pending
        if pending is None or pending.finished is not None:
            return True
        try:
            self.target.waits_until = next(pending.steps)
        except StopIteration as stop:
            pending.result = stop.value
        except CallError as error:
            pending.error = error
        else:
            pending.waits = self.target.waits_until == NEVER
            return False
        pending.finished = self.target.now
        self.target.waits_until = NEVER
        return True

    def _finish_pending(self) -> None:
        """The blocking call before must have returned by now, or does so in its time."""
        pending = self.pending
        assert pending is not None
        if pending.finished is None:
            limit = Micros((pending.ends or pending.started + min(FINISH, self.target.patience())) + self.tolerance)
            self.target.run_until(limit, stop=lambda: pending.finished is not None)
        if pending.finished is None:
            self.line = pending.call.position.line
            raise Mismatch(f"{pending.call.name}() has not returned in its time", self.subject.state_lines())
        self._judge(pending)

    def _judge(self, pending: Pending) -> None:
        """Result, errno and time of a call that has returned."""
        self.pending = None
        self.target.waiting = None
        call = pending.call
        line, self.line = self.line, call.position.line
        expected = evaluate(call.result)
        if pending.error is not None:
            wanted = f"{expected!r}" + (f" {call.errno}" if call.errno else "")
            if expected not in (-1, ANY) or (call.errno and errno_of(call.errno) != pending.error.number):
                raise Mismatch(
                    f"{call.name}() fails: {pending.error}",
                    [f"  → expected {wanted}", f"    actual   -1 {pending.error}"],
                )
        elif call.name in MAKES_DESCRIPTOR and isinstance(expected, int) and expected >= 0 <= (pending.result or -1):
            assert pending.result is not None
            self.subject.rename(pending.result, expected)
        elif expected is not ANY and expected != pending.result:
            wanted = f"{expected!r}" + (f" {call.errno}" if call.errno else "")
            raise Mismatch(
                f"{call.name}() returns {pending.result}", [f"  → expected {wanted}", f"    actual   {pending.result}"]
            )
        assert pending.finished is not None
        if call.name in WOKEN and pending.waits and pending.finished > pending.started:
            if self.target.wakes == pending.wakes >= 0:
                raise Mismatch(f"{call.name}() could return, but nobody who waits was told so")
        if pending.ends is not None and abs(pending.finished - pending.ends) > max(
            self.tolerance, int((pending.ends - pending.started) * self.setup.tolerance_percent / 100)
        ):
            raise Mismatch(
                f"{call.name}() returns at another time",
                [f"  → expected {self._clock(pending.ends)}", f"    actual   {self._clock(pending.finished)}"],
            )
        self.line = line

    # Commands and code

    def _code(self, code: Code) -> None:
        names = self.names
        for name in [name for name in names if name.startswith("tcpi_")]:
            del names[name]
        names.update(self.subject.facts())
        text = code.text.replace("\\\n", "\n") if ";" in code.text else code.text
        text = _OLD_PRINT.sub(r"\1print(\2)", text)
        try:
            compiled = compile(_dedented(text), self.script.path, "exec")
        except SyntaxError:
            try:
                compiled = compile(code.text, self.script.path, "exec")
            except SyntaxError as error:
                raise UnsupportedConstruct(f"code: {error.msg}") from None
        if not self.subject.unasked.isdisjoint(compiled.co_names):
            return
        try:
            exec(compiled, names)  # noqa: S102 - a script's own assertions are Python by the language's definition
        except AssertionError as error:
            shown = {key: value for key, value in names.items() if key.startswith("tcpi_") and key in code.text}
            raise Mismatch(f"assertion fails: {' '.join(code.text.split())}", [f"  {error}", f"  {shown}"]) from None
        except NameError as error:
            raise UnsupportedConstruct(f"code: {error}") from None


def _quiet(*words: object, **options: object) -> None:
    """A script's `print`: what its author wanted to see is in nobody's table."""


_OLD_PRINT: Final = re.compile(r"(?m)^(\s*)print[ \t]+([^\s(].*)$")  # Python 2 had a statement of this name


def _dedented(text: str) -> str:
    """Statements of one script block, whatever blanks stand before their lines."""
    lines = text.strip().splitlines()
    if any(line.rstrip().endswith(":") for line in lines):
        return "\n".join(lines)
    return "\n".join(line.strip() for line in lines)
