"""BBR, version 1: sends at the rate the path was seen to deliver, and keeps the queue short.

Owns the model of one path: bottleneck bandwidth (maximum over ten rounds) and
round-trip propagation time (minimum over ten seconds). Needs pacing and rate
samples from TCP. The phase of its gain cycle comes from the clock, not from
a random source, so runs replay. draft-cardwell-iccrg-bbr-congestion-control-00 (its names are kept).
"""

from typing import ClassVar, Final

from mypy_extensions import mypyc_attr

from umuxstack.core.tcp.congestion.base import LOSS, OPEN, RECOVERY, CongestionControl, RateSample
from umuxstack.core.units import Micros

STARTUP: Final = 0
DRAIN: Final = 1
PROBE_BW: Final = 2
PROBE_RTT: Final = 3
MODES: Final = ("startup", "drain", "probe_bw", "probe_rtt")

HIGH_GAIN: Final = 2.885  # 2/ln(2): the least that doubles the delivery rate each round
CYCLE: Final[tuple[float, ...]] = (1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
CWND_GAIN: Final = 2.0
BANDWIDTH_ROUNDS: Final = 10
RTPROP_WINDOW: Final = 10_000_000  # microseconds
PROBE_RTT_TIME: Final = 200_000
MIN_SEGMENTS: Final = 4
STARTUP_RTT: Final = 1_000  # assumed for pacing until an RTT is known
LARGEST_BURST: Final = 65_536  # one super-segment

_UNKNOWN: Final = 1 << 62


@mypyc_attr(allow_interpreted_subclasses=True)
class Bbr(CongestionControl):
    """Model-based; a loss only bounds what is in flight for a round, it does not change the model."""

    name: ClassVar[str] = "bbr"
    wants_samples: ClassVar[bool] = True
    own_recovery: ClassVar[bool] = True
    hears_ecn: ClassVar[bool] = False

    __slots__ = (
        "conserve",
        "cycle_at",
        "cycle_index",
        "delivered",
        "full_count",
        "full_rate",
        "kept_cwnd",
        "lost",
        "low_until",
        "maxima",
        "mode",
        "next_round",
        "pace",
        "probe_until",
        "restarted",
        "round",
        "rtprop",
        "rtprop_at",
    )

    def __init__(self, mss: int, initial_window_bytes: int) -> None:
        super().__init__(mss, initial_window_bytes)
        self.mode = STARTUP
        self.maxima: tuple[tuple[int, int], ...] = ()  # (round, bytes per second), falling: the windowed maximum
        self.rtprop = _UNKNOWN
        self.rtprop_at = 0
        self.round = 0
        self.next_round = 0  # a round ends when data sent after this many delivered bytes is acknowledged
        self.delivered = 0  # TCP's total, as of the last sample
        self.full_rate = 0  # full_bw: the rate that STARTUP must beat by a quarter
        self.full_count = 0  # rounds in which it did not; 3: the pipe is full
        self.cycle_index = 0
        self.cycle_at = 0
        self.probe_until = 0  # 0: waiting for the window to drain
        self.kept_cwnd = 0  # before recovery or PROBE_RTT
        self.conserve = 0  # total delivered up to which recovery lets out only what came in; 0: no such limit
        self.lost = False  # since this phase of the cycle began
        self.low_until = -1  # samples of data sent up to this total are low for reasons of our own
        self.restarted = False  # from idle: an old rtprop is no reason to probe
        self.pace = 0  # bytes per second; 0: no bandwidth sample yet

    # What TCP reports

    def on_ack(
        self, acked: int, rtt: int, in_flight: int, now: Micros, limited: bool, sample: RateSample | None = None
    ) -> None:
        round_start = self._update_rate(sample) if sample is not None else False
        self._update_mode(round_start, sample, in_flight, now)
        self._update_rtprop(rtt, in_flight, now)
        self._set_pace()
        self._set_cwnd(acked, in_flight)

    def on_loss(self, in_flight: int, now: Micros) -> None:
        self.lost = True
        if self.phase == OPEN:
            self._keep()
            self._save()
            self.phase = RECOVERY
            self.conserve = max(self.delivered, 1)

    def on_rto(self, in_flight: int, now: Micros) -> None:
        self.lost = True
        if self.phase == OPEN:
            self._keep()
            self._save()
        self.phase = LOSS
        self.conserve = 0
        self.cwnd = self.mss

    def on_recovery_end(self, now: Micros) -> None:
        self.phase = OPEN
        self.conserve = 0
        self.cwnd = max(self.cwnd, self.kept_cwnd)

    def on_ecn(self, in_flight: int, now: Micros) -> None:
        """Version 1 has no answer to a mark; `hears_ecn` says so."""

    def on_idle(self, idle: int, rto: int) -> None:
        """The model stays: pacing, not the window, keeps a restart from being a burst."""
        if idle > rto:
            self.restarted = True

    def undo(self) -> None:
        if self.mode == STARTUP:  # the rounds without growth may have been the false loss's doing
            self.full_rate = self.full_count = 0
        self.phase = OPEN
        self.conserve = 0
        self.cwnd = max(self.cwnd, self.kept_cwnd)

    def pacing_rate(self, srtt: int) -> int:
        return self.pace or int(HIGH_GAIN * self.cwnd * 1_000_000) // (srtt or STARTUP_RTT)

    def state(self) -> dict[str, object]:
        return super().state() | {
            "mode": MODES[self.mode],
            "bandwidth": self.bandwidth,
            "rtprop": None if self.rtprop == _UNKNOWN else self.rtprop,
            "pacing_rate": self.pace,
            "round": self.round,
        }

    # The model

    @property
    def bandwidth(self) -> int:
        """BtlBw: bytes per second, 0 before the first sample."""
        return self.maxima[0][1] if self.maxima else 0

    def inflight(self, gain: float) -> int:
        """`gain` times the bandwidth-delay product, and room for offloads and delayed acknowledgements."""
        if self.rtprop == _UNKNOWN or not self.maxima:
            return self.initial
        return int(gain * self.bandwidth * self.rtprop) // 1_000_000 + 3 * self._quantum()

    def _quantum(self) -> int:
        # 4.2.2: below 24 Mbit/s two segments at most go out at once, above it what a millisecond carries
        if self.pace < 150_000:
            return self.mss
        if self.pace < 3_000_000:
            return 2 * self.mss
        return min(self.pace // 1_000, LARGEST_BURST)

    def _update_rate(self, sample: RateSample) -> bool:
        """True if a round trip ended."""
        self.delivered = sample.prior_delivered + sample.delivered
        if not sample.interval:
            return False
        round_start = sample.prior_delivered >= self.next_round
        if round_start:
            self.round += 1
            self.next_round = self.delivered
        rate = sample.delivered * 1_000_000 // sample.interval
        low = sample.app_limited or self.mode == PROBE_RTT or sample.prior_delivered <= self.low_until
        if not low or rate >= self.bandwidth:  # a rate that we held down ourselves says nothing about the path
            oldest = self.round - BANDWIDTH_ROUNDS
            self.maxima = (
                *(entry for entry in self.maxima if entry[1] > rate and entry[0] > oldest),
                (self.round, rate),
            )
            if len(self.maxima) > 1 and self.maxima[-2][0] == self.round:
                self.maxima = self.maxima[:-1]  # one entry per round, the largest
        return round_start

    def _update_mode(self, round_start: bool, sample: RateSample | None, in_flight: int, now: Micros) -> None:
        if self.mode == STARTUP:
            if round_start and sample is not None and not sample.app_limited and self.full_count < 3:
                if self.bandwidth * 4 >= self.full_rate * 5:
                    self.full_rate = self.bandwidth
                    self.full_count = 0
                else:
                    self.full_count += 1
            if self.full_count >= 3:
                self.mode = DRAIN
        if self.mode == DRAIN and in_flight <= self.inflight(1.0):
            self._enter_probe_bw(now)
        if self.mode == PROBE_BW:
            gain = CYCLE[self.cycle_index]
            over = now - self.cycle_at > self.rtprop
            if gain > 1:
                over = over and (self.lost or in_flight >= self.inflight(gain))
            elif gain < 1:
                over = over or in_flight <= self.inflight(1.0)
            if over:
                self.cycle_index = (self.cycle_index + 1) % len(CYCLE)
                self.cycle_at = now
                self.lost = False

    def _enter_probe_bw(self, now: Micros) -> None:
        # Flows should not probe in step, so the draft draws a phase (any but the draining one). The clock's
        # low digits and the measured rate scatter as well and replay.
        draw = ((now ^ self.bandwidth) * 2_654_435_761 >> 7) % (len(CYCLE) - 1)
        self.mode = PROBE_BW
        self.cycle_index = 0 if draw == 0 else draw + 1
        self.cycle_at = now
        self.lost = False

    def _update_rtprop(self, rtt: int, in_flight: int, now: Micros) -> None:
        stale = self.rtprop != _UNKNOWN and now - self.rtprop_at > RTPROP_WINDOW
        if rtt and (rtt <= self.rtprop or stale):
            self.rtprop = rtt
            self.rtprop_at = now
        if stale and not self.restarted and self.mode != PROBE_RTT:
            self._keep()
            self.mode = PROBE_RTT
            self.probe_until = 0
        self.restarted = False
        if self.mode == PROBE_RTT:
            if not self.probe_until:
                if in_flight <= MIN_SEGMENTS * self.mss:
                    self.probe_until = now + max(PROBE_RTT_TIME, self.rtprop)
            elif now >= self.probe_until:
                self.rtprop_at = now
                self.cwnd = max(self.cwnd, self.kept_cwnd)
                self.low_until = self.delivered + in_flight
                if self.full_count >= 3:
                    self._enter_probe_bw(now)
                else:
                    self.mode = STARTUP

    # The controls

    def _gain(self) -> float:
        if self.mode == STARTUP:
            return HIGH_GAIN
        if self.mode == DRAIN:
            return 1 / HIGH_GAIN
        return CYCLE[self.cycle_index] if self.mode == PROBE_BW else 1.0

    def _set_pace(self) -> None:
        rate = int(self._gain() * self.bandwidth)
        if rate and (self.full_count >= 3 or rate > self.pace):  # 4.2.1: while STARTUP lasts, never slower
            self.pace = rate

    def _set_cwnd(self, acked: int, in_flight: int) -> None:
        floor = MIN_SEGMENTS * self.mss
        if self.mode == PROBE_RTT:
            self.cwnd = min(self.cwnd, floor)
            return
        if self.conserve:
            # 4.2.3.4: for the first round of recovery only what left the network is replaced
            if self.next_round > self.conserve:
                self.conserve = 0
            else:
                self.cwnd = max(in_flight + acked, floor)
                return
        target = self.inflight(HIGH_GAIN if self.mode in (STARTUP, DRAIN) else CWND_GAIN)
        if self.full_count >= 3:
            self.cwnd = min(self.cwnd + acked, target)
        elif self.cwnd < target or self.delivered < self.initial:
            self.cwnd += acked
        self.cwnd = max(self.cwnd, floor)

    def _keep(self) -> None:
        if self.phase == OPEN and self.mode != PROBE_RTT:
            self.kept_cwnd = self.cwnd
        else:
            self.kept_cwnd = max(self.kept_cwnd, self.cwnd)
