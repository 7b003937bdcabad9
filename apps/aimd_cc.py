"""A congestion control of one's own: AIMD(a, b), with both numbers to play with.

Named as "apps/aimd_cc.py:Aimd" where an algorithm from a file can be given.
Each round trip adds `a` segments; a loss leaves the share `b`. (1, 0.5) is Reno;
(0.2, 0.875) is smoother and as fair to Reno. See docs/congestion.md.
"""

from umuxstack.core.tcp.congestion.base import CongestionControl
from umuxstack.core.units import Micros


class Aimd(CongestionControl):
    name = "aimd"
    a = 0.2
    b = 0.875

    def increase(self, acked: int, rtt: int, now: Micros) -> None:
        self.add_per_window(acked, int(self.a * self.mss))

    def decrease(self, in_flight: int, now: Micros) -> int:
        return round(min(in_flight, self.cwnd) * self.b)
