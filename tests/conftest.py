"""For all tests: which of them this machine allows, the seed, and that nothing of ours is left behind.

System tests (marker `system`) need root, /dev/net/tun and namespaces. Where one of these is missing they are left
out, and the summary names the reason; with UMUX_REQUIRE_SYSTEM=1, as in CI, that fails the run.
"""

import contextlib
import errno
import io
import os
import random
import re
from collections import Counter
from collections.abc import Generator
from typing import Final

import pytest
from hypothesis import settings

from tests import leftovers
from tun import netns
from tun.device import TunDevice
from tun.errors import TunError
from umuxstack.testing.recording import keeping

SCENE: Final = pytest.StashKey[leftovers.Scene]()
LEFT_OUT: Final = pytest.StashKey[Counter[str]]()
LEFTOVERS: Final = pytest.StashKey[list[str]]()

RANDOM: Final = ("fuzz", "scenarios", "sim")  # folders whose tests do what a seed says
RECORDINGS: Final = ".recordings"

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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    """A nursery wraps the KeyboardInterrupt of Ctrl-C, and pytest would count it as one more failure and go on."""
    try:
        yield
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt):
            raise KeyboardInterrupt from group
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call" and report.failed and isinstance(item, pytest.Function) and _is_random(item):
        report.sections.append(("Recordings", _once_more(item)))
    return report


def _is_random(item: pytest.Function) -> bool:
    return item.path.parent.name in RANDOM or getattr(item.obj, "is_hypothesis_test", False)


def _once_more(item: pytest.Function) -> str:
    """Runs a random test again, with the same seed, and keeps what its stacks take in; says where."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", item.name).strip("-")[:80]
    known = getattr(item, "_excinfo", None)  # where unittest's items, such as state machines, put their failures
    with keeping(item.config.rootpath / RECORDINGS, name) as keeper, contextlib.redirect_stdout(io.StringIO()):
        failed = False
        try:
            item.runtest()
            failed = bool(getattr(item, "_excinfo", None))
        except (Exception, pytest.fail.Exception):
            failed = True
        if not failed:
            keeper.forget()
    if known is not None or hasattr(item, "_excinfo"):
        item._excinfo = known  # type: ignore[attr-defined]
    if not failed:
        return f"it did not fail once more with UMUX_SEED={SEED}"
    if not keeper.paths:
        return "no stack took part"
    return "\n".join(f"umux replay {path}" for path in keeper.paths)


def _skipped(config: pytest.Config) -> Counter[str]:
    """Tests that found out themselves that they could not run: how many, by reason."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    reports = [] if reporter is None else reporter.stats.get("skipped", [])
    return Counter(
        f"{'system' if 'system' in report.keywords else 'other'} tests: {report.longrepr[2].removeprefix('Skipped: ')}"
        for report in reports
    )
