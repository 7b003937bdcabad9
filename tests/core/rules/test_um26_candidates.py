"""Where one rule met another: several connections of one client, records, errors about nothing, senseless settings."""

import pytest

from umuxstack.core.config import StackConfig, TcpPolicy
from umuxstack.core.errors import AddressNotOurs, BadArgument
from umuxstack.core.units import seconds
from umuxstack.core.wire.address import parse
from umuxstack.testing import builders
from umuxstack.testing.peer import Peer
from umuxstack.testing.wire import Wire

CLIENT = "2001:db8:2::1"


@pytest.mark.rule("UM-26", "UM-23")
def test_candidates_of_others_never_push_an_established_session_of_a_client_out() -> None:
    """The oldest candidate made room before the new one was in: the second stage folded up, and the new
    candidate took the place of the established session, which nobody could reach any more."""
    wire = Wire()
    listener = wire.stack.listen(wire.now, port=80)
    ssa = wire.stack.das(listener, wire.now, grain="client", pin=64).lease.address
    first = Peer(wire, ssa, address=CLIENT, port=1000, remote_port=80)
    first.connect()
    accepted = listener.accept()
    assert accepted is not None
    wire.send(builders.tcp(CLIENT, ssa, 1001, 80, "S", seq=5000))
    for host in range(2, 9):
        wire.send(builders.tcp(f"2001:db8:2::{host}", ssa, 1002, 80, "S", seq=6000))
    wire.send(builders.tcp(CLIENT, ssa, 1005, 80, "S", seq=9000))
    wire.take()
    first.send("PA", b"hello")
    assert accepted.read(100, wire.now) == b"hello"


@pytest.mark.rule("UM-33")
def test_a_client_whose_connection_was_aborted_may_come_again_at_once() -> None:
    """The record of the abort silenced every new SYN of that client for a minute."""
    wire = Wire()
    service = parse("2001:db8:1::80")
    listener = wire.stack.listen(wire.now, address=service, port=80)
    peer = Peer(wire, service, address=CLIENT, port=1000, remote_port=80)
    peer.connect()
    accepted = listener.accept()
    assert accepted is not None
    accepted.abort(wire.now)
    peer.expect("RA")
    again = Peer(wire, service, address=CLIENT, port=1001, remote_port=80)
    again.connect()
    assert listener.accept() is not None


@pytest.mark.rule("UM-39")
def test_an_error_about_a_datagram_that_was_never_sent_is_not_believed() -> None:
    """A bound socket believed errors about any destination: the path MTU of strangers could be set from outside."""
    wire = Wire()
    service = parse("2001:db8:1::53")
    socket = wire.stack.udp(wire.now, address=service, port=53)
    never = builders.udp(service, "2001:db8:77::5", 53, 4000, b"x" * 100)
    before = wire.stack.counters.snapshot()["drop.icmp_not_believed"]
    wire.send(builders.packet_too_big("2001:db8:66::1", never, 1300))
    wire.send(builders.unreachable("2001:db8:66::1", never, 4))
    assert wire.stack.counters.snapshot()["drop.icmp_not_believed"] == before + 2
    assert not socket.readable
    socket.send(b"x" * 100, wire.now, to=(parse("2001:db8:77::5"), 4000))
    wire.take()
    wire.send(builders.unreachable("2001:db8:66::1", never, 4))
    assert socket.take_error().name == "PORT_UNREACHABLE"


@pytest.mark.rule("UM-18")
def test_a_reply_from_an_address_that_has_ended_is_refused_and_leaves_from_no_other() -> None:
    """It went out from a fresh EA: the peer got an answer from somebody it had never spoken to."""
    wire = Wire()
    socket = wire.stack.udp(wire.now, port=53)
    ssa = wire.stack.das(socket, wire.now).lease.address
    wire.send(builders.udp(CLIENT, ssa, 4000, 53, b"question"))
    assert socket.receive_datagram() is not None
    wire.advance(seconds(121))
    with pytest.raises(AddressNotOurs):
        socket.send(b"late", wire.now, to=(parse(CLIENT), 4000), source=ssa)
    assert wire.take() == []


@pytest.mark.parametrize(
    "setting", [{"memory": -1}, {"telescope": -3}, {"das_lifetime": 0}, {"memory": 10}], ids=lambda one: str(one)
)
def test_a_stack_that_could_not_work_is_refused(setting: dict[str, int]) -> None:
    with pytest.raises(BadArgument, match=next(iter(setting))):
        StackConfig(prefix=parse("2001:db8:1::"), **setting)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "setting",
    [{"receive_buffer": -5}, {"send_buffer": 0}, {"rto_max": 1}, {"keepalive_interval": 0}, {"rto_min": 90_000_000}],
    ids=lambda one: str(one),
)
def test_a_tcp_that_could_not_work_is_refused(setting: dict[str, int]) -> None:
    with pytest.raises(BadArgument, match=next(iter(setting))):
        TcpPolicy(**setting)  # type: ignore[arg-type]
