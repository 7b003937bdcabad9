"""What may be sent now: windows, Nagle, the zero-window probe, FIN.

Runs once per batch and session, after everything that arrived was processed.
Sends whole super-segments. RFC 9293 3.8.6, 3.7.4; RFC 5681; RFC 6298 5.1.
"""

# RFC 9293 appendix B: MUST-38, MUST-60, MUST-61, SHLD-7, SHLD-15, SHLD-16, SHLD-17, SHLD-27, SHLD-28, SHLD-29,
# SHLD-30, MAY-7, MAY-8; UM-35.k, UM-35.l, UM-35.n

from umuxstack.core.errors import SessionClosed
from umuxstack.core.session.send_buffer import SendBuffer, lasting, octets
from umuxstack.core.tcp import state as st
from umuxstack.core.tcp.congestion.base import RateSample
from umuxstack.core.tcp.emit import ECT0
from umuxstack.core.tcp.short_way import ShortWay
from umuxstack.core.tcp.tcb import HANDSHAKE, IN_FLIGHT, LARGEST, LOST, MORE, PERSIST, PROBE, PUSH, Loss, Sampled, Sent
from umuxstack.core.units import NEVER, Buffer, Micros
from umuxstack.core.wire import tcp as wire


class SendHalf(ShortWay):
    """Data out."""

    __slots__ = ()

    # The application's side

    def _room(self) -> int:
        """Bytes that the send buffer would take; it grows with the congestion window."""
        tx = self.tx
        policy = self.policy
        limit = policy.send_buffer
        cc = self.cc
        if cc is not None and 2 * cc.cwnd > limit:
            limit = min(2 * cc.cwnd, max(policy.send_buffer_max, limit))
        return limit if tx is None else limit - (tx.end - self.snd_una)

    @property
    def writable(self) -> bool:
        """There is room worth a wake-up (a third of the buffer), or writing would say at once why not.

        `write` takes bytes into less room as well. Whoever left it less, or is told "no" here, is woken when this
        becomes true. Not only writing makes it false: the buffer's limit shrinks with the congestion window.
        """
        if self.ended or self.fin_queued or (self.cc is not None and self._roomy()):
            return True
        self.want_write = True
        return False

    def write(self, data: Buffer, now: Micros) -> int:
        """Takes `data` or its beginning; returns how many bytes, 0 when there is no room.

        A `bytes` object, or a view of one, is kept as it is, also for retransmission; anything else is copied.
        Raises SessionClosed after `shutdown` or `close`, and when the session has ended.
        """
        if self.end_reason or self.fin_queued or self.orphan:
            raise SessionClosed("the session is closed for writing")
        if type(data) is not bytes:
            data = octets(data)
        ctx = self.ctx
        room = self._room()
        spare = ctx.config.memory - ctx.memory
        if spare < room:
            room = spare
            if spare < self.mss and (self.tx is None or self.tx.end == self.tx.start):
                # Who has nothing outstanding takes a segment all the same: no acknowledgement would ever wake it.
                room = self.mss
                data = memoryview(data)[:room]
        if room <= 0:
            self.want_write = True
            return 0
        size = len(data)
        if size > room + LARGEST:  # a little over is better than a remainder
            data = memoryview(data)[:room]
            size = room
        if not size:
            return 0
        tx = self.tx
        if tx is None:
            tx = self.tx = SendBuffer(self.iss + 1 if self.state < st.ESTABLISHED else self.snd_nxt)
        tx.append(data if type(data) is bytes else lasting(data))
        ctx.memory += size
        if not self._roomy():
            self.want_write = True
        self.hold = 0
        if not self.touched:
            self.touched = True
            ctx.touched.append(self)
        return size

    def write_more(self, data: Buffer, now: Micros) -> int:
        """As `write`, and more follows (MSG_MORE): what is less than a segment may wait for it."""
        taken = self.write(data, now)
        self.hold = MORE
        return taken

    def write_record(self, data: Buffer, now: Micros) -> int:
        """As `write`, and a record ends behind `data` (MSG_EOR): nothing written later shares a segment with it."""
        taken = self.write(data, now)
        if taken == memoryview(data).nbytes and taken and self.tx is not None:
            self.tx.marks.append(self.tx.end)
        return taken

    def write_urgent(self, data: Buffer, now: Micros) -> int:
        """As `write`, and the last byte taken is urgent (MSG_OOB; RFC 9293 3.8.5)."""
        taken = self.write(data, now)
        if taken and self.tx is not None:
            self.snd_up = self.tx.end
        return taken

    @property
    def unsent(self) -> int:
        """Bytes written and not yet acknowledged."""
        tx = self.tx
        return 0 if tx is None else max(tx.end - max(self.snd_una, tx.start), 0)  # snd_una counts the FIN as well

    # The turn

    def output(self, now: Micros) -> None:
        """Sends all that may be sent now; then, if still due, a pure acknowledgement."""
        state = self.state
        if state < st.ESTABLISHED or self.end_reason:
            tx = self.tx
            if self.cc is not None and not self.end_reason and tx is not None and self.snd_nxt < tx.end:
                self._send_new(tx.end, now)  # opened early (RFC 7413)
                self._arm()
            return
        loss = self.loss
        if loss is not None and loss.lost:
            self._repair(loss, now)
        tx = self.tx
        if tx is not None or self.fin_queued:
            end = self.snd_nxt if tx is None else tx.end
            if self.fin_queued:
                end = max(end, self.snd_nxt) if self._fin_sent() else end + 1
            if self.snd_nxt < end and not self._send_alone(end, now):
                self._send_new(end, now)
        if self.ack_now or self.ack_due > 1:
            self._send_ack(now)
        elif self.ack_due and self.ack_at == NEVER:
            self.ack_at = Micros(now + self.policy.delayed_ack)
        self._arm()

    def _fin_sent(self) -> bool:
        return self.state in (st.FIN_WAIT_1, st.FIN_WAIT_2, st.CLOSING, st.LAST_ACK, st.TIME_WAIT)

    def _allowance(self) -> int:
        """Bytes that congestion control lets be in flight."""
        cc = self.cc
        assert cc is not None
        loss = self.loss
        if loss is not None:
            if loss.steers(self.snd_una) and not cc.own_recovery:
                return loss.window
            if not self.use_sack and loss.dup_acks:
                # RFC 3042 and 5681 3.2: each of the first two duplicates lets one new segment go, and
                # each says that one has left the network.
                return cc.cwnd + min(loss.dup_acks, 2) * self.mss
        return cc.cwnd

    def _send_new(self, end: int, now: Micros) -> None:
        """New data, up to `end` (one more than the data's end if a FIN follows)."""
        cc = self.cc
        assert cc is not None
        tx = self.tx
        mss = self.mss
        began = nxt = self.snd_nxt
        data_end = nxt if tx is None else tx.end
        window_end = self.snd_una + self.snd_wnd
        allowance = self._allowance()
        largest = LARGEST // mss * mss if mss < LARGEST else LARGEST
        idle = now - self.delivered_at
        stale = idle > self.rto and not self.board and tx is not None and self.srtt and self.policy.restart_after_idle
        if self.snd_up > nxt:
            largest = mss  # a super-segment has one urgent pointer, its pieces need one each
        rate = cc.pacing_rate(self.srtt)
        if rate:
            largest = max(min(largest, rate // 1000 // mss * mss), 2 * mss)
        cwnd_limited = False
        while nxt < end:
            if rate and self.pace_at != NEVER and self.pace_at > now:
                break
            room = window_end - nxt
            if allowance - self.pipe < room:
                room = allowance - self.pipe
                limited = True
            else:
                limited = False
            available = data_end - nxt
            size = min(available, room, largest)
            fin = nxt + available < end  # a FIN follows the data
            marked = False
            if tx is not None and tx.marks and nxt < data_end:
                until = tx.next_mark(nxt)
                if until < data_end:  # more data follows, but not in this segment
                    available = until - nxt
                    size = min(size, available)
                    marked, fin = True, False
            if size <= 0:
                if available or window_end <= nxt:
                    cwnd_limited = limited and room <= 0
                    break
                size = 0  # FIN alone; the room for it may be less than nothing: more on its way than the window holds
            elif size < available:
                if size > mss:
                    size -= size % mss
                elif size < mss:
                    # A piece of a segment, because the window ends here. RFC 9293 3.8.6.2.1: only if nothing is
                    # outstanding and it is a good part of what the peer ever offered; else wait for a window update.
                    if limited:
                        cwnd_limited = True
                        break
                    if self.board or size * 2 < self.max_window:
                        break
                if limited and size + mss > room:
                    cwnd_limited = True
            elif size % mss and not fin and not marked and self._tail_waits():
                if size < mss:
                    break
                size -= size % mss
            if stale:  # only now, when something is sent: a silence reduces the window once, however often we come by
                stale = False
                cc.on_idle(idle, self.rto)
                allowance = self._allowance()
                continue
            last = size == available
            with_fin = fin and last
            self._transmit(nxt, size, with_fin, last, now)
            if size % mss and last and nxt >= -self.small:
                self.small = nxt + size
            nxt = self.snd_nxt
            if rate:
                start = self.pace_at if self.pace_at != NEVER else now
                self.pace_at = Micros(max(start, now) + size * 1_000_000 // rate)
        if self.pace_at <= now:
            self.pace_at = NEVER
        flight = nxt - self.snd_una
        if cwnd_limited or flight > self.max_flight or self.snd_una >= self.usage_seq:
            # How much of the window this round of data has used; what follows in the same round does not undo it.
            self.cwnd_limited, self.max_flight, self.usage_seq = cwnd_limited, flight, nxt
        if self.hold == PUSH:
            self.hold = 0
        if self.board:
            # RFC 8985 7.2: a probe is scheduled anew "after transmitting new data"; it never comes after the RTO.
            if self.rto_kind == PROBE and nxt > began and self.rto_at != NEVER:
                self._set_timer(now, restart=True)
                self.rto_at = Micros(min(self.rto_at, max(self.board[0].at + self.rto, now)))
            else:
                self._set_timer(now, restart=False)
        elif nxt < end and (self.rto_at == NEVER or self.rto_kind not in (PERSIST, HANDSHAKE)):
            # Nothing outstanding and the window shut: nobody would ever tell us that it opens (RFC 9293 3.8.6.1).
            self.rto_kind = PERSIST
            self.stalled_at = now
            self.rto_at = self._backed_off(now, now)

    def _tail_waits(self) -> bool:
        """Whether less than a segment, with nothing behind it, is kept back for what may follow."""
        if self.hold == PUSH:
            return False
        policy = self.policy
        if self.hold == MORE or policy.cork:
            return True
        # Nagle (RFC 9293 MUST-17), as Minshall amended it: one small segment at a time
        return not policy.nodelay and self.snd_una < self.small

    def _transmit(self, seq: int, size: int, fin: bool, last: bool, now: Micros) -> None:
        """One segment or super-segment of new data, with FIN if `fin`."""
        payload: Buffer = b""
        if size:
            assert self.tx is not None
            payload = self.tx.slice(seq, seq + size)
        stop = seq + size + fin
        cc = self.cc
        if cc is not None and cc.wants_samples:
            if not self.board:
                self.delivered_at = self.sample_at = now
            sampled = Sampled(seq, stop, now)
            sampled.delivered = self.delivered
            sampled.delivered_at = self.delivered_at
            sampled.window_at = self.sample_at
            sampled.limited = last
            self.board.append(sampled)
        else:
            self.board.append(Sent(seq, stop, now))
        self.pipe += stop - seq
        self.snd_nxt = stop
        if self.quick_acks and (self.ack_due or (self.ack_now and seq >= -self.small)):
            self.quick_acks = 0  # data answers data, or the SYN-ACK: acknowledgements have something to ride on
        loss = self.loss
        if loss is not None and loss.steers(self.snd_una):
            loss.prr_out += stop - seq
        flags = wire.ACK
        if last and size:
            flags |= wire.PSH
        if fin:
            flags |= wire.FIN
            self._enter(st.LAST_ACK if self.state == st.CLOSE_WAIT else st.FIN_WAIT_1)
        first_word = self.first_word
        if self.use_ecn and size:
            first_word |= ECT0
            if self.cwr_due:
                self.cwr_due = False
                flags |= wire.CWR
        self._emit(flags, seq, payload, self.mss if size > self.mss else 0, now, first_word)
        if self.ctx.trace is not None:
            self._trace("sent", seq - self.iss, stop - self.iss, False)

    # Repair

    def _repair(self, loss: Loss, now: Micros) -> None:
        """Retransmits what is marked lost, in order, as far as congestion control allows."""
        board = self.board
        mss = self.mss
        largest = LARGEST // mss * mss
        index = 0
        first = True
        while index < len(board) and loss.lost:
            sent = board[index]
            index += 1
            if sent.state != LOST:
                continue
            room = self._allowance() - self.pipe
            if first and room < mss:
                if self.pipe:
                    break
                room = mss
            if room <= 0:
                break
            size = min(sent.end - sent.start, mss if self.snd_up > sent.start else largest)  # as in _send_new
            if size > room:
                size = max(room // mss * mss, mss)
            if size < sent.end - sent.start:
                board.insert(index, sent.split(sent.start + size))
            first = False
            loss.lost -= sent.end - sent.start
            if loss.undo_ts < 0 and self.use_ts and loss.undo_bytes == 0:
                loss.undo_ts = self._tsval(now)
                loss.undo_seq = sent.start
            loss.undo_bytes += sent.end - sent.start
            self._retransmit(sent, now)
        if self.rto_at == NEVER or first is False:
            self._set_timer(now, restart=False)

    def _retransmit(self, sent: Sent, now: Micros) -> None:
        """Sends `sent` again, as it is; it is in flight now."""
        tx = self.tx
        data_end = sent.start if tx is None else min(sent.end, tx.end)
        size = data_end - sent.start
        payload: Buffer = b"" if tx is None or not size else tx.slice(sent.start, data_end)
        sent.at = now
        sent.rexmit = True
        sent.state = IN_FLIGHT
        self.pipe += sent.end - sent.start
        loss = self.loss
        if loss is not None and loss.steers(self.snd_una):
            loss.prr_out += sent.end - sent.start
        flags = wire.ACK
        if sent.end > data_end:
            flags |= wire.FIN
        if size and tx is not None and (data_end == tx.end or data_end in tx.marks):
            flags |= wire.PSH
        if self.cwr_due and size and self.policy.cwr_repairs:
            self.cwr_due = False
            flags |= wire.CWR
        segments = max(1, -(-size // self.mss))
        self.retransmits += segments
        self.ctx.counters.retransmitted_segments += segments
        self._emit(flags, sent.start, payload, self.mss if size > self.mss else 0, now, self.first_word)
        if self.ctx.trace is not None:
            self._trace("sent", sent.start - self.iss, sent.end - self.iss, True)

    def _send_probe(self, now: Micros) -> bool:
        """A tail loss probe out of new data, one segment beyond the congestion window if need be."""
        tx = self.tx
        if tx is None or self.snd_nxt >= tx.end:
            return False
        end = tx.next_mark(self.snd_nxt)
        size = min(self.mss, end - self.snd_nxt, self.snd_una + self.snd_wnd - self.snd_nxt)
        if size <= 0:
            return False
        self._transmit(self.snd_nxt, size, False, self.snd_nxt + size == end, now)
        return True

    def _persist(self, now: Micros) -> None:
        """RFC 9293 3.8.6.1: the window stays shut; one byte asks whether it has opened."""
        self.rto_at = NEVER
        tx = self.tx
        if self.board or (tx is None and not self.fin_queued):
            return
        end = self.snd_nxt if tx is None else tx.end
        if self.snd_nxt >= end + (self.fin_queued and not self._fin_sent()):
            return
        self.retries += 1
        window = self.snd_una + self.snd_wnd - self.snd_nxt
        if window > 0 and tx is not None and self.snd_nxt < end:
            # The override timeout of 3.8.6.2.1: what the window takes goes out, however small.
            end = tx.next_mark(self.snd_nxt)
            size = min(window, end - self.snd_nxt, self.mss)
            self._transmit(self.snd_nxt, size, False, self.snd_nxt + size == end, now)
            self._set_timer(now, restart=True)
            return
        # MUST-35: go on as long as the peer answers; an orphan's patience is short, and so is that with silence.
        silent = now - self.heard_at > 2 * self.policy.rto_max and self.retries > self.policy.retries
        given_up = self.policy.user_timeout and now - self.stalled_at >= self.policy.user_timeout
        if silent or given_up or (self.orphan and self.retries > self.policy.orphan_retries):
            self._give_up(now)
            return
        # As most stacks: an old sequence number, so that a peer with a shut window must answer (MUST-36 asks for
        # a probe, not for data in it; the byte itself would have to be accounted for).
        self._emit(wire.ACK, self.snd_una - 1, b"", 0, now, self.first_word)
        self.rto_kind = PERSIST
        self.rto_at = self._backed_off(now, self.stalled_at)

    def _rate_sample(self, newest: Sent | None, rtt: int, now: Micros) -> RateSample | None:
        if not isinstance(newest, Sampled):  # also: sent before this congestion control was chosen
            return None
        sample = self.sample
        if sample is None:
            sample = self.sample = RateSample()
        sample.prior_delivered = newest.delivered
        sample.delivered = self.delivered - newest.delivered
        # draft-cheng-iccrg-delivery-rate-estimation: the longer of the two spans, so that compressed ACKs
        # make no path look fast.
        ack_elapsed = now - newest.delivered_at
        send_elapsed = newest.at - newest.window_at
        sample.interval = 0 if newest.rexmit else max(ack_elapsed, send_elapsed)
        self.sample_at = newest.at
        sample.rtt = rtt
        sample.app_limited = newest.limited
        return sample
