"""The numbers that the documentation quotes: against brute force, and against the specification."""

import builtins
import json
from fractions import Fraction
from itertools import accumulate
from operator import mul
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from umuxstack.analyze import birthday
from umuxstack.analyze.birthday import (
    CASE_A,
    CASE_B,
    JULIAN_YEAR,
    YEAR,
    count_until,
    mean_guess_seconds,
    mean_sweep_seconds,
    probability,
    probability_after,
    years_until,
    years_until_sealed_ends,
)
from umuxstack.analyze.curves import draw
from umuxstack.core.errors import BadArgument


def by_multiplication(bits: int) -> list[Fraction]:
    """P(0), P(1), … P(2^bits), by the formula as it stands."""
    size = 1 << bits
    none = accumulate((Fraction(size - k, size) for k in range(1, size + 1)), mul, initial=Fraction(1))
    return [1 - product for product in none]


@pytest.mark.parametrize("bits", [1, 2, 3, 5, 8])
def test_it_agrees_with_the_product_multiplied_out(bits: int) -> None:
    for count, exact in enumerate(by_multiplication(bits)):
        assert probability(count, bits) == pytest.approx(float(exact), rel=1e-15, abs=0)


@pytest.mark.parametrize("bits", [12, 16])
def test_it_agrees_with_the_product_where_the_series_is_used(bits: int) -> None:
    """Above 1,024 the series replaces the factorial; and where the two meet."""
    size = 1 << bits
    none = Fraction(1)
    for k in range(1, 400):
        none *= Fraction(size - k, size)
        assert probability(k, bits) == pytest.approx(float(1 - none), rel=1e-15, abs=0)
    for count in (size - 1024, size - 1023, size - 1):
        assert probability(count, bits) == 1.0


@pytest.mark.parametrize("bits", [3, 8])
@pytest.mark.parametrize("chance", [0.001, 0.25, 0.5, 0.99, 1.0])
def test_the_count_for_a_probability_is_the_least_one(bits: int, chance: float) -> None:
    exact = by_multiplication(bits)
    assert count_until(chance, bits) == next(n for n, p in enumerate(exact) if p >= Fraction(chance))


def test_twenty_three_people() -> None:
    """365 is no power of two, so by the logarithm itself: 22 more people make it 50.7 %."""
    from decimal import localcontext

    with localcontext() as context:
        context.prec = 50
        assert float(1 - birthday._ln_no_repeat(22, 365).exp()) == pytest.approx(0.507297, abs=1e-6)


@pytest.mark.parametrize("bits", [64, 128])
def test_small_probabilities_lose_no_digit(bits: int) -> None:
    assert probability(1, bits) == 2.0**-bits
    assert probability(2, bits) == pytest.approx(3 * 2.0**-bits, rel=1e-15)
    assert probability(0, bits) == 0.0


# SPEC section 10


def test_the_decks_case_b_in_64_bits() -> None:
    assert f"{probability_after(10):.3%}" == "2.674%"
    assert f"{probability_after(20):.3%}" == "10.275%"
    assert f"{years_until(0.25):.3f}" == "32.579"
    assert f"{years_until(0.50):.3f}" == "50.569"


def test_the_decks_ten_year_figure_is_a_misprint() -> None:
    assert f"{years_until(0.028):.2f}" == "10.24"
    by_claim = {figure.claim: figure for figure in birthday.deck_figures()}
    first = by_claim["probability after 10 years"]
    assert f"{first.printed:.3f}" != f"{first.exact:.3f}"
    assert "misprint" in first.note
    for claim, digits in (("probability after 20 years", 3), ("years until 25 %", 1), ("years until 50 %", 1)):
        assert round(by_claim[claim].exact, digits) == by_claim[claim].printed


def test_the_decks_rates() -> None:
    assert CASE_A == YEAR
    assert f"{CASE_B / YEAR:.1f}" == "3.2"


def test_with_48_bits_half_comes_after_72_days() -> None:
    assert round(365 * years_until(0.5, CASE_B, 48)) == 72


@pytest.mark.rule("UM-13.b")
def test_sealed_never_repeats_before_the_space_is_used_up() -> None:
    assert years_until_sealed_ends(CASE_B) == 2.0**64 / CASE_B


@pytest.mark.rule("UM-30")
@pytest.mark.parametrize(("waiting", "years"), [(1, "584,542"), (1_000, "585")])
def test_blind_guessing_takes_so_many_years(waiting: int, years: str) -> None:
    assert f"{mean_guess_seconds(waiting, 1e6) / float(JULIAN_YEAR):,.0f}" == years


@pytest.mark.rule("UM-30")
def test_a_million_waiting_addresses_are_hit_after_214_days() -> None:
    assert f"{mean_guess_seconds(1_000_000, 1e6) / 86_400:.0f}" == "214"


def test_a_sweep_without_repeats_halves_the_time_for_one_address() -> None:
    assert mean_sweep_seconds(1, 1.0, 8) == 257 / 2
    assert mean_sweep_seconds(256, 1.0, 8) == 1
    # All ways to place two waiting addresses among 16, the first of them counted from 1.
    places = [(a, b) for a in range(1, 17) for b in range(a + 1, 17)]
    assert mean_sweep_seconds(2, 1.0, 4) == pytest.approx(sum(a for a, _ in places) / len(places))


# What it shows


def test_the_table_quotes_every_figure() -> None:
    text = birthday.table()
    for figure in ("2.674 %", "10.275 %", "32.579", "50.569", "10.24 years", "72 days", "584,542 years", "214 days"):
        assert figure in text
    assert "3.171" in text


def test_the_json_holds_the_same_numbers() -> None:
    found = json.loads(birthday.as_json())
    case_b = found["rates"][1]
    assert case_b["addresses_a_year"] == CASE_B
    assert case_b["probability_after_years"]["10"] == probability_after(10)
    assert case_b["years_until"]["0.5"] == years_until(0.5)
    assert len(found["deck"]) == 5
    assert round(found["blind_guessing"][0]["years"]) == 584_542


def test_an_svg_is_drawn_without_any_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _without_matplotlib(monkeypatch)
    draw(tmp_path / "curves.svg")
    root = ElementTree.parse(tmp_path / "curves.svg").getroot()
    words = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "10 years: 2.674 %" in words
    assert len(list(root.iter("{http://www.w3.org/2000/svg}polyline"))) == 4


def test_a_png_without_matplotlib_is_refused_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _without_matplotlib(monkeypatch)
    with pytest.raises(BadArgument, match="needs matplotlib"):
        draw(tmp_path / "curves.png")
    assert list(tmp_path.iterdir()) == []


def test_a_png_is_drawn_with_matplotlib(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(("bits", "rate"), [(48, 1e8), (120, 1.0), (8, 1e8)])
def test_a_curve_that_was_asked_for_is_drawn_with_its_label_inside(tmp_path: Path, bits: int, rate: float) -> None:
    draw(tmp_path / "curves.svg", [(bits, rate)])
    root = ElementTree.parse(tmp_path / "curves.svg").getroot()
    label = [e for e in root.iter("{http://www.w3.org/2000/svg}text") if e.text == f"{bits} bits,"][-1]
    assert len(list(root.iter("{http://www.w3.org/2000/svg}polyline"))) == 5
    assert 90 <= float(label.attrib["x"]) <= 940


def test_the_command_prints_what_was_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert birthday.report(bits=None, rate=None, json=False, plot=None) == 0
    assert capsys.readouterr().out == birthday.table()
    assert birthday.report(bits=48, rate=2.0, json=True, plot=str(tmp_path / "asked.svg")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bits"] == 48
    assert [row["addresses_a_year"] for row in found["rates"]] == [2 * YEAR]
    assert "48 bits," in (tmp_path / "asked.svg").read_text()


def test_another_kind_of_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match=r"a \.png or an \.svg"):
        draw(tmp_path / "curves.gif")


def _without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *arguments: Any, **more: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", missing)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: probability(-1), "fewer than none"),
        (lambda: probability(1, 0), "allowed is 1 to 128"),
        (lambda: count_until(0.0), "above 0"),
        (lambda: count_until(1.5), "at most 1"),
        (lambda: years_until(0.5, 0), "rate 0"),
        (lambda: probability_after(1, float("nan")), "rate nan"),
        (lambda: years_until_sealed_ends(float("inf")), "rate inf"),
        (lambda: mean_guess_seconds(0, 1.0), "0 addresses waiting"),
        (lambda: mean_guess_seconds(1, 0.0), "rate 0"),
    ],
)
def test_senseless_questions_are_refused(call: Any, says: str) -> None:
    with pytest.raises(BadArgument, match=says):
        call()
