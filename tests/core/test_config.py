"""What a configuration takes: a value of the wrong type is refused when it is made, not when the first packet comes.

Plain Python took `TcpPolicy(nodelay=1)`, `rto_min=2e5` and `keepalive_count=3.0`, and mostly got away with it; with the
core compiled, the same policy was a TypeError out of `receive` or of a timer, and the session never ended.
"""

from enum import IntEnum
from typing import Any

import pytest

from umuxstack.core.config import LinkCaps, PoolPolicy, StackConfig, TcpPolicy
from umuxstack.core.errors import BadArgument
from umuxstack.core.units import Address
from umuxstack.testing import states
from umuxstack.testing.builders import packed
from umuxstack.testing.wire import Wire

PREFIX = Address(packed("2001:db8:1::"))


@pytest.mark.parametrize(
    ("kind", "name", "value", "word"),
    [
        (TcpPolicy, "nodelay", 1, "True or False"),
        (TcpPolicy, "cork", None, "True or False"),
        (TcpPolicy, "rto_min", 2e5, "a whole number"),
        (TcpPolicy, "keepalive_count", 3.0, "a whole number"),
        (TcpPolicy, "initial_window", "10", "a whole number"),
        (TcpPolicy, "initial_window", True, "a whole number"),
        (TcpPolicy, "congestion", b"cubic", "text"),
        (LinkCaps, "mtu", 1500.0, "a whole number"),
        (LinkCaps, "segmentation", 1, "True or False"),
        (PoolPolicy, "low", None, "a whole number"),
        (StackConfig, "prefix", bytearray(PREFIX), "packed bytes"),
        (StackConfig, "prefix", "2001:db8:1::", "packed bytes"),
        (StackConfig, "shared", [PREFIX], "a tuple"),
        (StackConfig, "shared", ("2001:db8:1::80",), "packed bytes"),
        (StackConfig, "tcp", None, "a TcpPolicy"),
        (StackConfig, "udp_idle", 1e6, "a whole number"),
        (StackConfig, "silence", 0, "True or False"),
        (StackConfig, "unified_peers", ((PREFIX, 64.0),), "no prefix"),
        (StackConfig, "unified_peers", (("2001:db8:1::", 64),), "no prefix"),
        (StackConfig, "unified_peers", (PREFIX,), "no prefix"),
        (StackConfig, "unified_peers", ((PREFIX, 129),), "no prefix"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_name(kind: type[Any], name: str, value: object, word: str) -> None:
    given: dict[str, object] = {"prefix": PREFIX} if kind is StackConfig else {}
    with pytest.raises(BadArgument) as raised:
        kind(**given | {name: value})
    assert word in str(raised.value)


def test_a_number_of_an_enumeration_is_a_number() -> None:
    class Size(IntEnum):
        SMALL = 2

    assert TcpPolicy(initial_window=Size.SMALL).initial_window == 2


def test_a_session_s_own_policy_is_checked_likewise() -> None:
    wire = Wire()
    session, _ = states.established(wire)
    for changes in ({"nodelay": None}, {"send_buffer": 70_000.0}, {"rto_slop": "1"}):
        with pytest.raises(BadArgument):
            session.configure(**changes)
    assert session.policy == wire.stack.config.tcp
