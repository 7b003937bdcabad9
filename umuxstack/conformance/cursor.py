"""A place in the list of tokens, with what every part of the parser needs: look, take, insist, complain."""

import re
from typing import Final, NoReturn

from umuxstack.conformance.lexer import (
    COMMAND,
    END,
    FLOAT,
    HEX,
    INTEGER,
    IPV4,
    IPV6,
    OTHER,
    WORD,
    Source,
    Tokens,
)
from umuxstack.conformance.script import Position
from umuxstack.core.units import Micros

_SYMBOL = re.compile(r"[A-Z][A-Z0-9_]*")
_OPENING: Final = frozenset("([{")
_CLOSING: Final = frozenset(")]}")
MAX_U32: Final = 0xFFFFFFFF
_MAX_SECONDS_DIGITS: Final = 9  # over thirty years


class UndefinedSymbol(Exception):
    """A number was wanted and a symbol stands there that nothing defines: the runner's `-D` was to give it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Cursor:
    __slots__ = ("ends", "index", "kinds", "source", "starts", "text", "texts")

    def __init__(self, source: Source, tokens: Tokens) -> None:
        self.source = source
        self.text = source.text
        self.kinds = tokens.kinds
        self.texts = tokens.texts
        self.starts = tokens.starts
        self.ends = tokens.ends
        self.index = 0

    # --- looking

    @property
    def kind(self) -> int:
        return self.kinds[self.index]

    @property
    def word(self) -> str:
        """The text of the next token."""
        return self.texts[self.index]

    def is_other(self, character: str) -> bool:
        i = self.index
        return self.kinds[i] == OTHER and self.texts[i] == character

    def is_word(self, word: str) -> bool:
        i = self.index
        return self.kinds[i] == WORD and self.texts[i] == word

    def next_is_other(self, character: str, ahead: int = 1) -> bool:
        i = min(self.index + ahead, len(self.kinds) - 1)
        return self.kinds[i] == OTHER and self.texts[i] == character

    def next_kind(self, ahead: int = 1) -> int:
        return self.kinds[min(self.index + ahead, len(self.kinds) - 1)]

    def position(self) -> Position:
        return self.source.position(self.starts[self.index])

    # --- taking

    def accept(self, character: str) -> bool:
        i = self.index
        if self.kinds[i] == OTHER and self.texts[i] == character:
            self.index = i + 1
            return True
        return False

    def accept_word(self, word: str) -> bool:
        i = self.index
        if self.kinds[i] == WORD and self.texts[i] == word:
            self.index = i + 1
            return True
        return False

    def expect(self, character: str) -> None:
        if not self.accept(character):
            self.fail(f"expected '{character}'")

    def take(self) -> str:
        i = self.index
        self.index = i + 1
        return self.texts[i]

    def expect_word(self, what: str) -> str:
        if self.kinds[self.index] != WORD:
            self.fail(f"expected {what}")
        return self.take()

    def integer(self, what: str, low: int = 0, high: int = MAX_U32) -> int:
        """A whole number within low and high."""
        i = self.index
        kind = self.kinds[i]
        if kind not in (INTEGER, HEX):
            if kind == WORD and _SYMBOL.fullmatch(self.texts[i]):
                raise UndefinedSymbol(self.texts[i])
            self.fail(f"expected {what}")
        value = self.number(i)
        if not low <= value <= high:
            self.fail(f"{what} is {value}; allowed is {low} to {high}")
        self.index = i + 1
        return value

    def number(self, i: int) -> int:
        """The value of the INTEGER or HEX token i."""
        text = self.texts[i]
        if len(text) > 40:  # int() of thousands of digits is slow, then refused
            raise self.source.error("this number has too many digits", self.starts[i])
        return int(text, 16 if self.kinds[i] == HEX else 10)

    def address(self) -> str:
        if self.kinds[self.index] not in (IPV4, IPV6):
            self.fail("expected an IP address")
        return self.take()

    def micros(self) -> Micros:
        """Seconds with up to six decimals that count."""
        if self.kinds[self.index] not in (INTEGER, FLOAT):
            self.fail("expected a time in seconds")
        text = self.texts[self.index]
        if text[0] == "-":
            self.fail("a time cannot be negative")
        whole, _, fraction = text.partition(".")
        if len(whole) > _MAX_SECONDS_DIGITS:
            self.fail("this time is too far away")
        self.index += 1
        return Micros(int(whole or "0") * 1_000_000 + int((fraction + "000000")[:6]))

    # --- text

    def seek(self, offset: int) -> None:
        """Goes on with the first token that starts at or behind `offset`."""
        starts = self.starts
        i = self.index
        last = len(starts) - 1
        while i < last and starts[i] < offset:
            i += 1
        self.index = i

    def text_since(self, index: int) -> str:
        """What the tokens from `index` up to here say, comments and line breaks folded into blanks."""
        parts: list[str] = []
        for i in range(index, self.index):
            if i > index and self.starts[i] != self.ends[i - 1]:
                parts.append(" ")
            parts.append(self.texts[i])
        return "".join(parts)

    def skip_balanced(self) -> None:
        """Steps over a bracketed group; stands on its opening bracket at the start."""
        opening = self.index
        depth = 0
        while self.kinds[self.index] != END:
            if self.kinds[self.index] == OTHER:
                text = self.texts[self.index]
                if text in _OPENING:
                    depth += 1
                elif text in _CLOSING:
                    depth -= 1
            self.index += 1
            if depth == 0:
                return
        self.index = opening
        self.fail("this bracket is never closed")

    def skip_event(self) -> None:
        """Steps to the next event: brackets are closed, and a time or a command begins a line."""
        while self.kinds[self.index] != END:
            if self.kinds[self.index] == OTHER and self.texts[self.index] in _OPENING:
                self.skip_balanced()
            else:
                self.index += 1
            if self._begins_line() and (
                self.kinds[self.index] in (INTEGER, FLOAT, COMMAND, END) or self.is_other("+") or self.is_other("*")
            ):
                return

    def _begins_line(self) -> bool:
        i = self.index
        return i == 0 or "\n" in self.text[self.ends[i - 1] : self.starts[i]]

    # --- complaining

    def fail(self, message: str, index: int | None = None) -> NoReturn:
        i = self.index if index is None else index
        found = self.texts[i]
        if self.kinds[i] != END:
            shown = found if len(found) <= 24 else found[:24] + "..."
            found = "'" + shown.replace("\n", " ") + "'"
        if message.startswith("expected"):
            message = f"{message}, found {found}"
        raise self.source.error(message, self.starts[i])
