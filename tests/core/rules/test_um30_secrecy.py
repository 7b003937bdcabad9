"""SPEC section 6: who is met with silence, and who with an answer."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.core.scene import (
    OTHER,
    PEER,
    SERVICE,
    SHARED,
    STRANGER,
    UNHELD,
    address,
    connect,
    das,
    dropped,
    end,
    is_fin,
    listen_0,
    lives,
    service,
    state_of,
    udp_das,
)
from umuxstack.core.errors import AddressInUse, Drop, LocalError, Reason
from umuxstack.core.legacy.knocks import Knocks
from umuxstack.core.tcp import state as st
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.units import Address, Micros, minutes, seconds
from umuxstack.testing import builders, checks, states
from umuxstack.testing.builders import packed
from umuxstack.testing.peer import Peer
from umuxstack.testing.wire import Wire

# UM-30, UM-31: nobody there


@pytest.mark.rule("UM-30.a", "UM-31.a")
def test_of_all_addresses_only_those_that_expect_somebody_answer() -> None:
    wire = Wire()
    waiting = das(wire, listen_0(wire)).address
    session, _ = states.established(wire)
    base = int.from_bytes(address("2001:db8:1::"), "big")
    nearby = {int.from_bytes(where, "big") + step for where in (waiting, session.local) for step in range(-50, 51)}
    scan = sorted({*nearby, *(base + 1 + n * 0x1234567890ABCD for n in range(200))})
    for number in scan:
        where = number.to_bytes(16, "big")
        wire.send(builders.tcp(STRANGER, where, 1, 80, "S"), builders.udp(STRANGER, where, payload=b"?"))
        wire.send(builders.echo_request(STRANGER, where))
    answers = wire.take()
    assert {seen.source for seen in answers} == {waiting}
    assert {seen.flags for seen in answers} == {"SA"}
    end(wire)


TO_NOBODY: dict[str, tuple[bytes, Drop]] = {
    **{
        f"tcp {flags}": (builders.tcp(STRANGER, UNHELD, 5, 80, flags, 7, 9), Drop.NO_OWNER)
        for flags in ("S", "A", "F", "R", "RA", "SA", "FA", "PA", "")
    },
    "udp": (builders.udp(STRANGER, UNHELD, 5, 53, b"?"), Drop.NO_OWNER),
    "echo request": (builders.echo_request(STRANGER, UNHELD), Drop.NO_OWNER),
    "echo reply": (builders.echo_reply(STRANGER, UNHELD), Drop.NO_OWNER),
    "neighbour solicitation": (builders.icmp6(STRANGER, UNHELD, 135, body=packed(UNHELD)), Drop.NO_OWNER),
    "unreachable": (
        builders.unreachable(STRANGER, builders.tcp(UNHELD, STRANGER, flags="S")),
        Drop.ICMP_NO_SESSION,
    ),
    "sctp": (builders.ipv6(STRANGER, UNHELD, 132, bytes(12)), Drop.NO_OWNER),
    "fragment": (builders.fragments(builders.udp(STRANGER, UNHELD, payload=bytes(99)), 48)[0], Drop.NO_OWNER),
    "bad option": (
        builders.ipv6(STRANGER, UNHELD, 6, bytes(20), extensions=[builders.destination_options(builders.option(0x80))]),
        Drop.BAD_EXTENSION,
    ),
    "hop by hop": (
        builders.ipv6(STRANGER, UNHELD, 17, bytes(8), extensions=[builders.hop_by_hop()]),
        Drop.NO_OWNER,
    ),
    "bad checksum": (builders.tcp(STRANGER, UNHELD, flags="S", checksum=1), Drop.NO_OWNER),
    "group": (builders.udp(STRANGER, "ff02::1", payload=b"?"), Drop.NO_OWNER),
}


@pytest.mark.rule("UM-31.a", "UM-31.b")
@pytest.mark.parametrize("name", TO_NOBODY)
def test_a_packet_to_nobody_meets_silence_and_is_counted(name: str) -> None:
    wire = Wire()
    packet, reason = TO_NOBODY[name]
    with dropped(wire, reason):
        wire.send(packet)
    wire.expect_silence(minutes(1))
    end(wire)


@pytest.mark.rule("UM-31.c")
@pytest.mark.parametrize("name", [name for name, (_, reason) in TO_NOBODY.items() if reason == Drop.NO_OWNER])
def test_its_source_can_be_listed(name: str) -> None:
    """Fragments to nobody were counted, but their source was in no list."""
    wire = Wire()
    wire.send(TO_NOBODY[name][0])
    assert wire.stack.telescope() == [(packed(STRANGER), 1)]


@pytest.mark.rule("UM-31.c")
def test_the_list_is_bounded_and_shows_the_busiest_first() -> None:
    wire = Wire(telescope=3)
    for source, count in ((OTHER, 2), (STRANGER, 1), (PEER, 5), ("2001:db8:2::9", 1)):
        for _ in range(count):
            wire.send(builders.tcp(source, UNHELD, flags="S"))
    assert wire.stack.telescope() == [(packed(PEER), 5), (packed(STRANGER), 1), (packed("2001:db8:2::9"), 1)]


@pytest.mark.rule("UM-31.c")
def test_the_list_knows_when_each_came_first_and_last() -> None:
    """It had numbers of packets, and no times: nobody could say at which rate a source knocks."""
    wire = Wire()
    for source, pause in ((STRANGER, seconds(3)), (OTHER, seconds(1)), (STRANGER, seconds(2))):
        wire.send(builders.tcp(source, UNHELD, flags="S"))
        wire.advance(pause)
    start = Micros(wire.now - seconds(6))
    assert wire.stack.knocks() == [
        Knocks(Address(packed(STRANGER)), 2, start, Micros(start + seconds(4))),
        Knocks(Address(packed(OTHER)), 1, Micros(start + seconds(3)), Micros(start + seconds(3))),
    ]


@pytest.mark.rule("UM-31.d", "RFC 9293 3.10.7.1", "RFC 4443 3.1")
def test_the_answers_of_the_rfcs_can_be_configured() -> None:
    wire = Wire(silence=False)
    wire.send(builders.tcp(PEER, UNHELD, 5, 80, "S", 7, payload=b"abc"))
    wire.expect(checks.sent_from(UNHELD), checks.tcp("RA", seq=0, ack=11, sport=80, dport=5))
    wire.send(builders.tcp(PEER, UNHELD, 5, 80, "FA", 7, 999))
    wire.expect(checks.tcp("R", seq=999))
    wire.send(builders.tcp(PEER, UNHELD, 5, 80, "R", 7))
    wire.expect_silence()
    for packet in (builders.udp(PEER, UNHELD, payload=b"?"), builders.echo_request(PEER, UNHELD)):
        wire.send(packet)
        wire.expect(checks.icmp(1, 3), checks.quotes(packet), checks.sent_to(PEER))
    for packet in (  # RFC 4443 2.4 (e): never about these
        builders.udp(PEER, "ff02::1", payload=b"?"),
        builders.echo_reply(PEER, UNHELD),
        builders.unreachable(PEER, builders.udp(UNHELD, PEER, payload=b"?")),
        builders.udp(PEER, STRANGER, payload=b"not an address of ours"),
        builders.udp("::", UNHELD, payload=b"?"),
    ):
        wire.send(packet)
        wire.expect_silence()
    assert wire.stack.telescope()[0][0] == packed(PEER)
    end(wire)


@pytest.mark.rule("UM-31.d")
@pytest.mark.parametrize("silence", [True, False])
def test_a_waiting_ssa_gives_nothing_away_in_either_configuration(silence: bool) -> None:
    """With the RFCs' answers switched on, only addresses that nobody holds give them."""
    wire = Wire(silence=silence)
    ssa = das(wire, listen_0(wire)).address
    wire.send(builders.tcp(PEER, ssa, 5, 80, "A"), builders.udp(PEER, ssa, payload=b"?"))
    wire.send(builders.echo_request(PEER, ssa))
    wire.expect_silence(seconds(1))
    end(wire)


# UM-31: RETIRING


@pytest.mark.rule("UM-31.e", "RFC 9293 3.10.7.1")
def test_after_an_abort_the_pair_answers_rst_for_60_s() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    session.abort(wire.now)
    peer.expect("RA")
    peer.send("PA", b"on the way", ack=peer.rcv_nxt)
    peer.expect("R", seq=peer.rcv_nxt)
    wire.advance(seconds(60) - 1)
    peer.send("A")
    peer.expect("R", seq=peer.rcv_nxt)
    peer.send("R")  # a RST is never answered
    wire.expect_silence(1)
    with dropped(wire, Drop.NO_OWNER):
        peer.send("A")
    wire.expect_silence(seconds(1))
    end(wire)


@pytest.mark.rule("UM-31.e", "UM-31.a", "UM-32.b")
def test_it_answers_its_own_pair_only() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    session.abort(wire.now)
    peer.expect("RA")
    with dropped(wire, Drop.NO_OWNER):
        wire.send(builders.tcp(OTHER, peer.remote, peer.port, 1, "A", 1, 1))
    with dropped(wire, Drop.OTHER_PORTS):
        wire.send(peer.segment("A", port=81))
    with dropped(wire, Drop.FOREIGN_PROTOCOL):
        wire.send(builders.udp(PEER, peer.remote, payload=b"?"))
    wire.expect_silence(seconds(1))
    end(wire)


@pytest.mark.rule("UM-31.f", "UM-36.b", "RFC 9293 3.10.7.4")
@pytest.mark.parametrize("options", [b"", builders.mss(1440) + builders.timestamps(5)])
def test_after_a_close_the_pair_answers_the_fin_s_ack_for_60_s(options: bytes) -> None:
    wire = Wire()
    session, peer = states.established(wire, options=options)
    stamp: dict[str, Any] = {"options": builders.timestamps(6)} if options else {}
    session.close(wire.now)
    peer.expect(is_fin)
    fin = peer.segment("FA", **stamp)
    peer.send("FA", **stamp)
    first = peer.expect("A", ack=peer.snd_nxt)
    for pause in (0, seconds(30), seconds(60) - 1):  # each FIN begins the 60 s anew
        wire.advance(pause)
        wire.send(fin)
        again = peer.expect("A", seq=first.seq, ack=first.ack)
        if options:
            assert again.options.timestamps is not None
            assert first.options.timestamps is not None
            elapsed = again.options.timestamps[0] - first.options.timestamps[0] & 0xFFFFFFFF
            assert elapsed == (again.time // 1000 - first.time // 1000)  # the session's own clock goes on
    wire.advance(seconds(60))
    with dropped(wire, Drop.NO_OWNER):
        wire.send(fin)
    wire.expect_silence(minutes(1))
    end(wire)


@pytest.mark.rule("UM-36.b", "RFC 1337")
def test_time_wait_is_not_assassinated() -> None:
    wire = Wire()
    session, peer = states.time_wait(wire)
    with dropped(wire, Drop.AFTER_CLOSE):
        peer.send("R", seq=peer.snd_nxt)
    wire.expect_silence(seconds(1))
    assert state_of(wire.stack, session.local) == "RETIRING"
    end(wire)


@pytest.mark.rule("UM-31.f", "UM-36.b")
def test_what_is_neither_fin_nor_old_meets_silence_in_time_wait() -> None:
    wire = Wire()
    _, peer = states.time_wait(wire)
    for reason, packet in (
        (Drop.AFTER_CLOSE, peer.segment("A")),
        (Drop.OTHER_PORTS, peer.segment("FA", port=81)),
        (Drop.OTHER_PORTS, peer.segment("S", port=81)),  # an EA is never met again: nothing replaces the record
        (Drop.BAD_CHECKSUM, peer.segment("FA", checksum=3)),
        (Drop.BAD_HEADER, peer.segment("FA", offset=15)),
        (Drop.FOREIGN_PROTOCOL, builders.echo_request(PEER, peer.remote)),
    ):
        with dropped(wire, reason):
            wire.send(packet)
    wire.expect_silence(seconds(1))
    end(wire)


# UM-32


@pytest.mark.rule("UM-32.a")
def test_a_peer_that_is_not_allowed_meets_silence_at_a_listen_u() -> None:
    wire = Wire()
    ssa = das(wire, listen_0(wire), peer=(address(PEER), 128)).address
    for build in (
        lambda who: builders.tcp(who, ssa, 5, 80, "S"),
        lambda who: builders.tcp(who, ssa, 5, 80, "A"),
        lambda who: builders.udp(who, ssa, payload=b"?"),
        lambda who: builders.echo_request(who, ssa),
    ):
        with dropped(wire, Drop.PEER_NOT_ALLOWED):
            wire.send(build(OTHER))  # type: ignore[no-untyped-call]
    wire.expect_silence(seconds(1))
    end(wire)


@pytest.mark.rule("UM-32.b")
@pytest.mark.parametrize("build", [states.established, states.established_server, states.syn_sent, states.time_wait])
def test_a_third_party_meets_silence_at_a_session_s_address(build: Callable[[Wire], states.Built]) -> None:
    wire = Wire()
    session, peer = build(wire)
    third = [
        builders.tcp(OTHER, session.local, peer.port, peer.remote_port, flags, peer.snd_nxt, peer.rcv_nxt)
        for flags in ("S", "A", "R", "FA", "SA")
    ]
    third += [builders.udp(OTHER, session.local, payload=b"?"), builders.echo_request(OTHER, session.local)]
    before = len(wire.sent)
    with dropped(wire, Drop.NO_OWNER, len(third)):
        wire.send(*third)
    assert len(wire.sent) == before
    session.abort(wire.now)
    wire.take()
    end(wire)


# UM-33


@pytest.mark.rule("UM-33.a")
def test_half_open_a_new_syn_replaces_the_candidate() -> None:
    wire = Wire()
    door = listen_0(wire)
    ssa = das(wire, door).address
    first, old = states.syn_received(wire, ssa, port=5001)
    second, new = states.syn_received(wire, ssa, port=5002)
    assert (first.end_reason, second.state) == (Reason.REPLACED, st.SYN_RECEIVED)
    assert wire.stack.leftovers()["pairs"] == 1
    with dropped(wire, Drop.OTHER_PORTS):
        old.send("A")
    wire.expect_silence()
    new.send("A")
    assert door.accept() is second
    end(wire)


def _rst_to_a_second_syn(wire: Wire, session: TcpSession, peer: Peer) -> None:
    wire.send(peer.segment("S", seq=77, port=6001, remote_port=6002))
    wire.expect(
        checks.sent_from(session.local), checks.sent_to(PEER), checks.tcp("RA", sport=6002, dport=6001, seq=0, ack=78)
    )


@pytest.mark.rule("UM-33.b")
@pytest.mark.parametrize(
    "build", [states.established, states.established_server, states.close_wait, states.fin_wait_2, states.last_ack]
)
def test_synchronized_a_pure_syn_gets_rst_with_its_ports_swapped(build: Callable[[Wire], states.Built]) -> None:
    wire = Wire()
    session, peer = build(wire)
    before = session.state
    with dropped(wire, Drop.OTHER_PORTS):
        _rst_to_a_second_syn(wire, session, peer)
    assert session.state == before
    end(wire)


@pytest.mark.rule("UM-33.c", "RFC 5961 7")
def test_these_rsts_are_rate_limited_per_session() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    _, other = states.established(wire)
    for number in range(100):
        wire.send(peer.segment("S", port=6000 + number))
    assert len(wire.take()) == 10
    assert wire.stack.counters.drops[Drop.RATE_LIMITED] == 90
    wire.send(other.segment("S", port=6000))  # somebody else's limit is his own
    wire.expect(checks.tcp("RA"))
    wire.advance(seconds(1))
    _rst_to_a_second_syn(wire, session, peer)
    end(wire)


@pytest.mark.rule("UM-33.f")
@pytest.mark.parametrize("build", [states.established, states.syn_sent, states.syn_received])
def test_everything_else_with_other_ports_meets_silence(build: Callable[[Wire], states.Built]) -> None:
    wire = Wire()
    session, peer = build(wire)
    before = session.state
    flags = ["A", "R", "RA", "FA", "SA", "PA", "SF", "SR", ""] + ([] if before >= st.SYN_RECEIVED else ["S"])
    sent = len(wire.sent)
    with dropped(wire, Drop.OTHER_PORTS, len(flags)):
        for some in flags:
            wire.send(peer.segment(some, port=peer.port + 1))
    assert (session.state, len(wire.sent)) == (before, sent)
    end(wire)


def _service_in_time_wait(wire: Wire, options: bytes = b"", shared: bool = False) -> tuple[Any, Peer]:
    if shared:
        door: Any = wire.stack.listen(wire.now, address=address(SHARED), port=80)
    else:
        door = service(wire)
    peer = Peer(wire, SHARED if shared else SERVICE, port=5001, remote_port=80)
    peer.connect(options)
    session = door.accept()
    session.close(wire.now)
    stamp: dict[str, Any] = {"options": builders.timestamps(1000)} if options else {}
    peer.expect(is_fin)
    peer.send("FA", **stamp)
    peer.expect("A")
    assert session.ended
    assert wire.stack.leftovers()["records"] == 1
    return door, peer


@pytest.mark.rule("UM-33.d")
@pytest.mark.parametrize("grain", ["service", "client"])
def test_in_time_wait_of_an_address_met_again_a_syn_with_other_ports_replaces_the_record(grain: str) -> None:
    wire = Wire()
    if grain == "service":
        door, peer = _service_in_time_wait(wire)
    else:
        door = listen_0(wire)
        peer = Peer(wire, das(wire, door, grain="client").address, port=5001)
        peer.connect()
        session = door.accept()
        assert session is not None
        session.close(wire.now)
        peer.expect(is_fin)
        peer.send("FA")
        peer.expect("A")
    again = Peer(wire, peer.remote, port=5002, remote_port=80, iss=5)
    again.connect()
    accepted = door.accept()
    assert accepted is not None
    assert accepted.remote_port == 5002
    end(wire)


STAMPED = builders.mss(1440) + builders.timestamps(1000)


@pytest.mark.rule("UM-33.e", "RFC 6191 2")
@pytest.mark.parametrize(
    ("old", "ahead", "stamp", "honoured"),
    [
        # ahead: the SYN's sequence number, counted from the old FIN's. stamp: its timestamp.
        (STAMPED, 5000, 1001, True),
        (STAMPED, -5000, 1001, True),
        (STAMPED, 5000, 999, False),
        (STAMPED, 1, 1000, True),
        (STAMPED, 0, 1000, False),
        (STAMPED, -1, 1000, False),
        (STAMPED, 1, None, True),
        (STAMPED, -5000, None, False),
        (b"", -5000, 7, True),
        (b"", 1, None, True),
        (b"", 0, None, False),
        (b"", -5000, None, False),
    ],
)
@pytest.mark.parametrize("shared", [False, True])
def test_with_the_same_ports_rfc_6191_decides(
    old: bytes, ahead: int, stamp: int | None, honoured: bool, shared: bool
) -> None:
    wire = Wire(shared=(address(SHARED),))
    door, peer = _service_in_time_wait(wire, old, shared)
    fin = peer.snd_nxt - 1
    options = builders.mss(1440) + (b"" if stamp is None else builders.timestamps(stamp))
    wire.send(peer.segment("S", seq=fin + ahead & 0xFFFFFFFF, ack=0, options=options))
    answers = [seen.flags for seen in wire.take()]
    assert ("SA" in answers) == honoured
    assert set(answers) <= ({"SA"} if honoured else {"A"})
    door.close(wire.now)
    end(wire)


@pytest.mark.rule("UM-33.g")
def test_the_rst_to_a_second_syn_can_be_configured_away() -> None:
    wire = Wire(reset_second_syn=False)
    session, peer = states.established(wire)
    with dropped(wire, Drop.OTHER_PORTS):
        wire.send(peer.segment("S", port=6001))
    wire.expect_silence(seconds(1))
    assert session.established
    end(wire)


# UM-34


@pytest.mark.rule("UM-34.a", "UM-34.b")
def test_nothing_that_ends_up_in_a_log_shows_a_waiting_address() -> None:
    wire = Wire()
    door, socket = listen_0(wire, name="httpd"), wire.stack.udp(wire.now, name="dns")
    waiting, udp_waiting = das(wire, door, label="page"), udp_das(wire, socket)
    secrets = [waiting.address, udp_waiting.address]
    said = [repr(wire.stack.counters.snapshot()), repr(wire.stack.pool_statistics()), repr(wire.stack.leftovers())]
    said += [repr(event) + str(event) for event in wire.stack.take_events()]
    for thing in (waiting, udp_waiting, door, socket, waiting.lease, udp_waiting.lease, wire.stack):
        said += [repr(thing), str(thing)]
    attempts: list[Callable[[], object]] = [
        lambda: das(wire, door, ssa=waiting.address),
        lambda: connect(wire, source=waiting.address),
        lambda: service(wire, waiting.address),
        lambda: wire.stack.revoke(packed(UNHELD), wire.now),  # type: ignore[arg-type]
    ]
    for attempt in attempts:
        with pytest.raises(LocalError) as caught:
            attempt()
        said.append(str(caught.value))
    assert any("ssa.httpd.1" in text for text in said)
    for text in said:
        for secret in secrets:
            for form in (repr(secret)[2:-1], secret.hex(), _text(secret)):
                assert form not in text
    end(wire)


def _text(where: bytes) -> str:
    from ipaddress import IPv6Address

    return str(IPv6Address(where))


@pytest.mark.rule("UM-34.a")
def test_leases_have_names_that_tell_their_kind() -> None:
    wire = Wire(shared=(address(SHARED),))
    connect(wire)
    connect(wire)
    door = listen_0(wire, name="httpd")
    das(wire, door)
    das(wire, door)
    service(wire, name="dns")
    assert sorted(lease.name for lease in wire.stack.leases()) == sorted(
        ["shared.1", "ea.1", "ea.2", "ssa.httpd.1", "ssa.httpd.2", "service.dns.1"]
    )
    wire.take()
    end(wire)


def test_an_address_in_use_stays_in_use_after_a_refusal() -> None:
    wire = Wire()
    waiting = das(wire, listen_0(wire))
    with pytest.raises(AddressInUse):
        connect(wire, source=waiting.address)
    assert lives(wire.stack, waiting.address)
    end(wire)
