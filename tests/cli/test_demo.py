"""The demo shows what it claims, notices when it does not, and leaves nothing behind, however it ends."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dpkt
import pytest

from tests.leftovers import SESSION_VARIABLE

PATIENCE = 30.0  # seconds


def command(*options: str) -> list[str]:
    return [sys.executable, "-m", "umuxstack", "demo", "--fast", *options]


def environment(directory: Path, **more: str) -> dict[str, str]:
    """The package of this checkout; temporary files where the test can see all of them."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TMPDIR": str(directory), **more}


def perform(directory: Path, *options: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        command("--json", *options), cwd=directory, env=environment(directory), capture_output=True, text=True,
        timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert not done.stderr
    return done.returncode, json.loads(done.stdout)


def check_story(code: int, result: dict[str, Any], site: str) -> None:
    failed = [claim for step in result["steps"] for claim in step["claims"] if not claim["ok"]]
    assert failed == []
    assert (code, result["ok"], result["site"], len(result["steps"])) == (0, True, site, 7)
    lives = {life["name"]: life for life in result["addresses"]}
    assert list(lives) == ["ssa.web.1", "ea.1", "ssa.web.2", "ea.2"]
    assert all(life["ended"] > life["opened"] for life in lives.values())
    assert lives["ea.2"]["established"] is None  # the one that knocked at a used SSA
    with open(result["pcap"], "rb") as file:
        packets = [(at, dpkt.ip6.IP6(packet)) for at, packet in dpkt.pcapng.Reader(file)]
    assert result["packets"] == len(packets) >= 20
    assert all(abs(at - time.time()) < 60 for at, _ in packets)
    written = Path(result["pcap"]).read_bytes()
    assert b"dropped: no_owner" in written  # what the server thought of the knock
    assert all(f"{name}\0".encode() in written for name in ("ssa.web.1", "ssa.web.2"))


@pytest.mark.rule("UM-7", "UM-15", "UM-20", "UM-21", "UM-22", "UM-31", "UM-32", "UM-33")
def test_the_story_holds_in_memory(tmp_path: Path) -> None:
    code, result = perform(tmp_path, "--no-root", "--pcap", "its.pcapng")
    check_story(code, result, "memory")
    assert sorted(os.listdir(tmp_path)) == ["its.pcapng"]


@pytest.mark.system
def test_the_story_holds_on_real_devices(tmp_path: Path) -> None:
    code, result = perform(tmp_path)
    check_story(code, result, "tun")
    assert sorted(os.listdir(tmp_path)) == ["umux-demo.pcapng"]


@pytest.mark.system
def test_without_curl_the_legacy_host_uses_urllib(tmp_path: Path) -> None:
    done = subprocess.run(
        command(), cwd=tmp_path, env=environment(tmp_path, PATH=""), capture_output=True, text=True, timeout=PATIENCE,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "$ urllib.request.urlopen('http://[2001:db8:1:" in done.stdout
    assert "$ curl" not in done.stdout


def test_the_text_is_plain_where_nobody_sits_at_a_terminal(tmp_path: Path) -> None:
    done = subprocess.run(
        command("--no-root"), cwd=tmp_path, env=environment(tmp_path), capture_output=True, timeout=PATIENCE,
        check=False,
    )  # fmt: skip
    text = done.stdout.decode("ascii")
    assert "\x1b" not in text
    assert "In memory, without root" in text
    assert max(len(line) for line in text.splitlines() if "Wireshark" not in line) <= 120
    assert done.returncode == 0


A_STACK_THAT_ANSWERS = """
import functools, sys
from umuxstack.cli import demo
demo.memory_site = functools.partial(demo.memory_site, silence=False)
sys.exit(demo.main(["--fast", "--no-root", "--json"]))
"""


def test_a_stack_that_answers_a_knock_fails_the_demo(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", A_STACK_THAT_ANSWERS], cwd=tmp_path, env=environment(tmp_path), capture_output=True,
        text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    result = json.loads(done.stdout)
    assert (done.returncode, result["ok"]) == (1, False)
    seen = [claim["seen"] for claim in result["steps"][-1]["claims"] if not claim["ok"]]
    assert seen[0].startswith("refused")
    assert seen[1] == "1 packet: ['RST+ACK']"


def processes_of(mark: str) -> list[str]:
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if f"{SESSION_VARIABLE}={mark}".encode() in (directory / "environ").read_bytes().split(b"\0"):
                found.append((directory / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


KNOCKING, ASKING, SESSION = "2. ", "3. ", "6. "  # steps: as curl waits; at the control socket; with sessions open


@pytest.fixture
def interrupted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A demo in the middle of a step, and the mark that its processes bear."""
    mark = f"demo-{os.getpid()}-{tmp_path.name}"
    options = () if os.geteuid() == 0 else ("--no-root",)
    process = subprocess.Popen(
        command(*options), cwd=tmp_path, env=environment(tmp_path, **{SESSION_VARIABLE: mark}), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(request.param):
                break
        time.sleep(0.1)  # into the middle of it
        yield process, mark
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("interrupted", "number", "code"),
    [
        (KNOCKING, signal.SIGTERM, 143),
        (ASKING, signal.SIGINT, 130),
        (SESSION, signal.SIGINT, 130),
        (SESSION, signal.SIGTERM, 143),
        (SESSION, signal.SIGHUP, 129),
    ],
    indirect=["interrupted"],
)
def test_a_signal_ends_it_and_nothing_is_left(
    interrupted: tuple["subprocess.Popen[str]", str], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process, mark = interrupted
    process.send_signal(number)
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (code, "")
    assert os.listdir(tmp_path) == []
    assert processes_of(mark) == []


@pytest.mark.parametrize("interrupted", [SESSION], indirect=True)
def test_after_a_kill_the_next_start_sweeps(interrupted: tuple["subprocess.Popen[str]", str], tmp_path: Path) -> None:
    process, mark = interrupted
    process.kill()
    process.communicate()
    assert [name.startswith(f"umux-demo-{process.pid}-") for name in os.listdir(tmp_path)] == [True]
    mine = Path(tempfile.mkdtemp(prefix=f"umux-demo-{os.getpid()}-", dir=tmp_path))  # a demo that still runs
    code, _ = perform(tmp_path, "--no-root", "--pcap", os.devnull)
    assert code == 0
    assert os.listdir(tmp_path) == [mine.name]
    assert processes_of(mark) == []
