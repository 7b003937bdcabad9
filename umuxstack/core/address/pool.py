"""The address pool: addresses that can become valid at once (UM-9).

Owns what is ready, and decides which address a user may choose. Knows no lease:
`taken` tells which addresses are held. Filled between two watermarks from
`Stack.advance`, never while a packet is handled. Invariant: an address leaves
the pool once, and none that lies in it is held by anybody.
"""

# 8504-6.2-1, 8504-6.2-2

from collections.abc import Callable
from typing import Final

from umuxstack.core.address.prefix import Prefix
from umuxstack.core.address.scheme import Scheme
from umuxstack.core.address.statistics import PoolStatistics
from umuxstack.core.config import PoolPolicy
from umuxstack.core.errors import AddressInUse, AddressMalformed, AddressNotOurs, PoolExhausted
from umuxstack.core.units import Address
from umuxstack.core.wire.address import LENGTH

REFILL_BUDGET: Final = 16
"""Addresses made by one call of `refill`: about 0.1 ms."""


class AddressPool:
    """Ready addresses of one prefix on a routed link, where no detection is needed (UM-11)."""

    __slots__ = ("_filling", "_hits", "_issued", "_misses", "_policy", "_ready", "_taken", "prefix", "scheme")

    def __init__(self, prefix: Prefix, scheme: Scheme, policy: PoolPolicy, taken: Callable[[Address], bool]) -> None:
        """`taken`: whether somebody holds an address now, a shared one included."""
        self.prefix = prefix
        self.scheme = scheme
        self._policy = policy
        self._taken = taken
        self._ready: dict[Address, None] = {}  # a set that gives back the youngest in constant time
        self._filling = True
        self._hits = 0
        self._misses = 0
        self._issued = 0

    @property
    def level(self) -> int:
        return len(self._ready)

    @property
    def filling(self) -> bool:
        """`refill` has more to do: call it again soon, after what is more urgent."""
        return self._filling

    def take(self) -> Address:
        """An address that was never handed out. It is made on the spot when none is ready. Raises PoolExhausted."""
        ready = self._ready
        if ready:
            address = ready.popitem()[0]
            self._hits += 1
            if len(ready) < self._policy.low or not ready:
                self._filling = self._policy.high > 0
        else:
            self._misses += 1
            self._filling = self._policy.high > 0
            address = self.scheme.next(self._is_free)
        self._issued += 1
        return address

    def refill(self, budget: int = REFILL_BUDGET) -> None:
        """Makes up to `budget` addresses if the level fell below the low watermark and did not reach the high one."""
        if not self._filling:
            return
        ready, scheme, is_free = self._ready, self.scheme, self._is_free
        missing = self._policy.high - len(ready)
        try:
            for _ in range(min(budget, missing)):
                ready[scheme.next(is_free)] = None
        except PoolExhausted:
            self._filling = False  # the next take, or a grant, starts it again
        else:
            self._filling = missing > budget

    def grant(self, ceiling: int) -> None:
        """The host has recorded that counters below `ceiling` may be used (UM-13); for schemes that need it."""
        self.scheme.grant(ceiling)
        self._filling = len(self._ready) < self._policy.high

    def examine(self, address: Address) -> None:
        """Whether a user may choose this address for one session (UM-24); changes nothing.

        Raises AddressMalformed, AddressNotOurs, AddressInUse or AddressUsed.
        """
        self._examine_place(address)
        if address not in self._ready:
            self.scheme.examine(address)

    def reserve(self, address: Address) -> None:
        """A user chose this address for one session: nobody else gets it, now or later.

        Raises what `examine` raises, and WouldBlock when the host has to record the choice first (UM-13);
        nothing was changed then.
        """
        self.examine(address)
        self.scheme.choose(address)
        self._ready.pop(address, None)

    def set_aside(self, address: Address) -> None:
        """A service is to be met at this address again and again (UM-26): no session will get it for its own.

        Unlike `reserve` it may have been used before, for a service keeps its address over restarts.
        Raises AddressMalformed, AddressNotOurs or AddressInUse.
        """
        self._examine_place(address)
        self._ready.pop(address, None)
        self.scheme.set_aside(address)

    def _examine_place(self, address: Address) -> None:
        if len(address) != LENGTH:
            raise AddressMalformed(f"an IPv6 address has {LENGTH} bytes, not {len(address)}")
        if not self.prefix.contains(address):
            raise AddressNotOurs(f"this address does not lie in our prefix {self.prefix.text}")
        if not self.prefix.is_fit(self.prefix.identifier_of(address)):
            raise AddressMalformed("the interface identifier is reserved (RFC 5453, RFC 2526, RFC 4291 2.6.1)")
        if self._taken(address):
            raise AddressInUse("this address is in use now; choose another, or let the stack mint one")

    def _is_free(self, address: Address) -> bool:
        return not self._taken(address) and address not in self._ready

    def statistics(self) -> PoolStatistics:
        return PoolStatistics(
            scheme=self.scheme.name,
            level=len(self._ready),
            low=self._policy.low,
            high=self._policy.high,
            hits=self._hits,
            misses=self._misses,
            issued=self._issued,
            remaining=self.scheme.remaining,
            granted=self.scheme.granted,
        )
