"""`umux plot`: what a session's log shows, as pictures.

Reads logs (driver/qlog.py), makes panels: time/sequence, windows, round-trip
time, goodput, and the lives of addresses. Writes one page that needs nothing
else (HTML with the pictures inside), an SVG, or a PNG (by matplotlib).
"""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

import attrs

from umuxstack.analyze.curves import GREY, GRID, INK
from umuxstack.core.errors import BadArgument

Point = tuple[float, float]

WIDTH: Final = 960
HEIGHT: Final = 260
LEFT, RIGHT, TOP, BOTTOM = 78, 16, 34, 34
# Colours that also colour-blind readers tell apart (Okabe and Ito)
BLUE, ORANGE, GREEN, RED, SKY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9"
PHASES: Final = (("waiting", ORANGE), ("session", BLUE), ("retiring", GRID))
MOST_POINTS: Final = 4000  # a curve is thinned to this: more cannot be seen
GOODPUT_STEPS: Final = 120
GAP: Final = 12  # between the pictures of a PNG


@attrs.frozen
class Series:
    """One curve, or a cloud of marks where `dots`."""

    label: str
    colour: str
    points: list[Point]
    dots: bool = False
    steps: bool = False


@attrs.frozen
class Bar:
    """One life: `name` from `start` to `end` seconds, in `phases` of (from, to, colour)."""

    name: str
    phases: list[tuple[float, float, str]]


@attrs.frozen
class Panel:
    """One picture: curves over seconds in `unit`, or bars."""

    title: str
    unit: str
    series: list[Series] = attrs.field(factory=list)
    bars: list[Bar] = attrs.field(factory=list)


def panels(header: dict[str, Any], events: Sequence[dict[str, Any]]) -> list[Panel]:
    """The pictures of one session's log; empty ones are left out."""
    name = header.get("title", "session")
    sent: list[Point] = []
    again: list[Point] = []
    acked: list[Point] = []
    cwnd: list[Point] = []
    ssthresh: list[Point] = []
    flight: list[Point] = []
    latest: list[Point] = []
    smoothed: list[Point] = []
    lost: list[Point] = []
    for event in events:
        time = event["time"] / 1000
        data = event["data"]
        kind = event["name"]
        if kind == "transport:packet_sent":
            (again if data.get("retransmission") else sent).append((time, data["end"]))
        elif kind == "recovery:packet_lost":
            lost.append((time, data["offset"]))
        elif kind == "recovery:metrics_updated":
            acked.append((time, data["acknowledged"]))
            cwnd.append((time, data["congestion_window"]))
            flight.append((time, data["bytes_in_flight"]))
            smoothed.append((time, data["smoothed_rtt"]))
            if "ssthresh" in data:
                ssthresh.append((time, data["ssthresh"]))
            if "latest_rtt" in data:
                latest.append((time, data["latest_rtt"]))
    made = [
        Panel(
            f"{name}: sequence numbers",
            "bytes",
            [
                Series("sent up to", BLUE, sent, dots=True),
                Series("acknowledged", GREEN, acked, steps=True),
                Series("sent again", RED, again, dots=True),
                Series("found lost", ORANGE, lost, dots=True),
            ],
        ),
        Panel(
            f"{name}: windows",
            "bytes",
            [
                Series("cwnd", BLUE, cwnd, steps=True),
                Series("ssthresh", RED, ssthresh, steps=True),
                Series("in flight", SKY, flight, steps=True),
            ],
        ),
        Panel(
            f"{name}: round-trip time",
            "ms",
            [Series("measured", SKY, latest, dots=True), Series("smoothed", BLUE, smoothed, steps=True)],
        ),
        Panel(f"{name}: goodput", "Mbit/s", [Series("acknowledged", GREEN, goodput(acked), steps=True)]),
    ]
    kept = [attrs.evolve(panel, series=[one for one in panel.series if one.points]) for panel in made]
    return [panel for panel in kept if panel.series]


def goodput(acked: Sequence[Point]) -> list[Point]:
    """Megabits per second acknowledged, in equal steps of time."""
    if len(acked) < 2 or acked[-1][0] <= acked[0][0]:
        return []
    start, end = acked[0][0], acked[-1][0]
    width = (end - start) / GOODPUT_STEPS
    sums = [0.0] * GOODPUT_STEPS
    before = acked[0][1]
    for time, upto in acked[1:]:
        sums[min(int((time - start) / width), GOODPUT_STEPS - 1)] += max(upto - before, 0)
        before = max(before, upto)
    return [(start + index * width, total * 8 / width / 1e6) for index, total in enumerate(sums)]


def lives(events: Iterable[dict[str, Any]]) -> Panel | None:
    """Which address lived when, from `leases.qlog`."""
    opened: dict[str, float] = {}
    established: dict[str, float] = {}
    retiring: dict[str, float] = {}
    ended: dict[str, float] = {}
    last = 0.0
    moments = {
        "umux:lease_opened": opened,
        "umux:session_established": established,
        "umux:lease_retiring": retiring,
        "umux:lease_ended": ended,
    }
    for event in events:
        last = max(last, event["time"] / 1000)
        table = moments.get(event["name"])
        if table is not None:
            table.setdefault(event["data"]["lease"], event["time"] / 1000)
    bars = []
    for name, start in opened.items():
        end = ended.get(name, last)
        session = min(established.get(name, end), end)
        rest = min(retiring.get(name, end), end)
        rest = max(rest, session)
        ends = (start, session, rest, end)
        spans = [(ends[n], ends[n + 1], colour) for n, (_, colour) in enumerate(PHASES)]
        bars.append(Bar(name, [span for span in spans if span[1] > span[0]]))
    return Panel("lives of addresses", "", bars=bars) if bars else None


def draw(logs: Sequence[Path], target: Path) -> int:
    """Draws `logs` into `target`, by its ending: .html, .svg or .png. Returns the number of pictures.

    Raises BadArgument for a file that is no log, another ending, or logs in which there is nothing to draw.
    """
    from umuxstack.driver.qlog import read

    made: list[Panel] = []
    for path in logs:
        try:
            header, events = read(path)
        except ValueError as error:
            raise BadArgument(str(error)) from None
        if path.stem == "leases":
            life = lives(events)
            made += [life] if life else []
        else:
            made += panels(header, events)
    if not made:
        raise BadArgument("there is nothing to draw: no session sent anything, and no address lived")
    ending = target.suffix.lower()
    if ending == ".html":
        target.write_text(as_html(made), encoding="utf-8")
    elif ending == ".svg":
        target.write_text(as_svg(made), encoding="utf-8")
    elif ending == ".png":
        _draw_png(made, target)
    else:
        raise BadArgument(f"{target.name}: the picture's ending says its kind: .html, .svg or .png")
    return len(made)


def as_html(made: Sequence[Panel]) -> str:
    """One page; nothing is loaded from anywhere."""
    pictures = "\n".join(f"<figure>{_svg(panel, 0, alone=True)}</figure>" for panel in made)
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>umux plot</title>\n'
        "<style>body{margin:2rem auto;max-width:980px;font-family:system-ui,sans-serif;color:#22262b}"
        "figure{margin:0 0 1.5rem}svg{width:100%;height:auto}</style>\n"
        f"{pictures}\n</html>\n"
    )


def as_svg(made: Sequence[Panel]) -> str:
    """All pictures below each other."""
    heights = [_height(panel) for panel in made]
    parts = []
    y = 0
    for panel, height in zip(made, heights, strict=True):
        parts.append(_svg(panel, y, alone=False))
        y += height
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" '
        f'font-family="system-ui,sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n'
        f"{body}\n</svg>\n"
    )


def _height(panel: Panel) -> int:
    return TOP + BOTTOM + 22 * len(panel.bars) if panel.bars else HEIGHT


def _svg(panel: Panel, y: int, *, alone: bool) -> str:
    height = _height(panel)
    inside = _bars(panel, height) if panel.bars else _curves(panel)
    title = f'<text x="{LEFT}" y="18" fill="{INK}" font-weight="600">{escape(panel.title)}</text>'
    if alone:
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="system-ui,sans-serif"'
            f' font-size="12" role="img" aria-label="{escape(panel.title)}">{title}{inside}</svg>'
        )
    return f'<g transform="translate(0,{y})">{title}{inside}</g>'


def _extent(panel: Panel) -> tuple[float, float, float]:
    """First and last second, and the largest value."""
    points = [point for one in panel.series for point in one.points]
    start, end = min(p[0] for p in points), max(p[0] for p in points)
    return start, max(end, start + 1e-6), max(1e-9, *(p[1] for p in points))


def _curves(panel: Panel) -> str:
    start, end, top = _extent(panel)
    high = _nice(top)
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(point: Point) -> tuple[float, float]:
        return LEFT + (point[0] - start) / (end - start) * width, TOP + height - point[1] / high * height

    parts = []
    for step in range(5):
        value = high * step / 4
        level = TOP + height - height * step / 4
        parts.append(f'<path d="M{LEFT} {level:.1f}H{WIDTH - RIGHT}" stroke="{GRID}"/>')
        text = f"{_number(value)} {panel.unit if step == 4 else ''}"
        parts.append(f'<text x="{LEFT - 6}" y="{level + 4:.1f}" text-anchor="end" fill="{GREY}">{text}</text>')
    for step in range(6):
        time = start + (end - start) * step / 5
        x = LEFT + width * step / 5
        anchor = "start" if step == 0 else "end" if step == 5 else "middle"
        parts.append(
            f'<text x="{x:.0f}" y="{HEIGHT - 12}" text-anchor="{anchor}" fill="{GREY}">{_number(time)} s</text>'
        )
    parts.append(_legend([(one.label, one.colour) for one in panel.series]))
    parts += [_drawn(one, place) for one in panel.series]
    return "".join(parts)


def _legend(entries: Sequence[tuple[str, str]]) -> str:
    """What the colours mean: a square and a word each, from the right end of the title's line."""
    parts = []
    x = WIDTH - RIGHT
    for label, colour in reversed(entries):
        parts.append(f'<text x="{x}" y="18" text-anchor="end" fill="{INK}">{escape(label)}</text>')
        x -= 7 * len(label) + 14
        parts.append(f'<rect x="{x}" y="9" width="10" height="10" fill="{colour}"/>')
        x -= 16
    return "".join(parts)


def _drawn(one: Series, place: Any) -> str:
    points = [place(point) for point in _thin(one.points)]
    if one.dots:
        marks = "".join(f"M{x:.1f} {y:.1f}h.01" for x, y in points)
        return f'<path d="{marks}" stroke="{one.colour}" stroke-width="3" stroke-linecap="round" fill="none"/>'
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for x, y in points[1:]:
        path += f"H{x:.1f}V{y:.1f}" if one.steps else f"L{x:.1f} {y:.1f}"
    return f'<path d="{path}" stroke="{one.colour}" stroke-width="1.5" fill="none"/>'


def _thin(points: list[Point]) -> list[Point]:
    step = -(-len(points) // MOST_POINTS)
    return points if step <= 1 else points[::step] + points[-1:]


def _bars(panel: Panel, height: int) -> str:
    start = min(phase[0] for bar in panel.bars for phase in bar.phases)
    end = max(phase[1] for bar in panel.bars for phase in bar.phases)
    left = LEFT + 60
    width = WIDTH - left - RIGHT
    parts = [_legend(PHASES)]
    for row, bar in enumerate(panel.bars):
        y = TOP + row * 22
        parts.append(f'<text x="{left - 8}" y="{y + 12}" text-anchor="end" fill="{INK}">{escape(bar.name)}</text>')
        for begin, finish, colour in bar.phases:
            x = left + (begin - start) / max(end - start, 1e-9) * width
            wide = max((finish - begin) / max(end - start, 1e-9) * width, 1.5)
            parts.append(f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="15" fill="{colour}" rx="2"/>')
    for step in range(6):
        x = left + width * step / 5
        anchor = "start" if step == 0 else "end" if step == 5 else "middle"
        time = start + (end - start) * step / 5
        parts.append(
            f'<text x="{x:.0f}" y="{height - 10}" text-anchor="{anchor}" fill="{GREY}">{_number(time)} s</text>'
        )
    return "".join(parts)


def _nice(value: float) -> float:
    """The next 1, 2, 2.5, 4, 5 or 8 times a power of ten: four equal steps of it are round numbers."""
    power = 1.0
    while power * 10 <= value:
        power *= 10
    while power > value:
        power /= 10
    return next((power * factor for factor in (1, 2, 2.5, 4, 5, 8, 10) if power * factor >= value), power * 10)


def _number(value: float) -> str:
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{letter}"
    return f"{value:.3g}"


def _draw_png(made: Sequence[Panel], target: Path) -> None:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
    except ImportError:
        raise BadArgument("a PNG is drawn by matplotlib, which is not installed; write .svg or .html") from None
    # Every place is calculated: matplotlib's own layout takes minutes for a few hundred pictures.
    heights = [_height(panel) + GAP for panel in made]
    whole = sum(heights)
    figure = Figure(figsize=(WIDTH / 100, whole / 100))
    FigureCanvasAgg(figure)
    y = whole
    for panel, height in zip(made, heights, strict=True):
        y -= height
        left = LEFT + 60 if panel.bars else LEFT
        inside = (
            left / WIDTH,
            (y + BOTTOM + 8) / whole,
            1 - (left + RIGHT) / WIDTH,
            (height - TOP - BOTTOM - 8) / whole,
        )
        axis = figure.add_axes(inside)
        axis.set_title(panel.title, loc="left", fontsize=10)
        for row, bar in enumerate(panel.bars):
            for begin, finish, colour in bar.phases:
                axis.barh(row, finish - begin, left=begin, color=colour)
        if panel.bars:
            axis.set_yticks(range(len(panel.bars)), [bar.name for bar in panel.bars])
            axis.set_ylim(len(panel.bars) - 0.4, -0.6)
            axis.legend(
                handles=[Patch(color=colour, label=label) for label, colour in PHASES],
                fontsize=8, ncols=3, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2, frameon=False,
            )  # fmt: skip
        for one in panel.series:
            points = _thin(one.points)
            xs, ys = [p[0] for p in points], [p[1] for p in points]
            if one.dots:
                axis.plot(xs, ys, ".", markersize=3, color=one.colour, label=one.label)
            else:
                axis.step(xs, ys, where="post", linewidth=1.2, color=one.colour, label=one.label)
        if panel.series:
            axis.legend(fontsize=8, loc="best")
            axis.set_ylabel(panel.unit)
            axis.yaxis.set_major_formatter(lambda value, _: _number(value) if value >= 0 else "")
            axis.grid(color=GRID)
        axis.set_xlabel("s", fontsize=8)
    figure.savefig(target, dpi=110)
