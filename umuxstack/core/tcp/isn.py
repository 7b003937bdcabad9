"""Initial sequence numbers (RFC 6528) over what a session is here: the pair.

ISN = M + F(pair, ports, secret). The ports are constants for unified sessions and
tell legacy ones apart. For an EA the hash alone would do: no pair ever comes back.
The same hash has bits left for what else must look random and stay with a session.
"""

# RFC 9293 appendix B: MUST-8, MUST-9, SHLD-1; UM-35.o

from umuxstack.core.entropy import Entropy
from umuxstack.core.tcp.seq import MASK
from umuxstack.core.units import Micros


def session_secret(entropy: Entropy, pair: bytes, ports: int) -> int:
    """96 bits, the same for the same pair and `ports` (ours, theirs) as long as the stack lives."""
    return entropy.keyed_hash(pair + ports.to_bytes(4, "big"), 12)


def initial_sequence_number(secret: int, now: Micros) -> int:
    """32 bits. M is RFC 9293 3.4.1's clock: one tick in 4 microseconds."""
    return (now // 4 + (secret >> 64)) & MASK


def timestamp_offset(secret: int) -> int:
    """Where the timestamp clock starts (RFC 7323 5.4): 32 bits."""
    return secret & MASK


def flow_label(secret: int) -> int:
    """20 bits (RFC 6437 3)."""
    return secret >> 32 & 0xFFFFF
