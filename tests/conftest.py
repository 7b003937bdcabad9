"""For all tests: which of them this machine allows, the seed, and that nothing of ours is left behind.

System tests (marker `system`) need root, /dev/net/tun and namespaces. Where one of these is missing they are left
out, and the summary names the reason; with UMUX_REQUIRE_SYSTEM=1, as in CI, that fails the run.
"""

import errno
import os
import random
from collections import Counter
from typing import Final

import pytest
from hypothesis import settings

from tests import leftovers
from tun import netns
from tun.device import TunDevice
from tun.errors import TunError

SCENE: Final = pytest.StashKey[leftovers.Scene]()
LEFT_OUT: Final = pytest.StashKey[Counter[str]]()
LEFTOVERS: Final = pytest.StashKey[list[str]]()

STRICT: Final = os.environ.get("UMUX_REQUIRE_SYSTEM") == "1"

# A run of CI depends on nothing but the commit; elsewhere each run tries something new, and says what.
SEED: Final = os.environ.setdefault("UMUX_SEED", "1" if "CI" in os.environ else str(random.randrange(1 << 32)))
settings.register_profile("umux", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("umux")


def why_no_system_tests() -> str:
    """What this machine lacks for the system tests; empty if nothing."""
    if os.geteuid() != 0:
        return "not root"
    try:
        with netns.create() as namespace, namespace.run(TunDevice, "umuxprobe"):
            return ""
    except TunError as error:
        return error.strerror or errno.errorcode.get(error.errno or 0, "unknown")


@pytest.fixture(scope="session")
def seed() -> int:
    """The run's seed: printed in the header, and accepted back in UMUX_SEED."""
    return int(SEED)


def pytest_report_header() -> str:
    return f"UMUX_SEED={SEED}"


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[SCENE] = leftovers.begin()
    session.config.stash[LEFT_OUT] = Counter()
    session.config.stash[LEFTOVERS] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    system = [item for item in items if item.get_closest_marker("system")]
    reason = why_no_system_tests() if system else ""
    if reason:
        config.stash[LEFT_OUT][f"system tests: {reason}"] = len(system)
        config.hook.pytest_deselected(items=system)
        items[:] = [item for item in items if not item.get_closest_marker("system")]


def pytest_sessionfinish(session: pytest.Session) -> None:
    stash = session.config.stash
    stash[LEFT_OUT].update(_skipped(session.config))
    certain, likely = leftovers.certain(), leftovers.likely(stash[SCENE])
    stash[LEFTOVERS] = certain + likely
    failed = certain or (STRICT and (likely or stash[LEFT_OUT]))
    if failed and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for what in config.stash[LEFTOVERS]:
        terminalreporter.write_line(f"left behind: {what}", red=True)
    for reason, count in sorted(config.stash[LEFT_OUT].items()):
        verdict = " (a failure: UMUX_REQUIRE_SYSTEM=1)" if STRICT else ""
        terminalreporter.write_line(f"left out: {count} {reason}{verdict}", yellow=not STRICT, red=STRICT)


def _skipped(config: pytest.Config) -> Counter[str]:
    """Tests that found out themselves that they could not run: how many, by reason."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    reports = [] if reporter is None else reporter.stats.get("skipped", [])
    return Counter(
        f"{'system' if 'system' in report.keywords else 'other'} tests: {report.longrepr[2].removeprefix('Skipped: ')}"
        for report in reports
    )
