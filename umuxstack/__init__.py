"""Unified Multiplex in Python: a session is a pair of addresses, and nothing else.

The public face; re-exports only. `open_host` gives a running host, `Host` one on a link of your own,
`Stack` is the machine itself, without clock and I/O.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from umuxstack.core.config import LinkCaps, PoolPolicy, StackConfig, TcpPolicy
    from umuxstack.core.entropy import Entropy
    from umuxstack.core.errors import (
        AddressInUse,
        AddressMalformed,
        AddressNotOurs,
        AddressUsed,
        BacklogFull,
        BadArgument,
        LocalError,
        MessageTooLong,
        NoMemory,
        NoSuchObject,
        NotConnected,
        NotListening,
        PoolExhausted,
        Reason,
        SessionClosed,
        WouldBlock,
    )
    from umuxstack.core.events import Event, EventKind
    from umuxstack.core.stack import Stack
    from umuxstack.core.wire.address import to_text
    from umuxstack.driver.datagrams import UmuxDatagramSocket
    from umuxstack.driver.echo import UmuxPing
    from umuxstack.driver.link import Link
    from umuxstack.driver.links.impair import Impairment
    from umuxstack.driver.links.memory import MemoryRouter, memory_link_pair
    from umuxstack.driver.listeners import UmuxListener
    from umuxstack.driver.pump import LinkState
    from umuxstack.driver.runtime import Host
    from umuxstack.driver.streams import UmuxStream
    from umuxstack.host import make_config, open_host
    from umuxstack.keyfile import KeyFileError

# Loaded when first asked for (PEP 562): `umux --help` and the client commands load no stack.
_HOMES: Final = {
    "LinkCaps": "umuxstack.core.config",
    "PoolPolicy": "umuxstack.core.config",
    "StackConfig": "umuxstack.core.config",
    "TcpPolicy": "umuxstack.core.config",
    "Entropy": "umuxstack.core.entropy",
    "AddressInUse": "umuxstack.core.errors",
    "AddressMalformed": "umuxstack.core.errors",
    "AddressNotOurs": "umuxstack.core.errors",
    "AddressUsed": "umuxstack.core.errors",
    "BacklogFull": "umuxstack.core.errors",
    "BadArgument": "umuxstack.core.errors",
    "LocalError": "umuxstack.core.errors",
    "MessageTooLong": "umuxstack.core.errors",
    "NoMemory": "umuxstack.core.errors",
    "NoSuchObject": "umuxstack.core.errors",
    "NotConnected": "umuxstack.core.errors",
    "NotListening": "umuxstack.core.errors",
    "PoolExhausted": "umuxstack.core.errors",
    "Reason": "umuxstack.core.errors",
    "SessionClosed": "umuxstack.core.errors",
    "WouldBlock": "umuxstack.core.errors",
    "Event": "umuxstack.core.events",
    "EventKind": "umuxstack.core.events",
    "Stack": "umuxstack.core.stack",
    "to_text": "umuxstack.core.wire.address",
    "UmuxDatagramSocket": "umuxstack.driver.datagrams",
    "UmuxPing": "umuxstack.driver.echo",
    "Link": "umuxstack.driver.link",
    "Impairment": "umuxstack.driver.links.impair",
    "MemoryRouter": "umuxstack.driver.links.memory",
    "memory_link_pair": "umuxstack.driver.links.memory",
    "UmuxListener": "umuxstack.driver.listeners",
    "LinkState": "umuxstack.driver.pump",
    "Host": "umuxstack.driver.runtime",
    "UmuxStream": "umuxstack.driver.streams",
    "make_config": "umuxstack.host",
    "open_host": "umuxstack.host",
    "KeyFileError": "umuxstack.keyfile",
}

__version__ = "0.1.0"

__all__ = [
    "AddressInUse",
    "AddressMalformed",
    "AddressNotOurs",
    "AddressUsed",
    "BacklogFull",
    "BadArgument",
    "Entropy",
    "Event",
    "EventKind",
    "Host",
    "Impairment",
    "KeyFileError",
    "Link",
    "LinkCaps",
    "LinkState",
    "LocalError",
    "MemoryRouter",
    "MessageTooLong",
    "NoMemory",
    "NoSuchObject",
    "NotConnected",
    "NotListening",
    "PoolExhausted",
    "PoolPolicy",
    "Reason",
    "SessionClosed",
    "Stack",
    "StackConfig",
    "TcpPolicy",
    "UmuxDatagramSocket",
    "UmuxListener",
    "UmuxPing",
    "UmuxStream",
    "WouldBlock",
    "__version__",
    "make_config",
    "memory_link_pair",
    "open_host",
    "to_text",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value
