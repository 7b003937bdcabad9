"""Flows on one bottleneck: each algorithm uses it, and two flows share it."""

import pytest

from apps.aimd_cc import Aimd
from tests.core.tcp.congestion.simulation import MSS, SECOND, Bottleneck, Flow
from umuxstack.core.tcp.congestion.cubic import Cubic
from umuxstack.core.tcp.congestion.registry import BUILT_IN, make

RATE = 1_250_000
DELAY = 40_000
BDP = RATE * DELAY // SECOND
EXTRA = {"aimd": Aimd}
NAMES = [*BUILT_IN, "aimd"]


def flow(name: str, start: int = 0) -> Flow:
    return Flow(make(name, MSS, 10 * MSS, EXTRA), start)


@pytest.mark.parametrize("name", NAMES)
def test_one_flow_uses_the_bottleneck(name: str) -> None:
    alone = flow(name)
    Bottleneck(RATE, DELAY, BDP, [alone]).run(20 * SECOND)
    assert alone.goodput(5 * SECOND, 20 * SECOND) > 0.9 * RATE


@pytest.mark.parametrize("name", NAMES)
def test_a_late_flow_gets_a_fair_share(name: str) -> None:
    flows = [flow(name), flow(name, start=5 * SECOND)]
    Bottleneck(RATE, DELAY, BDP, flows).run(60 * SECOND)
    shares = [each.goodput(30 * SECOND, 60 * SECOND) / RATE for each in flows]
    jain = sum(shares) ** 2 / (2 * sum(share * share for share in shares))
    assert jain > 0.9
    assert sum(shares) > 0.9


@pytest.mark.rule("RFC 9438 4.3")
def test_on_a_short_path_cubic_leaves_newreno_its_share() -> None:
    flows = [flow("newreno"), flow("cubic", start=SECOND)]
    Bottleneck(RATE, 10_000, 30 * MSS, flows).run(60 * SECOND)
    shares = [each.goodput(20 * SECOND, 60 * SECOND) / RATE for each in flows]
    assert min(shares) > 0.25


def test_cubic_fills_a_long_fat_path_sooner_than_newreno() -> None:
    rate, delay = 6_250_000, 100_000
    results = {}
    for name in ("newreno", "cubic"):
        alone = flow(name)
        Bottleneck(rate, delay, rate * delay // SECOND // 2, [alone]).run(15 * SECOND)
        results[name] = alone.goodput(3 * SECOND, 15 * SECOND) / rate
    assert results["cubic"] > 0.9
    assert results["cubic"] > results["newreno"] + 0.1


def test_hystart_saves_losses_and_costs_no_throughput() -> None:
    class Abrupt(Cubic):
        hystart = False

    rate, delay = 6_250_000, 100_000
    results = []
    for algorithm in (Cubic, Abrupt):
        alone = Flow(algorithm(MSS, 10 * MSS))
        Bottleneck(rate, delay, rate * delay // SECOND, [alone]).run(4 * SECOND)
        results.append((alone.losses, alone.goodput(0, 4 * SECOND)))
    assert results[0][0] * 2 < results[1][0]
    assert results[0][1] > 0.95 * results[1][1]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_path_gives_the_same_run(name: str) -> None:
    runs = []
    for _ in range(2):
        alone = flow(name)
        Bottleneck(RATE, DELAY, BDP // 2, [alone]).run(5 * SECOND)
        runs.append(alone.cwnds)
    assert runs[0] == runs[1]


@pytest.mark.parametrize("name", NAMES)
def test_it_recovers_from_a_dead_path(name: str) -> None:
    alone = flow(name)
    path = Bottleneck(RATE, DELAY, BDP, [alone])
    path.outage = (3 * SECOND, 6 * SECOND)
    path.run(15 * SECOND)
    assert alone.goodput(10 * SECOND, 15 * SECOND) > 0.85 * RATE


@pytest.mark.rule("RFC 7661 4.3", "RFC 9438 5.8")
@pytest.mark.parametrize("name", NAMES)
def test_an_application_that_sends_a_quarter_of_the_rate_does_not_earn_a_huge_window(name: str) -> None:
    modest = flow(name)
    modest.app_rate = RATE // 4
    Bottleneck(RATE, DELAY, BDP, [modest]).run(20 * SECOND)
    assert modest.goodput(5 * SECOND, 20 * SECOND) == pytest.approx(RATE // 4, rel=0.02)
    assert modest.losses == 0
    assert modest.cc.cwnd < 2 * BDP
