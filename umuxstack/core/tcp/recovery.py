"""What acknowledgements teach: round-trip time, losses, and what to repair.

RFC 6298 (timer), 2018/2883/6675 (SACK), 8985 (RACK-TLP), 6937 (PRR), 6582
(NewReno, when the peer has no SACK), 3522/3708/5682 (needless retransmissions). The
scoreboard counts byte ranges, never segments. Invariant: `pipe` is the number
of bytes on the board that are neither SACKed nor lost.
"""

# RFC 9293 appendix B: MUST-19; UM-35.f, UM-35.p, UM-35.s

from typing import Final

from umuxstack.core.errors import Reason
from umuxstack.core.tcp import state as st
from umuxstack.core.tcp.congestion.base import LOSS, OPEN, PHASES, RECOVERY, RateSample
from umuxstack.core.tcp.forward_rto import ForwardRto
from umuxstack.core.tcp.seq import MASK
from umuxstack.core.tcp.tcb import IN_FLIGHT, LOST, PERSIST, PROBE, REORDER, RTO, SACKED, Loss, Sent
from umuxstack.core.units import NEVER, Micros, millis

_PEER_ACK_DELAY: Final = millis(200)  # RFC 8985 7.2's WCDelAckT
_REO_PERSIST: Final = 16  # recoveries without a D-SACK after which the reordering window is as narrow as at first
_MIN_PROBE: Final = millis(2)  # a tail loss probe is not worth less


class Recovery(ForwardRto):
    """Scoreboard and retransmission timer."""

    __slots__ = ()

    # Acknowledgements

    def _on_ack(
        self, ack: int, blocks: list[tuple[int, int]] | None, tsecr: int, duplicate: bool, pure: bool, now: Micros
    ) -> None:
        """`ack` lies in snd_una … snd_nxt. `blocks` are SACK blocks, unwrapped; `tsecr` is -1 without timestamps.

        `duplicate`: an ACK that moves nothing and carries nothing, while data is outstanding (RFC 5681 2).
        """
        board = self.board
        una = self.snd_una
        before = self.snd_nxt - una
        if self.delivered_at != now:
            self.turn_flight = before
        loss = self.loss
        delivered = 0
        rtt = 0
        newest: Sent | None = None
        last: Sent | None = None
        if ack > una:
            self.snd_una = ack
            self.retries = 0
            done = 0
            for sent in board:
                if sent.end <= ack:
                    done += 1
                    length = sent.end - sent.start
                    if sent.state == SACKED:
                        loss.sacked -= length  # type: ignore[union-attr]  # SACKED ranges have a Loss
                        continue
                    if loss is not None and not sent.rexmit and sent.end <= loss.high_sacked:
                        loss.reordering = True  # RFC 8985 6.2 step 3: delivered behind what was sent later
                elif sent.start < ack:
                    length = ack - sent.start
                    if sent.state == SACKED:
                        loss.sacked -= length  # type: ignore[union-attr]
                        sent.start = ack
                        break
                    sent.start = ack
                    if loss is not None and not sent.rexmit and ack <= loss.high_sacked:
                        loss.reordering = True
                else:
                    break
                delivered += length
                if sent.state == IN_FLIGHT:
                    self.pipe -= length
                else:
                    loss.lost -= length  # type: ignore[union-attr]  # so have LOST ones
                newest = self._later(newest, sent)
                last = sent
                if not sent.rexmit:
                    rtt = now - sent.at
                if sent.end > ack:
                    break
            if done:
                del board[:done]
            tx = self.tx
            if tx is not None:
                upto = min(tx.end, ack)
                self.ctx.memory -= upto - tx.start
                tx.release(upto)
                if self.want_write and self._roomy():
                    self.want_write = False
                    self._wake()
        if blocks:
            if loss is None:
                loss = self.loss = Loss()
            gained, sacked_newest, sack_rtt = self._mark_sacked(loss, blocks, ack, now)
            delivered += gained
            if sacked_newest is not None:
                newest = self._later(newest, sacked_newest)
                rtt = rtt or sack_rtt
        if not rtt and ack > una:
            rtt = self._echoed(tsecr, now)
        if rtt:
            self._measured(rtt)
        credit = delivered
        if loss is not None or duplicate:
            if loss is None:
                loss = self.loss = Loss()
            if loss.dup_acks and delivered and not self.use_sack:
                # RFC 6937 3: without SACK each duplicate has told of one segment, which is not delivered once more.
                credit = max(delivered - loss.dup_acks * self.mss, min(delivered, self.mss))
            self._recover(loss, ack, una, credit, newest, last, before, tsecr, duplicate, pure, blocks, now)
        cc = self.cc
        phase = OPEN if loss is None else RECOVERY if loss.steers(ack) else loss.phase
        if delivered and cc is not None:
            self.delivered += delivered
            self.delivered_at = now
            # RFC 5681 3.1: the window grows by what is cumulatively acknowledged; what SACK reports alone lets new
            # segments go (RFC 3042), and "the congestion window … MUST NOT be changed" by that.
            by_sack = loss is not None and loss.reordering and self.policy.grows_by_sack
            if cc.own_recovery or (phase != RECOVERY and (ack > una or by_sack)):
                sample = self._rate_sample(newest, rtt, now) if cc.wants_samples else None
                # RFC 7661 4.3: a window of which half was used has been validated; in slow start it may grow.
                limited = self.cwnd_limited or (cc.cwnd < cc.ssthresh and cc.cwnd < 2 * self.max_flight)
                cc.on_ack(credit, rtt, self.pipe, now, limited, sample)
        if loss is not None and not loss.lost and not loss.sacked and phase == OPEN and not loss.probe_end:
            learnt = loss.dup_acks or loss.reordering or loss.reo_mult > 1
            if not learnt and not (loss.undo_bytes > 0 and now < loss.undo_until):
                self.loss = None  # all repaired: an orderly session carries none of this
        if ack > una or delivered:
            self._set_timer(now, restart=True)
        if self.ctx.trace is not None and cc is not None:
            self._trace(
                "acked", ack - self.iss, cc.cwnd, cc.ssthresh, self.pipe, self.srtt, self.rttvar, rtt, PHASES[phase]
            )

    def _duplicate_reported(self, loss: Loss, block: tuple[int, int], now: Micros) -> None:
        """The peer got `block` twice: a retransmission of ours was needless, or the network duplicated."""
        if loss.probe_end and loss.probe_is_rexmit and block[1] == loss.probe_end:
            loss.probe_end = 0  # RFC 8985 7.4.2: the probe was not needed
            return
        if self.snd_una >= loss.reo_round:  # RFC 8985 6.2 step 4: widen once per round trip
            loss.reo_mult = min(loss.reo_mult + 1, 16)
            loss.reo_round = self.snd_nxt
            loss.reo_persist = _REO_PERSIST
        if loss.undo_bytes > 0:
            loss.undo_bytes -= block[1] - block[0]
            if loss.undo_bytes <= 0 and (loss.phase != OPEN or now <= loss.undo_until):
                self._undo(loss, now)

    def _late_blocks(self, ack: int, blocks: list[tuple[int, int]], now: Micros) -> None:
        """What an acknowledgement reports that was overtaken by a later one: perhaps what no other has told."""
        if blocks[0][1] <= ack and self.loss is not None:
            self._duplicate_reported(self.loss, blocks[0], now)
        una = self.snd_una
        news = [block for block in blocks if block[1] > una]
        if news and self.board:
            self._on_ack(una, news, -1, False, False, now)
        self.touch()

    # Loss

    def _recover(
        self,
        loss: Loss,
        ack: int,
        una: int,
        delivered: int,
        newest: Sent | None,
        last: Sent | None,
        before: int,
        tsecr: int,
        duplicate: bool,
        pure: bool,
        blocks: list[tuple[int, int]] | None,
        now: Micros,
    ) -> None:
        if duplicate:
            self.ctx.counters.duplicate_acks += 1
        if ack > una and tsecr >= 0 and loss.undo_ts >= 0 and ack > loss.undo_seq:
            # RFC 3522 (Eifel): the first ACK for retransmitted data echoes a timestamp older than the
            # retransmission's: the original had arrived.
            if (tsecr - loss.undo_ts) & MASK > 0x80000000 and loss.phase != OPEN:
                self._undo(loss, now)
            loss.undo_ts = -1
        if loss.probe_end and ack >= loss.probe_end:
            self._probe_answered(loss, ack, pure, duplicate, now)
        if newest is not None:
            rtt = now - newest.at
            if not newest.rexmit or rtt >= self.min_rtt:
                loss.rack_rtt = rtt
                if (newest.at, newest.end) > (loss.rack_at, loss.rack_end):
                    loss.rack_at, loss.rack_end = newest.at, newest.end
                if last is not None and self.policy.rack_by_sequence and not last.rexmit:
                    loss.rack_rtt = now - last.at
        lost_before = loss.lost
        if loss.forward and self._forward(loss, ack, una, delivered, duplicate, blocks, now):
            pass  # F-RTO: the next acknowledgement tells what is lost
        elif self.use_sack:
            if loss.sacked or loss.phase != OPEN or loss.rack_at:
                self._detect(loss, now)
        else:
            self._count_duplicates(loss, ack, una, duplicate, delivered)
        if loss.phase == RECOVERY and not loss.lost and not loss.undo_bytes and self.cc is not None:
            # All that was taken for lost came after all, before it was sent again: only the order was wrong.
            loss.phase = OPEN
            self.cc.undo()
        if loss.phase != OPEN and self.snd_una >= loss.point:
            self._repaired(loss, now)
        if loss.lost > lost_before and loss.phase == OPEN:
            # RFC 6937 3: without SACK "1 SMSS on duplicate acknowledgements"; the third is the first in recovery.
            self._enter_recovery(loss, before, delivered if self.use_sack else max(delivered, self.mss), now)
        elif loss.steers(ack) and (delivered or duplicate):
            self._proportional(loss, delivered, ack > una and loss.lost <= lost_before)
        if loss.lost:
            self.touch()

    def _detect(self, loss: Loss, now: Micros) -> None:
        """RFC 8985 6.2 step 5: what was sent sufficiently before the latest delivered range is lost."""
        window = 0
        if loss.reordering or (loss.phase == OPEN and not self._three_sacked(loss)):
            # RFC 8985 6.2 step 4: without reordering seen, the third SACKed segment decides at once (DupThresh).
            window = min(loss.reo_mult * self.min_rtt // 4, self.srtt)
        wait = 0
        rack_at, rack_end = loss.rack_at, loss.rack_end
        due = now - loss.rack_rtt - window
        for sent in self.board:
            if sent.state != IN_FLIGHT:
                continue
            if sent.at > rack_at or (sent.at == rack_at and (sent.end >= rack_end or sent.rexmit)):
                if sent.start >= loss.high_sacked and not loss.phase:
                    break
                continue
            if sent.at <= due:
                self._mark_lost(loss, sent)
            else:
                wait = max(wait, sent.at - due)
        if wait and not (self.rto_kind == REORDER and self.rto_at <= now + wait):
            self.rto_kind = REORDER
            self.rto_at = Micros(now + wait)
            self._arm()

    def _three_sacked(self, loss: Loss) -> bool:
        """Whether as many segments were SACKed as duplicates would decide (DupThresh), small ones counted as well."""
        mss = self.mss
        segments = (-(-(sent.end - sent.start) // mss) for sent in self.board if sent.state == SACKED)
        return loss.sacked > 2 * mss or sum(segments) > 2

    def _mark_lost(self, loss: Loss, sent: Sent) -> None:
        length = sent.end - sent.start
        sent.state = LOST
        self.pipe -= length
        loss.lost += length
        if self.ctx.trace is not None:
            self._trace("lost", sent.start - self.iss, sent.end - self.iss)

    def _count_duplicates(self, loss: Loss, ack: int, una: int, duplicate: bool, delivered: int) -> None:
        """RFC 5681 3.2 and 6582, for a peer without SACK: three duplicates mean that the first segment is lost."""
        mss = self.mss
        if ack > una:
            loss.dup_acks = 0
            if loss.phase == RECOVERY and ack < loss.point:  # a partial acknowledgement: the next hole
                self._mark_first(loss)
        elif duplicate:
            loss.dup_acks += 1
            if loss.dup_acks == 3 and loss.phase == OPEN and ack >= loss.point:
                self._mark_first(loss)
            elif loss.phase == RECOVERY:
                loss.prr_delivered += mss

    def _mark_first(self, loss: Loss) -> None:
        board = self.board
        if board and board[0].state == IN_FLIGHT:
            if board[0].end - board[0].start > self.mss:
                board.insert(1, board[0].split(board[0].start + self.mss))
            self._mark_lost(loss, board[0])

    def _enter_recovery(self, loss: Loss, flight: int, delivered: int, now: Micros) -> None:
        """`flight`: bytes outstanding before the acknowledgement that told of the loss; `delivered`: by it.

        A batch of acknowledgements is worked off before anything is sent, so by then little may be outstanding; RFC
        5681's FlightSize is what the last turn had left outstanding.
        """
        self.ctx.counters.fast_retransmits += 1
        loss.phase = RECOVERY
        loss.point = self.snd_nxt
        loss.undo_ts = -1
        loss.undo_bytes = 0
        cc = self.cc
        assert cc is not None
        used = max(flight, self.turn_flight)
        in_use = self._in_use(used)
        if self.snd_una < self.ecn_point and not cc.prior_cwnd and not cc.own_recovery:
            # RFC 3168 6.1.2: "reduced only once in response to a series of dropped and/or CE packets from a single
            # window of data", and for this one a mark has told.
            cc.phase = RECOVERY
        else:
            cc.on_loss(in_use, now)
            self.cwr_due = self.use_ecn  # RFC 3168 6.1.2: said whenever the window was reduced, "for any reason"
        # What earlier acknowledgements of the same batch have delivered could not be replaced yet: that counts as
        # delivered in recovery, as it would have been sent before.
        loss.prr_delivered = used - flight
        loss.prr_out = 0
        loss.prr_flight = max(in_use, self.mss)
        self._proportional(loss, delivered, clean=False)  # "on every ACK during recovery": that is the first
        loss.window = max(loss.window, self.pipe + self.mss)  # RFC 6937 3: "force a fast retransmit"

    def _in_use(self, flight: int) -> int:
        """What a reduction starts from: RFC 5681's FlightSize, or the window itself (RFC 9438 4.6 knows both)."""
        return max(flight, self.cc.cwnd) if self.policy.reduces_window and self.cc is not None else flight

    def _proportional(self, loss: Loss, delivered: int, clean: bool) -> None:
        """RFC 6937 3.1, as RFC 9937 has it: how much may be sent in answer to this acknowledgement."""
        cc = self.cc
        assert cc is not None
        loss.prr_delivered += delivered
        if self.pipe > cc.ssthresh:
            allowed = -(-loss.prr_delivered * cc.ssthresh // loss.prr_flight) - loss.prr_out
        else:
            limit = max(loss.prr_delivered - loss.prr_out, delivered)
            if clean:  # slow start reduction bound only while nothing new is found lost
                limit += self.mss
            allowed = min(cc.ssthresh - self.pipe, limit)
        loss.window = self.pipe + max(allowed, 0)
        if not self.use_sack and loss.lost:
            # RFC 6582 3.2 step 3: a partial ACK retransmits the first unacknowledged segment, whatever is in flight;
            # without SACK nobody has told us that what the duplicates stand for has left the network.
            loss.window = max(loss.window, self.pipe + self.mss)
        if not self.pipe and loss.window < self.mss:
            loss.window = self.mss  # nothing in flight: no acknowledgement would ever allow more
        self.touch()

    def _repaired(self, loss: Loss, now: Micros) -> None:
        cc = self.cc
        assert cc is not None
        cc.on_recovery_end(now)
        loss.phase = OPEN
        loss.reo_persist -= 1
        loss.reo_mult = loss.reo_mult if loss.reo_persist > 0 else 1
        # The report that a repair was needless comes behind the acknowledgement that ended all (RFC 3708 4).
        loss.undo_until = now + 2 * self.srtt
        loss.dup_acks = 0
        loss.undo_ts = -1

    def _undo(self, loss: Loss, now: Micros) -> None:
        """The retransmission was needless: what was believed lost is in flight, and the window is restored."""
        self.ctx.counters.spurious_retransmits += 1
        for sent in self.board:
            if sent.state == LOST:
                sent.state = IN_FLIGHT
                self.pipe += sent.end - sent.start
        loss.lost = 0
        loss.phase = OPEN
        loss.undo_bytes = 0
        loss.undo_ts = -1
        if self.cc is not None:
            self.cc.undo()

    def _probe_answered(self, loss: Loss, ack: int, pure: bool, duplicate: bool, now: Micros) -> None:
        """RFC 8985 7.4.2: was the tail loss probe a repair? Then a loss happened, and the window must know."""
        if not loss.probe_is_rexmit:
            loss.probe_end = 0
        elif ack > loss.probe_end:
            loss.probe_end = 0
            if loss.phase == OPEN and self.cc is not None:
                self.cc.on_loss(self._in_use(max(self.snd_nxt - self.snd_una, self.turn_flight)), now)
                self.cwr_due = self.use_ecn
                self.cc.on_recovery_end(now)
        elif duplicate and pure:
            loss.probe_end = 0  # both the original and the probe arrived

    # The timer

    def _set_timer(self, now: Micros, *, restart: bool) -> None:
        """RFC 6298 5 and 8985 7.2: what the retransmission timer waits for now."""
        if self.board:
            if self.rto_kind == REORDER and self.rto_at != NEVER:
                return
            if self.rto_at != NEVER and not restart and self.rto_kind != PERSIST:
                return
            loss = self.loss
            if self.use_sack and self.srtt and self.policy.tail_loss_probe and (
                loss is None or (loss.phase == OPEN and not loss.sacked and not loss.probe_end)
            ) and self.state >= st.ESTABLISHED and not self.retries:  # fmt: skip
                wait = 2 * self.srtt
                if self.pipe <= self.mss:
                    wait += _PEER_ACK_DELAY
                elif wait < _MIN_PROBE:
                    wait = _MIN_PROBE
                # RFC 8985 7.2: "If Now() + PTO > TCP_RTO_expiration(): PTO = TCP_RTO_expiration() - Now()": on a long
                # and steady path that is so always, and a lost tail would cost the whole window without the probe.
                self.rto_kind = PROBE
                self.rto_at = Micros(now + (min(self.rto, wait)))
                self._arm()
                return
            self.rto_kind = RTO
            self.rto_at = self._backed_off(now, self.board[0].first_at)
        elif self.rto_kind != PERSIST:
            self.rto_at = NEVER
        self._arm()

    def _backed_off(self, now: Micros, since: Micros) -> Micros:
        """The time of the next try after RFC 6298 5.5's doubling, or the user timeout's, which runs from `since`."""
        policy = self.policy
        at = now + min(self.rto << min(self.retries, 16), policy.rto_max)
        if policy.user_timeout:
            at = min(at, max(since + policy.user_timeout, now))
        return Micros(at)

    def _timer_fired(self, now: Micros) -> None:
        """`rto_at` has come, for whatever it was running. PERSIST and HANDSHAKE are handled by the caller."""
        self.rto_at = NEVER
        if not self.board:
            return
        if self.rto_kind == REORDER:
            self.rto_kind = RTO
            loss = self.loss
            if loss is not None:
                lost_before = loss.lost
                self._detect(loss, now)
                if loss.lost > lost_before and loss.phase == OPEN:
                    self.turn_flight = self.snd_nxt - self.snd_una
                    self._enter_recovery(loss, self.turn_flight, 0, now)
                self.touch()
            if self.rto_at == NEVER:
                self._set_timer(now, restart=True)
            return
        if self.rto_kind == PROBE:
            self._probe(now)
            return
        self._retransmission_timeout(now)

    def _probe(self, now: Micros) -> None:
        """RFC 8985 7.3: new data if there is some and the window allows, else the last segment again."""
        self.ctx.counters.tlp_probes += 1
        loss = self.loss
        if loss is None:
            loss = self.loss = Loss()
        loss.probe_is_rexmit = not self._send_probe(now)
        if loss.probe_is_rexmit:
            last = self.board[-1]
            length = last.end - last.start
            if length > self.mss:
                last = last.split(last.end - self.mss)
                self.board.append(last)
            if last.state == IN_FLIGHT:
                self.pipe -= last.end - last.start
            elif last.state == LOST:  # in too large a piece for the path, and waiting for the congestion window
                loss.lost -= last.end - last.start
            self._retransmit(last, now)
        loss.probe_end = self.snd_nxt
        self.rto_kind = RTO
        self.rto_at = Micros(now + self.rto)
        self._arm()

    # What send.py defines

    def _retransmit(self, sent: Sent, now: Micros) -> None:
        raise AssertionError

    def _room(self) -> int:
        raise AssertionError

    def _roomy(self) -> bool:
        """Room worth a wake-up: a third of the buffer."""
        return self._room() * 3 >= self.policy.send_buffer

    def _rate_sample(self, newest: Sent | None, rtt: int, now: Micros) -> RateSample | None:
        raise AssertionError

    def _retransmission_timeout(self, now: Micros) -> None:
        """RFC 6298 5.4 to 5.6, RFC 5681 3.1."""
        policy = self.policy
        self.retries += 1
        limit = policy.orphan_retries if self.orphan else policy.retries
        if not self.snd_wnd and not self.orphan and now - self.heard_at <= 2 * policy.rto_max:
            limit = self.retries  # the peer has shrunk its window to nothing and answers (RFC 9293 MUST-34, MUST-37)
        waited = now - self.board[0].first_at
        if self.retries > limit or (policy.user_timeout and waited >= policy.user_timeout):
            self._give_up(now)
            return
        if self.retries == policy.report_after:
            self._in_trouble(Reason.TIMED_OUT, now)  # RFC 9293 3.8.3: R1 is reached (SHLD-9, SHLD-10)
        self.ctx.counters.rto_expirations += 1
        loss = self.loss
        if loss is None:
            loss = self.loss = Loss()
        if self.board[0].state == SACKED:
            # RFC 2018 8: the peer took back what it had SACKed. Forget all of it.
            for sent in self.board:
                if sent.state == SACKED:
                    sent.state = IN_FLIGHT
                    self.pipe += sent.end - sent.start
            loss.sacked = 0
            loss.high_sacked = 0
        flight = self.snd_nxt - self.snd_una
        if loss.phase != LOSS:
            loss.undo_ts = -1
            loss.undo_bytes = 0
        self._ask_forward(loss)
        loss.phase = LOSS
        loss.point = self.snd_nxt
        loss.dup_acks = 0
        loss.probe_end = 0
        loss.rack_at = loss.rack_end = 0
        if self.cc is not None:
            self.cc.on_rto(self._in_use(flight), now)
        self.cwr_due = self.use_ecn
        for sent in self.board:
            if sent.state == IN_FLIGHT:
                self._mark_lost(loss, sent)
        self.rto_kind = RTO
        self.rto_at = self._backed_off(now, self.board[0].first_at)
        if self.retries == 3 and self.snd_wnd:
            # RFC 9293 MUST-20's R1: negative advice; the path MTU may be a black hole (RFC 4821)
            self._black_hole(now)
        self.touch()
        self._arm()
