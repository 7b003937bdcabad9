"""What a vendor's script says in ways of its own: blocks for a platform, IPv4, numbers without a connection."""

import textwrap

import pytest

from umuxstack.conformance.outcome import Outcome, Status
from umuxstack.conformance.runner import Settings, run_text


def run(text: str, personality: str = "freebsd") -> Outcome:
    return run_text(textwrap.dedent(text), settings=Settings(personality=personality))


def passes(text: str, personality: str = "freebsd") -> None:
    outcome = run(text, personality)
    assert outcome.status is Status.PASSED, (outcome.message, outcome.source, outcome.details)


def test_a_block_counts_for_its_vendor_and_a_standard_one_for_the_rfcs() -> None:
    """The block of the RFCs was read under no personality at all."""
    script = """
        0 `true`
        #ifdef STANDARD
        +0 getsockopt(9, SOL_SOCKET, SO_ERROR, [0], [4]) = 0
        #endif
        #ifdef FreeBSD
        +0 close(8) = 0
        #endif
    """
    assert "getsockopt" in run(script, "rfc").source
    assert "close" in run(script, "freebsd").source
    assert run(script, "linux").status is Status.PASSED


def test_an_option_out_of_bounds_is_that_scripts_error_alone() -> None:
    """An MTU that the stack does not take ended the whole run."""
    assert run("--mtu=70000\n0 `true`\n").status is Status.ERROR
    assert run("--mtu=many\n0 `true`\n").status is Status.ERROR
    assert run("--mtu=60\n0 `true`\n").status is Status.UNSUPPORTED
    assert run("--mtu=100\n--ip_version=ipv6\n0 `true`\n").status is Status.UNSUPPORTED


def test_the_largest_mtu_of_ipv4_is_a_little_more_in_ipv6() -> None:
    passes(
        """
        --mtu=65535
        0 socket(..., SOCK_STREAM|SOCK_NONBLOCK, IPPROTO_TCP) = 3
        +0 connect(3, ..., ...) = -1 EINPROGRESS
        +0 > S 0:0(0) <mss 65495,nop,wscale 6,sackOK,TS val 1 ecr 0>
        """
    )


def test_a_path_narrower_than_ipv6_knows_is_imitated_by_small_segments() -> None:
    passes(
        """
        --mtu=110
        0 socket(..., SOCK_STREAM|SOCK_NONBLOCK, IPPROTO_TCP) = 3
        +0 connect(3, ..., ...) = -1 EINPROGRESS
        +0 > S 0:0(0) <mss 70,nop,wscale 6,sackOK,TS val 1 ecr 0>
        +.01 < S. 0:0(0) ack 1 win 9000 <mss 900>
        +0 > . 1:1(0) ack 1
        +0 write(3, ..., 150) = 150
        +0 > . 1:71(70) ack 1
        +0 > . 71:141(70) ack 1
        +0 > P. 141:151(10) ack 1
        """
    )


def test_bsd_announces_the_path_mtu_in_ipv6_alone() -> None:
    for version, message, before, after in (
        ("ipv4", "unreachable frag_needed mtu 1000", 1460, 1460),
        ("ipv6", "packet_too_big mtu 1300", 1440, 1240),
    ):
        passes(
            f"""
            --ip_version={version}
            0 socket(..., SOCK_STREAM|SOCK_NONBLOCK, IPPROTO_TCP) = 3
            +0 connect(3, ..., ...) = -1 EINPROGRESS
            +0 > S 0:0(0) <mss {before},nop,wscale 6,sackOK,TS val 1 ecr 0>
            +0 < icmp {message} [0:0(0)]
            +1 > S 0:0(0) <mss {after},nop,wscale 6,sackOK,TS val 1001 ecr 0>
            """
        )


def test_initial_numbers_are_as_written_on_both_sides() -> None:
    """A script may call the stack's own first number what it likes, too; after the SYN all is relative."""
    for ours, theirs in ((0, 0), (5000, 0), (4294967295, 4294967200), (77, 4294967295)):
        passes(
            f"""
            0 socket(..., SOCK_STREAM|SOCK_NONBLOCK, IPPROTO_TCP) = 3
            +0 connect(3, ..., ...) = -1 EINPROGRESS
            +0 > S {ours}:{ours}(0) <...>
            +1 > S {ours}:{ours}(0) <...>
            +.01 < S. {theirs}:{theirs}(0) ack {(ours + 1) % 2**32} win 9000 <mss 900>
            +0 > . 1:1(0) ack 1
            +0 write(3, ..., 10) = 10
            +0 > P. 1:11(10) ack 1
            +.01 < . 1:1(0) ack 11 win 9000
            """
        )
    outcome = run(
        """
        0 socket(..., SOCK_STREAM|SOCK_NONBLOCK, IPPROTO_TCP) = 3
        +0 connect(3, ..., ...) = -1 EINPROGRESS
        +0 > S 7:7(0) <...>
        +1 > S 8:8(0) <...>
        """
    )
    assert outcome.status is Status.FAILED


def test_numbers_are_as_written_where_there_is_no_connection() -> None:
    """The answer to a SYN that nobody expects was counted from the SYN's number on."""
    for syn, acknowledged in (("S 500:507(7)", 508), ("S 0:0(0)", 1), ("SF 4294967290:4294967295(5)", 1)):
        passes(f"0 < {syn} win 1000 <mss 1000>\n+0 > R. 0:0(0) ack {acknowledged} win 0\n")
    passes("0 < . 500:510(10) ack 77 win 1000\n+0 > R 77:77(0) win 0\n")


def test_of_several_syns_the_one_that_is_answered_counts() -> None:
    passes(
        """
        0 `sysctl -w net.inet.tcp.drop_synfin=1`
        +0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
        +0 bind(3, ..., ...) = 0
        +0 listen(3, 1) = 0
        +0 < SF 70:70(0) win 1000 <mss 1000>
        +1 < S 90:90(0) win 1000 <mss 1000>
        +0 > S. 0:0(0) ack 91 win 65535 <mss 1460>
        +0 < . 1:1(0) ack 1 win 1000
        +0 accept(3, ..., ...) = 4
        +0 < P. 1:5(4) ack 1 win 1000
        +0.04 > . 1:1(0) ack 5 win 65535
        """
    )


def test_silence_about_the_mss_means_536_in_ipv4_and_1220_in_ipv6() -> None:
    """A script for IPv4 met segments of 1220 octets."""
    script = """
        --ip_version={version}
        0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
        +0 setsockopt(3, SOL_SOCKET, SO_REUSEADDR, [1], 4) = 0
        +0 bind(3, ..., ...) = 0
        +0 listen(3, 1) = 0
        +0 < S 0:0(0) win 9000
        +0 > S. 0:0(0) ack 1 win 65535 <mss {ours}>
        +0 < . 1:1(0) ack 1 win 9000
        +0 accept(3, ..., ...) = 4
        +0 send(4, ..., 2000, 0) = 2000
        +0 > . 1:{end}({size}) ack 1 win 65535
    """
    for version, ours, size in (("ipv4", 1460, 536), ("ipv6", 1440, 1220)):
        text = textwrap.dedent(script.format(version=version, ours=ours, size=size, end=size + 1))
        passes("--strict_segments\n" + text.lstrip())


def test_icmp_of_ipv4_that_means_nothing_in_ipv6_is_dropped_on_its_way() -> None:
    """RFC 7915 4.2. They were unsupported, and the whole script with them."""
    lost = ("redirect", "source_quench", "unreachable precedence_violation", "parameter_problem code_1")
    soft = (
        "unreachable net_unknown",
        "unreachable precedence_cutoff",
        "time_exceeded frag_reass_exceeded",
        "parameter_problem code_0",
        "parameter_problem code_2",
    )
    hard = {
        "unreachable packet_filtered": "ECONNREFUSED",
        "unreachable protocol_unreachable": "ECONNREFUSED",
        "time_exceeded ttl_exceeded_in_transit": "EHOSTUNREACH",
    }
    opening = """
        --ip_version=ipv4
        0 socket(..., SOCK_STREAM|SOCK_NONBLOCK, IPPROTO_TCP) = 3
        +0 connect(3, ..., ...) = -1 EINPROGRESS
        +0 > S 0:0(0) win 65535 <mss 1460,nop,wscale 6,sackOK,TS val 1 ecr 0>
        +0.1 < icmp {error} [0:0(0)]
        +0 getsockopt(3, SOL_SOCKET, SO_ERROR, [{number}], [4]) = 0
    """
    for error in (*lost, *soft):
        passes(opening.format(error=error, number=0))
    for error, number in hard.items():
        passes(opening.format(error=error, number=number))


def test_errnos_are_the_vendors() -> None:
    """A reset after the peer's FIN is EPIPE in Linux and ECONNRESET in BSD."""
    script = """
        --ip_version=ipv6
        0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
        +0 setsockopt(3, SOL_SOCKET, SO_REUSEADDR, [1], 4) = 0
        +0 bind(3, ..., ...) = 0
        +0 listen(3, 1) = 0
        +0 < S 0:0(0) win 9000 <mss 1000>
        +0 > S. 0:0(0) ack 1 <mss 1440>
        +0 < . 1:1(0) ack 1 win 9000
        +0 accept(3, ..., ...) = 4
        +0 < F. 1:1(0) ack 1 win 9000
        * > . 1:1(0) ack 2
        +0 < R 2:2(0) win 0
        +0 getsockopt(4, SOL_SOCKET, SO_ERROR, [{number}], [4]) = 0
    """
    passes(script.format(number="ECONNRESET"), "freebsd")
    passes(script.format(number="EPIPE"), "linux")


def test_tcpdrop_ends_time_wait_and_probes_see_only_it() -> None:
    """A record of an aborted connection was taken for TIME-WAIT."""
    script = """
        --ip_version=ipv6
        0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
        +0 setsockopt(3, SOL_SOCKET, SO_REUSEADDR, [1], 4) = 0
        +0 bind(3, ..., ...) = 0
        +0 listen(3, 1) = 0
        +0 < S 0:0(0) win 9000 <mss 1000>
        +0 > S. 0:0(0) ack 1 win 65535 <mss 1440>
        +0 < . 1:1(0) ack 1 win 9000
        +0 accept(3, ..., ...) = 4
    """
    passes(
        script
        + """
        +0 shutdown(4, SHUT_WR) = 0
        +0 > F. 1:1(0) ack 1
        +0 < F. 1:1(0) ack 2 win 9000
        +0 > . 2:2(0) ack 2
        +0 `sockstat -6 -P tcp -s | grep packetdril | grep -c TIME_WAIT | grep 1`
        +0 `tcpdrop -s TIME_WAIT`
        +0 `sockstat -6 -P tcp -s | grep packetdril | grep -c TIME_WAIT | grep 0`
        +0 < . 2:2(0) ack 2 win 9000
        +0 > R 2:2(0) win 0
        """
    )
    passes(
        script
        + """
        +0 setsockopt(4, SOL_SOCKET, SO_LINGER, {onoff=1, linger=0}, 8) = 0
        +0 close(4) = 0
        +0 > R. 1:1(0) ack 1 win 0
        +0 `sockstat -6 -P tcp -s | grep packetdril | grep -c TIME_WAIT | grep 0`
        """
    )


def test_a_peek_leaves_what_it_sees() -> None:
    script = """
        --ip_version=ipv6
        0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
        +0 setsockopt(3, SOL_SOCKET, SO_REUSEADDR, [1], 4) = 0
        +0 bind(3, ..., ...) = 0
        +0 listen(3, 1) = 0
        +0 < S 0:0(0) win 9000 <mss 1000>
        +0 > S. 0:0(0) ack 1 win 65535 <mss 1440>
        +0 < . 1:1(0) ack 1 win 9000
        +0 accept(3, ..., ...) = 4
        +0 recv(4, ..., 100, MSG_PEEK|MSG_DONTWAIT) = -1 EAGAIN
        +0 < P. 1:31(30) ack 1 win 9000
        +0 recv(4, ..., 100, MSG_PEEK) = 30
        +0 recv(4, ..., 10, MSG_PEEK) = 10
        +0...0.02 recv(4, ..., 40, MSG_PEEK|MSG_WAITALL) = 40
        +0.02 < P. 31:51(20) ack 1 win 9000
        +0 > . 1:1(0) ack 51 win 65535
        +0 read(4, ..., 100) = 50
    """
    passes(script)


def test_any_bits_of_the_header_may_be_injected_and_who_did_not_agree_counts_no_marks() -> None:
    opening = """
        --ip_version=ipv6
        0 `sysctl net.inet.tcp.ecn.enable=2`
        +0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
        +0 bind(3, ..., ...) = 0
        +0 listen(3, 1) = 0
        +0 < S 0:0(0) win 9000 <mss 1000>
        +0 > S. 0:0(0) ack 1 win 65535 <mss 1440>
        +0 <[ect0] 5. 1:1(0) ack 1 win 9000
        +0 accept(3, ..., ...) = 4
    """
    passes(opening)
    outcome = run(opening + "    +0 write(4, ..., 9) = 9\n    +0 > P5. 1:10(9) ack 1\n")
    assert (outcome.status, outcome.message) == (Status.FAILED, "the packet differs in flags")


BSD_DIALS = """
    0 `sysctl -w net.inet.tcp.fastopen.client_enable=1`
    +0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
    +0 setsockopt(3, IPPROTO_TCP, TCP_FASTOPEN, [1], 4) = 0
    +0 sendto(3, ..., 30, 0, ..., ...) = 30
    +0 > S 0:0(0) <mss 1460,nop,wscale 6,sackOK,TS val 0 ecr 0,FO,eol,eol>
    +.05 < S. 0:0(0) ack 1 win 9000 <{answer}>
    +0 > P. 1:31(30) ack 1
    +.05 < R. 1:1(0) ack 31 win 0
    +0 close(3) = 0
    +1 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
    +0 setsockopt(3, IPPROTO_TCP, TCP_FASTOPEN, [1], 4) = 0
    +0 sendto(3, ..., 30, 0, ..., ...) = 30
    +0 > S 0:{early}({early}) <mss 1460,nop,wscale 6,sackOK,TS val 0 ecr 0{cookie}>
"""


@pytest.mark.parametrize("length", range(1, 39))
def test_bsd_fast_opens_by_sendto(length: int) -> None:
    cookie = bytes(range(7, 7 + length))
    answer = f"mss 800,FO {cookie.hex()}" if length <= 34 else f"FO {cookie.hex()}"
    if length in (4, 6, 8, 10, 12, 14, 16):
        padding = ",eol,eol" if length % 4 == 0 else ""
        passes(BSD_DIALS.format(answer=answer, early=30, cookie=f",FO {cookie.hex()}{padding}"))
    else:
        passes(BSD_DIALS.format(answer=answer, early=0, cookie=""))


def test_linux_fast_opens_by_a_flag() -> None:
    """It asks again who had no cookie, and takes no more than the SYN holds from who does not wait. A packet that an
    older connection still sends is none of the new one's."""
    passes(
        """
        0 `sysctl -q net.ipv4.tcp_timestamps=0`
        +0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
        +0 fcntl(3, F_SETFL, O_RDWR|O_NONBLOCK) = 0
        +0 sendto(3, ..., 50, MSG_FASTOPEN, ..., ...) = -1 EINPROGRESS
        +0 > S 0:0(0) <mss 1460,nop,nop,sackOK,nop,wscale 7,FO,nop,nop>
        +.01 < S. 0:0(0) ack 1 win 9000 <mss 900>
        +0 > . 1:1(0) ack 1
        +0 close(3) = 0
        +.1 socket(..., SOCK_STREAM, IPPROTO_TCP) = 4
        +0 fcntl(4, F_SETFL, O_RDWR|O_NONBLOCK) = 0
        +0 sendto(4, ..., 50, MSG_FASTOPEN, ..., ...) = -1 EINPROGRESS
        +0 > S 0:0(0) <mss 1460,nop,nop,sackOK,nop,wscale 7,FO,nop,nop>
        +.01 < S. 0:0(0) ack 1 win 9000 <mss 900,FO 11223344>
        +0 > . 1:1(0) ack 1
        +.1 socket(..., SOCK_STREAM, IPPROTO_TCP) = 5
        +0 fcntl(5, F_SETFL, O_RDWR|O_NONBLOCK) = 0
        +0 sendto(5, ..., 2000, MSG_FASTOPEN, ..., ...) = 860
        +0 > S 0:860(860) <mss 1460,nop,nop,sackOK,nop,wscale 7,FO 11223344,nop,nop>
        +.01 < S. 0:0(0) ack 861 win 9000 <mss 900>
        +0 > . 861:861(0) ack 1
        +0 %{ assert tcpi_options & TCPI_OPT_SYN_DATA }%
        +.1 socket(..., SOCK_STREAM, IPPROTO_TCP) = 6
        +0....01 sendto(6, ..., 1000, MSG_FASTOPEN, ..., ...) = 1000
        +0 > S 0:860(860) <mss 1460,nop,nop,sackOK,nop,wscale 7,FO 11223344,nop,nop>
        +.01 < S. 0:0(0) ack 861 win 9000 <mss 900>
        +0 > P. 861:1001(140) ack 1
        +0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 7
        +0 sendto(7, ..., 5, MSG_FASTOPEN, AF_UNSPEC, ...) = -1 EOPNOTSUPP
        """,
        "linux",
    )


def test_what_an_older_connection_says_needs_no_line() -> None:
    """Its FIN was sent again, unanswered, in the midst of the next one."""
    passes(
        """
        0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
        +0 bind(3, ..., ...) = 0
        +0 listen(3, 1) = 0
        +0 < S 0:0(0) win 9000 <mss 900>
        +0 > S. 0:0(0) ack 1 <...>
        +.1 < . 1:1(0) ack 1 win 9000
        +0 accept(3, ..., ...) = 4
        +0 close(4) = 0
        +0 > F. 1:1(0) ack 1
        +.01 socket(..., SOCK_STREAM|SOCK_NONBLOCK, IPPROTO_TCP) = 5
        +0 connect(5, ..., ...) = -1 EINPROGRESS
        +0 > S 0:0(0) <...>
        +.6 < S. 0:0(0) ack 1 win 9000 <mss 900>
        +0 > . 1:1(0) ack 1
        """
    )


FAST_OPEN_SERVER = """
        +0 socket(..., SOCK_STREAM|SOCK_NONBLOCK, IPPROTO_TCP) = 3
        +0 setsockopt(3, IPPROTO_TCP, TCP_FASTOPEN, [1], 4) = 0
        +0 bind(3, ..., ...) = 0
        +0 listen(3, 1) = 0
"""


@pytest.mark.parametrize(
    ("system", "setting"), [("freebsd", "net.inet.tcp.fastopen.server_enable"), ("linux", "net.ipv4.tcp_fastopen")]
)
def test_servers_use_fast_open_where_the_system_lets_them(system: str, setting: str) -> None:
    """It was unsupported: whatever the script set, nothing of it was played."""
    asked = "+0 < S 0:9(9) win 9000 <mss 1000,FO>"
    refused = FAST_OPEN_SERVER + asked + "\n+0 > S. 0:0(0) ack 1 <mss 1460>"
    granted = FAST_OPEN_SERVER + asked + "\n+0 > S. 0:0(0) ack 1 <mss 1460,FO 0011223344556677,nop,nop>"
    granted = granted.replace("nop,nop", "eol,eol") if system == "freebsd" else granted
    on = 1 if system == "freebsd" else 3
    for value, text in ((0, refused), (on, granted)):
        outcome = run(f" 0 `sysctl -w {setting}={value}`" + text, system)
        assert outcome.status is Status.PASSED, (outcome.message, outcome.line, outcome.details)


def test_a_cookie_keeps_the_name_that_the_script_gave_it() -> None:
    passes(
        "0 `sysctl -w net.ipv4.tcp_fastopen=3`"
        + FAST_OPEN_SERVER
        + """
        +0 < S 0:9(9) win 9000 <mss 1000,FO>
        +0 > S. 0:0(0) ack 1 <mss 1460,FO 0011223344556677,nop,nop>
        +0 < R 1:1(0) win 0
        +0 < S 0:9(9) win 9000 <mss 1000,FO 0011223344556677>
        +0 > S. 0:0(0) ack 10 <mss 1460>
        +0 < R 10:10(0) win 0
        +0 < S 0:9(9) win 9000 <mss 1000,FO 8811223344556677>
        +0 > S. 0:0(0) ack 1 <mss 1460,FO 0011223344556677,nop,nop>
        """,
        "linux",
    )


def test_a_socket_that_connects_to_nothing_connects_again() -> None:
    """AF_UNSPEC dissolves a connection (connect(2)); it was unsupported."""
    passes(
        """
        0 socket(..., SOCK_STREAM|SOCK_NONBLOCK, IPPROTO_TCP) = 3
        +0 bind(3, ..., ...) = 0
        +0 listen(3, 1) = 0
        +0 < S 0:0(0) win 9000 <mss 1000>
        +0 > S. 0:0(0) ack 1 <mss 1460>
        +0 < . 1:1(0) ack 1 win 9000
        +0 accept(3, ..., ...) = 4
        +0 connect(4, AF_UNSPEC, ...) = 0
        +0 > R. 1:1(0) ack 1
        +0 fcntl(4, F_SETFL, O_RDWR|O_NONBLOCK) = 0
        +0 connect(4, ..., ...) = -1 EINPROGRESS (Operation now in progress)
        +0 > S 0:0(0) <...>
        """
    )


def test_code_of_python_2_and_freebsds_units() -> None:
    """FreeBSD's TCP_INFO counts octets; its scripts print with a statement."""
    passes(
        """
        --ip_version=ipv6
        0 `dmesg -c; tcpdump -i tun0 -p -s 100 -w some.trc tcp &`
        +0 `kldload -n cc_newreno`
        +0 `pkill -SIGINT tcpdump`
        +0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
        +0 bind(3, ..., ...) = 0
        +0 listen(3, 1) = 0
        +0 < S 0:0(0) win 9000 <mss 1000>
        +0 > S. 0:0(0) ack 1 win 65535 <mss 1440>
        +0 < . 1:1(0) ack 1 win 9000
        +0 accept(3, ..., ...) = 4
        +0 %{ print "cwnd {}".format(tcpi_snd_cwnd)
        if (tcpi_snd_cwnd != 10000):
          print "another one"
          assert False, tcpi_snd_cwnd
        }%
        `#killall tcpdump`
        """
    )


def test_a_scripts_print_is_not_part_of_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    """It stood in the midst of the JSON."""
    passes("0 %{ print('something') }%\n")
    assert capsys.readouterr().out == ""


def test_freebsds_names_of_what_a_connection_knows() -> None:
    """Code that printed the next sequence numbers was unsupported: FreeBSD's `tcp_info` has them, Linux's has not."""
    passes(
        """
        0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
        +0 bind(3, ..., ...) = 0
        +0 listen(3, 1) = 0
        +0 < S 0:0(0) win 65535 <mss 1000>
        +0 > S. 0:0(0) ack 1 <...>
        +0 < . 1:1(0) ack 1 win 65535
        +0 accept(3, ..., ...) = 4
        +0 %{ before, heard = tcpi_snd_nxt, tcpi_rcv_nxt }%
        +0 write(4, ..., 100) = 100
        +0 > P. 1:101(100) ack 1
        +0 < P. 1:51(50) ack 101 win 65535
        +0 %{ assert (tcpi_snd_nxt - before) % 2**32 == 100, tcpi_snd_nxt }%
        +0 %{ assert (tcpi_rcv_nxt - heard) % 2**32 == 50, tcpi_rcv_nxt }%
        +0 %{ assert tcpi_rcv_space == 66000 - 50 and tcpi_snd_rexmitpack == 0 }%
        """
    )


def test_what_is_unsupported_has_a_name() -> None:
    """A field that TCP_INFO has not was named without its struct, whatever was there to be in it ("0"); and any kernel
    module was "kldload -n"."""
    script = (
        "    0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n   +0 getsockopt(3, SOL_TCP, TCP_INFO, {%s}, [...]) = 0\n"
    )
    assert run_text(script % "...").status is Status.PASSED
    outcome = run_text(script % "tcpi_nobodys=1")
    assert (outcome.status, outcome.message) == (Status.UNSUPPORTED, "field tcpi_nobodys of TCP_INFO")
    outcome = run_text("    0 `kldload -n tcp_rack`\n")
    assert (outcome.status, outcome.message) == (Status.UNSUPPORTED, "command `kldload -n tcp_rack`")


def test_how_exact_the_clock_is_need_not_be_said() -> None:
    """A clock of its own has no deviation to be switched off."""
    assert run_text("    0 `sysctl kern.timecounter.alloweddeviation=0`\n").status is Status.PASSED
