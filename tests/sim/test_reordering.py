"""What a sender makes of packets that come late."""

import attrs
import pytest

from tests.sim.grid import Cell, measure
from umuxstack.core.units import Micros, millis
from umuxstack.driver.links.impair import Impairment


@pytest.mark.parametrize("round_trip", [millis(20), millis(100)])
def test_packets_that_are_overtaken_by_three_do_not_slow_a_transfer(round_trip: Micros) -> None:
    """A packet overtaken by three was marked lost and the window reduced; then it arrived, in the same batch, before
    it was sent again. As nothing had been retransmitted, nothing ever proved the reduction needless: it was kept, and
    a transfer over a long path with 2 % of reordering ran at a quarter of its speed.
    """
    clean = Cell("cubic", 50_000_000, round_trip)
    shuffled = attrs.evolve(clean, wire=Impairment(reorder=0.02))
    outcome = measure(shuffled)
    assert outcome.rate > 0.9 * measure(clean).rate
    assert outcome.needless <= 2
