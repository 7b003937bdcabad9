"""CUBIC against its formulas, computed here in floating point and in segments."""

import pytest

from tests.core.tcp.congestion.simulation import MSS, SECOND
from umuxstack.core.tcp.congestion.base import OPEN, UNLIMITED
from umuxstack.core.tcp.congestion.cubic import Cubic, cube_root
from umuxstack.core.units import Micros

RTT = 100_000
C = 0.4
BETA = 0.7


def after_a_loss(segments: int = 1000, now: int = 0) -> Cubic:
    control = Cubic(MSS, 10 * MSS)
    control.cwnd = control.ssthresh = segments * MSS
    control.on_loss(segments * MSS, Micros(now))
    control.on_recovery_end(Micros(now))
    return control


def run(control: Cubic, begin: int, duration: int, rtt: int = RTT, pieces: int = 20) -> dict[int, float]:
    """Full windows acknowledged in `pieces` per round trip; returns cwnd in segments by time since `begin`."""
    seen = {}
    for step in range(duration * pieces // rtt):
        now = begin + step * rtt // pieces
        control.on_ack(control.cwnd // pieces, rtt, control.cwnd, Micros(now), True)
        seen[now - begin] = control.cwnd / MSS
    return seen


def w_cubic(seconds: float, w_max: float) -> float:
    k = (w_max * (1 - BETA) / C) ** (1 / 3)
    return float(C * (seconds - k) ** 3 + w_max)


@pytest.mark.rule("RFC 9438 4.2")
def test_the_window_follows_the_cubic_function_through_plateau_and_beyond() -> None:
    control = after_a_loss(1000)
    seen = run(control, 0, 16 * SECOND)
    for time, cwnd in seen.items():
        if time > SECOND:
            assert cwnd == pytest.approx(w_cubic(time / SECOND, 1000), rel=0.02), time
    k = (1000 * (1 - BETA) / C) ** (1 / 3)
    assert seen[9_000_000] < 1000 < seen[10_000_000 - 100_000]  # back at W_max after K, about 9.1 seconds
    assert 9 < k < 9.9


@pytest.mark.rule("RFC 9438 4.2")
def test_growth_depends_on_time_not_on_the_round_trip_time() -> None:
    near = run(after_a_loss(1000), 0, 8 * SECOND, rtt=50_000)
    far = run(after_a_loss(1000), 0, 8 * SECOND, rtt=200_000)
    assert near[7_800_000] == pytest.approx(far[7_800_000], rel=0.02)


@pytest.mark.rule("RFC 9438 4.2")
def test_the_window_never_grows_by_more_than_half_per_round_trip() -> None:
    control = after_a_loss(100)
    control.increase(MSS, RTT, Micros(0))
    before = control.cwnd
    for _ in range(20):  # one window's worth, an hour later: the function is far beyond
        control.on_ack(before // 20, RTT, before, Micros(3600 * SECOND), True)
    assert before * 1.4 < control.cwnd <= before * 1.65  # compound over 20 pieces


@pytest.mark.rule("RFC 9438 4.3")
def test_on_a_short_path_it_grows_at_least_as_reno_would() -> None:
    control = after_a_loss(20)
    assert control.cwnd == 14 * MSS
    seen = run(control, 0, SECOND, rtt=10_000)
    alpha = 3 * (1 - BETA) / (1 + BETA)
    to_prior = 6 / alpha  # round trips at alpha until W_est is back at cwnd_prior
    expected = 20 + (100 - to_prior) * 1.0
    assert seen[max(seen)] == pytest.approx(expected, rel=0.03)
    assert expected > w_cubic(1.0, 20)


@pytest.mark.rule("RFC 9438 4.6")
def test_a_loss_leaves_seven_tenths() -> None:
    control = after_a_loss(1000)
    assert control.cwnd == control.ssthresh == 700 * MSS
    assert control.w_max == 1000 * MSS


@pytest.mark.rule("RFC 9438 4.7")
def test_fast_convergence_gives_way_when_the_last_maximum_was_not_reached() -> None:
    control = after_a_loss(1000)
    control.cwnd = 900 * MSS
    control.on_loss(900 * MSS, Micros(0))
    assert control.w_max == round(900 * MSS * (1 + BETA) / 2)
    control.on_recovery_end(Micros(0))
    control.cwnd = 950 * MSS  # above the lowered maximum: no newcomer in sight
    control.on_loss(950 * MSS, Micros(0))
    assert control.w_max == 950 * MSS


@pytest.mark.rule("RFC 9438 4.8")
def test_after_a_timeout_growth_starts_on_the_plateau_of_the_window_then() -> None:
    control = after_a_loss(1000)
    control.on_rto(700 * MSS, Micros(0))
    assert control.cwnd == MSS
    control.on_recovery_end(Micros(0))
    control.cwnd = control.ssthresh
    at = control.cwnd
    control.on_ack(MSS, RTT, at, Micros(SECOND), True)
    assert (control.k, control.w_max) == (0, at)


@pytest.mark.rule("RFC 9438 4.9")
@pytest.mark.parametrize("event", ["on_loss", "on_rto"])
def test_undo_puts_the_whole_cubic_state_back(event: str) -> None:
    control = after_a_loss(1000)
    run(control, 0, 5 * SECOND)
    before = (control.cwnd, control.ssthresh, control.w_max, control.k, control.epoch, control.est)
    getattr(control, event)(control.cwnd, Micros(5 * SECOND))
    assert control.cwnd < before[0]
    control.undo()
    assert (control.cwnd, control.ssthresh, control.w_max, control.k, control.epoch, control.est) == before
    assert control.phase == OPEN


@pytest.mark.rule("RFC 9438 4.2", "RFC 9438 5.8")
def test_time_without_need_for_the_window_does_not_count() -> None:
    steady, pausing = after_a_loss(1000), after_a_loss(1000)
    expected = run(steady, 0, 6 * SECOND)
    run(pausing, 0, 3 * SECOND)
    at_pause = pausing.cwnd
    for time in range(3 * SECOND, 60 * SECOND, RTT):
        pausing.on_ack(MSS, RTT, 0, Micros(time), False)
    assert pausing.cwnd == at_pause
    seen = run(pausing, 60 * SECOND, 3 * SECOND)
    assert seen[max(seen)] == pytest.approx(expected[max(expected)], rel=0.01)


def test_idleness_shifts_the_epoch_and_shrinks_the_window() -> None:
    control = after_a_loss(1000)
    run(control, 0, 3 * SECOND)
    epoch = control.epoch
    control.on_idle(SECOND, 200_000)
    assert control.epoch == epoch + SECOND
    assert control.cwnd < 50 * MSS
    control.on_idle(100_000, 200_000)
    assert control.epoch == epoch + SECOND


@pytest.mark.rule("RFC 3168 6.1.2", "RFC 9438 4.6")
def test_a_mark_sets_a_new_maximum() -> None:
    control = after_a_loss(1000)
    control.cwnd = 1200 * MSS
    control.on_ecn(1200 * MSS, Micros(0))
    assert (control.w_max, control.cwnd) == (1200 * MSS, 840 * MSS)


def test_cube_root_is_exact() -> None:
    for root in (0, 1, 2, 7, 1000, 9_085_603, 10**12):
        assert cube_root(root**3) == root
        if root:
            assert cube_root(root**3 - 1) == root - 1
            assert cube_root(root**3 + 1) == max(root, 1)
    assert cube_root(-5) == 0


# HyStart++


def rounds(control: Cubic, rtts: list[int]) -> list[float]:
    """One round trip of full windows per entry, acknowledged in 20 pieces; the growth factor of each."""
    factors = []
    for index, rtt in enumerate(rtts):
        before = control.cwnd
        for piece in range(20):
            left = before - (piece + 1) * (before // 20)
            # The pipe refills behind each acknowledgement, so a window is always on its way.
            control.on_ack(before // 20, rtt, before if piece == 19 else max(left, before), Micros(index * rtt), True)
        factors.append(control.cwnd / before)
    return factors


@pytest.mark.rule("RFC 9406 4.2")
def test_slow_start_doubles_while_the_delay_is_steady() -> None:
    control = Cubic(MSS, 100 * MSS)
    assert all(factor == pytest.approx(2, rel=0.01) for factor in rounds(control, [RTT] * 6))
    assert control.ssthresh == UNLIMITED


@pytest.mark.rule("RFC 9406 4.2")
def test_growing_delay_slows_slow_start_and_ends_it_after_five_rounds() -> None:
    control = Cubic(MSS, 100 * MSS)
    factors = rounds(control, [RTT] * 3 + [RTT + 20_000] * 20)
    assert factors[1] == pytest.approx(2, rel=0.01)
    assert any(factor == pytest.approx(1.25, rel=0.01) for factor in factors)
    assert control.ssthresh < UNLIMITED
    assert max(factors[-5:]) < 1.1
    assert control.slow is None


@pytest.mark.rule("RFC 9406 4.2")
def test_a_delay_that_was_only_a_passing_one_lets_slow_start_resume() -> None:
    control = Cubic(MSS, 100 * MSS)
    factors = rounds(control, [RTT] * 3 + [RTT + 20_000] * 2 + [RTT] * 5)
    assert min(factors) < 1.6
    assert factors[-1] == pytest.approx(2, rel=0.01)
    assert control.ssthresh == UNLIMITED


@pytest.mark.rule("RFC 9406 4.2")
def test_a_small_rise_of_the_delay_is_no_sign() -> None:
    control = Cubic(MSS, 100 * MSS)
    rounds(control, [20_000] * 3 + [23_900] * 5)  # under MIN_RTT_THRESH, 4 ms
    assert control.state()["hystart"] == "on"
    rounds(control, [28_000] * 2)
    assert control.state()["hystart"] == "css"


def test_slow_start_after_a_loss_does_without_hystart() -> None:
    control = after_a_loss(1000)
    control.on_rto(700 * MSS, Micros(0))
    control.on_ack(MSS, RTT, MSS, Micros(0), True)
    assert (control.cwnd, control.slow) == (2 * MSS, None)
