"""Path MTU by peer address, and by peer prefix (RFC 8201).

Each SSA is a new destination, so what one session learns about a peer is also
kept for its /64: the next address behind the same router starts there.
Invariant: at most `CAPACITY` entries; none outlives `lifetime`.
"""

# UM-35.v; 8201-1-1, 8201-3-1, 8201-3-2, 8201-5.2-1, 8201-5.2-3, 8201-5.3-1, 8201-5.3-3, 8201-5.6-1, 8201-6-1,
# 8201-6-2, 8504-5.7.1-1

from collections import OrderedDict
from typing import Final

from umuxstack.core.units import Micros

CAPACITY: Final = 4096
MINIMUM: Final = 1280


class PathMtu:
    """What "packet too big" taught us."""

    __slots__ = ("_known", "_lifetime", "floor", "link_mtu")

    def __init__(self, link_mtu: int, lifetime: Micros) -> None:
        self.link_mtu = link_mtu
        self._lifetime = lifetime
        self.floor = MINIMUM  # lower only where packets of another protocol are imitated
        self._known: OrderedDict[bytes, tuple[int, Micros]] = OrderedDict()  # /64 or address -> (mtu, until)

    def __len__(self) -> int:
        return len(self._known)

    def get(self, peer: bytes, now: Micros) -> int:
        """The largest packet that the path to `peer` is believed to carry."""
        if not self._known:
            return self.link_mtu
        for key in (peer, peer[:8]):  # an address of its own may be outdated where its /64 is not
            entry = self._known.get(key)
            if entry is not None and entry[1] > now:
                return entry[0]
        return self.link_mtu

    def learn(self, peer: bytes, mtu: int, now: Micros, *, whole_prefix: bool = True) -> int:
        """A believed "packet too big" said `mtu`, of the path to `peer` and its /64. Returns what holds now.

        RFC 8201 4: never below 1280, and "A node MUST NOT increase its estimate of the Path MTU in
        response to the contents of a Packet Too Big message".
        """
        mtu = min(max(mtu, self.floor), self.get(peer, now))
        for key in (peer, peer[:8]) if whole_prefix else (peer,):
            self._known.pop(key, None)
            self._known[key] = (mtu, Micros(now + self._lifetime))
        while len(self._known) > CAPACITY:
            self._known.popitem(last=False)
        return mtu
