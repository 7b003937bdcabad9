"""What a caller may write for an address, as the packed bytes that are used inside.

Text is `core.wire.address`'s business; here `ipaddress` objects and packed bytes are taken as well.
"""

from collections.abc import Iterable
from ipaddress import IPv6Address, IPv6Network
from typing import Any

from umuxstack.core.errors import AddressMalformed, BadArgument
from umuxstack.core.units import Address
from umuxstack.core.wire.address import BITS, LENGTH, parse, parse_prefix


def to_address(value: str | IPv6Address | bytes) -> Address:
    """Raises AddressMalformed for anything that is not one IPv6 address."""
    if isinstance(value, str):
        return parse(value)
    if isinstance(value, IPv6Address):
        return Address(value.packed)
    if isinstance(value, bytes) and len(value) == LENGTH:
        return Address(value)
    raise AddressMalformed(f"{value!r} is not an IPv6 address")


def several(values: object, what: str) -> Iterable[Any]:
    """`values`, unless it is a single address or prefix: that can be gone through as well, for a long time."""
    if isinstance(values, str | bytes | IPv6Network) or not isinstance(values, Iterable):
        raise BadArgument(f"{what} is {values!r}; it is a list, of one if there is one alone")
    return values


def to_prefix(value: str | IPv6Network | IPv6Address) -> tuple[Address, int]:
    """A prefix, or one address for its /128. Raises AddressMalformed, also for bits set beyond the length."""
    text = str(value)
    return parse_prefix(text) if "/" in text else (parse(text), BITS)
