"""Many scripts: which files, in how many processes, and the report as a table, JSON, JUnit or captures."""

import json
import re
import xml.etree.ElementTree as Xml
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import dpkt

from umuxstack.conformance.outcome import Outcome, Status
from umuxstack.conformance.runner import Settings, run_file

_WORD: Final = re.compile(r"\(|\)|[^\s()]+")
DLT_RAW: Final = 101


# How results are called: of our own stack, and of a kernel.
RESULTS: Final[Mapping[Status, str]] = {status: status.value for status in Status}
LIVE_RESULTS: Final[Mapping[Status, str]] = {
    Status.PASSED: "same",
    Status.FAILED: "differs",
    Status.UNSUPPORTED: "left out",
    Status.ERROR: "error",
}


class BadExpression(ValueError):
    """The -k expression is not one; the message says why."""


def collect(paths: Iterable[str | Path]) -> list[Path]:
    """The .pkt files that are named, or lie below a directory that is. Raises FileNotFoundError."""
    out: list[Path] = []
    for name in paths:
        path = Path(name)
        if path.is_dir():
            out += sorted(found for found in path.rglob("*.pkt") if not found.is_dir())
        elif path.exists():
            out.append(path)
        else:
            raise FileNotFoundError(f"there is no file or directory {name}")
    return list(dict.fromkeys(out))


def selector(expression: str) -> Callable[[Path], bool]:
    """`-k`: words that occur in the path, with and, or, not and parentheses, as in pytest. Raises BadExpression."""
    words: list[str] = _WORD.findall(expression)
    position = 0

    def peek() -> str:
        return words[position] if position < len(words) else ""

    def take() -> str:
        nonlocal position
        position += 1
        return words[position - 1]

    def either() -> Callable[[str], bool]:
        terms = [both()]
        while peek() == "or":
            take()
            terms.append(both())
        return lambda text: any(term(text) for term in terms)

    def both() -> Callable[[str], bool]:
        terms = [single()]
        while peek() not in ("", "or", ")"):
            if peek() == "and":
                take()
            terms.append(single())
        return lambda text: all(term(text) for term in terms)

    def single() -> Callable[[str], bool]:
        if peek() in ("", "and", "or", ")"):
            raise BadExpression(f"a word is missing in -k {expression!r}")
        word = take()
        if word == "not":
            inner = single()
            return lambda text: not inner(text)
        if word == "(":
            inside = either()
            if peek() != ")":
                raise BadExpression(f"a parenthesis is not closed in -k {expression!r}")
            take()
            return inside
        return lambda text: word.lower() in text

    chosen = either()
    if position != len(words):
        raise BadExpression(f"{peek()!r} is out of place in -k {expression!r}")
    return lambda path: chosen(str(path).lower())


def run(files: Sequence[Path], settings: Settings, jobs: int = 1) -> Iterator[Outcome]:
    """Every script, in the order of `files`."""
    one = partial(run_file, settings=settings)
    if jobs <= 1 or len(files) < 2:
        yield from map(one, files)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(one, files, chunksize=max(1, min(32, len(files) // (4 * jobs))))


# --- reports ---------------------------------------------------------------------------------------------------


def explain(outcome: Outcome, results: Mapping[Status, str] = RESULTS) -> list[str]:
    """A script that did not pass, for a reader: where, when, what differed."""
    where, when = f"{outcome.path}:{outcome.line}", f" at {outcome.time / 1e6:.6f} s"
    if outcome.status is Status.ERROR and not outcome.line:  # no script at all
        where, when = outcome.path, ""
    lines = [f"{where}: {results[outcome.status]}{when}: {outcome.message}"]
    if outcome.source and outcome.status is not Status.ERROR:
        lines.append(f"  {outcome.source}")
    return [*lines, *outcome.details]


def by_directory(outcomes: Iterable[Outcome]) -> list[tuple[str, Counter[Status]]]:
    table: dict[str, Counter[Status]] = {}
    for outcome in outcomes:
        table.setdefault(str(Path(outcome.path).parent), Counter())[outcome.status] += 1
    return sorted(table.items())


def table(outcomes: Sequence[Outcome], results: Mapping[Status, str] = RESULTS) -> list[str]:
    """Counts by directory, the sum last."""
    rows = by_directory(outcomes)
    total: Counter[Status] = Counter()
    for _, counts in rows:
        total.update(counts)
    width = max([len(name) for name, _ in rows] + [5])
    head = f"{'DIRECTORY':{width}}" + "".join(f" {results[status]:>11}" for status in Status)
    lines = [head]
    lines += [f"{name:{width}}" + "".join(f" {counts[s]:>11}" for s in Status) for name, counts in rows]
    if len(rows) != 1:
        lines.append(f"{'total':{width}}" + "".join(f" {total[s]:>11}" for s in Status))
    return lines


def constructs(outcomes: Iterable[Outcome]) -> list[tuple[str, int]]:
    """What unsupported scripts asked for, the most frequent first."""
    return Counter(o.message for o in outcomes if o.status is Status.UNSUPPORTED).most_common()


def as_json(outcomes: Sequence[Outcome], results: Mapping[Status, str] = RESULTS) -> dict[str, object]:
    """Times in microseconds."""
    counts = Counter(outcome.status for outcome in outcomes)
    return {
        "counts": {results[status]: counts[status] for status in Status},
        results[Status.UNSUPPORTED].replace(" ", "_"): dict(constructs(outcomes)),
        "scripts": [
            {
                "path": outcome.path,
                "status": results[outcome.status],
                "message": outcome.message,
                "line": outcome.line,
                "time": outcome.time,
                "personality": outcome.personality,
                "details": list(outcome.details),
                "elapsed": round(outcome.seconds * 1e6),
            }
            for outcome in outcomes
        ],
    }


def write_json(outcomes: Sequence[Outcome], results: Mapping[Status, str] = RESULTS) -> str:
    return json.dumps(as_json(outcomes, results), indent=2)


def write_junit(outcomes: Sequence[Outcome], path: Path, results: Mapping[Status, str] = RESULTS) -> None:
    """One testcase per script; an unsupported one is skipped."""
    counts = Counter(outcome.status for outcome in outcomes)
    root = Xml.Element(
        "testsuite",
        name="umux drill",
        tests=str(len(outcomes)),
        failures=str(counts[Status.FAILED]),
        errors=str(counts[Status.ERROR]),
        skipped=str(counts[Status.UNSUPPORTED]),
    )
    for outcome in outcomes:
        where = Path(outcome.path)
        case = Xml.SubElement(
            root, "testcase", classname=str(where.parent), name=where.name, time=f"{outcome.seconds:.6f}"
        )
        kind = {Status.FAILED: "failure", Status.ERROR: "error", Status.UNSUPPORTED: "skipped"}.get(outcome.status)
        if kind is not None:
            Xml.SubElement(case, kind, message=_printable(outcome.message)).text = _printable(
                "\n".join(explain(outcome, results))
            )
    Xml.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable() or character in "\n\t")


def write_captures(outcomes: Iterable[Outcome], directory: Path) -> int:
    """A pcap file for each script whose packets were kept (`Settings.capture`); how many."""
    directory.mkdir(parents=True, exist_ok=True)
    count = 0
    for outcome in outcomes:
        if not outcome.packets:
            continue
        name = re.sub(r"[^\w.-]+", "_", outcome.path.removesuffix(".pkt").strip("/")) + ".pcap"
        with (directory / name).open("wb") as file:
            writer = dpkt.pcap.Writer(file, snaplen=65575, linktype=DLT_RAW)
            for at, raw in outcome.packets:
                writer.writepkt(raw, at / 1e6)
        count += 1
    return count
