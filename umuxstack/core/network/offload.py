"""Software segmentation and checksums, for a link that does neither.

Owns the way from an `Outgoing` (session/context.py) to plain packets. Keeps no state. Invariant: the
payloads of the pieces, put together, are the super-segment's payload.
"""

from struct import Struct
from typing import Final

from umuxstack.core.units import UDP, Buffer
from umuxstack.core.wire import ipv6, tcp
from umuxstack.core.wire.checksum import complement, sum16

_CHECKSUM_AT: Final = ipv6.HEADER + tcp.CHECKSUM
# From the sequence number to the checksum, all that changes from piece to piece: sequence, acknowledgement,
# data offset and flags, window, checksum.
_CHANGING: Final = Struct(">IIHHH")
_CHANGING_AT: Final = ipv6.HEADER + 4
_LENGTH_AT: Final = 4
_NEXT_HEADER_AT: Final = 6


def finish(outgoing: tuple[bytes, Buffer, int, int]) -> list[bytes]:
    """The plain packets of `outgoing`: cut to `gso_size`, with IPv6 lengths and checksums complete."""
    header, payload, gso_size, csum_offset = outgoing
    if csum_offset == 0:
        return [b"".join((header, payload))]
    if 0 < gso_size < len(payload):
        return _cut(header, payload, gso_size)
    at = ipv6.HEADER + csum_offset
    # The field holds the pseudo-header's sum already, so the sum over header and payload is the whole sum. The
    # header's length is even: both parts can be summed on their own.
    total = complement(sum16(header[ipv6.HEADER :]) + sum16(payload))
    if total == 0 and header[_NEXT_HEADER_AT] == UDP:
        total = 0xFFFF  # RFC 768: "If the computed checksum is zero, it is transmitted as all ones"
    return [b"".join((header[:at], total.to_bytes(2, "big"), header[at + 2 :], payload))]


def _cut(header: bytes, payload: Buffer, gso_size: int) -> list[bytes]:
    """The segments of a TCP super-segment. It carries no urgent pointer: that is relative to one sequence number."""
    view = memoryview(payload)
    length = len(view)
    header_length = len(header) - ipv6.HEADER
    sequence, acknowledgement, flags, window, _ = _CHANGING.unpack_from(header, _CHANGING_AT)
    # What is the same in all pieces: the header without the fields that differ, and the pseudo-header's sum without
    # the length. Sums are modulo 65,535, where 2^16 is 1, so a 32-bit field may be added as it stands.
    constant = sum16(header[ipv6.HEADER :]) - sequence - flags - header_length - length
    head, middle, tail = header[:_LENGTH_AT], header[_LENGTH_AT + 2 : _CHANGING_AT], header[_CHECKSUM_AT + 2 :]
    # RFC 9293 3.1: PSH and FIN belong to the end of the data. RFC 3168 6.1.2: CWR is "the first new data packet".
    first_flags, later_flags = flags & ~(tcp.PSH | tcp.FIN), flags & ~(tcp.PSH | tcp.FIN | tcp.CWR)
    piece_flags = first_flags
    pieces = []
    for start in range(0, length, gso_size):
        piece = view[start : start + gso_size]
        if start + gso_size >= length:
            piece_flags = later_flags | flags & (tcp.PSH | tcp.FIN)
        size = header_length + len(piece)
        position = sequence + start & 0xFFFFFFFF
        total = complement(constant + position + piece_flags + size + sum16(piece))
        changing = _CHANGING.pack(position, acknowledgement, piece_flags, window, total)
        pieces.append(b"".join((head, size.to_bytes(2, "big"), middle, changing, tail, piece)))
        piece_flags = later_flags
    return pieces
