"""RFC 8504 as the checklist of a host: the lines that no other RFC's table holds (UM-37.h)."""

import pytest

from tests.core.scene import OTHER, PEER, ROUTER, SERVICE, SHARED, address, connect, end, is_fin, lives, service
from umuxstack.core.config import TcpPolicy
from umuxstack.core.errors import AddressMalformed
from umuxstack.core.units import seconds
from umuxstack.core.wire.address import parse, to_text
from umuxstack.testing import builders, checks, states
from umuxstack.testing.peer import Peer
from umuxstack.testing.wire import Wire


@pytest.mark.rule("8504-5.1-10", "8504-5.1-12", "UM-37.h")
def test_all_packets_of_a_session_have_one_flow_label() -> None:
    """The last ACK, of the record that stays, had none."""
    wire = Wire()
    labels: list[int] = []
    for _ in range(8):
        session, peer = states.established(wire, options=builders.timestamps(1))
        stamp = builders.timestamps(2)
        session.write(bytes(3000), wire.now)
        wire.take()
        peer.send("A", ack=peer.rcv_nxt + 3000, options=stamp)
        peer.rcv_nxt = peer.rcv_nxt + 3000 & 0xFFFFFFFF
        session.close(wire.now)
        peer.expect(is_fin)
        peer.send("FA", options=stamp)
        peer.send("FA", seq=peer.snd_nxt - 1, options=stamp)
        mine = {seen.flow for seen in wire.sent if seen.source == session.local}
        assert len(mine) == 1
        labels += mine
        wire.take()
    assert len(set(labels)) == 8
    assert max(labels) >> 16
    end(wire)


@pytest.mark.rule("8504-5.1-10", "8504-5.1-12", "UM-37.h")
def test_datagrams_and_echo_have_one_as_well() -> None:
    """They had none."""
    wire = Wire(shared=(address(SHARED),))
    socket, bound = wire.stack.udp(wire.now), wire.stack.udp(wire.now, address=address(SERVICE), port=53)
    flows: dict[tuple[bytes, bytes, int], set[int]] = {}
    for _ in range(3):
        for to in (PEER, OTHER):
            for each in (socket, bound):
                each.send(b"x", wire.now, to=(address(to), 53))
                each.send(bytes(3000), wire.now, to=(address(to), 53))
    pings = [wire.stack.ping(address(PEER), wire.now) for _ in range(2)]
    for ping in pings:
        ping.send(b"x", wire.now)
        ping.send(bytes(3000), wire.now)
    for seen in wire.take():
        flows.setdefault((seen.source, seen.destination, seen.raw[6] == 58), set()).add(seen.flow)
    by_pair: dict[tuple[bytes, bytes], set[int]] = {}
    for (source, destination, _), found in flows.items():
        by_pair.setdefault((source, destination), set()).update(found)
    assert len(by_pair) == 6
    assert all(len(found) == 1 for found in by_pair.values())
    assert len(set.union(*by_pair.values())) == 6
    end(wire)


@pytest.mark.rule("8504-5.1-12")
def test_a_syn_that_is_answered_with_a_cookie_sees_the_label_of_the_session_to_come() -> None:
    wire = Wire()
    service(wire, backlog=8)
    for number in range(40):
        wire.send(builders.tcp("2001:db8:9::%x" % (number + 1), SERVICE, 5, 80, "S"))
    wire.take()
    peer = Peer(wire, address(SERVICE), address=PEER)
    peer.connect()
    wire.advance(seconds(1))
    ours = {seen.flow for seen in wire.sent if seen.destination == address(PEER)}
    assert len(ours) == 1
    end(wire)


def taken_with(wire: Wire, *extensions: builders.Extension) -> bool:
    """Whether a datagram with these headers is taken; nothing is ever said about one that is not."""
    socket = wire.stack.udp(wire.now, address=address(SHARED), port=53)
    wire.send(builders.udp(PEER, SHARED, 5, 53, b"x", extensions=extensions))
    wire.expect_silence()
    taken = socket.readable
    socket.close(wire.now)
    return taken


@pytest.mark.rule("8504-5.3-5", "8504-5.3-6", "8504-5.3-7")
@pytest.mark.parametrize("limit", [None, 0, 1, 40])
def test_options_are_limited_to_a_number_that_can_be_chosen(limit: int | None) -> None:
    """A packet of 1,500 bytes with 700 options took 50 times as long as one without."""
    shared, most = (address(SHARED),), 8 if limit is None else limit
    wire = Wire(shared=shared) if limit is None else Wire(shared=shared, header_options=limit)
    for count in (most, most + 1):
        options = b"".join(builders.option(0x1E, b"ab") for _ in range(count))
        half = count // 2 * 4
        for headers in (
            [builders.destination_options(options)],
            [builders.hop_by_hop(options[:half]), builders.destination_options(options[half:])],
        ):
            assert taken_with(wire, *headers) == (count == most)
    end(wire)


@pytest.mark.rule("8504-5.3-2")
@pytest.mark.parametrize(
    ("options", "taken"),
    [
        (b"\0" * 6, True),
        (b"\0" * 7 + b"\x1e\5abcde", True),  # seven are the most that alignment can need
        (b"\0" * 8 + b"\x1e\4abcd", False),
        (b"\1\5" + bytes(5) + b"\x1e\5abcde", True),
        (b"\1\6" + bytes(6) + b"\x1e\4abcd", False),
        (b"\1\2\0\0" + b"\1\2\0\0" + b"\x1e\4abcd", False),
        (b"\0" * 5 + b"\x1e\2ab" + b"\0" * 5, True),
    ],
)
def test_padding_that_nobody_needs_is_discarded(options: bytes, taken: bool) -> None:
    wire = Wire(shared=(address(SHARED),))
    assert len(options) % 8 == 6
    assert taken_with(wire, builders.destination_options(options)) == taken
    end(wire)


@pytest.mark.parametrize("limit", [None, 1, 40])
def test_extension_headers_are_limited_as_well(limit: int | None) -> None:
    shared, most = (address(SHARED),), 16 if limit is None else limit
    wire = Wire(shared=shared) if limit is None else Wire(shared=shared, extension_headers=limit)
    assert taken_with(wire, *[builders.destination_options()] * most)
    assert not taken_with(wire, *[builders.destination_options()] * (most + 1))
    end(wire)


@pytest.mark.rule("8504-5.7.1-3")
@pytest.mark.parametrize("router", [ROUTER, OTHER, "fe80::1"])
def test_packet_too_big_is_not_filtered_whoever_sends_it(router: str) -> None:
    wire = Wire()
    session, peer = states.established(wire)
    session.write(bytes(1440), wire.now)
    wire.send(builders.packet_too_big(router, peer.expect().raw, 1300))
    assert session.statistics().snd_mss == 1240
    end(wire)


@pytest.mark.rule("8504-5.7.2-1")
def test_datagrams_use_the_whole_mtu() -> None:
    wire = Wire()
    socket = wire.stack.udp(wire.now)
    socket.send(bytes(1452), wire.now, to=(address(PEER), 53))
    assert len(wire.expect(checks.network(fragment=None)).raw) == 1500
    end(wire)


@pytest.mark.rule("8504-5.12-1")
def test_ecn_is_asked_for_by_policy_and_set_in_the_header() -> None:
    wire = Wire(tcp=TcpPolicy(ecn=True))
    session = connect(wire)
    peer = Peer(wire, session.local, port=80)
    peer.expect("SEC")
    peer.send("SAE")
    peer.expect("A")
    session.write(b"x", wire.now)
    assert peer.expect("PA").ecn == 2
    end(wire)


@pytest.mark.rule("8504-6.2-1", "8504-6.2-2", "8504-6.4-1", "UM-37.h")
def test_a_prefix_and_any_number_of_addresses_in_it_each_for_a_while() -> None:
    wire = Wire(prefix="2001:db8:5::/56")
    sessions = [connect(wire) for _ in range(200)]
    addresses = {session.local for session in sessions}
    assert len(addresses) == 200
    assert {local[:7] for local in addresses} == {address("2001:db8:5::")[:7]}
    for session in sessions:
        session.abort(wire.now)
        assert not lives(wire.stack, session.local)
    wire.take()
    end(wire)


@pytest.mark.rule("8504-6.4-2")
def test_temporary_addresses_can_be_done_without() -> None:
    wire = Wire(shared=(address(SHARED),))
    lasting = connect(wire, source=address(SHARED))
    chosen = connect(wire, source=address(SERVICE))
    temporary = connect(wire)
    assert (lasting.local, chosen.local) == (address(SHARED), address(SERVICE))
    assert temporary.local not in (address(SHARED), address(SERVICE))
    end(wire)


@pytest.mark.rule("8504-11.1-1")
@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
        ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),  # the first of two runs
        ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),  # one field alone is not shortened
        ("2001:0db8::000a", "2001:db8::a"),
        ("0:0:0:0:0:0:0:0", "::"),
        ("fe80:0:0:0:0:0:0:1", "fe80::1"),
        ("2001:0:0:1:0:0:0:1", "2001:0:0:1::1"),  # the longest run
    ],
)
def test_addresses_are_written_as_rfc_5952_recommends(written: str, canonical: str) -> None:
    assert to_text(parse(written)) == canonical


@pytest.mark.rule("8504-6.1-1")
@pytest.mark.parametrize("wrong", ["::", "::1", "ff02::1", "ff0e::1"])
def test_multicast_unspecified_and_loopback_are_no_peers_of_a_session(wrong: str) -> None:
    wire = Wire()
    with pytest.raises(AddressMalformed, match="peer's address is"):
        connect(wire, wrong)
    for source in (wrong, "::1"):
        wire.send(builders.tcp(source, wire.minted(), flags="S"))
    wire.expect_silence()
    end(wire)
