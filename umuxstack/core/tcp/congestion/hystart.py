"""HyStart++: leaves slow start when the delay grows, before the queue overflows.

Owns what one session remembers during its first slow start; dropped after it.
Rounds are counted in bytes: a round ends when what was in flight at its
beginning is acknowledged, which is RFC 9406's windowEnd without sequence numbers.
RFC 9406 4.2; its names are kept.
"""

from typing import Final

MIN_RTT_THRESH: Final = 4_000  # microseconds
MAX_RTT_THRESH: Final = 16_000
MIN_RTT_DIVISOR: Final = 8
N_RTT_SAMPLE: Final = 8
CSS_GROWTH_DIVISOR: Final = 4
CSS_ROUNDS: Final = 5

_NONE: Final = 1 << 62  # "infinity"


class HyStart:
    """Feed it each acknowledgement with `grow`; it says by how much the window may grow, and when to stop."""

    __slots__ = ("baseline", "current_min", "done", "last_min", "round_left", "rounds", "samples")

    def __init__(self) -> None:
        self.last_min = _NONE  # lastRoundMinRTT
        self.current_min = _NONE  # currentRoundMinRTT
        self.samples = 0  # rttSampleCount
        self.round_left = 0  # bytes still to be acknowledged in this round
        self.baseline = _NONE  # cssBaselineMinRtt; _NONE: not in Conservative Slow Start
        self.rounds = 0  # of Conservative Slow Start
        self.done = False  # True: congestion avoidance begins

    @property
    def in_css(self) -> bool:
        return self.baseline != _NONE

    def grow(self, acked: int, rtt: int, in_flight: int) -> int:
        """The growth in bytes; `rtt` in microseconds (0: none), `in_flight` bytes after this acknowledgement."""
        self.round_left -= acked
        if self.round_left <= 0:
            self._start_round(in_flight)
            if self.done:
                return 0
        if rtt:
            self.samples += 1
            self.current_min = min(self.current_min, rtt)
        if self.samples >= N_RTT_SAMPLE:
            if self.baseline != _NONE:
                if self.current_min < self.baseline:
                    self.baseline = _NONE  # the delay was spurious: slow start resumes
            elif self.last_min != _NONE:
                threshold = max(MIN_RTT_THRESH, min(self.last_min // MIN_RTT_DIVISOR, MAX_RTT_THRESH))
                if self.current_min >= self.last_min + threshold:
                    self.baseline = self.current_min
                    self.rounds = 0
        return acked if self.baseline == _NONE else acked // CSS_GROWTH_DIVISOR

    def _start_round(self, in_flight: int) -> None:
        self.round_left = in_flight
        self.last_min = self.current_min
        self.current_min = _NONE
        self.samples = 0
        if self.baseline != _NONE:
            self.rounds += 1
            self.done = self.rounds >= CSS_ROUNDS
