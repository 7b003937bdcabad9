"""What a ping gets back."""

import attrs

from umuxstack.core.errors import Reason
from umuxstack.core.units import Micros


@attrs.frozen(slots=True)
class EchoReply:
    """An answer; `rtt` in microseconds. With `reason` other than NONE: an ICMPv6 error in its place."""

    sequence: int
    rtt: Micros
    data: bytes
    hop_limit: int
    reason: Reason = Reason.NONE
