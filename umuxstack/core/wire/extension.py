"""Extension headers (RFC 8200 4): one walk over the chain, on the cold path.

Invariant: no bytes make `walk` raise, and the walk is bounded by the packet.
"""

# 8504-5.2-1, 8504-5.2-2, 8504-5.2-4, 8504-5.3-2, 8504-5.3-5, 8504-5.3-6, 8504-5.3-7

from typing import Final

HOP_BY_HOP: Final = 0
ROUTING: Final = 43
FRAGMENT: Final = 44
ESP: Final = 50
AUTHENTICATION: Final = 51
NO_NEXT_HEADER: Final = 59
DESTINATION_OPTIONS: Final = 60

_KNOWN: Final = frozenset((HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS))

OK: Final = 0
TRUNCATED: Final = 1
BAD_HEADER: Final = 2  # parameter problem, code 0
BAD_NEXT_HEADER: Final = 3  # parameter problem, code 1
BAD_OPTION: Final = 4  # parameter problem, code 2
IGNORED: Final = 5  # an option asks to discard silently
INCOMPLETE: Final = 6  # a first fragment without all headers: parameter problem, code 3


HEADERS: Final = 16  # extension headers of one packet, at most, and …
OPTIONS: Final = (
    8  # … options in all of them that are no padding (RFC 8504 5.3: "the default value SHOULD be set to 8")
)
_PADDING: Final = 7  # octets in a row: more is never needed for alignment


def walk(buf: bytes, base: int, end: int, headers: int = HEADERS, options: int = OPTIONS) -> tuple[int, int, int, int]:
    """From the fixed header at `base` to the upper layer: (status, protocol, offset, where).

    `offset` is where the upper-layer header begins; for a fragment, where the fragment header does,
    with protocol FRAGMENT. `where` is the offset of the offending field, or of the last next-header field.

    RFC 8504 5.3 lets a host limit how much of this it does for one packet: with more than `headers` headers, `options`
    options, or padding that nobody needs, it is discarded silently. Else a small packet could cost 50 times another.
    """
    where = base + 6
    protocol = buf[where]
    at = base + 40
    first = True
    while protocol in _KNOWN:
        if at + 8 > end:
            return TRUNCATED, protocol, at, at
        if protocol == HOP_BY_HOP and not first:
            # RFC 8200 4.1: hop-by-hop options "is restricted to appear immediately after an IPv6 header only"
            return BAD_NEXT_HEADER, protocol, at, where
        first = False
        if protocol == FRAGMENT:
            return OK, FRAGMENT, at, where
        headers -= 1
        if headers < 0:
            return IGNORED, protocol, at, at
        following = at + (buf[at + 1] + 1) * 8
        if following > end:
            return TRUNCATED, protocol, at, at
        if protocol == ROUTING:
            # RFC 8200 4.4: an unrecognized type with Segments Left of zero is ignored; otherwise discard.
            # Type 0 is treated as unrecognized (RFC 5095 3).
            if buf[at + 3]:
                return BAD_HEADER, protocol, at, at + 2
        else:
            status, option, options = _options(buf, at + 2, following, options)
            if status:
                return status, protocol, at, option
        where = at
        protocol = buf[at]
        at = following
    return OK, protocol, at, where


def last(buf: bytes, base: int, end: int) -> tuple[int, int]:
    """(protocol, offset) of what follows the extension headers, whatever these say; as far as they reach."""
    protocol, at = buf[base + 6], base + 40
    while protocol in _KNOWN and at + 8 <= end:
        length = 8 if protocol == FRAGMENT else (buf[at + 1] + 1) * 8
        protocol, at = buf[at], at + length
    return protocol, at


def _options(buf: bytes, at: int, end: int, left: int) -> tuple[int, int, int]:
    """(status, where, how many more options there may be).

    RFC 8200 4.2: the two high bits of an unknown option say what to do with the packet.
    """
    padding = 0
    while at < end:
        kind = buf[at]
        if kind and (at + 1 >= end or at + 2 + buf[at + 1] > end):
            return BAD_HEADER, at, left
        length = 2 + buf[at + 1] if kind else 1
        if kind > 1:
            left -= 1
            padding = 0
        else:  # Pad1, PadN
            padding += length
        if left < 0 or padding > _PADDING:
            return IGNORED, at, left
        if kind == 0xC2:
            return BAD_OPTION, at, left  # no jumbograms here
        if kind not in (0, 1, 5):  # the paddings, router alert
            action = kind >> 6
            if action == 1:
                return IGNORED, at, left
            if action:
                return BAD_OPTION, at, left
        at += length
    return OK, at, left
