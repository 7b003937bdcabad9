"""TCP options (RFC 9293 3.1, 2018, 7323): parsing on the cold path, building.

A session's ordinary segment carries a timestamp alone in a fixed shape, which
the fast path recognises by one comparison; everything else comes here.
Invariant: no bytes make `parse` raise. A malformed length ends the list, as RFC 9293 MUST-7 asks for care.
"""

# RFC 9293 appendix B: MUST-4, MUST-5, MUST-14, MUST-64, MUST-68, MUST-69; UM-35.g, UM-35.h, UM-35.r

from struct import Struct
from typing import Final

END: Final = 0
NOP: Final = 1
MSS: Final = 2
WINDOW_SCALE: Final = 3
SACK_PERMITTED: Final = 4
SACK: Final = 5
TIMESTAMP: Final = 8
FAST_OPEN: Final = 34
ACCURATE_ECN_0: Final = 172  # RFC 9768 3.2.3: ECT(0), CE, ECT(1)
ACCURATE_ECN_1: Final = 174  # ECT(1), CE, ECT(0)
EXPERIMENTAL: Final = 254
FAST_OPEN_ID: Final = b"\xf9\x89"  # RFC 6994: whose experiment it is; before it had a kind of its own

_TWO: Final = Struct(">II")
_THREE: Final = Struct(">III")
_FIVE: Final = Struct(">IIIII")
_TIMESTAMP_ALONE: Final = NOP << 24 | NOP << 16 | TIMESTAMP << 8 | 10
_MSS_HEAD: Final = MSS << 8 | 4
_SACK_AND_TIMESTAMP: Final = SACK_PERMITTED << 24 | 2 << 16 | TIMESTAMP << 8 | 10
_SCALE_HEAD: Final = NOP << 16 | WINDOW_SCALE << 8 | 3


class Options:
    """What a segment's options say. `mss` 0, `window_scale` -1, `sack` empty, `timestamp` False, `cookie` None: not
    there."""

    __slots__ = (
        "accurate",
        "cookie",
        "ecn",
        "experimental",
        "mss",
        "sack",
        "sack_permitted",
        "timestamp",
        "tsecr",
        "tsval",
        "window_scale",
    )

    def __init__(self) -> None:
        self.mss = 0
        self.window_scale = -1
        self.sack_permitted = False
        self.sack: list[tuple[int, int]] = []
        self.timestamp = False
        self.tsval = 0
        self.tsecr = 0
        self.cookie: bytes | None = None  # of TCP Fast Open
        self.accurate: tuple[int, int, int] | None = None  # RFC 9768: ECT(0), CE, ECT(1); -1: not said
        self.ecn = 0  # what the IP header said: of a SYN the door looks
        self.experimental = False  # it came in the form that the experiment had (RFC 7413 4.1.1)


def parse(buf: bytes, start: int, end: int) -> Options:
    """Options in `buf[start:end]`. Unknown kinds are skipped (MUST-6), wrong lengths of known kinds ignored."""
    options = Options()
    size = end - start
    if size == 12:  # the shapes that nearly all segments have (RFC 7323 appendix A), and Linux's SYN
        head, tsval, tsecr = _THREE.unpack_from(buf, start)
        if head == _TIMESTAMP_ALONE:
            options.timestamp = True
            options.tsval, options.tsecr = tsval, tsecr
            return options
    elif size == 20:
        first, second, tsval, tsecr, last = _FIVE.unpack_from(buf, start)
        if first >> 16 == _MSS_HEAD and second == _SACK_AND_TIMESTAMP and last >> 8 == _SCALE_HEAD:
            options.mss = first & 0xFFFF
            options.sack_permitted = options.timestamp = True
            options.tsval, options.tsecr = tsval, tsecr
            scale = last & 0xFF
            options.window_scale = scale if scale < 14 else 14
            return options
    at = start
    while at < end:
        kind = buf[at]
        if kind == END:
            break
        if kind == NOP:
            at += 1
            continue
        if at + 1 >= end:
            break
        length = buf[at + 1]
        if length < 2 or at + length > end:
            break
        if kind == MSS and length == 4:
            options.mss = buf[at + 2] << 8 | buf[at + 3]
        elif kind == WINDOW_SCALE and length == 3:
            # RFC 7323 2.3: "If a Window Scale option is received with a shift.cnt value larger than 14,
            # the TCP SHOULD log the error but MUST use 14 instead of the specified value."
            options.window_scale = min(buf[at + 2], 14)
        elif kind == SACK_PERMITTED and length == 2:
            options.sack_permitted = True
        elif kind == TIMESTAMP and length == 10:
            options.timestamp = True
            options.tsval, options.tsecr = _TWO.unpack_from(buf, at + 2)
        elif kind == FAST_OPEN:
            options.cookie = buf[at + 2 : at + length]
        elif kind in (ACCURATE_ECN_0, ACCURATE_ECN_1) and length in (2, 5, 8, 11):
            said = [int.from_bytes(buf[field : field + 3], "big") for field in range(at + 2, at + length, 3)]
            first, second, third = said + [-1] * (3 - len(said))
            options.accurate = (first, second, third) if kind == ACCURATE_ECN_0 else (third, second, first)
        elif kind == EXPERIMENTAL and length >= 4 and buf[at + 2 : at + 4] == FAST_OPEN_ID:
            options.cookie = buf[at + 4 : at + length]
            options.experimental = True
        elif kind == SACK and length >= 10 and (length - 2) % 8 == 0:
            options.sack = [_TWO.unpack_from(buf, block) for block in range(at + 2, at + length, 8)]
        at += length
    return options


def timestamp(tsval: int, tsecr: int) -> bytes:
    """Twelve bytes, aligned as RFC 7323 appendix A recommends."""
    return b"\x01\x01\x08\x0a" + _TWO.pack(tsval, tsecr)


def sack(blocks: list[tuple[int, int]]) -> bytes:
    """SACK blocks (wire values) with two NOPs ahead: a multiple of four bytes."""
    return bytes((NOP, NOP, SACK, 2 + 8 * len(blocks))) + b"".join(_TWO.pack(*block) for block in blocks)


def syn(
    mss: int,
    *,
    window_scale: int,
    sack_permitted: bool,
    timestamps: tuple[int, int] | None,
    bsd: bool = False,
    cookie: bytes | None = None,
    experimental: bool = False,
    accurate: bytes = b"",
) -> bytes:
    """A SYN's options; `window_scale` -1, `mss` 0 and `cookie` None leave that one out. Ordered as Linux or BSD does.

    `cookie`: of TCP Fast Open; one without octets asks for one (RFC 7413 4.1.1). `accurate`: RFC 9768's, padded.
    """
    if mss and sack_permitted and timestamps and window_scale >= 0 and not bsd and cookie is None and not accurate:
        return _FIVE.pack(
            _MSS_HEAD << 16 | mss, _SACK_AND_TIMESTAMP, timestamps[0], timestamps[1], _SCALE_HEAD << 8 | window_scale
        )
    fast_open = b""
    if cookie is not None:
        cookie = FAST_OPEN_ID + cookie if experimental else cookie
        fast_open = bytes((EXPERIMENTAL if experimental else FAST_OPEN, 2 + len(cookie))) + cookie
    if bsd:
        out = _syn_of_bsd(mss, window_scale, sack_permitted, timestamps) + fast_open
        return out + bytes(-len(out) % 4)
    parts = [] if not mss else [bytes((MSS, 4)) + mss.to_bytes(2, "big")]
    if sack_permitted and timestamps:
        parts.append(bytes((SACK_PERMITTED, 2, TIMESTAMP, 10)) + _TWO.pack(*timestamps))
    elif timestamps:
        parts.append(timestamp(*timestamps))
    parts.append(accurate)
    if sack_permitted and not timestamps:
        parts.append(bytes((NOP, NOP, SACK_PERMITTED, 2)))
    if window_scale >= 0:
        parts.append(bytes((NOP, WINDOW_SCALE, 3, window_scale)))
    if fast_open:
        parts.append(fast_open + bytes((NOP,)) * (-len(fast_open) % 4))
    return b"".join(parts)


def _syn_of_bsd(mss: int, window_scale: int, sack_permitted: bool, timestamps: tuple[int, int] | None) -> bytes:
    """MSS, window scale, SACK, timestamps, each with NOPs before it as it needs for its alignment."""
    out = b"" if not mss else bytes((MSS, 4)) + mss.to_bytes(2, "big")
    if window_scale >= 0:
        out += bytes((NOP, WINDOW_SCALE, 3, window_scale))
    if sack_permitted:
        out += bytes((SACK_PERMITTED, 2))
    if timestamps:
        out += bytes((NOP,)) * (-(len(out) + 2) % 4) + bytes((TIMESTAMP, 10)) + _TWO.pack(*timestamps)
    return out
