"""Tables, times and sizes as people read them."""

import attrs
import pytest

from umuxstack.cli import output
from umuxstack.control.messages import ANY_LENGTH, EventRow, Waiter
from umuxstack.core.errors import Reason
from umuxstack.core.units import NEVER, UNSPECIFIED, Address, Micros


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (0, "0 us"),
        (850, "850 us"),
        (1_200, "1.2 ms"),
        (9_960, "10 ms"),
        (34_000, "34 ms"),
        (3_400_000, "3.4 s"),
        (119_000_000, "119 s"),
        (600_000_000, "10 min"),
        (5 * 3_600_000_000, "5 h"),
        (3 * 86_400_000_000, "3 d"),
        (NEVER, "never"),
    ],
)
def test_durations(micros: int, text: str) -> None:
    assert output.duration(micros) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 KB"), (12_345_678, "12 MB"), (5 * 10**12, "5 TB")]
)
def test_sizes(count: int, text: str) -> None:
    assert output.size(count) == text


def test_a_table_is_aligned_and_has_no_trailing_space() -> None:
    assert output.table(("NAME", "N", "LABEL"), [("a", 5, ""), ("long name", 12345, "x y")], right=(1,)) == [
        "NAME           N  LABEL",
        "a              5",
        "long name  12345  x y",
    ]


def test_a_table_without_rows_is_its_headings() -> None:
    assert output.table(("NAME", "N"), []) == ["NAME  N"]


def test_wrapped_lines_fit_and_parts_stay_whole() -> None:
    parts = [f"part {n} of it" for n in range(30)]
    lines = output.wrapped(parts).splitlines()
    assert len(lines) > 3
    assert all(len(line) <= 100 and line.startswith("    part") for line in lines)
    assert [part for line in lines for part in line.strip().split("  ")] == parts


WAITER = Waiter(
    lease_id=1,
    address=Address(bytes.fromhex("20010db8") + bytes(11) + b"\1"),
    peer=Address(bytes.fromhex("20010db8") + bytes(12)),
    peer_length=32,
    expires=NEVER,
    candidates=0,
    port=80,
    name="ssa.web.1",
    listener="web",
    state="WAITING",
    grain="session",
    label="",
)


def test_json_of_a_record() -> None:
    shown = output.as_json(WAITER)
    assert shown["address"] == "2001:db8::1"
    assert shown["peer"] == "2001:db8::/32"
    assert shown["expires_us"] is None
    assert "peer_length" not in shown
    event = EventRow(
        time=Micros(5), address=UNSPECIFIED, peer=UNSPECIFIED, reason=Reason.RESET, lost=0, kind="x", name="n", label=""
    )
    assert output.as_json(event) == {
        "time_us": 5,
        "address": None,
        "peer": None,
        "reason": "reset",
        "lost": 0,
        "kind": "x",
        "name": "n",
        "label": "",
    }


@pytest.mark.parametrize(("length", "text"), [(32, "2001:db8::/32"), (128, "2001:db8::"), (ANY_LENGTH, "any")])
def test_who_may_come(length: int, text: str) -> None:
    assert output.peer(attrs.evolve(WAITER, peer_length=length)) == text
