"""UM-3: whatever a stack went through, every packet has one owner or none, and demultiplexing finds that one.

The model below never looks into the stack's tables. It keeps what was opened and what befell it since, and says by
that alone who accepts a packet between two addresses.
"""

from collections.abc import Callable, Iterator
from typing import Final

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.scene import OTHER, SHARED, STRANGER, UNHELD, address, das, end, listen_0, service, udp_das
from umuxstack.core.echo.session import EchoSession
from umuxstack.core.errors import Drop, LocalError
from umuxstack.core.listen.das import UdpDoor
from umuxstack.core.listen.listen_u import ListenU
from umuxstack.core.listen.service import ServiceListener
from umuxstack.core.network.endpoint import Receiver
from umuxstack.core.tcp import state as tcp_state
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.udp.session import UdpSession
from umuxstack.core.units import Address, Micros, seconds
from umuxstack.testing import builders
from umuxstack.testing.builders import packed
from umuxstack.testing.peer import PEER, Peer
from umuxstack.testing.wire import Wire

PEERS: Final = (PEER, OTHER, "2001:db8:2::3")
SERVICES: Final = ("2001:db8:1::53", "2001:db8:1::54")
SOURCES: Final = ("2001:db8:1::a1", "2001:db8:1::a2")
GROUP: Final = "ff05::77"
RECORD: Final = seconds(60)  # TIME-WAIT and RETIRING
PATIENCE: Final = seconds(63)  # a SYN-ACK and five more of it: 1 + 2 + 4 + 8 + 16 + 32 s
SCTP: Final = 132  # a protocol that no owner knows


@attrs.define(eq=False)
class HalfOpen:
    """A SYN that was answered; nobody has completed it."""

    peer: Peer
    door: ListenU | ServiceListener
    until: Micros


class Model:
    """A stack, and what its user and its peers know about it."""

    def __init__(self, seed: int) -> None:
        self.wire = wire = Wire(seed=seed, shared=(address(SHARED),), candidates=3)
        self.stack = wire.stack
        self.tcp = listen_0(wire, name="tcp")
        self.udp = self.stack.udp(wire.now, name="udp")
        self.stack.listen(wire.now, address=address(SHARED), port=80)
        self.services = [service(wire, where) for where in SERVICES]
        self.doors: list[ListenU] = []
        self.udp_doors: list[UdpDoor] = []
        self.half_open: list[HalfOpen] = []
        self.sessions: list[tuple[TcpSession, Peer]] = []
        self.datagrams: list[UdpSession] = []
        self.pings: list[EchoSession] = []
        self.records: list[tuple[bytes, Micros]] = []  # (pair, until): of sessions that ended a while ago
        self.ports = iter(range(40000, 60000))
        self.chosen: set[str] = set()  # sources that sessions were opened from

    # What can happen; `n` picks one of what there is

    def connect(self, n: int) -> None:
        session = self.stack.connect(address(PEERS[n % 3]), 80, self.wire.now)
        peer = Peer(self.wire, session.local, address=PEERS[n % 3], port=80)
        if n % 2:
            peer.accept()
        self.sessions.append((session, peer))

    def connect_from(self, n: int) -> None:
        """From a source of the application's own choice, which sessions with different peers share (UM-16)."""
        where = SOURCES[n // 3 % 2]
        living = [s.pair for s, _ in self.sessions if not s.ended]
        held = [pair for pair in (*living, *self.kept()) if pair[16:] == packed(where)]
        try:
            session = self.stack.connect(address(PEERS[n % 3]), 80, self.wire.now, source=address(where))
        except LocalError:
            assert held or where in self.chosen, "nobody has this address, and nobody had it"
            return
        assert session.pair not in held
        assert held or where not in self.chosen, "it has died with its sessions (UM-12)"
        self.chosen.add(where)
        peer = Peer(self.wire, session.local, address=PEERS[n % 3], port=80)
        if n % 2:
            peer.accept()
        self.wire.take()
        self.sessions.append((session, peer))

    def kept(self) -> list[bytes]:
        return [pair for pair, until in self.records if until > self.wire.now]

    def open_door(self, n: int) -> None:
        grain = "client" if n % 3 == 0 else "session"
        allowed = (address(PEER), 128) if n % 5 == 0 else None
        self.doors.append(das(self.wire, self.tcp, grain=grain, peer=allowed))

    def open_udp_door(self, n: int) -> None:
        self.udp_doors.append(udp_das(self.wire, self.udp))

    def knock(self, n: int) -> None:
        """A SYN to a waiting SSA, or to a service."""
        doors: list[ListenU | ServiceListener] = [
            *self.services,
            *(door for door in self.doors if door.state_name != "SPENT"),
        ]
        door = doors[n % len(doors)]
        where = PEERS[n // 7 % 3]
        allowed = getattr(door, "peer", None)
        pair = packed(where) + door.lease.address
        if any(pair == other for other, _ in self.records):
            return  # who takes a SYN there is another rule's question (UM-33)
        before = [half for half in self.half_open if half.peer.address + half.peer.remote == pair]
        living = [s for s, _ in self.sessions if s.pair == pair and not s.ended]
        peer = Peer(self.wire, door.lease.address, address=where, port=next(self.ports))
        peer.send("S")
        answers = [seen for seen in self.wire.take() if seen.flags == "SA"]
        if allowed is not None and not _within(packed(where), allowed):
            assert not answers
            return
        assert len(answers) == 1, (door, living, before)
        peer.irs, peer.rcv_nxt = answers[0].seq, answers[0].seq + 1 & 0xFFFFFFFF
        if isinstance(door, ListenU):
            if before and not living and door.grain == "session":  # UM-33: the newer SYN takes the candidate's place
                self.half_open.remove(before[-1])
            racing = [half for half in self.half_open if half.door is door]
            if len(racing) >= 3:
                self.half_open.remove(racing[0])
        self.half_open.append(HalfOpen(peer, door, Micros(self.wire.now + PATIENCE)))

    def complete(self, n: int) -> None:
        if not self.half_open:
            return
        half = self.half_open.pop(n % len(self.half_open))
        half.peer.send("A")
        accepted = (self.tcp if isinstance(half.door, ListenU) else half.door).accept()
        assert accepted is not None
        self.sessions.append((accepted, half.peer))
        if isinstance(half.door, ListenU) and half.door.grain == "session":
            self.half_open = [other for other in self.half_open if other.door is not half.door]
        elif isinstance(half.door, ListenU):
            keep = half.peer.address
            self.half_open = [o for o in self.half_open if o.door is not half.door or o.peer.address == keep]

    def talk(self, n: int) -> None:
        """A UDP session begins: by sending, to a peer or to a group, or at a waiting SSA."""
        waiting = [door for door in self.udp_doors if door.state_name == "WAITING"]
        if n % 3 == 0 and waiting:
            door = waiting[n % len(waiting)]
            self.wire.send(builders.udp(PEERS[n % 2], door.address, 1000 + n, 53, b"x"))
        else:
            to = GROUP if n % 3 == 1 else PEERS[n % 3]
            self.udp.send(b"x", self.wire.now, to=(address(to), 1 + n))
        self.datagrams += [session for session in self.udp.sessions if session not in self.datagrams]

    def ping(self, n: int) -> None:
        self.pings.append(self.stack.ping(address(PEERS[n % 3]), self.wire.now))

    def finish(self, n: int) -> None:
        """A session ends, in one way or another."""
        alive = [(s, p) for s, p in self.sessions if not s.ended]
        if not alive:
            return
        session, peer = alive[n % len(alive)]
        synchronized = session.state >= tcp_state.ESTABLISHED
        if n % 3 == 0:
            session.abort(self.wire.now)
            self.wire.flush()
        elif n % 3 == 1 and synchronized:
            peer.send("R")
            assert session.ended
            return
        else:
            session.close(self.wire.now)
            self.wire.flush()
            if synchronized:
                nxt = self.wire.sent[-1].seq + 1
                peer.send("FA", ack=nxt & 0xFFFFFFFF)
        assert session.ended
        if synchronized:
            self.records.append((session.pair, Micros(self.wire.now + RECORD)))

    def hang_up(self, n: int) -> None:
        if n % 2 and self.pings:
            self.pings.pop(n % len(self.pings)).close(self.wire.now)
        elif waiting := [door for door in self.doors if door.state_name != "SPENT"]:
            door = waiting[n % len(waiting)]
            self.stack.revoke(door.address, self.wire.now)
            self.half_open = [half for half in self.half_open if half.door is not door]

    def start_again(self, n: int) -> None:
        """A service is closed, and listens at its address again, whatever it had there."""
        at = n % len(self.services)
        former = self.services[at]
        former.close(self.wire.now)
        self.half_open = [half for half in self.half_open if half.door is not former]
        self.services[at] = service(self.wire, former.lease.address)

    def wait(self, n: int) -> None:
        self.wire.advance(seconds((1, 10, 45, 61)[n % 4]))

    # Who accepts a packet

    def owners(self) -> Iterator[tuple[str, Callable[[bytes, bytes], bool], object]]:
        """(rank, predicate on source and destination, who) of everybody there is."""
        now = self.wire.now
        self.half_open = [
            half
            for half in self.half_open
            if half.until > now and (half.door in self.services or half.door in self.stack.doors())
        ]
        pairs: dict[bytes, str] = {}
        for session, _ in self.sessions:
            if not session.ended:
                pairs[session.pair] = "tcp"
        for half in self.half_open:
            pairs[half.peer.address + half.peer.remote] = "tcp"
        for pair, until in self.records:
            if until > now:
                assert pairs.get(pair, "tcp") == "tcp"
                pairs[pair] = "tcp"
        for datagrams in self.datagrams:
            if not datagrams.ended and not datagrams.group:
                assert datagrams.pair not in pairs
                pairs[datagrams.pair] = "udp"
        for ping in self.pings:
            assert ping.pair not in pairs
            pairs[ping.pair] = "echo"
        for pair in pairs:
            yield "pair", lambda source, target, pair=pair: source + target == pair, pair  # type: ignore[misc]
        local: list[tuple[bytes, object]] = [(packed(SHARED), "shared")]
        local += [(door.lease.address, door) for door in self.services]
        local += [(door.lease.address, door) for door in self.doors if door.state_name != "SPENT"]
        local += [(door.address, door) for door in self.udp_doors if door.state_name == "WAITING"]
        local += [(s.local, s) for s in self.datagrams if s.group and not s.ended]
        for where, who in local:
            yield "local", lambda source, target, where=where: target == where, who  # type: ignore[misc]

    def check(self) -> None:
        everybody = list(self.owners())
        locals_ = {packed(UNHELD), packed(SHARED), *(packed(where) for where in SERVICES)}
        locals_ |= {s.local for s, _ in self.sessions} | {s.local for s in self.datagrams}
        locals_ |= {door.address for door in self.doors} | {door.address for door in self.udp_doors}
        locals_ |= {ping.local for ping in self.pings}
        for target in sorted(locals_):
            for source in (*map(packed, PEERS), packed(STRANGER), packed(GROUP), target):
                self.check_pair(everybody, source, target)

    def check_pair(
        self, everybody: list[tuple[str, Callable[[bytes, bytes], bool], object]], source: bytes, target: bytes
    ) -> None:
        found = self.stack._ctx.demux.owner(source + target)
        for rank in ("pair", "local"):
            who = [owner for kind, accepts, owner in everybody if kind == rank and accepts(source, target)]
            assert len(who) <= 1, f"two owners: {who}"
            if who:
                assert _is(found, who[0]), f"{who[0]!r} should have it, {found!r} has"
                break
        else:
            assert found is None, f"{found!r} has what nobody should"
        if source[0] != 0xFF:
            self.probe(source, target, found)

    def probe(self, source: bytes, target: bytes, owner: Receiver | None) -> None:
        """A packet of a protocol that everybody drops: the one counter tells who had it."""
        before = list(self.stack.counters.drops)
        self.stack.receive(builders.ipv6(source, target, SCTP, bytes(12)), 0, 0, True, self.wire.now)
        after = self.stack.counters.drops
        gained = [reason for reason in Drop if after[reason] != before[reason] and reason != Drop.RATE_LIMITED]
        if source == target:
            expected = {Drop.SOURCE_IS_DESTINATION}
        elif owner is not None and owner.shared:
            expected = {Drop.UNKNOWN_PROTOCOL}
            self.wire.take()  # the answer that RFC 4443 3.4 asks for
        elif owner is None:
            expected = {Drop.NO_OWNER}
        else:
            expected = {Drop.FOREIGN_PROTOCOL, Drop.PEER_NOT_ALLOWED}
        assert len(gained) == 1
        assert gained[0] in expected


def _within(where: bytes, allowed: tuple[Address, int]) -> bool:
    bits = 128 - allowed[1]
    return int.from_bytes(where, "big") >> bits == int.from_bytes(allowed[0], "big") >> bits


def _is(found: Receiver | None, who: object) -> bool:
    if isinstance(who, bytes):
        return getattr(found, "pair", None) == who
    if who == "shared":
        return getattr(found, "address", None) == packed(SHARED)
    return found is who


STEPS: Final = (
    Model.connect,
    Model.connect_from,
    Model.connect_from,
    Model.open_door,
    Model.open_udp_door,
    Model.knock,
    Model.knock,
    Model.complete,
    Model.talk,
    Model.ping,
    Model.finish,
    Model.hang_up,
    Model.start_again,
    Model.wait,
)


@pytest.mark.rule("UM-3.a", "UM-3.b")
@settings(max_examples=60)
@given(
    seed=st.integers(0, 1 << 32),
    steps=st.lists(st.tuples(st.integers(0, len(STEPS) - 1), st.integers(0, 1000)), min_size=5, max_size=40),
)
def test_every_packet_has_one_owner_or_none(seed: int, steps: list[tuple[int, int]]) -> None:
    model = Model(seed)
    for step, n in steps:
        STEPS[step](model, n)
        model.check()
    end(model.wire)
