"""TCP Fast Open: the cookies that a client remembers (RFC 7413 4.1.3), and those that a server gives (4.1.2).

By the pair of addresses: a cookie is bound to the client's address. Invariant: a client remembers at most `CAPACITY`
of them, a server none.
"""

from collections import OrderedDict
from hashlib import blake2b
from typing import Final

from umuxstack.core.entropy import Entropy
from umuxstack.core.units import Micros, seconds

CAPACITY: Final = 4096
REFUSED: Final = b""
RESERVED: Final = 40  # of a segment, left free for options: a SYN with data is to reach its end
SIZE: Final = 8  # of the cookies that we give
ROTATION: Final = seconds(12 * 3600)  # a cookie is good for this and the next such period
PATIENCE: Final = seconds(900)  # until a server that refused is asked again


def is_cookie(text: bytes | None) -> bool:
    """RFC 7413 2: 4 to 16 octets, "and it MUST be an even number"."""
    return text is not None and 4 <= len(text) <= 16 and not len(text) & 1


def mint(entropy: Entropy, key: str, pair: bytes, period: int) -> bytes:
    """A server's cookie for the client of `pair`: "cannot be fabricated by any other parties" (RFC 7413 4.1.2).

    `key`: of servers that share an address, whoever set it changes it; "": the stack's own, and the cookie expires.
    """
    if key:
        return blake2b(pair, key=bytes.fromhex(key), digest_size=SIZE).digest()
    return entropy.keyed_hash(b"fast open" + pair + period.to_bytes(8, "big"), SIZE).to_bytes(SIZE, "big")


def is_ours(entropy: Entropy, key: str, pair: bytes, cookie: bytes, now: Micros) -> bool:
    """Whether we gave this client that cookie, and not too long ago."""
    period = now // ROTATION
    good = [mint(entropy, key, pair, period)]
    if period and not key:
        good.append(mint(entropy, key, pair, period - 1))
    return cookie in good


class Cookies:
    """What servers gave us."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, tuple[bytes | None, int, Micros]] = (
            OrderedDict()
        )  # pair -> (cookie, MSS, since)

    def __len__(self) -> int:
        return len(self._known)

    def get(self, pair: bytes, now: Micros) -> tuple[bytes | None, int]:
        """The cookie and the MSS that came with it; REFUSED; or None: nobody has asked yet."""
        cookie, mss, since = self._known.get(pair, (None, 0, now))
        if cookie == REFUSED and now - since >= PATIENCE:
            return None, 0
        return cookie, mss

    def learn(self, pair: bytes, cookie: bytes | None, mss: int, now: Micros) -> None:
        """The newest cookie counts (RFC 7413 4.1.3). REFUSED: there is none, or it was of no use; None: none asked."""
        self._known.pop(pair, None)
        self._known[pair] = (cookie, mss, now)
        if len(self._known) > CAPACITY:
            self._known.popitem(last=False)

    def room(self, pair: bytes, limit: int, now: Micros, *, free: bool = False) -> int:
        """How much data may go with a SYN (RFC 7413 4.2.1). `limit`: the path's MSS; `free`: without a cookie, too."""
        cookie, mss = self.get(pair, now)
        return max(min(mss or limit, limit) - RESERVED, 0) if cookie or free else 0

    def clear(self) -> None:
        self._known.clear()
