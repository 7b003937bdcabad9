"""Endpoint: what the demultiplexer can hold, and the timers can call.

A base class, not a Protocol: dispatch is one attribute look-up per packet.
"""

from umuxstack.core.units import NEVER, Address, Micros


class Endpoint:
    """Owner of a pair, or of one local address.

    `owner` belongs to the driver: it keeps its waiter there. The core never looks at it.
    """

    __slots__ = ("armed", "deadline", "owner", "ready")

    def __init__(self) -> None:
        self.deadline: Micros = NEVER
        self.armed: Micros = NEVER
        self.ready = False  # stands in the stack's ready list
        self.owner: object = None

    def receive(
        self, buf: bytes, base: int, offset: int, end: int, protocol: int, gso_size: int, csum_ok: bool, now: Micros
    ) -> None:
        """Takes a packet whose IPv6 header is at `base` and whose upper-layer header is at `offset`, ending at `end`.

        `gso_size` is the payload size of each segment it was merged from, 0 if it is one segment.
        `csum_ok`: the link vouches for the transport checksum.
        """
        raise AssertionError(f"{type(self).__name__} takes no packets")

    def on_icmp_error(self, kind: int, code: int, value: int, quoted: bytes, now: Micros) -> None:
        """An ICMPv6 error whose quoted packet shows this endpoint's pair (UM-39).

        `quoted` is the quoted packet from its upper-layer header on; `value` is the MTU or pointer field.
        """

    def on_deadline(self, now: Micros) -> None:
        """The deadline armed by `Timers.arm` has come."""

    def accepts(self, remote: Address) -> bool:
        """Whether a first packet from `remote` may be taken here; only asked of owners of one local address."""
        return False
