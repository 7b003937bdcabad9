"""What is no script is refused with file, line, column and a caret."""

import pytest

from umuxstack.conformance.parser import parse
from umuxstack.conformance.script import ScriptError


def _error(text: str) -> ScriptError:
    with pytest.raises(ScriptError) as caught:
        parse(text, "dir/bad.pkt")
    return caught.value


def test_the_message_shows_the_line_and_a_caret_below_the_place() -> None:
    error = _error("+0 close(3) = 0\n\t+0 > S. 0:0(0) ack x\n")
    assert str(error) == (
        "dir/bad.pkt:2:21: expected the acknowledgement number, found 'x'\n"
        "  \t+0 > S. 0:0(0) ack x\n"
        "  \t                   ^"
    )
    assert (error.path, error.line, error.column) == ("dir/bad.pkt", 2, 21)


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        # times
        ("close(3) = 0", 1, 1, "expected an event: a time"),
        ("+ close(3) = 0", 1, 3, "expected an event: a time"),
        ("-1 close(3) = 0", 1, 1, "a time cannot be negative"),
        ("+0.5~0.7 > . 1:1(0)", 1, 6, "expected '+'"),
        ("+0.5~+0.2 > . 1:1(0)", 1, 1, "runs backwards"),
        ("0.5...0.2 close(3) = 0", 1, 4, "return before it is made"),
        ("+0~+1 < . 1:1(0) win 1", 1, 1, "fit an expected packet only"),
        ("* close(3) = 0", 1, 1, "fit an expected packet only"),
        ("99999999999 close(3) = 0", 1, 1, "too far away"),
        # layout
        ("+0 ?", 1, 4, "expected a packet ('<' or '>'), a system call"),
        ("+0\n", 2, 1, "found the end of the script"),
        ("--mtu= 1500", 1, 8, "expected a value of --mtu"),
        ("--define=7=8", 1, 1, "--define wants SYMBOL=value"),
        ("+0 close(3) = 0\n`a`\n+0 close(4) = 0", 3, 1, "a command without a time ends a script"),
        ("+0 close(3) = 0\n--mtu=1500", 2, 1, "expected an event: a time"),
        ('+0 f("abc) = 0', 1, 6, "this string is never closed"),
        ("+0 close(3) = 0\n`echo", 2, 1, "this backquoted command is never closed"),
        ("+0 %{ assert 1", 1, 4, "this code block is never closed"),
        ("+0 close(3) = 0 /* so", 1, 17, "this comment is never closed"),
        ("#ifdef Linux\n+0 close(3) = 0", 1, 1, "this #ifdef is never closed"),
        ("+0 close(3) = 0\n#endif", 2, 1, "#endif without #ifdef"),
        ("#ifdef Linux\n#ifdef FreeBSD\n#endif", 2, 1, "#ifdef inside #ifdef"),
        # packets
        ("+0 > 1:1(0)", 1, 7, "expected a sequence range"),
        ("+0 > :", 1, 6, "expected a packet: TCP flags, udp or icmp"),
        ("+0 > SX 0:0(0)", 1, 6, "there is no 'X'"),
        ("+0 > SE.5 0:0(0)", 1, 6, "one number, or the flags E, W and A"),
        ("+0 > .55 1:1(0)", 1, 6, "expected a blank behind the TCP flags"),
        ("+0 > . 1:5(0)", 1, 8, "1 to 5 is not 0 octets"),
        ("+0 > . 1-1(0)", 1, 9, "expected ':'"),
        ("+0 > . 1:1(0) ack 4294967296", 1, 19, "the acknowledgement number is 4294967296; allowed is 0 to 4294967295"),
        ("+0 < . 1:1(0) win 65536", 1, 19, "the window is 65536"),
        ("+0 > . 1:1(0) ack 1 ack 1", 1, 21, "ack is given twice"),
        ("+0 > . 1:1(0) wim 5", 1, 15, "expected ack, win or urg"),
        ("+0 < . 1:1(0) win 5 <...>", 1, 21, "fits an expected packet only"),
        ("+0 > [ect0, ce] . 1:1(0)", 1, 13, "ce is given twice"),
        ("+0 > [ttl 5, hlim 6] . 1:1(0)", 1, 14, "hlim is given twice"),
        ("+0 > [ecn up] . 1:1(0)", 1, 11, "expected one of ce, ect0"),
        ("+0 > [ect0 . 1:1(0)", 1, 12, "expected ',' or ']'"),
        ("+0 > [tos 0x100] . 1:1(0)", 1, 11, "the traffic class is 256"),
        ("+0 < 70000 > 80 S 0:0(0)", 1, 6, "the source port is 70000"),
        ("+0 < 192.0.2.1:1 > 192.0.2.2 S 0:0(0)", 1, 30, "a port at both ends or at neither"),
        ("+0 < ipv4 192.0.2.1 192.0.2.2: . 1:1(0)", 1, 21, "expected '>'"),
        ("+0 < gre . 1:1(0) <nop>", 1, 10, "expected ':' behind the gre header"),
        ("+0 < gre seq 3 . <nop>", 1, 18, "expected ':' behind the gre header"),
        ("+0 < [1:1(0)] . 1:1(0) win 1", 1, 15, "expected icmp behind a quoted packet"),
        ("+0 > udp 1000", 1, 10, "expected '('"),
        ("+0 < icmp 3", 1, 11, "expected an ICMP type"),
        ("+0 < icmp unreachable [dccp (3)]", 1, 24, "expected a quoted packet"),
        ("+0 > . 1:1(0)/tcp(1 > 2)", 1, 15, "expected udp"),
        ("+0 > . 1:1(0)/udp(1)", 1, 19, "expected two UDP ports"),
        ("+0 > sctp: INIT[flgs=0", 1, 16, "this bracket is never closed"),
        # TCP options
        ("+0 > S 0:0(0) <mss>", 1, 19, "expected the MSS, found '>'"),
        ("+0 > S 0:0(0) <mss 70000>", 1, 20, "the MSS is 70000"),
        ("+0 > S 0:0(0) <nop nop>", 1, 20, "expected ',' or '>' behind a TCP option"),
        ("+0 > S 0:0(0) <nop,>", 1, 20, "expected a TCP option"),
        ("+0 > S 0:0(0) <TS 5 ecr 6>", 1, 19, "expected val"),
        ("+0 > S 0:0(0) <TS val 5>", 1, 24, "expected ecr"),
        ("+0 > S 0:0(0) <sack 5>", 1, 22, "expected ':'"),
        ("+0 > S 0:0(0) <FO abc>", 1, 19, "the cookie is not an even number of hexadecimal digits"),
        ("+0 > S 0:0(0) <md5 " + "00" * 17 + ">", 1, 20, "the digest has 17 octets; at most 16 fit"),
        ("+0 > S 0:0(0) <ECN e0b 1 e0b 2>", 1, 26, "expected each of e0b, ceb, e1b at most once"),
        ("+0 > S 0:0(0) <strange thing", 1, 29, "expected '>' behind the TCP options"),
        # calls
        ("+0 close = 0", 1, 10, "expected '(' behind close"),
        ("+0 close(3", 1, 11, "expected ',' or ')'"),
        ("+0 close(3,) = 0", 1, 12, "expected an expression"),
        ("+0 close(3)\n+0 close(4) = 0", 2, 1, "expected '='"),
        ("+0 close(3) =", 1, 14, "expected an expression"),
        ("+0 f({a=1]) = 0", 1, 10, "expected ',' or '}'"),
        ("+0 f(a(1, 2)=3) = 0", 1, 14, "a field's count is one value"),
        ("+0 f((1) = 0", 1, 10, "expected ',' or ')'"),
        ("+0 f(" + "[" * 200, 1, 66, "nested too deep"),
        ("+0 f(" + "-" * 200 + "x) = 0", 1, 67, "nested too deep"),
        ("+0 f(" + "9" * 5000 + ") = 0", 1, 6, "too many digits"),
        ("+0 f(1) = -1 EIO (never", 1, 18, "this bracket is never closed"),
    ],
)
def test_each_mistake_is_found_at_its_place(text: str, line: int, column: int, message: str) -> None:
    error = _error(text)
    assert message in error.message
    assert (error.line, error.column) == (line, column)


def test_a_mistake_in_a_definition_names_the_definition() -> None:
    with pytest.raises(ScriptError) as caught:
        parse("+0 f(X) = 0", defines={"X": '"open'})
    assert caught.value.path == "definition of X"


def test_a_long_token_is_shortened_in_the_message() -> None:
    error = _error("+0 > S 0:0(0) <mss a_name_that_goes_on_and_on_and_on>")
    assert error.message == "expected the MSS, found 'a_name_that_goes_on_and_...'"
