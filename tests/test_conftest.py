"""The test run's own promises: what is left out is named, what is left behind is found."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import leftovers
from tun import netns

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
