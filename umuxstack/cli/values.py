"""Values that users write: addresses, prefixes and times. Each error names the option and what is allowed."""

import re
from ipaddress import IPv6Address, IPv6Network
from typing import Final

from umuxstack.cli.common import USAGE, Failure
from umuxstack.core.units import NEVER, Address, Micros

_UNITS: Final = {"": 1_000_000, "us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000}
_TIME: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|m|h|)")


def address(text: str, option: str) -> Address:
    """One IPv6 address, packed. A scope is not part of it."""
    try:
        return Address(IPv6Address(text.partition("%")[0]).packed)
    except ValueError:
        raise Failure(f"{option}: {text!r} is not an IPv6 address", "write one like 2001:db8::1", USAGE) from None


def prefix(text: str, option: str) -> tuple[Address, int]:
    """An IPv6 prefix, or one address for its /128."""
    try:
        network = IPv6Network(text)
    except ValueError as error:
        raise Failure(
            f"{option}: {text!r} is not an IPv6 prefix: {error}", "write one like 2001:db8:1::/64", USAGE
        ) from None
    return Address(network.network_address.packed), network.prefixlen


def time(text: str, option: str) -> Micros:
    """A duration: a number with us, ms, s (default), m or h."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise Failure(f"{option}: {text!r} is not a time", "write one like 500ms, 90s, 10m or 2h", USAGE)
    value = int(float(match[1]) * _UNITS[match[2]])
    if value >= NEVER:
        raise Failure(f"{option}: {text!r} is longer than can be counted", "write one like 10m", USAGE)
    return Micros(value)


def lifetime(text: str, option: str) -> Micros:
    """A duration, or "unlimited"."""
    if text in ("unlimited", "never", "inf"):
        return NEVER
    value = time(text, option)
    if not value:
        raise Failure(f"{option}: it must be more than 0", 'write one like 10m, or "unlimited"', USAGE)
    return value


def whole(value: int, option: str, low: int, high: int) -> int:
    """A number within its bounds, both included."""
    if not low <= value <= high:
        raise Failure(f"{option} is {value}; it is {low} to {high}", code=USAGE)
    return value


def resolve(text: str) -> Address:
    """An address, or a name's first IPv6 address by the system's resolver."""
    import socket

    try:
        return Address(IPv6Address(text.partition("%")[0].strip("[]")).packed)
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(text, None, socket.AF_INET6, socket.SOCK_STREAM)
    except OSError as error:
        raise Failure(
            f"{text!r} is no IPv6 address, and no name that has one: {error.strerror}",
            "the stack speaks IPv6 only; try `getent ahostsv6 NAME`",
        ) from None
    return Address(IPv6Address(str(found[0][4][0]).partition("%")[0]).packed)
