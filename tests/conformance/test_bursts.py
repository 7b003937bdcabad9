"""One expected line stands for several segments, unless the script says `--strict_segments`."""

import textwrap

from umuxstack.conformance.runner import run_text

SCRIPT = textwrap.dedent(
    """\
    --umux=legacy
    {option}
    0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
    +0 bind(3, ..., ...) = 0
    +0 listen(3, 5) = 0
    +0 < S 0:0(0) win 65535 <mss 1000>
    +0 > S. 0:0(0) ack 1 <mss 1440>
    +0 < . 1:1(0) ack 1 win 65535
    +0 accept(3, ..., ...) = 4
    +0 write(4, ..., 1500) = 1500
    {expected}
    """
)


def test_a_line_may_stand_for_a_burst() -> None:
    assert run_text(SCRIPT.format(option="", expected="+0 > P. 1:1501(1500) ack 1")).passed


def test_strict_segments_are_as_they_stand() -> None:
    """They were joined all the same, so that a script could not tell segments of the wrong size."""
    strict = "--strict_segments"
    outcome = run_text(SCRIPT.format(option=strict, expected="+0 > P. 1:1501(1500) ack 1"))
    assert "length" in outcome.message
    assert run_text(
        SCRIPT.format(option=strict, expected="+0 > . 1:1001(1000) ack 1\n+0 > P. 1001:1501(500) ack 1")
    ).passed


def test_a_burst_begins_with_data() -> None:
    """An acknowledgement that was sent alone, in front of data, went unseen."""
    steps = (
        "+0 > P. 1:1501(1500) ack 1",
        "+0 < . 1:2001(2000) ack 1501 win 65535",
        "+0 > . 1501:1501(0) ack 2001",
        "+0 write(4, ..., 100) = 100",
        "+0 > P. 1501:1601(100) ack 2001",
    )
    assert run_text(SCRIPT.format(option="", expected="\n".join(steps))).passed
    assert not run_text(SCRIPT.format(option="", expected="\n".join(steps[:2] + steps[3:]))).passed


def test_crumbs_are_no_burst() -> None:
    """Segments of a few octets each passed for one of all of them."""
    steps = (
        "+0 > P. 1:1501(1500) ack 1",
        "+0 setsockopt(4, SOL_TCP, TCP_NODELAY, [1], 4) = 0",
        *["+0 write(4, ..., 5) = 5"] * 3,
        "+0 > P. 1501:1516(15) ack 1",
    )
    outcome = run_text(SCRIPT.format(option="", expected="\n".join(steps)))
    assert "length" in outcome.message
