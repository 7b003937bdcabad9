"""Every system test's traffic is judged by tshark: no error, no bad checksum; warnings are summed up at the end."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.system.judge import GOOD, is_here, judge
from tests.system.wiretap import TAPS, Taps

WARNINGS: Final = pytest.StashKey[Counter[str]]()
JUDGED: Final = pytest.StashKey[Counter[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[WARNINGS] = Counter()
    config.stash[JUDGED] = Counter()


@pytest.fixture(autouse=True)
def judged_by_tshark(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """The test fails at its end if tshark sees an error in what went over its links."""
    if not is_here():  # test_tshark.py is skipped then, and names the reason
        yield
        return
    taps = Taps(tmp_path)
    token = TAPS.set(taps)
    try:
        yield
    finally:
        TAPS.reset(token)
    stash = request.config.stash
    for tap in taps.all:
        verdict = judge(tap.capture, tap.only)
        tap.capture.unlink()  # pytest keeps the directories of some runs
        stash[JUDGED].update(packets=verdict.packets, beyond=tap.beyond, links=1, errors=sum(verdict.errors.values()))
        stash[WARNINGS].update(verdict.warnings)
        assert verdict.errors == {}
        assert set(verdict.checksums) <= {GOOD}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    judged = config.stash[JUDGED]
    if not judged:
        return
    terminalreporter.write_line(
        f"tshark judged {judged['packets']} packets of {judged['links']} links in system tests: "
        f"{judged['errors']} errors; {judged['beyond']} packets beyond the bound were not captured; warnings:"
    )
    for message, count in config.stash[WARNINGS].most_common():
        terminalreporter.write_line(f"  {count:6} × {message}")
