"""Which core runs, and what a compiled one refuses. `make test-fast` runs these on a compiled one, too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from umuxstack.cli import drill
from umuxstack.cli import main as umux
from umuxstack.core import is_compiled
from umuxstack.core.errors import BadArgument
from umuxstack.driver import record

ASK = (
    "import umuxstack.core.stack as stack; from umuxstack.core import is_compiled; print(is_compiled(), stack.__file__)"
)


def ask(core: str) -> subprocess.CompletedProcess[str]:
    """What a new interpreter with the same paths says of its core."""
    environment = os.environ | {"UMUX_CORE": core, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(
        [sys.executable, "-P", "-c", ASK], env=environment, capture_output=True, text=True, check=False, timeout=60
    )


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
    assert "UMUX_CORE is 'pyhton' in the environment; it is 'python', or not set" in done.stderr


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
