"""Test tools that are shipped: whole stacks in virtual time on a network, packets built and taken apart.

What a simulation needs first stands here; packets are made in `builders`, judged in `checks`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from umuxstack.testing.apps import Acceptor, App, Echo, Transfer
    from umuxstack.testing.network import Host, Network

# Loaded when first asked for (PEP 562), as in `umuxstack`.
_HOMES: Final = {
    "Acceptor": "umuxstack.testing.apps",
    "App": "umuxstack.testing.apps",
    "Echo": "umuxstack.testing.apps",
    "Host": "umuxstack.testing.network",
    "Network": "umuxstack.testing.network",
    "Transfer": "umuxstack.testing.apps",
}

__all__ = ["Acceptor", "App", "Echo", "Host", "Network", "Transfer"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)
