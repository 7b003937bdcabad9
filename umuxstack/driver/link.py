"""What the pump needs of a link. Structural: a link need not import this.

Reading and writing never wait; only `wait_readable` and `wait_writable` do.
"""

from collections.abc import Sequence
from typing import Protocol

from umuxstack.core.config import LinkCaps
from umuxstack.core.session.context import Outgoing

Packet = tuple[bytes, int, int, bool]
"""(buf, base, gso_size, csum_ok): what `Stack.receive` takes. The packet is `buf[base:]`."""


class Link(Protocol):
    """A way for IPv6 packets in and out."""

    @property
    def caps(self) -> LinkCaps:
        """MTU in bytes, and which offloads the link does."""

    def read_batch(self, limit: int) -> list[Packet]:
        """Everything there is now, up to `limit` packets; empty if nothing. Raises OSError: link down or gone."""

    def write_batch(self, packets: Sequence[Outgoing]) -> int:
        """How many were taken, from the front; try the rest after `wait_writable`.

        Raises OSError: link down or gone. Its attribute `taken`, if it has one, tells how many went out before.
        """

    async def wait_readable(self) -> None: ...

    async def wait_writable(self) -> None: ...

    def close(self) -> None:
        """Gives the link up; whoever waits on it is woken. Idempotent."""
