"""Counters: one integer per reason to drop a packet, and per thing worth counting.

Lists indexed by small integers on the hot path; names only in `snapshot`.
"""

from typing import Final

from umuxstack.core.errors import Drop

FIELDS: Final = (
    "bytes_in",
    "bytes_out",
    "drops",
    "duplicate_acks",
    "fast_retransmits",
    "packets_in",
    "packets_out",
    "retransmitted_segments",
    "rto_expirations",
    "segments_in",
    "segments_out",
    "spurious_retransmits",
    "tlp_probes",
)


class Counters:
    """What a stack counts. Plain integers: adding one is all the hot path does."""

    __slots__ = FIELDS

    def __init__(self) -> None:
        self.drops = [0] * len(Drop)
        self.packets_in = 0
        self.packets_out = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.segments_in = 0
        self.segments_out = 0
        self.retransmitted_segments = 0
        self.fast_retransmits = 0
        self.rto_expirations = 0
        self.tlp_probes = 0
        self.spurious_retransmits = 0
        self.duplicate_acks = 0

    def snapshot(self) -> dict[str, int]:
        """Every counter by name; drops as `drop.<reason>`, in lower case."""
        values = {name: getattr(self, name) for name in FIELDS if name != "drops"}
        values.update({f"drop.{reason.name.lower()}": self.drops[reason] for reason in Drop})
        return values
