"""Default address selection (RFC 6724): which shared address a packet leaves from, which destination is tried first.

Pure: knows no stack. A session of its own has a fresh EA, and nothing to choose; a choice is there among shared
(legacy) addresses only. Of the rules those are left out that presume what is not here: deprecated addresses, home
addresses, several interfaces, tunnels. Invariant: what the rules leave equal stays in the order given.
"""

# UM-37.f; 8504-6.6-1, 8504-6.6-2

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from umuxstack.core.units import Address
from umuxstack.core.wire.address import BITS, in_prefix, is_link_local, is_loopback, is_multicast, parse_prefix

SUBNET: Final = 64  # bits that rule 8 compares: an interface identifier says nothing of the way

_LINK_LOCAL: Final = 2
_SITE_LOCAL: Final = 5
_GLOBAL: Final = 14
_SITE: Final = parse_prefix("fec0::/10")

# RFC 6724 2.1, the default policy table: prefix, precedence, label; the longest first
_POLICY: Final = tuple(
    (*parse_prefix(prefix), precedence, label)
    for prefix, precedence, label in (
        ("::1/128", 50, 0),
        ("::ffff:0:0/96", 35, 4),
        ("::/96", 1, 3),
        ("2001::/32", 5, 5),
        ("2002::/16", 30, 2),
        ("3ffe::/16", 1, 12),
        ("fec0::/10", 1, 11),
        ("fc00::/7", 3, 13),
        ("::/0", 40, 1),
    )
)


def choose_source(candidates: Iterable[Address], destination: Address) -> Address | None:
    """The best of our addresses to reach `destination` from (RFC 6724 5); None if there are none."""
    best: Address | None = None
    for candidate in candidates:
        if best is None or _is_better(candidate, best, destination):
            best = candidate
    return best


def order_destinations(destinations: Sequence[Address], source: Callable[[Address], Address | None]) -> list[Address]:
    """Those to try first first (RFC 6724 6). `source`: what each would be reached from, None: it cannot be."""

    def rank(destination: Address) -> tuple[object, ...]:
        ours = source(destination)
        if ours is None:
            return (True,)  # rule 1: unusable
        precedence, label = _policy(destination)
        return (
            False,
            _scope(destination) != _scope(ours),  # rule 2
            label != _policy(ours)[1],  # rule 5
            -precedence,  # rule 6
            _scope(destination),  # rule 8
            -_common(ours, destination),  # rule 9
        )

    return sorted(destinations, key=rank)  # rule 10: it is stable


def _is_better(one: Address, other: Address, destination: Address) -> bool:
    if destination in (one, other):
        return one == destination  # rule 1
    ours, theirs, wanted = _scope(one), _scope(other), _scope(destination)
    if ours != theirs:  # rule 2
        return theirs < wanted if theirs < ours else ours >= wanted
    label = _policy(destination)[1]
    fits, other_fits = _policy(one)[1] == label, _policy(other)[1] == label
    if fits != other_fits:  # rule 6
        return fits
    return _common(one, destination) > _common(other, destination)  # rule 8


def _scope(address: Address) -> int:
    """RFC 6724 3.1."""
    if is_multicast(address):
        return address[1] & 15
    if is_link_local(address) or is_loopback(address):
        return _LINK_LOCAL
    return _SITE_LOCAL if in_prefix(address, *_SITE) else _GLOBAL


def _policy(address: Address) -> tuple[int, int]:
    """(precedence, label)."""
    return next(
        (precedence, label) for prefix, length, precedence, label in _POLICY if in_prefix(address, prefix, length)
    )


def _common(source: Address, destination: Address) -> int:
    """RFC 6724 2.2: bits that both begin with, up to the length of the source's prefix."""
    different = int.from_bytes(source, "big") ^ int.from_bytes(destination, "big")
    return min(BITS - different.bit_length(), SUBNET)
