"""Scripts written for Linux: whose they are, what their commands mean, and what their code may ask."""

import pytest

from umuxstack.conformance.commands import interpret
from umuxstack.conformance.outcome import Status, UnsupportedConstruct
from umuxstack.conformance.runner import guess_personality, run_text

SERVER = """
    0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
   +0 bind(3, ..., ...) = 0
   +0 listen(3, 1) = 0
"""


def passes(text: str) -> None:
    outcome = run_text(text)
    assert outcome.status is Status.PASSED, (outcome.message, outcome.line, outcome.details)


def test_an_option_bit_of_tcp_info_is_no_sign_of_freebsd() -> None:
    """`TCPI_OPT_SYN_DATA` is Linux's; FreeBSD's are its states. All of Fast Open's scripts were taken for FreeBSD's."""
    assert guess_personality("+0 %{ assert tcpi_options & TCPI_OPT_ECN }%") == "linux"
    assert guess_personality("+0 %{ assert tcpi_state == TCPI_ESTABLISHED }%") == "freebsd"


def test_sizes_may_be_products() -> None:
    """A shell computes `$((...))`; the setting was unknown to us as it stood there."""
    (effect,) = interpret('sysctl -q net.ipv4.tcp_rmem="4096 20000 $((3 * 1024*1024))"')
    assert effect.policy == {"receive_buffer": 10_000, "receive_buffer_max": 3 << 20}
    with pytest.raises(UnsupportedConstruct, match="arithmetic"):
        interpret('sysctl -q net.ipv4.tcp_wmem="4096 20000 $((1 << 20))"')


def test_cookies_of_servers_can_be_forgotten() -> None:
    """Flushing the metrics of peers forgets their cookies too, by either name; it was read as having no effect."""
    for command in (
        "ip tcp_metrics flush all &> /dev/null",
        "sysctl -q net.ipv4.tcp_fastopen_cookies=0 net.ipv4.tcp_fastopen_cookies=10 || ip tcp_metrics flush",
    ):
        assert interpret(command)[0].forgets_cookies
        ask = "   +0 > S 0:0(0) <mss 1460,sackOK,TS val 1 ecr 0,nop,wscale 8,FO,nop,nop>\n"
        passes(
            f"""
    0 socket(..., SOCK_STREAM|SOCK_NONBLOCK, IPPROTO_TCP) = 3
   +0 sendto(3, ..., 0, MSG_FASTOPEN, ..., ...) = -1 EINPROGRESS (now)
{ask} +.01 < S. 0:0(0) ack 1 win 65535 <mss 1400,FO abcd1234,nop,nop>
   +0 > . 1:1(0) ack 1
   +0 close(3) = 0
   +0 > F. 1:1(0) ack 1
   +0 < . 1:1(0) ack 2 win 65535
   +0 `{command}`
 +.01 socket(..., SOCK_STREAM|SOCK_NONBLOCK, IPPROTO_TCP) = 4
   +0 sendto(4, ..., 10, MSG_FASTOPEN, ..., ...) = -1 EINPROGRESS (now)
{ask}"""
        )


def test_what_paces_is_unsupported() -> None:
    """The queueing discipline fq sends what TCP gives it later: no time in such a script is TCP's own."""
    with pytest.raises(UnsupportedConstruct, match="qdisc fq"):
        interpret("tc qdisc replace dev tun0 root fq")
    with pytest.raises(UnsupportedConstruct, match="parameter hystart of tcp_cubic"):
        interpret("echo 0 > /sys/module/tcp_cubic/parameters/hystart")


def test_an_ipv4_path_may_be_narrower_than_any_of_ipv6() -> None:
    """RFC 8201's least MTU of 1280 is not IPv4's: the error was dropped, and the data never came again."""
    passes(
        SERVER
        + """
   +0 < S 0:0(0) win 65535 <mss 1400>
   +0 > S. 0:0(0) ack 1 <mss 1460>
  +.1 < . 1:1(0) ack 1 win 65535
   +0 accept(3, ..., ...) = 4
   +0 write(4, ..., 1400) = 1400
   +0 > P. 1:1401(1400) ack 1
   +0 < icmp unreachable frag_needed mtu 900 [1:1401(1400)]
   +0 > . 1:861(860) ack 1
   +0 > P. 861:1401(540) ack 1
"""
    )


def test_the_expected_window_scale_tells_of_the_buffers() -> None:
    """A script without settings was written on a machine whose limit was another one than ours."""
    passes(
        SERVER
        + """
   +0 < S 0:0(0) win 65535 <mss 1400,nop,wscale 3>
   +0 > S. 0:0(0) ack 1 <mss 1460,nop,wscale 6>
"""
    )


def test_what_tcp_info_tells() -> None:
    """Names that scripts of the public suites ask for, with their values on the way."""
    passes(
        SERVER
        + """
   +0 setsockopt(3, SOL_TCP, TCP_MAXSEG, [900], 4) = 0
   +0 getsockopt(3, SOL_TCP, TCP_MAXSEG, [900], [4]) = 0
   +0 < S 0:0(0) win 65535 <mss 1000,sackOK,nop,nop>
   +0 > S. 0:0(0) ack 1 <mss 900,nop,nop,sackOK>
  +.1 < . 1:1(0) ack 1 win 1000
   +0 accept(3, ..., ...) = 4
   +0 < . 1:801(800) ack 1 win 1000
   +0 > . 1:1(0) ack 801
  +.3 %{ assert 299 <= tcpi_last_data_recv <= 301, tcpi_last_data_recv }%
   +0 %{ assert tcpi_bytes_received == 800 and tcpi_rcv_mss == 800 and tcpi_advmss == 900 }%
   +0 write(4, ..., 1800) = 1800
   +0 > . 1:901(900) ack 801
  +.1 %{ assert tcpi_busy_time == 100000 == tcpi_rwnd_limited, (tcpi_busy_time, tcpi_rwnd_limited) }%
   +0 < . 801:801(0) ack 901 win 9000
   +0 > P. 901:1801(900) ack 801
  +.1 %{ assert tcpi_busy_time == 200000 and tcpi_rwnd_limited == 100000 and tcpi_sndbuf_limited == 0 }%
"""
    )


def test_repaired_segments_count_as_lost() -> None:
    """Until it is acknowledged, what was lost and sent again is in `tcpi_lost` and in `tcpi_retrans`."""
    passes(
        SERVER
        + """
   +0 < S 0:0(0) win 65535 <mss 1000,sackOK,nop,nop>
   +0 > S. 0:0(0) ack 1 <mss 1460,nop,nop,sackOK>
  +.1 < . 1:1(0) ack 1 win 65535
   +0 accept(3, ..., ...) = 4
   +0 write(4, ..., 9000) = 9000
   +0 > P. 1:9001(9000) ack 1
  +.1 < . 1:1(0) ack 1 win 65535 <sack 2001:6001,nop,nop>
   +0 > . 1:2001(2000) ack 1
   +0 %{ assert (tcpi_lost, tcpi_retrans, tcpi_sacked) == (2, 2, 4), (tcpi_lost, tcpi_retrans) }%
  +.1 < . 1:1(0) ack 9001 win 65535
   +0 %{ assert (tcpi_lost, tcpi_retrans, tcpi_sacked) == (0, 0, 0) }%
"""
    )


def test_an_icmp_error_without_a_quotation_is_of_the_syn() -> None:
    """It was unsupported. An established connection does not believe it; an echo's answer needs no line of its own."""
    passes(
        SERVER
        + """
   +0 < S 0:0(0) win 65535 <mss 1000>
   +0 > S. 0:0(0) ack 1 <mss 1460>
  +.1 < . 1:1(0) ack 1 win 65535
   +0 accept(3, ..., ...) = 4
   +0 write(4, ..., 500) = 500
   +0 > P. 1:501(500) ack 1
   +0 < icmp unreachable port_unreachable
   +0 < icmp timestamp_request
   +0 < icmp type_17 code_0
   +0 < icmp echo_request
 +.01 < . 1:1(0) ack 501 win 65535
   +0 close(4) = 0
   +0 > F. 501:501(0) ack 1
"""
    )


CLIENT = """
    0 socket(..., SOCK_STREAM|SOCK_NONBLOCK, IPPROTO_TCP) = 3
   +0 setsockopt(3, SOL_IP, IP_LOCAL_PORT_RANGE, [0x9c409c40], 4) = 0
   +0 connect(3, ..., ...) = -1 EINPROGRESS (Operation now in progress)
   +0 > S 0:0(0) <...>
 +.01 < S. 0:0(0) ack 1 win 65535 <mss 1400,sackOK,TS val 70 ecr 0>
   +0 > . 1:1(0) ack 1 <...>
   +0 close(3) = 0
   +0 > F. 1:1(0) ack 1 <...>
 +.01 < F. 1:1(0) ack 2 win 65535 <nop,nop,TS val 71 ecr 0>
   +0 > . 2:2(0) ack 2 <...>
   +0 socket(..., SOCK_STREAM|SOCK_NONBLOCK, IPPROTO_TCP) = 3
   +0 setsockopt(3, SOL_IP, IP_LOCAL_PORT_RANGE, [0x9c409c40], 4) = 0
"""


def test_a_port_in_time_wait_is_not_chosen() -> None:
    """A range of one port whose four-tuple is in TIME-WAIT: none is left, unless reuse is allowed, and then late."""
    passes(CLIENT + "  +1 connect(3, ..., ...) = -1 EADDRNOTAVAIL (Cannot assign requested address)\n")
    passes("`sysctl -q net.ipv4.tcp_tw_reuse=1`\n" + CLIENT + "+.9 connect(3, ..., ...) = -1 EADDRNOTAVAIL (none)\n")
    passes("`sysctl -q net.ipv4.tcp_tw_reuse=1`\n" + CLIENT + "+1.1 connect(3, ..., ...) = -1 EINPROGRESS (now)\n")
    sysctls = "./set_sysctls.py /proc/sys/net/ipv4/tcp_tw_reuse_delay=3 # ms"
    passes(
        f"`sysctl -q net.ipv4.tcp_tw_reuse=1\n{sysctls}`\n{CLIENT}+.004 connect(3, ..., ...) = -1 EINPROGRESS (now)\n"
    )


def test_a_port_that_was_in_time_wait_goes_on_with_its_timestamps() -> None:
    """The SYN echoes what the old connection heard last, if the port was looked for; who binds it begins anew."""
    again = """+1.1 connect(3, ..., ...) = -1 EINPROGRESS (now)
   +0 > S 0:0(0) <mss 1460,sackOK,TS val 200 ecr %d,nop,wscale 8>
"""
    passes("`sysctl -q net.ipv4.tcp_tw_reuse=1`\n" + CLIENT + again % 71)
    bound = CLIENT.replace("setsockopt(3, SOL_IP, IP_LOCAL_PORT_RANGE, [0x9c409c40], 4)", "bind(3, ..., ...)")
    passes("--bind_port=4711\n" + bound + again % 0)


def test_a_route_may_narrow_the_segments() -> None:
    (effect,) = interpret("ip route change 192.0.2.2 via 192.168.0.2 dev tun0 advmss 1400 mtu lock 1300")
    assert effect.policy == {"mss": 1260}


def test_a_socket_of_two_minds_is_refused() -> None:
    passes("+0 socket(..., SOCK_STREAM, IPPROTO_UDP) = -1 EPROTONOSUPPORT (Protocol not supported)\n")


def test_how_far_out_of_order_segments_came() -> None:
    """`tcpi_reordering` was always 3. It is the distance in segments below the highest SACKed."""
    passes(
        SERVER
        + """
   +0 < S 0:0(0) win 65535 <mss 1000,sackOK,nop,nop>
   +0 > S. 0:0(0) ack 1 <mss 1460,nop,nop,sackOK>
  +.1 < . 1:1(0) ack 1 win 65535
   +0 accept(3, ..., ...) = 4
   +0 write(4, ..., 9000) = 9000
   +0 > P. 1:9001(9000) ack 1
  +.1 < . 1:1(0) ack 1 win 65535 <sack 7001:8001,nop,nop>
   +0 %{ assert (tcpi_reordering, tcpi_reord_seen) == (3, 0), (tcpi_reordering, tcpi_reord_seen) }%
 +.01 < . 1:1(0) ack 1 win 65535 <sack 3001:4001 7001:8001,nop,nop>
   +0 %{ assert (tcpi_reordering, tcpi_reord_seen) == (5, 1), (tcpi_reordering, tcpi_reord_seen) }%
   +0 < . 1:1(0) ack 8001 win 65535
   +0 %{ assert (tcpi_reordering, tcpi_reord_seen) == (8, 2), (tcpi_reordering, tcpi_reord_seen) }%
"""
    )


QUEUE = """
`sysctl -q net.ipv4.tcp_wmem="4096 40000 4194304"`
    0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
   +0 bind(3, ..., ...) = 0
   +0 listen(3, 1) = 0
   +0 < S 0:0(0) win 24000 <mss 1000,sackOK,nop,nop>
   +0 > S. 0:0(0) ack 1 <mss 1460,nop,nop,sackOK>
 +.01 < . 1:1(0) ack 1 win 24000
   +0 accept(3, ..., ...) = 4
   +0 fcntl(4, F_SETFL, O_RDWR|O_NONBLOCK) = 0
"""


def test_a_write_is_taken_in_chunks() -> None:
    """Linux's socket counts chunks of half the window: of 60000 octets it takes four, and there is room by thirds."""
    passes(
        QUEUE
        + """
   +0 epoll_create(1) = 5
   +0 epoll_ctl(5, EPOLL_CTL_ADD, 4, {events=EPOLLOUT|EPOLLET, fd=4}) = 0
   +0 epoll_wait(5, {events=EPOLLOUT, fd=4}, 1, 0) = 1
   +0 write(4, ..., 60000) = 46000
   +0 > . 1:10001(10000) ack 1
   +0 write(4, ..., 1000) = -1 EAGAIN (Resource temporarily unavailable)
   +0 epoll_wait(5, {events=0, ptr=0}, 1, 0) = 0
 +.01 < . 1:1(0) ack 10001 win 24000
   +0 epoll_wait(5, {events=EPOLLOUT, fd=4}, 1, 0) = 1
   +0 epoll_wait(5, {events=0, ptr=0}, 1, 0) = 0
"""
    )


def test_what_is_not_sent_has_a_mark() -> None:
    """TCP_NOTSENT_LOWAT bounds what waits for the congestion window, and poll tells when it is down to half of that."""
    passes(
        QUEUE
        + """
   +0 setsockopt(4, SOL_TCP, TCP_NOTSENT_LOWAT, [6000], 4) = 0
   +0 write(4, ..., 60000) = 22000
   +0 > . 1:10001(10000) ack 1
   +0...0.010 poll([{fd=4, events=POLLOUT, revents=POLLOUT}], 1, -1) = 1
 +.01 < . 1:1(0) ack 10001 win 24000
"""
    )
    passes(
        QUEUE.replace("`sysctl -q", "`sysctl -q net.ipv4.tcp_notsent_lowat=6000\nsysctl -q")
        + "+0 write(4, ..., 60000) = 22000\n"
    )


def test_a_blocking_write_waits_for_a_third() -> None:
    """SO_SNDBUF is doubled, and then counted with what chunks cost; time without data to send is told apart."""
    passes(
        QUEUE
        + """
   +0 fcntl(4, F_SETFL, O_RDWR) = 0
   +0 setsockopt(4, SOL_SOCKET, SO_SNDBUF, [9000], 4) = 0
   +0 getsockopt(4, SOL_SOCKET, SO_SNDBUF, [18000], [4]) = 0
+0...0.040 write(4, ..., 30000) = 30000
   +0 > . 1:10001(10000) ack 1
 +.02 < . 1:1(0) ack 10001 win 24000
   +0 > P. 10001:22001(12000) ack 1
 +.02 < . 1:1(0) ack 15001 win 24000
   +0 > P. 22001:30001(8000) ack 1
   +0 %{ assert tcpi_busy_time == 40000 and tcpi_sndbuf_limited == 20000, (tcpi_busy_time, tcpi_sndbuf_limited) }%
"""
    )


ACCEPTED = """
   +0 < S 0:0(0) win 65535 <mss 1000>
   +0 > S. 0:0(0) ack 1 <mss 1460>
  +.1 < . 1:1(0) ack 1 win 65535
   +0 accept(3, ..., ...) = 4
"""


def test_what_need_not_be_kept_is_told_once_for_a_range() -> None:
    """Our sockets copy: so the notice says, after the acknowledgement, and only to who asked for it."""
    notice = """
   +0 recvmsg(4, {msg_name(...)=..., msg_iov(1)=[{..., 0}], msg_flags=MSG_ERRQUEUE,
                  msg_control=[{cmsg_level=CMSG_LEVEL_IP, cmsg_type=CMSG_TYPE_RECVERR,
                                cmsg_data={ee_errno=0, ee_origin=SO_EE_ORIGIN_ZEROCOPY, ee_type=0,
                                           ee_code=SO_EE_CODE_ZEROCOPY_COPIED, ee_info=%d, ee_data=%d}}]},
              MSG_ERRQUEUE) = 0
"""
    nothing = """
   +0 recvmsg(4, {msg_name(...)=..., msg_iov(1)=[{..., 0}], msg_flags=0, msg_control=[]}, MSG_ERRQUEUE) = -1 EAGAIN
"""
    script = (
        SERVER
        + ACCEPTED
        + """
   +0 send(4, ..., 100, MSG_ZEROCOPY) = 100
   +0 > P. 1:101(100) ack 1
  +.1 < . 1:1(0) ack 101 win 65535
"""
        + nothing
        + """
   +0 setsockopt(4, SOL_SOCKET, SO_ZEROCOPY, [1], 4) = 0
   +0 setsockopt(4, SOL_TCP, TCP_NODELAY, [1], 4) = 0
   +0 send(4, ..., 200, MSG_ZEROCOPY) = 200
   +0 > P. 101:301(200) ack 1
   +0 send(4, ..., 900, MSG_ZEROCOPY) = 900
   +0 > P. 301:1201(900) ack 1
   +0 send(4, ..., 50, 0) = 50
   +0 > P. 1201:1251(50) ack 1
"""
        + nothing
        + """
   +0 poll([{fd=4, events=POLLIN, revents=0}], 1, 0) = 0
  +.1 < . 1:1(0) ack 1251 win 65535
   +0 poll([{fd=4, events=POLLIN, revents=POLLERR}], 1, 0) = 1
"""
    )
    passes(script + notice % (0, 1) + nothing)
    assert run_text(script + notice % (0, 0)).status is Status.FAILED


def test_timestamps_of_what_was_sent() -> None:
    """They tell when the last byte of a write went out, and when it had arrived."""
    stamp = """
   +0 recvmsg(4, {msg_name(...)=..., msg_iov(1)=[{..., 0}], msg_flags=MSG_ERRQUEUE|MSG_TRUNC,
                  msg_control=[{cmsg_level=SOL_SOCKET, cmsg_type=SCM_TIMESTAMPING,
                                cmsg_data={scm_sec=0, scm_nsec=%d}},
                               {cmsg_level=CMSG_LEVEL_IP, cmsg_type=CMSG_TYPE_RECVERR,
                                cmsg_data={ee_errno=ENOMSG, ee_origin=SO_EE_ORIGIN_TIMESTAMPING, ee_type=0,
                                           ee_code=0, ee_info=%s, ee_data=1499}}]}, MSG_ERRQUEUE) = 0
"""
    script = (
        SERVER
        + ACCEPTED.replace("65535\n   +0 accept", "1000\n   +0 accept")
        + """
   +0 setsockopt(4, SOL_SOCKET, SO_TIMESTAMPING,
                 [SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_TX_ACK | SOF_TIMESTAMPING_SOFTWARE |
                  SOF_TIMESTAMPING_OPT_ID], 4) = 0
   +0 write(4, ..., 1500) = 1500
   +0 > . 1:1001(1000) ack 1
 +.05 < . 1:1(0) ack 1001 win 1000
   +0 > P. 1001:1501(500) ack 1
 +.04 < . 1:1(0) ack 1501 win 1000
"""
    )
    passes(script + stamp % (150_000_000, "SCM_TSTAMP_SND") + stamp % (190_000_000, "SCM_TSTAMP_ACK"))
    assert run_text(script + stamp % (100_000_000, "SCM_TSTAMP_SND")).status is Status.FAILED
    unknown = SERVER + ACCEPTED + "\n+0 setsockopt(4, SOL_SOCKET, SO_TIMESTAMPING, [SOF_TIMESTAMPING_OPT_STATS], 4) = 0"
    assert run_text(unknown).status is Status.UNSUPPORTED


def test_connect_may_wait_for_data() -> None:
    """TCP_FASTOPEN_CONNECT: with a cookie, connect() returns at once, and the first write sends the SYN."""
    passes(
        """
    0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
   +0 fcntl(3, F_SETFL, O_RDWR|O_NONBLOCK) = 0
   +0 setsockopt(3, SOL_TCP, TCP_FASTOPEN_CONNECT, [1], 4) = 0
   +0 connect(3, ..., ...) = -1 EINPROGRESS
   +0 > S 0:0(0) <mss 1460,sackOK,TS val 10 ecr 0,nop,wscale 8,FO,nop,nop>
 +.02 < S. 0:0(0) ack 1 win 20000 <mss 900,FO 0102030405060708,nop,nop>
   +0 > . 1:1(0) ack 1
   +0 write(3, ..., 10) = 10
   +0 > P. 1:11(10) ack 1
   +0 < R. 1:1(0) ack 11 win 0
   +0 close(3) = 0

   +1 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
   +0 fcntl(3, F_SETFL, O_RDWR|O_NONBLOCK) = 0
   +0 setsockopt(3, SOL_TCP, TCP_FASTOPEN_CONNECT, [1], 4) = 0
   +0 connect(3, ..., ...) = 0
   +0 connect(3, ..., ...) = -1 EISCONN
   +0 poll([{fd=3, events=POLLIN|POLLOUT, revents=POLLOUT}], 1, 0) = 1
   +0 read(3, ..., 100) = -1 EAGAIN
  +.1 write(3, ..., 1000) = 860
   +0 > S 0:860(860) <mss 1460,sackOK,TS val 10 ecr 0,nop,wscale 8,FO 0102030405060708,nop,nop>
   +0 sendto(3, ..., 10, MSG_FASTOPEN, ..., ...) = -1 EALREADY
 +.02 < S. 0:0(0) ack 861 win 20000 <mss 900>
   +0 > . 861:861(0) ack 1
   +0 %{ assert tcpi_delivered == 1, tcpi_delivered }%
   +0 write(3, ..., 1800) = 1800
   +0 > P. 861:2661(1800) ack 1
 +.02 < . 1:1(0) ack 1761 win 20000
   +0 %{ assert tcpi_delivered == 2, tcpi_delivered }%
   +0 close(3) = 0
   +0 > F. 2661:2661(0) ack 1
"""
    )


def test_fast_open_may_be_off() -> None:
    passes(
        """
    0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
   +0 `sysctl -q net.ipv4.tcp_fastopen=0`
   +0 sendto(3, ..., 100, MSG_FASTOPEN, ..., ...) = -1 EOPNOTSUPP
   +0 setsockopt(3, SOL_TCP, TCP_FASTOPEN_CONNECT, [1], 4) = -1 EOPNOTSUPP
"""
    )


def test_what_a_blocked_write_sends_answers_the_handshake() -> None:
    """No acknowledgement goes before it, and what comes next may wait for company."""
    passes(
        """
    0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
   +0...0.02 sendto(3, ..., 1500, MSG_FASTOPEN, ..., ...) = 1500
   +0 > S 0:0(0) <mss 1460,sackOK,TS val 10 ecr 0,nop,wscale 8,FO,nop,nop>
 +.02 < S. 0:0(0) ack 1 win 20000 <mss 900,FO 0102030405060708,nop,nop>
   +0 > P. 1:1501(1500) ack 1
 +.02 < P. 1:201(200) ack 1501 win 20000
 +.04 > . 1501:1501(0) ack 201
   +0 < R. 201:201(0) ack 1501 win 0
   +0 close(3) = 0

   // What went with the SYN in vain goes again in one piece, and does not keep back what follows it.
   +1 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
   +0...0.02 sendto(3, ..., 2000, MSG_FASTOPEN, ..., ...) = 2000
   +0 > S 0:860(860) <mss 1460,sackOK,TS val 10 ecr 0,nop,wscale 8,FO 0102030405060708,nop,nop>
 +.02 < S. 0:0(0) ack 1 win 20000 <mss 1000,sackOK,nop,nop>
   +0 > P. 1:861(860) ack 1
   +0 > P. 861:2001(1140) ack 1
   +0 %{ assert tcpi_retrans == 1, tcpi_retrans }%
 +.02 < . 1:1(0) ack 1 win 20000 <sack 861:2001,nop,nop>
+.005 > P. 1:861(860) ack 1
 +.02 < P. 1:201(200) ack 2001 win 20000
   +0 > . 2001:2001(0) ack 201
"""
    )


def test_pipes() -> None:
    """From a socket and into one; what is urgent goes into no pipe."""
    passes(
        SERVER
        + ACCEPTED
        + """
   +0 pipe([7, 8]) = 0
   +0 splice(8, NULL, 4, NULL, 10, 0) = -1 EBADF
   +0 < P. 1:301(300) ack 1 win 65535
   +0 > . 1:1(0) ack 301
   +0 splice(4, NULL, 8, NULL, 200, 0) = 200
   +0 splice(4, NULL, 8, NULL, 200, 0) = 100
   +0 splice(7, NULL, 4, NULL, 400, 0) = 300
   +0 > P. 1:301(300) ack 301
   +0 < PU. 301:311(10) ack 301 win 65535 urg 10
   +0 > . 301:301(0) ack 311
   +0 splice(4, NULL, 8, NULL, 20, 0) = 9
   +0 splice(4, NULL, 8, NULL, 20, 0) = 0
"""
    )


def test_a_syn_ack_echoes_what_was_sent() -> None:
    """Linux's check of the handshake's timestamps: an answer to something else is answered by RST, and ignored."""
    passes(
        """
    0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
   +0 fcntl(3, F_SETFL, O_RDWR|O_NONBLOCK) = 0
   +0 connect(3, ..., ...) = -1 EINPROGRESS
   +0 > S 0:0(0) <mss 1460,sackOK,TS val 10 ecr 0,nop,wscale 8>
 +.02 < S. 0:0(0) ack 1 win 20000 <mss 900,nop,nop,TS val 5 ecr 99999>
   +0 > R 1:1(0)
   +1 > S 0:0(0) <mss 1460,sackOK,TS val 1010 ecr 0,nop,wscale 8>
 +.02 < S. 0:0(0) ack 1 win 20000 <mss 900,nop,nop,TS val 5 ecr 10>
   +0 > . 1:1(0) ack 1 <nop,nop,TS val 1030 ecr 5>
"""
    )


def test_a_full_queue_of_the_sender_drops_only_what_is_sent() -> None:
    """`pfifo limit 0` took the whole link away: the acknowledgement that the script sent meanwhile was lost as well."""
    passes(
        SERVER
        + """
   +0 < S 0:0(0) win 65535 <mss 1000>
   +0 > S. 0:0(0) ack 1 <mss 1460>
  +.1 < . 1:1(0) ack 1 win 65535
   +0 accept(3, ..., ...) = 4
   +0 write(4, ..., 1000) = 1000
   +0 > P. 1:1001(1000) ack 1
   +0 `tc qdisc replace dev tun0 root pfifo limit 0`
   +0 write(4, ..., 500) = 500
  +.1 < . 1:1(0) ack 1001 win 65535
   +0 %{ assert tcpi_unacked == 1, tcpi_unacked }%
   +0 `tc qdisc del dev tun0 root`
 +.15~+.35 > P. 1001:1501(500) ack 1
"""
    )
