"""Cuts the text of a script into tokens.

One compiled expression does the work; a token is an entry in three parallel lists, which is cheaper than an
object each. Comments, and `#ifdef` blocks for another platform, leave no token. Knows no grammar.
"""

import re
from bisect import bisect_right
from collections.abc import Mapping
from typing import Final

from umuxstack.conformance.script import Position, ScriptError

END: Final = 0
COMMENT: Final = 1
HASH: Final = 2  # `#ifdef`, `#endif`, or a comment
STRING: Final = 3
COMMAND: Final = 4
CODE: Final = 5
OPTION: Final = 6
IPV6: Final = 7
IPV4: Final = 8
ELLIPSIS: Final = 9
HEX: Final = 10
FLOAT: Final = 11
INTEGER: Final = 12
WORD: Final = 13
UNCLOSED: Final = 14
OTHER: Final = 15  # one character

_SEGMENT = "[0-9a-fA-F]{1,4}"
_DOTTED = r"\d+\.\d+\.\d+\.\d+"

# An address needs eight groups or a double colon: `1:1001` must stay a range of sequence numbers.
_TOKEN = re.compile(
    r"(//[^\n]*|/\*[\s\S]*?\*/)"
    r"|((?<!\S)#[^\n]*)"
    r'|("(?:\\[\s\S]|[^"\\])*")'
    r"|(`(?:\\[\s\S]|[^`\\])*`)"
    r"|(%\{[\s\S]*?\}%)"
    r"|(--[A-Za-z0-9_]+)"
    rf"|((?:{_SEGMENT}:){{7}}{_SEGMENT}(?!\w)"
    rf"|(?:{_SEGMENT}(?::{_SEGMENT}){{0,6}})?::(?:(?:{_SEGMENT}:){{0,6}}(?:{_DOTTED}|{_SEGMENT}))?(?!\w))"
    rf"|({_DOTTED})"
    r"|(\.\.\.)"
    r"|(-?0[xX][0-9a-fA-F]+(?!\w))"
    r"|(-?\d*\.\d+)"
    r"|(-?\d+(?!\w))"
    r"|(\w+)"
    r'|("|`|%\{|/\*)'
    r"|(\S)",
    re.ASCII,
)
_DIRECTIVE = re.compile(r"#\s*(ifdef|endif)\b\s*(\w*)")
_UNCLOSED = {'"': "string", "`": "backquoted command", "%{": "code block", "/*": "comment"}


class Source:
    """A script's text with the means to say where an offset lies."""

    __slots__ = ("_starts", "path", "text")

    def __init__(self, text: str, path: str) -> None:
        self.text = text
        self.path = path
        self._starts: list[int] | None = None

    def position(self, offset: int) -> Position:
        starts = self._starts
        if starts is None:
            starts = self._starts = [0, *(match.end() for match in re.finditer("\n", self.text))]
        line = bisect_right(starts, offset)
        return Position(line, offset - starts[line - 1] + 1)

    def error(self, message: str, offset: int) -> ScriptError:
        where = self.position(offset)
        start = offset - where.column + 1
        end = self.text.find("\n", start)
        line = self.text[start:] if end < 0 else self.text[start:end]
        return ScriptError(message, self.path, where.line, where.column, line.rstrip("\r"))


class Tokens:
    """Parallel lists; the last entry is `END`. `ends[i]` is the offset just behind token i."""

    __slots__ = ("ends", "kinds", "starts", "texts")

    def __init__(self) -> None:
        self.kinds: list[int] = []
        self.texts: list[str] = []
        self.starts: list[int] = []
        self.ends: list[int] = []


def tokenize(source: Source, platform: str) -> Tokens:
    """Raises ScriptError for what is opened and never closed. `platform` decides which `#ifdef` blocks count."""
    tokens = Tokens()
    kinds, texts, starts, ends = tokens.kinds, tokens.texts, tokens.starts, tokens.ends
    skipping = False
    opened = -1  # where the open #ifdef stands
    for match in _TOKEN.finditer(source.text):
        kind = match.lastindex or 0
        if kind <= HASH:
            directive = _DIRECTIVE.match(match[0]) if kind == HASH else None
            if directive is None:
                continue
            if directive[1] == "endif":
                if opened < 0:
                    raise source.error("#endif without #ifdef", match.start())
                opened, skipping = -1, False
            elif opened >= 0:
                raise source.error("#ifdef inside #ifdef", match.start())
            else:
                opened, skipping = match.start(), directive[2].lower() != platform.lower()
        elif skipping:
            continue
        elif kind == UNCLOSED:
            raise source.error(f"this {_UNCLOSED[match[0]]} is never closed", match.start())
        else:
            kinds.append(kind)
            texts.append(match[0])
            starts.append(match.start())
            ends.append(match.end())
    if opened >= 0:
        raise source.error("this #ifdef is never closed", opened)
    kinds.append(END)
    texts.append("the end of the script")
    starts.append(len(source.text))
    ends.append(len(source.text))
    return tokens


def substitute(tokens: Tokens, defines: Mapping[str, str], first: int) -> None:
    """Replaces, in place, each word from token `first` on that is defined by the tokens of its value."""
    for i in range(len(tokens.kinds) - 1, first - 1, -1):
        if tokens.kinds[i] != WORD or tokens.texts[i] not in defines:
            continue
        value = tokenize(Source(defines[tokens.texts[i]], f"definition of {tokens.texts[i]}"), "")
        count = len(value.kinds) - 1
        tokens.kinds[i : i + 1] = value.kinds[:count]
        tokens.texts[i : i + 1] = value.texts[:count]
        tokens.starts[i : i + 1] = [tokens.starts[i]] * count
        tokens.ends[i : i + 1] = [tokens.ends[i]] * count
