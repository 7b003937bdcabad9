"""A prefix that is ours, and which of its interface identifiers are fit to use.

Pure arithmetic: knows no scheme and no pool. RFC 5453 (with IANA's registry of
reserved interface identifiers), RFC 2526, RFC 4291 2.6.1.
"""

from typing import Final

from umuxstack.core.errors import BadArgument
from umuxstack.core.units import UNSPECIFIED, Address
from umuxstack.core.wire.address import BITS, LENGTH, first_of, in_prefix, is_multicast, to_text

MIN_HOST_BITS: Final = 8
MAX_HOST_BITS: Final = 120

# Reserved identifiers of 64 bits, first and last (IANA, "Reserved IPv6 Interface Identifiers"; RFC 5453, RFC 6543).
_ETHERNET_FIRST: Final = 0x0200_5EFF_FE00_0000
_ETHERNET_LAST: Final = 0x0200_5EFF_FEFF_FFFF
_ANYCAST_FIRST: Final = 0xFDFF_FFFF_FFFF_FF80
_ANYCAST_LAST: Final = 0xFDFF_FFFF_FFFF_FFFF
_MASK_64: Final = (1 << 64) - 1
_ANYCAST_IDS: Final = 128  # RFC 2526 2: seven bits of anycast identifier


class Prefix:
    """`length` bits that are given to us; the `host_bits` behind them are ours to choose.

    Raises BadArgument for a length outside 8 … 120, for bits beyond the length, and for a prefix in which no
    session can live (multicast, or the one that holds the unspecified and the loopback address).
    """

    __slots__ = ("_network", "_top", "host_bits", "length", "network", "size")

    def __init__(self, network: Address, length: int) -> None:
        if len(network) != LENGTH:
            raise BadArgument(f"a prefix is given as {LENGTH} packed bytes, not {len(network)}")
        if not BITS - MAX_HOST_BITS <= length <= BITS - MIN_HOST_BITS:
            raise BadArgument(f"prefix length is {length}; allowed is {BITS - MAX_HOST_BITS} to {BITS - MIN_HOST_BITS}")
        if first_of(network, length) != network:
            raise BadArgument(f"{to_text(network)}/{length} has bits set beyond its length")
        if is_multicast(network):
            raise BadArgument("a multicast prefix cannot hold sessions")
        if network == UNSPECIFIED:
            raise BadArgument(f"::/{length} holds the unspecified and the loopback address; it cannot hold sessions")
        self.network = network
        self.length = length
        self.host_bits = BITS - length
        self.size = 1 << self.host_bits  # addresses, fit or not
        self._network = int.from_bytes(network, "big")
        self._top = self.size - _ANYCAST_IDS  # here RFC 2526's subnet anycast addresses begin, unless host_bits is 64

    @property
    def text(self) -> str:
        return f"{to_text(self.network)}/{self.length}"

    def contains(self, address: bytes) -> bool:
        return int.from_bytes(address, "big") >> self.host_bits == self._network >> self.host_bits

    def overlaps(self, other: "Prefix") -> bool:
        """Whether some address lies in both; then one holds the other whole."""
        return in_prefix(self.network, other.network, min(self.length, other.length))

    def make(self, identifier: int) -> Address:
        """The address with this interface identifier, 0 … size-1."""
        return Address((self._network | identifier).to_bytes(LENGTH, "big"))

    def identifier_of(self, address: Address) -> int:
        """The interface identifier: the host bits as an integer."""
        return int.from_bytes(address, "big") & (self.size - 1)

    def is_fit(self, identifier: int) -> bool:
        """Whether no standard reserves this identifier.

        Identifiers are 64 bits wide by RFC 4291 2.5.1, and the registry speaks of these. Where more host bits are
        ours, others see subnets of /64 in them, so the registry applies to the lower 64 bits as well. Elsewhere RFC
        2526's rule for other lengths holds: the highest 128 are anycast. All zero is always the routers' (RFC 4291
        2.6.1).
        """
        if identifier == 0:
            return False
        if self.host_bits != 64 and identifier >= self._top:
            return False
        if self.host_bits >= 64:
            low = identifier & _MASK_64
            if low == 0 or _ETHERNET_FIRST <= low <= _ETHERNET_LAST or _ANYCAST_FIRST <= low <= _ANYCAST_LAST:
                return False
        return True

    def part(self, index: int, bits: int) -> "Prefix":
        """The `index`-th of the 2^`bits` sub-prefixes: one for each worker (UM-13). Raises BadArgument."""
        if not 0 <= index < 1 << bits:
            raise BadArgument(f"part {index} of {1 << bits}: count from 0")
        length = self.length + bits
        return Prefix(Address((self._network | index << (BITS - length)).to_bytes(LENGTH, "big")), length)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Prefix) and self.network == other.network and self.length == other.length

    def __hash__(self) -> int:
        return hash((self.network, self.length))

    def __repr__(self) -> str:
        return f"Prefix({self.text})"
