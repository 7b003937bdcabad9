"""Replay: a recorded run again, in the core alone, and the first thing that differs.

`python -m umuxstack.driver.replay FILE` says whether a recording repeats.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import attrs

from umuxstack.core.entropy import Entropy
from umuxstack.core.session.context import Outgoing
from umuxstack.core.stack import Stack
from umuxstack.core.units import Micros
from umuxstack.driver.record import VERBS, VERSION, decode, describe, digest_output

_NOT_UNDERSTOOD: Final = (LookupError, ValueError, TypeError, AttributeError)  # a line of another shape


class NotARecording(Exception):
    """The file is no recording, of another version, or damaged; the message says where."""


@attrs.frozen
class Difference:
    """Line `line` of the recording: `expected` stands there, `found` is what the stack did now."""

    line: int
    what: str
    expected: object
    found: object


@attrs.define
class Replay:
    """What a replay came to. `difference` is None when everything was as recorded."""

    lines: int = 0
    packets_in: int = 0
    packets_out: int = 0
    difference: Difference | None = None
    stack: Stack | None = None


def replay(path: str | Path, congestion: Mapping[str, type] = MappingProxyType({})) -> Replay:
    """Runs the recording to its end or to the first difference. Raises OSError and NotARecording.

    `congestion`: the algorithms beside the built-in ones that the recorded stack had, by name.
    """
    with open(path, encoding="ascii", errors="replace") as file:  # what is no text is damaged
        return _run(_lines(file), congestion)


def _lines(file: Any) -> Iterator[tuple[int, Any]]:
    for number, text in enumerate(file, 1):
        try:
            yield number, json.loads(text)
        except ValueError:
            if number > 1 and not text.endswith("\n"):
                return  # the process ended in the middle of it: what came before is worth a replay
            raise _damaged(number) from None


def _damaged(number: int) -> NotARecording:
    return NotARecording(f"line {number} is damaged")


def _run(lines: Iterator[tuple[int, Any]], congestion: Mapping[str, type]) -> Replay:
    _, head = next(lines, (0, None))
    if not isinstance(head, dict) or head.get("umux-recording") != VERSION:
        raise NotARecording(f"not a recording of version {VERSION}")
    missing = [name for name in head.get("congestion", ()) if name not in congestion]
    if missing:
        raise NotARecording(f"its run had a congestion control of its own, {missing[0]!r}: say where it is")
    try:
        config, seed, now = decode(head["config"]), bytes.fromhex(head["seed"]), head["now"]
    except _NOT_UNDERSTOOD:
        raise _damaged(1) from None
    stack = Stack(config, Entropy(seed), now, congestion=congestion)
    result = Replay(stack=stack)
    objects: list[object] = [stack]

    def adopt(found: object) -> int | None:
        for number, known in enumerate(objects):
            if known is found:
                return number
        if not any(isinstance(found, cls) for cls, _ in VERBS):
            return None
        objects.append(found)
        return len(objects) - 1

    fault: str | None = None  # what the input before raised: a bug of the core's, which the driver survives
    for number, line in lines:
        result.lines += 1
        try:
            what, step, expected = _understood(objects, line, adopt, result)
        except _NOT_UNDERSTOOD:
            raise _damaged(number) from None
        found: object = None
        if what == "fault":
            found, fault = fault, None
        elif fault is not None:
            what, found, expected = "fault", fault, None
        else:
            try:
                found = step()
            except Exception as error:
                fault = type(error).__name__
        if found != expected:
            result.difference = Difference(number, what, expected, found)
            break
    if fault is not None and result.difference is None:
        result.difference = Difference(result.lines + 1, "fault", None, fault)
    return result


def _understood(
    objects: list[object], line: list[Any], adopt: Any, result: Replay
) -> tuple[str, Callable[[], object], object]:
    """A line's name, what is to be done for it, and what must come of that."""
    if isinstance(line[0], str):
        return _verb(objects, line, adopt)
    stack, now, kind = objects[0], Micros(line[0] + 0), line[1]
    assert isinstance(stack, Stack)
    if kind == "receive":
        result.packets_in += 1
        return kind, partial(stack.receive, bytes.fromhex(line[2]), 0, line[3] + 0, bool(line[4]), now), None
    if kind == "advance":
        return kind, partial(stack.advance, now), None
    if kind == "fault":
        return kind, lambda: None, line[2]
    if kind != "output":
        raise LookupError(kind)

    def output() -> object:
        batch: list[Outgoing] = stack.take_output(now)
        result.packets_out += len(batch)
        return [len(batch), digest_output(batch)]

    return kind, output, line[2:4] or None


def _verb(objects: list[object], line: list[Any], adopt: Any) -> tuple[str, Callable[[], object], object]:
    name, number, args, kwargs, expected = line
    target = objects[number]
    if not any(isinstance(target, cls) and name in names for cls, names in VERBS):
        raise LookupError(name)

    def value(item: Any) -> Any:
        return objects[item["object"]] if isinstance(item, dict) and "object" in item else decode(item)

    positional, named = [value(item) for item in args], {key: value(item) for key, item in kwargs.items()}

    def call() -> object:
        try:
            got = getattr(target, name)(*positional, **named)
        except Exception as error:
            return {"raised": type(error).__name__}
        return describe(got, adopt)

    return name, call, expected


def main(argv: list[str] | None = None) -> int:
    """Prints what the replay came to; 0 when it repeated, 1 when it differed, 2 for a bad file."""
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) != 1 or arguments[0] in ("-h", "--help"):
        print("usage: python -m umuxstack.driver.replay FILE\nRuns a recording in the core alone and compares.")
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    try:
        result = replay(arguments[0])
    except (OSError, NotARecording) as error:
        print(f"{arguments[0]}: {error}", file=sys.stderr)
        return 2
    print(f"{result.lines} lines, {result.packets_in} packets in, {result.packets_out} out", end="")
    if result.difference is None:
        print(": identical")
        return 0
    difference = result.difference
    print(
        f"\nline {difference.line}, {difference.what}:\n  recorded {difference.expected}\n  now      {difference.found}"
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
