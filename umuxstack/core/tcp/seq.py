"""Sequence numbers: 32 bits on the wire, plain growing integers inside.

A received number is *unwrapped* once, at the door, next to one we know; from
then on `<` and `-` are right by themselves and wrapping cannot be got wrong.
It is masked again where a header is built. Nothing else knows 2^32.
"""

from typing import Final

MASK: Final = 0xFFFFFFFF
_HALF: Final = 0x80000000


def unwrap(wire: int, near: int) -> int:
    """The integer congruent to `wire` modulo 2^32 that is nearest to `near` (within -2^31 … 2^31-1)."""
    return near + ((wire - near + _HALF & MASK) - _HALF)
