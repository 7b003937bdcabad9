"""What is left of a TCP session for a minute: one compact record per pair (UM-36, UM-31).

After an orderly close it answers a retransmitted FIN with the ACK and begins the
time anew (TIME-WAIT); after an abort it answers the pair with RST. An EA or one-time SSA
is never met again, so that is all; an address that may be met again follows UM-33 and RFC 6191.
"""

# RFC 9293 appendix B: MUST-13, MAY-2; UM-35.e

from collections import deque
from struct import Struct
from typing import Final

from umuxstack.core.address.lease import Lease
from umuxstack.core.errors import Drop
from umuxstack.core.session.context import Context, Expiring, Restart
from umuxstack.core.session.session import Stage
from umuxstack.core.tcp.isn import flow_label, session_secret, timestamp_offset
from umuxstack.core.tcp.seq import MASK, unwrap
from umuxstack.core.units import NEVER, TCP, Micros
from umuxstack.core.wire import tcp as wire
from umuxstack.core.wire import tcp_options
from umuxstack.core.wire.checksum import checksum_ok, pseudo_sum

# Its end, flags and hop limit in one; duration in seconds; local and remote port, window, snd_nxt, rcv_nxt, ts_recent.
# A duration of half precision is off by 1/4096 at most, and exact for whole seconds up to half an hour.
_RECORD: Final = Struct(">qeHHHIII")
_UNTIL: Final = 11  # bits before the end: three flags, eight of hop limit
_FLAGS_AT: Final = 6
_MOST: Final = 65504  # seconds
_RESET: Final = 1
_OWNS_LEASE: Final = 2
_TIMESTAMPS: Final = 4

# How many times its duration a record may last, however often the peer repeats its FIN: ten minutes by default. A
# TCP's own patience with an unanswered FIN is shorter (RFC 9293's R2, 100 s; about nine minutes where it is generous).
LONGEST: Final = 10


class Quiet(Expiring):
    """A pair whose session is over. Under 200 bytes; no timer of its own, until the peer repeats its FIN."""

    __slots__ = ("_home", "_packed", "lease", "pair")

    def __init__(
        self,
        ctx: Context,
        pair: bytes,
        lease: Lease,
        stage: Stage | None,
        duration: Micros,
        now: Micros,
        *,
        reset: bool,
        owns_lease: bool,
        timestamps: bool,
        ports: tuple[int, int],
        window: int,
        snd_nxt: int,
        rcv_nxt: int,
        ts_recent: int,
        hop_limit: int,
    ) -> None:
        self._home: Context | Stage = ctx if stage is None else stage
        self.pair = pair
        self.lease = lease
        flags = reset * _RESET | owns_lease * _OWNS_LEASE | timestamps * _TIMESTAMPS
        end = (now + duration) << _UNTIL | flags << 8 | hop_limit
        self._packed = _RECORD.pack(
            end, min(duration / 1e6, _MOST), *ports, window, snd_nxt & MASK, rcv_nxt & MASK, ts_recent
        )

    @property
    def stage(self) -> Stage | None:
        """The legacy second stage that holds it, if one does."""
        home = self._home
        return home if isinstance(home, Stage) else None

    @property
    def _ctx(self) -> Context:
        home = self._home
        return home.ctx if isinstance(home, Stage) else home

    @property
    def reset(self) -> bool:
        """It answers with RST: the session was aborted."""
        return bool(self._packed[_FLAGS_AT] & _RESET)

    @property
    def had_timestamps(self) -> bool:
        return bool(self._packed[_FLAGS_AT] & _TIMESTAMPS)

    @property
    def ts_recent(self) -> int:
        """The peer's last timestamp."""
        return int(_RECORD.unpack(self._packed)[7])

    @property
    def since(self) -> Micros:
        """When it began, or began anew."""
        return Micros(self.expires() - self._duration)

    @property
    def ports(self) -> tuple[int, int]:
        return _RECORD.unpack(self._packed)[2:4]

    def expires(self) -> Micros:
        return Micros(_RECORD.unpack(self._packed)[0] >> _UNTIL)

    @property
    def _duration(self) -> Micros:
        return Micros(round(_RECORD.unpack(self._packed)[1] * 1e6))

    def receive(
        self, buf: bytes, base: int, offset: int, end: int, protocol: int, gso_size: int, csum_ok: bool, now: Micros
    ) -> None:
        ctx = self._ctx
        drops = ctx.counters.drops
        if protocol != TCP:
            drops[Drop.FOREIGN_PROTOCOL] += 1
            return
        if end - offset < wire.HEADER or (buf[offset + 12] >> 4) * 4 not in range(20, end - offset + 1):
            drops[Drop.BAD_HEADER] += 1
            return
        if not csum_ok and not checksum_ok(buf, base, offset, end, TCP):
            drops[Drop.BAD_CHECKSUM] += 1
            return
        _, _, local_port, remote_port, _, _, rcv_nxt, ts_recent = _RECORD.unpack(self._packed)
        kind = self._packed[_FLAGS_AT]
        reset, timestamps = bool(kind & _RESET), bool(kind & _TIMESTAMPS)
        sport, dport, seq, ack, bits, _, _, _ = wire.FIELDS.unpack_from(buf, offset)
        flags = bits & 0x3F
        significant = wire.SYN | wire.ACK | wire.RST | (0 if ctx.config.tcp.syn_fin else wire.FIN)
        pure_syn = flags & significant == wire.SYN
        other_ports = sport != remote_port or dport != local_port
        if pure_syn and self.lease.grain != "session" and (other_ports or not reset):
            options = tcp_options.parse(buf, offset + 20, offset + (bits >> 12) * 4)
            if other_ports or self._is_newer(options, seq, rcv_nxt, timestamps, ts_recent):
                self._make_room(now)  # UM-33, RFC 6191: the new connection takes the place of the old one's record
                door = ctx.table_for(self.pair).get(self.pair) or ctx.demux.locals.get(self.pair[16:])
                if door is not None:
                    door.receive(buf, base, offset, end, protocol, gso_size, True, now)
                    return
        if other_ports:
            drops[Drop.OTHER_PORTS] += 1
            return
        if flags & wire.RST:
            # RFC 1337, RFC 9293 3.10.7.4: no TIME-WAIT assassination; the record goes when its time is over.
            drops[Drop.AFTER_CLOSE] += 1
            return
        if reset:
            if flags & wire.ACK:
                self._send(wire.RST, ack, 0, b"", 0)
            else:
                length = end - offset - (bits >> 12) * 4 + bool(flags & wire.SYN) + bool(flags & wire.FIN)
                self._send(wire.RST | wire.ACK, 0, (seq + length) & MASK, b"", 0)
            return
        self._in_time_wait(buf, offset, end, seq, ack, bits, now)

    def _in_time_wait(self, buf: bytes, offset: int, end: int, seq: int, ack: int, bits: int, now: Micros) -> None:
        """RFC 9293 3.10.7.4, TIME-WAIT: what comes from the old connection's peer, RST apart."""
        _, _, _, _, window, snd_nxt, rcv_nxt, ts_recent = _RECORD.unpack(self._packed)
        tcp = self._ctx.config.tcp
        flags = bits & 0x3F
        first = unwrap(seq, rcv_nxt)
        last = first + end - offset - (bits >> 12) * 4  # the number behind its data
        if flags & wire.SYN and tcp.syn_in_window and rcv_nxt <= first < rcv_nxt + window and not tcp.bsd_time_wait:
            self._send(wire.RST | wire.ACK, snd_nxt, rcv_nxt, b"", 0)  # RFC 793: "it is an error, send a reset"
            self._make_room(now)
            return
        # An acceptable segment needs an ACK, and says nothing if it is the peer's last ACK once more: to answer that
        # would go on for ever between two ends that were closed at once. What is not acceptable is answered at once.
        acceptable = first >= rcv_nxt and not flags & wire.SYN
        news = flags & wire.ACK and (flags & wire.FIN or last != rcv_nxt or ack != snd_nxt)
        if not news and (acceptable or tcp.bsd_time_wait):
            self._ctx.counters.drops[Drop.AFTER_CLOSE] += 1
            return
        # RFC 9293 3.10.7.4: "TIME-WAIT STATE: The only thing that can arrive in this state is a retransmission of the
        # remote FIN. Acknowledge it, and restart the 2 MSL timeout."
        if flags & (wire.FIN | wire.SYN | wire.ACK) == wire.FIN | wire.ACK and last + 1 == rcv_nxt:
            options = tcp_options.parse(buf, offset + 20, offset + (bits >> 12) * 4)
            if not self.had_timestamps or (options.timestamp and (options.tsval - ts_recent) & MASK < 0x80000000):
                self._restart(now)  # nobody else's: it has the FIN's number, and is no older than the FIN
        self._acknowledge(now)

    def _acknowledge(self, now: Micros) -> None:
        _, _, local_port, remote_port, window, snd_nxt, rcv_nxt, ts_recent = _RECORD.unpack(self._packed)
        secret = session_secret(self._ctx.entropy, self.pair, local_port << 16 | remote_port)
        tsval = (now // 1000 + timestamp_offset(secret)) & MASK  # the session's own clock
        options = tcp_options.timestamp(tsval, ts_recent) if self.had_timestamps else b""
        self._send(wire.ACK, snd_nxt, rcv_nxt, options, window)

    def _is_newer(self, options: tcp_options.Options, seq: int, rcv_nxt: int, timestamps: bool, ts_recent: int) -> bool:
        """RFC 6191 2: a SYN that cannot be an old duplicate. The last number in use was the FIN's, rcv_nxt - 1."""
        if self._ctx.config.tcp.bsd_time_wait:
            return unwrap(seq, rcv_nxt) > rcv_nxt
        if options.timestamp and self._ctx.config.tcp.timestamps:
            if not timestamps:
                return True
            newer = (options.tsval - ts_recent) & MASK
            if newer:
                return newer < 0x80000000
        return unwrap(seq, rcv_nxt) >= rcv_nxt

    def _restart(self, now: Micros) -> None:
        ctx = self._ctx
        duration = self._duration
        timer = ctx.restarted.get(self)
        if timer is None:
            timer = ctx.restarted[self] = Restart(ctx, self, Micros(self.expires() + (LONGEST - 1) * duration))
        ctx.timers.arm(timer, min(Micros(now + duration), timer.latest))

    def _send(self, flags: int, seq: int, ack: int, options: bytes, window: int) -> None:
        ctx = self._ctx
        pair = self.pair
        end, _, local_port, remote_port, *_ = _RECORD.unpack(self._packed)
        length = 20 + len(options)
        flow = flow_label(session_secret(ctx.entropy, pair, local_port << 16 | remote_port))  # the session's own
        header = wire.build(
            0x60000000 | flow, length, TCP, end & 0xFF, pair[16:], pair[:16], local_port, remote_port,
            seq, ack, (5 + len(options) // 4) << 12 | flags, window,
            pseudo_sum(pair, length, TCP), 0,
        )  # fmt: skip
        ctx.queue_for(pair[:16]).append((header + options, b"", 0, wire.CHECKSUM))
        ctx.counters.segments_out += 1

    def forget(self, now: Micros) -> None:
        if self not in self._ctx.restarted:  # else its timer forgets it, later
            self.leave(now)

    def _make_room(self, now: Micros) -> None:
        timer = self._ctx.restarted.pop(self, None)
        if timer is not None:
            self._ctx.timers.arm(timer, NEVER)
        self.leave(now)

    def leave(self, now: Micros) -> None:
        """Out of the table it is in; the address goes with it."""
        ctx, stage = self._ctx, self.stage
        owns_lease = self._packed[_FLAGS_AT] & _OWNS_LEASE
        if stage is not None:
            stage.forget_record(self)
        else:
            pairs = ctx.table_for(self.pair)
            if pairs.get(self.pair) is not self:
                return  # replaced before its time
            del pairs[self.pair]
        if owns_lease:
            ctx.end_lease(self.lease, now, pair=self.pair)


def remember(ctx: Context, record: Quiet, duration: Micros) -> None:
    """Has `record` forgotten after `duration`, the same for all records of its kind."""
    queue = ctx.quiet.get(duration)
    if queue is None:
        queue = ctx.quiet[duration] = deque()
    queue.append(record)
