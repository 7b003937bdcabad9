"""A kernel as the subject of a script: `KernelStack` puts it behind the runner's interface."""

import socket

from umuxstack.conformance.live import info
from umuxstack.conformance.live.calls import Held, KernelCalls
from umuxstack.conformance.live.leftout import UNASKED
from umuxstack.conformance.live.settings import CONGESTION, Orders, initial, orders
from umuxstack.conformance.live.wire import Kernel, KernelEnds
from umuxstack.conformance.live.worker import Worker
from umuxstack.conformance.outcome import Mismatch, UnsupportedConstruct
from umuxstack.conformance.script import SystemCall
from umuxstack.conformance.subject import Setup, Steps, Subject
from umuxstack.conformance.symbols import Value, evaluate
from umuxstack.core.units import NEVER, Micros


class KernelStack(Subject):
    """The kernel of one namespace, for one script."""

    in_process = False
    unasked = UNASKED

    def __init__(self, setup: Setup, kernel: Kernel, limit: Micros) -> None:
        self.kernel = kernel
        family = socket.AF_INET if setup.ipv4 and not setup.mapped else socket.AF_INET6
        self.wire = KernelEnds(kernel, mtu=setup.mtu, seed=setup.seed, limit=limit, names=setup.names, family=family)
        self.ends = self.wire
        ports = {"bind_port": setup.wiring.bind_port, "connect_port": setup.wiring.connect_port}
        self.calls = KernelCalls(self.wire, **ports, family=family)
        self._obey(initial(setup), strict=False)  # an older kernel may lack one
        self.worker = Worker(kernel.enter, self.wire.wake)

    def start(self, call: SystemCall) -> Steps:
        return self._perform(call.name, [evaluate(argument) for argument in call.arguments])

    def _perform(self, name: str, arguments: list[Value]) -> Steps:
        job = self.worker.submit(lambda: self.calls.perform(name, arguments))
        while not job.done:
            yield NEVER
        return job.result()

    def rename(self, descriptor: int, name: int) -> None:
        self.calls.rename(descriptor, name)

    def command(self, text: str) -> None:
        self._obey(orders(text))

    def _obey(self, wanted: Orders, *, strict: bool = True) -> None:
        self.calls.congestion = wanted.congestion or self.calls.congestion
        for path, value in wanted.sysctls:
            if path != CONGESTION and not self.kernel.set_sysctl(path, value) and strict:
                raise UnsupportedConstruct(f"the kernel does not take {path}={value}")
        for effect in wanted.effects:
            if effect.link_up is not None:
                self.wire.link_up = effect.link_up
            if effect.queue_up is not None:
                self.wire.queue_up = effect.queue_up
            if effect.probe:
                self._probe(effect.probe)

    def _probe(self, wanted: str) -> None:
        names = {state for state, _, _ in self.wire.states()}
        negated, state = wanted.startswith("not "), wanted.removeprefix("not ")
        if (state in names) == negated:
            raise Mismatch(
                f"no connection is in {state}" if not negated else f"a connection is in {state}", [str(sorted(names))]
            )

    def facts(self) -> dict[str, object]:
        held = self.calls.current
        names: dict[str, object] = {}
        if held is not None and held.socket is not None and not held.closed:
            names |= info.of(held.socket)  # first: it tells times, and asking for the state takes some
        flow = self.wire.flow
        names["isn"] = 0 if flow is None or flow.live_local is None else flow.live_local
        names["state"] = self._state()
        return names

    def _state(self) -> str:
        held = self.calls.current
        if held is None or held.local is None or held.remote is None:
            return "CLOSED"
        return self.wire.state_of(*held.local, *held.remote)

    def state_lines(self) -> list[str]:
        held: Held | None = self.calls.current
        return [] if held is None or held.remote is None else [f"  the connection is in {self._state()}"]

    def close(self) -> None:
        self.calls.let_go()
        self.kernel.set_sysctl("net/ipv4/tcp_orphan_retries", "1")
        self.wire.end_all()
        if self.worker.end():
            self.calls.close_all()
            self.wire.close()
