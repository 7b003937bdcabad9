"""Census: what a stack holds, for whoever looks. Changes nothing.

Snapshots of its tables: sessions, listeners, addresses. Knows no packet and no time.
"""

from collections.abc import Iterator

from umuxstack.core.address.lease import INVALID, Lease
from umuxstack.core.address.pool import AddressPool
from umuxstack.core.address.statistics import PoolStatistics
from umuxstack.core.echo.session import EchoSession
from umuxstack.core.errors import NoSuchObject
from umuxstack.core.legacy.answers import Telescope
from umuxstack.core.legacy.knocks import Knocks
from umuxstack.core.legacy.ports import PortMux
from umuxstack.core.listen.das import UdpDoor
from umuxstack.core.listen.listen_u import ListenU
from umuxstack.core.listen.listener import Listener
from umuxstack.core.network.endpoint import Receiver
from umuxstack.core.network.fragments import Reassembly
from umuxstack.core.session.context import Context
from umuxstack.core.session.pair_mux import PairMux
from umuxstack.core.tcp import state as st
from umuxstack.core.tcp.connection import Connection
from umuxstack.core.tcp.quiet import Quiet
from umuxstack.core.tcp.session import SleepyConnection, TcpSession
from umuxstack.core.udp.session import Opener, UdpSession, UdpSocket
from umuxstack.core.units import Address

AnySession = TcpSession | UdpSession | EchoSession


class Census(Opener):
    """The half of `Stack` that only looks."""

    pool: AddressPool
    _ctx: Context
    _shared: dict[bytes, PortMux]
    _listeners: dict[int, Listener | UdpSocket]
    _reassembly: Reassembly
    _nobody: Telescope

    def sessions(self) -> Iterator[AnySession]:
        """Every live session; a snapshot."""
        found: list[AnySession] = []
        for owner in self._owners():
            if isinstance(owner, SleepyConnection):
                owner = owner.handle or owner
            if isinstance(owner, TcpSession | UdpSession | EchoSession):
                found.append(owner)
        return iter(found)

    def finishing(self) -> list[Connection]:
        """TCP sessions that the application has closed, and whose peers have not acknowledged everything yet."""
        return [
            owner
            for owner in self._owners()
            if isinstance(owner, Connection) and owner.orphan and not owner.ended and owner.state != st.FIN_WAIT_2
        ]

    def _owners(self) -> list[Receiver]:
        """Everything that any table holds, second stages and what they hold included."""
        owners = self._holders()
        owners += [member for mux in owners if isinstance(mux, PairMux) for member in mux.members.values()]
        return owners

    def _holders(self) -> list[Receiver]:
        """As `_owners`, without what second stages of single pairs hold."""
        ctx = self._ctx
        holders = [*ctx.demux.pairs.values(), *ctx.inner.pairs.values(), *ctx.demux.locals.values()]
        for shared in self._shared.values():
            holders += shared.sessions.values()
            holders += shared.echoes.values()
        return holders

    def listeners(self) -> list[Listener | UdpSocket]:
        """Every open listener and UDP socket."""
        gone = [number for number, listener in self._listeners.items() if listener.closed]
        for number in gone:
            del self._listeners[number]
        return list(self._listeners.values())

    def find_listener(self, which: str | int) -> Listener | UdpSocket:
        """By number or name. Raises NoSuchObject, naming those there are."""
        for listener in self.listeners():
            if which in (listener.id, listener.name, str(listener.id)):
                return listener
        names = ", ".join(listener.name for listener in self.listeners()) or "none"
        raise NoSuchObject(f"no listener is called {which!r}; there are: {names}")

    def doors(self) -> list[ListenU | UdpDoor]:
        """Every waiting SSA."""
        return [owner for owner in self._ctx.demux.locals.values() if isinstance(owner, ListenU | UdpDoor)]

    def leases(self) -> Iterator[Lease]:
        """Every live address; a snapshot."""
        found = {id(lease): lease for lease in self._ctx.leases}
        for owner in self._owners():
            if isinstance(owner, Connection | TcpSession | Quiet) and owner.lease.state != INVALID:
                found[id(owner.lease)] = owner.lease
        return iter(found.values())

    def pool_statistics(self) -> PoolStatistics:
        return self.pool.statistics()

    def telescope(self) -> list[tuple[Address, int]]:
        """Who knocked where nobody is, and how often (UM-31); the busiest first."""
        return [(knocks.source, knocks.packets) for knocks in self._nobody.seen()]

    def knocks(self) -> list[Knocks]:
        """The same, with the times of each one's first and newest packet."""
        return self._nobody.seen()

    def memory_used(self) -> int:
        """Bytes that all buffers hold."""
        return self._ctx.memory + self._reassembly.used

    def leftovers(self) -> dict[str, int]:
        """Table entries of every kind, for leak checks; all 0 after everything has ended and rested."""
        ctx = self._ctx
        return {
            "pairs": len(ctx.demux.pairs) + len(ctx.inner.pairs),
            "locals": len(ctx.demux.locals) - len(self._shared),
            "leases": len(ctx.leases) - len(self._shared),
            "ports": sum(
                len(m.sessions) + len(m.echoes) + len(m.listeners) + len(m.bindings) for m in self._shared.values()
            ),
            "timers": len(ctx.timers),
            "records": sum(len(queue) for queue in ctx.quiet.values()),
            "listeners": len(self.listeners()),
            "memory": self.memory_used(),
            "fragments": len(self._reassembly),
        }
