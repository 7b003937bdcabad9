"""The IPv6 fixed header (RFC 8200 3): offsets and building.

Offsets count from the header's first byte. The pair is not parsed: it is the
slice PAIR of the received bytes.
"""

# 8200-8.4-1: no header built here has another behind it; egress alone adds one

from struct import Struct
from typing import Final

HEADER: Final = 40
SOURCE: Final = 8
DESTINATION: Final = 24
PAIR_END: Final = 40

_FIXED: Final = Struct(">IHBB16s16s")


def build(
    local: bytes, remote: bytes, protocol: int, length: int, hop_limit: int, *, flow: int = 0, traffic: int = 0
) -> bytes:
    """A header from `local` to `remote` for `length` bytes behind it; `flow` is the 20-bit flow label."""
    return _FIXED.pack(0x60000000 | traffic << 20 | flow, length, protocol, hop_limit, local, remote)
