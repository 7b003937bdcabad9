"""Packets of every kind of nonsense: random bytes, mutations of real ones, and well-formed ones that make no sense.

Knows the grammar, so that most of it gets past the first check: checksums are mostly right, lengths mostly fit, and
sequence numbers are mostly near those that the stack itself used last.
"""

from collections.abc import Callable
from random import Random
from typing import Final

import attrs

from umuxstack.testing import builders
from umuxstack.testing.decode import Seen

NEAR: Final = (-70_000, -65_536, -1461, -2, -1, 0, 1, 2, 1428, 65_535, 65_536, 70_000, 1 << 20, 1 << 31, -(1 << 31))
FLAGS: Final = (
    "S",
    "SA",
    "A",
    "A",
    "A",
    "PA",
    "PA",
    "FA",
    "FPA",
    "R",
    "RA",
    "F",
    "",
    "SF",
    "SFRPUECA",
    "UA",
    "SEC",
    "SAE",
)
WINDOWS: Final = (0, 1, 64, 1024, 65_535)
HEADER: Final = 40


@attrs.frozen
class Input:
    """One call of `Stack.receive`."""

    packet: bytes
    gso_size: int = 0
    csum_ok: bool = False


class Source:
    """Makes packets for a stack from what it is seen to send. `targets` are addresses of it, `strangers` are not."""

    def __init__(self, random: Random, targets: Callable[[], list[bytes]], peers: list[bytes], prefix: bytes) -> None:
        self.random = random
        self.targets = targets
        self.peers = peers
        self.prefix = prefix
        self.heard: list[Seen] = []  # the newest packets of the stack
        self.said: list[bytes] = []  # and of ours
        self._kinds = (
            (4, self.garbage),
            (16, self.answer),
            (16, self.mutated_answer),
            (8, self.replay),
            (24, self.segment),
            (10, self.icmp),
            (6, self.datagram),
            (8, self.fragment),
            (6, self.extended),
            (4, self.merged),
        )
        self._weights = [weight for weight, _ in self._kinds]
        self._makers = [make for _, make in self._kinds]

    def hear(self, seen: Seen) -> None:
        self.heard.append(seen)
        del self.heard[:-64]

    def next(self) -> Input:
        made = self.random.choices(self._makers, self._weights)[0]()
        made = made if isinstance(made, Input) else Input(made)
        self.said.append(made.packet)
        del self.said[:-64]
        return made

    # Who and where

    def target(self) -> bytes:
        random = self.random
        if random.random() < 0.1:
            return self.prefix[:8] + random.randbytes(8)  # nobody
        if random.random() < 0.02:
            return random.choice(
                (bytes(16), b"\xff\x02" + bytes(13) + b"\x01", bytes(15) + b"\x01", random.randbytes(16))
            )
        return random.choice(self.targets())

    def source(self) -> bytes:
        random = self.random
        if random.random() < 0.03:
            return random.choice(
                (
                    bytes(16),
                    b"\xff\x02" + bytes(13) + b"\x01",
                    bytes(15) + b"\x01",
                    *self.targets()[:3],
                    random.randbytes(16),
                )
            )
        return random.choice(self.peers)

    def real(self, want: Callable[[Seen], bool]) -> Seen | None:
        """Something that the stack has said lately."""
        if not self.heard:
            return None
        start = self.random.randrange(len(self.heard))
        return next((seen for seen in self.heard[start:] + self.heard[:start] if want(seen)), None)

    # Kinds

    def garbage(self) -> bytes:
        random = self.random
        data = random.randbytes(random.choice((0, 1, 39, 40, 41, 59, 60, 80, 200, 1500)))
        if random.random() < 0.7 and len(data) >= HEADER:
            upper = len(data) - HEADER
            data = b"\x60\0\0\0" + upper.to_bytes(2, "big") + data[6:24] + self.target() + data[40:]
            if random.random() < 0.5:
                data = data[:6] + bytes((random.choice((0, 6, 17, 43, 44, 50, 51, 58, 59, 60)),)) + data[7:]
        return data

    def answer(self) -> bytes:
        """What a peer would say to something that the stack has said."""
        seen = self.real(lambda seen: seen.is_tcp or seen.is_icmp or seen.is_udp)
        if seen is None:
            return self.segment()
        random = self.random
        if seen.is_udp:
            return builders.udp(seen.destination, seen.source, seen.dport, seen.sport, random.randbytes(20))
        if seen.is_icmp:
            if seen.icmp_type == 128:
                return builders.icmp6(seen.destination, seen.source, 129, 0, seen.icmp_value, seen.payload)
            return builders.unreachable(seen.destination, seen.raw, random.randrange(5))
        upto = seen.seq + seen.length
        times = seen.options.timestamps
        options = b"" if times is None else builders.timestamps(times[1] + random.randrange(20), times[0])
        if seen.flags.startswith("S") and "A" not in seen.flags:  # a SYN
            return self._tcp(seen, "SA", 5000, upto, builders.mss(1440) + options)
        if seen.flags.startswith("R"):
            return self._tcp(seen, "S", 77, 0, builders.mss(1440))
        payload = random.choice((b"", b"", random.randbytes(10), random.randbytes(1400)))
        flags = random.choice(("A", "A", "A", "PA", "FA"))
        return self._tcp(seen, flags, seen.ack, upto, options, payload)

    def _tcp(
        self,
        seen: Seen,
        flags: str,
        seq: int,
        ack: int,
        options: bytes = b"",
        payload: bytes = b"",
        window: int = 65535,
    ) -> bytes:
        return builders.tcp(
            seen.destination, seen.source, seen.dport, seen.sport, flags, seq, ack, window, options, payload
        )

    def segment(self) -> bytes:
        """A well-formed segment with any flags, numbers and options, for some session or for a door."""
        random = self.random
        seen = self.real(lambda seen: seen.is_tcp) if random.random() < 0.8 else None
        flags = random.choice(FLAGS)
        payload = random.randbytes(random.choice((0, 0, 0, 1, 3, 100, 1400)))
        if seen is None:
            source, target = self.source(), self.target()
            sport, dport = random.choice((0, 1, 40_000, random.randrange(65536))), random.choice((0, 1, 53, 80, 81))
            seq, ack = random.randrange(1 << 32), random.randrange(1 << 32)
        else:
            source, target, sport, dport = seen.destination, seen.source, seen.dport, seen.sport
            seq, ack = seen.ack + self._near(), seen.seq + seen.length + self._near()
            if random.random() < 0.1:
                source = self.source()
            if random.random() < 0.1:
                sport = random.randrange(65536)
        return builders.tcp(
            source, target, sport, dport, flags, seq, ack, random.choice(WINDOWS), self.options(seen), payload,
            urgent=random.choice((0, 0, 1, 65_535)),
            offset=random.choice((4, 5, 8, 15)) if random.random() < 0.03 else None,
            reserved=random.randrange(16) if random.random() < 0.1 else 0,
            checksum=random.randrange(65536) if random.random() < 0.05 else None,
            traffic_class=random.choice((0, 0, 1, 2, 3)),
        )  # fmt: skip

    def _near(self) -> int:
        return 0 if self.random.random() < 0.5 else self.random.choice(NEAR)

    def options(self, seen: Seen | None) -> bytes:
        """Up to 40 bytes of options; some lie about their length."""
        random = self.random
        times = seen.options.timestamps if seen is not None else None
        found = b""
        if times is not None and random.random() < 0.8:
            found = builders.timestamps(times[1] + random.choice((0, 1, 50, -1, 1 << 31)), times[0] + self._near())
        while len(found) < 40 and random.random() < 0.4:
            edge = (seen.seq if seen is not None else random.randrange(1 << 32)) + self._near()
            found += random.choice(
                (
                    b"\x01",
                    b"\x00",
                    builders.mss(random.choice((0, 1, 64, 536, 1440, 9000, 65_535))),
                    builders.window_scale(random.choice((0, 7, 14, 15, 255))),
                    builders.sack_permitted(),
                    builders.sack((edge, edge + random.choice((1, 1428, 100_000, -5)))),
                    builders.sack((edge, edge + 10), (edge + 20, edge + 30), (edge + 5, edge + 25)),
                    builders.timestamps(random.randrange(1 << 32), random.randrange(1 << 32)),
                    bytes((random.randrange(256), random.randrange(256))),
                    bytes((8, 10, 1)),
                    bytes((random.randrange(256), 0)),
                )
            )
        return found[:40]

    def icmp(self) -> bytes:
        """Echo and its replies, errors about what was said, was not, or was said otherwise; and what no host sends."""
        random = self.random
        kind = random.choice(
            (1, 1, 1, 2, 2, 3, 4, 0, 5, 100, 127, 128, 128, 129, 129, 130, 133, 134, 135, 136, 137, 143, 255)
        )
        if kind >= 128:
            value = random.choice((1 << 16 | 1, 1 << 16 | 2, random.randrange(1 << 32)))
            return builders.icmp6(self.source(), self.target(), kind, random.randrange(3), value, random.randbytes(20))
        seen = self.real(lambda seen: True)
        quoted = seen.raw if seen is not None else builders.tcp(self.target(), self.source())
        if random.random() < 0.5:
            quoted = self._damaged(quoted)
        quoted = quoted[: random.choice((0, 8, 39, 40, 43, 44, 48, 60, 1232, 1232, 1232))]
        value = random.choice((0, 6, 40, 1279, 1280, 1300, 1499, 65_535, random.randrange(1 << 32)))
        towards = quoted[8:24] if len(quoted) >= 24 and random.random() < 0.9 else self.target()
        return builders.icmp6(self.source(), towards, kind, random.randrange(8), value, quoted)

    def datagram(self) -> bytes:
        random = self.random
        data = random.randbytes(random.choice((0, 1, 20, 1400)))
        length = random.choice((0, 7, 8, 65_535)) if random.random() < 0.1 else None
        given = random.choice((0, 1)) if random.random() < 0.1 else None
        ports = random.choice((1, 53, 9999)), random.choice((1, 53, 53, 80))
        return builders.udp(self.source(), self.target(), *ports, data, length=length, checksum=given)

    def mutated_answer(self) -> bytes:
        return self._damaged(self.answer())

    def replay(self) -> bytes:
        """Something of ours again, or something of theirs thrown back."""
        random = self.random
        if self.said and random.random() < 0.7:
            packet = random.choice(self.said)
        else:
            packet = self.answer()
        return self._damaged(packet) if random.random() < 0.3 else packet

    def _damaged(self, packet: bytes) -> bytes:
        """A few bytes changed, cut or added; the checksum is mostly made right again."""
        random = self.random
        data = bytearray(packet)
        for _ in range(random.choice((1, 1, 2, 5))):
            if not data:
                break
            how = random.random()
            at = random.randrange(len(data))
            if len(data) > HEADER and random.random() < 0.7:
                at = random.randrange(HEADER, len(data))
            if how < 0.5:
                data[at] ^= 1 << random.randrange(8)
            elif how < 0.8:
                data[at] = random.choice((0, 1, 0x7F, 0x80, 0xFF))
            elif how < 0.9:
                del data[at:]
            else:
                data[at:at] = random.randbytes(random.choice((1, 8, 100)))
        if len(data) >= HEADER and random.random() < 0.8:
            data[4:6] = min(len(data) - HEADER, 65535).to_bytes(2, "big")
        return repaired(bytes(data)) if random.random() < 0.85 else bytes(data)

    def _whole(self) -> bytes:
        """Something without extension headers."""
        return self.random.choice((self.answer, self.segment, self.datagram, self.icmp))()

    def fragment(self) -> bytes:
        random = self.random
        packet = self._whole()
        identification = random.randrange(4)
        pieces = builders.fragments(packet, random.choice((8, 16, 64, 1232)), identification)
        if random.random() < 0.6 and len(pieces) <= 8:
            self.said += pieces  # the others may follow by `replay`
            return random.choice(pieces)
        offset = random.choice((0, 8, 16, 1232, 65_528))
        return builders.fragment(
            packet, random.randbytes(random.choice((0, 1, 8, 16, 1000))), offset, random.random() < 0.5, identification
        )

    def extended(self) -> bytes:
        """Behind extension headers, of which some ask for an answer or are not known."""
        random = self.random
        packet = self._whole()
        choice = (
            builders.hop_by_hop(),
            builders.destination_options(),
            builders.destination_options(builders.option(random.choice((5, 0x1E, 0x5E, 0x9E, 0xDE)), b"abc")),
            builders.hop_by_hop(builders.option(random.choice((0x3E, 0x7E, 0xBE, 0xFE)))),
            builders.routing(random.choice((0, 2, 3, 4)), random.choice((0, 0, 1, 255))),
            builders.fragment_header(0, False, 9),
            (random.choice((50, 51, 135, 139, 253)), random.randbytes(7)),
            (60, bytes((255,)) + bytes(6)),
        )
        extensions = [random.choice(choice) for _ in range(random.choice((1, 1, 2, 3)))]
        return builders.ipv6(packet[8:24], packet[24:40], packet[6], packet[HEADER:], extensions=extensions)

    def merged(self) -> Input:
        """A super-segment as a link with offload hands it up: many segments in one, its checksum vouched for."""
        random = self.random
        seen = self.real(lambda seen: seen.is_tcp and "A" in seen.flags)
        if seen is None:
            return Input(self.segment(), csum_ok=True)
        times = seen.options.timestamps
        options = builders.timestamps(times[1] + 1, times[0]) if times is not None else b""
        payload = random.randbytes(random.choice((2857, 14_280, 60_000)))
        packet = self._tcp(seen, "A", seen.ack + self._near(), seen.seq + seen.length, options, payload)
        return Input(packet, random.choice((1, 536, 1428, 1440)), True)


def repaired(packet: bytes) -> bytes:
    """The same with a right transport checksum, if it is a plain segment, datagram or ICMPv6 message."""
    if len(packet) < HEADER:
        return packet
    at = {6: 16, 17: 6, 58: 2}.get(packet[6])
    upper = packet[HEADER : HEADER + int.from_bytes(packet[4:6], "big")]
    if at is None or len(upper) < at + 2:
        return packet
    zeroed = upper[:at] + b"\0\0" + upper[at + 2 :]
    value = builders.checksum(packet[8:24], packet[24:40], packet[6], zeroed)
    if not value and packet[6] == 17:
        value = 0xFFFF
    return packet[:HEADER] + upper[:at] + value.to_bytes(2, "big") + upper[at + 2 :] + packet[HEADER + len(upper) :]
