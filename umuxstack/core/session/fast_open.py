"""TCP Fast Open, what a client remembers (RFC 7413 4.1.3): cookies, and who did not give any.

By the pair of addresses: a cookie is bound to the client's address. Invariant: at most `CAPACITY` entries.
"""

from collections import OrderedDict
from typing import Final

from umuxstack.core.units import Micros, seconds

CAPACITY: Final = 4096
REFUSED: Final = b""
RESERVED: Final = 40  # of a segment, left free for options: a SYN with data is to reach its end
PATIENCE: Final = seconds(900)  # until a server that refused is asked again


def is_cookie(text: bytes | None) -> bool:
    """RFC 7413 2: 4 to 16 octets, "and it MUST be an even number"."""
    return text is not None and 4 <= len(text) <= 16 and not len(text) & 1


class Cookies:
    """What servers gave us."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, tuple[bytes, int, Micros]] = OrderedDict()  # pair -> (cookie, MSS, since)

    def __len__(self) -> int:
        return len(self._known)

    def get(self, pair: bytes, now: Micros) -> tuple[bytes | None, int]:
        """The cookie and the MSS that came with it; REFUSED; or None: nobody has asked yet."""
        cookie, mss, since = self._known.get(pair, (None, 0, now))
        if cookie == REFUSED and now - since >= PATIENCE:
            return None, 0
        return cookie, mss

    def learn(self, pair: bytes, cookie: bytes, mss: int, now: Micros) -> None:
        """The newest cookie counts (RFC 7413 4.1.3); REFUSED: there is none, or it was not honoured."""
        self._known.pop(pair, None)
        self._known[pair] = (cookie, mss, now)
        if len(self._known) > CAPACITY:
            self._known.popitem(last=False)

    def room(self, pair: bytes, limit: int, now: Micros) -> int:
        """How much data may go with a SYN; `limit`: the MSS of the path (RFC 7413 4.2.1)."""
        cookie, mss = self.get(pair, now)
        return max(min(mss, limit) - RESERVED, 0) if cookie else 0

    def clear(self) -> None:
        self._known.clear()
