"""Initial sequence numbers (RFC 6528) over what a session is here: the pair.

ISN = M + F(pair, ports, secret). The ports are constants for unified sessions and
tell legacy ones apart. For an EA the hash alone would do: no pair ever comes back.
"""

# RFC 9293 appendix B: MUST-8, MUST-9, SHLD-1; UM-35.o

from umuxstack.core.entropy import Entropy
from umuxstack.core.tcp.seq import MASK
from umuxstack.core.units import Micros


def initial_sequence_number(entropy: Entropy, pair: bytes, ports: int, now: Micros) -> int:
    """32 bits. M is RFC 9293 3.4.1's clock: one tick in 4 microseconds."""
    return (now // 4 + entropy.keyed_hash(pair + ports.to_bytes(4, "big"), 4)) & MASK
