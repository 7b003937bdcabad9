"""The grid of transfers against its stored table, and against what theory says.

The table tells of any change; these bounds tell of a bad one. The whole grid: `python -m tests.sim.grid`.
"""

import math

import pytest

from tests.sim import grid
from tests.sim.grid import Cell
from umuxstack.core.config import TcpPolicy
from umuxstack.core.units import millis, seconds

EVERY = 3  # one cell in three, and none of the long ones: this is for each run of the tests
MSS = 1428
WIRE_SHARE = MSS / 1500  # of the bottleneck's bits, what is payload


def sample() -> list[Cell]:
    """Cells for each run; at least one of each algorithm and kind of trouble."""
    return [cell for index, cell in enumerate(grid.cells()) if index % EVERY == 0]


def test_the_table_has_a_row_for_each_cell() -> None:
    names = [cell.name for cell in grid.cells()]
    assert len(names) == len(set(names))
    assert list(grid.stored()) == names, "write it anew: python -m tests.sim.grid --update"


def test_goodput_is_what_the_table_says() -> None:
    stored = grid.stored()
    cells = sample()
    now = {cell.name: grid.measure(cell).row(cell.name) for cell in cells}
    changed = grid.difference({name: stored.get(name, "") for name in now}, now)
    advice = f"{len(cells)} of {len(stored)} cells were run; if it is meant: python -m tests.sim.grid --update"
    assert not changed, f"{advice}\n{changed}"


def test_a_difference_reads_as_lines_of_the_table() -> None:
    cell = Cell("cubic", 5_000_000, millis(20))
    before = grid.Outcome(1_000_000, seconds(2), 3, 0, 0, 3)
    after = grid.Outcome(1_000_000, seconds(1.6), 4, 0, 0, 4)
    old, new = {cell.name: before.row(cell.name)}, {cell.name: after.row(cell.name)}
    changed = grid.difference(old, new)
    assert [line.split() for line in changed.splitlines() if line[0] in "+-" and line[1] == "c"] == [
        ["-cubic/5M/20ms/0", "1000000", "2000", "4000", "3", "0", "0", "3"],
        ["+cubic/5M/20ms/0", "1000000", "1600", "5000", "4", "0", "0", "4"],
    ]
    assert grid.difference(old, dict(old)) == ""


@pytest.mark.parametrize("algorithm", ["cubic", "newreno", "bbr"])
def test_a_clean_wire_with_a_fair_queue_is_filled(algorithm: str) -> None:
    """After slow start; 85 % of what the bottleneck carries, headers deducted."""
    outcome = grid.measure(Cell(algorithm, 20_000_000, millis(20)))
    assert outcome.rate > 0.85 * 20_000_000 * WIRE_SHARE
    assert outcome.timeouts == 0


@pytest.mark.rule("UM-35.q")
def test_goodput_at_one_percent_of_loss_is_what_mathis_says_it_must_be_and_no_more_than_cubic_may_add() -> None:
    """Mathis et al. 1997: rate = MSS / RTT · √(3/2) / √p, for a Reno that acknowledges every segment.

    CUBIC in its Reno-friendly region aims at the same average (RFC 9438 4.3); with its cubic region above it, no
    more than half as much again is plausible at 20 ms.
    """
    p, round_trip = 0.01, 0.02
    mathis = MSS * 8 / round_trip * math.sqrt(1.5) / math.sqrt(p)
    cell = Cell("cubic", 0, millis(20), "1%")
    rates = [grid.measure(cell, seed).rate for seed in range(1, 7)]
    average = len(rates) / sum(1 / rate for rate in rates)  # of equal amounts: the harmonic mean
    assert 0.8 * mathis < average < 1.5 * mathis, f"{average / 1e6:.2f} Mbit/s; Mathis: {mathis / 1e6:.2f}"


def test_bbr_does_not_take_random_loss_for_congestion() -> None:
    """The mean of five transfers: which segments are lost in its start moves a single one by a third."""
    rates = {
        name: sum(grid.measure(Cell(name, 20_000_000, millis(100), "3%"), seed).rate for seed in range(1, 6)) / 5
        for name in ("bbr", "cubic")
    }
    assert rates["bbr"] > 0.4 * 20_000_000 * WIRE_SHARE
    assert rates["bbr"] > 4 * rates["cubic"]


def test_a_receive_buffer_sets_the_rate_and_nothing_is_lost_for_it() -> None:
    """One window per round trip at most, and most of it."""
    size, round_trip = 64 << 10, 0.1
    policy = TcpPolicy(receive_buffer=size, receive_buffer_max=size)
    outcome = grid.measure(Cell("cubic", 50_000_000, millis(100), policy=policy, also="small"))
    assert 0.6 * size * 8 / round_trip < outcome.rate <= size * 8 / round_trip
    assert outcome.again == outcome.queue_drops == 0
