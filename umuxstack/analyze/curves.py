"""The picture of `umuxstack.analyze.birthday`: probability of a repeat over the years.

A PNG is drawn by matplotlib; an SVG is written by hand, so that it needs nothing
and comes out the same everywhere. Both show the same `Curve`s and `Mark`s.
"""

from collections.abc import Callable, Iterable, Sequence
from html import escape
from math import log10
from pathlib import Path
from typing import Final

import attrs

from umuxstack.analyze.birthday import (
    CASE_A,
    CASE_B,
    YEAR,
    probability_after,
    years_until,
    years_until_sealed_ends,
)
from umuxstack.core.errors import BadArgument

FIRST_YEAR: Final = 0.01
LAST_YEAR: Final = 1000.0
TICKS: Final = (
    (0.01, "4 days"),
    (0.1, "5 weeks"),
    (1.0, "1 year"),
    (10.0, "10 years"),
    (100.0, "100"),
    (1000.0, "1000"),
)
TITLE: Final = "When does a randomly chosen address come again?"
X_LABEL: Final = "time at the given rate (logarithmic)"
Y_LABEL: Final = "probability that some address came twice"
INK: Final = "#22262b"
GREY: Final = "#6b7280"
GRID: Final = "#e3e6ea"
STEPS: Final = 240


@attrs.frozen(slots=True)
class Curve:
    """`points` are (years, probability); the label stands at `anchor`, left of it if `before`."""

    label: tuple[str, ...]
    colour: str
    points: list[tuple[float, float]]
    anchor: tuple[float, float]
    before: bool = False


@attrs.frozen(slots=True)
class Mark:
    """A figure of the deck: its exact place, and what to write beside it."""

    years: float
    chance: float
    label: str


def curves(asked: Iterable[tuple[int, float]] = ()) -> list[Curve]:
    """The deck's cases, `sealed`, and what was asked for besides: (bits, addresses a year).

    Colours that also colour-blind readers tell apart (Okabe and Ito).
    """
    return [
        Curve(
            ("48 bits,", "case B"),
            "#d55e00",
            _sample(lambda years: probability_after(years, CASE_B, 48)),
            (years_until(0.62, CASE_B, 48), 0.62),
            before=True,
        ),
        Curve(
            ("64 bits, case B:", "100 million", "addresses a year"),
            "#0072b2",
            _sample(lambda years: probability_after(years, CASE_B)),
            (years_until(0.84, CASE_B), 0.84),
            before=True,
        ),
        Curve(
            ("64 bits,", "case A: one", "a second"),
            "#009e73",
            _sample(lambda years: probability_after(years, CASE_A)),
            (years_until(0.60, CASE_A), 0.60),
        ),
        Curve(
            ("sealed, 64 bits, case B:", f"0 for {years_until_sealed_ends() / 1e9:,.0f} billion years"),
            "#6a3d9a",
            [(FIRST_YEAR, 0.0), (LAST_YEAR, 0.0)],
            (0.085, 0.07),
        ),
        *(_asked(bits, rate) for bits, rate in asked),
    ]


def _asked(bits: int, rate: float) -> Curve:
    """A curve like the others; its label stays inside the picture where the curve lies beside it."""
    height = 0.38
    place = years_until(height, rate, bits)
    return Curve(
        (f"{bits} bits,", f"{rate / YEAR:.4g} a second"),
        INK,
        _sample(lambda years: probability_after(years, rate, bits)),
        (min(max(place, FIRST_YEAR), LAST_YEAR), height),
        before=place > LAST_YEAR / 5,
    )


def marks() -> list[Mark]:
    found = [Mark(years, probability_after(years), f"{years} years") for years in (10, 20)]
    found += [Mark(years_until(chance), chance, f"{years_until(chance):.1f} years") for chance in (0.25, 0.5)]
    return [Mark(mark.years, mark.chance, f"{mark.label}: {round(100 * mark.chance, 3):g} %") for mark in found]


def draw(path: Path, asked: Iterable[tuple[int, float]] = ()) -> None:
    """Writes the picture, with a curve for each (bits, addresses a year) besides the deck's.

    Raises BadArgument for a suffix other than .png and .svg, or a PNG without matplotlib.
    """
    suffix = path.suffix.lower()
    if suffix == ".svg":
        path.write_text(as_svg(curves(asked), marks()), encoding="utf-8")
    elif suffix == ".png":
        _draw_png(path, curves(asked), marks())
    else:
        raise BadArgument(f"{path} ends in {suffix!r}; the picture is a .png or an .svg")


def _sample(chance: Callable[[float], float]) -> list[tuple[float, float]]:
    """Evenly spaced on the logarithmic axis."""
    span = log10(LAST_YEAR / FIRST_YEAR)
    years = [FIRST_YEAR * 10 ** (span * step / STEPS) for step in range(STEPS + 1)]
    return [(year, chance(year)) for year in years]


def _draw_png(path: Path, lines: Sequence[Curve], points: Sequence[Mark]) -> None:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BadArgument("a PNG needs matplotlib (pip install 'umuxstack[plot]'); an .svg does not") from error
    figure = Figure(figsize=(9.6, 5.4), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_xlim(FIRST_YEAR, LAST_YEAR)
    axes.set_ylim(-0.015, 1.0)
    axes.set_xticks([year for year, _ in TICKS], [text for _, text in TICKS])
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.minorticks_off()
    axes.grid(color=GRID, linewidth=0.9)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelcolor=GREY, labelsize=10)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GREY)
    axes.set_title(TITLE, loc="left", fontsize=15, color=INK, pad=14, fontweight="bold")
    axes.set_xlabel(X_LABEL, color=GREY, fontsize=10, labelpad=8)
    axes.set_ylabel(Y_LABEL, color=GREY, fontsize=10, labelpad=8)
    for curve in lines:
        axes.plot(*zip(*curve.points, strict=True), color=curve.colour, linewidth=2.4, solid_capstyle="round")
        axes.annotate(
            "\n".join(curve.label),
            curve.anchor,
            xytext=(-10 if curve.before else 10, 0),
            textcoords="offset points",
            ha="right" if curve.before else "left",
            va="center",
            color=curve.colour,
            fontsize=10.5,
            linespacing=1.3,
        )
    for mark in points:
        axes.plot([mark.years], [mark.chance], "o", color="#0072b2", markersize=7, markeredgecolor="white", zorder=5)
        axes.annotate(
            mark.label,
            (mark.years, mark.chance),
            xytext=(-10, 7),
            textcoords="offset points",
            ha="right",
            color=INK,
            fontsize=9.5,
        )
    figure.savefig(path)


def as_svg(lines: Sequence[Curve], points: Sequence[Mark]) -> str:
    """The picture as the text of an SVG, 960 by 540 units."""
    left, top, right, bottom = 92.0, 70.0, 936.0, 466.0
    span = log10(LAST_YEAR / FIRST_YEAR)

    def x(years: float) -> float:
        return left + (right - left) * log10(years / FIRST_YEAR) / span

    def y(chance: float) -> float:
        return bottom - (bottom - top) * chance

    def text(at: tuple[float, float], words: str, colour: str, *, size: float = 13, anchor: str = "start") -> str:
        return (
            f'<text x="{at[0]:.1f}" y="{at[1]:.1f}" fill="{colour}" font-size="{size}" text-anchor="{anchor}">'
            f"{escape(words)}</text>"
        )

    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 540" font-family="Helvetica, Arial, sans-serif">',
        f"<title>{escape(TITLE)}</title>",
        '<rect width="960" height="540" fill="white"/>',
        f'<text x="{left}" y="40" fill="{INK}" font-size="21" font-weight="bold">{escape(TITLE)}</text>',
    ]
    for percent in (0, 25, 50, 75, 100):
        height = y(percent / 100)
        parts.append(f'<path d="M{left} {height:.1f}H{right}" stroke="{GREY if percent == 0 else GRID}"/>')
        parts.append(text((left - 10, height + 4), f"{percent} %", GREY, anchor="end"))
    for year, label in TICKS:
        parts.append(f'<path d="M{x(year):.1f} {top}V{bottom}" stroke="{GRID}"/>')
        parts.append(text((x(year), bottom + 22), label, GREY, anchor="middle"))
    parts.append(text(((left + right) / 2, 520), X_LABEL, GREY, anchor="middle"))
    middle = (top + bottom) / 2
    parts.append(f'<g transform="rotate(-90 24 {middle})">{text((24, middle), Y_LABEL, GREY, anchor="middle")}</g>')
    for curve in lines:
        path = " ".join(f"{x(years):.1f},{y(chance):.1f}" for years, chance in curve.points)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{curve.colour}" stroke-width="3" stroke-linejoin="round"/>'
        )
        across = x(curve.anchor[0]) + (-14 if curve.before else 14)
        first = y(curve.anchor[1]) + 4 - 9 * (len(curve.label) - 1)
        parts += [
            text((across, first + 18 * row), words, curve.colour, size=14, anchor="end" if curve.before else "start")
            for row, words in enumerate(curve.label)
        ]
    for mark in points:
        at = (x(mark.years), y(mark.chance))
        parts.append(f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="5" fill="#0072b2" stroke="white"/>')
        parts.append(text((at[0] - 12, at[1] - 8), mark.label, INK, anchor="end"))
    return "\n".join([*parts, "</svg>"]) + "\n"
