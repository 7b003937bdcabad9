"""Accurate ECN (RFC 9768): the counters alone, the option, and two stacks over a path that marks. The rest is in
tests/conformance/rfc9768."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umuxstack.core.config import TcpPolicy
from umuxstack.core.tcp.accurate_ecn import CE, ECT0, ECT1, INITIAL, NOT_ECT, AccurateEcn, ace_of, flags_of
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.units import millis
from umuxstack.core.wire import tcp_options
from umuxstack.driver.links.impair import Impairment
from umuxstack.testing.network import Network

ORDER_0, ORDER_1 = 172, 174


def option(kind: int, *counters: int) -> bytes:
    return bytes((kind, 2 + 3 * len(counters))) + b"".join(value.to_bytes(3, "big") for value in counters)


def parsed(raw: bytes) -> tuple[int, int, int] | None:
    return tcp_options.parse(raw, 0, len(raw)).accurate


# The counters


@pytest.mark.rule("RFC 9768 3.2.2")
def test_the_packet_counter_goes_round_at_eight() -> None:
    counters = AccurateEcn(NOT_ECT)
    assert counters.feedback() == flags_of(2)  # of the handshake, once
    said = []
    for _ in range(9):
        said.append(counters.feedback())
        assert counters.came(CE, 100, 1)
    assert said == [flags_of(value) for value in (5, 6, 7, 0, 1, 2, 3, 4, 5)]
    assert not counters.came(ECT0, 100, 1)
    assert counters.r_bytes[CE] == 900


@pytest.mark.parametrize("ace", range(8))
def test_the_three_flags_are_read_as_they_are_written(ace: int) -> None:
    word = 0x5010 | flags_of(ace)
    assert ace_of(bytes(12) + word.to_bytes(2, "big"), 0) == ace


@pytest.mark.rule("RFC 9768 3.2.3")
def test_the_octet_counters_go_round_at_24_bits() -> None:
    counters = AccurateEcn(NOT_ECT)
    counters.came(ECT0, 0xFFFFFF, 1)
    counters.came(ECT1, 7, 1)
    counters.came(CE, 0x1000001, 1)
    raw = counters.option_bytes()
    assert len(raw) % 4 == 0
    assert parsed(raw) == (0, 1, 8)


@pytest.mark.rule("RFC 9768 3.2.3")
def test_a_peers_option_may_be_of_either_order_and_short() -> None:
    assert parsed(option(ORDER_0, 1, 2, 3)) == (1, 2, 3)
    assert parsed(option(ORDER_1, 1, 2, 3)) == (3, 2, 1)
    assert parsed(option(ORDER_0, 1)) == (1, -1, -1)
    assert parsed(option(ORDER_1, 1, 2)) == (-1, 2, 1)
    assert parsed(option(ORDER_1)) == (-1, -1, -1)
    assert parsed(bytes((ORDER_1, 4, 0, 0))) is None


def test_an_option_that_tells_of_more_than_was_delivered_is_not_believed() -> None:
    counters = AccurateEcn(NOT_ECT)
    assert counters.take_option((101, 50, -1), delivered=150) == 50
    assert counters.take_option((101, 51 + 1000, 1), delivered=150) == 0
    assert counters.take_option((1, 40, 1), delivered=150) == 0  # an older one: a step back is a step of nearly 2^24
    assert (counters.s_bytes[ECT0], counters.s_bytes[CE], counters.s_bytes[ECT1]) == (100, 50, 0)


@pytest.mark.rule("RFC 9768 3.2.2.5.2")
@given(st.lists(st.tuples(st.integers(1, 7), st.integers(0, 7)), max_size=40))
def test_of_few_packets_at_a_time_no_mark_is_lost(rounds: list[tuple[int, int]]) -> None:
    counters, true = AccurateEcn(NOT_ECT), INITIAL
    for packets, marked in rounds:
        true += min(marked, packets)
        counters.marks(true & 7, packets, -1, 1000)
    assert counters.s_packets == true


@pytest.mark.rule("RFC 9768 3.2.2.5.2")
def test_of_many_at_once_the_octets_tell_whether_the_flags_went_round() -> None:
    def told(marked_bytes: int) -> int:
        counters = AccurateEcn(NOT_ECT)
        counters.marks(INITIAL, 1, 0, 1000)
        return counters.marks(INITIAL + 2 & 7, 20, marked_bytes, 1000)

    assert told(2000) == 2
    assert told(18_000) == 18
    assert told(0) == 2
    assert told(-1) == 18  # nobody says: the most that fits


# Two stacks


@pytest.mark.rule("RFC 9768 3.2", "UM-35.h")
@pytest.mark.parametrize("timestamps", [True, False])
@pytest.mark.parametrize("option", [True, False])
@pytest.mark.parametrize("loss", [0.0, 0.02])
def test_each_mark_is_told_whatever_is_lost(timestamps: bool, option: bool, loss: float) -> None:
    policy = TcpPolicy(ecn=True, accurate_ecn=2, accurate_ecn_option=option, timestamps=timestamps)
    wire = Impairment(delay=millis(10), mark=0.05, loss=loss)
    with Network(seed=5) as net:
        client, server = net.hosts("client", "server", wire=wire, tcp=policy)
        ours, theirs = net.established(client, server)
        assert isinstance(ours, TcpSession)
        assert isinstance(theirs, TcpSession)
        sent, came = ours.tcb.accurate, theirs.tcb.accurate
        assert sent is not None
        assert came is not None
        assert sent.option == came.option == option
        data = bytes(range(256)) * 4096
        at = 0
        taken = bytearray()

        def go_on() -> bool:
            nonlocal at
            if at < len(data) and ours.writable:
                at += client.write(ours, data[at : at + 65536])
            taken.extend(server.read(theirs))
            return len(taken) == len(data) and not ours.unsent

        net.run_until(go_on)
        assert bytes(taken) == data
        assert came.r_packets > INITIAL + 10
        assert ours.ended is False
        assert sent.s_packets == came.r_packets
        if option:
            assert sent.s_bytes[CE] == came.r_bytes[CE]
