"""Leases: every local address that is somebody's, from chosen to retired (UM-7, UM-8).

Owns the table of live addresses and the life-cycle table. Knows no session and
no packet. Invariant: an address stands in the table exactly as long as it is
valid or retiring, and no two leases hold one address; but a service that
listens again may find sessions of its former life there, with their lease.
"""

from collections.abc import Iterator
from typing import Final

from umuxstack.core.errors import AddressInUse
from umuxstack.core.units import Address, Micros

# States (UM-8). Addresses in the pool are UNCERTAIN; they have no lease yet.
INVALID: Final = 0
TENTATIVE: Final = 1  # duplicate address detection runs (Ethernet only, UM-10)
UNCERTAIN: Final = 2  # ready and reserved, but nobody can reach it
VALID: Final = 3
RETIRING: Final = 4  # the application has closed; TCP still finishes
STATE_NAMES: Final = ("INVALID", "TENTATIVE", "UNCERTAIN", "VALID", "RETIRING")

# Events
CHOSEN: Final = 0  # a scheme made it, on a link with detection
CHOSEN_ROUTED: Final = 1  # a scheme made it, on a routed link: no detection (UM-11)
UNIQUE: Final = 2  # detection found no other holder
DUPLICATE: Final = 3  # detection found one
TAKEN: Final = 4  # connect, DAS or bind took it
CLOSED: Final = 5  # the application closed; TCP has something left to finish
FINISHED: Final = 6  # nobody needs it any more
DISCARDED: Final = 7  # thrown away unused
EVENT_NAMES: Final = (
    "CHOSEN",
    "CHOSEN_ROUTED",
    "UNIQUE",
    "DUPLICATE",
    "TAKEN",
    "CLOSED",
    "FINISHED",
    "DISCARDED",
)

TRANSITIONS: Final = {
    (INVALID, CHOSEN): TENTATIVE,
    (INVALID, CHOSEN_ROUTED): UNCERTAIN,
    (TENTATIVE, UNIQUE): UNCERTAIN,
    (TENTATIVE, DUPLICATE): INVALID,
    (TENTATIVE, DISCARDED): INVALID,
    (UNCERTAIN, TAKEN): VALID,
    (UNCERTAIN, DUPLICATE): INVALID,
    (UNCERTAIN, DISCARDED): INVALID,
    (VALID, CLOSED): RETIRING,
    (VALID, FINISHED): INVALID,
    (RETIRING, FINISHED): INVALID,
}

# Kinds
EA: Final = "EA"
SSA: Final = "SSA"
SERVICE: Final = "SERVICE"
SHARED: Final = "SHARED"

Purpose = tuple[str, ...]
"""Kind, group, grain and label; of no fixed length for mypyc, which would keep four strings in each lease."""


class Lease:
    """One address and what it is for. `name` stands for it in logs, metrics and captures (UM-34)."""

    __slots__ = ("_purpose", "_where", "born", "state")

    def __init__(self, address: Address, purpose: Purpose, number: int, opened: Micros) -> None:
        self._where: bytes = address  # or the pair of the session that owns it: see LeaseTable.hand_over
        self._purpose = purpose  # one object for all with the same
        self.born = opened << 40 | number  # one integer takes less than two
        self.state = VALID

    @property
    def kind(self) -> str:
        return self._purpose[0]

    @property
    def group(self) -> str:
        """The listener it belongs to."""
        return self._purpose[1]

    @property
    def grain(self) -> str:
        return self._purpose[2]

    @property
    def label(self) -> str:
        return self._purpose[3]

    @property
    def address(self) -> Address:
        return Address(self._where[-16:])

    @property
    def id(self) -> int:
        """Its number among those of its kind and listener."""
        return self.born & (1 << 40) - 1

    @property
    def opened(self) -> Micros:
        return Micros(self.born >> 40)

    @property
    def name(self) -> str:
        kind = self.kind.lower()
        return f"{kind}.{self.group}.{self.id}" if self.group else f"{kind}.{self.id}"

    @property
    def state_name(self) -> str:
        return STATE_NAMES[self.state]

    def on(self, event: int) -> None:
        """Moves along the table; an event that the state does not know changes nothing."""
        self.state = TRANSITIONS.get((self.state, event), self.state)

    def close_for(self, pair: bytes) -> bool:
        """The application has closed the session with this pair. True: nobody else has the address open."""
        return True

    def finish_for(self, pair: bytes) -> bool:
        """The session with this pair is gone. True: it was the last that had the address."""
        return True

    def __repr__(self) -> str:
        return f"<Lease {self.name} {self.state_name}>"


class ChosenLease(Lease):
    """A source that an application chose (UM-16): sessions with different peers may have it at once (UM-1).

    It is RETIRING when all of them are closed, and ends with the last (UM-7). Always in the lease table.
    """

    __slots__ = ("_closed", "_open")

    def __init__(self, address: Address, number: int, opened: Micros, label: str) -> None:
        super().__init__(address, (EA, "", "session", label), number, opened)
        self._open: set[bytes] = set()  # the pairs of its sessions
        self._closed: set[bytes] = set()

    def join(self, pair: bytes) -> None:
        self._open.add(pair)

    def close_for(self, pair: bytes) -> bool:
        if pair in self._open:
            self._open.remove(pair)
            self._closed.add(pair)
        return not self._open

    def finish_for(self, pair: bytes) -> bool:
        self._open.discard(pair)
        self._closed.discard(pair)
        return not self._open and not self._closed


class LeaseTable:
    """All live leases: by address, but for those whose session holds them.

    `complete`: every lease stands in the table for as long as it lives. The scheme `random` needs that, to check what
    it draws against live addresses; `sealed` cannot draw one twice, so a lease that its session holds anyway
    (`hand_over`) need not cost a second entry.
    """

    __slots__ = ("_by_address", "_complete", "_former", "_held_by_sessions", "_purposes", "_serial")

    def __init__(self, *, complete: bool) -> None:
        self._by_address: dict[bytes, Lease] = {}
        self._complete = complete
        self._former: list[Lease] = []  # of services that listen again: what sessions of former lives still have
        self._held_by_sessions = 0
        self._serial: dict[str, int] = {}
        self._purposes: dict[Purpose, Purpose] = {}  # those without a label

    def __len__(self) -> int:
        return len(self._by_address) + len(self._former) + self._held_by_sessions

    def __iter__(self) -> Iterator[Lease]:
        """Those in the table; the others are found by their sessions."""
        return iter([*self._by_address.values(), *self._former])

    def get(self, address: bytes) -> Lease | None:
        return self._by_address.get(address)

    def holds(self, address: Address) -> bool:
        return address in self._by_address

    def may_serve_again(self, address: Address) -> bool:
        """Whether a service was here and is closed, but not all of its sessions have ended."""
        lease = self._by_address.get(address)
        return lease is not None and lease.kind == SERVICE and lease.state == RETIRING

    def open(
        self, address: Address, kind: str, now: Micros, *, group: str = "", label: str = "", grain: str = "session"
    ) -> Lease:
        """A new lease, VALID at once: the address came from the pool or was checked by the caller."""
        purpose: Purpose = (kind, group, grain, label)
        if not label:
            purpose = self._purposes.setdefault(purpose, purpose)
        lease = Lease(address, purpose, self._number(kind + group), now)
        self._enter(address, lease)
        return lease

    def open_chosen(self, address: Address, now: Micros, label: str) -> ChosenLease:
        """As `open`, for a source that an application chose."""
        lease = ChosenLease(address, self._number(EA), now, label)
        self._enter(address, lease)
        return lease

    def _number(self, key: str) -> int:
        number = self._serial[key] = self._serial.get(key, 0) + 1
        return number

    def _enter(self, address: Address, lease: Lease) -> None:
        former = self._by_address.get(address)
        if former is not None:
            if lease.kind != SERVICE or not self.may_serve_again(address):
                raise AddressInUse("this address is in use now; choose another, or let the stack mint one")
            self._former.append(former)
        self._by_address[address] = lease

    def hand_over(self, lease: Lease, pair: bytes) -> None:
        """The session with this pair owns the address from now on, and says so in the pair table."""
        if not self._complete and self._by_address.pop(lease.address, None) is not None:
            lease._where = pair
            self._held_by_sessions += 1

    def end(self, lease: Lease) -> bool:
        """The address is nobody's from now on. False if it had ended before."""
        if lease.state == INVALID:
            return False
        lease.on(FINISHED)
        if self._former and self._end_of_several(lease):
            return True
        if self._by_address.pop(lease.address, None) is None:
            self._held_by_sessions -= 1
        return True

    def _end_of_several(self, lease: Lease) -> bool:
        """False if no other lease has its address."""
        if lease in self._former:
            self._former.remove(lease)
            return True
        for former in self._former:
            if former.address == lease.address:
                self._former.remove(former)
                self._by_address[lease.address] = former
                return True
        return False
