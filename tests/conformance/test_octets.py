"""The runner looks at what the data is: a buffer that delivers as much as it should, but other octets, is noticed."""

from pathlib import Path
from typing import Any

import pytest

from umuxstack.conformance.octets import PERIOD, octets
from umuxstack.conformance.outcome import Status
from umuxstack.conformance.runner import run_file
from umuxstack.core.session.receive_buffer import ReceiveBuffer
from umuxstack.core.session.send_buffer import SendBuffer

SCRIPTS = Path(__file__).parent


def test_octets_tell_where_they_stand() -> None:
    assert octets(7, 5) == octets(0, 12)[7:]
    assert octets(100_000, 200_000) == octets(0, 300_000)[100_000:]
    assert octets(3, 10) != octets(3 + 1440, 10)
    assert octets(3, 10) == octets(3 + PERIOD, 10)


@pytest.mark.plain  # patches the core
def test_a_retransmission_of_other_octets_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    slice_of = SendBuffer.slice

    def behind(self: SendBuffer, start: int, end: int) -> Any:
        return bytes(slice_of(self, start + 1, end)) + b"\0" if start > self.start else slice_of(self, start, end)

    script = SCRIPTS / "rfc8985" / "tail-loss-probe.pkt"
    assert run_file(script).passed
    monkeypatch.setattr(SendBuffer, "slice", behind)
    outcome = run_file(script)
    assert outcome.status is Status.FAILED
    assert "octet 2000 of the stream" in outcome.message


@pytest.mark.plain  # patches the core
def test_octets_that_are_read_in_another_order_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    take = ReceiveBuffer.take

    def backwards(self: ReceiveBuffer, limit: int) -> bytes:
        return take(self, limit)[::-1]

    script = SCRIPTS / "urgent" / "received.pkt"
    assert run_file(script).passed
    monkeypatch.setattr(ReceiveBuffer, "take", backwards)
    assert "data was read" in run_file(script).message
