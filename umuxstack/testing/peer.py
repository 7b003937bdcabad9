"""A TCP at the far end of a `Wire`, played by the test: it keeps count of sequence numbers and does nothing else.

It never answers by itself. `expect` takes what comes in order into account, so
that the next `send` acknowledges it; any field may be said otherwise.
"""

from collections.abc import Callable
from typing import Any, Final

from umuxstack.testing import builders, checks
from umuxstack.testing.builders import AnyAddress, packed
from umuxstack.testing.decode import Seen
from umuxstack.testing.wire import Wire

PEER: Final = "2001:db8:2::1"
MODULUS: Final = 1 << 32


class Peer:
    """`address` and `port` are its own; `remote` and `remote_port` the stack's."""

    def __init__(
        self,
        wire: Wire,
        remote: AnyAddress,
        *,
        address: AnyAddress = PEER,
        port: int = 40000,
        remote_port: int = 1,
        iss: int = 1000,
    ) -> None:
        self.wire = wire
        self.address = packed(address)
        self.port = port
        self.remote = packed(remote)
        self.remote_port = remote_port
        self.iss = iss
        self.snd_nxt = iss
        self.irs = 0
        self.rcv_nxt = 0
        self.window = 65535  # that it offers
        self.synchronized = False

    def segment(
        self,
        flags: str | int = "A",
        payload: bytes = b"",
        *,
        seq: int | None = None,
        ack: int | None = None,
        **fields: Any,
    ) -> bytes:
        """The packet that `send` would send, not sent and not counted."""
        bits = builders.flag_bits(flags)
        fields.setdefault("window", self.window)
        return builders.tcp(
            fields.pop("address", self.address),
            self.remote,
            fields.pop("port", self.port),
            fields.pop("remote_port", self.remote_port),
            flags,
            self.snd_nxt if seq is None else seq,
            (self.rcv_nxt if bits & 0x10 else 0) if ack is None else ack,
            payload=payload,
            **fields,
        )

    def send(self, flags: str | int = "A", payload: bytes = b"", **fields: Any) -> bytes:
        """Sends a segment; without `seq` it is the next in order, and is counted. Returns the packet."""
        packet = self.segment(flags, payload, **fields)
        if fields.get("seq") is None:
            bits = builders.flag_bits(flags)
            self.snd_nxt = (self.snd_nxt + len(payload) + (bits & 1) + (bits >> 1 & 1)) % MODULUS
        self.wire.send(packet)
        return packet

    def expect(
        self,
        flags: str | Callable[[str], bool] | None = None,
        payload: bytes | None = None,
        *more: checks.Check,
        within: int = 0,
        **fields: Any,
    ) -> Seen:
        """The stack's next packet: a segment to us with these fields (see `checks.tcp`)."""
        seen = self.wire.expect(
            checks.sent_from(self.remote),
            checks.sent_to(self.address),
            checks.tcp(flags, payload=payload, sport=self.remote_port, dport=self.port, **fields),
            *more,
            within=within,
        )
        if "S" in seen.flags:
            self.irs = self.rcv_nxt = seen.seq
            self.synchronized = True
        if self.synchronized and seen.seq == self.rcv_nxt:
            self.rcv_nxt = (seen.seq + seen.length) % MODULUS
        return seen

    def connect(self, options: bytes = b"", **fields: Any) -> Seen:
        """The whole handshake with a waiting stack. Returns its SYN-ACK."""
        self.send("S", options=options or builders.mss(1440), **fields)
        answer = self.expect("SA", ack=self.snd_nxt)
        self.send("A")
        return answer

    def accept(self, options: bytes = b"", **fields: Any) -> Seen:
        """The stack is connecting to us: takes its SYN and completes the handshake. Returns the SYN."""
        syn = self.expect("S")
        self.send("SA", options=options or builders.mss(1440), **fields)
        self.expect("A", b"", ack=self.snd_nxt)
        return syn
