"""Ten thousand sessions to one server, all alive at once, each with an address of its own at both ends."""

import pytest

from tests.sim.grid import BLOCK
from umuxstack.core.config import LinkCaps
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.units import NEVER, millis, minutes, seconds
from umuxstack.driver.links.impair import Impairment
from umuxstack.testing.apps import Echo
from umuxstack.testing.network import Network

SESSIONS = 10_000
TOGETHER = 500  # that come at one moment


@pytest.mark.rule("UM-19.a", "UM-22.c")
def test_ten_thousand_sessions_to_one_server() -> None:
    """Each asks and is answered with its own bytes, then all are idle, then some ask again, and all leave nothing."""
    with Network(seed=1, record=False) as net:
        server = net.host("server", wire=Impairment(delay=millis(5), loss=0.001), link=LinkCaps())
        client = net.host("client", wire=Impairment(delay=millis(5)))
        door = server.listen(backlog=SESSIONS, name="one")
        server.serve(door, Echo)
        sessions: list[TcpSession] = []
        for _ in range(SESSIONS // TOGETHER):
            new = [client.connect(server.das(door).address) for _ in range(TOGETHER)]
            for number, session in enumerate(new, start=len(sessions)):
                client.write(session, question(number))
            sessions += new
            net.run_for(millis(100))
        net.run_for(seconds(30))
        assert all(session.established for session in sessions)
        assert len({session.local for session in sessions} | {session.remote for session in sessions}) == 2 * SESSIONS
        for number, session in enumerate(sessions):
            assert client.read(session) == question(number)
        assert sum(isinstance(session, TcpSession) for session in server.stack.sessions()) == SESSIONS
        net.run_for(minutes(2))
        assert client.stack.next_deadline() == server.stack.next_deadline() == NEVER
        for number, session in list(enumerate(sessions))[::10]:
            client.write(session, question(number)[::-1])
        net.run_for(seconds(30))
        for number, session in list(enumerate(sessions))[::10]:
            assert client.read(session) == question(number)[::-1]


def question(number: int) -> bytes:
    """A hundred bytes or so that no other session sends."""
    return number.to_bytes(4, "big") + BLOCK[number % 200 : number % 200 + 100]
