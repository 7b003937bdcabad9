"""Runs one script in virtual time, and says where it and the stack part.

Events are taken in order. A call or an injected packet happens at its time; an expected packet is the next one that
the stack sends, which must be in time. Every `*`, range and tolerance is about when, never about what.
"""

import re
import time
import traceback
from pathlib import Path
from typing import Final

import attrs

from umuxstack.conformance import commands, tcpinfo
from umuxstack.conformance.calls import Steps
from umuxstack.conformance.extension import ExtendedCalls
from umuxstack.conformance.icmp import LONGER_HEADER
from umuxstack.conformance.match import show
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
from umuxstack.conformance.sockets import CallError
from umuxstack.conformance.symbols import ANY, errno_of, evaluate
from umuxstack.conformance.target import Target
from umuxstack.core.errors import BadArgument
from umuxstack.core.personality import personality
from umuxstack.core.units import NEVER, Micros, seconds

MAKES_DESCRIPTOR: Final = ("socket", "accept", "accept4", "open", "epoll_create", "epoll_create1")
LONGEST_WAIT: Final = seconds(7 * 24 * 3600)  # for an expected packet with `*`
FINISH: Final = seconds(3600)  # for a blocking call without an end

# What the public suites' runners define on their command lines.
DEFINES: Final = {
    "CMSG_LEVEL_IP": "SOL_IP",
    "CMSG_TYPE_RECVERR": "IP_RECVERR",
    "TFO_COOKIE": "3021b9d889017eeb",
    "TFO_COOKIE_ZERO": "b7c12350a90dc8f5",
}


@attrs.frozen(slots=True)
class Settings:
    """How scripts are run. `personality` empty: guessed from the script."""

    personality: str = ""
    seed: str = "1"
    defines: dict[str, str] = attrs.field(factory=dict)
    capture: bool = False


@attrs.define(slots=True)
class Pending:
    """A system call that has not returned."""

    event: Event
    call: SystemCall
    steps: Steps
    started: Micros
    ends: Micros | None  # when it should return
    result: int | None = None
    error: CallError | None = None
    finished: Micros | None = None


def run_file(path: str | Path, settings: Settings = Settings()) -> Outcome:
    """Parses and runs the script in `path`. Never raises."""
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        return Outcome(str(path), Status.ERROR, str(error))
    return run_text(text, str(path), settings)


def run_text(text: str, path: str = "<script>", settings: Settings = Settings()) -> Outcome:
    """Parses and runs a script. Never raises."""
    started = time.perf_counter()
    name = settings.personality or guess_personality(text)
    platform = "freebsd" if name == "freebsd" else "linux"
    try:
        script = parse(text, path, defines=DEFINES | settings.defines, platform=platform)
    except ScriptError as error:
        return Outcome(path, Status.ERROR, str(error), error.line, error.source, personality=name)
    outcome = Runner(script, text, name, settings).run()
    return attrs.evolve(outcome, seconds=time.perf_counter() - started)


def guess_personality(text: str) -> str:
    """Whose behaviour the script states: our own say it in an option, the vendors' by what they configure."""
    if "--umux" in text:
        for word in text.split():
            if word.startswith("--personality="):
                return word.partition("=")[2]
        return "rfc"
    if re.search(
        r"net\.inet6?\.|kern\.ipc|TCP_FUNCTION_BLK|TCPI_[A-Z]|wscale 6,\s*sackOK|sackOK,\s*eol|sockstat", text
    ):
        return "freebsd"
    return "linux"


class Runner:
    """One run of one script."""

    def __init__(self, script: Script, text: str, name: str, settings: Settings) -> None:
        self.script = script
        self.lines = text.splitlines()
        self.personality = name
        self.settings = settings
        option = script.option
        self.ours = option("umux") is not None
        ipv4 = (option("ip_version") or ("ipv6" if self.ours else "ipv4")) != "ipv6"
        # The kernel's own runner passes --mtu=1520 for IPv6, so that segments have 1460 octets in both versions.
        kernel = name == "linux" and not ipv4 and re.search(r">[^<\n]*<mss 1460", text) is not None
        mtu = int(option("mtu") or (1520 if kernel else 1500))
        tolerance = int(option("tolerance_usecs") or (1000 if self.ours else 4000))
        self.tolerance = tolerance
        self.tolerance_percent = 0.0 if self.ours or name == "freebsd" else float(option("tolerance_percent") or 12.5)
        policy = personality(name)
        if name == "linux" and not self.ours:
            policy = attrs.evolve(policy, **commands.DEFAULTS)  # type: ignore[arg-type]  # the suites presume them
        self.target = Target(
            policy,
            mtu=mtu + (LONGER_HEADER if ipv4 else 0),
            seed=f"{settings.seed} {Path(script.path).name}",
            unified=option("umux") == "unified",
            silence=option("umux") == "unified",
        )
        self.wiring = Wiring(
            bind_port=int(option("bind_port") or 8080),
            connect_port=int(option("connect_port") or 8080),
            ipv4=ipv4,
            strict_segments=option("strict_segments") is not None,
            mss=int(option("mss") or 0),
            stamp_tick=int(option("tcp_ts_tick_usecs") or 0),
            tolerance=tolerance,
            pushes_bursts=name == "linux" and not self.ours,
        )
        self.packets = Packets(self.target, self.wiring)
        self.calls = ExtendedCalls(
            self.target,
            bind_port=self.wiring.bind_port,
            connect_port=self.wiring.connect_port,
            doubles_buffers=name == "linux" and not self.ours,
        )
        self.started = self.target.now
        self.anchor = self.target.now  # when the event before happened
        self.scheduled: Micros = self.target.now  # for the report
        self.pending: Pending | None = None
        self.names: dict[str, object] = dict(tcpinfo.CONSTANTS)  # of the Python blocks
        self.counters_from: dict[str, int] = {}
        self.event: Event | None = None
        self.line = 0
        self.silent_until: Micros | None = None

    # The whole

    def run(self) -> Outcome:
        try:
            self._refuse_unsupported()
            for command in self.script.init:
                self.line = command.position.line
                self._command(command)
            for event in self.script.events:
                self.event = event
                self.line = event.position.line
                self._perform(event)
            if self.pending is not None:
                self._finish_pending()
            if self.ours:
                self._nothing_left()
            for command in self.script.cleanup:
                self.line = command.position.line
                self._command(command)
        except UnsupportedConstruct as unsupported:
            return self._outcome(Status.UNSUPPORTED, unsupported.construct)
        except Mismatch as mismatch:
            return self._outcome(Status.FAILED, str(mismatch), mismatch.details)
        except BadArgument as error:
            return self._outcome(Status.ERROR, str(error))
        except Exception as error:  # a bug of the stack or of the runner: the report must say where
            trace = traceback.format_exc().splitlines()
            return self._outcome(Status.FAILED, f"{type(error).__name__}: {error}", trace[-12:])
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
            self.personality,
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
            self._command(action)
        elif isinstance(action, Code):
            self._code(action)
        else:
            self.packets.inject(action)

    def _when(self, event: Event) -> tuple[Micros, Micros]:
        moment = event.time
        if moment.kind is TimeKind.ANY:
            return self.anchor, Micros(self.target.now + LONGEST_WAIT)
        base = self.started if moment.kind in (TimeKind.ABSOLUTE, TimeKind.ABSOLUTE_RANGE) else self.anchor
        return Micros(base + moment.start), Micros(base + moment.end)

    def _let_pass(self, until: Micros) -> None:
        self.target.run_until(until)
        self._check_silence()

    def _slack(self, start: Micros) -> int:
        return max(self.tolerance, int((start - self.anchor) * self.tolerance_percent / 100))

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
            raise Mismatch(
                "no packet came" if event.time.kind is not TimeKind.ANY else "no packet ever came",
                [f"  waited until {self._clock(latest)}", *self._state_lines()],
            )
        length = getattr(getattr(expected, "sequence", None), "length", 0)
        first = target.sent[0]
        if length > 0 and event.time.kind is not TimeKind.ANY:
            target.run_until(max(target.now, first.time))  # a burst is sent at one instant
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

    def _state_lines(self) -> list[str]:
        current = self.calls.current
        if current is None or current.session is None:
            return []
        session = current.session
        return [
            f"  the connection is in {session.state_name}"
            + (f", ended: {session.end_reason.name}" if session.ended else "")
        ]

    def _nothing_left(self) -> None:
        self.target.run_until(self.target.now)
        if self.target.sent:
            raise Mismatch("the stack sent what the script does not say", self._unexpected())

    # Calls

    def _call(self, event: Event, call: SystemCall) -> None:
        ends = None if call.end is None else Micros(self.anchor - event.time.start + call.end)
        pending = Pending(event, call, self.calls.start(call), self.target.now, ends)
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
            limit = Micros(self.target.now + self._slack(self.anchor))
            if not self.target.run_until(limit, stop=lambda: pending.finished is not None):
                raise Mismatch(f"{call.name}() blocks", self._state_lines())
            self._judge(pending)

    def _step(self) -> bool:
        """Gives the pending call a chance to return. True when it has."""
        pending = self.pending
        if pending is None or pending.finished is not None:
            return True
        self.calls.started = pending.started
        try:
            self.target.waits_until = next(pending.steps)
        except StopIteration as stop:
            pending.result = stop.value
        except CallError as error:
            pending.error = error
        else:
            return False
        pending.finished = self.target.now
        self.target.waits_until = NEVER
        return True

    def _finish_pending(self) -> None:
        """The blocking call before must have returned by now, or does so in its time."""
        pending = self.pending
        assert pending is not None
        if pending.finished is None:
            limit = Micros((pending.ends or pending.started + FINISH) + self.tolerance)
            self.target.run_until(limit, stop=lambda: pending.finished is not None)
        if pending.finished is None:
            self.line = pending.call.position.line
            raise Mismatch(f"{pending.call.name}() has not returned in its time", self._state_lines())
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
            self.calls.table.rename(pending.result, expected)
        elif expected is not ANY and expected != pending.result:
            wanted = f"{expected!r}" + (f" {call.errno}" if call.errno else "")
            raise Mismatch(
                f"{call.name}() returns {pending.result}", [f"  → expected {wanted}", f"    actual   {pending.result}"]
            )
        assert pending.finished is not None
        if pending.ends is not None and abs(pending.finished - pending.ends) > max(
            self.tolerance, int((pending.ends - pending.started) * self.tolerance_percent / 100)
        ):
            raise Mismatch(
                f"{call.name}() returns at another time",
                [f"  → expected {self._clock(pending.ends)}", f"    actual   {self._clock(pending.finished)}"],
            )
        self.line = line

    # Commands and code

    def _command(self, command: Command) -> None:
        for effect in commands.interpret(command.text):
            if effect.policy:
                self.target.change_policy(effect.policy)
            if effect.link_up is not None:
                self.target.link_up = effect.link_up
            if effect.probe:
                self._probe(effect.probe)
            if effect.counters:
                self.counters_from = self.target.stack.counters.snapshot()
            if effect.counter is not None:
                name, value = effect.counter
                key = commands.KERNEL_COUNTERS[name]
                actual = self.target.stack.counters.snapshot()[key] - self.counters_from.get(key, 0)
                if actual != value:
                    raise Mismatch(f"{name} is {actual}, expected {value}")

    def _probe(self, wanted: str) -> None:
        """Some session must be in this state (or, with "not ", none)."""
        names = {session.state_name for session in self.target.stack.sessions() if hasattr(session, "state_name")}
        names |= {"LISTEN" for listener in self.target.stack.listeners() if hasattr(listener, "backlog")}
        if any(self.target.stack._ctx.quiet.values()):
            names.add("TIME-WAIT")
        negated, state = wanted.startswith("not "), wanted.removeprefix("not ")
        if (state in names) == negated:
            raise Mismatch(
                f"no connection is in {state}" if not negated else f"a connection is in {state}", [str(names)]
            )

    def _code(self, code: Code) -> None:
        names = self.names
        for name in [name for name in names if name.startswith("tcpi_")]:
            del names[name]
        names.update(tcpinfo.of(self.calls, self.calls.current))
        if self.ours:
            names.update(tcpinfo.of_stack(self.calls))
            current = self.calls.current
            session = None if current is None else current.session
            flow = self.target.flow
            names["isn"] = 0 if flow is None or flow.live_local is None else flow.live_local  # as it is on the wire
            names["state"] = "CLOSED" if session is None else session.state_name
            names["reason"] = "NONE" if session is None else session.end_reason.name
        text = code.text.replace("\\\n", "\n") if ";" in code.text else code.text
        try:
            compiled = compile(_dedented(text), self.script.path, "exec")
        except SyntaxError:
            try:
                compiled = compile(code.text, self.script.path, "exec")
            except SyntaxError as error:
                raise UnsupportedConstruct(f"code: {error.msg}") from None
        try:
            exec(compiled, names)  # noqa: S102 - a script's own assertions are Python by the language's definition
        except AssertionError as error:
            shown = {key: value for key, value in names.items() if key.startswith("tcpi_") and key in code.text}
            raise Mismatch(f"assertion fails: {' '.join(code.text.split())}", [f"  {error}", f"  {shown}"]) from None
        except NameError as error:
            raise UnsupportedConstruct(f"code: {error}") from None


def _dedented(text: str) -> str:
    """Statements of one script block, whatever blanks stand before their lines."""
    lines = text.strip().splitlines()
    if any(line.rstrip().endswith(":") for line in lines):
        return "\n".join(lines)
    return "\n".join(line.strip() for line in lines)
