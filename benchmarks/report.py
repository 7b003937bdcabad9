"""Results: the JSON of a run, the table of it, and what differs between two.

A ratio is the median of the ratios within each round: what disturbs the machine disturbs neighbours alike.
"""

import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

import attrs

from benchmarks.catalogue import CATALOGUE, LOWER, SAME_PROGRAM, Measurement
from benchmarks.harness import VARIANTS, Size

FORMAT: Final = 1
REGRESSION: Final = 0.10
BY_NAME: Final = {measurement.name: measurement for measurement in CATALOGUE}

Samples = dict[str, dict[str, list[float]]]
"""Measurement, variant, one value per round."""


@attrs.frozen
class Run:
    """One run. `machine` and `size` say how it was taken."""

    taken: str
    machine: dict[str, str]
    size: dict[str, Any]
    samples: Samples

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"format": FORMAT, **attrs.asdict(self)}, indent=1) + "\n")


def load(path: Path) -> Run:
    """Raises ValueError when the file is not such a result."""
    content = json.loads(path.read_text())
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise ValueError(f"{path} is not a result of format {FORMAT}: take it again")
    return Run(**content)


def new_run(size: Size, rounds: int) -> Run:
    return Run(time.strftime("%Y-%m-%d %H:%M %Z"), machine(), {"rounds": rounds, **attrs.asdict(size)}, {})


def machine() -> dict[str, str]:
    """What the numbers depend on."""
    names = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = next((line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), "0")
    load_average = os.getloadavg()[0]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{int(memory) / 2**20:.1f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "trio": version("trio"),
        "load before": f"{load_average:.1f}",
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


# Figures


def middle(measurement: Measurement, values: list[float]) -> float:
    """The figure of several rounds: the median, or the best one where the rest is other people's noise."""
    if not measurement.best:
        return median(values)
    return min(values) if measurement.better == LOWER else max(values)


def ratio(run: Run, measurement: Measurement, variant: str, base: str = "") -> float | None:
    """To `base` (the first variant by default), round by round, the median of that; None without both."""
    samples = run.samples.get(measurement.name, {})
    ones, others = samples.get(variant, []), samples.get(base or measurement.variants[0], [])
    if not ones or not all(others or [0]):  # a sample too short for the machine's mood may be nothing
        return None
    if measurement.best:
        return middle(measurement, ones) / middle(measurement, others)
    return median(one / other for one, other in zip(ones, others, strict=False))


def figure(run: Run, measurement: Measurement, variant: str) -> float | None:
    """What goals and comparisons are about: the ratio, or the value where the ratio says nothing."""
    if not measurement.absolute:
        return ratio(run, measurement, variant)
    values = run.samples.get(measurement.name, {}).get(variant)
    return middle(measurement, values) if values else None


def _reached(measurement: Measurement, value: float, goal: float) -> bool:
    return value <= goal if measurement.better == LOWER else value >= goal


# Tables


def table(run: Run) -> str:
    """The run as text for a terminal; also readable Markdown."""
    rows: list[tuple[str, ...]] = [("what", "variant", "figure", "spread", "ratio", "goal", "same program")]
    for measurement in CATALOGUE:
        rows.extend(_rows(run, measurement))
    lines = [" · ".join(f"{name} {value}" for name, value in run.machine.items()), ""]
    lines.append(f"taken {run.taken}, {run.size['rounds']} rounds in turn, CUBIC on every kernel socket")
    lines.append("figure: the median of the rounds (the best one for the core alone); ratio: to the first variant,")
    lines.append("the median of each round's; same program: to the same trio program on the kernel's sockets")
    lines.append("")
    lines += _aligned(rows, right=(2, 3, 4, 5, 6))
    used = {variant for samples in run.samples.values() for variant in samples}
    lines.append("")
    lines += [f"{name}: {text}" for name, text in VARIANTS.items() if name in used]
    return "\n".join(lines)


def _rows(run: Run, measurement: Measurement) -> Iterator[tuple[str, ...]]:
    title = f"{measurement.title} ({measurement.unit})"
    for variant, values in run.samples.get(measurement.name, {}).items():
        if not values:
            continue
        value = middle(measurement, values)
        spread = (max(values) - min(values)) / (median(values) or 1) / 2
        first = variant == measurement.variants[0]
        times = None if first or measurement.absolute else ratio(run, measurement, variant)
        alike = ratio(run, measurement, variant, SAME_PROGRAM[variant]) if variant in SAME_PROGRAM else None
        yield (
            title,
            variant,
            number(value),
            f"±{spread:.0%}" if len(values) > 1 else "",
            "" if times is None else f"{times:.2f}",
            _goal(run, measurement, variant),
            "" if alike is None else f"{alike:.2f}",
        )
        title = ""


def _goal(run: Run, measurement: Measurement, variant: str) -> str:
    goal, reached = measurement.goals.get(variant), figure(run, measurement, variant)
    if goal is None or reached is None:
        return ""
    sign = "≤" if measurement.better == LOWER else "≥"
    return f"{sign} {goal:g} {'yes' if _reached(measurement, reached, goal) else 'NO'}"


def number(value: float) -> str:
    """Three figures or all of the integer part."""
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def _aligned(rows: list[tuple[str, ...]], right: tuple[int, ...]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]

    def line(row: tuple[str, ...]) -> str:
        cells = (
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return f"| {' | '.join(cells)} |"

    rule = tuple("-" * (width - 1) + (":" if column in right else "-") for column, width in enumerate(widths))
    return [line(rows[0]), line(rule), *map(line, rows[1:])]


# Comparing


def compare(old: Run, new: Run) -> tuple[str, list[str]]:
    """A table of what changed, and the regressions of 10 % or more, in words.

    By ratio where there is one, because two runs may have met the machine in different moods.
    """
    rows: list[tuple[str, ...]] = [("what", "variant", "before", "now", "change", "")]
    worse: list[str] = []
    for name, samples in new.samples.items():
        measurement = BY_NAME[name]
        for variant in samples:
            if variant == measurement.variants[0] and not measurement.absolute:
                continue
            before, now = figure(old, measurement, variant), figure(new, measurement, variant)
            if before is None or now is None or not before:
                continue
            change = now / before - 1
            loss = change if measurement.better == LOWER else 1 - now / before
            verdict = "better" if loss <= -REGRESSION else ""
            if loss >= REGRESSION:
                verdict = "WORSE"
                worse.append(f"{measurement.title}, {variant}: {number(before)} before, {number(now)} now")
            unit = measurement.unit if measurement.absolute else "ratio"
            rows.append(
                (f"{measurement.title} ({unit})", variant, number(before), number(now), f"{change:+.0%}", verdict)
            )
    head = [f"before: {old.taken}", f"now:    {new.taken}"]
    head += [
        f"note: {name} differs: {old.machine.get(name, '?')} before, {value} now"
        for name, value in new.machine.items()
        if name != "load before" and old.machine.get(name) != value
    ]
    return "\n".join([*head, "", *_aligned(rows, right=(2, 3, 4))]), worse


def progress(text: str) -> None:
    """A line about what goes on: over itself on a terminal, one below the other elsewhere."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
    else:
        sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
