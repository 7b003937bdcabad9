"""The grammar, the help texts, exit codes, and what users' mistakes look like."""

import argparse
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

import pytest
import trio

import umuxstack
from tests.cli.conftest import RunningStack, Umux
from umuxstack.cli import common, parser
from umuxstack.cli.common import FAILED, INTERRUPTED, NO_STACK, OK, PIPE_CLOSED, REFUSED, USAGE
from umuxstack.control import place
from umuxstack.control.layout import ProtocolError
from umuxstack.control.messages import Verb
from umuxstack.control.place import BadPlace, BoundSocket, PlaceError
from umuxstack.control.protocol import Busy, Forbidden, NoStack, SessionFailed, StackBug, WrongVersion
from umuxstack.core import errors
from umuxstack.core.errors import Reason

PROGRAM = (sys.executable, "-W", "error", "-m", "umuxstack")


def commands() -> dict[str, argparse.ArgumentParser]:
    """Every command with its parser, actions included ("das add")."""
    found: dict[str, argparse.ArgumentParser] = {}

    def walk(words: str, each: argparse.ArgumentParser) -> None:
        for action in each._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, below in action.choices.items():
                    found[f"{words} {name}".strip()] = below
                    walk(f"{words} {name}".strip(), below)

    walk("", parser.build())
    return found


# What a user of a stack needs; other commands (demo, link, …) have tests of their own.
HERE: Final = {
    "up", "down", "ss", "addr", "pool", "das", "das add", "das list", "das revoke", "stats", "telescope", "status",
    "events", "ping", "nc", "doctor", "analyze", "analyze birthday", "version",
}  # fmt: skip


def test_the_commands_are_there() -> None:
    assert set(commands()) >= HERE | {"demo"}


def test_every_command_and_verb_is_in_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    for name in HERE - {"das", "analyze"}:
        assert f"`umux {name}" in page
    for verb in Verb:
        assert f"| {verb.name} | {verb.value} |" in page


@pytest.mark.parametrize("name", sorted(set(commands()) - {"demo"}))
def test_every_help_text_explains_and_names_the_exit_codes(name: str) -> None:
    text = commands()[name].format_help()
    assert "exit codes: 0 done, 1 it failed, 2 wrong usage, 3 no stack" in text
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("name", sorted(HERE - {"das", "analyze", "version"}))
def test_every_command_shows_examples_that_parse(name: str) -> None:
    text = commands()[name].format_help().split("examples:\n")[1].split("\n\n")[0]
    lines = re.sub(r"\\\n\s+", "", text).splitlines()
    assert lines
    for line in lines:
        words = re.split(r"  | \| jq| > ", line.strip())[0].removeprefix("sudo ").removeprefix("tar c . | ")
        if words.startswith("umux ") and "$(" not in words:
            assert parser.parse(shlex.split(words)[1:]).run is not None


@pytest.mark.parametrize("name", sorted(HERE - {"das", "analyze"}))
def test_every_list_has_json(name: str) -> None:
    without = {"down", "nc", "das revoke", "version"}
    options = {option for action in commands()[name]._actions for option in action.option_strings}
    assert ("--json" in options) is (name not in without)


def test_nothing_at_all_is_wrong_usage_and_shows_the_commands(umux: Umux) -> None:
    nothing = umux()
    assert nothing.code == USAGE
    assert "das" in nothing.out


@pytest.mark.parametrize("words", [("no-such",), ("ss", "--no-such"), ("das", "add"), ("up", "--mtu", "x")])
def test_wrong_words_are_wrong_usage(umux: Umux, words: tuple[str, ...]) -> None:
    wrong = umux(*words)
    assert wrong.code == USAGE
    assert "Traceback" not in wrong.err


@pytest.mark.parametrize("words", [("version",), ("--version",)])
def test_the_version(umux: Umux, words: tuple[str, ...]) -> None:
    said = umux(*words).out
    assert re.match(r"umuxstack 0\.1\.0, core (in Python|compiled), Python 3\.\d+", said), said


def test_the_programs_that_tests_start_run_the_same_core(umux: Umux) -> None:
    """On a compiled core, theirs was found in the current directory, and was the plain one."""
    started = subprocess.run([*PROGRAM, "version"], capture_output=True, text=True, check=True, timeout=30)
    assert started.stdout == umux("version").out


# no stack, or the wrong one


def test_no_stack_says_how_to_start_one(umux: Umux, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UMUX_SOCKET", raising=False)
    monkeypatch.setattr(place, "SYSTEM_DIRECTORY", tmp_path)
    for words in (("ss",), ("ss", "--name", "umux7"), ("ss", "--socket", str(tmp_path / "none"))):
        nobody = umux(*words)
        assert nobody.code == NO_STACK
        assert "no stack is running" in nobody.err
        assert "umux up" in nobody.err


def test_a_dead_stack_s_socket_is_told_apart(umux: Umux, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(tmp_path / "dead.sock"))
    shown = umux("ss", "--socket", str(tmp_path / "dead.sock"))
    assert shown.code == NO_STACK
    assert "nobody answers" in shown.err


def test_several_stacks_have_to_be_told_apart(umux: Umux, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UMUX_SOCKET", raising=False)
    monkeypatch.setattr(place, "SYSTEM_DIRECTORY", tmp_path)
    first, second = BoundSocket(tmp_path / "umux0.sock"), BoundSocket(tmp_path / "umux1.sock")
    shown = umux("ss")
    assert shown.code == USAGE
    assert "umux0, umux1" in shown.err
    assert "--name" in shown.err
    first.close()
    second.close()


def test_the_only_stack_is_found_and_so_is_a_named_one(
    stack: RunningStack, umux: Umux, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UMUX_SOCKET")
    monkeypatch.setattr(place, "SYSTEM_DIRECTORY", stack.path.parent)
    assert umux("status").out.startswith("stack test, ")
    assert umux("status", "--name", "test").code == OK
    assert umux("status", "--name", "other").code == NO_STACK


def test_down_asks_the_stack_to_end(stack: RunningStack, umux: Umux) -> None:
    def obey() -> None:
        stack.wait(stack.server.shutdown_requested.wait)
        stack.stop()

    thread = threading.Thread(target=obey)
    thread.start()
    assert umux("down").code == OK
    thread.join(10)
    assert not stack.path.exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NoStack("x"), NO_STACK),
        (WrongVersion("x"), NO_STACK),
        (Forbidden("x"), REFUSED),
        (Busy("x"), REFUSED),
        (errors.AddressUsed("x"), REFUSED),
        (errors.BadArgument("x"), USAGE),
        (errors.AddressMalformed("x"), USAGE),
        (errors.AddressNotOurs("x"), REFUSED),
        (SessionFailed(Reason.REFUSED, "x"), FAILED),
        (PlaceError("x"), FAILED),
        (BadPlace("x"), USAGE),
        (StackBug("x"), FAILED),
        (ProtocolError("x"), FAILED),
        (common.Failure("x", code=USAGE), USAGE),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_failure_has_its_exit_code(error: Exception, code: int) -> None:
    failure = common.explain(error)
    assert failure is not None
    assert failure.code == code


def test_a_bug_of_ours_is_not_dressed_up() -> None:
    assert common.explain(ZeroDivisionError()) is None


# as a process


def loaded(words: list[str]) -> list[str]:
    """Which heavy modules the command line loads for this command, the package's own __init__ left aside."""
    heavy = ("trio", "construct", "pyroute2", "pytun", "asyncio", "umuxstack.core.stack", "umuxstack.driver.runtime")
    program = (
        "import sys, types\n"
        f"package = types.ModuleType('umuxstack'); package.__path__ = {list(umuxstack.__path__)}\n"
        "sys.modules['umuxstack'] = package\n"
        "from umuxstack.cli import main\n"
        f"try:\n    main({words})\nexcept SystemExit:\n    pass\n"
        f"print(*[name for name in {heavy} if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    return shown.stdout.splitlines()[-1].split()


def test_a_help_text_loads_neither_trio_nor_the_stack() -> None:
    assert loaded(["--help"]) == []


def test_a_client_command_loads_neither_trio_nor_the_stack(stack: RunningStack) -> None:
    assert loaded(["pool"]) == []


def test_a_reader_that_leaves_early_is_no_error(stack: RunningStack) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    shown = subprocess.run([*PROGRAM, "stats", "--all"], stdout=writer, stderr=subprocess.PIPE, timeout=30, check=False)
    os.close(writer)
    assert (shown.returncode, shown.stderr) == (PIPE_CLOSED, b"")


@pytest.mark.parametrize("words", [("events",), ("stats", "--watch", "60")], ids=" ".join)
def test_ctrl_c_ends_in_silence(stack: RunningStack, words: tuple[str, ...]) -> None:
    with subprocess.Popen([*PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        if words[0] == "stats":
            process.stdout.readline()
        else:
            stack.call(lambda: stack.host.start_soon(_make_noise, stack))
            process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
        assert (process.returncode, err) == (INTERRUPTED, b"")


async def _make_noise(stack: RunningStack) -> None:
    while True:
        async with await stack.host.listen():
            await trio.sleep(0.02)


# doctor and analyze


def test_doctor_tells_what_this_machine_allows(umux: Umux) -> None:
    shown = umux("doctor", "--json")
    able = json.loads(shown.out)["able"]
    assert shown.code == (OK if able else FAILED)
    names = [finding["name"] for finding in shown.json["findings"]]
    assert "a TUN device can be made" in names  # the verdict goes by these two
    assert "IPv6" in names


def test_doctor_prints_the_command_that_mends(umux: Umux, monkeypatch: pytest.MonkeyPatch) -> None:
    from tun import probe

    findings = [
        probe.Finding("IPv6", True, "enabled", ""),
        probe.Finding("a TUN device can be made", False, "missing", "sudo modprobe tun " + "and so on " * 30),
    ]
    monkeypatch.setattr(probe, "probe", lambda: findings)
    shown = umux("doctor")
    assert shown.code == FAILED
    assert shown.lines[0] == "ok   IPv6: enabled"
    assert shown.lines[1] == "NO   a TUN device can be made: missing"
    assert shown.lines[2].strip().startswith("sudo modprobe tun and so on")
    assert max(map(len, shown.lines)) <= 100
    assert shown.lines[-1] == "`umux up` cannot run a stack here as things are."


def test_analyze_birthday(umux: Umux, tmp_path: Path) -> None:
    assert "10.275" in umux("analyze", "birthday").out
    assert umux("analyze", "birthday", "--bits", "48", "--rate", "3.17", "--json").json
    assert umux("analyze", "birthday", "--plot", str(tmp_path / "curve.svg")).code == OK
    assert (tmp_path / "curve.svg").read_text().startswith("<")
    for words in (("--bits", "0"), ("--rate", "-1"), ("--plot", str(tmp_path / "curve.doc"))):
        wrong = umux("analyze", "birthday", *words)
        assert wrong.code == USAGE
        assert wrong.err.startswith("umux: ")
