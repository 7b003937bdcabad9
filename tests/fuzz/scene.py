"""One stack with something of everything, to be thrown at; and what the rules let it answer.

The judge knows from outside which addresses were given out, and to whom: an EA talks to one peer, an SSA to whoever has
knocked with a SYN and may. It never asks the stack who owns a packet.
"""

from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from random import Random
from typing import Any, Final

from tests.fuzz.packets import HEADER, Input, Source, repaired
from umuxstack.core.config import LinkCaps, StackConfig, TcpPolicy
from umuxstack.core.errors import LocalError
from umuxstack.core.listen.listen_0 import Listen0
from umuxstack.core.listen.listener import Listener
from umuxstack.core.network.offload import finish
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.udp.session import UdpSocket
from umuxstack.core.units import NEVER, Address, Micros, minutes, seconds
from umuxstack.testing.builders import packed
from umuxstack.testing.decode import Seen, verify
from umuxstack.testing.recording import make_stack

PREFIX: Final = packed("2001:db8:1::")
SHARED: Final = Address(packed("2001:db8:1::80"))
SERVICE: Final = Address(packed("2001:db8:1::53"))
SERVICE_UDP: Final = Address(packed("2001:db8:1::54"))
FRIEND: Final = Address(packed("2001:db8:2::1"))
OTHER: Final = Address(packed("2001:db8:3::1"))
STRANGER: Final = Address(packed("2001:db8:bad::1"))
SESSIONS: Final = 40  # at most, of our own opening
REST: Final = minutes(30)  # after which nothing may be left
TCP, UDP, ICMPV6 = 6, 17, 58

CONFIGURATIONS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"silence": False},
    {"tcp": TcpPolicy(ecn=True, congestion="newreno", keepalive=True, keepalive_idle=seconds(5))},
    {"tcp": TcpPolicy(sack=False, timestamps=False, window_scaling=False, congestion="bbr", receive_buffer=20_000)},
    {"link": LinkCaps(mtu=1280), "candidates": 2, "fixed_port": 7, "scheme": "random"},
    {"memory": 100_000},
)


class Violation(AssertionError):
    """The stack said what the rules forbid."""


class Scene:
    """A stack, applications that do as chance will have it, and packets. The same `seed`, the same everything."""

    def __init__(self, seed: str) -> None:
        self.random = random = Random(seed)
        choice = dict(random.choice(CONFIGURATIONS))
        choice.setdefault(
            "link", LinkCaps(mtu=1500, segmentation=random.random() < 0.5, checksum=random.random() < 0.5)
        )
        config = StackConfig(prefix=Address(PREFIX), shared=(SHARED,), **choice)
        self.silent = config.silence
        self.now: Micros = seconds(random.choice((1, 1000, 10_000_000)))
        self.stack = make_stack(self, config, seed.encode(), self.now)
        self.inputs = 0
        self.outputs = 0
        self._story = blake2b(digest_size=16)
        self.eas: dict[bytes, bytes] = {}  # EA -> the one peer it is for
        self.ssas: dict[bytes, tuple[bytes, ...] | None] = {}  # SSA -> who may come; None: anybody
        self.knocked: set[bytes] = set()  # pairs from which a SYN has come, as far as can be told
        self.listeners: list[Listener] = []
        self.sockets: list[UdpSocket] = []
        self.sessions: list[TcpSession] = []
        self.source = Source(random, self._targets, [FRIEND, FRIEND, FRIEND, OTHER, STRANGER], PREFIX)
        self._furnish()

    def _furnish(self) -> None:
        stack, now = self.stack, self.now
        self.listeners = [
            stack.listen(now, backlog=8),
            stack.listen(now, address=SERVICE, port=80, backlog=4),
            stack.listen(now, address=SHARED, port=80, backlog=4),
        ]
        self.sockets = [
            stack.udp(now),
            stack.udp(now, address=SERVICE_UDP, port=53),
            stack.udp(now, address=SHARED, port=53),
        ]
        for act in (self._das, self._das, self._das, self._connect, self._connect, self._send_datagram, self._ping):
            self._tried(act)
        self._flush(None)

    def _targets(self) -> list[bytes]:
        """Where packets are sent: what was given out lately, and what is always there."""
        return [SHARED, SERVICE, SERVICE_UDP, *list(self.ssas)[-8:], *list(self.eas)[-8:]]

    def _tell(self, *what: object) -> None:
        self._story.update(repr(what).encode())

    def story(self) -> str:
        """Stands for all that the stack has said until now: packets, events, readiness, deadlines, memory, counters."""
        self._tell(
            *(getattr(self.stack.counters, name) for name in ("drops", "packets_in", "packets_out", "bytes_out"))
        )
        return self._story.hexdigest()

    # Applications

    def _tried(self, act: Callable[[], None]) -> None:
        with suppress(LocalError):
            act()

    def _das(self) -> None:
        random, now = self.random, self.now
        peer, who = random.choice(((None, None), ((FRIEND, 128), (FRIEND,)), ((FRIEND, 64), (FRIEND,))))
        lifetime = random.choice((seconds(1), seconds(60), NEVER))
        if random.random() < 0.3:
            address = self.stack.das(self.sockets[0], now, peer=peer, lifetime=lifetime).lease.address
        else:
            door = self.listeners[0]
            assert isinstance(door, Listen0)
            grain = random.choice(("session", "client"))
            address = self.stack.das(door, now, peer=peer, lifetime=lifetime, grain=grain).lease.address
        self.ssas[address] = who

    def _connect(self) -> None:
        if len(self.sessions) >= SESSIONS:
            return
        random = self.random
        peer = random.choice((FRIEND, OTHER))
        source = random.choice((None, None, SHARED))
        session = self.stack.connect(peer, random.choice((1, 80)), self.now, source=source)
        self.sessions.append(session)
        if source is None:
            self.eas[session.local] = peer

    def _send_datagram(self) -> None:
        socket = self.random.choice(self.sockets)
        socket.send(self.random.randbytes(self.random.choice((0, 10, 3000))), self.now, to=(FRIEND, 9999))
        for session in socket.sessions:
            if session.local not in self.ssas:
                self.eas[session.local] = session.remote

    def _ping(self) -> None:
        session = self.stack.ping(FRIEND, self.now, source=self.random.choice((None, SHARED)))
        session.send(b"ping", self.now)
        if session.local != SHARED:
            self.eas[session.local] = FRIEND

    def _session(self) -> TcpSession | None:
        return self.random.choice(self.sessions) if self.sessions else None

    def _write(self) -> None:
        session = self._session()
        if session is not None:
            session.write(self.random.randbytes(self.random.choice((1, 1000, 50_000))), self.now)

    def _read(self) -> None:
        for session in self.sessions:
            if self.random.random() < 0.5:
                session.read(self.random.choice((1, 100, 1 << 20)), self.now)

    def _end(self) -> None:
        session = self._session()
        if session is not None:
            how = self.random.random()
            if how < 0.4:
                session.shutdown(self.now)
            else:
                (session.close if how < 0.8 else session.abort)(self.now)
                self.sessions.remove(session)

    def _accept(self) -> None:
        for listener in self.listeners:
            while (session := listener.accept()) is not None:
                self.sessions.append(session)
        for socket in self.sockets:
            while socket.receive_datagram() is not None:
                pass

    def _revoke(self) -> None:
        if self.ssas:
            self.stack.revoke(Address(self.random.choice(list(self.ssas))), self.now)

    def live(self) -> None:
        """An application, or the operator, does something; or time passes."""
        random = self.random
        acts = (
            self._das, self._connect, self._connect, self._send_datagram, self._ping, self._write, self._write,
            self._read, self._end, self._accept, self._accept, self._revoke,
        )  # fmt: skip
        self._tried(random.choice(acts))
        self._flush(None)
        duration = random.choice((0, 1000, 50_000, 300_000, seconds(2), seconds(70)))
        if random.random() < 0.002:
            duration = seconds(30 * 24 * 3600)
        self.rest(Micros(duration))

    def rest(self, duration: Micros) -> None:
        until = self.now + duration
        for _ in range(200_000):
            due = self.stack.next_deadline()
            self._tell(due)
            if due > until:
                break
            self.now = Micros(max(due, self.now))
            self.stack.advance(self.now)
            self._flush(None)
        else:
            raise Violation("its deadline does not move on")
        self.now = Micros(until)

    # Packets

    def step(self) -> None:
        """One packet, and now and then an act of an application."""
        made = self.source.next()
        self.inputs += 1
        try:
            self.throw(made)
        except Exception as error:
            error.add_note(f"packet {self.inputs}: {made.packet.hex()} gso {made.gso_size} csum_ok {made.csum_ok}")
            raise
        if self.random.random() < 0.05:
            self.live()

    def throw(self, made: Input) -> list[Seen]:
        self._note_knock(made)
        self.stack.receive(made.packet, 0, made.gso_size, made.csum_ok, self.now)
        return self._flush(made)

    def _flush(self, cause: Input | None) -> list[Seen]:
        """Takes what the stack has to say. After an input (`cause`) it must be an answer that the rules allow."""
        stack = self.stack
        said = []
        for outgoing in stack.take_output(self.now):
            self._tell(*map(bytes, outgoing[:2]), *outgoing[2:])
            for packet in finish(outgoing):
                verify(packet, mtu=stack.config.link.mtu)
                seen = Seen(packet, self.now)
                said.append(seen)
                self.source.hear(seen)
        for endpoint in stack.take_ready():
            self._tell(type(endpoint).__name__)
            if isinstance(endpoint, TcpSession) and endpoint.ended and endpoint in self.sessions:
                endpoint.close(self.now)
                self.sessions.remove(endpoint)
        self._tell(stack.take_events(), stack.memory_used())
        self.outputs += len(said)
        if cause is not None and said:
            for seen in said:
                complaint = self._complaint(cause, seen, len(said))
                if complaint:
                    raise Violation(f"{complaint}: {seen!r}\n{seen.raw.hex()}")
        if stack.memory_used() < 0:
            raise Violation("it counts its memory below nothing")
        return said

    # The judge

    def _note_knock(self, made: Input) -> None:
        packet = made.packet
        if len(packet) >= HEADER and packet[24:40] in self.ssas:
            may = self.ssas[packet[24:40]]
            first = packet[6]
            pure = first == TCP and len(packet) >= 60 and packet[53] & 0x17 == 0x02
            datagram = first == UDP
            if (may is None or packet[8:24] in may) and (pure or datagram or first not in (TCP, UDP, ICMPV6)):
                self.knocked.add(packet[8:40])

    def _complaint(self, made: Input, seen: Seen, count: int) -> str:
        """Why `seen` may not be said because of `made`; empty if it may."""
        packet = made.packet
        if len(packet) < HEADER or packet[0] >> 4 != 6:
            return "an answer to something that is no packet"
        end = HEADER + int.from_bytes(packet[4:6], "big")
        if end > len(packet):
            return "an answer to a packet whose end is missing"
        source, destination, first = packet[8:24], packet[24:40], packet[6]
        if seen.is_icmp and 133 <= seen.icmp_type <= 137:
            return "neighbour discovery on a link that has none"
        at = behind_extensions(packet[:end])
        if at and packet[at] < 128:
            return self._about_error(packet[at:end], seen)
        if source[0] == 0xFF or not any(source):
            return "an answer to a source that is nobody"
        if seen.destination != source:
            return "a packet to somebody who had no part in it"
        if seen.source != destination:
            return "an answer from another address than was spoken to"
        if destination[:8] != PREFIX[:8]:
            return "an answer for an address that is not ours"
        unheld = seen.is_icmp and not self.silent  # who says that nobody is there need not look further
        if self._plain(packet) and not made.csum_ok and repaired(packet[:end]) != packet[:end] and not unheld:
            return "an answer to a packet with a wrong checksum"
        if first == TCP and packet[53] & 0x04 and seen.is_tcp and "R" in seen.flags:
            return "RST in answer to RST"
        if destination in (SHARED, SERVICE, SERVICE_UDP):
            return ""
        if not self.silent:
            return "" if count == 1 or destination in self.eas or destination in self.ssas else "several answers"
        if destination in self.eas:
            return "" if source == self.eas[destination] else "an answer to a third party (UM-32)"
        if destination in self.ssas:
            return "" if packet[8:40] in self.knocked else "an answer where no SYN has knocked (UM-23)"
        return "an answer from an address that nobody holds (UM-31)"

    def _about_error(self, error: bytes, seen: Seen) -> str:
        """An ICMPv6 error may make us send data in smaller pieces, to the peer it is about; nothing else."""
        quoted = error[8:]
        if seen.is_icmp:
            return "an ICMPv6 message in answer to an ICMPv6 error (RFC 4443 2.4)"
        if error[0] != 2:
            return "an answer to an error that asks for none"
        if len(quoted) < HEADER or quoted[24:40] != seen.destination or quoted[8:24] != seen.source:
            return "a packet to somebody whom the error was not about"
        return ""

    @staticmethod
    def _plain(packet: bytes) -> bool:
        return packet[6] in (TCP, UDP, ICMPV6)

    # The end

    def close(self) -> None:
        """The stack is closed; a while later nothing is left of all that was thrown at it."""
        self.stack.close(self.now)
        for session in self.sessions:  # what has ended and was not read is kept for its application
            session.close(self.now)
        for socket in self.sockets:
            socket.close(self.now)
        self._flush(None)
        self.rest(REST)
        left = {name: count for name, count in self.stack.leftovers().items() if count}
        if left:
            raise Violation(f"left behind: {left}; {list(self.stack.sessions())} {list(self.stack.leases())}")


def behind_extensions(packet: bytes) -> int:
    """Where an ICMPv6 message begins, behind extension headers or none; 0 if there is none."""
    kind, at = packet[6], HEADER
    while kind in (0, 43, 60) and at + 8 <= len(packet):
        kind, at = packet[at], at + (packet[at + 1] + 1) * 8
    return at if kind == ICMPV6 and at < len(packet) else 0


def play(seed: int, number: int, packets: int) -> Scene:
    """One whole round. Whatever goes wrong says how to repeat it."""
    scene = Scene(f"{seed}/{number}")
    try:
        for _ in range(packets):
            scene.step()
        scene.close()
    except Exception as error:
        error.add_note(f"again: python -m tests.fuzz.endless --seed {seed} --round {number} --packets {packets}")
        raise
    return scene
