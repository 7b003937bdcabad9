"""The end of a TCP session: FIN in both directions, resets, and what is left behind for a while.

RFC 9293 3.6, 3.10.4, 3.10.5, 3.10.7.4 (fifth and eighth check); UM-7, UM-17, UM-36. Whatever ends a session goes
through `Tcb.finish`; here is decided when, and whether a record answers afterwards.
"""

# RFC 9293 appendix B: MUST-12, SHLD-3, MAY-1; UM-35.a, UM-35.b, UM-35.c, UM-35.e

from umuxstack.core.errors import Reason
from umuxstack.core.tcp import state as st
from umuxstack.core.tcp.opening import Opening
from umuxstack.core.tcp.quiet import Quiet, remember
from umuxstack.core.units import Micros


class Ending(Opening):
    """From ESTABLISHED to CLOSED, and TIME-WAIT."""

    __slots__ = ()

    # What the peer says

    def _after_ack(self, now: Micros) -> bool:
        """What our FIN's acknowledgement means in each state (3.10.7.4, fifth). False when nothing is left to do."""
        state = self.state
        if state < st.FIN_WAIT_1 or self.snd_una != self.snd_nxt or self.board:
            return True
        if state == st.FIN_WAIT_1:
            self._enter(st.FIN_WAIT_2)
            if self.orphan:
                self.aux_at = Micros(now + self.policy.fin_wait_2)
                self._arm()
        elif state == st.CLOSING:
            self._time_wait(now, acknowledge=False)
            return False
        elif state == st.LAST_ACK:
            self.finish(Reason.CLOSED, now)
            return False
        return True

    def _fin_received(self, now: Micros) -> None:
        """The peer's FIN is next in order: RCV.NXT advances over it, and the state moves."""
        self.rcv_nxt += 1
        if self.rcv_adv < self.rcv_nxt:
            self.rcv_adv = self.rcv_nxt
        if self.policy.fin_ends_sack:
            self.dsack = None
        self._wake()
        self.touch()
        state = self.state
        shut = self.rcv_adv == self.rcv_nxt
        arrived = self.rx is not None and self.quick_acks != self.policy.quick_acks  # in segments of its own
        if state == st.ESTABLISHED and self.policy.delays_fin_ack and arrived and not shut:
            self.ack_due += 1  # it counts as a segment: with data before it that waits too, it is acknowledged at once
        else:
            self.ack_now = True
        if state == st.ESTABLISHED:
            self._enter(st.CLOSE_WAIT)
        elif state == st.FIN_WAIT_1:
            self._enter(st.CLOSING)  # ours was not acknowledged, or _after_ack had moved us on
        elif state == st.FIN_WAIT_2:
            self._time_wait(now)

    def _time_wait(self, now: Micros, *, acknowledge: bool = True) -> None:
        """Enters TIME-WAIT: the session is over, a record stays for the peer's retransmitted FIN (UM-36)."""
        if self.accurate is not None:
            self.accurate.over = True
        if acknowledge or self.ack_now:
            self._send_ack(now)
        self._enter(st.TIME_WAIT)
        self._leave_record(Reason.CLOSED, self.policy.time_wait, now, reset=False)

    def _leave_record(self, reason: Reason, duration: Micros, now: Micros, *, reset: bool) -> None:
        if self.stage is not None and not self.stage.keeps_records:
            self.finish(reason, now)
            return
        record = Quiet(
            self.ctx,
            self.pair,
            self.lease,
            self.stage,
            duration,
            now,
            reset=reset,
            owns_lease=self.owns_lease,
            timestamps=self.use_ts,
            ports=(self.local_port, self.remote_port),
            window=self._window(),
            snd_nxt=self.snd_nxt,
            rcv_nxt=self.rcv_nxt,
            ts_recent=self.ts_recent,
            hop_limit=self.hop_limit,
        )
        remember(self.ctx, record, duration)
        self.finish(reason, now, record)

    # What the application says

    def shutdown(self, now: Micros) -> None:
        """Half-close: FIN after what was written (RFC 9293 3.10.4). Calling it again does nothing."""
        if self.fin_queued or self.end_reason:
            return
        self.fin_queued = True
        if self.state < st.ESTABLISHED:
            return  # queued until the handshake is complete
        self.touch()

    def close(self, now: Micros) -> None:
        """The application is done with the session: nothing more is read. TCP finishes by itself.

        With unread data the peer learns by RST (RFC 9293 3.6.1, RFC 2525 2.17). The address goes with the session.
        """
        if self.orphan:
            return
        self.orphan = True
        unread = (self.rx is not None and self.rx.size) or self.assembler is not None
        self._drop_receive_side()
        if self.end_reason:
            return
        early = self.state == st.SYN_RECEIVED and self.cc is not None
        if self.state == st.SYN_RECEIVED and self.door is None and not early:
            self.fin_queued = True  # RFC 9293 3.10.4: a simultaneous open completes, then FIN
            return
        if self.state < st.ESTABLISHED and not early:
            self.finish(Reason.CLOSED, now)
            return
        if unread and self.policy.unread_resets:
            self._abort(Reason.ABORTED, now)
            return
        if early:
            return  # `_confirmed` goes on
        if self.owns_lease:
            self.ctx.retire(self.lease, now, self.pair)
        self.fin_queued = True
        if self.state == st.FIN_WAIT_2:
            self.aux_at = Micros(now + self.policy.fin_wait_2)
            self._arm()
        else:
            self.touch()

    def abort(self, now: Micros) -> None:
        """RST to the peer, and gone (RFC 9293 3.10.5)."""
        self.orphan = True
        self._drop_receive_side()
        if not self.end_reason:
            self._abort(Reason.ABORTED, now)

    def _abort(self, reason: Reason, now: Micros) -> None:
        if self.state >= st.ESTABLISHED:
            self._send_rst(self.snd_nxt, ack=True, now=now)
            self._leave_record(reason, self.ctx.config.retiring, now, reset=True)
        else:
            if self.state == st.SYN_RECEIVED and (self.door is None or self.cc is not None):
                self._send_rst(self.snd_nxt, ack=True, now=now)
            self.finish(reason, now)

    def end_with_stack(self, now: Micros) -> None:
        """As `abort`, when the whole stack ends: there will be nobody for whom a record could answer."""
        delivered = self.orphan and self.state == st.FIN_WAIT_2
        self.orphan = True
        self._drop_receive_side()
        if not self.end_reason:
            if delivered:  # RST would take from the peer what it has not read yet
                self.finish(Reason.STACK_CLOSED, now)
            elif self.state >= st.ESTABLISHED:
                self._send_rst(self.snd_nxt, ack=True, now=now)
                self.finish(Reason.ABORTED, now)
            else:
                self._abort(Reason.ABORTED, now)

    def _reset_orphan(self, now: Micros) -> None:
        if not self.policy.resets_by_ack:
            self._abort(Reason.ABORTED, now)
            return
        # RFC 9293 3.5.2: "the reset takes its sequence number from the ACK field of the segment", which snd_una is now.
        self._send_rst(self.snd_una, ack=False, now=now)
        self._leave_record(Reason.ABORTED, self.ctx.config.retiring, now, reset=True)
