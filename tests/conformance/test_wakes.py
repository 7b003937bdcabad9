"""The runner looks whether who waits is told: it asks anyway at each instant, as no application would."""

from pathlib import Path
from typing import Any

import pytest

from umuxstack.conformance.runner import run_file
from umuxstack.core.tcp.receive import ReceiveHalf
from umuxstack.core.tcp.tcb import Tcb

SCRIPT = Path(__file__).parent / "api" / "whoever-waits-is-told.pkt"


@pytest.mark.plain  # patches the core
def test_data_of_which_nobody_is_told_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that is never woken would wait for ever; every script passed all the same."""
    assert run_file(SCRIPT).passed
    text, wake = ReceiveHalf._text, Tcb._wake

    def in_silence(self: Any, *arguments: Any) -> None:
        monkeypatch.setattr(Tcb, "_wake", lambda self: None)
        text(self, *arguments)
        monkeypatch.setattr(Tcb, "_wake", wake)

    monkeypatch.setattr(ReceiveHalf, "_text", in_silence)
    assert "nobody who waits was told" in run_file(SCRIPT).message
