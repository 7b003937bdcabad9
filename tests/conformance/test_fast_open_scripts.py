"""Fast Open of servers, as the vendors' scripts configure it and ask for it: keys, cookies, the socket option."""

import textwrap

from umuxstack.conformance.outcome import Status
from umuxstack.conformance.runner import Settings, run_text


def passes(text: str, personality: str) -> None:
    outcome = run_text(textwrap.dedent(text), settings=Settings(personality=personality))
    assert outcome.status is Status.PASSED, (outcome.message, outcome.source, outcome.details)


FREEBSD_SERVER = """
    0 `sysctl -w net.inet.tcp.fastopen.server_enable=1`
    +0 `if [ ! -e ./setkey ]; then cc -o setkey setkey.c;fi; ./setkey`
    +0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
    +0 bind(3, ..., ...) = 0
    +0 getsockopt(3, IPPROTO_TCP, TCP_FASTOPEN, [0], [4]) = 0
    +0 setsockopt(3, IPPROTO_TCP, TCP_FASTOPEN, [1], 4) = 0
    +0 getsockopt(3, IPPROTO_TCP, TCP_FASTOPEN, [0x80000000], [4]) = 0
    +0 listen(3, 2) = 0
"""


def test_freebsds_fast_open_key_has_a_cookie_of_that_name() -> None:
    """A program sets the key, and the scripts write what FreeBSD makes of it: they were left out. A wrong cookie is
    answered with the right one (RFC 7413 4.1.2)."""
    for shown, taken in (("FO", 1), ("FO 0011223344556677", 1), ("FO 2069a359c930dba9", 101)):
        given = "" if taken > 1 else ",FO 2069a359c930dba9,eol,eol"
        passes(
            FREEBSD_SERVER
            + f"""
    +0 < S 0:100(100) win 9000 <mss 900,{shown}>
    +0 > S. 0:0(0) ack {taken} <mss 1460{given}>
    +0 < P. {taken}:101({101 - taken}) ack 1 win 9000
    +0 accept(3, ..., ...) = 4
    +0 read(4, ..., 200) = 100
""",
            "freebsd",
        )


def test_linux_says_how_many_fast_open_requests_may_wait() -> None:
    passes(
        """
        0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
        +0 getsockopt(3, SOL_TCP, TCP_FASTOPEN, [0], [4]) = 0
        +0 `sysctl -q net.ipv4.tcp_fastopen=3`
        +0 setsockopt(3, SOL_TCP, TCP_FASTOPEN, [5], 4) = 0
        +0 getsockopt(3, SOL_TCP, TCP_FASTOPEN, [5], [4]) = 0
        """,
        "linux",
    )
