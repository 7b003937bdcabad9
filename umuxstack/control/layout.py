"""How a record becomes bytes: fixed part first, then the texts.

The fixed part holds the numbers and addresses in the order of the class's
fields, network order; a text stands there as its length in bytes (u16). The
texts follow in the same order, UTF-8. One precompiled `struct` per class.
Nothing is ever evaluated: a field is a number, an address or a bounded text.
"""

from struct import Struct, error
from typing import Annotated, Any, Final, Generic, TypeVar, get_args

import attrs

from umuxstack.core.errors import BadArgument
from umuxstack.core.units import Address, Micros


class ProtocolError(Exception):
    """The other side sent bytes that are no message of this protocol. The connection is of no further use."""


@attrs.frozen(slots=True)
class Code:
    """A field that `struct` knows."""

    struct: str


@attrs.frozen(slots=True)
class Text:
    """A UTF-8 field of at most `limit` bytes, all of them printable characters."""

    limit: int


U8 = Annotated[int, Code("B")]
U16 = Annotated[int, Code("H")]
U32 = Annotated[int, Code("I")]
U64 = Annotated[int, Code("Q")]
Flag = Annotated[bool, Code("?")]
Time = Annotated[Micros, Code("q")]
Addr = Annotated[Address, Code("16s")]
Word = Annotated[str, Text(24)]
Name = Annotated[str, Text(96)]
Label = Annotated[str, Text(128)]
Message = Annotated[str, Text(1024)]


@attrs.frozen(slots=True)
class Record:
    """Base of everything that travels. Subclasses are `attrs.frozen` with fields of the types above."""


R = TypeVar("R", bound=Record)

_TEXT_LENGTH: Final = "H"


class Layout(Generic[R]):
    """Packs and unpacks one record class."""

    __slots__ = ("_cls", "_fields", "_struct", "_texts", "maximum")

    def __init__(self, cls: type[R]) -> None:
        self._cls = cls
        self._fields: list[tuple[str, Code | Text]] = []
        for field in attrs.fields(cls):
            marks = [mark for mark in get_args(field.type) if isinstance(mark, Code | Text)]
            if len(marks) != 1:
                raise TypeError(f"{cls.__name__}.{field.name} is not of a wire type")
            self._fields.append((field.name, marks[0]))
        codes = [mark.struct if isinstance(mark, Code) else _TEXT_LENGTH for _, mark in self._fields]
        self._struct = Struct("!" + "".join(codes))
        self._texts = [(i, name, mark.limit) for i, (name, mark) in enumerate(self._fields) if isinstance(mark, Text)]
        self.maximum = self._struct.size + sum(limit for _, _, limit in self._texts)

    def pack(self, record: R) -> bytes:
        """The record's bytes. `BadArgument` if a value does not fit its field: then nothing was sent."""
        values: list[Any] = [getattr(record, name) for name, _ in self._fields]
        tail = []
        for index, name, limit in self._texts:
            if not values[index].isprintable():
                raise BadArgument(f"{name} holds characters that cannot be printed")
            encoded = values[index].encode("utf-8")
            if len(encoded) > limit:
                raise BadArgument(f"{name} has {len(encoded)} bytes; allowed are {limit}")
            tail.append(encoded)
            values[index] = len(encoded)
        for (name, mark), value in zip(self._fields, values, strict=True):
            if isinstance(mark, Code) and mark.struct == "16s" and len(value) != 16:
                raise BadArgument(f"{name} is not an IPv6 address of 16 bytes")
        try:
            return self._struct.pack(*values) + b"".join(tail)
        except error:
            raise BadArgument(self._explain(values)) from None

    def unpack_from(self, data: bytes, offset: int) -> tuple[R, int]:
        """The record at `offset`, and where the next one begins. `ProtocolError` if there is none."""
        try:
            values: list[Any] = list(self._struct.unpack_from(data, offset))
        except error:
            raise ProtocolError(f"{self._cls.__name__} is cut off") from None
        offset += self._struct.size
        for index, name, limit in self._texts:
            length = values[index]
            end = offset + length
            if length > limit or end > len(data):
                raise ProtocolError(f"{self._cls.__name__}.{name} is longer than allowed, or cut off")
            try:
                text = data[offset:end].decode("utf-8")
            except UnicodeDecodeError:
                raise ProtocolError(f"{self._cls.__name__}.{name} is not UTF-8") from None
            if not text.isprintable():
                raise ProtocolError(f"{self._cls.__name__}.{name} holds characters that cannot be printed")
            values[index] = text
            offset = end
        return self._cls(*values), offset

    def _explain(self, values: list[Any]) -> str:
        for (name, mark), value in zip(self._fields, values, strict=True):
            if isinstance(mark, Code):
                try:
                    Struct("!" + mark.struct).pack(value)
                except error as problem:
                    return f"{name} is {value}: {problem}"
        raise AssertionError("every field fits by itself, so the whole does")
