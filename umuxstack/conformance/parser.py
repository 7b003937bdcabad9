"""Text to nodes: options, commands and timed events of a packetdrill script.

Recursive descent by hand over the tokens of `lexer.py`; one token of look-ahead nearly everywhere. The language is
the one of Google's packetdrill, of the Linux kernel's selftests, and of the FreeBSD fork, with one extension of ours:
`[from ..., to ...]` before a packet. Invariant: whatever the text, `parse` returns a Script or raises ScriptError.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from umuxstack.conformance.cursor import Cursor
from umuxstack.conformance.expression import arguments, expression
from umuxstack.conformance.lexer import (
    CODE,
    COMMAND,
    ELLIPSIS,
    END,
    FLOAT,
    INTEGER,
    OPTION,
    OTHER,
    WORD,
    Source,
    substitute,
    tokenize,
)
from umuxstack.conformance.packet import packet
from umuxstack.conformance.script import (
    Action,
    Code,
    Command,
    Direction,
    Event,
    IcmpPacket,
    Option,
    Script,
    ScriptError,
    SystemCall,
    TcpPacket,
    Time,
    TimeKind,
    UdpPacket,
    UnsupportedPacket,
)
from umuxstack.core.units import Micros

_RANGES: Final = (TimeKind.ANY, TimeKind.ABSOLUTE_RANGE, TimeKind.RELATIVE_RANGE)


def parse(
    text: str, path: str = "<script>", *, defines: Mapping[str, str] | None = None, platform: str = "linux"
) -> Script:
    """Parses a script. `defines` are symbols from outside, as with `-D`; the script's own `--define` go before them.

    `platform` (linux, freebsd, openbsd, netbsd) decides which `#ifdef` blocks are read. Raises ScriptError.
    """
    source = Source(text, path)
    tokens = tokenize(source, platform)
    cursor = Cursor(source, tokens)
    options: list[Option] = []
    init: list[Command] = []
    while cursor.kind in (OPTION, COMMAND):
        if cursor.kind == OPTION:
            options.append(_option(cursor))
        else:
            init.append(_command(cursor))
    symbols = dict(defines or {})
    symbols.update(_definition(option, source) for option in options if option.name == "define")
    if symbols:
        substitute(tokens, symbols, cursor.index)
    events: list[Event] = []
    cleanup: list[Command] = []
    while cursor.kind != END:
        if cursor.kind == COMMAND:
            cleanup.append(_command(cursor))
        elif cleanup:
            cursor.fail("expected the end: a command without a time ends a script")
        else:
            events.append(_event(cursor))
    return Script(path, tuple(options), tuple(init), tuple(events), tuple(cleanup))


def parse_file(path: str | Path, *, defines: Mapping[str, str] | None = None, platform: str = "linux") -> Script:
    """Reads and parses a file. Raises OSError, or ScriptError also for bytes that are not text."""
    raw = Path(path).read_bytes()
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - (raw.rfind(b"\n", 0, error.start) + 1) + 1
        raise ScriptError("this is not UTF-8 text", str(path), line, column, "") from error
    return parse(text, str(path), defines=defines, platform=platform)


def _definition(option: Option, source: Source) -> tuple[str, str]:
    name, equals, value = (option.value or "").partition("=")
    if not equals or not name.isidentifier():
        where = option.position
        line = source.text.splitlines()[where.line - 1]
        raise ScriptError("--define wants SYMBOL=value", source.path, where.line, where.column, line)
    return name, value


def _option(cursor: Cursor) -> Option:
    position = cursor.position()
    name = cursor.take()[2:]
    if not cursor.is_other("=") or cursor.starts[cursor.index] != cursor.ends[cursor.index - 1]:
        return Option(name, position=position)
    cursor.index += 1
    # The value is whatever stands there without a gap: addresses with a prefix length, lists, `SYMBOL="two words"`.
    start = cursor.index
    while cursor.kind != END and cursor.starts[cursor.index] == cursor.ends[cursor.index - 1]:
        cursor.index += 1
    if cursor.index == start:
        cursor.fail(f"expected a value of --{name}")
    value = cursor.text[cursor.starts[start] : cursor.ends[cursor.index - 1]]
    if value[0] == '"' and cursor.index == start + 1:
        value = value[1:-1]
    return Option(name, value, position=position)


def _command(cursor: Cursor) -> Command:
    position = cursor.position()
    return Command(cursor.take()[1:-1], position=position)


def _event(cursor: Cursor) -> Event:
    position = cursor.position()
    at = cursor.index
    time = _time(cursor)
    action = _action(cursor, time)
    if time.kind in _RANGES and not _is_expected(action):
        cursor.fail("'*' and a range of times fit an expected packet only", at)
    return Event(time, action, position=position)


def _is_expected(action: Action) -> bool:
    return (
        isinstance(action, (TcpPacket, UdpPacket, IcmpPacket, UnsupportedPacket)) and action.direction is Direction.OUT
    )


def _time(cursor: Cursor) -> Time:
    if cursor.accept("*"):
        return Time(TimeKind.ANY, Micros(0), Micros(0))
    at = cursor.index
    relative = cursor.accept("+")
    if cursor.kind not in (INTEGER, FLOAT):
        cursor.fail("expected an event: a time, then a packet, a call, a command or code")
    start = cursor.micros()
    if not cursor.accept("~"):
        return Time(TimeKind.RELATIVE if relative else TimeKind.ABSOLUTE, start, start)
    if relative:
        cursor.expect("+")
    end = cursor.micros()
    if end < start:
        cursor.fail("this range of times runs backwards", at)
    return Time(TimeKind.RELATIVE_RANGE if relative else TimeKind.ABSOLUTE_RANGE, start, end)


def _action(cursor: Cursor, time: Time) -> Action:
    kind = cursor.kind
    if kind == OTHER and cursor.word in "<>":
        return packet(cursor)
    if kind in (WORD, ELLIPSIS):
        return _system_call(cursor, time)
    if kind == COMMAND:
        return _command(cursor)
    if kind == CODE:
        position = cursor.position()
        return Code(_dedent(cursor.take()[2:-2]), position=position)
    return cursor.fail("expected a packet ('<' or '>'), a system call, a `command` or %{ code }%")


def _dedent(text: str) -> str:
    """The code without the blanks at both ends: Python minds those in front of the first line."""
    return text.strip(" \t")


def _system_call(cursor: Cursor, time: Time) -> SystemCall:
    end = None
    if cursor.kind == ELLIPSIS:
        at = cursor.index
        cursor.index += 1
        end = cursor.micros()
        if end < time.start:
            cursor.fail("this call would return before it is made", at)
    position = cursor.position()
    name = cursor.expect_word("the name of a system call")
    if not cursor.is_other("("):
        cursor.fail(f"expected '(' behind {name}")
    values = arguments(cursor)
    _equals(cursor)
    result = expression(cursor, result=True)
    errno = cursor.take() if cursor.kind == WORD else None
    note = _note(cursor) if cursor.is_other("(") else None
    return SystemCall(name, values, result, errno, note, end, position=position)


def _equals(cursor: Cursor) -> None:
    """`=`; `->` and `=>` are understood as well."""
    if cursor.accept("-"):
        cursor.expect(">")
        return
    cursor.expect("=")
    cursor.accept(">")


def _note(cursor: Cursor) -> str:
    """`(Operation now in progress)`: anything up to the closing parenthesis, even an apostrophe."""
    start = cursor.index
    cursor.skip_balanced()
    return cursor.text[cursor.ends[start] : cursor.starts[cursor.index - 1]].strip()
