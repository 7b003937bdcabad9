"""What all sessions share: the pair, the lease, where they are registered, how they end.

Invariant (UM-7): a session's lease ends when the session is gone, not before.
"""

from typing import ClassVar

from umuxstack.core.address.lease import Lease
from umuxstack.core.errors import Reason
from umuxstack.core.network.endpoint import Endpoint, Receiver
from umuxstack.core.session.context import Context, Outgoing, Sender
from umuxstack.core.units import Address, Micros
from umuxstack.core.wire.checksum import pseudo_sum


class Session(Sender):
    """A (local, remote) address pair that is alive. `pair` is remote + local (UM-1)."""

    __slots__ = (
        "ctx",
        "door",
        "end_reason",
        "lease",
        "local_port",
        "out",
        "pair",
        "port",
        "psum",
        "remote_port",
        "stage",
    )

    def __init__(
        self, ctx: Context, pair: bytes, lease: Lease, protocol: int, local_port: int, remote_port: int
    ) -> None:
        super().__init__()
        self.ctx = ctx
        self.pair = pair
        self.lease = lease
        self.local_port = local_port  # what our port field carries (UM-5)
        self.remote_port = remote_port  # what theirs does
        self.port = local_port  # the port that the application bound or dialled: getsockname
        self.end_reason = Reason.NONE
        self.psum = pseudo_sum(pair, 0, protocol)  # the length is added per packet
        self.out: list[Outgoing] = ctx.queue_for(pair[:16])
        self.stage: Stage | None = None  # the legacy second stage that holds it, if one does
        self.door: Door | None = None  # who took its SYN

    @property
    def remote(self) -> Address:
        return Address(self.pair[:16])

    @property
    def local(self) -> Address:
        return Address(self.pair[16:])

    @property
    def ended(self) -> bool:
        return bool(self.end_reason)

    def touch(self) -> None:
        """Asks for a turn of `output` at the end of the batch."""
        if not self.touched:
            self.touched = True
            self.ctx.touched.append(self)

    @property
    def table(self) -> dict[bytes, Receiver]:
        """The pair table that it belongs into (`Context.table_for`)."""
        ctx = self.ctx
        return (ctx.inner if self.out is ctx.loop else ctx.demux).pairs

    def register(self) -> None:
        """Enters the pair table."""
        self.table[self.pair] = self

    def unregister(self, successor: Receiver | None = None) -> None:
        """Leaves the table it is in; `successor` takes its place there (a TIME-WAIT record)."""
        if self.stage is not None:
            self.stage.remove(self, successor)
            return
        pairs = self.table
        if pairs.get(self.pair) is self:
            if successor is None:
                del pairs[self.pair]
            else:
                pairs[self.pair] = successor


class Stage(Endpoint):
    """A legacy second stage: tells sessions apart by ports (UM-6, UM-26)."""

    __slots__ = ("ctx",)

    ctx: Context
    keeps_records: bool = True  # whether a finished session may leave a record in its place

    def remove(self, session: Session, successor: Receiver | None) -> None:
        raise AssertionError(f"{type(self).__name__} holds no session")

    def let_go(self, session: Session, now: Micros) -> bool:
        """`session` is idle and would sleep in the pair table. False: the stage must keep it."""
        return False

    def forget_record(self, record: Receiver) -> None:
        """A record that took a session's place is no longer needed."""
        raise AssertionError(f"{type(self).__name__} holds no record")


class Door(Endpoint):
    """Who takes a peer's first packet: LISTEN_U, a service listener, a legacy one."""

    __slots__ = ()

    recall: ClassVar[Micros] = Micros(0)  # how long it knows a peer again that it answered and forgot (a cookie's)

    @property
    def heir(self) -> "Door | None":
        """Who takes further connections at its address: itself, or who came after it. None: nobody; sessions go on."""
        return self

    def on_established(self, session: Session, now: Micros) -> bool:
        """The handshake is complete. False: there is no place for the session, it must be reset."""
        raise AssertionError(f"{type(self).__name__} takes no sessions")

    def on_ended(self, session: Session, now: Micros) -> None:
        """A session of this door is gone: a candidate that failed, or an accepted one that finished."""

    def on_second_syn(self, session: Session, buf: bytes, base: int, offset: int, end: int, now: Micros) -> bool:
        """A pure SYN for the pair of `session`, with other ports (UM-33). True if the door has dealt with it."""
        return False
