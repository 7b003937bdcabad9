"""The life of a LISTEN_U: the table, in every state under every event; and that the class walks along it."""

from itertools import product

import pytest

from tests.core.scene import das, end, listen_0
from umuxstack.core.listen import states as ls
from umuxstack.core.units import seconds
from umuxstack.testing import states
from umuxstack.testing.peer import Peer
from umuxstack.testing.wire import Wire

WANTED = {
    # UM-21 … UM-27, written down a second time
    "WAITING": {
        "CANDIDATE_CAME": "WAITING",
        "CANDIDATE_FAILED": "WAITING",
        "HANDSHAKE_DONE": "SPENT",
        "CLIENT_CAME": "PINNED",
        "EXPIRED": "SPENT",
        "REVOKED": "SPENT",
        "PARENT_CLOSED": "SPENT",
    },
    "PINNED": {
        "CANDIDATE_CAME": "PINNED",
        "CANDIDATE_FAILED": "PINNED",
        "CLIENT_CAME": "PINNED",
        "LAST_ENDED": "LINGERING",
        "REVOKED": "SPENT",
        "PARENT_CLOSED": "SPENT",
    },
    "LINGERING": {
        "CANDIDATE_CAME": "LINGERING",
        "CANDIDATE_FAILED": "LINGERING",
        "CLIENT_CAME": "PINNED",
        "EXPIRED": "SPENT",
        "REVOKED": "SPENT",
        "PARENT_CLOSED": "SPENT",
    },
    "SPENT": {},
}


@pytest.mark.rule("UM-23.h")
@pytest.mark.parametrize(
    ("state", "event"),
    list(product(range(len(ls.STATE_NAMES)), range(len(ls.EVENT_NAMES)))),
    ids=[f"{state}-{event}" for state, event in product(ls.STATE_NAMES, ls.EVENT_NAMES)],
)
def test_every_state_under_every_event(state: int, event: int) -> None:
    wire = Wire()
    waiting = das(wire, listen_0(wire))
    waiting.state = state
    before, name = ls.STATE_NAMES[state], ls.EVENT_NAMES[event]
    assert waiting._on(event) == (name in WANTED[before])
    assert waiting.state_name == WANTED[before].get(name, before)
    assert ((state, event) in ls.TRANSITIONS) == (name in WANTED[before])


@pytest.mark.rule("UM-23.h")
def test_nothing_leads_out_of_spent() -> None:
    assert {state for state, _ in ls.TRANSITIONS} == {ls.WAITING, ls.PINNED, ls.LINGERING}


@pytest.mark.rule("UM-23.h", "UM-26.c")
def test_a_client_s_listen_u_visits_every_state() -> None:
    wire = Wire()
    waiting = das(wire, listen_0(wire), grain="client")
    walked = [waiting.state_name]
    states.syn_received(wire, waiting.address)
    walked.append(waiting.state_name)
    first = Peer(wire, waiting.address, port=50001)
    first.connect()  # beside the candidate, of the same peer
    walked.append(waiting.state_name)
    second = Peer(wire, waiting.address, port=50002)
    second.connect()
    first.send("R")
    walked.append(waiting.state_name)
    second.send("R")
    walked.append(waiting.state_name)
    third = Peer(wire, waiting.address, port=50003)
    third.connect()
    walked.append(waiting.state_name)
    third.send("R")
    wire.advance(seconds(60))
    walked.append(waiting.state_name)
    assert walked == ["WAITING", "WAITING", "PINNED", "PINNED", "LINGERING", "PINNED", "SPENT"]
    end(wire)
