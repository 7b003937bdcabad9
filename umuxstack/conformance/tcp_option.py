"""The TCP options between `<` and `>`. One that we do not know is kept as its text."""

from collections.abc import Callable
from typing import Final

from umuxstack.conformance.cursor import Cursor, UndefinedSymbol
from umuxstack.conformance.lexer import ELLIPSIS, END, INTEGER, WORD
from umuxstack.conformance.script import (
    AccEcn,
    AckRateRequest,
    EndOfOptions,
    FastOpen,
    Md5,
    Mss,
    Nop,
    Sack,
    SackPermitted,
    TcpOption,
    Timestamps,
    UnknownOption,
    WindowScale,
)

_NOP: Final = Nop()
_END_OF_OPTIONS: Final = EndOfOptions()
_SACK_PERMITTED: Final = SackPermitted()
# Google's fork says e0b, FreeBSD's EE0B.
_COUNTERS: Final = {"e0b": "e0b", "ee0b": "e0b", "ceb": "ceb", "eceb": "ceb", "e1b": "e1b", "ee1b": "e1b"}
_MAX_U24: Final = 0xFFFFFF
_MAX_COOKIE: Final = 38  # what 40 octets of options leave


def tcp_options(cursor: Cursor) -> tuple[TcpOption, ...] | None:
    """Stands on `<`. None for `<...>`."""
    cursor.expect("<")
    if cursor.kind == ELLIPSIS and cursor.next_is_other(">"):
        cursor.index += 2
        return None
    options: list[TcpOption] = []
    if cursor.accept(">"):
        return ()
    while True:
        options.append(_option(cursor))
        if cursor.accept(">"):
            return tuple(options)
        if not cursor.accept(","):
            cursor.fail("expected ',' or '>' behind a TCP option")


def _option(cursor: Cursor) -> TcpOption:
    start = cursor.index
    if cursor.kind != WORD:
        cursor.fail("expected a TCP option")
    name = cursor.take()
    while (
        cursor.is_other("-")
        and cursor.next_kind() == WORD
        and cursor.starts[cursor.index] == cursor.ends[cursor.index - 1]
    ):  # exp-FO
        cursor.index += 1
        name += "-" + cursor.take()
    reader = _READERS.get(name)
    if reader is not None:
        return reader(cursor)
    while not (cursor.is_other(",") or cursor.is_other(">")):
        if cursor.kind == END:
            cursor.fail("expected '>' behind the TCP options")
        if cursor.is_other("[") or cursor.is_other("("):
            cursor.skip_balanced()
        else:
            cursor.index += 1
    return UnknownOption(name, cursor.text_since(start))


def _mss(cursor: Cursor) -> TcpOption:
    return Mss(cursor.integer("the MSS", 0, 0xFFFF))


def _window_scale(cursor: Cursor) -> TcpOption:
    return WindowScale(cursor.integer("the window shift", 0, 0xFF))


def _sack(cursor: Cursor) -> TcpOption:
    blocks: list[tuple[int, int]] = []
    while not blocks or cursor.kind == INTEGER:
        left = cursor.integer("the left edge of a SACK block")
        cursor.expect(":")
        blocks.append((left, cursor.integer("the right edge of a SACK block")))
    return Sack(tuple(blocks))


def _timestamps(cursor: Cursor) -> TcpOption:
    if not cursor.accept_word("val"):
        cursor.fail("expected val")
    value = _number_or_any(cursor, "the timestamp")
    if not cursor.accept_word("ecr"):
        cursor.fail("expected ecr")
    echo = _number_or_any(cursor, "the echoed timestamp")
    return Timestamps(value, echo, cursor.accept("!"))


def _number_or_any(cursor: Cursor, what: str) -> int | None:
    if cursor.kind == ELLIPSIS:
        cursor.index += 1
        return None
    return cursor.integer(what)


def _hex(cursor: Cursor, what: str, limit: int) -> bytes:
    """Hexadecimal digits; none at all is empty."""
    if cursor.kind not in (WORD, INTEGER):
        return b""
    at = cursor.index
    text = cursor.take()
    if len(text) & 1 or not all(c in "0123456789abcdefABCDEF" for c in text):
        if text.isupper():  # a symbol like TFO_COOKIE
            raise UndefinedSymbol(text)
        cursor.fail(f"{what} is not an even number of hexadecimal digits", at)
    if len(text) > 2 * limit:
        cursor.fail(f"{what} has {len(text) // 2} octets; at most {limit} fit", at)
    return bytes.fromhex(text)


def _fast_open(cursor: Cursor) -> TcpOption:
    return FastOpen(_hex(cursor, "the cookie", _MAX_COOKIE))


def _experimental_fast_open(cursor: Cursor) -> TcpOption:
    return FastOpen(_hex(cursor, "the cookie", _MAX_COOKIE), experimental=True)


def _md5(cursor: Cursor) -> TcpOption:
    if cursor.accept_word("valid"):
        return Md5(valid=True)
    if cursor.accept_word("invalid"):
        return Md5(valid=False)
    return Md5(_hex(cursor, "the digest", 16) or None)


def _acc_ecn(order: int | None, experimental: bool) -> Callable[[Cursor], TcpOption]:
    def read(cursor: Cursor) -> TcpOption:
        counters: list[tuple[str, int]] = []
        while cursor.kind == WORD:
            counter = _COUNTERS.get(cursor.word.lower())
            if counter is None or counter in (name for name, _ in counters):
                cursor.fail("expected each of e0b, ceb, e1b at most once")
            cursor.index += 1
            counters.append((counter, cursor.integer("a 24-bit counter", 0, _MAX_U24)))
        return AccEcn(order, tuple(counters), experimental)

    return read


def _ack_rate_request(cursor: Cursor) -> TcpOption:
    return AckRateRequest(cursor.integer("the rate", 0, 0x7FF) if cursor.kind == INTEGER else None)


_READERS: Final[dict[str, Callable[[Cursor], TcpOption]]] = {
    "nop": lambda _: _NOP,
    "eol": lambda _: _END_OF_OPTIONS,
    "mss": _mss,
    "wscale": _window_scale,
    "sackOK": lambda _: _SACK_PERMITTED,
    "sack": _sack,
    "TS": _timestamps,
    "FO": _fast_open,
    "FOEXP": _experimental_fast_open,
    "exp-FO": _experimental_fast_open,
    "md5": _md5,
    "ECN": _acc_ecn(None, experimental=False),
    "AccECN0": _acc_ecn(0, experimental=False),
    "AccECN1": _acc_ecn(1, experimental=False),
    "exp-AccECN0": _acc_ecn(0, experimental=True),
    "exp-AccECN1": _acc_ecn(1, experimental=True),
    "exp-tarr": _ack_rate_request,
    "exp-TARR": _ack_rate_request,
}
