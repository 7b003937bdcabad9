"""Any behaviour of applications on any wires: every byte arrives once and in order, or its session ends with a reason.

Hypothesis chooses what happens and shrinks what fails; UMUX_SEED makes it choose the same again.
"""

from random import Random

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.fuzz.world import World, bad_wire
from umuxstack.core.session.receive_buffer import ReceiveBuffer
from umuxstack.core.units import NEVER, Micros, millis, minutes, seconds
from umuxstack.driver.links.impair import Impairment
from umuxstack.testing.entropy import seed_of_run

HOSTS = st.integers(0, 2)
ANY = st.integers(0, 63)  # one of those there are, counted round
SIZES = st.sampled_from((1, 100, 1428, 1429, 10_000, 65_521, 300_000))
TIMES = st.sampled_from((0, millis(1), millis(40), millis(300), seconds(2), seconds(30), minutes(3), minutes(90)))
LIFETIMES = st.sampled_from((seconds(1), seconds(60), NEVER))


@seed(seed_of_run())
class Life(RuleBasedStateMachine):
    """What happens; `World` judges."""

    def __init__(self) -> None:
        super().__init__()
        self.world: World | None = None

    @property
    def w(self) -> World:
        assert self.world is not None
        return self.world

    @initialize(number=st.integers(0, 2**32 - 1))
    def begin(self, number: int) -> None:
        self.world = World(number)
        random = Random(number)
        for host in range(3):
            self.w.rewire(host, bad_wire(random))
        # Without a door nothing else can happen.
        self.w.listen(number % 3, "listen_0", 4)
        self.w.das(0, None, NEVER, "session")

    @rule(host=HOSTS, kind=st.sampled_from(("listen_0", "service", "shared")), backlog=st.sampled_from((1, 3, 128)))
    def listen(self, host: int, kind: str, backlog: int) -> None:
        self.w.listen(host, kind, backlog)

    @precondition(lambda self: self.w.doors)
    @rule(which=ANY, peer=st.none() | HOSTS, lifetime=LIFETIMES, grain=st.sampled_from(("session", "client")))
    def das(self, which: int, peer: int | None, lifetime: Micros, grain: str) -> None:
        self.w.das(which, peer, lifetime, grain)

    @precondition(lambda self: self.w.open)
    @rule(which=ANY)
    def revoke(self, which: int) -> None:
        self.w.revoke(which)

    @precondition(lambda self: self.w.doors)
    @rule(which=ANY)
    def accept(self, which: int) -> None:
        self.w.accept(which)

    @precondition(lambda self: self.w.doors)
    @rule()
    def accept_all(self) -> None:
        for index in range(len(self.w.doors)):
            self.w.accept(index)

    @precondition(lambda self: len(self.w.doors) > 1)
    @rule(which=ANY)
    def close_door(self, which: int) -> None:
        self.w.close_door(which)

    @precondition(lambda self: self.w.open)
    @rule(host=HOSTS, which=ANY, legacy=st.booleans(), nobody=st.sampled_from((False, False, False, True)))
    def connect(self, host: int, which: int, legacy: bool, nobody: bool) -> None:
        self.w.connect(host, which, legacy=legacy, nobody=nobody)

    @precondition(lambda self: self.w.doors)
    @rule(host=HOSTS, which=ANY, size=SIZES)
    def visit(self, host: int, which: int, size: int) -> None:
        """What mostly happens: DAS, connect, write, accept."""
        self.w.das(which, None, NEVER, "session")
        self.w.connect(host, len(self.w.open) - 1, legacy=False, nobody=False)
        if self.w.ends:
            self.w.ends[-1].write(size)
        self.w.net.run_for(seconds(5))
        self.accept_all()

    @precondition(lambda self: self.w.ends)
    @rule(which=ANY, size=SIZES)
    def write(self, which: int, size: int) -> None:
        self.w.end(which).write(size)

    @precondition(lambda self: self.w.ends)
    @rule(which=ANY, limit=SIZES)
    def read(self, which: int, limit: int) -> None:
        self.w.end(which).read(limit)

    @precondition(lambda self: self.w.ends)
    @rule()
    def read_all(self) -> None:
        for end in self.w.ends:
            end.read()

    @precondition(lambda self: self.w.ends)
    @rule(which=ANY)
    def shutdown(self, which: int) -> None:
        end = self.w.end(which)
        end.finished = True
        end.session.shutdown(end.host.now)

    @precondition(lambda self: self.w.ends)
    @rule(which=ANY, abort=st.booleans())
    def close(self, which: int, abort: bool) -> None:
        self.w.end(which).close(abort=abort)

    @rule(host=HOSTS, service=st.booleans())
    def socket(self, host: int, service: bool) -> None:
        self.w.socket(host, service=service)

    @precondition(lambda self: self.w.sockets)
    @rule(which=ANY, lifetime=LIFETIMES)
    def das_udp(self, which: int, lifetime: Micros) -> None:
        self.w.das_udp(which, lifetime)

    @precondition(lambda self: self.w.sockets and self.w.open_udp)
    @rule(which=ANY, to=ANY, size=SIZES)
    def send_datagram(self, which: int, to: int, size: int) -> None:
        self.w.send_datagram(which, to, size)

    @precondition(lambda self: self.w.sockets)
    @rule(which=ANY)
    def receive_datagrams(self, which: int) -> None:
        self.w.receive_datagrams(which)

    @precondition(lambda self: self.w.sockets)
    @rule(which=ANY)
    def close_socket(self, which: int) -> None:
        self.w.close_socket(which)

    @precondition(lambda self: self.w.open)
    @rule(host=HOSTS, which=ANY, size=SIZES)
    def ping(self, host: int, which: int, size: int) -> None:
        self.w.ping(host, which, min(size, 65_000))

    @precondition(lambda self: self.w.pings)
    @rule(which=ANY)
    def close_ping(self, which: int) -> None:
        self.w.close_ping(which)

    @rule(host=HOSTS, number=st.integers(0, 2**32 - 1))
    def rewire(self, host: int, number: int) -> None:
        self.w.rewire(host, bad_wire(Random(number)))

    @rule(host=HOSTS)
    def cut(self, host: int) -> None:
        self.w.rewire(host, Impairment(loss=1.0))

    @rule(host=HOSTS)
    def mend(self, host: int) -> None:
        self.w.rewire(host, Impairment(delay=millis(1)))

    @rule(duration=TIMES)
    def wait(self, duration: Micros) -> None:
        self.w.net.run_for(duration)

    @invariant()
    def holds(self) -> None:
        if self.world is not None:
            self.world.judge()
            self.world.read_pings()

    def teardown(self) -> None:
        if self.world is not None:
            self.world.finish()


@pytest.mark.parametrize("fault", ["twice", "swapped", "lost"])
@pytest.mark.plain
def test_the_judge_sees_what_comes_twice_in_another_order_or_not_at_all(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be no judge if it let everything pass."""
    take = ReceiveBuffer.take

    def faulty(self: ReceiveBuffer, limit: int) -> bytes:
        data = take(self, limit)
        return {"twice": data + data, "swapped": data[1:] + data[:1], "lost": data[:-1]}[fault]

    world = World(1)
    world.listen(0, "listen_0", 4)
    world.das(0, None, NEVER, "session")
    world.connect(1, 0, legacy=False, nobody=False)
    world.net.run_for(seconds(1))
    world.accept(0)
    client, server = world.ends
    client.write(3000)
    world.net.run_for(seconds(1))
    assert server.read() == 3000
    monkeypatch.setattr(ReceiveBuffer, "take", faulty)
    client.write(3000)
    client.finished = True
    client.session.shutdown(world.net.now)
    with pytest.raises(AssertionError, match=r"not those that were sent|its end came before its data|lost: "):
        world.settle()


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=120,
    stateful_step_count=60,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
