"""ICMPv6 (RFC 4443): types, building echoes and errors with their checksum."""

# 4443-2.3-1, 4443-3.1-1

from struct import Struct
from typing import Final

from umuxstack.core.units import ICMPV6
from umuxstack.core.wire import ipv6
from umuxstack.core.wire.checksum import internet_checksum

UNREACHABLE: Final = 1
PACKET_TOO_BIG: Final = 2
TIME_EXCEEDED: Final = 3
PARAMETER_PROBLEM: Final = 4
ECHO_REQUEST: Final = 128
ECHO_REPLY: Final = 129

NO_ROUTE: Final = 0
PROHIBITED: Final = 1
ADDRESS_UNREACHABLE: Final = 3
PORT_UNREACHABLE: Final = 4
HOP_LIMIT: Final = 0
REASSEMBLY_TIME: Final = 1
UNRECOGNIZED_NEXT_HEADER: Final = 1

HEADER: Final = 8
_HEAD: Final = Struct(">BBHI")
MINIMUM_MTU: Final = 1280  # RFC 8200 5


def build(
    local: bytes, remote: bytes, kind: int, code: int, value: int, body: bytes, hop_limit: int, *, flow: int = 0
) -> bytes:
    """A whole packet. `value` is the 32-bit field after the checksum: identifier and sequence, MTU, pointer."""
    message = _HEAD.pack(kind, code, 0, value) + body
    checksum = internet_checksum(local + remote, ICMPV6, message)
    return (
        ipv6.build(local, remote, ICMPV6, len(message), hop_limit, flow=flow)
        + message[:2]
        + checksum.to_bytes(2, "big")
        + message[4:]
    )


def quote(packet: bytes) -> bytes:
    """RFC 4443 2.4 (c): "as much of the invoking packet as possible without exceeding the minimum IPv6 MTU"."""
    return packet[: MINIMUM_MTU - ipv6.HEADER - HEADER]
