"""What is left of a TCP session for a minute: one compact record per pair (UM-36, UM-31).

After an orderly close it answers a retransmitted FIN with the ACK (TIME-WAIT);
after an abort it answers the pair with RST. An EA or one-time SSA is never met
again, so that is all; an address that may be met again follows UM-33 and RFC 6191.
"""

from collections import deque
from struct import Struct
from typing import Final

from umuxstack.core.address.lease import Lease
from umuxstack.core.errors import Drop
from umuxstack.core.session.context import Context, Expiring
from umuxstack.core.session.session import Stage
from umuxstack.core.tcp.seq import MASK, unwrap
from umuxstack.core.units import TCP, Micros
from umuxstack.core.wire import tcp as wire
from umuxstack.core.wire import tcp_options
from umuxstack.core.wire.checksum import checksum_ok, pseudo_sum

# until, answers with RST?, owns its lease?, timestamps?, local and remote port, window, snd_nxt, rcv_nxt, ts_recent
_RECORD: Final = Struct(">qBBBHHHIII")


class Quiet(Expiring):
    """A pair whose session is over. Under 200 bytes, no timer of its own."""

    __slots__ = ("_ctx", "_packed", "lease", "pair", "stage")

    def __init__(
        self,
        ctx: Context,
        pair: bytes,
        lease: Lease,
        stage: Stage | None,
        until: Micros,
        *,
        reset: bool,
        owns_lease: bool,
        timestamps: bool,
        ports: tuple[int, int],
        window: int,
        snd_nxt: int,
        rcv_nxt: int,
        ts_recent: int,
    ) -> None:
        self._ctx = ctx
        self.pair = pair
        self.lease = lease
        self.stage = stage
        self._packed = _RECORD.pack(
            until, reset, owns_lease, timestamps, *ports, window, snd_nxt & MASK, rcv_nxt & MASK, ts_recent
        )

    @property
    def reset(self) -> bool:
        """It answers with RST: the session was aborted."""
        return bool(self._packed[8])

    @property
    def ports(self) -> tuple[int, int]:
        return _RECORD.unpack(self._packed)[4:6]

    def expires(self) -> Micros:
        return Micros(_RECORD.unpack(self._packed)[0])

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
        _, reset, _, timestamps, local_port, remote_port, window, snd_nxt, rcv_nxt, ts_recent = _RECORD.unpack(
            self._packed
        )
        sport, dport, seq, ack, bits, _, _, _ = wire.FIELDS.unpack_from(buf, offset)
        flags = bits & 0x3F
        pure_syn = flags & (wire.SYN | wire.ACK | wire.RST | wire.FIN) == wire.SYN
        other_ports = sport != remote_port or dport != local_port
        if pure_syn and self.lease.grain != "session" and (other_ports or not reset):
            options = tcp_options.parse(buf, offset + 20, offset + (bits >> 12) * 4)
            if other_ports or self._is_newer(options, seq, rcv_nxt, timestamps, ts_recent):
                self.forget(now)  # UM-33, RFC 6191: the new connection takes the place of the old one's record
                door = ctx.demux.pairs.get(self.pair) or ctx.demux.locals.get(self.pair[16:])
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
        near = unwrap(seq, rcv_nxt)
        if flags & wire.FIN or near + (end - offset - (bits >> 12) * 4) < rcv_nxt or flags & wire.SYN:
            # RFC 9293 3.10.7.4: "TIME-WAIT STATE: The only thing that can arrive in this state is a
            # retransmission of the remote FIN. Acknowledge it".
            tsval = (now // 1000 + ctx.entropy.keyed_hash(self.pair)) & MASK  # the session's own clock: Tcb.ts_offset
            options_out = tcp_options.timestamp(tsval, ts_recent) if timestamps else b""
            self._send(wire.ACK, snd_nxt, rcv_nxt, options_out, window)
            return
        drops[Drop.AFTER_CLOSE] += 1

    def _is_newer(self, options: tcp_options.Options, seq: int, rcv_nxt: int, timestamps: bool, ts_recent: int) -> bool:
        """RFC 6191 2: a SYN that cannot be an old duplicate. The last number in use was the FIN's, rcv_nxt - 1."""
        if options.timestamp and self._ctx.config.tcp.timestamps:
            if not timestamps:
                return True
            newer = (options.tsval - ts_recent) & MASK
            if newer:
                return newer < 0x80000000
        return unwrap(seq, rcv_nxt) >= rcv_nxt

    def _send(self, flags: int, seq: int, ack: int, options: bytes, window: int) -> None:
        ctx = self._ctx
        pair = self.pair
        local_port, remote_port = self.ports
        length = 20 + len(options)
        header = wire.build(
            0x60000000, length, TCP, ctx.config.hop_limit, pair[16:], pair[:16], local_port, remote_port,
            seq, ack, (5 + len(options) // 4) << 12 | flags, window,
            pseudo_sum(pair, length, TCP), 0,
        )  # fmt: skip
        ctx.queue_for(pair[:16]).append((header + options, b"", 0, wire.CHECKSUM))
        ctx.counters.segments_out += 1

    def forget(self, now: Micros) -> None:
        ctx = self._ctx
        owns_lease = self._packed[9]
        if self.stage is not None:
            self.stage.forget_record(self)
        elif ctx.demux.pairs.get(self.pair) is self:
            del ctx.demux.pairs[self.pair]
        else:
            return  # replaced before its time
        if owns_lease:
            ctx.end_lease(self.lease, now)


def remember(ctx: Context, record: Quiet, duration: Micros) -> None:
    """Has `record` forgotten after `duration`, the same for all records of its kind."""
    queue = ctx.quiet.get(duration)
    if queue is None:
        queue = ctx.quiet[duration] = deque()
    queue.append(record)
