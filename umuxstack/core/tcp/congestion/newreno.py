"""NewReno: the standard's own congestion control, the yardstick for all others.

One segment more per window, half of the window after a loss: what the base
class does. The NewReno part, staying in recovery until everything outstanding at
its start is acknowledged (RFC 6582), is TCP's, and shared by every algorithm.
RFC 5681, RFC 6582, RFC 3465.
"""

from typing import ClassVar

from mypy_extensions import mypyc_attr

from umuxstack.core.tcp.congestion.base import CongestionControl


@mypyc_attr(allow_interpreted_subclasses=True)
class NewReno(CongestionControl):
    """AIMD(1, 0.5), counting bytes."""

    name: ClassVar[str] = "newreno"

    __slots__ = ()
