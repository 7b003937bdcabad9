"""Build hook: `UMUX_COMPILE=1 pip install .` compiles the core with mypyc (docs/speed.md). Without it, plain Python."""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = Path("umuxstack/core")
STAYS = "@attrs."  # mypyc cannot compile what attrs makes; such modules hold values, and little else
NEEDED = (
    "it takes a C compiler and Python's headers (Debian: gcc python3-dev); without UMUX_COMPILE the core is installed"
    " as it is, in Python"
)
SETUP = """
from mypyc.build import mypycify
from setuptools import setup

arguments = ["--config-file=mypy.ini", {files}]
setup(name="umuxstack", packages=[], ext_modules=mypycify(arguments, group_name="umuxstack", debug_level="0"))
"""
MYPY = """
[mypy]
strict = true
explicit_package_bases = true
namespace_packages = true
"""


def modules(root: Path) -> list[str]:
    """What is compiled, relative to `root`."""
    found = sorted((root / PACKAGE).rglob("*.py"))
    return [
        str(path.relative_to(root))
        for path in found
        if path.name != "__init__.py" and STAYS not in path.read_text(encoding="utf-8")
    ]


class CompileCore(BuildHookInterface[Any]):
    """Adds the extension modules to the wheel; the sources stay beside them, for readers and UMUX_CORE=python."""

    @property
    def _wanted(self) -> bool:
        return os.environ.get("UMUX_COMPILE", "") not in ("", "0")

    def dependencies(self) -> list[str]:
        return ["mypy>=1.20", "setuptools>=77", "attrs>=23.1"] if self._wanted else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if not self._wanted or version == "editable":
            return
        self._check_tools()
        self._place = TemporaryDirectory(prefix="umux-compile-")
        place = Path(self._place.name)
        shutil.copytree(
            Path(self.root) / PACKAGE, place / PACKAGE, ignore=shutil.ignore_patterns("__pycache__", "*.so")
        )
        files = modules(place)
        (place / "mypy.ini").write_text(MYPY, encoding="utf-8")
        (place / "setup.py").write_text(SETUP.format(files=", ".join(map(repr, files))), encoding="utf-8")
        self.app.display_info(f"compiling {len(files)} modules of {PACKAGE}: about two minutes")
        done = subprocess.run(
            [sys.executable, "setup.py", "build_ext", "--inplace"],
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        made = sorted(place.glob("*.so")) + sorted((place / PACKAGE).rglob("*.so"))
        if done.returncode or not made:
            self.app.abort(f"{done.stdout[-4000:]}\nthe core could not be compiled: see above; {NEEDED}")
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"].update({str(path): str(path.relative_to(place)) for path in made})

    def _check_tools(self) -> None:
        """Says what is missing before a minute has gone."""
        compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
        header = Path(sysconfig.get_path("include"), "Python.h")
        for there, what in ((shutil.which(compiler), compiler), (header.exists(), str(header))):
            if not there:
                self.app.abort(f"the core cannot be compiled: {what} is not there; {NEEDED}")

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self._wanted and version != "editable":
            self._place.cleanup()
