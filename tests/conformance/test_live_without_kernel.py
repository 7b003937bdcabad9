"""What is decided about a script before any kernel is asked: left out or not, and by which sysctls."""

import socket
import struct

import pytest

from umuxstack.conformance.live import info, leftout
from umuxstack.conformance.live.options import set_option
from umuxstack.conformance.live.settings import initial, orders
from umuxstack.conformance.outcome import UnsupportedConstruct
from umuxstack.conformance.parser import parse
from umuxstack.conformance.runner import Settings, guess_personality, setup_of
from umuxstack.conformance.subject import Setup
from umuxstack.core.units import seconds

LIMIT = seconds(10)


def setup(body: str, head: str = "--umux=legacy") -> Setup:
    text = f"{head}\n{body}\n"
    return setup_of(parse(text, "a.pkt"), text, guess_personality(text), Settings())


def reason(body: str, head: str = "--umux=legacy") -> str:
    """Why the script is left out; "" if it is not."""
    try:
        leftout.check(setup(body, head), LIMIT)
    except UnsupportedConstruct as unsupported:
        return unsupported.construct
    return ""


def test_a_plain_script_is_played() -> None:
    body = """\
0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
+0 bind(3, ..., ...) = 0
+0 listen(3, 5) = 0
+0 < S 0:0(0) win 65535 <mss 1000>
+0 > S. 0:0(0) ack 1 <...>
+0...0.5 silence() = 0
+0 %{ assert state == "SYN-RECEIVED" and tcpi_rto >= 1; x = tcpi_rtt }%
+0 %{ assert drop["bad_flags"] == 1 }%
+0 %{ assert x == x and TCP_ESTABLISHED == 1, [y for y in range(2)] }%"""
    assert reason(body) == ""


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("0 `umux set initial_window=60`", "umux set initial_window"),
        ("0 `umux set ecn=1 nodelay=1`", "umux set nodelay"),
        ("0 `sysctl -w net.inet.tcp.rfc1323=0`", "command `sysctl -w`"),
        ("0 `cowsay moo`", "command `cowsay moo`"),
        ("0 `nstat -n`", "nstat"),
        ('0 %{ assert telescope["other"] == 1 }%', "code asks for telescope"),
        ('0 das(3, "door") = 0', "system call das"),
        ("0 sendfile(3, 4, [0], 10) = 10", "system call sendfile"),
        ("0 socket(..., SOCK_STREAM, NOT_A_PROTOCOL) = 3", "symbol NOT_A_PROTOCOL"),
        ("0...11 silence() = 0", "longer than 10 s"),
        ("0 `true`\n+6 `true`\n+5 `true`", "longer than 10 s"),
    ],
)
def test_what_makes_no_sense_is_left_out_by_name(body: str, expected: str) -> None:
    assert reason(body) == expected


def test_a_link_narrower_than_ipv6s_least_is_none_for_a_tun() -> None:
    """The device cannot be made, and that ended the whole run."""
    assert reason("0 `true`", "--umux=legacy --ip_version=ipv4 --mtu=576") == (
        "--mtu=576: a TUN carries 1280 octets at least"
    )


def test_unified_sessions_are_nothing_for_a_kernel() -> None:
    assert reason("0 `true`", "--umux=unified") == "unified sessions: no kernel has them"


def test_what_another_system_does_is_nothing_for_this_kernel() -> None:
    assert reason("0 `true`", "--umux=legacy --personality=freebsd") == "it states what FreeBSD does"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("0 `true`\n+2 `true`\n+.5 `true`", 2.5),
        ("0 `true`\n+1...3 read(3, ..., 1) = 1", 3),
        ("0 `true`\n+1...3 read(3, ..., 1) = 1\n+.5 `true`", 3),  # the next event counts from the call's start
        ("0 `true`\n+1...3 silence() = 0\n+.5 `true`", 3.5),  # silence is waited for
        ("0 `true`\n4 `true`\n* > . 1:1(0) ack 1\n+1 `true`", 5),
    ],
)
def test_how_long_a_script_takes(body: str, expected: float) -> None:
    assert leftout.duration(setup(body).script) == expected * 1_000_000


def test_sysctls_are_set_as_they_stand() -> None:
    wanted = orders(
        """sysctl -q net.ipv4.tcp_sack=0
        sysctl -q net.ipv4.tcp_rmem="4096 8192 16384" # a comment
        sysctl -q net.ipv4.tcp_congestion_control=reno"""
    )
    assert wanted.sysctls == [
        ("net/ipv4/tcp_sack", "0"),
        ("net/ipv4/tcp_rmem", "4096 8192 16384"),
        ("net/ipv4/tcp_congestion_control", "reno"),
    ]
    assert wanted.congestion == "reno"


def test_our_own_settings_become_sysctls_where_one_means_the_same() -> None:
    assert orders("umux set ecn=1 retries=3").sysctls == [("net/ipv4/tcp_ecn", "1"), ("net/ipv4/tcp_retries2", "3")]


def test_the_kernel_starts_as_the_personality_says() -> None:
    rfc = dict(initial(setup("0 `true`")).sysctls)
    assert rfc["net/ipv4/tcp_congestion_control"] == "reno"
    assert rfc["net/ipv4/tcp_rto_min_us"] == "1000000"
    linux = dict(initial(setup("0 `true`", "--ip_version=ipv6")).sysctls)
    assert linux["net/ipv4/tcp_congestion_control"] == "cubic"
    assert "net/ipv4/tcp_rto_min_us" not in linux


def test_tcp_info_is_read_as_far_as_the_kernel_wrote_it() -> None:
    raw = struct.pack("=8B3I", 1, 0, 0, 0, 0, 7, 0x72, 0, 204_000, 40_000, 1440)
    found = info.read(raw)
    assert (found["tcpi_state"], found["tcpi_options"]) == (1, 7)
    assert (found["tcpi_snd_wscale"], found["tcpi_rcv_wscale"]) == (2, 7)
    assert (found["tcpi_rto"], found["tcpi_snd_mss"]) == (204_000, 1440)
    assert "tcpi_rcv_mss" not in found


def test_an_option_with_all_bits_set_is_a_c_integer() -> None:
    """0xffffffff overflowed Python's idea of an int, and ended the whole run."""
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as made:
        set_option(made, socket.SOL_SOCKET, socket.SO_PRIORITY, [0], ipv4=False)
        set_option(made, socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, [0xFFFFFFFF], ipv4=False)  # -1: the default
        assert made.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS) > 0
