"""The Internet checksum (RFC 1071), as arithmetic modulo 65,535.

One's complement addition of 16-bit words is addition modulo 65,535, and 2^16 is
1 there: the whole message, taken as one big integer, has the same residue as
the sum of its words. That is the fastest way in plain Python.
"""

# RFC 9293 appendix B: MUST-2, MUST-3

from umuxstack.core.units import Buffer


def sum16(data: Buffer) -> int:
    """The sum of `data`'s 16-bit words modulo 65,535, an odd last byte padded with zero: 0 … 65534."""
    value = int.from_bytes(data, "big")
    return (value << 8 if len(data) & 1 else value) % 65535


def pseudo_sum(pair: bytes, length: int, protocol: int) -> int:
    """The pseudo-header's part (RFC 8200 8.1), not complemented. `pair`: both addresses, in any order."""
    return (int.from_bytes(pair, "big") + length + protocol) % 65535


def complement(total: int) -> int:
    """The checksum field for a sum of everything else. 0 is possible; UDP sends 0xFFFF then."""
    return (65535 - total % 65535) % 65535


def internet_checksum(pair: bytes, protocol: int, message: bytes) -> int:
    """The field's value for an upper-layer `message` whose checksum field is zero."""
    return complement(pseudo_sum(pair, len(message), protocol) + sum16(message))


def checksum_ok(buf: bytes, base: int, offset: int, end: int, protocol: int) -> bool:
    """Whether the upper-layer message in `buf[offset:end]` of the packet at `base` sums up right.

    A right sum is all ones, so its residue is 0. (The other number with residue 0, a sum of all zeros, cannot be:
    the protocol number is in it.)
    """
    return (pseudo_sum(buf[base + 8 : base + 40], end - offset, protocol) + sum16(buf[offset:end])) % 65535 == 0


def update(checksum: int, old: int, new: int) -> int:
    """RFC 1624: the field after a 16-bit word that it covers changed from `old` to `new`."""
    return complement((65535 - checksum) + (65535 - old) + new)
