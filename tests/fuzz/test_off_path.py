"""Somebody who is not on the path, and guesses: a thousand live sessions go on as if nothing were.

The attacker here knows more than is likely: both addresses and all ports of every session. What it does not know is
where in 2^32 the sequence numbers stand. RFC 5961, 5927; UM-31, UM-32. One who does not know the addresses meets
silence, whatever it sends (tests/fuzz/test_receive.py throws everything there is).
"""

from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import attrs
import pytest

from umuxstack.core.errors import Reason
from umuxstack.core.listen.listen_0 import Listen0
from umuxstack.core.tcp import state as st
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.units import Address, millis, minutes, seconds
from umuxstack.testing import builders
from umuxstack.testing.decode import Seen
from umuxstack.testing.network import Host, Network

SESSIONS = 1000
GUESSES = 10  # of each kind for each session
STRANGER = "2001:db8:bad::1"
SERVICE = "2001:db8:2::53"
OURS, THEIRS = "2001:db8:1::ffff", "2001:db8:2::ffff"  # legacy addresses
CHALLENGES = 10  # per second and session, with as many for a start


@attrs.frozen
class Victim:
    """One session, seen from one of its ends; `host` has that end."""

    host: Host
    session: TcpSession
    ports: tuple[int, int]  # ours, theirs
    mss: int

    def forged(self, flags: str, seq: int, ack: int = 0, payload: bytes = b"", **fields: Any) -> bytes:
        """A segment that seems to come from its peer."""
        theirs, ours = self.ports[1], self.ports[0]
        return builders.tcp(
            self.session.remote, self.session.local, theirs, ours, flags, seq, ack, payload=payload, **fields
        )

    def challenging(self) -> bytes:
        """What is answered with a challenge ACK."""
        return self.forged("R", self.session.tcb.rcv_nxt + 1)

    def quoted(self, seq: int) -> bytes:
        """A segment that it might have sent."""
        return builders.tcp(self.session.local, self.session.remote, *self.ports, "A", seq, payload=bytes(100))


class Siege:
    """A thousand sessions between two hosts, of every kind; each has carried data both ways, and is to carry more."""

    def __init__(self, net: Network, sessions: int = SESSIONS) -> None:
        self.net = net
        self.random = Random(net.seed)
        self.client = net.host("client", shared=(OURS,))
        self.server = net.host("server", shared=(THEIRS,))
        ssas = self.server.listen(backlog=sessions)
        service = self.server.listen(address=SERVICE, port=80, backlog=sessions)
        legacy = self.server.listen(address=THEIRS, port=80, backlog=sessions)
        opened: list[TcpSession] = []
        for number in range(sessions):
            if number % 3 == 0:
                opened.append(self.client.connect(self.server.das(ssas).lease.address))
            elif number % 3 == 1:
                opened.append(self.client.connect(SERVICE, 80))
            else:
                opened.append(self.client.connect(THEIRS, 80, source=Address(builders.packed(OURS))))
        net.run_until_idle()
        accepted = {}
        for door in (ssas, service, legacy):
            while (session := door.accept()) is not None:
                accepted[session.remote, session.remote_port, session.local] = session
        self.pairs = [(session, accepted[session.local, session.local_port, session.remote]) for session in opened]
        self.victims = [self._victim(self.client, ours) for ours, _ in self.pairs]
        self.victims += [self._victim(self.server, theirs) for _, theirs in self.pairs]
        self.speak(b"before")
        net.run_for(seconds(2))
        net.sent.clear()

    @staticmethod
    def _victim(host: Host, session: TcpSession) -> Victim:
        return Victim(host, session, (session.local_port, session.remote_port), session.statistics().snd_mss)

    def attack(self, guess: Callable[[Victim, Random], bytes], guesses: int = GUESSES) -> list[Seen]:
        """`guess` makes packets for every end of every session, some hundred of them each millisecond. Returns what the
        victims said."""
        self.net.sent.clear()
        for _ in range(guesses):
            for number, victim in enumerate(self.victims):
                self.net.inject(guess(victim, self.random), victim.host)
                if number % 200 == 0:
                    self.net.run_for(millis(1))
        self.net.run_for(seconds(1))
        return list(self.net.sent)

    def speak(self, word: bytes) -> None:
        """Every session says something of its own, both ways, and it arrives."""
        for number, (ours, theirs) in enumerate(self.pairs):
            self.client.write(ours, b"%d %s?" % (number, word) + bytes(3000))
            self.server.write(theirs, b"%d %s!" % (number, word) + bytes(3000))
        self.net.run_for(seconds(5))
        for number, (ours, theirs) in enumerate(self.pairs):
            assert self.server.read(theirs) == b"%d %s?" % (number, word) + bytes(3000)
            assert self.client.read(ours) == b"%d %s!" % (number, word) + bytes(3000)

    def unharmed(self) -> None:
        """All are established, as they were, and carry what they are given."""
        for victim in self.victims:
            assert victim.session.state == st.ESTABLISHED, victim.session.end_reason
        self.speak(b"after")
        for victim in self.victims:
            assert victim.session.statistics().snd_mss == victim.mss


@pytest.fixture
def siege() -> Iterator[Siege]:
    with Network() as net:
        yield Siege(net)


def anywhere(random: Random) -> int:
    return random.randrange(1 << 32)


def in_window(victim: Victim, random: Random) -> int:
    """A lucky guess: in the window, but not the next sequence number."""
    return victim.session.tcb.rcv_nxt + random.randrange(1, 60_000)


@pytest.mark.rule("UM-35.t")
def test_blind_resets(siege: Siege) -> None:
    said = siege.attack(lambda victim, random: victim.forged("R", anywhere(random)))
    assert len(said) < SESSIONS // 10, "out of the window nothing is said"
    siege.unharmed()


@pytest.mark.rule("UM-35.t")
def test_resets_that_hit_the_window_are_challenged_and_not_obeyed(siege: Siege) -> None:
    """RFC 5961 3.2: only the exact number resets."""
    said = siege.attack(lambda victim, random: victim.forged("R", in_window(victim, random)), 2)
    assert {seen.flags for seen in said} == {"A"}
    assert len(said) == 2 * len(siege.victims)
    siege.unharmed()


@pytest.mark.rule("UM-35.t")
def test_blind_syns(siege: Siege) -> None:
    """RFC 5961 4.2: a challenge ACK, wherever its sequence number is, until the limit of the session."""

    def guess(victim: Victim, random: Random) -> bytes:
        return victim.forged("S", anywhere(random), options=builders.timestamps(anywhere(random), 0))

    said = siege.attack(guess)
    assert {seen.flags for seen in said} == {"A"}
    assert max(Counter(seen.source + seen.destination for seen in said if not legacy(seen)).values()) <= 2 * CHALLENGES
    siege.unharmed()


def legacy(seen: Seen) -> bool:
    return seen.source in (builders.packed(OURS), builders.packed(THEIRS))


@pytest.mark.rule("UM-33.b")
def test_syns_from_other_ports(siege: Siege) -> None:
    """The answer, RST with its ports swapped, goes to the real peer, to whose session it is as foreign."""

    def guess(victim: Victim, random: Random) -> bytes:
        ports = random.randrange(1, 1 << 16), random.randrange(1, 1 << 16)
        return builders.tcp(victim.session.remote, victim.session.local, *ports, "S", anywhere(random))

    said = siege.attack(guess)
    assert max(Counter(seen.source + seen.destination for seen in said if not legacy(seen)).values()) <= 2 * CHALLENGES
    siege.unharmed()


@pytest.mark.rule("UM-35.t", "UM-35.h")
@pytest.mark.parametrize("timestamps", [False, True])
def test_blind_data(siege: Siege, timestamps: bool) -> None:
    """RFC 5961 5. Without a timestamp it dies at once; with one, half of the guesses pass PAWS and no more."""

    def guess(victim: Victim, random: Random) -> bytes:
        options = builders.timestamps(anywhere(random), anywhere(random)) if timestamps else b""
        flags = random.choice(("A", "PA", "FPA", "FA", "UA"))
        return victim.forged(flags, anywhere(random), anywhere(random), b"malice", options=options)

    siege.attack(guess)
    siege.unharmed()


@pytest.mark.rule("UM-35.t")
def test_data_in_the_window_with_a_guessed_acknowledgment(siege: Siege) -> None:
    """RFC 5961 5.2: the acknowledgment must be plausible as well. The timestamp is taken for known."""

    def guess(victim: Victim, random: Random) -> bytes:
        recent = victim.session.tcb.ts_recent
        ack = victim.session.tcb.snd_nxt + random.randrange(1 << 20, (1 << 32) - (1 << 20))
        options = builders.timestamps(recent, anywhere(random))
        return victim.forged("PA", in_window(victim, random), ack, b"malice", options=options)

    said = siege.attack(guess, 2)
    assert {seen.payload for seen in said} <= {b""}
    siege.unharmed()


@pytest.mark.rule("UM-39.c")
@pytest.mark.parametrize("known", [False, True], ids=["guessed sequence", "sequence not in flight"])
def test_blind_icmp_errors_of_all_types(siege: Siege, known: bool) -> None:
    """RFC 5927 4.1: believed is only what quotes data in flight; and nothing is."""

    def guess(victim: Victim, random: Random) -> bytes:
        kind = random.choice((1, 1, 1, 2, 2, 3, 4, 5, 100, 127))
        seq = victim.session.tcb.snd_nxt - random.choice((1, 1000, 100_000)) if known else anywhere(random)
        value = random.choice((0, 1280, 1400)) if kind == 2 else 0
        return builders.error(STRANGER, victim.quoted(seq), kind, random.randrange(8), value)

    assert siege.attack(guess) == []
    siege.unharmed()


@pytest.mark.rule("UM-39.c")
def test_icmp_errors_that_hit_data_in_flight_end_no_session() -> None:
    """RFC 9293 MUST-56 and RFC 5461: hard errors are advice to an established connection. A believed "packet too big"
    makes segments smaller, never smaller than the least MTU of IPv6, and the data arrives."""
    with Network() as net:
        siege = Siege(net, 50)
        for ours, _ in siege.pairs:
            siege.client.write(ours, b"in flight")
        net._flush()
        for victim in siege.victims[:50]:
            for code in range(8):
                net.inject(builders.unreachable(STRANGER, victim.quoted(victim.session.tcb.snd_una), code))
            net.inject(builders.packet_too_big(STRANGER, victim.quoted(victim.session.tcb.snd_una), 1280))
            net.inject(builders.packet_too_big(STRANGER, victim.quoted(victim.session.tcb.snd_una), 68))
        net.run_for(seconds(2))
        for ours, theirs in siege.pairs:
            assert ours.state == theirs.state == st.ESTABLISHED
            assert ours.statistics().snd_mss == 1280 - 60 - 12
            assert siege.server.read(theirs) == b"in flight"
        siege.speak(b"after")


def test_blind_icmp_errors_end_no_connection_that_is_being_opened() -> None:
    with Network() as net:
        client, server = net.hosts("client", "server")
        lost = net.lose(sender=server)
        door = server.listen()
        session = client.connect(server.das(door).lease.address)
        net.run_for(millis(10))
        random = Random(net.seed)
        for _ in range(1000):
            quoted = builders.tcp(session.local, session.remote, 1, 1, "S", anywhere(random))
            net.inject(builders.unreachable(STRANGER, quoted, random.randrange(8)))
        assert not session.ended
        net.restore(lost)
        net.run_until(lambda: door.readable)
        assert session.established


@pytest.mark.rule("UM-35.t")
def test_the_limit_of_challenges_is_no_side_channel() -> None:
    """CVE-2016-5696: an attacker used up a limit that all connections shared, from a connection of its own, and learnt
    from what was left whether its guesses about another had been right. Ours is each session's own."""
    with Network() as net:
        siege = Siege(net, 9)
        net.sent.clear()
        mine, other = siege.victims[-1], siege.victims[-4]
        assert mine.session is not other.session
        for _ in range(500):
            net.inject(mine.challenging())
        net.run_for(0)
        spent = len(net.sent)
        assert CHALLENGES <= spent <= 2 * CHALLENGES
        for _ in range(500):
            net.inject(other.challenging())
        net.run_for(0)
        assert len(net.sent) - spent == spent
        net.run_for(seconds(1))
        net.sent.clear()
        for _ in range(10):  # and it comes back with time, ten a second
            for _ in range(50):
                net.inject(mine.challenging())
            net.run_for(seconds(1))
        assert len(net.sent) <= 11 * CHALLENGES + CHALLENGES
        siege.unharmed()


@pytest.mark.rule("UM-30.a", "UM-31.a", "UM-31.c", "UM-32.b")
def test_who_does_not_know_the_addresses_meets_silence(siege: Siege) -> None:
    """Any packet to any other address of the prefix, and any packet of a third party to the sessions' addresses."""
    random = siege.random
    siege.net.sent.clear()
    kinds: list[Callable[[str, bytes], bytes]] = [
        lambda source, target: builders.tcp(
            source, target, 40_000, 80, random.choice(("S", "SA", "A", "R", "FPU", ""))
        ),
        lambda source, target: builders.udp(source, target, 40_000, 53, b"who is there?"),
        lambda source, target: builders.echo_request(source, target),
        lambda source, target: builders.fragments(builders.udp(source, target, 1, 53, bytes(3000)), 1232)[0],
    ]
    for _ in range(5000):
        host = random.choice((siege.client, siege.server))
        address = host.stack.config.prefix[:8] + random.randbytes(8)
        siege.net.inject(random.choice(kinds)(STRANGER, address), host)
    one_time = [victim for victim in siege.victims if victim.session.lease.kind in ("EA", "SSA")]
    for victim in one_time:
        for kind in kinds:
            siege.net.inject(kind(STRANGER, victim.session.local), victim.host)
    siege.net.run_for(seconds(2))
    assert siege.net.sent == []
    assert siege.client.stack.telescope()[0][0] == builders.packed(STRANGER)
    assert siege.client.stack.memory_used() == 0, "fragments to nobody are not kept"
    siege.unharmed()


# Floods: of those who do know the address


def forged_syn(random: Random, target: bytes, port: int = 80) -> bytes:
    source = builders.packed("2001:db8:f::")[:8] + random.randbytes(8)
    return builders.tcp(
        source, target, random.randrange(1024, 65536), port, "S", anywhere(random), options=builders.mss(1440)
    )


@pytest.mark.parametrize("where", ["2001:db8:1::53", "2001:db8:1::80"], ids=["service", "shared"])
def test_a_flood_of_syns_costs_a_known_address_no_memory_and_keeps_nobody_out(where: str) -> None:
    """RFC 4987 3.6. While the flood lasts, clients come in by cookies."""
    with Network(seed=1, record=False) as net:
        server = net.host("server", prefix="2001:db8:1::/64", shared=("2001:db8:1::80",))
        client = net.host("client", prefix="2001:db8:2::/64")
        door = server.listen(address=where, port=80, backlog=16)
        random = Random(net.seed)
        target = builders.packed(where)
        sessions: list[TcpSession] = []
        for number in range(5000):
            net.inject(forged_syn(random, target), server)
            if number % 10 == 0:
                net.run_for(millis(1))
            if number >= 500 and number % 500 == 0:
                sessions.append(client.connect(where, 80))
                client.write(sessions[-1], b"%d" % number)
            left = server.stack.leftovers()
            bound = 16 + len(sessions)
            assert max(left["pairs"], left["ports"] - 1, left["timers"]) <= 2 * bound
        net.run_for(seconds(5))
        assert all(session.established for session in sessions)
        heard = set()
        while (accepted := door.accept()) is not None:
            heard.add(server.read(accepted))
        assert heard == {b"%d" % number for number in range(500, 5000, 500)}


@pytest.mark.rule("UM-23.a", "UM-23.c")
def test_a_flood_of_syns_at_an_ssa_burns_it_not_and_its_client_comes_in() -> None:
    """Up to eight SYNs a round trip; the oldest candidate makes room (UM-23)."""
    with Network(seed=1, record=False) as net:
        client, server = net.hosts("client", "server")
        door = server.listen()
        assert isinstance(door, Listen0)
        ssa = server.das(door, lifetime=minutes(10)).lease.address
        random = Random(net.seed)
        for number in range(3000):
            net.inject(forged_syn(random, ssa), server)
            net.run_for(millis(1))
            if number == 2000:
                session = client.connect(ssa)
                client.write(session, b"it is me")
            if door.readable:
                break
            (waiting,) = door.children.values()
            assert len(waiting.candidates) == min(number + 1, 8)
            assert server.stack.leftovers()["pairs"] <= 8
        accepted = door.accept()
        assert accepted is not None
        assert accepted.remote == session.local
        net.run_for(seconds(1))
        assert server.read(accepted) == b"it is me"
        assert server.stack.leftovers()["pairs"] == 1, "the losers are gone"


@pytest.mark.rule("UM-37.d")
def test_a_flood_of_fragments_is_bounded_for_a_pair_and_in_all() -> None:
    """Whole pieces, tiny ones, overlapping ones: what is kept is counted, and the oldest goes."""
    with Network(seed=1, record=False) as net:
        server = net.host("server", prefix="2001:db8:1::/64")
        socket = server.udp(address="2001:db8:1::53", port=53)
        random = Random(net.seed)
        for number in range(20_000):
            source = builders.packed("2001:db8:f::")[:8] + (number // 10).to_bytes(8, "big")
            whole = builders.udp(source, "2001:db8:1::53", 9, 53, bytes(2000))
            size = random.choice((8, 1232))
            piece = builders.fragment(whole, bytes(size), random.choice((0, 8, 1232)), True, random.randrange(4))
            net.inject(piece, server)
            assert server.stack.memory_used() <= 4 << 20
        # One pair cannot have more than its own part.
        with Network(seed=2, record=False) as other:
            quiet = other.host("server", prefix="2001:db8:1::/64")
            quiet.udp(address="2001:db8:1::53", port=53)
            whole = builders.udp(STRANGER, "2001:db8:1::53", 9, 53, bytes(2000))
            for number in range(2000):
                other.inject(builders.fragment(whole, bytes(1232), 1232 * 8, True, number), quiet)
            assert quiet.stack.memory_used() <= 128 << 10
        # And a client's datagram in pieces comes through in the middle of it.
        client = net.host("client", prefix="2001:db8:2::/64")
        asking = client.udp()
        client.send_to(asking, b"in pieces" * 500, "2001:db8:1::53", 53)
        net.run_for(millis(10))
        datagram = socket.receive_datagram()
        assert datagram is not None
        assert datagram.data == b"in pieces" * 500
        asking.close(net.now)
        socket.close(net.now)


def test_fragments_that_overlap_are_remembered_within_the_same_bounds() -> None:
    """A packet with an overlap must be refused until its last piece (RFC 5722 4), so something of it is kept: that was
    free of charge, and two small packets cost some hundred bytes for a minute, without a bound."""
    with Network(seed=1, record=False) as net:
        server = net.host("server", prefix="2001:db8:1::/64")
        socket = server.udp(address="2001:db8:1::53", port=53)
        for number in range(30_000):
            source = builders.packed("2001:db8:f::")[:8] + (number // 100).to_bytes(8, "big")
            whole = builders.udp(source, "2001:db8:1::53", 9, 53, bytes(100))
            net.inject(builders.fragment(whole, bytes(16), 0, True, number), server)
            net.inject(builders.fragment(whole, bytes(16), 8, True, number), server)
        assert server.stack.leftovers()["fragments"] <= (4 << 20) // 200
        assert server.stack.memory_used() <= 4 << 20
        socket.close(net.now)


def test_a_reset_with_the_exact_number_is_obeyed(siege: Siege) -> None:
    """So that the tests above are about guessing: who knows is believed (RFC 5961 3.2)."""
    victim = siege.victims[0]
    siege.net.inject(victim.forged("R", victim.session.tcb.rcv_nxt), victim.host)
    assert victim.session.end_reason == Reason.RESET
