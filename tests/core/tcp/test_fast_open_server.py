"""TCP Fast Open as a server (RFC 7413): cookies, limits, memory. The rest is in tests/conformance/rfc7413."""

import pytest

from tests.core.scene import address, dropped, end
from umuxstack.core.config import TcpPolicy
from umuxstack.core.entropy import Entropy
from umuxstack.core.errors import BadArgument, Drop, Reason
from umuxstack.core.legacy.ports import PortListener
from umuxstack.core.session.fast_open import ROTATION, is_ours, mint
from umuxstack.core.tcp import state as st
from umuxstack.core.units import Micros, seconds
from umuxstack.core.wire import tcp_options
from umuxstack.testing import builders
from umuxstack.testing.peer import PEER, Peer
from umuxstack.testing.wire import Wire

OURS = "2001:db8:1::80"
KEY = "00112233445566778899aabbccddeeff"
POLICY = TcpPolicy(fast_open_queue=4, fast_open_key=KEY)
PAIR = bytes(range(32))
MSS = builders.mss(1000)


def server(policy: TcpPolicy = POLICY, backlog: int = 8) -> tuple[Wire, PortListener]:
    wire = Wire(shared=(address(OURS),), tcp=policy)
    door = wire.stack.listen(wire.now, address=address(OURS), port=80, backlog=backlog)
    assert isinstance(door, PortListener)
    return wire, door


def option(cookie: bytes) -> bytes:
    return bytes((34, 2 + len(cookie))) + cookie


def client(wire: Wire, port: int = 40000) -> Peer:
    return Peer(wire, OURS, remote_port=80, port=port)


def open_early(peer: Peer, data: bytes = b"hello") -> None:
    """A SYN with a good cookie and `data`, and its SYN-ACK."""
    cookie = mint(peer.wire.stack._ctx.entropy, KEY, peer.address + peer.remote, 0)
    peer.send("S", data, options=MSS + option(cookie))
    peer.expect("SA", ack=peer.snd_nxt)


# Cookies


@pytest.mark.rule("RFC 7413 4.1.2")
def test_a_cookie_is_good_for_one_client_and_for_two_periods() -> None:
    entropy = Entropy(b"a")
    cookie = mint(entropy, "", PAIR, 7)
    assert cookie != mint(entropy, "", PAIR[::-1], 7)
    assert cookie != mint(Entropy(b"b"), "", PAIR, 7)
    begins = 7 * ROTATION
    assert is_ours(entropy, "", PAIR, cookie, Micros(begins))
    assert is_ours(entropy, "", PAIR, cookie, Micros(begins + 2 * ROTATION - 1))
    assert not is_ours(entropy, "", PAIR, cookie, Micros(begins + 2 * ROTATION))
    assert not is_ours(entropy, "", PAIR, cookie[:-1], Micros(begins))
    assert not is_ours(entropy, "", PAIR, b"", Micros(begins))


@pytest.mark.rule("RFC 7413 4.1.2")
def test_servers_that_share_a_key_take_each_others_cookies() -> None:
    cookie = mint(Entropy(b"a"), KEY, PAIR, 0)
    assert is_ours(Entropy(b"b"), KEY, PAIR, cookie, Micros(99 * ROTATION))
    assert not is_ours(Entropy(b"b"), KEY[::-1], PAIR, cookie, Micros(0))


@pytest.mark.parametrize("key", ["zz", "123", "00" * 65])
def test_a_key_is_hexadecimal_and_not_too_long(key: str) -> None:
    with pytest.raises(BadArgument, match="fast_open_key"):
        TcpPolicy(fast_open_key=key)


@pytest.mark.rule("RFC 7413 4.1.1")
@pytest.mark.parametrize("length", [0, 4, 8, 16])
def test_the_experimental_form_is_read_as_it_is_written(length: int) -> None:
    written = tcp_options.syn(
        1440, window_scale=7, sack_permitted=False, timestamps=None, cookie=bytes(range(length)), experimental=True
    )
    assert len(written) % 4 == 0
    read = tcp_options.parse(written, 0, len(written))
    assert (read.cookie, read.experimental, read.window_scale) == (bytes(range(length)), True, 7)


def test_another_experiment_is_not_fast_open() -> None:
    assert tcp_options.parse(bytes((254, 4, 0xF9, 0x88)), 0, 4).cookie is None
    assert tcp_options.parse(bytes((254, 3, 0xF9)), 0, 3).cookie is None


# Sessions


@pytest.mark.rule("RFC 7413 4.2.2")
def test_what_came_with_a_syn_is_accounted_for_until_it_is_read() -> None:
    wire, door = server()
    peer = client(wire)
    open_early(peer, b"hello")
    assert wire.stack.memory_used() == 5
    session = door.accept()
    assert session is not None
    assert session.established
    assert session.state == st.SYN_RECEIVED
    assert session.writable
    assert session.read(99, wire.now) == b"hello"
    assert wire.stack.memory_used() == 0
    peer.send("A")
    assert session.state == st.ESTABLISHED
    assert not door.early
    session.abort(wire.now)
    peer.expect("RA")
    end(wire)


@pytest.mark.rule("RFC 7413 4.2.2")
def test_unread_and_unaccepted_it_is_given_back() -> None:
    wire, door = server()
    open_early(client(wire))
    door.close(wire.now)
    wire.take()
    assert wire.stack.memory_used() == 0
    assert not door.early
    end(wire)


@pytest.mark.rule("RFC 7413 5.1")
def test_what_is_reset_makes_room_in_the_queue() -> None:
    wire, door = server(TcpPolicy(fast_open_queue=1, fast_open_key=KEY))
    first, second = client(wire), client(wire, 40001)
    open_early(first)
    assert len(door.early) == 1
    first.send("RA")
    assert not door.early
    session = door.accept()
    assert session is not None
    assert session.end_reason == Reason.RESET
    session.close(wire.now)
    open_early(second)
    end(wire)


def test_a_full_backlog_takes_nothing_early_either() -> None:
    wire, _ = server(backlog=1)
    open_early(client(wire))
    with dropped(wire, Drop.BACKLOG):
        client(wire, 40001).send("S", b"more", options=MSS + option(b""))
    wire.expect_silence()
    end(wire)


@pytest.mark.rule("RFC 7413 4.2.2")
def test_a_listener_is_asked_for_itself() -> None:
    """TCP_FASTOPEN is a listener's (RFC 7413 A.2); the policy says what holds for those that say nothing."""
    wire, door = server()
    door.set_policy(TcpPolicy())
    peer = client(wire)
    peer.send("S", b"hello", options=MSS + option(b""))
    assert peer.expect("SA").ack == peer.iss + 1
    end(wire)


@pytest.mark.rule("MUST-47")
def test_a_soft_error_before_the_handshake_ends_is_told() -> None:
    wire, door = server(TcpPolicy(fast_open_queue=1, fast_open_key=KEY, soft_errors_abort=False))
    peer = client(wire)
    open_early(peer)
    session = door.accept()
    assert session is not None
    answer = wire.sent[-1].raw
    wire.send(builders.unreachable(PEER, answer))
    told = session.soft_error
    peer.send("A")
    assert (told, session.soft_error) == (Reason.UNREACHABLE, Reason.NONE)
    end(wire)


@pytest.mark.rule("RFC 7413 4.2.2")
def test_half_closed_before_the_handshake_ends_its_fin_waits() -> None:
    wire, door = server()
    peer = client(wire)
    open_early(peer)
    session = door.accept()
    assert session is not None
    session.write(b"answer", wire.now)
    session.shutdown(wire.now)
    peer.expect("PA", b"answer")
    wire.expect_silence(seconds(0))
    peer.send("A")
    peer.expect("FA", b"")
    assert session.state == st.FIN_WAIT_1
    end(wire)


@pytest.mark.rule("RFC 7413 4.2.2")
def test_an_acknowledgement_of_the_answer_is_the_handshakes_as_well() -> None:
    """SACK, the window and what was acknowledged count at once, not only with the next segment."""
    wire, door = server()
    peer = client(wire)
    open_early(peer)
    session = door.accept()
    assert session is not None
    session.write(b"answer", wire.now)
    peer.expect("PA", b"answer")
    peer.send("A", window=5000)
    assert session.unsent == 0
    assert session.statistics().snd_wnd == 5000
    end(wire)
