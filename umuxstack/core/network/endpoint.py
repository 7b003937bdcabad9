"""Receivers and endpoints: what the demultiplexer can hold, and the timers can call.

A base class, not a Protocol: dispatch is one attribute look-up per packet.
"""

from typing import ClassVar

from umuxstack.core.units import NEVER, Micros


class Receiver:
    """What owns a pair or a local address, and so takes packets."""

    __slots__ = ()

    shared: ClassVar[bool] = False  # a legacy address: many roles, and a packet may come from itself (UM-2)

    def receive(
        self, buf: bytes, base: int, offset: int, end: int, protocol: int, gso_size: int, csum_ok: bool, now: Micros
    ) -> None:
        """Takes a packet whose IPv6 header is at `base` and whose upper-layer header is at `offset`, ending at `end`.

        `gso_size` is the payload size of each segment it was merged from, 0 if it is one segment.
        `csum_ok`: the link vouches for the transport checksum.
        """
        raise AssertionError(f"{type(self).__name__} takes no packets")

    def on_bad_packet(self, buf: bytes, base: int, end: int, status: int, where: int, now: Micros) -> None:
        """A packet whose extension headers cannot be processed (`status` of `extension.walk`, offending byte `where`).

        Asked of the owner where that is a shared address, else of whoever stands for nobody. Silence unless said
        otherwise (UM-31).
        """

    def on_late_fragments(self, first: bytes, now: Micros) -> None:
        """Fragments of a packet did not all come in time; `first` is the first of them. Asked as `on_bad_packet` is."""

    def on_icmp_error(
        self, kind: int, code: int, value: int, protocol: int, quoted: bytes, offset: int, now: Micros
    ) -> None:
        """An ICMPv6 error whose quoted packet shows this endpoint's pair, reversed (UM-39).

        `quoted` is the quoted packet, as much as came, from its IPv6 header on; its upper-layer header, of
        `protocol`, begins at `offset`. `value` is the 32-bit field: MTU or pointer.
        """


class Waitable(Receiver):
    """A receiver that somebody may wait for.

    `owner` belongs to the driver: it keeps its waiter there. The core never looks at it.
    """

    __slots__ = ("owner", "ready")

    def __init__(self) -> None:
        self.ready = False  # stands in the stack's ready list
        self.owner: object = None


class Endpoint(Waitable):
    """A waitable with a deadline."""

    __slots__ = ("armed", "deadline")

    def __init__(self) -> None:
        self.ready = False  # as Waitable's: a call less for each session
        self.owner = None
        self.deadline: Micros = NEVER
        self.armed: Micros = NEVER  # the time for which it stands in the timer heap

    def on_deadline(self, now: Micros) -> None:
        """The deadline armed by `Timers.arm` has come."""
