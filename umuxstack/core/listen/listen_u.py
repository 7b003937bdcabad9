"""LISTEN_U: waits on one SSA, for one connection (UM-21 … UM-25), or for one client (UM-26).

Stays in the local table while candidates, half-open sessions in the pair table
that borrow its lease, race; the first to complete its handshake takes the lease.
Invariant: the lease is open from DAS until the session, or the last of the
client's sessions, is gone; or until nobody came.
"""

# UM-22

from typing import Final

from umuxstack.core.address.lease import Lease
from umuxstack.core.errors import Drop, Reason
from umuxstack.core.events import EventKind
from umuxstack.core.listen import states
from umuxstack.core.listen.listener import Listener, Syn, half_open, read_syn, vanish
from umuxstack.core.session.context import Context
from umuxstack.core.session.pair_mux import PairMux
from umuxstack.core.session.session import Door, Session
from umuxstack.core.tcp import state as st
from umuxstack.core.tcp.connection import Connection
from umuxstack.core.units import NEVER, Address, Micros

_LISTEN_U_ENDED: Final = EventKind.LISTEN_U_ENDED
_NO_REASON: Final = Reason.NONE
Prefix = tuple[Address, int]


def within(address: bytes, prefix: Prefix) -> bool:
    """Whether `address` lies in `prefix` (network, length)."""
    shift = 128 - prefix[1]
    return int.from_bytes(address, "big") >> shift == int.from_bytes(prefix[0], "big") >> shift


class ListenU(Door):
    """A child of a LISTEN_0, waiting on `lease.address`. `grain` is "session" or "client"."""

    __slots__ = (
        "candidates",
        "ctx",
        "expires",
        "grain",
        "lease",
        "parent",
        "peer",
        "pin",
        "promised",
        "sessions",
        "state",
    )

    def __init__(
        self, ctx: Context, parent: Listener, lease: Lease, peer: Prefix | None, grain: str, pin: int, expires: Micros
    ) -> None:
        super().__init__()
        self.ctx = ctx
        self.parent = parent
        self.lease = lease
        self.peer = peer  # who alone may come
        self.grain = grain
        self.pin = pin  # client grain: how many leading bits of the first peer's address are pinned
        self.expires = expires
        self.state = states.WAITING
        self.candidates: list[Connection] = []  # half-open, oldest first
        self.sessions = 0  # client grain: established ones
        self.promised = True  # a place in the accept queue is reserved (UM-27)
        parent.reserved += 1

    @property
    def state_name(self) -> str:
        return states.STATE_NAMES[self.state]

    @property
    def address(self) -> Address:
        """The SSA."""
        return self.lease.address

    @property
    def heir(self) -> Door | None:
        return None if self.state == states.SPENT else self

    def _on(self, event: int) -> bool:
        """Moves along the table; False when the state does not know the event."""
        after = states.TRANSITIONS.get((self.state, event))
        if after is None:
            return False
        self.state = after
        return True

    # Packets for the SSA that no session owns

    def receive(
        self, buf: bytes, base: int, offset: int, end: int, protocol: int, gso_size: int, csum_ok: bool, now: Micros
    ) -> None:
        ctx = self.ctx
        remote = buf[base + 8 : base + 24]
        if self.peer is not None and not within(remote, self.peer):
            ctx.drop(Drop.PEER_NOT_ALLOWED)  # UM-32: silence
            return
        syn = read_syn(ctx, buf, base, offset, end, protocol, csum_ok)
        if syn is None:
            return
        if self.state != states.WAITING and self.parent.full:
            ctx.drop(Drop.BACKLOG)
            return
        if ctx.memory * 8 > ctx.config.memory * 7:
            ctx.drop(Drop.NO_MEMORY)
            return
        self._on(states.CANDIDATE_CAME)
        self._candidate(buf[base + 8 : base + 40], syn, now)
        if len(self.candidates) > ctx.config.candidates:
            vanish(self.candidates[0], Reason.REPLACED, now)  # UM-23: "the oldest makes room"

    def _candidate(self, pair: bytes, syn: Syn, now: Micros) -> None:
        self.candidates.append(half_open(self, self.ctx, pair, self.lease, syn, self.parent.policy, now))

    def on_second_syn(self, session: Session, buf: bytes, base: int, offset: int, end: int, now: Micros) -> bool:
        """UM-33: half-open, the new SYN replaces the candidate; a client's further connections come in beside (UM-26).

        Also those that begin before the first one's handshake is complete, as a browser's do.
        """
        assert isinstance(session, Connection)
        if session.state == st.SYN_RECEIVED and self.grain == "session":
            syn = read_syn(self.ctx, buf, base, offset, end, 6, True)
            if syn is not None:
                vanish(session, Reason.REPLACED, now)
                self._candidate(buf[base + 8 : base + 40], syn, now)
            return True
        if self.grain != "client" or self.state == states.SPENT:
            return False
        mux = PairMux(self.ctx, session.pair, self)
        mux.add(session)
        mux.receive(buf, base, offset, end, 6, 0, True, now)
        if len(mux.members) == 1:
            mux.remove(session, session)
        return True

    def on_established(self, session: Session, now: Micros) -> bool:
        assert isinstance(session, Connection)
        if self.state == states.SPENT:
            return False
        first = self.state == states.WAITING
        if not first and self.parent.full:
            return False
        if self.grain == "session":
            self._on(states.HANDSHAKE_DONE)
            session.owns_lease = True  # the winner takes the lease
            self.ctx.leases.hand_over(self.lease, session.pair)
        else:
            self._on(states.CLIENT_CAME)
            if first:
                # Pinned, but never wider than whom DAS allows (UM-24).
                self.peer = (session.remote, self.pin if self.peer is None else max(self.pin, self.peer[1]))
            self.sessions += 1
            self.ctx.timers.arm(self, NEVER)
            self.expires = NEVER
        if session in self.candidates:
            self.candidates.remove(session)
        self._keep_promise()
        if first:
            for loser in list(self.candidates):
                if self.grain == "session" or not within(loser.remote, self.peer or (loser.remote, 128)):
                    vanish(loser, Reason.LOST_RACE, now)
        self.parent.enqueue(session)
        if self.state == states.SPENT:
            session.door = None
            self._leave(_NO_REASON, now)
        return True

    def on_ended(self, session: Session, now: Micros) -> None:
        assert isinstance(session, Connection)
        if session in self.candidates:
            self.candidates.remove(session)
            self._on(states.CANDIDATE_FAILED)
            return
        self.sessions -= 1
        if self.sessions:
            return
        if self.state == states.SPENT:
            self.ctx.end_lease(self.lease, now)
        elif self._on(states.LAST_ENDED):
            self.expires = Micros(now + self.ctx.config.client_grain_linger)
            self.ctx.timers.arm(self, self.expires)

    def _keep_promise(self) -> None:
        if self.promised:
            self.promised = False
            self.parent.reserved -= 1

    # The end

    def on_deadline(self, now: Micros) -> None:
        if self._on(states.EXPIRED):
            self._spend(Reason.EXPIRED, now)

    def revoke(self, now: Micros) -> None:
        """DAS taken back: nobody may come any more; an established session lives on."""
        if self._on(states.REVOKED):
            self._spend(Reason.REVOKED, now)

    def orphan(self, now: Micros) -> None:
        """The LISTEN_0 was closed (UM-27)."""
        if self._on(states.PARENT_CLOSED):
            self._spend(Reason.PARENT_CLOSED, now)

    def _spend(self, reason: Reason, now: Micros) -> None:
        for candidate in list(self.candidates):
            vanish(candidate, reason, now)
        self._keep_promise()
        if not self.sessions:
            self.ctx.end_lease(self.lease, now, reason)
        self._leave(reason, now)

    def _leave(self, reason: Reason, now: Micros) -> None:
        """Out of the local table, and no child of the LISTEN_0 any more."""
        ctx = self.ctx
        ctx.timers.arm(self, NEVER)
        if ctx.demux.locals.get(self.lease.address) is self:
            del ctx.demux.locals[self.lease.address]
        self.parent.forget_child(self)
        ctx.note(now, _LISTEN_U_ENDED, self.lease, None, reason)
