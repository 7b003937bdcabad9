"""BBR: the model found on a simulated path, and its modes."""

import pytest

from tests.core.tcp.congestion.simulation import MSS, SECOND, Bottleneck, Flow
from umuxstack.core.tcp.congestion.base import RateSample
from umuxstack.core.tcp.congestion.bbr import CYCLE, DRAIN, HIGH_GAIN, PROBE_BW, PROBE_RTT, STARTUP, Bbr
from umuxstack.core.units import Micros

RATE = 1_250_000  # bytes per second: 10 Mbit/s
DELAY = 40_000
BDP = RATE * DELAY // SECOND


def on_a_path(
    duration: int, buffer: int = 4 * BDP, rate: int = RATE, delay: int = DELAY
) -> tuple[Flow, Bbr, Bottleneck]:
    control = Bbr(MSS, 10 * MSS)
    flow = Flow(control)
    path = Bottleneck(rate, delay, buffer, [flow])
    path.run(duration)
    return flow, control, path


@pytest.mark.parametrize("rate", [250_000, RATE, 10 * RATE])
def test_it_finds_the_bottlenecks_bandwidth_and_round_trip_time(rate: int) -> None:
    flow, control, _ = on_a_path(5 * SECOND, buffer=4 * rate * DELAY // SECOND, rate=rate)
    assert control.bandwidth == pytest.approx(rate, rel=0.05)
    assert control.rtprop == pytest.approx(DELAY + MSS * SECOND // rate, rel=0.1)
    assert flow.goodput(2 * SECOND, 5 * SECOND) > 0.95 * rate


def test_it_does_not_fill_a_large_buffer_as_loss_based_control_would() -> None:
    flow, _, path = on_a_path(10 * SECOND, buffer=20 * BDP)
    late = [queue for time, queue in path.queue_samples if time > 3 * SECOND]
    assert sum(late) / len(late) < BDP
    assert flow.losses == 0


def test_a_little_random_loss_does_not_slow_it() -> None:
    control = Bbr(MSS, 10 * MSS)
    flow = Flow(control)
    path = Bottleneck(RATE, DELAY, 4 * BDP, [flow])
    path.lose_every = 100
    path.run(10 * SECOND)
    assert flow.losses > 50
    assert flow.goodput(3 * SECOND, 10 * SECOND) > 0.9 * RATE


def test_the_modes_follow_each_other_from_startup_to_probing() -> None:
    flow, _, _ = on_a_path(2 * SECOND, buffer=8 * BDP)
    assert flow.modes == [STARTUP, DRAIN, PROBE_BW]


def test_the_round_trip_time_is_probed_with_four_segments_every_ten_seconds() -> None:
    flow, control, _ = on_a_path(12 * SECOND)
    low = [time for time, cwnd in flow.cwnds if cwnd == 4 * MSS]
    assert 10 * SECOND <= low[0] <= 11 * SECOND
    assert 200_000 <= low[-1] - low[0] <= 500_000
    assert control.mode == PROBE_BW
    assert control.bandwidth == pytest.approx(RATE, rel=0.05)  # the low rate of those rounds was not believed
    assert flow.goodput(11 * SECOND, 12 * SECOND) > 0.9 * RATE


def test_probing_the_round_trip_time_for_many_rounds_leaves_the_model_and_the_window() -> None:
    delay = 8_000  # 200 ms are more rounds than the bandwidth is remembered for
    rate = 10 * RATE
    flow, control, _ = on_a_path(11 * SECOND, buffer=16 * BDP, rate=rate, delay=delay)
    low = [index for index, (time, cwnd) in enumerate(flow.cwnds) if cwnd == 4 * MSS and time > SECOND]
    before, after = flow.cwnds[low[0] - 1][1], flow.cwnds[low[-1] + 1][1]
    assert after >= before
    assert control.bandwidth == pytest.approx(rate, rel=0.05)
    assert all(cwnd > 0.9 * before for _, cwnd in flow.cwnds[low[-1] + 1 :])


def test_the_draining_phase_ends_as_soon_as_the_queue_is_gone() -> None:
    _, control, _ = on_a_path(3 * SECOND)
    now = 3 * SECOND
    for in_flight, ends in ((10 * BDP, False), (BDP // 2, True)):
        control.cycle_index, control.cycle_at = CYCLE.index(0.75), now
        control.on_ack(MSS, DELAY, in_flight, Micros(now + 1), True, None)
        assert (control.cycle_index != CYCLE.index(0.75)) is ends


def test_an_application_that_sends_little_does_not_lower_the_estimate() -> None:
    control = Bbr(MSS, 10 * MSS)
    sample = RateSample()
    sample.delivered, sample.interval = 40_000, 20_000  # 2 MB/s
    control.on_ack(MSS, 20_000, 0, Micros(0), True, sample)
    for step in range(1, 50):
        sample.prior_delivered = 40_000 * step
        sample.delivered, sample.interval, sample.app_limited = 4_000, 20_000, True
        control.on_ack(MSS, 20_000, 0, Micros(step * 20_000), False, sample)
    assert control.bandwidth == 2_000_000


def test_the_bandwidth_is_forgotten_after_ten_rounds() -> None:
    control = Bbr(MSS, 10 * MSS)
    sample = RateSample()
    total = 0
    for step in range(12):
        sample.prior_delivered = total
        sample.delivered, sample.interval = (40_000 if step == 0 else 20_000), 20_000
        total += sample.delivered
        control.on_ack(MSS, 20_000, 0, Micros(step * 20_000), True, sample)
        assert control.bandwidth == (2_000_000 if step < 10 else 1_000_000), step


def test_before_any_sample_it_paces_by_window_and_round_trip_time() -> None:
    control = Bbr(MSS, 10 * MSS)
    assert control.pacing_rate(100_000) == int(HIGH_GAIN * 10 * MSS * SECOND) // 100_000
    assert control.pacing_rate(0) > control.pacing_rate(100_000)


def test_recovery_replaces_what_left_and_restores_the_window_at_its_end() -> None:
    _, control, _ = on_a_path(3 * SECOND)
    before = control.cwnd
    control.on_loss(before, Micros(3 * SECOND))
    control.on_ack(MSS, DELAY, 10 * MSS, Micros(3 * SECOND), True, None)
    assert control.cwnd == 11 * MSS
    control.on_recovery_end(Micros(3 * SECOND))
    assert control.cwnd == before


def test_a_timeout_goes_to_one_segment_and_the_model_survives() -> None:
    _, control, _ = on_a_path(3 * SECOND)
    before, bandwidth = control.cwnd, control.bandwidth
    control.on_rto(before, Micros(3 * SECOND))
    assert control.cwnd == MSS
    control.undo()
    assert (control.cwnd, control.bandwidth) == (before, bandwidth)


def test_idleness_does_not_send_it_to_probe_the_round_trip_time() -> None:
    _, control, _ = on_a_path(3 * SECOND)
    control.on_idle(60 * SECOND, 200_000)
    control.on_ack(MSS, DELAY, 0, Micros(63 * SECOND), True, None)
    assert control.mode != PROBE_RTT
    other = on_a_path(3 * SECOND)[1]
    other.on_ack(MSS, DELAY, 20 * MSS, Micros(63 * SECOND), True, None)
    assert other.mode == PROBE_RTT


def test_the_first_phase_of_the_cycle_varies_replays_and_never_drains() -> None:
    def first(now: int) -> int:
        control = Bbr(MSS, 10 * MSS)
        control._enter_probe_bw(Micros(now))
        return control.cycle_index

    phases = [first(now) for now in range(0, 1_000_000, 4_321)]
    assert phases == [first(now) for now in range(0, 1_000_000, 4_321)]
    assert {CYCLE[phase] for phase in phases} == {1.25, 1.0}
    assert set(phases) == {0, 2, 3, 4, 5, 6, 7}
