"""CUBIC: the window is a cubic function of the time since the last loss.

Integers throughout, so a recorded run replays to the byte. Invariant: the
window never grows by more than half of itself per round trip. RFC 9438 (its
names in comments; windows here are bytes, not segments), RFC 9406 in slow start.
"""

# UM-35.q

from typing import ClassVar, Final

from mypy_extensions import mypyc_attr

from umuxstack.core.tcp.congestion.base import UNLIMITED, CongestionControl, RateSample
from umuxstack.core.tcp.congestion.hystart import HyStart
from umuxstack.core.units import Micros

NO_EPOCH: Final = Micros(-1)
# C = 0.4 segments per cubed second; W(t) - W_max = mss * SCALE_UP * microseconds**3 // SCALE_DOWN
SCALE_UP: Final = 4
SCALE_DOWN: Final = 10 * 10**18
# RFC 9438 4.3: alpha_cubic = 3 * (1 - beta) / (1 + beta) = 9/17 for beta = 0.7
ALPHA_UP: Final = 9
ALPHA_DOWN: Final = 17


def cube_root(value: int) -> int:
    """The largest integer whose cube is not above `value` (>= 0)."""
    if value <= 0:
        return 0
    root = 1 << -(-value.bit_length() // 3)  # not below the root, so Newton's steps only fall
    while True:
        lower = (2 * root + value // (root * root)) // 3
        if lower >= root:
            return root
        root = lower


@mypyc_attr(allow_interpreted_subclasses=True)
class Cubic(CongestionControl):
    """RFC 9438 with fast convergence, the Reno-friendly region and HyStart++."""

    name: ClassVar[str] = "cubic"
    beta: ClassVar[float] = 0.7  # beta_cubic
    hystart: ClassVar[bool] = True
    fast_convergence: ClassVar[bool] = True

    __slots__ = ("cwnd_before", "epoch", "est", "est_credit", "idle_since", "k", "saved", "slow", "w_max")

    def __init__(self, mss: int, initial_window_bytes: int) -> None:
        super().__init__(mss, initial_window_bytes)
        self.w_max = 0  # bytes; 0: the epoch begins on the plateau (K = 0, W_max = cwnd)
        self.k = 0  # microseconds
        self.epoch: Micros = NO_EPOCH  # epoch_start
        self.est = 0  # W_est, bytes
        self.est_credit = 0
        self.cwnd_before = 0  # cwnd_prior
        self.idle_since: Micros = NO_EPOCH  # since when the window has not been the limit
        self.slow: HyStart | None = None
        self.saved: tuple[int, int, Micros, int, int] | None = None

    def on_ack(
        self, acked: int, rtt: int, in_flight: int, now: Micros, limited: bool, sample: RateSample | None = None
    ) -> None:
        if not limited:
            if self.idle_since == NO_EPOCH:
                self.idle_since = now
            return
        if self.idle_since != NO_EPOCH:
            # RFC 9438 4.2: the elapsed time "MUST NOT include periods during which cwnd has not been updated
            # due to application-limited behavior"
            if self.epoch != NO_EPOCH:
                self.epoch = Micros(self.epoch + now - self.idle_since)
            self.idle_since = NO_EPOCH
        if self.cwnd < self.ssthresh:
            if self.hystart and self.ssthresh == UNLIMITED:  # RFC 9406 4.3: the initial slow start only
                if self.slow is None:
                    self.slow = HyStart()
                self.cwnd += self.slow.grow(acked, rtt, in_flight)
                if self.slow.done:
                    self.ssthresh = self.cwnd
                    self.slow = None
                return
            acked = self.slow_start(acked)
            if not acked:
                return
        self.increase(acked, rtt, now)

    def increase(self, acked: int, rtt: int, now: Micros) -> None:
        if self.epoch == NO_EPOCH:
            self._start_epoch(now)
        cwnd = self.cwnd
        # RFC 9438 4.3, figure 4: W_est grows as Reno would, a little slower until it is back where it was
        est_up = ALPHA_UP if self.est < self.cwnd_before else ALPHA_DOWN
        grown, self.est_credit = divmod(self.est_credit + acked * self.mss * est_up, cwnd * ALPHA_DOWN)
        self.est += grown
        elapsed = max(0, now - self.epoch)
        if cwnd <= self.est and self.window(elapsed) < self.est:  # the Reno-friendly region
            self.cwnd = self.est
            return
        # RFC 9438 4.2: the target is W_cubic(t + RTT), not below cwnd and not above 1.5 cwnd
        target = min(self.window(elapsed + rtt), cwnd + cwnd // 2)
        if target > cwnd:
            self.add_per_window(acked, target - cwnd)

    def decrease(self, in_flight: int, now: Micros) -> int:
        cwnd = self.cwnd
        # RFC 9438 4.7: who has not come back to the last maximum leaves room for a newcomer
        if self.fast_convergence and cwnd < self.w_max:
            self.w_max = round(cwnd * (1 + self.beta) / 2)
        else:
            self.w_max = cwnd
        self.cwnd_before = cwnd
        self.epoch = NO_EPOCH
        self.slow = None
        return super().decrease(in_flight, now)

    def on_rto(self, in_flight: int, now: Micros) -> None:
        super().on_rto(in_flight, now)
        self.w_max = 0  # RFC 9438 4.8: K = 0 and W_max = cwnd when congestion avoidance begins again
        self.epoch = NO_EPOCH

    def on_idle(self, idle: int, rto: int) -> None:
        if idle <= rto:
            return
        super().on_idle(idle, rto)
        if self.epoch != NO_EPOCH and self.idle_since == NO_EPOCH:
            self.epoch = Micros(self.epoch + idle)
        self.slow = None  # its rounds are stale

    def undo(self) -> None:
        if self.prior_cwnd and self.saved is not None:  # RFC 9438 4.9
            self.w_max, self.k, self.epoch, self.est, self.cwnd_before = self.saved
        self.saved = None
        super().undo()

    def on_mss(self, mss: int) -> None:
        super().on_mss(mss)
        self.epoch = NO_EPOCH  # C is in segments: K must be computed anew

    def state(self) -> dict[str, object]:
        return super().state() | {
            "w_max": self.w_max,
            "w_est": self.est,
            "k": self.k,
            "hystart": "done" if self.ssthresh != UNLIMITED else "css" if self.slow and self.slow.in_css else "on",
        }

    def window(self, elapsed: int) -> int:
        """W_cubic in bytes, `elapsed` microseconds after the epoch's start (RFC 9438 figure 1)."""
        distance: int = elapsed - self.k
        return self.mss * SCALE_UP * distance**3 // SCALE_DOWN + self.w_max

    def _start_epoch(self, now: Micros) -> None:
        self.epoch = now
        self.est = self.cwnd
        self.est_credit = 0
        self.credit = 0
        if self.cwnd < self.w_max:
            self.k = cube_root((self.w_max - self.cwnd) * SCALE_DOWN // (SCALE_UP * self.mss))
        else:
            self.k = 0
            self.w_max = self.cwnd

    def _save(self) -> None:
        super()._save()
        self.saved = (self.w_max, self.k, self.epoch, self.est, self.cwnd_before)
