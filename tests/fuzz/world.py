"""Hosts on bad wires whose applications do anything at any time, and a judge who knows what each was told.

Every session sends bytes that no other sends, and each position has its own: what arrives elsewhere, twice, or out of
order, is seen at once. Owned by tests/fuzz/test_life.py, which decides what happens next.
"""

from collections.abc import Callable
from random import Random
from typing import Any, Final

import attrs

from umuxstack.core.echo.session import EchoSession
from umuxstack.core.errors import LocalError, Reason, SessionClosed
from umuxstack.core.listen.listen_0 import Listen0
from umuxstack.core.listen.listener import Listener
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.udp.session import UdpSocket
from umuxstack.core.units import Address, Micros, millis, minutes, seconds
from umuxstack.driver.links.impair import Burst, Impairment
from umuxstack.testing.network import Host, Network

PERIOD: Final = 65521  # a prime: no power of two of bytes, lost or repeated, goes unseen
CLOSED_PORT: Final = 4242
SHARED_PORT: Final = 80
SETTLED: Final = minutes(40)  # after which a session has delivered everything, or has given up: 15 retransmissions
REST: Final = minutes(20)  # after which nothing may be left: 8 retransmissions of a FIN, FIN-WAIT-2, a record


def stream(key: bytes) -> bytes:
    """What whoever has this key sends, again and again."""
    return Random(key).randbytes(PERIOD)


def cut(period: bytes, start: int, size: int) -> bytes:
    start %= PERIOD
    return (period * ((start + size) // PERIOD + 1))[start : start + size]


@attrs.define(eq=False)
class End:
    """One end of a session, as its application sees it."""

    host: Host
    session: TcpSession
    sends: bytes  # one period of what it sends
    awaits: bytes  # and of what it must receive
    names: tuple[bytes, bytes]  # (ours, theirs): addresses and ports
    sent: int = 0
    got: int = 0
    finished: bool = False  # it has shut down
    left: bool = False  # it has closed or aborted
    whole: bool = False  # it has read the peer's end, in order

    @classmethod
    def of(cls, host: Host, session: TcpSession) -> "End":
        ours = session.local + session.local_port.to_bytes(2, "big")
        theirs = session.remote + session.remote_port.to_bytes(2, "big")
        return cls(host, session, stream(ours + theirs), stream(theirs + ours), (ours, theirs))

    def write(self, size: int) -> None:
        alive = not self.session.ended
        try:
            taken = self.session.write(cut(self.sends, self.sent, size), self.host.now)
        except SessionClosed:
            assert self.finished or self.left or not alive, "writing was refused without a reason"
            return
        assert not self.finished
        assert not self.left
        assert 0 <= taken <= size
        self.sent += taken

    def read(self, limit: int = 1 << 30) -> int:
        """Reads, and judges what came."""
        if self.left:
            return 0
        data = self.session.read(limit, self.host.now)
        assert data == cut(self.awaits, self.got, len(data)), (
            f"{len(data)} bytes from position {self.got} on are not those that were sent"
        )
        self.got += len(data)
        if self.session.eof and self.session.end_reason in (Reason.NONE, Reason.CLOSED):
            self.whole = True
        return len(data)

    def close(self, *, abort: bool = False) -> None:
        self.left = True
        if abort:
            self.session.abort(self.host.now)
        else:
            self.session.close(self.host.now)


@attrs.define(eq=False)
class Ping:
    host: Host
    session: EchoSession
    asked: dict[int, bytes] = attrs.field(factory=dict)


class World:
    """Three hosts. Every method is something that an application, an operator or a wire may do."""

    def __init__(self, seed: int) -> None:
        self.net = Network(seed=seed, record=False)
        self.hosts = tuple(
            self.net.host(name, shared=(f"2001:db8:{index + 1:x}::ffff",))
            for index, name in enumerate(("one", "two", "three"))
        )
        self.ends: list[End] = []
        self.doors: list[tuple[Host, Listener]] = []
        self.sockets: list[tuple[Host, UdpSocket]] = []
        self.pings: list[Ping] = []
        self.open: list[tuple[Host, Address]] = []  # where TCP may be expected to answer: SSAs, used ones too
        self.open_udp: list[tuple[Host, Address]] = []
        self.datagrams: set[bytes] = set()  # everything ever sent
        self._serial = 0

    # What may be refused, is; the rest must work

    def tried(self, verb: Callable[[], Any]) -> Any:
        try:
            return verb()
        except LocalError:
            return None

    # Doors

    def listen(self, host: int, kind: str, backlog: int) -> None:
        where = self.hosts[host]
        if kind == "service":
            address = Address(bytes.fromhex("20010db8") + bytes((0, host + 1)) + bytes(8) + b"\x00\x53")
            door = self.tried(lambda: where.listen(address=address, port=SHARED_PORT, backlog=backlog))
            self.open.append((where, address))
        elif kind == "shared":
            address = where.stack.config.shared[0]
            door = self.tried(lambda: where.listen(address=address, port=SHARED_PORT, backlog=backlog))
            self.open.append((where, address))
        else:
            door = where.listen(backlog=backlog)
        if door is not None:
            self.doors.append((where, door))

    def das(self, which: int, peer: int | None, lifetime: Micros, grain: str) -> None:
        host, door = self.doors[which % len(self.doors)]
        if isinstance(door, Listen0):
            allowed = None if peer is None else f"2001:db8:{peer + 1:x}::/64"
            waiting = self.tried(lambda: host.das(door, peer=allowed, lifetime=lifetime, grain=grain))
            if waiting is not None:
                self.open.append((host, waiting.address))

    def das_udp(self, which: int, lifetime: Micros) -> None:
        host, socket = self.sockets[which % len(self.sockets)]
        waiting = self.tried(lambda: host.das(socket, lifetime=lifetime))
        if waiting is not None:
            self.open_udp.append((host, waiting.lease.address))

    def revoke(self, which: int) -> None:
        host, address = self.open[which % len(self.open)]
        self.tried(lambda: host.revoke(address))

    def accept(self, which: int) -> None:
        host, door = self.doors[which % len(self.doors)]
        session = door.accept()
        if session is not None:
            self.ends.append(End.of(host, session))

    def close_door(self, which: int) -> None:
        host, door = self.doors.pop(which % len(self.doors))
        host.close(door)

    # Sessions

    def connect(self, host: int, which: int, *, legacy: bool, nobody: bool) -> None:
        client = self.hosts[host]
        _, address = self.open[which % len(self.open)]
        if nobody:
            address = Address(address[:8] + bytes(7) + b"\x99")
        source = client.stack.config.shared[0] if legacy else None
        session = self.tried(lambda: client.connect(address, SHARED_PORT, source=source))
        if session is not None:
            self.ends.append(End.of(client, session))

    def end(self, which: int) -> End:
        return self.ends[which % len(self.ends)]

    # UDP and echo

    def socket(self, host: int, *, service: bool) -> None:
        where = self.hosts[host]
        address = (
            Address(bytes.fromhex("20010db8") + bytes((0, host + 1)) + bytes(8) + b"\x00\x54") if service else None
        )
        socket = self.tried(lambda: where.udp(address=address, port=53 if service else 0))
        if socket is not None:
            self.sockets.append((where, socket))
            if address is not None:
                self.open_udp.append((where, address))

    def send_datagram(self, which: int, to: int, size: int) -> None:
        host, socket = self.sockets[which % len(self.sockets)]
        _, address = self.open_udp[to % len(self.open_udp)]
        self._serial += 1
        data = self._serial.to_bytes(4, "big") + stream(self._serial.to_bytes(4, "big"))[:size]
        self.datagrams.add(data)
        self.tried(lambda: host.send_to(socket, data, address, 53))

    def receive_datagrams(self, which: int) -> None:
        _, socket = self.sockets[which % len(self.sockets)]
        while (datagram := socket.receive_datagram()) is not None:
            assert datagram.data in self.datagrams, "a datagram that nobody sent"

    def close_socket(self, which: int) -> None:
        host, socket = self.sockets.pop(which % len(self.sockets))
        host.close(socket)

    def ping(self, host: int, which: int, size: int) -> None:
        where = self.hosts[host]
        _, address = self.open[which % len(self.open)]
        session = self.tried(lambda: where.stack.ping(address, where.now))
        if session is not None:
            data = stream(address)[:size]
            self.pings.append(Ping(where, session, {session.send(data, where.now): data}))

    def read_pings(self) -> None:
        for ping in self.pings:
            while (reply := ping.session.take_reply()) is not None:
                asked = ping.asked.pop(reply.sequence)  # KeyError: an answer to no question, or the second to one
                assert reply.reason != Reason.NONE or reply.data == asked

    def close_ping(self, which: int) -> None:
        ping = self.pings.pop(which % len(self.pings))
        ping.session.close(ping.host.now)

    # Wires

    def rewire(self, host: int, wire: Impairment) -> None:
        self.net.impair(self.hosts[host], wire)

    # The judge

    def judge(self) -> None:
        """What must hold at any time."""
        for end in self.ends:
            if end.session.ended:
                assert end.session.end_reason != Reason.NONE
            if end.whole and not end.left:
                assert not end.session.readable or end.session.eof
        for host in self.hosts:
            assert 0 <= host.stack.memory_used() <= host.stack.config.memory

    def settle(self) -> None:
        """All wires are whole again: everything that was written arrives, or its session ends with a reason."""
        for host in self.hosts:
            self.net.impair(host, Impairment(delay=millis(1)))
        until = self.net.now + SETTLED
        quiet = 0
        while self.net.now < until and quiet < 5:
            self.net.run_for(seconds(20) if quiet < 3 else SETTLED // 3)
            moved = sum(end.read() for end in self.ends)
            quiet = 0 if moved else quiet + 1
        by_names = {end.names: end for end in self.ends}
        for end in self.ends:
            peer = by_names.get((end.names[1], end.names[0]))
            self._judge_end(end, peer)
        self.read_pings()

    def _judge_end(self, end: End, peer: End | None) -> None:
        session = end.session
        story = f"{session!r} {session.state_name} {session.end_reason.name} sent {end.sent} got {end.got}"
        if not session.ended and not end.left:
            assert session.unsent == 0 or (peer is None), f"still under way after {SETTLED / 60e6:g} min: {story}"
        if peer is None:
            return
        story += f"; peer {peer.session.state_name} {peer.session.end_reason.name} sent {peer.sent} got {peer.got}"
        alive = not session.ended and not peer.session.ended
        if alive and not end.left and not peer.left:
            assert peer.got == end.sent, f"lost: {story}"
        if peer.whole:
            assert peer.got == end.sent, f"its end came before its data: {story}"
            assert end.finished or end.left, f"an end that nobody made: {story}"
        assert peer.got <= end.sent, f"more than was sent: {story}"

    def finish(self) -> None:
        """Everybody closes what they have; a while later nothing is left."""
        self.settle()
        for end in self.ends:
            if not end.left:
                end.close()
        for ping in self.pings:
            ping.session.close(ping.host.now)
        self.net.close_all()
        self.net.check_no_leaks(REST)


def bad_wire(random: Random) -> Impairment:
    """Any wire through which something comes."""

    def sometimes(most: float) -> float:
        return random.choice((0.0, 0.0, most * random.random()))

    rate = random.choice((0, 0, 1_000_000, 20_000_000))
    return Impairment(
        loss=sometimes(0.2),
        burst=Burst(enter=0.01, leave=0.3) if random.random() < 0.2 else None,
        delay=Micros(random.choice((0, millis(1), millis(20), millis(200)))),
        jitter=Micros(int(sometimes(30_000))),
        reorder=sometimes(0.2),
        displacement=random.choice((1, 3, 20)),
        duplicate=sometimes(0.2),
        corrupt=sometimes(0.1),
        rate=rate,
        queue_packets=random.choice((5, 50)) if rate else 0,
    )
