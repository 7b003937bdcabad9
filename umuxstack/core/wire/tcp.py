"""The TCP header (RFC 9293 3.1) on IPv6: flags, parsing, and building both headers at once.

Sequence numbers here are wire values, 32 bits.
"""

# RFC 9293 appendix B: MUST-1

from struct import Struct
from typing import Final

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
ACK: Final = 0x10
URG: Final = 0x20
ECE: Final = 0x40
CWR: Final = 0x80
AE: Final = 0x100  # RFC 9768

HEADER: Final = 20
CHECKSUM: Final = 16  # offset of the checksum field in the TCP header

# source port, destination port, sequence, acknowledgement, offset/reserved + flags, window, checksum, urgent
FIELDS: Final = Struct(">HHIIHHHH")

TIMESTAMP_HEAD: Final = 0x0101080A  # NOP NOP kind 8 length 10
# The same with both ports as one number; and with the timestamp option as every segment of a session carries it
# (RFC 7323 appendix A)
FIELDS_OF_SESSION: Final = Struct(">IIIHHHH")
FIELDS_WITH_TIMESTAMP: Final = Struct(">IIIHHHHIII")

# IPv6 + TCP in one go
_BOTH: Final = Struct(">IHBB16s16sHHIIHHHH")
build = _BOTH.pack

# What all segments of a session have in common is packed once: next header, hop limit, source, destination, ports …
SAME: Final = Struct(">BB16s16sHH")
# … and the rest around it, without options and with the timestamp.
_SEGMENT: Final = Struct(">IH38sIIHHHH")
_SEGMENT_WITH_TIMESTAMP: Final = Struct(">IH38sIIHHHHIII")
build_segment = _SEGMENT.pack
build_segment_with_timestamp = _SEGMENT_WITH_TIMESTAMP.pack


def flag_names(flags: int) -> str:
    """For people: "SYN|ACK"."""
    names = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")
    return "|".join(name for bit, name in enumerate(names) if flags & 1 << bit) or "none"
