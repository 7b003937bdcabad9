"""TCP Fast Open as a client (RFC 7413): what is remembered, and for whom. The rest is in tests/conformance/rfc7413."""

import pytest

from tests.core.scene import address, end
from umuxstack.core.config import TcpPolicy
from umuxstack.core.session.fast_open import CAPACITY, PATIENCE, REFUSED, Cookies, is_cookie
from umuxstack.core.units import Address, Micros
from umuxstack.core.wire import tcp_options
from umuxstack.testing import builders
from umuxstack.testing.peer import PEER, Peer
from umuxstack.testing.wire import Wire

OURS = "2001:db8:f::5"
COOKIE = bytes.fromhex("0102030405060708")
OPTION = bytes((34, 10)) + COOKIE
POLICY = TcpPolicy(fast_open=True)


def pair(number: int) -> bytes:
    return bytes(28) + number.to_bytes(4, "big")


@pytest.mark.rule("RFC 7413 2")
def test_a_cookie_has_four_to_sixteen_octets_and_an_even_number() -> None:
    assert [length for length in range(40) if is_cookie(bytes(length))] == [4, 6, 8, 10, 12, 14, 16]
    assert not is_cookie(None)


@pytest.mark.rule("RFC 7413 4.1.3")
def test_who_refused_is_asked_again_later() -> None:
    cookies = Cookies()
    assert cookies.get(pair(1), Micros(5)) == (None, 0)
    cookies.learn(pair(1), REFUSED, 0, Micros(5))
    assert cookies.get(pair(1), Micros(4 + PATIENCE))[0] == REFUSED
    assert cookies.get(pair(1), Micros(5 + PATIENCE))[0] is None
    cookies.learn(pair(1), COOKIE, 900, Micros(6))
    assert cookies.get(pair(1), Micros(6 + 9 * PATIENCE)) == (COOKIE, 900)


def test_the_memory_for_cookies_is_bounded() -> None:
    cookies = Cookies()
    for number in range(CAPACITY + 10):
        cookies.learn(pair(number), COOKIE, 900, Micros(0))
    assert len(cookies) == CAPACITY
    assert cookies.get(pair(9), Micros(0)) == (None, 0)
    assert cookies.get(pair(10), Micros(0)) == (COOKIE, 900)
    cookies.clear()
    assert not len(cookies)


@pytest.mark.rule("RFC 7413 4.1.1")
@pytest.mark.parametrize("bsd", [False, True])
@pytest.mark.parametrize("length", [0, 4, 6, 16])
def test_the_option_is_read_as_it_is_written(bsd: bool, length: int) -> None:
    written = tcp_options.syn(
        1440, window_scale=7, sack_permitted=True, timestamps=(1, 2), bsd=bsd, cookie=bytes(range(length))
    )
    assert len(written) % 4 == 0
    assert len(written) <= 40
    read = tcp_options.parse(written, 0, len(written))
    assert (read.mss, read.window_scale, read.sack_permitted, read.tsval) == (1440, 7, True, 1)
    assert read.cookie == bytes(range(length))
    assert tcp_options.parse(b"\x02\x04\x05\x00", 0, 4).cookie is None


@pytest.mark.rule("RFC 7413 4.2.1")
def test_a_shared_address_sends_early_data_with_the_syn() -> None:
    wire = Wire(shared=(address(OURS),))

    def dial(early: bytes) -> Peer:
        wire.stack.connect(address(PEER), 80, wire.now, source=address(OURS), policy=POLICY, early=early)
        wire.flush()
        syn = wire.sent[-1]
        return Peer(wire, OURS, remote_port=syn.sport, port=80)

    peer = dial(b"first")
    syn = peer.expect("S", b"")
    peer.send("SA", options=builders.mss(1000) + OPTION)
    peer.expect("PA", b"first")
    peer.send("RA")
    peer = dial(b"second")
    syn = peer.expect("S", b"second")
    peer.rcv_nxt = syn.seq + 1 + len(b"second")
    peer.send("SA", options=builders.mss(1000))
    peer.expect("A", b"", ack=peer.snd_nxt)
    peer.send("RA")
    end(wire)


def test_an_ea_does_not_ask_and_its_early_data_follows_the_handshake() -> None:
    wire = Wire()
    session = wire.stack.connect(Address(address(PEER)), 80, wire.now, policy=POLICY, early=b"data")
    wire.flush()
    syn = wire.sent[-1]
    assert tcp_options.parse(syn.raw, 60, len(syn.raw)).cookie is None
    peer = Peer(wire, session.local, remote_port=syn.sport, port=syn.dport)
    peer.expect("S", b"")
    peer.send("SA", options=builders.mss(1000) + OPTION)
    peer.expect("PA", b"data")
    assert not len(wire.stack._ctx.cookies)
    session.abort(wire.now)
    wire.take()
    end(wire)
