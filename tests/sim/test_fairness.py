"""Two flows through one bottleneck: does the one that came first leave room for the other?

Fairness is Jain's index (Jain, Chiu, Hawe 1984): 1 if all have the same, 1/2 if one of two has everything.
"""

import pytest

from tests.sim.grid import BLOCK
from umuxstack.core.config import TcpPolicy
from umuxstack.core.units import Micros, millis, seconds
from umuxstack.driver.links.impair import Impairment
from umuxstack.testing.apps import Transfer
from umuxstack.testing.network import Host, Network

RATE = 5_000_000  # bit/s
FOR_EVER = 1 << 20  # blocks: more than anybody can send here


def jain(shares: list[int]) -> float:
    total = sum(share**2 for share in shares)
    return sum(shares) ** 2 / (len(shares) * total)


def contest(
    algorithms: tuple[str, str], trips: tuple[Micros, Micros], queue: int, *, later: Micros, measured: Micros
) -> tuple[list[int], int]:
    """Bytes that each of two flows brought to the server, the second begun `later`, in the time `measured` after both
    had `later` again to find their shares; and how many bytes the bottleneck could have carried."""
    with Network(seed=1, record=False) as net:
        server = net.host("server", wire=Impairment(rate=RATE, queue_packets=queue, delay=millis(5)))
        door = server.listen()
        received = []
        clients: list[Host] = []
        for name, algorithm, trip in zip(("first", "second"), algorithms, trips, strict=True):
            back = Impairment(delay=Micros(trip - millis(5)))
            client = net.host(name, wire=back, tcp=TcpPolicy(congestion=algorithm))
            accepted = server.serve(door, lambda: Transfer(keep=False))
            session = client.connect(server.das(door).lease.address)
            client.attach(session, Transfer(BLOCK, repeat=FOR_EVER))
            net.run_for(later)
            received.append(accepted.apps[0])
            clients.append(client)
        before = [app.count for app in received if isinstance(app, Transfer)]
        net.run_for(measured)
        after = [app.count for app in received if isinstance(app, Transfer)]
        for client in clients:
            client.stack.close(net.now)
        return [then - now for now, then in zip(before, after, strict=True)], RATE // 8 * measured // 1_000_000


@pytest.mark.parametrize("algorithm", ["cubic", "newreno", "bbr"])
def test_two_flows_alike_share_a_bottleneck_fairly(algorithm: str) -> None:
    shares, capacity = contest(
        (algorithm, algorithm), (millis(40), millis(40)), 17, later=seconds(4), measured=seconds(20)
    )
    print(algorithm, shares, f"Jain {jain(shares):.3f}")
    assert jain(shares) > 0.9
    assert sum(shares) > 0.85 * capacity


def test_cubic_leaves_newreno_its_share() -> None:
    """At a small product of rate and delay CUBIC is as Reno (RFC 9438 4.3)."""
    shares, capacity = contest(
        ("newreno", "cubic"), (millis(40), millis(40)), 17, later=seconds(4), measured=seconds(20)
    )
    print(shares, f"Jain {jain(shares):.3f}")
    assert jain(shares) > 0.8
    assert sum(shares) > 0.85 * capacity


def test_a_longer_round_trip_costs_cubic_less_than_its_ratio() -> None:
    """RFC 9438 5.2: between Reno's ratio of throughputs, the inverse square of the ratio of round trips, and one."""
    shares, _ = contest(("cubic", "cubic"), (millis(20), millis(80)), 17, later=seconds(4), measured=seconds(20))
    print(shares)
    assert 1 / 16 < shares[1] / shares[0] < 1.25
