"""TcpSession: what the application holds of a TCP session, and what is left of it while it sleeps.

A session at work is a `Connection`. After a few idle seconds its variables are
packed into some hundred bytes, and the handle takes its place in the pair table
until a packet or a verb wakes it. Invariant: nothing that the wire or the
application can observe differs, except that congestion state restarts as after
any idle time (RFC 5681 4.1).
"""

# RFC 9293 appendix B: MUST-33; UM-35.x

from struct import Struct
from typing import Final

from umuxstack.core.address.lease import Lease
from umuxstack.core.config import TcpPolicy
from umuxstack.core.errors import Reason
from umuxstack.core.events import EventKind
from umuxstack.core.network.endpoint import Waitable
from umuxstack.core.session.context import Context
from umuxstack.core.session.session import Door
from umuxstack.core.tcp import state as st
from umuxstack.core.tcp.congestion.registry import make
from umuxstack.core.tcp.connection import CHALLENGE_BURST, Connection
from umuxstack.core.tcp.emit import ECT0, send_parting_reset
from umuxstack.core.tcp.opening import NO_FAST_OPEN, FastOpen, Syn
from umuxstack.core.tcp.seq import MASK
from umuxstack.core.tcp.statistics import TcpStatistics
from umuxstack.core.tcp.tcb import SYN_DATA
from umuxstack.core.units import NEVER, Address, Buffer, Micros, seconds

IDLE: Final = seconds(2)  # before a session is packed

# snd_nxt, rcv_nxt, snd_wnd, window offered, rcv_limit, ts_recent, srtt, rttvar, min_rtt, cwnd, ssthresh, seconds of
# ts_recent_at, retransmits, peer MSS, largest window (`_LARGE`), local, remote and shown port, quick ACKs left, both
# scales, flags: 63 bytes, so that with the 33 that Python adds to them they fill a block of 96
_PACKED: Final = Struct(">IIIIIIIIIIIIHHHHHHBBB")
_SECOND: Final = 1_000_000
_TIMESTAMPS: Final = 1
_SACK: Final = 2
_ECN: Final = 4
_OWNS_LEASE: Final = 8
_GONE: Final = 16  # it ended asleep
_LARGE: Final = 32  # the largest window is kept as a field of a segment says it: it was scaled, so nothing is lost
_CWR_DUE: Final = 64
_SYN_DATA: Final = 128
_LIMIT: Final = 0xFFFFFFFF


class TcpSession(Waitable):
    """One TCP session over one pair of addresses (UM-1)."""

    __slots__ = ("_door", "_tcb", "ctx", "lease", "pair")

    def __init__(self, connection: "SleepyConnection") -> None:
        super().__init__()
        self.ctx: Context = connection.ctx
        self.pair = connection.pair
        self.lease: Lease = connection.lease
        self._tcb: SleepyConnection | bytes = connection
        self._door: Door | None = None  # while asleep

    @property
    def tcb(self) -> "SleepyConnection":
        """The variables; wakes the session."""
        tcb = self._tcb
        return self._wake_up() if type(tcb) is bytes else tcb  # type: ignore[return-value]

    @property
    def asleep(self) -> bool:
        return type(self._tcb) is bytes

    @property
    def _gone(self) -> bool:
        """It ended asleep: see `end_with_stack`."""
        tcb = self._tcb
        return type(tcb) is bytes and tcb[-1] & _GONE > 0

    # What it is

    @property
    def remote(self) -> Address:
        return Address(self.pair[:16])

    @property
    def local(self) -> Address:
        return Address(self.pair[16:])

    @property
    def port(self) -> int:
        """What getsockname shows: the port that the application bound, or dialled (UM-5)."""
        return self._look().port

    @property
    def local_port(self) -> int:
        """What our port field carries."""
        return self._look().local_port

    @property
    def remote_port(self) -> int:
        """What the peer's port field carries."""
        return self._look().remote_port

    @property
    def state(self) -> int:
        tcb = self._tcb
        if type(tcb) is bytes:
            return st.CLOSED if self._gone else st.ESTABLISHED
        return tcb.state  # type: ignore[union-attr]

    @property
    def state_name(self) -> str:
        return st.NAMES[self.state]

    @property
    def established(self) -> bool:
        """Data may be exchanged: the handshake is complete, or it was opened early (RFC 7413)."""
        return self.asleep or self.tcb.established

    @property
    def end_reason(self) -> Reason:
        """Why it ended; NONE while it is alive."""
        tcb = self._tcb
        if type(tcb) is bytes:
            return Reason.ABORTED if self._gone else Reason.NONE
        return tcb.end_reason  # type: ignore[union-attr]

    @property
    def soft_error(self) -> Reason:
        """What keeps the peer from acknowledging: TIMED_OUT after three retransmissions, or what an ICMPv6 error said.

        NONE as soon as the peer acknowledges. The session lives on; an event tells the moment (RFC 9293 3.9.1.8).
        """
        return Reason.NONE if self.asleep else self.tcb.soft_error

    @property
    def ended(self) -> bool:
        return bool(self.end_reason)

    @property
    def orphan(self) -> bool:
        """The application has closed it."""
        return self._gone if self.asleep else self.tcb.orphan

    @property
    def door(self) -> Door | None:
        return self._door if self.asleep else self.tcb.door

    @property
    def policy(self) -> TcpPolicy:
        return self.ctx.config.tcp if self.asleep else self.tcb.policy

    @property
    def touched(self) -> bool:
        """It has something to send: `Stack.take_output` gives it its turn."""
        return not self.asleep and self.tcb.touched

    @property
    def fin_queued(self) -> bool:
        return not self.asleep and self.tcb.fin_queued

    @property
    def readable(self) -> bool:
        """Data, the peer's end, or the session's end."""
        tcb = self._tcb
        return self._gone if type(tcb) is bytes else tcb.readable  # type: ignore[union-attr]

    @property
    def eof(self) -> bool:
        """The peer has finished, and everything before that was read."""
        tcb = self._tcb
        return self._gone if type(tcb) is bytes else tcb.eof  # type: ignore[union-attr]

    @property
    def writable(self) -> bool:
        """There is room in the send buffer, or writing would say at once why not."""
        return self.asleep or self.tcb.writable

    @property
    def unsent(self) -> int:
        """Bytes written and not yet acknowledged."""
        return 0 if self.asleep else self.tcb.unsent

    def statistics(self) -> TcpStatistics:
        return self._look().statistics()

    # Verbs

    def read(self, limit: int, now: Micros) -> bytes:
        """Up to `limit` bytes in order; b"" when there is nothing now, or ever (`eof`)."""
        tcb = self._tcb
        return b"" if type(tcb) is bytes else tcb.read(limit, now)  # type: ignore[union-attr]

    def read_chunk(self, now: Micros) -> Buffer:
        """The next stretch as it arrived, without copying; b"" when there is nothing now."""
        tcb = self._tcb
        return b"" if type(tcb) is bytes else tcb.read_chunk(now)  # type: ignore[union-attr]

    def write(self, data: Buffer, now: Micros) -> int:
        """Takes `data` or its beginning; returns how many bytes, 0 when there is no room.

        A `bytes` object is kept as it is, also for retransmission; anything else is copied.
        Raises SessionClosed after `shutdown` or `close`, and when the session has ended.
        """
        tcb = self._tcb
        return (self._wake_up() if type(tcb) is bytes else tcb).write(data, now)  # type: ignore[union-attr]

    def write_urgent(self, data: Buffer, now: Micros) -> int:
        """As `write`, and the last byte taken is urgent (MSG_OOB; RFC 9293 3.8.5)."""
        return self.tcb.write_urgent(data, now)

    def write_more(self, data: Buffer, now: Micros) -> int:
        """As `write`, and more follows (MSG_MORE): what is less than a segment may wait for it."""
        return self.tcb.write_more(data, now)

    def write_record(self, data: Buffer, now: Micros) -> int:
        """As `write`, and a record ends behind `data` (MSG_EOR): nothing written later shares a segment with it."""
        return self.tcb.write_record(data, now)

    @property
    def urgent_pending(self) -> bool:
        """The peer has announced urgent data that was not read yet."""
        return not self.asleep and self.tcb.urgent_pending

    @property
    def urgent_pointer(self) -> int:
        """Where the urgent data ends that was announced last; -1: none is pending."""
        urgent = None if self.asleep else self.tcb.urgent
        return -1 if urgent is None else urgent.pointer

    def read_urgent(self) -> bytes:
        """The urgent byte, out of band; b"" when there is none. Ordinary reading stops before it and leaves it out."""
        return b"" if self.asleep else self.tcb.read_urgent()

    def configure(self, **changes: object) -> None:
        """Changes this session's own policy: names of `TcpPolicy`, from now on.

        Raises BadArgument for what it does not know, and for what the SYN has offered to the peer (timestamps, SACK,
        window scaling, ECN, …): that holds as long as the session. It is chosen before, by the policy that `connect`
        takes, or `Listener.set_policy`. Nothing is changed then.
        """
        self.tcb.configure(**changes)

    def shutdown(self, now: Micros) -> None:
        """Half-close: FIN after what was written. Calling it again does nothing."""
        self.tcb.shutdown(now)

    def close(self, now: Micros) -> None:
        """The application is done with the session. TCP finishes by itself; the address goes with it (UM-17)."""
        if not self._gone:
            self.tcb.close(now)

    def abort(self, now: Micros) -> None:
        """RST to the peer, and gone."""
        if not self._gone:
            self.tcb.abort(now)

    def end_with_stack(self, now: Micros) -> None:
        """As `abort`, when the whole stack ends: no record stays. Asleep it is not woken for that, which is what makes
        an end to a hundred thousand sessions quick."""
        ctx, packed = self.ctx, self._tcb
        if type(packed) is not bytes or self._gone or self._door is not None or ctx.trace is not None:
            self.tcb.end_with_stack(now)
            return
        pair = self.pair
        seq, ack, _, _, _, ts_recent, *_, local_port, remote_port, _, _, _, flags = _PACKED.unpack(packed)
        send_parting_reset(ctx, pair, local_port, remote_port, seq, ack, flags & _TIMESTAMPS > 0, ts_recent, now)
        del ctx.table_for(pair)[pair]
        self._tcb = packed[:-1] + bytes((flags | _GONE,))
        if flags & _OWNS_LEASE:
            ctx.end_lease(self.lease, now, Reason.ABORTED, pair)
        ctx.note(now, EventKind.SESSION_ENDED, self.lease, pair, Reason.ABORTED)
        ctx.wake(self)

    # Sleep

    def receive(
        self, buf: bytes, base: int, offset: int, end: int, protocol: int, gso_size: int, csum_ok: bool, now: Micros
    ) -> None:
        self.tcb.receive(buf, base, offset, end, protocol, gso_size, csum_ok, now)

    def on_icmp_error(
        self, kind: int, code: int, value: int, protocol: int, quoted: bytes, offset: int, now: Micros
    ) -> None:
        self.tcb.on_icmp_error(kind, code, value, protocol, quoted, offset, now)

    def pack(self, tcb: "SleepyConnection") -> None:
        cc = tcb.cc
        assert cc is not None
        large = tcb.max_window > 0xFFFF
        self._tcb = _PACKED.pack(
            tcb.snd_nxt & MASK,
            tcb.rcv_nxt & MASK,
            min(tcb.snd_wnd, _LIMIT),
            tcb.rcv_adv - tcb.rcv_nxt,
            tcb.rcv_limit,
            tcb.ts_recent,
            min(tcb.srtt, _LIMIT),
            min(tcb.rttvar, _LIMIT),
            min(tcb.min_rtt, _LIMIT),
            min(cc.cwnd, _LIMIT),
            min(cc.ssthresh, _LIMIT),
            min(tcb.ts_recent_at // _SECOND, _LIMIT),
            min(tcb.retransmits, 0xFFFF),
            tcb.peer_mss,
            tcb.max_window >> tcb.snd_wscale if large else tcb.max_window,
            tcb.local_port,
            tcb.remote_port,
            tcb.port,
            min(tcb.quick_acks, 0xFF),
            tcb.snd_wscale << 4 | tcb.rcv_wscale,
            tcb.use_ts * _TIMESTAMPS
            | tcb.use_sack * _SACK
            | tcb.use_ecn * _ECN
            | tcb.owns_lease * _OWNS_LEASE
            | large * _LARGE
            | tcb.cwr_due * _CWR_DUE
            | (tcb.syn_flags & SYN_DATA > 0) * _SYN_DATA,
        )
        self._door = tcb.door
        tcb.table[self.pair] = self

    def _look(self) -> "SleepyConnection":
        """The variables, to be read only: a sleeping session sleeps on."""
        tcb = self._tcb
        return self._unpack(tcb) if type(tcb) is bytes else tcb  # type: ignore[return-value]

    def _wake_up(self) -> "SleepyConnection":
        packed = self._tcb
        assert type(packed) is bytes
        tcb = self._unpack(packed)
        self._tcb = tcb
        if not packed[-1] & _GONE:
            tcb.table[self.pair] = tcb
            self.ctx.stay_awake(tcb, tcb.heard_at)
        return tcb

    def _unpack(self, packed: bytes) -> "SleepyConnection":
        (
            snd_nxt, rcv_nxt, snd_wnd, offered, rcv_limit, ts_recent, srtt, rttvar, min_rtt, cwnd, ssthresh, since,
            retransmits, peer_mss, max_window, local_port, remote_port, port, quick_acks, scales, flags,
        ) = _PACKED.unpack(packed)  # fmt: skip
        heard_at = Micros(since * _SECOND)  # the last time we know of: PAWS must not forget it (RFC 7323 5.5)
        ctx = self.ctx
        policy = ctx.config.tcp
        tcb = SleepyConnection(ctx, self.pair, self.lease, local_port, remote_port, heard_at, policy)
        tcb.state = st.ESTABLISHED
        tcb.port = port
        tcb.owns_lease = bool(flags & _OWNS_LEASE)
        tcb.snd_una = tcb.snd_nxt = tcb.snd_wl2 = snd_nxt
        tcb.rcv_nxt = tcb.last_ack_sent = tcb.snd_wl1 = rcv_nxt
        tcb.rcv_adv = rcv_nxt + offered
        tcb.snd_wscale, tcb.rcv_wscale = scales >> 4, scales & 15
        tcb.snd_wnd = snd_wnd
        tcb.max_window = max_window << tcb.snd_wscale if flags & _LARGE else max_window
        tcb.rcv_limit = rcv_limit
        tcb.use_ts, tcb.use_sack, tcb.use_ecn = bool(flags & _TIMESTAMPS), bool(flags & _SACK), bool(flags & _ECN)
        tcb.ts_recent, tcb.ts_recent_at = ts_recent, heard_at
        tcb.srtt, tcb.rttvar, tcb.min_rtt, tcb.retransmits = srtt, rttvar, min_rtt, retransmits
        tcb.peer_mss = peer_mss
        tcb.waken(heard_at)
        tcb.quick_acks = quick_acks
        tcb.cwr_due = bool(flags & _CWR_DUE)
        tcb.syn_flags = SYN_DATA if flags & _SYN_DATA else 0
        tcb.cc = make(policy.congestion, tcb.mss, policy.initial_window * tcb.mss, ctx.congestion)
        tcb.cc.cwnd = max(cwnd, tcb.mss)
        if ssthresh < _LIMIT:
            tcb.cc.ssthresh = ssthresh
        tcb.handle = self
        tcb.door = self._door
        if flags & _GONE:
            tcb.state, tcb.end_reason, tcb.orphan, tcb.handle = st.CLOSED, Reason.ABORTED, True, None
        return tcb


class SleepyConnection(Connection):
    """A connection that packs itself away when it is idle."""

    __slots__ = ()

    def fall_asleep(self, now: Micros) -> bool:
        if self.end_reason:
            return True
        if self.ctx.pmtu:
            self._follow_path(now)
        rx, tx, handle = self.rx, self.tx, self.handle
        if (
            now - self.heard_at < IDLE
            or now - self.delivered_at < IDLE
            or now - self.challenge_at < CHALLENGE_BURST  # else the limit of RFC 5961 7 would begin anew each time
            or self.state != st.ESTABLISHED
            or self.board
            or (tx is not None and tx.end > tx.start)
            or (rx is not None and rx.size)
            or self.assembler is not None
            or self.fin_queued
            or self.peer_fin >= 0
            or self.deadline != NEVER
            or self.touched
            or self.ack_due
            or self.policy is not self.ctx.config.tcp
            or self.ce_seen
            or self.urgent is not None
            or not isinstance(handle, TcpSession)
            or (self.stage is not None and not self.stage.let_go(self, now))
        ):
            return False
        handle.pack(self)
        self.handle = None
        return True

    def waken(self, now: Micros) -> None:
        """What follows from the other variables."""
        self._set_mss(now)
        policy = self.policy
        if self.use_ecn and policy.ecn_plus == 2:
            self.first_word |= ECT0
        if self.srtt:
            self._set_rto(policy)


def answer_syn(
    ctx: Context,
    pair: bytes,
    lease: Lease,
    ports: tuple[int, int],
    syn: Syn,
    policy: TcpPolicy,
    now: Micros,
    fast_open: FastOpen = NO_FAST_OPEN,
) -> SleepyConnection:
    """A half-open session for a SYN that came to a door; `Connection.passive`, with its handle."""
    connection = SleepyConnection.passive(ctx, pair, lease, ports, syn, policy, now, fast_open)
    connection.handle = TcpSession(connection)
    return connection


def open_session(
    ctx: Context,
    pair: bytes,
    lease: Lease,
    ports: tuple[int, int],
    policy: TcpPolicy,
    now: Micros,
    early: Buffer = b"",
    echo: int = 0,
) -> SleepyConnection:
    """A session whose SYN goes out; `Connection.active`, with its handle."""
    connection = SleepyConnection.active(ctx, pair, lease, *ports, policy, now, early, echo)
    connection.handle = TcpSession(connection)
    return connection
