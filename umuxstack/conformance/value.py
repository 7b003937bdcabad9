"""The values in system calls: numbers, symbols, strings, arrays, structs, calls, as frozen nodes.

Nothing is evaluated here; what `O_RDWR|O_NONBLOCK` is worth is for the runner to say.
"""

import attrs


@attrs.frozen(slots=True)
class AnyValue:
    """`...`: whatever the runner chooses, or whatever came back."""


@attrs.frozen(slots=True)
class Integer:
    value: int
    text: str = attrs.field(eq=False, default="")  # as written: `0x2`, `-1`


@attrs.frozen(slots=True)
class Float:
    text: str

    @property
    def value(self) -> float:
        return float(self.text)


@attrs.frozen(slots=True)
class Word:
    """A symbol: `SOCK_STREAM`, `NULL`."""

    name: str


@attrs.frozen(slots=True)
class String:
    """A string, or several side by side. `more`: `"abc"...`, only the beginning is given."""

    text: str  # escapes as written
    more: bool = False

    @property
    def value(self) -> bytes:
        """The bytes that C would make of it (UTF-8 for what is not escaped)."""
        return unescape(self.text)


@attrs.frozen(slots=True)
class Binary:
    """`left operator right`; the operator is one of `|`, `&`, `^`, `<<`, `>>`, `+`, `-`, `*`."""

    operator: str
    left: "Expression"
    right: "Expression"


@attrs.frozen(slots=True)
class Unary:
    operator: str  # "~", "-", "!", "&" or "*"
    operand: "Expression"


@attrs.frozen(slots=True)
class Cast:
    type_name: str
    operand: "Expression"


@attrs.frozen(slots=True)
class Call:
    """`htons(80)`, `inet_addr("192.0.2.1")`, `sizeof(int)`."""

    name: str
    arguments: tuple["Expression", ...]


@attrs.frozen(slots=True)
class Array:
    items: tuple["Expression", ...]


@attrs.frozen(slots=True)
class Named:
    """`name=value`, a field of a struct. `count` is the n of `msg_iov(n)=`; an `AnyValue` for `msg_name(...)=`."""

    name: str
    value: "Expression"
    count: "Expression | None" = None


@attrs.frozen(slots=True)
class Struct:
    """`{...}`: fields by name (`Named`), by place, or both."""

    items: tuple["Expression", ...]

    def field(self, name: str) -> "Expression | None":
        """The value of the field called `name`, or None."""
        for item in self.items:
            if isinstance(item, Named) and item.name == name:
                return item.value
        return None


@attrs.frozen(slots=True)
class RawStruct:
    """A struct of packet-header syntax (an MPLS stack, a GRE header) that only encapsulation tests pass to a call."""

    text: str


Expression = (
    AnyValue | Integer | Float | Word | String | Binary | Unary | Cast | Call | Array | Named | Struct | RawStruct
)

_ESCAPES = {"n": 10, "t": 9, "r": 13, "0": 0, "a": 7, "b": 8, "f": 12, "v": 11, "\\": 92, '"': 34, "'": 39, "?": 63}


def unescape(text: str) -> bytes:
    """The bytes of a C string literal's inside. An unknown escape stands for its character."""
    out = bytearray()
    i = 0
    while i < len(text):
        character = text[i]
        i += 1
        if character != "\\" or i == len(text):
            out += character.encode("utf-8", "surrogatepass")
            continue
        character = text[i]
        digits, base = (text[i + 1 : i + 3], 16) if character == "x" else (text[i : i + 3], 8)
        allowed = "0123456789abcdefABCDEF" if base == 16 else "01234567"
        length = next((n for n, digit in enumerate(digits) if digit not in allowed), len(digits))
        if length and (base == 16 or character in allowed):
            out.append(int(digits[:length], base) & 0xFF)
            i += length + (1 if base == 16 else 0)
            continue
        i += 1
        code = _ESCAPES.get(character)
        out += bytes([code]) if code is not None else character.encode("utf-8", "surrogatepass")
    return bytes(out)
