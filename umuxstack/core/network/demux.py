"""Demultiplexing: from a received packet to the one endpoint that owns it (UM-1, UM-2).

Owns the pair table and the local-address table. Knows no ports, no protocol
and no time. Invariant (UM-3): no packet has two owners, see docs/principle.md.
"""

from umuxstack.core.network.endpoint import Receiver


class Demux:
    """Two dictionaries, asked in this order; that is all of it.

    `pairs` is keyed by 32 bytes, source and destination as a received header has them: the sessions.
    `locals` is keyed by the destination alone: LISTEN_U, service, group and shared addresses. A stack has two of them
    with the same `locals`: sessions with ourselves stand apart from those with others.
    """

    __slots__ = ("locals", "pairs")

    def __init__(self, local: dict[bytes, Receiver] | None = None) -> None:
        self.pairs: dict[bytes, Receiver] = {}
        self.locals: dict[bytes, Receiver] = {} if local is None else local

    def owner(self, pair: bytes) -> Receiver | None:
        """The one endpoint that owns a packet with these addresses, or None: then nobody is there."""
        return self.pairs.get(pair) or self.locals.get(pair[16:])
