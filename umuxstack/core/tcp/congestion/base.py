"""Congestion control: how many bytes may be on their way, and how fast they leave.

Owns the congestion window and the slow start threshold of one session. Must
not know segments, sequence numbers or timers: TCP detects losses, repairs them
(RFC 6675, PRR of RFC 6937) and reports here. Invariant: `cwnd` >= one `mss`.
RFC 5681, RFC 3465, RFC 3168 6.1.2. How to write another one: docs/congestion.md.
"""

# RFC 9293 appendix B: MUST-19; UM-35.p

from typing import ClassVar, Final

from mypy_extensions import mypyc_attr

from umuxstack.core.units import Micros

UNLIMITED: Final = 1 << 62
"""The first `ssthresh`: RFC 5681 3.1 wants it "arbitrarily high"."""

OPEN: Final = 0  # nothing lost that is not repaired
RECOVERY: Final = 1  # fast recovery: TCP itself decides what to send (PRR)
LOSS: Final = 2  # after a retransmission timeout: slow start from one segment
PHASES: Final = ("open", "recovery", "loss")


class RateSample:
    """What one acknowledgement tells about the path; TCP fills the same object again for each.

    After draft-cheng-iccrg-delivery-rate-estimation. `prior_delivered` is the session's total of
    delivered bytes when the newest acknowledged segment was sent, so the total now is
    `prior_delivered + delivered`.
    """

    __slots__ = ("app_limited", "delivered", "interval", "prior_delivered", "rtt")

    def __init__(self) -> None:
        self.delivered = 0  # bytes delivered in the interval
        self.interval = 0  # microseconds; 0: no valid sample
        self.rtt = 0  # microseconds, the newest measured by this acknowledgement; 0: none
        self.app_limited = False  # the sender had too little to send: the rate is a lower bound
        self.prior_delivered = 0


@mypyc_attr(allow_interpreted_subclasses=True)  # a compiled core takes a user's algorithm as it is
class CongestionControl:
    """One session's window. As it stands it is Reno; a subclass overrides what it does differently.

    Most algorithms need only `increase` and `decrease`. All sizes are bytes, all times microseconds.
    No argument comes from the network unchecked; no method raises.
    """

    name: ClassVar[str] = ""
    beta: ClassVar[float] = 0.5  # RFC 5681 equation (4): what is left of the window after a loss
    wants_samples: ClassVar[bool] = False  # True: TCP keeps delivery rates and passes a RateSample
    own_recovery: ClassVar[bool] = False  # True: no PRR; on_ack and cwnd rule during recovery too
    hears_ecn: ClassVar[bool] = True  # False: `on_ecn` does nothing, so TCP must not negotiate ECN
    paces: ClassVar[bool] = False  # whether `pacing_rate` is worth a call; found out by itself

    __slots__ = ("credit", "cwnd", "initial", "mss", "phase", "prior_cwnd", "prior_ssthresh", "ssthresh")

    def __init_subclass__(cls) -> None:
        cls.paces = cls.pacing_rate is not CongestionControl.pacing_rate

    def __init__(self, mss: int, initial_window_bytes: int) -> None:
        self.mss = mss
        self.cwnd = initial_window_bytes
        self.ssthresh = UNLIMITED
        self.initial = initial_window_bytes
        self.credit = 0  # bytes acknowledged but not yet turned into growth
        self.phase = OPEN
        self.prior_cwnd = 0  # before the last reduction, for `undo`; 0: nothing to undo
        self.prior_ssthresh = 0

    # What an algorithm overrides

    def increase(self, acked: int, rtt: int, now: Micros) -> None:
        """Congestion avoidance: `acked` bytes arrived while the window was full."""
        self.add_per_window(acked, self.mss)

    def decrease(self, in_flight: int, now: Micros) -> int:
        """The threshold after a loss or a congestion mark; `in_flight` is the FlightSize of RFC 5681."""
        return round(min(in_flight, self.cwnd) * self.beta)

    # What TCP reports

    def on_ack(
        self, acked: int, rtt: int, in_flight: int, now: Micros, limited: bool, sample: RateSample | None = None
    ) -> None:
        """`acked` bytes arrived, each counted once: when first covered by a SACK block or by the cumulative ACK.

        `rtt` is this acknowledgement's measurement (0: none), `in_flight` what is on its way after it.
        `limited`: the window held the sender back; if it did not, it has proved nothing and must not
        grow (RFC 7661, RFC 9438 5.8). Called in the phases OPEN and LOSS; in RECOVERY only if `own_recovery`.
        """
        if not limited:
            return
        if self.cwnd < self.ssthresh:
            acked = self.slow_start(acked)
            if not acked:
                return
        self.increase(acked, rtt, now)

    def on_loss(self, in_flight: int, now: Micros) -> None:
        """Fast recovery begins: sets `ssthresh`, where PRR steers to, and `cwnd`."""
        if self.phase != OPEN:
            return
        self._save()
        self.phase = RECOVERY
        self._reduce(in_flight, now)

    def on_rto(self, in_flight: int, now: Micros) -> None:
        """The retransmission timer fired: back to the loss window of one segment."""
        if self.phase == OPEN:
            self._save()
        if self.phase == RECOVERY:  # this window of data has had its decrease
            self.ssthresh = min(self.ssthresh, max(round(in_flight * self.beta), 2 * self.mss))
        elif self.cwnd > self.mss or self.phase == OPEN:
            # RFC 5681 3.1: if the segment was already resent by the timer, "the value of ssthresh is held
            # constant". A window still at one segment says that nothing arrived since the last timeout.
            self._reduce(in_flight, now)
        self.phase = LOSS
        self.cwnd = self.mss  # RFC 5681 3.1: "cwnd MUST be set to no more than the loss window, LW"

    def on_recovery_end(self, now: Micros) -> None:
        """What was outstanding when the loss was found is acknowledged; after an RTO slow start just goes on."""
        if self.phase == RECOVERY:
            self.cwnd = self.ssthresh  # RFC 6582 3.2 step 3, option 2; RFC 6937 ends there by itself
        self.phase = OPEN

    def on_ecn(self, in_flight: int, now: Micros) -> None:
        """The peer echoed a congestion mark: react as to a loss (RFC 3168 6.1.2). TCP calls it once per window."""
        if self.phase == OPEN:
            self.prior_cwnd = 0  # a mark is never spurious
            self._reduce(in_flight, now)

    def on_idle(self, idle: int, rto: int) -> None:
        """Nothing was sent for `idle` microseconds, more than one `rto`: the window has grown stale.

        RFC 5681 4.1 goes to the restart window at once. We halve for each `rto` until there, as
        RFC 2861 did and Linux does, and keep the threshold as RFC 7661 4.4.3 does, so that slow start finds back.
        """
        floor = min(self.initial, self.cwnd)
        if idle <= rto or rto <= 0 or self.cwnd <= floor:
            return
        self.ssthresh = max(self.ssthresh, self.cwnd * 3 // 4)
        self.cwnd = max(self.cwnd >> min(idle // rto, 62), floor)
        self.credit = 0

    def undo(self) -> None:
        """The last reduction was for nothing (Eifel, F-RTO, DSACK): what was before it is restored."""
        if self.prior_cwnd:
            self.cwnd = max(self.cwnd, self.prior_cwnd)
            self.ssthresh = max(self.ssthresh, self.prior_ssthresh)
            self.prior_cwnd = 0
        self.phase = OPEN

    def on_mss(self, mss: int) -> None:
        """The path MTU changed. The window counts bytes, so it stays, but holds at least one segment."""
        self.mss = mss
        self.cwnd = max(self.cwnd, mss)

    def pacing_rate(self, srtt: int) -> int:
        """Bytes per second at which to send; 0: whenever the window allows."""
        return 0

    def state(self) -> dict[str, object]:
        """For statistics and traces; a subclass adds its own."""
        return {
            "name": self.name,
            "phase": PHASES[self.phase],
            "cwnd": self.cwnd,
            "ssthresh": None if self.ssthresh >= UNLIMITED else self.ssthresh,
        }

    # Tools for algorithms

    def slow_start(self, acked: int) -> int:
        """Grows by what was acknowledged, up to `ssthresh`; returns the bytes that were not needed.

        RFC 3465 counts bytes and limits the growth per ACK to L = 2 segments. We set no L, as RFC 9002 7.3.1
        and Linux do not: offloads on both sides merge some 45 segments under one ACK, and an L would turn
        doubling into a crawl. `acked` counts no byte twice, which removes RFC 3465's reason for L after a timeout.
        """
        grown = max(0, min(acked, self.ssthresh - self.cwnd))
        self.cwnd += grown
        return acked - grown

    def add_per_window(self, acked: int, amount: int) -> None:
        """Grows by `amount` bytes for each whole window acknowledged (RFC 3465 2.1), fractions kept."""
        self.credit += acked * amount
        grown, self.credit = divmod(self.credit, self.cwnd)
        self.cwnd += grown

    def _reduce(self, in_flight: int, now: Micros) -> None:
        # RFC 5681 equation (4): never under two segments
        self.ssthresh = self.cwnd = max(self.decrease(in_flight, now), 2 * self.mss)
        self.credit = 0

    def _save(self) -> None:
        self.prior_cwnd = self.cwnd
        self.prior_ssthresh = self.ssthresh
