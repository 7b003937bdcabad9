"""How things are printed: tables, JSON, addresses, times and sizes.

Texts that came from a client of the stack were checked to be printable before they got here.
"""

import json
import sys
import textwrap
from collections.abc import Iterable, Sequence
from ipaddress import IPv6Address
from typing import Any, Final, get_args

import attrs

from umuxstack.control.layout import Code, Record
from umuxstack.control.messages import ANY_LENGTH, Waiter
from umuxstack.core.errors import Reason
from umuxstack.core.units import NEVER, UNSPECIFIED, Address

WIDTH: Final = 100


def address(value: Address) -> str:
    """RFC 5952's form; "-" for none."""
    return "-" if value == UNSPECIFIED else str(IPv6Address(value))


def peer(waiter: Waiter) -> str:
    """Who alone may come: an address, a prefix, or "any"."""
    if waiter.peer_length == ANY_LENGTH:
        return "any"
    text = str(IPv6Address(waiter.peer))
    return text if waiter.peer_length == 128 else f"{text}/{waiter.peer_length}"


def duration(micros: int) -> str:
    """Two or three figures and a unit: "850 us", "1.2 ms", "3.4 s", "12 min", "5.1 h", "never"."""
    if micros >= NEVER:
        return "never"
    for limit, divisor, unit in (
        (1_000, 1, "us"),
        (1_000_000, 1_000, "ms"),
        (120_000_000, 1_000_000, "s"),
        (7_200_000_000, 60_000_000, "min"),
        (172_800_000_000, 3_600_000_000, "h"),
    ):
        if micros < limit:
            return _figures(micros / divisor, unit)
    return _figures(micros / 86_400_000_000, "d")


def size(count: int) -> str:
    """ "512 B", "1.5 KB", "12 MB": decimal thousands."""
    value = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000:
            return f"{count} B" if unit == "B" else _figures(value, unit)
        value /= 1000
    return _figures(value, "TB")


def _figures(value: float, unit: str) -> str:
    text = f"{value:.1f}" if value < 9.95 else f"{value:.0f}"
    return f"{text.removesuffix('.0')} {unit}"


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[int] = ()) -> list[str]:
    """Aligned lines, the headings first; columns in `right` are aligned to the right. The last one is not padded."""
    cells = [list(headings), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def wrapped(parts: Sequence[str], indent: str = "    ", separator: str = "  ") -> str:
    """The parts in as many indented lines as the width needs; a part is never broken."""
    text = separator.join(part.replace(" ", "\N{NO-BREAK SPACE}") for part in parts)
    lines = textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines).replace("\N{NO-BREAK SPACE}", " ")


def say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def say_json(value: object) -> None:
    say(json.dumps(value, indent=2, ensure_ascii=False))


def say_json_line(value: object) -> None:
    """One object on one line, at once: for streams."""
    say(json.dumps(value, ensure_ascii=False))


def as_json(record: Record) -> dict[str, Any]:
    """The record's fields: addresses as text (null for none), times in microseconds as `…_us` (null for never)."""
    result: dict[str, Any] = {}
    for field in attrs.fields(type(record)):
        value = getattr(record, field.name)
        codes = [mark.struct for mark in get_args(field.type) if isinstance(mark, Code)]
        if codes == ["16s"]:
            result[field.name] = None if value == UNSPECIFIED else str(IPv6Address(value))
        elif codes == ["q"]:
            result[f"{field.name}_us"] = None if value >= NEVER else value
        elif field.name == "reason":
            result[field.name] = Reason(value).name.lower()
        else:
            result[field.name] = value
    if isinstance(record, Waiter):
        del result["peer_length"]
        result["peer"] = None if record.peer_length == ANY_LENGTH else peer(record)
    return result
