"""Which core runs, what a compiled one refuses, and that both say the same. `make test-fast` runs these on a compiled
one, too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.scene import play
from umuxstack.cli import drill
from umuxstack.cli import main as umux
from umuxstack.core import is_compiled
from umuxstack.core.errors import BadArgument
from umuxstack.driver import record
from umuxstack.testing.entropy import seed_of_run

ASK = (
    "import umuxstack.core.stack as stack; from umuxstack.core import is_compiled; print(is_compiled(), stack.__file__)"
)
STORIES = """
import sys
from tests.fuzz.scene import play
seed, rounds, packets = map(int, sys.argv[1:])
for number in range(rounds):
    print("story", play(seed, number, packets).story())
"""
ROUNDS, PACKETS = 12, 300


def run(core: str, code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs code in a new interpreter with the same paths."""
    environment = os.environ | {"UMUX_CORE": core, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment |= {"PYTHONHASHSEED": "random"}
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *map(str, arguments)],
        env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def ask(core: str) -> subprocess.CompletedProcess[str]:
    """What a new interpreter says of its core."""
    return run(core, ASK)


def test_the_core_that_is_imported_first_is_found_again() -> None:
    """Else the next test would show nothing on a compiled core."""
    assert ask("").stdout.split()[0] == str(is_compiled())


def test_the_environment_asks_for_the_sources() -> None:
    said = ask("python").stdout.split()
    assert said[0] == "False"
    assert said[1].endswith("stack.py")


def test_another_word_in_the_environment_is_an_error_that_says_which_there_are() -> None:
    done = ask("pyhton")
    assert done.returncode
    assert "UMUX_CORE is 'pyhton' in the environment; unset it, or set it to 'python'" in done.stderr


def test_and_the_command_line_says_just_that() -> None:
    """Every command ended in a traceback of twenty lines, `umux --help` and `umux doctor` as well."""
    for command in (["--help"], ["version"], ["ss"], ["up", "--prefix", "2001:db8::/64"], ["demo"]):
        done = run("pyhton", "import sys; from umuxstack.cli import main; sys.exit(main())", *command)
        assert done.returncode == 2
        assert done.stderr == "umux: UMUX_CORE is 'pyhton' in the environment; unset it, or set it to 'python'\n"
        assert not done.stdout


def test_a_program_that_has_loaded_nothing_yet_may_ask_for_the_sources() -> None:
    said = run("", f"from umuxstack.core import use_sources; use_sources(); {ASK}").stdout.split()
    assert said[0] == "False"
    assert said[1].endswith("stack.py")
    children = "import os; from umuxstack.core import use_sources; use_sources(); print(os.environ['UMUX_CORE'])"
    assert run("", children).stdout == "python\n"


def test_later_it_changes_nothing_for_there_would_be_two_cores() -> None:
    late = "import umuxstack.core.units, sys; from umuxstack.core import use_sources; before = sys.meta_path[:]; "
    done = run("", f"{late} use_sources(); assert sys.meta_path == before; {ASK}")
    assert done.stdout.split()[0] == str(is_compiled()), done.stderr


def test_mutants_run_on_the_sources_without_being_told() -> None:
    """A compiled installation refused them, and told the user to say UMUX_CORE=python."""
    done = run("", "import sys; from umuxstack.cli import main; sys.exit(main())", "drill", "--mutants", "nowhere.pkt")
    assert done.returncode == 2
    assert "UMUX_CORE" not in done.stderr
    assert "nowhere.pkt" in done.stderr


def test_a_compiled_core_is_not_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "is_compiled", lambda: True)
    with pytest.raises(BadArgument, match="UMUX_CORE=python"):
        record.Recorder(tmp_path / "run.rec")
    assert not list(tmp_path.iterdir())


def test_mutants_are_refused_as_wrong_usage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(drill, "is_compiled", lambda: True)
    with pytest.raises(SystemExit) as raised:
        raise SystemExit(umux(["drill", "--mutants", "tests/conformance"]))
    assert raised.value.code == 2
    assert "UMUX_CORE=python" in capsys.readouterr().err


def test_the_sources_in_another_process_say_the_same() -> None:
    """Any packets at all, and applications that do anything: the same packets, events and deadlines come out.

    Where the core that runs here is the plain one as well, it is the order of sets and of objects in memory that
    differs. A UDP socket once ended its sessions in that order.
    """
    seed = seed_of_run()
    print(f"UMUX_SEED={seed}")
    ours = [play(seed, number, PACKETS).story() for number in range(ROUNDS)]
    done = run("python", STORIES, seed, ROUNDS, PACKETS)
    assert not done.returncode, done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("story")] == ours
