"""Names, registration, and what is refused."""

import sys

import pytest

from umuxstack.core.errors import BadArgument
from umuxstack.core.tcp.congestion.base import UNLIMITED, CongestionControl
from umuxstack.core.tcp.congestion.registry import BUILT_IN, check, make, register
from umuxstack.core.units import Micros


class Timid(CongestionControl):
    name = "timid"

    def increase(self, acked: int, rtt: int, now: Micros) -> None:
        self.add_per_window(acked, self.mss // 2)


@pytest.mark.parametrize("name", ["newreno", "cubic", "bbr"])
def test_a_built_in_name_makes_a_fresh_controller(name: str) -> None:
    one, other = make(name, 1440, 14_400), make(name, 1440, 14_400)
    assert one is not other
    assert (one.name, one.mss, one.cwnd, one.ssthresh) == (name, 1440, 14_400, UNLIMITED)


def test_the_kernels_word_for_newreno_is_understood() -> None:
    assert make("reno", 1440, 14_400).name == "newreno"
    with pytest.raises(BadArgument, match="name of its own"):
        register("reno", Timid, {})


def test_an_unknown_name_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(BadArgument, match=r"'vegas'.*bbr, cubic, newreno, timid"):
        make("vegas", 1440, 14_400, {"timid": Timid})


def test_two_stacks_do_not_share_what_is_registered() -> None:
    one: dict[str, type] = {}
    other: dict[str, type] = {}
    register("timid", Timid, one)
    assert isinstance(make("timid", 1440, 14_400, one), Timid)
    with pytest.raises(BadArgument):
        make("timid", 1440, 14_400, other)


@pytest.mark.parametrize("name", ["cubic", ""])
def test_a_built_in_or_empty_name_cannot_be_taken(name: str) -> None:
    with pytest.raises(BadArgument, match="name of its own"):
        register(name, Timid, {})


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_built_in_algorithms_pass_the_check(name: str) -> None:
    assert check(BUILT_IN[name]) is BUILT_IN[name]


def test_what_is_no_subclass_is_refused() -> None:
    for thing in (object, Timid(1440, 14_400), None):
        with pytest.raises(BadArgument, match="not a subclass"):
            check(thing)


def test_a_wrong_signature_is_refused_before_tcp_meets_it() -> None:
    class Short(CongestionControl):
        def on_loss(self, now: Micros) -> None:  # type: ignore[override]
            self.cwnd = self.mss

    registered: dict[str, type] = {}
    with pytest.raises(BadArgument, match=r"Short\.on_loss.*TCP calls on_loss\(self, (/, )?in_flight"):
        register("short", Short, registered)
    assert registered == {}


def test_a_wrong_constructor_is_refused() -> None:
    class Greedy(CongestionControl):
        def __init__(self, mss: int, initial_window_bytes: int, greed: int) -> None:
            super().__init__(mss, initial_window_bytes)

    with pytest.raises(BadArgument, match="Greedy fails when TCP uses it: TypeError"):
        check(Greedy)


@pytest.mark.parametrize(
    ("value", "message"),
    [(1.5, "whole bytes|int object expected"), (0, "cwnd fell to 0"), (-1440, "cwnd fell to -1440")],
)
def test_a_window_that_is_no_number_of_bytes_is_refused(value: float, message: str) -> None:
    class Odd(CongestionControl):
        def on_mss(self, mss: int) -> None:
            self.cwnd = value  # type: ignore[assignment]

        def undo(self) -> None:
            pass

    with pytest.raises(BadArgument, match=message):
        check(Odd)


def test_an_algorithm_that_raises_is_refused() -> None:
    class Broken(CongestionControl):
        def decrease(self, in_flight: int, now: Micros) -> int:
            return in_flight // (now - now)

    with pytest.raises(BadArgument, match="Broken fails when TCP uses it: ZeroDivisionError"):
        check(Broken)


@pytest.mark.parametrize(("name", "limit"), [("newreno", 256), ("cubic", 448), ("bbr", 640)])
def test_a_new_sessions_controller_is_small(name: str, limit: int) -> None:
    control = make(name, 1440, 14_400)
    slots = [slot for cls in type(control).__mro__ for slot in getattr(cls, "__slots__", ())]
    values = {id(getattr(control, slot)): getattr(control, slot) for slot in slots}
    own = [value for value in values.values() if isinstance(value, int) and value > 256 and value < UNLIMITED]
    assert not hasattr(control, "__dict__")
    assert sys.getsizeof(control) + sum(map(sys.getsizeof, own)) <= limit
