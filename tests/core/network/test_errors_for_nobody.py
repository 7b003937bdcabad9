"""An ICMPv6 error about an address whose holder has no session with that peer: dropped, and counted (UM-39)."""

import pytest

from tests.core.scene import OTHER, ROUTER, SERVICE, das, dropped, end, listen_0, service, udp_das
from umuxstack.core.errors import Drop
from umuxstack.testing import builders, states
from umuxstack.testing.peer import PEER
from umuxstack.testing.wire import Wire


@pytest.mark.rule("UM-39.a", "UM-31.b")
@pytest.mark.parametrize("kind", ["service", "listen_u", "udp door", "record"])
def test_an_error_for_a_door_or_a_record_is_counted(kind: str) -> None:
    """It was dropped without a trace: every packet that goes no further adds one to one counter."""
    wire = Wire()
    where, peer = builders.packed(SERVICE), OTHER
    if kind == "service":
        service(wire)
    elif kind == "listen_u":
        where = das(wire, listen_0(wire)).address
    elif kind == "udp door":
        where = udp_das(wire, wire.stack.udp(wire.now)).address
    else:
        session, _ = states.time_wait(wire)
        where, peer = session.local, PEER
    for quoted in (builders.tcp(where, peer, 1, 80), builders.udp(where, peer, 1, 80)):
        with dropped(wire, Drop.ICMP_NO_SESSION, 2):
            wire.send(builders.unreachable(ROUTER, quoted), builders.packet_too_big(ROUTER, quoted, 1280))
    wire.expect_silence()
    end(wire)
