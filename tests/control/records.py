"""Hypothesis strategies for every message of the control protocol, made from the declared field types."""

from typing import Any, get_args

import attrs
from hypothesis import strategies as st

from umuxstack.control.layout import Code, Record, Text
from umuxstack.control.messages import Hello

_NUMBERS = {
    "B": st.integers(0, 0xFF),
    "H": st.integers(0, 0xFFFF),
    "I": st.integers(0, 0xFFFFFFFF),
    "Q": st.integers(0, (1 << 64) - 1),
    "q": st.integers(-(1 << 63), (1 << 63) - 1),
    "?": st.booleans(),
    "16s": st.binary(min_size=16, max_size=16),
}


def texts(limit: int) -> st.SearchStrategy[str]:
    """Printable texts of at most `limit` bytes (a character has at most four)."""
    characters = st.characters(exclude_categories=("C", "Z"), include_characters=" ")
    return st.text(characters, max_size=limit // 4)


def records(cls: type[Record]) -> st.SearchStrategy[Any]:
    """Instances of `cls` with arbitrary values that fit."""
    arguments: dict[str, st.SearchStrategy[Any]] = {}
    for field in attrs.fields(cls):
        (mark,) = [mark for mark in get_args(field.type) if isinstance(mark, Code | Text)]
        arguments[field.name] = texts(mark.limit) if isinstance(mark, Text) else _NUMBERS[mark.struct]
    if cls is Hello:
        del arguments["magic"]
    return st.builds(cls, **arguments)
