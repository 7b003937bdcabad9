"""What tests of the core share: doors with their types, drops by counter, and the leak check that ends a scene."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from umuxstack.core.errors import Drop
from umuxstack.core.listen.das import UdpDoor
from umuxstack.core.listen.listen_0 import Listen0
from umuxstack.core.listen.listen_u import ListenU
from umuxstack.core.listen.service import ServiceListener
from umuxstack.core.stack import Stack
from umuxstack.core.tcp.session import TcpSession
from umuxstack.core.udp.session import UdpSocket
from umuxstack.core.units import Address, minutes
from umuxstack.testing.builders import AnyAddress, packed
from umuxstack.testing.peer import PEER as PEER
from umuxstack.testing.wire import Wire

OTHER: Final = "2001:db8:2::2"  # a second peer
STRANGER: Final = "2001:db8:bad::1"  # one that nobody expects
ROUTER: Final = "2001:db8:ffff::1"
SERVICE: Final = "2001:db8:1::53"  # addresses of our prefix that a service is bound to
SHARED: Final = "2001:db8:1::80"
UNHELD: Final = "2001:db8:1::dead"  # an address of ours that nobody holds


def is_fin(flags: str) -> bool:
    """RFC 9293 3.9.1.2 leaves PSH beside FIN to the sender."""
    return flags in ("FA", "FPA")


def address(text: AnyAddress) -> Address:
    return Address(packed(text))


def listen_0(wire: Wire, **options: Any) -> Listen0:
    door = wire.stack.listen(wire.now, **options)
    assert isinstance(door, Listen0)
    return door


def service(wire: Wire, where: AnyAddress = SERVICE, **options: Any) -> ServiceListener:
    door = wire.stack.listen(wire.now, address=address(where), **options)
    assert isinstance(door, ServiceListener)
    return door


def das(wire: Wire, door: Listen0, **options: Any) -> ListenU:
    waiting = wire.stack.das(door, wire.now, **options)
    assert isinstance(waiting, ListenU)
    return waiting


def udp_das(wire: Wire, socket: UdpSocket, **options: Any) -> UdpDoor:
    waiting = wire.stack.das(socket, wire.now, **options)
    assert isinstance(waiting, UdpDoor)
    return waiting


def connect(wire: Wire, peer: AnyAddress = PEER, port: int = 80, **options: Any) -> TcpSession:
    return wire.stack.connect(address(peer), port, wire.now, **options)


def lives(stack: Stack, where: bytes) -> bool:
    """Whether somebody holds this address."""
    return any(lease.address == where for lease in stack.leases())


def state_of(stack: Stack, where: bytes) -> str:
    """The state of the lease of this address; INVALID when there is none."""
    return next((lease.state_name for lease in stack.leases() if lease.address == where), "INVALID")


@contextmanager
def dropped(wire: Wire, reason: Drop, count: int = 1) -> Iterator[None]:
    """What happens inside adds `count` to this drop counter, and nothing to any other."""
    before = list(wire.stack.counters.drops)
    yield
    after = wire.stack.counters.drops
    gained = {Drop(i).name: after[i] - before[i] for i in range(len(after)) if after[i] != before[i]}
    assert gained == ({reason.name: count} if count else {})


def everything(stack: Stack) -> object:
    """What a refused request must not change."""
    return (
        stack.leftovers(),
        stack.pool_statistics(),
        stack.counters.snapshot(),
        sorted((lease.name, lease.address, lease.state) for lease in stack.leases()),
        stack.next_deadline(),
    )


def end(wire: Wire) -> None:
    """Everything is closed and rests for five minutes; then nothing may be left."""
    wire.stack.close(wire.now)
    wire.take()
    wire.advance(minutes(5))
    wire.take()
    left = {name: count for name, count in wire.stack.leftovers().items() if count}
    assert not left, f"left behind (UMUX_SEED={wire.seed}): {left}"
