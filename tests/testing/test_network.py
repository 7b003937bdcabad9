"""The network in virtual time, with real stacks on it."""

import hashlib
from pathlib import Path

import dpkt
import pytest

import umuxstack.testing
from umuxstack.core.errors import Reason
from umuxstack.core.events import EventKind
from umuxstack.core.tcp import state as st
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.udp.session import UdpSocket
from umuxstack.core.units import Micros, millis, minutes, seconds
from umuxstack.driver.links.impair import Impairment
from umuxstack.testing import builders, checks
from umuxstack.testing.apps import Acceptor, Echo, Transfer
from umuxstack.testing.network import Host, Network


def pattern(size: int) -> bytes:
    """Bytes whose every stretch says where it comes from."""
    return b"".join(n.to_bytes(4, "big") for n in range(size // 4 + 1))[:size]


def transfer(net: Network, client: Host, server: Host, data: bytes) -> tuple[Transfer, Acceptor]:
    """`client` sends `data` to an SSA of `server`, until both have finished."""
    door = server.listen()
    received = server.serve(door, Transfer)
    sender = client.attach(client.connect(server.das(door).address), Transfer(data))
    net.run_until(lambda: sender.done and bool(received.apps) and received.apps[0].done)  # type: ignore[attr-defined]
    server.close(door)
    return sender, received


def test_what_a_simulation_needs_first_is_found_where_the_readme_says() -> None:
    """`umuxstack.testing.Network` was written there and did not exist."""
    assert umuxstack.testing.Network is Network
    for name in umuxstack.testing.__all__:
        assert getattr(umuxstack.testing, name).__name__ == name
    with pytest.raises(AttributeError, match="Netwrok"):
        umuxstack.testing.Netwrok  # noqa: B018


def test_two_hosts_meet_talk_and_leave_nothing_behind() -> None:
    with Network() as net:
        client, server = net.hosts("client", "server")
        ours, theirs = net.established(client, server)
        client.write(ours, b"hello")
        net.run_for(millis(100))
        assert server.read(theirs) == b"hello"
        assert net.sent_by(client, checks.tcp("S"), to=server)[0].payload == b""
        assert net.checked == len(net.sent) > 4
    assert net.leftovers() == {}


def test_time_stands_where_the_last_thing_happened() -> None:
    with Network() as net:
        client, server = net.hosts("client", "server")
        start = net.now
        net.established(client, server)
        assert millis(3) <= net.now - start <= millis(4)  # SYN, SYN-ACK and ACK at 1 ms each
        net.run_until_idle()
        assert net.now - start < seconds(5)
        assert net.sent[-1].time - start <= millis(4)
        idle = net.now
        net.run_for(seconds(7))
        assert net.now - idle == seconds(7)


@pytest.mark.parametrize("offload", [False, True])
def test_a_megabyte_arrives_as_it_was_sent(offload: bool) -> None:
    with Network(offload=offload) as net:
        client, server = net.hosts("client", "server")
        data = pattern(1_000_000)
        _, received = transfer(net, client, server, data)
        assert received.apps[0].received == data  # type: ignore[attr-defined]


def test_a_megabyte_arrives_over_a_wire_that_does_everything_wrong() -> None:
    bad = Impairment(
        delay=millis(10),
        jitter=millis(2),
        loss=0.02,
        reorder=0.02,
        duplicate=0.02,
        corrupt=0.02,
        rate=50_000_000,
        queue_packets=60,
    )
    with Network(offload=True) as net:
        client, server = net.hosts("client", "server", wire=bad)
        data = pattern(1_000_000)
        _, received = transfer(net, client, server, data)
        assert hashlib.sha256(received.apps[0].received).digest() == hashlib.sha256(data).digest()  # type: ignore[attr-defined]
        down = server.port.down.statistics()
        assert min(down.lost, down.corrupted, down.duplicated, down.reordered) > 0


def test_one_seed_one_run() -> None:
    def run(seed: int) -> list[tuple[int, bytes]]:
        net = Network(seed=seed)
        client, server = net.hosts("client", "server", wire=Impairment(delay=millis(3), loss=0.1, jitter=millis(1)))
        transfer(net, client, server, bytes(50_000))
        return [(seen.time, seen.raw) for seen in net.sent]

    assert run(11) == run(11)
    assert run(11) != run(12)


def test_the_seed_comes_from_the_environment_and_stands_in_the_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UMUX_SEED", "4711")
    with pytest.raises(ZeroDivisionError) as failure, Network():
        raise ZeroDivisionError
    assert "UMUX_SEED=4711" in failure.value.__notes__[0]
    assert "UMUX_SEED=4711" in capsys.readouterr().out


def test_a_filter_takes_what_it_is_told_and_no_more() -> None:
    with Network() as net:
        client, server = net.hosts("client", "server")
        lost = net.lose(checks.tcp("SA"), sender=server, limit=2)
        net.established(client, server)
        assert len(lost.taken) == 2
        assert len(net.sent_by(server, checks.tcp("SA"))) == 3
        everything = net.lose()
        net.restore(everything)
        client.ping(net.sent[-1].destination)
        net.run_until_idle()
        assert everything.taken == []


def test_an_echo_server_gives_everything_back() -> None:
    with Network() as net:
        client, server = net.hosts("client", "server")
        door = server.listen()
        echoes = server.serve(door, Echo)
        data = pattern(100_000)
        talk = client.attach(client.connect(server.das(door).address), Transfer(data))
        net.run_until(lambda: talk.done)
        assert talk.received == data
        assert isinstance(echoes.apps[0], Echo)
        assert echoes.apps[0].count == len(data)


def test_datagrams_and_pings_cross_as_well() -> None:
    with Network() as net:
        client, server = net.hosts("client", "server")
        service = "2001:db8:2::53"
        waiting = server.udp(address=service, port=53)
        asking = client.udp()
        client.send_to(asking, b"question", service, 53)
        net.run_until(lambda: waiting.readable)
        question = waiting.receive_datagram()
        assert question is not None
        assert question.data == b"question"
        ping = client.ping(service, b"anybody?")
        net.run_for(seconds(1))
        reply = ping.take_reply()
        assert reply is None or reply.data == b"anybody?"


def test_shared_addresses_are_routed_to_their_host() -> None:
    with Network() as net:
        client = net.host("client")
        server = net.host("server", shared=["2001:db8:ffee::80"])
        web = server.listen(address="2001:db8:ffee::80", port=80)
        session = client.connect("2001:db8:ffee::80", 80)
        net.run_until(lambda: session.established and web.readable)
        assert web.accept() is not None


def test_a_packet_of_the_tests_own_making_can_be_thrown_at_a_host() -> None:
    with Network() as net:
        (server,) = net.hosts("server")
        net.inject(builders.tcp("2001:db8:f::1", "2001:db8:1::99", flags="S"))
        net.run_until_idle()
        assert net.sent == []
        assert sum(server.stack.counters.drops) == 1


def test_a_smaller_wire_makes_its_size_known() -> None:
    with Network() as net:
        client = net.host("client")
        server = net.host("server")
        narrow = net.host("narrow", mtu=1300)
        data = pattern(200_000)
        transfer(net, client, server, data)
        _, received = transfer(net, narrow, client, data)
        assert received.apps[0].received == data  # type: ignore[attr-defined]
        assert max(len(seen.raw) for seen in net.sent_by(narrow)) == 1300
        assert max(len(seen.raw) for seen in net.sent_by(client, to=server)) == 1500


def test_what_is_left_behind_is_named() -> None:
    net = Network()
    client, server = net.hosts("client", "server")
    net.established(client, server)
    with pytest.raises(AssertionError, match=r"left behind.*'client': \{'pairs': 1.*ea\.1"):
        net.check_no_leaks(rest=seconds(1))


def test_a_goal_that_is_not_reached_fails_at_its_limit() -> None:
    net = Network()
    net.hosts("one", "two")
    start = net.now
    with pytest.raises(AssertionError, match="still not so after 60 s"):
        net.run_until(lambda: False, minutes(1))
    assert net.now - start == minutes(1)


@pytest.mark.plain
def test_a_host_that_sends_from_a_strange_address_is_caught() -> None:
    net = Network()
    (host,) = net.hosts("host")
    host.stack.take_output = lambda now: [(builders.udp("2001:db8:9::1", "2001:db8:8::1"), b"", 0, 0)]  # type: ignore[method-assign]
    with pytest.raises(AssertionError, match="not its own"):
        net.run_for(1)


@pytest.mark.plain
def test_an_unsound_packet_is_caught_with_the_seed() -> None:
    net = Network(seed=99)
    (host,) = net.hosts("host")
    host.stack.take_output = lambda now: [(builders.udp("2001:db8:1::1", "2001:db8:8::1", checksum=7), b"", 0, 0)]  # type: ignore[method-assign]
    with pytest.raises(AssertionError, match="wrong checksum") as failure:
        net.run_for(1)
    assert failure.value.__notes__ == ["UMUX_SEED=99, at 1000.000000 s, sent by host"]


def test_events_of_all_hosts_are_kept() -> None:
    with Network() as net:
        client, server = net.hosts("client", "server")
        net.established(client, server)
        net.run_until_idle()
        assert EventKind.SESSION_ESTABLISHED in [event.kind for event in client.events]
        assert EventKind.DAS in [event.kind for event in server.events]


def test_verbs_reach_the_stack_at_the_networks_time() -> None:
    with Network() as net:
        client, server = net.hosts("client", "server")
        ours, theirs = net.established(client, server)
        client.abort(ours)
        net.run_until(lambda: theirs.ended)
        assert theirs.end_reason == Reason.RESET
        ours, theirs = net.established(client, server)
        client.shutdown(ours)
        net.run_until(lambda: theirs.eof)
        assert theirs.state == st.CLOSE_WAIT
        door = server.listen()
        waiting = server.das(door, peer="2001:db8:1::/64")
        server.revoke(waiting.address)
        assert door.readable is False
        assert [s for s in server.sessions() if isinstance(s, TcpSession)] == [theirs]


def test_das_for_a_udp_socket_opens_a_door() -> None:
    with Network() as net:
        client, server = net.hosts("client", "server")
        socket = server.udp()
        assert isinstance(socket, UdpSocket)
        door = server.das(socket)
        client.send_to(client.udp(), b"knock", door.address)
        net.run_until(lambda: socket.readable)


def test_a_capture_can_be_read_by_others(tmp_path: Path) -> None:
    net = Network()
    client, server = net.hosts("client", "server")
    net.established(client, server)
    net.write_pcap(tmp_path / "run.pcap")
    with open(tmp_path / "run.pcap", "rb") as file:
        packets = list(dpkt.pcap.Reader(file))
    assert [data for _, data in packets] == [seen.raw for seen in net.sent]
    assert packets[0][0] == pytest.approx(net.sent[0].time / 1e6)


@pytest.mark.plain
def test_time_that_does_not_pass_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umuxstack.testing.network.LIVELOCK", 100)
    net = Network()
    (host,) = net.hosts("host")
    host.stack.next_deadline = lambda: Micros(0)  # type: ignore[method-assign]
    with pytest.raises(AssertionError, match="no time passes"):
        net.run_for(1)
