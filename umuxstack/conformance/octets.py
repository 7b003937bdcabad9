"""What the data is: each octet says where in its stream it stands, so that one that is lost, doubled or moved is seen.

Scripts say how much is written and read, never what. Each direction of a connection counts from 0; so does a datagram.
"""

from typing import Final

from umuxstack.conformance.outcome import Mismatch

PERIOD: Final = 251  # a prime: neither segments nor the pieces that buffers are made of are multiples of it
_RING: Final = bytes(range(1, PERIOD + 1)) * 300


def octets(position: int, size: int) -> bytes:
    """`size` octets from `position` of a stream on."""
    start = position % PERIOD
    if start + size <= len(_RING):
        return _RING[start : start + size]
    return (_RING * -(-(start + size) // len(_RING)))[start : start + size]


def check(what: str, position: int, seen: bytes) -> None:
    """Raises Mismatch if these are other octets than stand at `position`."""
    expected = octets(position, len(seen))
    if seen != expected:
        at = next(index for index, (one, other) in enumerate(zip(seen, expected, strict=True)) if one != other)
        raise Mismatch(
            f"{what}: octet {position + at} of the stream is {seen[at]}, not {expected[at]}: lost, doubled or moved"
        )
