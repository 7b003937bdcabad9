"""Schemes: how interface identifiers are chosen (UM-13).

A scheme makes one address after another. It knows no lease and does no I/O:
the pool tells it which addresses are free, the host grants it counters.
Invariant of `sealed`: no address comes out twice, and none that a user chose.
RFC 7217 and 8981 are the relatives; neither lets its holder map back.
"""

from collections.abc import Callable, Iterable
from hashlib import blake2b, blake2s
from struct import Struct
from typing import ClassVar, Final

from mypy_extensions import mypyc_attr

from umuxstack.core.address.prefix import Prefix
from umuxstack.core.entropy import Entropy
from umuxstack.core.errors import AddressNotOurs, AddressUsed, BadArgument, NoMemory, PoolExhausted, WouldBlock
from umuxstack.core.units import Address

Free = Callable[[Address], bool]
"""Whether an address may be handed out: nobody holds it, and it does not lie ready in the pool."""

KEY_SIZE: Final = 32

GRANT_THRESHOLD: Final = 4096
"""A scheme that lives on grants wants the next when fewer counters than this are left: at ten thousand
addresses a second the host has 0.4 s for its file."""

MAX_CHOSEN: Final = 1 << 20
"""User-chosen addresses that `sealed` remembers because its counter has not passed them (about 100 MB)."""

# Chosen so: between 2 and 10 MB when full.
RANDOM_REMEMBERS: Final = 1 << 14  # of those it made
RANDOM_REMEMBERS_CHOSEN: Final = 1 << 16

# Ten rounds. With independent pseudo-random round functions, four make a permutation that nobody tells from a random
# one within about 2^(b/4) known addresses of b host bits (Luby and Rackoff 1988), six within about 2^(b/2) (Patarin
# 2004). On small prefixes these bounds say little, and the best attacks known there weaken with every round; NIST's
# FF1 (SP 800-38G) takes ten for such domains. The price of the last four is about 2 µs an address, in the background.
ROUNDS: Final = 10

_DRAWS: Final = 64  # random: so many addresses that are taken in a row mean that the prefix is nearly full
_SCAN_BITS: Final = 12  # random: up to this size a nearly full prefix is searched through, in some milliseconds

_pack_half: Final = Struct("<Q").pack
_unpack_half: Final = Struct("<Q24x").unpack  # the first half of BLAKE2s's 32 bytes


def _all_free(_address: Address) -> bool:
    return True


@mypyc_attr(allow_interpreted_subclasses=True)  # as CongestionControl
class Scheme:
    """Makes addresses of one prefix."""

    __slots__ = ("prefix",)

    name: ClassVar[str] = ""

    def __init__(self, prefix: Prefix) -> None:
        self.prefix = prefix

    def next(self, free: Free = _all_free) -> Address:
        """An address that is fit, free, and not chosen by a user before. Raises PoolExhausted."""
        raise NotImplementedError

    def examine(self, address: Address) -> None:
        """Whether a user may choose this address, which lies in the prefix, is fit and is nobody's; changes nothing.

        Raises AddressUsed if it had a session before, as far as the scheme can know.
        """
        raise NotImplementedError

    def choose(self, address: Address) -> None:
        """A user chose it: `next` will not make it, and `examine` refuses it from now on.

        Raises WouldBlock, with nothing changed, if the host has to record the choice first.
        """
        raise NotImplementedError

    def set_aside(self, address: Address) -> None:
        """Like `choose`, for an address that will be met again and again; it needs no record, it is free to repeat."""
        raise NotImplementedError

    def grant(self, ceiling: int) -> None:
        """The host has recorded that counters below `ceiling` may be used; nothing to a scheme without a counter."""

    @property
    def remaining(self) -> int | None:
        """Identifiers not tried yet, fit or not; None: the scheme does not count."""
        return None

    @property
    def granted(self) -> int | None:
        """Of these, how many may be tried now; None: no limit."""
        return None

    @property
    def wants_grant(self) -> bool:
        """The host should raise the ceiling soon."""
        return False


class RandomScheme(Scheme):
    """All host bits random.

    Only live addresses are sure not to come again; the others with the probability of `umuxstack.analyze.birthday`.
    It remembers the last 16,384 that it made, so as to refuse them when a user chooses one, and the last 65,536
    that a user chose, so as not to make them.
    """

    __slots__ = ("_chosen", "_entropy", "_made")

    name: ClassVar[str] = "random"

    def __init__(self, prefix: Prefix, entropy: Entropy) -> None:
        super().__init__(prefix)
        self._entropy = entropy
        self._made: dict[Address, None] = {}
        self._chosen: dict[Address, None] = {}

    def next(self, free: Free = _all_free) -> Address:
        below = self._entropy.below
        size = self.prefix.size
        for _ in range(_DRAWS):
            address = self._try(below(size), free)
            if address is not None:
                return address
        if self.prefix.host_bits <= _SCAN_BITS:
            start = below(size)
            for step in range(size):
                address = self._try((start + step) % size, free)
                if address is not None:
                    return address
        raise PoolExhausted(f"no free address found in {self.prefix.text}: nearly all are held or chosen by users")

    def _try(self, identifier: int, free: Free) -> Address | None:
        prefix = self.prefix
        if not prefix.is_fit(identifier):
            return None
        address = prefix.make(identifier)
        if address in self._chosen or not free(address):
            return None
        _remember(self._made, address, RANDOM_REMEMBERS)
        return address

    def examine(self, address: Address) -> None:
        if address in self._chosen or address in self._made:
            raise AddressUsed("this address had its session; it is not used again")

    def choose(self, address: Address) -> None:
        _remember(self._chosen, address, RANDOM_REMEMBERS_CHOSEN)

    def set_aside(self, address: Address) -> None:
        self.choose(address)


def _remember(memory: dict[Address, None], address: Address, limit: int) -> None:
    """Keeps the last `limit` addresses."""
    memory.pop(address, None)
    if len(memory) >= limit:
        del memory[next(iter(memory))]
    memory[address] = None


class SealedScheme(Scheme):
    """A keyed permutation of a counter over the prefix's host bits: a balanced Feistel network, cycle-walked.

    `key`: the master key, 32 bytes; each prefix has a key of its own made from it. `start` is the first counter,
    `stop` the one that is never reached (by default the size of the prefix): workers get disjoint ranges.

    `ceiling`: None, or the counter up to which the host has recorded that counters may have been used. With a
    ceiling the scheme is *durable*: it stops there until `grant` raises it, and refuses a user's choice until
    `record` says that the host recorded it. That is what makes it impossible to issue an address again after a
    crash: everything ever issued lies below a recorded ceiling, or is itself recorded. `chosen` are the counters
    recorded by earlier runs.

    Raises BadArgument.
    """

    __slots__ = ("_ceiling", "_chosen", "_counter", "_half", "_mask", "_pairs", "_recorded", "_stop", "durable")

    name: ClassVar[str] = "sealed"

    def __init__(
        self,
        prefix: Prefix,
        key: bytes,
        *,
        start: int = 0,
        stop: int | None = None,
        ceiling: int | None = None,
        chosen: Iterable[int] = (),
    ) -> None:
        super().__init__(prefix)
        if len(key) != KEY_SIZE:
            raise BadArgument(f"the key has {len(key)} bytes; it must have {KEY_SIZE}")
        self._stop = prefix.size if stop is None else stop
        if not 0 <= start <= self._stop <= prefix.size:
            raise BadArgument(f"counters {start} to {self._stop} do not lie in 0 to {prefix.size}")
        self.durable = ceiling is not None
        self._ceiling = self._stop if ceiling is None else min(ceiling, self._stop)
        self._counter = start
        self._chosen = {counter for counter in chosen if counter >= start}
        self._recorded: set[int] = set()
        self._half = (prefix.host_bits + 1) // 2
        self._mask = (1 << self._half) - 1
        rounds = _round_keys(prefix, key)
        self._pairs = tuple(zip(rounds[::2], rounds[1::2], strict=True))

    # The permutation

    def seal(self, counter: int) -> int:
        """The interface identifier of a counter; one to one over 0 … size-1."""
        pairs, half, mask, size = self._pairs, self._half, self._mask, self.prefix.size
        value = counter
        while True:
            left = value >> half
            right = value & mask
            for first, second in pairs:
                # A key of 32 bytes and a half of 8 fill one block of BLAKE2s: a single compression, which is a
                # pseudo-random function when it begins with the key. BLAKE2's own keyed mode costs a second block.
                left = (left ^ _unpack_half(blake2s(first + _pack_half(right)).digest())[0]) & mask
                right = (right ^ _unpack_half(blake2s(second + _pack_half(left)).digest())[0]) & mask
            value = left << half | right
            if value < size:  # an odd number of host bits: walk on until we are back inside, two steps on average
                return value

    def unseal(self, identifier: int) -> int:
        """The counter that `seal` made this identifier of."""
        half, mask, size = self._half, self._mask, self.prefix.size
        backwards = self._pairs[::-1]
        value = identifier
        while True:
            left = value >> half
            right = value & mask
            for first, second in backwards:
                right = (right ^ _unpack_half(blake2s(second + _pack_half(left)).digest())[0]) & mask
                left = (left ^ _unpack_half(blake2s(first + _pack_half(right)).digest())[0]) & mask
            value = left << half | right
            if value < size:
                return value

    def counter_of(self, address: Address) -> int:
        """Maps an address back to its counter, as only the holder of the key can. Raises AddressNotOurs."""
        if not self.prefix.contains(address):
            raise AddressNotOurs(f"this address does not lie in {self.prefix.text}")
        return self.unseal(self.prefix.identifier_of(address))

    # Making addresses

    def next(self, free: Free = _all_free) -> Address:
        prefix, chosen, ceiling = self.prefix, self._chosen, self._ceiling
        while True:
            counter = self._counter
            if counter >= ceiling:
                raise PoolExhausted(self._why_exhausted())
            self._counter = counter + 1
            if chosen and counter in chosen:
                chosen.discard(counter)  # below the counter everything counts as used: no need to remember it
                continue
            identifier = self.seal(counter)
            if prefix.is_fit(identifier):
                address = prefix.make(identifier)
                if free(address):
                    return address

    def _why_exhausted(self) -> str:
        if self._ceiling < self._stop:
            return f"the counter range is not granted yet: all counters below {self._ceiling} are used"
        return f"{self.prefix.text} is used up: each of its addresses was issued once, and none is issued again"

    @property
    def counter(self) -> int:
        """The next counter; all below are used, skipped, or were lost with an earlier run."""
        return self._counter

    @property
    def ceiling(self) -> int:
        return self._ceiling

    def grant(self, ceiling: int) -> None:
        """Counters below `ceiling` may be used: the host has recorded it. A lower one than before changes nothing."""
        self._ceiling = max(self._ceiling, min(ceiling, self._stop))

    @property
    def remaining(self) -> int | None:
        return self._stop - self._counter

    @property
    def granted(self) -> int | None:
        return max(0, self._ceiling - self._counter)

    @property
    def wants_grant(self) -> bool:
        return self._ceiling < self._stop and self._ceiling - self._counter < GRANT_THRESHOLD

    # Addresses that a user chose

    def examine(self, address: Address) -> None:
        """Raises AddressUsed, AddressNotOurs (another worker's range) or NoMemory."""
        counter = self.counter_of(address)
        if counter < self._counter or counter in self._chosen:
            raise AddressUsed("this address had its session, or was lost with an earlier run; it is not used again")
        if counter >= self._stop:
            raise AddressNotOurs(f"this address belongs to another worker: its counter is not below {self._stop}")
        if len(self._chosen) >= MAX_CHOSEN:
            raise NoMemory(f"{MAX_CHOSEN} user-chosen addresses are remembered, the limit; let the stack mint them")

    def must_record(self, address: Address) -> bool:
        """Whether the host has to record this choice before `choose`.

        Not below the ceiling: the next run begins there, so this address counts as used by then anyway.
        """
        if not self.durable:
            return False
        counter = self.counter_of(address)
        return counter >= self._ceiling and counter not in self._recorded and counter not in self._chosen

    def record(self, address: Address) -> None:
        """The host has recorded that a user chose this address."""
        self._recorded.add(self.counter_of(address))

    def choose(self, address: Address) -> None:
        counter = self.counter_of(address)
        if counter < self._counter:
            return  # lay ready in the pool: it is not made again
        if self.must_record(address):
            raise WouldBlock("the key file does not hold this choice yet: record it there, then choose the address")
        self._recorded.discard(counter)
        self._chosen.add(counter)

    def set_aside(self, address: Address) -> None:
        counter = self.counter_of(address)
        if counter >= self._counter:
            self._chosen.add(counter)


def _round_keys(prefix: Prefix, key: bytes) -> list[bytes]:
    """Independent keys for the rounds of this prefix."""
    own = blake2b(
        prefix.network + bytes((prefix.length,)), key=key, digest_size=KEY_SIZE, person=b"umux-prefix"
    ).digest()
    return [
        blake2b(bytes((number,)), key=own, digest_size=KEY_SIZE, person=b"umux-round").digest()
        for number in range(ROUNDS)
    ]


def scheme_for(name: str, prefix: Prefix, entropy: Entropy) -> Scheme:
    """The scheme of this name; a sealed one has a key that lives as long as the process. Raises BadArgument."""
    if name == SealedScheme.name:
        return SealedScheme(prefix, entropy.bytes(KEY_SIZE))
    if name == RandomScheme.name:
        return RandomScheme(prefix, entropy)
    raise BadArgument(f"scheme is {name!r}; it is 'sealed' or 'random'")
