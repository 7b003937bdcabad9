"""The stack, without clock, I/O or randomness.

Installed with `UMUX_COMPILE=1`, its modules are compiled (docs/speed.md), and their sources lie beside them. With
`UMUX_CORE=python` in the environment the sources are what is imported: recordings and mutants, which replace parts of
the core, need that. The commands that make them see to it themselves.
"""

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import FileFinder, ModuleSpec, SourceFileLoader
from types import ModuleType


class _Sources(MetaPathFinder):
    """Finds the core's modules as sources, whatever is beside them."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        if not name.startswith(f"{__name__}."):
            return None
        found = (FileFinder(place, (SourceFileLoader, [".py"])).find_spec(name) for place in path or ())
        return next(filter(None, found), None)


def is_compiled() -> bool:
    """Whether the core that runs is the compiled one."""
    from umuxstack.core import units

    return not str(units.__file__).endswith(".py")


def use_sources() -> None:
    """As with UMUX_CORE=python, for this process and its children; too late, once anything of the core is loaded."""
    if not any(name.startswith(f"{__name__}.") for name in sys.modules):
        os.environ["UMUX_CORE"] = "python"
        sys.meta_path.insert(0, _Sources())


_wanted = os.environ.get("UMUX_CORE", "")
if _wanted == "python":
    sys.meta_path.insert(0, _Sources())
elif _wanted:
    raise ImportError(f"UMUX_CORE is {_wanted!r} in the environment; unset it, or set it to 'python'", name=__name__)
