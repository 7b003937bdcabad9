"""The expressions of system calls: numbers, symbols, strings, arrays, structs, calls.

Structs are not bound to the C types that packetdrill knows: any `{name=value, ...}` is a `Struct`, so that
the runner alone decides which it can use.
"""

from typing import Final

from umuxstack.conformance.cursor import Cursor
from umuxstack.conformance.lexer import ELLIPSIS, FLOAT, HEX, INTEGER, IPV4, IPV6, OTHER, STRING, WORD
from umuxstack.conformance.value import (
    AnyValue,
    Array,
    Binary,
    Call,
    Cast,
    Expression,
    Float,
    Integer,
    Named,
    RawStruct,
    String,
    Struct,
    Unary,
    Word,
)

_ELLIPSIS: Final = AnyValue()
_PRECEDENCE: Final = {"|": 1, "^": 2, "&": 3, "<<": 4, ">>": 4, "+": 5, "-": 5, "*": 6}
_UNARY: Final = frozenset("~-!&*")
_MAX_DEPTH: Final = 60  # nobody nests so deep; it keeps the recursion within Python's limit


def expression(cursor: Cursor, depth: int = 0, level: int = 1, result: bool = False) -> Expression:
    """One expression. A call's `result` joins with `|` only: a `+`, `-` or `*` behind it begins the next event."""
    if depth > _MAX_DEPTH:
        cursor.fail("brackets are nested too deep")
    left = _operand(cursor, depth)
    while cursor.kinds[cursor.index] == OTHER:
        operator = cursor.texts[cursor.index]
        if operator in "<>":
            if not cursor.next_is_other(operator) or result:
                break
            operator += operator
        precedence = _PRECEDENCE.get(operator, 0)
        if precedence < level or (result and operator != "|"):
            break
        cursor.index += len(operator)
        left = Binary(operator, left, expression(cursor, depth + 1, precedence + 1, result))
    return left


def arguments(cursor: Cursor, depth: int = 0) -> tuple[Expression, ...]:
    """`(a, b, ...)` behind the name of a call."""
    cursor.expect("(")
    return _items(cursor, ")", depth)


def _items(cursor: Cursor, closing: str, depth: int) -> tuple[Expression, ...]:
    if cursor.accept(closing):
        return ()
    items: list[Expression] = []
    while True:
        items.append(expression(cursor, depth + 1))
        if cursor.accept(closing):
            return tuple(items)
        if not cursor.accept(","):
            cursor.fail(f"expected ',' or '{closing}'")
        if closing != ")" and cursor.accept(closing):  # C allows a comma behind the last item
            return tuple(items)


def _operand(cursor: Cursor, depth: int) -> Expression:
    i = cursor.index
    kind = cursor.kinds[i]
    text = cursor.texts[i]
    if kind == ELLIPSIS:
        cursor.index = i + 1
        return _ELLIPSIS
    if kind in (INTEGER, HEX):
        value = cursor.number(i)
        cursor.index = i + 1
        return Integer(value, text)
    if kind == WORD:
        return _word(cursor, depth)
    if kind == STRING:
        return _string(cursor)
    if kind == FLOAT:
        cursor.index = i + 1
        return Float(text)
    if kind in (IPV4, IPV6):
        cursor.index = i + 1
        return Word(text)
    if kind == OTHER:
        if text == "[":
            cursor.index = i + 1
            return Array(_items(cursor, "]", depth))
        if text == "{":
            return _struct(cursor, depth)
        if text == "(":
            return _parenthesis(cursor, depth)
        if text == "." and cursor.next_kind() == WORD:  # .name = value, as C99 writes it
            cursor.index = i + 1
            return _word(cursor, depth)
        if text in _UNARY:
            cursor.index = i + 1
            if depth > _MAX_DEPTH:
                cursor.fail("operators are nested too deep")
            return Unary(text, _operand(cursor, depth + 1))
    return cursor.fail("expected an expression")


def _string(cursor: Cursor) -> Expression:
    parts = []
    while cursor.kinds[cursor.index] == STRING:
        parts.append(cursor.take()[1:-1])
    more = cursor.kinds[cursor.index] == ELLIPSIS
    if more:
        cursor.index += 1
    return String("".join(parts), more)


def _word(cursor: Cursor, depth: int) -> Expression:
    name = cursor.take()
    if cursor.is_word("int") and name in ("unsigned", "long", "short"):
        name += " " + cursor.take()
    if cursor.is_other("("):
        values = arguments(cursor, depth)
        if cursor.is_other("=") and not cursor.next_is_other(">"):
            cursor.index += 1
            if len(values) != 1:
                cursor.fail("a field's count is one value")
            return Named(name, expression(cursor, depth + 1), values[0])
        return Call(name, values)
    if cursor.is_other("="):
        cursor.index += 1
        return Named(name, expression(cursor, depth + 1))
    return Word(name)


def _struct(cursor: Cursor, depth: int) -> Expression:
    start = cursor.index
    cursor.index += 1
    header = cursor.is_word("flags") and not cursor.next_is_other("=")  # GRE
    if header or (cursor.is_other("(") and cursor.next_kind() == WORD and cursor.texts[cursor.index + 1] == "label"):
        cursor.index = start
        cursor.skip_balanced()
        return RawStruct(cursor.text_since(start))
    return Struct(_items(cursor, "}", depth))


def _parenthesis(cursor: Cursor, depth: int) -> Expression:
    """`(expression)`, or a cast: a type's name in parentheses with an operand behind it."""
    start = cursor.index
    cursor.index += 1
    words: list[str] = []
    while cursor.kind == WORD or (words and cursor.is_other("*")):
        words.append(cursor.take())
    if words and cursor.accept(")"):
        kind = cursor.kind
        if kind in (INTEGER, HEX, FLOAT, WORD, STRING) or (kind == OTHER and cursor.word in "([{~"):
            return Cast(" ".join(words), _operand(cursor, depth + 1))
    cursor.index = start + 1
    inner = expression(cursor, depth + 1)
    cursor.expect(")")
    return inner
