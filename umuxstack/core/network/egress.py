"""The way out for packets that are larger than the path: fragmentation (RFC 8200 4.5, 8021).

TCP never comes here; a datagram or an echo may. Invariant: no fragment is larger
than the path MTU, and none is made of a packet that fits (RFC 8021: no atomic fragments).
"""

# 8504-5.1-5, 8504-5.1-7, 8504-5.2-6, 8504-5.2-7

from struct import Struct
from typing import Final

from umuxstack.core.wire import extension

_HEADER: Final = Struct(">BBHI")


def fragment(packet: bytes, mtu: int, identification: int) -> list[bytes]:
    """`packet`, complete with its checksum and without extension headers, in pieces of at most `mtu` bytes."""
    if len(packet) <= mtu:
        return [packet]
    room = (mtu - 48) // 8 * 8
    body = packet[40:]
    pieces = []
    for start in range(0, len(body), room):
        part = body[start : start + room]
        more = start + room < len(body)
        header = bytearray(packet[:40])
        header[4:6] = (8 + len(part)).to_bytes(2, "big")
        header[6] = extension.FRAGMENT
        pieces.append(bytes(header) + _HEADER.pack(packet[6], 0, start | more, identification) + part)
    return pieces
