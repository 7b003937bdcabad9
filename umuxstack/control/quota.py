"""How much the clients of the control socket may use, together and per user."""

from typing import Final

import attrs


@attrs.frozen(slots=True)
class Limits:
    """Bounds of the control server. Patience is in seconds."""

    clients: int = 128
    clients_per_user: int = 96
    handed: int = 1024  # sessions and listeners in the hands of other processes: one descriptor each
    handed_per_user: int = 768
    events: int = 1024  # kept for a client that reads events slowly; further ones are counted as lost
    hello_patience: float = 5.0  # for the first message
    send_patience: float = 10.0  # for a client that does not read


OUTCOMES_KEPT: Final = 4096  # sessions handed out whose end is remembered


class Quota:
    """So many things at a time, and so many of them for one user."""

    __slots__ = ("_each", "_left", "_used")

    def __init__(self, total: int, each: int) -> None:
        self._left = total
        self._each = each
        self._used: dict[int, int] = {}

    def take(self, uid: int) -> bool:
        """One more for this user, if there is one."""
        used = self._used.get(uid, 0)
        if not self._left or used >= self._each:
            return False
        self._left -= 1
        self._used[uid] = used + 1
        return True

    def give_back(self, uid: int) -> None:
        """One that was taken before."""
        self._left += 1
        self._used[uid] -= 1
        if not self._used[uid]:
            del self._used[uid]
