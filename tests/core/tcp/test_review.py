"""What reading the code again has found: each test says what went wrong."""

import pytest

from tests.core.scene import ROUTER, SERVICE, connect, das, end, listen_0, service
from umuxstack.core.config import TcpPolicy
from umuxstack.core.errors import Drop, Reason
from umuxstack.core.tcp import state as st
from umuxstack.core.units import Address, millis, minutes, seconds
from umuxstack.testing import builders, states
from umuxstack.testing.builders import packed
from umuxstack.testing.peer import PEER, Peer
from umuxstack.testing.wire import Wire

OFFER = builders.mss(1440)


@pytest.mark.parametrize("answered", [False, True])
def test_keep_alive_goes_on_after_half_close(answered: bool) -> None:
    """It ended with the first FIN: who had sent a request and finished waited for ever for a server that was gone."""
    policy = TcpPolicy(keepalive=True, keepalive_idle=seconds(10), keepalive_interval=seconds(1), keepalive_count=3)
    wire = Wire(tcp=policy)
    session, peer = states.fin_wait_2(wire, half=True)
    for _ in range(3):
        peer.expect("A", b"", seq=peer.rcv_nxt - 1, within=seconds(12))
        if answered:
            peer.send("A")
    wire.advance(seconds(9))
    assert session.ended is not answered
    assert session.end_reason == (Reason.NONE if answered else Reason.TIMED_OUT)
    end(wire)


def test_a_window_that_shrinks_to_nothing_over_data_on_its_way_ends_nobody() -> None:
    """RFC 9293 MUST-34, MUST-37: the tries were counted although the peer answered each of them, and the session was
    given up after the fifteenth."""
    wire = Wire()
    session, peer = states.established(wire)
    session.write(bytes(2000), wire.now)
    first = wire.take()[0]
    peer.window = 0
    peer.send("A", ack=first.seq)
    for _ in range(40):
        wire.advance(minutes(1))
        if wire.take():
            peer.send("A", ack=first.seq)
    assert session.state == st.ESTABLISHED
    assert session.statistics().snd_mss == 1440  # and no black hole is suspected
    peer.send("A", ack=first.seq, window=65535)
    wire.advance(seconds(4))
    assert first.seq in [seen.seq for seen in wire.take()]  # not after a minute of back-off
    session.abort(wire.now)
    wire.take()
    end(wire)


def test_a_peer_that_is_silent_behind_a_shut_window_is_given_up() -> None:
    wire = Wire()
    session, peer = states.established(wire)
    session.write(bytes(2000), wire.now)
    first = wire.take()[0]
    peer.send("A", ack=first.seq, window=0)
    wire.advance(minutes(30))
    wire.take()
    assert session.end_reason == Reason.TIMED_OUT
    end(wire)


def test_each_retransmitted_segment_has_its_own_urgent_pointer() -> None:
    """Data before the urgent byte was retransmitted as one super-segment with one pointer, which is relative to a
    sequence number: the pieces pointed at bytes that were not urgent, and the peer takes those out of the stream."""
    wire = Wire(tcp=TcpPolicy(tail_loss_probe=False))
    session, peer = states.established(wire)
    session.write(bytes(10 * 1440), wire.now)
    session.write_urgent(b"abc!", wire.now)
    wire.take()
    for count in range(1, 4):
        wire.advance(seconds(2))
        peer.send("A", ack=peer.irs + 1 + count * 1440)
    urgent = [seen for seen in wire.take() if "U" in seen.flags]
    assert len(urgent) > 3
    assert {(seen.seq + seen.urgent) & 0xFFFFFFFF for seen in urgent} == {(peer.irs + 1 + 10 * 1440 + 4) & 0xFFFFFFFF}
    session.abort(wire.now)
    wire.take()
    end(wire)


def test_a_user_timeout_longer_than_the_connect_timeout_makes_no_burst_of_syns() -> None:
    """The timer was set by the one and judged by the other: when the shorter was over, all SYNs left went out at
    once."""
    wire = Wire(tcp=TcpPolicy(connect_timeout=seconds(10), user_timeout=seconds(60), syn_retries=12))
    session = connect(wire)
    wire.advance(seconds(59))
    assert [seen.flags for seen in wire.take()] == ["S"] * 6  # after 0, 1, 3, 7, 15, 31 s
    assert not session.ended
    wire.advance(seconds(1))
    assert session.end_reason == Reason.TIMED_OUT
    assert wire.take() == []
    end(wire)


def test_a_cookie_is_no_round_trip_time() -> None:
    """The session begins when its cookie comes back, so the handshake seemed to have taken a millisecond."""
    wire = Wire()
    door = service(wire, port=80, backlog=8)
    for number in range(1, 9):
        wire.send(builders.tcp(f"2001:db8:3::{number}", SERVICE, 9, 80, "S", 7))
    wire.take()
    peer = Peer(wire, SERVICE, remote_port=80)
    peer.send("S", options=OFFER)
    peer.expect("SA")
    peer.send("A")
    session = door.accept()
    assert session is not None
    assert session.statistics().srtt == 0
    assert session.statistics().rto == seconds(1)
    session.abort(wire.now)
    wire.take()
    end(wire)


def test_a_cookie_for_a_second_connection_of_the_same_peer() -> None:
    """The pair's first session took the ACK that brought the cookie back, and dropped it: the peer believed in a
    connection that nobody had."""
    wire = Wire()
    door = service(wire, port=80, backlog=8)
    one = Peer(wire, SERVICE, port=1000, remote_port=80)
    one.connect()
    first = door.accept()
    for number in range(1, 9):
        wire.send(builders.tcp(f"2001:db8:3::{number}", SERVICE, 9, 80, "S", 7))
    wire.take()
    two = Peer(wire, SERVICE, port=2000, remote_port=80)
    two.connect(OFFER)
    second = door.accept()
    assert first is not None
    assert second is not None
    one.send("PA", b"one")
    two.send("PA", b"two")
    assert (first.read(9, wire.now), second.read(9, wire.now)) == (b"one", b"two")
    end(wire)


def test_a_client_whose_connection_was_aborted_may_come_again_from_another_port() -> None:
    """UM-33: the record of an abort met every other port with silence, so that a service which had reset one
    connection of a peer was not there for it for a minute."""
    wire = Wire()
    door = service(wire, port=80)
    peer = Peer(wire, SERVICE, port=1000, remote_port=80)
    peer.connect()
    session = door.accept()
    assert session is not None
    session.abort(wire.now)
    peer.expect("RA")
    peer.send("A")
    peer.expect("R")  # its own ports are answered as ever
    again = Peer(wire, SERVICE, port=2000, remote_port=80)
    again.connect()
    assert door.accept() is not None
    end(wire)


def test_the_oldest_candidate_of_a_pair_makes_room_beside_a_live_session() -> None:
    """When it went, one session was left in the pair and took the pair's place back; the new candidate then
    overwrote it, and the client's live connection was deaf from then on."""
    wire = Wire(candidates=1)
    door = listen_0(wire)
    address = das(wire, door, grain="client").address
    one = Peer(wire, address, port=1000)
    one.connect()
    session = door.accept()
    assert session is not None
    for port in (2000, 3000):
        candidate = Peer(wire, address, port=port)
        candidate.send("S", options=OFFER)
        candidate.expect("SA")
    one.send("PA", b"still here")
    assert session.read(99, wire.now) == b"still here"
    candidate.send("A")
    assert door.accept() is not None
    end(wire)


def test_a_segment_size_that_leaves_no_room_for_options_is_raised() -> None:
    """`mss=12` and twelve bytes of timestamps made segments of nothing, and a division by it."""
    wire = Wire(tcp=TcpPolicy(mss=12))
    session, peer = states.established(wire, options=OFFER + builders.timestamps(500))
    session.write(bytes(100), wire.now)
    assert [len(seen.payload) for seen in wire.take()] == [52, 48]
    peer.send("A", ack=peer.rcv_nxt + 100, options=builders.timestamps(501))
    end(wire)


def test_without_memory_a_writer_with_nothing_outstanding_still_goes_on() -> None:
    """Others held all the memory: the write took nothing, and no acknowledgement was ever due that would have woken
    the writer again."""
    wire = Wire(memory=100_000)
    greedy, _ = states.established(wire)
    modest, peer = states.established(wire)
    assert greedy.write(bytes(160_000), wire.now) >= 100_000
    wire.take()
    assert modest.write(bytes(5000), wire.now) == 1440
    assert modest.write(bytes(5000), wire.now) == 0
    peer.expect("PA", bytes(1440))
    wire.stack.take_ready()
    peer.send("A")
    assert modest in wire.stack.take_ready()
    assert modest.write(b"x", wire.now) == 1
    greedy.abort(wire.now)
    modest.abort(wire.now)
    wire.take()
    end(wire)


def test_a_path_that_shrinks_is_believed() -> None:
    wire = Wire()
    session, _ = states.established(wire)
    session.write(bytes(1440), wire.now)
    (seen,) = wire.take()
    wire.send(builders.packet_too_big(ROUTER, seen.raw, 1300))
    assert [len(again.payload) for again in wire.take()] == [1240, 200]
    session.abort(wire.now)
    wire.take()
    end(wire)


def test_a_fin_alone_while_more_is_on_its_way_than_the_congestion_window_holds() -> None:
    """`shutdown` in recovery, when all data had been sent: the room was less than nothing, so a segment of less than
    nothing was "sent"; SND.NXT went back, data went out again as new, and the scoreboard's ranges overlapped."""
    wire = Wire()
    session, peer = states.established(wire, options=OFFER + builders.sack_permitted())
    session.write(bytes(10 * 1440), wire.now)
    wire.take()
    start = peer.irs + 1
    for count in range(2, 5):  # the first is lost; six are still on their way
        peer.send("A", ack=start, options=builders.sack((start + 1440, start + 1440 * count)))
    wire.take()
    tcb = session.tcb
    assert tcb.cc is not None
    assert tcb.loss is not None
    tcb.cc.cwnd = tcb.loss.window = 1440  # whatever cut it further
    session.shutdown(wire.now)
    (fin,) = wire.take()
    assert (fin.flags, fin.seq, fin.payload) == ("FA", start + 10 * 1440 & 0xFFFFFFFF, b"")
    peer.send("A", ack=start + 10 * 1440 + 1)
    assert session.state == st.FIN_WAIT_2
    session.abort(wire.now)
    wire.take()
    end(wire)


# Fragments and UDP


def _piece(offset: int, more: bool, data: bytes, ahead: int = 0) -> bytes:
    """A fragment for the service, with `ahead` bytes of hop-by-hop options before its fragment header."""
    header = bytes((6, 0)) + (offset | more).to_bytes(2, "big") + bytes((0, 0, 0, 5))
    options = bytes((44, ahead // 8 - 1, 1, ahead - 4)) + bytes(ahead - 4) if ahead else b""
    body = options + header + data
    addresses = packed(PEER) + packed(SERVICE)
    return bytes((0x60, 0, 0, 0)) + len(body).to_bytes(2, "big") + bytes((0 if ahead else 44, 64)) + addresses + body


def test_the_last_fragment_may_have_more_headers_than_the_first() -> None:
    """Where the next header's number goes was taken from the last piece that came, and the stack raised."""
    wire = Wire()
    service(wire, port=80)
    segment = builders.tcp(PEER, SERVICE, 1000, 80, "S", 7, options=OFFER, payload=bytes(100))[40:]
    wire.send(_piece(0, True, segment[:64]), _piece(64, False, segment[64:], ahead=8))
    assert wire.expect().flags == "SA"
    end(wire)


def test_the_first_fragment_may_have_more_headers_than_the_last() -> None:
    """The whole was longer than a packet's length field can say, and the stack raised."""
    wire = Wire()
    service(wire, port=80)
    packets = [_piece(0, True, bytes(1024), ahead=64)]
    packets += [_piece(at, True, bytes(1024)) for at in range(1024, 64512, 1024)]
    wire.send(*packets, _piece(64512, False, bytes(1000)))
    assert wire.stack.counters.drops[Drop.BAD_EXTENSION] == 1
    wire.expect_silence(seconds(61))
    end(wire)


def test_fragment_headers_within_fragment_headers_are_dropped() -> None:
    """Each "atomic fragment" was a packet of its own, handled by one more call within the last: a few hundred raised
    RecursionError."""
    wire = Wire()
    service(wire, port=80)
    wire.send(
        _piece(0, False, (bytes((44, 0, 0, 0, 0, 0, 0, 5)) * 5000)[8:] + bytes(28)).replace(b"\6\0", b"\x2c\0", 1)
    )
    assert wire.stack.counters.drops[Drop.BAD_EXTENSION] == 1
    end(wire)


def test_a_udp_socket_that_connects_to_the_port_that_answered() -> None:
    """TFTP: the server answers from another port. The session was kept, and so was the port it sent to; what came
    from the one that the application had connected to was dropped."""
    wire = Wire()
    socket = wire.stack.udp(wire.now)
    socket.send(b"rrq", wire.now, to=(Address(packed(PEER)), 69))
    request = wire.take()[-1]
    wire.send(builders.udp(PEER, request.source, 5000, request.sport, b"one"))
    socket.connect(Address(packed(PEER)), 5000, wire.now)
    socket.send(b"ack", wire.now)
    answer = wire.take()[-1]
    assert (answer.dport, answer.source) == (5000, request.source)
    wire.send(builders.udp(PEER, request.source, 5000, request.sport, b"two"))
    assert [datagram and datagram.data for datagram in (socket.receive_datagram(), socket.receive_datagram())] == [
        b"one",
        b"two",
    ]
    socket.close(wire.now)
    end(wire)


def test_a_udp_socket_that_connects_to_who_answered_its_group() -> None:
    """The session with the group was kept, and what was meant for the one peer went to all of the group."""
    wire = Wire()
    socket = wire.stack.udp(wire.now)
    socket.send(b"who?", wire.now, to=(Address(packed("ff05::1")), 7))
    question = wire.take()[-1]
    wire.send(builders.udp(PEER, question.source, 7, question.sport, b"me"))
    socket.connect(Address(packed(PEER)), 7, wire.now)
    socket.send(b"you", wire.now)
    assert wire.take()[-1].destination == packed(PEER)
    wire.advance(millis(1))
    socket.close(wire.now)
    end(wire)
