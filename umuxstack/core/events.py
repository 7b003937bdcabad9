"""Events: what the control plane may watch. Values, queued by the core, drained by the driver.

Names of leases only; an address is in `address` for those who may see it (UM-34).
"""

from enum import StrEnum

import attrs

from umuxstack.core.errors import Reason
from umuxstack.core.units import Address, Micros


class EventKind(StrEnum):
    LISTEN = "listen"  # a listener came into being (LISTEN_0, service, legacy)
    LISTENER_CLOSED = "listener_closed"
    DAS = "das"  # a LISTEN_U waits on an SSA
    LISTEN_U_ENDED = "listen_u_ended"  # spent, expired, revoked or orphaned: see reason
    LEASE_OPENED = "lease_opened"  # an address became valid
    LEASE_RETIRING = "lease_retiring"  # the application has closed; TCP still finishes
    LEASE_ENDED = "lease_ended"  # nobody holds the address any more
    SESSION_OPENED = "session_opened"  # handshake begun by us, or the first datagram or echo request
    SESSION_ESTABLISHED = "session_established"  # at once where there is no handshake
    SESSION_TROUBLED = "session_troubled"  # a soft error: R1 retransmissions, or an ICMPv6 error; see reason
    SESSION_ENDED = "session_ended"


@attrs.frozen(slots=True)
class Event:
    """One moment in the life of a lease, a listener or a session. `time` in microseconds of the stack's clock."""

    time: Micros
    kind: EventKind
    name: str  # lease or listener name: "ea.17", "ssa.httpd.2", "httpd"
    address: Address | None = attrs.field(default=None, repr=False)  # in no log by accident
    peer: Address | None = None
    reason: Reason = Reason.NONE
    label: str = ""
