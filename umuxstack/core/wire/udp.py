"""The UDP header (RFC 768) on IPv6: building. A zero checksum is refused on receipt (RFC 8200 8.1)."""

from struct import Struct
from typing import Final

HEADER: Final = 8
CHECKSUM: Final = 6

FIELDS: Final = Struct(">HHHH")
_BOTH: Final = Struct(">IHBB16s16sHHHH")

build = _BOTH.pack
