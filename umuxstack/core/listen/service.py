"""A service address: one concrete address, many peers, told apart by the pair (UM-26, "service").

The transitional grain of the design. Half-open sessions are bounded; beyond the
bound SYN cookies take over (RFC 4987), so that a flood costs no memory.
"""

from typing import ClassVar

from umuxstack.core.address.lease import Lease
from umuxstack.core.errors import Drop, Reason
from umuxstack.core.listen.cookies import LONGEST, CookieJar
from umuxstack.core.listen.listener import Listener, Syn, enter, half_open, read_syn, vanish
from umuxstack.core.session.context import Context
from umuxstack.core.session.pair_mux import PairMux
from umuxstack.core.session.session import Door, Session
from umuxstack.core.tcp import state as st
from umuxstack.core.tcp.connection import Connection
from umuxstack.core.units import TCP, Micros


class ServiceListener(Listener):
    """Bound to `lease.address`; lives until closed, its accepted sessions longer. So does the lease: a service that
    listens at the address again has one of its own."""

    __slots__ = ("half_open", "jar", "lease", "sessions")

    kind = "LISTEN_SERVICE"
    recall: ClassVar[Micros] = LONGEST

    def __init__(self, ctx: Context, number: int, name: str, port: int, backlog: int, lease: Lease) -> None:
        super().__init__(ctx, number, name, port, backlog)
        self.lease = lease
        self.half_open: list[Connection] = []
        self.jar: CookieJar | None = None  # since the first flood
        self.sessions = 0  # in any state, half-open ones too: they keep the lease

    @property
    def heir(self) -> Door | None:
        """Once closed, the service that listens at the address again, if one does."""
        if not self.closed:
            return self
        other = self.ctx.demux.locals.get(self.lease.address)
        return other if isinstance(other, ServiceListener) else None

    def receive(
        self, buf: bytes, base: int, offset: int, end: int, protocol: int, gso_size: int, csum_ok: bool, now: Micros
    ) -> None:
        ctx = self.ctx
        jar = self.jar
        if jar is not None and protocol == TCP and not self.full:
            session = jar.redeem(buf, base, offset, end, csum_ok, self.lease, self, None, self.policy, now)
            if session is not None:
                self._hold(session)
                session.receive(buf, base, offset, end, protocol, gso_size, True, now)
                return
        syn = read_syn(ctx, buf, base, offset, end, protocol, csum_ok)
        if syn is None:
            return
        if self.full:
            ctx.drop(Drop.BACKLOG)
            return
        if len(self.half_open) >= max(self.backlog, 8):
            if jar is None:
                jar = self.jar = CookieJar(ctx)
            jar.answer(buf[base + 8 : base + 40], syn, self.policy.hop_limit, now)
            return
        if ctx.memory * 8 > ctx.config.memory * 7:
            ctx.drop(Drop.NO_MEMORY)
            return
        self._open(buf[base + 8 : base + 40], syn, now)

    def _open(self, pair: bytes, syn: Syn, now: Micros) -> None:
        self.half_open.append(half_open(self, self.ctx, pair, self.lease, syn, self.policy, now))
        self.sessions += 1

    def _hold(self, session: Connection) -> None:
        """A session that a cookie brought."""
        enter(session)
        self.half_open.append(session)
        self.sessions += 1

    def on_second_syn(self, session: Session, buf: bytes, base: int, offset: int, end: int, now: Micros) -> bool:
        """Another connection of the same peer: a second stage for this pair only (UM-26, UM-33)."""
        assert isinstance(session, Connection)
        door = self.heir
        if door is not self:
            return door is not None and door.on_second_syn(session, buf, base, offset, end, now)
        mux = PairMux(self.ctx, session.pair, self)
        mux.add(session)
        mux.receive(buf, base, offset, end, 6, 0, True, now)
        if len(mux.members) == 1 and len(self.half_open) < max(self.backlog, 8):
            mux.remove(session, session)  # it did not come in; but an answer to a cookie must find the door
        return True

    def on_established(self, session: Session, now: Micros) -> bool:
        assert isinstance(session, Connection)
        if self.closed or self.full:
            return False
        self.half_open.remove(session)
        self.enqueue(session)
        return True

    def on_ended(self, session: Session, now: Micros) -> None:
        if session in self.half_open:
            self.half_open.remove(session)
        self.sessions -= 1
        if self.closed and not self.sessions:
            self.ctx.end_lease(self.lease, now)

    def _retire(self, now: Micros) -> None:
        ctx = self.ctx
        if ctx.demux.locals.get(self.lease.address) is self:
            del ctx.demux.locals[self.lease.address]
        for session in list(self.half_open):
            if session.state == st.SYN_RECEIVED:
                vanish(session, Reason.PARENT_CLOSED, now)
        if self.sessions:  # queued ones that have ended already are not among them
            ctx.retire(self.lease, now)
        else:
            ctx.end_lease(self.lease, now)
