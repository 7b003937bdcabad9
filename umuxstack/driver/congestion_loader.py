"""A congestion control from a file of the user's: "mine.py:Mine".

The core reads no files, so this stands here. The file is executed: it is as
trusted as the program that names it. Every failure is a `BadArgument` that says what to do.
"""

import importlib.util
import sys
from collections.abc import MutableMapping
from pathlib import Path
from types import ModuleType

from umuxstack.core.errors import BadArgument
from umuxstack.core.tcp.congestion import registry
from umuxstack.core.tcp.congestion.base import CongestionControl


def load_spec(spec: str) -> type[CongestionControl]:
    """The class that `spec`, "path/to/file.py:Class", names. Raises `BadArgument`."""
    path_text, colon, class_name = spec.rpartition(":")
    if not (colon and path_text and class_name):
        raise BadArgument(f"{spec!r} is not of the form path/to/file.py:Class")
    path = Path(path_text)
    if not path.is_file():
        raise BadArgument(f"{spec}: there is no file {path_text!r}")
    found = getattr(_execute(path, spec), class_name, None)
    if found is None:
        raise BadArgument(f"{spec}: the file defines no {class_name!r}")
    try:
        return registry.check(found)
    except BadArgument as error:
        raise BadArgument(f"{spec}: {error}") from error


def register_spec(spec: str, registered: MutableMapping[str, type]) -> str:
    """Loads `spec` into a stack's mapping if it names a file; returns the name for `TcpPolicy.congestion`.

    A plain name is checked and returned. The class's own `name` is used, or the class's name in small letters.
    """
    if not isinstance(spec, str):
        raise BadArgument(f"congestion is {spec!r}; it is a name, or path/to/file.py:Class")
    if ":" not in spec:
        registry.find(spec, registered)
        return spec
    algorithm = load_spec(spec)
    name = algorithm.__dict__.get("name") or algorithm.__name__.lower()
    if not isinstance(name, str):
        raise BadArgument(f"{spec}: {name!r} is no name: its name is a word of printable ASCII")
    try:
        registry.register(name, algorithm, registered)
    except BadArgument as error:
        raise BadArgument(f"{spec}: {error}") from error
    return name


def _execute(path: Path, spec: str) -> ModuleType:
    name = f"umuxstack_congestion_{path.stem}"
    module_spec = importlib.util.spec_from_file_location(name, path)
    if module_spec is None or module_spec.loader is None:
        raise BadArgument(f"{spec}: {path.name!r} is not a Python file")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module  # dataclasses look their module up while the class is made
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise BadArgument(f"{spec}: running the file fails: {type(error).__name__}: {error}") from error
    finally:
        sys.modules.pop(name, None)
    return module
