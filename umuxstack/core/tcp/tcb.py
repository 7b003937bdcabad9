"""The transmission control block: what one TCP session knows, and its clock.

Variables keep their RFC 9293 names. Sequence numbers are unwrapped (tcp/seq.py).
State that an idle session does not need (scoreboard, buffers, loss recovery) is
None until it is needed. Invariant: `deadline` is the earliest of the four times below.
"""

# RFC 9293 appendix B: MUST-15, SHLD-6, REC-1; UM-35.i; 8200-8.3-1, 8200-8.3-2, 8201-5.4-1, 8201-5.4-2, 8201-5.4-4,
# 8201-5.4-5, 8504-5.1-10

from typing import Final, Self

import attrs

from umuxstack.core.address.lease import Lease
from umuxstack.core.config import TcpPolicy
from umuxstack.core.errors import BadArgument, Reason
from umuxstack.core.events import EventKind
from umuxstack.core.network.endpoint import Receiver, Waitable
from umuxstack.core.session.context import Context
from umuxstack.core.session.receive_buffer import Assembler, ReceiveBuffer
from umuxstack.core.session.send_buffer import SendBuffer
from umuxstack.core.session.session import Session
from umuxstack.core.tcp import state as st
from umuxstack.core.tcp.accurate_ecn import RESERVED, AccurateEcn
from umuxstack.core.tcp.congestion.base import RECOVERY, CongestionControl, RateSample
from umuxstack.core.tcp.congestion.registry import find
from umuxstack.core.tcp.isn import flow_label, initial_sequence_number, session_secret, timestamp_offset
from umuxstack.core.units import NEVER, TCP, Micros
from umuxstack.core.wire import tcp as wire

_SESSION_ENDED: Final = EventKind.SESSION_ENDED

# What the retransmission timer is running for
RTO: Final = 0
PROBE: Final = 1  # tail loss probe, RFC 8985 7
REORDER: Final = 2  # RACK waits for stragglers, RFC 8985 6.2
PERSIST: Final = 3  # zero-window probe, RFC 9293 3.8.6.1
HANDSHAKE: Final = 4  # SYN or SYN-ACK

# What a sent range has come to
IN_FLIGHT: Final = 0
SACKED: Final = 1
LOST: Final = 2

SYN_DATA: Final = 1 << 8  # in `syn_flags`: all the data that went with our SYN was acknowledged by its answer

# What was said of the unsent tail
MORE: Final = 1  # more follows (MSG_MORE): less than a segment waits
PUSH: Final = -1  # it goes out in this turn, whatever else was said

# What the SYN said, or what made it say so: nothing for a session that has sent one
SETTLED: Final = (
    "timestamps",
    "sack",
    "window_scaling",
    "ecn",
    "ecn_asks",
    "ecn_plus",
    "bsd_options",
    "announce_mss",
    "announce_path_mtu",
)

HEADERS: Final = 60  # IPv6 and TCP without options
DEFAULT_MSS: Final = 1220  # RFC 9293 MUST-16: without the option, 1280 - 60
SMALLEST: Final = 64  # MSS: a smaller one would make more headers than data
LARGEST: Final = 65535 - 60  # most bytes behind the IPv6 header, less a TCP header with options


class Sent:
    """A range of sequence numbers as it was last transmitted: up to a whole super-segment."""

    __slots__ = ("at", "end", "first_at", "rexmit", "start", "state")

    def __init__(self, start: int, end: int, at: Micros) -> None:
        self.start = start
        self.end = end
        self.at = at
        self.state = IN_FLIGHT
        self.rexmit = False
        self.first_at = at  # when it was sent for the first time

    def split(self, at: int) -> Self:
        """Cuts off and returns what lies from `at` on."""
        rest = type(self)(at, self.end, self.at)
        rest.state, rest.rexmit, rest.first_at = self.state, self.rexmit, self.first_at
        self.end = at
        return rest


class Sampled(Sent):
    """A range that will tell a delivery rate, for a congestion control that wants to know."""

    __slots__ = ("delivered", "delivered_at", "limited", "window_at")

    def __init__(self, start: int, end: int, at: Micros) -> None:
        super().__init__(start, end, at)
        self.delivered = 0  # the session's total when this was sent
        self.delivered_at = at
        self.window_at = at  # when the sampling window that it belongs to began to be sent
        self.limited = False

    def split(self, at: int) -> Self:
        rest = super().split(at)
        rest.delivered, rest.delivered_at = self.delivered, self.delivered_at
        rest.window_at, rest.limited = self.window_at, self.limited
        return rest


class Loss:
    """What loss recovery needs, from the first sign of loss until all is repaired (RFC 6675, 6937, 8985)."""

    __slots__ = (
        "dup_acks",
        "forward",
        "high_sacked",
        "lost",
        "phase",
        "point",
        "probe_end",
        "probe_is_rexmit",
        "prr_delivered",
        "prr_flight",
        "prr_out",
        "rack_at",
        "rack_end",
        "rack_rtt",
        "reo_mult",
        "reo_persist",
        "reo_round",
        "reordering",
        "sacked",
        "steer_end",
        "undo_bytes",
        "undo_seq",
        "undo_ts",
        "undo_until",
        "window",
    )

    def __init__(self) -> None:
        self.phase = 0  # congestion.base.OPEN, RECOVERY, LOSS
        self.point = 0  # recovery ends when this is acknowledged
        self.lost = 0  # bytes marked lost and not retransmitted
        self.sacked = 0  # bytes SACKed beyond snd_una
        self.high_sacked = 0
        self.dup_acks = 0
        self.forward = 0  # F-RTO: see forward_rto.py
        self.window = 0  # what PRR allows in flight
        self.steer_end = 0  # until this is acknowledged PRR steers though nothing was lost: `ecn_proportional`
        self.prr_delivered = 0
        self.prr_out = 0
        self.prr_flight = 0
        self.rack_at = 0  # RACK.xmit_ts
        self.rack_end = 0  # RACK.end_seq
        self.rack_rtt = 0
        self.reordering = False
        self.reo_mult = 1
        self.reo_persist = 0
        self.reo_round = 0  # SND.NXT when a D-SACK widened the window last
        self.probe_end = 0  # TLP.end_seq
        self.probe_is_rexmit = False
        self.undo_seq = 0  # where the first retransmission of this recovery began
        self.undo_ts = -1  # timestamp of the first retransmission: an older echo proves it needless
        self.undo_bytes = 0  # retransmitted and not yet reported as duplicate
        self.undo_until = 0  # how long after a recovery's end such reports still count

    def steers(self, una: int) -> bool:
        """Whether PRR decides what may be sent, and the congestion window does not grow."""
        return self.phase == RECOVERY or (una < self.steer_end and not self.phase)


class Urgent:
    """Urgent data that the peer announced (RFC 9293 3.8.5); BSD's way: the one byte before the pointer."""

    __slots__ = ("byte", "pointer")

    def __init__(self, pointer: int) -> None:
        self.pointer = pointer  # RCV.UP: the sequence number behind the urgent byte
        self.byte: bytes | None = None  # once taken out of the stream


class Tcb(Session):
    """One session's variables. Behaviour is added file by file: emit, recovery, send, receive, session."""

    __slots__ = (
        "accurate",
        "ack_at",
        "ack_due",
        "ack_now",
        "assembler",
        "aux_at",
        "board",
        "cc",
        "ce_seen",
        "challenge_at",
        "cwnd_limited",
        "cwr_due",
        "delivered",
        "delivered_at",
        "drs_at",
        "drs_bytes",
        "dsack",
        "ecn_point",
        "fin_queued",
        "first_word",
        "handle",
        "heard_at",
        "hold",
        "iss",
        "last_ack_sent",
        "loss",
        "max_flight",
        "max_window",
        "min_rtt",
        "mss",
        "orphan",
        "owns_lease",
        "pace_at",
        "peer_fin",
        "peer_mss",
        "pipe",
        "policy",
        "ports",
        "quick_acks",
        "rcv_adv",
        "rcv_limit",
        "rcv_nxt",
        "rcv_wscale",
        "retransmits",
        "retries",
        "rto",
        "rto_at",
        "rto_kind",
        "rttvar",
        "rx",
        "same",
        "sample",
        "sample_at",
        "small",
        "snd_nxt",
        "snd_una",
        "snd_up",
        "snd_wl1",
        "snd_wl2",
        "snd_wnd",
        "snd_wscale",
        "srtt",
        "stalled_at",
        "state",
        "syn_flags",
        "trouble",
        "ts_offset",
        "ts_recent",
        "ts_recent_at",
        "turn_flight",
        "tx",
        "urgent",
        "usage_seq",
        "use_ecn",
        "use_sack",
        "use_ts",
        "want_write",
    )

    def __init__(
        self, ctx: Context, pair: bytes, lease: Lease, local_port: int, remote_port: int, now: Micros, policy: TcpPolicy
    ) -> None:
        super().__init__(ctx, pair, lease, TCP, local_port, remote_port)
        self.policy = policy
        self.handle: Waitable | None = None  # what the application holds (tcp/session.py)
        self.state = st.CLOSED
        self.owns_lease = False
        self.orphan = False  # the application has closed
        self.syn_flags = 0
        self.ports = remote_port << 16 | local_port  # as they come in
        self.same = wire.SAME.pack(TCP, self.hop_limit, pair[16:], pair[:16], local_port, remote_port)

        secret = session_secret(ctx.entropy, pair, local_port << 16 | remote_port)
        self.iss = initial_sequence_number(secret, now)
        self.snd_una = self.iss
        self.snd_nxt = self.iss
        self.snd_wnd = 0
        self.snd_wl1 = 0
        self.snd_wl2 = 0
        self.max_window = 0
        self.snd_wscale = 0
        self.rcv_nxt = 0
        self.rcv_adv = 0  # right edge of the window as advertised
        self.rcv_limit = policy.receive_buffer
        self.rcv_wscale = 0
        self.peer_mss = DEFAULT_MSS
        self.mss = DEFAULT_MSS  # payload bytes per segment, options deducted

        self.use_ts = False
        self.use_sack = False
        self.use_ecn = False
        self.ts_recent = 0
        self.ts_recent_at: Micros = now
        ctx.clock = now
        self.ts_offset = timestamp_offset(secret)
        # The header's first 32 bits. RFC 6437 3: a flow label that looks random and stays with the flow.
        self.first_word = 0x60000000 | policy.traffic_class >> 2 << 22 | flow_label(secret)
        self.last_ack_sent = 0

        self.tx: SendBuffer | None = None
        self.fin_queued = False
        self.snd_up = 0  # SND.UP: urgent data ends here
        self.urgent: Urgent | None = None
        # The end of the last segment sent below full size (Nagle after Minshall). Negative: none, and what ends before
        # had gone with a SYN.
        self.small = 0
        self.hold = 0  # MORE or PUSH: may the tail wait, or must it go now
        self.want_write = False
        self.rx: ReceiveBuffer | None = None
        self.assembler: Assembler | None = None
        self.peer_fin = -1  # sequence number of the peer's FIN, once seen
        self.dsack: tuple[int, int] | None = None
        self.drs_at: Micros = now
        self.drs_bytes = 0

        self.board: list[Sent] = []
        self.pipe = 0
        self.loss: Loss | None = None
        self.cc: CongestionControl | None = None
        self.cwnd_limited = False
        self.max_flight = 0  # most that was outstanding since `usage_seq` was sent
        self.usage_seq = self.iss
        self.turn_flight = 0  # outstanding when the first acknowledgement of the newest batch came
        self.sample: RateSample | None = None
        self.delivered = 0
        self.delivered_at: Micros = now
        self.sample_at: Micros = now  # when the range whose delivery set `delivered_at` was sent
        self.ecn_point = 0
        self.accurate: AccurateEcn | None = None  # RFC 9768
        self.ce_seen = 0  # what we owe the peer: ECE; or ON, if it is `accurate`
        self.cwr_due = False
        self.srtt = 0
        self.rttvar = 0
        self.min_rtt = 0
        self.rto: Micros = policy.rto_initial
        self.retries = 0
        self.retransmits = 0
        self.challenge_at: Micros = Micros(0)
        self.trouble: tuple[int, Reason] | None = None  # SND.UNA then, and what was said of the path

        self.ack_due = 0  # segments received and not acknowledged
        self.ack_now = False
        self.quick_acks = policy.quick_acks  # segments still to be acknowledged at once
        self.heard_at: Micros = now
        self.rto_at: Micros = NEVER
        self.rto_kind = RTO
        self.stalled_at: Micros = now  # since when the peer's window has been shut
        self.ack_at: Micros = NEVER
        self.aux_at: Micros = NEVER  # keep-alive, FIN-WAIT-2
        self.pace_at: Micros = NEVER

    def _wake(self) -> None:
        """Readiness changed: whoever holds the session hears of it."""
        handle = self.handle
        if handle is not None and not handle.ready:
            handle.ready = True
            self.ctx.ready.append(handle)

    @property
    def soft_error(self) -> Reason:
        """What keeps the peer from acknowledging, as far as is known; NONE again as soon as it acknowledges."""
        trouble = self.trouble
        return trouble[1] if trouble is not None and trouble[0] == self.snd_una else Reason.NONE

    def _in_trouble(self, reason: Reason, now: Micros) -> None:
        """RFC 9293 3.9.1.8 (MUST-47): a soft error is told to the application, and ends nothing."""
        if self.state == st.SYN_RECEIVED and self.door is not None and self.cc is None:
            return  # a candidate: no application has it yet
        if self.soft_error != reason:
            self.trouble = (self.snd_una, reason)
            self.ctx.note(now, EventKind.SESSION_TROUBLED, self.lease, self.pair, reason)
            self._wake()

    @property
    def hop_limit(self) -> int:
        """Of the session's segments (RFC 9293 MUST-49)."""
        return self.policy.hop_limit or self.ctx.config.hop_limit

    # The clock

    def _arm(self) -> None:
        """The earliest of the four times becomes the deadline."""
        at = self.rto_at
        if self.ack_at < at:
            at = self.ack_at
        if self.aux_at < at:
            at = self.aux_at
        if self.pace_at < at:
            at = self.pace_at
        self.deadline = at
        if at < self.armed:
            self.ctx.timers.arm(self, at)

    def _hears_ecn(self) -> bool:
        """Marks are worth asking for only if the congestion control reacts to them."""
        return self.policy.ecn and find(self.policy.congestion, self.ctx.congestion).hears_ecn

    # The state

    @property
    def state_name(self) -> str:
        return st.NAMES[self.state]

    @property
    def established(self) -> bool:
        """Data may be exchanged: the handshake is complete, or it was opened early (RFC 7413)."""
        return self.state >= st.ESTABLISHED or (self.state == st.SYN_RECEIVED and self.cc is not None)

    def _enter(self, state: int) -> None:
        """The only place where the state changes."""
        self.state = state
        if self.ctx.trace is not None:
            self._trace("state", st.NAMES[state])

    def _trace(self, kind: str, *values: object) -> None:
        """One line for whoever watches (`Context.trace`); costs nothing when nobody does."""
        trace = self.ctx.trace
        if trace is not None:
            trace.append((self.ctx.clock, kind, self.handle or self, values))

    def configure(self, **changes: object) -> None:
        """See `TcpSession.configure`."""
        for name in SETTLED:
            if changes.get(name, getattr(self.policy, name)) != getattr(self.policy, name):
                raise BadArgument(
                    f"{name} is settled by a session's handshake; it is for a policy given before its SYN"
                )
        try:
            self.policy = attrs.evolve(self.policy, **changes)  # type: ignore[arg-type]
        except TypeError as error:
            raise BadArgument(f"no such TCP option: {error}") from None

    def _full_segment(self, now: Micros) -> int:
        """The payload of a full segment: what the peer takes and the path carries, less our options (RFC 6691)."""
        path = self.ctx.pmtu.get(self.pair[:16], now) - HEADERS
        if self.policy.mss:
            path = min(path, self.policy.mss)
        if self.peer_mss < path:
            path = self.peer_mss
        options = 12 if self.use_ts else 0
        if self.accurate is not None and self.accurate.option:
            options += RESERVED
        return (path if path > SMALLEST else SMALLEST) - options

    def _set_mss(self, now: Micros) -> None:
        before = self.mss
        self.mss = self._full_segment(now)
        if self.cc is not None:
            if self.policy.counts_segments and self.mss < before:
                self.cc.cwnd = max(self.cc.cwnd // before, 1) * self.mss
            self.cc.on_mss(self.mss)

    def _follow_path(self, now: Micros) -> None:
        """Looks anew what the path carries: another session may have learnt of less, and what was learnt grows old.

        8201-5.2-6: "any packetization layer instance that is actively using the path must be notified"; we are, at
        the next sweep, and by our own packet's error if one is too large before that. 8201-5.3-2: later, larger again.
        """
        if self._full_segment(now) != self.mss:
            self._set_mss(now)

    def _black_hole(self, now: Micros) -> None:
        """Full segments go unanswered and no "packet too big" came: try the size that every link must carry."""
        if self.board[0].end - self.board[0].start >= self.mss > 1280 - 60 - 12:
            # A guess, unlike what ICMPv6 says: kept for this peer alone, and by this session for good. Each try of a
            # larger size would cost three timeouts.
            self.ctx.pmtu.learn(self.pair[:16], 1280, now, whole_prefix=False)
            self.peer_mss = min(self.peer_mss, 1280 - 60)
            self._set_mss(now)

    def finish(self, reason: Reason, now: Micros, successor: Receiver | None = None) -> None:
        """The session is gone. `successor` answers for it in the pair table for a while (TIME-WAIT, RETIRING)."""
        if self.end_reason:
            return
        ctx = self.ctx
        self.end_reason = reason
        ctx.clock = now
        if self.state != st.TIME_WAIT:
            self._enter(st.CLOSED)
        self.rto_at = self.ack_at = self.aux_at = self.pace_at = self.deadline = NEVER
        self.unregister(successor)
        self._drop_send_side()
        if self.orphan:
            self._drop_receive_side()
        if self.owns_lease:
            if successor is None:
                ctx.end_lease(self.lease, now, reason, self.pair)
            else:
                ctx.retire(self.lease, now, self.pair)
        ctx.note(now, _SESSION_ENDED, self.lease, self.pair, reason)
        if self.door is not None:
            self.door.on_ended(self, now)
        self._wake()
        self.handle = None  # it keeps us from now on; a cycle would wait for the garbage collector

    def _drop_send_side(self) -> None:
        if self.tx is not None:
            self.ctx.memory -= self.tx.end - self.tx.start
            self.tx = None
        self.board = []
        self.pipe = 0
        self.loss = None

    def _drop_receive_side(self) -> None:
        if self.rx is not None:
            self.ctx.memory -= self.rx.size
            self.rx = None
        if self.assembler is not None:
            self.ctx.memory -= self.assembler.size
            self.assembler = None
