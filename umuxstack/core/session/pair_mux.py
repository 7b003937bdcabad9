"""Several connections between the same two addresses: ports tell them apart, for that pair only (UM-26).

A browser opens several connections to one service address. The pair table then
holds a PairMux in the pair's place; no other pair pays for it. Invariant: it
holds two or more, or the last one takes the place back; while the door may get
an answer to a SYN cookie of this pair, only when that one wants to sleep after it.
"""

from umuxstack.core.errors import Drop
from umuxstack.core.network.endpoint import Receiver
from umuxstack.core.session.context import Context
from umuxstack.core.session.session import Door, Session, Stage
from umuxstack.core.units import TCP, Micros


class PairMux(Stage):
    """The second stage inside one pair. Keys are the four port bytes as received: theirs, ours."""

    __slots__ = ("asked_at", "door", "members", "pair")

    def __init__(self, ctx: Context, pair: bytes, door: Door) -> None:
        super().__init__()
        self.ctx = ctx
        self.pair = pair
        self.door = door
        self.members: dict[bytes, Receiver] = {}
        self.asked_at = Micros(0)  # when the door was last asked for a further connection

    @staticmethod
    def key(session: Session) -> bytes:
        return session.remote_port.to_bytes(2, "big") + session.local_port.to_bytes(2, "big")

    def add(self, session: Session) -> None:
        session.stage = self
        self.members[self.key(session)] = session
        session.table[self.pair] = self

    def receive(
        self, buf: bytes, base: int, offset: int, end: int, protocol: int, gso_size: int, csum_ok: bool, now: Micros
    ) -> None:
        if protocol != TCP:
            self.ctx.drop(Drop.FOREIGN_PROTOCOL)
            return
        owner = self.members.get(buf[offset : offset + 4])
        if owner is None:
            # Where nobody takes more, nobody answers; what is due to a live pair's other ports (UM-33) a member knows.
            door = self.door.heir
            if door is not None:
                owner = self.door = door
                self.asked_at = now
            else:
                owner = self._any_member()
        owner.receive(buf, base, offset, end, protocol, gso_size, csum_ok, now)

    def _any_member(self) -> Receiver:
        members = self.members.values()
        return next((member for member in members if isinstance(member, Session)), None) or next(iter(members))

    def on_icmp_error(
        self, kind: int, code: int, value: int, protocol: int, quoted: bytes, offset: int, now: Micros
    ) -> None:
        ports = quoted[offset + 2 : offset + 4] + quoted[offset : offset + 2]
        member = self.members.get(ports)
        if member is None:
            self.ctx.drop(Drop.ICMP_NOT_BELIEVED)
        else:
            member.on_icmp_error(kind, code, value, protocol, quoted, offset, now)

    def remove(self, session: Session, successor: Receiver | None) -> None:
        key = self.key(session)
        if self.members.get(key) is session:
            if successor is None:
                del self.members[key]
            else:
                self.members[key] = successor
        session.stage = None
        self._settle()

    def let_go(self, session: Session, now: Micros) -> bool:
        """Alone, it needs no second stage; a cookie's answer needs one to find the door, as long as it may come."""
        if self.door.heir is not None and now < self.asked_at + self.door.recall:
            return False
        self._settle()
        return session.stage is None

    def forget_record(self, record: Receiver) -> None:
        for key, member in self.members.items():
            if member is record:
                del self.members[key]
                break
        self._settle()

    def _settle(self) -> None:
        pairs = self.ctx.table_for(self.pair)
        if not self.members:
            if pairs.get(self.pair) is self:
                del pairs[self.pair]
        elif len(self.members) == 1:
            (last,) = self.members.values()
            if isinstance(last, Session):
                last.stage = None
                pairs[self.pair] = last
                self.members.clear()
