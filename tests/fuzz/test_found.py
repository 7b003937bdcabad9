"""What fuzzing found, small enough to read."""

import pytest

from umuxstack.core.tcp import state as st
from umuxstack.testing import states
from umuxstack.testing.wire import Wire


@pytest.mark.rule("UM-35.b")
def test_nothing_is_unsent_once_the_fin_is_acknowledged() -> None:
    """SND.UNA then counts the FIN, and `unsent` said -1."""
    wire = Wire()
    session, peer = states.established(wire)
    session.write(b"x", wire.now)
    session.shutdown(wire.now)
    peer.expect(lambda flags: "F" in flags, b"x")
    assert session.unsent == 1
    peer.send("A")
    assert session.state == st.FIN_WAIT_2
    assert session.unsent == 0
