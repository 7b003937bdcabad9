"""The imperfect wire: what it does to packets, exactly and repeatably."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umuxstack.core.errors import BadArgument
from umuxstack.core.units import NEVER, Micros, millis
from umuxstack.driver.links.impair import Burst, Impairment, Pipe


def packet(number: int, size: int = 100, traffic: int = 0) -> bytes:
    """Distinguishable, with the ECN bits of `traffic` where IPv6 has them."""
    return bytes((0x60, traffic << 4)) + number.to_bytes(4, "big") + bytes(size - 6)


def number(arrived: tuple[bytes, int, int, bool]) -> int:
    return int.from_bytes(arrived[0][2:6], "big")


def drain(pipe: Pipe) -> list[tuple[Micros, int]]:
    """(time, number) of everything under way, each read exactly when it is due."""
    out = []
    while (due := pipe.next_due()) != NEVER:
        arrived = pipe.receive_due(due)
        assert arrived, "next_due was early"
        out += [(due, number(item)) for item in arrived]
    return out


def run(impairment: Impairment, count: int, *, spacing: int = 10, size: int = 100, name: str = "") -> tuple[Pipe, list]:  # type: ignore[type-arg]
    pipe = Pipe(impairment, name=name)
    for n in range(count):
        pipe.send(packet(n, size), Micros(n * spacing))
    return pipe, drain(pipe)


def test_a_perfect_wire_gives_every_packet_at_once_and_in_order() -> None:
    pipe = Pipe()
    assert pipe.next_due() == NEVER
    pipe.send(packet(1), Micros(5))
    pipe.send(packet(2), Micros(5))
    assert pipe.next_due() == 5
    assert pipe.receive_due(Micros(4)) == []
    assert pipe.receive_due(Micros(5)) == [(packet(1), 0, 0, False), (packet(2), 0, 0, False)]
    assert pipe.next_due() == NEVER


def test_a_reader_may_take_less_than_everything() -> None:
    pipe = Pipe()
    for n in range(3):
        pipe.send(packet(n), Micros(0))
    assert [number(item) for item in pipe.receive_due(Micros(0), 2)] == [0, 1]
    assert len(pipe) == 1
    assert [number(item) for item in pipe.receive_due(Micros(0), 2)] == [2]


def test_delay_moves_every_packet_by_the_same_time() -> None:
    _, out = run(Impairment(delay=millis(20)), 3, spacing=7)
    assert out == [(20_000, 0), (20_007, 1), (20_014, 2)]


def test_jitter_stays_in_its_range_and_keeps_the_order() -> None:
    _, out = run(Impairment(delay=Micros(100), jitter=Micros(50)), 500, spacing=3)
    assert [n for _, n in out] == list(range(500))
    assert all(n * 3 + 100 <= due <= n * 3 + 150 for due, n in out)
    assert len({due - n * 3 for due, n in out}) > 10


def test_a_bottleneck_spaces_packets_by_their_length() -> None:
    # 1,000 bytes at 8 Mbit/s are 1,000 µs on the wire.
    _, out = run(Impairment(rate=8_000_000), 4, spacing=0, size=1000)
    assert [due for due, _ in out] == [1000, 2000, 3000, 4000]


def test_a_bottleneck_does_not_lose_fractions_of_microseconds() -> None:
    # 100 bytes at 300 Mbit/s are 2.666… µs; 3,000 of them are 8,000 µs.
    _, out = run(Impairment(rate=300_000_000), 3000, spacing=0)
    assert 7990 <= out[-1][0] <= 8000


def test_an_idle_bottleneck_saves_nothing_up() -> None:
    pipe = Pipe(Impairment(rate=8_000_000))
    pipe.send(packet(0, 1000), Micros(0))
    pipe.send(packet(1, 1000), Micros(50_000))
    assert drain(pipe) == [(1000, 0), (51_000, 1)]


def test_a_full_queue_drops_the_newcomer_and_takes_again_when_one_has_left() -> None:
    pipe = Pipe(Impairment(rate=8_000_000, queue_packets=2))
    for n in range(4):
        pipe.send(packet(n, 1000), Micros(0))
    pipe.send(packet(4, 1000), Micros(999))
    pipe.send(packet(5, 1000), Micros(1000))
    assert [n for _, n in drain(pipe)] == [0, 1, 5]
    assert pipe.statistics().queue_drops == 3


def test_a_queue_may_be_limited_in_bytes() -> None:
    pipe = Pipe(Impairment(rate=8_000_000, queue_bytes=2500))
    for n, size in enumerate((1000, 1000, 1000, 500)):
        pipe.send(packet(n, size), Micros(0))
    assert [n for _, n in drain(pipe)] == [0, 1, 3]


def test_loss_is_about_as_frequent_as_asked() -> None:
    pipe, out = run(Impairment(loss=0.2, seed=1), 5000)
    assert 900 < pipe.statistics().lost < 1100
    assert len(out) == 5000 - pipe.statistics().lost


def test_bursts_have_the_mean_length_and_share_of_the_model() -> None:
    pipe, out = run(Impairment(burst=Burst(enter=0.02, leave=0.25), seed=3), 40_000)
    gaps = [b - a - 1 for (_, a), (_, b) in pairwise(out) if b - a > 1]
    assert 3.6 < sum(gaps) / len(gaps) < 4.4  # 1 / leave
    assert 0.065 < pipe.statistics().lost / 40_000 < 0.083  # enter / (enter + leave) = 0.074


def test_between_bursts_ordinary_loss_holds() -> None:
    pipe, _ = run(Impairment(burst=Burst(enter=0.0, leave=1.0), loss=0.5, seed=1), 1000)
    assert 420 < pipe.statistics().lost < 580


def test_a_reordered_packet_is_overtaken_by_exactly_the_displacement() -> None:
    pipe = Pipe(Impairment(delay=Micros(5), reorder=1.0, displacement=3, reorder_wait=millis(100)))
    pipe.send(packet(0), Micros(0))
    pipe.change(Impairment(delay=Micros(5)))
    for n in range(1, 6):
        pipe.send(packet(n), Micros(n))
    assert drain(pipe) == [(6, 1), (7, 2), (8, 3), (8, 0), (9, 4), (10, 5)]
    assert pipe.statistics().reordered == 1


def test_lost_packets_overtake_nobody() -> None:
    pipe = Pipe(Impairment(reorder=1.0, displacement=1, reorder_wait=millis(100)))
    pipe.send(packet(0), Micros(0))
    pipe.change(Impairment(loss=1.0))
    pipe.send(packet(1), Micros(0))
    pipe.change(Impairment())
    pipe.send(packet(2), Micros(0))
    assert [n for _, n in drain(pipe)] == [2, 0]


def test_a_reordered_packet_that_nobody_overtakes_arrives_after_the_wait() -> None:
    pipe = Pipe(Impairment(delay=Micros(5), reorder=1.0, reorder_wait=Micros(100)))
    pipe.send(packet(0), Micros(0))
    pipe.change(Impairment(delay=Micros(5)))
    pipe.send(packet(1), Micros(1))
    assert len(pipe) == 2
    assert drain(pipe) == [(6, 1), (105, 0)]


def test_arrivals_read_late_are_still_in_order_of_time() -> None:
    pipe = Pipe(Impairment(reorder=1.0, reorder_wait=Micros(100)))
    pipe.send(packet(0), Micros(0))
    pipe.change(Impairment())
    pipe.send(packet(1), Micros(50))
    pipe.send(packet(2), Micros(150))
    assert [number(item) for item in pipe.receive_due(Micros(1000))] == [1, 0, 2]


def test_a_duplicate_follows_its_original() -> None:
    pipe, out = run(Impairment(duplicate=1.0), 3)
    assert [n for _, n in out] == [0, 0, 1, 1, 2, 2]
    assert pipe.statistics().duplicated == 3


def test_corruption_changes_exactly_one_bit() -> None:
    pipe = Pipe(Impairment(corrupt=1.0))
    original = bytes(range(60))
    touched = set()
    for _ in range(3000):
        pipe.send(original, Micros(0))
        ((damaged, base, gso_size, csum_ok),) = pipe.receive_due(Micros(0))
        difference = int.from_bytes(original, "big") ^ int.from_bytes(damaged, "big")
        assert difference.bit_count() == 1
        assert (base, gso_size, csum_ok) == (0, 0, False)
        touched.add(difference.bit_length())
    assert len(touched) == 480


def test_only_ecn_capable_packets_are_marked() -> None:
    pipe = Pipe(Impairment(mark=1.0))
    for ecn in range(4):
        pipe.send(packet(ecn, traffic=ecn), Micros(0))
    assert [item[0][1] >> 4 for item in pipe.receive_due(Micros(0))] == [0, 3, 3, 3]


def test_super_segments_pass_whole_only_where_that_makes_no_difference() -> None:
    header = bytes.fromhex("6000000000000640") + bytes(32) + bytes(12) + b"\x50" + bytes(7)
    super_segment = (header, bytes(3000), 1000, 16)
    whole = Pipe(Impairment(delay=Micros(1)), whole=True)
    whole.send_outgoing(super_segment, Micros(0))
    assert whole.receive_due(Micros(1)) == [(header + bytes(3000), 0, 1000, True)]
    for pipe in (Pipe(whole=False), Pipe(Impairment(duplicate=0.5, seed=4), whole=True)):
        pipe.send_outgoing(super_segment, Micros(0))
        arrived = pipe.receive_due(Micros(0))
        assert len(arrived) >= 3
        assert all((len(buf), base, gso, ok) == (1060, 0, 0, False) for buf, base, gso, ok in arrived)


def test_a_packet_with_a_complete_checksum_is_not_vouched_for() -> None:
    pipe = Pipe(whole=True)
    pipe.send_outgoing((bytes(48), b"x", 0, 0), Micros(0))
    assert pipe.receive_due(Micros(0)) == [(bytes(48) + b"x", 0, 0, False)]


PROBABILITY = st.sampled_from([0.0, 0.1, 0.5])
IMPAIRMENTS = st.builds(
    Impairment,
    loss=PROBABILITY,
    burst=st.none() | st.builds(Burst, enter=PROBABILITY, leave=PROBABILITY),
    delay=st.integers(0, 1000),
    jitter=st.integers(0, 100),
    reorder=PROBABILITY,
    displacement=st.integers(0, 5),
    reorder_wait=st.integers(0, 300),
    duplicate=PROBABILITY,
    corrupt=PROBABILITY,
    mark=PROBABILITY,
    rate=st.sampled_from([1_000_000, 100_000_000]),
    queue_packets=st.integers(0, 5),
    queue_bytes=st.sampled_from([0, 300]),
    seed=st.integers(0, 1000),
)


@given(IMPAIRMENTS, st.lists(st.integers(0, 400), max_size=60))
def test_no_packet_appears_or_vanishes_uncounted_and_time_never_runs_backwards(
    impairment: Impairment, spacings: list[int]
) -> None:
    pipe, twin = Pipe(impairment, name="a>b"), Pipe(impairment, name="a>b")
    now = 0
    for n, spacing in enumerate(spacings):
        now += spacing
        pipe.send(packet(n, traffic=2), Micros(now))
        twin.send(packet(n, traffic=2), Micros(now))
    out = []
    while (due := pipe.next_due()) != NEVER:
        assert twin.next_due() == due
        arrived = pipe.receive_due(due)
        assert arrived
        assert twin.receive_due(due) == arrived  # same seed, same fate
        out += [due] * len(arrived)
    assert out == sorted(out)
    counted = pipe.statistics()
    assert counted.sent == len(spacings)
    assert counted.delivered == len(out) == counted.sent + counted.duplicated - counted.lost - counted.queue_drops
    assert len(pipe) == 0


def test_the_two_directions_of_one_impairment_have_fates_of_their_own() -> None:
    impairment = Impairment(loss=0.5, seed=9)
    assert run(impairment, 100, name="a>b")[1] != run(impairment, 100, name="b>a")[1]


@pytest.mark.parametrize(
    "wrong",
    [{"loss": 1.5}, {"corrupt": -0.1}, {"delay": -1}, {"rate": -5}, {"queue_packets": 3}, {"queue_bytes": 3}],
)
def test_nonsense_is_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(BadArgument, match=next(iter(wrong)).split("_")[0]):
        Impairment(**wrong)  # type: ignore[arg-type]
