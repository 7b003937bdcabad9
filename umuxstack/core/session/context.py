"""What every session of one stack shares: tables, timers, queues, limits.

One object, made by the stack and handed to each session; it decides nothing.
"""

# 8504-5.1-9

from collections import deque
from typing import Final

from umuxstack.core.address.lease import CLOSED, VALID, Lease, LeaseTable
from umuxstack.core.config import StackConfig
from umuxstack.core.counters import Counters
from umuxstack.core.entropy import Entropy
from umuxstack.core.errors import Drop, Reason
from umuxstack.core.events import EventKind
from umuxstack.core.network import egress
from umuxstack.core.network.demux import Demux
from umuxstack.core.network.endpoint import Endpoint, Receiver, Waitable
from umuxstack.core.network.pmtu import PathMtu
from umuxstack.core.session.fast_open import Cookies
from umuxstack.core.timers import Timers
from umuxstack.core.units import NEVER, Address, Buffer, Micros, seconds

Outgoing = tuple[bytes, Buffer, int, int]
"""(header, payload, gso_size, csum_offset): one packet to send, or one TCP super-segment.

`header` is the IPv6 header and the whole upper-layer header. `gso_size` > 0: a super-segment, its
payload is to be cut into pieces of that size. `csum_offset` is where in the upper-layer header the
checksum field stands; the field holds the folded pseudo-header sum, not complemented, over the whole
length. 0: the checksum is complete.
"""

TraceLine = tuple[Micros, str, object, tuple[object, ...]]
"""(time, kind, session, values) of one thing that a TCP session did; see docs/tracing.md."""

RawEvent = tuple[Micros, EventKind, Lease | tuple[str, Address | None, str], bytes | None, Reason]
"""(time, kind, whose, pair, reason) of an `Event`, which is made when somebody asks. Whose: a lease, or a listener's
name, address and label."""


_NO_REASON: Final = Reason.NONE
_RETIRING: Final = EventKind.LEASE_RETIRING
_ENDED: Final = EventKind.LEASE_ENDED
SWEEP: Final = seconds(1)  # between two looks at every session that is awake …
LONGEST_SWEEP: Final = seconds(1024)  # … and when look after look finds none that may be packed
LONGEST_WITH_PATHS: Final = seconds(64)  # while narrow paths are known: what was learnt of them grows old
SWEEP_BATCH: Final = 256  # sessions per look: under 2 ms
SWEEP_STEP: Final = Micros(2000)


class Context:
    """Shared state of a stack's sessions."""

    __slots__ = (
        "_network",
        "_packed",
        "_pause",
        "_shared",
        "_shift",
        "_swept",
        "_whole_bytes",
        "awake",
        "clock",
        "config",
        "congestion",
        "cookies",
        "counters",
        "demux",
        "entropy",
        "events",
        "inner",
        "leases",
        "loop",
        "memory",
        "outbox",
        "pmtu",
        "quiet",
        "ready",
        "restarted",
        "sweep_at",
        "timers",
        "touched",
        "trace",
    )

    def __init__(self, config: StackConfig, entropy: Entropy) -> None:
        self.config = config
        self.entropy = entropy
        self.counters = Counters()
        self.demux = Demux()  # of what comes from the link
        self.inner = Demux(self.demux.locals)  # of what we send to ourselves: its pairs, nobody outside can hit (UM-37)
        self._shift = 128 - config.prefix_length
        self._network = int.from_bytes(config.prefix, "big") >> self._shift
        self._whole_bytes = config.prefix[: config.prefix_length // 8]
        self._shared = frozenset(config.shared)
        self.timers = Timers()
        self.leases = LeaseTable(complete=config.scheme == "random")
        self.pmtu = PathMtu(config.link.mtu, config.path_mtu_lifetime)
        self.cookies = Cookies()
        self.outbox: list[Outgoing] = []  # to the link
        self.loop: list[Outgoing] = []  # to ourselves
        self.ready: list[Waitable] = []
        self.touched: list[Sender] = []  # sessions with something to send at the end of this batch
        self.events: deque[RawEvent] = deque(maxlen=65536)  # the oldest go when nobody drains them
        self.quiet: dict[Micros, deque[Expiring]] = {}  # by duration: each queue is in order of expiry
        self.restarted: dict[Expiring, Restart] = {}  # records that last longer than their queue says
        self.awake: deque[Drowsy] = deque()  # sessions that may be packed when they have been idle
        self.clock: Micros = Micros(0)  # the time of the newest input, for traces only
        self.trace: list[TraceLine] | None = None  # see Stack.watch
        self._swept = 0
        self._packed = False  # this look has found one
        self._pause = SWEEP  # until the next look
        self.sweep_at: Micros = NEVER  # when to look at them next
        self.memory = 0  # bytes that all buffers hold now
        self.congestion: dict[str, type] = {}  # algorithms registered with this stack, by name

    def wake(self, endpoint: Waitable) -> None:
        """The endpoint's readiness changed: the driver will hear of it once."""
        if not endpoint.ready:
            endpoint.ready = True
            self.ready.append(endpoint)

    def is_ours(self, address: bytes) -> bool:
        """Whether it lies in our prefix, or is a shared address: on a routed link nobody else has it."""
        # Bytes first: a difference there tells nearly always, and is found ten times as quickly as by arithmetic.
        if not address.startswith(self._whole_bytes):
            return address in self._shared
        return int.from_bytes(address, "big") >> self._shift == self._network or address in self._shared

    def queue_for(self, peer: bytes) -> list[Outgoing]:
        """Where packets to `peer` go: out, or back into the stack when the address is ours (UM-37)."""
        return self.loop if self.is_ours(peer) else self.outbox

    def table_for(self, pair: bytes) -> dict[bytes, Receiver]:
        """The pair table that a session with `pair` stands in."""
        return (self.inner if self.is_ours(pair[:16]) else self.demux).pairs

    def send_packet(self, packet: bytes, remote: bytes, now: Micros) -> None:
        """A complete packet, checksum and all; in fragments if the path cannot carry it whole."""
        out = self.queue_for(remote)
        mtu = self.pmtu.get(remote, now)
        if len(packet) <= mtu or out is self.loop:
            out.append((packet, b"", 0, 0))
            return
        for piece in egress.fragment(packet, mtu, int.from_bytes(self.entropy.bytes(4), "big")):
            out.append((piece, b"", 0, 0))

    def path_shrank(self, peer: bytes, mtu: int, now: Micros) -> None:
        """The path to `peer` carries packets of `mtu` bytes and no more: believed, and remembered.

        Sessions that are awake hear of it at the next sweep (8201-5.2-5), the others when they wake.
        """
        self.pmtu.learn(peer, mtu, now)
        self._hurry(now)

    def _hurry(self, now: Micros) -> None:
        self._pause = SWEEP
        if self.awake and self.sweep_at > now + SWEEP:
            self.sweep_at = Micros(now + SWEEP)

    def stay_awake(self, session: "Drowsy", now: Micros) -> None:
        """The session has just become active: it is looked at again later."""
        self.awake.append(session)
        self._hurry(now)

    def sweep(self, now: Micros) -> None:
        """Packs sessions that have been idle; a bounded number of them at a time, so that nothing waits for it.

        Sessions that are quiet but must stay awake, for their keep-alive, are looked at ever more rarely.
        """
        awake = self.awake
        for _ in range(min(len(awake), SWEEP_BATCH)):
            session = awake.popleft()
            if session.fall_asleep(now):
                self._packed = True
            else:
                awake.append(session)
        self._swept += SWEEP_BATCH
        if self._swept >= len(awake):
            self._swept = 0
            longest = LONGEST_SWEEP if not self.pmtu else LONGEST_WITH_PATHS
            self._pause = SWEEP if self._packed else Micros(min(2 * self._pause, longest))
            self._packed = False
            self.sweep_at = Micros(now + self._pause) if awake else NEVER
        else:
            self.sweep_at = Micros(now + SWEEP_STEP)

    def drop(self, reason: Drop) -> None:
        self.counters.drops[reason] += 1

    def note(
        self, now: Micros, kind: EventKind, lease: Lease, pair: bytes | None = None, reason: Reason = _NO_REASON
    ) -> None:
        """Records a moment in a lease's life, or in that of the session with this `pair`."""
        self.events.append((now, kind, lease, pair, reason))

    def retire(self, lease: Lease, now: Micros, pair: bytes = b"") -> None:
        """The application has closed the session with `pair`; TCP still finishes (UM-8)."""
        if lease.state == VALID and lease.close_for(pair):
            lease.on(CLOSED)
            self.note(now, _RETIRING, lease)

    def end_lease(self, lease: Lease, now: Micros, reason: Reason = _NO_REASON, pair: bytes = b"") -> None:
        """The session with `pair` is gone, and the address dies here, if no other session has it (UM-7)."""
        if not lease.finish_for(pair):
            self.retire(lease, now, pair)
        elif self.leases.end(lease):
            self.note(now, _ENDED, lease, None, reason)


class Expiring(Receiver):
    """A record that is forgotten after a fixed time; thousands of them cost no timer."""

    __slots__ = ()

    def expires(self) -> Micros:
        raise AssertionError(f"{type(self).__name__} never expires")

    def forget(self, now: Micros) -> None:
        """Its time is over, unless it began anew meanwhile."""

    def leave(self, now: Micros) -> None:
        """Out of the table it is in."""


class Restart(Endpoint):
    """The timer of a record whose time has begun anew: the queues are in order of the first expiry alone."""

    __slots__ = ("_ctx", "_record", "latest")

    def __init__(self, ctx: Context, record: Expiring, latest: Micros) -> None:
        super().__init__()
        self._ctx = ctx
        self._record = record
        self.latest = latest  # however often it begins anew

    def on_deadline(self, now: Micros) -> None:
        del self._ctx.restarted[self._record]
        self._record.leave(now)


class Drowsy(Endpoint):
    """Something that takes less memory when nothing has happened to it for a while."""

    __slots__ = ()

    def fall_asleep(self, now: Micros) -> bool:
        """Packs itself, if it is idle. True: it needs no further look."""
        raise AssertionError(f"{type(self).__name__} never sleeps")


class Sender(Drowsy):
    """An endpoint that wants a turn at the end of the batch."""

    __slots__ = ("touched",)

    def __init__(self) -> None:
        super().__init__()
        self.touched = False

    def output(self, now: Micros) -> None:
        """Sends what may be sent now."""
        raise AssertionError(f"{type(self).__name__} sends nothing")
