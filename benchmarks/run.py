"""`python -m benchmarks.run`: this stack beside the kernel, in one alternating run.

Round by round every measurement is taken once in every variant, one after the other, so that the machine's moods
meet all alike. Needs root, /dev/net/tun and the base distribution's `ip`; leaves nothing behind, also after Ctrl-C.
"""

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks import compiled, report
from benchmarks.catalogue import CATALOGUE, Measurement
from benchmarks.harness import PYTCP, VARIANTS, Arena, Size
from benchmarks.workers import WorkerFailed
from tun.errors import TunError

HERE: Final = Path(__file__).parent
BASELINE: Final = HERE / "baseline.json"
RESULTS: Final = HERE / "results"

FULL: Final = Size(seconds=1.0, connections=3000, sessions=100_000, packets=100_000)
QUICK: Final = Size(seconds=0.4, connections=1000, sessions=10_000, packets=20_000)
FULL_ROUNDS: Final = 5
QUICK_ROUNDS: Final = 3

OK: Final = 0
REGRESSED: Final = 1
FAILED: Final = 2


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    names = ", ".join(measurement.name for measurement in CATALOGUE)
    parser.add_argument("--quick", action="store_true", help="about half a minute, for a first impression")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"default {FULL_ROUNDS}, {QUICK_ROUNDS} with --quick")
    parser.add_argument("--only", metavar="NAME,…", help=f"some of: {names}")
    parser.add_argument("--variants", metavar="NAME;…", help=f"some of: {'; '.join(VARIANTS)} (default: all)")
    parser.add_argument("--seconds", type=float, help="of each sample over a wire")
    parser.add_argument("--connections", type=int, help="of each connect sample")
    parser.add_argument("--sessions", type=int, help="in the memory sample; 1,000,000 takes minutes and 2 GB")
    parser.add_argument("--packets", type=int, help="of each sample of the core alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the result goes (default: benchmarks/results)")
    parser.add_argument(
        "--compare", type=Path, metavar="OLD", nargs="?", const=BASELINE,
        help="show what changed against a stored result (default: benchmarks/baseline.json); "
        "exit code 1 if something is 10%% worse",
    )  # fmt: skip
    parser.add_argument("--show", type=Path, metavar="FILE", help="measure nothing, show or compare a stored result")
    parser.add_argument("--profile", type=Path, metavar="DIR", help="cProfile of our side of each sample, into DIR")
    return parser.parse_args(argv)


def chosen(options: argparse.Namespace) -> list[tuple[Measurement, list[str]]]:
    """What to measure, in which variants. Raises ValueError for names that do not exist."""
    names = [part.strip() for part in options.only.split(",")] if options.only else None
    if names is not None and (unknown := set(names) - set(report.BY_NAME)):
        raise ValueError(f"--only: there is no {', '.join(sorted(unknown))}; there are {', '.join(report.BY_NAME)}")
    variants = [part.strip() for part in options.variants.split(";")] if options.variants else None
    if variants is not None and (unknown := set(variants) - set(VARIANTS)):
        raise ValueError(f"--variants: there is no {', '.join(sorted(unknown))}; there are {'; '.join(VARIANTS)}")
    return [
        (
            measurement,
            [v for v in measurement.variants if variants is None or v in variants or v not in VARIANTS],
        )
        for measurement in CATALOGUE
        if names is None or measurement.name in names
    ]


def size_of(options: argparse.Namespace) -> Size:
    base = QUICK if options.quick else FULL
    return Size(
        seconds=options.seconds or base.seconds,
        connections=options.connections or base.connections,
        sessions=options.sessions or base.sessions,
        packets=options.packets or base.packets,
    )


def measure(arena: Arena, run: report.Run, plan: list[tuple[Measurement, list[str]]], rounds: int) -> None:
    """Fills `run.samples`. What was taken before an exception stays there."""
    began = time.monotonic()
    for turn in range(rounds):
        for measurement, variants in plan:
            if measurement.once and turn:
                continue
            samples = run.samples.setdefault(measurement.name, {variant: [] for variant in variants})
            for variant in variants:
                where = f"[{time.monotonic() - began:3.0f} s] round {turn + 1}/{rounds}, {measurement.title}, {variant}"
                report.progress(f"{where} …") if sys.stderr.isatty() else None
                try:
                    value = measurement.sample(arena, variant)
                except WorkerFailed as error:
                    if variant != PYTCP:
                        raise
                    report.progress(f"{where}: left out from here on ({error})")
                    variants.remove(variant)
                    break  # it comes last
                samples[variant].append(value)
                report.progress(f"{where}: {report.number(value)} {measurement.unit}")
    if sys.stderr.isatty():
        report.progress("")


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(argv)
    try:
        plan = chosen(options)
        old = None if options.compare is None else report.load(options.compare)
        shown = None if options.show is None else report.load(options.show)
    except (OSError, ValueError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return FAILED
    if shown is not None:
        return finish(shown, old)
    if compiled.available() and compiled.is_stale():
        print("benchmarks: build/compiled is older than the sources; `make fast` compiles them anew", file=sys.stderr)
    size = size_of(options)
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else FULL_ROUNDS)
    run = report.new_run(size, rounds)
    if options.profile is not None:
        options.profile.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(ValueError):  # not in the main thread: whoever runs us deals with signals
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(FAILED))  # so that `finally` sees it
    try:
        with Arena(size, options.profile) as arena:
            measure(arena, run, plan, rounds)
    except (TunError, WorkerFailed) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("\nbenchmarks: interrupted; what was measured so far:\n", file=sys.stderr)
        print(report.table(run))
        return 128 + signal.SIGINT
    path = options.json or RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    run.save(path)
    code = finish(run, old)
    print(f"\nstored in {os.path.relpath(path)}")
    return code


def finish(run: report.Run, old: report.Run | None) -> int:
    """Prints the run; beside an old one the differences, and then the exit code tells of regressions."""
    print(report.table(run))
    if old is None:
        return OK
    text, worse = report.compare(old, run)
    print(f"\n{text}\n")
    for line in worse:
        print(f"10 % worse or more: {line}")
    return REGRESSED if worse else OK


if __name__ == "__main__":
    sys.exit(main())
