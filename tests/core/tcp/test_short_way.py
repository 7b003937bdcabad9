"""The short ways do what the long ones do: nothing on the wire, and no variable, tells which was taken."""

import random

import pytest

from umuxstack.core.config import TcpPolicy
from umuxstack.core.tcp.congestion.base import CongestionControl
from umuxstack.core.tcp.congestion.registry import register
from umuxstack.core.tcp.connection import Connection
from umuxstack.core.tcp.short_way import ShortWay
from umuxstack.core.tcp.statistics import TcpStatistics
from umuxstack.core.units import Micros, millis
from umuxstack.driver.links.impair import Impairment
from umuxstack.testing.network import Network

Said = list[tuple[int, bytes]]
POLICIES = (
    TcpPolicy(),
    TcpPolicy(nodelay=True, congestion="newreno"),
    TcpPolicy(timestamps=False),
    TcpPolicy(sack=False, receive_buffer=8192, receive_buffer_max=8192),
    TcpPolicy(ecn=True),
    TcpPolicy(congestion="bbr", cork=True),
    TcpPolicy(initial_window=1, receive_buffer=4096, receive_buffer_max=4096, mss=1000),
)


def _conversation(seed: int) -> tuple[Said, list[TcpStatistics], dict[str, int]]:
    """Requests, responses, bulk and silences over wires that may lose and reorder; all packets, and both ends."""
    dice = random.Random(seed)
    wires = [Impairment(delay=millis(dice.choice((1, 5, 40))), loss=dice.choice((0.0, 0.0, 0.03))) for _ in range(2)]
    policy = dice.choice(POLICIES)
    with Network(seed=seed) as net:
        server, client = (
            net.host(name, wire=wire, tcp=policy) for name, wire in zip(("server", "client"), wires, strict=True)
        )
        door = server.listen()
        near = client.connect(server.das(door).address)
        net.run_for(millis(200))
        far = door.accept()
        ends = [(client, near)] if far is None else [(client, near), (server, far)]
        for _ in range(dice.randrange(20, 60)):
            host, session = dice.choice(ends)
            what = dice.random()
            if session.ended:
                break
            if what < 0.5:
                say = dice.choice((session.write, session.write, session.write_more, session.write_record))
                say(dice.randbytes(dice.choice((1, 20, 1427, 1428, 1429, 30_000))), host.now)
            elif what < 0.9:
                host.read(session, dice.choice((1, 100, 1 << 20)))
            net.run_for(Micros(dice.choice((0, 0, 100, 5_000, 60_000, 400_000, 3_000_000))))
        for host, session in ends:
            host.read(session)
            host.close(session)
            net.run_for(millis(dice.choice((0, 1, 100))))
        net.run_until_idle()
        ended = [session.statistics() for _, session in ends]
        return [(seen.time, seen.raw) for seen in net.sent], ended, server.stack.counters.snapshot()


@pytest.mark.plain
@pytest.mark.parametrize("seed", range(60))
def test_the_short_ways_and_the_long_ones_say_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    short = _conversation(seed)
    monkeypatch.setattr(Connection, "_in_order", lambda *_: False)
    monkeypatch.setattr(ShortWay, "_send_alone", lambda *_: False)
    monkeypatch.setattr(
        ShortWay, "_on_plain_ack", lambda self, ack, tsecr, now: self._on_ack(ack, None, tsecr, False, False, now)
    )
    assert _conversation(seed) == short


@pytest.mark.plain
def test_requests_take_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the test above would compare the long way with itself."""
    taken: list[str] = []
    for owner, name in ((Connection, "_in_order"), (ShortWay, "_send_alone"), (ShortWay, "_on_plain_ack")):
        original = getattr(owner, name)

        def watch(*args: object, name: str = name, original: object = original) -> object:
            result = original(*args)  # type: ignore[operator]
            if result is not False:
                taken.append(name)
            return result

        monkeypatch.setattr(owner, name, watch)
    with Network(seed=1) as net:
        server, client = net.hosts("server", "client")
        door = server.listen()
        session = client.connect(server.das(door).address)
        net.run_until_idle()
        accepted = door.accept()
        assert accepted is not None
        for _ in range(3):
            taken.clear()
            client.write(session, b"?")
            net.run_for(millis(3))
            assert server.read(accepted) == b"?"
            server.write(accepted, b"!")
            net.run_for(millis(3))
            assert client.read(session) == b"!"
        assert sorted(taken) == [
            "_in_order",
            "_in_order",
            "_on_plain_ack",
            "_on_plain_ack",
            "_send_alone",
            "_send_alone",
        ]


class Paced(CongestionControl):
    """Of somebody's own: it only says how fast."""

    name = "paced"

    def pacing_rate(self, srtt: int) -> int:
        return 14_280  # bytes per second: a full segment in a tenth of a second


def test_who_paces_is_asked_before_every_segment() -> None:
    """The short way out asks nobody, so it must not be taken: the second write waits for its time."""
    assert Paced.paces
    assert not CongestionControl.paces
    with Network(seed=1) as net:
        server, client = net.hosts("server", "client")
        register("paced", Paced, client.stack._ctx.congestion)
        door = server.listen()
        session = client.connect(server.das(door).address)
        session.configure(congestion="paced")
        net.run_until_idle()
        for _ in range(2):
            client.write(session, bytes(1428))
            net.run_for(millis(45))  # its acknowledgement has come
        assert session.statistics().notsent == 1428
        net.run_for(millis(100))
        assert session.statistics().notsent == 0
