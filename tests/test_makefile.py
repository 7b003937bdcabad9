"""`make fast` compiles when the sources are others than those that were compiled, and only then."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BEFORE, BEGUN, NOW = 1_000_000, 1_000_010, 1_000_020  # seconds

# In the place of pip: says that it compiles, and makes the folder.
COMPILER = """\
#!/bin/sh
echo compiles
mkdir -p build/compiled
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Our Makefile and a few modules, of which all is up to date."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in (
        "pyproject.toml",
        "scripts/make-venv",
        "scripts/compile_core.py",
        "umuxstack/core/stack.py",
        "umuxstack/core/tcp/tcb.py",
        "tun/device.py",
        ".venv/dev.stamp",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (BEFORE, BEFORE))
    compiler = tmp_path / "compiler"
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    assert compiles(tmp_path)
    assert not compiles(tmp_path)
    return tmp_path


def compiles(project: Path) -> bool:
    """Whether `make fast` does; what it makes is as old as BEGUN then."""
    done = subprocess.run(
        ["make", "fast", "PY=./compiler"], cwd=project, capture_output=True, text=True, check=True, timeout=30
    )
    for made in (project / "build").rglob("*"):
        os.utime(made, (BEGUN, BEGUN))
    return "compiles" in done.stdout


def test_a_module_that_was_changed(project: Path) -> None:
    os.utime(project / "umuxstack/core/stack.py", (NOW, NOW))
    assert compiles(project)


def test_a_module_that_is_new(project: Path) -> None:
    (project / "umuxstack/core/more.py").touch()
    assert compiles(project)


@pytest.mark.parametrize("name", ["umuxstack/core/tcp/tcb.py", "tun/device.py"])
def test_a_module_that_is_gone(project: Path, name: str) -> None:
    """Nothing was compiled, and what was compiled had a module more than the sources."""
    (project / name).unlink()
    assert compiles(project)


def test_a_module_that_has_another_name(project: Path) -> None:
    """A name given by `mv` keeps the time of the file."""
    (project / "tun/device.py").rename(project / "tun/devices.py")
    assert compiles(project)


def test_not_what_running_python_leaves(project: Path) -> None:
    cache = project / "umuxstack/core/__pycache__"
    cache.mkdir()
    (cache / "stack.cpython-311.pyc").touch()
    assert not compiles(project)
