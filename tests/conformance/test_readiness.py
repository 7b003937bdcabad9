"""What poll and epoll tell a script, and from how much on there is something to read."""

import pytest

from umuxstack.conformance.outcome import Status
from umuxstack.conformance.runner import Settings, run_text

OPEN = """
    0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
   +0 bind(3, ..., ...) = 0
   +0 listen(3, 2) = 0
   +0 < S 0:0(0) win 32792 <mss 1000,nop,wscale 7>
   +0 > S. 0:0(0) ack 1 <mss 1460,nop,wscale 8>
  +.1 < . 1:1(0) ack 1 win 257
   +0 accept(3, ..., ...) = 4
"""


def outcome(text: str) -> tuple[Status, str]:
    result = run_text(OPEN + text)
    return result.status, result.message


@pytest.mark.parametrize("field", ["fd", "ptr", "u32", "u64"])
def test_epoll_returns_what_was_stored_with_the_descriptor(field: str) -> None:
    """Only the events were compared: a script that expects another descriptor to be ready passed."""
    script = f"""
   +0 epoll_create(1) = 5
   +0 epoll_ctl(5, EPOLL_CTL_ADD, 4, {{events=EPOLLOUT, {field}=7}}) = 0
   +0 epoll_wait(5, {{events=EPOLLOUT, {field}=%s}}, 1, 0) = 1
"""
    assert outcome(script % 7)[0] is Status.PASSED
    assert outcome(script % 8) == (Status.FAILED, "epoll: 7 is ready, expected 8")


def test_epoll_returns_no_more_than_there_is_room_for() -> None:
    """Two descriptors are ready and the array has one place: both were returned."""
    script = """
   +0 epoll_create(1) = 5
   +0 epoll_ctl(5, EPOLL_CTL_ADD, 4, {events=EPOLLOUT, fd=4}) = 0
   +0 < 9001 > 8080 S 0:0(0) win 32792 <mss 1000,nop,wscale 7>
   +0 > 8080 > 9001 S. 0:0(0) ack 1 <mss 1460,nop,wscale 8>
  +.1 < 9001 > 8080 . 1:1(0) ack 1 win 257
   +0 epoll_ctl(5, EPOLL_CTL_ADD, 3, {events=EPOLLIN, fd=3}) = 0
"""
    assert outcome(script + "   +0 epoll_wait(5, {events=EPOLLOUT, fd=4}, 1, 0) = 1\n")[0] is Status.PASSED
    both = "   +0 epoll_wait(5, [{events=EPOLLOUT, fd=4}, {events=EPOLLIN, fd=%s}], 2, 0) = 2\n"
    assert outcome(script + both % 3)[0] is Status.PASSED
    assert outcome(script + both % 4) == (Status.FAILED, "epoll: 3 is ready, expected 4")


def test_less_than_the_low_water_mark_is_nothing_to_read() -> None:
    """SO_RCVLOWAT was remembered and changed nothing: poll said at once that there was something to read."""
    status, message = outcome("""
   +0 setsockopt(4, SOL_SOCKET, SO_RCVLOWAT, [200], 4) = 0
   +0 < P. 1:101(100) ack 1 win 257
   +0 > . 1:1(0) ack 101
   +0 poll([{fd=4, events=POLLIN, revents=0}], 1, 0) = 0
+0...0.1 read(4, ..., 1000) = 200
  +.1 < P. 101:201(100) ack 1 win 257
   +0 > . 1:1(0) ack 201
   +0 < P. 201:401(200) ack 1 win 257
   +0 > . 1:1(0) ack 401
   +0 poll([{fd=4, events=POLLIN, revents=POLLIN}], 1, 0) = 1
   +0 read(4, ..., 50) = 50
   +0 poll([{fd=4, events=POLLIN, revents=0}], 1, 0) = 0
   +0 recv(4, ..., 1000, MSG_DONTWAIT) = 150
   +0 < F. 401:401(0) ack 1 win 257
   * > . 1:1(0) ack 402
   +0 poll([{fd=4, events=POLLIN, revents=POLLIN}], 1, 0) = 1
   +0 read(4, ..., 1000) = 0
""")
    assert status is Status.PASSED, message


@pytest.mark.parametrize(("system", "blocks"), [("linux", True), ("freebsd", False)])
def test_bsd_hands_down_who_does_not_block(system: str, blocks: bool) -> None:
    """What a FreeBSD accepts on a socket that does not block does not block, either; it did."""
    result = run_text(
        OPEN.replace("SOCK_STREAM", "SOCK_STREAM|SOCK_NONBLOCK", 1).replace("<mss 1460,nop,wscale 8>", "<...>")
        + "   +0 read(4, ..., 100) = -1 EAGAIN\n   +0 fcntl(4, F_SETFL, O_RDWR) = 0\n"
        "+0...0.1 read(4, ..., 100) = 10\n  +.1 < P. 1:11(10) ack 1 win 257\n   * > . 1:1(0) ack 11\n",
        settings=Settings(personality=system),
    )
    assert result.status is (Status.FAILED if blocks else Status.PASSED), result.message
    assert (result.message == "read() blocks") is blocks
