"""DAS, Delayed Address Setting (UM-21, UM-24, UM-27, UM-28).

From outside the application, a waiting socket is given an address, for one
session. Everything is checked before anything is changed. The lease begins here.
"""

from typing import Final

from umuxstack.core.address.lease import SSA, Lease
from umuxstack.core.errors import AddressMalformed, BacklogFull, BadArgument, Drop, NotListening, Reason
from umuxstack.core.events import EventKind
from umuxstack.core.listen.listen_0 import Listen0
from umuxstack.core.listen.listen_u import ListenU, Prefix, within
from umuxstack.core.listen.states import SPENT, WAITING
from umuxstack.core.session.context import Context
from umuxstack.core.udp.session import Door, UdpSession, UdpSocket, parse_datagram
from umuxstack.core.units import NEVER, Address, Micros

GRAINS: Final = ("session", "client")
MAX_DOORS: Final = 4096  # waiting SSAs of one UDP socket


class UdpDoor(Door):
    """A waiting SSA of a UDP socket: the first peer that is allowed makes it its session's address."""

    __slots__ = ("_socket", "ctx", "expires", "lease", "peer", "state")

    grain = "session"

    def __init__(self, ctx: Context, socket: UdpSocket, lease: Lease, peer: Prefix | None, expires: Micros) -> None:
        super().__init__()
        self.ctx = ctx
        self._socket = socket
        self.lease = lease
        self.peer = peer
        self.expires = expires
        self.state = WAITING

    @property
    def address(self) -> Address:
        return self.lease.address

    @property
    def state_name(self) -> str:
        return "WAITING" if self.state == WAITING else "SPENT"

    @property
    def parent(self) -> UdpSocket:
        return self._socket

    def receive(
        self, buf: bytes, base: int, offset: int, end: int, protocol: int, gso_size: int, csum_ok: bool, now: Micros
    ) -> None:
        ctx = self.ctx
        remote = buf[base + 8 : base + 24]
        if self.peer is not None and not within(remote, self.peer):
            ctx.drop(Drop.PEER_NOT_ALLOWED)
            return
        parsed = parse_datagram(ctx, buf, base, offset, end, protocol, csum_ok)
        if parsed is None:
            return
        sport, dport, data = parsed
        self._leave(Reason.NONE, now)
        session = UdpSession(ctx, self._socket, buf[base + 8 : base + 40], self.lease, (dport, sport), now)
        self._socket.adopt(session)
        self._socket.deliver(buf, base, sport, dport, data)

    def on_deadline(self, now: Micros) -> None:
        self._end(Reason.EXPIRED, now)

    def revoke(self, now: Micros) -> None:
        self._end(Reason.REVOKED, now)

    def orphan(self, now: Micros) -> None:
        self._end(Reason.PARENT_CLOSED, now)

    def _end(self, reason: Reason, now: Micros) -> None:
        if self.state == WAITING:
            self._leave(reason, now)
            self.ctx.end_lease(self.lease, now, reason)

    def _leave(self, reason: Reason, now: Micros) -> None:
        ctx = self.ctx
        self.state = SPENT
        ctx.timers.arm(self, NEVER)
        if ctx.demux.locals.get(self.lease.address) is self:
            del ctx.demux.locals[self.lease.address]
        self._socket.doors.pop(self.lease.address, None)
        ctx.note(now, EventKind.LISTEN_U_ENDED, self.lease, reason=reason)


def check_arguments(door: object, peer: Prefix | None, lifetime: Micros, grain: str, pin: int) -> Listen0 | UdpSocket:
    """The door, if it can be one. Raises for what cannot be; nothing was changed (UM-24)."""
    if isinstance(door, UdpSocket):
        if door.closed:
            raise NotListening("the socket is closed")
        if door.address is not None:
            raise NotListening("the socket is bound to an address; DAS needs one bound to none")
        if grain != "session":
            raise BadArgument("UDP knows the grain 'session' only")
        if len(door.doors) >= MAX_DOORS:
            raise BacklogFull(f"{MAX_DOORS} addresses wait for this socket already")
    elif isinstance(door, Listen0):
        if door.closed:
            raise NotListening("the listener is closed")
        if door.full:
            raise BacklogFull(
                f"listener {door.name!r} has a backlog of {door.backlog}, all of it queued or promised; "
                "accept or revoke some, or listen with a larger backlog"
            )
    else:
        raise NotListening("DAS needs a listener in LISTEN_0: one that listens on no concrete address")
    if grain not in GRAINS:
        raise BadArgument(f"grain is {grain!r}; DAS knows 'session' and 'client'")
    if pin not in (64, 128):
        raise BadArgument(f"pin is {pin}; a client is pinned by its address (128) or by its /64 (64)")
    if lifetime <= 0:
        raise BadArgument("lifetime must be more than 0; it is unlimited with NEVER")
    if peer is not None and (len(peer[0]) != 16 or not 0 <= peer[1] <= 128 or peer[0][0] == 0xFF):
        raise AddressMalformed("peer is neither an IPv6 unicast address nor a prefix")
    return door


def open_door(
    ctx: Context,
    door: Listen0 | UdpSocket,
    ssa: Address,
    peer: Prefix | None,
    lifetime: Micros,
    label: str,
    grain: str,
    pin: int,
    now: Micros,
) -> ListenU | UdpDoor:
    """The checked request becomes a LISTEN_U on `ssa`."""
    lease = ctx.leases.open(ssa, SSA, now, group=door.name, label=label, grain=grain)
    expires = NEVER if lifetime >= NEVER else Micros(now + lifetime)
    waiting: ListenU | UdpDoor
    if isinstance(door, UdpSocket):
        waiting = UdpDoor(ctx, door, lease, peer, expires)
        door.doors[ssa] = waiting
    else:
        waiting = ListenU(ctx, door, lease, peer, grain, pin, expires)
        door.children[ssa] = waiting
    ctx.demux.locals[ssa] = waiting
    ctx.timers.arm(waiting, expires)
    ctx.note(now, EventKind.LEASE_OPENED, lease)
    ctx.note(now, EventKind.DAS, lease)
    return waiting
