"""apps/echo.py, on a wire in memory."""

import pytest
from trio.testing import MockClock

from apps import echo


async def test_a_client_that_was_given_an_address_is_echoed(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await echo.demo(b"Hello there") == b"Hello there"
    assert "DAS: ssa.echo.1 waits on 2001:db8:1:" in capsys.readouterr().out


async def test_more_than_a_window_is_echoed(autojump_clock: MockClock) -> None:
    sentence = bytes(range(256)) * 4096
    assert await echo.demo(sentence) == sentence
