"""Three families of failure.

`LocalError`: the local caller asked for something impossible; raised at once,
and nothing was changed. `Reason`: why a session ended; a value, because the
peer or the path did it. `Drop`: why a packet went no further; a counter.
"""

from enum import IntEnum


class LocalError(Exception):
    """The caller's request cannot be carried out; nothing was changed."""


class AddressMalformed(LocalError):
    """Not an IPv6 address, or one that can never be a session's (multicast, unspecified, reserved)."""


class AddressNotOurs(LocalError):
    """The address lies outside the stack's prefix and is none of its shared addresses."""


class AddressInUse(LocalError):
    """Somebody holds this address now."""


class AddressUsed(LocalError):
    """This address has served its session; it is not used again (UM-12)."""


class PoolExhausted(LocalError):
    """No address could be had: the prefix is used up, or the counter range was not granted."""


class BacklogFull(LocalError):
    """The accept queue has no place left to reserve (UM-27)."""


class NotListening(LocalError):
    """The listener is closed, or the object is not a listener."""


class NoSuchObject(LocalError):
    """No listener, lease or session by that name or id."""


class NotConnected(LocalError):
    """The operation needs a session that is established or being set up."""


class SessionClosed(LocalError):
    """The local side has closed this session, or its writing half."""


class WouldBlock(LocalError):
    """Nothing to hand out now, or no room now."""


class MessageTooLong(LocalError):
    """The datagram does not fit."""


class BadArgument(LocalError):
    """A value is out of its range; the message says which and what is allowed."""


class NoMemory(LocalError):
    """A configured memory limit was reached."""


class Reason(IntEnum):
    """Why a session ended (a value, never an exception; `OSError` is made of it at the edge)."""

    NONE = 0
    CLOSED = 1  # both sides finished in order
    REFUSED = 2  # RST in answer to our SYN
    RESET = 3  # the peer sent RST
    TIMED_OUT = 4  # retransmissions or keep-alives went unanswered
    UNREACHABLE = 5  # ICMPv6: no route, address or host unreachable
    PROHIBITED = 6  # ICMPv6: administratively prohibited
    PORT_UNREACHABLE = 7  # ICMPv6: port unreachable (UDP, or a legacy answer to a SYN)
    ABORTED = 8  # the local application aborted
    REVOKED = 9  # das revoke
    EXPIRED = 10  # waiting SSA: its lifetime ran out; UDP: idle
    PARENT_CLOSED = 11  # the listener was closed before this was accepted
    LOST_RACE = 12  # another candidate completed the handshake first (UM-23)
    REPLACED = 13  # a newer SYN of the same peer took its place (UM-33)
    STACK_CLOSED = 14  # the stack was shut down
    NO_MEMORY = 15  # shed when memory ran out
    PACKET_TOO_BIG = 16  # the path cannot carry it


class Drop(IntEnum):
    """Why a received packet was not delivered, or one of ours not sent. One counter each."""

    # IPv6
    TRUNCATED = 0
    NOT_IPV6 = 1
    BAD_LENGTH = 2
    BAD_SOURCE = 3
    BAD_EXTENSION = 4
    UNKNOWN_PROTOCOL = 5
    # multiplexing
    NO_OWNER = 6
    SOURCE_IS_DESTINATION = 7
    FOREIGN_PROTOCOL = 8
    OTHER_PORTS = 9
    PEER_NOT_ALLOWED = 10
    NO_PORT_OWNER = 11
    # transport
    BAD_CHECKSUM = 12
    BAD_HEADER = 13
    BAD_FLAGS = 14
    OUT_OF_WINDOW = 15
    BAD_ACK = 16
    PAWS = 17
    NOT_A_SYN = 18
    BACKLOG = 19
    AFTER_CLOSE = 20
    QUEUE_FULL = 21
    RATE_LIMITED = 22
    NO_MEMORY = 23
    # ICMPv6
    ICMP_UNKNOWN = 24
    ICMP_NOT_BELIEVED = 25
    ICMP_NO_SESSION = 26
    # reassembly
    FRAGMENT_OVERLAP = 27
    FRAGMENT_TIMEOUT = 28
    FRAGMENT_BUDGET = 29
    # our own side
    LINK_DOWN = 30
    # multiplexing, again
    SOURCE_IS_OURS = 31
