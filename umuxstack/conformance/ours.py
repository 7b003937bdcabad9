"""Our own stack as the subject of a script: calls, commands and questions meet `Target`."""

from umuxstack.conformance import commands, tcpinfo
from umuxstack.conformance.extension import ExtendedCalls
from umuxstack.conformance.outcome import Mismatch, UnsupportedConstruct
from umuxstack.conformance.script import SystemCall
from umuxstack.conformance.sockets import BSD_ERRNOS
from umuxstack.conformance.subject import Setup, Steps, Subject
from umuxstack.conformance.target import Target
from umuxstack.core.units import Micros, millis


class OurStack(Subject):
    """One stack in virtual time."""

    def __init__(self, setup: Setup) -> None:
        if setup.unified and setup.ipv4:
            raise UnsupportedConstruct("unified sessions over IPv4")
        self.target = Target(
            setup.policy,
            mtu=setup.mtu,
            seed=setup.seed,
            unified=setup.unified,
            silence=setup.unified,
            names=setup.names,
        )
        self.ends = self.target
        self.calls = ExtendedCalls(
            self.target,
            bind_port=setup.wiring.bind_port,
            connect_port=setup.wiring.connect_port,
            doubles_buffers=setup.personality == "linux" and not setup.ours,
            errnos=BSD_ERRNOS if setup.personality == "freebsd" else None,
            tolerance=Micros(setup.tolerance),
            bsd=setup.personality == "freebsd",
        )
        self.ours = setup.ours
        self.counters_from: dict[str, int] = {}
        self.settings: dict[str, int] = {}

    def start(self, call: SystemCall) -> Steps:
        return self.calls.start(call)

    def rename(self, descriptor: int, name: int) -> None:
        self.calls.table.rename(descriptor, name)

    def command(self, text: str) -> None:
        for effect in commands.interpret(text):
            if effect.policy:
                self.target.change_policy(effect.policy)
            if effect.settings:
                self.settings.update(effect.settings)
                on = self.settings.get("tcp_tw_reuse", 2) == 1  # 2: over the loopback interface only
                self.target.reuse_after = millis(self.settings.get("tcp_tw_reuse_delay", 1000)) if on else -1
                self.target.fast_open = bool(self.settings.get("tcp_fastopen", 1) & 1)
                self.target.serves_fast_open = bool(self.settings.get("tcp_fastopen", 1) & 2)
                self.target.notsent_lowat = self.settings.get("tcp_notsent_lowat", 1 << 32)
            if effect.link_up is not None:
                self.target.link_up = effect.link_up
            if effect.queue_up is not None:
                self.target.queue_up = effect.queue_up
            if effect.drops_time_wait:
                self.target.drop_records()
            if effect.forgets_cookies:
                self.target.forget_cookies()
            if effect.probe:
                self._probe(effect.probe)
            if effect.counters:
                self.counters_from = self.target.stack.counters.snapshot()
            if effect.counter is not None:
                name, value = effect.counter
                key = commands.KERNEL_COUNTERS[name]
                actual = self.target.stack.counters.snapshot()[key] - self.counters_from.get(key, 0)
                if actual != value if value is not None else not actual:
                    raise Mismatch(f"{name} is {actual}, expected {value or 'more than 0'}")

    def _probe(self, wanted: str) -> None:
        """Some session must be in this state (or, with "not ", none)."""
        names = {session.state_name for session in self.target.stack.sessions() if hasattr(session, "state_name")}
        names |= {"LISTEN" for listener in self.target.stack.listeners() if hasattr(listener, "backlog")}
        if self.target.has_records():
            names.add("TIME-WAIT")
        negated, state = wanted.startswith("not "), wanted.removeprefix("not ")
        if (state in names) == negated:
            raise Mismatch(
                f"no connection is in {state}" if not negated else f"a connection is in {state}", [str(names)]
            )

    def facts(self) -> dict[str, object]:
        names: dict[str, object] = dict(tcpinfo.of(self.calls, self.calls.current))
        if self.ours:
            names.update(tcpinfo.of_stack(self.calls))
            current = self.calls.current
            session = None if current is None else current.session
            flow = self.target.flow
            names["isn"] = 0 if flow is None or flow.live_local is None else flow.live_local  # as it is on the wire
            names["state"] = "CLOSED" if session is None else session.state_name
            names["reason"] = "NONE" if session is None else session.end_reason.name
            names["soft_error"] = "NONE" if session is None else session.soft_error.name
        return names

    def state_lines(self) -> list[str]:
        current = self.calls.current
        if current is None or current.session is None:
            return []
        session = current.session
        return [
            f"  the connection is in {session.state_name}"
            + (f", ended: {session.end_reason.name}" if session.ended else "")
        ]

    def close(self) -> None:
        """Nothing outlives the object."""
