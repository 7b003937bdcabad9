"""The last segments of a flight are lost, and nobody is left to report it."""

import pytest

from tests.sim.grid import Cell, measure
from umuxstack.core.units import Micros, millis, seconds
from umuxstack.driver.links.impair import Impairment
from umuxstack.testing import checks
from umuxstack.testing.network import Network


@pytest.mark.rule("UM-35.s")
@pytest.mark.parametrize("one_way", [millis(5), millis(60), millis(150)])
def test_a_lost_tail_is_found_by_a_probe_on_any_path(one_way: Micros) -> None:
    """The probe was armed only where 2 SRTT is less than the RTO. From 100 ms of round trip on that was never so, as
    the RTO of a steady path is hardly more than SRTT: each lost tail then cost a timeout and slow start."""
    with Network() as net:
        client, server = net.hosts("client", "server", wire=Impairment(delay=one_way))
        ours, theirs = net.established(client, server)
        for _ in range(10):  # a steady path
            client.write(ours, bytes(3000))
            net.run_for(seconds(1))
        server.read(theirs)
        lost = net.lose(checks.tcp(payload=lambda data: len(data) > 0), sender=client, limit=2)
        client.write(ours, bytes(2800))
        net.run_until(lambda: theirs.readable)
        net.run_for(seconds(2))
        assert len(lost.taken) == 2
        assert len(server.read(theirs)) == 2800
        assert client.stack.counters.rto_expirations == 0


def test_what_was_outstanding_long_ago_is_not_sent_again_at_once() -> None:
    """The last 463 segments of a long transfer were lost in a queue of 416. Recovery took for delivered in its own
    batch of acknowledgments what had been delivered since data was last sent, a third of a second before, and answered
    the probe's acknowledgment with all 463 in one burst: more than the queue holds, and then a timeout."""
    outcome = measure(Cell("cubic", 50_000_000, millis(100)))
    assert outcome.timeouts == 0
    assert outcome.again <= outcome.queue_drops + 2
