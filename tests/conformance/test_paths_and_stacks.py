"""What a script may ask of the path, and which TCP it may mean."""

import pytest

from umuxstack.conformance.outcome import Status
from umuxstack.conformance.runner import run_text


@pytest.mark.parametrize(
    ("version", "header", "smaller"),
    [("ipv6", 40, "packet_too_big mtu 1300"), ("ipv4", 20, "unreachable frag_needed mtu 1300")],
)
def test_the_path_mtu_is_the_paths(version: str, header: int, smaller: str) -> None:
    """`tcpi_pmtu` was the segment's size and 60 octets: 20 too much in IPv4, and less than it is with a small MSS."""
    outcome = run_text(
        f"""--ip_version={version}
    0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
   +0 bind(3, ..., ...) = 0
   +0 listen(3, 1) = 0
   +0 < S 0:0(0) win 32792 <mss 1000,sackOK,TS val 1 ecr 0>
   +0 > S. 0:0(0) ack 1 <mss {1480 - header},sackOK,TS val 10 ecr 1>
 +.01 < . 1:1(0) ack 1 win 32792 <nop,nop,TS val 2 ecr 10>
   +0 accept(3, ..., ...) = 4
   +0 %{{ assert tcpi_pmtu == 1500, tcpi_pmtu }}%
   +0 close(4) = 0
   +0 > F. 1:1(0) ack 1 <...>
 +.01 < R. 1:1(0) ack 2 win 0 <nop,nop,TS val 3 ecr 20>
   +0 < S 0:0(0) win 32792 <mss 1460>
   +0 > S. 0:0(0) ack 1 <mss {1480 - header}>
 +.01 < . 1:1(0) ack 1 win 32792
   +0 accept(3, ..., ...) = 4
   +0 write(4, ..., {1480 - header}) = {1480 - header}
   +0 > P. 1:{1481 - header}({1480 - header}) ack 1
   +0 < icmp {smaller} [1:{1481 - header}({1480 - header})]
   +0 > . 1:{1281 - header}({1280 - header}) ack 1
   +0 > P. {1281 - header}:{1481 - header}(200) ack 1
   +0 %{{ assert tcpi_pmtu == 1300, tcpi_pmtu }}%
"""
    )
    assert outcome.status is Status.PASSED, (outcome.message, outcome.line, outcome.details)


def test_the_default_stack_of_functions_may_be_chosen() -> None:
    """FreeBSD's scripts name the TCP that they mean. Ours is the only one here, and no other is imitated."""
    call = '+0 setsockopt(3, IPPROTO_TCP, TCP_FUNCTION_BLK, {function_set_name="%s", pcbcnt=0}, 36) = 0\n'
    script = "0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3\n" + call
    assert run_text(script % "freebsd").status is Status.PASSED
    outcome = run_text(script % "rack")
    assert (outcome.status, outcome.message) == (Status.UNSUPPORTED, "the TCP stack 'rack'")
