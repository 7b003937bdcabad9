"""Values that users write: addresses, prefixes and times. Each error names the option and what is allowed."""

import contextlib
import re
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Final

from umuxstack.cli.common import USAGE, Failure
from umuxstack.core.units import NEVER, Address, Micros

_UNITS: Final = {"": 1_000_000, "us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000}
_TIME: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|m|h|)")


def address(text: str, option: str) -> Address:
    """One IPv6 address of somebody's, packed. A scope is not part of it."""
    try:
        found = IPv6Address(text.partition("%")[0])
    except ValueError:
        raise Failure(f"{option}: {text!r} is not an IPv6 address", "write one like 2001:db8::1", USAGE) from None
    if found.is_unspecified or found.is_multicast or found.is_loopback:
        raise Failure(f"{option}: {text!r} is nobody's address", "write a unicast one like 2001:db8::1", USAGE)
    return Address(found.packed)


def prefix(text: str, option: str) -> tuple[Address, int]:
    """An IPv6 prefix, or one address for its /128."""
    try:
        network = IPv6Network(text)
    except ValueError as error:
        raise Failure(
            f"{option}: {text!r} is not an IPv6 prefix: {error}", "write one like 2001:db8:1::/64", USAGE
        ) from None
    first = network.network_address
    if first.is_multicast or (first.is_unspecified and network.prefixlen == 128):
        raise Failure(f"{option}: {text!r} is nobody's address", "write one like 2001:db8:1::/64", USAGE)
    return Address(first.packed), network.prefixlen


def time(text: str, option: str, longest: int | None = None) -> Micros:
    """A duration: a number with us, ms, s (default), m or h; `longest` in seconds."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise Failure(f"{option}: {text!r} is not a time", "write one like 500ms, 90s, 10m or 2h", USAGE)
    exact = float(match[1]) * _UNITS[match[2]]
    value = int(exact) if exact < NEVER else NEVER
    if value >= NEVER:
        raise Failure(f"{option}: {text!r} is longer than can be counted", "write one like 10m", USAGE)
    if longest is not None and value > longest * 1_000_000:
        raise Failure(f"{option}: {text!r} is more than {longest} s", "write one like 10s", USAGE)
    return Micros(value)


def pause(text: str, option: str, longest: int = 86_400) -> Micros:
    """A duration of more than nothing, and no more than somebody would wait."""
    value = time(text, option, longest)
    if not value:
        raise Failure(f"{option}: it must be more than 0", "write one like 500ms or 10s", USAGE)
    return value


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

    literal = text.partition("%")[0].strip("[]")
    with contextlib.suppress(ValueError):
        return address(str(IPv6Address(literal)), "the address")
    with contextlib.suppress(ValueError):
        IPv4Address(text)
        raise Failure(f"{text!r} is an IPv4 address", "the stack speaks IPv6 only", USAGE)
    if not text:
        raise Failure("an empty address was given", "write one like 2001:db8::1, or a name", USAGE)
    try:
        found = socket.getaddrinfo(text, None, socket.AF_INET6, socket.SOCK_STREAM)
    except OSError as error:
        raise Failure(
            f"{text!r} is no IPv6 address, and no name that has one: {error.strerror}",
            "the stack speaks IPv6 only; try `getent ahostsv6 NAME`",
        ) from None
    return Address(IPv6Address(str(found[0][4][0]).partition("%")[0]).packed)
