"""Options, commands, comments, code, and every form in which an event's time can be written."""

from pathlib import Path

import pytest

from umuxstack.conformance.parser import parse, parse_file
from umuxstack.conformance.script import (
    Code,
    Command,
    Position,
    ScriptError,
    SystemCall,
    TcpPacket,
    Time,
    TimeKind,
)
from umuxstack.core.units import Micros

_PACKET = "> . 7:7(0) ack 3"


def _time(text: str, rest: str = _PACKET) -> Time:
    (event,) = parse(f"{text} {rest}\n").events
    return event.time


@pytest.mark.parametrize(
    ("text", "kind", "start", "end"),
    [
        ("0", TimeKind.ABSOLUTE, 0, 0),
        ("3", TimeKind.ABSOLUTE, 3_000_000, 3_000_000),
        ("0.250", TimeKind.ABSOLUTE, 250_000, 250_000),
        (".5", TimeKind.ABSOLUTE, 500_000, 500_000),
        ("+0", TimeKind.RELATIVE, 0, 0),
        ("+.1", TimeKind.RELATIVE, 100_000, 100_000),
        ("+ 0.000001", TimeKind.RELATIVE, 1, 1),
        ("+1.2345678", TimeKind.RELATIVE, 1_234_567, 1_234_567),
        ("*", TimeKind.ANY, 0, 0),
        ("0.5~0.75", TimeKind.ABSOLUTE_RANGE, 500_000, 750_000),
        ("+0~+0.5", TimeKind.RELATIVE_RANGE, 0, 500_000),
        ("+.2 ~ +1", TimeKind.RELATIVE_RANGE, 200_000, 1_000_000),
    ],
)
def test_a_time_is_read_to_the_microsecond(text: str, kind: TimeKind, start: int, end: int) -> None:
    assert _time(text) == Time(kind, Micros(start), Micros(end))


@pytest.mark.parametrize(
    ("text", "kind", "start", "end"),
    [
        ("0.1...0.35", TimeKind.ABSOLUTE, 100_000, 350_000),
        ("+0...2.1", TimeKind.RELATIVE, 0, 2_100_000),
        ("+.3 ... 4", TimeKind.RELATIVE, 300_000, 4_000_000),
    ],
)
def test_a_blocking_call_has_an_end(text: str, kind: TimeKind, start: int, end: int) -> None:
    (event,) = parse(f"{text} accept(9, ..., ...) = 10").events
    assert event.time == Time(kind, Micros(start), Micros(start))
    assert isinstance(event.action, SystemCall)
    assert event.action.end == end


def test_a_call_without_an_end_does_not_block() -> None:
    (event,) = parse("+1 accept(9, ..., ...) = 10").events
    assert isinstance(event.action, SystemCall)
    assert event.action.end is None


def test_comments_of_all_forms_say_nothing() -> None:
    script = parse(
        "// first\n"
        "--mtu=1300 // the rest of a line\n"
        "# a shell-like one\n"
        "/* over\n   two lines */ +0 close(3) = 0 // end\n"
        "+0 close(4) = 0 # end\n"
        "+0 close(/* inside */ 5) = 0"
    )
    assert [event.position for event in script.events] == [Position(5, 17), Position(6, 1), Position(7, 1)]
    assert script.option("mtu") == "1300"


def test_a_comment_inside_a_command_belongs_to_the_shell() -> None:
    script = parse('`echo hi # there\n// stays\necho "x"`\n+0 close(3) = 0')
    assert script.init == (Command('echo hi # there\n// stays\necho "x"'),)


def test_options_keep_their_values_as_written() -> None:
    script = parse(
        "--ip_version=ipv6\n"
        "--tolerance_usecs=14000 --speed=100\n"
        "--local_ip=fd00:77::1\n--remote_ip=2001:db8::/32\n--netmask_ip=255.255.0.0\n"
        "--non_fatal=packet,syscall\n--ip_version=ipv4-mapped-ipv6\n"
        '--code_command="python3 -B"\n--dry_run\n'
    )
    values = [(option.name, option.value) for option in script.options]
    assert values == [
        ("ip_version", "ipv6"),
        ("tolerance_usecs", "14000"),
        ("speed", "100"),
        ("local_ip", "fd00:77::1"),
        ("remote_ip", "2001:db8::/32"),
        ("netmask_ip", "255.255.0.0"),
        ("non_fatal", "packet,syscall"),
        ("ip_version", "ipv4-mapped-ipv6"),
        ("code_command", "python3 -B"),
        ("dry_run", None),
    ]
    assert script.option("ip_version") == "ipv4-mapped-ipv6"  # the last one counts
    assert script.option("dry_run") == ""
    assert script.option("mtu") is None
    assert script.options[2].position == Position(2, 25)


def test_an_unknown_option_is_accepted_and_reported() -> None:
    script = parse("--mtu=1500\n--from_the_future=7\n+0 close(3) = 0")
    assert [(option.name, option.position.line) for option in script.unknown_options] == [("from_the_future", 2)]


def test_commands_stand_before_within_and_behind_the_events() -> None:
    script = parse("--mtu=1500\n`sh ./a.sh\nsysctl -q x=1`\n+0 `date`\n+0 close(3) = 0\n`rm \\`which x\\``\n")
    assert script.init == (Command("sh ./a.sh\nsysctl -q x=1"),)
    assert script.events[0].action == Command("date")
    assert script.cleanup == (Command("rm \\`which x\\`"),)
    assert script.cleanup[0].position == Position(6, 1)


def test_code_keeps_its_lines_and_loses_the_blanks_at_its_ends() -> None:
    (event,) = parse("+0 %{ assert tcpi_snd_cwnd == 10, 'cwnd %d}' % tcpi_snd_cwnd }%").events
    assert event.action == Code("assert tcpi_snd_cwnd == 10, 'cwnd %d}' % tcpi_snd_cwnd")
    (event,) = parse("+0 %{\nfor i in range(2):\n    print({i})\n}%").events
    assert event.action == Code("\nfor i in range(2):\n    print({i})\n")


def test_events_may_run_over_lines_and_share_one() -> None:
    script = parse("+0 setsockopt(3,\n   SOL_TCP, TCP_NODELAY,\n   [1], 4) = 0 +.5 close(3)\n = 0\n")
    assert [event.position for event in script.events] == [Position(1, 1), Position(3, 16)]


def test_a_result_does_not_swallow_the_next_time() -> None:
    script = parse("+0 close(3) = 0\n+0 close(4) = 0\n* > . 1:1(0)\n2 close(5) = -1\n.5 close(6) = 0\n")
    assert len(script.events) == 5


def test_an_empty_script_is_a_script() -> None:
    script = parse(" \n// nothing\n")
    assert (script.options, script.init, script.events, script.cleanup) == ((), (), (), ())


def test_ifdef_blocks_are_read_for_their_own_platform() -> None:
    text = "#ifdef Linux\n+0 close(3) = 0\n#endif\n#ifdef FreeBSD\n+0 close(4) = 0\n+0 close(5) = 0\n#endif\n"
    assert [event.position.line for event in parse(text).events] == [2]
    assert [event.position.line for event in parse(text, platform="freebsd").events] == [5, 6]


def test_defines_of_the_caller_and_of_the_script_replace_words() -> None:
    script = parse(
        '--define=FAMILY=AF_INET6\n--define=NAME="two words"\n'
        "+0 call(SIZE, FAMILY, NAME, SIZES) = SIZE\n+0 > S 0:0(0) <mss SIZE>\n+0 RUN",
        defines={"SIZE": "1234", "FAMILY": "AF_INET", "RUN": "`true`"},
    )
    same = parse('+0 call(1234, AF_INET6, "two words", SIZES) = 1234\n+0 > S 0:0(0) <mss 1234>\n+0 `true`')
    assert script.events == same.events
    assert script.option("define") == 'NAME="two words"'


def test_a_file_is_read_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "one.pkt"
    path.write_text("+0 > S 0:0(0)\r\n+0 close(3) = 0\r\n")
    script = parse_file(path)
    assert (script.path, script.name) == (str(path), "one.pkt")
    assert isinstance(script.events[0].action, TcpPacket)


def test_a_file_of_bytes_that_are_no_text_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "two.pkt"
    path.write_bytes(b"+0 close(3) = 0\n+0 \xff\xfe")
    with pytest.raises(ScriptError) as caught:
        parse_file(path)
    assert (caught.value.line, caught.value.column) == (2, 4)
