"""A bottleneck in virtual time: flows send packets through one FIFO queue and get an acknowledgement for each.

TCP is reduced to what congestion control sees: a packet overtaken by three is lost, recovery holds the
window at `ssthresh`, silence of a second is a timeout. Lost data is not repaired; only rates matter here.
"""

import heapq
from collections import deque

from umuxstack.core.tcp.congestion.base import OPEN, RECOVERY, CongestionControl, RateSample
from umuxstack.core.units import Micros

MSS = 1440
SECOND = 1_000_000
TIMEOUT = SECOND


class Packet:
    def __init__(self, number: int, sent: int, flow: "Flow", app_limited: bool) -> None:
        self.number = number
        self.sent = sent
        self.prior_delivered = flow.delivered
        self.delivered_at = flow.delivered_at or sent
        self.first_sent = flow.first_sent or sent
        self.app_limited = app_limited


class Flow:
    """A sender that always has data, or produces `app_rate` bytes per second; starts at `start` microseconds."""

    def __init__(self, cc: CongestionControl, start: int = 0, app_rate: int = 0) -> None:
        self.cc = cc
        self.start = start
        self.app_rate = app_rate
        self.outstanding: deque[Packet] = deque()
        self.next_number = 0
        self.delivered = 0  # bytes
        self.delivered_at = 0
        self.first_sent = 0
        self.limited = False
        self.recovery_point = 0
        self.phase = OPEN
        self.srtt = 0
        self.next_send = start
        self.wake_at = -1  # pacing
        self.heard = start
        self.sample = RateSample()
        self.history: list[tuple[int, int]] = []  # (time, delivered)
        self.cwnds: list[tuple[int, int]] = []  # (time, cwnd)
        self.modes: list[object] = []  # the state's "mode", each once until it changes
        self.losses = 0

    def goodput(self, begin: int, end: int) -> float:
        """Bytes per second delivered between two times (microseconds)."""
        inside = [delivered for time, delivered in self.history if begin <= time <= end]
        return (inside[-1] - inside[0]) * SECOND / (end - begin)

    def acknowledged(self, packet: Packet, now: int) -> None:
        queue = self.outstanding
        cc = self.cc
        flight = len(queue) * MSS
        lost = 0
        while queue and queue[0].number < packet.number - 2:
            queue.popleft()
            lost += 1
        if packet in queue:
            queue.remove(packet)
        self.delivered += MSS
        self.delivered_at = now
        self.heard = now
        self.history.append((now, self.delivered))
        rtt = now - packet.sent
        self.srtt = rtt if not self.srtt else (7 * self.srtt + rtt) // 8
        if self.phase != OPEN and packet.number >= self.recovery_point:
            cc.on_recovery_end(Micros(now))
            self.phase = OPEN
        if lost:
            self.losses += lost
            if self.phase == OPEN:
                cc.on_loss(flight, Micros(now))
                self.phase = RECOVERY
                self.recovery_point = self.next_number
        sample = self._rate(packet, rtt, now)
        if self.phase == OPEN or cc.own_recovery or cc.phase != RECOVERY:
            cc.on_ack(MSS, rtt, len(queue) * MSS, Micros(now), self.limited, sample if cc.wants_samples else None)
        self.cwnds.append((now, cc.cwnd))
        mode = getattr(cc, "mode", None)
        if not self.modes or self.modes[-1] != mode:
            self.modes.append(mode)

    def _rate(self, packet: Packet, rtt: int, now: int) -> RateSample:
        sample = self.sample
        self.first_sent = packet.sent
        sample.delivered = self.delivered - packet.prior_delivered
        sample.interval = max(packet.sent - packet.first_sent, now - packet.delivered_at)
        sample.rtt = rtt
        sample.app_limited = packet.app_limited
        sample.prior_delivered = packet.prior_delivered
        return sample


class Bottleneck:
    """`rate` bytes per second, `delay` microseconds both ways together, room for `buffer` bytes."""

    def __init__(self, rate: int, delay: int, buffer: int, flows: list[Flow]) -> None:
        self.rate = rate
        self.delay = delay
        self.buffer = buffer
        self.flows = flows
        self.free_at = 0
        self.outage = (0, 0)  # everything sent between these times is lost
        self.lose_every = 0  # of each flow's packets, one in so many is lost; 0: none
        self.queue_samples: list[tuple[int, int]] = []
        self._events: list[tuple[int, int, Flow, Packet | None]] = []
        self._order = 0

    def run(self, until: int) -> None:
        for flow in self.flows:
            self._at(flow.start, flow, None)
            self._at(flow.start + TIMEOUT, flow, None)
        while self._events and self._events[0][0] <= until:
            now, _, flow, packet = heapq.heappop(self._events)
            if packet is not None:
                flow.acknowledged(packet, now)
            elif flow.wake_at == now:
                flow.wake_at = -1
            elif now > flow.start:
                self._timeout(flow, now)
            self._send(flow, now)

    def _timeout(self, flow: Flow, now: int) -> None:
        if flow.outstanding and now - flow.heard >= TIMEOUT:
            flow.cc.on_rto(len(flow.outstanding) * MSS, Micros(now))
            flow.phase = RECOVERY
            flow.recovery_point = flow.next_number
            flow.outstanding.clear()
            flow.heard = now
        self._at(now + TIMEOUT // 4, flow, None)

    def _send(self, flow: Flow, now: int) -> None:
        cc = flow.cc
        flow.limited = False
        while True:
            if flow.app_rate and flow.next_number * MSS > flow.app_rate * (now - flow.start) // SECOND:
                self._wake(flow, now + MSS * SECOND // flow.app_rate)
                return
            if (len(flow.outstanding) + 1) * MSS > cc.cwnd:
                flow.limited = True
                return
            rate = cc.pacing_rate(flow.srtt)
            if rate:
                if flow.next_send > now:
                    self._wake(flow, flow.next_send)
                    return
                flow.next_send = max(flow.next_send, now) + MSS * SECOND // rate
            if not flow.outstanding:
                flow.first_sent = flow.delivered_at = now
                flow.heard = now
            packet = Packet(flow.next_number, now, flow, bool(flow.app_rate))
            flow.next_number += 1
            flow.outstanding.append(packet)
            self._forward(flow, packet, now)

    def _forward(self, flow: Flow, packet: Packet, now: int) -> None:
        waiting = max(0, self.free_at - now) * self.rate // SECOND
        self.queue_samples.append((now, waiting))
        unlucky = self.lose_every and packet.number % self.lose_every == self.lose_every // 2
        if waiting + MSS > self.buffer or unlucky or self.outage[0] <= now < self.outage[1]:
            return
        self.free_at = max(self.free_at, now) + MSS * SECOND // self.rate
        self._at(self.free_at + self.delay, flow, packet)

    def _wake(self, flow: Flow, time: int) -> None:
        if flow.wake_at < 0 or time < flow.wake_at:
            flow.wake_at = time
            self._at(time, flow, None)

    def _at(self, time: int, flow: Flow, packet: Packet | None) -> None:
        self._order += 1
        heapq.heappush(self._events, (time, self._order, flow, packet))
