"""A worker's work with the compiled core of `make fast`: in a new interpreter, this one has the plain core loaded."""

import importlib
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.workers import Channel, live

ROOT: Final = Path(__file__).resolve().parents[1]
PLACE: Final = ROOT / "build" / "compiled"
"""Where `make fast` installs the package with its core compiled."""

SUFFIX: Final = ", compiled"
"""What the names of its variants end in."""


def available() -> bool:
    """Whether a compiled core for this interpreter is there."""
    return bool(list(PLACE.glob(f"umuxstack__mypyc.{sys.implementation.cache_tag}-*.so")))


def is_stale() -> bool:
    """Whether a source is newer than the compiled core that is there."""
    made = (PLACE / "stamp").stat().st_mtime
    return any(path.stat().st_mtime > made for path in (ROOT / "umuxstack" / "core").rglob("*.py"))


def run(channel: Channel, function: Callable[..., None], *args: Any) -> None:
    """`function(channel, *args)` with the compiled core; does not return. `function` is a module's own, `args` JSON."""
    os.set_inheritable(channel.fileno(), True)
    call = json.dumps([channel.fileno(), function.__module__, function.__name__, args])
    environment = os.environ | {"PYTHONPATH": f"{PLACE}{os.pathsep}{ROOT}"}
    # -P: the directory of the sources, which is the current one, must not come before the compiled package.
    os.execve(sys.executable, [sys.executable, "-P", "-m", __name__, call], environment)


def _main() -> None:
    descriptor, module, name, args = json.loads(sys.argv[1])

    def work(channel: Channel) -> None:
        core = importlib.import_module("umuxstack.core.stack")
        if not str(core.__file__).endswith(".so"):
            raise AssertionError(f"this is the plain core: {core.__file__}")
        getattr(importlib.import_module(module), name)(channel, *args)

    live(None, Channel(socket.socket(fileno=descriptor)), work)


if __name__ == "__main__":
    _main()
