"""docs/ports.md: its numbers follow from its formulas, and the tests that it names exist."""

import re
from pathlib import Path

import pytest

from umuxstack.core.legacy.ports import PORTS
from umuxstack.core.tcp.quiet import LONGEST

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/ports.md").read_text()
RATE = 1_000_000  # packets a second
WINDOW = 1 << 20
YEAR = 365.25 * 86_400
NAMED = sorted(set(re.findall(r"`(tests/[\w/.-]+\.(?:py|pkt))(?:::(\w+))?`", PAGE)))


def mean(addressing: int, numbers: int) -> float:
    """Seconds."""
    return addressing * numbers / 2 / RATE


def in_words(seconds: float) -> str:
    if seconds < 1e-6:
        return "1 packet"
    if seconds < 1:
        return f"{seconds * 1000:.2g} ms" if seconds > 0.01 else f"{seconds * 1000:.1f} ms"
    if seconds < 1000:
        return f"{seconds:.0f} s" if seconds > 100 else f"{seconds:.1f} s"
    if seconds < 86_400:
        return f"{seconds / 60:.0f} min"
    if seconds < YEAR:
        return f"{seconds / 86_400:.1f} days"
    years = seconds / YEAR
    if years < 1000:
        return f"{years:.2f} years"
    if years < 1e6:
        return f"{years:,.0f} years"
    mantissa, _, exponent = f"{years:.1e}".partition("e+")
    return f"{mantissa} × 10^{int(exponent)} years"


@pytest.mark.parametrize(
    ("attack", "numbers"),
    [
        ("RST, any number", 2**32 // WINDOW),
        ("RST, the exact number", 2**32),
        ("data, number and acknowledgment", (2**32 // WINDOW) ** 2),
        ("packet too big, quoting", 2**32 // WINDOW),
        ("a UDP datagram", 1),
    ],
)
def test_the_table_of_blind_attacks_is_computed(attack: str, numbers: int) -> None:
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| {attack}"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2:] == [in_words(mean(addressing, numbers)) for addressing in (PORTS, 2**64, 1)]


def test_the_other_numbers_are_computed_too() -> None:
    for number in (
        f"{PORTS:,}",
        f"{PORTS / 60:,.0f} connections a second",
        f"{PORTS // 240} a\nsecond",
        f"{2**32 * 4e-6 / 3600:.2f} hours",
        f"{10_000 * 60 * 200 / 1e6:.0f} MB",
        f"W, here 2^{WINDOW.bit_length() - 1} bytes",
    ):
        assert number in PAGE, number
    assert LONGEST == 10
    assert "up to ten minutes" in PAGE


def test_it_names_tests_that_exist() -> None:
    assert len(NAMED) > 25
    for file, test in NAMED:
        text = (ROOT / file).read_text()
        assert not test or f"def {test}(" in text, f"{file} has no {test}"
