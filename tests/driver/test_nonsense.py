"""Every argument of the public verbs with what it cannot be, sixty things: an error in words, and nothing changed.

What a person takes for an address or a number is many other things to Python: a prefix can be gone through, address by
address, until the memory is full; a lifetime is compared; True is a descriptor.
"""

import ipaddress
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.driver.conftest import CLIENT_PREFIX, Pair, config
from tests.driver.wires import fake_wire
from umuxstack.core import is_compiled
from umuxstack.core.errors import LocalError
from umuxstack.driver.record import Recorder
from umuxstack.driver.runtime import Host
from umuxstack.host import make_config, open_host

PEER = "2001:db8:77::1"  # nobody there
PATIENCE = 0.5  # seconds: whoever still waits then has accepted it


class Odd:
    def __repr__(self) -> str:
        return "<Odd>"


NONSENSE: list[Any] = [
    None, True, False, 0, 1, -1, 80, 65536, 1 << 70, -(1 << 70), 1.5, nan, inf, -inf, 1j,
    "", "x", "::", "::1", "2001:db8:2::5", "fe80::1", "fe80::1%eth0", "ff02::1", "1.2.3.4", "2001:db8::/64",
    "2001:db8::1/64", "2001:db8::/129", "x" * 300, "a\nb", "\0", "é", "-", "80", "tcp1", "\ud800",
    b"", b"x" * 15, b"x" * 16, bytes(16), bytearray(16), memoryview(b"x" * 16), memoryview(bytes(16)).cast("I"),
    [], [1], {}, (), ("::1", 80), (1, 2, 3, 4, 5), set(), range(3), object, Odd(), print, ..., NotImplemented,
    ipaddress.ip_address("1.2.3.4"), ipaddress.ip_address("2001:db8:2::7"), ipaddress.ip_network("2001:db8::/32"),
    Path("x"), iter(()), ValueError("x"),
]  # fmt: skip


def holdings(host: Host) -> object:
    """What a refused verb must not change."""
    stack = host.stack
    leases = sorted((lease.name, lease.address, lease.state) for lease in stack.leases())
    return stack.leftovers(), stack.pool_statistics().issued, leases, stack.counters.snapshot()


@contextmanager
def refused_in_words() -> Iterator[None]:
    """Nothing, or an error that says what was wrong. A compiled core says of some that they are of the wrong type."""
    try:
        yield
    except (LocalError, OSError):
        pass
    except TypeError as error:
        if not is_compiled() and "bytes-like object" not in str(error):
            raise


VERBS: dict[str, tuple[Callable[[Host, Any, Any], Callable[..., Any]], tuple[Any, ...], tuple[str, ...]]] = {
    "connect": (lambda host, _door, _udp: host.connect, (PEER, 80), ("source", "unified", "label", "early")),
    "listen": (lambda host, _door, _udp: host.listen, (80,), ("address", "backlog", "name")),
    "das": (
        lambda host, door, _udp: partial(host.das, door), (), ("ssa", "peer", "lifetime", "label", "grain", "pin"),
    ),
    "das of": (lambda host, _door, _udp: host.das, ("web",), ()),
    "revoke": (lambda host, _door, _udp: host.revoke, ("x",), ()),
    "datagram_socket": (lambda host, _door, _udp: host.datagram_socket, (), ("address", "port", "name")),
    "ping": (lambda host, _door, _udp: host.ping, (PEER,), ("count", "interval", "timeout", "size", "source")),
    "shared_source": (lambda host, _door, _udp: host.shared_source, (PEER,), ()),
    "send_to": (lambda _host, _door, udp: udp.send_to, (b"x", (PEER, 53)), ("source",)),
    "udp connect": (lambda _host, _door, udp: udp.connect, (PEER, 53), ()),
}  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
async def test_verbs(pair: Pair, verb: str) -> None:
    """`send_to` to a prefix filled the memory; `ping` had taken an address before it looked."""
    find, places, names = VERBS[verb]
    host = pair.server
    async with await host.listen(80, name="web") as door, await host.datagram_socket(name="dns") as udp:
        call = find(host, door, udp)
        for value in NONSENSE:
            tries = [(*places[:at], value, *places[at + 1 :]) for at in range(len(places))]
            for arguments, named in [(given, {}) for given in tries] + [(places, {name: value}) for name in names]:
                before = holdings(host)
                accepted = False
                with refused_in_words():
                    with trio.move_on_after(PATIENCE) as scope:
                        result = call(*arguments, **named)
                        if hasattr(result, "__await__"):
                            result = await result
                        if hasattr(result, "aclose"):
                            await result.aclose()
                        elif hasattr(result, "revoke"):
                            result.revoke(host.now())
                        accepted = True
                    accepted |= scope.cancelled_caught
                assert accepted or holdings(host) == before, (verb, arguments, named)


def test_configuration() -> None:
    """A prefix where several were to be given was gone through, address by address."""
    for value in NONSENSE:
        for name in ("prefix", "shared", "unified_peers", "scheme", "pool", "tcp", "memory", "silence"):
            with refused_in_words():
                make_config(**{"prefix": CLIENT_PREFIX, name: value})
        for name in ("shared", "unified_peers"):
            with refused_in_words():
                make_config(CLIENT_PREFIX, **{name: [value]})


async def test_hosts() -> None:
    """A wrong `linger` was found at the end of the host, whose sessions then were not waited for."""
    for value in NONSENSE:
        for name in ("seed", "linger"):
            link, _ = fake_wire()
            with refused_in_words():
                async with Host(link, config(CLIENT_PREFIX), **{name: value}):
                    pass
        if not hasattr(value, "keys"):
            link, _ = fake_wire()
            with refused_in_words():
                async with open_host(prefix=CLIENT_PREFIX, link=link, congestion=value):
                    pass


@pytest.mark.plain
@pytest.mark.parametrize("number", [0, True, 99])
def test_a_descriptor_is_no_place_for_a_recording(number: Any) -> None:
    """`record=True` wrote the stack's secrets to descriptor 1, and closed it."""
    with pytest.raises(TypeError, match=r"os\.PathLike"):
        Recorder(number)
