"""Data in: the window, in-order and out-of-order text, when to acknowledge.

RFC 9293 3.10.7.4 (seventh and eighth check), 3.8.6.2.2, 3.8.6.3; RFC 5681 4.2;
RFC 2018 4, 2883. Data is acknowledged in order at the end of the batch; each
out-of-order segment still causes an ACK of its own.
"""

# RFC 9293 appendix B: MUST-31, MUST-40, MUST-59, SHLD-18, SHLD-19, SHLD-31, MAY-13; UM-35.j, UM-35.k, UM-35.m,
# UM-35.x

from typing import Final

from umuxstack.core.errors import Drop
from umuxstack.core.session.receive_buffer import SMALL, Assembler, ReceiveBuffer, piece
from umuxstack.core.tcp import state as st
from umuxstack.core.tcp.send import SendHalf
from umuxstack.core.tcp.tcb import Urgent
from umuxstack.core.units import Buffer, Micros

MORE_TO_COME: Final = (st.ESTABLISHED, st.FIN_WAIT_1, st.FIN_WAIT_2)


class ReceiveHalf(SendHalf):
    """Data in."""

    __slots__ = ()

    # The application's side

    @property
    def eof(self) -> bool:
        """The peer has finished, and everything before that was read."""
        return (self.rx is None or not self.rx.size) and (
            (self.peer_fin >= 0 and self.rcv_nxt > self.peer_fin) or self.end_reason > 0
        )

    @property
    def readable(self) -> bool:
        """Data, the peer's end, or the session's end."""
        return (self.rx is not None and self.rx.size > 0) or self.eof

    def read(self, limit: int, now: Micros) -> bytes:
        """Up to `limit` bytes in order; b"" when there is nothing now, or ever (`eof`)."""
        rx = self.rx
        if rx is None or not rx.size:
            return b""
        if self.urgent is not None:
            limit = self._before_urgent(limit, now)
        data = rx.take(limit)
        self._was_read(len(data), now)
        return data

    def read_chunk(self, now: Micros) -> Buffer:
        """The next stretch as it arrived, without copying; b"" when there is nothing now."""
        rx = self.rx
        if rx is None:
            return b""
        if self.urgent is not None:
            return self.read(rx.size, now)
        chunk = rx.take_chunk()
        self._was_read(len(chunk), now)
        return chunk

    # Urgent data (RFC 9293 3.8.5, MUST-30 to MUST-34; RFC 6093): the byte before the pointer, as all sockets have it

    def _urgent_received(self, pointer: int, now: Micros) -> None:
        rx, urgent = self.rx, self.urgent
        if pointer <= self.rcv_nxt - (0 if rx is None else rx.size):
            return  # that byte was read already
        if urgent is None or pointer > urgent.pointer:
            if urgent is not None and rx is not None and rx.size and not self._until_urgent(rx, urgent):
                self._before_urgent(0, now)  # whoever has read up to the last one steps over it, or it would come back
            self.urgent = Urgent(pointer)
            self._wake()

    @property
    def urgent_pending(self) -> bool:
        """The peer has announced urgent data that was not read yet (MUST-32)."""
        return self.urgent is not None

    def read_urgent(self) -> bytes:
        """The urgent byte, out of band (MSG_OOB); b"" when there is none or it has not arrived."""
        urgent, rx = self.urgent, self.rx
        if urgent is None:
            return b""
        if urgent.byte is None and rx is not None:
            at = self._until_urgent(rx, urgent)
            if 0 <= at < rx.size:
                urgent.byte = rx.peek(at)
        return urgent.byte or b""

    def _until_urgent(self, rx: ReceiveBuffer, urgent: Urgent) -> int:
        """Unread bytes before the urgent one."""
        fin = 1 if 0 <= self.peer_fin < self.rcv_nxt else 0
        return urgent.pointer - 1 - (self.rcv_nxt - fin - rx.size)

    def _before_urgent(self, limit: int, now: Micros) -> int:
        """How much of `limit` may be read at once: reading stops at the mark, and steps over the urgent byte."""
        urgent, rx = self.urgent, self.rx
        assert urgent is not None
        assert rx is not None
        at = self._until_urgent(rx, urgent)
        if at > 0:
            return min(limit, at)
        self.urgent = None
        if at == 0 and not self.policy.urgent_inline:
            rx.take(1)
            self._was_read(1, now)
        return limit

    def _was_read(self, count: int, now: Micros) -> None:
        self.ctx.memory -= count
        if self.state not in MORE_TO_COME:
            return
        limit = self.rcv_limit
        self.drs_bytes += count
        if now - self.drs_at > (self.srtt or 100_000):
            # Receive-buffer auto-tuning: what the application takes in one round trip must fit twice.
            if 2 * self.drs_bytes > limit < self.policy.receive_buffer_max and not self._pressed():
                self.rcv_limit = limit = min(max(2 * limit, 2 * self.drs_bytes), self.policy.receive_buffer_max)
            self.drs_at = now
            self.drs_bytes = 0
        offered = self.rcv_adv - self.rcv_nxt
        early = self.policy.early_window_updates
        if offered * 2 >= limit and not early:
            return
        rx = self.rx
        free = limit - (0 if rx is None else rx.size)
        most = 65535 << self.rcv_wscale  # that a window field can say
        if limit > most:
            limit = most
        edge = self.rcv_nxt + min(free, most)
        opens = edge - self.rcv_adv
        early = early and opens * 4 >= limit
        if (offered * 2 < limit or early) and opens >= min(limit // 2, 2 * self.mss):
            self.ack_now = True  # a window update, once it is worth a segment (RFC 9293 MUST-39)
            self.touch()

    def _pressed(self) -> bool:
        """Memory is running out: out-of-order data goes first, then growth (docs/memory.md)."""
        ctx = self.ctx
        return ctx.memory * 4 > ctx.config.memory * 3

    # The peer's side

    def _text(self, buf: bytes, start: int, end: int, seq: int, gso_size: int, now: Micros) -> None:
        """Payload `buf[start:end]` whose first byte is `seq`; it overlaps the window (checked by the caller)."""
        ctx = self.ctx
        nxt, began = self.rcv_nxt, seq
        rx = self.rx
        if (
            seq != nxt
            or nxt + end - start > self.rcv_adv
            or self.orphan
            or self.peer_fin >= 0
            or ctx.memory >= ctx.config.memory
        ):
            if self.orphan:
                # RFC 9293 3.6.1 / RFC 1122 4.2.2.13: nobody will read it; the peer must know.
                ctx.counters.drops[Drop.AFTER_CLOSE] += 1
                self._reset_orphan(now)
                return
            if seq < nxt:  # its beginning is old: a retransmission that overlaps
                if self.use_sack:
                    self.dsack = (seq, min(nxt, seq + end - start))
                start += nxt - seq
                seq = nxt
                self.ack_now = True
            if 0 <= self.peer_fin < seq + end - start:
                end = start + max(self.peer_fin - seq, 0)  # behind its own FIN a peer has nothing to say
            if seq + end - start > self.rcv_adv:
                if self.policy.takes_beyond_window and (rx is None or not rx.size):
                    if seq == nxt:
                        self.rcv_adv = seq + end - start
                        gso_size = self.quick_acks = 0  # its ACK does not hurry: there is no window to offer
                else:
                    end = start + max(self.rcv_adv - seq, 0)  # beyond the window: cut
                    if self.policy.takes_beyond_window:
                        end = start
                    self.ack_now = True
            if start >= end:
                self.touch()
                return
            if ctx.memory >= ctx.config.memory and rx is not None and rx.size:
                ctx.counters.drops[Drop.NO_MEMORY] += 1
                return
        if rx is None:
            rx = self.rx = ReceiveBuffer()
        if seq == nxt:
            size = end - start
            rx.chunks.append(buf[start:end] if size < SMALL else piece(buf, start, end))
            rx.size += size
            ctx.memory += size
            self.rcv_nxt = nxt + size
            if self.assembler is None:
                self.ack_due += 1 if not gso_size else -(-size // gso_size)
                if self.quick_acks:
                    self.quick_acks -= 1
                    self.ack_now = True
            else:
                first = self.assembler.ranges[0]
                # RFC 2883 4: part of it had come before; of several such parts the first is reported.
                if self.use_sack and nxt == began and first[0] < self.rcv_nxt:
                    self.dsack = (first[0], min(first[1], self.rcv_nxt))
                # RFC 5681 4.2: "A TCP receiver SHOULD send an immediate ACK when the incoming segment fills in
                # all or part of a gap".
                self._close_gap(rx)
                self.ack_now = True
            self._wake()
            self.touch()
            return
        if self._pressed():
            ctx.counters.drops[Drop.NO_MEMORY] += 1
        else:
            assembler = self.assembler
            if assembler is None:
                assembler = self.assembler = Assembler()
            if self.use_sack:
                self.dsack = assembler.known(seq, seq + end - start) or self.dsack
            ctx.memory += assembler.insert(seq, piece(buf, start, end))
        self._send_ack(now)  # a duplicate ACK for each (RFC 5681 4.2), not one per batch

    def _close_gap(self, rx: ReceiveBuffer) -> None:
        assembler = self.assembler
        assert assembler is not None
        before = rx.size + assembler.size
        self.rcv_nxt = assembler.take_in_order(self.rcv_nxt, rx)
        self.ctx.memory += rx.size + assembler.size - before
        if self.rcv_adv < self.rcv_nxt:
            self.rcv_adv = self.rcv_nxt  # more was taken than had been offered
        if not assembler.ranges:
            self.assembler = None

    def _reset_orphan(self, now: Micros) -> None:
        raise AssertionError
