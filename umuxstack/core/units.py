"""The types every other module shares: times, addresses, pairs.

Conversions (text, seconds, `ipaddress`) live at the edges; inside the core
these are plain integers and bytes.
"""

from typing import Final, NewType

Micros = NewType("Micros", int)
"""A time or a duration: integer microseconds. Its zero is the driver's choice."""

Address = NewType("Address", bytes)
"""An IPv6 address: 16 packed bytes, network order."""

Pair = NewType("Pair", bytes)
"""What a session is (UM-1): 32 bytes, *remote then local*, just as they stand
in the header of a packet that comes in (source, destination)."""

Buffer = bytes | bytearray | memoryview

FIXED_PORT: Final = 1
"""The one value the port fields are reduced to (UM-4; TCPMUX, RFC 1078)."""

NEVER: Final = Micros(1 << 62)
"""A deadline that does not come."""

UNSPECIFIED: Final = Address(bytes(16))

TCP: Final = 6
UDP: Final = 17
ICMPV6: Final = 58


def millis(value: float) -> Micros:
    return Micros(int(value * 1_000))


def seconds(value: float) -> Micros:
    return Micros(int(value * 1_000_000))


def minutes(value: float) -> Micros:
    return Micros(int(value * 60_000_000))
