"""The test run's own promises: what is left out is named, what is left behind is found."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import leftovers
from tun import netns
from umuxstack.driver.replay import replay

ROOT = Path(__file__).parents[1]

NOT_ROOT = "import os\nos.geteuid = lambda: 1000\n"

A_SUITE = """
import pytest

@pytest.mark.system
def test_on_a_real_tun(): pass

@pytest.mark.system
def test_with_a_tool(): pytest.skip("no such tool")

def test_of_the_core(): pass
"""


def run_suite(directory: Path, head: str, suite: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs pytest on `suite` under our conftest; `head` is what the machine is made to look like."""
    (directory / "conftest.py").write_text(f"{head}from tests.conftest import *  # noqa: F403\n")
    (directory / "test_suite.py").write_text(suite)
    (directory / "pytest.ini").write_text("[pytest]\nmarkers =\n  system: needs root\n")
    variables = {name: value for name, value in os.environ.items() if not name.startswith("UMUX_")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"],
        cwd=directory,
        env={**variables, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_system_tests_that_cannot_run_are_left_out_by_name(tmp_path: Path) -> None:
    done = run_suite(tmp_path, NOT_ROOT, A_SUITE)
    assert "left out: 2 system tests: not root\n" in done.stdout
    assert "1 passed, 2 deselected" in done.stdout
    assert done.returncode == 0


def test_where_they_must_run_leaving_them_out_fails(tmp_path: Path) -> None:
    done = run_suite(tmp_path, NOT_ROOT, A_SUITE, UMUX_REQUIRE_SYSTEM="1")
    assert "left out: 2 system tests: not root (a failure: UMUX_REQUIRE_SYSTEM=1)" in done.stdout
    assert done.returncode == 1


@pytest.mark.system
def test_where_they_must_run_a_system_test_that_skips_itself_fails(tmp_path: Path) -> None:
    done = run_suite(tmp_path, "", A_SUITE, UMUX_REQUIRE_SYSTEM="1")
    assert "left out: 1 system tests: no such tool (a failure: UMUX_REQUIRE_SYSTEM=1)" in done.stdout
    assert done.returncode == 1


def test_the_seed_is_printed_and_accepted_back(tmp_path: Path) -> None:
    suite = "def test_it(seed): assert seed == 4711"
    done = run_suite(tmp_path, NOT_ROOT, suite, UMUX_SEED="4711")
    assert "UMUX_SEED=4711" in done.stdout
    assert done.returncode == 0


def test_a_process_that_outlives_the_tests_fails_the_run(tmp_path: Path) -> None:
    suite = """
import subprocess
CAT = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # ends with us, at the latest

def test_it():
    CAT.stdin.write(b"here\\n")
    CAT.stdin.flush()
    assert CAT.stdout.readline() == b"here\\n"
"""
    patience = "from tests import leftovers\nleftovers.PATIENCE = 0.1\n"
    done = run_suite(tmp_path, NOT_ROOT + patience, suite)
    assert re.search(r"left behind: process \d+ \(cat\)", done.stdout)
    assert done.returncode == 1


@pytest.mark.system
def test_a_namespace_that_outlives_its_test_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "PATIENCE", 0.0)
    name = netns.owned_name("leftover")
    with netns.create(name):
        assert f"namespace {name}" in leftovers.certain()
    assert f"namespace {name}" not in leftovers.certain()


RANDOM_SUITES = {
    "seed": """
from umuxstack.core.units import seconds
from umuxstack.testing.network import Network

def test_that_fails():
    with Network() as net:
        client, server = net.hosts("client", "server")
        door = server.listen()
        session = client.connect(server.das(door).address)
        net.run_for(seconds(1))
        client.write(session, b"hello")
        net.run_for(seconds(1))
        assert server.read(door.accept()) == b"something else"
""",
    "hypothesis": """
from hypothesis import given
from hypothesis import strategies as st
from umuxstack.testing.builders import packed
from umuxstack.testing.wire import Wire

@given(st.integers(0, 100))
def test_that_fails(number):
    wire = Wire(seed=number)
    for _ in range(number):
        wire.stack.connect(packed("2001:db8:2::1"), 80, wire.now)
    assert len(wire.take()) < 7
""",
    "machine": """
from hypothesis.stateful import RuleBasedStateMachine, rule
from umuxstack.testing.builders import packed
from umuxstack.testing.wire import Wire

class Machine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.wire = Wire(seed=1)

    @rule()
    def connect(self):
        self.wire.stack.connect(packed("2001:db8:2::1"), 80, self.wire.now)
        self.wire.take()
        assert len(list(self.wire.stack.sessions())) < 4

TestMachine = Machine.TestCase
""",
}


@pytest.mark.parametrize("kind", sorted(RANDOM_SUITES))
def test_a_random_test_that_fails_leaves_recordings_that_can_be_replayed(tmp_path: Path, kind: str) -> None:
    """Its seed was printed, and nothing else: to look into a run one had to write a program."""
    folder = tmp_path / "sim"
    folder.mkdir()
    done = run_suite(folder, "", RANDOM_SUITES[kind], UMUX_SEED="5")
    assert "1 failed" in done.stdout, done.stdout
    files = re.findall(r"^umux replay (\S+)$", done.stdout, re.MULTILINE)
    assert len(files) == (2 if kind == "seed" else 1), done.stdout
    assert sorted(map(Path, files)) == sorted((folder / ".recordings").iterdir())
    for file in files:
        result = replay(file)
        assert result.difference is None
        assert result.packets_out > 0
    if kind == "hypothesis":
        assert result.packets_out == 7  # the smallest example that fails
    elif kind == "machine":
        assert result.packets_out == 4


def test_a_test_without_chance_leaves_no_recording(tmp_path: Path) -> None:
    folder = tmp_path / "core"
    folder.mkdir()
    done = run_suite(folder, "", RANDOM_SUITES["seed"])
    assert "1 failed" in done.stdout
    assert "umux replay" not in done.stdout
    assert not (folder / ".recordings").exists()


def test_ctrl_c_within_a_nursery_ends_the_run(tmp_path: Path) -> None:
    """It counted as one failed test, and all others followed."""
    suite = """
def test_that_is_interrupted():
    raise BaseExceptionGroup("nursery", [BaseExceptionGroup("nursery", [KeyboardInterrupt()])])

def test_that_follows(): pass
"""
    done = run_suite(tmp_path, "", suite)
    assert done.returncode == pytest.ExitCode.INTERRUPTED
    assert "passed" not in done.stdout
