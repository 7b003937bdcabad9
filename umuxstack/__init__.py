"""Unified Multiplex in Python: a session is a pair of addresses, and nothing else.

The public face; re-exports only. `open_host` gives a running host, `Host` one on a link of your own,
`Stack` is the machine itself, without clock and I/O.
"""

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
