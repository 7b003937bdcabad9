"""Replay: a recorded run again, in the core alone, and the first thing that differs.

`python -m umuxstack.driver.replay FILE` says whether a recording repeats.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs

from umuxstack.core.entropy import Entropy
from umuxstack.core.errors import LocalError
from umuxstack.core.session.context import Outgoing
from umuxstack.core.stack import Stack
from umuxstack.driver.record import VERBS, VERSION, decode, describe, digest_output


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
            raise NotARecording(f"line {number} is damaged") from None


def _run(lines: Iterator[tuple[int, Any]], congestion: Mapping[str, type]) -> Replay:
    _, head = next(lines, (0, None))
    if not isinstance(head, dict) or head.get("umux-recording") != VERSION:
        raise NotARecording(f"not a recording of version {VERSION}")
    missing = [name for name in head.get("congestion", ()) if name not in congestion]
    if missing:
        raise NotARecording(f"its run had a congestion control of its own, {missing[0]!r}: say where it is")
    stack = Stack(decode(head["config"]), Entropy(bytes.fromhex(head["seed"])), head["now"], congestion=congestion)
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

    for number, line in lines:
        result.lines += 1
        if isinstance(line[0], int):
            found, expected = _input(stack, line, result)
        else:
            found, expected = _verb(objects, line, adopt), line[4]
        if found != expected:
            what = line[1] if isinstance(line[0], int) else line[0]
            result.difference = Difference(number, what, expected, found)
            break
    return result


def _input(stack: Stack, line: list[Any], result: Replay) -> tuple[object, object]:
    now, kind = line[0], line[1]
    if kind == "receive":
        result.packets_in += 1
        stack.receive(bytes.fromhex(line[2]), 0, line[3], bool(line[4]), now)
        return None, None
    if kind == "advance":
        stack.advance(now)
        return None, None
    batch: list[Outgoing] = stack.take_output(now)
    result.packets_out += len(batch)
    return [len(batch), digest_output(batch)], line[2:4]


def _verb(objects: list[object], line: list[Any], adopt: Any) -> object:
    name, target, args, kwargs = line[:4]

    def value(item: Any) -> Any:
        return objects[item["object"]] if isinstance(item, dict) and "object" in item else decode(item)

    try:
        got = getattr(objects[target], name)(*map(value, args), **{key: value(item) for key, item in kwargs.items()})
    except LocalError as error:
        return {"raised": type(error).__name__}
    return describe(got, adopt)


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
