"""How soon a random address comes again, and how long blind guessing takes.

Pure arithmetic, exact to the digits shown; plots only when asked to. The deck's
question: n more addresses are chosen at random among N = 2^bits; with what
probability P(n) = 1 - (1-1/N)(1-2/N)...(1-n/N) has one of them come twice?
The product is Γ(N) / (Γ(N-n) N^n), and ln Γ has a series with a known error,
so no digit is lost to a long product or to cancellation.
"""

import sys
from collections.abc import Sequence
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cache
from json import dumps
from math import comb, factorial, inf
from pathlib import Path
from typing import Final

import attrs

from umuxstack.core.errors import BadArgument

YEAR: Final = 365 * 86_400
"""Seconds; the deck's year, in which one address a second makes its case A."""

JULIAN_YEAR: Final = Fraction(36_525, 100) * 86_400
"""Seconds; the year of the figures for blind guessing, which the deck does not have."""

CASE_A: Final = 31_536_000
CASE_B: Final = 100_000_000
"""Addresses a year: one a second, and 3.17 a second."""

MAX_BITS: Final = 128

# ln Γ(N) has about 40 digits before the point at 128 bits; 120 leave 80 behind it.
_DIGITS: Final = 120
_TERMS: Final = 20
_EXACT_BELOW: Final = 1024  # below, the factorial itself; above, the 20 terms err by less than 1e-100


@attrs.frozen(slots=True)
class DeckFigure:
    """One figure of the design deck beside the exact one; `year` in years, probabilities from 0 to 1."""

    claim: str
    printed: float
    exact: float
    note: str = ""


@attrs.frozen(slots=True)
class GuessRow:
    """Mean time, in seconds, until blind guessing hits one of `waiting` addresses."""

    waiting: int
    seconds: float
    years: float
    days: float


@cache
def _stirling_terms() -> tuple[Fraction, ...]:
    """B(2k) / (2k (2k-1)): the coefficients of x^(1-2k) in Stirling's series for ln Γ(x)."""
    numbers = [Fraction(1)]  # Bernoulli numbers by their recurrence
    for m in range(1, 2 * _TERMS + 1):
        numbers.append(-sum((comb(m + 1, k) * numbers[k] for k in range(m)), Fraction(0)) / (m + 1))
    return tuple(numbers[2 * k] / (2 * k * (2 * k - 1)) for k in range(1, _TERMS + 1))


# Machin's formula would do; the constant is shorter.
_PI: Final = Decimal(
    "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534211706798214808651328"
    "230664709384460955058"
)


def _ln_gamma(x: int) -> Decimal:
    """ln Γ(x) for an integer x >= 1; in the caller's decimal context."""
    if x < _EXACT_BELOW:
        return Decimal(factorial(x - 1)).ln()
    value = (x - Decimal("0.5")) * Decimal(x).ln() - x + (2 * _PI).ln() / 2
    power = Decimal(1) / x
    square = power * power
    for term in _stirling_terms():
        value += Decimal(term.numerator) / Decimal(term.denominator) * power
        power *= square
    return value


def _ln_no_repeat(count: int, size: int) -> Decimal:
    """ln of the probability that `count` more choices among `size` bring no repeat; `count` < `size`."""
    return _ln_gamma(size) - _ln_gamma(size - count) - count * Decimal(size).ln()


def probability(count: int, bits: int = 64) -> float:
    """P(n) of the module's head for n = `count` random addresses of `bits` bits. Raises BadArgument."""
    _check(bits)
    if count < 0:
        raise BadArgument(f"{count} addresses; there cannot be fewer than none")
    size = 1 << bits
    if count >= size:
        return 1.0
    with localcontext() as context:
        context.prec = _DIGITS
        return float(1 - _ln_no_repeat(count, size).exp())


def count_until(chance: float, bits: int = 64) -> int:
    """The least n with P(n) >= `chance`, which lies between 0 and 1. Raises BadArgument."""
    _check(bits)
    if not 0 < chance <= 1:
        raise BadArgument(f"probability {chance}; it lies above 0 and is at most 1")
    size = 1 << bits
    if chance == 1:
        return size
    low, high = 0, size  # P(low) < chance <= P(high)
    with localcontext() as context:
        context.prec = _DIGITS
        limit = (1 - Decimal(chance)).ln()
        while high - low > 1:
            middle = (low + high) // 2
            if _ln_no_repeat(middle, size) <= limit:
                high = middle
            else:
                low = middle
    return high


def years_until(chance: float, rate: float = CASE_B, bits: int = 64) -> float:
    """Years of 365 days until a repeat has come with probability `chance`; `rate` in addresses a year."""
    _check_rate(rate)
    return count_until(chance, bits) / rate


def probability_after(years: float, rate: float = CASE_B, bits: int = 64) -> float:
    """P after so many years at `rate` addresses a year."""
    _check_rate(rate)
    return probability(round(years * rate), bits)


def years_until_sealed_ends(rate: float = CASE_B, bits: int = 64) -> float:
    """Years until `sealed` has issued every identifier; before, the probability of a repeat is 0."""
    _check(bits)
    _check_rate(rate)
    return (1 << bits) / rate


def mean_guess_seconds(waiting: int, rate: float, bits: int = 64) -> float:
    """Mean time until a blind guess hits one of `waiting` addresses, at `rate` guesses a second.

    Each guess hits with the same probability, whatever was guessed before: the addresses change, or the guesses
    are drawn anew. (Nothing better can be done against one-time addresses that live for a minute.)
    """
    _check_guess(waiting, rate, bits)
    return (1 << bits) / (waiting * rate)


def mean_sweep_seconds(waiting: int, rate: float, bits: int = 64) -> float:
    """The same for a guesser that never repeats a guess, against `waiting` addresses that never change.

    The mean of the least of m of N places is (N+1)/(m+1): for one address, half the time of `mean_guess_seconds`.
    """
    _check_guess(waiting, rate, bits)
    return ((1 << bits) + 1) / ((waiting + 1) * rate)


def deck_figures() -> list[DeckFigure]:
    """Every figure that the deck prints for its case B, beside the exact one."""
    misprint = f"a misprint in the deck: 2.8 % needs {years_until(0.028):.2f} years"
    return [
        DeckFigure("probability after 10 years", 0.028, probability_after(10), misprint),
        DeckFigure("probability after 20 years", 0.103, probability_after(20)),
        DeckFigure("years until 25 %", 32.6, years_until(0.25)),
        DeckFigure("years until 50 %", 50.6, years_until(0.50)),
        DeckFigure("addresses a second", 3.2, CASE_B / YEAR),
    ]


def guess_rows(rate: float = 1e6, waiting: Sequence[int] = (1, 1_000, 1_000_000)) -> list[GuessRow]:
    """Mean times of blind guessing behind a known /64."""
    rows = []
    for count in waiting:
        mean = mean_guess_seconds(count, rate)
        rows.append(GuessRow(count, mean, mean / float(JULIAN_YEAR), mean / 86_400))
    return rows


def table(rates: Sequence[float] = (CASE_A, CASE_B), bits: int = 64) -> str:
    """Everything as text, in columns."""
    lines = [f"A random address of {bits} bits comes again (P = 1 - (1-1/N)(1-2/N)...(1-n/N), N = 2^{bits})", ""]
    heads = "".join(f"{f'{rate:,.0f} a year':>24}" for rate in rates)
    lines.append(f"{'':<22}{heads}")
    for years in (1, 10, 20, 50, 100):
        cells = "".join(f"{100 * probability_after(years, rate, bits):>22.3f} %" for rate in rates)
        lines.append(f"{f'after {years} years' if years > 1 else 'after 1 year':<22}{cells}")
    for chance in (0.01, 0.25, 0.50):
        cells = "".join(f"{_duration(years_until(chance, rate, bits)):>24}" for rate in rates)
        lines.append(f"{f'{100 * chance:.0f} % after':<22}{cells}")
    cells = "".join(f"{_duration(years_until_sealed_ends(rate, bits)):>24}" for rate in rates)
    lines.append(f"{'sealed: 0 % until':<22}{cells}")
    lines += ["", "The deck's figures (case B, 64 bits)", ""]
    for figure in deck_figures():
        scale, unit = (100, " %") if figure.claim.startswith("probability") else (1, "")
        note = f"   ({figure.note})" if figure.note else ""
        lines.append(
            f"{figure.claim:<30}printed {f'{scale * figure.printed:.1f}{unit}':>7}   "
            f"exact {f'{scale * figure.exact:.3f}{unit}':>9}{note}"
        )
    days = 365 * years_until(0.5, CASE_B, 48)
    lines += ["", f"With 48 random bits (16 spent on a port number), case B: 50 % after {days:.0f} days.", ""]
    lines.append("Blind guessing behind a known /64, a million guesses a second, mean time until a hit:")
    for row in guess_rows():
        time = f"{row.years:,.0f} years" if row.years >= 1 else f"{row.days:,.0f} days"
        lines.append(f"{row.waiting:>10,} waiting {time:>18}")
    return "\n".join(lines) + "\n"


def as_json(rates: Sequence[float] = (CASE_A, CASE_B), bits: int = 64) -> str:
    """The same numbers for a program: probabilities from 0 to 1, years of 365 days."""
    return dumps(
        {
            "bits": bits,
            "rates": [
                {
                    "addresses_a_year": rate,
                    "probability_after_years": {
                        str(years): probability_after(years, rate, bits) for years in (1, 10, 20, 50, 100)
                    },
                    "years_until": {str(chance): years_until(chance, rate, bits) for chance in (0.01, 0.25, 0.5)},
                    "years_until_sealed_ends": years_until_sealed_ends(rate, bits),
                }
                for rate in rates
            ],
            "deck": [attrs.asdict(figure) for figure in deck_figures()],
            "days_until_half_with_48_bits": 365 * years_until(0.5, CASE_B, 48),
            "blind_guessing": [attrs.asdict(row) for row in guess_rows()],
        },
        indent=2,
    )


def report(*, bits: int | None, rate: float | None, json: bool, plot: str | None) -> int:
    """`umux analyze birthday`: prints the table, or the JSON, and draws the curves into the file `plot`.

    `rate` is in addresses a second; None: the deck's two cases. `bits` None: 64. Returns the exit code.
    Raises BadArgument as `draw` does, or for numbers out of range.
    """
    if rate is not None:
        _check_rate(rate)  # as it was given: what follows counts by the year
    rates = (CASE_A, CASE_B) if rate is None else (rate * YEAR,)
    width = 64 if bits is None else bits
    text = as_json(rates, width) + "\n" if json else table(rates, width)
    if plot is not None:
        # Here and not above: the curves are made of this module's numbers.
        from umuxstack.analyze.curves import draw

        asked = bits is not None or rate is not None
        draw(Path(plot), [(width, each) for each in rates] if asked else [])
    sys.stdout.write(text)
    return 0


def _duration(years: float) -> str:
    """A time in the unit that fits."""
    if years >= 1e6:
        return f"{years:.3g} years"
    if years >= 1:
        return f"{years:,.3f} years"
    if years >= 1 / 365:
        return f"{365 * years:.3g} days"
    return f"{YEAR * years:.3g} seconds"


def _check(bits: int) -> None:
    if not 1 <= bits <= MAX_BITS:
        raise BadArgument(f"{bits} bits; allowed is 1 to {MAX_BITS}")


def _check_guess(waiting: int, rate: float, bits: int) -> None:
    _check(bits)
    if not 1 <= waiting <= 1 << bits:
        raise BadArgument(f"{waiting} addresses waiting; allowed is 1 to 2^{bits}")
    _check_rate(rate)


def _check_rate(rate: float) -> None:
    if not 0 < rate < inf:
        raise BadArgument(f"rate {rate}; it must be above 0, and finite")
