"""An idle session packs itself (docs/decisions/0002): nothing that the wire or the application sees differs."""

from umuxstack.core.config import TcpPolicy
from umuxstack.core.tcp import state as st
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.units import NEVER, minutes, seconds
from umuxstack.testing.network import Host, Network


def sleeps(session: TcpSession) -> bool:
    return session.asleep


def idle_pair(net: Network) -> tuple[Host, Host, TcpSession, TcpSession]:
    """Client and server whose session carried 100 KB each way, and then nothing for five seconds."""
    client, server = net.hosts("client", "server")
    session, accepted = net.established(client, server)
    for sender, receiver in ((session, accepted), (accepted, session)):
        left, got = 100_000, 0
        while got < 100_000:
            if left and sender.writable:
                left -= sender.write(bytes(min(left, 10_000)), net.now)
            net.run_for(1000)
            got += len(receiver.read(1 << 20, net.now))
    net.run_for(seconds(5))
    return client, server, session, accepted


def test_an_idle_session_sleeps_and_no_timer_is_left() -> None:
    with Network(seed=1) as net:
        client, server, session, accepted = idle_pair(net)
        assert sleeps(session)
        assert sleeps(accepted)
        assert client.stack.next_deadline() == NEVER
        assert server.stack.next_deadline() == NEVER
        assert [lease.name for lease in client.stack.leases()] == ["ea.1"]


def test_what_sleeps_says_the_same_as_what_is_awake_and_looking_does_not_wake_it() -> None:
    with Network(seed=2) as net:
        client, server = net.hosts("client", "server")
        session, accepted = net.established(client, server)
        before = session.statistics()
        shown = (session.port, session.local_port, session.remote_port, session.state_name, session.writable)
        net.run_for(seconds(5))
        assert sleeps(session)
        assert session.statistics() == before
        assert (session.port, session.local_port, session.remote_port, session.state_name, session.writable) == shown
        assert not session.readable
        assert session.read(100, net.now) == b""
        assert not session.ended
        assert sleeps(session)
        assert sleeps(accepted)


def test_a_packet_wakes_a_session_and_data_goes_on_where_it_stopped() -> None:
    with Network(seed=3) as net:
        client, server, session, accepted = idle_pair(net)
        for number in range(3):
            text = f"message {number}".encode()
            assert session.write(text, net.now) == len(text)
            assert not sleeps(session)
            net.run_for(seconds(1))
            assert accepted.read(100, net.now) == text
            net.run_for(minutes(3))
            assert sleeps(session)
            assert sleeps(accepted)
        session.close(net.now)
        net.run_for(seconds(1))
        assert accepted.eof
        assert accepted.state == st.CLOSE_WAIT
        accepted.close(net.now)
        net.run_for(minutes(2))
        assert client.stack.leftovers()["pairs"] == 0
        assert server.stack.leftovers()["leases"] == 0


def test_a_sleeping_session_can_be_aborted_and_its_address_dies_with_it() -> None:
    with Network(seed=4) as net:
        client, _, session, accepted = idle_pair(net)
        session.abort(net.now)
        net.run_for(seconds(1))
        assert accepted.ended
        assert accepted.end_reason.name == "RESET"
        net.run_for(minutes(2))
        assert client.stack.leftovers()["leases"] == 0


def test_unread_data_or_a_policy_of_its_own_or_a_timer_keeps_a_session_awake() -> None:
    with Network(seed=5) as net:
        client, server = net.hosts("client", "server")
        session, accepted = net.established(client, server)
        session.write(b"unread", net.now)
        net.run_for(seconds(10))
        assert sleeps(session)
        assert not sleeps(accepted)
        assert accepted.read(100, net.now) == b"unread"
        session.configure(nodelay=True)
        net.run_for(seconds(10))
        assert not sleeps(session)
        assert sleeps(accepted)


def test_with_keep_alive_a_session_does_not_sleep_through_its_probes() -> None:
    with Network(seed=6) as net:
        client = net.host("client", tcp=TcpPolicy(keepalive=True, keepalive_idle=minutes(1)))
        server = net.host("server")
        session, accepted = net.established(client, server)
        net.run_for(seconds(30))
        assert not sleeps(session)
        assert sleeps(accepted)
        before = len(net.sent_by(client, to=server))
        net.run_for(minutes(2))
        assert len(net.sent_by(client, to=server)) > before
        assert session.established
