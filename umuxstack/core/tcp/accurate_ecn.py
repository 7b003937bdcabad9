"""Accurate ECN (RFC 9768), what one session knows of it: how many marked packets and octets came, and how many went.

Three flags of the header count packets, an option counts octets. Knows no session and sends nothing. Invariant: what
the peer has told never runs ahead of what was delivered to it.
"""

from typing import Final

from umuxstack.core.wire.tcp_options import ACCURATE_ECN_1, NOP

NOT_ECT: Final = 0  # of the IP header's ECN field (RFC 3168 5)
ECT1: Final = 1
ECT0: Final = 2
CE: Final = 3

INITIAL: Final = 5  # of both packet counters (RFC 9768 3.2.2), so that a flag that was cleared on the way is seen
RESERVED: Final = 12  # octets of a segment that the option takes
ON: Final = 1 << 16  # in `Tcb.ce_seen`: what is said of marks is said accurately, and the counter may stand at 0
_USUAL: Final = 64  # fractions of a packet
_SAFE: Final = 7  # packets: of more the three bits may have gone round
_MANY: Final = 4 * _USUAL

# RFC 9768 table 2: how the ECN field of a SYN, or of a SYN-ACK, is told to its sender, in three bits.
HANDSHAKE: Final = (2, 3, 4, 6)
ANSWERS: Final = (2, 3, 4, 5, 6)  # of a SYN-ACK that knows this protocol; 5 is reserved, and taken as one (3.1.2)
_FEEDBACK_OF: Final = {2: NOT_ECT, 3: ECT1, 4: ECT0, 6: CE}


def flags_of(ace: int) -> int:
    """The three bits as flags of the header: AE, CWR, ECE."""
    return (ace & 4) << 6 | (ace & 3) << 6


def ace_of(buf: bytes, offset: int) -> int:
    """The three bits of the TCP header at `offset`."""
    return (buf[offset + 12] & 1) << 2 | buf[offset + 13] >> 6


class AccurateEcn:
    """One session's counters. `r_…` are of what came, `s_…` of what the peer says came of ours."""

    __slots__ = (
        "ect",
        "handshake",
        "offered",
        "option",
        "over",
        "r_bytes",
        "r_packets",
        "repeats",
        "s_bytes",
        "s_packets",
        "settled",
        "syn_acks",
        "usual",
    )

    def __init__(self, field: int) -> None:
        """`field`: the ECN field of the peer's SYN or SYN-ACK."""
        self.r_packets = INITIAL
        self.r_bytes = [0, 0, 0, 0]  # by the ECN field
        self.s_packets = INITIAL
        self.s_bytes = [0, 0, 0, 0]
        self.ect = True  # what we send may be marked: nothing on the path was seen to mangle it
        self.option = False  # the peer's has come: options get through
        self.handshake = HANDSHAKE[field]  # what the next segment says; -1: the counter
        self.over = False  # what answers for the session in TIME-WAIT counts no more
        self.settled = False  # the segment that is looked at told of the handshake, not of a count
        self.repeats = 0  # how often in a row something came again though its ACK carried the option
        self.offered = True  # by our last SYN-ACK
        self.syn_acks = 0  # how often our SYN-ACK went out
        self.usual = 0  # how many packets an acknowledgement stands for; 0: not known

    def feedback(self) -> int:
        """Flags for the next segment."""
        if self.over:
            return 0
        if self.handshake >= 0:
            ace, self.handshake = self.handshake, -1
            return flags_of(ace)
        return flags_of(self.r_packets & 7)

    def came(self, field: int, size: int, packets: int) -> bool:
        """Counts a segment of `size` octets; whether it was marked."""
        self.r_bytes[field] += size
        if field != CE:
            return False
        self.r_packets += packets
        return True

    def option_bytes(self) -> bytes:
        """RFC 9768 3.2.3, order 1: all three counters, 24 bits each, of which the ECT ones begin at 1."""
        counters = (self.r_bytes[ECT1] + 1, self.r_bytes[CE], self.r_bytes[ECT0] + 1)
        told = b"".join((counter & 0xFFFFFF).to_bytes(3, "big") for counter in counters)
        return bytes((ACCURATE_ECN_1, 11)) + told + bytes((NOP,))

    def take_option(self, counters: tuple[int, int, int], delivered: int) -> int:
        """What the peer's option says, -1 for a counter that it leaves out; how many octets more were marked."""
        grown = 0
        for field, value in ((ECT0, counters[0]), (CE, counters[1]), (ECT1, counters[2])):
            if value < 0:
                continue
            known = self.s_bytes[field]
            more = (value - (field != CE) - known) & 0xFFFFFF
            if more > delivered:
                continue  # more than ever arrived: an older option, or a mangled one
            self.s_bytes[field] = known + more
            if field == CE:
                grown = more
        return grown

    def marks(self, ace: int, packets: int, marked_bytes: int, mss: int) -> int:
        """How many more of our packets were marked, when `packets` were delivered; `marked_bytes` -1: nobody says. RFC
        9768 A.2: of many acknowledged at once the three bits may have gone round."""
        if packets:
            now = packets * _USUAL
            self.usual += (now - self.usual) // 8 if self.usual else now
        grown = (ace - self.s_packets) & 7
        if packets > _SAFE:
            most = packets - ((packets - grown) & 7)
            if marked_bytes > grown * mss or (marked_bytes < 0 and self.usual <= _MANY):
                grown = most
        self.s_packets += grown
        return grown

    def take_handshake(self, ace: int, validates: bool) -> None:
        """What the peer says of the ECN field of our SYN or SYN-ACK, which went out unmarked (RFC 9768 3.2.2.3).
        Another value, or none, means that something on the way changes such bits: marks would say nothing."""
        said = _FEEDBACK_OF.get(ace, NOT_ECT)
        if validates and (not ace or said != NOT_ECT):
            self.ect = False
        if said == CE and not validates:
            self.s_packets += 1

    def hears_option(self, wanted: bool) -> None:
        """The peer's option has come (RFC 9768 3.2.3.2): so does ours get through, from now on with every segment."""
        if self.repeats < 2:
            self.option = wanted

    def repeated(self, twice: bool) -> None:
        """Data came, `twice` or new. If ACKs with the option never seem to arrive, ACKs go without (3.2.3.2.5)."""
        if self.repeats < 2:
            self.repeats = self.repeats + 1 if twice and self.option else 0
        if self.repeats > 1:
            self.option = False
