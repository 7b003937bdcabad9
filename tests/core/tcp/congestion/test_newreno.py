"""The base class's defaults, which NewReno is: slow start, one segment per window, half after a loss."""

import pytest

from tests.core.tcp.congestion.simulation import MSS
from umuxstack.core.tcp.congestion.base import LOSS, OPEN, RECOVERY, UNLIMITED
from umuxstack.core.tcp.congestion.newreno import NewReno
from umuxstack.core.units import Micros

NOW = Micros(1_000_000)
RTT = 20_000


def slow_starting(segments: int = 10) -> NewReno:
    return NewReno(MSS, segments * MSS)


def avoiding(segments: int = 100) -> NewReno:
    control = NewReno(MSS, 10 * MSS)
    control.cwnd = control.ssthresh = segments * MSS
    return control


def acknowledge_a_window(control: NewReno, piece: int = MSS, limited: bool = True) -> None:
    left = control.cwnd
    while left > 0:
        control.on_ack(min(piece, left), RTT, left, NOW, limited)
        left -= piece


@pytest.mark.rule("RFC 5681 3.1")
def test_slow_start_doubles_the_window_each_round_trip() -> None:
    control = slow_starting()
    acknowledge_a_window(control)
    assert control.cwnd == 20 * MSS
    acknowledge_a_window(control)
    assert control.cwnd == 40 * MSS


@pytest.mark.rule("RFC 3465 2.2")
def test_slow_start_counts_bytes_not_acknowledgements() -> None:
    split, merged = slow_starting(), slow_starting()
    acknowledge_a_window(split, piece=1)  # ACK division gains nothing
    acknowledge_a_window(merged, piece=45 * MSS)  # and an offloading receiver costs nothing
    assert split.cwnd == merged.cwnd == 20 * MSS


@pytest.mark.rule("RFC 5681 3.1")
def test_the_initial_threshold_is_arbitrarily_high() -> None:
    assert slow_starting().ssthresh == UNLIMITED


def test_slow_start_stops_at_the_threshold_and_the_rest_counts_for_avoidance() -> None:
    control = slow_starting()
    control.ssthresh = 15 * MSS
    control.on_ack(20 * MSS, RTT, 0, NOW, True)
    assert control.cwnd == 16 * MSS  # 5 to the threshold; the other 15 are a window's worth: 1 more


@pytest.mark.rule("RFC 5681 3.1")
@pytest.mark.parametrize("piece", [MSS // 3, MSS, 45 * MSS])
def test_avoidance_adds_one_segment_per_window_however_the_acknowledgements_fall(piece: int) -> None:
    control = avoiding(100)
    for _ in range(10):
        acknowledge_a_window(control, piece)
    assert 109 * MSS <= control.cwnd <= 110 * MSS


@pytest.mark.rule("RFC 7661 4.3")
def test_a_window_that_was_not_the_limit_does_not_grow() -> None:
    for control in (slow_starting(), avoiding()):
        before = control.cwnd
        acknowledge_a_window(control, limited=False)
        assert control.cwnd == before


@pytest.mark.rule("RFC 5681 3.2", "RFC 6582 3.2")
def test_a_loss_halves_the_window_once_per_recovery() -> None:
    control = avoiding(100)
    control.on_loss(100 * MSS, NOW)
    assert (control.cwnd, control.ssthresh, control.phase) == (50 * MSS, 50 * MSS, RECOVERY)
    control.on_loss(80 * MSS, NOW)
    assert control.ssthresh == 50 * MSS
    control.on_recovery_end(NOW)
    assert (control.cwnd, control.phase) == (50 * MSS, OPEN)
    control.on_loss(50 * MSS, NOW)
    assert control.ssthresh == 25 * MSS


@pytest.mark.rule("RFC 5681 3.1")
def test_the_decrease_starts_from_what_is_in_flight_if_that_is_less() -> None:
    control = avoiding(100)
    control.on_loss(40 * MSS, NOW)
    assert control.ssthresh == 20 * MSS


@pytest.mark.rule("RFC 5681 3.1")
def test_the_threshold_is_never_below_two_segments() -> None:
    control = avoiding(3)
    control.on_loss(MSS, NOW)
    assert control.ssthresh == 2 * MSS


@pytest.mark.rule("RFC 5681 3.1")
def test_a_timeout_leaves_one_segment_and_slow_start_to_half() -> None:
    control = avoiding(100)
    control.on_rto(100 * MSS, NOW)
    assert (control.cwnd, control.ssthresh, control.phase) == (MSS, 50 * MSS, LOSS)
    acknowledge_a_window(control)
    assert control.cwnd == 2 * MSS
    control.on_recovery_end(NOW)
    assert control.cwnd == 2 * MSS  # the end of this recovery is no reason to jump to the threshold


@pytest.mark.rule("RFC 5681 3.1")
def test_a_second_timeout_of_the_same_segment_holds_the_threshold() -> None:
    control = avoiding(100)
    for _ in range(5):
        control.on_rto(100 * MSS, NOW)
    assert control.ssthresh == 50 * MSS


def test_a_timeout_after_progress_decreases_again() -> None:
    control = avoiding(100)
    control.on_rto(100 * MSS, NOW)
    for _ in range(4):
        acknowledge_a_window(control)
    control.on_rto(100 * MSS, NOW)
    assert control.ssthresh == 8 * MSS


def test_a_timeout_within_fast_recovery_takes_only_one_decrease() -> None:
    control = avoiding(100)
    control.on_loss(100 * MSS, NOW)
    control.on_rto(100 * MSS, NOW)
    assert (control.cwnd, control.ssthresh) == (MSS, 50 * MSS)


@pytest.mark.rule("RFC 3168 6.1.2")
def test_a_congestion_mark_is_a_loss_without_recovery() -> None:
    control = avoiding(100)
    control.on_ecn(100 * MSS, NOW)
    assert (control.cwnd, control.ssthresh, control.phase) == (50 * MSS, 50 * MSS, OPEN)


@pytest.mark.rule("RFC 3168 6.1.2")
def test_a_mark_in_a_window_that_already_lost_changes_nothing() -> None:
    control = avoiding(100)
    control.on_loss(100 * MSS, NOW)
    control.on_ecn(100 * MSS, NOW)
    assert control.ssthresh == 50 * MSS


@pytest.mark.parametrize("event", ["on_loss", "on_rto"])
def test_undo_restores_what_a_spurious_reduction_took(event: str) -> None:
    control = avoiding(100)
    getattr(control, event)(100 * MSS, NOW)
    control.undo()
    assert (control.cwnd, control.ssthresh, control.phase) == (100 * MSS, 100 * MSS, OPEN)


def test_undo_of_a_loss_that_became_a_timeout_goes_back_before_both() -> None:
    control = avoiding(100)
    control.on_loss(100 * MSS, NOW)
    control.on_rto(100 * MSS, NOW)
    control.undo()
    assert control.cwnd == 100 * MSS


def test_undo_works_once() -> None:
    control = avoiding(100)
    control.on_loss(100 * MSS, NOW)
    control.undo()
    control.cwnd = 60 * MSS
    control.undo()
    assert control.cwnd == 60 * MSS


def test_a_mark_is_not_undone_and_ends_the_doubt_about_an_earlier_loss() -> None:
    control = avoiding(100)
    control.on_loss(100 * MSS, NOW)
    control.on_recovery_end(NOW)
    control.on_ecn(50 * MSS, NOW)
    control.undo()
    assert control.cwnd == 25 * MSS


def test_undo_after_recovery_ended_keeps_growth_since() -> None:
    control = avoiding(100)
    control.on_loss(100 * MSS, NOW)
    control.on_recovery_end(NOW)
    control.cwnd = 130 * MSS
    control.undo()
    assert control.cwnd == 130 * MSS


@pytest.mark.rule("RFC 5681 4.1")
def test_an_idle_window_halves_per_timeout_down_to_the_restart_window() -> None:
    control = avoiding(100)
    control.on_idle(250_000, 200_000)
    assert control.cwnd == 50 * MSS
    control = avoiding(100)
    control.on_idle(60_000_000, 200_000)
    assert control.cwnd == 10 * MSS


@pytest.mark.rule("RFC 7661 4.4.3")
def test_after_idleness_slow_start_finds_back_to_three_quarters() -> None:
    control = avoiding(100)
    control.ssthresh = 20 * MSS
    control.on_idle(60_000_000, 200_000)
    assert control.ssthresh == 75 * MSS


def test_idleness_shorter_than_a_timeout_and_a_small_window_change_nothing() -> None:
    control = avoiding(100)
    control.on_idle(200_000, 200_000)
    assert control.cwnd == 100 * MSS
    small = avoiding(4)
    small.on_idle(60_000_000, 200_000)
    assert (small.cwnd, small.ssthresh) == (4 * MSS, 4 * MSS)


def test_a_new_mss_keeps_the_bytes_but_at_least_one_segment() -> None:
    control = avoiding(100)
    control.on_mss(1220)
    assert (control.mss, control.cwnd) == (1220, 100 * MSS)
    control.cwnd = 1220
    control.on_mss(8940)
    assert control.cwnd == 8940


def test_reno_does_not_pace() -> None:
    assert slow_starting().pacing_rate(RTT) == 0


def test_the_state_says_what_it_is_and_where() -> None:
    control = slow_starting()
    assert control.state() == {"name": "newreno", "phase": "open", "cwnd": 10 * MSS, "ssthresh": None}
    control.on_rto(10 * MSS, NOW)
    assert control.state() == {"name": "newreno", "phase": "loss", "cwnd": MSS, "ssthresh": 5 * MSS}
