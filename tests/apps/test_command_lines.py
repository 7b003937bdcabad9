"""Every program in apps/ explains itself, runs its demonstration, fails in one line, and stays short."""

import subprocess
import sys
from pathlib import Path

import pytest

APPS = Path(__file__).parents[2] / "apps"
PROGRAMS = ["das_demo", "echo", "fetch", "httpd", "telnetd"]


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """As the README says it: `python apps/x.py`, with warnings as errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", str(APPS / f"{program}.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_says_how_to_begin(program: str) -> None:
    done = run(program, "--help")
    assert done.returncode == 0, done.stderr
    assert f"python apps/{program}.py" in done.stdout


@pytest.mark.parametrize("program", ["echo", "fetch", "httpd", "telnetd"])
def test_the_demonstration_runs_without_root(program: str) -> None:
    done = run(program, "--demo")
    assert done.returncode == 0, done.stderr
    assert "2001:db8:" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("program", ["echo", "httpd", "telnetd"])
def test_a_wrong_prefix_is_said_in_one_line(program: str) -> None:
    done = run(program, "--prefix", "nonsense", "--name", "umux-test")
    assert done.returncode == 1
    assert done.stderr.startswith(f"{program}: ")
    assert len(done.stderr.splitlines()) == 1


def test_fetching_nothing_is_a_usage_error() -> None:
    assert run("fetch").returncode == 2


def test_fetching_from_a_place_that_is_no_url_is_said_in_one_line() -> None:
    done = run("fetch", "--prefix", "nonsense", "ftp://nowhere/")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("path", sorted(APPS.glob("*.py")), ids=lambda path: path.stem)
def test_a_program_can_be_read_in_five_minutes(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 150
