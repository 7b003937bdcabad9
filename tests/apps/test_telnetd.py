"""apps/telnetd.py: its lines, and a session on a wire in memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from apps import telnetd
from apps.telnetd import Lines

TERMINAL_TYPE = 24  # RFC 1091


async def test_a_session_asks_and_answers(autojump_clock: MockClock) -> None:
    screen = await telnetd.demo(["who", "", "fly high", "quit"])
    assert screen.startswith("Welcome, alice. ")
    assert "> the pair 2001:db8:1:" in screen
    assert ": ssa.telnetd.1\r\n" in screen
    assert "fly: unknown" in screen
    assert screen.endswith("This address is gone now.\r\n")


async def test_a_client_that_just_goes_ends_the_session(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (await telnetd.demo(["who"])).endswith("ssa.telnetd.1\r\n> ")
    assert "ssa.telnetd.1: alice has left" in capsys.readouterr().out


def test_a_line_may_come_in_pieces_and_several_at_once() -> None:
    lines = Lines()
    assert lines.feed(b"wh") == ([], b"")
    assert lines.feed(b"o\r\ntime\r\0\nrt") == (["who", "time"], b"")
    assert lines.feed(b"t\n") == (["rtt"], b"")


@pytest.mark.parametrize(
    ("command", "refusal"),
    [
        (bytes((255, 251, TERMINAL_TYPE)), bytes((255, 254, TERMINAL_TYPE))),  # WILL: DONT
        (bytes((255, 253, TERMINAL_TYPE)), bytes((255, 252, TERMINAL_TYPE))),  # DO: WONT
        (bytes((255, 252, TERMINAL_TYPE)), b""),  # WONT
        (bytes((255, 254, TERMINAL_TYPE)), b""),  # DONT
        (bytes((255, 250, TERMINAL_TYPE, 1, 13, 10, 255, 240)), b""),  # a subnegotiation
        (bytes((255, 246)), b""),  # ARE YOU THERE
    ],
)
@pytest.mark.rule("RFC 854")
def test_options_are_refused_and_commands_are_not_text(command: bytes, refusal: bytes) -> None:
    assert Lines().feed(b"w" + command + b"ho\r\n") == (["who"], refusal)


def test_a_doubled_255_is_text() -> None:
    assert Lines().feed(b"a\xff\xffb\n") == (["a\N{REPLACEMENT CHARACTER}b"], b"")


@pytest.mark.parametrize("endless", [b"x" * 2000, b"\xff\xfa" + b"x" * 2000])
def test_a_line_or_a_command_without_an_end_is_not_kept(endless: bytes) -> None:
    with pytest.raises(ValueError, match="does not end"):
        Lines().feed(endless)


@given(
    st.lists(st.sampled_from([b"who", b"\r\n", b"\xff\xff", b"\xff\xfd\x18", b"\xff\xfa\x18\n\xff\xf0", b"\xff\xf6"]))
)
def test_how_the_bytes_are_cut_makes_no_difference(parts: list[bytes]) -> None:
    data = b"".join(parts)
    whole = Lines().feed(data)
    lines, refusals = Lines(), b""
    single: list[str] = []
    for octet in data:
        more, refusal = lines.feed(bytes((octet,)))
        single += more
        refusals += refusal
    assert (single, refusals) == whole
